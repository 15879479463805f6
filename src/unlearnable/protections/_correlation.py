"""The inner loops of CUDA: one small filter a picture, the same for each of its channels.

Filters come in whole units of a binary grid (see :class:`unlearnable.protections.convolution.Bank`), so coarse that
sums of weighted 8-bit samples stay below 2**24: all of this is exact, and the result is the same to the last bit on any
machine. Of 16-bit samples the upper and the lower bytes are summed one after the other.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unlearnable.compiled import compiled
from unlearnable.protections._products import BLOCK, add_products

Samples = NDArray[np.unsignedinteger[Any]]
Sums = NDArray[np.floating[Any]]
Numbers = NDArray[np.number[Any]]

_RUN = 32768  # sums worked on at a time, so that all they are made of stays in the second-level cache
_STRIP = 16_000_000  # sums kept in memory at a time; a larger picture is gone through twice
_ROUNDED_UP = 1 + 2**-20  # more than all that rounding can add to a sum


def _mirrored(index: int, size: int) -> int:
    """Reflect an index at the borders without repeating the border itself, however far outside it lies."""
    if size == 1:
        return 0
    index = abs(index) % (2 * size - 2)
    return 2 * size - 2 - index if index >= size else index


mirrored = compiled(_mirrored)


class Space(NamedTuple):
    """Memory for a run of rows, and where things are in it.

    padded: (rows, samples) uint8, with a frame of columns. pairs: flat int16, each of those samples beside the one
    below it. frame: where the columns of the frame come from. offsets: of the taps, in ``pairs``.
    """

    padded: NDArray[np.uint8]
    pairs: NDArray[np.int16]
    frame: NDArray[np.int64]
    offsets: NDArray[np.int64]


def _prepared(height: int, width: int, channels: int, k: int) -> Space:
    """Set up memory for pictures of one size."""
    p = k // 2
    stride = (width + 2 * p) * channels
    rows = min(height, max(1, _RUN // stride)) + k
    offsets = np.empty((k + 1) // 2 * k, np.int64)
    for tap in range(offsets.shape[0]):  # two rows of taps at a time
        offsets[tap] = 2 * (tap // k * 2 * stride + tap % k * channels)
    frame = np.empty(2 * p * channels, np.int64)
    for j in range(p):
        for c in range(channels):
            frame[j * channels + c] = mirrored(j - p, width) * channels + c
            frame[(p + j) * channels + c] = mirrored(width + j, width) * channels + c
    pairs = np.zeros(2 * (rows * stride + k * channels + BLOCK), np.int16)
    return Space(np.zeros((rows, stride), np.uint8), pairs, frame, offsets)


prepared = compiled(_prepared)


def _paired(
    taps: NDArray[np.int64], offsets: NDArray[np.int64], weights: NDArray[np.int32], places: NDArray[np.int64]
) -> int:
    """Write a filter's taps, (k, k), two rows at a time, the lower row's in the upper half; return how many there are.

    Pairs of zeros are left out: an aligned filter is three quarters zeros. places: the offsets of those that are not.
    """
    k = taps.shape[0]
    count = 0
    for tap in range(offsets.shape[0]):
        row, column = tap // k * 2, tap % k
        below = taps[row + 1, column] if row + 1 < k else 0
        if taps[row, column] or below:
            weights[count] = taps[row, column] + (below << 16)
            places[count] = offsets[tap]
            count += 1
    return count


paired = compiled(_paired)


def _pad_rows(rows: Samples, first: int, upper: bool, frame: NDArray[np.int64], padded: NDArray[np.uint8]) -> None:
    """Copy the samples' lower bytes, or upper ones, of rows from ``first`` on, with columns from ``frame`` around."""
    height, inside = rows.shape
    side = frame.shape[0] // 2
    for i in range(padded.shape[0]):
        source, row = rows[mirrored(first + i, height)], padded[i]
        inner = row[side:]
        if upper:
            for j in range(inside):
                inner[j] = source[j] >> 8
        else:
            for j in range(inside):
                inner[j] = source[j]
        for j in range(side):
            row[j] = inner[frame[j]]
            row[side + inside + j] = inner[frame[side + j]]


pad_rows = compiled(_pad_rows)


def _pair_rows(padded: NDArray[np.uint8], pairs: NDArray[np.int16]) -> None:
    """Write each sample beside the one below it."""
    stride = padded.shape[1]
    for i in range(padded.shape[0] - 1):
        upper, lower, both = padded[i], padded[i + 1], pairs[2 * i * stride :]
        for j in range(stride):
            both[2 * j] = upper[j]
            both[2 * j + 1] = lower[j]


pair_rows = compiled(_pair_rows)


