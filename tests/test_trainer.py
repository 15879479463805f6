"""Training and testing a network from the command line, as their user meets them."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import unlearnable
from tests.cli.test_cli import run
from tests.conftest import in_process
from unlearnable import InputError
from unlearnable.budgets import Linf
from unlearnable.models import models
from unlearnable.training.checkpoint import load_network


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Dark and bright pictures to train on and to test with."""
    root, rng = tmp_path_factory.mktemp("folders"), np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 8)):
        for name, level in (("dark", 0), ("light", 155)):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = (rng.integers(0, 100, (12, 12, 3)) + level).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    return root / "train", root / "test"


@pytest.fixture(scope="module")
def trained(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "network.safetensors"
    options = {"epochs": 3, "batch_size": 8}
    report = unlearnable.train(folders[0], test=folders[1], out=out, options=options)
    assert report.clean_accuracy == 1
    assert report.gradients == 3 * 40
    assert report.seconds == sum(epoch.seconds for epoch in report.history)  # of all sittings, as the gradients are
    return out


def test_the_whole_way(folders: tuple[Path, Path], tmp_path: Path) -> None:
    train, test = folders
    out = tmp_path / "new" / "network.safetensors"
    said = run("train", train, "--test", test, "--out", out, "--epochs", 2, "--batch-size", 8, "--json")
    assert said.returncode == 0, said.stderr
    report = json.loads(said.stdout)
    assert {"checkpoint", "recipe", "accelerate", "epochs", "clean_accuracy", "seconds", "gradients"} <= report.keys()
    assert (report["checkpoint"], report["recipe"], report["epochs"]) == (str(out), "erm", 2)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    said = in_process("evaluate", out, test, "--attack", "fgsm", "--attack", "pgd3", "--budget", "40/255", "--json")
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout)
    assert found["clean"] == report["clean_accuracy"]
    assert found["attacks"].keys() == {"fgsm", "pgd3"}
    assert found["worst"] <= min(found["attacks"].values()) <= found["clean"]
    told = in_process("evaluate", out, test, "--attack", "fgsm", "--certify", 0.25, "--samples", 50, "--limit", 4)
    assert told.returncode == 0, told.stderr
    assert "of 4 pictures" in told.stdout
    assert "under fgsm, Linf 8/255" in told.stdout
    assert " for 1 epoch in " in in_process("train", train, "--test", test, "--out", out, "--epochs", 1).stdout


