"""What is written against the layers of a stack: each against a slow version, and against the layer."""

import numpy as np
import pytest
from PIL import Image
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter

from tests.conftest import draw_picture
from tests.countermeasures.conftest import textured
from unlearnable import InputError, Key
from unlearnable.countermeasures import Published, countermeasures, named, shade_removal
from unlearnable.countermeasures.echo_removal import class_cepstra, find_echo, without_echo
from unlearnable.countermeasures.tone_matching import colour_maps, matching_curves, shade_gains
from unlearnable.countermeasures.veil_removal import lights
from unlearnable.protections import protections


class Names:
    class_names = ("ant", "bee", "cow")


def cleaned(name, published):
    return named(name).clean(published, np.random.default_rng(0))


@pytest.fixture(scope="module")
def clean():
    """Pictures of three classes that do not differ by class, and look like none of them."""
    rng = np.random.default_rng(5)
    pictures = [np.asarray(draw_picture(rng, 16, 16)) for _ in range(240)]
    images = (np.stack(pictures) * 0.7 + 30).astype(np.uint8)
    return Published(images, np.arange(240) % 3, 3)


def protected(clean, name, **options):
    ids = [str(n) for n in range(len(clean.images))]
    perturbation = protections.create(name, **options).fit(Names, Key(b"k" * 32))
    return Published(perturbation.apply(clean.images, clean.labels, ids), clean.labels, 3)


def separation(images, labels):
    """How far apart the classes' mean pictures lie, root mean square in grey levels."""
    means = [images[labels == label].astype(float).mean(0) for label in range(3)]
    return np.sqrt(np.mean([(means[a] - means[b]) ** 2 for a in range(3) for b in range(a)]))


