"""The reader of what perturbations are kept in: what it gives, and what it refuses. Writing: see test_noise."""

import json

import numpy as np
import pytest

from unlearnable import InputError
from unlearnable.protections.autoregressive import AutoregressiveNoise
from unlearnable.protections.convolution import ClasswiseConvolution
from unlearnable.protections.echo import ClasswiseEcho
from unlearnable.protections.tensors import reading_tensors, write_tensors
from unlearnable.protections.tone import ClasswiseTone


@pytest.fixture
def path(tmp_path):
    write_tensors(tmp_path / "some", {"rows": np.arange(6).reshape(2, 3)}, {"format": "some-1", "note": "text"})
    return tmp_path / "some"


def test_arrays_and_metadata_come_back(path):
    with reading_tensors(path, "some-1", "rows", "make them again") as (file, about):
        assert np.array_equal(file.get_tensor("rows"), [[0, 1, 2], [3, 4, 5]])
        assert about == {"format": "some-1", "note": "text"}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda file, about: file.get_tensor("columns"),
        lambda file, about: about["names"],
        lambda file, about: int(about["note"]),
        lambda file, about: json.loads(about["note"]),
        lambda file, about: json.loads("[]").items(),
        lambda file, about: file.get_tensor("rows")[7],
        lambda file, about: len(7),
    ],
)
def test_whatever_is_wrong_in_a_file_is_one_line(wrong, path):
    with (
        pytest.raises(InputError, match=r"expected rows written by this package, found .*some \(.*\): make them again"),
        reading_tensors(path, "some-1", "rows", "make them again") as (file, about),
    ):
        wrong(file, about)


@pytest.mark.parametrize("content", [None, b"", b"no such file", b"\xff" * 100])
def test_other_files_are_refused(content, path):
    with pytest.raises(InputError, match="expected rows written"), reading_tensors(path, "other-1", "rows", "again"):
        pass
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="expected rows written"), reading_tensors(path, "some-1", "rows", "again"):
        pass


def test_layers_of_wrong_contents_are_refused(tmp_path):
    about = {"class_names": '["ant", "bee"]', "by_size": "false", "style": "keyed", "units": "[]"}
    write_tensors(tmp_path / "filters", {}, about | {"format": "unlearnable-convolution-1"})
    with pytest.raises(InputError, match="expected filters written by this package"):
        ClasswiseConvolution.load(tmp_path / "filters")
    parts = {name: np.zeros((2 + (name == "mix"), 3)) for name in ("gamma", "mix", "shade")}
    write_tensors(tmp_path / "looks", parts, about | {"format": "unlearnable-tone-1"})
    with pytest.raises(InputError, match="expected looks written by this package"):
        ClasswiseTone.load(tmp_path / "looks")


@pytest.mark.parametrize(
    ("displacements", "share"),
    [
        (np.zeros((3, 2), np.int64), 64),
        (np.zeros((2, 2)), 64),
        (np.full((2, 2), 1 << 20), 64),
        (np.zeros((2, 2), np.int64), 256),
    ],
    ids=["of three classes", "of floats", "beyond the picture", "an echo alone"],
)
def test_echoes_of_wrong_contents_are_refused(displacements, share, tmp_path):
    ClasswiseEcho(("ant", "bee"), displacements, share).save(tmp_path / "echoes")
    with pytest.raises(InputError, match="expected echoes written by this package"):
        ClasswiseEcho.load(tmp_path / "echoes")


@pytest.mark.parametrize(
    ("weights", "gains", "radius"),
    [
        (np.zeros((2, 3, 9)), np.ones((2, 3)), 8),
        (np.zeros((2, 3, 8), np.float32), np.ones((2, 3)), 8),
        (np.full((2, 3, 8), 0.2), np.ones((2, 3)), 8),
        (np.zeros((2, 3, 8)), np.full((2, 3), np.nan), 8),
        (np.zeros((2, 3, 8)), np.ones((2, 3)), 65),
    ],
    ids=["a neighbour too many", "single precision", "growing", "no number", "too loud"],
)
def test_processes_of_wrong_contents_are_refused(weights, gains, radius, tmp_path, key):
    AutoregressiveNoise(("ant", "bee"), weights, gains, key, radius=radius, size=32).save(tmp_path / "processes")
    with pytest.raises(InputError, match="expected processes written by this package"):
        AutoregressiveNoise.load(tmp_path / "processes")
