"""TUH EEG and its parts (TUEG, TUAB, TUEP, TUSZ): EDF files named patient_session_token, a report a session.

``.../aaaaaaaa_s001_t000.edf`` lies beside ``aaaaaaaa_s001.txt``, or in a montage's folder below it, or far
from the session's other files where montages come first; so files are gathered by name, not by folder. A part
that has its own ``train``, ``dev`` and ``eval`` keeps them.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bioreport.corpora.labels import findings_of
from bioreport.corpora.notes import Notes
from bioreport.corpora.sections import cut
from bioreport.corpora.store import Store
from bioreport.corpora.tables import files, read_text
from bioreport.errors import InputError
from bioreport.manifest import Entry

_EDF = re.compile(r"(?P<session>(?P<patient>[a-z0-9]{8})_s\d{3}(?:_\d{4})?)_(?P<token>[a-z]\d{3,4})\.edf")
_REPORT = re.compile(r"(?P<session>[a-z0-9]{8}_s\d{3}(?:_\d{4})?)\.txt")
_SPLIT = {"train": "train", "dev": "val", "eval": "test"}
_CLASS = ("normal", "abnormal", "epilepsy", "no_epilepsy")


def read(folder: Path, notes: Notes) -> Iterator[Entry]:
    """Entries of TUH EEG, one a session, in the order of patients and sessions.

    Seizures are known where every recording of the session has its ``.csv_bi``.

    Parameters
    ----------
    folder : Path
        The corpus or any folder of it.
    notes : Notes
        Takes what is missing or doubled.

    Raises
    ------
    InputError
        There is no recording below the folder.
    """
    with Store() as store:
        for path in files(folder):
            place = path.relative_to(folder).as_posix()
            if (edf := _EDF.fullmatch(path.name)) is not None:
                store.append("recordings", edf["session"], f"{edf['token']} {place}", place)
            elif (report := _REPORT.fullmatch(path.name)) is not None:
                store.append("reports", report["session"], place, place)
        found = False
        for session, places in store.groups("recordings"):
            found = True
            yield _entry(session, _once(places, notes), store.values("reports", session), folder, notes)
        if not found:
            raise InputError(
                folder, "holds no recording named as TUH EEG names them (aaaaaaaa_s001_t000.edf)",
                "give the folder of the corpus",
            )  # fmt: skip
        for session, places in store.groups("reports"):
            if not store.values("recordings", session):
                notes.add("reports without a recording, left out", places[0])


def _once(places: list[str], notes: Notes) -> list[str]:
    """Places of recordings without a second copy of one (montages that were put out twice)."""
    kept: dict[str, str] = {}
    for place in places:
        name = place.rsplit("/", 1)[-1]
        if name in kept:
            notes.add("recordings that lie in two folders, the second left out", place)
        else:
            kept[name] = place
    return list(kept.values())


def _entry(session: str, places: list[str], reports: list[str], folder: Path, notes: Notes) -> Entry:
    texts = [read_text(folder / place, notes) for place in reports]
    if not any(text.strip() for text in texts):
        notes.add("sessions without a report, kept without sections", places[0])
    elif len({" ".join(text.split()) for text in texts}) > 1:
        notes.add("sessions with two reports that differ, kept without sections", reports[0])
        texts = []
    said = cut(texts[0] if texts else "")
    parts = places[0].split("/")[:-1]
    events, findings = _seizures([folder / place for place in places], notes)
    return Entry(
        recordings=tuple(folder / place for place in places),
        patient=session.split("_", 1)[0],
        history=said.history,
        sections=said.sections,
        findings=findings,
        events=events,
        split=next((_SPLIT[part] for part in parts if part in _SPLIT), None),
        language="en" if said.sections else None,
        labels={"class": name} if (name := next((p for p in parts if p in _CLASS), None)) else {},
    )


def _seizures(
    recordings: list[Path], notes: Notes
) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...] | None]:
    """Single seizures (of a session of one recording, whose times are its own) and whether there are any."""
    annotations = [path.with_suffix(".csv_bi") for path in recordings]
    if not all(path.is_file() for path in annotations):
        return (), None
    seizures: list[dict[str, Any]] = []
    for path in annotations:
        lines = (line.split(",") for line in read_text(path, notes).splitlines())
        try:
            seizures += [
                _seizure(float(cells[1]), float(cells[2])) for cells in lines if "seiz" in cells[3:4]
            ]
        except ValueError:
            notes.add("annotations whose times are no numbers, not used", path)
            return (), None
    events = tuple(sorted(seizures, key=lambda event: event["start_seconds"])) if len(recordings) == 1 else ()
    return events, findings_of(["seizure"] if seizures else [], [] if seizures else ["seizure"])


def _seizure(start: float, end: float) -> dict[str, Any]:
    return {"name": "seizure", "start_seconds": start, "end_seconds": end, "channels": []}
