"""UEraser: strong random augmentation, of several views the one that the model finds hardest.

Qin et al., "Learning the Unlearnable: Adversarial Augmentations Suppress Unlearnable Example Attacks", 2023 (arXiv
2303.15127): plasma brightness, plasma contrast, a channel shuffle, each for half of the pictures, and TrivialAugment.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Final

import torch
from torch import Tensor, nn

from unlearnable.attacks.base import cross_entropy, frozen
from unlearnable.countermeasures.base import BatchChange, Countermeasure, countermeasures
from unlearnable.countermeasures.batched import global_draws, uniform
from unlearnable.errors import expected

_SHEAR: Final = math.degrees(math.atan(0.3)) / 180  # of TrivialAugment, in kornia's unit: half turns
_ROUGHNESS: Final = (0.1, 0.7)  # of the maps: what each halving of the grid adds, as a share of the one before
_SHIFT: Final = 10 / 32  # of TrivialAugment, as a share of the picture


@countermeasures.register("ueraser")
@dataclass(frozen=True, kw_only=True)
class UEraser(Countermeasure):
    """One view of each picture a batch."""

    name: ClassVar[str] = "ueraser"

    def every_batch(self, classes: int) -> BatchChange:
        def change(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            return augment(images, generator)

        return change


@countermeasures.register("ueraser-max")
@dataclass(frozen=True, kw_only=True)
class UEraserMax(Countermeasure):
    """Of several views of each picture, the one with the highest loss under the model as it is.

    views: at least 2. The model is used in evaluation mode, so its BatchNorm statistics stay those of training.
    """

    name: ClassVar[str] = "ueraser-max"
    main: ClassVar[str | None] = "views"
    views: int = 5

    def __post_init__(self) -> None:
        if self.views < 2:
            raise expected("at least 2 views", str(self.views), "write ueraser for a single one")

    def every_batch(self, classes: int) -> BatchChange:
        def change(model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
            with frozen(model), torch.no_grad():
                return hardest(model, (augment(images, generator) for _ in range(self.views)), labels)

        return change


def hardest(model: nn.Module, views: Iterable[Tensor], labels: Tensor) -> Tensor:
    """Choose, for each picture, the view of the highest cross-entropy; the earlier of equals."""
    chosen, highest = None, None
    for view in views:
        loss = cross_entropy(model(view), labels)
        if chosen is None or highest is None:
            chosen, highest = view, loss
        else:
            better = loss > highest
            chosen = torch.where(better[:, None, None, None], view, chosen)
            highest = torch.where(better, loss, highest)
    assert chosen is not None  # noqa: S101 - for the type checker
    return chosen


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Augment each picture in its own way: (count, channels, height, width), 0 to 1."""
    from kornia.augmentation import RandomChannelShuffle

    if min(images.shape[2:]) < 3:
        found = "x".join(map(str, images.shape[2:]))
        raise expected("pictures of at least 3x3 pixels", found, "leave UEraser out")
    images = change_some(images, add_plasma, generator)
    images = change_some(images, multiply_plasma, generator)
    with global_draws(generator, images):
        images = RandomChannelShuffle(p=0.5)(images)
    return trivial_augment(images, generator)


def change_some(
    images: Tensor, change: Callable[[Tensor, torch.Generator], Tensor], generator: torch.Generator
) -> Tensor:
    """Change about half of the pictures."""
    chosen = (torch.rand(len(images), generator=generator, device=generator.device) < 0.5).nonzero()[:, 0]
    chosen = chosen.to(images.device)
    return images.index_copy(0, chosen, change(images[chosen], generator)) if len(chosen) else images


def add_plasma(images: Tensor, generator: torch.Generator) -> Tensor:
    """Make regions brighter or darker, by up to the whole range."""
    intensity = uniform((len(images), 1, 1, 1), 0, 1, generator, images)
    return torch.addcmul(images, 2 * plasma(images, generator) - 1, intensity).clamp_(0, 1)


