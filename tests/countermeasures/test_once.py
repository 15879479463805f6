"""What is done once, each against a slow version from the formula or another library."""

import tracemalloc
from io import BytesIO

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter, ImageOps
from scipy.ndimage import correlate

from tests.countermeasures.conftest import as_batch, textured
from unlearnable.countermeasures import Leak, Published, countermeasures, named
from unlearnable.countermeasures.class_mean_removal import add_by_class, class_means
from unlearnable.countermeasures.d_vae import DisentanglingNetwork, disentangling_network
from unlearnable.countermeasures.orthogonal_projection import linear_weights, project_out
from unlearnable.countermeasures.paired_regression import restoring_filter
from unlearnable.countermeasures.spectrum_equalization import class_powers
from unlearnable.errors import InputError


def correlated(images, kernel, mode):
    """Each channel of each picture with the same kernel, by scipy."""
    channels = np.moveaxis(images, 3, 1).astype(float)
    return np.moveaxis([[correlate(channel, kernel, mode=mode) for channel in image] for image in channels], 1, 3)


def cleaned(name, published, **options):
    return countermeasures.create(name, **options).clean(published, np.random.default_rng(0))


def test_grayscale_is_pillows(published):
    out = cleaned("grayscale", published)
    for image, gray in zip(published.images, out, strict=True):
        assert np.array_equal(gray, np.asarray(Image.fromarray(image).convert("L").convert("RGB")))


def test_jpeg_is_pillows(published):
    out = cleaned("jpeg", published, quality=30)
    for image, squeezed in zip(published.images, out, strict=True):
        file = BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=30)
        assert np.array_equal(squeezed, np.asarray(Image.open(file)))


@pytest.mark.parametrize("bits", [1, 2, 5])
def test_bit_depth_takes_the_nearest_level(bits):
    ramp = Published(np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1), np.zeros(1, int), 1)
    levels = np.array([round(255 * k / (2**bits - 1)) for k in range(2**bits)])
    out = cleaned("bit-depth", ramp, bits=bits).ravel()
    for value, got in enumerate(out):
        exact = min(range(2**bits), key=lambda k: abs(value - 255 * k / (2**bits - 1)))
        assert got == levels[exact]


@pytest.mark.parametrize("sigma", [0.4, 1.0])
def test_gaussian_against_the_formula(sigma, published):
    reach = int(4 * sigma + 0.5)
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    out = cleaned("gaussian-filter", published, sigma=sigma)
    assert np.abs(out - correlated(published.images, kernel, "mirror")).max() < 0.501
    assert (out != published.images).mean() > 0.2  # no identity, as the benchmark's was


def test_median_against_pillow(published):
    out = cleaned("median-filter", published)
    for image, smoothed in zip(published.images, out, strict=True):
        wanted = np.asarray(Image.fromarray(image).filter(ImageFilter.MedianFilter(3)))
        assert np.array_equal(smoothed[1:-1, 1:-1], wanted[1:-1, 1:-1])


def test_bilateral_against_the_formula(published):
    image = published.images[0] / 255
    out = cleaned("bilateral-filter", published)[0]
    for y in range(2, 14):
        for x in range(2, 12):
            total = weight = 0
            for i in range(-2, 3):
                for j in range(-2, 3):
                    there = image[y + i, x + j]
                    colour = np.abs(there - image[y, x]).sum()
                    near = np.exp(-(i * i + j * j) / (2 * 1.5**2) - colour**2 / (2 * 0.2**2))
                    total, weight = total + near * there, weight + near
            assert np.abs(out[y, x] - 255 * total / weight).max() < 0.51


def test_autocontrast_is_pillows(rng):
    published = textured(rng)
    out = cleaned("autocontrast", published)
    for image, stretched in zip(published.images, out, strict=True):
        wanted = np.asarray(ImageOps.autocontrast(Image.fromarray(image)))
        assert np.abs(stretched.astype(int) - wanted).max() <= 1  # Pillow truncates


