"""From an ECG file to a report: what a user sees."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import wfdb_files
from command_line import run
from small_models import save_small_llm

from bioreport import ReportPipeline
from bioreport.bundle_reader import load_bundle
from bioreport.ecg.facts import ASPECTS, prompt_facts, report_facts, territory, unjudged_aspects
from bioreport.ecg.leads import LEADS
from bioreport.ecg.reading import EcgRecording
from bioreport.ecg.simulation.record import simulate_ecg
from bioreport.ecg.simulation.wording import write_sections
from bioreport.ecg.simulation.writing import write_record
from bioreport.errors import InputError
from bioreport.findings import ECG_NAMES, absent_finding
from bioreport.hub import EMBEDDED
from bioreport.manifest import Entry, write_manifest
from bioreport.meit import train_meit
from bioreport.prompts import DEFAULT_SECTIONS, ECG_SECTIONS

EXAMPLES = Path(__file__).parents[1] / "examples"
ECG, EEG = EXAMPLES / "simulated_ecg.hea", EXAMPLES / "simulated_eeg.edf"


def told(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("bioreport: ")]


@pytest.fixture(scope="module")
def pipeline() -> ReportPipeline:
    return ReportPipeline.from_pretrained("bioreport-ecg-tiny")


def recording(seed: int, leads: tuple[str, ...] = LEADS, **options: object) -> EcgRecording:
    simulated = simulate_ecg(seed, **options)  # type: ignore[arg-type]
    rows = [simulated.leads.index(lead) for lead in leads]
    return EcgRecording.from_array(simulated.data[rows], simulated.sfreq, leads)


@pytest.mark.parametrize("name", ["simulated_ecg.hea", "simulated_ecg.dat", "simulated_ecg"])
def test_the_example_gives_a_report_by_any_of_its_names(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", EXAMPLES / name, "--format", "json", "-q") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["modality"] == "ecg" and report["model"]["name"] == "bioreport-ecg-tiny"
    assert [section["name"] for section in report["sections"]] == list(ECG_SECTIONS)
    assert all(section["text"] for section in report["sections"])
    rate = report["measurements"]["rate"]["value"]
    rhythm = report["sections"][0]["text"]
    assert any(abs(float(number) - rate) <= 0.5 for number in re.findall(r"\b(\d+)(?: ?/min)", rhythm))
    truth = json.loads((EXAMPLES / "manifest.jsonl").read_text().splitlines()[1])
    found = {finding["name"] for finding in report["findings"] if finding["present"]}
    assert found == {finding["name"] for finding in truth["findings"] if finding["present"]}


def test_eegs_and_ecgs_in_one_call(tmp_path: Path) -> None:
    assert run("generate", ECG, EEG, "-o", tmp_path, "--format", "json", "-q") == 0
    names = {
        path.stem: [section["name"] for section in json.loads(path.read_text())["sections"]]
        for path in tmp_path.glob("*.json")
    }
    assert names == {"simulated_ecg": list(ECG_SECTIONS), "simulated_eeg": list(DEFAULT_SECTIONS)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((EEG, ECG, "--together"), "without --together"),
        ((ECG, "--model", "bioreport-tiny"), "use bioreport-ecg-tiny"),
        ((EEG, "--model", "bioreport-ecg-tiny"), "use bioreport-tiny"),
        ((EEG, "--sections", "rhythm"), "no section RHYTHM"),
        ((ECG, "--sections", "sleep"), "no section SLEEP"),
        ((ECG, "--signal", "statistics"), "use --signal tokens or none"),
    ],
)
def test_what_does_not_fit_the_recording_is_one_sentence(
    arguments: tuple[str | Path, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", *arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    (sentence,) = told(captured.err)
    assert words in sentence


def test_several_records_of_one_patient_share_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", ECG, ECG, "--together", "-q", "--format", "json") == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["measurements"]["recordings"]) == 2


def test_two_leads_say_what_they_cannot_show(pipeline: ReportPipeline) -> None:
    report = pipeline(recording(4, ("II", "V1"), duration_seconds=30, present=["atrial_fibrillation"]))
    assert not isinstance(report, list)
    present = {finding["name"] for finding in report.findings if finding["present"]}
    assert "atrial_fibrillation" in present
    listed = {finding["name"] for finding in report.findings}
    assert "left_axis_deviation" not in listed
    (judged,) = [warning for warning in report.warnings if warning.startswith("Not judged")]
    aspects = judged.partition(": ")[2]
    assert "axis" in aspects and "rhythm" not in aspects
    assert any(
        warning.startswith("The recording has 2 of the twelve leads: II, V1") for warning in report.warnings
    )
    text = " ".join(section["text"] for section in report.sections)
    assert "axis deviation" not in text and "Normal ECG" not in text


def test_a_lead_without_an_electrode_is_said_to_be_off(tmp_path: Path, pipeline: ReportPipeline) -> None:
    simulated = simulate_ecg(5, present=["sinus_rhythm"], clean=True)
    data = simulated.data.copy()
    data[LEADS.index("V3")] = 0.0
    report = pipeline(wfdb_files.write_record(tmp_path, "off", data, LEADS, sfreq=500))
    assert not isinstance(report, list)
    (off,) = [finding for finding in report.findings if finding["name"] == "lead_off"]
    assert off["present"] and off["channels"] == ["V3"]
    assert "V3" in next(s["text"] for s in report.sections if s["name"] == "TECHNICAL QUALITY")


def test_a_long_record_has_tokens_of_six_windows(pipeline: ReportPipeline) -> None:
    rng = np.random.default_rng(0)
    short = simulate_ecg(11, present=["sinus_rhythm"], clean=True)
    data = np.tile(short.data[[0, 1]], (1, 30)) + rng.normal(0, 0.01, (2, 30 * short.data.shape[1]))
    (evidence,) = pipeline.read(EcgRecording.from_array(data, short.sfreq, ("I", "II")))
    frames = -(-2500 // pipeline.bundle.encoder.config.stride)  # type: ignore[union-attr]
    assert evidence.tokens.shape == (6 * frames, pipeline.bundle.encoder_dim)
    assert evidence.measurements["duration_seconds"] == pytest.approx(300)


def test_leads_without_a_known_place_give_a_rhythm(pipeline: ReportPipeline) -> None:
    short = simulate_ecg(12, duration_seconds=20, present=["sinus_rhythm"], clean=True)
    (report,) = pipeline([EcgRecording.from_array(short.data[[1]], short.sfreq, ("ECG1",))])
    assert report.measurements["rate"]["value"] == pytest.approx(short.facts["rate_per_minute"], abs=3)
    assert any("none of the twelve leads" in warning for warning in report.warnings)


def test_nothing_but_noise_is_refused(pipeline: ReportPipeline) -> None:
    noise = np.random.default_rng(1).normal(0, 0.3, (12, 5000))
    with pytest.raises(InputError, match="no usable ECG signal"):
        pipeline(EcgRecording.from_array(noise, 500.0))


def test_greedy_reports_are_the_same_alone_and_in_a_batch(pipeline: ReportPipeline) -> None:
    records = [recording(seed) for seed in (21, 22, 23)]
    together = pipeline(records)
    assert isinstance(together, list)
    for record, report in zip(records, together, strict=True):
        alone = pipeline(record)
        assert not isinstance(alone, list) and alone.sections == report.sections


@pytest.fixture(scope="module")
def meit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MEIT of random weights, trained for one step."""
    folder = tmp_path_factory.mktemp("meit")
    sections = {"RHYTHM": "Sinus rhythm.", "IMPRESSION/INTERPRETATION": "Normal ECG."}
    entries = [Entry((ECG,), patient, None, sections) for patient in ("p1", "p2")]
    train_meit(
        write_manifest(folder / "manifest.jsonl", entries), out=folder / "model", max_steps=1, device="cpu",
        llm=str(save_small_llm(folder / "llm")), encoder={"blocks": (1, 1, 1, 1), "width": 4, "hidden": 16},
    )  # fmt: skip
    return folder / "model"