def _sum_rows(
    rows: Samples,
    first: int,
    count: int,
    k: int,
    weights: NDArray[np.int32],
    places: NDArray[np.int64],
    space: Space,
    sums: Sums,
) -> None:
    """Filter ``count`` rows from ``first`` on.

    ``weights``, ``places``: see :func:`_paired`. ``sums``: flat, by row, each as long as a padded one; and room for
    ``BLOCK`` more.
    """
    stride, run = space.padded.shape[1], space.padded.shape[0] - k
    for start in range(0, count, run):
        height = min(run, count - start)
        begin, end = start * stride, (start + height) * stride
        part, padded = sums[begin:], space.padded[: height + k]
        part[: end - begin] = 0
        for upper in range(rows.itemsize - 1, -1, -1):
            pad_rows(rows, first + start - k // 2, upper > 0, space.frame, padded)
            pair_rows(padded, space.pairs)
            for at in range(0, end - begin, BLOCK):
                add_products(part, at, space.pairs, places, weights)


sum_rows = compiled(_sum_rows)


def _highest_of(sums: Sums, highest: Sums) -> None:
    """Raise each column's highest value so far."""
    for i in range(sums.shape[0]):
        row = sums[i]
        for j in range(highest.shape[0]):
            highest[j] = max(highest[j], row[j])


highest_of = compiled(_highest_of, reorder=True)


def _highest_sum(sums: Sums) -> np.floating[Any]:
    """Find the highest of many sums: by column first, which a processor does several times as fast."""
    lanes = np.zeros(64, sums.dtype)
    whole = sums.shape[0] // 64
    highest_of(sums[: 64 * whole].reshape(whole, 64), lanes)
    highest = lanes.max()
    for j in range(64 * whole, sums.shape[0]):
        highest = max(highest, sums[j])
    return highest  # type: ignore[no-any-return]


highest_sum = compiled(_highest_sum)


def _highest_sample(row: Samples) -> int:
    highest = row[0]
    for j in range(row.shape[0]):
        if row[j] > highest:
            highest = row[j]
    return int(highest)


highest_sample = compiled(_highest_sample)


def _write_scaled(sums: Sums, scale: np.floating[Any], out: Samples) -> None:
    """Multiply rows by ``scale`` and round, halves up. Compiled without reordering."""
    half = sums.dtype.type(0.5)
    for i in range(out.shape[0]):
        row, stored = sums[i], out[i]
        for j in range(stored.shape[0]):
            stored[j] = np.int32(row[j] * scale + half)


write_scaled = compiled(_write_scaled)


def _correlate(
    images: Samples,
    filters: NDArray[np.int64],
    classes: NDArray[np.int64],
    full: np.floating[Any],
    out: Samples,
    peaks: NDArray[np.float64],
) -> None:
    """Filter each picture with its class's filter and divide it by its own highest value.

    ``images`` and ``out``: (count, height, width, channels). ``filters``: (classes, k, k). ``full``: the highest
    sample there can be; its type is that of the sums. ``peaks``: (count,), the highest sum of each picture.
    """
    count, height, width, channels = images.shape
    k = filters.shape[1]
    inside = width * channels
    space = prepared(height, width, channels, k)
    stride = space.padded.shape[1]
    strip = min(height, max(1, _STRIP // inside))
    flat = np.empty(strip * stride + BLOCK, np.full(1, full).dtype)
    sums = flat[: strip * stride].reshape(strip, stride)
    weights, places = np.empty(space.offsets.shape[0], np.int32), np.empty_like(space.offsets)
    highest = np.empty(inside, flat.dtype)
    rows_in, rows_out = images.reshape(count, height, inside), out.reshape(count, height, inside)
    for n in range(count):
        taps = paired(filters[classes[n]], space.offsets, weights, places)
        highest[:] = 0
        for top in range(0, height, strip):
            rows = min(strip, height - top)
            sum_rows(rows_in[n], top, rows, k, weights[:taps], places[:taps], space, flat)
            highest_of(sums[:rows], highest)
        peak = highest_sum(highest)
        peaks[n] = peak
        scale = full / peak if peak > 0 else peak
        for top in range(0, height, strip):
            rows = min(strip, height - top)
            if strip < height:
                sum_rows(rows_in[n], top, rows, k, weights[:taps], places[:taps], space, flat)
            write_scaled(sums, scale, rows_out[n, top : top + rows])


correlate = compiled(_correlate)


def _add_row(row: Numbers, sums: NDArray[np.uint32], first: bool) -> None:
    """Add a row to sums by column, or begin them with it."""
    if first:
        for j in range(row.shape[0]):
            sums[j] = row[j]
    else:
        for j in range(row.shape[0]):
            sums[j] += row[j]


add_row = compiled(_add_row)


def _regroup(source: Numbers, parts: int, part: int, step: int, channels: int, count: int, target: Numbers) -> None:
    """Write pixels one after another: of each of ``parts`` arrays in turn the first pixel, then the next ones.

    ``part``: where the second array starts in ``source``; ``step``: how far an array's pixels lie apart. Four samples
    are moved at a time whatever a pixel has, which is one instruction; both ends need room for that. The next pixel
    overwrites what was too many.
    """
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)  # unsigned: no index is ever negative
    to, start = np.uint64(0), np.uint64(0)
    for _ in range(count):
        at = start
        for _ in range(parts):
            a, b, c, d = source[at], source[at + one], source[at + two], source[at + three]
            target[to], target[to + one], target[to + two], target[to + three] = a, b, c, d
            at += np.uint64(part)
            to += np.uint64(channels)
        start += np.uint64(step)


regroup = compiled(_regroup)


def _write_means(sums: NDArray[np.uint32], area: int, out: Samples) -> None:
    """Divide by ``area`` and round, halves up."""
    share = 0.5 / area
    for j in range(out.shape[0]):
        # Exact: (2 sum + area + 1/2) / (2 area) lies further from whole numbers than rounding errors reach.
        out[j] = np.int32((2.0 * np.int32(sums[j]) + (area + 0.5)) * share)


write_means = compiled(_write_means)


def _shrink(image: Samples, factor: int, out: Samples) -> None:
    """Average blocks of factor x factor pixels, rounded; a block at the border averages the pixels it has."""
    height, width, channels = image.shape
    rows_in, rows_out = image.reshape(height, width * channels), out.reshape(out.shape[0], out.shape[1] * channels)
    whole = width // factor * channels  # samples of blocks that are not cut short
    columns = np.zeros(out.shape[1] * factor * channels + 3, np.uint32)
    totals, means = np.zeros(columns.shape[0], np.uint32), np.empty(rows_out.shape[1] + 3, np.uint32)
    for i in range(out.shape[0]):
        top, bottom = i * factor, min(height, (i + 1) * factor)
        for y in range(top, bottom):
            add_row(rows_in[y], columns, y == top)
        for part in range(factor):
            add_row(columns[part * channels :], totals, part == 0)
        regroup(totals, 1, 0, factor * channels, channels, out.shape[1], means)
        write_means(means[:whole], (bottom - top) * factor, rows_out[i, :whole])
        write_means(means[whole:], (bottom - top) * (width % factor), rows_out[i, whole:])


shrink = compiled(_shrink)


def _between(line: Sums, ahead: Sums, share: np.floating[Any], out: Sums) -> None:
    """Interpolate between two lines. Compiled without reordering."""
    for j in range(out.shape[0]):
        out[j] = line[j] + (ahead[j] - line[j]) * share


between = compiled(_between)


def _stretch_sideways(small: Sums, narrow: int, channels: int, factor: int, wide: Sums) -> None:
    """Interpolate rows between the middles of blocks; beyond the outermost ones, repeat these.

    ``small``: (rows, at least ``narrow`` samples). ``wide``: flat; rows of factor * narrow samples, and room for three.
    """
    line = np.empty(narrow + 2 * channels, small.dtype)
    part = narrow + 3
    parts = np.empty(factor * part, small.dtype)
    for i in range(small.shape[0]):
        row, inner = small[i], line[channels:]
        for j in range(narrow):
            inner[j] = row[j]
        for c in range(channels):
            line[c], line[channels + narrow + c] = row[c], row[narrow - channels + c]
        for place in range(factor):  # of a pixel in its block
            first, share = placed(place, factor)
            begin = (first + 1) * channels
            between(line[begin:], line[begin + channels :], small.dtype.type(share), parts[place * part :][:narrow])
        regroup(parts, factor, part, channels, channels, narrow // channels, wide[i * narrow * factor :])


stretch_sideways = compiled(_stretch_sideways)


def _placed(position: int, factor: int) -> tuple[int, float]:
    """Place a pixel in a picture of 1/factor of the size: the pixel there before it, and the share of the next."""
    doubled = 2 * position + 1 - factor
    first = doubled // (2 * factor)
    return first, (doubled - 2 * factor * first) / (2 * factor)


placed = compiled(_placed)


def _add_blur(
    sharp: Samples, upper: Sums, lower: Sums, share: np.floating[Any], unit: np.floating[Any], sums: Sums
) -> None:
    """Add the blurred part, between two of its rows, to a row of the picture. Compiled without reordering."""
    for j in range(sums.shape[0]):
        sums[j] = unit * sharp[j] + (upper[j] + (lower[j] - upper[j]) * share)


add_blur = compiled(_add_blur)


def _write_blurred(
    sharp: Samples,
    upper: Sums,
    lower: Sums,
    share: np.floating[Any],
    unit: np.floating[Any],
    scale: np.floating[Any],
    out: Samples,
) -> None:
    """Do as :func:`_add_blur` does, and write what comes of it times ``scale``, rounded."""
    half = upper.dtype.type(0.5)
    for j in range(out.shape[0]):
        out[j] = np.int32((unit * sharp[j] + (upper[j] + (lower[j] - upper[j]) * share)) * scale + half)


write_blurred = compiled(_write_blurred)


def _move_row(row: Samples, right: int, begin: int, end: int, origin: NDArray[np.int64], moved: Samples) -> None:
    """Move a row by ``right`` samples; those outside ``begin`` to ``end`` come from where ``origin`` says."""
    for j in range(begin):
        moved[j] = row[origin[j]]
    inner = row[begin + right :]
    for j in range(end - begin):
        moved[begin:][j] = inner[j]
    for j in range(end, row.shape[0]):
        moved[j] = row[origin[j]]


move_row = compiled(_move_row)


def _correlate_scaled(
    image: Samples, taps: NDArray[np.int64], row: int, column: int, factor: int, full: np.floating[Any], out: Samples
) -> float:
    """Filter one picture at 1/factor of its size, except for the tap of 1, which acts at full size.

    ``image`` and ``out``: (height, width, channels). ``taps``: (k, k) with the tap of 1 at (row, column). ``full``: the
    highest sample there can be; its type is that of the sums. Returns the highest sum.
    """
    height, width, channels = image.shape
    inside = width * channels
    k = taps.shape[0]
    small = np.empty((-(-height // factor), -(-width // factor), channels), image.dtype)
    shrink(image, factor, small)
    low, narrow = small.shape[0], small.shape[1] * channels
    small_rows = small.reshape(low, narrow)
    space = prepared(low, small.shape[1], channels, k)
    stride, strip = space.padded.shape[1], space.padded.shape[0] - k
    rest = taps.copy()
    rest[row, column] = 0
    weights, places = np.empty(space.offsets.shape[0], np.int32), np.empty_like(space.offsets)
    count = paired(rest, space.offsets, weights, places)
    weights, places = weights[:count], places[:count]

    # The blur is stretched sideways at once, and downwards row by row.
    flat = np.empty(strip * stride + BLOCK, np.full(1, full).dtype)
    blur = flat[: strip * stride].reshape(strip, stride)
    stretched = np.empty(low * narrow * factor + 3, flat.dtype)
    tops = np.empty(low)
    for top in range(0, low, strip):
        rows = min(strip, low - top)
        sum_rows(small_rows, top, rows, k, weights, places, space, flat)
        stretch_sideways(blur[:rows], narrow, channels, factor, stretched[top * narrow * factor :])
        for i in range(rows):
            tops[top + i] = highest_sum(blur[i, :narrow])
    wide = stretched[: low * narrow * factor].reshape(low, narrow * factor)

    # The tap of 1 moves the picture; what it moves in over a border is reflected.
    down, right = (row - k // 2) * factor, (column - k // 2) * factor
    begin = min(max(-right, 0), width) * channels
    end = max(min(width - right, width) * channels, begin)
    origin = np.empty(inside, np.int64)
    for x in range(width):
        for c in range(channels):
            origin[x * channels + c] = mirrored(x + right, width) * channels + c
    rows_in, rows_out = image.reshape(height, inside), out.reshape(height, inside)
    moved = np.empty(inside, image.dtype)

    # The highest value first: only rows that can have it are gone through, the most promising one first.
    unit = flat.dtype.type(taps[row, column])
    bounds = np.empty(height)
    for y in range(height):
        first, _ = placed(y, factor)
        sharp, blurred = rows_in[mirrored(y + down, height)], max(tops[max(first, 0)], tops[min(first + 1, low - 1)])
        bounds[y] = (np.float64(unit) * highest_sample(sharp) + blurred) * _ROUNDED_UP
    sums = np.empty(inside, flat.dtype)
    peak = flat.dtype.type(0)
    best = int(bounds.argmax())
    for turn in range(-1, height):
        y = best if turn < 0 else turn
        if bounds[y] > peak:
            first, share = placed(y, factor)
            move_row(rows_in[mirrored(y + down, height)], right * channels, begin, end, origin, moved)
            upper, lower = wide[max(first, 0)][:inside], wide[min(first + 1, low - 1)][:inside]
            add_blur(moved, upper, lower, flat.dtype.type(share), unit, sums)
            peak = max(peak, highest_sum(sums))
    scale = full / peak if peak > 0 else peak
    for y in range(height):
        first, share = placed(y, factor)
        move_row(rows_in[mirrored(y + down, height)], right * channels, begin, end, origin, moved)
        upper, lower = wide[max(first, 0)][:inside], wide[min(first + 1, low - 1)][:inside]
        write_blurred(moved, upper, lower, flat.dtype.type(share), unit, scale, rows_out[y])
    return float(peak)


correlate_scaled = compiled(_correlate_scaled)
