"""The same patient, signal or report in two splits: what makes a test say more than it should."""

import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bioreport.corpora.notes import Notes
from bioreport.ecg.wfdb_header import read_header
from bioreport.errors import InputError
from bioreport.manifest import Entry

# words; a shorter text ("Normal EEG.") is written of many patients without one having to do with the other
FORMULA_WORDS = 20
_BLOCK = 1 << 20
_DATA_OF = {".vhdr": ".eeg", ".set": ".fdt"}


@dataclass(frozen=True)
class Leak:
    """One thing in two splits.

    Attributes
    ----------
    what : str
        ``"patient"``, ``"signal"`` or ``"report"``.
    entries, splits : tuple of str
        The two entries by their first recordings, and their splits.
    """

    what: str
    entries: tuple[str, str]
    splits: tuple[str, str]

    def __str__(self) -> str:
        first, second = (f"{e} ({s})" for e, s in zip(self.entries, self.splits, strict=True))
        same = {
            "patient": "are of the same patient",
            "signal": "hold the same signal",
            "report": "have the same report text",
        }[self.what]
        return f"{first} and {second} {same}"


class LeakageCheck:
    """Compares entries as they come; what it has seen lies on disk.

    Parameters
    ----------
    folder : Path
        Entries are named relative to it.
    signals : bool
        Whether recordings are read and compared too.
    formulas : bool
        Whether the reports are made of stock phrases (a machine's statements), so that two that are the same
        mean nothing; they are only counted then, as are texts of fewer than `FORMULA_WORDS` words.
    """

    def __init__(self, folder: Path, notes: Notes, *, signals: bool = False, formulas: bool = False) -> None:
        self._folder, self._notes = folder, notes
        self._signals, self._formulas = signals, formulas
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA journal_mode=OFF")
        self._db.execute(
            "CREATE TABLE seen (what TEXT, mark BLOB, split TEXT, entry TEXT, PRIMARY KEY (what, mark))"
            " WITHOUT ROWID"
        )
        self._db.execute("BEGIN")

    def __enter__(self) -> "LeakageCheck":
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    @property
    def patients(self) -> int:
        """Patients met so far."""
        return int(self._db.execute("SELECT count(*) FROM seen WHERE what = 'patient'").fetchone()[0])

    def leaks(self, entry: Entry) -> Iterator[Leak]:
        """What an entry shares with an earlier one of another split."""
        name = self._name(entry)
        for what, mark in self._marks(entry):
            other = self._meet(what, mark, entry.split or "", name)
            if other is not None:
                yield Leak(what, (other[1], name), (other[0], entry.split or "no split"))
        text = report_text(entry)
        if not text:
            return
        other = self._meet("report", _digest(text.encode()), entry.split or "", name)
        if other is None:
            return
        if self._formulas or len(text.split()) < FORMULA_WORDS:
            self._notes.add("stock phrases that are the report of entries of two splits", name)
        else:
            yield Leak("report", (other[1], name), (other[0], entry.split or "no split"))

    def _name(self, entry: Entry) -> str:
        path = entry.recordings[0]
        return (path.relative_to(self._folder) if path.is_relative_to(self._folder) else path).as_posix()

    def _marks(self, entry: Entry) -> Iterator[tuple[str, bytes]]:
        if entry.patient is not None:
            yield "patient", entry.patient.encode()
        for recording in entry.recordings if self._signals else ():
            try:
                yield "signal", signal_hash(recording)
            except InputError as error:
                self._notes.add("recordings that cannot be compared", error)

    def _meet(self, what: str, mark: bytes, split: str, entry: str) -> tuple[str, str] | None:
        """Remember a mark; (split, entry) of the first that had it, where that split is another."""
        added = self._db.execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?)", (what, mark, split, entry))
        if added.rowcount:
            return None
        first: tuple[str, str] = self._db.execute(
            "SELECT split, entry FROM seen WHERE what = ? AND mark = ?", (what, mark)
        ).fetchone()
        return (first[0] or "no split", first[1]) if first[0] != split else None


def report_text(entry: Entry) -> str:
    """The text of all sections without case, punctuation and line breaks, so that copies are equal."""
    text = " ".join(entry.sections.values()).casefold()
    return " ".join("".join(c if c.isalnum() else " " for c in text).split())


def signal_hash(path: Path) -> bytes:
    """SHA-256 of a recording's samples as they are stored.

    Names, dates and identifiers do not count: of EDF and BDF the data records, of a WFDB record its signal
    files, of BrainVision and EEGLAB the file of the samples where there is one; else the whole file.

    Raises
    ------
    InputError
        A file cannot be read.
    """
    digest = hashlib.sha256()
    for part in _parts(path):
        try:
            with part.open("rb") as file:
                if part.suffix.lower() in (".edf", ".bdf", ".rec"):
                    file.seek(_header_bytes(file.read(256)))
                for block in iter(partial(file.read, _BLOCK), b""):
                    digest.update(block)
        except OSError as error:
            reason = (error.strerror or "no reason given").lower()
            raise InputError(part, f"cannot be read ({reason})", "check the path and the disk") from error
    return digest.digest()


def _parts(path: Path) -> list[Path]:
    suffix = path.suffix.lower()
    if suffix == ".hea":
        header = read_header(path)
        if header.segments:
            parts = [path.with_name(f"{name}.hea") for name, _ in header.segments if name != "~"]
            return [file for part in parts for file in _parts(part)]
        return list(dict.fromkeys(path.with_name(s.file) for s in header.signals if s.file != "~"))
    samples = path.with_suffix(_DATA_OF.get(suffix, suffix))
    return [samples if samples.is_file() else path]


def _header_bytes(start: bytes) -> int:
    field = start[184:192].strip()
    return int(field) if field.isdigit() else 0


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
