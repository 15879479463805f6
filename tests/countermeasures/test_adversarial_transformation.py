"""The transformation as a countermeasure and as a defence: from checkpoints, in training, in the audit, refusals."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import unlearnable
from tests.conftest import in_process
from tests.countermeasures.conftest import as_batch, build_model, textured
from tests.test_trainer import folders as folders
from unlearnable.attacks import EOTPGD, Attack
from unlearnable.attacks.transformation import Transformation
from unlearnable.audit.api import Audit, run_audit, wanted_grid
from unlearnable.budgets import Linf
from unlearnable.cli.panel import show_panel
from unlearnable.compression import recipe_of
from unlearnable.countermeasures import compose, named
from unlearnable.countermeasures.adversarial_transformation import AdversarialTransformation
from unlearnable.defence import panel, transformation_of
from unlearnable.errors import InputError
from unlearnable.models import build
from unlearnable.pictures.dataset import load
from unlearnable.training.adaptive import adaptive_panel
from unlearnable.training.checkpoint import Network, load_network, save_network
from unlearnable.training.evaluation import evaluate
from unlearnable.training.rsr.noise import inject_noise
from unlearnable.training.rsr.pruning import prune, reestimate
from unlearnable.training.withstanding import withstood


def checkpoint(path: Path, *, classes: int = 3, size: int = 16, channels: int = 3) -> Path:
    torch.manual_seed(0)
    names = tuple(f"class {number}" for number in range(classes))
    about = Network(model="resnet9-w16", class_names=names, channels=channels, size=size, training={})
    save_network(path, build("resnet9-w16", classes=classes, channels=channels, size=size), about)
    return path


@pytest.fixture(scope="module")
def external(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("external") / "external.safetensors")


def test_batches_are_transformed_as_the_transformation_does(external: Path, rng) -> None:
    images, labels = as_batch(textured(rng, width=16))
    countermeasure = AdversarialTransformation(external=external, steps=3)
    change = compose(countermeasure).every_batch(3)
    model = build_model()
    before = images.clone()
    out = change(model, images, labels, torch.Generator())
    assert torch.equal(images, before)
    assert torch.equal(out, Transformation(steps=3)(load_network(external)[0], images))
    assert torch.equal(out, change(model, images, labels.flip(0), torch.Generator()))  # it does not look at labels


def test_test_pictures_are_transformed_too(external: Path, rng) -> None:
    published = textured(rng, width=16)
    out = AdversarialTransformation(external=external, steps=3).at_test(published.images)
    wanted = Transformation(steps=3)(load_network(external)[0], as_batch(published)[0])
    assert (out.shape, out.dtype) == (published.images.shape, np.uint8)
    np.testing.assert_allclose(out.transpose(0, 3, 1, 2), 255 * wanted.numpy(), atol=0.51)
    assert np.abs(out.astype(int) - published.images).max() <= 8


def test_its_name_and_its_description(external: Path, tmp_path: Path) -> None:
    assert str(named("adversarial-transformation-4+coin")) == "adversarial-transformation-4+coin"
    here = AdversarialTransformation(external=external)
    copy = tmp_path / "copy"
    copy.write_bytes(external.read_bytes())
    assert here.spec() == replace(here, external=copy).spec()  # what is in the file counts, not where it lies
    assert here.spec() != replace(here, external=checkpoint(tmp_path / "other", classes=4)).spec()
    assert here.spec() != replace(here, budget=Linf.of_255(16)).spec()
    assert json.loads(json.dumps(here.spec())) == here.spec()


def test_bad_input(external: Path, tmp_path: Path, rng) -> None:
    countermeasure = AdversarialTransformation(external=external)
    with pytest.raises(InputError, match=r"expected an external network of 10 classes, found one of 3"):
        countermeasure.every_batch(10)
    message = "expected an external network for pictures of 20x16 pixels and 3 channels, found one for 16x16 and 3"
    with pytest.raises(InputError, match=message):
        countermeasure.at_test(textured(rng, height=20, width=16).images)
    images, labels = as_batch(textured(rng, width=16, channels=1))
    with pytest.raises(InputError, match="pixels and 1 channels, found one for 16x16 and 3"):
        countermeasure.every_batch(3)(build_model(), images, labels, torch.Generator())
    with pytest.raises(InputError, match="expected an external network for adversarial-transformation, found none"):
        AdversarialTransformation().every_batch(3)
    with pytest.raises(InputError, match="expected a trained network, found nothing at"):
        AdversarialTransformation(external=tmp_path / "none").every_batch(3)
    noisy = inject_noise(build("resnet9-w16", classes=3, size=16))
    about = Network(model="resnet9-w16", class_names=("a", "b", "c"), channels=3, size=16, training={}, noise=True)
    save_network(tmp_path / "noisy", noisy, about)
    with pytest.raises(InputError, match="expected an external network without noise on its weights, found noise on"):
        AdversarialTransformation(external=tmp_path / "noisy").every_batch(3)
    with pytest.raises(InputError, match="expected an Linf radius above 0"):
        AdversarialTransformation(budget=Linf(0))


@pytest.fixture(scope="module")
def trained(folders: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A network that knows the two classes, and one trained behind it."""
    root = tmp_path_factory.mktemp("behind")
    first, behind = root / "external.safetensors", root / "behind.safetensors"
    unlearnable.train(folders[0], test=folders[1], out=first, options={"epochs": 2, "batch_size": 8})
    said = in_process(
        *("train", folders[0], "--test", folders[1], "--out", behind, "--epochs", 2, "--batch-size", 8, "--json"),
        *("--transform", "adversarial:steps=2,budget=24/255", "--external", first),
    )
    assert said.returncode == 0, said.stderr
    report = json.loads(said.stdout)
    about = load_network(behind)[1]
    assert about.training["transform"]["budget"] == "Linf 24/255"
    assert report["clean_accuracy"] == 1
    assert (report["gradients"], report["external_gradients"]) == (2 * 40, 2 * 40 * 2)
    assert [path.name for path in sorted(root.iterdir())] == ["behind.safetensors", "external.safetensors"]
    return first, behind