def test_gains_bring_mean_pictures_to_one_light(published):
    found = shade_gains(published, 1.5)
    brightness = published.images.astype(float).mean(-1)
    overall = gaussian_filter(brightness.mean(0), 1.5, mode="nearest")
    for label in range(3):
        its = gaussian_filter(brightness[published.labels == label].mean(0), 1.5, mode="nearest")
        assert np.allclose(found[label], overall / its, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_mapped_to_the_moments_of_all(channels, rng):
    published = textured(rng, channels=channels)
    means, maps, mean = colour_maps(published)
    everything = published.images.reshape(-1, channels).astype(float)
    spread = np.cov(everything, rowvar=False, bias=True).reshape(channels, channels)
    assert np.allclose(mean, everything.mean(0), rtol=1e-5)
    for label in range(3):
        its = published.images[published.labels == label].reshape(-1, channels).astype(float)
        own = np.cov(its, rowvar=False, bias=True).reshape(channels, channels)
        root = sqrtm(own)
        wanted = np.linalg.inv(root) @ sqrtm(root @ spread @ root) @ np.linalg.inv(root)
        assert np.allclose(maps[label], wanted, rtol=2e-3, atol=2e-3)
        mapped = (its - means[label]) @ maps[label] + mean
        assert np.allclose(mapped.mean(0), everything.mean(0), atol=0.01)
        assert np.allclose(np.cov(mapped, rowvar=False, bias=True), spread, rtol=0.01, atol=1)


def test_histograms_go_where_the_levels_of_their_rank_lie(published):
    curves = matching_curves(published)
    levels = np.arange(256)
    for label in range(3):
        for channel in range(3):
            its = np.sort(published.images[published.labels == label][..., channel].ravel()).astype(float)
            everything = np.sort(published.images[..., channel].ravel()).astype(float)

            def ranked(values, level):
                return (np.mean(values < level) + np.mean(values <= level)) / 2

            ranks = [ranked(everything, level) for level in levels]
            for level in levels[::17]:
                assert curves[label, channel, level] == pytest.approx(np.interp(ranked(its, level), ranks, levels))


def test_a_class_that_is_all_there_is_stays_as_it_is(published):
    alone = Published(published.images, np.zeros(len(published.images), int), 1)
    assert np.array_equal(countermeasures.create("tone-matching").clean(alone, np.random.default_rng(0)), alone.images)


def test_classes_without_pictures_do_no_harm(published):
    more = Published(published.images, published.labels, 7)
    assert np.array_equal(cleaned("tone-matching", more), cleaned("tone-matching", published))
    assert np.array_equal(cleaned("pattern-removal", more), cleaned("pattern-removal", published))
    assert np.array_equal(cleaned("echo-removal", more), cleaned("echo-removal", published))
    assert np.array_equal(cleaned("shade-removal", more), cleaned("shade-removal", published))
    assert np.array_equal(cleaned("veil-removal", more), cleaned("veil-removal", published))


def test_tone_matching_takes_what_tells_looks_apart(clean):
    shown = protected(clean, "tone", strength=0.7)
    before, after = (separation(images, clean.labels) for images in (shown.images, cleaned("tone-matching", shown)))
    assert separation(clean.images, clean.labels) < 10 < before
    assert after < before / 3


def test_pattern_removal_against_the_formula(published):
    out = cleaned("pattern-removal-2", published)
    images = published.images.astype(float)
    for label in range(3):
        difference = images[published.labels == label].mean(0) - images.mean(0)
        coarse = np.stack([gaussian_filter(difference[..., c], 2, mode="nearest") for c in range(3)], -1)
        wanted = (images[published.labels == label] - (difference - coarse)).clip(0, 255)
        assert np.abs(out[published.labels == label] - wanted).max() <= 0.501


def test_pattern_removal_takes_patches_out_and_leaves_light(clean):
    darker = np.array([0, 30, 60])[clean.labels, None, None, None]
    darker = Published((clean.images - darker.clip(0, clean.images)).astype(np.uint8), clean.labels, 3)
    shown = protected(darker, "patches", radius=16, grid=8)
    images = cleaned("pattern-removal", shown)
    fine = [
        separation(some - gaussian_filter(some.astype(float), (0, 4, 4, 0)), clean.labels)
        for some in (shown.images, images)
    ]
    assert fine[1] < fine[0] / 4
    light = [np.ptp([some[clean.labels == label].mean() for label in range(3)]) for some in (shown.images, images)]
    assert light[1] > 0.9 * light[0] > 40


@pytest.fixture(scope="module")
def lively():
    """Pictures of three classes of which one is brighter, with dark and bright places at every pixel of each."""
    rng = np.random.default_rng(6)
    labels = np.arange(900) % 3
    values = rng.beta(np.array([0.5, 0.7, 1.0])[labels], 0.7, (3, 4, 4, 900)).T
    return Published(np.rint(255 * values.repeat(4, 1).repeat(4, 2)).astype(np.uint8), labels, 3)


@pytest.mark.parametrize("strip", [1, 1 << 26])
def test_shades_are_removed_as_the_brightest_values_tell(strip, published, monkeypatch):
    monkeypatch.setattr(shade_removal, "_PART", strip)
    images, labels = published.images.astype(float), published.labels
    ordered = [np.sort(images[labels == label], axis=0) for label in range(3)]
    brightest = np.stack([some[len(some) - 1 - len(some) * 10 // 100] for some in ordered])
    light = gaussian_filter(brightest, (0, 2, 2, 0), mode="nearest")
    wanted = (images * (light.mean(0) / light)[labels]).clip(0, 255)
    assert np.abs(cleaned("shade-removal-10", published) - wanted).max() <= 0.501


def test_light_of_a_layer_is_removed_and_that_of_a_class_is_not(lively):
    shown = protected(lively, "tone", strength=0.8, grid=4, mix=0, gamma=0)
    labels = lively.labels

    def lights(images):
        means = np.stack([images[labels == label].mean((0, 3)) for label in range(3)])
        return means - means.mean(0)

    some = (lively.images, shown.images, cleaned("shade-removal", shown), cleaned("shade-removal", lively))
    own, changed, left, untouched = (lights(images.astype(float)) for images in some)
    assert own.std() > 10  # what is natural
    assert (left - own).std() < (changed - own).std() / 2.5
    assert (untouched - own).std() < own.std() / 5


@pytest.fixture(scope="module")
def rich():
    """Pictures of three classes, dark and bright ones of each, one class brighter, of the same fine detail."""
    rng = np.random.default_rng(9)
    labels = np.arange(600) % 3
    light = 0.1 + 0.8 * rng.beta(np.array([0.7, 1.0, 1.3])[labels], 1.0)
    detail = 0.06 * rng.standard_normal((600, 24, 24, 3))
    return Published(np.rint(255 * (light[:, None, None, None] + detail).clip(0, 1)).astype(np.uint8), labels, 3)


def veiled(published, radius):
    """Return the pictures under veils, and the veils, in the unit that removal tells light in."""
    shown = protected(published, "veil", radius=radius)
    grey = np.full((3, *published.images.shape[1:]), 128, np.uint8)
    lit = protected(Published(grey, np.arange(3), 3), "veil", radius=radius).images
    return shown, (lit.astype(float) - 128) / 255


def test_veils_are_told_by_contrast_and_natural_light_is_left(rich):
    shown, truth = veiled(rich, 60)
    found, untouched = lights(shown, 1.5), lights(rich, 1.5)
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.9
    assert np.abs(found - truth).mean() < np.abs(truth).mean() / 1.8  # strong light is told a little too weak
    assert np.abs(untouched).mean() < 0.01
    means = [[some.images[rich.labels == label].mean() for label in range(3)] for some in (rich, shown)]
    assert np.ptp(means[0]) > 25  # what is natural, and would mislead whoever goes by that


def test_light_that_was_found_is_undone(rich):
    shown, _ = veiled(rich, 60)
    light = lights(shown, 3.0)[rich.labels]
    left = cleaned("veil-removal", shown) / 255
    again = left + 4 * light * left * (1 - left)  # under the same light as before
    assert np.abs(255 * again - shown.images).max() <= 0.5 * (1 + 4 * np.abs(light).max()) + 1e-3
    error = [np.abs(some.astype(float) - rich.images).mean() for some in (255 * left, shown.images)]
    assert error[0] < error[1] / 1.6


def test_what_is_even_tells_of_no_light(rng):
    """Of a class that is all there is, of even pictures, and beside a small object on even ground."""
    labels = np.arange(90) % 3
    ground = np.full((90, 48, 48, 3), 120, np.uint8)
    assert not lights(Published(ground, labels, 3), 3.0).any()
    ground[:, 18:30, 18:30] = rng.integers(0, 256, (90, 12, 12, 3))
    assert np.abs(lights(Published(ground, labels, 3), 3.0)).max() < 0.03
    assert np.abs(lights(Published(ground, np.zeros(90, int), 1), 3.0)).max() < 0.03


def test_light_stays_within_what_veils_have_where_tones_tell_little(rng):
    """So black and white stay what they are, and nothing is divided by zero."""
    labels = np.arange(600) % 3
    light = 0.25 + 0.2 * rng.beta(np.array([0.7, 1.0, 1.3])[labels], 1.0)
    detail = 0.02 * rng.standard_normal((600, 24, 24, 3))
    narrow = Published(np.rint(255 * (light[:, None, None, None] + detail).clip(0, 1)).astype(np.uint8), labels, 3)
    shown, _ = veiled(narrow, 60)
    assert 0.1 < np.abs(lights(shown, 1.5)).max() <= 0.24 + 1e-6
    ends = Published(np.where(shown.images > np.median(shown.images), 255, 0).astype(np.uint8), labels, 3)
    assert np.array_equal(named("veil-removal-1").parts[0].clean(ends, rng) > 127, ends.images > 127)


@pytest.fixture(scope="module")
def varied():
    """Pictures of three classes with edges at all places, which an echo can be told by."""
    rng = np.random.default_rng(8)
    images = np.full((180, 32, 32, 3), 128.0)
    for image in images:
        for _ in range(12):
            (top, left), (height, width) = rng.integers(-6, 32, 2), rng.integers(3, 14, 2)
            image[max(top, 0) : top + height, max(left, 0) : left + width] = rng.uniform(30, 220, 3)
    return Published(np.rint(images).astype(np.uint8), np.arange(180) % 3, 3)


@pytest.mark.parametrize("strength", [0.1, 0.25, 0.4])
def test_echoes_are_found_where_and_as_strong_as_they_are(varied, strength):
    echo = protections.create("echo", strength=strength).fit(Names, Key(b"k" * 32))
    shown = protected(varied, "echo", strength=strength)
    cepstra = class_cepstra(shown.images, shown.labels, 3)
    for label in range(3):
        others = np.delete(cepstra, label, 0).mean(0)
        *place, relative = find_echo(shown.images[shown.labels == label], cepstra[label], others)
        assert place == np.floor(echo.displacements[label] / 32 + 0.5).tolist()
        assert relative == pytest.approx(echo.share / (256 - echo.share), rel=0.2)


def test_echo_removal_takes_echoes_off(varied):
    shown = protected(varied, "echo")
    before, after = (
        np.square(images.astype(float) - varied.images).mean()
        for images in (shown.images, cleaned("echo-removal", shown))
    )
    assert after < before / 100


def test_a_known_echo_is_undone_exactly(varied):
    echo = protections.create("echo", strength=0.4).fit(Names, Key(b"k" * 32))
    shown = protected(varied, "echo", strength=0.4)
    its = varied.labels == 1
    down, across = np.floor(echo.displacements[1] / 32 + 0.5).astype(int)
    undone = without_echo(shown.images[its], down, across, echo.share / (256 - echo.share))
    assert np.abs(undone - varied.images[its]).max() < 2.6  # what rounding left, up to 1 / (1 - 2 * 0.4) times as much


def test_whitening_against_the_formula(published):
    for image, found in zip(published.images, cleaned("whitening", published), strict=True):
        colours = image.reshape(-1, 3) - image.reshape(-1, 3).mean(0)
        values, vectors = np.linalg.eig(np.cov(colours, rowvar=False, bias=True))
        white = sum(
            np.outer(colours @ vector, vector) * 50 / np.sqrt(value + 25)
            for value, vector in zip(values, vectors.T, strict=True)
        )
        assert np.abs(found.reshape(-1, 3) - (127.5 + white).clip(0, 255)).max() <= 0.51


def test_whitening_undoes_mixes_of_channels(clean, rng):
    mix = 0.6 * np.eye(3) + 0.4 * rng.dirichlet(np.ones(3), 3)
    mixed = np.rint(clean.images @ mix.T).astype(np.uint8)
    part = named("whitening")
    one, other = (part.at_test(images).astype(float) - 127.5 for images in (clean.images, mixed))
    before = np.abs(clean.images - mixed.astype(float)).mean()
    inside = (np.abs(one) < 120) & (np.abs(other) < 120)
    lengths = [np.linalg.norm(these, axis=-1)[inside.all(-1)] for these in (one, other)]  # whatever the rotation
    assert np.abs(lengths[0] - lengths[1]).mean() < before


def test_local_normalization_against_the_formula(published):
    out = cleaned("local-normalization-2", published)
    for image, found in zip(published.images.astype(float), out, strict=True):
        for c in range(3):
            plane = image[..., c]
            mean = gaussian_filter(plane, 2, mode="nearest")
            square = gaussian_filter(plane**2, 2, mode="nearest")
            wanted = 127.5 + 50 * (plane - mean) / np.sqrt(square - mean**2 + 25)
            assert np.abs(found[..., c] - wanted.clip(0, 255)).max() <= 0.52


def test_local_normalization_undoes_shades_and_tints(rng):
    images = rng.normal(128, 40, (4, 32, 32, 3)).clip(0, 255)
    light = np.asarray(Image.fromarray(np.array([[1, 0.5], [0.7, 0.9]], np.float32)).resize((32, 32)))
    changed = [images * light[..., None], images * [0.6, 0.9, 0.8]]
    one, *others = (
        named("local-normalization").at_test(np.rint(some).astype(np.uint8)).astype(float)
        for some in (images, *changed)
    )
    left = [
        np.abs(one - other).mean() / np.abs(images - some).mean() for some, other in zip(changed, others, strict=True)
    ]
    assert left[0] < 1 / 4  # a shade is not quite the same all around a pixel
    assert left[1] < 1 / 10


@pytest.mark.parametrize(
    ("name", "least"),
    [("tone-matching-0", "above 0"), ("pattern-removal-0", "above 0"), ("local-normalization-0.4", "of at least 0.5")],
)
def test_sigmas_that_are_too_small(name, least):
    with pytest.raises(InputError, match=f"a sigma {least}"):
        named(name)


def test_percentages_and_sigmas_out_of_range():
    with pytest.raises(InputError, match="a percentage from 0 to less than 100"):
        named("shade-removal-100")
    with pytest.raises(InputError, match="a sigma above 0"):
        countermeasures.create("shade-removal", sigma=0)
    with pytest.raises(InputError, match="a sigma above 0"):
        named("veil-removal-0")


def test_they_compose(clean):
    shown = protected(clean, "stack")
    measure = named("tone-matching+pattern-removal+local-normalization+coin+jpeg")
    assert measure.clean(shown, np.random.default_rng(0)).shape == shown.images.shape
    assert measure.every_batch(3) is not None