def test_a_meit_model_writes_grounded_reports(meit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate", ECG, "--model", meit, "--history", "Chest pain.", "--format", "json", "-q") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["model"]["name"] == "model" and report["modality"] == "ecg"
    assert any("takes no history" in warning for warning in report["warnings"])
    # what the untrained model did not say was added from the measurements
    assert "first-degree av block" in " ".join(section["text"].lower() for section in report["sections"])
    names = [section["name"] for section in report["sections"]]
    assert run("generate", ECG, "--model", meit, "--sections", "rhythm", "--format", "json", "-q") == 0
    assert names and [s["name"] for s in json.loads(capsys.readouterr().out)["sections"]] == ["RHYTHM"]


def test_meit_samples_the_same_alone_and_in_a_batch(meit: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        write_record(simulate_ecg(seed, duration_seconds=10), tmp_path / "in" / f"r{seed}.hea")
    always = (
        "--model",
        meit,
        "--seed",
        "3",
        "--temperature",
        "2",
        "--format",
        "json",
        "-q",
        "--device",
        "cpu",
    )
    assert run("generate", tmp_path / "in", "-o", tmp_path / "out", *always) == 0
    alone = tmp_path / "r2.json"
    assert run("generate", tmp_path / "in" / "r2.hea", "-o", alone, *always) == 0
    together = json.loads((tmp_path / "out" / "r2.json").read_text())
    assert json.loads(alone.read_text())["sections"] == together["sections"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((EEG,), "for ECGs"), ((ECG, ECG, "--together"), "--together"), ((ECG, "--signal", "none"), "--signal")],
)
def test_what_meit_cannot_do_is_one_sentence(
    arguments: tuple[str | Path, ...], words: str, meit: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", *arguments, "--model", meit) == 1
    (sentence,) = told(capsys.readouterr().err)
    assert words in sentence


def test_both_embedded_models_take_at_most_40_mb() -> None:
    size = sum(f.stat().st_size for folder in EMBEDDED.values() for f in folder.rglob("*") if f.is_file())
    assert size <= 40e6
    assert {load_bundle(name).modality for name in ("bioreport-tiny", "bioreport-ecg-tiny")} == {"eeg", "ecg"}


# ---- facts and wording


def entries(*present: str, without: tuple[str, ...] = ()) -> list[dict[str, object]]:
    hidden = {name for aspect in without for name in ASPECTS[aspect]}
    return [
        {**absent_finding(name), "present": name in present, "channels": ["V2", "V3", "V4"]}
        for name in ECG_NAMES
        if name not in hidden
    ]


@pytest.mark.parametrize(
    ("leads", "where"),
    [
        (["II", "III", "aVF"], "inferior"),
        (["V1", "V2", "V3", "V4"], "anteroseptal"),
        (["V3", "V4", "V5", "V6"], "anterolateral"),
        (["II", "III", "aVF", "V5", "V6"], "inferolateral"),
        (["I", "II", "III", "aVF", "V4", "V5", "V6"], "diffuse"),
        (["V1", "II"], None),
        ([], None),
    ],
)
def test_leads_look_at_a_wall(leads: list[str], where: str | None) -> None:
    assert territory(leads) == where


def test_what_was_not_judged_is_neither_stated_nor_denied() -> None:
    found = entries("sinus_rhythm", without=tuple(ASPECTS)[2:])
    assert unjudged_aspects(found) == list(ASPECTS)[2:]
    for seed in range(20):
        text = " ".join(write_sections(found, {"rate_per_minute": 70}, np.random.default_rng(seed)).values())
        for word in ("hypertrophy", "Normal ECG", "normal ECG", "elevation", "inversion", "upright"):
            assert word not in text, text


def test_a_rhythm_that_cannot_be_told_is_not_called_sinus() -> None:
    for seed in range(20):
        written = write_sections(entries("bradycardia"), {"rate_per_minute": 45}, np.random.default_rng(seed))
        assert "inus" not in " ".join(written.values())


def test_facts_hold_numbers_and_leads() -> None:
    measurements = {
        "rate": {"value": 71.6}, "pr": {"value": 160}, "qrs": {"value": 92}, "qt": {"value": 380},
        "qtc_bazett": {"value": 415}, "axis": {"value": 45}, "runs": [], "rr": {"regular": True},
        "mains": {"frequency_hz": 50.0}, "atrial": {"flutter_rate": None},
    }  # fmt: skip
    found = entries("sinus_rhythm", "st_elevation", "mains_interference")
    assert prompt_facts(report_facts(measurements, found), found) == [
        "Rate 72 /min.", "PR 160 ms.", "QRS 92 ms.", "QT 380 ms.", "QTc 415 ms.", "Axis 45°.", "Mains 50 Hz.",
        "ST: anterior.", "Finding: sinus rhythm.", "Finding: ST elevation, V2, V3, V4.",
        "Finding: mains interference.",
    ]  # fmt: skip
    few = entries("atrial_fibrillation", without=("axis", "QT"))
    facts = report_facts(measurements, few)
    assert facts["pr_ms"] is facts["axis_degrees"] is facts["qtc_ms"] is None
    assert prompt_facts(facts, few)[-1] == "Not judged: axis, QT."
    assert "Rhythm undetermined." in prompt_facts(facts, entries())
