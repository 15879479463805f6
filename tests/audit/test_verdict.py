"""The verdict: figures from rows."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.audit.rows import row
from unlearnable.audit.verdict import Mix, Way, chance_of, clean_needed, interval, judge, learnability, weakest, word
from unlearnable.errors import InputError

COUNTS = st.integers(0, 1000)


def clean(right: int = 90, **words: object):
    return row("clean", right, **words)


def test_the_worked_example():
    verdict = judge([clean(), row("cuda", 20), row("cuda", 50, countermeasure="coin+jpeg")], "cuda")
    assert verdict.learnability == pytest.approx(0.5)
    assert (verdict.verdict, verdict.seeds, verdict.fraction) == ("weakened", 1, 1.0)
    assert verdict.strongest == verdict.broken_by == Way("coin+jpeg", "erm", "resnet9-w16")
    assert (verdict.accuracy, verdict.clean_accuracy, verdict.chance) == (0.5, 0.9, 0.1)


def test_nothing_broke_what_is_protected():
    verdict = judge([clean(), row("cuda", 20)], "cuda")
    assert (verdict.verdict, verdict.broken_by) == ("protected", None)
    assert verdict.strongest == Way("none", "erm", "resnet9-w16")


@pytest.mark.parametrize(
    ("right", "called"),
    [
        (0, "protected"),
        (30, "protected"),
        (31, "weakened"),
        (58, "weakened"),
        (59, "not protected"),
        (99, "not protected"),
    ],
)
def test_the_borders_between_the_words(right, called):
    # (right - 10) / 80: 0.25 at 30, 0.6 at 58
    assert judge([clean(), row("cuda", right)], "cuda").verdict == called


def test_an_interval_over_a_border_is_in_doubt():
    def doubt(right: int, total: int = 100):
        return judge([clean(total * 9 // 10, total=total), row("cuda", right, total=total)], "cuda").doubt

    assert doubt(30) == ("protected", "weakened")
    assert doubt(58) == ("weakened", "not protected")
    assert doubt(5800, 10_000) == ("weakened", "not protected")
    assert doubt(15) is doubt(8000, 10_000) is None
    assert judge([clean(10), row("cuda", 50)], "cuda").doubt is None  # undecided


def test_the_best_mean_counts_not_the_best_run():
    lucky = [row("cuda", right, seed=seed, countermeasure="coin") for seed, right in enumerate((80, 10))]
    steady = [row("cuda", 50, seed=seed, countermeasure="jpeg") for seed in range(2)]
    verdict = judge([clean(), *lucky, *steady], "cuda")
    assert verdict.strongest.countermeasure == "jpeg"


def test_the_clean_accuracy_is_that_of_plain_training_of_the_best_model():
    rows = [
        clean(70, model="small"),
        *(clean(right, model="large", seed=seed) for seed, right in enumerate((88, 92))),
        clean(95, model="large", countermeasure="jpeg"),
        clean(96, model="large", recipe="cutout"),
    ]
    assert judge([*rows, row("cuda")], "cuda").clean_accuracy == pytest.approx(0.9)


def test_only_the_sets_own_rows_of_that_fraction_count():
    rows = [
        clean(),
        row("cuda", 20),
        row("sem", 60),
        row("cuda", 85, fraction=0.8),
        row("clean subset", 84, fraction=0.8),
    ]
    assert judge(rows, "cuda").accuracy == 0.2
    assert judge(rows, "cuda", 0.8).accuracy == 0.85
    assert weakest([judge(rows, "cuda"), judge(rows, "sem")]).protection == "sem"


def test_the_interval_over_seeds_is_students():
    rights = [20, 26, 35]
    rows = [clean(), *(row("cuda", right, seed=seed) for seed, right in enumerate(rights))]
    learned = (np.array(rights) / 100 - 0.1) / 0.8
    wanted = stats.t.interval(0.95, 2, learned.mean(), learned.std(ddof=1) / math.sqrt(3))
    assert judge(rows, "cuda").interval == pytest.approx(wanted)
    assert interval(rights, [100] * 3) == pytest.approx(
        stats.t.interval(0.95, 2, 0.27, np.std(rights, ddof=1) / 100 / 3**0.5)
    )


def test_seeds_that_happen_to_agree_do_not_make_for_certainty():
    one = judge([clean(), row("cuda", 42)], "cuda").interval
    several = [clean(seed=seed) for seed in range(3)] + [row("cuda", 42, seed=seed) for seed in range(3)]
    assert judge(several, "cuda").interval == pytest.approx(one)
    wilson = stats.binomtest(42, 100).proportion_ci(method="wilson")
    assert interval([42] * 3, [100] * 3) == pytest.approx((wilson.low, wilson.high))


def test_the_interval_of_one_seed_covers():
    # Both accuracies drawn anew from the same chances: the true learnability lies inside at least as often as promised.
    rng = np.random.default_rng(0)
    inside = 0
    for right, base in zip(rng.binomial(500, 0.3, 400), rng.binomial(500, 0.7, 400), strict=True):
        low, high = judge([clean(int(base), total=500), row("cuda", int(right), total=500)], "cuda").interval
        inside += low <= (0.3 - 0.1) / (0.7 - 0.1) <= high
    assert inside >= 0.95 * 400


def test_with_many_clean_runs_the_interval_of_one_seed_is_wilsons():
    low, high = judge([clean(9 * 10**8, total=10**9), row("cuda", 30)], "cuda").interval
    wilson = stats.binomtest(30, 100).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx(((wilson.low - 0.1) / 0.8, (wilson.high - 0.1) / 0.8), abs=1e-3)
    assert interval([30], [100]) == pytest.approx((wilson.low, wilson.high))


@pytest.mark.parametrize("right", [3, 10, 15])
def test_where_clean_pictures_teach_nothing_there_is_no_verdict(right):
    verdict = judge([clean(right), row("cuda", 12)], "cuda")
    assert (verdict.verdict, verdict.learnability, verdict.interval, verdict.broken_by) == (
        "undecided",
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("cuda")], "expected a clean row"),
        ([clean(countermeasure="jpeg"), row("cuda")], "expected a clean row"),
        ([clean()], "found none of 'cuda' at fraction 1"),
        ([clean(), row("cuda", fraction=0.5)], "found none of 'cuda' at fraction 1"),
    ],
)
def test_rows_that_are_missing_are_told(rows, message):
    with pytest.raises(InputError, match=message):
        judge(rows, "cuda")


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4), COUNTS), min_size=1, max_size=12),
    COUNTS,
    st.randoms(),
)
def test_what_holds_for_any_rows(runs, base, shuffler: random.Random):
    unique = {(name, seed): right for name, seed, right in runs}
    rows = [clean(base, total=1000)]
    rows += [row("cuda", r, total=1000, countermeasure=name, seed=seed) for (name, seed), r in unique.items()]
    verdict = judge(rows, "cuda")
    shuffler.shuffle(rows)
    assert judge(rows, "cuda").strongest == verdict.strongest
    means = [np.mean([r for (n, _), r in unique.items() if n == name]) / 1000 for name in {n for n, _ in unique}]
    assert verdict.accuracy == pytest.approx(max(means))
    if verdict.learnability is None:
        assert stats.binomtest(base, 1000).proportion_ci(method="wilson").low <= 0.1
        return
    low, high = verdict.interval
    assert low <= verdict.learnability <= high
    assert verdict.verdict == word(verdict.learnability)
    assert verdict.learnability == pytest.approx((max(means) - 0.1) / (base / 1000 - 0.1))
    better = judge([*rows, row("cuda", 1000, total=1000, countermeasure="d")], "cuda")
    assert better.learnability >= verdict.learnability


@given(st.floats(0, 1), st.floats(0.2, 1), st.floats(0, 0.19))
def test_learnability_is_zero_at_chance_one_at_clean_and_linear_between(accuracy, base, chance):
    assert learnability(chance, base, chance) == 0
    assert learnability(base, base, chance) == 1
    assert chance + learnability(accuracy, base, chance) * (base - chance) == pytest.approx(accuracy)


@given(st.lists(st.integers(0, 50), min_size=1).filter(any))
def test_chance_is_the_best_constant_answer(counts):
    answers = np.repeat(np.arange(len(counts)), counts)
    assert chance_of(counts) == pytest.approx(max((answers == label).mean() for label in range(len(counts))))


def partial():
    # The CUDA paper's table 5, plain training: fraction, mixed, clean subset only.
    table = [(0.2, 9328, 9375), (0.4, 9134, 9256), (0.6, 8991, 8977), (0.8, 8561, 8430)]
    rows = [clean(9466, total=10000), row("cuda", 1848, total=10000)]
    for fraction, mixed, alone in table:
        rows += [
            row("cuda", mixed, fraction=fraction, total=10000),
            row("clean subset", alone, fraction=fraction, total=10000),
        ]
    return rows


def test_clean_needed_reads_the_papers_table():
    found = clean_needed(partial(), "cuda", 50_000)
    assert found.mixes[0] == Mix(fraction=0.8, clean_pictures=10_000, mixed=0.8561, alone=0.8430)
    assert [mix.fraction for mix in found.mixes] == [0.8, 0.6, 0.4, 0.2]
    assert found.better_without == 30_000  # at 40 % protected the clean part alone is better
    # 18.48 % lies on the line from chance (10 %) without a picture to 84.30 % with 10,000
    assert found.enough == math.ceil(10_000 * (18.48 - 10) / (84.30 - 10))


def test_clean_needed_takes_the_best_way_at_each_fraction():
    rows = [*partial(), row("cuda", 9000, fraction=0.8, countermeasure="coin", total=10000)]
    assert clean_needed(rows, "cuda", 50_000).mixes[0].mixed == 0.9


def test_what_was_not_measured_is_not_told():
    assert clean_needed([clean(), row("cuda")], "cuda", 100) is None
    assert clean_needed([one for one in partial() if one.protection != "clean subset"], "cuda", 100) is None


@given(st.lists(COUNTS, min_size=1, max_size=4), COUNTS, COUNTS)
def test_enough_is_the_first_place_where_the_lines_are_high_enough(alone, whole, base):
    fractions = [0.8, 0.6, 0.4, 0.2][: len(alone)]
    rows = [clean(base, total=1000), row("cuda", whole, total=1000)]
    for fraction, right in zip(fractions, alone, strict=True):
        rows += [row(name, right, fraction=fraction, total=1000) for name in ("cuda", "clean subset")]
    places = [0, *(round(1000 * (1 - f)) for f in fractions), 1000]
    line = np.interp(np.arange(1001), places, [0.1, *(right / 1000 for right in alone), base / 1000])
    high = np.flatnonzero(line >= whole / 1000 - 1e-12)
    assert clean_needed(rows, "cuda", 1000).enough == (high[0] if len(high) else None)
