"""Simulated recordings as files: EDF or WFDB without any patient data, and a manifest with the truth."""

import io
import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edfio
import numpy as np
from tqdm import tqdm

from bioreport.corpora.splits import split_of
from bioreport.errors import InputError
from bioreport.files import write_atomically
from bioreport.manifest import check_manifest_replaceable, read_manifest

if TYPE_CHECKING:
    from bioreport.ecg.simulation import EcgSimulation
    from bioreport.simulate import Simulation

log = logging.getLogger(__name__)
ENDINGS = {"eeg": ".edf", "ecg": ".hea"}


def write_edf(simulation: "Simulation", path: str | os.PathLike[str]) -> None:
    """Write a simulated recording as EDF, whole or not at all.

    Parameters
    ----------
    simulation : Simulation
    path : path-like
        Replaced where it exists. A last record that is not full is padded with the last sample.

    Raises
    ------
    InputError
        The folder cannot be written to.
    """
    target = Path(path)
    rows = [*zip(simulation.labels, simulation.data, strict=True), *simulation.extras.items()]
    record = max(1, round(simulation.sfreq)) / simulation.sfreq
    per_record = round(record * simulation.sfreq)
    signals = []
    for label, values in rows:
        padded = np.pad(values, (0, -len(values) % per_record), mode="edge").astype(np.float64)
        limit = float(np.ceil(max(np.abs(padded).max() * 1.001, 100.0)))
        signals.append(
            edfio.EdfSignal(
                padded,
                simulation.sfreq,
                label=label,
                physical_dimension="uV",
                physical_range=(-limit, limit),
            )
        )
    edf = edfio.Edf(signals, data_record_duration=record)
    content = io.BytesIO()
    edf.write(content)
    write_atomically(target, content.getvalue())


def manifest_line(simulation: "Simulation | EcgSimulation", recording: str, patient: str) -> dict[str, Any]:
    """Return the manifest's object of one recording."""
    return {
        "recording": recording,
        "patient": patient,
        "history": simulation.history,
        "sections": simulation.sections,
        "findings": simulation.findings,
        "events": [
            {
                "name": event.name,
                "start_seconds": event.start_seconds,
                "end_seconds": event.end_seconds,
                "channels": list(event.channels),
            }
            for event in simulation.events
        ],
        "split": split_of(patient),
    }


def simulate_corpus(
    count: int,
    seed: int,
    directory: str | os.PathLike[str],
    *,
    modality: str = "eeg",
    duration_seconds: float | None = None,
    split: str | None = None,
    progress: bool = False,
) -> Path:
    """Write `count` simulated recordings and their manifest.

    Parameters
    ----------
    count : int
        Recordings; each is a patient of its own.
    seed : int
        Recording i is ``simulate_eeg(seed * 1_000_003 + i)``, or `simulate_ecg` of the same.
    directory : path-like
        Made where it does not exist. Recordings go into it as ``sim-<seed>-<i>.edf`` or ``.hea``.
    modality : str
        ``"eeg"`` or ``"ecg"``.
    duration_seconds : float, optional
        Of each recording; varied (EEG) or 10 s (ECG) where not given.
    split : str, optional
        One split for all; by the hash of the patient where not given.
    progress : bool
        Show a bar on stderr.

    Returns
    -------
    Path
        ``directory/manifest.jsonl``, written last and at once.

    Raises
    ------
    InputError
        The folder cannot be written to, or holds the manifest of other recordings.
    """
    folder = Path(directory)
    patients = [f"sim-{seed}-{i:05d}" for i in range(count)]
    manifest = folder / "manifest.jsonl"
    _check(manifest, {f"{patient}{ENDINGS[modality]}" for patient in patients})
    lines = []
    for i, patient in enumerate(tqdm(patients, desc="simulate", unit="recording", disable=not progress)):
        entry = _write_one(modality, seed * 1_000_003 + i, duration_seconds, folder, patient)
        if split is not None:
            entry["split"] = split
        lines.append(json.dumps(entry, ensure_ascii=False))
    write_atomically(manifest, "\n".join(lines) + "\n" * bool(lines))
    log.info("%d recordings in %s", count, folder)
    return manifest


def _check(manifest: Path, names: set[str]) -> None:
    """See that a manifest that is there lists nothing but these recordings, which are written anew."""
    check_manifest_replaceable(manifest)
    if not manifest.is_file() or not manifest.stat().st_size:
        return
    listed = {
        path.relative_to(manifest.parent).as_posix() if path.is_relative_to(manifest.parent) else str(path)
        for entry in read_manifest(manifest)
        for path in entry.recordings
    }
    if others := sorted(listed - names):
        raise InputError(
            manifest,
            f"lists {others[0]}, which would not be among the recordings",
            "choose a new folder with -o, or remove that manifest",
        )


def _write_one(
    modality: str, seed: int, duration_seconds: float | None, folder: Path, patient: str
) -> dict[str, Any]:
    name = f"{patient}{ENDINGS[modality]}"
    if modality == "ecg":
        from bioreport.ecg.simulation import simulate_ecg, write_record

        ecg = simulate_ecg(seed, duration_seconds=duration_seconds)
        write_record(ecg, folder / name)
        return manifest_line(ecg, name, patient)
    from bioreport.simulate import simulate_eeg

    eeg = simulate_eeg(seed, duration_seconds=duration_seconds)
    write_edf(eeg, folder / name)
    return manifest_line(eeg, name, patient)
