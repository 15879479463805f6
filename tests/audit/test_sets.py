"""The pictures of an audit: what goes together and what does not."""

from dataclasses import replace

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from tests.audit.small import CLASSES, dataset, folders, protect, sets, write
from unlearnable.audit.sets import load_sets, with_tests
from unlearnable.errors import InputError
from unlearnable.pictures.dataset import Dataset

TEST = dataset(20, seed=1)


def test_the_test_set_goes_by_the_clean_sets_class_names():
    clean = dataset()
    turned = replace(TEST, class_names=CLASSES[::-1], labels=1 - TEST.labels)
    found = with_tests(clean, {"cuda": protect(clean)}, turned).test
    assert found.class_names == CLASSES
    assert np.array_equal(found.labels, TEST.labels)


def test_grey_pictures_beside_coloured_ones_get_three_channels():
    grey, coloured = (dataset(20, seed=1, channels=channels) for channels in (1, 3))
    clean = dataset()
    assert np.array_equal(with_tests(clean, {"cuda": protect(clean)}, grey).test.images, np.repeat(grey.images, 3, 3))
    clean = dataset(channels=1)
    found = with_tests(clean, {"cuda": protect(clean)}, coloured)
    assert np.array_equal(found.clean.images, np.repeat(clean.images, 3, 3))
    assert np.array_equal(found.protected["cuda"].images, 255 - found.clean.images)


BAD_TESTS = {
    "another class": (
        replace(TEST, class_names=("cat", "emu")),
        "expected the 2 classes .*, found 2 .* differ in 'dog', 'emu'",
    ),
    "a class more": (
        replace(TEST, class_names=("cat", "dog", "emu")),
        "found 3 in the test set, which differ in 'emu'",
    ),
    "another size": (dataset(20, seed=1, size=14), "expected test pictures of 12x12 pixels, .* found 14x14: .*--size"),
    "what was learned": (dataset(), "expected test pictures apart from the clean ones"),
    "an untested class": (TEST.select(TEST.labels == 0), "expected test pictures of every class, found none of 'dog'"),
}


@pytest.mark.parametrize("name", BAD_TESTS)
def test_a_test_set_that_does_not_go_with_the_others_is_refused(name):
    test, message = BAD_TESTS[name]
    with pytest.raises(InputError, match=message) as told:
        with_tests(dataset(), {"cuda": protect(dataset())}, test)
    assert "\n" not in str(told.value)


def less(pictures: Dataset) -> Dataset:
    return pictures.select(np.arange(20))


BAD_PROTECTED = {
    "a class less": (lambda one: one.select(one.labels == 0), r"'dog' in the clean set only"),
    "another size": (lambda one: protect(dataset(size=14)), "published pictures of 12x12 .*, found 14x14"),
    "a picture missing": (lambda one: less(protect(one)), r"found 4 missing \('cat/020.png'"),
    "a picture more": (lambda one: protect(dataset(26)), r"found 2 more \('cat/024.png'"),
    "another label": (
        lambda one: replace(protect(one), ids=("cat/001.png", "dog/000.png", *one.ids[2:])),
        r"missing \('cat/000.png', 'dog/001.png'\) and 2 more",
    ),
    "nothing protected": (lambda one: one, "expected pictures that differ from the clean ones, found the same"),
}


@pytest.mark.parametrize("name", BAD_PROTECTED)
def test_a_protected_set_that_does_not_go_with_the_clean_one_is_refused(name, tmp_path):
    change, message = BAD_PROTECTED[name]
    clean, test = write(tmp_path / "clean", dataset()), write(tmp_path / "test", TEST)
    protected = write(tmp_path / "protected", change(dataset()))
    with pytest.raises(InputError, match=message) as told:
        load_sets(clean, [str(protected)], test)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected a protected set at least"),
        (["clean={}"], "expected another name for the protected set, found 'clean'"),
        (["clean subset={}"], "found 'clean subset': write NAME=PATH"),
        (["a={}", "a={}"], "expected protected sets of different names, found 'a' twice"),
    ],
)
def test_names_that_rows_need_for_others_are_refused(words, message, tmp_path):
    places = folders(tmp_path)
    with pytest.raises(InputError, match=message):
        load_sets(places["clean"], [word.format(places["protected"]) for word in words], places["test"])


def test_folders_are_loaded_limited_alike(tmp_path):
    clean = dataset()
    protected = write(tmp_path / "protected", protect(clean), ".webp")
    found = load_sets(write(tmp_path / "clean", clean), [str(protected)], write(tmp_path / "test", TEST), limit=10)
    assert len(found.clean) == len(found.protected["protected"]) == len(found.test) == 10
    assert sorted(found.clean.ids) == sorted(clean.limit(10).ids)
    assert np.bincount(found.clean.labels).tolist() == [5, 5]


