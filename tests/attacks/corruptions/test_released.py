"""The released files: read as they lie there, refused where they are something else."""

import numpy as np
import pytest

from unlearnable.attacks.corruptions import CORRUPTIONS
from unlearnable.attacks.corruptions.released import open_released
from unlearnable.errors import InputError


@pytest.fixture
def folder(tmp_path):
    """Four pictures at five severities; each pixel says which file, severity and picture it is of."""
    for number, name in enumerate(CORRUPTIONS):
        images = np.empty((20, 8, 8, 3), np.uint8)
        images[:] = (10 * number + np.arange(20)).reshape(-1, 1, 1, 1)
        np.save(tmp_path / f"{name}.npy", images)
    np.save(tmp_path / "labels.npy", np.tile(np.array([2, 0, 1, 2], np.uint8), 5))
    return tmp_path


def test_severity_comes_first(folder):
    released = open_released(folder)
    assert released.labels.tolist() == [[2, 0, 1, 2]] * 5
    assert released.pictures("shot_noise", 1)[:, 0, 0, 0].tolist() == [10, 11, 12, 13]
    assert released.pictures("shot_noise", 5)[:, 7, 7, 2].tolist() == [26, 27, 28, 29]
    assert released.pictures("fog", 2).shape == (4, 8, 8, 3)


def test_a_missing_file_is_named(folder):
    (folder / "fog.npy").unlink()
    with pytest.raises(InputError, match=r"expected the files of 15 corruptions in .*, found no fog\.npy: name the"):
        open_released(folder)
    with pytest.raises(InputError, match=r"found no labels\.npy and 15 more"):
        open_released(folder / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels", np.zeros(7, np.uint8), r"found uint8 of shape \(7,\)"),
        ("labels", np.zeros(5), r"found float64 of shape \(5,\)"),
        ("labels", np.array([{}], object), "found none"),
        ("snow", np.zeros((19, 8, 8, 3), np.uint8), r"expected 20 uint8 pictures in .*snow.npy, found uint8 of shape"),
        ("snow", np.zeros((20, 8, 8, 3)), "found float64"),
    ],
)
def test_something_else_is_refused(folder, name, content, message):
    np.save(folder / f"{name}.npy", content)
    with pytest.raises(InputError, match=message):
        open_released(folder).pictures("snow", 1)


def test_a_file_that_is_no_array_is_refused(folder):
    (folder / "snow.npy").write_bytes(b"")
    with pytest.raises(InputError, match=r"expected an array in .*snow\.npy, found none"):
        open_released(folder).pictures("snow", 1)
