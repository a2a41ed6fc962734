"""PTB-XL: ``ptbxl_database.csv`` and ``records500/`` or ``records100/`` (Wagner et al. 2020).

Its folds keep patients together and are stratified by label: 1 to 8 train, 9 validates, 10 tests. Reports are
in the language in which they were written, most of them German.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bioreport.corpora.labels import ptbxl_codes, ptbxl_findings
from bioreport.corpora.language import language_of
from bioreport.corpora.notes import Notes
from bioreport.corpora.sections import cut
from bioreport.corpora.store import Store, ordered
from bioreport.corpora.tables import plain_number, rows
from bioreport.manifest import Entry

TABLE = "ptbxl_database.csv"
_COLUMNS = ("ecg_id", "patient_id", "report", "scp_codes", "strat_fold", "filename_hr", "filename_lr")
_SPLIT = {str(fold): "train" for fold in range(1, 9)} | {"9": "val", "10": "test"}


def read(folder: Path, notes: Notes) -> Iterator[Entry]:
    """Entries of PTB-XL in the order of ``ecg_id``; 500 Hz where that is there, else 100 Hz.

    Parameters
    ----------
    folder : Path
        Where ``ptbxl_database.csv`` lies.
    notes : Notes
        Takes what is missing or doubled.

    Raises
    ------
    InputError
        The table is missing or none.
    """
    with Store() as store:
        for row in rows(folder / TABLE, _COLUMNS):
            store.put("ecg", ordered(row["ecg_id"]), {column: row[column] for column in _COLUMNS})
        store.tell_doubles("ecg", "ecg_id", notes)
        for _, row in store.items("ecg"):
            entry = _entry(row, folder, notes)
            if entry is not None:
                yield entry


def _entry(row: dict[str, Any], folder: Path, notes: Notes) -> Entry | None:
    name = f"ecg_id {row['ecg_id']}"
    records = [folder / f"{row[key]}.hea" for key in ("filename_hr", "filename_lr") if row[key]]
    record = next((path for path in records if path.is_file()), None)
    if record is None:
        notes.add("reports whose recording is not there, left out", name)
        return None
    if not row["report"]:
        notes.add("recordings without a report, kept without sections", name)
    codes: dict[str, float] = {}
    try:
        codes = ptbxl_codes(row["scp_codes"] or "{}")
    except ValueError:
        notes.add("recordings whose scp_codes cannot be read", name)
    split = _SPLIT.get(plain_number(row["strat_fold"]))
    if split is None:
        notes.add("recordings without a fold from 1 to 10, split by the hash of the patient", name)
    if not row["patient_id"]:
        notes.add("recordings without a patient, each taken for one of its own", name)
    return Entry(
        recordings=(record,),
        patient=plain_number(row["patient_id"]) or f"ecg-{row['ecg_id']}",
        sections=cut(row["report"], "ecg").sections,
        findings=ptbxl_findings(codes),
        split=split,
        language=language_of(row["report"]),
        labels={"scp_codes": codes} if codes else {},
    )
