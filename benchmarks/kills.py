"""SIGKILL at random instants: does a command that is killed again and again end as one that never was?

    python benchmarks/kills.py -o benchmarks/results/kills-DATE.json

Each case runs once without a kill, then again and again into another folder, each time until it is killed at
an instant drawn between its start and the time the first run took. A run that ends before its kill is
compared, and its folder is made anew. After the last kill the command runs to its end, and every file that it
leaves is compared with the uninterrupted run's.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from environment import environment
from results import write

from bioreport.bundle_reader import load_bundle
from bioreport.manifest import Entry, read_manifest, write_manifest
from bioreport.simulate import simulate_corpus, simulate_eeg, write_edf
from bioreport.tokens import encode_manifest


@dataclass(frozen=True)
class Case:
    """A command that is killed.

    Attributes
    ----------
    what : str
        In words.
    command : callable
        From the folder it writes to, to the arguments of ``python -m bioreport``.
    content : callable
        From that folder to what must be the same, by name.
    """

    what: str
    command: Callable[[Path], list[str]]
    content: Callable[[Path], dict[str, bytes]]


def files(folder: Path) -> dict[str, bytes]:
    """Every file under a folder but locks, which are empty."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def eegs(folder: Path, count: int, seconds: float) -> Path:
    """A manifest of simulated EEGs; the last cannot be read."""
    entries = [Entry((folder / f"{i:03d}.edf",)) for i in range(count)]
    folder.mkdir(parents=True)
    for i, entry in enumerate(entries):
        write_edf(simulate_eeg(i, duration_seconds=seconds), entry.recordings[0])
    entries[-1].recordings[0].write_bytes(b"no EDF")
    return write_manifest(folder / "manifest.jsonl", entries)


def encode(work: Path, smoke: bool, workers: int) -> Case:
    """`encode` of short EEGs, more than one shard of them."""
    count, seconds = (3, 12.0) if smoke else (80, 60.0)
    manifest = eegs(work / "corpus", count, seconds)
    options = ["--workers", str(workers), "--device", "cpu", "-q"]
    return Case(
        f"{count} EEGs of {seconds:g} s, one of them unreadable, {workers} worker{'s'[: workers > 1]}",
        lambda folder: ["encode", str(manifest), "-o", str(folder), *options],
        files,
    )


def train(work: Path, smoke: bool) -> Case:
    """`train` of a projector for the embedded language model, its tokens encoded before."""
    count, steps = (4, 4) if smoke else (24, 30)
    manifest = simulate_corpus(count, 0, work / "corpus", duration_seconds=30.0, split="train")
    entries = [
        replace(entry, split="val" if i % 4 == 3 else "train")
        for i, entry in enumerate(read_manifest(manifest))
    ]
    write_manifest(manifest, entries)
    errors = encode_manifest(entries, load_bundle("bioreport-tiny", device="cpu"), work / "tokens").errors
    assert not errors
    options = ["--tokens", str(work / "tokens"), "--max-steps", str(steps), "--epochs", str(steps)]
    options += ["--batch-size", "2", "--at-once", "1", "--tune", "lora", "--save-every", "2"]

    def content(folder: Path) -> dict[str, bytes]:
        """The model's folder, and each step's loss out of the checkpoint."""
        checkpoint = folder.with_name(folder.name + ".training") / "checkpoint.pt"
        state = torch.load(checkpoint, weights_only=True) if checkpoint.is_file() else {}
        losses = json.dumps([state.get("losses"), state.get("validation")]).encode()
        return {**files(folder), "losses": losses}

    return Case(
        f"{steps} steps on {count} EEGs, a checkpoint at every second",
        lambda folder: ["train", str(manifest), "-o", str(folder), "--device", "cpu", "-q", *options],
        content,
    )


def generate(work: Path, smoke: bool, workers: int) -> Case:
    """`generate -o DIR` of short EEGs; reports are written while others are still to be read."""
    count, seconds = (3, 12.0) if smoke else (80, 30.0)
    manifest = eegs(work / "corpus", count, seconds)
    options = ["--workers", str(workers), "--batch-size", "4", "--device", "cpu", "-q"]
    return Case(
        f"{count} EEGs of {seconds:g} s, one of them unreadable, {workers} worker{'s'[: workers > 1]}",
        lambda folder: ["generate", str(manifest), "-o", str(folder), *options],
        files,
    )


# name -> what makes it, given a folder to work in and whether it is to be small
CASES: dict[str, Callable[[Path, bool], Case]] = {
    "encode": lambda work, smoke: encode(work, smoke, 1),
    "train": train,
    "encode --workers 2": lambda work, smoke: encode(work, smoke, 2),
    "generate -o DIR": lambda work, smoke: generate(work, smoke, 1),
    "generate -o DIR --workers 2": lambda work, smoke: generate(work, smoke, 2),
}


def start(case: Case, folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "bioreport", *case.command(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )


def kill(case: Case, work: Path, kills: int, seed: int) -> dict[str, Any]:
    """One row: what was the same after so many kills."""
    begun = time.perf_counter()
    whole, killed = work / "whole" / "out", work / "killed" / "out"
    # 1: some input cannot be read, as it should be
    if (code := start(case, whole).wait()) not in (0, 1):
        raise SystemExit(f"{case.what}: exit code {code}")
    seconds = time.perf_counter() - begun
    wanted = case.content(whole)
    draw, done, at_work, completed, identical = random.Random(seed), 0, 0, 0, True
    while done < kills:
        process = start(case, killed)
        instant = draw.uniform(0, seconds)
        try:
            process.wait(instant)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            done += 1
            at_work += killed.parent.exists()
            print(f"{case.what}: kill {done} after {instant:.1f} s", flush=True)
        else:
            completed += 1
            identical &= case.content(killed) == wanted
            shutil.rmtree(killed.parent)
    code = start(case, killed).wait()
    found = case.content(killed)
    return {
        "what": case.what,
        "seconds_uninterrupted": seconds,
        "kills": done,
        "kills_after_the_first_write": at_work,
        "completed_between_kills": completed,
        "exit_code": code,
        "files": len(wanted),
        "bytes": sum(map(len, wanted.values())),
        "differing": sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n)),
        "identical": identical and found == wanted,
        "seconds": time.perf_counter() - begun,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument(
        "--only", action="append", choices=tuple(CASES), help="default: all; beside what OUTPUT has"
    )
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="small, to see that it runs")
    options = parser.parse_args()
    kept = options.only and options.output.exists()
    rows: dict[str, Any] = json.loads(options.output.read_text())["rows"] if kept else {}
    for name in options.only or CASES:
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = kill(
                CASES[name](Path(folder), options.smoke), Path(folder), options.kills, options.seed
            )
        # after each: this too may be killed
        write(
            options.output,
            {
                **environment(),
                "date": date.today().isoformat(),
                "command": f"python benchmarks/kills.py -o {options.output}",
                "seed": options.seed,
                "rows": rows,
            },
        )
    if not all(row["identical"] for row in rows.values()):
        raise SystemExit("not the same as without kills")


if __name__ == "__main__":
    main()
