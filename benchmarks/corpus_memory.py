"""Peak memory of `encode` against the number of recordings.

    python benchmarks/corpus_memory.py -o benchmarks/results/corpus-memory-DATE.json

One short EEG is simulated; the others are it with another recording identification, so that each has a key of
its own. Every measurement is a fresh process: its own peak, which is the writer's, and the largest of its
workers'.
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
from results import write

from bioreport.manifest import Entry, write_manifest
from bioreport.simulate import simulate_eeg, write_edf

_IDENTIFICATION = slice(88, 168)  # of an EDF's header
MEASURE = """
import json, resource, sys, time
from bioreport import cli

def mib(who):
    return resource.getrusage(who).ru_maxrss / 1024

if __name__ == "__main__":
    start = time.perf_counter()
    code = cli.main(["encode", *sys.argv[1:], "-q"])
    seconds = time.perf_counter() - start
    writer, worker = mib(resource.RUSAGE_SELF), mib(resource.RUSAGE_CHILDREN)
    print(json.dumps({"exit": code, "seconds": seconds, "writer_mib": writer, "worker_mib": worker}))
"""


def corpus(folder: Path, count: int, seconds: float) -> Path:
    """A manifest of `count` recordings of one signal."""
    first = folder / "first.edf"
    write_edf(simulate_eeg(0, duration_seconds=seconds), first)
    content = bytearray(first.read_bytes())
    entries = []
    for i in range(count):
        content[_IDENTIFICATION] = f"Startdate X X {i} X".encode().ljust(80)
        path = folder / f"{i:05d}.edf"
        path.write_bytes(content)
        entries.append(Entry((path,)))
    return write_manifest(folder / "manifest.jsonl", entries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--count", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each recording")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    rows = []
    for count in options.count:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            manifest = corpus(folder, count, options.seconds)
            script = folder / "measure.py"
            script.write_text(MEASURE)
            done = subprocess.run(
                [sys.executable, script, manifest, "-o", folder / "tokens", "--device", "cpu",
                 "--workers", str(options.workers)],
                check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )  # fmt: skip
            encoded = len((folder / "tokens" / "index.jsonl").read_text().splitlines())
        rows.append({"recordings": count, "encoded": encoded, **json.loads(done.stdout)})
        print(rows[-1], flush=True)
    write(
        options.output,
        {
            **environment(),
            "date": date.today().isoformat(),
            "command": "python benchmarks/corpus_memory.py",
            "recording_seconds": options.seconds,
            "workers": options.workers,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
