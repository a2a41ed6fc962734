"""What `test_processes` runs by torchrun, and for comparison itself: trainings in one folder."""

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import wfdb_files
from small_models import MEASUREMENTS, SIZES, save_small_llm, small_bundle

from bioreport import processes
from bioreport.bundle_reader import load_bundle
from bioreport.bundle_writer import save_bundle
from bioreport.cli import main
from bioreport.ecg.leads import LEADS
from bioreport.evidence import Evidence
from bioreport.manifest import Entry, write_manifest
from bioreport.meit import train_meit
from bioreport.tokens import TokenStore, fill_store
from bioreport.train import train

TEXTS = ("Calm.", "A seizure of the left temporal lobe, for forty seconds.")


def prepare(folder: Path) -> None:
    """A corpus of tokens, one of ECGs, a language model, and the bundle of an encoder."""
    llm = save_small_llm(folder / "llm")
    bundle = small_bundle(llm)
    save_bundle(bundle, folder / "encoder")
    entries: list[Entry] = []
    (folder / "eeg").mkdir()
    for i in range(8):
        path = folder / "eeg" / f"r{i}.edf"
        path.write_text(str(i))
        sections = {"BACKGROUND ACTIVITY": TEXTS[i % 2]}
        entries.append(Entry((path,), f"p{i}", "Spells.", sections, split="train" if i < 6 else "val"))
    write_manifest(folder / "eeg" / "manifest.jsonl", entries)

    def read(path: Path) -> Evidence:
        number = int(path.read_text())
        draw = torch.Generator().manual_seed(number)
        tokens = torch.randn(3 + 5 * (number % 3), SIZES["out_dim"], generator=draw)
        return Evidence(path.name, 30.0, ("O1", "O2"), tokens, [], MEASUREMENTS, "", [])

    paths = [entry.recordings[0] for entry in entries]
    assert not fill_store(TokenStore(folder / "tokens"), paths, bundle.encoding_key(), read).errors
    (folder / "ecg").mkdir()
    entries = []
    for i in range(9):
        path = wfdb_files.write_record(folder / "ecg", f"r{i}", wfdb_files.twelve(seed=i), LEADS, sfreq=500)
        split = "train" if i < 7 else "val"
        entries.append(Entry((path,), f"p{i}", None, {"RHYTHM": "Sinus rhythm."}, split=split))
    write_manifest(folder / "ecg" / "manifest.jsonl", entries)


SMALL: dict[str, Any] = {"blocks": (1, 1, 1, 1), "width": 4, "hidden": 16}


def prefix(folder: Path, out: Path, name: str, **options: Any) -> list[float]:
    sizes = {"depth": 1, "queries": 4, "heads": 2}
    settings = {
        "projector": "sequence-perceiver", "projector_sizes": sizes, "epochs": 2, "batch_size": 4,
        "at_once": 1, "lr": 1e-2, "device": "cpu", "dtype": "float32", "tokens": folder / "tokens",
        "encoder_bundle": load_bundle(folder / "encoder", device="cpu", dtype="float32"),
    }  # fmt: skip
    result = train(folder / "eeg" / "manifest.jsonl", out=out / name, **settings | options)
    assert not result.errors
    return result.losses + result.validation


def begun(folder: Path, out: Path, name: str, after: int, **options: Any) -> None:
    def stop(step: int, loss: float) -> None:
        if step == after:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        prefix(folder, out, name, save_every=1, on_step=stop, **options)


def interrupted(folder: Path, out: Path, name: str, after: int, **options: Any) -> list[float]:
    begun(folder, out, name, after, **options)
    return prefix(folder, out, name, save_every=1, **options)


def meit(folder: Path, out: Path, name: str, **options: Any) -> list[float]:
    settings = {
        "llm": str(folder / "llm"), "encoder": SMALL, "epochs": 2, "batch_size": 4, "at_once": 2, "lr": 1e-2,
        "device": "cpu",
    }  # fmt: skip
    result = train_meit(folder / "ecg" / "manifest.jsonl", out=out / name, **settings | options)
    return result.losses + result.validation


def command(folder: Path, out: Path, name: str) -> list[float]:
    arguments = [
        "train", str(folder / "eeg" / "manifest.jsonl"), "-o", str(out / name), "-q", "--projector", "linear",
        "--model", str(folder / "encoder"), "--tokens", str(folder / "tokens"), "--device", "cpu",
        "--batch-size", "4", "--max-steps", "2",
    ]  # fmt: skip
    assert main(arguments) == 0
    return []


def run(folder: Path, out: Path, shard: bool) -> None:
    found = {
        "parts": prefix(folder, out, "parts"),
        "command": command(folder, out, "command"),
        "stopped": interrupted(folder, out, "stopped", 3),
        "lora": prefix(folder, out, "lora", tune="lora", shard=shard),
        "full": interrupted(folder, out, "full", 2, tune="full", shard=shard, gradient_checkpointing=True),
        "meit": meit(folder, out, "meit"),
        "meit-full": meit(folder, out, "meit-full", full=True, shard=shard),
    }
    begun(folder, out, "handed-on", 2, tune="full", shard=shard)
    if processes.first():
        (out / "losses.json").write_text(json.dumps(found))


if __name__ == "__main__":
    with processes.joined("cpu"):
        run(Path(sys.argv[1]), Path(sys.argv[2]), True)
