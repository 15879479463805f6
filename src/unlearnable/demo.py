"""See it work: real pictures that come with scikit-learn, protected, verified, and learned from before and after."""

import base64
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from unlearnable.errors import expected
from unlearnable.keys import Key
from unlearnable.pictures import quality
from unlearnable.pictures.dataset import Dataset, load
from unlearnable.pictures.destination import writing
from unlearnable.pictures.sheet import Row, contact_sheet
from unlearnable.pipeline import protect, verify
from unlearnable.shares import between, percent

if TYPE_CHECKING:
    from unlearnable.training.evaluation import Accuracy

CLASSES: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_MODEL: Final = "resnet9-w16"
_EPOCHS: Final = 8
_ENLARGED: Final = 4  # times: 8x8 to 32x32 pixels
_TESTS: Final = 500  # pictures that are never trained on
_MADE: Final = frozenset({"clean", "protected", "protected.manifest", "demo.key", "contact-sheet.png", "index.html"})
_OWN_PICTURES: Final = """\
unlearnable keygen my.key
unlearnable protect PICTURES PROTECTED --key my.key
unlearnable verify PROTECTED --manifest PROTECTED.manifest --key my.key"""


@dataclass(frozen=True)
class DemoReport:
    """What the demo showed.

    clean_accuracy, protected_accuracy: share of the clean test pictures named rightly after training on clean and on
        protected pictures; with their 95 % intervals (Wilson).
    learned: share of the protected pictures that the network trained on them names rightly.
    chance: what guessing reaches.
    pictures, tests: how many were trained on, and tested with.
    psnr (dB), ssim: medians over the protected pictures.
    """

    clean_accuracy: float
    clean_interval: tuple[float, float]
    protected_accuracy: float
    protected_interval: tuple[float, float]
    learned: float
    chance: float
    pictures: int
    tests: int
    psnr: float | None
    ssim: float | None
    seconds: float
    page: str
    contact_sheet: str


def demo(out: Path, *, seed: int = 0, echo: Callable[[str], None] = print) -> DemoReport:
    """Protect scikit-learn's handwritten digits, and train one network on them as they were and as protected.

    The pictures, the key, a contact sheet and a page that explains it all go to ``out``: a new folder, an empty one,
    or one with an earlier demo. That is replaced, but for its key: the same seed shows the same again (on the same
    machine, with as many threads).

    seed: decides which pictures are for testing, and the training.
    echo: called with each line there is to tell.

    Raises InputError where ``out`` holds anything else, or PyTorch or scikit-learn is missing.
    """
    started = time.monotonic()
    _check_installed()
    clean, tests, protected = out / "clean" / "train", out / "clean" / "test", out / "protected"
    with writing(out):
        _make_room(out)
        _write_digits(clean, tests, seed)
        key = _key(out / "demo.key")
    echo(f"1/5  {_TESTS} digits to test with, the others to train on: {out / 'clean'}")
    echo(f"2/5  a key: {out / 'demo.key'}")
    made = protect(clean, protected, key=key)
    echo(f"3/5  protected {made.protected:,} pictures: {protected}")
    if not verify(protected, manifest=made.manifest, key=key).ok:
        raise expected("the protected pictures as they were written", "others", f"leave {out} alone, and try again")
    echo("4/5  verified them: all there, none changed")
    echo(f"5/5  training a {_MODEL} for {_EPOCHS} epochs, twice ...")
    before, after, held_out = load(clean), load(protected), load(tests)
    (clean_test, _), (protected_test, learned) = (_train(one, held_out, seed) for one in (before, after))

    report = DemoReport(
        clean_accuracy=clean_test.share,
        clean_interval=clean_test.interval(),
        protected_accuracy=protected_test.share,
        protected_interval=protected_test.interval(),
        learned=learned.share,
        chance=1 / len(CLASSES),
        pictures=made.protected,
        tests=_TESTS,
        psnr=made.psnr,
        ssim=made.ssim,
        seconds=time.monotonic() - started,
        page=str(out / "index.html"),
        contact_sheet=str(out / "contact-sheet.png"),
    )
    with writing(out):
        contact_sheet(_rows(before, after), title="Ten digits, before and after").save(report.contact_sheet)
        Path(report.page).write_text(_page(report), encoding="utf-8")
    for line in _told(report):
        echo(line)
    return report


def _check_installed() -> None:
    for package in ("torch", "sklearn"):
        if find_spec(package) is None:
            raise expected("PyTorch and scikit-learn", f"no {package}", "pip install 'unlearnable[demo]'")


