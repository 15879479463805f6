"""Testing a network on corrupted pictures and at several radii, as its user meets it."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unlearnable
from tests.conftest import in_process
from unlearnable import InputError
from unlearnable.attacks.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from unlearnable.budgets import L2, Linf
from unlearnable.models import build
from unlearnable.pictures.dataset import load
from unlearnable.plots import MARKERS
from unlearnable.training.checkpoint import Network, load_network, save_network
from unlearnable.training.evaluation import evaluate as accuracy


def folder_of(root: Path, *, classes: int, channels: int = 3, count: int = 4, size: int = 12) -> Path:
    rng = np.random.default_rng(classes)
    for name in "abcdefgh"[:classes]:
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (size, size, channels)[: 2 + (channels > 1)], dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def checkpoint_of(path: Path, *, classes: int, channels: int = 3) -> Path:
    """A network of chance: it names pictures in a way of its own."""
    torch.manual_seed(classes)
    network = build("resnet9-w16", classes=classes, channels=channels, size=12)
    about = {"model": "resnet9-w16", "channels": channels, "size": 12, "training": {}}
    save_network(path, network, Network(class_names=tuple("abcdefgh"[:classes]), **about))
    return path


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A network of five classes and pictures of them."""
    root = tmp_path_factory.mktemp("five")
    return checkpoint_of(root / "network", classes=5), folder_of(root / "pictures", classes=5)


