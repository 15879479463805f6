"""Which runs of several audits in one folder stand on one page."""

from dataclasses import replace

import pytest

from tests.audit.examples import row
from unlearnable.audit.together import fitting


def run(protection="cuda", countermeasure="none", recipe="erm", *, epochs=12, content=None, finished="12", **spec):
    """A run whose spec is changed; of a set with this content, its name if not given."""
    made = row(protection, float(protection != "clean"), countermeasure, recipe, 0.5, epochs=epochs)
    train = {"protected": None, "clean": "photos"} if protection == "clean" else {"protected": content or protection}
    return replace(made, spec=made.spec | {"train": train} | spec, finished=finished)


ASKED = [run("clean"), run()]


@pytest.mark.parametrize(
    "other",
    [
        run(countermeasure="coin"),
        run("tap"),
        run("tap", recipe="cutout"),
        run(recipe="erm:epochs=60", epochs=60),  # says so itself
        run("clean", "coin"),
        replace(run(), seed=1),
    ],
    ids=lambda one: f"{one.protection}-{one.countermeasure}-{one.recipe}-{one.seed}",
)
def test_what_was_made_alike_is_taken(other):
    assert fitting(ASKED, [other]) == [other]


@pytest.mark.parametrize(
    "other",
    [
        run(countermeasure="coin", epochs=3),
        run(countermeasure="coin", test={"pictures": "others"}),
        run(countermeasure="coin", limit=100),
        run(countermeasure="coin", versions={"torch": "1"}),
        run(countermeasure="coin", device="cuda"),
        run(countermeasure="coin", content="other pictures, under the same name"),
        run("clean", "coin", train={"protected": None, "clean": "other pictures"}),
        run(finished="13"),  # asked for already
    ],
    ids=["epochs", "tests", "limit", "software", "device", "set", "clean", "label"],
)
def test_what_was_made_otherwise_is_not(other):
    assert fitting(ASKED, [other]) == []


def test_a_set_goes_by_the_name_it_was_last_asked_for():
    old = run("an old name", "coin", content="cuda")
    assert fitting(ASKED, [old]) == [replace(old, protection="cuda")]


def test_of_two_alike_the_newest_is_taken():
    old, new = run(countermeasure="coin", finished="11"), run(countermeasure="coin", finished="12")
    assert fitting(ASKED, [old, new]) == [new]


def test_seeds_of_one_way_had_the_same_help():
    first, second = (replace(run(countermeasure="paired-regression", leaked=n), seed=n) for n in (1, 2))
    assert fitting([*ASKED, first], [second]) == []


def test_without_an_audit_the_newest_runs_decide():
    old, new = run("clean", epochs=3, finished="11"), run("clean", finished="12")
    others = [old, run(epochs=3, finished="11"), run(finished="12"), new]
    assert {one.finished for one in fitting([], others)} == {"12"}
