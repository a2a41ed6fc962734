"""A recording as electrodes in microvolts, read piece by piece.

Three lines:

>>> from bioreport.recording import open_recording
>>> recording = open_recording("recording.edf")          # doctest: +SKIP
>>> recording.read(0, 256).shape                         # doctest: +SKIP
(19, 256)
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bioreport.bids import Sidecar, SidecarChannel, read_sidecar
from bioreport.ecg.dicom import DicomSource
from bioreport.ecg.leads import is_ecg
from bioreport.ecg.wfdb_record import WfdbSource
from bioreport.edf import EdfSource
from bioreport.errors import InputError
from bioreport.formats import open_source
from bioreport.montage import cap_rows
from bioreport.selection import Selection, select_channels
from bioreport.source import Source
from bioreport.units import LEAST_UV, MOST_UV, guess_unit, to_microvolts, typical_spread

if TYPE_CHECKING:
    from bioreport.ecg.reading import EcgRecording

_WINDOWS = 12
_WINDOW_SECONDS = 2.0
_RATES = (10.0, 100_000.0)  # Hz


@dataclass(frozen=True)
class Channel:
    """A channel as the file has it.

    Attributes
    ----------
    label : str
        As in the file, control characters and words of the patient's identification removed.
    name : str or None
        The electrode it is, where it is used as one.
    kind : str
        ``eeg``, ``eog``, ``ecg``, ``emg``, ``stim``, ``resp`` or ``misc``.
    unit : str
        As written, or the one decided upon where nothing is written.
    sfreq : float
        Hz.
    status : str
        ``good`` or ``bad`` (marked by a sidecar or not decodable).
    """

    label: str
    name: str | None
    kind: str
    unit: str
    sfreq: float
    status: str


@dataclass(frozen=True)
class Segment:
    """A stretch without a gap: samples `start` to `stop` of the stored signal.

    Attributes
    ----------
    onset_seconds : float
        When it begins, s from the first sample of the recording.
    """

    start: int
    stop: int
    onset_seconds: float


@dataclass
class Recording:
    """An open recording; holds no samples and no open file.

    Attributes
    ----------
    path : Path
        Where it was read from.
    modality : str
        ``eeg``.
    sfreq : float
        Hz, of the rows that `read` returns.
    n_samples : int
        Samples of the stored signal, gaps not counted.
    duration_seconds : float
        Of the stored signal, s.
    channels : tuple of Channel
        All channels of the file.
    names : tuple of str
        Electrodes, the rows that `read` returns.
    segments : tuple of Segment
        Stretches without a gap; filters must not run across their borders.
    line_frequency : float or None
        Mains frequency by a BIDS sidecar, Hz.
    warnings : list of str
        Sentences on everything that was not as it should be.
    mapping : dict of str to str
        Label to electrode name, or to the reason why the channel is not used.
    """

    path: Path
    modality: str
    sfreq: float
    n_samples: int
    duration_seconds: float
    channels: tuple[Channel, ...]
    names: tuple[str, ...]
    segments: tuple[Segment, ...]
    line_frequency: float | None
    warnings: list[str]
    mapping: dict[str, str]
    _reader: Callable[[int, int], np.ndarray] = field(repr=False)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples `start` to `stop` of the stored signal.

        Returns
        -------
        ndarray of float64, shape (len(names), stop - start)
            µV; NaN where the file has no valid sample.

        Raises
        ------
        ValueError
            The range is not within the recording.
        """
        if not 0 <= start <= stop <= self.n_samples:
            raise ValueError(f"samples {start} to {stop} are not within 0 to {self.n_samples}")
        data = self._reader(start, stop)
        data[~np.isfinite(data)] = np.nan
        return data

    def stream(self, chunk_seconds: float = 60.0) -> Iterator[tuple[Segment, int, np.ndarray]]:
        """The whole signal in chunks that do not cross a gap.

        Parameters
        ----------
        chunk_seconds : float
            Length of a chunk, s; the last of a segment is shorter.

        Yields
        ------
        tuple of (Segment, int, ndarray)
            The segment, the chunk's first sample, its data as from `read`.
        """
        length = max(1, round(chunk_seconds * self.sfreq))
        for segment in self.segments:
            for start in range(segment.start, segment.stop, length):
                yield segment, start, self.read(start, min(start + length, segment.stop))

    @classmethod
    def from_array(cls, data_uv: np.ndarray, sfreq: float, names: Sequence[str]) -> "Recording":
        """A recording in memory.

        Parameters
        ----------
        data_uv : ndarray, shape (n_channels, n_samples)
            µV.
        sfreq : float
            Hz.
        names : sequence of str
            Electrode names as in `bioreport.montage`.
        """
        data = np.asarray(data_uv)
        if data.ndim != 2 or len(data) != len(names) or not sfreq > 0:
            raise ValueError(f"data of shape {data.shape} at {sfreq} Hz do not fit {len(names)} channels")
        n_samples = data.shape[1]
        return cls(
            path=Path("array"),
            modality="eeg",
            sfreq=float(sfreq),
            n_samples=n_samples,
            duration_seconds=n_samples / sfreq,
            channels=tuple(Channel(n, n, "eeg", "µV", float(sfreq), "good") for n in names),
            names=tuple(names),
            segments=(Segment(0, n_samples, 0.0),),
            line_frequency=None,
            warnings=[],
            mapping={n: n for n in names},
            _reader=lambda start, stop: data[:, start:stop].astype(np.float64),
        )


