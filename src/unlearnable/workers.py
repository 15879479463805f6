"""A pool of worker processes that gives results in order, whatever its size, and outlives its workers.

Workers are started afresh (never forked), so that a script, a notebook or a program full of threads can use them
without a ``__main__`` guard. A worker whose parent is gone, however it went, reads end-of-file and ends.
"""

import contextlib
import os
import socket
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, Generic, Self, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

_BATCH: Final = 32  # tasks sent at a time, at most
_BATCH_SIZE: Final = 2**18  # bytes of pictures sent at a time, unless one alone is larger
_AHEAD: Final = 2  # batches waiting at each worker, so that it never waits for the parent
_WINDOW: Final = 16  # batches a worker that may be under way or done but not yet taken, in all
_SERVE: Final = "import sys; sys.path[:] = {path!r}; from unlearnable.workers import serve; serve({handle})"


@dataclass(frozen=True)
class Lost:
    """In place of the result of a task at which a worker process died, twice: out of memory, most likely."""

    def __str__(self) -> str:
        return "its worker process died twice; is there enough memory?"


def cores() -> int:
    """Count the processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Worker:
    """One process, the connection to it, and the batches it has not answered, oldest first."""

    def __init__(self, function: Callable[..., Any], context: object) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            code = _SERVE.format(path=sys.path, handle=theirs.fileno())
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"},
                process_group=0,  # Ctrl-C is for the parent, which then ends its workers in good order
            )
            self.connection = Connection(ours.detach())
        self.waiting: deque[_Batch[Any]] = deque()
        self.connection.send((function, context))

    def run(self, task: Any) -> Any:
        """Run one task and wait for it; Lost if the process dies over it."""
        try:
            self.connection.send([task])
            failure, results = self.connection.recv()
        except (EOFError, OSError):
            return Lost()
        if failure is not None:
            raise failure
        return results[0]

    def end(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()


class _Batch(Generic[Task]):
    def __init__(self, number: int, tasks: list[Task]) -> None:
        self.number = number
        self.tasks = tasks


class Pool(Generic[Task, Result]):
    """``size`` processes that all run ``function(context, task)``. A context manager; it ends its workers.

    With a size of 0 there are none, and the work is done where the results are asked for.
    """

    def __init__(self, function: Callable[[Any, Task], Result], context: object, size: int) -> None:
        """Start the workers. ``function`` must be importable; ``context`` and tasks are sent by pickle, in memory."""
        self._function, self._context = function, context
        self._workers = [_Worker(function, context) for _ in range(size)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()

    def map(self, tasks: Iterable[Task], size: Callable[[Task], int]) -> Iterator[tuple[Task, Result | Lost]]:
        """Yield each task and its result, in the order of the tasks; :class:`Lost` for one that kills its worker twice.

        ``size``: about how many bytes a task stands for. Tasks are taken as they are needed, never far ahead.
        Raises whatever ``function`` raises.
        """
        if not self._workers:
            yield from ((task, self._function(self._context, task)) for task in tasks)
            return
        batches = _batched(tasks, size)
        done: dict[int, list[tuple[Task, Result | Lost]]] = {}
        following, last, exhausted = 0, 0, False
        while True:
            while not exhausted and last - following < _WINDOW * len(self._workers):
                worker = min(self._workers, key=lambda worker: len(worker.waiting))
                if len(worker.waiting) >= _AHEAD:
                    break
                upcoming = next(batches, None)
                if upcoming is None:
                    exhausted = True
                    break
                last = upcoming.number + 1
                self._give(worker, upcoming)
            while following in done:
                yield from done.pop(following)
                following += 1
            if exhausted and following == last:
                return
            busy = {worker.connection: worker for worker in self._workers if worker.waiting}
            for connection in wait(list(busy)) if busy else ():
                worker = busy[connection]  # type: ignore[index]
                try:
                    failure, results = worker.connection.recv()
                except (EOFError, OSError):
                    self._replace(worker, done)
                    continue
                if failure is not None:
                    raise failure
                batch = worker.waiting.popleft()
                done[batch.number] = list(zip(batch.tasks, results, strict=True))

    def _give(self, worker: _Worker, batch: _Batch[Task]) -> None:
        worker.waiting.append(batch)
        with contextlib.suppress(OSError):  # it died; the end-of-file on its side tells so when next waited for
            worker.connection.send(batch.tasks)

    def _replace(self, worker: _Worker, done: dict[int, list[tuple[Task, Result | Lost]]]) -> None:
        """Put another worker in the place of one that died, after going through what it left, task by task."""
        left = list(worker.waiting)
        worker = self._restarted(worker)
        for batch in left:
            done[batch.number] = []
            for task in batch.tasks:
                for _ in range(2):
                    result = worker.run(task)
                    if not isinstance(result, Lost):
                        break
                    worker = self._restarted(worker)
                done[batch.number].append((task, result))

    def _restarted(self, worker: _Worker) -> _Worker:
        worker.end()
        fresh = _Worker(self._function, self._context)
        self._workers[self._workers.index(worker)] = fresh
        return fresh


def _batched(tasks: Iterable[Task], size: Callable[[Task], int]) -> Iterator[_Batch[Task]]:
    batch: list[Task] = []
    number = total = 0
    for task in tasks:
        if batch and (len(batch) == _BATCH or total + size(task) > _BATCH_SIZE):
            yield _Batch(number, batch)
            number, batch, total = number + 1, [], 0
        batch.append(task)
        total += size(task)
    if batch:
        yield _Batch(number, batch)


def serve(handle: int) -> None:
    """Answer batches until the parent goes away: what a worker process runs."""
    connection = Connection(handle)
    inbox: SimpleQueue[Any] = SimpleQueue()

    def receive() -> None:
        # Always reading, so that parent and worker never wait for each other to take a large message.
        try:
            while True:
                inbox.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)
        except BaseException:  # what was sent cannot be loaded: nothing can be done here
            traceback.print_exc()
            os._exit(1)

    Thread(target=receive, daemon=True).start()
    function, context = inbox.get()
    while True:
        tasks = inbox.get()
        try:
            answer: tuple[Exception | None, list[Any]] = (None, [function(context, task) for task in tasks])
        except Exception as error:  # the parent raises it
            answer = (error, [])
        connection.send(answer)