def test_an_accelerated_run_says_so_and_keeps_how_it_sorted(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "network.safetensors"
    common = ("train", folders[0], "--test", folders[1], "--out", out, "--epochs", 2, "--batch-size", 8)
    said = in_process(*common, "--recipe", "mart", "--accelerate", "bullettrain", "--json")
    assert said.returncode == 0, said.stderr
    report = json.loads(said.stdout)
    assert (report["recipe"], report["accelerate"]) == ("mart", "bullettrain")
    about = load_network(out)[1].training
    assert about["accelerate"]["kind"] == "BulletTrain"
    assert about["history"] == report["history"]
    assert [sum(epoch[4:7]) for epoch in report["history"]] == [pytest.approx(1)] * 2
    splits = np.array(about["splits"])
    assert splits.shape == (10, 3)
    assert (splits.sum(1) == 8).all()
    assert report["gradients"] == splits.sum(0) @ [1, 10, 2] + 2 * 80
    refused = in_process(*common, "--accelerate", "bullettrain")
    assert refused.returncode == 2
    assert refused.stderr == (
        "unlearnable: expected a recipe with a PGD attack to accelerate, found CrossEntropy:"
        " choose adversarial, trades, mart or augmix\n"
    )


def test_a_checkpoint_loads_in_plain_pytorch(trained: Path, folders: tuple[Path, Path]) -> None:
    network = models.create("resnet9-w16", classes=2)
    network.load_state_dict(load_file(trained))
    same, about = load_network(trained)
    images = torch.rand(3, 3, 12, 12)
    assert torch.equal(network.eval()(images), same(images))
    assert (about.model, about.class_names, about.channels, about.size) == ("resnet9-w16", ("dark", "light"), 3, 12)
    assert about.training["epochs"] == 3


def test_a_stronger_budget_is_worse_and_none_is_clean(trained: Path, folders: tuple[Path, Path]) -> None:
    found = [
        unlearnable.evaluate(trained, folders[1], attacks=["pgd5"], budget=Linf(radius)).attacks["pgd5"]
        for radius in (1e-6, 0.1, 1.0)
    ]
    assert found[0] == 1
    assert found[0] >= found[1] >= found[2]
    assert found[2] < 0.5


def test_the_best_epoch_by_held_out_pictures_is_kept(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "network"
    said = in_process(
        *("train", folders[0], "--test", folders[1], "--out", out, "--recipe", "adversarial", "--budget", "8/255"),
        *("--epochs", 3, "--batch-size", 8, "--hold-out", 0.2, "--report", tmp_path / "new" / "run.html", "--json"),
    )
    assert said.returncode == 0, said.stderr
    report = json.loads(said.stdout)
    scores = [epoch[-1] for epoch in report["history"]]
    assert report["held_out"] == max(scores)
    assert report["best_epoch"] == 1 + scores.index(max(scores))
    assert (report["held_out_pictures"], report["judged_by"]) == (8, "pgd10, Linf 8/255")
    assert report["gradients"] == 3 * 32 * (10 + 1)
    assert unlearnable.evaluate(out, folders[1]).clean == report["clean_accuracy"]
    page = (tmp_path / "new" / "run.html").read_text()
    assert report["report"] == str(tmp_path / "new" / "run.html")
    assert f"unlearnable train {folders[0]} --test {folders[1]} --out {out} --recipe adversarial" in page
    assert "training pictures under attack" in page


def test_curves_for_tensorboard(folders: tuple[Path, Path], tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = {"epochs": 2, "batch_size": 8}
    curves = tmp_path / "curves"
    report = unlearnable.train(
        folders[0], test=folders[1], out=tmp_path / "a", options=options, model="resnet9-w16", tensorboard=curves
    )
    events = EventAccumulator(str(curves)).Reload()
    assert [event.step for event in events.Scalars("loss/train")] == [1, 2]
    assert [event.value for event in events.Scalars("loss/train")] == [
        pytest.approx(epoch.loss) for epoch in report.history
    ]
    assert events.Scalars("accuracy/test")[0].value == pytest.approx(report.clean_accuracy)


def test_finetuning_starts_from_the_weights_given(trained: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    options = {"epochs": 1, "batch_size": 8, "learning_rate": 0.0}
    report = unlearnable.train(
        folders[0], test=folders[1], out=tmp_path / "b", recipe="finetune", options=options, weights=trained
    )
    assert report.clean_accuracy == 1
    before, after = load_file(trained), load_file(tmp_path / "b")
    assert all(torch.equal(before[name], after[name]) for name in before if name.endswith("weight"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": "ermm"}, "expected a known recipe, found 'ermm': did you mean 'erm'?"),
        ({"model": "resnet19"}, "expected a known model, found 'resnet19': did you mean 'resnet1"),
        ({"recipe": "finetune"}, "expected weights to start finetune from, found none"),
        ({"recipe": "linear-probe", "weights": "nowhere"}, "nowhere"),
        ({"options": {"epochs": 0}}, "expected epochs of 1 or more, found 0"),
        ({"options": {"sigma": 0.5}}, "expected options of the recipe erm (none of its own) or of all recipes, found"),
        ({"limit": 0}, "expected"),
        ({"hold_out": 1.5}, "expected a share to hold out between 0 and 1, found 1.5"),
        ({"hold_out": 0.01}, "expected enough pictures of each class to hold 0.01 of them out and train on the rest"),
        ({"report": "."}, "expected a file to write the report to, found the folder ."),
        ({"device": "abacus"}, "expected a device that PyTorch has here, such as cpu or cuda, found 'abacus'"),
    ],
)
def test_bad_input_is_an_error(folders: tuple[Path, Path], tmp_path: Path, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        unlearnable.train(folders[0], test=folders[1], out=tmp_path / "x", **arguments)
    assert not list(tmp_path.iterdir())


def test_bad_input_is_one_line(folders: tuple[Path, Path], tmp_path: Path) -> None:
    adversarial = ("--recipe", "adversarial", "--budget", "0")
    said = in_process("train", folders[0], "--test", folders[1], "--out", tmp_path / "x", *adversarial)
    assert said.returncode == 2
    assert said.stdout == ""
    assert said.stderr == (
        "unlearnable: expected an Linf radius above 0, found 0: pixels go from 0 to 1; eight grey levels are 8/255\n"
    )


def test_sets_that_do_not_fit_are_errors(trained: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    train, test = folders
    with pytest.raises(InputError, match="expected test pictures of the same 2 classes, found 1 that differ in"):
        unlearnable.train(train, test=test / "dark", out=tmp_path / "x")
    with pytest.raises(
        InputError, match="expected pictures of the 2 classes it was trained on, found 1 that differ in 'all', 'dark'"
    ):
        unlearnable.evaluate(trained, test / "dark")
    with pytest.raises(InputError, match="expected a trained network, found something else"):
        unlearnable.evaluate(test / "dark" / "0.png", test)
    save_file({"model.weight": torch.zeros(1)}, tmp_path / "run", {"format": "unlearnable-run-1"})
    with pytest.raises(InputError, match=r"found something else at .*run \(unlearnable-run-1\): make one with"):
        unlearnable.evaluate(tmp_path / "run", test)
    with pytest.raises(InputError, match="expected a trained network, found nothing"):
        unlearnable.evaluate(tmp_path / "none", test)
    with pytest.raises(InputError, match="expected a file to write the checkpoint to, found the folder"):
        unlearnable.train(train, test=test, out=tmp_path)


def test_started_again_it_goes_on(folders: tuple[Path, Path], tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("unlearnable.training.loop._SAVE_SECONDS", 0.0)
    options = {"epochs": 2, "batch_size": 8}

    class Stopped(Exception):  # noqa: N818 - nothing went wrong
        pass

    def stop(done: int, total: int) -> None:
        if done == 7:
            raise Stopped

    with pytest.raises(Stopped):
        unlearnable.train(folders[0], test=folders[1], out=tmp_path / "a", options=options, progress=stop)
    assert not (tmp_path / "a").exists()
    seen: list[int] = []
    for name in ("a", "b"):
        unlearnable.train(
            folders[0], test=folders[1], out=tmp_path / name, options=options, progress=lambda d, t: seen.append(d)
        )
    assert seen == [7, 8, 9, 10, *range(1, 11)]
    first, second = load_file(tmp_path / "a"), load_file(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in second)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def grey(folder: Path, root: Path) -> Path:
    """Copy pictures as grey ones."""
    for path in sorted(folder.rglob("*.png")):
        (root / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.open(path).convert("L").save(root / path.parent.name / path.name)
    return root


def test_grey_and_colour_are_not_mixed(trained: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    train, test = folders
    greys = grey(train, tmp_path / "grey")
    with pytest.raises(InputError, match="expected grey test pictures, like those to train on, found colour ones"):
        unlearnable.train(greys, test=test, out=tmp_path / "x")
    with pytest.raises(InputError, match="expected colour test pictures, like those to train on, found grey ones"):
        unlearnable.train(train, test=greys, out=tmp_path / "x")
    with pytest.raises(InputError, match=r"expected the weights of this network in .*, found .* of shape"):
        unlearnable.train(greys, test=greys, out=tmp_path / "x", recipe="finetune", weights=trained)
    assert not (tmp_path / "x").exists()


def test_a_checkpoint_of_another_network_is_an_error(trained: Path, folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected the weights of this network in .*network\.safetensors, found no "):
        unlearnable.train(
            folders[0], test=folders[1], out=tmp_path / "x", recipe="finetune", weights=trained, model="resnet18"
        )


@pytest.mark.parametrize("recipe", ["adversarial", "trades", "mart"])
def test_two_classes_of_grey_pictures_are_enough(recipe: str, folders: tuple[Path, Path], tmp_path: Path) -> None:
    greys = grey(folders[1], tmp_path / "grey")
    options = {"epochs": 1, "batch_size": 8, "steps": 2}
    report = unlearnable.train(
        greys, test=greys, out=tmp_path / "x", recipe=recipe, options=options, hold_out=0.25, report=tmp_path / "page"
    )
    assert report.held_out_pictures == 4
    assert "12 of 12 x 12 pixels, grey" in (tmp_path / "page").read_text()
