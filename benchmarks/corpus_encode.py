"""A corpus to tokens on disk: `encode` beside CELM's chain, in turns, in both malloc settings.

    python benchmarks/corpus_encode.py -o benchmarks/results/corpus-encode-DATE.json

CELM's chain as published (Jathurshan0330/CELM): MNE on the whole recording (band-pass 0.1–75 Hz of all
channels at their own rate, notch at 60 Hz, pick, resample to 200 Hz), a pickle of float64 for every 10 s;
then its loader reads them back, and CBraMod runs over 500 epochs at a time and is pooled. The network is
`peers.EagerCBraMod`: the published layers, `nn.MultiheadAttention` among them, in eval mode. Kinder than the
original: channels are found under any spelling, and epochs are read in order.

Ours is what a worker of `bioreport encode` does, hashing, writing its part and the shard included; the bundle
has the published sizes and the same random weights. It is measured as the command does it (``--dtype auto``:
matrix products in bfloat16 where the processor has it) and in float32, as the other chain is. Each chain is
one process with all cores; they take turns recording by recording, and what counts is the time from path to
result, models and imports loaded before. After them the whole command runs once for each dtype with a process
for every core, as a user would run it: from start to end, with imports, models and processes in it, and less
the time that the same command takes for one short recording a process, which is what it takes to start.
"""

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import environment
from memory import long_recording
from operators import MALLOC
from peers import EagerCBraMod
from results import write

from bioreport.bundle import Bundle
from bioreport.bundle_reader import load_bundle
from bioreport.bundle_writer import save_bundle
from bioreport.encode import Encoding
from bioreport.encoders.cbramod import CBraMod
from bioreport.montage import CELM_CHANNELS, normalise
from bioreport.token_writer import StoreWriter
from bioreport.tokens import TokenStore

CHUNK = 500  # epochs through the published encoder at a time
# from a place in the run and a recording to seconds of each part and the tokens
Chain = Callable[[int, Path], tuple[dict[str, float], np.ndarray]]


def ours(dtype: str, model: Path, out: Path, count: int) -> Chain:
    encoding = Encoding(
        str(model), "cpu", dtype, load_bundle(model, device="cpu").encoding_key(), out,
        known=frozenset(), left_over=frozenset(), threads=os.cpu_count() or 1,
    )  # fmt: skip
    bundle = encoding.load(0)
    writer = StoreWriter(TokenStore(out), count)
    writer.__enter__()

    def encode(position: int, path: Path) -> tuple[dict[str, float], np.ndarray]:
        start = time.perf_counter()
        outcome, content = encoding.encode(bundle, (position, str(path)))
        encoded = time.perf_counter()
        if content is None or outcome.part is None or outcome.key is None:
            raise SystemExit(f"{path}: {outcome}")
        writer.write_part(outcome.part, content)
        writer.put(outcome)
        seconds = {"read, filter, encode": encoded - start, "write": time.perf_counter() - encoded}
        if position + 1 < count:
            return seconds, np.zeros(0)
        writer.__exit__(None, None, None)
        return seconds, TokenStore(out).get(outcome.key).tokens.float().numpy()

    return encode


