"""ECG waveforms of DICOM files, read by pydicom (an optional dependency: ``pip install 'bioreport[dicom]'``).

The rhythm of 12-lead, general and ambulatory ECG objects (DICOM PS3.3 A.34) is read; a median beat that a
cardiograph adds is not. pydicom keeps the samples of a file in memory. Names, dates and identifiers of the
patient are not kept.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from bioreport.errors import InputError
from bioreport.source import Piece, Source, clean_labels

DAMAGED = "export it again"
# last number of a lead's code in SCP-ECG (5.6.3-9-n) and of its MDC code (2:n) -> lead
_CODES = {
    **{str(n): lead for n, lead in enumerate(("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"), 1)},
    "61": "III", "62": "aVR", "63": "aVL", "64": "aVF",
}  # fmt: skip
_CODED = {"SCPECG": "5.6.3-9-", "MDC": "2:"}
_DTYPES = {
    ("SS", 16): "i2", ("US", 16): "u2", ("SB", 8): "i1", ("UB", 8): "u1", ("SL", 32): "i4", ("UL", 32): "u4",
}  # fmt: skip


def is_dicom(start: bytes) -> bool:
    """Whether a file that begins with these bytes is DICOM."""
    return start[128:132] == b"DICM"


class DicomSource(Source):
    """Samples of the rhythm in a DICOM waveform file, in the units of its header."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            import pydicom
        except ImportError as error:
            raise InputError(
                path, "is DICOM, for which the package pydicom is missing", "pip install 'bioreport[dicom]'"
            ) from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self._take(_rhythm(path, pydicom.dcmread(path)))
            except (InputError, MemoryError):
                raise
            except Exception as error:
                # pydicom decodes when it is asked, and raises whatever a damaged file leads it to
                raise InputError(
                    path, f"cannot be read as DICOM ({type(error).__name__})", DAMAGED
                ) from error

    def _take(self, group: Any) -> None:
        channels = list(group.ChannelDefinitionSequence)
        rate = float(group.SamplingFrequency)
        n_samples = int(group.NumberOfWaveformSamples)
        if not channels or not 0 < rate < 1e7:
            raise InputError(
                self.path, "describes a waveform of no lead or no sampling rate (DICOM)", DAMAGED
            )
        # in the byte order of the file: little in every transfer syntax but a retired one
        kind = "<" + _DTYPES[str(group.WaveformSampleInterpretation), int(group.WaveformBitsAllocated)]
        samples = np.frombuffer(group.WaveformData, kind)
        if len(samples) < n_samples * len(channels):
            held = len(samples) // len(channels)
            raise InputError(
                self.path, f"holds {held} samples a lead where its header says {n_samples}", DAMAGED
            )
        padding = group.get("WaveformPaddingValue")
        self.labels = tuple(clean_labels([_label(channel) for channel in channels]))
        self.units = tuple(_unit(channel) for channel in channels)
        self.rates = (rate,) * len(channels)
        self.kinds = (None,) * len(channels)
        self.warnings = []
        self._samples = samples[: n_samples * len(channels)].reshape(n_samples, len(channels))
        self._padding = None if padding is None else np.frombuffer(bytes(padding), kind)[0]
        self._scales = [_scale(channel) for channel in channels]
        self.unusable = {
            i: "its sensitivity is zero or missing" for i, (gain, _) in enumerate(self._scales) if not gain
        }

    def pieces(self, sfreq: float) -> list[Piece]:
        """One stretch."""
        return [Piece(0, len(self._samples), 0.0)]

    def read(self, rows: list[int], start: int, stop: int) -> np.ndarray:
        """Samples, float64 [len(rows), stop - start], NaN where padded."""
        digital = self._samples[start:stop, rows].T
        gains, baselines = np.array([self._scales[row] for row in rows]).reshape(-1, 2).T
        data = digital * gains[:, np.newaxis] + baselines[:, np.newaxis]
        if self._padding is not None:
            data[digital == self._padding] = np.nan
        return np.asarray(data, np.float64)


def _rhythm(path: Path, dataset: Any) -> Any:
    """The longest waveform group that was recorded, not computed."""
    groups = list(dataset.get("WaveformSequence") or [])
    recorded = [g for g in groups if g.get("WaveformOriginality", "ORIGINAL") == "ORIGINAL"]
    if not recorded:
        problem = "holds no recorded waveform (DICOM)" if groups else "is DICOM, but holds no waveform"
        raise InputError(path, problem, "give the ECG's waveform object, not an image or a document")
    return max(recorded, key=lambda g: int(g.get("NumberOfWaveformSamples") or 0))


def _label(channel: Any) -> str:
    source = (channel.get("ChannelSourceSequence") or [None])[0]
    if source is None:
        return str(channel.get("ChannelLabel") or "")
    code, scheme = str(source.get("CodeValue") or ""), str(source.get("CodingSchemeDesignator") or "")
    start = _CODED.get(scheme, "")
    if start and code.startswith(start) and code.removeprefix(start) in _CODES:
        return _CODES[code.removeprefix(start)]
    return str(source.get("CodeMeaning") or channel.get("ChannelLabel") or code)


def _unit(channel: Any) -> str:
    units = channel.get("ChannelSensitivityUnitsSequence") or []
    return str(units[0].get("CodeValue") or "") if units else ""


def _scale(channel: Any) -> tuple[float, float]:
    """Gain and baseline, physical = gain * digital + baseline; a gain of zero where there is none."""
    try:
        sensitivity = float(channel.ChannelSensitivity)
        correction = channel.get("ChannelSensitivityCorrectionFactor")
        gain = sensitivity * (1.0 if correction in (None, "") else float(correction))
        return (gain if np.isfinite(gain) else 0.0), float(channel.get("ChannelBaseline") or 0.0)
    except (AttributeError, TypeError, ValueError):
        return 0.0, 0.0
