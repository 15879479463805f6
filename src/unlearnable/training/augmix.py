"""AugMix: learn to give one answer to a picture and to mixtures of what chains of simple changes make of it.

Hendrycks, Mu, Cubuk, Zoph, Gilmer, Lakshminarayanan, "AugMix: A Simple Data Processing Method to Improve Robustness and
Uncertainty", ICLR 2020 (arXiv 1912.02781); constants of the authors' code for CIFAR. The four operations that resemble
the corruptions it is tested with are left out: colour, contrast, brightness and sharpness.

Every operation is Pillow's, computed for all pictures of a batch at once.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearnable.attacks.base import precise
from unlearnable.errors import expected
from unlearnable.training.objectives import Objective, Outcome

CHAINS: Final = 3  # mixed into one view
DEPTH: Final = 3  # operations of the longest chain
VIEWS: Final = 2  # of each picture, beside itself
_LEAST_LEVEL: Final = 0.1  # levels are drawn from here to the severity; the strength of an operation is a tenth of its
_WHOLE_LEVEL: Final = 10  # greatest a level
_SLACK: Final = 1e-3  # of a level: what is whole but for a rounding error stays whole
_LEAST_SHARE: Final = 1e-7  # of a class in the mean answer, so that its logarithm is finite


class Draws(NamedTuple):
    """What is random about some views.

    kinds: (views, chains, depth), places in :data:`OPERATIONS`. levels, signs: alike; signs are 1 or -1. depths:
    (views, chains), operations of each chain. weights: (views, chains), of the chains in the mixture. shares: (views,),
    of the mixture in the view; the rest is the picture.
    """

    kinds: Tensor
    levels: Tensor
    signs: Tensor
    depths: Tensor
    weights: Tensor
    shares: Tensor

    def of(self, which: Tensor) -> "Draws":
        """Select some of the views."""
        return Draws(*(one[which] for one in self))


def draw(count: int, severity: float, generator: torch.Generator) -> Draws:
    """Draw ``count`` views. Dirichlet(1, 1, 1) and Beta(1, 1), as normalised exponentials and as a uniform variable."""
    place, shape = generator.device, (count, CHAINS, DEPTH)
    exponentials = torch.empty(count, CHAINS, device=place).exponential_(generator=generator)
    return Draws(
        kinds=torch.randint(len(OPERATIONS), shape, generator=generator, device=place),
        levels=torch.empty(shape, device=place).uniform_(_LEAST_LEVEL, severity, generator=generator),
        signs=1 - 2 * torch.randint(2, shape, generator=generator, device=place),
        depths=torch.randint(1, DEPTH + 1, (count, CHAINS), generator=generator, device=place),
        weights=exponentials / exponentials.sum(1, keepdim=True),
        shares=torch.rand(count, generator=generator, device=place),
    )


def mixed(images: Tensor, draws: Draws) -> Tensor:
    """Return one view of each picture, (count, channels, height, width) on the 0 to 1 scale."""
    levels = (images * 255).round().repeat_interleave(CHAINS, 0)
    kinds, strengths, signs = (one.flatten(0, 1) for one in (draws.kinds, draws.levels, draws.signs))
    depths = draws.depths.flatten()
    for step in range(DEPTH):
        for kind, operation in enumerate(OPERATIONS):
            which = ((kinds[:, step] == kind) & (step < depths)).nonzero()[:, 0]
            if len(which):
                levels[which] = operation(levels[which], strengths[which, step] / _WHOLE_LEVEL, signs[which, step])
    chains = levels.view(-1, CHAINS, *images.shape[1:]) / 255
    mixture = (draws.weights[:, :, None, None, None].to(images.dtype) * chains).sum(1)
    view = images.lerp(mixture, draws.shares[:, None, None, None].to(images.dtype))
    return view.contiguous(memory_format=torch.channels_last)


# The operations: of (count, channels, height, width) whole levels from 0 to 255, each by its own share of the greatest
# strength and its own sign.


def autocontrast(levels: Tensor, share: Tensor, sign: Tensor) -> Tensor:
    """Stretch each channel to 0 to 255."""
    low, high = levels.amin((2, 3), keepdim=True), levels.amax((2, 3), keepdim=True)
    stretched = ((levels - low) * 255 / (high - low)).floor()
    return stretched.where(high > low, levels)


def equalize(levels: Tensor, share: Tensor, sign: Tensor) -> Tensor:
    """Make all levels of each channel about as frequent."""
    flat = levels.flatten(2).flatten(0, 1).long()  # (count channels, pixels)
    counts = torch.zeros(len(flat), 256, dtype=torch.int64, device=flat.device)
    counts.scatter_add_(1, flat, torch.ones_like(flat))
    of_highest = counts.gather(1, flat.amax(1, keepdim=True))
    step = (flat.shape[1] - of_highest) // 255
    below = counts.cumsum(1) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    equal = table.gather(1, flat).where(step > 0, flat)
    return equal.view(levels.shape).to(levels.dtype)


def posterize(levels: Tensor, share: Tensor, sign: Tensor) -> Tensor:
    """Keep the upper 4 bits, or fewer."""
    lost = 2 ** (4 + (share * 4).floor())[:, None, None, None]
    return levels - levels % lost


def solarize(levels: Tensor, share: Tensor, sign: Tensor) -> Tensor:
    """Invert what is bright."""
    threshold = 256 - (share * 256).floor()[:, None, None, None]
    return levels.where(levels < threshold, 255 - levels)


def rotate(levels: Tensor, share: Tensor, sign: Tensor) -> Tensor:
    """Turn by up to 30 degrees, in whole degrees, about the centre."""
    height, width = levels.shape[2:]
    angle = -(sign * (share * 30).floor()).double() * math.pi / 180
    cosine, sine, half, middle = angle.cos(), angle.sin(), width / 2, height / 2
    across = (cosine, sine, half - cosine * half - sine * middle)
    down = (-sine, cosine, middle + sine * half - cosine * middle)
    return _moved(levels, across, down)


def shear_x(levels: Tensor, share: Tensor, sign: Tensor) -> Tensor:
    """Slant by up to 0.3 pixels a row."""
    one, slant = torch.ones_like(share), sign * share * 0.3
    return _moved(levels, (one, slant, 0 * one), (0 * one, one, 0 * one))


def shear_y(levels: Tensor, share: Tensor, sign: Tensor) -> Tensor:
    """Slant by up to 0.3 pixels a column."""
    one, slant = torch.ones_like(share), sign * share * 0.3
    return _moved(levels, (one, 0 * one, 0 * one), (slant, one, 0 * one))


def translate_x(levels: Tensor, share: Tensor, sign: Tensor) -> Tensor:
    """Shift sideways by up to a third of the width, in whole pixels."""
    one, shift = torch.ones_like(share), sign * (share * levels.shape[3] / 3).floor()
    return _moved(levels, (one, 0 * one, shift), (0 * one, one, 0 * one))


def translate_y(levels: Tensor, share: Tensor, sign: Tensor) -> Tensor:
    """Shift up or down by up to a third of the height, in whole pixels."""
    one, shift = torch.ones_like(share), sign * (share * levels.shape[2] / 3).floor()
    return _moved(levels, (one, 0 * one, 0 * one), (0 * one, one, shift))


def _moved(levels: Tensor, across: Sequence[Tensor], down: Sequence[Tensor]) -> Tensor:
    """Take pixel (x, y) from (a x + b y + c, d x + e y + f), bilinearly; black outside. Coordinates are of centres."""
    height, width = levels.shape[2:]
    y = torch.arange(height, device=levels.device, dtype=torch.float64)[:, None] + 0.5
    x = torch.arange(width, device=levels.device, dtype=torch.float64) + 0.5
    column, row = (a[:, None, None] * x + b[:, None, None] * y + c[:, None, None] for a, b, c in (across, down))
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    grid = torch.stack([column / width, row / height], 3) * 2 - 1
    taken = functional.grid_sample(levels, grid.to(levels.dtype), padding_mode="border", align_corners=False)
    return (taken + _SLACK).floor() * inside[:, None]  # as Pillow: a level's fraction is cut off


Operation = Callable[[Tensor, Tensor, Tensor], Tensor]

OPERATIONS: Final[tuple[Operation, ...]] = (
    autocontrast,
    equalize,
    posterize,
    rotate,
    solarize,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
)


def divergence_of_views(logits: Tensor) -> Tensor:
    """Return each picture's Jensen-Shannon divergence of the answers to its views, (count,).

    logits: (views, count, classes). Mean over the views of KL(p_k || M), M being the mean of the p_k, at least 1e-7.
    """
    log_shares = precise(logits).log_softmax(2)
    middle = log_shares.exp().mean(0).clamp(_LEAST_SHARE, 1).log()
    return functional.kl_div(middle.expand_as(log_shares), log_shares, reduction="none", log_target=True).sum(2).mean(0)


@dataclass(frozen=True, kw_only=True)
class AugMix(Objective):
    """Cross-entropy on the pictures, and weight times the divergence of the answers to them and to two views of each.

    All three pass the network as one batch. severity: greatest level of an operation, of 10.
    """

    severity: float = 3.0
    weight: float = 12.0

    def __post_init__(self) -> None:
        if not _LEAST_LEVEL <= self.severity <= _WHOLE_LEVEL:
            raise expected(f"a severity from {_LEAST_LEVEL} to {_WHOLE_LEVEL}", f"{self.severity:g}", "3 is usual")
        if not 0 <= self.weight < math.inf:
            raise expected("a weight of 0 or more for AugMix's divergence", f"{self.weight:g}", "12 is usual")

    def __call__(
        self, model: nn.Module, images: Tensor, targets: Tensor, smoothing: float, generator: torch.Generator
    ) -> Outcome:
        views = torch.full((len(images),), VIEWS, device=images.device)
        return self.of_views(model, images, targets, smoothing, views, generator)[0]

    def of_views(
        self,
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        smoothing: float,
        views: Tensor,
        generator: torch.Generator,
    ) -> tuple[Outcome, Tensor]:
        """Compute the loss where each picture has its own number of views, (count,), 0 to 2.

        The divergence is over those it has, and 0 where it has none; the mean of the loss is over all pictures. Views
        are drawn for all, so that a picture's do not depend on the others. Also returned: (count,), how many of its
        views are named as the picture's label says.
        """
        count = len(images)
        draws = draw(VIEWS * count, self.severity, generator)
        having = [(views > number).nonzero()[:, 0] for number in range(VIEWS)]
        drawn = torch.cat([which + number * count for number, which in enumerate(having)])
        pictures = torch.cat(having)
        logits = model(torch.cat([images, mixed(images[pictures], draws.of(drawn))]))
        clean, changed = logits.split([count, len(pictures)])
        of_each = (
            logits.new_zeros(VIEWS * count, clean.shape[1]).index_copy(0, drawn, changed).unflatten(0, (VIEWS, -1))
        )
        every = torch.cat([clean[None], of_each])
        loss = functional.cross_entropy(clean, targets, label_smoothing=smoothing)
        for number in range(1, VIEWS + 1):
            which = (views == number).nonzero()[:, 0]
            loss = loss + self.weight / count * divergence_of_views(every[: number + 1, which]).sum()
        named = targets if targets.ndim == 1 else targets.argmax(1)
        right = (of_each.argmax(2) == named) & (views > torch.arange(VIEWS, device=views.device)[:, None])
        return Outcome(loss, clean), right.sum(0)
