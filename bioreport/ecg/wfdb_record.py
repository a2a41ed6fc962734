"""WFDB records: single or in segments, any of whose signals may be absent for a while.

The package wfdb reads whole records well; here a record is read in pieces of any length, after checks that
it does not make (see `bioreport.ecg.wfdb_header`). Tests hold the samples to those of wfdb's `rdrecord`.
"""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path

import numpy as np

from bioreport.ecg.wfdb_header import DAMAGED, Header, SignalLine, read_header
from bioreport.ecg.wfdb_signals import SignalFile
from bioreport.errors import InputError
from bioreport.source import Piece, Source, clean_labels
from bioreport.units import to_microvolts

_CHECKSUM_SAMPLES = 1 << 24  # longer records are not read through when they are opened
_BLOCK_SAMPLES = 1 << 18


@dataclass(frozen=True)
class _Place:
    """Where a signal lies: file of the segment, first column, and what makes a physical value of it."""

    file: int
    column: int
    line: SignalLine
    factor: float  # to the unit of the record's signal

    def physical(self, digital: np.ndarray, invalid: int) -> np.ndarray:
        values = (digital - self.line.baseline) * (self.factor / self.line.gain)
        values[digital == invalid] = np.nan
        return values


@dataclass(frozen=True)
class _Segment:
    """Frames of one header; places are those of the record's signals, None where it has not that signal."""

    start: int
    frames: int
    files: tuple[SignalFile, ...]
    places: tuple[_Place | None, ...]


@contextmanager
def _told_of(given: Path) -> Iterator[None]:
    """Errors of a record's parts begin with the name that the user gave."""
    try:
        yield
    except InputError as error:
        if Path(error.path).name == given.name:
            raise InputError(given, error.problem, error.cure) from error
        part = Path(error.path).name
        raise InputError(given, f"cannot be used: its file {part} {error.problem}", error.cure) from error


