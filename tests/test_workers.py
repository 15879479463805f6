"""The pool: results in order, whatever its size and whatever becomes of its workers."""

import os
import signal

import pytest

from unlearnable.workers import Lost, Pool


def square(context, task):
    return context + task * task


def fragile(context, task):
    if task == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "unlucky" and not os.path.exists(context):
        with open(context, "w"):
            os.kill(os.getpid(), signal.SIGKILL)
    if task == "wrong":
        raise ValueError("wrong")
    return len(task)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_results_come_in_order(size):
    with Pool(square, 7, size) as pool:
        assert list(pool.map(range(200), lambda _: 2**16)) == [(n, 7 + n * n) for n in range(200)]
        assert list(pool.map([], lambda _: 1)) == []
        assert list(pool.map(range(3), lambda _: 2**30)) == [(0, 7), (1, 8), (2, 11)]


def test_messages_larger_than_any_buffer():
    with Pool(max, b"", 2) as pool:
        tasks = [bytes([n]) * 3_000_000 for n in range(12)]
        assert [result for _, result in pool.map(tasks, len)] == tasks


def test_tasks_are_taken_as_they_are_needed():
    taken = []

    def tasks():
        for n in range(100_000):
            taken.append(n)
            yield n

    with Pool(square, 0, 1) as pool:
        results = pool.map(tasks(), lambda _: 2**20)
        for _ in range(5):
            next(results)
        assert len(taken) < 100


def test_a_task_that_kills_its_worker_is_lost_alone(tmp_path):
    tasks = ["a", "bb", "deadly", "ccc", "unlucky", "dddd"]
    with Pool(fragile, str(tmp_path / "mark"), 1) as pool:
        results = dict(pool.map(tasks, lambda _: 1))
    assert isinstance(results.pop("deadly"), Lost)
    assert results == {task: len(task) for task in tasks if task != "deadly"}


def test_what_a_task_raises_is_raised():
    with Pool(fragile, "", 2) as pool, pytest.raises(ValueError, match="wrong"):
        list(pool.map(["a", "wrong"], lambda _: 1))
