"""A plain folder: recordings, each with a report of the same name beside it (.txt, .md, .json), or without.

A JSON report is an object with ``sections`` (by name, or a list of ``name`` and ``text``) or ``report``
(text), and, if wanted, ``history``, ``patient`` and ``findings`` as in a manifest.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bioreport.corpora.language import language_of
from bioreport.corpora.notes import Notes
from bioreport.corpora.sections import ReportText, cut
from bioreport.corpora.tables import folders, read_text
from bioreport.ecg.wfdb_header import read_header
from bioreport.errors import InputError
from bioreport.findings import BY_NAME
from bioreport.manifest import Entry
from bioreport.prompts import one_line, sections_of, standard_name

_ECG = (".hea", ".dcm")
_RECORDINGS = (".edf", ".bdf", ".rec", ".vhdr", ".set", ".fif", *_ECG)
_REPORTS = (".txt", ".md", ".json")
_NOT_REPORTS = frozenset({"readme", "license", "licence", "changes", "changelog", "aareadme", "notice"})
_SUBJECT = re.compile(r"(?:^|[/_])sub-(?P<patient>[A-Za-z0-9]+)")


def read(folder: Path, notes: Notes, patient: re.Pattern[str] | None = None) -> Iterator[Entry]:
    """Entries of a folder and those below it, in the order of names.

    Parameters
    ----------
    folder : Path
    notes : Notes
        Takes what is missing or doubled.
    patient : re.Pattern, optional
        Searched for in a recording's path from the folder on; its first group, or all that it fits, is the
        patient. Without it that is the report's ``patient``, the subject of a BIDS name (``sub-…``), or,
        where neither is there, the recording's own path: each is then a patient of its own.

    Raises
    ------
    InputError
        There is no recording below the folder.
    """
    found = False
    for directory, files in folders(folder):
        stems = {Path(name).stem for name in files if Path(name).suffix.lower() in _RECORDINGS}
        for path in _recordings(directory, files):
            found = True
            yield _entry(path, files, folder, patient, notes)
        for name in files:
            path = Path(name)
            if (
                path.suffix.lower() in _REPORTS
                and path.stem not in stems
                and path.stem.lower() not in _NOT_REPORTS
                and _said(directory / name, "eeg", notes) is not None
            ):
                notes.add("reports without a recording, left out", (directory / name).relative_to(folder))
    if not found:
        raise _empty(folder)


def recordings(folder: Path) -> list[Path]:
    """All recordings of a folder and those below it, in the order of names.

    Raises
    ------
    InputError
        There is none.
    """
    found = [path for directory, files in folders(folder) for path in _recordings(directory, files)]
    if not found:
        raise _empty(folder)
    return found


def _empty(folder: Path) -> InputError:
    return InputError(
        folder, f"holds no recording ({', '.join(_RECORDINGS)})", "give a folder with recordings"
    )


def _recordings(directory: Path, files: list[str]) -> list[Path]:
    """The recordings among a directory's files; a WFDB record of several segments counts once."""
    paths = [directory / name for name in files if Path(name).suffix.lower() in _RECORDINGS]
    segments = _segments(paths)
    return [path for path in paths if path.stem not in segments or path.suffix.lower() != ".hea"]


def _segments(paths: list[Path]) -> set[str]:
    """Names of the WFDB headers that are segments of another record in the same folder."""
    names: set[str] = set()
    for path in paths:
        if path.suffix.lower() == ".hea":
            try:
                names.update(name for name, _ in read_header(path).segments)
            except InputError:
                # one that is no header is told of where it is opened
                continue
    return names


def _entry(
    path: Path, files: list[str], folder: Path, pattern: re.Pattern[str] | None, notes: Notes
) -> Entry:
    place = path.relative_to(folder).as_posix()
    modality = "ecg" if path.suffix.lower() in _ECG else "eeg"
    beside = [path.with_suffix(ending) for ending in _REPORTS if f"{path.stem}{ending}" in files]
    said = [(report, found) for report in beside if (found := _said(report, modality, notes)) is not None]
    if len(said) > 1:
        notes.add("recordings with more than one report, of which the first counts", said[0][0].name)
    text, told = said[0][1] if said else (ReportText(), {})
    if not text.sections:
        notes.add("recordings without a report, kept without sections", place)
    patient = _patient(place, pattern, told)
    if patient is None:
        notes.add("recordings that name no patient, each taken for one of its own", place)
    return Entry(
        recordings=(path,),
        patient=patient or place,
        history=text.history,
        sections=text.sections,
        findings=_findings(told.get("findings"), place, notes),
        language=language_of(" ".join(text.sections.values())),
    )


def _patient(place: str, pattern: re.Pattern[str] | None, told: dict[str, Any]) -> str | None:
    if pattern is not None:
        match = pattern.search(place)
        return None if match is None else match[1] if pattern.groups else match[0]
    if isinstance(told.get("patient"), str) and told["patient"]:
        return str(told["patient"])
    subject = _SUBJECT.search(place)
    return subject["patient"] if subject else None


def _said(path: Path, modality: str, notes: Notes) -> tuple[ReportText, dict[str, Any]] | None:
    """A report, and the rest of it where it is JSON; None where the file is no report (BIDS's sidecars)."""
    text = read_text(path, notes)
    if path.suffix.lower() != ".json":
        return cut(text, modality), {}
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        return None
    if not isinstance(content, dict):
        return None
    history = content.get("history")
    history = one_line(history) or None if isinstance(history, str) else None
    if isinstance(content.get("report"), str):
        whole = cut(content["report"], modality)
        return ReportText(whole.sections, history or whole.history), content
    given = content.get("sections")
    if isinstance(given, list):
        given = {s.get("name"): s.get("text") for s in given if isinstance(s, dict)}
    if not isinstance(given, dict):
        return None
    by_fold = {name.casefold(): name for name in sections_of(modality)}
    sections = {
        by_fold.get(standard_name(name.strip().upper()).casefold(), name): one_line(body)
        for name, body in given.items()
        if isinstance(name, str) and isinstance(body, str)
    }
    return ReportText({name: body for name, body in sections.items() if body}, history), content


def _findings(given: Any, place: str, notes: Notes) -> tuple[dict[str, Any], ...] | None:
    if not isinstance(given, list):
        return None
    names = [
        f.get("name") if isinstance(f, dict) and isinstance(f.get("present"), bool) else None for f in given
    ]
    if not set(names) <= set(BY_NAME) or len(set(names)) < len(names):
        notes.add("reports whose findings are in no form that is read here, left without", place)
        return None
    return tuple(given)
