"""Shared fixtures: where the reference numbers and the real recordings lie."""

import json
import math
import os
import sys
from collections.abc import Callable, Generator, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # as many processes as cores: threads beside them would wait for one another
    os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import Tensor

if not torch.cuda.is_available():
    # before any kernel is defined: without a GPU they run in Triton's interpreter
    os.environ["TRITON_INTERPRET"] = "1"

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("BIOREPORT_SHARED", REPOSITORY.parent / "shared"))


def pytest_configure(config: pytest.Config) -> None:
    # pytest-xdist would begin with the files of most tests, and end with one slow test on one core
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that short ones fill up the cores at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    # pytest-cov's own marker, no_cover, stops one of the two tracers of a process of pytest-xdist
    tracer = sys.gettrace()
    if item.get_closest_marker("untraced"):
        sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder that holds `fixtures/` (published numbers) and `data/` (real recordings)."""
    if not (SHARED / "fixtures").is_dir():
        pytest.skip("reference material absent: set BIOREPORT_SHARED to the folder with fixtures/ and data/")
    return SHARED


@pytest.fixture(scope="session")
def reference_file(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Path of a file of published numbers: small ones lie in `tests/fixtures/`, the others in `shared`."""

    def find(name: str) -> Path:
        here = REPOSITORY / "tests" / "fixtures" / name
        return here if here.exists() else request.getfixturevalue("shared") / "fixtures" / name

    return find


@pytest.fixture
def benchmark_module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Import from benchmarks/."""
    monkeypatch.syspath_prepend(REPOSITORY / "benchmarks")
    return import_module


@pytest.fixture
def run_benchmark(
    benchmark_module: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Any]:
    """Run a script of benchmarks/ in this process, from its name and arguments to the JSON it writes."""

    def run(name: str, *arguments: object) -> Any:
        # the name by which a table finds it
        output = tmp_path / f"{name.replace('_', '-')}-2000-01-01.json"
        monkeypatch.setattr(sys, "argv", [f"{name}.py", "-o", str(output), *map(str, arguments)])
        benchmark_module(name).main()
        return json.loads(output.read_text())

    return run


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fresh memory holds NaN (-1 for integers), so that a kernel that reads or leaves it is seen."""

    def poison(make: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Tensor:
            fresh = make(*args, **kwargs)
            if fresh.device.type == "meta":
                return fresh
            return fresh.fill_(math.nan if fresh.is_floating_point() else -1)

        return wrapped

    for owner, name in [(torch, "empty"), (torch, "empty_like"), (torch, "empty_strided")]:
        monkeypatch.setattr(owner, name, poison(getattr(owner, name)))
    for name in ("new_empty", "new_empty_strided"):
        monkeypatch.setattr(Tensor, name, poison(getattr(Tensor, name)))
    yield
