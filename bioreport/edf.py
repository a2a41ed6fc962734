"""EDF, EDF+ and BDF: header, checks against the file, gaps, samples.

MNE's reader is not used for these: it takes an unknown unit for volts, resamples mixed rates chunk by chunk,
joins the pieces of a discontinuous file without a word and keeps all annotations of a file in memory
(MNE 1.13). Format: Kemp et al. 1992 (EDF), Kemp and Olivan 2003 (EDF+), BioSemi (BDF). Patient and recording
identification are read only so far as to keep their words out of labels.
"""

import re
from dataclasses import dataclass, field
from io import FileIO
from itertools import pairwise
from pathlib import Path

import numpy as np

from bioreport.edf_checks import check_not_text, excess_records, tal_onset
from bioreport.errors import InputError
from bioreport.source import Piece, Source, clean_labels

DAMAGED = "copy the file again from the recorder, in binary mode"
_LARGE_RECORD_BYTES = 1 << 20


@dataclass
class EdfHeader:
    """What the header says, patient and recording identification left out.

    Attributes
    ----------
    labels, units : list of str
        A channel's label (cleaned) and physical dimension.
    gain, offset : ndarray, shape (n_channels,)
        physical = gain * digital + offset; NaN where the header gives no valid range.
    samples : ndarray of int, shape (n_channels,)
        Samples of a channel in one data record.
    """

    path: Path
    bdf: bool
    plus: bool
    discontinuous: bool
    header_bytes: int
    n_records: int
    record_seconds: float
    labels: list[str]
    units: list[str]
    gain: np.ndarray
    offset: np.ndarray
    samples: np.ndarray
    annotation: np.ndarray
    warnings: list[str] = field(default_factory=list)

    @property
    def sample_bytes(self) -> int:
        return 3 if self.bdf else 2

    @property
    def record_bytes(self) -> int:
        return int(self.samples.sum()) * self.sample_bytes


def is_edf(start: bytes) -> bool:
    """Whether a file that begins with these bytes is EDF or BDF."""
    return start[:8] == b"0       " or start[:8] == b"\xffBIOSEMI"