class WfdbSource(Source):
    """Samples of a WFDB record in the units of its header, NaN where it has none.

    Parameters
    ----------
    header : Path
        Files are opened anew at every read, so an instance holds none.
    given : Path, optional
        What the user named: the header, a signal file or the record. Errors begin with it.
    """

    def __init__(self, header: Path, given: Path | None = None) -> None:
        self.path = given or header
        with _told_of(self.path):
            self._open(header)

    def _open(self, path: Path) -> None:
        header = read_header(path)
        self.warnings = list(header.warnings)
        if header.segments:
            signals = self._open_segments(header)
        else:
            signals = header.signals
            self._segments = [self._open_segment(header, 0, signals)]
        last = self._segments[-1]
        self._frames = last.start + last.frames
        self._starts = [segment.start for segment in self._segments]
        self._widths = [line.samples_per_frame for line in signals]
        self.labels = tuple(clean_labels([line.label for line in signals]))
        self.units = tuple(line.unit or "mV" for line in signals)
        self.rates = tuple(header.rate * width for width in self._widths)
        self.kinds = (None,) * len(signals)
        self.unusable = {
            i: "its gain is zero"
            for i in range(len(signals))
            if any(s.places and (p := s.places[i]) and not p.line.gain for s in self._segments)
        }
        self.unit_stated = tuple(bool(line.unit) for line in signals)

    def pieces(self, sfreq: float) -> list[Piece]:
        """One stretch: gaps are filled with NaN."""
        width = next(w for w, rate in zip(self._widths, self.rates, strict=True) if rate == sfreq)
        return [Piece(0, self._frames * width, 0.0)]

    def read(self, rows: list[int], start: int, stop: int) -> np.ndarray:
        """Samples of signals of one rate, float64 [len(rows), stop - start], in the record's units."""
        out = np.full((len(rows), stop - start), np.nan)
        if stop <= start or not rows:
            return out
        width = self._widths[rows[0]]
        first, last = start // width, -(-stop // width)
        for segment in self._segments[max(bisect_right(self._starts, first) - 1, 0) :]:
            if segment.start >= last:
                break
            low, high = max(first, segment.start), min(last, segment.start + segment.frames)
            if low < high and segment.files:
                with _told_of(self.path):
                    values = _read_segment(segment, rows, low - segment.start, high - segment.start)
                begin = max(start - low * width, 0)
                target = low * width + begin - start
                values = values[:, begin : stop - low * width]
                out[:, target : target + values.shape[1]] = values
        return out

    def _open_segment(self, header: Header, start: int, signals: list[SignalLine]) -> _Segment:
        """Check a header against its files and place the record's signals in it."""
        files, columns = _files(header)
        for file in files:
            self.warnings += file.check(header.path)
        lengths = {file.length() for file in files}
        if len(lengths) > 1:
            raise InputError(header.path, "has signal files of different lengths", DAMAGED)
        if header.frames is None:
            self.warnings.append(
                "The header does not say how long the recording is; the signal file was read to its end."
            )
        segment = _Segment(start, lengths.pop(), files, _places(header, signals, columns))
        self._compare_sums(segment, header)
        return segment

    def _open_segments(self, record: Header) -> list[SignalLine]:
        """Open the segments of a record; returns its signals."""
        headers: dict[str, Header] = {}
        for name, frames in record.segments:
            if name != "~" and name not in headers:
                headers[name] = _segment_header(record, name, frames)
        if not headers:
            raise InputError(record.path, "consists of gaps only", "give a record with signals")
        starts = [0, *accumulate(frames for _, frames in record.segments)]
        if record.frames is not None and record.frames != starts[-1]:
            raise InputError(
                record.path,
                f"states {record.frames} samples a lead and has segments of {starts[-1]}",
                DAMAGED,
            )
        name, frames = record.segments[0]
        # a first segment of no length describes the signals of all (variable layout)
        signals = headers[name].signals if name != "~" else next(iter(headers.values())).signals
        self._segments = []
        for (name, frames), start in zip(record.segments, starts, strict=False):
            if name == "~" or not frames:
                self._segments.append(_Segment(start, frames, (), ()))
                continue
            segment = self._open_segment(headers[name], start, signals)
            if segment.frames != frames:
                raise InputError(
                    headers[name].path,
                    f"holds {segment.frames} samples a lead where its record says {frames}",
                    DAMAGED,
                )
            self._segments.append(segment)
        self.warnings = [*dict.fromkeys(self.warnings), *self._gaps(record.rate, signals)]
        return signals

    def _gaps(self, rate: float, signals: list[SignalLine]) -> list[str]:
        """Sentences on signals that some segments do not have."""
        absent: dict[int, list[str]] = {}
        for i, line in enumerate(signals):
            missing = sum(s.frames for s in self._segments if not s.files or s.places[i] is None)
            absent.setdefault(missing, []).append(line.label or f"signal {i + 1}")
        sentences = []
        for missing, labels in absent.items():
            if missing:
                which = "The recording" if len(absent) == 1 else ", ".join(clean_labels(labels))
                sentences.append(f"{which}: {missing / rate:.4g} s of gaps without signal.")
        return sentences

    def _compare_sums(self, segment: _Segment, header: Header) -> None:
        """Warn of signals whose first sample or sum is not the header's: the file may be damaged."""
        lines = header.signals
        if not segment.frames or not any(line.initial or line.checksum for line in lines):
            return
        wrong: list[str] = []
        for number, file in enumerate(segment.files):
            whole = segment.frames * file.samples <= _CHECKSUM_SAMPLES
            first = file.read(0, 1)
            sums = _sums(file, segment.frames) if whole else np.zeros(file.samples, np.int64)
            places = [p for p in _places(header, lines, _files(header)[1]) if p and p.file == number]
            for place in places:
                line = place.line
                mine = slice(place.column, place.column + line.samples_per_frame)
                if whole and line.checksum is not None:
                    right = (int(sums[mine].sum()) - line.checksum) % 65536 == 0
                else:
                    right = line.initial is None or line.skew > 0 or first[0, place.column] == line.initial
                if not right:
                    wrong.append(line.label or f"signal {len(wrong) + 1}")
        if wrong:
            few = ", ".join(clean_labels(wrong[:3])) + (" and others" if len(wrong) > 3 else "")
            self.warnings.append(
                f"The samples of {few} do not add up to the checksum in the header: the signal file may be "
                "damaged or of another record."
            )


