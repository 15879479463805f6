"""RSK against scipy's correlation and cosine transform."""

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from scipy.ndimage import correlate

from unlearnable.countermeasures.rsk import RandomSharpening, draw_kernels, low_pass, sharpen
from unlearnable.errors import InputError


def test_sharpening_against_scipy():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, 8, 11, generator=generator)
    taps = draw_kernels(images, generator)
    out = sharpen(images, taps).numpy()
    for n, (centre, above, below, left, right) in enumerate(taps.double().numpy()):
        kernel = np.array([[0, above, 0], [left, centre, right], [0, below, 0]])
        for c in range(3):
            wanted = correlate(images[n, c].double().numpy(), kernel, mode="nearest").clip(0, 1)
            assert np.allclose(out[n, c], wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("height", "width", "fraction", "kept"), [(32, 32, 0.3, (9, 9)), (10, 30, 0.3, (3, 9)), (2, 3, 0.3, (1, 1))]
)
def test_low_pass_against_scipy(height, width, fraction, kept):
    images = 0.5 + 0.2 * torch.rand(3, 2, height, width, generator=torch.Generator().manual_seed(0))
    spectrum = dctn(images.double().numpy(), axes=(2, 3), norm="ortho")
    spectrum[:, :, kept[0] :] = 0
    spectrum[:, :, :, kept[1] :] = 0
    wanted = idctn(spectrum, axes=(2, 3), norm="ortho")
    assert np.allclose(low_pass(images, fraction).numpy(), wanted.clip(0, 1), atol=1e-6)


def test_low_pass_is_in_full_precision_under_autocast():
    images = torch.rand(2, 3, 16, 16)
    wanted = low_pass(images, 0.3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(low_pass(images, 0.3), wanted)


def test_kernels_are_drawn_as_published():
    taps = draw_kernels(torch.empty(20_000, 3, 4, 4), torch.Generator().manual_seed(0)).double().numpy()
    centre, beside = taps[:, 0], -taps[:, 1:]
    assert np.allclose([centre.mean(), centre.std()], [2.5, 0.1], atol=3e-3)  # four standard deviations
    rest = beside - (centre[:, None] - 1) / 4
    assert np.allclose([rest.mean(0), rest.std(0)], [[0] * 4, [0.1] * 4], atol=3e-3)
    assert np.abs(np.corrcoef(rest.T) - np.eye(4)).max() < 0.03


@pytest.mark.parametrize("fraction", [0.0, 1.5])
def test_bad_fraction(fraction):
    with pytest.raises(InputError, match="fraction above 0"):
        RandomSharpening(fraction=fraction)
