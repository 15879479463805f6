"""What ``inspect`` says about real pictures, clean, protected in known ways, and with noise: the table in its docs.

    uv run benchmarks/inspection.py PICTURES [--limit 3000]

PICTURES: whatever ``protect`` takes, of one size. Keys and noise are fixed. One row for all sets.
"""

import argparse
from dataclasses import asdict, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rows import append

from unlearnable import Key, ReferenceSeed
from unlearnable.inspection import inspect
from unlearnable.pictures.dataset import Dataset, load
from unlearnable.protections.convolution import Convolution

KEY = Key(bytes(31) + b"\1")


def convolved(clean: Dataset, secret: Key | ReferenceSeed, **options: float) -> NDArray[np.uint8]:
    return Convolution(**options).fit(clean, secret).apply(clean.images, clean.labels, clean.ids)


def jpeg(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    out = np.empty_like(images)
    for n, image in enumerate(images):
        file = BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=90)
        out[n] = np.asarray(Image.open(file))
    return out


def sets(clean: Dataset) -> dict[str, NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    images, labels = clean.images, clean.labels
    classes, (height, width, channels) = len(clean.class_names), images.shape[1:]
    keyed = convolved(clean, KEY)
    half = rng.random(len(images)) < 0.5
    patches = rng.choice([-6, 6], (classes, -(-height // 8), -(-width // 8), channels)).repeat(8, 1).repeat(8, 2)
    noise = {
        "a pattern a class": rng.choice([-8, 8], (classes, height, width, channels))[labels],
        "patches a class": patches[labels, :height, :width],
        "a pattern a picture": rng.choice([-8, 8], images.shape),
    }
    added = {name: np.clip(images.astype(int) + one, 0, 255).astype(np.uint8) for name, one in noise.items()}
    return {
        "clean": images,
        "cuda": keyed,
        "cuda, jpeg 90": jpeg(keyed),
        "cuda, half": np.where(half[:, None, None, None], keyed, images),
        "cuda, zero padding": convolved(clean, ReferenceSeed(0), kernel_size=3),
        "cuda, p_b 0.1": convolved(clean, KEY, kernel_size=3, blur=0.1),
        "a pattern a class": added["a pattern a class"],
        "a pattern a class, jpeg 90": jpeg(added["a pattern a class"]),
        "patches a class": added["patches a class"],
        "a pattern a picture": added["a pattern a picture"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--limit", type=int, default=3000)
    options = parser.parse_args()
    clean = load(options.pictures, limit=options.limit)
    found = {}
    for name, images in sets(clean).items():
        published = replace(clean, images=images)
        alone, beside = inspect(published), inspect(published, clean)
        found[name] = asdict(alone) | {"looks_beside_clean": beside.looks, "difference": asdict(beside.difference)}
        shares = f"{alone.content:.2f} / {alone.detail:.2f} / {alone.spectra:.2f}"
        print(f"{name:28} {alone.looks:15} {shares}  beside the clean ones: {beside.looks}", flush=True)
    append(
        "inspection", pictures=len(clean), classes=len(clean.class_names), fingerprint=clean.fingerprint(), sets=found
    )


if __name__ == "__main__":
    main()
