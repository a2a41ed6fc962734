"""Shared fixtures: where the reference numbers and the real recordings lie."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("BIOREPORT_SHARED", REPOSITORY.parent / "shared"))


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
