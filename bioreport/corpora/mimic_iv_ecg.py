"""MIMIC-IV-ECG: ``record_list.csv`` and ``machine_measurements.csv``, joined by study (Gow et al. 2023).

The rows of the two tables come in any order; only the study says which belong together. The statements are a
machine's, from a fixed list.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bioreport.corpora.notes import Notes
from bioreport.corpora.store import Store, ordered, plain
from bioreport.corpora.tables import plain_number, rows
from bioreport.manifest import Entry
from bioreport.prompts import one_line

RECORDS, MEASUREMENTS = "record_list.csv", "machine_measurements.csv"
_STATEMENTS = tuple(f"report_{i}" for i in range(18))
_MEASURED = (
    "rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end", "p_axis", "qrs_axis", "t_axis",
)  # fmt: skip
_NOT_MEASURED = 29999
_QUALITY = re.compile(
    r"data quality|unsuitable for analysis|artifact|baseline wander|lead reversal|poor quality|missing lead",
    re.IGNORECASE,
)


def read(folder: Path, notes: Notes) -> Iterator[Entry]:
    """Entries of MIMIC-IV-ECG in the order of ``study_id``.

    Parameters
    ----------
    folder : Path
        Where both tables and ``files/`` lie.
    notes : Notes
        Takes what is missing, doubled or contradictory.

    Raises
    ------
    InputError
        A table is missing or none.
    """
    with Store() as store:
        for row in rows(folder / RECORDS, ("subject_id", "study_id", "path")):
            store.put("record", ordered(row["study_id"]), [row["subject_id"], row["path"]])
        for row in rows(folder / MEASUREMENTS, ("subject_id", "study_id", "report_0")):
            said = [one_line(cell).strip("*-= ") for column in _STATEMENTS if (cell := row.get(column))]
            measured = {
                name: value for name in _MEASURED if (value := _number(row.get(name, ""))) is not None
            }
            store.put(
                "machine", ordered(row["study_id"]), [row["subject_id"], [s for s in said if s], measured]
            )
        store.tell_doubles("record", f"study_id in {RECORDS}", notes)
        store.tell_doubles("machine", f"study_id in {MEASUREMENTS}", notes)
        for key in store.missing("machine", "record"):
            notes.add(f"reports whose study is not in {RECORDS}, left out", plain(key))
        for key, (subject, path) in store.items("record"):
            entry = _entry(plain(key), subject, folder / f"{path}.hea", store.get("machine", key), notes)
            if entry is not None:
                yield entry


def _entry(study: str, subject: str, record: Path, machine: list[Any] | None, notes: Notes) -> Entry | None:
    if not record.is_file():
        notes.add("studies whose recording is not there, left out", study)
        return None
    sections: dict[str, str] = {}
    labels: dict[str, float] = {}
    if machine is not None:
        of, statements, labels = machine
        if of != subject:
            notes.add("studies of two subjects, one in each table, left out", study)
            return None
        sections = _sections(statements)
    if not sections:
        notes.add("recordings without a report, kept without sections", study)
    return Entry(
        recordings=(record,),
        patient=plain_number(subject),
        sections=sections,
        language="en" if sections else None,
        labels=dict(labels),
    )


def _sections(statements: list[str]) -> dict[str, str]:
    parts: dict[str, list[str]] = {}
    for statement in statements:
        name = "TECHNICAL QUALITY" if _QUALITY.search(statement) else "IMPRESSION/INTERPRETATION"
        parts.setdefault(name, []).append(statement if statement[-1] in ".!?" else f"{statement}.")
    return {name: " ".join(parts[name]) for name in sorted(parts, reverse=True)}


def _number(cell: str) -> int | float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    if not abs(value) < _NOT_MEASURED:  # NaN too
        return None
    return int(value) if value.is_integer() else value
