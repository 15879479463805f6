"""The grid: which runs there are."""

import pytest

from unlearnable.audit.grid import PLAIN, Attempt, Grid, recipe_options
from unlearnable.budgets import L2, Linf
from unlearnable.errors import InputError

COIN = Attempt("coin", "erm")


def told(grid: Grid, *names: str) -> list[str]:
    return [str(cell) for cell in grid.cells(names or ("cuda",))]


def test_clean_and_protected_by_plain_training_is_the_least():
    assert told(Grid()) == ["clean, none, erm, resnet9-w16, seed 0", "cuda, none, erm, resnet9-w16, seed 0"]


def test_the_clean_row_is_there_for_every_model_and_seed():
    cells = Grid(attempts=(COIN,), models=("a", "b"), seeds=(0, 5)).cells(["cuda"])
    clean = {(cell.model, cell.seed) for cell in cells if cell.protection == "clean" and cell.way[:2] == PLAIN}
    assert clean == {(model, seed) for model in "ab" for seed in (0, 5)}
    assert len(cells) == 8


def test_partly_protected_sets_have_both_their_baselines():
    grid = Grid(attempts=(PLAIN,), mixed=(COIN,), fractions=(0.2, 0.8))
    assert [line.removesuffix(", resnet9-w16, seed 0") for line in told(grid, "cuda", "sem")] == [
        "clean, none, erm",
        "cuda, none, erm",
        "cuda, coin, erm",
        "sem, none, erm",
        "sem, coin, erm",
        "cuda 80 %, coin, erm",
        "sem 80 %, coin, erm",
        "clean subset 80 %, coin, erm",
        "cuda 20 %, coin, erm",
        "sem 20 %, coin, erm",
        "clean subset 20 %, coin, erm",
    ]


def test_other_models_are_tried_with_less():
    grid = Grid(attempts=(PLAIN, COIN), other_models=("b",), on_others=(COIN,), fractions=(0.5,))
    assert [line for line in told(grid) if "b, seed 0" in line] == [
        "clean, none, erm, b, seed 0",
        "clean, coin, erm, b, seed 0",
        "cuda, coin, erm, b, seed 0",
    ]


def test_no_run_is_there_twice():
    cells = Grid(attempts=(PLAIN, COIN, COIN), clean=(PLAIN, COIN), fractions=(0.5, 0.5, 1.0), seeds=(1, 1)).cells(
        ["a"]
    )
    assert len(cells) == len(set(cells)) == 8


def test_options_are_a_product():
    grid = Grid.product(["none", "coin"], ["erm", "mixup"], models=("a",))
    assert grid.attempts == (("none", "erm"), ("none", "mixup"), ("coin", "erm"), ("coin", "mixup"))
    assert Grid.product() == Grid()


def test_a_file_says_the_same(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(
        "models: [a, b]\nseeds: 3\nfractions: [0.2, 1]\nrecipes: [erm, 'adversarial:budget=4/255']\n"
        "countermeasures: [none, coin]\nattempts: [[coin+jpeg, erm]]\nmixed: [[none, erm]]\nclean: all\n"
        "other_models: c\non_others: [[coin, erm]]\n"
        "epochs: 4\nbatch_size: 64\n"
    )
    attempts = (("coin+jpeg", "erm"), *((c, r) for c in ("none", "coin") for r in ("erm", "adversarial:budget=4/255")))
    assert Grid.from_file(path) == Grid(
        attempts=tuple(Attempt(*pair) for pair in attempts),
        models=("a", "b"),
        seeds=(0, 1, 2),
        fractions=(0.2, 1.0),
        mixed=(PLAIN,),
        clean=tuple(Attempt(*pair) for pair in attempts),
        other_models=("c",),
        on_others=(COIN,),
        epochs=4,
        batch_size=64,
    )
    path.write_text("models: a\nseeds: [3]\n")
    assert Grid.from_file(path) == Grid(models=("a",), seeds=(3,))


BAD_FILES = {
    "[1, 2]": "expected a grid as YAML: names and values, found list",
    "a: [": "found .*grid.yaml, which cannot be read .*: see docs",
    "modles: a": "found 'modles': did you mean 'models'",
    "epochs: many": "expected a whole number for epochs, found 'many'",
    "seeds: [0.5]": "expected a whole number for seeds, found 0.5",
    "fractions: [yes]": "expected a number for fractions, found True",
    "attempts: [coin]": r"expected \[countermeasure, recipe\] in attempts, found 'coin'",
    "attempts: [[coin, erm, a]]": "write for example",
    "attempts: all": "in attempts, found 'all'",
    "seeds: 0": "expected at least one of seeds",
    "models: []": "expected at least one of models",
    "epochs: 0": "expected epochs of 1 or more, found 0",
    "batch_size: -1": "expected batch size of 1 or more, found -1",
    "fractions: [0]": "expected fractions above 0 and at most 1, found 0",
    "fractions: [20]": "found 20: 0.2 protects a fifth",
    "seeds: [-1]": "expected seeds of 0 or more",
}


@pytest.mark.parametrize("text", BAD_FILES)
def test_a_file_that_is_no_grid_is_refused(text, tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=BAD_FILES[text]) as told:
        Grid.from_file(path)
    assert "\n" not in str(told.value)


def test_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match="which cannot be read"):
        Grid.from_file(tmp_path / "none.yaml")


def test_a_file_runs_no_code(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text("models: !!python/object/apply:os.getcwd []")
    with pytest.raises(InputError, match="cannot be read"):
        Grid.from_file(path)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("erm", ("erm", {})),
        ("adversarial:budget=4/255", ("adversarial", {"budget": Linf.of_255(4)})),
        ("adversarial:budget=l2:0.5,steps=7", ("adversarial", {"budget": L2(0.5), "steps": 7})),
        ("erm:flip=false,learning_rate=0.1", ("erm", {"flip": False, "learning_rate": 0.1})),
    ],
)
def test_recipes_carry_options(text, options):
    assert recipe_options(text) == options


@pytest.mark.parametrize("text", ["erm:epochs", "erm:epochs=", "erm:=3", "adversarial:4/255"])
def test_options_without_a_value_are_refused(text):
    with pytest.raises(InputError, match="expected a recipe as NAME:option=value"):
        recipe_options(text)
