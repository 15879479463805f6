"""Keys and the streams derived from them."""

import hashlib
import hmac
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnable import InputError, Key

VECTORS = json.loads((Path(__file__).parent / "data" / "key_vectors.json").read_text())


@pytest.mark.parametrize("row", VECTORS["streams"], ids=lambda row: f"{row['purpose']}-{row['name']}-{row['key'][-2:]}")
def test_derivations_are_pinned_for_ever(row):
    key = Key(bytes.fromhex(row["key"]))
    arguments = row["purpose"], row["name"], row["parameters"]
    stream = key.stream(*arguments)
    assert key.derive(*arguments).hex() == row["derived"]
    assert stream.uniform(3).tolist() == row["uniform"]
    assert stream.integer(81) == row["integer_below_81"]
    assert key.rank(row["purpose"], row["name"]).hex() == row["rank"]
    assert key.check_value == row["check_value"]


def test_derivation_is_hkdf_written_out():
    """RFC 5869 by hand: extract with the salt, expand one block with the length-prefixed fields."""
    secret = bytes(range(32))
    fields = [b"cuda-filter", "é".encode(), b'{"blur":0.3,"kernel_size":3}']
    info = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    extracted = hmac.digest(b"unlearnable/1", secret, hashlib.sha256)
    expanded = hmac.digest(extracted, info + b"\x01", hashlib.sha256)
    assert Key(secret).derive("cuda-filter", "é", {"kernel_size": 3, "blur": 0.3}) == expanded


def test_everything_that_should_matters_and_nothing_else_does():
    key = Key(bytes(32))
    base = key.derive("a", "b", {"c": 1})
    others = [key.derive("a", "b", {"c": 2}), key.derive("a", "c", {"c": 1}), key.derive("b", "b", {"c": 1})]
    others += [Key(b"\1" * 32).derive("a", "b", {"c": 1}), key.derive("ab", "", {"c": 1}), key.derive("a", "b", {})]
    assert len({base, *others}) == 7
    assert key.derive("a", "b", {"y": 2, "x": 1}) == key.derive("a", "b", {"x": 1, "y": 2})
    assert key.derive("a", "b", {"c": 1.0}) != base  # published pictures exist of either
    assert key.derive("a", unicodedata.normalize("NFD", "é")) == key.derive("a", unicodedata.normalize("NFC", "é"))


@given(st.lists(st.integers(0, 40), max_size=6))
def test_a_stream_is_one_sequence_however_it_is_cut(cuts):
    whole = Key(bytes(32)).stream("x").bytes(sum(cuts))
    stream = Key(bytes(32)).stream("x")
    assert b"".join(stream.bytes(cut) for cut in cuts) == whole


def test_uniform_numbers_are_uniform():
    numbers = Key(bytes(32)).stream("x").uniform(100_000)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, 20, (0, 1))[0]
    assert ((counts - 5000) ** 2 / 5000).sum() < 45.3  # chi-squared, 19 degrees of freedom, p = 0.0006


def test_integers_are_uniform():
    stream = Key(bytes(32)).stream("x")
    counts = np.bincount([stream.integer(9) for _ in range(9000)], minlength=9)
    assert len(counts) == 9
    assert ((counts - 1000) ** 2 / 1000).sum() < 29.6  # chi-squared, 8 degrees of freedom, p = 0.00025


def test_round_trip_and_mode(tmp_path):
    key = Key.generate()
    key.save(tmp_path / "key")
    assert Key.load(tmp_path / "key") == key
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert Key.generate() != key


def test_a_key_is_never_overwritten(tmp_path):
    Key.generate().save(tmp_path / "key")
    before = (tmp_path / "key").read_bytes()
    with pytest.raises(InputError, match="there already"):
        Key.generate().save(tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == before


def test_the_secret_is_not_shown():
    key = Key(bytes(range(32)))
    assert "000102" not in f"{key!r} {key} {key.check_value}"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"unlearnable-key-1\nzz",
        b"unlearnable-key-1\n" + b"g" * 64,
        b"unlearnable-key-2\n" + b"0" * 64,
        bytes(range(256)) * 20,
    ],
)
def test_something_else_is_not_a_key(tmp_path, content):
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(InputError, match="unlearnable keygen"):
        Key.load(path)


def test_missing_key_folder_as_key_and_unwritable_place(tmp_path):
    with pytest.raises(InputError, match="nothing at"):
        Key.load(tmp_path / "none")
    with pytest.raises(InputError, match="expected a key file"):
        Key.load(tmp_path)
    with pytest.raises(InputError, match="expected a place for the key"):
        Key.generate().save(tmp_path / "no" / "key")
    with pytest.raises(InputError, match="32 bytes"):
        Key(b"short")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_key_that_others_can_read_is_refused(tmp_path, mode):
    Key.generate().save(tmp_path / "key")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(InputError, match="chmod 600"):
        Key.load(tmp_path / "key")
