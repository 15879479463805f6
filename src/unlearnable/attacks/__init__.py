"""Gradient attacks: pictures changed, within a budget, so that a network errs."""

import inspect
from string import digits

from unlearnable.attacks.autoattack import AutoAttack as AutoAttack
from unlearnable.attacks.base import Attack as Attack
from unlearnable.attacks.base import Loss as Loss
from unlearnable.attacks.base import attacks as attacks
from unlearnable.attacks.base import cross_entropy as cross_entropy
from unlearnable.attacks.base import frozen as frozen
from unlearnable.attacks.eot import EOTPGD as EOTPGD
from unlearnable.attacks.fgsm import fgsm as fgsm
from unlearnable.attacks.nes import NES as NES
from unlearnable.attacks.pgd import PGD as PGD
from unlearnable.attacks.square import Square as Square
from unlearnable.budgets import Budget
from unlearnable.errors import expected


def named(name: str, *, budget: Budget, **options: object) -> Attack:
    """Build an attack by its name, to which a number of steps may be added.

    >>> from unlearnable.budgets import Linf
    >>> named("pgd20", budget=Linf.of_255(8)).steps
    20

    Raises InputError for an unknown name, with the nearest one, and for steps of an attack that has none to choose.
    """
    base = name.rstrip(digits)
    steps = name.removeprefix(base)
    if not steps:
        return attacks.create(name, budget=budget, **options)
    if "steps" not in inspect.signature(attacks.builder(base)).parameters:
        raise expected(f"no number of steps after {base}, which has none to choose", repr(name), f"write {base!r}")
    return attacks.create(base, budget=budget, steps=int(steps), **options)
