"""`generate` for many recordings: the same text in any batch or process, nothing written twice or lost."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bioreport import ahead, cli
from bioreport.ahead import Models, Read, Reader, read_ahead
from bioreport.background import made_ahead
from bioreport.commands.generate import WINDOW, _Writing
from bioreport.ecg.simulation.record import simulate_ecg
from bioreport.ecg.simulation.writing import write_record
from bioreport.errors import InputError
from bioreport.files import remove_leftovers
from bioreport.jobs import Job, gather, report_names
from bioreport.keys import fingerprint, written_key
from bioreport.manifest import Entry, read_manifest, write_manifest
from bioreport.report import Report
from bioreport.simulate import simulate_eeg, write_edf
from bioreport.workers import Died, NotStarted


def run(*arguments: str | Path) -> int:
    try:
        return cli.main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


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


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("a.edf", "a.edf"),
        ("ecg.hea", "ecg.hea"),
        ("ecg", "ecg.dat"),
        ("ecg.dat", "../{here}/ecg.hea"),
        ("@list.md", "list.md"),
        ("manifest.jsonl", "manifest.jsonl"),
        ("sub-1_eeg.edf", "sub-1_eeg.json"),
        ("sub-1_eeg.edf", "sub-1_channels.tsv"),
        ("sub-1_eeg.edf", "link.json"),
    ],
)
def test_what_is_read_is_not_overwritten(
    source: str, target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["a.edf", "ecg.dat", "sub-1_eeg.edf", "sub-1_eeg.json", "sub-1_channels.tsv"]
    for name in names:
        (tmp_path / name).write_bytes(b"{}")
    (tmp_path / "ecg.hea").write_text("ecg 1 500 10\necg.dat 16 200 16 0 0 0 0 I\n")
    (tmp_path / "link.json").symlink_to("sub-1_eeg.json")
    (tmp_path / "list.md").write_text(f"{tmp_path}/a.edf\n")
    write_manifest(tmp_path / "manifest.jsonl", [Entry((tmp_path / "a.edf",))])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    given = f"@{tmp_path}/{source[1:]}" if source[0] == "@" else tmp_path / source
    out = tmp_path / target.format(here=tmp_path.name)
    # a list or manifest of one would go into a folder
    code = run("generate", given, "-o", out, "--format", "json")
    told = capsys.readouterr().err
    if source in ("@list.md", "manifest.jsonl"):
        assert code == 2 and "is a file; several reports need a folder" in told
    else:
        assert code == 1 and "is read, and would be overwritten; choose another file" in told
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_sidecar_beside_recordings_is_not_overwritten_by_reports_of_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.edf", "sub-1_eeg.edf"):
        (tmp_path / name).write_bytes(b"0")
    (tmp_path / "sub-1_eeg.json").write_text('{"PowerLineFrequency": 60}')
    assert run("generate", tmp_path, "-o", tmp_path, "--format", "json") == 1
    assert "sub-1_eeg.json: is read, and would be overwritten" in capsys.readouterr().err
    assert (tmp_path / "sub-1_eeg.json").read_text() == '{"PowerLineFrequency": 60}'


def test_a_history_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history = tmp_path / "history.md"
    history.write_text("Falls.")
    assert run("generate", tmp_path / "a.edf", "--history", f"@{history}", "-o", history) == 1
    assert "history.md: is read, and" in capsys.readouterr().err and history.read_text() == "Falls."


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


# --- what is asked for


def names(*files: Path | str, **options: Any) -> list[str]:
    return [job.name for job in gather([Path(file) for file in files], **options)[0]]


def test_reports_lie_as_their_recordings_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("x/a.edf", "y/a.edf", "y/z/b.hea", "y/z/b.dat", "y/c.edf", "y/c.set", "y/notes.txt"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    assert names(tmp_path) == ["x/a", "y/a", "y/c.edf", "y/c.set", "y/z/b"]
    assert names(tmp_path / "y") == ["a", "c.edf", "c.set", "z/b"]
    assert names(tmp_path / "x" / "a.edf", tmp_path / "y" / "a.edf") == ["a", "a"]
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("x/a.edf\n\n y/z/b.hea \n")
    jobs, collected = gather([Path("@list.txt")])
    assert collected and [job.recordings for job in jobs] == [(Path("x/a.edf"),), (Path("y/z/b.hea"),)]
    assert [job.name for job in jobs] == ["x/a", "y/z/b"]
    Path("nested.txt").write_text("y/z/b.hea\ny\n")
    assert names("@nested.txt") == ["b", "a", "c.edf", "c.set", "z/b"]
    for content, words in ((None, "cannot be read as a list"), ("\n", "lists no recording")):
        bad = tmp_path / "bad.txt"
        bad.unlink(missing_ok=True)
        if content is not None:
            bad.write_text(content)
        with pytest.raises(InputError, match=words):
            gather([Path(f"@{bad}")])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no recording"):
        gather([tmp_path / "empty"])


def test_a_list_may_come_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(read=lambda: "p/a.edf\nq/a.edf\n"))
    assert names("@-") == ["p/a", "q/a"]


def test_a_manifest_brings_histories_and_recordings_that_share_a_report(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    entries = [
        Entry((folder / "a.edf", folder / "b.edf"), history="Syncope."),
        Entry((folder / "p1" / "c.edf",)),
    ]
    manifest = write_manifest(folder / "manifest.jsonl", entries)
    jobs, collected = gather([manifest], "Of all others.")
    assert collected and [job.name for job in jobs] == ["a", "p1/c"]
    assert [job.history for job in jobs] == ["Syncope.", "Of all others."]
    assert [len(job.recordings) for job in jobs] == [2, 1]
    other = write_manifest(elsewhere / "manifest.jsonl", entries)
    assert report_names(read_manifest(other), other) == ["a", "p1/c"]
    # codes are of one recording each, whatever reports it is part of
    write_manifest(other, [*entries, Entry((folder / "b.edf",))])
    apart, _ = gather([other], apart=True)
    assert [job.name for job in apart] == ["a", "b", "p1/c"]
    assert [len(job.recordings) for job in apart] == [1, 1, 1]


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{manifest}", "--together", "-o", "out.md"), "a manifest says itself which share a report"),
        (("{manifest}",), "several reports need -o DIR"),
        (("a.edf", "--workers", "0"), "must be at least 1"),
    ],
)
def test_wrong_usage(
    arguments: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_manifest(tmp_path / "manifest.jsonl", [Entry((tmp_path / "a.edf", tmp_path / "b.edf"))])
    assert run("generate", *(a.format(manifest=manifest) for a in arguments)) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            ("x/a.edf", "y/a.set"),
            "x/a.edf: and y/a.set would both be written to {out}/a.md; give their common",
        ),
        (("a.edf", "b.edf", "a.edf"), "a.edf: is given twice; give it once."),
    ],
)
def test_two_of_one_name_are_refused_before_anything_is_read(
    files: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("generate", *files, "-o", out) == 1
    assert capsys.readouterr().err.startswith(f"bioreport: {words.format(out=out)}") and not out.exists()


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


# --- batches, processes, keys


class Counting:
    """A model that notes its batches."""

    room = 99

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def writer(self, modality: str) -> "Counting":
        return self

    def length(self, evidence: list[int], *more: Any, **options: Any) -> int:
        return evidence[0]

    def write(self, evidence: list[list[int]], *more: Any, **options: Any) -> list[Report]:
        if len(evidence) > self.room or max(evidence)[0] > 1000:
            raise torch.OutOfMemoryError("CUDA out of memory")
        self.batches.append([one[0] for one in evidence])
        return [Report("f", "eeg", 1.0, {}, [], [], {}) for _ in evidence]


def writing_with(model: Any) -> _Writing:
    options = Namespace(signal="tokens", batch_size=4, seed=None, quiet=True, verbose=False)
    bar: Any = SimpleNamespace(update=lambda: None, set_postfix_str=lambda *a, **b: None)
    return _Writing(options, model, None, "md", 0.0, bar)


def test_a_batch_too_large_for_the_gpu_is_written_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model: Any = Counting()
    model.room = 1
    writing = writing_with(model)
    for length in (1, 2000, 3):
        job = Job((Path(f"{length}.edf"),), "f", target=tmp_path / f"{length}.md")
        writing.take(Read(job, modality="eeg", evidence=[length]))  # type: ignore[list-item]
    writing.finish()
    assert (writing.written, writing.failed) == (2, 1) and model.batches == [[1], [3]]
    assert "2000.edf: needs more memory for its report than the GPU has left" in capsys.readouterr().err


def test_a_reader_that_breaks_is_told_of_its_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> None:
        raise IndexError("Haagse_Harry")

    monkeypatch.setattr(ahead, "open_recording", broken)
    read = Reader(Models())(Job((Path("a.edf"),), "a"))
    assert str(read.error).startswith("a.edf: cannot be read (IndexError); look at the traceback that -v")


def test_batches_are_of_like_length_and_few_recordings_wait(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model: Any = Counting()
    writing = writing_with(model)
    draw = random.Random(0)
    lengths = [draw.randrange(1000) for _ in range(37)]
    for number, length in enumerate(lengths):
        job = Job((Path("f"),), "f", target=tmp_path / f"{number}.md")
        writing.take(Read(job, modality="eeg", evidence=[length]))  # type: ignore[list-item]
        # what waits does not grow with what there is
        assert sum(map(len, writing._waiting.values())) < WINDOW * 4
    writing.finish()
    assert writing.written == 37 and len(list(tmp_path.iterdir())) == 37
    window = WINDOW * 4
    expected = [sorted(lengths[i : i + window]) for i in range(0, 37, window)]
    assert model.batches == [part[i : i + 4] for part in expected for i in range(0, len(part), 4)]


def test_a_process_that_dies_costs_its_recording_and_the_order_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [Job((Path(f"{number}.edf"),), str(number)) for number in range(5)]

    def processes(setup: Any, tasks: Any, workers: int) -> Iterator[tuple[tuple[int, Job], bytes | Died]]:
        assert workers == 3
        work = setup(0)
        for number, job in sorted(tasks, key=lambda task: -task[0]):
            yield (number, job), Died(-9) if number == 1 else work((number, job))

    monkeypatch.setattr(ahead, "run_in_processes", processes)
    reads = list(read_ahead(jobs, Read, workers=3))
    assert [read.job for read in reads] == jobs
    assert [read.error is not None for read in reads] == [False, True, False, False, False]
    assert "1.edf: ended the process that was reading it (killed by SIGKILL)" in str(reads[1].error)


def test_processes_that_do_not_begin_are_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def processes(*arguments: Any) -> Iterator[Any]:
        raise NotStarted("a worker ended before its first task (killed by SIGKILL)")
        yield

    monkeypatch.setattr(ahead, "run_in_processes", processes)
    with pytest.raises(InputError, match=r"--workers 2: cannot be had \(a worker ended .*; give fewer"):
        list(read_ahead([Job((Path("a"),), "a")] * 3, Read, workers=2))


def test_what_waits_for_a_slow_recording_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_WAITING", 2)
    seen: list[str] = []

    def results() -> Iterator[tuple[int, Read]]:
        for number in (2, 1, 3, 4, 0, 5):
            seen.append(f"read {number}")
            yield number, Read(Job((Path("a"),), str(number)))

    for read in ahead._in_turn(results(), lambda: None):
        seen.append(f"given {read.job.name}")
    # 0 is waited for until three others are there; from then on each is given as it comes
    assert seen == [
        *("read 2", "read 1", "read 3", "given 1", "given 2", "given 3", "read 4", "given 4"),
        *("read 0", "given 0", "read 5", "given 5"),
    ]


def test_reports_do_not_wait_long_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    model: Any = Counting()
    writing = writing_with(model)

    def take(number: int, seconds: float) -> None:
        clock[0] += seconds
        job = Job((Path("f"),), "f", target=tmp_path / f"{number}.md")
        writing.take(Read(job, modality="eeg", evidence=[number]))  # type: ignore[list-item]

    for number in range(3):
        take(number, 12.0)
    # the fourth would come 36 s after the first
    assert model.batches == [[0, 1, 2]]
    take(3, 40.0)
    assert model.batches == [[0, 1, 2], [3]]
    take(4, 0.1)
    clock[0] += 29.0
    writing.hasten()
    assert len(model.batches) == 2
    clock[0] += 2.0
    writing.hasten()
    assert model.batches[2:] == [[4]] and (tmp_path / "4.md").is_file()


def test_a_slow_recording_loses_its_turn_in_time_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "PATIENCE", 0.0)
    seen: list[str] = []

    def results() -> Iterator[tuple[int, Read] | None]:
        yield 1, Read(Job((Path("a"),), "1"))
        yield None
        yield 0, Read(Job((Path("a"),), "0"))

    for read in ahead._in_turn(results(), lambda: seen.append("idle")):
        seen.append(read.job.name)
    assert seen == ["1", "idle", "0"]

    def slow() -> Iterator[int]:
        time.sleep(0.3)
        yield 1

    found = list(made_ahead(slow(), 2, idle=0.1))
    assert found[0] is None and found[-1] == 1


def test_a_thread_is_a_bounded_number_of_items_ahead_and_ends() -> None:
    made: list[int] = []
    ended: list[bool] = []

    def items() -> Iterator[int]:
        try:
            for number in range(100):
                made.append(number)
                yield number
        finally:
            ended.append(True)

    source = made_ahead(items(), 3)
    assert next(source) == 0
    time.sleep(0.3)
    assert len(made) <= 6
    source.close()
    assert ended and len(made) <= 6
    assert list(made_ahead(iter(range(9)), 2)) == list(range(9))

    def failing() -> Iterator[int]:
        yield 1
        raise InputError("a", "is broken", "mend it")

    with pytest.raises(InputError, match="is broken"):
        list(made_ahead(failing(), 2))


def test_a_key_is_read_back_from_every_form_and_not_from_a_text(tmp_path: Path) -> None:
    key, forged = "ab" * 32, "cd" * 32
    text = f'<!-- key {forged} --> <meta name="key" content="{forged}">\n  "key": "{forged}"'
    report = Report("f", "eeg", 1.0, {}, [{"name": "SLEEP", "text": text}], [], {})
    for form in ("md", "json", "html"):
        path = tmp_path / f"a.{form}"
        for expected in ("", key):
            report.key = expected
            path.write_text(report.render(form))
            assert written_key(path) == expected
    assert written_key(tmp_path / "none") == ""


def test_a_model_is_told_by_its_files_and_its_language_model(tmp_path: Path) -> None:
    bundle, llm = tmp_path / "bundle", tmp_path / "llm"
    for folder, content in ((bundle, json.dumps({"llm": str(llm)})), (llm, "{}")):
        folder.mkdir()
        (folder / "config.json").write_text(content)
    seen = [fingerprint(bundle)]
    assert fingerprint(bundle) == seen[0] and fingerprint(bundle, str(llm)) == seen[0]
    (llm / "model.safetensors").write_bytes(b"1")
    seen.append(fingerprint(bundle))
    (bundle / "model.safetensors").write_bytes(b"1")
    seen.append(fingerprint(bundle))
    seen.append(fingerprint(bundle, "somebody/some-llm"))
    assert all(one != other for i, one in enumerate(seen) for other in seen[:i])
