"""What is done to each batch of training pictures: moved about and mirrored, cut out, mixed, augmented."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

_GREY: Final = 0.45  # of natural pictures, about: what a network sees as nothing


class Moves(NamedTuple):
    """Where each pixel of a moved batch comes from: (count, height) rows and (count, width) columns."""

    rows: Tensor
    columns: Tensor


def draw_moves(count: int, height: int, width: int, *, crop: int, flip: bool, generator: torch.Generator) -> Moves:
    """Draw a shift of up to ``crop`` pixels either way for each of ``count`` pictures and, with ``flip``, a mirroring.

    What lies outside a picture is its reflection.
    """
    device = generator.device

    def shifted(size: int) -> Tensor:
        shift = torch.randint(-crop, crop + 1, (count, 1), generator=generator, device=device)
        index = (torch.arange(size, device=device) + shift).abs()
        return size - 1 - (size - 1 - index).abs()  # with abs above: reflected at both borders

    rows, columns = shifted(height), shifted(width)
    if flip:
        mirrored = torch.rand(count, 1, generator=generator, device=device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    return Moves(rows, columns)


def moved(pictures: Tensor, index: Tensor, moves: Moves) -> Tensor:
    """Gather a batch, each pixel from where the moves say: floats on the 0 to 1 scale, channels last in memory.

    pictures: (all, height, width, channels) uint8; index: (count,), which of them.
    """
    batch = pictures[index[:, None, None], moves.rows[:, :, None], moves.columns[:, None, :]]
    return batch.permute(0, 3, 1, 2) / 255


class Augmentation(ABC):
    """A change of a batch of pictures, and of their labels where those follow. Subclasses are frozen dataclasses."""

    @abstractmethod
    def __call__(
        self, images: Tensor, targets: Tensor, classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return new pictures and targets; the ones given are left alone.

        images: (count, channels, height, width), 0 to 1. targets: (count,) integer labels, or (count, classes)
        shares. generator: on the device of the pictures, and the only source of chance.
        """


@dataclass(frozen=True, kw_only=True)
class Cutout(Augmentation):
    """A grey square over each picture (DeVries and Taylor, 2017, arXiv 1708.04552).

    share: side of the square as a share of the picture's shorter side; 16 of 32 pixels in the paper. Its centre is
    uniform over the picture, so that some of it may lie outside.
    """

    share: float = 0.5

    def __call__(
        self, images: Tensor, targets: Tensor, classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        count, _, height, width = images.shape
        side = round(self.share * min(height, width))

        def covered(size: int) -> Tensor:
            centre = torch.randint(size, (count, 1), generator=generator, device=images.device)
            place = torch.arange(size, device=images.device) - centre + side // 2
            return (place >= 0) & (place < side)

        square = covered(height)[:, None, :, None] & covered(width)[:, None, None, :]
        return images.masked_fill(square, _GREY), targets


@dataclass(frozen=True, kw_only=True)
class Mixup(Augmentation):
    """Each picture blended with another one of the batch, the labels likewise (Zhang et al., ICLR 2018).

    alpha: of the Beta(alpha, alpha) distribution of the one share drawn for the batch.
    """

    alpha: float = 1.0

    def __call__(
        self, images: Tensor, targets: Tensor, classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        share, other = _beta(self.alpha, images, generator), _partners(images, generator)
        soft = shares(targets, classes)
        return images.lerp(images[other], 1 - share), soft.lerp(soft[other], 1 - share)


@dataclass(frozen=True, kw_only=True)
class CutMix(Augmentation):
    """A rectangle of each picture from another one of the batch, the labels by area (Yun et al., ICCV 2019).

    alpha: of the Beta(alpha, alpha) distribution of the area that is kept, drawn once for the batch; the labels go by
    the area that the rectangle really covers.
    """

    alpha: float = 1.0

    def __call__(
        self, images: Tensor, targets: Tensor, classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        other = _partners(images, generator)
        half = (1 - _beta(self.alpha, images, generator)).sqrt() / 2

        def covered(size: int) -> Tensor:
            centre = torch.rand((), generator=generator, device=images.device) * size
            place = torch.arange(size, device=images.device) + 0.5
            return (place - centre).abs() < half * size

        box = covered(images.shape[2])[:, None] & covered(images.shape[3])
        soft = shares(targets, classes)
        return torch.where(box, images[other], images), soft.lerp(soft[other], box.float().mean())


@dataclass(frozen=True, kw_only=True)
class AutoAugment(Augmentation):
    """AutoAugment's policy for CIFAR-10 (Cubuk et al., CVPR 2019), through torchvision."""

    def __call__(
        self, images: Tensor, targets: Tensor, classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        from torchvision.transforms import v2

        policy = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)
        return _each(policy, images), targets


@dataclass(frozen=True, kw_only=True)
class TrivialAugment(Augmentation):
    """One random operation a picture, at a random strength (Müller and Hutter, ICCV 2021), through torchvision."""

    def __call__(
        self, images: Tensor, targets: Tensor, classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        from torchvision.transforms import v2

        return _each(v2.TrivialAugmentWide(), images), targets


def shares(targets: Tensor, classes: int) -> Tensor:
    """Return targets as (count, classes) shares, whichever form they have.

    >>> shares(torch.tensor([1, 0]), 3)
    tensor([[0., 1., 0.],
            [1., 0., 0.]])
    """
    return targets if targets.ndim == 2 else functional.one_hot(targets, classes).float()


def _partners(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randperm(len(images), generator=generator, device=images.device)


def _beta(alpha: float, images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw once from Beta(alpha, alpha): the share of one of two gamma variables in their sum."""
    first, second = torch._standard_gamma(torch.full((2,), alpha, device=images.device), generator=generator)
    share: Tensor = first / (first + second)
    return share


def _each(transform: torch.nn.Module, images: Tensor) -> Tensor:
    """Apply a transformation of torchvision to each picture by itself; it draws from PyTorch's global generator."""
    levels = (images * 255).round().to(torch.uint8)
    changed = torch.stack([transform(image) for image in levels])
    floats: Tensor = changed.contiguous(memory_format=torch.channels_last) / 255
    return floats
