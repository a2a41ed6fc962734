"""The pipeline as Python code uses it."""

from pathlib import Path

import numpy as np
import pytest

from bioreport import InputError, Report, ReportPipeline, open_recording
from bioreport.findings import MEASURED
from bioreport.lexicon import read_findings
from bioreport.prompts import DEFAULT_SECTIONS, SECTIONS
from bioreport.recording import Recording
from bioreport.simulate import simulate_eeg, write_edf


@pytest.fixture(scope="module")
def pipeline() -> ReportPipeline:
    return ReportPipeline.from_pretrained("bioreport-tiny", device="cpu")


def recording(seed: int, seconds: float = 40, **options: object) -> Recording:
    simulation = simulate_eeg(seed, duration_seconds=seconds, **options)  # type: ignore[arg-type]
    return Recording.from_array(simulation.data, simulation.sfreq, simulation.names)


def finding(report: Report, name: str) -> dict:  # type: ignore[type-arg]
    return next(entry for entry in report.findings if entry["name"] == name)


def test_a_list_gives_what_single_calls_give(pipeline: ReportPipeline) -> None:
    items = [recording(1, 30), recording(2, 60), recording(3, 45)]
    histories = ["First seizure.", None, "Confusion."]
    together = pipeline(items, histories)
    assert isinstance(together, list)
    for item, history, report in zip(items, histories, together, strict=True):
        alone = pipeline(item, history)
        assert isinstance(alone, Report)
        assert alone.sections == report.sections
        assert alone.findings == report.findings


def test_a_tuple_is_one_report_of_several_recordings(pipeline: ReportPipeline) -> None:
    calm = recording(4, 40, present=["posterior_dominant_rhythm"])
    ill = recording(5, 40, present=["burst_suppression"])
    report = pipeline((calm, ill))
    assert isinstance(report, Report)
    assert report.duration_seconds == pytest.approx(80)
    assert finding(report, "burst_suppression")["present"]
    assert finding(report, "posterior_dominant_rhythm")["present"]
    assert len(report.measurements["recordings"]) == 2
    assert any(w.startswith("Recording 2 ") and "burst suppression" in w for w in report.warnings)
    assert "- Channels of recording 2: " in report.to_markdown()


def test_a_long_history_is_shortened_and_that_is_said(pipeline: ReportPipeline) -> None:
    start = "Admitted after a fall at home, found confused by her daughter. " * 3
    short, long = (
        pipeline(recording(7, 30), start + end, ["SLEEP"]) for end in ("", "Known diabetes mellitus. " * 25)
    )
    assert isinstance(short, Report) and isinstance(long, Report)
    assert not any("history" in warning for warning in short.warnings)
    said = [warning for warning in long.warnings if "characters of the history" in warning]
    assert len(said) == 1 and said[0] in long.to_markdown() and said[0] in long.to_json()
    assert "## " not in long.sections[0]["text"]


@pytest.mark.parametrize("signal", ["none", "statistics", "tokens"])
def test_baselines_write_reports_too(pipeline: ReportPipeline, signal: str) -> None:
    report = pipeline(recording(6), signal=signal)  # type: ignore[arg-type]
    assert isinstance(report, Report)
    assert [section["name"] for section in report.sections] == list(DEFAULT_SECTIONS)
    # a baseline's text is not mended from the signal, and says so
    assert any("Baseline" in warning for warning in report.warnings) == (signal != "tokens")


def test_a_simulated_seizure_is_found_and_said(pipeline: ReportPipeline) -> None:
    report = pipeline(
        recording(11, 120, present=["posterior_dominant_rhythm", "seizure"]), sections=["SEIZURES"]
    )
    assert isinstance(report, Report)
    assert finding(report, "seizure")["present"]
    assert "seizure" in report.sections[0]["text"].lower()
    assert "no " not in report.sections[0]["text"].lower()[:5]


def test_posterior_rhythm_of_a_real_recording(pipeline: ReportPipeline, shared: Path) -> None:
    report = pipeline(shared / "data" / "dev" / "eeg" / "Subject00_1.edf")
    assert isinstance(report, Report)
    assert finding(report, "posterior_dominant_rhythm")["value"] == pytest.approx(10.5, abs=1)
    assert not finding(report, "focal_epileptiform_discharges")["present"]
    assert len(report.measurements["channels_present"]) == 19
    assert report.duration_seconds == pytest.approx(182)


def test_no_seizure_is_invented_on_real_recordings(pipeline: ReportPipeline, shared: Path) -> None:
    files = sorted(
        path for path in (shared / "data" / "dev" / "eeg").iterdir() if path.suffix.lower() == ".edf"
    )
    assert len(files) == 4
    for report in pipeline(list(files)):  # type: ignore[arg-type, union-attr]
        present = {entry["name"] for entry in report.findings if entry["present"]}
        assert not present & {"seizure", "burst_suppression", "generalized_spike_wave"}, report.file


def test_unknown_section_and_wrong_counts_are_refused(pipeline: ReportPipeline) -> None:
    with pytest.raises(ValueError, match="unknown section 'POEM'"):
        pipeline(recording(7), sections=["POEM"])
    with pytest.raises(ValueError, match="1 recordings but 2 histories"):
        pipeline([recording(7)], ["a", "b"])


def test_a_recording_without_signal_is_refused(pipeline: ReportPipeline) -> None:
    flat = Recording.from_array(np.zeros((19, 6000)), 200.0, recording(8).names[:19])
    with pytest.raises(InputError, match="no usable EEG signal"):
        pipeline(flat)


def test_a_path_and_an_open_recording_give_the_same_report(pipeline: ReportPipeline, tmp_path: Path) -> None:
    path = tmp_path / "a.edf"
    write_edf(simulate_eeg(9, duration_seconds=50, sfreq=256), path)
    from_file = pipeline(path)
    from_memory = pipeline(open_recording(path))
    assert isinstance(from_file, Report) and isinstance(from_memory, Report)
    assert from_file.sections == from_memory.sections


def test_no_finding_ends_after_the_recording(pipeline: ReportPipeline) -> None:
    report = pipeline(recording(3, 16, present=["electrode_artifact", "drowsiness"]))
    assert isinstance(report, Report)
    ends = [entry["end_seconds"] for entry in report.findings if entry["end_seconds"] is not None]
    assert ends and all(end <= 16 for end in ends)


def test_few_electrodes_give_no_finding_of_the_model(pipeline: ReportPipeline) -> None:
    full = recording(12, 60, present=["generalized_spike_wave"])
    few = Recording.from_array(full.read(0, full.n_samples)[:3], full.sfreq, full.names[:3])
    report = pipeline(few, sections=SECTIONS)
    assert isinstance(report, Report)
    assert {entry["source"] for entry in report.findings} == {"measurement"}
    said = read_findings({section["name"]: section["text"] for section in report.sections})
    assert not [name for name, state in said.items() if state is not None and name not in MEASURED]
    assert "normal" not in " ".join(section["text"] for section in report.sections).lower()
    assert any(warning.startswith("Only 3 usable electrodes") for warning in report.warnings)
