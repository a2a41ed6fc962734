"""Named stages of the work: seconds for the report, nvtx ranges for a profiler."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import nvtx


class Stages:
    """Adds up the seconds spent in each named stage.

    >>> stages = Stages()
    >>> with stages("encode"):
    ...     pass
    >>> list(stages.seconds)
    ['encode']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        with nvtx.annotate(name, domain="bioreport"):
            try:
                yield
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