def _sums(file: SignalFile, frames: int) -> np.ndarray:
    """Sum of each column over all frames, in blocks."""
    sums = np.zeros(file.samples, np.int64)
    step = max(1, _BLOCK_SAMPLES // file.samples)
    for start in range(0, frames, step):
        sums += file.read(start, min(start + step, frames)).sum(axis=0, dtype=np.int64)
    return sums


def _files(header: Header) -> tuple[tuple[SignalFile, ...], list[tuple[int, int]]]:
    """The signal files of a header, and for each signal its file and its first column there."""
    files: list[SignalFile] = []
    columns: list[tuple[int, int]] = []
    for name, group in groupby(header.signals, key=lambda line: line.file):
        lines = list(group)
        if len({(line.storage, line.offset) for line in lines}) > 1:
            raise InputError(header.path, "describes one signal file in two formats", DAMAGED)
        path = header.path.with_name(name)
        if name == "~" or path in (file.path for file in files):
            problem = "has a signal without a file" if name == "~" else "names a signal file at two places"
            raise InputError(header.path, problem, DAMAGED)
        widths = tuple(line.samples_per_frame for line in lines)
        columns += [(len(files), int(sum(widths[:i]))) for i in range(len(lines))]
        files.append(SignalFile(path, lines[0].storage, lines[0].offset, widths, header.frames))
    return tuple(files), columns


def _places(
    header: Header, signals: list[SignalLine], columns: list[tuple[int, int]]
) -> tuple[_Place | None, ...]:
    """Where each of the record's signals is in a segment, by name where names tell them apart."""
    named = [line.label for line in header.signals]
    by_name = len(set(named)) == len(named) and len({line.label for line in signals}) == len(signals)
    places: list[_Place | None] = []
    for i, signal in enumerate(signals):
        if by_name:
            at = named.index(signal.label) if signal.label in named else None
        else:
            at = i if i < len(named) and named[i] == signal.label else None
        if at is None:
            places.append(None)
            continue
        line = header.signals[at]
        if line.samples_per_frame != signal.samples_per_frame:
            raise InputError(header.path, "changes the sampling rate of a signal between segments", DAMAGED)
        places.append(_Place(*columns[at], line, _factor(header, line, signal)))
    return tuple(places)


def _factor(header: Header, line: SignalLine, signal: SignalLine) -> float:
    if (line.unit or "mV") == (signal.unit or "mV"):
        return 1.0
    here, there = to_microvolts(line.unit or "mV"), to_microvolts(signal.unit or "mV")
    if here is None or there is None:
        raise InputError(header.path, "changes the unit of a signal between segments", DAMAGED)
    return here / there


def _segment_header(record: Header, name: str, frames: int) -> Header:
    path = record.path.with_name(f"{name}.hea")
    if not path.is_file():
        raise InputError(
            record.path, f"names the segment {path.name}, which is not beside it",
            "put all files of the ECG record into one folder",
        )  # fmt: skip
    header = read_header(path)
    if header.segments:
        raise InputError(record.path, "has a segment that consists of segments itself", DAMAGED)
    if header.rate != record.rate:
        raise InputError(path, f"has {header.rate:g} Hz where its record has {record.rate:g} Hz", DAMAGED)
    return header


def _read_segment(segment: _Segment, rows: list[int], low: int, high: int) -> np.ndarray:
    """Frames `low` to `high` of a segment, float64 [len(rows), samples]."""
    width = next((p.line.samples_per_frame for r in rows if (p := segment.places[r])), 1)
    out = np.full((len(rows), (high - low) * width), np.nan)
    for number, file in enumerate(segment.files):
        wanted = [(i, p) for i, row in enumerate(rows) if (p := segment.places[row]) and p.file == number]
        if not wanted:
            continue
        # a skewed signal lags: what belongs to a frame is stored so many frames later
        data = file.read(low, min(high + max(p.line.skew for _, p in wanted), segment.frames))
        for i, place in wanted:
            skew, column = place.line.skew, place.column
            stored = data[skew : skew + high - low, column : column + width].reshape(-1)
            out[i, : len(stored)] = place.physical(stored, file.invalid)
    return out
