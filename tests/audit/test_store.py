"""The store of runs: what it keeps, whom it lets at a run, and what it refuses."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from tests.audit.rows import row
from unlearnable.audit.store import SCHEMA_VERSION, Merged, Store, key_of, read_rows, write_rows
from unlearnable.errors import InputError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "store.sqlite"


def test_what_is_kept_comes_back(path):
    with Store(path) as store:
        assert store.get(row().key) is None
        store.add(row(seed=0))
        store.add(row(seed=1))
    with Store(path) as store:
        assert store.get(row(seed=1).key) == row(seed=1)
        assert store.rows() == sorted([row(seed=0), row(seed=1)], key=lambda one: one.key)


def test_a_finished_run_never_changes(path):
    with Store(path) as store:
        store.add(row(right=30))
        store.add(row(right=31))
        assert store.rows() == [row(right=30)]


def test_people_can_look_into_it(path):
    with Store(path) as store:
        store.add(row())
    found = sqlite3.connect(path).execute("SELECT protection, recipe, seed, accuracy FROM results").fetchall()
    assert found == [("cuda", "erm", 0, 0.3)]


def test_the_key_tells_everything_apart_that_is_named():
    specs = [{"a": 1}, {"a": 2}, {"b": 1}, {"a": "1"}, {"a": 1, "b": None}, {"a": {"b": 1}}]
    assert len({key_of(spec) for spec in specs}) == len(specs)


def test_one_process_at_a_time_has_a_run(path):
    with Store(path) as first, Store(path) as second:
        with first.claim("a") as mine, second.claim("a") as yours, second.claim("b") as other:
            assert (mine, yours, other) == (True, False, True)
        with second.claim("a") as yours:
            assert yours


def test_a_claim_is_given_back_when_the_run_goes_wrong(path):
    with Store(path) as store:
        with pytest.raises(FloatingPointError), store.claim("a"):
            raise FloatingPointError
        with store.claim("a") as mine:
            assert mine


def test_a_finished_run_cannot_be_claimed(path):
    with Store(path) as store:
        store.add(row())
        with store.claim(row().key) as mine:
            assert not mine


def test_a_claim_outlasts_its_lease_while_its_process_lives(path):
    with Store(path, lease=1) as first, Store(path, lease=1) as second, first.claim("a"):
        time.sleep(2.5)
        with second.claim("a") as yours:
            assert not yours


def test_of_many_at_once_one_gets_the_run(path):
    Store(path).close()
    got, together = [], threading.Barrier(8)

    def try_it() -> None:
        with Store(path) as store:
            together.wait()
            with store.claim("a") as mine:
                got.append(mine)
                together.wait()

    threads = [threading.Thread(target=try_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 7 + [True]


@pytest.mark.parametrize("attempt", range(10))
def test_many_can_start_one_store_at_once(path, attempt):
    opened, together = [], threading.Barrier(6)

    def start() -> None:
        together.wait()
        with Store(path) as store:
            opened.append(store.rows())

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened == [[]] * 6


def test_the_claim_of_a_killed_process_lapses(path):
    code = (
        "import sys, time, pathlib; from unlearnable.audit.store import Store\n"
        "with Store(pathlib.Path(sys.argv[1]), lease=0.5) as store, store.claim('a') as mine:\n"
        "    print(mine, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "True\n"
        with Store(path, lease=0.5) as store:
            with store.claim("a") as mine:
                assert not mine
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            time.sleep(0.6)
            with store.claim("a") as mine:
                assert mine


def test_a_process_killed_while_it_writes_leaves_a_whole_store(path):
    code = (
        "import sys, pathlib; from tests.audit.rows import row; from unlearnable.audit.store import Store\n"
        "store = Store(pathlib.Path(sys.argv[1]))\n"
        "for seed in range(10**6): store.add(row(seed=seed)); print(seed, flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True) as process:
        written = [int(process.stdout.readline()) for _ in range(20)]
        os.kill(process.pid, signal.SIGKILL)
    with Store(path) as store:
        found = {one.seed: one for one in store.rows()}
        assert set(written) <= found.keys()
        assert all(one == row(seed=seed) for seed, one in found.items())


def test_a_store_of_another_version_is_refused(path):
    Store(path).close()
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(InputError, match=f"expected a store of version {SCHEMA_VERSION}, found version 2 at"):
        Store(path)


def test_a_database_of_another_kind_is_refused(path):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE friends (name)")
    with pytest.raises(InputError, match="found a database of another kind"):
        Store(path)
    assert sqlite3.connect(path).execute("SELECT name FROM sqlite_schema").fetchall() == [("friends",)]


def test_what_is_no_database_is_refused(path):
    path.write_text("hello " * 1000)
    with pytest.raises(InputError, match="expected a store of an audit, found something else, or a damaged one"):
        Store(path)
    assert path.read_text().startswith("hello")


def test_a_damaged_store_is_told(path):
    with Store(path) as store:
        for seed in range(200):
            store.add(row(seed=seed))
    data = path.read_bytes()
    path.write_bytes(data[:4096] + bytes(len(data) - 4096))
    with pytest.raises(InputError, match="damaged"), Store(path) as store:
        store.rows()


def test_a_place_that_is_not_there_is_told(tmp_path):
    with pytest.raises(InputError, match="which cannot be written: name another folder"):
        Store(tmp_path / "none" / "store.sqlite")


def test_rows_travel_as_lines(path, tmp_path):
    lines = tmp_path / "rows.jsonl"
    write_rows([row(seed=1), row(seed=0)], lines)
    again = tmp_path / "again.jsonl"
    write_rows([row(seed=0), row(seed=1)], again)
    assert lines.read_bytes() == again.read_bytes()
    with Store(path) as store:
        store.add(row(seed=0, right=31))
        assert store.merge(read_rows(lines)) == Merged(added=1, known=1, differing=1)
        assert store.merge(read_rows(lines)) == Merged(added=0, known=2, differing=1)
        assert {one.seed: one.right for one in store.rows()} == {0: 31, 1: 30}
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "expected a row as JSON, found .* line 2"),
        ("3", "found int amiss at .* line 2"),
        (json.dumps({"key": "a"}), "expected a row with the fields of this release, found accuracy, chance"),
        (None, "expected a row whose key is that of its spec"),
    ],
)
def test_lines_that_are_no_rows_are_refused(line, message, tmp_path):
    lines = tmp_path / "rows.jsonl"
    write_rows([row()], lines)
    changed = lines.read_text().replace('"seed": 0', '"seed": 5')
    lines.write_text(lines.read_text() + (changed if line is None else line) + "\n")
    with pytest.raises(InputError, match=message):
        read_rows(lines)


def test_rows_from_nowhere_are_told(tmp_path):
    with pytest.raises(InputError, match="expected rows, one a line"):
        read_rows(tmp_path / "none.jsonl")
