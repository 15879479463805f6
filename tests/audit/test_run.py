"""How runs get done: with a made-up trainer, so that what is around it can be seen."""

import sqlite3
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.audit.small import dataset, protect, sets
from unlearnable.audit import run as module
from unlearnable.audit.grid import PLAIN, Attempt, Cell, Grid
from unlearnable.audit.run import Bench, run_cells
from unlearnable.audit.sets import with_tests
from unlearnable.audit.store import Store, key_of
from unlearnable.errors import InputError
from unlearnable.training.checkpoint import Epoch


class Trainer:
    """Takes down what it is asked to train on; a network of its making knows the colour of one picture."""

    def __init__(self):
        self.calls = []
        self.before = lambda call: None

    def train(self, dataset, **options):
        call = SimpleNamespace(dataset=dataset, **options)
        self.calls.append(call)
        self.before(call)
        options["progress"] and options["progress"](1, 1, None)
        dark = dataset.images[dataset.labels == 0].mean() < dataset.images[dataset.labels == 1].mean()
        return SimpleNamespace(model=dark, history=[Epoch(1, 2.0, 0.5, 3.0)], gradients=7)

    def predictions(self, dark, images, **options):
        return (images.mean((1, 2, 3)) > 127).astype(np.int64) if dark else np.zeros(len(images), np.int64)


@pytest.fixture
def trainer(monkeypatch):
    made = Trainer()
    monkeypatch.setattr(module, "train", made.train)
    monkeypatch.setattr(module, "predictions", made.predictions)
    return made


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "store.sqlite") as opened:
        yield opened


def cell(protection="cuda", fraction=1.0, countermeasure="none", recipe="erm", seed=0, model="resnet9-w16"):
    return Cell(
        protection=protection, fraction=fraction, countermeasure=countermeasure, recipe=recipe, model=model, seed=seed
    )


CLEAN = cell("clean", 0.0)


def test_a_row_tells_how_the_test_pictures_were_named(trainer):
    bench = Bench(sets=sets(), epochs=2)
    clean, protected = bench.run(CLEAN), bench.run(cell())
    assert (clean.accuracy, clean.right, clean.total, clean.confusion) == (1.0, 20, 20, [[10, 0], [0, 10]])
    assert (protected.accuracy, protected.per_class, protected.confusion) == (0.5, [1.0, 0.0], [[10, 0], [10, 0]])
    assert protected.halves == [[5, 10], [5, 10]]
    assert protected.chance == 0.5
    assert protected.history == [{"epoch": 1, "loss": 2.0, "accuracy": 0.5, "seconds": 3.0}]
    assert protected.gradients == 7
    assert 3 <= protected.seconds < 4
    assert protected.key == key_of(bench.spec(cell())) != clean.key
    assert trainer.calls[0].recipe.epochs == 2


def test_a_relabelling_scraper_goes_by_clean_pictures_that_he_knows(trainer, monkeypatch):
    shown = []

    def swapped(dark, images, **options):
        shown.append(images)
        return (images.mean((1, 2, 3)) < 127).astype(np.int64)

    monkeypatch.setattr(module, "predictions", swapped)
    one = sets()
    bench = Bench(sets=one, epochs=2)
    wrong, right = bench.run(cell()), bench.run(cell(countermeasure="relabelling-2"))
    assert (wrong.accuracy, right.accuracy, right.confusion) == (0.0, 1.0, [[10, 0], [0, 10]])
    assert shown[2].shape[0] == 4
    assert all(any(np.array_equal(picture, clean) for clean in one.clean.images) for picture in shown[2])
    bench.run(cell(countermeasure="grayscale+relabelling"))
    assert np.array_equal(shown[-1][..., 0], shown[-1][..., 2])  # he shows them to the network as he shows others
    assert len(shown[-1]) == 20
    few = replace(one, clean=one.clean.select(np.flatnonzero((one.clean.labels == 0) | (np.arange(24) < 4))))
    _, labels = Bench(sets=few).known(3, 0)
    assert labels.tolist() == [0, 0, 0, 1, 1]  # as many of a rare class, or all of them
    bench.run(cell(countermeasure="relabelling-99"))
    assert len(shown[-1]) == len(one.clean)  # all, where there are fewer


