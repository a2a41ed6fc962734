"""Named stages of the work: seconds for the report, nvtx ranges for a profiler."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import nvtx

T = TypeVar("T")


class Stages:
    """Adds up the seconds spent in each named stage; a stage inside another counts for itself alone.

    >>> stages = Stages()
    >>> with stages("preprocess"):
    ...     with stages("read"):
    ...         pass
    >>> sorted(stages.seconds)
    ['preprocess', 'read']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        # seconds that stages inside each open stage took
        self._within: list[float] = []

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._within.append(0.0)
        start = time.perf_counter()
        with nvtx.annotate(name, domain="bioreport"):
            try:
                yield
            finally:
                taken = time.perf_counter() - start
                own = taken - self._within.pop()
                self.seconds[name] = self.seconds.get(name, 0.0) + own
                if self._within:
                    self._within[-1] += taken

    def add(self, other: "Stages") -> None:
        """Seconds of stages that ran beside these."""
        for name, seconds in other.seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The items, with the making of each as a stage."""
        source = iter(items)
        while True:
            with self(name):
                try:
                    item = next(source)
                except StopIteration:
                    return
            yield item