def read_header(path: Path) -> EdfHeader:
    """Read and check an EDF or BDF header.

    Raises
    ------
    InputError
        No EDF/BDF header, a damaged one, or one that does not fit the file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        fixed = file.read(256)
        if not is_edf(fixed):
            raise InputError(path, "is not an EDF or BDF file", "give the recording itself")
        if len(fixed) < 256:
            raise InputError(path, "ends inside its header", DAMAGED)
        n = _integer(path, fixed[252:256], "number of signals")
        if n < 1:
            raise InputError(path, "holds no channel at all", "give a recording with EEG channels")
        table = file.read(256 * n)
    if len(table) < 256 * n:
        raise InputError(path, "ends inside its header", DAMAGED)
    header_bytes = _integer(path, fixed[184:192], "header size")
    if header_bytes != 256 * (n + 1):
        raise InputError(
            path, f"states a header of {header_bytes} bytes where {n} signals need {256 * (n + 1)}", DAMAGED
        )

    def column(offset: int, width: int) -> list[bytes]:
        start = offset * n
        return [table[start + i * width : start + (i + 1) * width] for i in range(n)]

    raw_labels = [_text(b) for b in column(0, 16)]
    annotation = np.array([t in ("EDF Annotations", "BDF Annotations") for t in raw_labels])
    pmin, pmax, dmin, dmax = (
        np.array([_number(path, b, name, optional=True) for b in column(offset, 8)])
        for offset, name in (
            (104, "physical minimum"), (112, "physical maximum"),
            (120, "digital minimum"), (128, "digital maximum"),
        )
    )  # fmt: skip
    samples = np.array([_integer(path, b, "samples per record") for b in column(216, 8)])
    if (samples < 0).any() or samples.sum() <= 0:
        raise InputError(path, "states no samples for its channels", DAMAGED)
    with np.errstate(all="ignore"):
        gain = (pmax - pmin) / (dmax - dmin)
        gain = np.where(np.isfinite(gain) & (gain != 0) & (samples > 0), gain, np.nan)
    header = EdfHeader(
        path=path,
        bdf=fixed[0] == 0xFF,
        plus=fixed[192:197] in (b"EDF+C", b"EDF+D", b"BDF+C", b"BDF+D"),
        discontinuous=fixed[192:197] in (b"EDF+D", b"BDF+D"),
        header_bytes=header_bytes,
        n_records=_integer(path, fixed[236:244], "number of records"),
        record_seconds=_number(path, fixed[244:252], "record duration"),
        labels=clean_labels(raw_labels, private=_text(fixed[8:168])),
        units=[_text(b) for b in column(96, 8)],
        gain=gain,
        offset=pmin - gain * dmin,
        samples=samples,
        annotation=annotation,
    )
    if annotation.all():
        raise InputError(path, "holds annotations only and no signal", "give the recording they belong to")
    if not header.record_seconds > 0:
        raise InputError(path, "states data records of no duration", DAMAGED)
    _fit_to_file(header, size)
    return header


def _fit_to_file(header: EdfHeader, size: int) -> None:
    """Make `n_records` what the file holds, say so, or refuse what cannot be read right."""
    held, rest = divmod(size - header.header_bytes, header.record_bytes)
    if header.n_records == held and rest == 0:
        return
    check_not_text(header.path, header.header_bytes, size)
    seconds = header.record_seconds
    if held < 1:
        raise InputError(header.path, "holds not one whole data record", DAMAGED)
    if header.n_records <= 0:
        header.warnings.append(
            f"The header does not say how long the recording is; the file holds {held * seconds:g} s."
        )
        header.n_records = held
    elif held < header.n_records:
        header.warnings.append(
            f"The file is truncated: its header promises {header.n_records * seconds:g} s, "
            f"{held * seconds:g} s are there and were read."
        )
        header.n_records = held
    else:
        excess_records(header.path, held - header.n_records, rest, header.record_bytes)
        header.warnings.append(
            f"The file is {size - header.header_bytes - header.n_records * header.record_bytes} bytes longer "
            f"than its header says; only the stated {header.n_records * seconds:g} s were read."
        )


class EdfSource(Source):
    """Samples of an EDF or BDF file in the units of its header.

    Parameters
    ----------
    path : Path
        Opened anew at every read, so an instance holds no file.
    """

    def __init__(self, path: Path) -> None:
        header = read_header(path)
        self._header = header
        self._starts = np.concatenate([[0], np.cumsum(header.samples)])
        self.path = path
        self.labels = tuple(header.labels)
        self.units = tuple(header.units)
        self.rates = tuple(float(s / header.record_seconds) for s in header.samples)
        self.kinds = tuple("stim" if a else None for a in header.annotation)
        self.unusable = {
            i: "no valid physical range in the header"
            for i in np.flatnonzero(np.isnan(header.gain) & ~header.annotation).tolist()
        }
        self.warnings = list(header.warnings)
        self._breaks = self._find_breaks()

    def pieces(self, sfreq: float) -> list[Piece]:
        """Stretches without a gap: first and last sample + 1 at `sfreq`, onset in s."""
        per_record = round(sfreq * self._header.record_seconds)
        bounds = [*(record for record, _ in self._breaks), self._header.n_records]
        return [
            Piece(first * per_record, after * per_record, onset)
            for (first, onset), after in zip(self._breaks, bounds[1:], strict=True)
        ]

    def read(self, rows: list[int], start: int, stop: int) -> np.ndarray:
        """Samples `start` to `stop` of channels of one rate, float64 [len(rows), stop - start]."""
        header = self._header
        out = np.empty((len(rows), stop - start))
        if stop <= start or not rows:
            return out
        per_record = int(header.samples[rows[0]])
        with self.path.open("rb", buffering=0) as file:
            if header.record_bytes > _LARGE_RECORD_BYTES:
                self._read_within_records(file, rows, per_record, start, out)
            else:
                self._read_whole_records(file, rows, per_record, start, out)
        out *= header.gain[rows, np.newaxis]
        out += header.offset[rows, np.newaxis]
        return out

    def _read_whole_records(
        self, file: FileIO, rows: list[int], per_record: int, start: int, out: np.ndarray
    ) -> None:
        header = self._header
        stop = start + out.shape[1]
        at_once = max(1, 4 * _LARGE_RECORD_BYTES // header.record_bytes)
        last = -(-stop // per_record)
        for first in range(start // per_record, last, at_once):
            count = min(at_once, last - first)
            offset = header.header_bytes + first * header.record_bytes
            values = self._digital(file, offset, count * int(self._starts[-1])).reshape(count, -1)
            begin, end = first * per_record, (first + count) * per_record
            low, high = max(begin, start), min(end, stop)
            for target, row in zip(out, rows, strict=True):
                channel = values[:, self._starts[row] : self._starts[row] + per_record].reshape(-1)
                target[low - start : high - start] = channel[low - begin : high - begin]

    def _read_within_records(
        self, file: FileIO, rows: list[int], per_record: int, start: int, out: np.ndarray
    ) -> None:
        header = self._header
        stop = start + out.shape[1]
        for record in range(start // per_record, -(-stop // per_record)):
            begin = record * per_record
            low, high = max(begin, start), min(begin + per_record, stop)
            for target, row in zip(out, rows, strict=True):
                skipped = int(self._starts[row]) + low - begin
                offset = header.header_bytes + record * header.record_bytes + skipped * header.sample_bytes
                target[low - start : high - start] = self._digital(file, offset, high - low)

    def _digital(self, file: FileIO, offset: int, count: int) -> np.ndarray:
        size = self._header.sample_bytes
        file.seek(offset)
        data = file.read(count * size)
        if len(data) < count * size:
            raise InputError(self.path, "became shorter while it was read", "run again when it is complete")
        if not self._header.bdf:
            return np.frombuffer(data, "<i2")
        # 24 bits into the upper bytes of 32, shifted back with their sign
        wide = np.zeros((count, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(count, 3)
        return wide.view("<i4")[:, 0] >> 8

    def _find_breaks(self) -> list[tuple[int, float]]:
        """First record of every stretch without a gap, with its onset in s from the first sample."""
        header = self._header
        if not header.plus or not header.annotation.any():
            return [(0, 0.0)]
        channel = int(np.flatnonzero(header.annotation)[0])
        offset = header.header_bytes + int(self._starts[channel]) * header.sample_bytes
        length = min(int(header.samples[channel]) * header.sample_bytes, 64)
        # recorders round their time stamps
        tolerance = max(1.5 * header.record_seconds / header.samples[~header.annotation].max(), 0.005)
        breaks = [(0, 0.0)]
        first = expected = 0.0
        with self.path.open("rb", buffering=0) as file:
            for record in range(header.n_records):
                file.seek(offset + record * header.record_bytes)
                stamp = tal_onset(file.read(length))
                if stamp is None:
                    self._miss_stamp(record)
                    break
                if record == 0:
                    first = stamp
                elif abs(stamp - first - expected) > tolerance:
                    breaks.append((record, stamp - first))
                expected = stamp - first + header.record_seconds
        self._tell_gaps(breaks)
        return breaks

    def _miss_stamp(self, record: int) -> None:
        """A continuous file of the right size is readable without time stamps, no other is."""
        if self._header.discontinuous or self._header.warnings:
            raise InputError(
                self.path,
                f"has no time stamp in data record {record + 1}: it is damaged there or its data are shifted",
                DAMAGED,
            )
        if record > 0:
            self.warnings.append(
                f"Time stamps are missing from data record {record + 1} on; no gap is assumed."
            )

    def _tell_gaps(self, breaks: list[tuple[int, float]]) -> None:
        seconds = self._header.record_seconds
        gaps = [
            after - (before + (record - previous) * seconds)
            for (previous, before), (record, after) in pairwise(breaks)
        ]
        missing = [g for g in gaps if g > 0]
        if missing:
            self.warnings.append(
                f"The recording has {len(missing)} gap{'s' if len(missing) > 1 else ''}, together "
                f"{sum(missing):.4g} s without signal; nothing is filtered or read across a gap."
            )
        if len(missing) < len(gaps):
            self.warnings.append(
                f"The clock of the recording goes back {len(gaps) - len(missing)} times; "
                "the pieces were kept in the order of the file."
            )


def _text(field_bytes: bytes) -> str:
    return re.sub(r"\s+", " ", field_bytes.split(b"\0")[0].decode("latin-1")).strip()


def _number(path: Path, field_bytes: bytes, name: str, *, optional: bool = False) -> float:
    try:
        value = float(_text(field_bytes).replace(",", "."))
    except ValueError:
        value = float("nan")
    if not optional and not np.isfinite(value):
        raise InputError(path, f"has a header whose {name} is not a number", DAMAGED)
    return value


def _integer(path: Path, field_bytes: bytes, name: str) -> int:
    return int(_number(path, field_bytes, name))
