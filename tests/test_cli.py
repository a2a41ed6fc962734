"""The command line as a user meets it: reports, exit codes, sentences."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import pytest
import torch
from command_line import run

from bioreport import ReportPipeline
from bioreport.errors import InputError
from bioreport.evidence import Evidence
from bioreport.hub import EMBEDDED
from bioreport.prompts import DEFAULT_SECTIONS
from bioreport.simulate import simulate_eeg, write_edf

EXAMPLE = Path(__file__).parents[1] / "examples" / "simulated_eeg.edf"


def sentences(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("bioreport: ")]


@pytest.fixture(scope="module")
def short_edf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulated") / "short.edf"
    write_edf(simulate_eeg(12345, duration_seconds=30, sfreq=200), path)
    return path


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = "import sys, bioreport, bioreport.cli; bioreport.cli.build_parser(); print(sorted(sys.modules))"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("torch", "numpy", "mne", "transformers", "scipy"):
        assert f"'{heavy}'" not in names


def test_example_gives_a_markdown_report_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate", EXAMPLE) == 0
    out = capsys.readouterr().out
    assert out.startswith("# EEG report (draft)\n")
    assert "Not for clinical use" in out and "simulated recordings" in out
    assert [line[3:] for line in out.splitlines() if line.startswith("## ")][: len(DEFAULT_SECTIONS)] == list(
        DEFAULT_SECTIONS
    )


def test_json_holds_what_design_promises(short_edf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate", short_edf, "--format", "json", "--sections", "sleep,SEIZURES", "-q") == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    assert set(report) == {
        "file",
        "modality",
        "duration_seconds",
        "model",
        "sections",
        "findings",
        "measurements",
        "warnings",
        "timings",
    }
    assert [s["name"] for s in report["sections"]] == ["SLEEP", "SEIZURES"]
    assert all(s["text"].strip() for s in report["sections"])
    assert report["duration_seconds"] == pytest.approx(30)
    keys = {"name", "present", "value", "unit", "channels", "start_seconds", "end_seconds", "source"}
    assert all(set(finding) == keys for finding in report["findings"])
    assert "O1" in report["measurements"]["channel_mapping"].values()
    assert captured.err == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="where a GPU is, it may run")
def test_flash_attention_without_a_gpu_is_one_sentence(
    short_edf: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", short_edf, "--attention", "flash") == 1
    assert len(sentences(capsys.readouterr().err)) == 1


def test_greedy_reports_are_the_same_each_time(short_edf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for _ in range(2):
        assert run("generate", short_edf, "-q") == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]


def test_ten_files_of_which_one_is_broken_give_nine_reports(
    short_edf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = []
    for number in range(10):
        files.append(tmp_path / f"r{number}.edf")
        files[-1].write_bytes(b"" if number == 4 else short_edf.read_bytes())
    assert run("generate", *files, "-o", tmp_path / "reports", "--sections", "SLEEP", "--format", "json") == 1
    written = sorted(p.name for p in (tmp_path / "reports").iterdir())
    assert written == [f"r{n}.json" for n in range(10) if n != 4]
    told = sentences(capsys.readouterr().err)
    assert len(told) == 1 and "r4.edf" in told[0]


def make_empty(path: Path) -> None:
    path.write_bytes(b"")


def make_noise(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(100_000))


def make_folder(path: Path) -> None:
    path.mkdir()


def make_truncated(path: Path) -> None:
    write_edf(simulate_eeg(3, duration_seconds=30, sfreq=200), path)
    path.write_bytes(path.read_bytes()[:700])


@pytest.mark.parametrize("make", [make_empty, make_noise, make_folder, make_truncated, lambda path: None])
def test_bad_input_is_one_sentence_and_exit_1(
    make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "bad.edf"
    make(path)
    assert run("generate", path, "-o", tmp_path / "out.md") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
    assert re.match(r"bioreport: \S*bad\.edf: .+; .+\.$", captured.err.strip())
    assert not (tmp_path / "out.md").exists()


def test_odd_real_files_never_give_a_traceback(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(p for p in (shared / "data" / "dev" / "odd").iterdir() if p.suffix in (".edf", ".hea"))
    assert len(files) >= 9
    for file in files:
        target = tmp_path / f"{file.name}.json"
        code = run("generate", file, "-o", target, "-q", "--sections", "SLEEP")
        captured = capsys.readouterr()
        assert code in (0, 1), file.name
        assert "Traceback" not in captured.err
        if code == 1:
            assert len(captured.err.strip().splitlines()) == 1 and file.name in captured.err
            assert not target.exists()
        else:
            assert json.loads(target.read_text())["warnings"], (
                f"{file.name} is odd, and the report does not say so"
            )


def test_mangled_file_is_refused(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate", shared / "data" / "dev" / "odd" / "S001R01_mangled.edf") == 1
    assert len(sentences(capsys.readouterr().err)) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_one_sentence(short_edf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate", short_edf, "-o", "/dev/full", "-q") == 1
    told = sentences(capsys.readouterr().err)
    assert len(told) == 1 and "no space left" in told[0]
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "bioreport", "generate", short_edf, "-q"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
    assert result.returncode == 1
    assert len(result.stderr.strip().splitlines()) == 1 and "no space left" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate"], "required"),
        (["generate", "a.edf", "b.edf"], "need -o DIR"),
        (["generate", "a.edf", "--sections", "SLEEP,POEM"], "unknown section 'POEM'"),
        (["generate", "x/a.edf", "y/a.edf", "-o", "out/"], "a.edf would both be written to"),
        (["generate", "a.edf", "--line-frequency", "55"], "invalid choice"),
        (
            ["generate", "a.edf", "-o", "r.pdf"],
            "the ending is .md, .json or .html, or --format says the form",
        ),
        (["train", "meit", "none.jsonl", "-o", "out"], "train meit needs a language model"),
        (["nonsense"], "invalid choice"),
    ],
)
def test_wrong_usage_is_exit_2(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 2
    assert words in capsys.readouterr().err


def test_missing_history_file_and_model_are_sentences(
    short_edf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", short_edf, "--history", f"@{tmp_path / 'none.txt'}") == 1
    assert "none.txt: cannot be read as a history (no such file" in capsys.readouterr().err
    assert run("generate", short_edf, "--model", tmp_path / "no-model") == 1
    told = sentences(capsys.readouterr().err)
    assert len(told) == 1 and "no-model" in told[0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--sections", "sleep,SLEEP"), "section SLEEP is asked for twice"),
        (("--temperature", "-1"), "must be from 0 to 100"),
        (("--temperature", "nan"), "must be from 0 to 100"),
        (("--seed", "-1"), "must be from 0 to 4294967295"),
        (("--seed", str(2**70)), "must be from 0 to 4294967295"),
    ],
)
def test_senseless_options_are_wrong_usage(
    arguments: tuple[str, str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("generate", EXAMPLE, *arguments) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--duration", "5"), ("--duration", "nan"), ("--seed", "-1")])
def test_a_senseless_simulation_is_wrong_usage(option: tuple[str, str], tmp_path: Path) -> None:
    assert run("simulate", "eeg", "-o", tmp_path / "corpus", *option) == 2
    assert not (tmp_path / "corpus").exists()


def test_a_log_holds_sentences_and_no_progress_bar(
    short_edf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.edf"
    broken.write_bytes(b"")
    assert run("generate", broken, short_edf, "-o", tmp_path / "out") == 1
    err = capsys.readouterr().err
    assert err.startswith(f"bioreport: {broken}: is empty") and "report/s" not in err


def test_a_recording_too_long_for_the_model_stops_no_other(
    short_edf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ReportPipeline.write

    def refusing(self: ReportPipeline, evidence: list[list[Evidence]], *more: Any, **options: Any) -> Any:
        if any(e.duration_seconds > 60 for group in evidence for e in group):
            raise InputError("model", "is too small", "take another")
        return whole(self, evidence, *more, **options)

    monkeypatch.setattr(ReportPipeline, "write", refusing)
    assert run("generate", EXAMPLE, short_edf, "-q", "-o", tmp_path / "out") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["short.md"]
    assert sentences(capsys.readouterr().err) == ["bioreport: model: is too small; take another."]


def test_a_closed_stdout_is_a_sentence(
    short_edf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert run("generate", short_edf, "-q") == 1
    assert sentences(capsys.readouterr().err) == [
        "bioreport: standard output: is closed; leave it open or name a file with -o."
    ]


def test_a_history_beyond_the_context_is_a_sentence(
    short_edf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # the embedded model's own prompts hold the first words alone
    model = Path(shutil.copytree(EMBEDDED["eeg"], tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"prompt": "full"}))
    assert run("generate", short_edf, "--model", model, "--history", "word " * 5000) == 1
    told = sentences(capsys.readouterr().err)
    assert len(told) == 1 and "shorten the history" in told[0]


def test_header_names_reach_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    simulation = simulate_eeg(7, duration_seconds=20, sfreq=200)
    signals = [
        edfio.EdfSignal(
            row, simulation.sfreq, label=label, physical_dimension="uV", physical_range=(-3000, 3000)
        )
        for row, label in zip(np.clip(simulation.data, -3000, 3000), simulation.labels, strict=True)
    ]
    patient = edfio.Patient(code="MCH-0234567", sex="F", name="Haagse_Harry")
    recording = edfio.Recording(
        hospital_administration_code="PSG-1234/2002", investigator_technician_code="NN_Doctor"
    )
    path = tmp_path / "visit.edf"
    edfio.Edf(signals, patient=patient, recording=recording).write(path)
    for form in ("md", "json", "html"):
        assert run("generate", path, "-v", "-o", tmp_path / f"out.{form}") == 0
        captured = capsys.readouterr()
        everything = captured.out + captured.err + (tmp_path / f"out.{form}").read_text()
        for secret in ("Harry", "Haagse", "0234567", "1234/2002", "NN_Doctor"):
            assert secret not in everything


def test_verbose_shows_mapping_and_speed(short_edf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("generate", short_edf, "-v") == 0
    told = capsys.readouterr().err
    assert "-> O1" in told and "× real time" in told and "peak memory" in told


def test_doctor_names_all_that_extras_add() -> None:
    from bioreport.doctor import OPTIONAL, REQUIRED

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {name for extra in ("flash", "train", "cluster", "quantize", "dicom") for name in extras[extra]}
    told = {distribution for distribution, *_ in (*REQUIRED, *OPTIONAL)}
    assert {re.match(r"[\w-]+", name)[0] for name in wanted} <= told  # type: ignore[index]
    assert "s3fs" in told


def test_doctor_names_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("doctor") == 0
    out = capsys.readouterr().out
    assert re.search(r"^torch \d", out, re.M) and "bioreport-tiny: " in out and "flash-attn" in out


def test_simulate_then_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = tmp_path / "corpus"
    assert run("simulate", "eeg", "--count", "3", "--seed", "77", "--duration", "30", "-o", corpus, "-q") == 0
    edfs = sorted(corpus.glob("*.edf"))
    assert len(edfs) == 3 and (corpus / "manifest.jsonl").exists()
    assert run("generate", *edfs, "-o", tmp_path / "reports", "--format", "json", "-q") == 0
    capsys.readouterr()
    assert (
        run("evaluate", corpus / "manifest.jsonl", "--reports", tmp_path / "reports", "--format", "json") == 0
    )
    metrics = json.loads(capsys.readouterr().out)
    assert metrics
