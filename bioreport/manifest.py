"""Manifests: JSON lines that say which recordings there are, and what is true of them."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bioreport.errors import InputError
from bioreport.files import written_atomically
from bioreport.findings import BY_NAME
from bioreport.remote import read_bytes, url_of

_FIELDS = frozenset(
    {
        "recording",
        "patient",
        "history",
        "sections",
        "findings",
        "events",
        "split",
        "language",
        "labels",
    }
)
# of a manifest; a report has a few thousand letters
_LONGEST_LINE = 1 << 24


@dataclass(frozen=True)
class Entry:
    """One report's recordings and truth.

    Attributes
    ----------
    recordings : tuple of Path
        One, or several that one report is about.
    patient : str or None
        Whom it is about, by a pseudonym; entries of one patient are resampled together.
    history : str or None
        Clinical history.
    sections : dict of str to str
        Text of the report by section.
    findings : tuple of dict or None
        The truth, every finding that could be there listed, present or not; None where it is not known.
    events : tuple of dict
        Single occurrences of findings: ``name``, ``start_seconds``, ``end_seconds``, ``channels``.
    split : str or None
        ``"train"``, ``"val"``, ``"test"``, or none.
    language : str or None
        In which the sections are written, e.g. ``"en"`` or ``"de"``; None where it is not known.
    labels : dict
        What the data set itself states of the recording, in its own codes.
    """

    recordings: tuple[Path, ...]
    patient: str | None = None
    history: str | None = None
    sections: dict[str, str] = field(default_factory=dict)
    findings: tuple[dict[str, Any], ...] | None = None
    events: tuple[dict[str, Any], ...] = ()
    split: str | None = None
    language: str | None = None
    labels: dict[str, Any] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        """Name of its report's file, without the ending."""
        return self.recordings[0].stem


def read_manifest(path: str | os.PathLike[str]) -> list[Entry]:
    """Read and check a manifest.

    Parameters
    ----------
    path : path-like
        JSON lines; recordings are relative to its folder, which may be in an object store, as they may
        (``s3://bucket/manifest.jsonl``). Lines that are blank are passed over.

    Raises
    ------
    InputError
        Naming the file and the line, where it cannot be read, is not in the format, or is empty.
    """
    path = Path(path)
    cure = "give a manifest.jsonl as `bioreport simulate eeg` writes it"
    try:
        text = (read_bytes(path) if url_of(path) else path.read_bytes()).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no UTF-8 text"
        raise InputError(path, f"cannot be read as a manifest ({reason.lower()})", cure) from error
    entries = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entries.append(_entry(json.loads(line), path.parent))
        except json.JSONDecodeError as error:
            raise InputError(path, f"line {number} is not JSON ({error.msg})", cure) from error
        except ValueError as error:
            raise InputError(path, f"line {number}: {error}", "correct that line") from error
    if not entries:
        raise InputError(path, "holds no entries", cure)
    return entries


def check_manifest_replaceable(path: str | os.PathLike[str]) -> None:
    """See that a manifest may take the place of `path`: nothing is there, or it begins like a manifest.

    Raises
    ------
    InputError
        Where it is another file, such as a recording.
    """
    path = Path(path)
    if not path.is_file():
        return
    try:
        with open(path, "rb") as file:
            line = file.readline(_LONGEST_LINE)
        known = not line.strip() or "recording" in json.loads(line)
    except (OSError, ValueError, TypeError):
        known = False
    if not known:
        raise InputError(path, "is there and is no manifest", "choose another file with -o")


def write_manifest(path: str | os.PathLike[str], entries: Iterable[Entry]) -> Path:
    """Write a manifest entry by entry, to appear as a whole; recordings become relative to its folder.

    Raises
    ------
    InputError
        Where it cannot be written. What was there before stays then, and where `entries` raises.
    """
    path = Path(path)
    with written_atomically(path) as file:
        for entry in entries:
            line = json.dumps(_line(entry, path.parent), ensure_ascii=False, allow_nan=False)
            file.write(f"{line}\n".encode())
    return path


def _entry(line: Any, folder: Path) -> Entry:
    if not isinstance(line, dict):
        raise ValueError("is no JSON object")
    unknown = sorted(set(line) - _FIELDS)
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}; known are {', '.join(sorted(_FIELDS))}")
    recording = line.get("recording")
    names = [recording] if isinstance(recording, str) else recording
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError("'recording' must be a path or a list of paths")
    for key in ("patient", "history", "split", "language"):
        if line.get(key) is not None and not isinstance(line[key], str):
            raise ValueError(f"{key!r} must be text")
    sections = line.get("sections") or {}
    if not isinstance(sections, dict) or not all(isinstance(text, str) for text in sections.values()):
        raise ValueError("'sections' must map names to text")
    events = line.get("events") or []
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise ValueError("'events' must be a list of objects")
    labels = line.get("labels") or {}
    if not isinstance(labels, dict):
        raise ValueError("'labels' must be an object")
    return Entry(
        recordings=tuple(Path(name) if url_of(name) else folder / name for name in names),
        patient=line.get("patient"),
        history=line.get("history"),
        sections=sections,
        findings=_findings(line.get("findings")),
        events=tuple(events),
        split=line.get("split"),
        language=line.get("language"),
        labels=labels,
    )


def _findings(given: Any) -> tuple[dict[str, Any], ...] | None:
    if given is None:
        return None
    if not isinstance(given, list):
        raise ValueError("'findings' must be a list")
    seen: set[str] = set()
    for finding in given:
        if not isinstance(finding, Mapping) or not isinstance(finding.get("present"), bool):
            raise ValueError("a finding must have 'name' and 'present' (true or false)")
        name, value = finding.get("name"), finding.get("value")
        if name not in BY_NAME:
            raise ValueError(f"unknown finding {name!r}; known are {', '.join(BY_NAME)}")
        if name in seen:
            raise ValueError(f"finding {name!r} is listed twice")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"the value of {name!r} must be a number")
        seen.add(name)
    return tuple(given)


def _line(entry: Entry, folder: Path) -> dict[str, Any]:
    # abspath, not resolve: a link in a corpus keeps its own name
    folder = Path(os.path.abspath(folder))
    names = [_name(recording, folder) for recording in entry.recordings]
    line: dict[str, Any] = {"recording": names[0] if len(names) == 1 else names}
    for key in ("patient", "history", "sections", "findings", "events", "split", "language", "labels"):
        value = getattr(entry, key)
        if value not in (None, {}) and not (key == "events" and not value):
            line[key] = list(value) if isinstance(value, tuple) else value
    return line


def _name(recording: Path, folder: Path) -> str:
    if (url := url_of(recording)) is not None:
        return url
    path = Path(os.path.abspath(recording))
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()
