"""Recording to tokens: our chain beside the one CELM runs, on the same file, in the same run.

    python benchmarks/encode.py -o benchmarks/results/encode-cpu-DATE.json

CELM's chain is MNE on the whole recording (band-pass, notch, resampling, float64 epochs), then CBraMod as
plain PyTorch modules compute it (`peers.py`). Ours streams. Both encoders have the published sizes and the
same random weights, so that the tokens can be compared too.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import mne
import numpy as np
import torch
from environment import environment
from memory import long_recording
from peers import EagerCBraMod

from bioreport.bundle import Bundle
from bioreport.encoders.cbramod import CBraMod
from bioreport.evidence import encode_epochs
from bioreport.montage import CELM_CHANNELS, normalise
from bioreport.preprocess import stream_epochs
from bioreport.recording import open_recording

BATCH = 16


def ours(path: Path, bundle: Bundle) -> tuple[dict[str, float], torch.Tensor]:
    """Seconds by stage, and tokens."""
    seconds = {"preprocess": 0.0, "encode": 0.0}
    tokens = []
    start = time.perf_counter()
    batches = iter(stream_epochs(open_recording(path), line_frequency=60.0, batch_epochs=BATCH))
    while (batch := next(batches, None)) is not None:
        seconds["preprocess"] += time.perf_counter() - start
        start = time.perf_counter()
        tokens.append(encode_epochs(bundle, batch)[0])
        seconds["encode"] += time.perf_counter() - start
        start = time.perf_counter()
    return seconds, torch.cat(tokens)


@torch.inference_mode()
def celm(path: Path, network: torch.nn.Module) -> tuple[dict[str, float], torch.Tensor]:
    """The same by CELM's steps."""
    start = time.perf_counter()
    with mne.use_log_level("ERROR"):
        raw = mne.io.read_raw_edf(path, preload=True)
        raw.rename_channels(lambda label: normalise(label) or label)
        raw.filter(0.1, 75.0)
        raw.notch_filter(60.0)
        raw.pick([name for name in CELM_CHANNELS if name in raw.ch_names])
        raw.resample(200)
    data = np.zeros((len(CELM_CHANNELS), raw.n_times))
    data[[CELM_CHANNELS.index(name) for name in raw.ch_names]] = raw.get_data()
    epochs = [data[:, i : i + 2000].copy() for i in range(0, data.shape[1] - 1999, 2000)]
    seconds = {"preprocess": time.perf_counter() - start}
    start = time.perf_counter()
    tokens = []
    for first in range(0, len(epochs), BATCH):
        x = torch.from_numpy(np.stack(epochs[first : first + BATCH])).float() * 1e4  # V to µV/100
        tokens.append(network(x.unflatten(-1, (-1, 200))).mean((1, 2)))
    seconds["encode"] = time.perf_counter() - start
    return seconds, torch.cat(tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seconds", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.manual_seed(0)
    encoder = CBraMod().eval()
    bundle = Bundle(name="random", encoder_config={"class": "CBraMod"}, encoder=encoder)
    network = EagerCBraMod().eval()
    network.load_state_dict(encoder.state_dict())
    chains: dict[str, Callable[[Path], tuple[dict[str, float], torch.Tensor]]] = {
        "bioreport": lambda path: ours(path, bundle),
        "CELM's chain": lambda path: celm(path, network),
    }
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in chains}
    tokens = {}
    with tempfile.TemporaryDirectory() as folder:
        short, path = Path(folder) / "short.edf", Path(folder) / "long.edf"
        long_recording(short, 100)
        long_recording(path, options.seconds)
        for chain in chains.values():
            chain(short)
        for _ in range(options.repeats):
            for name, chain in chains.items():
                seconds, tokens[name] = chain(path)
                runs[name].append({**seconds, "total": sum(seconds.values())})
                print(name, runs[name][-1], flush=True)
    rows = {
        name: {key: statistics.median(run[key] for run in taken) for key in taken[0]}
        for name, taken in runs.items()
    }
    mine, theirs = tokens["bioreport"], tokens["CELM's chain"]
    result = {
        **environment(),
        "date": date.today().isoformat(),
        "command": "python benchmarks/encode.py",
        "recording_seconds": options.seconds,
        "repeats": options.repeats,
        "median_seconds": rows,
        "runs": runs,
        "speedup": rows["CELM's chain"]["total"] / rows["bioreport"]["total"],
        "tokens_rms_difference": float((mine - theirs).square().mean().sqrt() / theirs.std()),
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
