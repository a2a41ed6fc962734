"""Recordings read ahead of the reports, and reports written in batches of like length."""

import random
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bioreport import ahead
from bioreport.ahead import Models, Read, Reader, read_ahead
from bioreport.background import made_ahead
from bioreport.commands.generate import WINDOW, _Writing
from bioreport.errors import InputError
from bioreport.jobs import Job
from bioreport.report import Report
from bioreport.workers import Died, NotStarted


class Counting:
    """A model that notes its batches."""

    room = 99

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def writer(self, modality: str) -> "Counting":
        return self

    def length(self, evidence: list[int], *more: Any, **options: Any) -> int:
        return evidence[0]

    def write(self, evidence: list[list[int]], *more: Any, **options: Any) -> list[Report]:
        if len(evidence) > self.room or max(evidence)[0] > 1000:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.batches.append([one[0] for one in evidence])
        return [Report("f", "eeg", 1.0, {}, [], [], {}) for _ in evidence]


def writing_with(model: Any) -> _Writing:
    options = Namespace(signal="tokens", batch_size=4, seed=None, quiet=True, verbose=False)
    bar: Any = SimpleNamespace(update=lambda: None, set_postfix_str=lambda *a, **b: None)
    return _Writing(options, model, None, "md", 0.0, bar)


def test_a_batch_too_large_for_the_gpu_is_written_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model: Any = Counting()
    model.room = 1
    writing = writing_with(model)
    for length in (1, 2000, 3):
        job = Job((Path(f"{length}.edf"),), "f", target=tmp_path / f"{length}.md")
        writing.take(Read(job, modality="eeg", evidence=[length]))  # type: ignore[list-item]
    writing.finish()
    assert (writing.written, writing.failed) == (2, 1) and model.batches == [[1], [3]]
    assert "2000.edf: needs more memory for its report than the GPU has left" in capsys.readouterr().err


def test_a_reader_that_breaks_is_told_of_its_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> None:
        raise IndexError("Haagse_Harry")

    monkeypatch.setattr(ahead, "open_recording", broken)
    read = Reader(Models())(Job((Path("a.edf"),), "a"))
    assert str(read.error).startswith("a.edf: cannot be read (IndexError); look at the traceback that -v")


def test_batches_are_of_like_length_and_few_recordings_wait(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model: Any = Counting()
    writing = writing_with(model)
    draw = random.Random(0)
    lengths = [draw.randrange(1000) for _ in range(37)]
    for number, length in enumerate(lengths):
        job = Job((Path("f"),), "f", target=tmp_path / f"{number}.md")
        writing.take(Read(job, modality="eeg", evidence=[length]))  # type: ignore[list-item]
        # what waits does not grow with what there is
        assert sum(map(len, writing._waiting.values())) < WINDOW * 4
    writing.finish()
    assert writing.written == 37 and len(list(tmp_path.iterdir())) == 37
    window = WINDOW * 4
    expected = [sorted(lengths[i : i + window]) for i in range(0, 37, window)]
    assert model.batches == [part[i : i + 4] for part in expected for i in range(0, len(part), 4)]


def test_a_process_that_dies_costs_its_recording_and_the_order_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [Job((Path(f"{number}.edf"),), str(number)) for number in range(5)]

    def processes(setup: Any, tasks: Any, workers: int) -> Iterator[tuple[tuple[int, Job], bytes | Died]]:
        assert workers == 3
        work = setup(0)
        for number, job in sorted(tasks, key=lambda task: -task[0]):
            yield (number, job), Died(-9) if number == 1 else work((number, job))

    monkeypatch.setattr(ahead, "run_in_processes", processes)
    reads = list(read_ahead(jobs, Read, workers=3))
    assert [read.job for read in reads] == jobs
    assert [read.error is not None for read in reads] == [False, True, False, False, False]
    assert "1.edf: ended the process that was reading it (killed by SIGKILL)" in str(reads[1].error)


def test_processes_that_do_not_begin_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def processes(*arguments: Any) -> Iterator[Any]:
        raise NotStarted("a worker ended before its first task (killed by SIGKILL)")
        yield

    monkeypatch.setattr(ahead, "run_in_processes", processes)
    with pytest.raises(InputError, match=r"--workers 2: cannot be had \(a worker ended .*; give fewer"):
        list(read_ahead([Job((Path("a"),), "a")] * 3, Read, workers=2))


def test_what_waits_for_a_slow_recording_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_WAITING", 2)
    seen: list[str] = []

    def results() -> Iterator[tuple[int, Read]]:
        for number in (2, 1, 3, 4, 0, 5):
            seen.append(f"read {number}")
            yield number, Read(Job((Path("a"),), str(number)))

    for read in ahead._in_turn(results(), lambda: None):
        seen.append(f"given {read.job.name}")
    # 0 is waited for until three others are there; from then on each is given as it comes
    assert seen == [
        *("read 2", "read 1", "read 3", "given 1", "given 2", "given 3", "read 4", "given 4"),
        *("read 0", "given 0", "read 5", "given 5"),
    ]


def test_reports_do_not_wait_long_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    model: Any = Counting()
    writing = writing_with(model)

    def take(number: int, seconds: float) -> None:
        clock[0] += seconds
        job = Job((Path("f"),), "f", target=tmp_path / f"{number}.md")
        writing.take(Read(job, modality="eeg", evidence=[number]))  # type: ignore[list-item]

    for number in range(3):
        take(number, 12.0)
    # the fourth would come 36 s after the first
    assert model.batches == [[0, 1, 2]]
    take(3, 40.0)
    assert model.batches == [[0, 1, 2], [3]]
    take(4, 0.1)
    clock[0] += 29.0
    writing.hasten()
    assert len(model.batches) == 2
    clock[0] += 2.0
    writing.hasten()
    assert model.batches[2:] == [[4]] and (tmp_path / "4.md").is_file()


def test_a_slow_recording_loses_its_turn_in_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "PATIENCE", 0.0)
    seen: list[str] = []

    def results() -> Iterator[tuple[int, Read] | None]:
        yield 1, Read(Job((Path("a"),), "1"))
        yield None
        yield 0, Read(Job((Path("a"),), "0"))

    for read in ahead._in_turn(results(), lambda: seen.append("idle")):
        seen.append(read.job.name)
    assert seen == ["1", "idle", "0"]

    def slow() -> Iterator[int]:
        time.sleep(0.3)
        yield 1

    found = list(made_ahead(slow(), 2, idle=0.1))
    assert found[0] is None and found[-1] == 1
