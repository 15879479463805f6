"""How much a picture changed: PSNR and SSIM, fast enough to be measured for every picture."""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from unlearnable.compiled import compiled

Image = NDArray[np.unsignedinteger[Any]]

LUMA: Final = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in brightness (Rec. 601), for what computes with floats."""

_WINDOW = 7
_SMALL, _EVERY = 100, 4
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(original: Image, changed: Image) -> float:
    """Peak signal-to-noise ratio in dB over all samples; infinite for equal pictures.

    Both (height, width, channels), of the same shape and type, uint8 or uint16; the peak is the type's largest value.
    """
    error = squared_error(original.reshape(-1), changed.reshape(-1)) / original.size
    return math.inf if error == 0 else 10 * math.log10(float(np.iinfo(original.dtype).max) ** 2 / error)


def ssim(original: Image, changed: Image) -> float:
    """Mean structural similarity of the brightness, on the 8-bit scale.

    Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment", IEEE TIP 2004, eq. 13, with K1 = 0.01, K2 = 0.03, a
    uniform window of 7 x 7 and unbiased covariances; only windows that lie within the picture count. A picture
    smaller than a window is one window of its own size. Of a picture of 100 pixels and more on its shorter side, the
    windows of every fourth row stand for all (to about 0.002).

    Both (height, width, channels), of the same shape and type, uint8 or uint16.
    """
    every = 1 if min(original.shape[:2]) < _SMALL else _EVERY
    return float(mean_similarity(brightness(original), brightness(changed), every))


def brightness(image: Image) -> NDArray[np.uint8]:
    """Reduce a picture to (height, width) uint8: Rec. 601 luma of three channels, the mean of any other number."""
    if image.dtype != np.uint8:
        image = (image >> np.uint16(8)).astype(np.uint8)
    if image.shape[-1] == 1:
        return np.ascontiguousarray(image[..., 0]).astype(np.uint8, copy=False)
    out = np.empty(image.shape[:2], np.uint8)
    weigh(np.ascontiguousarray(image), out)
    return out


def _squared_error(first: Image, second: Image) -> float:
    total = np.float64(0)
    for start in range(0, first.shape[0], 1024):
        a, b = first[start : start + 1024], second[start : start + 1024]
        part = np.float32(0)
        for i in range(a.shape[0]):
            difference = np.float32(a[i]) - np.float32(b[i])
            part += difference * difference
        total += part
    return float(total)


squared_error = compiled(_squared_error, reorder=True)


def _weigh(image: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    height, width, channels = image.shape
    for y in range(height):
        row, line = image[y], out[y]
        if channels == 3:
            for x in range(width):
                total = np.uint32(19595) * row[x, 0] + np.uint32(38470) * row[x, 1] + np.uint32(7471) * row[x, 2]
                line[x] = (total + np.uint32(32768)) >> np.uint32(16)
        else:
            for x in range(width):
                sum_ = 0
                for c in range(channels):
                    sum_ += row[x, c]
                line[x] = sum_ // channels


weigh = compiled(_weigh)


def _slide(column: NDArray[np.float32], wide: int, out: NDArray[np.float32]) -> None:
    """Sum every run of ``wide`` neighbours."""
    n = out.shape[0]
    if wide == _WINDOW:
        c0, c1, c2, c3 = column[:n], column[1:][:n], column[2:][:n], column[3:][:n]
        c4, c5, c6 = column[4:][:n], column[5:][:n], column[6:][:n]
        for x in range(n):
            out[x] = c0[x] + c1[x] + c2[x] + c3[x] + c4[x] + c5[x] + c6[x]
    else:
        for x in range(n):
            out[x] = column[x : x + wide].sum()


slide = compiled(_slide, reorder=True)


def _move_down(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    first_gone: NDArray[np.uint8],
    second_gone: NDArray[np.uint8],
    columns: NDArray[np.float32],
) -> None:
    """Take a row of each picture into the sums by column, and another out."""
    a, b, squares, products = columns[0], columns[1], columns[2], columns[3]
    for x in range(first.shape[0]):
        p, q = np.float32(first[x]), np.float32(second[x])
        r, s = np.float32(first_gone[x]), np.float32(second_gone[x])
        a[x] += p - r
        b[x] += q - s
        squares[x] += p * p + q * q - r * r - s * s
        products[x] += p * q - r * s


move_down = compiled(_move_down, reorder=True)


def _mean_similarity(first: NDArray[np.uint8], second: NDArray[np.uint8], every: int) -> float:
    height, width = first.shape
    tall, wide = min(_WINDOW, height), min(_WINDOW, width)
    windows = width - wide + 1
    # Sums over the window's rows, by column, of a, b, a*a + b*b and a*b; all whole numbers below 2**24, so exact.
    columns = np.zeros((4, width), np.float32)
    sums = np.empty((4, windows), np.float32)
    sum_a, sum_b, sum_squares, sum_products = sums[0], sums[1], sums[2], sums[3]
    share = np.float32(1.0 / (tall * wide))
    unbiased = np.float32(1.0 / max(tall * wide - 1, 1))
    c1, c2, two = np.float32(_C1), np.float32(_C2), np.float32(2)
    nothing = np.zeros(width, np.uint8)
    for y in range(tall - every):
        move_down(first[y], second[y], nothing, nothing, columns)
    total = 0.0
    for top in range(0, height - tall + 1, every):
        for y in range(top + tall - every, top + tall):
            if y >= tall:
                move_down(first[y], second[y], first[y - tall], second[y - tall], columns)
            else:
                move_down(first[y], second[y], nothing, nothing, columns)
        for i in range(4):
            slide(columns[i], wide, sums[i])
        line = np.float32(0)
        for x in range(windows):
            mean_a, mean_b = sum_a[x] * share, sum_b[x] * share
            variances = (sum_squares[x] - sum_a[x] * mean_a - sum_b[x] * mean_b) * unbiased
            covariance = (sum_products[x] - sum_a[x] * mean_b) * unbiased
            line += ((two * mean_a * mean_b + c1) * (two * covariance + c2)) / (
                (mean_a * mean_a + mean_b * mean_b + c1) * (variances + c2)
            )
        total += np.float64(line) / windows
    return float(total / ((height - tall) // every + 1))


mean_similarity = compiled(_mean_similarity, reorder=True)
