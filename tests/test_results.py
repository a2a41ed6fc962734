"""Every number in README comes from a committed result file."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_readme_says_what_the_result_files_say() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "table.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
