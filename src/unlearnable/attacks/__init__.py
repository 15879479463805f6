"""Gradient attacks: pictures changed, within a budget, so that a network errs."""

import inspect
import re
from typing import Final

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

_NAMED: Final = re.compile(r"(?P<base>.*?)(?P<steps>\d+)?(?:x(?P<restarts>\d+))?")


def named(name: str, *, budget: Budget, **options: object) -> Attack:
    """Build an attack by its name, to which a number of steps and, after an x, of restarts may be added.

    >>> from unlearnable.budgets import Linf
    >>> attack = named("pgd100x5", budget=Linf.of_255(8))
    >>> attack.steps, attack.restarts
    (100, 5)

    Raises InputError for an unknown name, with the nearest one, and for steps or restarts of an attack that has none
    to choose.
    """
    match = _NAMED.fullmatch(name)
    assert match is not None  # noqa: S101 - it takes any name
    base = match["base"]
    takes = inspect.signature(attacks.builder(base)).parameters
    for what in ("steps", "restarts"):
        if match[what] is not None:
            if what not in takes:
                raise expected(
                    f"no number of {what} after {base}, which has none to choose", repr(name), f"write {base!r}"
                )
            options[what] = int(match[what])
    return attacks.create(base, budget=budget, **options)
