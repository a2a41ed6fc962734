"""Seconds by stage, and a range for the profiler around each."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bioreport import ReportPipeline
from bioreport.stages import Stages

EXAMPLE = Path(__file__).parents[1] / "examples" / "simulated_eeg.edf"


def test_a_stage_inside_another_counts_once() -> None:
    stages = Stages()
    start = time.perf_counter()
    with stages("outer"):
        time.sleep(0.02)
        for _ in range(2):
            with stages("inner"):
                time.sleep(0.03)
    taken = time.perf_counter() - start
    assert 0.06 <= stages.seconds["inner"] < taken - 0.015
    assert 0.02 <= stages.seconds["outer"] < taken - 0.055
    assert sum(stages.seconds.values()) == pytest.approx(taken, abs=0.01)


def test_an_error_inside_ends_the_stages() -> None:
    stages = Stages()
    with pytest.raises(KeyError), stages("outer"), stages("inner"):
        raise KeyError
    assert set(stages.seconds) == {"outer", "inner"}
    with stages("outer"):
        pass


def test_making_each_item_is_a_stage() -> None:
    def slow() -> Iterator[int]:
        for item in range(3):
            time.sleep(0.01)
            yield item

    stages, taken = Stages(), []
    for item in stages.each("read", slow()):
        taken.append(item)
        time.sleep(0.02)
    assert taken == [0, 1, 2]
    assert 0.03 <= stages.seconds["read"] < 0.055


def test_every_stage_of_a_report_is_a_range_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    open_ranges: list[str] = []
    seen: set[str] = set()

    @contextmanager
    def annotate(name: str, domain: str) -> Iterator[None]:
        assert domain == "bioreport"
        seen.add("/".join([*open_ranges, name]))
        open_ranges.append(name)
        yield
        assert open_ranges.pop() == name

    monkeypatch.setattr("nvtx.annotate", annotate)
    report = ReportPipeline.from_pretrained()(EXAMPLE, sections=["SLEEP"])
    assert seen == {
        *("open", "mains", "preprocess", "preprocess/read", "preprocess/measure", "measure"),
        *("encode", "project", "generate", "ground"),
    }
    assert set(report.timings) == {name.split("/")[-1] for name in seen}  # type: ignore[union-attr]
