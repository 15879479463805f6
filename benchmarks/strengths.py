"""Where a quality budget is spent best: stacks brought to one SSIM, judged by the worst that a scraper makes of them.

    uv run benchmarks/strengths.py search CIFAR/train [--min-ssim 0.85] [--layers LAYERS ...] [--keys 0 1] [--runs DIR]
    uv run benchmarks/strengths.py table

Every stack is weakened until it keeps the SSIM, as ``protect --min-ssim`` does, and trained on in every way that had
been found to break one when the first three presets were chosen. (Adversarial training of pictures that something else
was done to before gets further, was found later, and is not among them: docs/results/stack.md has it.) The networks are
tested on clean pictures of the training folder that none of them has seen: test pictures are left for those who judge
what is chosen here. A stack is as good as its worst way, on average over the keys; a layer is worth its place if the
stack is better with it than without.

Keys are numbered, and no secrets. ``search`` goes on where it was interrupted: trainings that are finished lie in
--runs, and ways that ``results/strengths.jsonl`` tells of a stack are not run again; its last row holds all that are
known. ``table`` reads those.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from parts import parted
from rows import append, key, rows, spread

from unlearnable import Audit, Key, protect, run_audit
from unlearnable.audit.grid import Attempt, Grid
from unlearnable.pictures.dataset import Dataset

WAYS: Final = (
    "equalize",
    "local-normalization",
    "rsk",
    "rsk+equalize",
    "tone-matching+rsk",
    "local-normalization+rsk",
    "grayscale+equalize+coin+jpeg",
    "pattern-removal+equalize",
    "pattern-removal+rsk+equalize",
    "pattern-removal+local-normalization+rsk",
    "class-mean-removal+rsk+equalize",
    "pattern-removal+local-normalization+rsk+grayscale",
    "pattern-removal+whitening+local-normalization+rsk",
    "pattern-removal+local-normalization+tone-matching+rsk",
    "pattern-removal+local-normalization+spectrum-equalization+grayscale",
    "local-normalization+spectrum-equalization+grayscale+jpeg",
    "adversarial:budget=4/255,steps=5",
)
"""What breaks one layer or another, as the audit has found: countermeasures, some of them for those who know of patches
or of mixes of channels, and a recipe."""

STACKS: Final = (
    "cuda:aligned=1",
    "tone:strength=1:grid=4",
    "cuda:aligned=1,tone:strength=1:grid=4",
    "cuda:aligned=1,tone:strength=0.5:grid=4",
    "cuda:aligned=1:blur=0.15,tone:strength=1:grid=4",
    "cuda:aligned=1,tone:strength=1:grid=2",
    "cuda:aligned=1,tone:strength=1:grid=8",
    "tone:strength=1:grid=4,patches",
    "cuda:aligned=1,tone:strength=0.5:grid=4,patches",
    "cuda:aligned=1,tone:strength=0.5:grid=4,patches:grid=8",
    "cuda:aligned=1,tone:strength=0.5:grid=4,autoregressive",
)


def main() -> None:
    options = parsed()
    if options.command == "table":
        table()
        return
    data, held = parted(options.source, options.pictures, options.held)
    runs: Path = options.runs
    runs.mkdir(parents=True, exist_ok=True)
    clean, test = (stored(part, runs / f"{part.fingerprint()[:16]}.npz") for part in (data, held))
    done = told()
    for number in options.keys:
        for layers in options.layers:
            about = {
                "layers": layers,
                "min_ssim": options.min_ssim,
                "key_number": number,
                "pictures": len(data),
                "held": len(held),
                "data": data.fingerprint(),
                "epochs": options.epochs,
            }
            known = done.get(name := key(about), {"clean": {}, "accuracies": {}})
            if missing := [way for way in WAYS if way not in known["accuracies"]]:
                figures = judged(clean, test, runs, name, layers, options.min_ssim, number, options.epochs, missing)
                for shares in ("clean", "accuracies"):
                    figures[shares] = known[shares] | figures[shares]
                append("strengths", key=name, **about, **figures)


def told() -> dict[str, dict[str, Any]]:
    """Read the last row of each stack, key and budget."""
    return {row["key"]: row for row in rows("strengths")}


def stored(data: Dataset, path: Path) -> Path:
    """Write pictures as arrays, once."""
    if not path.exists():
        np.savez(path, images=data.images, labels=data.labels, class_names=np.array(data.class_names))
    return path


def judged(
    clean: Path, test: Path, runs: Path, name: str, layers: str, least: float, number: int, epochs: int, ways: list[str]
) -> dict[str, Any]:
    """Protect pictures by a stack within its budget, train on them in some ways, and tell how they are told apart."""
    protected = runs / f"{name}.npz"
    asked = {"layers": layers, "min_ssim": least}
    made = protect(clean, protected, key=Key(bytes([number]) * 32), method="stack", options=asked)
    attempts = tuple(Attempt("none", way) if way.startswith("adversarial") else Attempt(way, "erm") for way in ways)
    grid = Grid(attempts=attempts, clean=attempts, epochs=epochs, batch_size=64)
    found = run_audit(Audit(clean=clean, protected=[f"{name}={protected}"], test=test, out=runs / "audit", grid=grid))
    shares = {
        kind: {
            row.countermeasure if row.recipe == "erm" else row.recipe: row.accuracy
            for row in found.rows
            if row.protection == kind
        }
        for kind in ("clean", name)
    }
    return {
        "found": made.parameters["layers"],
        "psnr": made.psnr,
        "ssim": made.ssim,
        "colour": made.colour,
        "clean": {way: shares["clean"][way] for way in ways},
        "accuracies": {way: shares[name][way] for way in ways},
    }


def table() -> None:
    """Print the stacks of each budget, the best first: means over the keys, in %."""
    kinds: dict[tuple[Any, ...], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in told().values():
        kinds[row["min_ssim"], row["pictures"], row["epochs"]][row["layers"]].append(row)
    for (least, pictures, epochs), stacks in sorted(kinds.items()):
        print(f"SSIM {least:g}, {pictures:,} pictures, {epochs} epochs")
        for layers, found in sorted(stacks.items(), key=lambda one: np.mean([worst(row) for row in one[1]])):
            common = [way for way in WAYS if all(way in row["accuracies"] for row in found)]
            means = {way: 100 * float(np.mean([row["accuracies"][way] for row in found])) for way in common}
            ways = ", ".join(f"{way} {mean:.1f}" for way, mean in means.items())
            quality = np.mean([[row["ssim"], row["psnr"], row["colour"]] for row in found], axis=0)
            print(f"  worst {spread([100 * worst(row) for row in found])}  {layers}: {ways};", end=" ")
            print(f"SSIM, PSNR, CIEDE2000 {np.round(quality, 3)}")
            for row in found:
                print(f"      key {row['key_number']}: {row['found']}")


def worst(row: dict[str, Any]) -> float:
    """Return what the best of all ways teaches."""
    return float(max(row["accuracies"].values()))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    search = commands.add_parser("search", help="judge stacks")
    search.add_argument("source", type=Path, metavar="DIR", help="training pictures, a subfolder a class")
    search.add_argument("--min-ssim", type=float, default=0.85)
    search.add_argument("--layers", nargs="+", default=list(STACKS), help="stacks, as protect --layers takes them")
    search.add_argument("--keys", type=int, nargs="+", default=[0])
    search.add_argument("--pictures", type=int, default=5_000, help="to train on, of each class in turn")
    search.add_argument("--held", type=int, default=2_000, help="to test on, of the same folder")
    search.add_argument("--epochs", type=int, default=6)
    search.add_argument("--runs", type=Path, default=Path("strengths-runs"), metavar="DIR")
    commands.add_parser("table", help="print what has been measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
