"""What several tests share."""

import contextlib
import io
import os
import signal
import sys
from pathlib import Path
from typing import NamedTuple
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: networks this small are slower on more threads

import numpy as np
import pytest
from PIL import Image

from unlearnable import Key

signal.signal(signal.SIGINT, signal.default_int_handler)  # tests press Ctrl-C, which a background job would ignore


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def key():
    return Key(bytes(range(32)))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def one_thread():
    """For networks so small that several threads slow them down, and far more so where the cores are shared."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real pictures that may lie beside the project, or a skip."""
    for place in Path(__file__).resolve().parents:
        if (place / "shared" / "data").is_dir():
            return place / "shared" / "data"
    pytest.skip("needs the real pictures of ../shared/data, which are not there")


def draw_picture(rng, height=24, width=20):
    """A smooth random colour picture, so that JPEG and filters treat it like a photograph."""
    coarse = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def pictures(tmp_path, rng):
    """A folder of two classes, three JPEG and two PNG pictures each, a nested folder and a file that is no picture."""
    root = tmp_path / "pictures"
    for name in ("cat", "dog"):
        (root / name / "deep er").mkdir(parents=True)
        for i in range(3):
            draw_picture(rng).save(root / name / f"{i}.jpg", quality=75)
        for i in range(2):
            draw_picture(rng, 30, 17 + i).save(root / name / "deep er" / f"ü {i}.png")
    (root / "readme.txt").write_text("hello")
    return root


def contents(folder):
    """Every file below a folder: relative path to bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


class Said(NamedTuple):
    """How a command ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


def in_process(*arguments: object) -> Said:
    """Run the command line in this process: in one of its own, to load torch takes longer than most commands."""
    from unlearnable.cli import main

    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["unlearnable", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as left,
    ):
        main()
    return Said(int(left.value.code or 0), out.getvalue(), err.getvalue())
