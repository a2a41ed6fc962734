"""Scores against counts made by hand, controls that fall, intervals by patient."""

import json
from pathlib import Path
from typing import Any

import pytest

from bioreport.errors import InputError
from bioreport.evaluate import derangement, evaluate, posterior_frequency, render
from bioreport.findings import BY_NAME, absent_finding
from bioreport.manifest import Entry, write_manifest

NAMES = ("posterior_dominant_rhythm", "focal_slowing", "seizure")
SENTENCES = {
    "focal_slowing": ("There is focal slowing over the left temporal region.", "There is no focal slowing."),
    "seizure": ("An electrographic seizure was recorded.", "No seizures were recorded."),
}


def finding(name: str, present: bool, value: float | None = None) -> dict[str, Any]:
    return absent_finding(name) | {"present": present, "value": value, "unit": BY_NAME[name].unit}


def truth(slowing: bool, seizure: bool, frequency: float | None) -> list[dict[str, Any]]:
    return [
        finding(NAMES[0], frequency is not None, frequency),
        finding(NAMES[1], slowing),
        finding(NAMES[2], seizure),
    ]


def wording(slowing: bool, seizure: bool, frequency: float | None) -> dict[str, str]:
    rhythm = f"The posterior dominant rhythm is {frequency:g} Hz. " if frequency is not None else ""
    return {
        "BACKGROUND ACTIVITY": rhythm + SENTENCES["focal_slowing"][not slowing],
        "EVENTS/SEIZURES": SENTENCES["seizure"][not seizure],
    }


def write_report(folder: Path, stem: str, slowing: bool, seizure: bool, frequency: float | None) -> None:
    folder.mkdir(exist_ok=True)
    report = {
        "sections": [{"name": n, "text": t} for n, t in wording(slowing, seizure, frequency).items()],
        "findings": [entry | {"source": "model"} for entry in truth(slowing, seizure, frequency)],
    }
    (folder / f"{stem}.json").write_text(json.dumps(report))


Row = tuple[bool, bool, float | None]


def corpus(
    folder: Path, rows: list[Row], said: list[Row], patients: list[str] | None = None
) -> tuple[Path, Path]:
    entries = []
    for i, row in enumerate(rows):
        entries.append(
            Entry(
                (folder / f"r{i}.edf",),
                patients[i] if patients else None,
                None,
                wording(*row),
                tuple(truth(*row)),
            )
        )
    for i, row in enumerate(said):
        write_report(folder / "reports", f"r{i}", *row)
    return write_manifest(folder / "manifest.jsonl", entries), folder / "reports"


def test_counts_made_by_hand(tmp_path: Path) -> None:
    rows: list[Row] = [(True, True, 9.0), (True, False, 10.0), (False, False, 8.0), (False, True, None)]
    said: list[Row] = [(True, True, 9.5), (False, True, 10.6), (True, False, None), (False, False, None)]
    metrics = evaluate(*corpus(tmp_path, rows, said), resamples=0)
    for source in ("from_findings", "from_text"):
        scores = metrics["findings"][source]
        per = scores["per_finding"]
        assert set(per) == set(NAMES)
        # slowing: 1 right, 1 invented, 1 missed; seizure the same; rhythm 2 right, 1 missed
        assert per["focal_slowing"]["f1"] == pytest.approx(0.5)
        assert per["seizure"]["f1"] == pytest.approx(0.5)
        assert per[NAMES[0]]["precision"] == 1.0
        assert per[NAMES[0]]["recall"] == pytest.approx(2 / 3, abs=1e-6)
        assert scores["micro"]["f1"] == pytest.approx(8 / 13, abs=1e-6)
        assert scores["macro"]["f1"] == pytest.approx((0.5 + 0.5 + 0.8) / 3, abs=1e-6)
        assert metrics["seizure"][source]["invented_rate"] == 0.5
        assert metrics["seizure"][source]["missed_rate"] == 0.5
        posterior = metrics["posterior"][source]
        # 0.5 Hz is within, 0.6 is not, and a frequency that is not stated is not
        assert posterior["within_half_hz"] == pytest.approx(1 / 3, abs=1e-6)
        assert posterior["mean_absolute_error_hz"] == pytest.approx(0.55)
        assert posterior["stated"] == pytest.approx(2 / 3, abs=1e-6)
        assert posterior["recordings"] == 3


