"""CUDA: each class is convolved with a small filter of its own.

Sadasivan, Soltanolkotabi, Feizi, "CUDA: Convolution-based Unlearnable Datasets", CVPR 2023 (arXiv 2303.04278),
section 3. A filter has one tap of 1 at a random place; its other taps are uniform on [0, p_b). A picture is filtered
with its class's filter, the same one for every colour channel, and divided by its own highest value.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray

from unlearnable.errors import expected
from unlearnable.keys import Key, Stream
from unlearnable.protections.apart import Purpose, draw_apart, draw_as_apart_as_possible
from unlearnable.protections.base import (
    ROUNDING,
    Classed,
    Images,
    Labels,
    Layer,
    Perturbation,
    TraceError,
    Traces,
    check_images,
    in_parallel,
    protections,
)
from unlearnable.protections.tensors import reading_tensors, write_tensors

_FORMAT: Final = "unlearnable-convolution-1"
_LEAST_BLUR: Final = 0.01
_REFERENCE_SIZE: Final = 224  # the picture size, in pixels, of the paper's largest setting
_KERNELS: Final = (
    (100, 3),
    (150, 5),
    (200, 7),
    (None, 9),
)  # shorter side below which each kernel size is taken


class Setting(NamedTuple):
    """How one picture is filtered: the filter's size k, p_b, and the factor by which the picture is scaled down."""

    kernel_size: int
    blur: float
    scale: int


def default_blur(kernel_size: int) -> float:
    """Return p_b for a kernel size: the paper's 0.3 at k = 3 and 0.06 at k = 9, and as strong a blur between.

    The expected sum of the taps beside the 1, (k² - 1) p_b / 2, is 1.2 and 2.4 there; it grows linearly with k.

    >>> [round(default_blur(k), 4) for k in (1, 3, 5, 7, 9)]
    [0.3, 0.3, 0.1333, 0.0833, 0.06]
    """
    if kernel_size <= 3:
        return 0.3
    return round(2 * (1.2 + 0.2 * (kernel_size - 3)) / (kernel_size**2 - 1), 6)


