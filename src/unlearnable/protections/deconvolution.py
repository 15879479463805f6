"""Taking CUDA off again: the convolution inverted as well as the stored precision allows.

The filtered picture is v = A x + noise, where A filters with the class's taps and the border's rule, and the noise is
that of rounding (or of a lossy format). A is nearly singular for some filters, so x is estimated as the minimum of

    |A x - v|² + weight |D x|²,    D x: differences of neighbouring pixels,

the most likely picture if those differences are Gaussian with standard deviation :data:`ROUGHNESS`. Small pictures are
solved directly, with the matrices kept for the next picture of the class; large ones by conjugate gradients,
preconditioned in the Fourier domain.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.pictures.borders import mirrored
from unlearnable.protections.base import ROUNDING, Images, Labels
from unlearnable.protections.convolution import Bank

ROUGHNESS: Final = 25.0
"""Standard deviation, in grey levels of 255, of the difference of two neighbouring pixels."""

_DIRECT: Final = 1600  # pixels up to which a picture is solved directly
_STEPS: Final = 150  # of conjugate gradients, at most
_ENOUGH: Final = {np.dtype(np.float32): 1e-13, np.dtype(np.float64): 1e-22}
"""Of the first residual (squared, preconditioned), by precision: rounding is what is left then."""
_REFINEMENTS: Final = 3  # of a scaled picture

Plane = NDArray[np.floating[Any]]


def deconvolve(
    images: Images,
    labels: Labels,
    traces: NDArray[np.float64],
    bank: Bank,
    scale: int,
    *,
    reflect: bool,
    noise: float = ROUNDING,
) -> Images:
    """Estimate the pictures that were filtered and stored.

    images: (count, height, width, channels) uint8 or uint16; labels: the filters' places in ``bank``; traces: the
    highest filtered value of each; scale: the factor of :func:`correlate_scaled`; reflect: the border's rule, False
    for zeros and truncation instead of rounding; noise: standard deviation, in stored grey levels, of what rounding
    and the file format did.
    """
    full = int(np.iinfo(images.dtype).max)
    kind = np.float32 if images.dtype == np.uint8 else np.float64
    out = np.empty_like(images)
    for n, (image, label, trace) in enumerate(zip(images, labels, traces, strict=True)):
        level = trace / full  # of the filtered picture, for each stored grey level
        weight = (noise * level / (ROUGHNESS * full / 255)) ** 2
        rougher = max(weight, (ROUNDING * level / ROUGHNESS) ** 2)  # that of eight bits
        taps = bank.weights[label].astype(np.float64)
        for c in range(image.shape[-1]):
            filtered = ((image[..., c] + (0 if reflect else 0.5)) * level).astype(kind)
            if trace == 0:
                plane = filtered
            elif scale > 1:
                plane = _unscaled(filtered, taps, scale, weight, rougher)
            else:
                plane = _solver(taps, filtered.shape, weight, rougher, reflect, kind)(filtered)
            out[n, ..., c] = np.clip(np.rint(plane), 0, full)
    return out


def _solver(
    taps: NDArray[np.float64],
    shape: tuple[int, ...],
    weight: float,
    rougher: float,
    reflect: bool,
    kind: type[np.floating[Any]],
) -> Callable[[Plane], Plane]:
    """Return what estimates a plane; with the ``rougher`` of two weights where the steps do not do for the other."""
    height, width = shape
    weight = 2.0 ** (round(2 * math.log2(weight)) / 2)  # in steps, so that matrices serve more than one picture
    if height * width <= _DIRECT:
        inverse = _inverse(taps.tobytes(), len(taps), height, width, weight, reflect, np.dtype(kind).str)
        return lambda filtered: (inverse @ filtered.reshape(-1)).reshape(shape)
    operator = _Operator(taps, height, width, weight, reflect, kind)

    def solve(filtered: Plane) -> Plane:
        estimate, reached = operator.solve(filtered)
        if not reached and weight < rougher / 2:  # more apart than the steps of weights
            estimate, _ = _Operator(taps, height, width, rougher, reflect, kind).solve(filtered)
        return estimate

    return solve


@lru_cache(48)
def _inverse(taps: bytes, k: int, height: int, width: int, weight: float, reflect: bool, kind: str) -> Plane:
    """Return the matrix that takes a filtered picture, row by row, to its estimate."""
    forward = _matrix(np.frombuffer(taps).reshape(k, k), height, width, reflect)
    rough = np.zeros((height * width, height * width))
    places = np.arange(height * width).reshape(height, width)
    for one, other in ((places[1:], places[:-1]), (places[:, 1:], places[:, :-1])):
        for a, b, sign in ((one, one, 1), (other, other, 1), (one, other, -1), (other, one, -1)):
            np.add.at(rough, (a, b), sign)
    return np.linalg.solve(forward.T @ forward + weight * rough, forward.T).astype(kind)


def _matrix(taps: NDArray[np.float64], height: int, width: int, reflect: bool) -> NDArray[np.float64]:
    """Write the convolution of a whole picture as a matrix."""
    k = len(taps)
    rows, columns = np.arange(height), np.arange(width)
    matrix = np.zeros((height, width, height, width))
    for a in range(k):
        for b in range(k):
            i, j = rows + a - k // 2, columns + b - k // 2
            inside = np.ones((height, width), bool)
            if reflect:
                i, j = mirrored(i, height), mirrored(j, width)
            else:
                inside = ((i >= 0) & (i < height))[:, None] & ((j >= 0) & (j < width))
                i, j = i.clip(0, height - 1), j.clip(0, width - 1)
            y, x = np.nonzero(inside)
            np.add.at(matrix, (y, x, i[y], j[x]), taps[a, b])
    return matrix.reshape(height * width, height * width)


class _Operator:
    """The normal equations of one filter and picture size, and their solution; one channel at a time."""

    def __init__(
        self, taps: NDArray[np.float64], height: int, width: int, weight: float, reflect: bool, kind: type[Any]
    ) -> None:
        self._p, self._shape, self._reflect = len(taps) // 2, (height, width), reflect
        self._weight = kind(weight)
        self._padded = tuple(_fast(size + 2 * self._p) for size in (height, width))
        kernel = np.zeros(self._padded)
        kernel[: len(taps), : len(taps)] = taps
        response = np.fft.rfft2(kernel).conj()
        self._response = response.astype(np.result_type(kind, np.complex64))
        down, across = (2 - 2 * np.cos(2 * np.pi * np.arange(size) / size) for size in self._padded)
        rough = down[:, None] + across[: response.shape[1]]
        self._precondition = (1 / (np.abs(response) ** 2 + weight * rough + 1e-9)).astype(kind)
        self._frames = tuple(mirrored(np.arange(-self._p, size + self._p), size) for size in (height, width))

    def solve(self, filtered: Plane) -> tuple[Plane, bool]:
        """Return the estimate for one filtered plane, and whether it was reached."""
        residual = self._back(filtered)
        estimate = np.zeros_like(filtered)
        shaped = self._preconditioned(residual)
        direction, product = shaped.copy(), np.vdot(residual, shaped)
        enough = _ENOUGH[filtered.dtype] * product
        for _ in range(_STEPS):
            if product <= enough:
                return estimate, True
            image = self._normal(direction)
            step = product / np.vdot(direction, image)
            estimate += step * direction
            residual -= step * image
            shaped = self._preconditioned(residual)
            last, product = product, np.vdot(residual, shaped)
            direction *= product / last
            direction += shaped
        return estimate, False

    def _normal(self, plane: Plane) -> Plane:
        down, across = np.diff(plane, axis=0), np.diff(plane, axis=1)
        rough = np.zeros_like(plane)
        rough[1:] += down
        rough[:-1] -= down
        rough[:, 1:] += across
        rough[:, :-1] -= across
        return np.asarray(self._back(self.forward(plane)) + self._weight * rough)

    def forward(self, plane: Plane) -> Plane:
        """Filter a plane."""
        framed = plane[np.ix_(*self._frames)] if self._reflect else np.pad(plane, self._p)
        height, width = self._shape
        return self._filtered(framed, self._response)[:height, :width]

    def _back(self, plane: Plane) -> Plane:
        """Apply the transpose: spread each value over the samples that it was made of."""
        p, (height, width) = self._p, self._shape
        spread = self._filtered(plane, self._response.conj())[: height + 2 * p, : width + 2 * p]
        folded = spread[p : p + height].copy()
        if self._reflect:
            outside = np.r_[:p, p + height : height + 2 * p]
            np.add.at(folded, self._frames[0][outside], spread[outside])
        out = folded[:, p : p + width].copy()
        if self._reflect:
            outside = np.r_[:p, p + width : width + 2 * p]
            np.add.at(out.T, self._frames[1][outside], folded[:, outside].T)
        return out

    def _preconditioned(self, plane: Plane) -> Plane:
        height, width = self._shape
        return self._filtered(plane, self._precondition)[:height, :width]

    def _filtered(self, plane: Plane, response: NDArray[Any]) -> Plane:
        return np.asarray(np.fft.irfft2(np.fft.rfft2(plane, self._padded) * response, self._padded))


def _fast(size: int) -> int:
    """Return the next size that has no prime factor above 5."""

    def rest(number: int) -> int:
        for prime in (2, 3, 5):
            while number % prime == 0:
                number //= prime
        return number

    while rest(size) > 1:
        size += 1
    return size


def _unscaled(filtered: Plane, taps: NDArray[np.float64], scale: int, weight: float, rougher: float) -> Plane:
    """Estimate a picture that was filtered at 1/scale of its size.

    The picture itself is what is left of the filtered one once the blur is taken away, and the blur is known once the
    small picture is. Filtering and shrinking nearly commute, so the shrunk filtered picture gives a first estimate of
    the small one; what the result then leaves unexplained, shrunk and solved for again, refines it.
    """
    height, width = filtered.shape
    p = len(taps) // 2
    row, column = (int(place) for place in np.unravel_index(taps.argmax(), taps.shape))
    rest = taps.copy()
    rest[row, column] = 0
    small = _shrunk(filtered, scale)
    solve = _solver(taps, small.shape, weight / scale**2, rougher / scale**2, True, filtered.dtype.type)
    blur_of = _Operator(rest, small.shape[0], small.shape[1], 0.0, True, filtered.dtype.type)
    shifts = (row - p) * scale, (column - p) * scale
    from_rows, from_columns = (mirrored(np.arange(n) + s, n) for n, s in zip(filtered.shape, shifts, strict=True))

    def assembled(low: Plane) -> Plane:
        estimate = _stretched(low, scale, height, width)
        sharp = filtered - _stretched(blur_of.forward(low), scale, height, width)
        estimate[np.ix_(from_rows, from_columns)] = sharp
        return estimate

    low = solve(small)
    for _ in range(_REFINEMENTS):
        estimate = assembled(low)
        moved = estimate[np.ix_(from_rows, from_columns)]
        blur = _stretched(blur_of.forward(_shrunk(estimate, scale)), scale, height, width)
        low = low + solve(_shrunk(filtered - moved - blur, scale))
    return assembled(low)


def _shrunk(plane: Plane, factor: int) -> Plane:
    """Average blocks; those at the border average the samples they have."""
    for axis in (0, 1):
        size = plane.shape[axis]
        starts = np.arange(0, size, factor)
        counts = np.diff(np.append(starts, size))
        plane = np.add.reduceat(plane, starts, axis) / np.expand_dims(counts, 1 - axis).astype(plane.dtype)
    return plane


def _stretched(plane: Plane, factor: int, height: int, width: int) -> Plane:
    """Interpolate between the middles of blocks."""
    for axis, size in ((0, height), (1, width)):
        places = np.clip((np.arange(size) + 0.5) / factor - 0.5, 0, plane.shape[axis] - 1)
        first = places.astype(np.int64)
        second = np.minimum(first + 1, plane.shape[axis] - 1)
        share = np.expand_dims(places - first, 1 - axis).astype(plane.dtype)
        plane = plane.take(first, axis) * (1 - share) + plane.take(second, axis) * share
    return plane
