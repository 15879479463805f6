"""Random blur against scipy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from unlearnable.countermeasures.blur import RandomBlur, blurred, draw_filters
from unlearnable.errors import InputError


def test_against_scipy():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(4, 3, 7, 9, generator=generator)
    filters = draw_filters(0.3, generator, images)
    out = blurred(images, filters).numpy()
    for n in range(4):
        kernel = filters[n].double().numpy()
        wanted = np.stack([correlate(channel, kernel, mode="nearest") for channel in images[n].double().numpy()])
        assert np.allclose(out[n], wanted / wanted.max(), atol=1e-6)


def test_filters_have_one_tap_of_one_anywhere_and_small_others():
    filters = draw_filters(0.3, torch.Generator().manual_seed(0), torch.empty(9000, 3, 2, 2)).reshape(-1, 9)
    ones = filters == 1
    assert (ones.sum(1) == 1).all()
    assert filters[~ones].max() < 0.3
    assert filters[~ones].mean().item() == pytest.approx(0.15, abs=2e-3)
    assert ones.sum(0).min() > 850  # each place about a thousand times: five standard deviations


def test_black_stays_black():
    assert not blurred(torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 3)).any()


def test_bad_strength():
    with pytest.raises(InputError, match="strength above 0"):
        RandomBlur(strength=0)
