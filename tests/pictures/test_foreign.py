import io
import logging
import os
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw_picture
from unlearnable.errors import InputError
from unlearnable.pictures import foreign
from unlearnable.pictures.dataset import Dataset, load
from unlearnable.pictures.foreign import is_foreign, load_protected, open_foreign

NAMES = ("ape", "bee", "cow")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Where neither caches nor payloads do harm."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def clean(rng):
    images = np.stack([np.asarray(draw_picture(rng, 6, 8)) for _ in range(10)])
    images[0, 0, 0], images[0, 0, 1] = 0, 255  # where sums are cut off
    labels = np.arange(10) * 7 % 3
    ids = tuple(f"{NAMES[label]}/{n:02}.png" for n, label in enumerate(labels))
    return Dataset(images, labels, NAMES, ids)


@pytest.fixture
def noise(rng):
    """Whole pixel units, channels last."""
    return rng.integers(-8, 9, (10, 6, 8, 3))


def slow_sum(clean, noise):
    """Add, number by number."""
    out = np.empty_like(clean)
    for place in np.ndindex(clean.shape):
        out[place] = min(255, max(0, int(clean[place]) + int(noise[place])))
    return out


def first(values):
    """Put the channels first, as torch has them."""
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def as_npy(path, values):
    np.save(path.with_suffix(".npy"), values)
    return path.with_suffix(".npy")


def as_npy_by_columns(path, values):
    return as_npy(path, np.asfortranarray(values))


def as_npz(path, values):
    np.savez_compressed(path.with_suffix(".npz"), noise=values, radius=8)
    return path.with_suffix(".npz")


def as_tensor(path, values):
    import torch

    torch.save(torch.from_numpy(values.copy()), path.with_suffix(".pt"))
    return path.with_suffix(".pt")


def as_parameter(path, values):
    import torch

    torch.save(torch.nn.Parameter(torch.from_numpy(values.copy()), requires_grad=False), path.with_suffix(".pth"))
    return path.with_suffix(".pth")


def as_pickle(protocol):
    def write(path, values):
        path.with_suffix(".pkl").write_bytes(pickle.dumps(values, protocol))
        return path.with_suffix(".pkl")

    write.__name__ = f"as_pickle_{protocol}"
    return write


WRITERS = [as_npy, as_npy_by_columns, as_npz, as_tensor, as_parameter, *map(as_pickle, (2, 3, 4, 5))]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("type", [np.int8, np.int64, np.float32])
def test_every_kind_of_file(tmp_path, clean, noise, write, type):
    path = write(tmp_path / "noise", first(noise.astype(type)))
    found = open_foreign(path, clean)
    assert np.array_equal(found.images, slow_sum(clean.images, noise))
    assert found.images.dtype == np.uint8
    assert np.array_equal(found.labels, clean.labels)
    assert (found.ids, found.class_names) == (clean.ids, clean.class_names)
    assert is_foreign(path)


@pytest.mark.parametrize("type", [">i2", ">f4", "<f8", ">f8", "<f2"])
def test_any_order_of_bytes(tmp_path, clean, noise, type):
    for write in (as_npy, as_npz, as_pickle(4)):
        found = open_foreign(write(tmp_path / "noise", noise.astype(type)), clean)
        assert np.array_equal(found.images, slow_sum(clean.images, noise))


def test_bfloat16(tmp_path, clean, noise):
    import torch

    torch.save(torch.from_numpy(noise).bfloat16(), tmp_path / "noise.pt")
    assert np.array_equal(open_foreign(tmp_path / "noise.pt", clean).images, slow_sum(clean.images, noise))


@pytest.mark.parametrize(
    ("type", "unit"), [(np.int8, 1), (np.float32, 1), (np.float32, 1 / 255), (np.float64, 1 / 255)]
)
@pytest.mark.parametrize("channels", ["first", "last"])
@pytest.mark.parametrize("each", ["picture", "class"])
def test_units_and_layouts(tmp_path, clean, noise, type, unit, channels, each):
    if each == "class":
        noise = noise[: len(NAMES)]
    stored = (first(noise) if channels == "first" else noise) * unit
    path = as_npy(tmp_path / "noise", stored.astype(type))
    wanted = noise if each == "picture" else noise[clean.labels]
    assert np.array_equal(open_foreign(path, clean).images, slow_sum(clean.images, wanted))


def test_fractions_of_a_unit_are_rounded_after_the_sum(tmp_path, clean):
    values = np.full((10, 6, 8, 3), 1.6)
    found = open_foreign(as_npy(tmp_path / "noise", values), clean)
    assert np.array_equal(found.images, np.minimum(clean.images.astype(int) + 2, 255))
    found = open_foreign(as_npy(tmp_path / "noise", -values / 255), clean)
    assert np.array_equal(found.images, np.maximum(clean.images.astype(int) - 2, 0))