def open_recording(path: str | PathLike[str]) -> "Recording | EcgRecording":
    """Open an EEG (EDF, EDF+, BDF, BrainVision, EEGLAB, FIF) or an ECG (WFDB, EDF, DICOM).

    An EDF without a scalp electrode but with a lead of the heart is an ECG.

    Parameters
    ----------
    path : str or path-like
        The file, or the name of a WFDB record; BIDS sidecars beside an EEG are used.

    Returns
    -------
    Recording or EcgRecording
        Electrodes in µV, or leads in mV, by their canonical names, with `warnings` on everything unusual.

    Raises
    ------
    InputError
        The file can give neither; one sentence with the cure.
    """
    path = Path(path)
    source = open_source(path)
    if _is_ecg(source):
        from bioreport.ecg.reading import ecg_from_source

        return ecg_from_source(source, path)
    return _eeg_from_source(source, path)


def _is_ecg(source: Source) -> bool:
    if isinstance(source, EdfSource):
        return is_ecg(label for label, kind in zip(source.labels, source.kinds, strict=True) if kind is None)
    return isinstance(source, WfdbSource | DicomSource)


def _eeg_from_source(source: Source, path: Path) -> Recording:
    sidecar = read_sidecar(path)
    rows = _sidecar_rows(source.labels, sidecar)
    unusable = {i: f"not used: {reason}" for i, reason in source.unusable.items()}
    unusable |= {i: "not used: marked bad in channels.tsv" for i, row in enumerate(rows) if row and row.bad}
    stated = [(row.kind if row else None) or kind for row, kind in zip(rows, source.kinds, strict=True)]
    selection = select_channels(source.labels, source.rates, stated, unusable)
    if not selection.names:
        raise _no_electrodes(path, source, selection, unusable)
    warnings = [*source.warnings, *sidecar.warnings, *_unusable_warnings(source, selection, unusable)]
    warnings += selection.warnings
    sfreq = source.rates[selection.rows[0]]
    if not _RATES[0] <= sfreq <= _RATES[1]:
        raise InputError(path, f"states a sampling rate of {sfreq:g} Hz, which no EEG has", "export it again")
    segments = tuple(Segment(p.start, p.stop, p.onset) for p in source.pieces(sfreq) if p.stop > p.start)
    if not segments:
        raise InputError(path, "holds no samples", "give a recording that was not cut to nothing")
    units = [
        row.unit if row and row.unit and to_microvolts(unit) is None else unit
        for row, unit in zip(rows, source.units, strict=True)
    ]
    factors = _factors(source, selection.rows, units, segments, sfreq, warnings)
    used = dict(zip(selection.rows, selection.names, strict=True)) if selection.matrix is None else {}
    n_samples = segments[-1].stop
    described = zip(source.labels, selection.kinds, source.rates, strict=True)
    return Recording(
        path=path,
        modality="eeg",
        sfreq=sfreq,
        n_samples=n_samples,
        duration_seconds=n_samples / sfreq,
        channels=tuple(
            Channel(label, used.get(i), kind, units[i], rate, "bad" if i in unusable else "good")
            for i, (label, kind, rate) in enumerate(described)
        ),
        names=selection.names,
        segments=segments,
        line_frequency=sidecar.line_frequency,
        warnings=warnings,
        mapping=selection.mapping,
        _reader=_Reader(source, selection.rows, factors, selection.matrix),
    )