def multiply_plasma(images: Tensor, generator: torch.Generator) -> Tensor:
    """Give regions more contrast or less, from none to four times as much."""
    return torch.addcmul(images.new_tensor(0.5), images - 0.5, 4 * plasma(images, generator)).clamp_(0, 1)


def plasma(images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw a fractal map, 0 to 1, for each channel of each picture."""
    count, channels, height, width = images.shape
    roughness = uniform((count, 1), *_ROUGHNESS, generator, images).expand(-1, channels).flatten()
    maps = diamond_square(max(height, width), roughness, lambda shape: uniform(shape, 0, 1, generator, images))
    return maps[:height, :width].reshape(height, width, count, channels).permute(2, 3, 0, 1).contiguous()


def diamond_square(size: int, roughness: Tensor, draw: Callable[[tuple[int, ...]], Tensor]) -> Tensor:
    """Draw fractal maps by the diamond-square algorithm, several times as fast as kornia's: (side, side, maps).

    Between the points that are there, new ones are put: the mean of their neighbours, mixed with a random number
    whose share is roughness at the second halving of the grid and falls by that factor at each further one.

    size: the least side. roughness: of each map, 0 to 1. draw: gives uniform numbers of a shape.
    """
    count = len(roughness)
    maps = draw((2, 2, count))
    share = torch.zeros_like(roughness)
    while len(maps) < max(size, 3):
        side = 2 * len(maps) - 1
        fresh = draw((side, side, count)) * share
        kept = 1 - share
        grid = torch.empty_like(fresh)
        grid[::2, ::2] = maps
        middle = (maps[:-1, :-1] + maps[:-1, 1:] + maps[1:, :-1] + maps[1:, 1:]).mul_(kept / 4).add_(fresh[1::2, 1::2])
        grid[1::2, 1::2] = middle
        across, down = maps[:, :-1] + maps[:, 1:], maps[:-1] + maps[1:]
        across[:-1] += middle
        across[1:] += middle
        down[:, :-1] += middle
        down[:, 1:] += middle
        neighbours = maps.new_full((len(maps), 1, 1), 4)
        neighbours[0] = neighbours[-1] = 3  # at the border
        grid[::2, 1::2] = (across / neighbours).mul_(kept).add_(fresh[::2, 1::2])
        grid[1::2, ::2] = (down / neighbours.transpose(0, 1)).mul_(kept).add_(fresh[1::2, ::2])
        maps = grid
        share = share * roughness if len(maps) > 3 else roughness
    return maps


def trivial_augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Change each picture by one operation, or none, drawn anew for each.

    Müller, Hutter, "TrivialAugment", ICCV 2021 (arXiv 2103.10158), with the operations and ranges of RandAugment.
    kornia's own draws one operation for the whole batch, and shears by up to 54 degrees.
    """
    operations = _operations()
    choice = torch.randint(len(operations) + 1, (len(images),), generator=generator, device=generator.device)
    out = images.clone()
    with global_draws(generator, images):
        for number, operation in enumerate(operations):
            chosen = (choice == number).nonzero()[:, 0].to(images.device)
            if len(chosen):
                out[chosen] = operation(images[chosen])
    return out.clamp_(0, 1)


@cache
def _operations() -> tuple[Callable[[Tensor], Tensor], ...]:
    from kornia.augmentation.auto.rand_augment import ops
    from torchvision.transforms.v2 import functional

    return (
        functional.autocontrast,
        functional.equalize,
        ops.rotate(-30.0, 30.0),
        ops.posterize(4.0, 8.0),
        ops.solarize(0.0, 1.0),
        _color,
        ops.contrast(0.1, 1.9),
        ops.brightness(0.1, 1.9),
        ops.sharpness(0.1, 1.9),
        ops.shear_x(-_SHEAR, _SHEAR),
        ops.shear_y(-_SHEAR, _SHEAR),
        ops.translate_x(-_SHIFT, _SHIFT),
        ops.translate_y(-_SHIFT, _SHIFT),
    )


def _color(images: Tensor) -> Tensor:
    from kornia.augmentation.auto.rand_augment import ops

    return images if images.shape[1] == 1 else ops.color(0.1, 1.9)(images)
