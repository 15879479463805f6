"""The fast gradient sign method: one step of the whole budget along the gradient at the picture.

Goodfellow, Shlens, Szegedy, "Explaining and Harnessing Adversarial Examples", ICLR 2015, section 4; in L2, the fast
gradient method.
"""

from unlearnable.attacks.base import Loss, attacks, cross_entropy
from unlearnable.attacks.pgd import PGD
from unlearnable.budgets import Budget


@attacks.register("fgsm")
def fgsm(*, budget: Budget, loss: Loss = cross_entropy) -> PGD:
    """Return the one step of PGD that FGSM is."""
    return PGD(budget=budget, steps=1, step_size=budget.radius, random_start=False, loss=loss)
