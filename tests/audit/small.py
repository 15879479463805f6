"""Small sets for audits: pictures of two classes, and a protected copy."""

from pathlib import Path

import numpy as np
from PIL import Image

from unlearnable.audit.sets import Sets, with_tests
from unlearnable.pictures.dataset import Dataset

CLASSES = ("cat", "dog")


def dataset(count: int = 24, *, seed: int = 0, size: int = 12, channels: int = 3, shade: int = 130) -> Dataset:
    """Dark cats and dogs that are brighter by a shade, in turn."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    noise = rng.integers(0, 120, (count, size, size, channels))
    images = (noise + shade * labels[:, None, None, None]).astype(np.uint8)
    ids = tuple(f"{CLASSES[label]}/{number:03}.png" for number, label in enumerate(labels))
    return Dataset(images, labels.astype(np.int64), CLASSES, ids)


def protect(clean: Dataset) -> Dataset:
    """Turn brightness around: what is learned from these pictures is wrong for others."""
    return Dataset(255 - clean.images, clean.labels, clean.class_names, clean.ids)


def sets(**protected: Dataset) -> Sets:
    clean = dataset()
    return with_tests(clean, protected or {"cuda": protect(clean)}, dataset(20, seed=1))


def write(where: Path, pictures: Dataset, suffix: str = ".png") -> Path:
    """Write pictures as files, in a folder a class."""
    for image, id_ in zip(pictures.images, pictures.ids, strict=True):
        place = (where / id_).with_suffix(suffix)
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(place)
    return where


def folders(where: Path) -> dict[str, Path]:
    """Write a clean set, a protected one and a test set."""
    clean = dataset()
    return {
        "clean": write(where / "clean", clean),
        "protected": write(where / "protected", protect(clean)),
        "test": write(where / "test", dataset(20, seed=1)),
    }
