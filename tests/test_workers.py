"""Processes for tasks: what is done, what is told of the one that dies, and that none outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bioreport.workers import Died, run_in_processes


def doubling(number: int) -> Callable[[int], tuple[int, int]]:
    def work(task: int) -> tuple[int, int]:
        if task == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if task == 5:
            os._exit(7)
        if task == 100:
            raise ValueError("a hundred is too many")
        return 2 * task, number

    return work


def broken(number: int) -> Callable[[int], int]:
    raise OSError("no such device")


def dying(number: int) -> Callable[[int], int]:
    os._exit(4)


def test_tasks_are_done_and_a_death_costs_its_task_alone() -> None:
    found = dict(run_in_processes(doubling, range(8), 2))
    assert found.keys() == set(range(8))
    assert found[3] == Died(-signal.SIGKILL) and str(found[3]) == "killed by SIGKILL"
    assert found[5] == Died(7) and str(found[5]) == "exit code 7"
    done = {task: answer for task, answer in found.items() if not isinstance(answer, Died)}
    assert {task: answer[0] for task, answer in done.items()} == {
        task: 2 * task for task in (0, 1, 2, 4, 6, 7)
    }
    assert {answer[1] for answer in done.values()} <= {0, 1}


def test_what_is_raised_in_a_worker_is_raised_here() -> None:
    with pytest.raises(ValueError, match="too many") as raised:
        list(run_in_processes(doubling, [1, 100], 1))
    assert "in work" in raised.value.__notes__[0]
    with pytest.raises(OSError, match="no such device"):
        list(run_in_processes(broken, [1], 1))
    with pytest.raises(RuntimeError, match=r"before its first task \(exit code 4\)"):
        list(run_in_processes(dying, [1], 1))
    assert list(run_in_processes(doubling, [], 1)) == []


PARENT = """
import os, sys, time
from bioreport.workers import run_in_processes

def setup(number):
    print(os.getpid(), flush=True)
    return time.sleep

if __name__ == "__main__":
    list(run_in_processes(setup, [0, 0, 60, 60], 2))
"""


def is_running(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at /proc")
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    with subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        parent.kill()
    until = time.monotonic() + 20
    while any(map(is_running, workers)):
        assert time.monotonic() < until, "a worker is still there"
        time.sleep(0.02)


IMPORTING = """
import time
from bioreport.workers import run_in_processes

class Slow:
    def __reduce__(self):
        return time.sleep, (60,)

if __name__ == "__main__":
    print(flush=True)
    list(run_in_processes(Slow(), [0], 1))
"""


def children(process: int) -> list[int]:
    stats = (path.read_text() for path in Path("/proc").glob("[0-9]*/stat") if path.exists())
    fields = [(text.split()[0], text.rpartition(")")[2].split()[1]) for text in stats]
    return [int(child) for child, parent in fields if int(parent) == process]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at /proc")
def test_a_worker_that_still_imports_ends_too(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(IMPORTING)
    with subprocess.Popen([sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        while len(workers := children(parent.pid)) < 2:  # the worker, and what tracks its semaphores
            time.sleep(0.05)
        time.sleep(1.0)
        parent.kill()
    until = time.monotonic() + 30
    while any(map(is_running, workers)):
        assert time.monotonic() < until, "a worker is still there"
        time.sleep(0.02)
