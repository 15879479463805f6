"""The house: a part imports from floors below its own, and from no neighbour; at the top alone modules may."""

import ast
from pathlib import Path

import pytest

import unlearnable

SOURCE = Path(unlearnable.__file__).parent
FLOORS = (
    {"errors", "compiled", "shares", "workers"},
    {"keys", "budgets", "registry", "options", "pictures"},
    {"plots", "pages", "models"},
    {"attacks"},
    {"training"},
    {"countermeasures"},
    {"protections", "audit", "theory"},
)
VERBS = len(FLOORS)  # modules of their own at the top, which may call one another
LOWEST = {part: floor for floor, parts in enumerate(FLOORS) for part in parts}


def floor(part):
    return LOWEST.get(part, VERBS + (part == "cli"))


def imported(module):
    """Tell the parts of the package that a module imports, wherever it does."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("unlearnable."))


PARTS = {}
for path in SOURCE.rglob("*.py"):
    PARTS.setdefault(path.relative_to(SOURCE).parts[0].removesuffix(".py"), []).append(path)


def test_every_part_has_its_floor():
    assert set(LOWEST) <= set(PARTS)
    assert {part for part in PARTS if (SOURCE / part).is_dir()} - {"cli", "templates"} <= set(LOWEST)


@pytest.mark.parametrize("part", sorted(PARTS.keys() - {"__init__", "__main__"}))
def test_imports_come_from_floors_below(part):
    for module in PARTS[part]:
        for other in PARTS.keys() & set(imported(module)) - {part}:
            verbs = floor(part) == floor(other) == VERBS
            assert floor(other) < floor(part) or verbs, f"{module.relative_to(SOURCE)} imports from {other}"
