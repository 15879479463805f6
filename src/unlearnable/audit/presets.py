"""Ready-made grids: what each of them tries is told in ``docs/audit.md``."""

import difflib
from dataclasses import replace
from typing import Final

from unlearnable.audit.grid import PLAIN, Attempt, Grid
from unlearnable.errors import expected

AT: Final = "adversarial:budget=4/255"
"""Adversarial training as the papers of CUDA and SEM use it against protected sets."""

COLOUR: Final = ("grayscale", "gray-world")
"""Countermeasures that do nothing to grey pictures."""

_SINGLE: Final = (
    *("grayscale", "jpeg", "bit-depth", "coin", "rsk", "ueraser", "blur", "resize"),
    *("orthogonal-projection", "class-mean-removal", "equalize"),
)
_TOGETHER: Final = (
    *("coin+jpeg", "grayscale+coin", "grayscale+jpeg", "rsk+jpeg", "ueraser+jpeg"),
    *("grayscale+coin+jpeg", "equalize+coin+jpeg", "grayscale+equalize+coin+jpeg", "ueraser+coin+jpeg"),
)
_ALL_SINGLE: Final = (
    *_SINGLE,
    *("gaussian-filter", "median-filter", "bilateral-filter", "color-jitter", "autocontrast"),
    *("gray-world", "resized-crop", "spectrum-equalization", "deconvolution", "ueraser-max"),
    *("tone-matching", "pattern-removal", "whitening", "local-normalization", "echo-removal"),
    *("shade-removal", "veil-removal", "d-vae", "relabelling"),
)
_AGAINST_LAYERS: Final = (
    *("tone-matching+coin+jpeg", "tone-matching+grayscale+coin+jpeg", "tone-matching+equalize+coin+jpeg"),
    *("whitening+coin+jpeg", "local-normalization+coin+jpeg", "local-normalization+grayscale+coin+jpeg"),
    *("pattern-removal+coin+jpeg", "pattern-removal+local-normalization+coin+jpeg", "pattern-removal+equalize"),
    *("local-normalization+rsk", "pattern-removal+local-normalization+rsk"),
    *("pattern-removal+local-normalization+rsk+grayscale", "pattern-removal+echo-removal+equalize"),
    "pattern-removal+echo-removal+local-normalization+rsk+grayscale",
    "pattern-removal+local-normalization+spectrum-equalization+grayscale",
    *("local-normalization+spectrum-equalization+grayscale+jpeg", "relabelling+equalize"),
    "veil-removal+pattern-removal+local-normalization+rsk+grayscale",
    "relabelling+pattern-removal+local-normalization+rsk+grayscale",
)
"""What is written against the layers of stacks, together with what breaks a convolution and fine noise."""


def _plainly(*countermeasures: str) -> tuple[Attempt, ...]:
    return tuple(Attempt(name, PLAIN.recipe) for name in countermeasures)


def _recipes(*recipes: str) -> tuple[Attempt, ...]:
    return tuple(Attempt(PLAIN.countermeasure, recipe) for recipe in recipes)


_STANDARD: Final = (
    PLAIN,
    *_recipes("cutout", "mixup", "cutmix", AT),
    *_plainly(*_SINGLE, *_TOGETHER),
    *(Attempt(name, AT) for name in ("grayscale", "coin+jpeg")),
)
PROMISING: Final = (
    *("coin", "jpeg", "rsk", "grayscale", "equalize", "local-normalization", "ueraser", "resize", "bit-depth"),
    *("orthogonal-projection", "relabelling"),
)
"""Countermeasures that protections fell to, alone or put together, the most often first: a search tries them first."""
STRONG: Final = (
    *("grayscale+equalize+coin+jpeg", "pattern-removal+local-normalization+rsk+grayscale", "coin+jpeg"),
    *("pattern-removal+local-normalization+rsk", "local-normalization+rsk", "pattern-removal+equalize", "rsk+equalize"),
    *("local-normalization+spectrum-equalization+grayscale+jpeg", "equalize+coin+jpeg", "grayscale+coin+jpeg"),
    "rsk+jpeg",
)
"""Compositions that protections of one kind or of several fell to: a search tries them before it makes its own."""

_FULL: Final = (
    PLAIN,
    *_recipes("cutout", "mixup", "cutmix", "autoaugment", "smoothing:sigma=0.5", AT),
    *_recipes(*(f"adversarial:budget={budget}" for budget in ("8/255", "16/255", "l2:0.25", "l2:0.5", "l2:0.75"))),
    *_recipes("masked-adversarial:budget=6/255"),
    *_plainly(*_ALL_SINGLE, *_TOGETHER, *_AGAINST_LAYERS),
    *(Attempt(name, AT) for name in ("grayscale", "jpeg", "coin", "coin+jpeg", "grayscale+coin+jpeg")),
    *(Attempt(name, AT) for name in ("equalize", "local-normalization", "relabelling+local-normalization")),
    *(Attempt(name, "adversarial:budget=8/255") for name in ("grayscale", "equalize", "local-normalization")),
    Attempt("veil-removal+grayscale", "adversarial:budget=8/255"),
    Attempt("relabelling+local-normalization", "adversarial:budget=8/255"),
    *(Attempt("relabelling", recipe) for recipe in (AT, "adversarial:budget=8/255")),
)
_MIXED: Final = (PLAIN, Attempt("none", AT), Attempt("coin+jpeg", PLAIN.recipe))

PRESETS: Final = {
    "quick": Grid(attempts=(PLAIN, *_plainly("coin", "grayscale+jpeg")), epochs=3, batch_size=64),
    "standard": Grid(attempts=_STANDARD, clean=_STANDARD, seeds=(0, 1, 2), epochs=20),
    "full": Grid(
        attempts=_FULL,
        clean=_FULL,
        models=("resnet18",),
        other_models=("vgg16", "densenet121", "wrn-34-10"),
        on_others=(PLAIN, Attempt("none", AT), Attempt("coin", PLAIN.recipe)),
        seeds=(0, 1, 2),
        fractions=(0.2, 0.4, 0.6, 0.8, 1.0),
        mixed=_MIXED,
        epochs=100,
    ),
}
"""Grids by name."""


def preset(name: str) -> Grid:
    """Return a ready-made grid. Raises InputError for an unknown name."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(PRESETS)}"
        raise expected("a known preset", repr(name), remedy)
    return PRESETS[name]


def for_grey(grid: Grid) -> Grid:
    """Leave out what would leave grey pictures as they are.

    >>> for_grey(Grid(attempts=(Attempt("grayscale+coin", "erm"), Attempt("grayscale", "erm")))).attempts
    (Attempt(countermeasure='coin', recipe='erm'), Attempt(countermeasure='none', recipe='erm'))
    """

    def kept(attempt: Attempt) -> Attempt:
        return attempt._replace(countermeasure=colourless(attempt.countermeasure))

    mixed = None if grid.mixed is None else tuple(map(kept, grid.mixed))
    attempts, clean, others = (tuple(map(kept, some)) for some in (grid.attempts, grid.clean, grid.on_others))
    return replace(grid, attempts=attempts, clean=clean, mixed=mixed, on_others=others)


def colourless(countermeasure: str) -> str:
    """Leave out of a composition what does nothing to grey pictures.

    >>> colourless("grayscale+coin"), colourless("grayscale")
    ('coin', 'none')
    """
    return "+".join(part for part in countermeasure.split("+") if part not in COLOUR) or PLAIN.countermeasure
