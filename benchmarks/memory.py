"""Peak memory of `generate` against the length of the recording: ``python benchmarks/memory.py -o FILE``.

EEG: a recording of 22 channels at 256 Hz is simulated once; longer files repeat its data records, so that
making the 100,000-s file needs no memory either. ECG (``--modality ecg``): a Holter's three leads at 128 Hz,
ten rhythms of a minute each, again and again. Every measurement is a fresh process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
from environment import environment
from scipy import signal

from bioreport.ecg.leads import LEADS
from bioreport.ecg.simulation import simulate_ecg
from bioreport.simulate import simulate_eeg, write_edf

BASE_SECONDS = 100
HOLTER_SECONDS = 600
HOLTER_HZ = 128
HOLTER_LEADS = ("II", "V1", "V5")
# a day has more than one rhythm, and lists of what changed when must not grow with it
HOLTER_MINUTES: tuple[tuple[str, ...], ...] = (
    ("sinus_rhythm",), ("sinus_rhythm", "premature_ventricular_contractions"), ("atrial_fibrillation",),
    ("sinus_rhythm", "tachycardia"), ("sinus_rhythm", "bradycardia"), ("supraventricular_tachycardia",),
    ("sinus_rhythm", "premature_atrial_contractions"), ("second_degree_av_block",), ("atrial_flutter",),
    ("sinus_rhythm", "ventricular_tachycardia"),
)  # fmt: skip
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


def long_recording(path: Path, seconds: int, seed: int = 3) -> None:
    """An EDF of `seconds` s (a multiple of 100): the same records over and over."""
    simulation = simulate_eeg(seed, duration_seconds=BASE_SECONDS, sfreq=256.0)
    write_edf(simulation, path)
    content = path.read_bytes()
    header = int(content[184:192])
    records = int(content[236:244])
    repeats = seconds // BASE_SECONDS
    with open(path, "wb") as file:
        file.write(content[:236] + f"{records * repeats:<8d}".encode() + content[244:header])
        for _ in range(repeats):
            file.write(content[header:])


def long_holter(path: Path, seconds: int) -> None:
    """A WFDB record of `seconds` s (a multiple of 600), `path` its header: the same minutes over and over."""
    pieces = []
    for seed, present in enumerate(HOLTER_MINUTES):
        simulated = simulate_ecg(seed, duration_seconds=60, present=present)
        rows = [LEADS.index(lead) for lead in HOLTER_LEADS]
        pieces.append(signal.resample_poly(simulated.data[rows], HOLTER_HZ, round(simulated.sfreq), axis=1))
    content = np.rint(1000 * np.concatenate(pieces, axis=1)).clip(-32767, 32767).astype("<i2").T.tobytes()
    data = path.with_suffix(".dat")
    with open(data, "wb") as file:
        for _ in range(seconds // HOLTER_SECONDS):
            file.write(content)
    lines = [f"{data.name} 16 1000/mV 16 0 0 0 0 {lead}" for lead in HOLTER_LEADS]
    first = f"{path.stem} {len(HOLTER_LEADS)} {HOLTER_HZ} {seconds * HOLTER_HZ}"
    path.write_text("\n".join([first, *lines]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--modality", choices=("eeg", "ecg"), default="eeg")
    parser.add_argument(
        "--seconds", type=int, nargs="+", help="default: 1,000 to 100,000 of EEG, an hour to a day of ECG"
    )
    options = parser.parse_args()
    ecg = options.modality == "ecg"
    unit = HOLTER_SECONDS if ecg else BASE_SECONDS
    lengths = options.seconds or ([3_600, 14_400, 86_400] if ecg else [1_000, 10_000, 100_000])
    if any(seconds < unit or seconds % unit for seconds in lengths):
        parser.error(f"--seconds takes multiples of {unit}")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for seconds in lengths:
            path = Path(folder) / f"{seconds}.{'hea' if ecg else 'edf'}"
            (long_holter if ecg else long_recording)(path, seconds)
            held = path.with_suffix(".dat") if ecg else path
            size = held.stat().st_size
            done = subprocess.run(
                [sys.executable, "-c", MEASURE, path, Path(folder) / "report.json"],
                check=True,
                capture_output=True,
                text=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )
            rows.append({"recording_seconds": seconds, "file_mb": size / 1e6, **json.loads(done.stdout)})
            print(rows[-1], flush=True)
            held.unlink()
    result = {
        **environment(),
        "date": date.today().isoformat(),
        "command": "python benchmarks/memory.py" + (" --modality ecg" if ecg else ""),
        "channels": len(HOLTER_LEADS) if ecg else 22,
        "sfreq": HOLTER_HZ if ecg else 256,
        "rows": rows,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
