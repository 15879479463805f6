"""What scrapers do to pictures before they train on them, as something that noise can be made through.

Noise that is made for pictures as they are is lost once they are turned grey, or their light, their classes' spectra or
their high frequencies are taken off; what is made for pictures to which that has been done, by chance, stays. Each of
these is what the countermeasure of its name does, written so that gradients pass. Not from a paper: measured in
``docs/stack.md``.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearnable.countermeasures.rsk import RandomSharpening, draw_kernels, low_pass, sharpen
from unlearnable.countermeasures.tones import MIDDLE, SPREAD, LocalNormalization
from unlearnable.pictures.quality import LUMA

_PRIOR: Final = 8.0  # pictures of all classes that a batch's few of one are taken together with
_SIGMAS: Final = 4  # at which a Gaussian is cut off
_CHANCE: Final = 0.5  # of each step, by itself
_RETOUCHED: Final = 0.3  # the same, of what a surrogate learns from
_BLACK: Final = 1e-3  # what is below has no slope worth having under a gamma


@dataclass(frozen=True)
class Countered:
    """A distribution of scrapers: each does some of it, in the order grey, light, spectra, and sharp low frequencies.

    Pictures differ in what is done to them, but for the spectra, which are those of all pictures of a batch or of none.
    """

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Change a batch, (count, channels, height, width) from 0 to 1, with gradients; all but ``images`` constant."""
        device = images.device
        chosen = torch.rand(3, len(images), 1, 1, 1, generator=generator, device=device) < _CHANCE
        images = torch.where(chosen[0], grey(images), images)
        images = torch.where(chosen[1], normalized(images), images)
        if bool(torch.rand(1, generator=generator, device=device) < _CHANCE):
            images = equalized(images, labels)
        sharp = sharpen(images, draw_kernels(images, generator))
        return torch.where(chosen[2], low_pass(sharp, RandomSharpening.fraction), images)


@dataclass(frozen=True)
class Retouched:
    """Pictures under looks that tell nothing of their classes, for a surrogate that is to know them under any.

    Every channel gets a gamma of its own, from 2 to the power of -0.5 to 2 to that of 0.5; and of each picture, by a
    chance of three in ten each, the colours go, and the light is normalised.
    """

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Change a batch, (count, channels, height, width) from 0 to 1. The network and the labels play no part."""
        count, channels, device = len(images), images.shape[1], images.device
        exponents = torch.rand(count, channels, 1, 1, generator=generator, device=device) - 0.5
        chosen = torch.rand(2, count, 1, 1, 1, generator=generator, device=device) < _RETOUCHED
        with torch.autocast(device.type, enabled=False):  # in half precision hardly anything is left of a spread
            images = images.clamp_min(_BLACK) ** exponents.exp2()
            images = torch.where(chosen[0], grey(images), images)
            return torch.where(chosen[1], normalized(images), images)


def grey(images: Tensor) -> Tensor:
    """Turn pictures grey; those of one channel are."""
    if images.shape[1] == 1:
        return images
    weights = torch.tensor(LUMA, dtype=images.dtype, device=images.device)
    return (images * weights[:, None, None]).sum(1, keepdim=True).expand_as(images)


def normalized(images: Tensor) -> Tensor:
    """Take light off, as :class:`unlearnable.countermeasures.tones.LocalNormalization` does at its own sigma."""
    rows, columns = (_smoothing(side, LocalNormalization.sigma).to(images) for side in images.shape[2:])
    mean, square = (rows @ these @ columns.T for these in (images, images.square()))
    spread = ((square - mean.square()).clamp_min(0) + (SPREAD / 10 / 255) ** 2).sqrt()
    return (MIDDLE / 255 + SPREAD / 255 * (images - mean) / spread).clamp(0, 1)


@lru_cache(maxsize=8)
def _smoothing(side: int, sigma: float) -> Tensor:
    """Return what weighs a column's samples with a Gaussian around each, the outermost repeated: (side, side)."""
    reach = int(_SIGMAS * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-(offsets.double() ** 2) / (2 * sigma**2))
    places = (torch.arange(side)[:, None] + offsets).clamp(0, side - 1)
    matrix = torch.zeros(side, side, dtype=torch.float64)
    return matrix.scatter_add_(1, places, (weights / weights.sum()).expand(side, -1).contiguous())


def equalized(images: Tensor, labels: Tensor) -> Tensor:
    """Move each class's mean power spectrum onto that of all, as ``spectrum-equalization`` does.

    A batch has few pictures of a class, and none of many: what is taken for its spectrum is drawn towards that of all.
    """
    spectra = torch.fft.rfft2(images)
    with torch.no_grad():
        power = spectra.abs().square()
        overall = power.mean(0)
        member = functional.one_hot(labels).to(power)
        sums = (member.T @ power.flatten(1)).reshape(-1, *overall.shape)  # index_add_ adds in any order on a GPU
        own = (sums + _PRIOR * overall) / (member.sum(0) + _PRIOR)[:, None, None, None]
        gain = (overall / own.clamp_min(1e-9)).sqrt()
    changed: Tensor = torch.fft.irfft2(spectra * gain[labels], images.shape[2:])
    return changed.clamp(0, 1)
