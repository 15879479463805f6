"""Taking CUDA off again: against dense least squares, and as measured on pictures that are like natural ones."""

from types import SimpleNamespace

import numpy as np
import pytest

from unlearnable import Key, ReferenceSeed
from unlearnable.protections import deconvolution
from unlearnable.protections.convolution import Convolution
from unlearnable.protections.deconvolution import _matrix, _Operator, deconvolve


def natural(count, height, width, channels=3, dtype=np.uint8, seed=0):
    """Draw pictures whose spectrum falls off like that of photographs: 1/f in amplitude."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    fall = 1 / np.maximum(np.hypot(fy, fx), 1 / max(height, width))
    noise = rng.standard_normal((count, height, width, channels))
    planes = np.fft.ifft2(np.fft.fft2(noise, axes=(1, 2)) * fall[None, :, :, None], axes=(1, 2)).real
    low, high = planes.min((1, 2, 3), keepdims=True), planes.max((1, 2, 3), keepdims=True)
    return np.rint((planes - low) / (high - low) * np.iinfo(dtype).max).astype(dtype)


def psnr(one, other):
    error = ((one.astype(float) - other) ** 2).mean((1, 2, 3))
    return 10 * np.log10(np.iinfo(one.dtype).max ** 2 / np.maximum(error, 1e-9))


def there_and_back(images, key=b"k", **options):
    seed = options.pop("seed", None)
    perturbation = Convolution(**options).fit(
        SimpleNamespace(class_names=["a", "b"]), Key(key * 32) if seed is None else ReferenceSeed(seed)
    )
    labels = np.arange(len(images)) % 2
    out, scales = perturbation.apply_traced(images, labels, [""] * len(images))
    return out, perturbation.restore(out, labels, [""] * len(images), scales)


@pytest.mark.parametrize("reflect", [True, False])
def test_matrix_and_operator_are_the_convolution(reflect, rng):
    taps, plane = rng.random((5, 5)), rng.random((9, 7))
    p = 2
    padded = np.pad(plane, p, mode="reflect" if reflect else "constant")
    wanted = sum(taps[a, b] * padded[a : a + 9, b : b + 7] for a in range(5) for b in range(5))
    matrix = _matrix(taps, 9, 7, reflect)
    operator = _Operator(taps, 9, 7, 0.01, reflect, np.float64)
    assert np.allclose((matrix @ plane.ravel()).reshape(9, 7), wanted)
    assert np.allclose(operator.forward(plane), wanted)
    assert np.allclose(operator._back(plane).ravel(), matrix.T @ plane.ravel())


def test_conjugate_gradients_reach_the_least_squares_estimate(rng):
    taps, plane, weight = (
        Convolution().fit(SimpleNamespace(class_names=["a"]), Key(bytes(32))).banks[3].weights[0],
        rng.random((14, 11)),
        0.02,
    )
    matrix = _matrix(taps.astype(float), 14, 11, reflect=True)
    down = np.kron(np.diff(np.eye(14), axis=0), np.eye(11))
    across = np.kron(np.eye(14), np.diff(np.eye(11), axis=0))
    stacked = np.vstack([matrix, np.sqrt(weight) * down, np.sqrt(weight) * across])
    wanted = np.linalg.lstsq(stacked, np.concatenate([plane.ravel(), np.zeros(len(down) + len(across))]))[0]
    found = _Operator(taps.astype(float), 14, 11, weight, True, np.float64).solve(plane)[0]
    assert np.allclose(found.ravel(), wanted, atol=0.01)


@pytest.mark.parametrize(
    ("shape", "options", "least"),
    [
        ((32, 32, 3), {"kernel_size": 3}, 38),
        ((32, 32, 1), {"kernel_size": 3}, 38),
        ((32, 32, 3), {"kernel_size": 5}, 31),
        ((96, 80, 3), {"kernel_size": 3}, 38),
        ((96, 80, 4), {"kernel_size": 9}, 28),
        ((340, 350, 3), {}, 26),  # filtered at half its size
        ((32, 32, 3), {"kernel_size": 3, "aligned": True}, 38),
        ((340, 350, 3), {"aligned": True}, 26),
        ((32, 32, 3), {"seed": 0}, 32),  # zeros at the border, and truncated
        ((2, 3, 3), {"kernel_size": 3}, 20),
    ],
)
def test_pictures_come_back(shape, options, least):
    images = natural(6 if shape[0] < 100 else 2, *shape)
    published, back = there_and_back(images, **options)
    assert back.dtype == images.dtype
    assert np.median(psnr(back, images)) >= least
    assert np.median(psnr(back, images)) > np.median(psnr(published, images)) + 5


def test_sixteen_bits_come_back_better():
    images = natural(2, 32, 32, 3, np.uint16)
    _, back = there_and_back(images, kernel_size=3)
    assert np.median(psnr(back, images)) > 60


@pytest.mark.parametrize("kernel_size", [3, 9])
def test_sixteen_bits_come_back_where_filters_are_nearly_singular(kernel_size):
    """The estimate that so little rounding allows takes more steps than there are: a rougher one is taken there."""
    images = natural(4, 64, 64, 3, np.uint16)
    published, back = there_and_back(images, kernel_size=kernel_size)
    assert (psnr(back, images) > np.maximum(30, psnr(published, images) + 10)).all()


def test_each_picture_for_itself_and_the_same_every_time():
    images = natural(4, 20, 24)
    perturbation = Convolution().fit(SimpleNamespace(class_names=["a", "b"]), Key(bytes(32)))
    labels = np.array([0, 1, 1, 0])
    out, scales = perturbation.apply_traced(images, labels, [""] * 4)
    back = perturbation.restore(out, labels, [""] * 4, scales)
    for n in range(4):
        alone = perturbation.restore(out[n : n + 1], labels[n : n + 1], [""], scales[n : n + 1])
        assert np.array_equal(alone[0], back[n])


def test_black_pictures_stay_black():
    images = np.zeros((1, 12, 12, 3), np.uint8)
    assert not there_and_back(images)[1].any()


def test_noise_of_a_lossy_format_is_not_blown_up(rng):
    images = natural(6, 32, 32)
    perturbation = Convolution().fit(SimpleNamespace(class_names=["a"]), Key(bytes(32)))
    labels = np.zeros(6, int)
    out, scales = perturbation.apply_traced(images, labels, [""] * 6)
    noisy = np.clip(np.rint(out + rng.normal(0, 6, out.shape)), 0, 255).astype(np.uint8)
    careless = perturbation.restore(noisy, labels, [""] * 6, scales)
    careful = perturbation.restore(noisy, labels, [""] * 6, scales, noise=6)
    assert np.median(psnr(careful, images)) > np.median(psnr(careless, images)) + 1


def test_direct_and_iterative_solutions_agree(monkeypatch):
    images = natural(2, 30, 30)
    perturbation = Convolution(kernel_size=3).fit(SimpleNamespace(class_names=["a"]), Key(bytes(32)))
    out, scales = perturbation.apply_traced(images, np.zeros(2, int), ["", ""])
    arguments = out, np.zeros(2, int), scales, perturbation.banks[3], 1
    direct = deconvolve(*arguments, reflect=True)
    monkeypatch.setattr(deconvolution, "_DIRECT", 0)
    monkeypatch.setattr(deconvolution, "_STEPS", 1000)
    monkeypatch.setitem(deconvolution._ENOUGH, np.dtype(np.float32), 1e-20)
    iterative = deconvolve(*arguments, reflect=True)
    assert (abs(direct.astype(int) - iterative) <= 1).mean() > 0.99
