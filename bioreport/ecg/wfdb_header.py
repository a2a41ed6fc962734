"""Headers of WFDB records: what they say, checked before any sample is read.

Format: header(5) of the WFDB Applications Guide (Moody et al., physionet.org/physiotools/wag/header-5.htm).
The header reader of the wfdb package is not used: it drops every character beyond ASCII (µV becomes V),
takes a gain of zero for one of 200, and goes wherever a file name leads, network addresses included
(wfdb 4.3). Comments, in which records keep age, sex, diagnoses and at times names, are passed over unread.
"""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from bioreport.errors import InputError

_LARGEST = 1 << 24  # bytes; a record of a thousand segments has a header of 20 kB
_STANDARD_RATE = 250.0
_STANDARD_GAIN = 200.0
_RECORD = re.compile(r"^([^/\s]+)(?:/(\d+))?\s+(\d+)(?:\s+(\S+)(?:\s+(\d+)\b)?)?")
_FORMAT = re.compile(r"^(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?$")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_GAIN = re.compile(rf"^({_NUMBER})(?:\(({_NUMBER})\))?(?:/(\S+))?$")
DAMAGED = "copy the record again from its source"


@dataclass(frozen=True)
class SignalLine:
    """One signal of a header.

    Attributes
    ----------
    file : str
        Name of the signal file in the header's folder; ``~`` for none.
    storage : int
        WFDB's number of the storage format.
    samples_per_frame, skew, offset : int
        Skew in frames; offset in bytes, in samples for FLAC.
    gain, baseline : float
        physical = (digital - baseline) / gain.
    unit : str
        As written, "" if it is not.
    initial, checksum : int or None
        First sample and 16-bit sum of all samples, where stated.
    label : str
    """

    file: str
    storage: int
    samples_per_frame: int
    skew: int
    offset: int
    gain: float
    baseline: float
    unit: str
    initial: int | None
    checksum: int | None
    label: str


