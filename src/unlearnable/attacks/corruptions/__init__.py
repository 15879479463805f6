"""Common corruptions: what cameras, weather and files do to pictures, with the constants of CIFAR-10-C.

Hendrycks, Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019
(arXiv 1903.12261): 15 corruptions, each at 5 severities. The constants are those of CIFAR-10-C, made for pictures of 32
pixels; those of ImageNet-C are others. What is written as a share of the side (elastic, pixelate, the height map of
fog) grows with larger pictures, all else is the same number of pixels, so that larger pictures suffer less.

Two things differ from the published generator. Random numbers depend on a picture's id and nothing else. And frost is
drawn, where the generator lays photographs over the pictures. Numbers to be compared with published ones come from the
released files (:mod:`unlearnable.attacks.corruptions.released`).
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.attacks.corruptions import blur, digital, noise, weather
from unlearnable.attacks.corruptions.base import LEVELS, Corruption, truncated
from unlearnable.errors import expected

CORRUPTIONS: Final[dict[str, Corruption]] = {
    "gaussian_noise": noise.GAUSSIAN,
    "shot_noise": noise.SHOT,
    "impulse_noise": noise.IMPULSE,
    "defocus_blur": blur.DEFOCUS,
    "glass_blur": blur.GLASS,
    "motion_blur": blur.MOTION,
    "zoom_blur": blur.ZOOM,
    "snow": weather.SNOW,
    "frost": weather.FROST,
    "fog": weather.FOG,
    "brightness": weather.BRIGHTNESS,
    "contrast": digital.CONTRAST,
    "elastic_transform": digital.ELASTIC,
    "pixelate": digital.PIXELATE,
    "jpeg_compression": digital.JPEG,
}
"""By their names in the released files, in the order of the paper's tables."""

SEVERITIES: Final = (1, 2, 3, 4, 5)

_LEAST: Final = 8  # pixels of a side that every corruption makes sense on
_BATCH: Final = 128  # pictures at a time: as floats they stay near the processor


def corrupt(
    images: NDArray[np.uint8], name: str, severity: int, *, ids: Sequence[str], seed: int = 0
) -> NDArray[np.uint8]:
    """Corrupt pictures, (count, height, width, 1 or 3) uint8, of any size from 8 pixels up.

    ids: (count,), unique. A picture's random numbers depend on its id, the corruption, severity and seed alone, so
        that it becomes the same in any batch and any order.

    Raises InputError for smaller pictures.
    """
    if min(images.shape[1:3]) < _LEAST:
        found = f"{images.shape[2]} x {images.shape[1]}"
        raise expected(f"pictures of {_LEAST} pixels a side at least for corruptions", found, "leave --corruptions out")
    corruption = CORRUPTIONS[name]
    level = corruption.severities[severity - 1]
    changed = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), _BATCH):
        part = slice(start, start + _BATCH)
        pictures = images[part] / LEVELS
        chances = (_chance(id_, name, severity, seed) for id_ in ids[part])
        draws = [corruption.draw(chance, one, level) for chance, one in zip(chances, pictures, strict=True)]
        drawn = [np.stack(parts) for parts in zip(*draws, strict=True)]
        changed[part] = truncated(corruption.change(pictures, *drawn, level))
    return changed


def _chance(id_: str, name: str, severity: int, seed: int) -> np.random.Generator:
    digest = hashlib.sha256(repr((seed, name, severity, id_)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "big")))
