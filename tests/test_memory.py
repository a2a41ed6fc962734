"""Peak memory does not grow with the recording (small scale; `benchmarks/memory.py` goes to 100,000 s)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.slow
@pytest.mark.parametrize(("modality", "lengths"), [("eeg", ("300", "3000")), ("ecg", ("600", "2400"))])
def test_more_length_needs_no_more_memory(tmp_path: Path, modality: str, lengths: tuple[str, str]) -> None:
    command = [sys.executable, str(BENCHMARKS / "memory.py"), "-o", str(tmp_path / "result.json")]
    subprocess.run(
        [*command, "--modality", modality, "--seconds", *lengths], check=True, capture_output=True, text=True
    )
    short, long = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert short["exit"] == long["exit"] == 0
    assert long["peak_mib"] < 1.1 * short["peak_mib"]
    assert long["peak_mib"] - long["imports_mib"] < 400