@dataclass
class _Reader:
    """Rows of a source in µV, as electrodes."""

    source: Source
    rows: list[int]
    factors: np.ndarray
    matrix: np.ndarray | None

    def __call__(self, start: int, stop: int) -> np.ndarray:
        try:
            data = self.source.read(self.rows, start, stop)
        except OSError as error:
            raise InputError(
                self.source.path, f"cannot be read further ({error.strerror or 'input/output error'})",
                "check the disk or the connection to it",
            ) from error  # fmt: skip
        data *= self.factors[:, np.newaxis]
        return data if self.matrix is None else self.matrix @ data


def _sidecar_rows(labels: tuple[str, ...], sidecar: Sidecar) -> list[SidecarChannel | None]:
    seen: Counter[str] = Counter()
    rows: list[SidecarChannel | None] = []
    for label in labels:
        named = sidecar.channels.get(label, [])
        rows.append(named[min(seen[label], len(named) - 1)] if named else None)
        seen[label] += 1
    return rows


def _no_electrodes(path: Path, source: Source, selection: Selection, unusable: dict[int, str]) -> InputError:
    counts = Counter(selection.kinds)
    kinds = ", ".join(f"{n} {kind}" for kind, n in counts.most_common())
    if not counts["eeg"]:
        problem = f"has no EEG channel among its {len(source.labels)} (by their labels: {kinds})"
    elif all(i in unusable for i, kind in enumerate(selection.kinds) if kind == "eeg"):
        problem = f"has {counts['eeg']} EEG channels that are all marked bad or without a valid scale"
        return InputError(path, problem, "mark the usable ones good in channels.tsv, or export it again")
    elif cap_rows(source.labels):
        problem = (
            "labels its EEG channels by numbered cap positions (such as A3 or E5), which are no 10-20 names"
        )
    elif any("bipolar" in reason for reason in selection.mapping.values()):
        problem = "has only bipolar EEG channels that join fewer than eight electrodes"
        return InputError(path, problem, "export the recording in a referential montage")
    else:
        problem = f"has no channel with a 10-20 name (by their labels: {kinds})"
    return InputError(path, problem, "give a recording whose channels are named Fp1, C3, O2 and so on")


def _unusable_warnings(source: Source, selection: Selection, unusable: dict[int, str]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for i, reason in unusable.items():
        if selection.kinds[i] == "eeg":
            by_reason.setdefault(reason.removeprefix("not used: "), []).append(source.labels[i])
    return [f"{', '.join(labels)}: not used ({reason})." for reason, labels in by_reason.items()]


def _factors(
    source: Source, rows: list[int], units: list[str], segments: tuple[Segment, ...], sfreq: float,
    warnings: list[str],
) -> np.ndarray:  # fmt: skip
    """Factor to µV for every row; decides the unit of rows without one, and doubts an impossible one."""
    known = [to_microvolts(units[i]) for i in rows]
    spreads = typical_spread(_windows(source, rows, segments, sfreq))
    without = [k for k, factor in enumerate(known) if factor is None]
    if without:
        finite = spreads[without][np.isfinite(spreads[without])]
        unit = guess_unit(float(np.median(finite))) if finite.size else None
        count = "The" if len(without) == len(rows) else f"{len(without)} of the {len(rows)}"
        if unit is None:
            warnings.append(
                f"{count} EEG channels have no unit of voltage and an amplitude that fits none; "
                "µV is assumed, amplitudes may be wrong."
            )
        else:
            warnings.append(f"{count} EEG channels have no unit of voltage; by their amplitude it is {unit}.")
        for k in without:
            units[rows[k]] = unit or "µV"
    factors = np.array([to_microvolts(units[i]) for i in rows], np.float64)
    stated = [k for k in range(len(rows)) if k not in without and np.isfinite(spreads[k])]
    if stated:
        typical = float(np.median((spreads * factors)[stated]))
        if not LEAST_UV / 10 <= typical <= MOST_UV * 5:
            warnings.append(
                f"The EEG channels vary by {typical:.3g} µV, too much or too little for a scalp: "
                "their unit in the header may be wrong."
            )
    return factors


def _windows(
    source: Source, rows: list[int], segments: tuple[Segment, ...], sfreq: float
) -> list[np.ndarray]:
    """Short stretches spread over the recording."""
    length = max(1, round(_WINDOW_SECONDS * sfreq))
    n_samples = segments[-1].stop
    starts = np.unique(np.linspace(0, max(n_samples - length, 0), _WINDOWS).astype(int))
    return [source.read(rows, int(start), min(int(start) + length, n_samples)) for start in starts]