def many() -> list[Row]:
    return [(i % 2 == 0, i % 3 == 0, 7.0 + i % 5) for i in range(60)]


def test_perfect_reports_are_perfect_and_their_control_is_not(tmp_path: Path) -> None:
    metrics = evaluate(*corpus(tmp_path, many(), many()))
    shuffled, template = metrics["controls"]["shuffled"], metrics["controls"]["most_frequent"]
    for source in ("from_findings", "from_text"):
        assert metrics["findings"][source]["micro"]["f1"] == 1.0
        assert metrics["findings"][source]["micro"]["f1_ci"] == [1.0, 1.0]
        assert metrics["posterior"][source]["within_half_hz"] == 1.0
        assert metrics["seizure"][source]["invented_rate"] == 0.0
        assert shuffled["findings"][source]["per_finding"]["focal_slowing"]["f1"] < 0.8
        assert shuffled["findings"][source]["per_finding"]["seizure"]["f1"] < 0.6
        assert shuffled["posterior"][source]["within_half_hz"] < 0.5
        # two of three recordings have no seizure, so the template never states one
        assert template["seizure"][source]["missed_rate"] == 1.0
        assert template["seizure"][source]["invented_rate"] == 0.0
    assert metrics["text"]["all"]["bleu4"] == 1.0
    assert metrics["text"]["all"]["rouge_l"] == 1.0
    assert shuffled["text"]["all"]["rouge_l"] < 1.0


def test_close_wording_of_the_opposite_falls_in_findings_not_in_rouge(tmp_path: Path) -> None:
    rows: list[Row] = [(False, i % 2 == 0, None) for i in range(10)]
    said: list[Row] = [(False, i % 2 == 1, None) for i in range(10)]
    metrics = evaluate(*corpus(tmp_path, rows, said), resamples=0)
    assert metrics["text"]["all"]["rouge_l"] > 0.6
    assert metrics["findings"]["from_text"]["per_finding"]["seizure"]["f1"] == 0.0
    assert metrics["seizure"]["from_text"]["invented_rate"] == 1.0


def test_a_missing_report_says_nothing(tmp_path: Path) -> None:
    rows: list[Row] = [(True, True, 9.0), (True, True, 9.0)]
    metrics = evaluate(*corpus(tmp_path, rows, rows[:1]), resamples=0)
    assert metrics["missing_reports"] == ["r1"]
    assert metrics["findings"]["from_findings"]["micro"]["recall"] == 0.5
    assert metrics["text"]["sections"]["EVENTS/SEIZURES"]["rouge_l"] == 0.5


def test_intervals_are_over_patients_and_repeat(tmp_path: Path) -> None:
    said: list[Row] = [(True, seizure, f) for _, seizure, f in many()]
    (tmp_path / "one").mkdir()
    (tmp_path / "few").mkdir()
    alone = evaluate(*corpus(tmp_path / "one", many(), said))
    few = evaluate(*corpus(tmp_path / "few", many(), said, [f"p{i % 4}" for i in range(60)]))
    assert (alone["patients"], few["patients"]) == (60, 4)
    assert (
        alone["findings"]["from_findings"]["micro"]["f1"] == few["findings"]["from_findings"]["micro"]["f1"]
    )
    assert (
        alone["findings"]["from_findings"]["micro"]["f1_ci"]
        != few["findings"]["from_findings"]["micro"]["f1_ci"]
    )
    low, high = alone["findings"]["from_findings"]["micro"]["f1_ci"]
    assert low < alone["findings"]["from_findings"]["micro"]["f1"] < high
    assert evaluate(tmp_path / "one" / "manifest.jsonl", tmp_path / "one" / "reports") == alone


def test_findings_that_the_truth_does_not_know_do_not_count(tmp_path: Path) -> None:
    manifest, reports = corpus(tmp_path, [(True, True, 9.0)], [(True, True, 9.0)])
    report = json.loads((reports / "r0.json").read_text())
    report["findings"].append(finding("burst_suppression", True))
    (reports / "r0.json").write_text(json.dumps(report))
    scores = evaluate(manifest, reports, resamples=0)["findings"]["from_findings"]
    assert scores["micro"]["precision"] == 1.0
    assert "burst_suppression" not in scores["per_finding"]