def test_flat_channels_survive_the_normalisations():
    flat = Published(np.full((2, 4, 4, 3), [[[7, 0, 255]]], np.uint8), np.zeros(2, int), 1)
    assert np.array_equal(cleaned("autocontrast", flat), flat.images)
    assert not cleaned("equalize", flat).any()
    assert np.isin(cleaned("gray-world", flat)[..., 1], 0).all()


def test_equalize_against_the_definition(published):
    out = cleaned("equalize", published)
    samples = published.images.shape[1] * published.images.shape[2]
    for image, spread in zip(np.moveaxis(published.images, 3, 1), np.moveaxis(out, 3, 1), strict=True):
        for channel, got in zip(image, spread, strict=True):
            lowest = (channel == channel.min()).sum()
            wanted = [(255 * ((channel <= value).sum() - lowest) / (samples - lowest)) for value in channel.ravel()]
            assert np.abs(got.ravel() - wanted).max() <= 0.5001


def test_gray_world_makes_the_means_equal(published):
    out = cleaned("gray-world", published)
    unclipped = out.max((1, 2, 3)) < 255
    means = out.mean((1, 2))
    assert unclipped.sum() > 5
    assert np.abs(means - means.mean(1, keepdims=True))[unclipped].max() < 0.5  # of rounding
    assert np.abs(means.mean(1) - published.images.mean((1, 2, 3)))[unclipped].max() < 0.5


def test_class_means_become_one(published):
    means, mean = class_means(published.images, published.labels, 4)
    for label in range(3):
        assert np.allclose(means[label], published.images[published.labels == label].mean(0))
    assert np.allclose(mean, published.images.mean(0))
    assert not means[3].any()
    after, overall = class_means(cleaned("class-mean-removal", published), published.labels, 3)
    assert np.abs(means[:3] - mean).max() > 20
    typical = np.median(np.abs(after - overall))
    assert typical < 0.3  # but for rounding; clipping shows in a few pixels


def test_sums_are_by_class_and_cheap_for_many_classes(rng):
    labels, values = rng.integers(0, 30_000, 500), rng.integers(0, 256, (500, 2, 3), dtype=np.uint8)
    sums, wanted = np.ones((30_000, 2, 3)), np.ones((30_000, 2, 3))
    tracemalloc.start()
    add_by_class(sums, values, labels)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    np.add.at(wanted, labels, values)
    assert np.array_equal(sums, wanted)


def test_projection_against_least_squares(published):
    weights = np.random.default_rng(0).normal(size=(3, published.images[0].size)).astype(np.float32)
    out = project_out(published.images, weights)
    flat = published.images.reshape(12, -1).astype(float)
    centred = flat - flat.mean(0)
    fitted = weights.T @ np.linalg.lstsq(weights.T.astype(float), centred.T, rcond=None)[0]
    wanted = flat.mean(0) + centred - fitted.T
    inside = (wanted > 0) & (wanted < 255)
    assert inside.mean() > 0.9
    assert np.abs(out.reshape(12, -1) - wanted)[inside].max() < 0.501


def separable(images, labels, classes):
    """The share of a half of the pictures that a ridge regression of the other half names rightly."""
    features = images.reshape(len(images), -1) / 255
    features = features - features.mean(0)
    known, unknown = features[::2], features[1::2]
    fit = np.linalg.lstsq(known @ known.T + 5 * np.eye(len(known)), np.eye(classes)[labels[::2]], rcond=None)[0]
    return ((unknown @ known.T @ fit).argmax(1) == labels[1::2]).mean()


def test_projection_removes_additive_noise_of_a_class(rng):
    images = rng.integers(60, 190, (60, 8, 8, 3))
    labels = np.arange(60) % 3
    noise = rng.choice([-12, 12], (3, 8, 8, 3))
    marked = Published((images + noise[labels]).astype(np.uint8), labels, 3)
    out = named("orthogonal-projection").clean(marked, np.random.default_rng(0))
    assert separable(marked.images, labels, 3) >= 0.9
    assert separable(out, labels, 3) < separable(marked.images, labels, 3) - 0.3


