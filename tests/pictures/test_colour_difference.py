"""CIEDE2000 against scikit-image, and the pairs of the paper's table."""

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from unlearnable.pictures.colour_difference import ciede2000, colour_difference, lab

PAIRS = [  # Sharma, Wu, Dalal 2005, table 1, whole
    ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
    ((50, 3.1571, -77.2803), (50, 0, -82.7485), 2.8615),
    ((50, 2.8361, -74.02), (50, 0, -82.7485), 3.4412),
    ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1),
    ((50, -1.1848, -84.8006), (50, 0, -82.7485), 1),
    ((50, -0.9009, -85.5211), (50, 0, -82.7485), 1),
    ((50, 0, 0), (50, -1, 2), 2.3669),
    ((50, -1, 2), (50, 0, 0), 2.3669),
    ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
    ((50, 2.49, -0.001), (50, -2.49, 0.001), 7.1792),
    ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
    ((50, 2.49, -0.001), (50, -2.49, 0.0012), 7.2195),
    ((50, -0.001, 2.49), (50, 0.0009, -2.49), 4.8045),
    ((50, -0.001, 2.49), (50, 0.001, -2.49), 4.8045),
    ((50, -0.001, 2.49), (50, 0.0011, -2.49), 4.7461),
    ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
    ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ((50, 2.5, 0), (61, -5, 29), 22.8977),
    ((50, 2.5, 0), (56, -27, -3), 31.903),
    ((50, 2.5, 0), (58, 24, 15), 19.4535),
    ((50, 2.5, 0), (50, 3.1736, 0.5854), 1),
    ((50, 2.5, 0), (50, 3.2972, 0), 1),
    ((50, 2.5, 0), (50, 1.8634, 0.5757), 1),
    ((50, 2.5, 0), (50, 3.2592, 0.335), 1),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((63.0109, -31.0961, -5.8663), (62.8187, -29.7946, -4.0864), 1.263),
    ((61.2901, 3.7196, -5.3901), (61.4292, 2.248, -4.962), 1.8731),
    ((35.0831, -44.1164, 3.7933), (35.0232, -40.0716, 1.5901), 1.8645),
    ((22.7233, 20.0904, -46.694), (23.0331, 14.973, -42.5619), 2.0373),
    ((36.4612, 47.858, 18.3852), (36.2715, 50.5065, 21.2231), 1.4146),
    ((90.8027, -2.0831, 1.441), (91.1528, -1.6435, 0.0447), 1.4441),
    ((90.9257, -0.5406, -0.9208), (88.6381, -0.8985, -0.7239), 1.5381),
    ((6.7747, -0.2908, -2.4247), (5.8714, -0.0985, -2.2286), 0.6377),
    ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("first", "second", "wanted"), PAIRS)
def test_pairs_of_the_paper(first, second, wanted):
    first, second = np.array(first, float), np.array(second, float)
    assert ciede2000(first, second) == pytest.approx(wanted, abs=5e-5)
    assert ciede2000(second, first) == pytest.approx(wanted, abs=5e-5)


def test_against_scikit_image(rng):
    one, other = rng.integers(0, 256, (2, 40, 50, 3), dtype=np.uint8)
    assert np.abs(lab(one) - rgb2lab(one)).max() < 0.02  # its matrix has fewer digits
    assert np.allclose(ciede2000(lab(one), lab(other)), deltaE_ciede2000(lab(one), lab(other)), atol=1e-6)
    assert colour_difference(one, other) == pytest.approx(
        deltaE_ciede2000(rgb2lab(one), rgb2lab(other)).mean(), abs=0.02
    )


def test_of_large_pictures_some_pixels_stand_for_all(rng):
    one = np.kron(rng.integers(0, 256, (20, 20, 3)), np.ones((12, 12, 1))).astype(np.uint8)
    other = (one * 0.8).astype(np.uint8)
    assert colour_difference(one, other) == pytest.approx(ciede2000(lab(one), lab(other)).mean(), rel=0.1)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_colours_and_sixteen_bits(channels, rng):
    one, other = rng.integers(0, 256, (2, 9, 7, channels), dtype=np.uint8)
    seen = [p.repeat(3, 2) if channels == 1 else p[..., :3].astype(int) * p[..., 3:] // 255 for p in (one, other)]
    wanted = ciede2000(*(lab(p.astype(np.uint8)) for p in seen)).mean()
    assert colour_difference(one, other) == pytest.approx(wanted)
    assert colour_difference(*(p.astype(np.uint16) * 257 for p in (one, other))) == pytest.approx(wanted)
    assert colour_difference(one, one) == 0
