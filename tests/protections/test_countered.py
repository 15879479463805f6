"""What noise is made through, against the countermeasures it stands for."""

import numpy as np
import pytest
import torch

from tests.countermeasures.conftest import textured
from unlearnable.countermeasures import Published, named
from unlearnable.countermeasures.rsk import low_pass
from unlearnable.protections.countered import Countered, Retouched, equalized, grey, normalized


def as_batch(images):
    return torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2) / 255


def as_images(batch):
    return (255 * batch).permute(0, 2, 3, 1).numpy()


@pytest.fixture
def published(rng):
    return textured(rng, count=60, height=32, width=28)


@pytest.mark.parametrize(("step", "name"), [(grey, "grayscale"), (normalized, "local-normalization")])
def test_pictures_by_themselves_are_changed_like_by_the_countermeasure(published, step, name):
    wanted = named(name).at_test(published.images)
    assert np.abs(as_images(step(as_batch(published.images))) - wanted).max() < 0.6
    assert np.abs(wanted - published.images.astype(float)).max() > 20


def test_grey_pictures_are_grey(rng):
    batch = as_batch(textured(rng, channels=1).images)
    assert grey(batch) is batch


def test_spectra_are_moved_towards_those_that_the_countermeasure_moves_them_onto(published):
    filtered = published.images.astype(float)
    filtered[published.labels == 1] = (filtered + np.roll(filtered, 1, 1))[published.labels == 1] / 2
    shown = Published(np.rint(filtered).astype(np.uint8), published.labels, 3)
    wanted = named("spectrum-equalization").clean(shown, np.random.default_rng(0)).astype(float)
    found = as_images(equalized(as_batch(shown.images), torch.tensor(shown.labels)))
    change, left = (np.square(some - wanted).mean() for some in (shown.images, found))
    assert left < change / 5


def test_spectra_of_classes_with_a_picture_each_hardly_change(published):
    batch = as_batch(published.images)
    few = (equalized(batch, torch.arange(60)) - batch).abs().mean()
    assert 0 < few < 0.05


def test_each_step_is_done_to_the_pictures_that_chance_chooses_and_gradients_pass():
    torch.manual_seed(0)
    batch = (0.2 + 0.2 * torch.rand(400, 3, 16, 16)).requires_grad_()
    views = Countered()(batch, torch.arange(400) % 4, torch.Generator().manual_seed(1))
    seen = views.detach()
    is_grey = (seen - seen.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 1e-4
    is_normal = seen.mean((1, 2, 3)) > 0.4  # 0.3 before and 0.5 after, but for what random sharpening makes of them
    is_low = (low_pass(seen.clone(), 0.3) - seen).abs().amax((1, 2, 3)) < 1e-4
    chosen = torch.rand(3, 400, 1, 1, 1, generator=torch.Generator().manual_seed(1)).flatten(1) < 0.5
    assert torch.equal(is_grey, chosen[0])
    assert (is_normal == chosen[1]).float().mean() > 0.96
    assert torch.equal(is_low, chosen[2])
    views.square().sum().backward()
    assert (batch.grad.abs().amax((1, 2, 3)) > 0).all()
    assert batch.grad.isfinite().all()


def test_spectra_are_moved_in_half_of_the_batches():
    torch.manual_seed(0)
    labels = torch.arange(200) % 2
    batch = 0.5 + torch.tensor([0.05, 0.15])[labels][:, None, None, None] * torch.randn(200, 1, 16, 16)

    def untouched(seed):
        return (Countered()(batch, labels, torch.Generator().manual_seed(seed)) == batch).flatten(1).all(1).any()

    assert 12 <= sum(untouched(seed) for seed in range(40)) <= 28  # where spectra are moved, those of all are


def test_same_chance_same_views():
    batch, labels = torch.rand(8, 3, 16, 16), torch.arange(8) % 2
    one, two, other = (Countered()(batch, labels, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.min() >= 0
    assert one.max() <= 1


def test_flat_pictures_give_numbers():
    flat = torch.full((4, 3, 16, 16), 0.5, requires_grad=True)
    for seed in range(8):
        views = Countered()(flat, torch.tensor([0, 0, 1, 1]), torch.Generator().manual_seed(seed))
        (gradient,) = torch.autograd.grad(views.sum(), flat)
        assert views.isfinite().all()
        assert gradient.isfinite().all()


def test_a_retouched_picture_has_gammas_of_its_own_and_some_no_colours_or_no_light(rng):
    batch = as_batch(textured(rng, count=600, height=8, width=8).images)
    generator = torch.Generator().manual_seed(1)
    seen = Retouched()(torch.nn.Identity(), batch, torch.zeros(600), generator)
    assert seen.shape == batch.shape
    assert seen.min() >= 0
    assert seen.max() <= 1
    is_grey = (seen - seen.mean(1, keepdim=True)).abs().amax((1, 2, 3)) < 1e-4
    assert 0.24 < is_grey.float().mean() < 0.36
    same = normalized(batch)  # that of a picture under gammas is much the same
    is_normal = ((seen - same).square().mean((1, 2, 3)) < (seen - batch).square().mean((1, 2, 3))) & ~is_grey
    assert 0.15 < is_normal.float().mean() < 0.27
    gamma = (seen.log() / batch.clamp_min(1e-3).log())[~is_grey & ~is_normal]
    spread = gamma.flatten(2).median(2).values
    assert spread.min() > 2**-0.51
    assert spread.max() < 2**0.51
    assert spread.std(1).mean() > 0.1


def test_light_is_normalised_in_full_precision(rng):
    batch = as_batch(textured(rng, count=8).images) * 0.1 + 0.85
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(Retouched()(torch.nn.Identity(), batch, torch.zeros(8), torch.Generator().manual_seed(1)))
    assert torch.equal(*found)