def test_what_a_scraper_knows_tells_runs_apart():
    one = sets()
    other = replace(one, clean=replace(one.clean, images=one.clean.images // 2))
    keys = [
        [key_of(Bench(sets=these).spec(cell(countermeasure=name))) for these in (one, other)]
        for name in ("none", "relabelling")
    ]
    assert keys[0][0] == keys[0][1]
    assert keys[1][0] != keys[1][1]


def test_what_is_trained_on_is_what_the_cell_says(trainer):
    one = sets()
    bench = Bench(sets=one)
    bench.run(cell(fraction=0.5, seed=3))
    bench.run(cell("clean subset", fraction=0.5, seed=3))
    bench.run(cell(countermeasure="grayscale"))
    mixed, alone, grey = (call.dataset for call in trainer.calls)
    assert np.array_equal(mixed.images, one.training("cuda", 0.5, 3).images)
    assert len(alone) == 12
    assert np.array_equal(grey.images[..., 0], grey.images[..., 2])
    assert trainer.calls[0].seed == 3


def test_a_countermeasure_of_every_batch_reaches_the_trainer(trainer):
    bench = Bench(sets=sets())
    bench.run(cell(countermeasure="coin"))
    bench.run(cell())
    assert isinstance(trainer.calls[0].change, torch.nn.Module)
    assert trainer.calls[1].change is None


def test_what_is_done_once_is_done_once(trainer, monkeypatch):
    done = []
    whole = module.named

    def named(text):
        made = whole(text)
        object.__setattr__(made, "clean", lambda published, rng: done.append(text) or published.images // 2)
        return made

    monkeypatch.setattr(module, "named", named)
    bench = Bench(sets=sets())
    for recipe in ("erm", "mixup"):
        bench.run(cell(countermeasure="grayscale", recipe=recipe))
    assert done == ["grayscale"]


def test_the_same_leaked_pictures_are_found_whatever_the_part(trainer):
    one = sets()
    published = Bench(sets=one, leaked=4).published(one.training("clean subset", 0.5, 0), 0)
    assert len(published.leaked.index) == 4
    assert np.array_equal(published.leaked.images, published.images[published.leaked.index])
    published = Bench(sets=one, leaked=4).published(one.protected["cuda"], 0)
    assert np.array_equal(255 - published.leaked.images, published.images[published.leaked.index])


@pytest.mark.parametrize(
    ("changes", "cells"),
    [
        ({"epochs": 3}, cell()),
        ({"batch_size": 4}, cell()),
        ({"limit": 20}, cell()),
        ({"precision": "bfloat16"}, cell()),
        ({}, cell(seed=1)),
        ({}, cell(recipe="mixup")),
        ({}, cell(recipe="erm:learning_rate=0.05")),
        ({}, cell(countermeasure="jpeg-20")),
        ({}, cell(model="resnet9-w32")),
        ({}, cell(fraction=0.5)),
        ({}, CLEAN),
        ({"sets": with_tests(dataset(), {"cuda": protect(dataset())}, dataset(22, seed=1))}, cell()),
    ],
)
def test_the_key_tells_apart_whatever_changes_a_run(changes, cells):
    bench = Bench(sets=sets(), precision="float32")
    assert key_of(bench.spec(cell())) != key_of(replace(bench, **changes).spec(cells))


def test_the_key_is_the_same_for_the_same_run_by_other_names():
    one = sets()
    other = with_tests(dataset(), {"second": one.protected["cuda"]}, one.test)
    keys = {
        key_of(bench.spec(some))
        for bench, some in (
            (Bench(sets=one), cell()),
            (Bench(sets=one), cell(recipe="erm:epochs=30")),
            (Bench(sets=one, epochs=30), cell()),
            (Bench(sets=other), cell("second")),
        )
    }
    assert len(keys) == 1


def test_the_key_counts_the_releases_that_decide_numbers(monkeypatch):
    bench = Bench(sets=sets())
    before = key_of(bench.spec(cell()))
    monkeypatch.setattr(module, "version", lambda name: "0")
    assert key_of(bench.spec(cell())) != before


def test_finished_runs_are_never_run_again(trainer, store, tmp_path):
    bench, cells = Bench(sets=sets()), [CLEAN, cell(), cell(seed=1)]
    told = []
    first = run_cells(bench, cells[:2], store, tmp_path, told=told.append)
    second = run_cells(bench, cells, store, tmp_path, told=told.append)
    assert len(trainer.calls) == 3
    assert list(second.rows) == cells
    assert [second.rows[one] for one in cells[:2]] == list(first.rows.values())
    assert [row.seed for row in told] == [0, 0, 1]


def test_rows_come_by_the_names_they_are_asked_for(trainer, store, tmp_path):
    one = sets()
    run_cells(Bench(sets=one), [cell()], store, tmp_path)
    other = Bench(sets=with_tests(dataset(), {"second": one.protected["cuda"]}, one.test))
    asked = cell("second", recipe="erm:epochs=30")
    row = run_cells(other, [asked], store, tmp_path).rows[asked]
    assert (row.protection, row.recipe) == ("second", "erm:epochs=30")
    assert len(trainer.calls) == 1


def test_a_run_that_cannot_be_finished_does_not_stop_the_others(trainer, store, tmp_path):
    def before(call):
        (tmp_path / call.checkpoint.name).write_text("where it stands")
        if call.recipe.augmentations:
            raise FloatingPointError("the loss is nan in epoch 3: lower the learning rate")

    trainer.before = before
    cells = [cell(recipe="mixup"), cell()]
    outcome = run_cells(Bench(sets=sets()), cells, store, tmp_path)
    assert list(outcome.rows) == cells[1:]
    with pytest.raises(
        InputError, match=r"all 2 runs to finish, found 1 that cannot.*cuda, none, mixup.*loss is nan in epoch 3"
    ):
        outcome.all()
    assert list(tmp_path.glob("*.safetensors")) == []


def test_a_run_too_large_for_the_gpu_does_not_stop_the_others(trainer, store, tmp_path):
    def before(call):
        if call.recipe.augmentations:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nAnd more")

    trainer.before = before
    cells = [cell(recipe="mixup"), cell()]
    outcome = run_cells(Bench(sets=sets()), cells, store, tmp_path)
    assert list(outcome.rows) == cells[1:]
    assert outcome.failures == {cells[0]: "CUDA out of memory: choose a smaller --batch-size"}


def test_a_countermeasure_that_changes_nothing_is_told(trainer, store, tmp_path):
    grey = with_tests(dataset(channels=1), {"cuda": protect(dataset(channels=1))}, dataset(20, seed=1, channels=1))
    outcome = run_cells(Bench(sets=grey), [cell(countermeasure="grayscale")], store, tmp_path)
    with pytest.raises(InputError, match="that grayscale leaves every picture as it was"):
        outcome.all()


def test_ctrl_c_gives_the_run_back_and_keeps_where_it_stands(trainer, store, tmp_path):
    def before(call):
        call.checkpoint.write_text("where it stands")
        raise KeyboardInterrupt

    trainer.before = before
    bench = Bench(sets=sets())
    with pytest.raises(KeyboardInterrupt):
        run_cells(bench, [cell()], store, tmp_path)
    key = key_of(bench.spec(cell()))
    assert (tmp_path / f"{key}.safetensors").exists()
    with store.claim(key) as mine:
        assert mine


def test_several_at_once_share_the_runs(trainer, tmp_path):
    cells = Grid(attempts=(PLAIN, Attempt("grayscale", "erm")), seeds=tuple(range(4))).cells(["cuda"])
    trainer.before = lambda call: time.sleep(0.02)
    found = []

    def work():
        with Store(tmp_path / "store.sqlite") as store:
            found.append(run_cells(Bench(sets=sets()), cells, store, tmp_path).rows)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(trainer.calls) == len(cells) == 12
    assert len(found) == 3
    assert all(list(rows) == cells and rows == found[0] for rows in found)


def test_what_a_killed_process_left_is_taken_over(trainer, store, tmp_path, caplog):
    bench = Bench(sets=sets())
    with sqlite3.connect(store.path) as other:
        claim = (key_of(bench.spec(cell())), "gone:1:a", time.time() + 0.3)
        other.execute("INSERT INTO claims VALUES (?, ?, ?)", claim)
    started = time.monotonic()
    assert list(run_cells(bench, [cell()], store, tmp_path).rows) == [cell()]
    assert time.monotonic() - started >= 0.3
    assert caplog.messages == ["waiting for 1 runs that other processes are at work on"]


def test_progress_counts_the_steps_of_what_is_left(trainer, store, tmp_path):
    bench = Bench(sets=sets(), epochs=2, batch_size=10)
    assert [bench.steps(one) for one in (cell(), cell("clean subset", 0.5), cell("cuda", 0.5))] == [6, 4, 6]
    run_cells(bench, [CLEAN], store, tmp_path)
    told = []
    run_cells(bench, [CLEAN, cell(), cell(seed=1)], store, tmp_path, progress=lambda *seen: told.append(seen))
    assert told == [(1, 12), (7, 12)]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (cell(recipe="emr"), "found 'emr': did you mean 'erm'"),
        (cell(recipe="erm:epoch=3"), "options of the recipe erm"),
        (cell(recipe="adversarial:budget=9"), "radius"),
        (cell(countermeasure="grayscale+coim"), "found 'coim': did you mean 'coin'"),
        (cell(model="resnet9-w61"), "found 'resnet9-w61': did you mean"),
        (cell(recipe="finetune"), "expected weights to start finetune from"),
        (cell(countermeasure="paired-regression"), "expected leaked originals for paired-regression"),
    ],
)
def test_what_there_is_not_is_told_with_the_nearest_name(bad, message):
    with pytest.raises(InputError, match=message):
        Bench(sets=sets()).check([cell(), bad])
