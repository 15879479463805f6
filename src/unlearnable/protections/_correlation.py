"""The inner loops of CUDA: one small filter a picture, the same for each of its channels.

Filters come in units of a binary grid (see :class:`unlearnable.protections.convolution.Bank`), so coarse
that every product and every partial sum over the taps is a whole number below 2**24 (2**53 in float64). All of
those are exact, whatever order the processor adds them in: the result is the same to the last bit on any machine.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearnable.compiled import compiled

Samples = NDArray[np.unsignedinteger[Any]]
Sums = NDArray[np.floating[Any]]

_GROUP = 9  # taps added in one pass over a row: one pass for k = 3, nine for k = 9
_RUN = 4096  # sums worked on at a time, so that they stay in the first-level cache
_STRIP = 16_000_000  # sums kept in memory at a time; a larger picture is gone through twice


def _mirrored(index: int, size: int) -> int:
    """Reflect an index at the borders without repeating the border itself, however far outside it lies."""
    if size == 1:
        return 0
    index = abs(index) % (2 * size - 2)
    return 2 * size - 2 - index if index >= size else index


mirrored = compiled(_mirrored)


def _add_taps(sums: Sums, source: Sums, start: NDArray[np.int64], w: Sums, first: bool) -> None:
    """Add nine taps, given by where each starts in the source, to a run of sums."""
    n = sums.shape[0]
    s0, s1, s2 = source[start[0] :][:n], source[start[1] :][:n], source[start[2] :][:n]
    s3, s4, s5 = source[start[3] :][:n], source[start[4] :][:n], source[start[5] :][:n]
    s6, s7, s8 = source[start[6] :][:n], source[start[7] :][:n], source[start[8] :][:n]
    w0, w1, w2, w3, w4, w5, w6, w7, w8 = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7], w[8]
    if first:
        for i in range(n):
            sums[i] = (
                w0 * s0[i] + w1 * s1[i] + w2 * s2[i] + w3 * s3[i] + w4 * s4[i]
                + w5 * s5[i] + w6 * s6[i] + w7 * s7[i] + w8 * s8[i]
            )  # fmt: skip
    else:
        for i in range(n):
            sums[i] += (
                w0 * s0[i] + w1 * s1[i] + w2 * s2[i] + w3 * s3[i] + w4 * s4[i]
                + w5 * s5[i] + w6 * s6[i] + w7 * s7[i] + w8 * s8[i]
            )  # fmt: skip


add_taps = compiled(_add_taps, reorder=True)


def _pad_rows(rows: Samples, first: int, frame: NDArray[np.int64], p: int, reflect: bool, padded: Sums) -> None:
    """Copy rows, from ``first`` - p on, into ``padded``, each with a frame of columns taken from ``frame``."""
    height, inside = rows.shape
    side = frame.shape[0] // 2
    for i in range(padded.shape[0]):
        row = padded[i]
        origin = first + i - p
        if reflect or 0 <= origin < height:
            source, inner = rows[mirrored(origin, height)], row[side:]
            for j in range(inside):
                inner[j] = source[j]
            if reflect:
                for j in range(side):
                    row[j] = source[frame[j]]
                    row[side + inside + j] = source[frame[side + j]]
        else:
            row[:] = 0


pad_rows = compiled(_pad_rows)


def _highest_of(sums: Sums, highest: Sums) -> None:
    """Raise each column's highest value so far."""
    for i in range(sums.shape[0]):
        row = sums[i]
        for j in range(highest.shape[0]):
            highest[j] = max(highest[j], row[j])


highest_of = compiled(_highest_of, reorder=True)


def _write_scaled(sums: Sums, peak: np.floating[Any], full: int, truncate: bool, out: Samples) -> None:
    """Divide rows by the picture's highest value, to integers of full scale ``full``; without reordering."""
    kind = sums.dtype.type
    top, half = kind(full), kind(0.5)
    scale = top / peak if peak > 0 else kind(0)
    for i in range(out.shape[0]):
        row, stored = sums[i], out[i]
        if truncate and peak > 0:
            for j in range(stored.shape[0]):
                stored[j] = np.int32(row[j] / peak * top)
        else:
            for j in range(stored.shape[0]):
                stored[j] = np.int32(row[j] * scale + half)


write_scaled = compiled(_write_scaled)