def test_int8_does_not_wrap(tmp_path, clean):
    values = np.full((10, 3, 6, 8), 127, np.int8)
    values[0] = -128
    found = open_foreign(as_pickle(4)(tmp_path / "noise", values), clean).images
    assert np.array_equal(found[0], np.maximum(clean.images[0].astype(int) - 128, 0))
    assert np.array_equal(found[1:], np.minimum(clean.images[1:].astype(int) + 127, 255))


def test_grey_noise(tmp_path, clean, noise):
    grey = replace(clean, images=clean.images[..., :1])
    for shape in ((10, 6, 8), (10, 1, 6, 8), (10, 6, 8, 1)):
        found = open_foreign(as_npy(tmp_path / "noise", noise[..., 0].reshape(shape)), grey)
        assert np.array_equal(found.images, slow_sum(grey.images, noise[..., :1]))


def test_in_parts_as_at_once(tmp_path, clean, noise, monkeypatch):
    path = as_npy(tmp_path / "noise", noise)
    whole = open_foreign(path, clean).images
    monkeypatch.setattr(foreign, "_PART", 400)
    assert np.array_equal(open_foreign(path, clean).images, whole)


def test_one_picture_a_class(tmp_path, clean, noise):
    """Then entries belong to pictures, not to classes: the order of the labels does not matter."""
    few = clean.select(np.array([2, 1, 0]))
    found = open_foreign(as_npy(tmp_path / "noise", noise[:3]), few)
    assert np.array_equal(found.images, slow_sum(few.images, noise[:3]))


@pytest.mark.parametrize("type", ["uint8", "float pixels", "fractions"])
def test_arrays_of_pictures(tmp_path, clean, noise, type):
    wanted = slow_sum(clean.images, noise)
    values = {"uint8": wanted, "float pixels": wanted.astype(np.float32), "fractions": wanted / np.float32(255)}[type]
    for stored in (values, first(values)):
        assert np.array_equal(open_foreign(as_npy(tmp_path / "set", stored), clean).images, wanted)


def write_numbered(folder, images, name="{}.png"):
    folder.mkdir()
    for n, pixels in enumerate(images):
        Image.fromarray(pixels).save(folder / name.format(n))
    return folder


@pytest.mark.parametrize("name", ["{}.png", "{:05}.png"])
def test_numbered_pictures(tmp_path, rng, name):
    """More than ten: by name, 10 comes before 2."""
    images = np.stack([np.asarray(draw_picture(rng, 6, 8)) for _ in range(12)])
    clean = Dataset(images, np.zeros(12, np.int64), ("ape",), tuple(f"ape/{n:02}.png" for n in range(12)))
    wanted = 255 - (255 - images) // 2
    path = write_numbered(tmp_path / "set", wanted, name)
    assert is_foreign(path)
    assert np.array_equal(open_foreign(path, clean).images, wanted)


# ---- what is refused


