"""Rows as an audit makes them, for tests of what is done with them."""

from dataclasses import replace

from unlearnable.audit.store import Row, key_of


def row(
    protection: str = "cuda",
    right: int = 30,
    *,
    countermeasure: str = "none",
    recipe: str = "erm",
    model: str = "resnet9-w16",
    seed: int = 0,
    fraction: float | None = None,
    total: int = 100,
    **changes: object,
) -> Row:
    """A row of these words and counts; the others hold what a row may hold. Ten classes, so chance is 0.1."""
    fraction = (0.0 if protection == "clean" else 1.0) if fraction is None else fraction
    words = {"countermeasure": countermeasure, "recipe": recipe, "model": model, "seed": seed}
    spec = {"protection": protection, "fraction": fraction, **words}
    made = Row(
        **words,
        key=key_of(spec),
        protection=protection,
        fraction=fraction,
        accuracy=right / total,
        right=right,
        total=total,
        chance=0.1,
        per_class=[0.2, 0.4],
        confusion=[[10, 40], [30, 20]],
        history=[{"epoch": 1, "loss": 2.25, "accuracy": 0.125}],
        gradients=7,
        seconds=1.5,
        spec=spec,
        versions={"torch": "2"},
        finished="2026-01-01T00:00:00+00:00",
        halves=[[10, 50], [20, 50]],
    )
    return replace(made, **changes)
