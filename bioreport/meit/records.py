"""From a recording to what MEIT's encoder sees: 12 leads, 10 s at 500 Hz, from 0 to 1 over all leads."""

import json
from dataclasses import asdict, dataclass
from itertools import islice
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from bioreport.ecg.preprocess import MEIT, EcgBatch, stream_windows
from bioreport.ecg.reading import EcgRecording, open_ecg
from bioreport.errors import InputError
from bioreport.evidence import Evidence

_SEARCHED = 30  # windows, 5 min


@dataclass(frozen=True)
class EcgRecord:
    """Ten seconds of a recording.

    Attributes
    ----------
    file : str
        Name of the recording's file.
    data : Tensor [12, 5000], float32
        0–1 over all leads that are usable, 0 in the others and behind a shorter recording's end.
    start_seconds : float
        Where in the recording they begin.
    absent : tuple of str
        Leads that the recording lacks or that hold no usable signal there.
    """

    file: str
    data: Tensor
    start_seconds: float
    absent: tuple[str, ...]

    @property
    def warnings(self) -> list[str]:
        """Sentences for the report."""
        sentences = []
        if self.absent:
            sentences.append(f"{', '.join(self.absent)}: no usable signal, the model saw none.")
        if self.start_seconds:
            sentences.append(f"The model saw the 10 s that begin at {self.start_seconds:g} s.")
        return sentences


def read_record(recording: EcgRecording | str | PathLike[str]) -> EcgRecord:
    """The first 10 s of a recording in which all leads are usable, or those of its first 5 min with most.

    Raises
    ------
    InputError
        Where it cannot be read, is shorter than 2.5 s, or has no usable lead there.
    """
    if not isinstance(recording, EcgRecording):
        recording = open_ecg(recording)
    best: EcgBatch | None = None
    for window in islice(stream_windows(recording, MEIT, batch_windows=1), _SEARCHED):
        if best is None or _usable(window) > _usable(best):
            best = window
        if _usable(best) == _usable_at_most(recording):
            break
    if best is None or not best.lead_mask.any():
        raise InputError(
            recording.path, "has no lead with a usable signal in its first 5 min",
            "give a recording with connected electrodes",
        )  # fmt: skip
    absent = tuple(lead for lead, usable in zip(MEIT.leads, best.lead_mask[0], strict=True) if not usable)
    return EcgRecord(
        recording.path.name, torch.from_numpy(best.data[0].copy()), float(best.start_seconds[0]), absent
    )


def _usable(window: EcgBatch) -> tuple[int, int]:
    """Usable leads and recorded samples of a window."""
    return int(window.lead_mask.sum()), int(window.n_valid[0])


def _usable_at_most(recording: EcgRecording) -> tuple[int, int]:
    return sum(lead in recording.leads for lead in MEIT.leads), MEIT.window_samples


# what decides the samples of a record, for `bioreport.tokens.recording_key`
RECORD_KEY = "record " + json.dumps([asdict(MEIT), _SEARCHED], sort_keys=True)


def record_evidence(path: Path) -> Evidence:
    """A record in the form that `bioreport.tokens.TokenStore` keeps: its samples are the tokens."""
    recording = open_ecg(path)
    record = read_record(recording)
    return Evidence(
        file=record.file,
        duration_seconds=recording.duration_seconds,
        channels=tuple(lead for lead in MEIT.leads if lead not in record.absent),
        tokens=record.data,
        findings=[],
        measurements={},
        warnings=record.warnings,
        modality="ecg",
    )
