"""How busy places are: against a slow version. What noise makes of it: see test_masking."""

import numpy as np
import pytest

from unlearnable.pictures.contrast import shares
from unlearnable.pictures.quality import brightness


def slow(image, masking):
    """One place after the other: the variance of its window, and the harmonic mean of those around it."""
    rows, columns = image.shape[:2]

    def windows(plane):
        padded = np.pad(plane, 3, "edge")
        return [[padded[i : i + 7, j : j + 7] for j in range(columns)] for i in range(rows)]

    light = windows(brightness(image).astype(float))
    inverse = np.array([[1 / (window.var() + (0.03 * 255) ** 2 / 2) for window in row] for row in light])
    found = np.array([[window.mean() ** -0.5 for window in row] for row in windows(inverse)])
    return np.clip((found / 16) ** masking, 0.5, 4)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("masking", [0, 0.7, 2])
def test_against_a_slow_version(masking, channels, rng):
    pictures = rng.integers(0, 256, (3, 20, 14, channels)).astype(np.uint8)
    pictures[0, :, :7] = 90
    pictures[1] //= 8
    found = shares(pictures, masking)
    assert np.allclose(found, [slow(picture, masking) for picture in pictures], rtol=1e-6)
    assert (found == 1).all() if masking == 0 else found.min() < 0.7 < 1.5 < found.max()
