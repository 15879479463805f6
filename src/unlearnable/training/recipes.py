"""Recipes: an objective, an augmentation and a schedule under one name."""

import inspect
import math
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Final, Literal, get_args, get_type_hints

from unlearnable.attacks.masked import MaskedPGD
from unlearnable.attacks.pgd import PGD
from unlearnable.budgets import Budget, Linf
from unlearnable.errors import expected
from unlearnable.options import check
from unlearnable.registry import Registry
from unlearnable.training.augmentation import Augmentation, AutoAugment, CutMix, Cutout, Mixup, TrivialAugment
from unlearnable.training.augmix import AugMix
from unlearnable.training.bullettrain import BulletTrain
from unlearnable.training.objectives import MART, TRADES, Adversarial, CrossEntropy, Noisy, Objective, divergence
from unlearnable.training.rsr.lasso import LassoStep
from unlearnable.training.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a training run, beside the pictures, the network and the seed.

    learning_rate: the highest; how it goes, ``schedule`` says (see :func:`unlearnable.training.schedule.rate`).
    label_smoothing: share of the label that is spread over all classes, 0 to below 1.
    clip_norm: the gradient's length is cut to this; None leaves it alone.
    ema: per step, the share of the old value in an exponential moving average of the weights, which then is the
        network that comes out; None for the last weights.
    crop: pictures are shifted by up to this many pixels, at random, and filled up by reflection.
    flip: whether pictures are mirrored at random, left to right.
    augmentations: applied in this order, after crop and flip.
    accelerate: how the objective's attack, or its views, are spent, other than in full on each picture.
    trained: all weights, or those of the last layer alone (the others as in evaluation, BatchNorm included).
    noise: whether weights have noise on them, of learned strength (see :mod:`unlearnable.training.rsr.noise`).
    lasso, lasso_step: the price of the size of weights, 0 for none, and how it is charged (see
        :mod:`unlearnable.training.rsr.lasso`).

    Raises InputError for values out of range.
    """

    epochs: int = 30
    batch_size: int = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: Schedule = "one-cycle"
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    ema: float | None = None
    crop: int = 4
    flip: bool = True
    augmentations: tuple[Augmentation, ...] = ()
    objective: Objective = field(default_factory=CrossEntropy)
    accelerate: BulletTrain | None = None
    trained: Literal["all", "head"] = "all"
    noise: bool = False
    lasso: float = 0.0
    lasso_step: LassoStep = "proximal"

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 2), ("crop", 0)):
            if getattr(self, name) < least:
                raise expected(f"{name} of {least} or more", str(getattr(self, name)), "raise it")
        if not self.learning_rate >= 0:
            raise expected("a learning rate of 0 or more", str(self.learning_rate), "0.1 is usual for SGD")
        if not 0 <= self.momentum < 1:
            raise expected("a momentum from 0 to below 1", str(self.momentum), "0.9 is usual")
        if not 0 <= self.weight_decay < math.inf:
            raise expected("a weight decay of 0 or more", str(self.weight_decay), "5e-4 is usual for SGD")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise expected("a gradient's length above 0", str(self.clip_norm), "leave it out for no limit")
        if not 0 <= self.label_smoothing < 1:
            raise expected("a label smoothing from 0 to below 1", str(self.label_smoothing), "0.1 is usual")
        if self.ema is not None and not 0 < self.ema < 1:
            raise expected("an averaging share between 0 and 1", str(self.ema), "0.999 is usual")
        if not 0 <= self.lasso < math.inf:
            raise expected("a lasso of 0 or more", str(self.lasso), "1e-5 to 1e-3 is usual, 0 is none")
        if self.lasso_step not in get_args(LassoStep):
            raise expected(f"a lasso step of {' or '.join(get_args(LassoStep))}", repr(self.lasso_step), "choose one")
        if self.accelerate is not None:
            self.accelerate.over(self.objective)

    def spec(self) -> dict[str, Any]:
        """Describe the recipe in plain values, for results and fingerprints."""
        return {one.name: described(getattr(self, one.name)) for one in fields(self)}


def described(value: Any) -> Any:
    """Describe a value, nested dataclasses by their name and fields, in what JSON can hold.

    >>> described(Mixup(alpha=0.4))
    {'kind': 'Mixup', 'alpha': 0.4}
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {"kind": type(value).__name__} | {f.name: described(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    return value.__qualname__ if callable(value) else value


_NEAR: Final = 0.001  # deviation of where the attacks of TRADES and MART begin, in their authors' code

recipes: Registry[Recipe] = Registry("recipe")


def named(name: str, **options: Any) -> Recipe:
    """Build a recipe by its name, with its own options and any fields of :class:`Recipe` changed.

    >>> named("mixup", epochs=3).epochs, named("smoothing", sigma=0.5).objective
    (3, Noisy(sigma=0.5))

    Raises InputError for an unknown name, with the nearest one, for an option that the recipe does not have, and for a
    value of another kind.
    """
    builder = recipes.builder(name)
    own, shared = set(inspect.signature(builder).parameters), {one.name for one in fields(Recipe)}
    check(options, get_type_hints(Recipe) | get_type_hints(builder))
    if unknown := sorted(options.keys() - own - shared):
        takes = ", ".join(sorted(own)) or "none of its own"
        raise expected(f"options of the recipe {name} ({takes}) or of all recipes", unknown[0], "leave it out")
    made = builder(**{key: value for key, value in options.items() if key in own})
    return replace(made, **{key: value for key, value in options.items() if key in shared})


@recipes.register("erm")
def erm() -> Recipe:
    """Empirical risk minimisation: what everybody does."""
    return Recipe()


@recipes.register("cutout")
def cutout() -> Recipe:
    """ERM with a grey square over each picture."""
    return Recipe(augmentations=(Cutout(),))


@recipes.register("mixup")
def mixup() -> Recipe:
    """ERM on blended pictures."""
    return Recipe(augmentations=(Mixup(),))


@recipes.register("cutmix")
def cutmix() -> Recipe:
    """ERM on pictures with a piece of another one."""
    return Recipe(augmentations=(CutMix(),))


@recipes.register("autoaugment")
def autoaugment() -> Recipe:
    """ERM with AutoAugment's CIFAR-10 policy."""
    return Recipe(augmentations=(AutoAugment(),))


@recipes.register("trivialaugment")
def trivialaugment() -> Recipe:
    """ERM with TrivialAugment."""
    return Recipe(augmentations=(TrivialAugment(),))


@recipes.register("adversarial")
def adversarial(*, budget: Budget | None = None, steps: int = 10, awp: float = 0.0) -> Recipe:
    """Adversarial training with PGD, L∞ 8/255 and 10 steps unless others are given; awp perturbs the weights too.

    The audit's rows take smaller budgets: what wins back most of a protected set is about as large as what protects
    it (SEM's and CUDA's papers train at 4/255).
    """
    return Recipe(objective=Adversarial(attack=PGD(budget=budget or Linf.of_255(8), steps=steps), awp=awp))


@recipes.register("masked-adversarial")
def masked_adversarial(*, budget: Budget | None = None, steps: int = 10, masking: float = 1.0) -> Recipe:
    """Adversarial training with a radius that goes with each place's contrast; the budget is of ordinary places."""
    attack = MaskedPGD(budget=budget or Linf.of_255(8), steps=steps, masking=masking)
    return Recipe(objective=Adversarial(attack=attack))


@recipes.register("trades")
def trades(*, budget: Budget | None = None, steps: int = 10, awp: float = 0.0, beta: float = 6.0) -> Recipe:
    """TRADES, L∞ 8/255 and 10 steps unless others are given; beta trades clean accuracy for robustness."""
    attack = replace(_near(budget, steps), loss=divergence, from_answers=True)
    return Recipe(objective=TRADES(attack=attack, awp=awp, beta=_checked(beta)))


@recipes.register("mart")
def mart(*, budget: Budget | None = None, steps: int = 10, awp: float = 0.0, beta: float = 5.0) -> Recipe:
    """MART, L∞ 8/255 and 10 steps unless others are given; beta weighs the pictures that are named wrongly."""
    return Recipe(objective=MART(attack=_near(budget, steps), awp=awp, beta=_checked(beta)))


@recipes.register("augmix")
def augmix(*, severity: float = 3.0, weight: float = 12.0) -> Recipe:
    """AugMix: one answer to a picture and to two mixtures of simple changes of it; weight is that of the divergence."""
    return Recipe(objective=AugMix(severity=severity, weight=weight))


def _near(budget: Budget | None, steps: int) -> PGD:
    """Return PGD as TRADES and MART use it: it begins beside the picture, and its steps are radius / 4 at 10 steps."""
    return PGD(budget=budget or Linf.of_255(8), steps=steps, start_deviation=_NEAR)


def _checked(beta: float) -> float:
    if not 0 <= beta < math.inf:
        raise expected("a beta of 0 or more", str(beta), "5 or 6 is usual")
    return beta


@recipes.register("smoothing")
def smoothing(*, sigma: float = 0.25) -> Recipe:
    """Training under Gaussian noise, for randomized smoothing."""
    if not sigma > 0:
        raise expected("a sigma above 0", str(sigma), "0.12 to 1 is usual")
    return Recipe(objective=Noisy(sigma=sigma))


@recipes.register("finetune")
def finetune() -> Recipe:
    """ERM from a network trained before, with a tenth of the usual learning rate."""
    return Recipe(learning_rate=0.01)


@recipes.register("linear-probe")
def linear_probe() -> Recipe:
    """Train the last layer alone, of a network trained before."""
    return Recipe(trained="head")