def released(folder: Path, classes: int = 5, size: int = 12) -> Path:
    """Files as CIFAR-10-C has them, of ten pictures."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in CORRUPTIONS:
        np.save(folder / f"{name}.npy", rng.integers(0, 256, (50, size, size, 3), dtype=np.uint8))
    np.save(folder / "labels.npy", np.tile(np.arange(10) % classes, 5))
    return folder


def test_corruptions_are_those_of_the_generator(five: tuple[Path, Path]) -> None:
    network, _ = load_network(five[0])
    data = load(five[1])
    told: list[tuple[int, int]] = []
    report = unlearnable.evaluate(*five, corruptions=True, seed=3, progress=lambda *now: told.append(now))
    assert list(report.corruptions) == list(CORRUPTIONS)
    for name in ("fog", "pixelate"):
        wanted = [
            accuracy(network, corrupt(data.images, name, severity, ids=data.ids, seed=3), data.labels).share
            for severity in SEVERITIES
        ]
        assert report.corruptions[name] == wanted
    every = [share for shares in report.corruptions.values() for share in shares]
    assert len(every) == 75
    assert report.mean_corruption_error == pytest.approx(1 - sum(every) / 75)
    assert (report.corrupted_pictures, report.corruption_files) == (20, None)
    assert told[-1] == (75 * 20, 75 * 20)
    assert told == sorted(told)


def test_released_files_are_read_in_their_place(five: tuple[Path, Path], tmp_path: Path) -> None:
    files = released(tmp_path / "released")
    report = unlearnable.evaluate(*five, corruption_files=files)
    network, _ = load_network(five[0])
    images = np.load(files / "snow.npy")[30:40]
    assert report.corruptions["snow"][3] == accuracy(network, images, np.arange(10) % 5).share
    assert (report.corrupted_pictures, report.corruption_files) == (10, str(files))
    limited = unlearnable.evaluate(*five, corruption_files=files, limit=5)
    assert limited.corrupted_pictures == 5
    assert limited.corruptions["snow"][3] == accuracy(network, images[:5], np.arange(5)).share


@pytest.mark.parametrize("budget", [Linf.of_255(8), L2(0.5), Linf(0.5)], ids=str)
def test_curves_hold_every_radius(five: tuple[Path, Path], tmp_path: Path, budget: Linf | L2) -> None:
    report = unlearnable.evaluate(*five, attacks=["fgsm", "pgd2"], budget=budget, figures=tmp_path / "new" / "figures")
    most = min(4 * budget.radius, 1.0) if isinstance(budget, Linf) else 4 * budget.radius
    radii = sorted({0.0, *(times * budget.radius for times in (0.25, 0.5, 1, 2)), most})
    for name, points in report.by_radius.items():
        assert [radius for radius, _ in points] == radii
        assert points[0][1] == report.clean
        assert dict(points)[budget.radius] == report.attacks[name]
        at_half = unlearnable.evaluate(*five, attacks=[name], budget=type(budget)(budget.radius / 2))
        assert dict(points)[budget.radius / 2] == at_half.attacks[name]
    assert report.figures == [str(tmp_path / "new" / "figures" / "accuracy-by-radius")]
    assert all(Path(f"{figure}{suffix}").stat().st_size for figure in report.figures for suffix in (".pdf", ".png"))


def test_points_on_the_border_are_drawn_whole(five: tuple[Path, Path]) -> None:
    from unlearnable.evaluator_figures import by_radius, by_severity

    report = unlearnable.evaluate(*five, attacks=["fgsm"])
    curves = {"fgsm": [(0.0, 0.0), (8 / 255, 0.0)], "pgd2": [(0.0, 0.2), (4 / 255, 0.1), (8 / 255, 0.0)]}
    report = replace(report, by_radius=curves, corruptions={name: [0.0] * 5 for name in CORRUPTIONS})
    for figure, points in ((by_radius(report, Linf.of_255(8)), 2), (by_severity(report), 15)):
        marked = [line for axes in figure.axes for line in axes.lines if line.get_marker() in MARKERS]
        assert len(marked) == points
        assert not any(line.get_clip_on() for line in marked)


@pytest.mark.parametrize(("precision", "wanted"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_networks_are_tested_in_full_precision_unless_told_otherwise(
    five: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, precision: str, wanted: torch.dtype
) -> None:
    seen = set()
    network, about = load_network(five[0])
    network.register_forward_hook(lambda module, given, answer: seen.add(answer.dtype))
    monkeypatch.setattr("unlearnable.evaluator.load_network", lambda path: (network, about))
    monkeypatch.setattr("unlearnable.training.precision._bfloat16_pays", lambda device: True)
    unlearnable.evaluate(*five, attacks=["pgd2"], limit=5, precision=precision)
    assert seen == {wanted}


def test_the_whole_way(five: tuple[Path, Path], tmp_path: Path) -> None:
    asked = ("--corruptions", "--attack", "pgd2x2", "--limit", 10, "--figures", tmp_path / "figures")
    code, printed, complained = in_process("evaluate", *five, *asked, "--json")
    assert code == 0, complained
    found = json.loads(printed)
    assert {"clean", "attacks", "corruptions", "mean_corruption_error"} <= found.keys()
    assert list(found["attacks"]) == ["pgd2x2"]
    assert all(len(shares) == 5 for shares in found["corruptions"].values())
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        f"accuracy-by-{by}{suffix}" for by in ("radius", "severity") for suffix in (".pdf", ".png")
    ]
    lines = in_process("evaluate", *five, *asked)[1].splitlines()
    assert max(len(line) for line in lines if not line.startswith("Drew 2 figures")) <= 80
    start = next(place for place, line in enumerate(lines) if line.startswith("10 corrupted pictures, made here:"))
    table = {line[:38].strip(): [float(cell) for cell in line[38:].split()] for line in lines[start + 2 : start + 17]}
    for name, shares in found["corruptions"].items():
        assert table[name] == pytest.approx([100 * x for x in (*shares, sum(shares) / 5)], abs=0.051)
    assert f"{100 * found['mean_corruption_error']:6.1f} %  mean corruption error" in lines
    lines = in_process("evaluate", *five, "--corruption-files", released(tmp_path / "released"))[1].splitlines()
    assert "10 corrupted pictures, as released:" in lines
    head = next(place for place, line in enumerate(lines) if line.startswith("severity"))
    ends = [[word.end() for word in re.finditer(r"[\w.]+", line[38:])] for line in lines[head : head + 16]]
    assert ends == [[6, 12, 18, 24, 30, 36]] * 16  # each number below its severity


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"figures": "figures"}, "expected attacks or corruptions to draw figures of, found neither"),
        (
            {"corruption_files": "nowhere"},
            "expected the files of 15 corruptions in nowhere, found no labels.npy and 15",
        ),
        ({"attacks": ["pdg"]}, "expected a known attack, found 'pdg': did you mean 'pgd'?"),
    ],
)
def test_what_cannot_be_done_is_an_error(five: tuple[Path, Path], options: dict, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        unlearnable.evaluate(*five, **options)


def test_released_files_of_another_set_are_refused(five: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected corrupted pictures of 5 classes, found 3 in "):
        unlearnable.evaluate(*five, corruption_files=released(tmp_path / "three", classes=3))
    with pytest.raises(InputError, match=r"expected corrupted pictures of 12x12x3, found 16x16x3 in "):
        unlearnable.evaluate(*five, attacks=["pgd2"], corruption_files=released(tmp_path / "large", size=16))


def test_bad_input_is_one_line(five: tuple[Path, Path], tmp_path: Path) -> None:
    network, pictures = five
    grey, of_grey = folder_of(tmp_path / "grey", classes=5, channels=1), tmp_path / "of-grey"
    checkpoint_of(of_grey, classes=5, channels=1)
    alike = "as the network was trained on, found"
    cases = {
        (network, grey): f"expected colour pictures, {alike} grey ones in {grey}",
        (of_grey, pictures): f"expected grey pictures, {alike} colour ones in {pictures}",
        (network, pictures, "--attack", "fgsm", "--budget", 0): "expected an Linf radius above 0, found 0: pixels go",
        (tmp_path / "none", pictures): f"expected a trained network, found nothing at {tmp_path / 'none'}",
        (pictures / "a" / "0.png", pictures): "expected a trained network, found something else at",
        (network, tmp_path / "none"): "expected",
        (network, pictures, "--corruption-files", pictures): "expected the files of 15 corruptions",
    }
    for arguments, message in cases.items():
        code, printed, complained = in_process("evaluate", *arguments)
        assert (code, printed, complained.count("\n")) == (2, "", 1)
        assert complained.startswith(f"unlearnable: {message}")


def test_too_few_classes_for_autoattack_are_refused_before_anything_runs(tmp_path: Path) -> None:
    two = checkpoint_of(tmp_path / "network", classes=2)
    pictures = folder_of(tmp_path / "pictures", classes=2)
    told: list[int] = []
    with pytest.raises(InputError, match="expected at least 4 classes for this version of AutoAttack"):
        unlearnable.evaluate(two, pictures, attacks=["pgd2", "autoattack"], progress=lambda d, t: told.append(d))
    assert told == []
    report = unlearnable.evaluate(two, pictures, attacks=["pgd2x2"], corruptions=True)
    assert len(report.corruptions) == 15
