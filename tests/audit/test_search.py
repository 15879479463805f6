"""The greedy search, over made-up accuracies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearnable.audit.grid import Attempt
from unlearnable.audit.search import Halves, search
from unlearnable.errors import InputError

PARTS = ("coin", "rsk", "jpeg", "grayscale", "blur")


def measured(gains, penalty=0.0, log=None):
    """A world in which every countermeasure adds its gain, less a penalty for each beyond the first."""

    def measure(attempts):
        if log is not None:
            log.extend(attempts)
        answers = []
        for attempt in attempts:
            parts = [] if attempt.countermeasure == "none" else attempt.countermeasure.split("+")
            value = 0.1 + sum(gains.get(part, 0) for part in parts) - penalty * max(0, len(parts) - 1)
            value += 0.01 * (attempt.recipe == "mixup")
            answers.append(Halves(selection=value, report=value - 0.05))
        return answers

    return measure


def test_it_finds_the_composition_of_what_helps():
    found = search(measured({"jpeg": 0.3, "blur": 0.2, "coin": -0.1}, penalty=0.1), PARTS, ["erm"], 30)
    assert found.best.attempt == Attempt("jpeg+blur", "erm")
    assert found.single.attempt == Attempt("jpeg", "erm")
    assert found.best.accuracy == Halves(pytest.approx(0.5), pytest.approx(0.45))


def test_the_choice_is_by_the_selection_half_alone():
    def measure(attempts):
        return [Halves(0.9, 0.1) if one.countermeasure == "rsk" else Halves(0.5, 0.8) for one in attempts]

    found = search(measure, PARTS, ["erm"], 12)
    assert found.best.attempt.countermeasure == "rsk"
    assert found.best.accuracy.report == 0.1


def test_it_stays_with_no_countermeasure_where_none_helps():
    found = search(measured(dict.fromkeys(PARTS, -0.05)), PARTS, ["erm"], 30)
    assert found.best.attempt == Attempt("none", "erm")
    assert found.single.attempt.countermeasure in PARTS


def test_it_keeps_the_recipe_that_did_best():
    found = search(measured({"jpeg": 0.3, "blur": 0.2}), PARTS, ["erm", "mixup"], 40)
    assert found.best.attempt.recipe == "mixup"
    assert found.best.attempt.countermeasure.startswith("jpeg+blur")


def test_the_strongest_partner_is_tried_first():
    log = []
    search(measured({"jpeg": 0.3, "blur": 0.2}, log=log), PARTS, ["erm"], 12)
    assert log[0] == Attempt("none", "erm")
    assert [attempt.countermeasure for attempt in log[1:6]] == list(PARTS)
    assert [attempt.countermeasure for attempt in log[6:8]] == ["jpeg+blur", "blur+jpeg"]


def test_it_spends_what_it_may_before_it_gives_up():
    # Alone, blur is the last of all; together with jpeg it is the only one that helps.
    def measure(attempts):
        worth = {"none": 0.1, "jpeg": 0.5, "jpeg+blur": 0.6}
        return [Halves(worth.get(one.countermeasure, 0.2), 0.0) for one in attempts]

    found = search(measure, PARTS, ["erm"], 20)
    assert found.best.attempt.countermeasure == "jpeg+blur"
    assert len(found.tried) == 1 + 5 + 7 + 6  # no variation of the pair is better: that is the end


def test_it_ends_when_everything_is_in():
    found = search(measured(dict.fromkeys(PARTS, 0.1)), PARTS, ["erm"], 1000)
    assert sorted(found.best.attempt.countermeasure.split("+")) == sorted(PARTS)
    assert len(found.tried) == 1 + 5 + 2 * (4 + 3 + 2 + 1) + (1 + 2 + 3)  # one more at either end, and one less


@pytest.mark.parametrize(
    ("worth", "known"),
    [
        ({("jpeg", "erm"): 0.4, ("rsk+jpeg", "erm"): 0.7}, ()),  # what has to come before what is there
        ({("blur+rsk+jpeg", "erm"): 0.4, ("blur+jpeg", "erm"): 0.7}, ("blur+rsk+jpeg",)),  # what is better left out
        ({("blur+jpeg", "erm"): 0.4, ("blur+jpeg", "mixup"): 0.7}, ()),  # another recipe, with what helps only so
    ],
)
def test_what_is_varied(worth, known):
    def measure(attempts):
        return [Halves(*[worth.get(one, 0.3 if one == ("jpeg", "erm") else 0.2)] * 2) for one in attempts]

    found = search(measure, PARTS, ["erm", "mixup"], 60, known=known)
    assert found.best.attempt == max(worth, key=worth.get)


def test_a_single_countermeasure_found_late_counts_as_one():
    def measure(attempts):
        worth = {"coin+blur": 0.8, "blur": 0.9}  # blur, the last of all, is reached by what is left out of the pair
        return [Halves(*[worth.get(one.countermeasure, 0.3)] * 2) for one in attempts]

    found = search(measure, PARTS, ["erm"], 9, known=["coin+blur"])
    assert found.best.attempt == found.single.attempt == Attempt("blur", "erm")


@given(st.integers(2, 40), st.dictionaries(st.sampled_from(PARTS), st.floats(-0.1, 0.2)), st.sampled_from([0.0, 0.05]))
def test_what_holds_for_any_budget(runs, gains, penalty):
    log = []
    found = search(measured(gains, penalty, log), PARTS, ["erm"], runs)
    assert len(log) == len(set(log)) == len(found.tried) <= runs
    assert found.best.accuracy.selection == max(one.accuracy.selection for one in found.tried)
    assert found.best.accuracy.selection >= found.single.accuracy.selection
    assert search(measured(gains, penalty), PARTS, ["erm"], runs) == found


def test_what_cannot_be_run_is_passed_over():
    world = measured({"jpeg": 0.3, "blur": 0.2, "coin": 0.1})

    def measure(attempts):
        bad = {"rsk", "jpeg+blur"}
        return [None if a.countermeasure in bad else h for a, h in zip(attempts, world(attempts), strict=True)]

    found = search(measure, PARTS, ["erm"], 40)
    assert found.best.attempt == Attempt("coin+blur+jpeg", "erm")
    assert {"rsk", "jpeg+blur"}.isdisjoint(one.attempt.countermeasure for one in found.tried)
    with pytest.raises(InputError, match="expected single countermeasures that can be tried"):
        search(lambda some: [None if a.countermeasure != "none" else Halves(0, 0) for a in some], PARTS, ["erm"], 9)


def test_too_few_runs_are_told():
    with pytest.raises(InputError, match="expected at least 3 runs to search with, found 2"):
        search(measured({}), PARTS, ["erm", "mixup"], 2)


def test_known_compositions_help_where_no_single_one_does():
    def layers(attempts):  # both must be taken away at once
        return [
            Halves(*[0.9 if {"coin", "jpeg"} <= set(one.countermeasure.split("+")) else 0.2] * 2) for one in attempts
        ]

    parts = [*PARTS, "gray-world", "equalize", "resize", "bit-depth", "median-filter"]
    assert search(layers, parts[::-1], ["erm"], 12).best.accuracy.selection == 0.2
    found = search(layers, parts[::-1], ["erm"], 12, known=["coin+jpeg"])
    assert found.best.attempt == Attempt("coin+jpeg", "erm")
    assert found.single.attempt.countermeasure in parts
    assert len(found.tried) <= 12
    # What is known is a place to go on from, too.
    assert any(set(one.attempt.countermeasure.split("+")) > {"coin", "jpeg"} for one in found.tried)
