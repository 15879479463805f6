import csv
import functools
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
    monkeypatch.setitem(figures._TOPICS, "cuda", figures._TOPICS["cuda"]._replace(plots=(quick,)))
    risks = latent._replace(table=lambda: tables.mixture_risks(epsilons=(0.5,), k=3, draws=2))
    monkeypatch.setitem(figures._TOPICS, "latent", figures._TOPICS["latent"]._replace(plots=(risks,)))


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
    table = tables.digit_risks(latent=(2,), samples=200, draws=2)
    for rule in ("linear", "quadratic"):
        standard, adversarial = table.column("adversarial", rule=rule)
        assert adversarial < standard
        assert (table.column("standard", rule=rule) <= table.column("adversarial", rule=rule)).all()
    with pytest.raises(InputError, match="the digit 7"):
        tables.digit_risks(np.ones((4, 3)), [1, 1, 2, 2], pair=(1, 7))
    with pytest.raises(InputError, match="4 labels, one an image, found 3"):
        tables.digit_risks(np.ones((4, 3)), [1, 1, 2], pair=(1, 2))
    with pytest.raises(InputError, match="draws of at least 2, found 1"):
        tables.digit_risks(latent=(2,), draws=1)


def fake_mnist(path, names=None):
    """Write 28 x 28 digits as an npz: 3 has a bar on the left, 8 on both sides."""
    rng = np.random.default_rng(0)
    labels = np.repeat([3, 8, 1], [40, 40, 5])
    images = rng.integers(0, 60, (len(labels), 28, 28, 1), dtype=np.uint8)
    images[:, 4:24, 4:8] += 150
    images[labels == 8, 4:24, 20:24] += 150
    np.savez(path, images=images, labels=labels if names is None else np.array(names)[labels % 2])
    return images[..., 0], labels


def test_mnist_is_averaged_down_and_keeps_its_labels(tmp_path):
    images, labels = fake_mnist(tmp_path / "mnist.npz")
    small, read = tables.mnist(tmp_path / "mnist.npz")
    order = np.argsort(labels, kind="stable")
    assert read[np.argsort(read, kind="stable")].tolist() == labels[order].tolist()
    assert small.shape == (85, 196)
    blocks = images.reshape(85, 14, 2, 14, 2).mean(axis=(2, 4)).reshape(85, 196) / 255
    assert small[read == 8] == pytest.approx(blocks[labels == 8], abs=1e-12)
    fake_mnist(tmp_path / "letters.npz", names=["a", "b"])
    with pytest.raises(InputError, match="classes named 0 to 9, found 'a', 'b'"):
        tables.mnist(tmp_path / "letters.npz")


def test_mnist_is_one_figure_more(tmp_path, monkeypatch):
    fake_mnist(tmp_path / "mnist.npz")
    small(monkeypatch)
    # As quick as it gets: the same plot, with few samples and one latent dimension.
    monkeypatch.setattr(tables, "digit_risks", functools.partial(tables.digit_risks, latent=(1,), samples=60, draws=2))
    result = run("latent", "--mnist", str(tmp_path / "mnist.npz"), "--out", str(tmp_path / "out"), "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["figures"] == ["two_gaps", "mnist"]
    with (tmp_path / "out" / "mnist.csv").open() as file:
        assert {row["rule"] for row in csv.DictReader(file)} == {"linear", "quadratic"}
    wrong = run("cuda", "--mnist", str(tmp_path / "mnist.npz"), "--out", str(tmp_path / "other"))
    assert isinstance(wrong.exception, InputError)
    assert not (tmp_path / "other").exists()
    missing = run("latent", "--mnist", str(tmp_path / "nothing.npz"), "--out", str(tmp_path / "other"))
    assert isinstance(missing.exception, InputError)


def test_figures_of_one_table_compute_it_once_and_progress_is_told(tmp_path, monkeypatch):
    calls, told = [], []

    def table():
        calls.append(1)
        return tables.mixture_risks(epsilons=(0.5,), k=3, draws=2)

    plots = tuple(plot._replace(table=table) for plot in figures._LATENT[:2])
    assert [plot.name for plot in plots] == ["mixture_risks", "two_gaps"]
    monkeypatch.setitem(figures._TOPICS, "latent", figures._TOPICS["latent"]._replace(plots=plots))
    figures.report("latent", tmp_path, progress=lambda done, total: told.append((done, total)))
    assert len(calls) == 1
    assert told == [(0, 2), (1, 2)]


def test_every_figure_can_be_drawn_from_a_small_table(tmp_path):
    few = {
        "accuracy_map": lambda: tables.accuracy_map(norms=(1.0, 2.0), d=5, points=4),
        "three_ways": lambda: tables.three_ways(norms=(1.0, 2.0), d=5, samples=200),
        "dimensions": lambda: tables.dimensions(filters=(0.1, 0.5), largest=100),
        "many_classes": lambda: tables.many_classes(d=10, samples=100),
        "budgets": lambda: tables.budgets(d=6, shares=(0.3, 0.6), randoms=4),
        "pictures": lambda: tables.pictures(side=10, pairs=2),
        "mixture_risks": lambda: tables.mixture_risks(epsilons=(0.5,), k=3, draws=2),
        "two_gaps": lambda: tables.mixture_risks(epsilons=(0.5,), k=3, draws=2),
        "finite_samples": lambda: tables.finite_samples(k=3, draws=2),
        "link_risks": lambda: tables.link_risks(epsilons=(0.5,), k=3, draws=2),
        "nonlinear": lambda: tables.nonlinear(k=3, draws=2, samples=50),
        "digits": lambda: tables.digit_risks(latent=(1, 2), samples=100, draws=2),
    }
    plots = [plot for topic in figures._TOPICS.values() for plot in topic.plots]
    assert [plot.name for plot in plots] == list(few)
    for plot in plots:
        figure = plot.draw(few[plot.name]())
        assert figure.get_size_inches()[0] == pytest.approx(7.2)
        axes = [one for one in figure.axes if one.has_data()]
        assert axes
        assert all(np.isfinite([*one.get_xlim(), *one.get_ylim()]).all() for one in axes)


def test_the_page_fits_a_phone_and_follows_a_dark_screen(tmp_path, monkeypatch):
    small(monkeypatch)
    figures.report("cuda", tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "prefers-color-scheme: dark" in page
    for kind in ("pdf", "png", "csv", "json"):
        assert f'href="accuracy_map.{kind}"' in page
