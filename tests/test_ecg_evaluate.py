"""ECG reports against a manifest's truth: critical findings, rate, findings out of the ECG lexicon."""

import json
from pathlib import Path
from typing import Any

import pytest

from bioreport.ecg.scores import rate_in
from bioreport.errors import InputError
from bioreport.evaluate import evaluate, render
from bioreport.findings import BY_NAME, absent_finding
from bioreport.manifest import Entry, write_manifest

NAMES = ("sinus_rhythm", "bradycardia", "atrial_fibrillation", "asystole", "ventricular_tachycardia")
Row = tuple[tuple[str, ...], float | None]


def findings(row: Row) -> list[dict[str, Any]]:
    return [
        absent_finding(name)
        | {"present": name in row[0], "value": row[1] if name in NAMES[:2] else None}
        | {"source": "measurement"}
        for name in NAMES
    ]


def wording(row: Row) -> dict[str, str]:
    labels = [BY_NAME[name].label for name in row[0]] or ["no rhythm"]
    rate = f" The rate is {row[1]:g}/min." if row[1] is not None else ""
    return {"RHYTHM": f"There is {', '.join(labels)}.{rate}"}


def corpus(folder: Path, rows: list[Row], said: list[Row]) -> tuple[Path, Path]:
    entries = []
    for i, row in enumerate(rows):
        truth = [{k: v for k, v in finding.items() if k != "source"} for finding in findings(row)]
        entries.append(Entry((folder / f"r{i}.hea",), None, None, wording(row), tuple(truth)))
    (folder / "reports").mkdir()
    for i, row in enumerate(said):
        sections = [{"name": name, "text": text} for name, text in wording(row).items()]
        report = {"sections": sections, "findings": findings(row)}
        (folder / "reports" / f"r{i}.json").write_text(json.dumps(report))
    return write_manifest(folder / "manifest.jsonl", entries), folder / "reports"


def test_counts_made_by_hand(tmp_path: Path) -> None:
    rows: list[Row] = [
        (("sinus_rhythm",), 70.0),
        (("sinus_rhythm", "bradycardia"), 50.0),
        (("asystole",), None),
        (("ventricular_tachycardia", "asystole"), None),
    ]
    said: list[Row] = [
        (("sinus_rhythm",), 73.0),  # at the border
        (("atrial_fibrillation", "ventricular_tachycardia"), 54.0),  # invented twice, one of them critical
        (("asystole",), 60.0),  # a rate where none is
        (("asystole",), None),  # one of two missed
    ]
    metrics = evaluate(*corpus(tmp_path, rows, said), resamples=0)
    for source in ("from_findings", "from_text"):
        critical = metrics["critical"][source]
        assert critical["invented_rate"] == 0.25 and critical["invented"] == 1
        assert critical["missed_rate"] == pytest.approx(1 / 3, abs=1e-6) and critical["missed"] == 1
        assert (critical["recordings_with"], critical["recordings_without"]) == (2, 2)
        rate = metrics["rate"][source]
        assert (rate["within_three"], rate["mean_absolute_error"]) == (0.5, 3.5)
        assert (rate["recordings"], rate["stated"]) == (2, 1.0)
        per = metrics["findings"][source]["per_finding"]
        assert set(per) == set(NAMES)
        assert per["asystole"]["f1"] == 1.0 and per["bradycardia"]["recall"] == 0.0
    assert "seizure" not in metrics and "posterior" not in metrics
    table = render(metrics, "text")
    assert "invented critical findings, recordings, text" in table and "rate within 3 /min, findings" in table
    assert "seizure" not in table
    assert json.loads(render(metrics, "json")) == metrics


def test_a_rate_that_is_not_given_is_not_counted_but_told(tmp_path: Path) -> None:
    rows: list[Row] = [(("sinus_rhythm",), 70.0), (("sinus_rhythm",), 80.0)]
    metrics = evaluate(*corpus(tmp_path, rows, [rows[0], (("sinus_rhythm",), None)]), resamples=0)
    assert metrics["rate"]["from_text"]["within_three"] == 1.0
    assert metrics["rate"]["from_text"]["stated"] == 0.5
    assert metrics["rate"]["from_text"]["recordings"] == 1


def test_sections_tell_the_modality_where_no_findings_do(tmp_path: Path) -> None:
    manifest, reports = corpus(tmp_path, [((), None)], [((), None)])
    write_manifest(manifest, [Entry((tmp_path / "r0.hea",), sections={"RHYTHM": "Asystole."})])
    assert "critical" in evaluate(manifest, reports, resamples=0)


def test_findings_of_both_modalities_are_an_error(tmp_path: Path) -> None:
    manifest, reports = corpus(tmp_path, [((), None)], [((), None)])
    both = (absent_finding("seizure"), absent_finding("asystole"))
    write_manifest(manifest, [Entry((tmp_path / "r0.hea",), findings=both)])
    with pytest.raises(InputError, match="findings of EEG and of ECG"):
        evaluate(manifest, reports)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("Sinus rhythm at 72/min.", 72.0),
        ("Heart rate 72.", 72.0),
        ("A run of 5 beats of ventricular tachycardia at 160/min. The rate is 70/min.", 70.0),
        ("Atrial flutter, atrial rate 300/min, ventricular rate 150/min.", 150.0),
        ("PR 160 ms.", None),
    ],
)
def test_rate_in_words(text: str, rate: float | None) -> None:
    assert rate_in({"RHYTHM": text}) == rate
