"""Peak memory of `generate` against the length of the recording: ``python benchmarks/memory.py -o FILE``.

A recording of 22 channels at 256 Hz is simulated once; longer files repeat its data records, so that making
the 100,000-s file needs no memory either. Every measurement is a fresh process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

from environment import environment

from bioreport.simulate import simulate_eeg, write_edf

BASE_SECONDS = 100
MEASURE = """
import json, resource, sys, time
import torch, mne, scipy.signal, transformers
from transformers import Qwen3ForCausalLM, PreTrainedTokenizerFast
from bioreport import cli, commands, pipeline
imports = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
start = time.perf_counter()
code = cli.main(["generate", sys.argv[1], "-o", sys.argv[2], "-q"]) if len(sys.argv) > 1 else 0
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
seconds = time.perf_counter() - start
print(json.dumps({"exit": code, "imports_mib": imports, "peak_mib": peak, "seconds": seconds}))
"""


def long_recording(path: Path, seconds: int) -> None:
    """An EDF of `seconds` s (a multiple of 100): the same records over and over."""
    simulation = simulate_eeg(3, duration_seconds=BASE_SECONDS, sfreq=256.0)
    write_edf(simulation, path)
    content = path.read_bytes()
    header = int(content[184:192])
    records = int(content[236:244])
    repeats = seconds // BASE_SECONDS
    with open(path, "wb") as file:
        file.write(content[:236] + f"{records * repeats:<8d}".encode() + content[244:header])
        for _ in range(repeats):
            file.write(content[header:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seconds", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seconds in options.seconds:
            path = Path(folder) / f"{seconds}.edf"
            long_recording(path, seconds)
            size = path.stat().st_size
            done = subprocess.run(
                [sys.executable, "-c", MEASURE, path, Path(folder) / "report.json"],
                check=True,
                capture_output=True,
                text=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )
            rows.append({"recording_seconds": seconds, "file_mb": size / 1e6, **json.loads(done.stdout)})
            print(rows[-1], flush=True)
            path.unlink()
    result = {
        **environment(),
        "date": date.today().isoformat(),
        "command": "python benchmarks/memory.py",
        "channels": 22,
        "sfreq": 256,
        "rows": rows,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
