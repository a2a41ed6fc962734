"""ECG measurements on real records, against annotated or detected rates and the diagnoses of their headers.

    python benchmarks/ecg_records.py -o benchmarks/results/ecg-records-DATE.json

The folder holds WFDB records; the table (Markdown, a row a record: name, size, what is known) says what is
known of each: diagnoses, and a rate from beat annotations or from published detectors with the share of them
that agree. A record is judged by its rate only where beats are annotated or three detectors in four agree.
"""

import argparse
import os
import re
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from environment import environment
from results import write

from bioreport.ecg.criteria import ecg_findings
from bioreport.ecg.measure import measure_recording
from bioreport.ecg.reading import open_ecg
from bioreport.findings import CRITICAL

WITHIN = 5.0  # /min
LEAST_AGREEMENT = 75  # % of the detectors
SLOW, FAST = 60.0, 100.0
UNSURE = 3.0  # /min about these limits, where either name is right

# diagnoses of the headers that a finding stands for
NAMED = {
    "prolonged qt interval": "prolonged_qt",
    "right bundle branch block": "right_bundle_branch_block",
    "incomplete right bundle branch block": "incomplete_right_bundle_branch_block",
    "left bundle branch block": "left_bundle_branch_block",
    "nonspecific intraventricular conduction disorder": "intraventricular_conduction_delay",
    "premature atrial contraction": "premature_atrial_contractions",
    "premature ventricular contractions": "premature_ventricular_contractions",
    "left ventricular high voltage": "left_ventricular_hypertrophy",
    "left ventricular hypertrophy": "left_ventricular_hypertrophy",
    "t wave inversion": "t_wave_inversion",
    "sinus arrhythmia": "sinus_arrhythmia",
    "persistent atrial fibrillation": "atrial_fibrillation",
}


@dataclass(frozen=True)
class Known:
    """What is known of a record; `sure` where its rate can be relied on."""

    diagnoses: tuple[str, ...]
    rate: float | None
    sure: bool


def read_table(path: Path) -> dict[str, Known]:
    """Rows of a Markdown table whose first cell ends in ``NAME.hea`` and whose third says what is known."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) < 4 or not cells[1].endswith(".hea"):
            continue
        told = cells[3]
        rate = re.search(r"\brate (\d+)", told)
        agree = re.search(r"(\d+) % agree", told)
        before = told[: rate.start()] if rate else told
        found[Path(cells[1]).stem] = Known(
            tuple(one.strip().lower() for one in before.strip(" ;").split(",") if one.strip()),
            float(rate[1]) if rate else None,
            rate is not None and (agree is None or int(agree[1]) >= LEAST_AGREEMENT),
        )
    return found


def judge_record(known: Known, rate: float | None, present: Collection[str]) -> dict[str, Any]:
    """Where the measurements agree with what is known; None where that says nothing."""
    agreement: dict[str, Any] = {"rate": None, "speed": None, "atrial_fibrillation": None}
    if known.sure and known.rate is not None:
        agreement["rate"] = rate is not None and abs(rate - known.rate) <= WITHIN
        agreement["speed"] = _speed_is_right(known, present)
    said = " ".join(known.diagnoses)
    if "persistent atrial fibrillation" in said:
        agreement["atrial_fibrillation"] = "atrial_fibrillation" in present
    elif "non atrial fibrillation" in said or "sinus" in said:
        agreement["atrial_fibrillation"] = "atrial_fibrillation" not in present
    agreement["named"] = {one: NAMED[one] in present for one in known.diagnoses if one in NAMED}
    agreement["invented_critical"] = sorted(set(present) & CRITICAL)
    return agreement


def _speed_is_right(known: Known, present: Collection[str]) -> bool:
    """Whether fast and slow are named as the rate says, or, beside the limit, as the header does."""
    assert known.rate is not None
    said = " ".join(known.diagnoses)
    for name, beyond in (("tachycardia", known.rate - FAST), ("bradycardia", SLOW - known.rate)):
        named = name in present
        if abs(beyond) > UNSURE and named != (beyond > 0) and named != (name in said):
            return False
    return True


def run(folder: Path, known: dict[str, Known]) -> list[dict[str, Any]]:
    """One row a record of the folder, in the order of names."""
    rows = []
    for path in sorted(folder.glob("*.hea")):
        start = time.perf_counter()
        recording = open_ecg(path)
        measured = measure_recording(recording)
        seconds = time.perf_counter() - start
        present = [entry["name"] for entry in ecg_findings(measured) if entry["present"]]
        rate = None if measured["rate"] is None else float(measured["rate"]["value"])
        told = known.get(path.stem, Known((), None, False))
        rows.append(
            {
                "record": path.stem,
                "leads": len(recording.leads),
                "sfreq": recording.sfreq,
                "duration_seconds": round(recording.duration_seconds, 1),
                "known_diagnoses": list(told.diagnoses),
                "known_rate": told.rate,
                "rate_is_sure": told.sure,
                "rate": rate,
                "findings": present,
                "agreement": judge_record(told, rate, present),
                "seconds": round(seconds, 2),
            }
        )
        print(f"{path.stem:12s} {told.rate} {rate} {' '.join(present)}", flush=True)
    return rows


def totals(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts of what was judged and what of it is right."""
    result: dict[str, Any] = {"records": len(rows)}
    for key in ("rate", "speed", "atrial_fibrillation"):
        judged = [row["agreement"][key] for row in rows if row["agreement"][key] is not None]
        result[key] = {"judged": len(judged), "right": sum(judged)}
    named = [there for row in rows for there in row["agreement"]["named"].values()]
    result["diagnoses"] = {"judged": len(named), "right": sum(named)}
    result["records_with_invented_critical"] = sum(
        bool(row["agreement"]["invented_critical"]) for row in rows
    )
    return result


def main() -> None:
    shared = Path(os.environ.get("BIOREPORT_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--records", type=Path, default=shared / "data" / "dev" / "ecg")
    parser.add_argument("--table", type=Path, default=shared / "data" / "MANIFEST.md")
    options = parser.parse_args()
    rows = run(options.records, read_table(options.table))
    result = {
        **environment(),
        "date": date.today().isoformat(),
        "command": "python benchmarks/ecg_records.py",
        "totals": totals(rows),
        "rows": rows,
    }
    print(result["totals"])
    write(options.output, result)


if __name__ == "__main__":
    main()