@dataclass
class Header:
    """A header without its comments.

    Attributes
    ----------
    path : Path
    rate : float
        Frames per second.
    frames : int or None
        Length, None where it is not stated.
    signals : list of SignalLine
        Empty in the header of a multi-segment record.
    segments : list of (str, int)
        Name and frames of each segment; ``~`` is a gap. Empty in a single record.
    """

    path: Path
    rate: float
    frames: int | None
    signals: list[SignalLine] = field(default_factory=list)
    segments: list[tuple[str, int]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def header_path(path: Path) -> Path | None:
    """The header that a path means: itself, the one beside a signal file, or that of a record name.

    Returns
    -------
    Path or None
        None where the path has nothing to do with WFDB.

    Raises
    ------
    InputError
        A signal or annotation file without its header.
    """
    suffix = path.suffix.lower()
    if suffix == ".hea":
        return path
    if suffix in (".dat", ".mat", ".atr"):
        # os.path, which takes a path that cannot be one for one that does not exist
        if not os.path.exists(path):
            return None
        beside = next((b for s in (".hea", ".HEA") if os.path.isfile(b := path.with_suffix(s))), None)
        if beside is None:
            raise InputError(
                path, f"is no recording by itself: of an ECG record (WFDB) its header {path.stem}.hea must "
                "lie beside it",
                "put header and signal file into one folder",
            )  # fmt: skip
        if suffix == ".atr":
            raise InputError(path, "holds annotations of an ECG record", f"give {beside.name} instead")
        return beside
    named = path.with_name(f"{path.name}.hea") if path.name else path
    return named if os.path.isfile(named) and not os.path.isfile(path) else None


def read_header(path: Path) -> Header:
    """Read and check a header.

    Raises
    ------
    InputError
        It cannot be read, is none, contradicts itself, or names a file elsewhere.
    """
    lines = _lines(path)
    match = _RECORD.match(lines[0]) if lines else None
    if match is None:
        raise InputError(path, "is not the header of an ECG record (WFDB)", "give the header of the record")
    _, n_segments, n_signals, rate, frames = match.groups()
    header = Header(path, _rate(path, rate), int(frames) if frames and int(frames) else None)
    if rate is None:
        header.warnings.append("The header states no sampling rate; by the WFDB standard it is 250 Hz.")
    if n_segments is not None:
        if not int(n_segments):
            raise InputError(path, "describes an ECG record of 0 segments", "give a record with leads")
        header.segments = [_segment(path, line) for line in lines[1:]]
        _agree(path, "segments", int(n_segments), len(header.segments))
    else:
        header.signals = [_signal(path, line, header.warnings) for line in lines[1:]]
        _agree(path, "signals", int(n_signals), len(header.signals))
        if not header.signals:
            raise InputError(
                path, "describes an ECG record of no signal (0 leads)", "give a record with leads"
            )
    return header


def record_files(path: Path) -> list[Path]:
    """A header and all files that it names, segments' headers and signal files, whether they exist or not.

    Raises
    ------
    InputError
        As `read_header`, of a segment's header too.
    """
    header = read_header(path)
    files = [path, *(path.with_name(line.file) for line in header.signals if line.file != "~")]
    for name, _ in header.segments:
        part = path.with_name(f"{name}.hea")
        if name != "~" and part not in files:
            # segments have no segments themselves
            named = read_header(part).signals if part.is_file() else []
            files += [part, *(path.with_name(line.file) for line in named if line.file != "~")]
    return list(dict.fromkeys(files))


def _lines(path: Path) -> list[str]:
    try:
        content = path.read_bytes() if path.stat().st_size <= _LARGEST else b"\0"
    except OSError as error:
        reason = error.strerror or "input/output error"
        raise InputError(path, f"cannot be read ({reason})", "check its permissions and the disk") from error
    if b"\0" in content:
        return []
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _agree(path: Path, what: str, stated: int, found: int) -> None:
    if stated != found:
        raise InputError(path, f"states {stated} {what} and describes {found}", DAMAGED)


def _rate(path: Path, text: str | None) -> float:
    if text is None:
        return _STANDARD_RATE
    try:
        rate = float(text.partition("/")[0])
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1e7:
        raise InputError(path, "states no valid sampling rate", "correct the header's first line")
    return rate


def _segment(path: Path, line: str) -> tuple[str, int]:
    fields = line.split()
    if len(fields) < 2 or not fields[1].isdigit():
        raise InputError(path, "has a segment without a length", DAMAGED)
    return _plain(path, fields[0], "segment"), int(fields[1])


def _signal(path: Path, line: str, warnings: list[str]) -> SignalLine:
    fields = [*line.split(None, 8), *[""] * 9][:9]
    label = " ".join(fields[8].split())
    storage = _FORMAT.match(fields[1])
    if storage is None:
        raise InputError(path, "has a signal line without a storage format", DAMAGED)
    gain = _GAIN.match(fields[2]) if fields[2] else None
    if fields[2] and gain is None:
        raise InputError(path, "has a signal line whose gain is not a number", "correct the header")
    if gain is None:
        warnings.append(
            f"{label or 'A signal'} has no gain in the header; by the WFDB standard it is 200 steps per mV, "
            "amplitudes may be wrong."
        )
    zero = _integer(fields[4]) or 0
    return SignalLine(
        file=_plain(path, fields[0], "signal file"),
        storage=int(storage[1]),
        samples_per_frame=int(storage[2] or 1) or 1,
        skew=int(storage[3] or 0),
        offset=int(storage[4] or 0),
        gain=float(gain[1]) if gain else _STANDARD_GAIN,
        baseline=float(gain[2]) if gain and gain[2] else float(zero),
        unit=(gain[3] or "") if gain else "",
        initial=_integer(fields[5]),
        checksum=_integer(fields[6]),
        label=label,
    )


def _plain(path: Path, name: str, what: str) -> str:
    """Refuse a name that leads out of the header's folder or to no file."""
    if re.search(r"[/\\:]", name) or name in (".", "..", "-") or not name.isprintable():
        raise InputError(
            path, f"names a {what} outside its own folder",
            "put all files of the record into one folder and name them without a path",
        )  # fmt: skip
    return name


def _integer(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else None