class Command:
    """What is run when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch owned",)


def hostile_pickle(path, noise):
    path.with_suffix(".pkl").write_bytes(pickle.dumps(Command()))
    return path.with_suffix(".pkl")


def hostile_pickle_beside_noise(path, noise):
    path.with_suffix(".pkl").write_bytes(pickle.dumps([noise, Command()], 2))
    return path.with_suffix(".pkl")


def hostile_tensor(path, noise):
    import torch

    torch.save([torch.from_numpy(noise), Command()], path.with_suffix(".pt"))
    return path.with_suffix(".pt")


def hostile_old_tensor(path, noise):
    import torch

    torch.save(Command(), path.with_suffix(".pt"), _use_new_zipfile_serialization=False)
    return path.with_suffix(".pt")


def hostile_objects(path, noise):
    np.save(path.with_suffix(".npy"), np.array([Command()], object), allow_pickle=True)
    return path.with_suffix(".npy")


def hostile_zip(path, noise):
    np.savez(path.with_suffix(".npz"), noise=np.array([[[Command()]]], object))
    return path.with_suffix(".npz")


def pickle_called_npy(path, noise):
    path.with_suffix(".npy").write_bytes(pickle.dumps(Command()))
    return path.with_suffix(".npy")


@pytest.mark.parametrize(
    "write",
    [
        *(hostile_pickle, hostile_pickle_beside_noise, hostile_tensor, hostile_old_tensor),
        *(hostile_objects, hostile_zip, pickle_called_npy),
    ],
    ids=lambda write: write.__name__,
)
def test_nothing_is_run(tmp_path, clean, noise, write):
    path = write(tmp_path / "noise", noise)
    with pytest.raises(InputError, match=r"^expected an array.*$"):
        open_foreign(path, clean)
    assert not os.path.exists("owned")


def test_the_payload_would_work(tmp_path, noise):
    pickle.loads(hostile_pickle(tmp_path / "noise", noise).read_bytes())
    assert os.path.exists("owned")


def test_a_size_is_not_believed(tmp_path, clean):
    """An array that says it is larger than the file that it lies in."""
    header = io.BytesIO()
    about = {"descr": "<f8", "fortran_order": False, "shape": (10, 1 << 20, 1 << 20, 3)}
    np.lib.format.write_array_header_1_0(header, about)
    (tmp_path / "noise.npy").write_bytes(header.getvalue() + bytes(100))
    with zipfile.ZipFile(tmp_path / "noise.npz", "w") as archive:
        archive.writestr("noise.npy", header.getvalue() + bytes(100))
    for name in ("noise.npy", "noise.npz"):
        with pytest.raises(InputError, match=r"expected an array|member"):
            open_foreign(tmp_path / name, clean)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".pkl"])
@pytest.mark.parametrize("content", [b"", b"what is this?"], ids=["empty", "text"])
def test_other_files(tmp_path, clean, suffix, content):
    (tmp_path / f"noise{suffix}").write_bytes(content)
    with pytest.raises(InputError):
        open_foreign(tmp_path / f"noise{suffix}", clean)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_cut_off(tmp_path, clean, noise, write):
    path = write(tmp_path / "noise", noise.astype(np.float32))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(InputError):
        open_foreign(path, clean)


def test_not_an_array(tmp_path, clean, noise):
    import torch

    torch.save({"delta": torch.from_numpy(noise)}, tmp_path / "noise.pt")
    with pytest.raises(InputError, match=r"noise\.pt \(a dict\): save it with numpy\.save"):
        open_foreign(tmp_path / "noise.pt", clean)
    (tmp_path / "noise.pkl").write_bytes(pickle.dumps({"delta": 3}))
    with pytest.raises(InputError, match=r"noise\.pkl \(a dict\)"):
        open_foreign(tmp_path / "noise.pkl", clean)
    np.savez(tmp_path / "noise.npz", one=noise, two=noise)
    with pytest.raises(InputError, match=r"one array of noise .* found one \(10, 6, 8, 3\), two"):
        open_foreign(tmp_path / "noise.npz", clean)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:9], "10 entries, one for each clean picture, or 3, one for each class, found 9"),
        (lambda x: x[:2], "found 2"),
        (lambda x: x[:, :5], r"shape \(count, 6, 8, 3\) or \(count, 3, 6, 8\), .*found \(10, 5, 8, 3\)"),
        (lambda x: x.transpose(0, 2, 1, 3), r"found \(10, 8, 6, 3\)"),
        (lambda x: x[..., :1], r"found \(10, 6, 8, 1\)"),
        (lambda x: x[0], r"found \(6, 8, 3\)"),
        (lambda x: x.reshape(-1), r"found \(1440,\)"),
        (lambda x: np.where(x == 8, np.nan, x), "NaN or infinity"),
        (lambda x: np.where(x == 8, np.inf, x), "NaN or infinity"),
        (lambda x: x * 100, "from -255 to 255, found -800 to 800"),
        (lambda x: x.astype(complex), "integers or floats, found complex128"),
        (lambda x: x > 0, "integers or floats, found bool"),
        (lambda x: x * 0, "differ from the clean ones"),
        (lambda x: x * 1e-4, "differ from the clean ones"),
        (lambda x: abs(x[:3]) + 150, "10 pictures, as the clean set has, found 3"),
    ],
)
def test_noise_that_does_not_fit(tmp_path, clean, noise, change, message):
    with pytest.raises(InputError, match=message):
        open_foreign(as_npy(tmp_path / "noise", change(noise)), clean)


def test_pictures_in_another_order(tmp_path, clean, noise):
    wrong = np.roll(slow_sum(clean.images, noise), 1, 0)
    for path in (as_npy(tmp_path / "set", wrong), write_numbered(tmp_path / "set", wrong)):
        with pytest.raises(InputError, match="pictures in the order of the clean set, found others"):
            open_foreign(path, clean)


def renamed(folder):
    (folder / "3.png").rename(folder / "10.png")


def removed(folder):
    (folder / "9.png").unlink()


def doubled(folder):
    (folder / "03.png").write_bytes((folder / "3.png").read_bytes())


def broken(folder):
    (folder / "3.png").write_bytes(b"no picture")


def shrunk(folder):
    for path in folder.iterdir():
        Image.open(path).resize((4, 4)).save(path)


def uneven(folder):
    Image.open(folder / "3.png").resize((4, 4)).save(folder / "3.png")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed, "10 pictures named 0 to 9 in .*, found 10 named 0 to 10"),
        (removed, "found 9 named 0 to 8"),
        (doubled, "found 11 named 0 to 9"),
        (broken, r"found '3\.png', which cannot be read"),
        (shrunk, r"found \(10, 4, 4, 3\)"),
        (uneven, "pictures of one size"),
    ],
)
def test_numbered_pictures_that_do_not_fit(tmp_path, clean, noise, change, message, caplog):
    folder = write_numbered(tmp_path / "set", slow_sum(clean.images, noise))
    change(folder)
    with caplog.at_level(logging.ERROR), pytest.raises(InputError, match=message):
        open_foreign(folder, clean)


# ---- whichever it is


def write_classes(folder, dataset, suffix=".png"):
    for pixels, id_ in zip(dataset.images, dataset.ids, strict=True):
        place = (folder / id_).with_suffix(suffix)
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place)
    return folder


@pytest.fixture
def protected(clean, noise):
    return replace(clean, images=slow_sum(clean.images, noise))


def test_a_set_with_names_is_paired(tmp_path, clean, protected):
    folder = write_classes(tmp_path / "v1.2", protected, ".bmp")
    name, found = load_protected(str(folder), clean)  # loaded class by class, returned in the clean set's order
    assert name == "v1.2"
    assert np.array_equal(found.images, protected.images)
    assert np.array_equal(found.labels, clean.labels)


def test_options_are_passed_on(tmp_path, clean, protected):
    original, folder = write_classes(tmp_path / "clean", clean), write_classes(tmp_path / "set", protected)
    options = {"size": 4, "limit": 5}
    name, found = load_protected(f"cuda={folder}", load(original, **options), **options)
    assert name == "cuda"
    assert found.fingerprint() == load(folder, **options).fingerprint()


def test_a_file_of_noise(tmp_path, clean, protected, noise):
    path = as_npy(tmp_path / "rem.8", noise)
    for text, wanted in ((str(path), "rem"), (f"REM 8={path}", "REM 8")):
        name, found = load_protected(text, clean)
        assert name == wanted
        assert np.array_equal(found.images, protected.images)


def test_a_container_of_pictures(tmp_path, clean, protected):
    for name, dataset in (("a", clean), ("b", protected)):
        np.savez(tmp_path / f"{name}.npz", images=dataset.images, labels=dataset.labels, class_names=NAMES)
    assert not is_foreign(tmp_path / "b.npz")
    name, found = load_protected(str(tmp_path / "b.npz"), load(tmp_path / "a.npz"))
    assert name == "b"
    assert np.array_equal(found.images, protected.images)


def test_numbered_pictures_of_a_numbered_set(tmp_path, rng):
    """Both flat: then names pair them, and not the order, which is 0, 1, 10, 11, 2 ... in the clean set."""
    images = np.stack([np.asarray(draw_picture(rng, 6, 8)) for _ in range(12)])
    clean = load(write_numbered(tmp_path / "clean", images))
    _, found = load_protected(str(write_numbered(tmp_path / "set", 255 - (255 - images) // 2)), clean)
    assert np.array_equal(found.images, 255 - (255 - clean.images) // 2)


def test_names_and_paths(tmp_path, clean, protected):
    folder = write_classes(tmp_path / "a=b", protected)
    assert load_protected(str(folder), clean)[0] == "a=b"
    assert load_protected(f"x={folder}", clean)[0] == "x"
    os.chdir(folder)
    assert load_protected(".", clean)[0] == "a=b"
    os.chdir(tmp_path)
    assert load_protected("a=b", clean)[0] == "a=b"


@pytest.mark.parametrize("text", ["nowhere", "name=nowhere", "/no/where"])
def test_nothing_there(clean, text):
    with pytest.raises(InputError, match="a protected set, found nothing at"):
        load_protected(text, clean)


@pytest.mark.parametrize("text", ["=set", "name="])
def test_half_a_name(clean, text):
    with pytest.raises(InputError, match="NAME=PATH"):
        load_protected(text, clean)


def test_the_clean_set_is_not_protected(tmp_path, clean):
    with pytest.raises(InputError, match="differ from the clean ones, found the same"):
        load_protected(str(write_classes(tmp_path / "set", clean)), clean)
