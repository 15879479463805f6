"""AutoAttack: four attacks one after another, each on the pictures that are still named rightly.

Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
ICML 2020 (arXiv 2003.01690). The attacks are the authors' own, from the ``pyautoattack`` package.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn

from unlearnable.attacks.base import Attack, attacks, frozen
from unlearnable.budgets import Linf
from unlearnable.errors import expected

_TARGETS: Final = 9  # classes that the targeted attacks try, where there are as many others
_LEAST_CLASSES: Final = {"standard": 4, "rand": 3}  # by which the difference-of-logits-ratio loss divides


@attacks.register("autoattack")
@dataclass(frozen=True, kw_only=True)
class AutoAttack(Attack):
    """AutoAttack with its published settings.

    version: "standard" is APGD with cross-entropy, targeted APGD, targeted FAB (100 steps each, 9 target classes or
        as many as there are), Square (5,000 queries). "rand", for networks that answer at random, is APGD with
        cross-entropy and with the difference-of-logits-ratio loss, each gradient the mean of 20.

    A picture that no attack turns, or that is named wrongly as it is, comes back unchanged. Doubts of the authors'
    checks (a random answer, probabilities in place of logits, no gradient) are logged as warnings of "auto-attack".

    Calling it raises InputError for networks of fewer than 4 classes (3 for "rand").
    """

    version: Literal["standard", "rand"] = "standard"

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        import pyautoattack

        with borrowed(model, images, generator) as (logits, seed):
            device = images.device
            images, labels = images.detach().clone(memory_format=torch.contiguous_format), labels.clone()
            classes = logits(images[:1]).shape[1]
            self.check(classes)
            attack = pyautoattack.AutoAttack(
                logits,
                norm="Linf" if isinstance(self.budget, Linf) else "L2",
                eps=self.budget.radius,
                seed=seed,
                device=device,
                version=self.version,
            )
            for targeted in (attack.apgd_targeted, attack.fab):
                targeted.n_target_classes = min(_TARGETS, classes - 1)
            changed: Tensor = attack.run_standard_evaluation(images, labels, batch_size=len(images))[0]
        return changed

    def check(self, classes: int) -> None:
        least = _LEAST_CLASSES[self.version]
        if classes < least:
            raise expected(
                f"at least {least} classes for this version of AutoAttack",
                f"a network of {classes}",
                "its loss compares the answers for that many; use fgsm or pgd with many steps and restarts",
            )


@contextmanager
def borrowed(
    model: nn.Module, images: Tensor, generator: torch.Generator | None
) -> Iterator[tuple[Callable[[Tensor], Tensor], int]]:
    """Hold a network still for an attack of the package; give its answers in full precision, and a seed.

    The package seeds and draws from PyTorch's own generators, and turns off whoever traces the interpreter: both are
    as they were afterwards.
    """

    def logits(images: Tensor) -> Tensor:
        answer: Tensor = model(images)
        return answer.float()

    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device if generator else "cpu"))
    trace = sys.gettrace()
    with frozen(model), torch.random.fork_rng([images.device] if images.device.type == "cuda" else []):
        try:
            yield logits, seed
        finally:
            sys.settrace(trace)
