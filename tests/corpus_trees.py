"""Data sets in the layouts in which they are published, small and with made-up contents."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

LONG = (
    "The background shows a posterior dominant rhythm of 9 Hz that is symmetric and reactive to eye opening "
    "in a patient who is awake and cooperative throughout; the study was given the number {} by nobody."
)


def touch(path: Path, content: str | bytes = b"") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def edf(path: Path, samples: bytes = b"", header: bytes = b"") -> Path:
    """What looks like an EDF of one channel: 512 bytes of header, then samples."""
    start = (b"0".ljust(8) + header).ljust(184)[:184] + b"512".ljust(8)
    return touch(path, start.ljust(512) + (samples or path.name.encode()))


def record(path: Path, samples: bytes = b"") -> Path:
    """A WFDB record of one lead; `path` is its header."""
    touch(path.with_suffix(".dat"), samples or path.name.encode())
    return touch(path, f"{path.stem} 1 500 10\n{path.stem}.dat 16 1000/mV 16 0 0 0 0 I\n")


def table(path: Path, rows: Sequence[Mapping[str, object]], columns: Iterable[str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns or rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def ptbxl(top: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """`ptbxl_database.csv` with defaults for what a row does not say, and records500 for each row."""
    full = []
    for row in rows:
        n = int(str(row["ecg_id"]))
        names = {f"filename_{r}": f"records{s}/00000/{n:05d}_{r}" for r, s in (("lr", 100), ("hr", 500))}
        full.append(
            {
                "ecg_id": n,
                "patient_id": f"{1000 + n}.0",
                "age": 60.0,
                "report": "sinusrhythmus normales ekg",
                "scp_codes": "{'NORM': 100.0, 'SR': 0.0}",
                "strat_fold": 1,
                **names,
                **row,
            }
        )
        record(top / f"{names['filename_hr']}.hea")
    table(top / "ptbxl_database.csv", full)
    return top


MIMIC_MACHINE = (
    "subject_id", "study_id", "cart_id", "ecg_time", *(f"report_{i}" for i in range(18)), "bandwidth",
    "filtering", "rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end", "p_axis", "qrs_axis",
    "t_axis",
)  # fmt: skip


def mimic(top: Path, records: Sequence[tuple[str, str]], machine: Sequence[Mapping[str, object]]) -> Path:
    """Both tables and the recordings; `records` are (subject, study)."""
    listed = [
        {
            "subject_id": subject,
            "study_id": study,
            "file_name": study,
            "ecg_time": "2180-07-23 08:44:00",
            "path": f"files/p{subject[:4]}/p{subject}/s{study}/{study}",
        }
        for subject, study in records
    ]
    for row in listed:
        record(top / f"{row['path']}.hea")
    table(top / "record_list.csv", listed, ["subject_id", "study_id", "file_name", "ecg_time", "path"])
    table(top / "machine_measurements.csv", machine, MIMIC_MACHINE)
    return top


def heedb_row(patient: int, session: int, report: str, **labels: str) -> dict[str, object]:
    return {
        "SiteID": "S0001",
        "BDSPPatientID": patient,
        "SessionID": session,
        "StartTime(EEG)": "2015-01-01 10:00:00",
        "DeidentifiedName(Reports)": report,
        **dict.fromkeys(
            ("normal", "abnormal", "seizure", "bs", "gen slowing", "foc slowing", "pdr", "spikes"), ""
        ),
        **labels,
    }


def heedb_edf(top: Path, patient: int, session: int, site: str = "S0001", samples: bytes = b"") -> Path:
    subject = f"sub-{site}{patient}"
    folder = top / "EEG" / "bids" / site / subject / f"ses-{session}" / "eeg"
    return edf(folder / f"{subject}_ses-{session}_task-EEG_eeg.edf", samples)
