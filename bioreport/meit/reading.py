"""What MEIT needs of a recording for a report, without the model."""

from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from bioreport.ecg.evidence import measured_evidence
from bioreport.ecg.reading import EcgRecording
from bioreport.errors import InputError
from bioreport.evidence import Evidence
from bioreport.meit.records import read_record
from bioreport.recording import Recording, open_recording
from bioreport.stages import Stages


@dataclass(frozen=True)
class MeitReader:
    """Reads recordings for MEIT, which needs no part of the model.

    Attributes
    ----------
    name : str
        What reports call the model.
    """

    name: str

    def read(
        self,
        item: Any,
        *,
        line_frequency: float | None = None,
        signal: str = "tokens",
        stages: Stages | None = None,
    ) -> list[Evidence]:
        """Measurements of a recording, with the 10 s that the model sees as its tokens [12, 5000].

        Raises
        ------
        InputError
            Where the recording is no ECG or cannot be used, for several recordings in one report, and for
            another `signal`: MEIT has no other way to see one.
        """
        stages = stages or Stages()
        sources = item if isinstance(item, tuple) else (item,)
        recording = open_recording(sources[0]) if isinstance(sources[0], str | PathLike) else sources[0]
        if len(sources) > 1:
            raise InputError(
                recording.path, "cannot share a report, MEIT sees one record", "leave out --together"
            )
        if isinstance(recording, Recording):
            raise InputError(
                recording.path, f"is an EEG, but {self.name} is a MEIT model, for ECGs", "give an ECG"
            )
        if signal != "tokens":
            raise InputError(
                recording.path, f"cannot be reported with --signal {signal} by MEIT", "use --signal tokens"
            )
        assert isinstance(recording, EcgRecording)
        with stages("preprocess"):
            record = read_record(recording)
        measured = measured_evidence(recording, stages)
        return [replace(measured, tokens=record.data, warnings=[*measured.warnings, *record.warnings])]
