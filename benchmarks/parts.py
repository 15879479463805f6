"""What benchmarks of training train on, and what they choose by: parts of one folder that have no picture in common."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from unlearnable.pictures.dataset import Dataset, load


def parted(source: Path, pictures: int, held: int) -> tuple[Dataset, Dataset]:
    """Load so many pictures to train on, and others of the same folder to choose by, of each class in turn."""
    both = load(source, limit=pictures + held)
    data = both.limit(pictures)
    return data, both.select(np.flatnonzero(~np.isin(both.ids, data.ids)))


def setting(data: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    """Tell what decides a training beside its recipe, for its row."""
    return {
        "model": options.model,
        "pictures": len(data),
        "epochs": options.epochs,
        "batch_size": options.batch_size,
        "data": data.fingerprint(),
    }