def test_autoencoders_take_out_noise_of_a_class_and_leave_the_picture(rng):
    clean = textured(rng, count=144, height=10, width=11).images
    labels = np.arange(144) % 3
    noise = rng.choice([-12, 12], (3, 10, 11, 3))
    marked = Published(np.clip(clean + noise[labels], 0, 255).astype(np.uint8), labels, 3)
    network = disentangling_network(marked.images, labels, 3, 1.0, 40, 0).cpu()
    found = network(*as_batch(marked)).perturbation.detach().permute(0, 2, 3, 1).numpy()
    assert np.corrcoef(found.ravel(), noise[labels].ravel())[0, 1] > 0.6
    out = named("d-vae-16").clean(marked, np.random.default_rng(0))
    assert separable(marked.images, labels, 3) >= 0.9
    assert separable(out, labels, 3) < separable(marked.images, labels, 3) - 0.4
    away, flat = (np.square(some - clean.astype(float)).mean() for some in (out, clean.mean((1, 2), keepdims=True)))
    assert away < flat / 2


def test_autoencoders_are_the_same_each_time_on_two_threads(rng):
    torch.set_num_threads(2)
    published = textured(rng, count=64, height=32, width=32)
    one, two = (named("d-vae-1").clean(published, np.random.default_rng(0)) for _ in range(2))
    assert np.array_equal(one, two)


def test_the_rate_of_an_autoencoder_is_the_divergence_of_its_codes(published):
    network = DisentanglingNetwork(3, 3, (16, 14))
    images, labels = as_batch(published)
    mean, log_variance = network.encoder(F.pixel_unshuffle(images - 0.5, 2)).chunk(2, 1)
    normal = torch.distributions.Normal
    wanted = torch.distributions.kl_divergence(normal(mean, (log_variance / 2).exp()), normal(0, 1)).sum((1, 2, 3))
    assert torch.allclose(network(images, labels).rate, wanted.mean() / (16 * 14), rtol=1e-4)


def test_the_linear_model_is_softmax_regression(published):
    generator = torch.Generator().manual_seed(0)
    weights = linear_weights(published, 3, 0.1, generator)
    flat, ours = published.images.reshape(12, -1) / 255, np.zeros((3, published.images[0].size))
    for _ in range(3):  # twelve pictures are one batch, so that their order does not matter
        logits = flat @ ours.T
        share = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        ours -= 0.1 * (share - np.eye(3)[published.labels]).T @ flat / 12
    assert np.allclose(weights, ours, atol=1e-5)


def test_spectra_become_one(rng):
    published = textured(rng, count=24, height=9, width=12)
    kernel = np.array([[0.1, 0.0, 0.1], [0.0, 0.6, 0.1], [0.1, 0.0, 0.0]])
    images = published.images.astype(float)
    blurred = published.labels == 1
    images[blurred] = correlated(images[blurred], kernel, "wrap")
    marked = Published(np.rint(images).astype(np.uint8), published.labels, 3)
    both = marked.images, cleaned("spectrum-equalization", marked)
    before, after = (class_powers(images, marked.labels, 3) for images in both)
    slow = np.mean([np.abs(np.fft.fft2(i[..., 2])) ** 2 for i in marked.images[marked.labels == 1]], 0)
    assert np.allclose(before[1, :, :, 2], slow[:, : before.shape[2]])
    overall = before.mean(0)  # classes are of one size
    assert np.abs(np.log(before / overall)).max() > 1
    # Rounding adds power 1/12 a sample, clipping little: what is left of the differences is small.
    assert np.abs(np.log(after / overall)).mean() < 0.02
    phases = [np.angle(np.fft.rfft2(i[4, ..., 0])) for i in both]
    strong = np.abs(np.fft.rfft2(marked.images[4, ..., 0].astype(float))) > 300
    assert np.abs(np.exp(1j * phases[0]) - np.exp(1j * phases[1]))[strong].max() < 0.1


