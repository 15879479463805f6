"""What every container must do, whatever its format."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unlearnable.pictures.store import BLOCK, Block, Container, Transform


def identity(block: Block) -> Block:
    return block


def dropping(*ids: str) -> Transform:
    """Make a transform at which some pictures fail."""

    def transform(block: Block) -> Block:
        kept = [None if id_ in ids else data for id_, data in zip(block.ids, block.payloads, strict=True)]
        return replace(block, payloads=kept)

    return transform


def inverted(block: Block) -> Block:
    """Change every sample of a block of arrays."""
    assert isinstance(block.payloads, np.ndarray)
    return replace(block, payloads=~block.payloads)


def pictures(container: Container) -> dict[str, Any]:
    """Return all pictures by id, arrays as (shape, bytes)."""
    return {
        id_: (data.shape, data.dtype, data.tobytes()) if isinstance(data, np.ndarray) else data
        for block in container.read()
        for id_, data in zip(block.ids, block.payloads, strict=True)
    }


def open_files() -> int:
    return len(os.listdir("/dev/fd"))


def check_contract(container: Container, folder: Path) -> None:
    """Scanning, reading and rewriting agree; a copy is a copy; a transform that raises leaves nothing open."""
    entries = list(container.scan())
    blocks = list(container.read())
    assert entries
    assert len({entry.id for entry in entries}) == len(entries)
    assert all(entry.id.startswith(f"{container.name}/") for entry in entries)
    assert [id_ for block in blocks for id_ in block.ids] == [entry.id for entry in entries]
    assert [label for block in blocks for label in block.labels] == [entry.label for entry in entries]
    assert all(0 < len(block.ids) == len(block.labels) == len(block.payloads) <= BLOCK for block in blocks)

    first, second = folder / "first", folder / "second"
    container.rewrite(first, identity)
    container.rewrite(second, identity)
    assert first.read_bytes() == second.read_bytes()
    copy = type(container)(first, container.name)
    assert pictures(copy).items() >= {id_: data for id_, data in pictures(container).items() if data}.items()

    def broken(block: Block) -> Block:
        raise ZeroDivisionError

    before, left = open_files(), sorted(folder.iterdir())
    with pytest.raises(ZeroDivisionError) as caught:  # which keeps alive what the frames hold
        container.rewrite(second, broken)
    assert open_files() == before
    assert caught
    assert sorted(folder.iterdir()) == left
