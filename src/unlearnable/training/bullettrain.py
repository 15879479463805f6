"""BulletTrain: robust training that spends its work where it teaches most, near the decision boundary.

Hua, Zhang, Guo, Zhang, Suh, "BulletTrain: Accelerating Robust Neural Network Training via Boundary Example Mining",
NeurIPS 2021 (arXiv 2109.14707). Each step sorts its pictures into three groups by how the network answers to them as
they are: outliers, named wrongly; robust ones, named rightly by a margin that hardly any attack overcomes, which get a
short attack; those in between, near the boundary, which get the whole of it. With AugMix, it is augmented views that
are given and withheld.

The constants are those of a re-implementation that its authors attribute to the paper (AttackRider, IJCAI 2025); of the
paper itself no code is known. One is ours: outliers, which the paper does not attack at all (:data:`PUBLISHED`), get a
step. While they are many they would teach nothing of robustness, and that cost 2 points of it (docs/robust.md).
"""

from dataclasses import dataclass, field, replace
from typing import Final

import torch
from torch import Tensor, nn

from unlearnable.attacks.base import Attack, frozen
from unlearnable.attacks.pgd import PGD, answers, stepped
from unlearnable.errors import expected
from unlearnable.registry import Registry
from unlearnable.training import distributed
from unlearnable.training.augmix import VIEWS, AugMix
from unlearnable.training.checkpoint import Split
from unlearnable.training.objectives import Objective, Outcome, Robust

OUTLIER: Final = 0
BOUNDARY: Final = 1
ROBUST: Final = 2


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much a picture is attacked: so many steps, each of so many of the budget's radii."""

    steps: int
    size: float

    def __post_init__(self) -> None:
        if self.steps < 0 or not self.size > 0:
            raise expected("0 steps or more, of a size above 0", f"{self.steps} of {self.size:g}", "change them")


accelerators: Registry["BulletTrain"] = Registry("accelerator")


