"""A whole audit, with real training on small pictures."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.audit.small import dataset, folders, protect, write
from unlearnable import Audit, plan_audit, run_audit
from unlearnable.audit import api
from unlearnable.audit.api import wanted_grid
from unlearnable.audit.grid import Attempt, Grid
from unlearnable.audit.presets import PRESETS, preset
from unlearnable.audit.results import read
from unlearnable.audit.store import Store, read_rows
from unlearnable.countermeasures import named
from unlearnable.errors import InputError

pytestmark = pytest.mark.usefixtures("one_thread")

GRID = Grid(attempts=(Attempt("none", "erm"), Attempt("grayscale", "erm")), epochs=2, batch_size=8)


def asked(where, **options):
    places = folders(where)
    usual = {
        "clean": places["clean"],
        "protected": [f"cuda={places['protected']}"],
        "test": places["test"],
        "out": where / "run",
        "grid": GRID,
        "device": "cpu",
    }
    return Audit(**usual | options)


def test_the_whole_way(tmp_path):
    audit = asked(tmp_path, fractions=(0.5,), epochs=6, seeds=2)
    told = []
    report = run_audit(audit, command="unlearnable audit", told=told.append)
    names = [(row.protection, row.fraction, row.countermeasure, row.seed) for row in report.rows]
    part = [(n, f, c) for n, f in (("cuda", 0.5), ("clean subset", 0.5)) for c in ("none", "grayscale")]
    each = [("clean", 0.0, "none"), ("cuda", 1.0, "none"), ("cuda", 1.0, "grayscale"), *part]
    assert names == [(*one, seed) for seed in (0, 1) for one in each]
    assert sorted(row.key for row in told) == sorted(row.key for row in report.rows)
    # Dark and bright are easily learned, and the protected set teaches them the wrong way around.
    assert report.worst.verdict == "protected"
    assert (report.worst.clean_accuracy, report.worst.seeds, report.worst.chance) == (1.0, 2, 0.5)
    assert [verdict.fraction for verdict in report.verdicts] == [1.0, 0.5]
    assert report.clean_needed["cuda"].mixes[0].clean_pictures == 12
    summary = json.loads(json.dumps(report.summary(), allow_nan=False))
    assert {"verdict", "learnability", "interval", "broken_by", "clean_accuracy", "chance", "rows"} <= summary.keys()
    assert {"protection", "fraction", "countermeasure", "recipe", "model", "seed", "accuracy"} <= summary["rows"][
        0
    ].keys()
    assert summary["broken_by"] is None
    assert summary["strongest"].keys() == {"countermeasure", "recipe", "model"}

    run = tmp_path / "run"
    assert read_rows(run / "rows.jsonl") == sorted(report.rows, key=lambda row: row.key)
    spec = json.loads((run / "spec.json").read_text())
    assert [one["key"] for one in spec["cells"]] == [row.key for row in report.rows]
    assert (spec["command"], spec["class_names"], spec["shape"]) == ("unlearnable audit", ["cat", "dog"], [12, 12, 3])
    assert spec["sets"]["protected"]["cuda"]["pictures"] == 24
    assert np.load(run / "pictures.npz")["names"].tolist() == ["cuda"]
    assert list((run / "checkpoints").iterdir()) == []
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints",
        "pictures.npz",
        "rows.jsonl",
        "spec.json",
        "store.sqlite",
    ]


def test_a_second_audit_trains_nothing_and_says_the_same(tmp_path, monkeypatch):
    audit = asked(tmp_path)
    first = run_audit(audit)
    monkeypatch.setattr("unlearnable.audit.run.train", None)
    second = run_audit(audit)
    assert (first.rows, first.verdicts) == (second.rows, second.verdicts)
    (tmp_path / "run" / "store.sqlite").unlink()  # the lines alone are enough
    assert run_audit(audit).rows == first.rows


def test_same_seed_same_numbers(tmp_path):
    first, second = (run_audit(asked(tmp_path / name, seeds=1)) for name in "ab")
    assert [(row.key, row.right, row.confusion) for row in first.rows] == [
        (row.key, row.right, row.confusion) for row in second.rows
    ]


def test_a_search_reports_by_the_half_that_it_did_not_choose_by(tmp_path, monkeypatch):
    monkeypatch.setattr(api, "_parts", lambda bench: ["grayscale", "jpeg", "gray-world"])
    report = run_audit(asked(tmp_path, search=7, seeds=2, epochs=1))
    found = report.searches["cuda"]
    assert len(found.tried.tried) <= 7
    rows = {(row.protection, row.countermeasure, row.seed): row for row in report.rows}
    for one in (found.best, found.single):
        halves = [rows["cuda", one.attempt.countermeasure, seed].halves[1] for seed in (0, 1)]
        assert one.accuracy == pytest.approx(np.mean([right / total for right, total in halves]))
        assert one.interval[0] <= one.accuracy <= one.interval[1]
    assert report.summary()["search"]["cuda"]["best"].keys() == {"countermeasure", "recipe", "accuracy", "interval"}
    spec = json.loads((tmp_path / "run" / "spec.json").read_text())
    assert len(spec["cells"]) == len(report.rows)


def test_a_plan_runs_nothing_and_knows_what_is_finished(tmp_path):
    audit = asked(tmp_path)
    plan = plan_audit(audit)
    assert [run.finished for run in plan.runs] == [False] * 3
    assert plan.seconds > 0
    assert not (tmp_path / "run").exists()
    run_audit(audit)
    plan = plan_audit(asked(tmp_path, seeds=2))
    assert [run.finished for run in plan.runs] == [True] * 3 + [False] * 3
    assert plan.seconds == pytest.approx(sum(run.seconds for run in plan.runs[3:]))
    assert len(plan.summary()["cells"]) == 6


def test_grey_pictures_are_spared_what_does_nothing_to_them(tmp_path):
    clean = dataset(channels=1)
    places = {"clean": clean, "protected": protect(clean), "test": dataset(20, seed=1, channels=1)}
    clean, protected, test = (write(tmp_path / name, one) for name, one in places.items())
    audit = Audit(clean=clean, protected=[str(protected)], test=test, out=tmp_path / "run", epochs=1, device="cpu")
    assert "grayscale+jpeg" in {attempt.countermeasure for attempt in audit.wanted().attempts}
    assert {row.countermeasure for row in run_audit(audit).rows} == {"none", "coin", "jpeg"}


def killed(where, audit_options, rows):
    """Start an audit in a process of its own, and kill it once it has this many rows and is at work on another."""
    code = (
        "import sys; from pathlib import Path; from tests.audit.test_api import asked\n"
        "from unlearnable.audit import store\n"
        "from unlearnable import run_audit; import torch; torch.set_num_threads(1); store.LEASE = 0.5\n"
        f"run_audit(asked(Path(sys.argv[1]), **{audit_options!r}))"
    )
    store = where / "run" / "store.sqlite"
    with subprocess.Popen([sys.executable, "-c", code, where]) as process:
        while process.poll() is None:
            time.sleep(0.02)
            if store.exists() and store.stat().st_size:
                with sqlite3.connect(store, timeout=30) as database:
                    query = "SELECT (SELECT count(*) FROM runs), (SELECT count(*) FROM claims)"
                    with_tables = database.execute("SELECT 1 FROM sqlite_schema").fetchone()
                    if with_tables and database.execute(query).fetchone() >= (rows, 1):
                        os.kill(process.pid, signal.SIGKILL)
    return process.returncode


def test_killed_in_the_middle_it_goes_on_to_the_same_end(tmp_path, monkeypatch):
    options = {"seeds": 2, "epochs": 4}
    assert killed(tmp_path / "a", options, rows=2) == -signal.SIGKILL
    with Store(tmp_path / "a" / "run" / "store.sqlite") as store:
        kept = {row.key: row for row in store.rows()}
    assert 2 <= len(kept) < 6
    monkeypatch.setattr("unlearnable.audit.store.LEASE", 0.5)
    report = run_audit(asked(tmp_path / "a", **options))
    assert all(row == kept[row.key] for row in report.rows if row.key in kept)
    whole = run_audit(asked(tmp_path / "b", **options))
    assert [(row.key, row.right) for row in report.rows] == [(row.key, row.right) for row in whole.rows]
    assert report.verdicts == whole.verdicts


def test_killed_before_anything_was_written_it_starts_again(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "store.sqlite").touch()
    assert len(run_audit(asked(tmp_path)).rows) == 3


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letters.txt").write_text("mine")
    with pytest.raises(InputError, match=r"expected a new folder, or an earlier audit, found 'letters.txt' in"):
        run_audit(asked(tmp_path))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["letters.txt"]


def test_lines_that_are_no_rows_are_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "rows.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="expected a row with the fields"):
        run_audit(asked(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protected": "cuda"}, r"expected a list of protected sets, found 'cuda': write \['cuda'\]"),
        ({"preset": "quick"}, "expected either a preset or a grid, found both"),
        ({"grid": None, "preset": "qick"}, "found 'qick': did you mean 'quick'"),
        ({"grid": None, "preset": "x"}, "choose one of quick, standard, full"),
        ({"seeds": 0}, "expected seeds of 1 or more, found 0"),
        ({"seed": -1}, "expected seed of 0 or more"),
        ({"search": -1}, "expected search of 0 or more"),
        ({"epochs": 0}, "expected epochs of 1 or more, found 0"),
        ({"fractions": (2.0,)}, "expected fractions above 0"),
        ({"models": ("resnet9-w61",)}, "did you mean 'resnet9-w"),
        ({"search": 1}, "expected at least 2 runs to search with"),
        ({"search": 1, "grid": None, "preset": "quick"}, "at least 2 runs"),  # plain training
        ({"search": 2, "grid": None, "preset": "standard"}, "at least 3 runs"),  # adversarial training, too
    ],
)
def test_bad_options_are_told(options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        run_audit(asked(tmp_path, **options))


def test_wrong_names_are_told_before_pictures_are_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(api, "load_sets", None)
    for attempt, near in ((Attempt("coim", "erm"), "coin"), (Attempt("none", "ern"), "erm")):
        with pytest.raises(InputError, match=f"did you mean '{near}'"):
            run_audit(asked(tmp_path, grid=Grid(attempts=(attempt,))))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_try_only_what_there_is_and_have_their_clean_rows(name):
    grid = preset(name)
    cells = grid.cells(["cuda"])
    assert len(set(cells)) == len(cells)
    for text in {cell.countermeasure for cell in cells}:
        named(text)
    clean = {
        (cell.model, cell.seed) for cell in cells if cell.protection == "clean" and cell.way[:2] == ("none", "erm")
    }
    assert clean == {(cell.model, cell.seed) for cell in cells}
    if name != "quick":
        ways = {cell.way for cell in cells if cell.protection == "clean"}
        assert {cell.way for cell in cells if cell.protection == "cuda" and cell.fraction == 1} <= ways
        # The strongest that were measured: on CUDA (docs/results/audit.md), and on layers (docs/stack.md).
        strongest = {"rsk", "coin", "coin+jpeg", "grayscale+coin+jpeg", "equalize+coin+jpeg"}
        strongest |= {"grayscale+equalize+coin+jpeg", "equalize", "ueraser"}
        assert strongest <= {way.countermeasure for way in ways}
        assert "adversarial:budget=4/255" in {way.recipe for way in ways}


def test_one_thing_says_what_to_try(tmp_path):
    (tmp_path / "grid.yaml").write_text("seeds: 2")
    assert wanted_grid(None, None, (), ()) is None
    assert wanted_grid("quick", None, (), ()) is None
    assert wanted_grid(None, tmp_path / "grid.yaml", (), ()).seeds == (0, 1)
    assert wanted_grid(None, None, ("mixup",), ("coin",)).attempts == (Attempt("coin", "mixup"),)
    for several in (("quick", tmp_path / "grid.yaml", (), ()), ("quick", None, ("erm",), ())):
        with pytest.raises(InputError, match="expected one of --preset, --grid, or --recipe"):
            wanted_grid(*several)


def test_seeds_start_where_they_are_told_to(tmp_path):
    assert asked(tmp_path / "a").wanted().seeds == (0,)
    assert asked(tmp_path / "b", seeds=3, seed=5).wanted().seeds == (5, 6, 7)
    assert asked(tmp_path / "c", seed=5).wanted().seeds == (5,)


def test_a_report_is_on_all_audits_of_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(api, "_parts", lambda bench: ["grayscale", "jpeg", "bit-depth"])
    options = {"epochs": 1, "models": ("resnet9-w16",)}
    run_audit(asked(tmp_path, search=6, **options), command="first")
    blur = Grid(attempts=(Attempt("blur", "erm"),), batch_size=8)
    run_audit(asked(tmp_path, grid=blur, **options), command="second")
    run_audit(asked(tmp_path, grid=blur, **options | {"epochs": 2}), command="third")
    run_audit(asked(tmp_path, grid=blur, **options), command="second")  # again: nothing new
    found = read(tmp_path / "run")
    assert found.commands == ("first", "third", "second")
    tried = {row.countermeasure for row in found.rows if row.protection == "cuda"}
    winners = {one.countermeasure for one in (found.searches["cuda"].best, found.searches["cuda"].single)}
    assert tried == {"none", "grayscale", "blur"} | winners
    assert {row.spec["recipe"]["epochs"] for row in found.rows} == {1}
    assert (found.missing, found.left_out) == (0, 2)


def test_started_again_an_audit_keeps_what_its_search_has_found(tmp_path, monkeypatch):
    monkeypatch.setattr(api, "_parts", lambda bench: ["grayscale", "jpeg"])
    audit = asked(tmp_path, search=3, epochs=1)
    run_audit(audit)
    before = (tmp_path / "run" / "spec.json").read_text()
    monkeypatch.setattr(api, "search", None)  # interrupted there
    with pytest.raises(TypeError):
        run_audit(audit)
    assert (tmp_path / "run" / "spec.json").read_text() == before
