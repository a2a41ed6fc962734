"""Reports of many short recordings: ``python benchmarks/many.py -o benchmarks/results/many-DATE.json``.

Speed: the same recordings, EEGs of 20 to 120 s and ECGs of 10 s, by one `generate` a file, by one of all with
batches in the order of the files or by length, and with other processes that read ahead; the ways take turns.
Then the same command once more over a folder that is complete. Memory: the peak of one `generate` over more
and more ECGs. Every measurement is a fresh process.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from environment import environment
from results import write

from bioreport.ecg.simulation.record import simulate_ecg
from bioreport.ecg.simulation.writing import write_record
from bioreport.simulate import simulate_eeg, write_edf

MEASURE = """
import json, resource, sys, time
import torch, mne, scipy.signal, transformers
from bioreport import cli, commands, pipeline
if sys.argv[1] == "in order":
    sys.modules["bioreport.commands.generate"].WINDOW = 1
positions = padding = 0
whole = pipeline.generate_sections
def counting(fusion, fused, *arguments, **options):
    global positions, padding
    mask = fused.attention_mask
    positions, padding = positions + mask.numel(), padding + int((mask == 0).sum())
    return whole(fusion, fused, *arguments, **options)
pipeline.generate_sections = counting
peak = lambda who: resource.getrusage(who).ru_maxrss / 1024
imports, start = peak(resource.RUSAGE_SELF), time.perf_counter()
code = cli.main(["generate", *sys.argv[2:]])
print(json.dumps({
    "exit": code, "seconds": time.perf_counter() - start, "imports_mib": imports,
    "peak_mib": peak(resource.RUSAGE_SELF), "largest_reader_mib": peak(resource.RUSAGE_CHILDREN) or None,
    "padded_share": padding / positions if positions else None,
}))
"""


def ward(folder: Path, count: int) -> list[Path]:
    """Recordings in an order that says nothing of their lengths: each other one is an ECG."""
    draw = random.Random(0)
    folder.mkdir(parents=True)
    paths = []
    for number in range(count):
        if number % 2:
            paths.append(folder / f"{number:03d}.hea")
            write_record(simulate_ecg(number, duration_seconds=10), paths[-1])
        else:
            paths.append(folder / f"{number:03d}.edf")
            seconds = draw.uniform(20, 120)
            write_edf(simulate_eeg(number, duration_seconds=seconds, sfreq=200), paths[-1])
    return paths


def ecgs(folder: Path, count: int) -> Path:
    """Ten simulated ECGs again and again, a folder each."""
    for number in range(min(10, count)):
        write_record(simulate_ecg(number, duration_seconds=10), folder / f"{number:04d}" / "record.hea")
    for number in range(10, count):
        shutil.copytree(folder / f"{number % 10:04d}", folder / f"{number:04d}")
    return folder


def measure(batches: str, *arguments: str | Path) -> dict[str, Any]:
    """One `generate` of many, batches ``"in order"`` or ``"by length"``."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, batches, *map(str, arguments), "-q", "--device", "cpu"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def one_by_one(files: list[Path], out: Path) -> dict[str, Any]:
    """A process a file, imports and model loaded in each."""
    start = time.perf_counter()
    for file in files:
        subprocess.run(
            [sys.executable, "-m", "bioreport", "generate", file, "-o", out / f"{file.stem}.md", "-q"],
            check=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
    return {"seconds": time.perf_counter() - start}


def timed(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """With the time of the whole process, its start and imports among it."""
    start = time.perf_counter()
    row = run()
    return {**row, "whole_seconds": time.perf_counter() - start}


def same(folder: Path, other: Path) -> bool:
    """Whether the same reports lie in both, but for their keys."""

    def reports(place: Path) -> dict[str, list[str]]:
        return {
            path.relative_to(place).as_posix(): [
                line for line in path.read_text().splitlines() if line and not line.startswith("<!-- key")
            ]
            for path in place.rglob("*.md")
        }

    return reports(folder) == reports(other)


def speed(work: Path, count: int, rounds: int, workers: int) -> dict[str, Any]:
    files = ward(work / "ward", count)
    source = work / "ward"
    ways: dict[str, Callable[[Path], dict[str, Any]]] = {
        "one `generate` a file": lambda out: one_by_one(files, out),
        "`-o DIR`, one at a time": lambda out: measure("in order", source, "-o", out, "--batch-size", "1"),
        "`-o DIR`, batches in the order of the files": lambda out: measure("in order", source, "-o", out),
        "`-o DIR`, batches by length": lambda out: measure("by length", source, "-o", out),
        f"`-o DIR`, batches by length, {workers} workers": lambda out: measure(
            "by length", source, "-o", out, "--workers", str(workers)
        ),
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    identical = True
    for number in range(rounds):
        for name, run in ways.items():
            out = work / f"{number}" / name.replace("`", "")
            out.mkdir(parents=True)
            found[name].append(timed(lambda run=run, out=out: run(out)))  # type: ignore[misc]
            print(f"{name}: {found[name][-1]['whole_seconds']:.1f} s", flush=True)
            identical &= same(work / "0" / "one generate a file", out)
    rows = []
    for name, runs in found.items():
        seconds = statistics.median(run["whole_seconds"] for run in runs)
        rows.append(
            {
                "way": name,
                "seconds": seconds,
                "reports_per_hour": 3600 * count / seconds,
                "rounds_seconds": [run["whole_seconds"] for run in runs],
                **{key: value for key, value in runs[0].items() if key.endswith(("_mib", "_share"))},
            }
        )
    for row in rows:
        row["times_one_by_one"] = rows[0]["seconds"] / row["seconds"]
    again = work / "0" / "-o DIR, batches by length"
    before = {path: path.stat().st_mtime_ns for path in again.rglob("*.md")}
    kept = timed(lambda: measure("by length", source, "-o", again))
    return {
        "recordings": count,
        "rows": rows,
        "texts_are_the_same": identical,
        "again": {
            "seconds": kept["whole_seconds"],
            "seconds_after_imports": kept["seconds"],
            "all_kept": before == {path: path.stat().st_mtime_ns for path in again.rglob("*.md")},
        },
    }


def memory(work: Path, counts: list[int]) -> list[dict[str, Any]]:
    rows = []
    for count in counts:
        place = work / f"{count}"
        row = measure("by length", ecgs(place / "in", count), "-o", place / "out")
        written = len(list((place / "out").rglob("*.md")))
        rows.append({"recordings": count, "written": written, **row})
        print(rows[-1], flush=True)
        shutil.rmtree(place)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--recordings", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--counts", type=int, nargs="*", default=[10, 100, 1000], help="of ECGs, for memory")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        document = {
            **environment(),
            "date": date.today().isoformat(),
            "command": " ".join(["python", "benchmarks/many.py", *sys.argv[1:]]),
            "speed": speed(Path(folder) / "speed", options.recordings, options.rounds, options.workers),
            "memory": memory(Path(folder) / "memory", options.counts),
        }
    write(options.output, document)


if __name__ == "__main__":
    main()