def preset(height: int, width: int) -> Setting:
    """Choose the setting for a picture size in pixels, by its shorter side.

    Up to 64 pixels this is the paper's CIFAR setting, at 224 its ImageNet setting, between them the filter covers
    about the same share of the picture. A larger picture is filtered as it looks at 224 pixels (the size it will be
    trained at), while the tap of 1 keeps its full detail: see ``docs/cuda.md``.

    >>> preset(32, 32), preset(224, 300)
    (Setting(kernel_size=3, blur=0.3, scale=1), Setting(kernel_size=9, blur=0.06, scale=1))
    >>> preset(2000, 3000).scale
    9
    """
    side = min(height, width)
    kernel = next(k for limit, k in _KERNELS if limit is None or side < limit)
    return Setting(kernel, default_blur(kernel), max(1, (2 * side + _REFERENCE_SIZE) // (2 * _REFERENCE_SIZE)))


@dataclass(frozen=True)
class ReferenceSeed:
    """A seed of the published code, in place of a key: for comparison with the literature, not for protection.

    There are only 2**32 of them, so that the filters can be found by trying.
    """

    seed: int

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:
            raise expected("a reference seed from 0 to 4294967295", str(self.seed), "choose one in that range")


@dataclass(frozen=True)
class Bank:
    """One filter a class, all of one size: (classes, k, k) float32, each with exactly one tap of 1.

    Taps lie on a grid of 1 / ``unit``, fine enough to hide the key and coarse enough that sums of products with
    8-bit samples are exact in float32, those with 16-bit samples in float64.
    """

    weights: NDArray[np.float32]
    unit: int

    def grid(self) -> NDArray[np.int64]:
        """Return the taps in whole units."""
        return np.rint(self.weights.astype(np.float64) * self.unit).astype(np.int64)

    @property
    def kernel_size(self) -> int:
        """The side k of a filter."""
        return int(self.weights.shape[-1])

    @cached_property
    def peaks(self) -> NDArray[np.int64]:
        """Row and column of each filter's tap of 1: (classes, 2)."""
        flat = self.weights.reshape(len(self.weights), -1).argmax(1)
        return np.stack(np.divmod(flat, self.kernel_size), axis=1)

    def distances(self) -> NDArray[np.float64]:
        """Measure how far any two filters lie apart (see :func:`distances_to`): (classes, classes), 0 for itself."""
        filters = self.weights.astype(np.float64)
        return np.stack([distances_to(filters, one) for one in filters])


def distances_to(filters: NDArray[np.float64], one: NDArray[np.float64]) -> NDArray[np.float64]:
    """Measure how far filters, (count, k, k), lie from another one, (k, k): (count,).

    Root of the summed squared differences, each filter divided by its sum, at the translation and mirroring at which
    the two are closest: networks are trained on pictures moved about and mirrored, so those tell no classes apart.
    """
    k = one.shape[-1]
    size = (2 * k - 1, 2 * k - 1)
    filters, one = (f / f.sum((-2, -1), keepdims=True) for f in (filters, one))
    both = np.fft.rfft2(np.stack([one, one[:, ::-1]]), size).conj()
    overlap = np.fft.irfft2(np.fft.rfft2(filters, size)[:, None] * both, size).max((1, 2, 3))
    return np.asarray(np.sqrt(np.maximum((filters**2).sum((1, 2)) + (one**2).sum() - 2 * overlap, 0)))


def default_distance(kernel_size: int, blur: float, classes: int) -> float:
    """Return the distance that filters keep unless another is asked for, by how many they are.

    For ten classes, about 1.4 times the expected distance of two filters that agree in all but their random taps; it
    falls with the fourth root of the number of classes, so that a few draws for each class nearly always suffice.

    >>> [round(default_distance(3, 0.3, classes), 3) for classes in (10, 100, 1000)]
    [0.221, 0.124, 0.07]
    """
    taps = kernel_size**2 - 1
    spread = math.sqrt(taps / 6) * blur / (1 + taps * blur / 2)
    return float(2.5 * spread * max(classes, 10) ** -0.25)


def grid_unit(kernel_size: int, blur: float, full: int = 255) -> int:
    """Return the finest power of two, at most 2**14, on whose grid every sum of a filtered picture stays exact."""
    largest = full * (1 + (kernel_size**2 - 1) * blur)
    bits: int = math.floor(math.log2((2**24 - 1) / largest))
    return 1 << min(14, bits)


def draw_bank(
    class_names: Sequence[str], key: Key, kernel_size: int, blur: float, min_distance: float | None = None
) -> Bank:
    """Draw the filters of these classes, at least ``min_distance`` apart (see :func:`draw_apart`).

    If that is not given it is :func:`default_distance`; for the few keys that leave no room for so much, 5 % less, or
    5 % less than that, and so on.

    Raises InputError where so many classes cannot keep the distance that was asked for.
    """
    unit = grid_unit(kernel_size, blur)
    purpose = Purpose("cuda-order", "cuda-filter", {"kernel_size": kernel_size, "blur": blur})

    def drawn(stream: Stream) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        taps = np.floor(stream.uniform(kernel_size**2) * blur * unit)
        taps[stream.integer(kernel_size**2)] = unit
        weights = taps.reshape(kernel_size, kernel_size) / unit
        return weights.astype(np.float32), weights

    how = class_names, key, purpose, drawn, distances_to
    if min_distance is None:
        filters = draw_as_apart_as_possible(*how, default_distance(kernel_size, blur, len(class_names)))
        return Bank(np.stack(filters), unit)
    found = draw_apart(*how, min_distance)
    if found is None:
        raise expected(
            f"filters at least {min_distance:.3g} apart",
            f"no room for {len(class_names)} of them at kernel size {kernel_size} and blur {blur}",
            "choose a larger kernel size or blur, or a smaller distance",
        )
    return Bank(np.stack(found), unit)


def aligned(bank: Bank) -> Bank:
    """Bring every tap of 1 to the middle of a filter, (classes, 2k - 1, 2k - 1), so that pictures stay in their place.

    >>> aligned(Bank(np.array([[[0, 0, 0.5], [0, 0, 1], [0, 0, 0]]], np.float32), 2)).weights[0, 1:3, 2:4]
    array([[0.5, 0. ],
           [1. , 0. ]], dtype=float32)
    """
    k = bank.kernel_size
    weights = np.zeros((len(bank.weights), 2 * k - 1, 2 * k - 1), np.float32)
    for target, source, (row, column) in zip(weights, bank.weights, bank.peaks, strict=True):
        target[k - 1 - row :, k - 1 - column :][:k, :k] = source
    return Bank(weights, bank.unit)


def draw_reference(
    classes: int, seed: ReferenceSeed, kernel_size: int, blur: float
) -> tuple[Bank, np.random.RandomState]:
    """Draw the filters as the published code does, and return the generator as it leaves it.

    The legacy MT19937 generator; class by class, a block of three filters of which the first is kept, then the row
    and the column of the tap of 1. The generator goes on to decide, picture by picture, which ones are protected.
    """
    generator = np.random.RandomState(seed.seed)
    weights = np.empty((classes, kernel_size, kernel_size), np.float32)
    for label in range(classes):
        weights[label] = generator.uniform(0, blur, (3, 1, kernel_size, kernel_size))[0, 0]
        weights[label, generator.randint(kernel_size), generator.randint(kernel_size)] = 1
    return Bank(weights, 1), generator


@protections.register("cuda")
@dataclass(frozen=True, kw_only=True)
class Convolution(Layer):
    """CUDA and its parameters.

    kernel_size: side k of the filters, odd, 1 to 31; chosen by picture size (see :func:`preset`) if not given.
    blur: p_b, the upper end of the taps beside the 1, 0.01 to 1; goes with k if not given. Without kernel_size it is
        that of 3x3 filters, and larger ones are as much stronger or weaker than their default.
    min_distance: kept between the filters of any two classes, at least 0 and below 1 (see :func:`default_distance`,
        which goes by the number of classes, if not given); not in reference mode.
    aligned: keep pictures in their place; not in reference mode. As published, a filter also moves the picture, by as
        much as its tap of 1 lies off the middle: that costs SSIM, and teaches a network nothing that it would not get
        from cropped pictures.

    Raises InputError for values outside these ranges.
    """

    kernel_size: int | None = None
    blur: float | None = None
    min_distance: float | None = None
    aligned: bool = False

    def __post_init__(self) -> None:
        k, blur = self.kernel_size, self.blur
        if k is not None and not (1 <= k <= 31 and k % 2 == 1):
            raise expected("an odd kernel size from 1 to 31", str(k), "choose 3 for small pictures, 9 for large ones")
        if k == 1 and self.min_distance is None:
            raise expected("a kernel size from 3", "1, at which all filters are the same", "choose 3")
        if blur is not None and not _LEAST_BLUR <= blur <= 1:
            raise expected(f"a blur of {_LEAST_BLUR} to 1", str(blur), "choose 0.3 with 3x3 filters, 0.06 with 9x9")
        if self.min_distance is not None and not 0 <= self.min_distance < 1:
            raise expected("a distance of at least 0 and below 1", str(self.min_distance), "leave it out")

    def settings(self) -> list[Setting]:
        """List the kernel sizes this protection may use: the one that is given, or one for each size of picture."""
        if self.kernel_size is not None:
            return [Setting(self.kernel_size, self.blur or default_blur(self.kernel_size), 1)]
        strength = 1 if self.blur is None else self.blur / default_blur(3)
        return [Setting(k, round(strength * default_blur(k), 6), 1) for _, k in _KERNELS]

    def fit(self, dataset: Classed, key: Key | ReferenceSeed) -> "ClasswiseConvolution":
        """Draw the filters of the data set's classes."""
        names = tuple(dataset.class_names)
        if len(set(names)) != len(names) or not names:
            raise ValueError(f"expected class names that differ, at least one, found {names}")
        if isinstance(key, ReferenceSeed):
            k = self.kernel_size or 3
            bank, _ = draw_reference(len(names), key, k, self.blur or default_blur(k))
            return ClasswiseConvolution(names, {k: bank}, by_size=False, style="reference")
        settings = self.settings()
        banks = {s.kernel_size: draw_bank(names, key, s.kernel_size, s.blur, self.min_distance) for s in settings}
        if self.aligned:
            banks = {k: aligned(bank) for k, bank in banks.items()}
        return ClasswiseConvolution(names, banks, by_size=len(settings) > 1)

    def reference_generator(self, classes: int, seed: ReferenceSeed) -> np.random.RandomState:
        """Return the published code's generator as it is once the filters are drawn: it chooses pictures next."""
        k = self.kernel_size or 3
        return draw_reference(classes, seed, k, self.blur or default_blur(k))[1]

    def parameters(self) -> dict[str, int | float | str | None]:
        """Return kernel_size, blur and min_distance as given; and aligned, as 1, where it is chosen."""
        return {
            "kernel_size": self.kernel_size,
            "blur": self.blur,
            "min_distance": self.min_distance,
            **({"aligned": 1} if self.aligned else {}),
        }

    def scaled(self, share: float) -> "Convolution":
        """Return it at a share of its blur, and of the distance if one is set; aligned."""
        blur = self.blur or default_blur(self.kernel_size or 3)
        distance = None if self.min_distance is None else share * self.min_distance
        return replace(self, blur=max(_LEAST_BLUR, round(share * blur, 6)), min_distance=distance, aligned=True)


class ClasswiseConvolution(Perturbation):
    """The filters of a data set's classes, and how they are applied.

    ``style`` "keyed" reflects pictures at their borders and rounds; "reference" pads with zeros and truncates, as
    the published code does.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        banks: Mapping[int, Bank],
        *,
        by_size: bool,
        style: Literal["keyed", "reference"] = "keyed",
    ) -> None:
        """Take the filters by kernel size. Without ``by_size`` there is one bank, used for pictures of any size."""
        self.class_names = tuple(class_names)
        self.banks = dict(banks)
        self.by_size = by_size
        self.style = style

    def setting(self, height: int, width: int) -> tuple[Bank, int]:
        """Return the filters for a picture size, and the factor by which the picture is scaled down for them."""
        if not self.by_size:
            return next(iter(self.banks.values())), 1
        chosen = preset(height, width)
        return self.banks[chosen.kernel_size], chosen.scale

    def apply_traced(self, images: Images, labels: Labels, ids: Sequence[str]) -> tuple[Images, NDArray[np.float64]]:
        """Return the protected pictures, and each one's highest filtered value, in grey levels of the input.

        ``ids`` play no part in this method. Large batches use every core; results do not depend on how many.
        """
        from unlearnable.protections._correlation import correlate, correlate_scaled

        check_images(images, labels, len(self.class_names))
        images = np.ascontiguousarray(images)
        classes: NDArray[np.int64] = labels.astype(np.int64)
        full = (np.float32 if images.dtype == np.uint8 else np.float64)(np.iinfo(images.dtype).max)
        bank, scale = self.setting(*images.shape[1:3])
        taps = bank.grid()
        out, highest = np.empty_like(images), np.empty(len(images))

        def work(part: slice) -> None:
            if self.style == "reference":
                _as_published(images[part], bank.weights, classes[part], out[part], highest[part])
            elif scale == 1:
                correlate(images[part], taps, classes[part], full, out[part], highest[part])
            else:
                for n in range(*part.indices(len(images))):
                    row, column = bank.peaks[classes[n]]
                    highest[n] = correlate_scaled(images[n], taps[classes[n]], row, column, scale, full, out[n])

        in_parallel(work, len(images), images.nbytes)
        return out, highest / bank.unit

    def restore(
        self, images: Images, labels: Labels, ids: Sequence[str], traces: Traces, noise: float = ROUNDING
    ) -> Images:
        """Undo the convolution (see :mod:`unlearnable.protections.deconvolution`); ``ids`` play no part."""
        from unlearnable.protections.deconvolution import deconvolve

        check_images(images, labels, len(self.class_names))
        bank, scale = self.setting(*images.shape[1:3])
        if not all(isinstance(trace, float) and 0 <= trace < math.inf for trace in traces):
            raise TraceError
        return deconvolve(images, labels, traces.astype(float), bank, scale, reflect=self.style == "keyed", noise=noise)

    def digests(self) -> dict[str, str]:
        """Return a digest of each class's filters, by class name; it tells nothing about them."""
        filters = [np.ascontiguousarray(bank.weights) for _, bank in sorted(self.banks.items())]
        return {
            name: hashlib.sha256(b"".join(weights[label].tobytes() for weights in filters)).hexdigest()
            for label, name in enumerate(self.class_names)
        }

    def save(self, path: str | Path) -> None:
        """Write the filters and class names as safetensors. The file is as secret as the key."""
        description = {
            "format": _FORMAT,
            "class_names": json.dumps(self.class_names),
            "units": json.dumps({k: bank.unit for k, bank in self.banks.items()}),
            "by_size": json.dumps(self.by_size),
            "style": self.style,
        }
        write_tensors(Path(path), {f"filters_{k}": bank.weights for k, bank in self.banks.items()}, description)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read filters written by :meth:`save`. Raises InputError for any other file."""
        with reading_tensors(path, _FORMAT, "filters", "fit them again") as (file, about):
            units = json.loads(about["units"])
            banks = {int(k): Bank(file.get_tensor(f"filters_{k}"), unit) for k, unit in units.items()}
            names, by_size = json.loads(about["class_names"]), json.loads(about["by_size"])
            style = cast("Literal['keyed', 'reference']", about["style"])
            return cls(names, banks, by_size=by_size, style=style)


def _as_published(
    images: Images, filters: NDArray[np.float32], classes: NDArray[np.int64], out: Images, highest: NDArray[np.float64]
) -> None:
    """Filter as the published code does: pictures padded with zeros, divided by their highest value, truncated."""
    p, (_, height, width, _) = filters.shape[-1] // 2, images.shape
    full = float(np.iinfo(images.dtype).max)
    for n, (image, label) in enumerate(zip(images, classes, strict=True)):
        padded = np.pad(image.astype(np.float64), ((p, p), (p, p), (0, 0)))
        sums = sum(
            tap * padded[a : a + height, b : b + width] for (a, b), tap in np.ndenumerate(filters[label].astype(float))
        )
        highest[n] = sums.max()
        out[n] = sums / (highest[n] or 1.0) * full
