"""Without pytest-benchmark the benchmarks run all the same; only its table is missing."""

from collections.abc import Callable
from typing import Any

import pytest


class Once:
    """Runs what pytest-benchmark would repeat."""

    def __init__(self) -> None:
        self.extra_info: dict[str, Any] = {}

    def pedantic(self, function: Callable[[], Any], **options: Any) -> Any:
        return function()


class WithoutBenchmark:
    """Gives the fixture that pytest-benchmark would give."""

    @pytest.fixture
    def benchmark(self) -> Once:
        return Once()


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.hasplugin("benchmark"):
        config.pluginmanager.register(WithoutBenchmark())
