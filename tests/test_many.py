"""`generate` for many recordings: the same text in any batch or process, nothing written twice or lost."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run

from bioreport import cli
from bioreport.ecg.simulation.record import simulate_ecg
from bioreport.ecg.simulation.writing import write_record
from bioreport.files import remove_leftovers
from bioreport.manifest import Entry, write_manifest
from bioreport.simulate import simulate_eeg, write_edf


def eeg(path: Path, seed: int, seconds: float = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_edf(simulate_eeg(seed, duration_seconds=seconds, sfreq=200), path)


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three EEGs of different lengths and two ECGs, of which two share a name."""
    folder = tmp_path_factory.mktemp("many") / "ward"
    for name, seed, seconds in (("a/visit", 1, 20), ("b/visit", 2, 10), ("b/night", 3, 30)):
        eeg(folder / f"{name}.edf", seed, seconds)
    for seed in (4, 5):
        write_record(simulate_ecg(seed, duration_seconds=10), folder / f"ecg{seed}.hea")
    return folder


NAMES = ["a/visit", "b/night", "b/visit", "ecg4", "ecg5"]


def reports(folder: Path, form: str = "json") -> dict[str, Any]:
    """All that lies in a folder; of a JSON without what differs from run to run, the seconds."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        found[name] = json.loads(path.read_text()) if form == "json" else path.read_text()
        if form == "json":
            found[name].pop("timings")
    return found


@pytest.mark.parametrize("options", [(), ("--seed", "7", "--sections", "IMPRESSION/INTERPRETATION")])
def test_a_report_is_the_same_alone_in_a_batch_and_read_by_other_processes(
    options: tuple[str, ...], ward: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # in float32: bfloat16 rounds by the shape of a batch
    always = ("--format", "json", "-q", "--device", "cpu", *options)
    assert run("generate", ward, "-o", tmp_path / "batched", *always) == 0
    batched = reports(tmp_path / "batched")
    assert list(batched) == [f"{name}.json" for name in NAMES]
    endings = {True: ".hea", False: ".edf"}
    for name in NAMES:
        alone = tmp_path / "alone" / f"{name}.json"
        assert run("generate", ward / f"{name}{endings['ecg' in name]}", "-o", alone, *always) == 0
    alone = reports(tmp_path / "alone")
    # a key is of use where a report may be kept
    assert {name: report | {"key": batched[name]["key"]} for name, report in alone.items()} == batched
    if not options:
        # one recording, so one process: each takes seconds to begin
        assert run("generate", ward / "a", "-o", tmp_path / "apart", "--workers", "2", *always) == 0
        assert reports(tmp_path / "apart") == {"visit.json": batched["a/visit.json"]}
    assert capsys.readouterr().err == ""


def test_what_is_there_is_kept_and_what_changed_is_written_anew(
    ward: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    for seed in (1, 2, 3):
        eeg(source / f"r{seed}.edf", seed)

    def generate(*options: str, files: tuple[Path, ...] = (source,)) -> dict[str, int]:
        assert run("generate", *files, "-o", out, "--sections", "SLEEP", *options) == 0
        return times()

    def times() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in out.iterdir()}

    generate()
    assert "3 reports written; " in capsys.readouterr().err
    (out / "r1.md").write_text((out / "r1.md").read_text().replace("# EEG", "# Edited EEG"))
    first = times()
    assert generate() == first
    assert "0 reports written; 3 kept" in capsys.readouterr().err
    # named one by one or in another order they are the same reports
    assert generate(files=tuple(sorted(source.glob("*.edf"), reverse=True))) == first

    eeg(source / "r2.edf", 9)
    second = generate()
    assert {name for name in first if first[name] != second[name]} == {"r2.md"}
    assert "1 report written; 2 kept" in capsys.readouterr().err

    third = generate("--history", "Chest pain.")
    assert not set(third.values()) & set(second.values())
    assert not set(generate("--history", "Chest pain.", "--overwrite").values()) & set(third.values())
    # one file is one report that is asked for: always written
    before = (out / "r1.md").stat().st_mtime_ns
    assert run("generate", source / "r1.edf", "-o", out, "--sections", "SLEEP", "-q") == 0
    assert (out / "r1.md").stat().st_mtime_ns != before


def test_a_recording_that_broke_loses_no_report_of_what_it_held(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    for name, seconds in (("a", 10), ("b", 20)):
        eeg(source / f"{name}.edf", 1, seconds)
    assert run("generate", source, "-o", out, "--sections", "SLEEP", "-q") == 0
    before = (out / "a.md").read_bytes()
    (source / "a.edf").write_bytes(b"0       broken")
    assert run("generate", source, "-o", out, "--sections", "SLEEP") == 1
    told = capsys.readouterr().err
    assert "a.edf: " in told and "a.md: left as it is, of what the recording held before" in told
    assert "0 reports written; 1 kept, whose recording, model and options are the same; 1 failed" in told
    assert (out / "a.md").read_bytes() == before


def test_reports_may_lie_beside_their_recordings(tmp_path: Path) -> None:
    eeg(tmp_path / "a.edf", 1)
    written = []
    for _ in range(2):
        assert run("generate", tmp_path, "-o", tmp_path, "--format", "json", "--sections", "SLEEP") == 0
        written.append((tmp_path / "a.json").stat().st_mtime_ns)
    # in JSON it has the name of a BIDS sidecar, which would be part of the recording
    assert written[0] == written[1]


def _generate_in_a_fork(arguments: list[str]) -> None:
    torch.set_num_threads(1)  # the threads of the process that was forked are not there
    sys.exit(cli.main(arguments))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_instant_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for seed in range(6):
        eeg(source / f"r{seed}.edf", seed)
    # a process that was forked cannot use a GPU that this one has used
    always = ["--sections", "SLEEP", "--batch-size", "1", "-q", "--device", "cpu"]
    assert run("generate", source, "-o", tmp_path / "whole", *always) == 0
    whole = reports(tmp_path / "whole", "md")
    assert len(whole) == 6

    draw, killed, out = random.Random(0), 0, tmp_path / "killed"
    context = multiprocessing.get_context("fork")
    for wanted in (0, 1, 3, 4):
        process = context.Process(
            target=_generate_in_a_fork, args=(["generate", str(source), "-o", str(out), *always],)
        )
        process.start()
        while process.is_alive() and len(list(out.glob("r*.md"))) < wanted:
            time.sleep(0.002)
        time.sleep(draw.uniform(0, 0.1))
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        # what is there is whole at every instant
        assert {name: text for name, text in whole.items() if (out / name).exists()} == reports_of(out)
    assert killed >= 3
    (out / ".r2.md.abcd1234").write_text("half of a rep")
    assert run("generate", source, "-o", out, *always) == 0
    assert reports(out, "md") == whole


def reports_of(out: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(out.glob("r*.md"))}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_runs_write_into_one_folder_beside_each_other(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    for seed in range(4):
        eeg(source / f"r{seed}.edf", seed)
    always = ["--sections", "SLEEP", "--batch-size", "1", "-q", "--device", "cpu", "--overwrite"]
    assert run("generate", source, "-o", tmp_path / "whole", *always) == 0
    context = multiprocessing.get_context("fork")
    runs = [
        context.Process(
            target=_generate_in_a_fork, args=(["generate", str(source), "-o", str(out), *always],)
        )
        for _ in range(2)
    ]
    for process in runs:
        process.start()
    while any(process.is_alive() for process in runs):
        # what a third run begins with, at every instant of the others
        remove_leftovers(out / f"r{seed}.md" for seed in range(4))
    for process in runs:
        process.join()
    assert [process.exitcode for process in runs] == [0, 0]
    assert reports(out, "md") == reports(tmp_path / "whole", "md")
    assert capfd.readouterr().err == ""


def test_recordings_may_lie_in_an_object_store(tmp_path: Path) -> None:
    eeg(tmp_path / "corpus" / "p1" / "a.edf", 1)
    write_manifest(tmp_path / "corpus" / "manifest.jsonl", [Entry((tmp_path / "corpus" / "p1" / "a.edf",))])
    times = []
    for _ in range(2):
        address = f"file://{tmp_path}/corpus/manifest.jsonl"
        assert run("generate", address, "-o", tmp_path / "out", "--sections", "SLEEP", "-q") == 0
        times.append((tmp_path / "out" / "p1" / "a.md").stat().st_mtime_ns)
    assert times[0] == times[1]
    assert "- Recording: a.edf\n" in (tmp_path / "out" / "p1" / "a.md").read_text()


def test_evaluate_finds_reports_where_generate_puts_them(
    ward: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [
        Entry((ward / name / "visit.edf",), sections={"SLEEP": "No sleep was recorded."}, history="Syncope.")
        for name in ("a", "b")
    ]
    manifest = write_manifest(ward / "manifest.jsonl", entries)
    always = ("--format", "json", "-q")
    assert run("generate", manifest, "-o", tmp_path, "--sections", "SLEEP", *always) == 0
    assert list(reports(tmp_path)) == ["a/visit.json", "b/visit.json"]
    assert run("evaluate", manifest, "--reports", tmp_path, "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)["missing_reports"] == []
