"""Each corruption of one picture by its formula: slow, obvious, with constants of its own, from the libraries' parts.

A picture is (32, 32, 3) float64, 0 to 1. What is random is handed over, as it was drawn.
"""

import math

import numpy as np
from scipy import fft, ndimage, signal
from skimage import color, filters, transform


def gaussian_noise(x, severity, noise):
    return x + noise


def shot_noise(x, severity, photons):
    return photons / [500, 250, 100, 75, 50][severity - 1]


def impulse_noise(x, severity, grains):
    out = x.copy()
    for place in np.ndindex(x.shape):
        if grains[place] in (0, 1):
            out[place] = grains[place]
    return out


def defocus_blur(x, severity):
    radius, sigma = [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)][severity - 1]
    disk = np.array([[float(math.hypot(i - 8, j - 8) <= radius) for j in range(17)] for i in range(17)])
    soft = np.array([[math.exp(-(i * i + j * j) / (2 * sigma**2)) for j in (-1, 0, 1)] for i in (-1, 0, 1)])
    kernel = signal.convolve2d(disk / disk.sum(), soft / soft.sum(), mode="same")
    padded = np.pad(x, ((8, 8), (8, 8), (0, 0)), mode="reflect")
    return np.stack([signal.correlate2d(padded[..., c], kernel, mode="valid") for c in range(x.shape[2])], 2)


def glass_blur(x, severity, offsets):
    sigma, reach, passes = [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)][severity - 1]
    pixels = np.uint8(filters.gaussian(x, sigma=sigma, channel_axis=-1) * 255 + 1e-6)
    for i in range(passes):
        for row in range(len(x) - reach, reach, -1):
            for column in range(x.shape[1] - reach, reach, -1):
                across, down = offsets[i, row, column]
                pixels[row, column] = pixels[row + down, column + across]
    return filters.gaussian(pixels / 255, sigma=sigma, channel_axis=-1)


def line_blur(x, radius, sigma, angle):
    """ImageMagick's motion blur, pixel by pixel."""
    height, width, _ = x.shape
    weights = [math.exp(-(i**2) / (2 * sigma**2)) / (math.sqrt(2 * math.pi) * sigma) for i in range(2 * radius + 1)]
    out = np.zeros_like(x)
    for row in range(height):
        for column in range(width):
            for i, weight in enumerate(weights):
                down = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
                across = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
                nearest = x[min(max(row + down, 0), height - 1), min(max(column + across, 0), width - 1)]
                out[row, column] += weight / sum(weights) * nearest
    return np.floor(np.rint(out * 65535) / 257) / 255


def motion_blur(x, severity, angle):
    return line_blur(x, *[(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)][severity - 1], float(angle))


def middle_zoomed(x, factor):
    size = len(x)
    kept = math.ceil(size / factor)
    start = (size - kept) // 2
    large = ndimage.zoom(x[start : start + kept, start : start + kept], (factor, factor, 1), order=1)
    start = (len(large) - size) // 2
    return large[start : start + size, start : start + size]


def zoom_blur(x, severity):
    last = [1.06, 1.11, 1.15, 1.20, 1.25][severity - 1]
    layers = [x] + [middle_zoomed(x, 1 + i / 100) for i in range(round(100 * last) - 99)]
    return np.mean(layers, axis=0)


def snow(x, severity, flakes, angle):
    _, _, zoom, threshold, radius, sigma, kept = [
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ][severity - 1]
    layer = middle_zoomed(flakes, zoom)
    layer[layer < threshold] = 0
    layer = np.uint8(np.clip(layer, 0, 1) * 255) / 255
    layer = line_blur(layer, radius, sigma, float(angle))
    grey = 0.299 * x[..., :1] + 0.587 * x[..., 1:2] + 0.114 * x[..., 2:]
    return kept * x + (1 - kept) * np.maximum(x, 1.5 * grey + 0.5) + layer + np.rot90(layer, 2)


def frost(x, severity, ice):
    share, strength = [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)][severity - 1]
    return share * x + strength * ice


def fog(x, severity, heights):
    thickness, _ = [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)][severity - 1]
    return (x + thickness * heights[..., None]) * x.max() / (x.max() + thickness)