def test_the_noise_of_others_is_limited_with_the_set_it_belongs_to(tmp_path):
    places = folders(tmp_path)
    noise = np.random.default_rng(0).integers(-8, 9, (24, 12, 12, 3))
    np.save(tmp_path / "em.npy", noise.astype(np.int16))
    found = load_sets(
        places["clean"], [f"em={tmp_path / 'em.npy'}", str(places["protected"])], places["test"], limit=10
    )
    whole = load_sets(places["clean"], [f"em={tmp_path / 'em.npy'}"], places["test"])
    kept = [whole.clean.ids.index(id_) for id_ in found.clean.ids]
    assert len(found.protected["em"]) == len(found.protected["protected"]) == 10
    assert np.array_equal(found.protected["em"].images, np.clip(whole.clean.images.astype(int) + noise, 0, 255)[kept])


def test_a_partly_protected_set_is_made_of_both():
    one = sets()
    mixed, alone = one.training("cuda", 0.25, seed=3), one.training("clean subset", 0.25, seed=3)
    changed = (mixed.images == one.protected["cuda"].images).all((1, 2, 3))
    kept = (mixed.images == one.clean.images).all((1, 2, 3))
    assert changed.sum() == 6
    assert np.array_equal(changed, ~kept)
    assert np.bincount(mixed.labels[changed]).tolist() == [3, 3]
    assert np.array_equal(alone.images, mixed.images[kept])
    assert alone.ids == tuple(np.array(mixed.ids)[kept])
    assert one.training("clean", 0, 3) is one.clean
    assert one.training("cuda", 1, 3) is one.protected["cuda"]


def test_identity_tells_apart_what_is_trained_on():
    one = sets()
    places = [("clean", 0.0), ("cuda", 1.0), ("cuda", 0.5), ("cuda", 0.25), ("clean subset", 0.5)]
    found = [one.identity(*place) for place in places]
    assert all(found[i] != found[j] for i in range(len(found)) for j in range(i))
    # The whole protected set is what it is, whatever it was made from; its ids choose nothing.
    other = with_tests(dataset(24, seed=5), {"cuda": one.protected["cuda"]}, TEST)
    assert other.identity("cuda", 1.0) == one.identity("cuda", 1.0)
    assert other.identity("cuda", 0.5) != one.identity("cuda", 0.5)


def test_the_halves_of_the_test_set_are_balanced():
    one = sets()
    assert np.bincount(one.test.labels[one.selection]).tolist() == [5, 5]
    assert one.chance == 0.5


def test_the_sample_shows_every_class_and_how_much_changed(tmp_path):
    one = sets(cuda=protect(dataset()), same=replace(dataset(), images=np.maximum(dataset().images, 30)))
    one.save_sample(tmp_path / "pictures.npz")
    found = np.load(tmp_path / "pictures.npz", allow_pickle=False)
    assert found["names"].tolist() == ["cuda", "same"]
    assert found["class_names"].tolist() == list(CLASSES)
    assert np.bincount(found["labels"]).tolist() == [2, 2]
    assert found["protected"].shape == (2, 4, 12, 12, 3)
    places = [one.clean.ids.index(id_) for id_ in found["ids"]]
    assert np.array_equal(found["clean"], one.clean.images[places])
    assert np.array_equal(found["protected"][1], one.protected["same"].images[places])
    wanted = [peak_signal_noise_ratio(a, b) for a, b in zip(found["clean"], found["protected"][0], strict=True)]
    assert found["psnr"][0] == pytest.approx(wanted)
    every = [peak_signal_noise_ratio(a, b) for a, b in zip(one.clean.images, one.protected["cuda"].images, strict=True)]
    assert found["median_psnr"][0] == pytest.approx(np.median(every))
    assert (found["median_ssim"] < 1).all()
    assert [path.name for path in tmp_path.iterdir()] == ["pictures.npz"]


def test_the_sample_keeps_the_sets_of_earlier_audits(tmp_path):
    path, other = tmp_path / "pictures.npz", replace(dataset(), images=np.maximum(dataset().images, 30))
    sets(cuda=protect(dataset()), bright=other).save_sample(path)
    before = dict(np.load(path))
    sets(new=other, cuda=other).save_sample(path)
    found = np.load(path)
    assert found["names"].tolist() == ["new", "cuda", "bright"]
    for name in ("protected", "psnr", "ssim", "median_psnr", "median_ssim"):
        assert np.array_equal(found[name][2], before[name][1])
        assert np.array_equal(found[name][1], before[name][1])  # not what was called so before
    with_tests(other, {"cuda": dataset()}, dataset(20, seed=1)).save_sample(path)  # of other clean pictures
    assert np.load(path)["names"].tolist() == ["cuda"]
    path.write_bytes(b"damaged")
    sets(cuda=other).save_sample(path)
    assert np.load(path)["names"].tolist() == ["cuda"]
