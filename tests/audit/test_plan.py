"""How long an audit will take: measured briefly, however large the networks are."""

import pytest

from tests.audit.small import dataset, protect
from unlearnable.audit import plan as plans
from unlearnable.audit.grid import Attempt, Grid
from unlearnable.audit.plan import plan, work
from unlearnable.audit.run import Bench
from unlearnable.audit.sets import with_tests

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def bench():
    clean = dataset(24)
    return Bench(sets=with_tests(clean, {"cuda": protect(clean)}, dataset(20, seed=1)), epochs=2, device="cpu")


@pytest.mark.parametrize(
    ("recipe", "countermeasure", "passes"),
    [
        ("erm", "none", 1),
        ("erm", "coin", 1),
        ("adversarial", "none", 11),
        ("adversarial:steps=3", "none", 4),
        ("trades", "none", 12 + 1 / 3),  # ten steps away from the clean answers, then both kinds of pictures
        ("linear-probe", "none", 1 / 3),
        ("erm", "ueraser-max", 1 + 5 / 3),
        ("erm", "deconvolution", 11),
    ],
)
def test_passes_through_the_network_are_counted(bench, recipe, countermeasure, passes):
    assert work(bench, recipe, countermeasure) == pytest.approx(passes)


def test_a_large_network_is_only_trained_plainly(bench, monkeypatch):
    trained, built = [], []
    train, network = plans.train, Bench.network
    monkeypatch.setattr(plans, "train", lambda some, **given: trained.append(given["recipe"]) or train(some, **given))
    monkeypatch.setattr(Bench, "network", lambda self, *names: built.append(names) or network(self, *names))
    grid = Grid(models=("resnet9-w32",), attempts=(Attempt("coin", "adversarial"), Attempt("none", "erm")))
    found = plan(bench, grid.cells(["cuda"]), lambda key: None)
    assert {recipe for model, recipe in built if model == "resnet9-w32"} == {"erm"}
    assert {recipe.batch_size for recipe in trained} <= {8, 64}
    clean, attacked, plain = (run.seconds for run in found.runs)
    assert attacked > 5 * plain > 0
    assert clean == plain
