"""Processes that take one task after another; one that dies costs its task alone.

`concurrent.futures` fails everything that is under way when a process dies, and cannot say which task it had.
"""

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_READY = "ready"


@dataclass(frozen=True)
class Died:
    """What is told of a task whose process died over it."""

    exit_code: int | None

    def __str__(self) -> str:
        if self.exit_code is not None and self.exit_code < 0:
            return f"killed by {signal.Signals(-self.exit_code).name}"
        return f"exit code {self.exit_code}"


class NotStarted(RuntimeError):
    """A process died before it was ready for its first task."""


def run_in_processes(
    setup: Callable[[int], Callable[[T], R]], tasks: Iterable[T], workers: int
) -> Iterator[tuple[T, R | Died]]:
    """Do tasks in fresh processes, one task at a time in each.

    Parameters
    ----------
    setup : callable
        Called once in each process with the process's number from 0; returns what does a task. Pickled.
    tasks : iterable
        Taken as processes become free. Pickled.
    workers : int

    Yields
    ------
    tuple of (task, result or Died)
        As they are done, in any order.

    Raises
    ------
    Exception
        What `setup` or a task raised.
    NotStarted
        Where a process dies before it is ready for its first task.
    """
    source = iter(tasks)
    running: list[_Worker[T]] = []
    try:
        running += [_Worker(setup, number) for number in range(workers)]
        while running:
            ready = wait([worker.connection for worker in running])
            for place, worker in reversed(list(enumerate(running))):
                if worker.connection not in ready:
                    continue
                try:
                    kind, answer = worker.connection.recv()
                except (EOFError, ConnectionResetError):
                    died = worker.end()
                    if not worker.ready:
                        raise NotStarted(f"a worker ended before its first task ({died})") from None
                    yield worker.task, died
                    running[place] = _Worker(setup, worker.number)
                    continue
                if kind == "raised":
                    raise answer
                if kind == _READY:
                    worker.ready = True
                else:
                    yield worker.task, answer
                try:
                    task = next(source)
                except StopIteration:
                    running.pop(place).end()
                    continue
                try:
                    worker.start(task)
                except OSError:
                    # it died between two tasks: this one is none the worse for it
                    worker.end()
                    source = chain([task], source)
                    running[place] = _Worker(setup, worker.number)
    finally:
        for worker in running:
            worker.process.terminate()
        for worker in running:
            worker.end()


class _Worker(Generic[T]):
    """A process, this side of the pipe to it, and the task it has."""

    task: T

    def __init__(self, setup: Callable[[int], Callable[[T], Any]], number: int) -> None:
        # spawn: a fork of a process with threads or a GPU may hang
        context = multiprocessing.get_context("spawn")
        self.number, self.ready = number, False
        self.connection, theirs = context.Pipe()
        # in bytes: what it imports is imported under the eye of `_end_with_parent`
        task = (theirs, pickle.dumps(setup), number)
        self.process = context.Process(target=_serve, args=task, daemon=True)
        self.process.start()
        # so that its death closes the pipe
        theirs.close()

    def start(self, task: T) -> None:
        self.task = task
        self.connection.send(task)

    def end(self) -> Died:
        self.connection.close()
        self.process.join()
        return Died(self.process.exitcode)


def _serve(connection: Connection, setup: bytes, number: int) -> None:
    # Ctrl-C reaches the whole group of processes; the first one ends the others
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work = pickle.loads(setup)(number)
        connection.send((_READY, None))
        while True:
            try:
                task = connection.recv()
            except EOFError:
                return
            connection.send(("done", work(task)))
    except BrokenPipeError:
        return
    except Exception as error:
        error.add_note(f"In a worker:\n{traceback.format_exc()}")
        connection.send(("raised", error))


def _end_with_parent() -> None:
    """A parent that was killed leaves no process at work in a folder that the next run takes over."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
