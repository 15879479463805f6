"""Rows of audits that never ran: invented numbers, in the shapes that the store keeps."""

import zlib

import numpy as np

from tests.conftest import draw_picture
from unlearnable.audit.results import Results, Sample
from unlearnable.audit.store import Row, key_of
from unlearnable.audit.verdict import judge
from unlearnable.pictures import quality

CIFAR = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
VERSIONS = {"unlearnable": "0.1.0", "torch": "2.9.0", "python": "3.11.2", "processor": "x86_64", "threads": "2"}

# What each way to train reaches: with clean pictures, with a set that a warp breaks, with one that holds.
WAYS = {
    ("none", "erm"): (0.925, 0.249, 0.131),
    ("none", "adversarial"): (0.861, 0.470, 0.205),
    ("none", "cutmix"): (0.931, 0.269, 0.128),
    ("none", "mixup"): (0.921, 0.255, 0.119),
    ("none", "cutout"): (0.927, 0.258, 0.140),
    ("coin", "erm"): (0.884, 0.724, 0.226),
    ("coin+jpeg-10", "erm"): (0.802, 0.701, 0.262),
    ("rsk+dct", "erm"): (0.829, 0.658, 0.187),
    ("jpeg-10", "erm"): (0.837, 0.402, 0.244),
    ("grayscale", "erm"): (0.903, 0.201, 0.172),
    ("ueraser", "erm"): (0.931, 0.370, 0.201),
    ("orthogonal-projection", "erm"): (0.911, 0.221, 0.112),
    ("blur", "erm"): (0.902, 0.134, 0.108),
}


def row(protection, fraction, countermeasure, recipe, accuracy, *, seed=0, classes=10, tests=2000, epochs=12, **more):
    """Invent one row whose counts, confusion and history agree with about this accuracy."""
    rng = np.random.default_rng(zlib.crc32(repr((protection, fraction, countermeasure, recipe, seed)).encode()))
    each = tests // classes
    confusion = np.zeros((classes, classes), int)
    for true in range(classes):
        share = np.clip(accuracy + rng.normal(0, 0.06), 0.01, 0.99)
        others = rng.dirichlet(np.full(classes - 1, 0.35)) * (1 - share)
        confusion[true] = rng.multinomial(each, np.insert(others, true, share))
    right, total = int(confusion.trace()), int(confusion.sum())
    hard = 0.97 if protection == "clean" else 0.998
    history = [
        {
            "epoch": epoch,
            "loss": float(2.2 * np.exp(-epoch * (3 if protection == "clean" else 6) / epochs) + 0.05),
            "accuracy": float(hard - 0.8 * np.exp(-epoch * (4 if protection == "clean" else 8) / epochs)),
        }
        for epoch in range(1, epochs + 1)
    ]
    model = more.pop("model", "resnet9-w16")
    spec = {
        "train": {"protected": protection, "fraction": fraction, "count": 10_000},
        "limit": None,
        "countermeasure": {"parts": [{"name": part} for part in countermeasure.split("+")]},
        "recipe": {"name": recipe, "epochs": epochs, "batch_size": 512, "learning_rate": 0.4, "ema": None},
        "model": {"name": model, "channels": 3, "size": [32, 32], "classes": classes},
        "seed": seed,
        "device": "cpu",
        "precision": "float32",
        "versions": VERSIONS,
    }
    return Row(
        key=key_of(spec),
        protection=protection,
        fraction=fraction,
        countermeasure=countermeasure,
        recipe=recipe,
        model=model,
        seed=seed,
        accuracy=right / total,
        right=right,
        total=total,
        chance=1 / classes,
        per_class=(confusion.diagonal() / confusion.sum(1)).tolist(),
        confusion=confusion.tolist(),
        history=history,
        gradients=epochs * 20,
        seconds=31.4,
        spec=spec,
        versions=VERSIONS,
        finished=f"2026-11-24T10:{seed:02}:07+00:00",
        **more,
    )


def audit(*, sets=("cuda",), seeds=(0, 1, 2), ways=None, fractions=(), classes=10, **more):
    """Invent the rows of a whole audit."""
    rng = np.random.default_rng(1)
    rows = []
    for (countermeasure, recipe), reached in (ways or WAYS).items():
        for seed in seeds:
            for name, accuracy in zip(("clean", *sets), reached, strict=False):
                found = accuracy + rng.normal(0, 0.012)
                fraction = float(name != "clean")
                rows.append(row(name, fraction, countermeasure, recipe, found, seed=seed, classes=classes, **more))
    for fraction in fractions:
        for seed in seeds:
            for countermeasure, recipe in (("none", "erm"), ("coin", "erm")):
                lost = 0.09 if countermeasure == "none" else 0.13
                for name in (*sets, "clean subset"):
                    reached = 0.925 - lost * fraction**2 - 0.01 * (name == "clean subset")
                    found = reached + rng.normal(0, 0.006)
                    rows.append(row(name, fraction, countermeasure, recipe, found, seed=seed, classes=classes, **more))
    return rows


def sample(names=("cuda",), classes=CIFAR, count=20):
    """Invent pictures before and after."""
    rng = np.random.default_rng(0)
    clean = np.stack([np.asarray(draw_picture(rng, 32, 32)) for _ in range(count)])
    noise = rng.integers(-12, 13, (len(names), *clean.shape))
    protected = np.clip(clean + noise, 0, 255).astype(np.uint8)
    pairs = [[(a, b) for a, b in zip(clean, one, strict=True)] for one in protected]
    psnr, ssim = ([[measure(*pair) for pair in one] for one in pairs] for measure in (quality.psnr, quality.ssim))
    return {
        "names": np.array(names),
        "class_names": np.array(classes),
        "ids": np.array([f"{number}.png" for number in range(count)]),
        "labels": np.arange(count) % len(classes),
        "clean": clean,
        "protected": protected,
        "psnr": np.array(psnr),
        "ssim": np.array(ssim),
        "median_psnr": np.median(psnr, 1),
        "median_ssim": np.median(ssim, 1),
    }


def results(rows, names=("cuda",), *, pictures=False, **changes):
    """What is read of an audit with these rows."""
    made = Sample(**sample(names)) if pictures else None
    count = len(rows[0].per_class)
    whole = {
        "rows": tuple(rows),
        "asked": len(rows),
        "missing": 0,
        "left_out": 0,
        "verdicts": tuple(judge(rows, name) for name in names),
        "class_names": CIFAR if count == len(CIFAR) else tuple(f"n{number:08}" for number in range(count)),
        "commands": ("unlearnable audit",),
        "searches": {},
        "sample": made,
    }
    return Results(**whole | changes)