def test_one_recording_has_no_shuffled_control_and_no_seizure_share(tmp_path: Path) -> None:
    metrics = evaluate(*corpus(tmp_path, [(True, False, None)], [(True, False, None)]))
    assert "shuffled" not in metrics["controls"]
    assert metrics["seizure"]["from_findings"]["missed_rate"] is None
    assert metrics["seizure"]["from_findings"]["missed_rate_ci"] is None
    assert "–" in render(metrics, "text")


def test_entries_without_known_findings_are_scored_by_their_text(tmp_path: Path) -> None:
    manifest = write_manifest(
        tmp_path / "m.jsonl", [Entry((tmp_path / "r0.edf",), sections=wording(True, True, 9.0))]
    )
    write_report(tmp_path / "reports", "r0", True, True, 9.0)
    metrics = evaluate(manifest, tmp_path / "reports")
    assert metrics["text"]["all"]["bleu4"] == 1.0
    assert metrics["findings"]["from_findings"]["micro"]["f1"] is None
    assert json.loads(render(metrics, "json")) == metrics


def test_the_table_shows_the_controls_beside(tmp_path: Path) -> None:
    metrics = evaluate(*corpus(tmp_path, many(), many()))
    table = render(metrics, "text").splitlines()
    assert table[0].startswith("60 recordings of 60 patients, 0 without")
    row = next(line for line in table if line.startswith("micro f1, findings"))
    shuffled = metrics["controls"]["shuffled"]["findings"]["from_findings"]["micro"]["f1"]
    assert row.split()[3:5] == ["1.000", "1.000–1.000"]
    assert f"{shuffled:.3f}" in row
    assert json.loads(render(metrics, "json"))["recordings"] == 60


@pytest.mark.parametrize(
    "content", ["", "[]", '{"sections": 3, "findings": []}', '{"sections": [], "findings": [3]}']
)
def test_a_broken_report_is_named(tmp_path: Path, content: str) -> None:
    manifest, reports = corpus(tmp_path, [(True, True, 9.0)], [(True, True, 9.0)])
    (reports / "r0.json").write_text(content)
    with pytest.raises(InputError, match=r"r0\.json"):
        evaluate(manifest, reports)


def test_no_reports_and_doubled_names_are_errors(tmp_path: Path) -> None:
    manifest, reports = corpus(tmp_path, [(True, True, 9.0)], [(True, True, 9.0)])
    with pytest.raises(InputError, match="holds no report"):
        evaluate(manifest, tmp_path / "nowhere")
    write_manifest(manifest, [Entry((tmp_path / "a" / "r0.edf",)), Entry((tmp_path / "a" / "r0.edf",))])
    with pytest.raises(InputError, match=r"two recordings named 'a/r0\.edf'"):
        evaluate(manifest, reports)


@pytest.mark.parametrize("count", [2, 3, 10, 501])
def test_a_derangement_leaves_nothing_in_place(count: int) -> None:
    order = derangement(count, 0)
    assert sorted(order) == list(range(count))
    assert all(i != j for i, j in enumerate(order))
    assert order == derangement(count, 0)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The posterior dominant rhythm is 9.5 Hz.", 9.5),
        ("A symmetric 9-10 Hz alpha rhythm is seen over the occipital regions.", 9.5),
        ("3 Hz spike-and-wave was seen. The posterior rhythm reaches 8 Hz.", 8.0),
        ("There is generalized slowing at 5 Hz.", None),
        ("No posterior dominant rhythm was seen.", None),
    ],
)
def test_posterior_frequency_in_words(text: str, value: float | None) -> None:
    assert posterior_frequency({"BACKGROUND ACTIVITY": text}) == value


def test_reports_of_the_other_modality_are_refused(tmp_path: Path) -> None:
    manifest, reports = corpus(tmp_path, [(True, False, 9.0)], [(True, False, 9.0)])
    path = reports / "r0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "modality": "eeg"}))
    assert evaluate(manifest, reports, resamples=0)["recordings"] == 1
    path.write_text(json.dumps({**json.loads(path.read_text()), "modality": "ecg"}))
    with pytest.raises(InputError, match="is the report of an ECG, and the manifest is of EEGs"):
        evaluate(manifest, reports)
