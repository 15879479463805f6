"""Spectrum equalisation: each class's mean power spectrum is moved onto that of all pictures.

A filter of a class multiplies the class's spectrum, so that its size (not its phase) shows in the mean over the class,
and can be divided out: no clean picture is needed, and labels are public. Additive noise shows in the same way.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.countermeasures.base import Countermeasure, Published, by_pieces, countermeasures, pieces
from unlearnable.countermeasures.class_mean_removal import add_by_class

_NOTHING: Final = 1e-9  # power that rounding alone leaves; one grey level of one sample in all of a class has far more


@countermeasures.register("spectrum-equalization")
@dataclass(frozen=True, kw_only=True)
class SpectrumEqualization(Countermeasure):
    """Multiply every picture's spectrum by the root of the ratio of the two mean powers; training pictures alone.

    Frequency by frequency and channel by channel, the constant part included; phases stay. What leaves the range of
    grey levels is clipped. What a class has none of stays so: flat pictures stay flat.
    """

    name: ClassVar[str] = "spectrum-equalization"

    def clean(self, published: Published, rng: np.random.Generator) -> NDArray[np.uint8]:
        labels, size = published.labels, published.images.shape[1:3]
        power = class_powers(published.images, labels, published.classes)
        counts = np.bincount(labels, minlength=published.classes)
        overall = np.tensordot(counts / counts.sum(), power, 1)
        ratio = np.divide(overall, power, out=np.ones_like(power), where=power > _NOTHING)
        gain = np.sqrt(ratio).astype(np.float32)

        def change(some: NDArray[np.uint8], its: NDArray[np.int64]) -> NDArray[Any]:
            return np.fft.irfft2(np.fft.rfft2(some, axes=(1, 2)) * gain[its], size, axes=(1, 2))

        return by_pieces(change, published.images, published.labels)


def class_powers(images: NDArray[np.uint8], labels: NDArray[np.int64], classes: int) -> NDArray[np.float64]:
    """Return each class's mean power spectrum, 0 where it is empty: (classes, height, width // 2 + 1, channels).

    Of the real Fourier transform.
    """
    height, width, channels = images.shape[1:]
    sums = np.zeros((classes, height, width // 2 + 1, channels))
    for part in pieces(images):
        add_by_class(sums, np.abs(np.fft.rfft2(images[part], axes=(1, 2))) ** 2, labels[part])
    return sums / np.maximum(np.bincount(labels, minlength=classes), 1)[:, None, None, None]