def celm(model: Path, out: Path, count: int) -> Chain:
    import mne

    network = EagerCBraMod().eval()
    encoder = load_bundle(model, device="cpu").encoder
    network.load_state_dict(encoder.state_dict())

    @torch.no_grad()
    def encode(position: int, path: Path) -> tuple[dict[str, float], np.ndarray]:
        start = time.perf_counter()
        with mne.use_log_level("ERROR"):
            raw = mne.io.read_raw_edf(path, preload=True)
            raw.rename_channels(lambda label: normalise(label) or label)
            raw.filter(0.1, 75.0)
            raw.notch_filter(60.0)
            available = [name for name in CELM_CHANNELS if name in raw.ch_names]
            raw.pick(available)
            raw.resample(200)
            signal, _ = raw[:, :]
        data = np.zeros((len(CELM_CHANNELS), signal.shape[1]))
        for name, row in zip(raw.ch_names, signal, strict=True):
            data[CELM_CHANNELS.index(name)] = row
        filtered = time.perf_counter()
        folder = out / path.stem
        folder.mkdir(parents=True)
        for number in range(data.shape[1] // 2000):
            epoch = data[:, number * 2000 : (number + 1) * 2000]
            with open(folder / f"{number:06d}.pkl", "wb") as file:
                pickle.dump(
                    {
                        "data": epoch,
                        "available_channels": available,
                        "mean_eeg_data": epoch.mean(1),
                        "std_eeg_data": epoch.std(1),
                    },
                    file,
                )
        written = time.perf_counter()
        epochs = []
        for name in sorted(folder.iterdir()):
            with open(name, "rb") as file:
                epochs.append(torch.from_numpy(pickle.load(file)["data"]).float() / 100)
        x = torch.stack(epochs)
        read = time.perf_counter()
        tokens = [
            network(x[first : first + CHUNK].unflatten(-1, (-1, 200))).mean((1, 2))
            for first in range(0, len(x), CHUNK)
        ]
        result = torch.cat(tokens).numpy()
        seconds = {
            "read, filter": filtered - start,
            "write": written - filtered,
            "read again": read - written,
            "encode": time.perf_counter() - read,
        }
        return seconds, result

    return encode


PEER = "CELM's chain"
CHAINS: dict[str, Callable[[Path, Path, int], Chain]] = {
    "bioreport": partial(ours, "auto"),
    "bioreport, float32": partial(ours, "float32"),
    PEER: celm,
}


def child(name: str, model: Path, out: Path, count: int, first: Path) -> None:
    """Encode what standard input names, and tell of it in JSON lines."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    make = CHAINS[name]
    with tempfile.TemporaryDirectory() as folder:
        # what a first call loads
        make(model, Path(folder), 1)(0, first)
    chain = make(model, out, count)
    channel.write("{}\n")
    for position, line in enumerate(sys.stdin):
        seconds, tokens = chain(position, Path(line.strip()))
        channel.write(json.dumps({"seconds": seconds}) + "\n")
    np.save(out.with_suffix(".npy"), tokens)


def outcome(folder: Path, count: int, seconds: float) -> dict[str, Any]:
    """What was written, and how fast."""
    written = [path for path in folder.rglob("*") if path.is_file()]
    return {
        "seconds": seconds,
        "recordings_per_hour": 3600 * count / seconds,
        "bytes": sum(path.stat().st_size for path in written),
        "files": len(written),
    }


def command(setting: str, dtype: str, recordings: list[Path], model: Path, out: Path) -> float:
    """Seconds of `bioreport encode` with a process for every core, from start to end."""
    manifest = out.with_suffix(".jsonl")
    manifest.write_text("".join(json.dumps({"recording": str(path)}) + "\n" for path in recordings))
    arguments = [str(manifest), "-o", str(out), "--model", str(model), "--device", "cpu"]
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "bioreport", "encode", *arguments, "--dtype", dtype, "-q",
         "--workers", str(os.cpu_count())],
        check=True,
        env={**os.environ, **MALLOC[setting]},
    )  # fmt: skip
    return time.perf_counter() - start


def measure(
    setting: str, recordings: list[Path], warm_up: list[Path], model: Path, work: Path
) -> dict[str, Any]:
    """Both chains, in turns."""
    children = {}
    for name in CHAINS:
        arguments = [name, str(model), str(work / name), str(len(recordings)), str(warm_up[0])]
        children[name] = subprocess.Popen(
            [sys.executable, __file__, "--child", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **MALLOC[setting]},
        )  # fmt: skip

    def answer(name: str) -> dict[str, Any]:
        stream = children[name].stdout
        line = stream.readline() if stream is not None else ""
        if not line:
            raise SystemExit(f"{name} stopped")
        return json.loads(line)

    taken: dict[str, list[dict[str, float]]] = {name: [] for name in CHAINS}
    for name in CHAINS:
        answer(name)
    for recording in recordings:
        for name, process in children.items():
            assert process.stdin is not None
            process.stdin.write(f"{recording}\n")
            process.stdin.flush()
            taken[name].append(answer(name)["seconds"])
            print(setting, name, {k: round(v, 3) for k, v in taken[name][-1].items()}, flush=True)
    rows = {}
    for name, process in children.items():
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        totals = [sum(seconds.values()) for seconds in taken[name]]
        rows[name] = {
            **outcome(work / name, len(totals), sum(totals)),
            "median_seconds": {
                part: statistics.median(seconds[part] for seconds in taken[name]) for part in taken[name][0]
            },
            "each_seconds": totals,
        }
    for dtype in ("auto", "float32"):
        name, out = f"encode --workers {os.cpu_count()} --dtype {dtype}", work / f"command-{dtype}"
        start = command(setting, dtype, warm_up, model, work / f"start-{dtype}")
        seconds = command(setting, dtype, recordings, model, out)
        rows[name] = outcome(out, len(recordings), seconds)
        rows[f"{name}, less its start"] = outcome(out, len(recordings), seconds - start)
    peer = rows[PEER] = rows.pop(PEER)
    for name, row in rows.items():
        if name != PEER:
            row["speedup"] = peer["seconds"] / row["seconds"]
            row["bytes_ratio"] = peer["bytes"] / row["bytes"]
            if "each_seconds" in row:
                each = zip(peer["each_seconds"], row["each_seconds"], strict=True)
                row["speedup_of_each"] = [theirs / own for theirs, own in each]
    rounded, exact = (np.load((work / name).with_suffix(".npy")) for name in list(CHAINS)[:2])
    error = float(np.sqrt(np.mean((rounded - exact) ** 2)) / exact.std())
    return {"malloc": setting, "chains": rows, "bfloat16_tokens_rms_difference": error}


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        name, model, out, count, first = sys.argv[2:]
        child(name, Path(model), Path(out), int(count), Path(first))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=1000, help="of each, a multiple of 100")
    parser.add_argument(
        "--malloc", action="append", choices=tuple(MALLOC), help="default: one after the other"
    )
    options = parser.parse_args()
    torch.manual_seed(0)
    encoder = CBraMod().eval()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        save_bundle(Bundle("random", encoder_config={"class": "CBraMod"}, encoder=encoder), work / "model")
        recordings = [work / f"{i:03d}.edf" for i in range(options.count)]
        for i, recording in enumerate(recordings):
            long_recording(recording, options.seconds, seed=i)
        warm_up = [work / f"warm-up-{i}.edf" for i in range(os.cpu_count() or 1)]
        for i, recording in enumerate(warm_up):
            long_recording(recording, 100, seed=options.count + i)
        for setting in options.malloc or MALLOC:
            rows.append(measure(setting, recordings, warm_up, work / "model", work / setting))
    write(
        options.output,
        {
            **environment(),
            "date": date.today().isoformat(),
            "command": "python benchmarks/corpus_encode.py",
            "recordings": options.count,
            "recording_seconds": options.seconds,
            "channels": 22,
            "sfreq": 256,
            "rows": rows,
        },
    )
    for row in rows:
        for name, chain in row["chains"].items():
            if name != PEER:
                ratios = f"{chain['speedup']:.2f} × recordings/h, 1/{chain['bytes_ratio']:.0f} of the bytes"
                print(f"{row['malloc']}, {name}: {ratios}")


if __name__ == "__main__":
    main()
