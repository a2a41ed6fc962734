"""Items made ahead: the same ones, in their order, and nothing that goes on when nobody asks."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_models import small_bundle

from bioreport.background import done_side_by_side, made_ahead
from bioreport.errors import InputError
from bioreport.evidence import read_evidence
from bioreport.recording import open_recording
from bioreport.simulate import simulate_eeg, write_edf
from bioreport.stages import Stages


def test_items_come_in_order_and_are_made_beside() -> None:
    threads = set()

    def items() -> Iterator[int]:
        for i in range(50):
            threads.add(threading.current_thread().name)
            yield i

    assert list(made_ahead(items())) == list(range(50))
    assert threading.current_thread().name not in threads and len(threads) == 1
    assert list(made_ahead([])) == []


def test_no_more_is_made_than_is_asked_for_and_leaving_ends_it() -> None:
    made = []

    def endless() -> Iterator[int]:
        while True:
            made.append(len(made))
            yield made[-1]

    before = threading.active_count()
    source = made_ahead(endless(), count=2)
    assert next(source) == 0
    time.sleep(0.3)
    # two in the queue, one that waits for its place
    assert len(made) <= 4
    source.close()
    assert threading.active_count() == before


def test_what_is_raised_comes_after_what_was_made() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("no second")

    source = made_ahead(failing())
    assert next(source) == 1
    with pytest.raises(ValueError, match="no second"):
        next(source)


def test_evidence_is_the_same_where_reading_and_encoding_overlap(tmp_path: Path) -> None:
    write_edf(simulate_eeg(5, duration_seconds=400.0), tmp_path / "a.edf")
    bundle, stages = small_bundle(), Stages()
    plain = read_evidence(open_recording(tmp_path / "a.edf"), bundle, statistics=True)
    beside = read_evidence(
        open_recording(tmp_path / "a.edf"), bundle, statistics=True, threads=2, stages=stages
    )
    assert len(plain.tokens) == 40 and beside.tokens.equal(plain.tokens)
    beside.tokens = plain.tokens
    assert beside == plain
    assert {"read", "preprocess", "measure", "encode"} <= set(stages.seconds)


def test_work_is_done_side_by_side_and_comes_in_order() -> None:
    together = threading.Barrier(3, timeout=30)
    names = set()

    def work(item: int) -> int:
        names.add(threading.current_thread().name)
        # none goes on before three are here
        together.wait()
        return item * item

    ready = []
    results = done_side_by_side(work, range(12), 3, lambda: ready.append(None))
    assert list(results) == [i * i for i in range(12)]
    assert len(names) == len(ready) == 3 and threading.current_thread().name not in names
    assert list(done_side_by_side(lambda i: i + 1, [1, 2], 0)) == [2, 3]
    assert list(done_side_by_side(work, [], 2)) == []


def test_no_more_work_is_taken_than_a_few_items_a_thread() -> None:
    asked = []

    def items() -> Iterator[int]:
        for i in range(100):
            asked.append(i)
            yield i

    before = threading.active_count()
    results = done_side_by_side(lambda i: i, items(), 2)
    assert [next(results) for _ in range(10)] == list(range(10))
    assert len(asked) <= 10 + 2 * 2
    results.close()
    assert threading.active_count() == before


def test_what_work_raises_comes_in_its_place() -> None:
    results = done_side_by_side(lambda i: 1 // i, [1, 0, 1], 2)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_thread_is_a_bounded_number_of_items_ahead_and_ends() -> None:
    made: list[int] = []
    ended: list[bool] = []

    def items() -> Iterator[int]:
        try:
            for number in range(100):
                made.append(number)
                yield number
        finally:
            ended.append(True)

    source = made_ahead(items(), 3)
    assert next(source) == 0
    time.sleep(0.3)
    assert len(made) <= 6
    source.close()
    assert ended and len(made) <= 6
    assert list(made_ahead(iter(range(9)), 2)) == list(range(9))

    def failing() -> Iterator[int]:
        yield 1
        raise InputError("a", "is broken", "mend it")

    with pytest.raises(InputError, match="is broken"):
        list(made_ahead(failing(), 2))