def _make_room(out: Path) -> None:
    """Clear away an earlier demo, all but its key. Raises InputError where there is anything else."""
    found = {entry.name for entry in out.iterdir() if not entry.name.startswith(".")} if out.exists() else set()
    if found and not ("demo.key" in found and found <= _MADE):
        other = min(found - _MADE or found)
        raise expected("a new folder, or an earlier demo", f"{other!r} in {out}", "name another with --out")
    for name in found - {"demo.key"}:
        made = out / name
        if made.is_dir():
            shutil.rmtree(made)
        else:
            made.unlink()


def _write_digits(train: Path, test: Path, seed: int) -> None:
    """Write scikit-learn's 1,797 digits as PNG files, in a folder a class.

    Each of their 8x8 pixels becomes a square, with hard edges: a smooth enlargement has no fine detail, and there
    CUDA has nothing to mark (a network then learns the digits as if they were not protected).
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    chosen = train_test_split(
        np.arange(len(digits.target)), test_size=_TESTS, random_state=seed, stratify=digits.target
    )
    for folder, numbers in zip((train, test), chosen, strict=True):
        for name in CLASSES:
            (folder / name).mkdir(parents=True)
        for number in numbers:
            small = np.rint(digits.images[number] * (255 / 16)).astype(np.uint8)
            large = small.repeat(_ENLARGED, 0).repeat(_ENLARGED, 1)
            Image.fromarray(large).save(folder / CLASSES[digits.target[number]] / f"{number:04}.png")


def _key(path: Path) -> Key:
    if not path.exists():
        Key.generate().save(path)
    return Key.load(path)


def _train(pictures: Dataset, held_out: Dataset, seed: int) -> tuple["Accuracy", "Accuracy"]:
    """Train a network, and return its accuracy on the pictures held out and on its own."""
    from unlearnable.models import models
    from unlearnable.training.evaluation import evaluate
    from unlearnable.training.loop import train
    from unlearnable.training.recipes import Recipe

    recipe = Recipe(epochs=_EPOCHS, learning_rate=0.2, flip=False)
    build = partial(models.create, _MODEL, classes=len(CLASSES), channels=1)
    network = train(pictures, model=build, recipe=recipe, seed=seed).model
    held, own = (evaluate(network, one.images, one.labels) for one in (held_out, pictures))
    return held, own


def _rows(before: Dataset, after: Dataset) -> list[Row]:
    """Take the first picture of each class."""
    rows = []
    for name in CLASSES:
        first = int(np.flatnonzero(before.labels == before.class_names.index(name))[0])
        original, protected = before.images[first], after.images[first]
        figures = quality.psnr(original, protected), quality.ssim(original, protected)
        rows.append(Row(name, original, protected, *figures))
    return rows


def _told(report: DemoReport) -> list[str]:
    clean, protected = percent(report.clean_accuracy), percent(report.protected_accuracy)
    return [
        "",
        f"Of {report.tests} clean test pictures, the network names rightly (with 95 % intervals):",
        f"  {clean:>7}  trained on the clean pictures      ({between(report.clean_interval)})",
        f"  {protected:>7}  trained on the protected pictures  ({between(report.protected_interval)})",
        f"  {percent(report.chance):>7}  by guessing",
        "",
        f"What it all means: {report.page}",
        "For pictures of your own:",
        *(f"  {line}" for line in _OWN_PICTURES.splitlines()),
    ]


def _page(report: DemoReport) -> str:
    sheet = base64.b64encode(Path(report.contact_sheet).read_bytes()).decode()
    template = Template(files("unlearnable").joinpath("templates/demo.html").read_text(encoding="utf-8"))
    return template.substitute(
        pictures=f"{report.pictures:,}",
        tests=report.tests,
        model=_MODEL,
        epochs=_EPOCHS,
        psnr=f"{report.psnr:.1f}",
        ssim=f"{report.ssim:.2f}",
        clean=percent(report.clean_accuracy),
        clean_between=between(report.clean_interval),
        clean_width=f"{100 * report.clean_accuracy:.1f}",
        protected=percent(report.protected_accuracy),
        protected_between=between(report.protected_interval),
        protected_width=f"{100 * report.protected_accuracy:.1f}",
        learned=percent(report.learned),
        chance=percent(report.chance),
        chance_width=f"{100 * report.chance:.1f}",
        own_pictures=_OWN_PICTURES,
        sheet=f"data:image/png;base64,{sheet}",
    )
