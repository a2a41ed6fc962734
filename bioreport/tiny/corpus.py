"""Labelled epochs of simulated recordings, as arrays on disk."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bioreport.findings import LOCATED
from bioreport.preprocess import PreprocessSpec, detect_line_frequency, stream_epochs
from bioreport.recording import Recording
from bioreport.simulate import Event, simulate_eeg

# what the encoder is asked to see; rhythm, mains and electrodes are measured instead
MODEL_FINDINGS = (
    "drowsiness",
    "sleep_spindles",
    "generalized_slowing",
    "focal_slowing",
    "focal_epileptiform_discharges",
    "generalized_spike_wave",
    "seizure",
    "burst_suppression",
    "eye_blink_artifact",
    "muscle_artifact",
    "electrode_artifact",
)
TINY_SPEC = PreprocessSpec(reference="average")
# the place of these is taught too
TAUGHT_PLACES = LOCATED | {"electrode_artifact"}
# far beyond every seed that `simulate_corpus` makes: nothing evaluated is ever trained on
TRAIN_SEED, VALIDATION_SEED = 10**15, 2 * 10**15
RECORDINGS_PER_SHARD = 50


@dataclass
class Shard:
    """Epochs of some recordings.

    Attributes
    ----------
    data : float16 [E, C, 2000], µV/100
    channel_mask : bool [E, C]
    patch_mask : bool [E, 10]
    labels : int8 [E, F], 1 present, 0 absent, -1 too little of it to count
    places : bool [E, F, C], channels of the finding
    recording : int64 [E], seed of the simulation
    """

    data: np.ndarray
    channel_mask: np.ndarray
    patch_mask: np.ndarray
    labels: np.ndarray
    places: np.ndarray
    recording: np.ndarray

    def save(self, path: Path) -> None:
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "Shard":
        with np.load(path) as stored:
            return cls(**{name: stored[name] for name in stored.files})


def label_epochs(
    events: Sequence[Event], starts: np.ndarray, epoch_seconds: float, channels: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Labels int8 [E, F] and places bool [E, F, C] of epochs that start at `starts` (s).

    Less than 1.5 s of a longer event is neither present nor absent: no reader would call it from that epoch.
    """
    labels = np.zeros((len(starts), len(MODEL_FINDINGS)), np.int8)
    places = np.zeros((len(starts), len(MODEL_FINDINGS), len(channels)), bool)
    rows = {name: row for row, name in enumerate(channels)}
    for event in events:
        if event.name not in MODEL_FINDINGS:
            continue
        column = MODEL_FINDINGS.index(event.name)
        overlap = np.minimum(event.end_seconds, starts + epoch_seconds) - np.maximum(
            event.start_seconds, starts
        )
        enough = overlap >= min(1.5, 0.8 * (event.end_seconds - event.start_seconds))
        touched = (overlap > 0) & ~enough & (labels[:, column] == 0)
        labels[touched, column] = -1
        labels[enough, column] = 1
        for channel in event.channels:
            if channel in rows:
                places[enough, column, rows[channel]] = True
    return labels, places


def simulate_shard(first: int, count: int) -> Shard:
    """Simulate recordings of the seeds from `first` on and cut them into labelled epochs."""
    parts: list[Shard] = []
    for seed in range(first, first + count):
        simulation = simulate_eeg(seed)
        recording = Recording.from_array(simulation.data, simulation.sfreq, simulation.names)
        line = detect_line_frequency(recording)
        for batch in stream_epochs(recording, TINY_SPEC, line_frequency=line.frequency):
            labels, places = label_epochs(
                simulation.events, batch.start_seconds, TINY_SPEC.epoch_seconds, TINY_SPEC.channels
            )
            parts.append(
                Shard(
                    data=np.clip(batch.data / 100, -30, 30).astype(np.float16),
                    channel_mask=batch.channel_mask,
                    patch_mask=batch.patch_mask,
                    labels=labels,
                    places=places,
                    recording=np.full(len(labels), seed, np.int64),
                )
            )
    return Shard(**{name: np.concatenate([getattr(p, name) for p in parts]) for name in vars(parts[0])})


def _shard_to_file(directory: Path, first: int) -> Path:
    path = directory / f"{first}.npz"
    if not path.exists():
        partial_path = path.with_suffix(".partial.npz")
        simulate_shard(first, RECORDINGS_PER_SHARD).save(partial_path)
        partial_path.replace(path)
    return path


def build_corpus(directory: Path, first_seed: int, count: int, workers: int = 2) -> list[Path]:
    """Shards of `count` simulated recordings in `directory`; those already there are kept."""
    directory.mkdir(parents=True, exist_ok=True)
    firsts = range(first_seed, first_seed + count, RECORDINGS_PER_SHARD)
    with ProcessPoolExecutor(workers) as pool:
        paths = list(
            tqdm(pool.map(partial(_shard_to_file, directory), firsts), total=len(firsts), unit="shard")
        )
    return paths
