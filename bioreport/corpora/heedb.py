"""Harvard EEG Database: BIDS recordings, ``*_EEG__reports_findings.csv`` and report texts (Sun et al. 2025).

``bids/S0001/sub-S0001<patient>/ses-<session>/eeg/*_eeg.edf`` are the recordings; a row of the table says
which report (``NeuroReport_….txt``, by year in folders) a session has and what was found in it. One report
may cover many sessions. A number may stand for the same patient at S0001 and S0002, hospitals of one network,
so the site is no part of who it is.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bioreport.corpora.labels import HEEDB_COLUMNS, heedb_findings
from bioreport.corpora.notes import Notes
from bioreport.corpora.sections import cut
from bioreport.corpora.store import Store
from bioreport.corpora.tables import files, plain_number, read_text, rows
from bioreport.errors import InputError
from bioreport.manifest import Entry

_RECORDING = re.compile(
    r"(?:.*/)?(?P<subject>sub-[A-Za-z0-9]+)/ses-(?P<session>[A-Za-z0-9]+)/eeg/[^/]+_eeg\.(?:edf|bdf|vhdr|set)",
    re.IGNORECASE,
)
_SITE = re.compile(r"(?P<site>[A-Z]\d{4})(?P<patient>\d+)")
_TABLE = re.compile(r"(?P<site>[A-Z]\d{4})_EEG__reports_findings(?:[_-][^/]*)?\.csv")
_REPORT = "DeidentifiedName(Reports)"
_NOTHING = frozenset({"", "none", "nan"})


def read(folder: Path, notes: Notes) -> Iterator[Entry]:
    """Entries of HEEDB: first those with a row in the table, one a report, then recordings without.

    Parameters
    ----------
    folder : Path
        Holds the BIDS tree, the tables and the texts at any depth; without tables every session is an entry
        without a report.
    notes : Notes
        Takes what is missing or doubled.

    Raises
    ------
    InputError
        There is no recording below the folder, or a table is none.
    """
    with Store() as store:
        tables = _survey(folder, store)
        for table in tables:
            _read_table(table, store, notes)
        for report, sessions in store.groups("rows"):
            entry = _reported(report, sessions, folder, store, notes)
            if entry is not None:
                yield entry
        alone = 0
        for session, places in store.groups("recordings"):
            if store.get("told", session) is None:
                alone += 1
                if tables:
                    notes.add("sessions that no table lists, kept without sections", places[0])
                yield Entry(tuple(folder / place for place in places), patient=_patient(session))
        if not alone and next(store.groups("recordings"), None) is None:
            raise InputError(
                folder, "holds no recording in a BIDS tree (sub-…/ses-…/eeg/…_eeg.edf)",
                "give the folder that holds bids, the tables and the texts",
            )  # fmt: skip
        for name, places in store.groups("texts"):
            if name.startswith("NeuroReport_") and not store.values("rows", name):
                notes.add("report texts that no table lists, left out", places[0])


def _survey(folder: Path, store: Store) -> list[Path]:
    """Put recordings and texts below a folder into the store; its tables of findings."""
    tables = []
    for path in files(folder):
        place = path.relative_to(folder).as_posix()
        if (recording := _RECORDING.fullmatch(path.absolute().as_posix())) is not None:
            store.append("recordings", f"{recording['subject']}/{recording['session']}", place, place)
        elif path.suffix.lower() == ".txt":
            store.append("texts", path.name, place, place)
        elif _TABLE.fullmatch(path.name):
            tables.append(path)
    return tables


def _read_table(table: Path, store: Store, notes: Notes) -> None:
    named = _TABLE.fullmatch(table.name)
    assert named is not None
    for row in rows(table, ("BDSPPatientID", "SessionID", _REPORT)):
        patient, number = plain_number(row["BDSPPatientID"]), plain_number(row["SessionID"])
        session = f"sub-{row.get('SiteID') or named['site']}{patient}/{number}"
        labels = {
            name: row[name]
            for name in HEEDB_COLUMNS
            if row.get(name, "").lower() not in _NOTHING
        }  # fmt: skip
        # a session without a text's name has its labels all the same
        report = row[_REPORT]
        if report.lower() in _NOTHING:
            report = f"session {session}"
        elif not report.endswith(".txt"):
            report += ".txt"
        first = store.get("told", session)
        if first is None:
            store.put("told", session, report)
        elif first != report:
            notes.add("sessions that two reports claim, given to the first", session)
            continue
        store.append("rows", report, session, [session, labels])


def _reported(report: str, sessions: list[Any], folder: Path, store: Store, notes: Notes) -> Entry | None:
    """The entry of a report: the recordings of all its sessions, what they are labelled, its text."""
    labels: dict[str, str] = {}
    recordings: list[Path] = []
    if len({_patient(session) for session, _ in sessions}) > 1:
        notes.add("reports of several patients, left out", report)
        return None
    for session, of_session in sorted(sessions, key=lambda row: _in_order(row[0])):
        labels |= of_session
        places = store.values("recordings", session)
        recordings += [folder / place for place in places]
        if not places:
            notes.add("sessions of the tables whose recording is not there", session)
    if not recordings:
        notes.add("reports without a recording, left out", report)
        return None
    texts = {read_text(folder / place, notes) for place in store.values("texts", report)}
    if report.startswith("session "):
        notes.add("sessions for which the tables name no report, kept without sections", sessions[0][0])
    elif not texts:
        notes.add("reports whose text is not there (are they unpacked?), kept without sections", report)
    elif len(texts) > 1:
        notes.add("reports with two texts that differ, kept without sections", report)
    said = cut(texts.pop() if len(texts) == 1 else "")
    return Entry(
        recordings=tuple(recordings),
        patient=_patient(sessions[0][0]),
        history=said.history,
        sections=said.sections,
        findings=heedb_findings(labels),
        language="en" if said.sections else None,
        labels=dict(sorted(labels.items())),
    )


def _patient(session: str) -> str:
    subject = session.split("/", 1)[0].removeprefix("sub-")
    match = _SITE.fullmatch(subject)
    return match["patient"] if match else subject


def _in_order(session: str) -> tuple[str, int, str]:
    subject, number = session.split("/", 1)
    return subject, int(number) if number.isdigit() else 0, number