def _workspace(
    width: int, channels: int, k: int, strip: int, weights: Sums
) -> tuple[Sums, Sums, Sums, Sums, NDArray[np.int64], NDArray[np.int64]]:
    """Set up memory for a strip of rows: padded source (flat, by row), sums (flat, by row), offsets, frame."""
    p = k // 2
    stride = (width + 2 * p) * channels
    source = np.zeros((strip + 2 * p) * stride + _GROUP * k * channels, weights.dtype)
    padded = source[: (strip + 2 * p) * stride].reshape(strip + 2 * p, stride)
    flat_sums = np.empty(strip * stride, weights.dtype)
    offsets = np.zeros(weights.shape[0], np.int64)
    for tap in range(k * k):
        offsets[tap] = tap // k * stride + tap % k * channels
    frame = np.empty(2 * p * channels, np.int64)
    for j in range(p):
        for c in range(channels):
            frame[j * channels + c] = mirrored(j - p, width) * channels + c
            frame[(p + j) * channels + c] = mirrored(width + j, width) * channels + c
    return source, padded, flat_sums, flat_sums.reshape(strip, stride), offsets, frame


workspace = compiled(_workspace)


def _sum_rows(
    rows: Samples,
    first: int,
    count: int,
    reflect: bool,
    weights: Sums,
    space: tuple[Sums, Sums, Sums, Sums, NDArray[np.int64], NDArray[np.int64]],
    highest: Sums,
) -> None:
    """Filter ``count`` rows from ``first`` on; raise the columns' ``highest`` values unless it is empty."""
    source, padded, flat_sums, sums, offsets, frame = space
    p, stride = (padded.shape[0] - sums.shape[0]) // 2, sums.shape[1]
    pad_rows(rows, first, frame, p, reflect, padded[: count + 2 * p])
    run = max(1, _RUN // stride)
    for i in range(0, count, run):
        end = min(count, i + run)
        for tap in range(0, weights.shape[0], _GROUP):
            add_taps(
                flat_sums[i * stride : end * stride],
                source,
                offsets[tap : tap + _GROUP] + i * stride,
                weights[tap : tap + _GROUP],
                tap == 0,
            )
        if highest.shape[0] > 0:
            highest_of(sums[i:end], highest)


sum_rows = compiled(_sum_rows)


def _correlate(
    images: Samples,
    filters: Sums,
    classes: NDArray[np.int64],
    full: int,
    reflect: bool,
    truncate: bool,
    out: Samples,
    peaks: NDArray[np.float64],
) -> None:
    """Filter each picture with its class's filter and divide it by its own highest value.

    ``images`` and ``out``: (count, height, width, channels). ``filters``: (classes, k, k), whose type is the type
    of the sums. ``peaks``: (count,), the highest sum of each picture, in the filters' unit.
    """
    count, height, width, channels = images.shape
    k = filters.shape[1]
    inside = width * channels
    weights = np.zeros((k * k + _GROUP - 1) // _GROUP * _GROUP, filters.dtype)
    strip = min(height, max(1, _STRIP // inside))
    space = workspace(width, channels, k, strip, weights)
    sums = space[3]
    highest = np.empty(inside, filters.dtype)
    nothing = highest[:0]
    rows_in, rows_out = images.reshape(count, height, inside), out.reshape(count, height, inside)
    for n in range(count):
        for tap in range(k * k):
            weights[tap] = filters[classes[n], tap // k, tap % k]
        highest[:] = 0
        for top in range(0, height, strip):
            sum_rows(rows_in[n], top, min(strip, height - top), reflect, weights, space, highest)
        peak = highest.max()
        peaks[n] = peak
        for top in range(0, height, strip):
            rows = min(strip, height - top)
            if strip < height:
                sum_rows(rows_in[n], top, rows, reflect, weights, space, nothing)
            write_scaled(sums, peak, full, truncate, rows_out[n, top : top + rows])


correlate = compiled(_correlate)


def _shrink(image: Samples, factor: int, kind: Sums, out: Samples) -> None:
    """Average blocks of factor x factor pixels, rounded; a block at the border averages the pixels it has.

    ``kind``: any array of the type to count in: float32 for 8-bit samples and factors below 256, else float64.
    """
    height, width, channels = image.shape
    rows_in, rows_out = image.reshape(height, width * channels), out.reshape(out.shape[0], out.shape[1] * channels)
    whole = width // factor  # blocks that are not cut short
    columns = np.empty(width * channels, np.uint32)
    totals = np.empty(out.shape[1] * channels, kind.dtype)
    for i in range(out.shape[0]):
        top, bottom = i * factor, min(height, (i + 1) * factor)
        columns[:] = 0
        for y in range(top, bottom):
            row = rows_in[y]
            for j in range(columns.shape[0]):
                columns[j] += row[j]
        totals[:] = 0
        for part in range(factor):
            for c in range(channels):
                source, target = columns[part * channels + c :], totals[c:]
                for x in range(whole + (whole * factor + part < width)):
                    target[x * channels] += source[x * factor * channels]
        stored = rows_out[i]
        for first, last, across in ((0, whole, factor), (whole, out.shape[1], width - whole * factor)):
            area = kind.dtype.type((bottom - top) * across)
            sums, rounded = totals[first * channels : last * channels], stored[first * channels : last * channels]
            for j in range(sums.shape[0]):
                # A quotient of whole numbers is never rounded up to the next whole number: this is exact.
                rounded[j] = np.int32((sums[j] + sums[j] + area) / (area + area))


shrink = compiled(_shrink)


def _stretched(position: int, factor: int, size: int) -> tuple[int, int, float]:
    """Place a pixel between two of a picture 1/factor of the size: the two, and the share of the second."""
    doubled = 2 * position + 1 - factor
    first = doubled // (2 * factor)
    share = (doubled - 2 * factor * first) / (2 * factor)
    return max(first, 0), min(first + 1, size - 1), share


stretched = compiled(_stretched)


def _add_blur(
    sharp: Samples, upper: Sums, lower: Sums, share: np.floating[Any], unit: np.floating[Any], sums: Sums
) -> None:
    """Add the blurred part, between two of its rows, to a row of the picture. Compiled without reordering."""
    for j in range(sums.shape[0]):
        sums[j] = unit * sharp[j] + (upper[j] + (lower[j] - upper[j]) * share)


add_blur = compiled(_add_blur)


def _correlate_scaled(
    image: Samples, filter_: Sums, row: int, column: int, factor: int, full: int, out: Samples
) -> float:
    """Filter one picture at 1/factor of its size, except for the tap of 1, which acts at full size.

    ``image`` and ``out``: (height, width, channels). ``filter_``: (k, k) with the tap of 1 at (row, column).
    Returns the highest sum, in the filter's unit.
    """
    height, width, channels = image.shape
    inside = width * channels
    k = filter_.shape[0]
    small = np.empty((-(-height // factor), -(-width // factor), channels), image.dtype)
    shrink(image, factor, filter_, small)
    low, narrow = small.shape[0], small.shape[1] * channels
    weights = np.zeros((k * k + _GROUP - 1) // _GROUP * _GROUP, filter_.dtype)
    weights[: k * k] = filter_.reshape(k * k)
    unit = weights[row * k + column]
    weights[row * k + column] = 0
    space = workspace(small.shape[1], channels, k, low, weights)
    sum_rows(small.reshape(low, narrow), 0, low, True, weights, space, weights[:0])
    blur = space[3]

    # The blur is stretched sideways at once, and downwards row by row.
    left, right, shares = np.empty(inside, np.int32), np.empty(inside, np.int32), np.empty(inside, blur.dtype)
    origin = np.empty(inside, np.int32)
    shift = (column - k // 2) * factor
    for x in range(width):
        first, second, share = stretched(x, factor, small.shape[1])
        start = mirrored(x + shift, width)
        for c in range(channels):
            j = x * channels + c
            left[j], right[j], shares[j] = first * channels + c, second * channels + c, share
            origin[j] = start * channels + c
    wide = np.empty((low, inside), blur.dtype)
    for i in range(low):
        line, stretch = blur[i], wide[i]
        for j in range(inside):
            stretch[j] = line[left[j]] + (line[right[j]] - line[left[j]]) * shares[j]

    # The tap of 1 moves the picture; what it moves in over a border is reflected, the rest is one run of a row.
    begin = min(max(-shift, 0), width) * channels
    end = max(min(width - shift, width) * channels, begin)
    rows_in, rows_out = image.reshape(height, inside), out.reshape(height, inside)
    edges = np.empty(inside, image.dtype)
    sums = np.empty((1, inside), blur.dtype)
    total = sums[0]
    highest = np.zeros(inside, blur.dtype)
    peak = highest[0]
    for writing in range(2):  # the highest value first, so that no picture of sums has to be kept
        for y in range(height):
            line = rows_in[mirrored(y + (row - k // 2) * factor, height)]
            for j in range(begin):
                edges[j] = line[origin[j]]
            for j in range(end, inside):
                edges[j] = line[origin[j]]
            i, j, share = stretched(y, factor, low)
            upper, lower, weight = wide[i], wide[j], blur.dtype.type(share)
            moved = line[begin + shift * channels :]
            add_blur(edges[:begin], upper[:begin], lower[:begin], weight, unit, total[:begin])
            add_blur(moved, upper[begin:end], lower[begin:end], weight, unit, total[begin:end])
            add_blur(edges[end:], upper[end:], lower[end:], weight, unit, total[end:])
            if writing:
                write_scaled(sums, peak, full, False, rows_out[y : y + 1])
            else:
                highest_of(sums, highest)
        peak = highest.max()
    return float(peak)


correlate_scaled = compiled(_correlate_scaled)