@accelerators.register("bullettrain")
@dataclass(frozen=True, kw_only=True)
class BulletTrain:
    """How pictures are sorted, and what each group gets.

    boundary: None for what the recipe gives all pictures without it: 10 steps of a quarter of the radius, N_B.
    robust: N_R, 2 steps of 3/4 of the radius. outlier: N_O, one of the whole of it; none in the paper.
    views: of AugMix, how many augmented ones outliers, boundary and robust pictures get, in this order; 2 is all.
    gamma, momentum: of the reference A, which begins at 0 and after each step becomes momentum A + (1 - momentum) gamma
        times the share of the batch that is named rightly under attack. About this share of a batch is then robust.

    Raises InputError for values out of range.
    """

    boundary: Effort | None = None
    robust: Effort = Effort(steps=2, size=0.75)
    outlier: Effort = Effort(steps=1, size=1.0)
    views: tuple[int, int, int] = (0, VIEWS, 0)
    gamma: float = 0.8
    momentum: float = 0.9

    def __post_init__(self) -> None:
        for name in ("gamma", "momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise expected(f"a {name} from 0 to 1", f"{getattr(self, name):g}", "0.8 and 0.9 are the paper's")
        if len(self.views) != 3 or not all(0 <= views <= VIEWS for views in self.views):
            raise expected(f"three numbers of views from 0 to {VIEWS}", str(self.views), "(0, 2, 0) is usual")

    def over(self, objective: Objective) -> tuple[Objective, "Memory"]:
        """Return an objective whose attack, or whose views, are spent by these rules, and what its run remembers.

        Raises InputError for an objective with neither a PGD attack nor views to spend.
        """
        memory = Memory()
        if isinstance(objective, AugMix):
            return MiningViews(augmix=objective, rule=self, memory=memory), memory
        attack = objective.attack if isinstance(objective, Robust) else None
        if not (isinstance(objective, Robust) and isinstance(attack, PGD)):
            wanted, remedy = "a recipe with a PGD attack to accelerate", "choose adversarial, trades, mart or augmix"
            raise expected(wanted, type(attack or objective).__name__, remedy)
        if attack.restarts > 1:
            raise expected("one restart, to accelerate an attack", str(attack.restarts), "leave the others out")
        return replace(objective, attack=Mining(budget=attack.budget, attack=attack, rule=self, memory=memory)), memory


PUBLISHED: Final = BulletTrain(outlier=Effort(steps=0, size=1.0))
"""The paper's rule."""


class Memory(nn.Module):
    """What a run remembers from step to step.

    accuracy: the reference A, (), float64. split: how the last step's pictures were sorted, over all processes.
    """

    accuracy: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("accuracy", torch.zeros((), dtype=torch.float64))
        self.split = Split(0, 0, 0)

    def note(self, group: Tensor, right: Tensor, rule: BulletTrain) -> None:
        """Take down a step: the group of each picture, (count,), and whether it is named rightly under attack."""
        counts = torch.cat([group.bincount(minlength=3), right.sum()[None]])
        several = torch.distributed.is_available() and torch.distributed.is_initialized()
        *split, named = (distributed.add_up(counts) if several else counts).tolist()
        self.split = Split(*split)
        self.accuracy.mul_(rule.momentum).add_((1 - rule.momentum) * rule.gamma * named / sum(split))


def signed_spread(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how surely pictures are named, (count,), negative for those that are named wrongly.

    It is the standard deviation of the softmax over the classes: the signed prediction variance, on another scale.

    >>> spread = signed_spread(torch.tensor([[2.0, 0.0], [0.1, 0.0], [2.0, 0.0]]), torch.tensor([0, 0, 1]))
    >>> [round(one, 3) for one in spread.tolist()]
    [0.539, 0.035, -0.539]
    """
    spread = logits.softmax(1).std(1)
    return spread.where(logits.argmax(1) == labels, -spread)


def grouped(spread: Tensor, accuracy: Tensor) -> Tensor:
    """Sort a batch by its signed spread, (count,), into :data:`OUTLIER`, :data:`BOUNDARY` and :data:`ROBUST`.

    Outliers are below zero; robust are those above the (1 - A)-quantile of the batch, if that is above zero.

    >>> grouped(torch.tensor([-0.3, 0.1, 0.2, 0.3]), torch.tensor(0.5)).tolist()
    [0, 1, 2, 2]
    """
    threshold = spread.quantile((1 - accuracy).clamp(0, 1).to(spread.dtype)).clamp(min=0)
    return (spread >= 0).long() + (spread > threshold).long()


@dataclass(frozen=True, kw_only=True)
class Mining(Attack):
    """PGD that gives each picture of a batch the effort that its group gets.

    It gives every picture the very steps that it would get alone, and no other: those that get more steps stand before
    those that get fewer, in memory too, so that each step is one pass of all that still move. Only pictures of one step
    are put together: the network changes with each, and its next batch has to be attacked as it is then.

    Beside the steps it takes one forward pass of the batch as it is, to sort it, and one of the attacked pictures, for
    the reference accuracy.

    attack: whose start, loss and budget are taken. memory: changes with every call.
    """

    attack: PGD
    rule: BulletTrain
    memory: Memory = field(default_factory=Memory, repr=False, compare=False)

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        _check_whole(labels)
        images = images.detach()
        with frozen(model):
            clean = answers(model, images)
            group = grouped(signed_spread(clean, labels), self.memory.accuracy)
            told = clean.softmax(1) if self.attack.from_answers else labels
            which, moved = self._climb(model, images, told, group, generator)
            right = clean.argmax(1) == labels
            if len(which):
                right[which] = answers(model, moved).argmax(1) == labels[which]
        self.memory.note(group, right, self.rule)
        changed = images.clone()
        changed[which] = moved
        return changed

    def _climb(
        self, model: nn.Module, images: Tensor, told: Tensor, group: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Return which pictures are attacked, (attacked,), and what becomes of them."""
        begun = self.attack.begin(images, generator)
        efforts = (self.rule.outlier, self.rule.boundary, self.rule.robust)  # in the order of their numbers
        takes = [self.attack.steps if effort is None else effort.steps for effort in efforts]
        strides = [self.attack.stride if effort is None else effort.size * self.budget.radius for effort in efforts]
        steps = torch.tensor(takes, device=images.device)[group]
        order = steps.argsort(descending=True, stable=True)
        left = steps.bincount().flip(0).cumsum(0).flip(0).tolist()[1:]  # pictures of at least 1, 2 ... steps
        which = order[: left[0] if left else 0]
        sizes = images.new_tensor(strides)[group[which]][:, None, None, None]
        images, moved, told = images[which], begun[which], told[which]
        for count in left:
            gradient = self.attack.gradient(model, moved[:count], told[:count], generator)
            moved[:count] = stepped(images[:count], moved[:count], gradient, sizes[:count], self.budget)
        return which, moved


@dataclass(frozen=True, kw_only=True)
class MiningViews(Objective):
    """AugMix that augments the pictures of a batch by their group.

    The paper's rule is not public. This one is what its attack suggests: a view takes the place of a step, boundary
    pictures get both views, and the others only the clean one, whose cross-entropy all get. "Under attack" becomes
    "augmented": a picture withstands when all its views are named rightly, in the training pass, which costs nothing
    more; one that has none when it is itself.

    memory: changes with every call.
    """

    augmix: AugMix
    rule: BulletTrain
    memory: Memory = field(default_factory=Memory, repr=False, compare=False)

    def __call__(
        self, model: nn.Module, images: Tensor, targets: Tensor, smoothing: float, generator: torch.Generator
    ) -> Outcome:
        _check_whole(targets)
        with frozen(model):
            clean = answers(model, images)
        group = grouped(signed_spread(clean, targets), self.memory.accuracy)
        views = torch.tensor(self.rule.views, device=images.device)[group]
        outcome, right = self.augmix.of_views(model, images, targets, smoothing, views, generator)
        withstood = torch.where(views > 0, right == views, clean.argmax(1) == targets)
        self.memory.note(group, withstood, self.rule)
        return outcome


def _check_whole(labels: Tensor) -> None:
    if labels.ndim != 1:
        remedy = "leave out the augmentation that mixes, or --accelerate"
        raise expected("one class a picture, to tell which are named wrongly", "mixed labels", remedy)
