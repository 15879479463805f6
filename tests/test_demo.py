import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import nn

from unlearnable import demo as module
from unlearnable.demo import CLASSES, DemoReport, demo
from unlearnable.errors import InputError
from unlearnable.keys import Key
from unlearnable.registry import Registry


def tiny(classes: int, channels: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 32 * 32, classes))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, DemoReport, list[str]]]:
    """A demo with a network that takes no time; what it learns says little."""
    out, lines, networks = tmp_path_factory.mktemp("demo") / "out", list[str](), Registry[nn.Module]("model")
    networks.register("tiny")(tiny)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unlearnable.models.models", networks)
        patch.setattr(module, "_MODEL", "tiny")
        yield out, demo(out, echo=lines.append), lines


@pytest.mark.slow
def test_protected_pictures_teach_little(tmp_path: Path) -> None:
    report = demo(tmp_path, echo=lambda _: None)
    assert report.clean_accuracy > 0.95
    assert report.protected_accuracy < 0.6
    assert report.learned > 0.95


def test_writes_what_it_says(shown: tuple[Path, DemoReport, list[str]]) -> None:
    out, report, _ = shown
    assert {entry.name for entry in out.iterdir()} == {
        "clean", "protected", "protected.manifest", "demo.key", "contact-sheet.png", "index.html",
    }  # fmt: skip
    assert (report.pictures, report.tests, report.chance) == (1297, 500, 0.1)
    assert (report.page, report.contact_sheet) == (str(out / "index.html"), str(out / "contact-sheet.png"))
    assert report.psnr is not None
    assert 10 < report.psnr < 30
    for accuracy, (low, high) in (
        (report.clean_accuracy, report.clean_interval),
        (report.protected_accuracy, report.protected_interval),
    ):
        assert 0 <= low <= accuracy <= high <= 1
    assert (out / "demo.key").stat().st_mode & 0o777 == 0o600


def test_the_pictures_are_the_digits(shown: tuple[Path, DemoReport, list[str]]) -> None:
    from sklearn.datasets import load_digits

    digits, seen = load_digits(), set()
    for part, count in (("train", 1297), ("test", 500)):
        paths = sorted((shown[0] / "clean" / part).glob("*/*.png"))
        assert len(paths) == count
        assert {path.parent.name for path in paths} == set(CLASSES)
        seen |= {path.stem for path in paths}
        for path in paths[::50]:
            pixels, number = np.asarray(Image.open(path)), int(path.stem)
            assert pixels.shape == (32, 32)
            assert CLASSES[digits.target[number]] == path.parent.name
            assert np.abs(pixels[::4, ::4] / 255 - digits.images[number] / 16).max() < 0.003
    assert len(seen) == 1797


def test_the_page_stands_alone_and_tells_the_figures(shown: tuple[Path, DemoReport, list[str]]) -> None:
    out, report, _ = shown
    text = (out / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'(?:src|href)="([^"]{0,22})', text)
    assert links == ["data:image/png;base64,"]
    assert "://" not in text
    assert "$" not in text
    for share in (report.clean_accuracy, report.protected_accuracy, report.learned, report.chance):
        assert f"{100 * share:.1f} %" in text
    HTMLParser().feed(text)


def test_tells_the_figures_and_what_to_do_next(shown: tuple[Path, DemoReport, list[str]]) -> None:
    _, report, lines = shown
    told = "\n".join(lines)
    assert f"{100 * report.clean_accuracy:.1f} %" in told
    assert f"{100 * report.protected_accuracy:.1f} %" in told
    for command in ("unlearnable keygen", "unlearnable protect", "unlearnable verify"):
        assert command in told
    assert Key.load(shown[0] / "demo.key").secret.hex() not in told


def test_again_it_shows_the_same(shown: tuple[Path, DemoReport, list[str]]) -> None:
    out, first, _ = shown
    key = Key.load(out / "demo.key")
    protected = {path: path.read_bytes() for path in (out / "protected").rglob("*.png")}
    (out / ".DS_Store").touch()  # what a look into the folder leaves
    second = demo(out, echo=lambda _: None)
    assert (second.clean_accuracy, second.protected_accuracy) == (first.clean_accuracy, first.protected_accuracy)
    assert Key.load(out / "demo.key") == key
    assert {path: path.read_bytes() for path in (out / "protected").rglob("*.png")} == protected


@pytest.mark.parametrize("name", ["holiday.jpg", "clean", "index.html"])
def test_never_touches_a_folder_that_is_not_its_own(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"expected a new folder, or an earlier demo, found '{name}'"):
        demo(tmp_path)
    assert (tmp_path / name).read_text() == "mine"


def test_an_earlier_demo_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    Key.generate().save(tmp_path / "demo.key")
    (tmp_path / "clean").mkdir()
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(InputError, match=r"found 'thesis\.txt'"):
        demo(tmp_path)
    assert (tmp_path / "clean").exists()


def test_a_file_in_its_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(InputError):
        demo(tmp_path / "out")


@pytest.mark.parametrize("package", ["torch", "sklearn"])
def test_says_how_to_install_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=re.escape(f"found no {package}: pip install 'unlearnable[demo]'")):
        demo(tmp_path / "out")
    assert not (tmp_path / "out").exists()