def test_flat_pictures_of_a_class_keep_a_flat_spectrum(rng):
    images = textured(rng, count=24, height=9, width=11).images.copy()
    labels = np.arange(24) % 3
    images[labels == 1] = [77, 78, 79]  # the transform's rounding leaves a little power everywhere
    out = cleaned("spectrum-equalization", Published(images, labels, 3))
    assert not np.ptp(out[labels == 1], (0, 1, 2)).any()


def test_resize_against_pillow(published):
    out = cleaned("resize", published)
    for image, resized in zip(published.images, out, strict=True):
        small = Image.fromarray(image).resize((7, 8), Image.Resampling.BICUBIC)
        wanted = np.asarray(small.resize((14, 16), Image.Resampling.BICUBIC))
        assert np.abs(resized.astype(int) - wanted).max() <= 3  # Pillow rounds in between


def test_regression_finds_the_inverse_of_a_filter(rng):
    truth = np.zeros((3, 3))
    truth[1] = [-0.2, 1.1, 0.05]
    protected = rng.integers(40, 200, (4, 12, 11, 3))
    clean = np.rint(correlated(protected, truth, "nearest")).clip(0, 255)
    found = restoring_filter(protected.astype(np.uint8), clean.astype(np.uint8), 5)
    wanted = np.pad(truth, 1)
    assert np.abs(found - wanted).max() < 2e-3
    patches, targets = [], []
    for p, c in zip(protected, clean, strict=True):
        for y in range(2, 10):
            for x in range(2, 9):
                for channel in range(3):
                    patches.append(p[y - 2 : y + 3, x - 2 : x + 3, channel].ravel())
                    targets.append(c[y, x, channel])
    slow = np.linalg.lstsq(np.array(patches, float), np.array(targets, float), rcond=None)[0]
    assert np.allclose(found.ravel(), slow, atol=1e-6)


def test_regression_restores_the_classes_that_leaked(rng):
    clean = textured(rng, count=30, height=24, width=24)
    blur = np.array([[0.05, 0.0, 0.1], [0.1, 0.6, 0.0], [0.05, 0.0, 0.1]])
    protected = np.rint(correlated(clean.images, blur, "mirror")).astype(np.uint8)
    index = np.flatnonzero(clean.labels != 2)[:6]
    known = Published(protected, clean.labels, 3, Leak(index, clean.images[index]))
    out = cleaned("paired-regression", known, size=7)

    def error(images, chosen):
        return np.abs(images[chosen, 4:-4, 4:-4].astype(int) - clean.images[chosen, 4:-4, 4:-4]).mean()

    leaked = (clean.labels != 2) & ~np.isin(np.arange(30), index)  # pictures of which no original was known
    assert error(out, leaked) < 0.25 * error(protected, leaked)
    assert np.array_equal(out[clean.labels == 2], protected[clean.labels == 2])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("jpeg-96", "quality from 1 to 95"),
        ("bit-depth-8", "1 to 7 bits"),
        ("gaussian-filter-0.1", "sigma of at least 0.4"),
        ("median-filter-4", "odd size"),
        ("bilateral-filter-0", "sigma and a reach above 0"),
        ("orthogonal-projection-0", "at least 1 epoch"),
        ("d-vae-0", "at least 1 epoch"),
        ("paired-regression-4", "odd filter size"),
        ("resize-1", "fraction above 0 and below 1"),
        ("resized-crop-1", "share above 0 and below 1"),
        ("color-jitter-0", "strength above 0"),
    ],
)
def test_bad_parameters(name, message):
    with pytest.raises(InputError, match=message):
        named(name)


def test_regression_needs_a_leak_and_room(published, rng):
    with pytest.raises(InputError, match="clean originals that have leaked, found none"):
        cleaned("paired-regression", Published(published.images, published.labels, 3))
    with pytest.raises(InputError, match="at least 15x15 pixels, found 16x14"):
        cleaned("paired-regression", published, size=15)