def mountains(side, decay, chance):
    """Diamond-square on a torus, point by point."""
    heights = np.full((side, side), np.nan)
    heights[0, 0] = 0
    step, rough = side, 100.0

    def at(row, column):
        return heights[row % side, column % side]

    while step > 1:
        half = step // 2
        squares = [(r, c) for r in range(half, side, step) for c in range(half, side, step)]
        upright = [(r, c) for r in range(0, side, step) for c in range(half, side, step)]
        level = [(r, c) for r in range(half, side, step) for c in range(0, side, step)]
        for r, c in squares:
            corners = [at(r + i, c + j) for i in (-half, half) for j in (-half, half)]
            heights[r, c] = sum(corners) / 4 + rough * chance.uniform(-rough, rough)
        for points in (upright, level):
            for r, c in points:
                around = [at(r - half, c), at(r + half, c), at(r, c - half), at(r, c + half)]
                heights[r, c] = sum(around) / 4 + rough * chance.uniform(-rough, rough)
        step, rough = half, rough / decay
    return (heights - heights.min()) / (heights.max() - heights.min())


def brightness(x, severity):
    hsv = color.rgb2hsv(x)
    hsv[..., 2] = np.clip(hsv[..., 2] + [0.05, 0.1, 0.15, 0.2, 0.3][severity - 1], 0, 1)
    return color.hsv2rgb(hsv)


def contrast(x, severity):
    means = np.mean(x, axis=(0, 1), keepdims=True)
    return (x - means) * [0.75, 0.5, 0.4, 0.3, 0.15][severity - 1] + means


def elastic_transform(x, severity, shifts, fields):
    strength, sigma, _ = [
        (0, 0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    ][severity - 1]
    size = len(x)
    anchors = size // 2 + size // 3 * np.array([[1, 1], [1, -1], [-1, -1]], float)
    turn = transform.AffineTransform.from_estimate(anchors, anchors + shifts)
    turned = transform.warp(x, turn.inverse, order=1, mode="reflect")  # of NumPy's modes: the border comes once
    across, down = (size * strength * ndimage.gaussian_filter(f, size * sigma, truncate=3) for f in fields)
    rows, columns = np.meshgrid(range(size), range(size), indexing="ij")
    places = [rows + down, columns + across]  # of SciPy's modes, reflect: the border comes twice
    return np.stack(
        [ndimage.map_coordinates(turned[..., c], places, order=1, mode="reflect") for c in range(x.shape[2])], 2
    )


def pixelate(x, severity):
    size = len(x)
    small = int(size * [0.95, 0.9, 0.85, 0.75, 0.65][severity - 1])

    def boxes(length, wanted):
        """Pillow's box filter: each new value is the mean of the old ones whose middles its box covers."""
        scale = length / wanted
        reach = 0.5 * max(scale, 1)
        matrix = np.zeros((wanted, length))
        for i in range(wanted):
            middle = (i + 0.5) * scale
            low, high = math.floor(max(middle - reach + 0.5, 0)), math.floor(min(middle + reach + 0.5, length))
            for j in range(low, high):
                matrix[i, j] = -0.5 < (j - middle + 0.5) / max(scale, 1) <= 0.5
        return matrix / matrix.sum(1, keepdims=True)

    whole = boxes(small, size) @ boxes(size, small)
    return np.einsum("ij,jkc,lk->ilc", whole, x, whole)


LUMINANCE = """
    16  11  10  16  24  40  51  61  12  12  14  19  26  58  60  55  14  13  16  24  40  57  69  56
    14  17  22  29  51  87  80  62  18  22  37  56  68 109 103  77  24  35  55  64  81 104 113  92
    49  64  78  87 103 121 120 101  72  92  95  98 112 100 103  99"""  # ITU T.81, table K.1


def jpeg_compression(x, severity):
    """JPEG of a grey picture, whose sides are multiples of 8: blocks, cosines, quantized."""
    quality = [80, 65, 58, 50, 40][severity - 1]
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    table = np.clip((np.array(LUMINANCE.split(), int).reshape(8, 8) * scale + 50) // 100, 1, 255)
    grey = np.rint(255 * x[..., 0]) - 128
    out = np.empty_like(grey)
    for row in range(0, len(x), 8):
        for column in range(0, x.shape[1], 8):
            block = fft.dctn(grey[row : row + 8, column : column + 8], norm="ortho") / table
            block = np.sign(block) * np.floor(np.abs(block) + 0.5 + 1e-9)  # halves away from zero
            out[row : row + 8, column : column + 8] = fft.idctn(block * table, norm="ortho")
    return np.repeat(np.clip(out + 128, 0, 255)[..., None], x.shape[2], 2) / 255
