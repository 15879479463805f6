import csv
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from unlearnable.cli.theory import theory
from unlearnable.errors import InputError
from unlearnable.theory import figures, tables
from unlearnable.theory.gaussian_mixture import clean_accuracy


def small(monkeypatch):
    """Two quick figures, one a model, with the real drawing and writing."""
    cuda, latent = figures._CUDA[0], figures._LATENT[1]
    quick = cuda._replace(table=lambda: tables.accuracy_map(norms=(1.0, 2.0), d=6, points=5))
    monkeypatch.setattr(figures, "_CUDA", (quick,))
    risks = latent._replace(table=lambda: tables.mixture_risks(epsilons=(0.5,), k=3, draws=2))
    monkeypatch.setattr(figures, "_LATENT", (risks,))


def run(*arguments):
    import typer

    app = typer.Typer()
    app.command()(theory)
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(("model", "name"), [("cuda", "accuracy_map"), ("latent", "two_gaps")])
def test_a_report_holds_figures_numbers_and_a_page(tmp_path, monkeypatch, model, name):
    small(monkeypatch)
    result = run(model, "--out", str(tmp_path / "out"), "--json")
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed["figures"] == [name]
    folder = tmp_path / "out"
    assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    pixels = np.asarray(Image.open(folder / f"{name}.png").convert("L"))
    assert pixels.shape[1] == 1440
    assert pixels.std() > 10
    page = (folder / "index.html").read_text()
    assert f"{name}.png" in page
    with (folder / f"{name}.csv").open() as file:
        rows = list(csv.DictReader(file))
    stored = json.loads((folder / f"{name}.json").read_text())
    assert len(rows) == len(stored["rows"])
    assert [float(row["ratio" if model == "latent" else "exact"]) for row in rows] == [
        row["ratio" if model == "latent" else "exact"] for row in stored["rows"]
    ]


def test_plain_output_and_a_file_in_the_way(tmp_path, monkeypatch):
    small(monkeypatch)
    assert "1 figures in" in run("latent", "--out", str(tmp_path / "out")).stdout
    (tmp_path / "file").touch()
    assert isinstance(run("latent", "--out", str(tmp_path / "file")).exception, InputError)


def test_the_map_is_what_the_function_says():
    table = tables.accuracy_map(norms=(2.0,), d=7, points=3)
    for low, high, exact in zip(*(table.column(name) for name in ("a_negative", "a_positive", "exact")), strict=True):
        assert exact == pytest.approx(clean_accuracy(tables.flat_mean(7, 2.0), low, high), abs=1e-12)
    assert len(table.rows) == 9


def test_finite_samples_tend_to_the_optimum_and_never_beat_it():
    table = tables.finite_samples(k=4, draws=3)
    for n in (100, 1000):
        worst = table.column("adversarial_ar", n=n)
        assert (worst >= table.column("least_ar", n=n) - 1e-9).all()
    assert table.column("adversarial_ar", n=1000).mean() < table.column("adversarial_ar", n=100).mean()


def test_digits_train_against_the_adversary_and_gain():
    table = tables.digit_risks(latent=(2,), samples=200)
    for rule in ("linear", "quadratic"):
        standard, adversarial = table.column("adversarial", rule=rule)
        assert adversarial < standard
        assert (table.column("standard", rule=rule) <= table.column("adversarial", rule=rule)).all()
    with pytest.raises(InputError, match="the digit 7"):
        tables.digit_risks(np.ones((4, 3)), [1, 1, 2, 2], pair=(1, 7))