def test_the_panel_asks_everything_and_the_worst_counts(
    trained: tuple[Path, Path], folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    first, behind = trained
    told: list[tuple[int, int]] = []
    options = {"external": first, "baseline": first, "queries": 60, "limit": 6, "budget": Linf.of_255(48)}
    report = panel(behind, folders[1], progress=lambda *now: told.append(now), **options)
    found = {name: spread.mean for name, spread in report.accuracies.items()}
    assert found.keys() == {
        *("clean", "pgd20", "bpda", "unrolled", "transfer-classifier", "transfer-external", "transfer-both"),
        *("reparameterised", "square", "nes", "worst"),
    }
    assert found["worst"] <= min(share for name, share in found.items() if name != "worst")
    assert {name.partition(",")[0] for name in report.baselines} == {"fed plain", "noise", "baseline"}
    assert list(report.sweep.values())[-1] == 0 or "1" in report.sweep
    assert report.external_passes == 2
    assert told[-1][0] == told[-1][1]
    assert len(told) == len(set(told))
    show_panel(report, json=False)
    said = capsys.readouterr().out
    assert f"{100 * found['worst']:6.1f} %           worst" in said
    assert "Training the network took 80 passes and 160 of the external network, in " in said
    assert "Training the baseline took 80 passes, in " in said
    show_panel(report, json=True)
    assert json.loads(capsys.readouterr().out)["accuracies"]["worst"]["mean"] == found["worst"]


def test_the_panel_of_a_random_transformation_draws_several_times(trained, folders: tuple[Path, Path]) -> None:
    first, _ = trained
    data = load(folders[1], size=12, limit=4)
    network = load_network(first)[0]
    kind = Transformation(steps=1, random_start=True)
    panel = adaptive_panel(
        *(network, network, kind, data.images, data.labels),
        budget=Linf.of_255(8),
        queries=10,
        samples=2,
        sweep=False,
    )
    assert {spread.draws for spread in panel.accuracies.values()} == {5}
    assert panel.sweep == {}


def test_a_classifier_with_noise_behind_it_is_asked_as_one_that_answers_at_random(monkeypatch, folders) -> None:
    torch.manual_seed(0)
    external, noisy = build("resnet9-w16", classes=2, size=12), inject_noise(build("resnet9-w16", classes=2, size=12))
    data = load(folders[1], size=12, limit=2)
    kinds: dict[str, list[type]] = {}

    def spy(network: nn.Module, attack: Attack | None, made_on: nn.Module | None = None, **options: Any) -> Any:
        kinds.setdefault(type(network if made_on is None else made_on).__name__, []).append(type(attack))
        return withstood(network, None, **options)

    monkeypatch.setattr("unlearnable.training.adaptive.withstood", spy)
    options = {"budget": Linf.of_255(8), "queries": 1, "sweep": False}
    panel = adaptive_panel(noisy, external, Transformation(steps=1), data.images, data.labels, **options)
    assert {spread.draws for name, spread in panel.accuracies.items()} == {5}
    assert EOTPGD in kinds[type(noisy).__name__]  # on the classifier alone
    assert kinds["Both"] == [EOTPGD]
    assert kinds["Transformed"].count(EOTPGD) == 3  # BPDA, unrolled, and behind mere noise
    assert panel.baselines["fed plain, pgd20"].draws == 5


def test_pruning_goes_by_transformed_pictures(trained, folders: tuple[Path, Path], tmp_path: Path) -> None:
    first, behind = trained
    out = tmp_path / "pruned.safetensors"
    options = {"test": folders[1], "sparsity": 0.5, "out": out}
    with pytest.raises(InputError, match="expected an external network for adversarial-transformation, found none"):
        unlearnable.prune(behind, folders[0], **options)
    with pytest.raises(InputError, match="expected a network behind a transformation, with --external, found one"):
        unlearnable.prune(first, folders[0], external=first, **options)
    assert list(tmp_path.iterdir()) == []
    report = unlearnable.prune(behind, folders[0], external=first, **options)
    wanted, about = load_network(behind)
    prune(wanted, 0.5)
    change = transformation_of(about, first)
    reestimate(wanted, load(folders[0]), recipe_of(about), change=change.every_batch(2))
    found = load_network(out)[0]
    names = [name for name in found.state_dict() if name.endswith("running_mean")]
    assert names
    for name in names:
        torch.testing.assert_close(found.state_dict()[name], wanted.state_dict()[name])
    tests = load(folders[1])
    assert report.clean_accuracy == evaluate(change.before(found), tests.images, tests.labels).share


def test_refusals_of_the_commands(trained, folders: tuple[Path, Path], external: Path, tmp_path: Path) -> None:
    first, behind = trained
    said = in_process("evaluate", first, folders[1], "--panel")
    assert said.returncode == 2
    assert "expected a network with noise or a transformation, found one with neither" in said.stderr
    said = in_process("evaluate", behind, folders[1], "--panel", "--external", first, "--attack", "fgsm")
    assert said.returncode == 2
    assert said.stderr == "unlearnable: expected no --panel with --attack, found both: leave one out\n"
    said = in_process("evaluate", first, folders[1], "--baseline", first)
    assert said.returncode == 2
    assert said.stderr == "unlearnable: expected --panel with --baseline, found none: leave --baseline out\n"
    with pytest.raises(InputError, match="expected a network that is shown pictures as they are, found one behind"):
        unlearnable.evaluate(behind, folders[1])
    with pytest.raises(InputError, match="expected a baseline that is not defended, found one behind a transformation"):
        panel(behind, folders[1], external=first, baseline=behind)
    with pytest.raises(InputError, match="expected the external network that it was trained with, found another"):
        panel(behind, folders[1], external=behind)
    with pytest.raises(InputError, match="expected an external network for adversarial-transformation, found none"):
        panel(behind, folders[1])
    options = {"test": folders[1], "out": tmp_path / "out"}
    with pytest.raises(InputError, match="expected --transform with --external, found none"):
        unlearnable.train(folders[0], external=first, **options)
    with pytest.raises(InputError, match="expected an external network of the same 2 classes, found one of 3 others"):
        unlearnable.train(folders[0], transform="adversarial", external=external, **options)
    with pytest.raises(InputError, match=r"expected adversarial, with options budget, steps.*found 'blur'"):
        unlearnable.train(folders[0], transform="blur", external=external, **options)
    with pytest.raises(InputError, match=r"expected adversarial, with options budget, steps.*found 'speed'"):
        unlearnable.train(folders[0], transform="adversarial:speed=3", external=external, **options)
    assert list(tmp_path.iterdir()) == []


def test_in_the_audit(trained, folders: tuple[Path, Path], tmp_path: Path) -> None:
    protected = tmp_path / "protected"
    for path in folders[0].rglob("*.png"):
        (protected / path.parent.name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(Image.open(path)) // 2 + 60).save(protected / path.parent.name / path.name)
    grid = wanted_grid(None, None, ["erm"], ["adversarial-transformation-2"])
    asked = Audit(
        clean=folders[0],
        protected=[str(protected)],
        test=folders[1],
        out=tmp_path / "run",
        grid=grid,
        seeds=1,
        epochs=1,
        batch_size=8,
        models=["resnet9-w16"],
    )
    with pytest.raises(InputError, match="expected an external network for adversarial-transformation, found none"):
        run_audit(asked)
    rows = run_audit(replace(asked, external=trained[0])).rows
    assert "adversarial-transformation-2" in {row.countermeasure for row in rows}
