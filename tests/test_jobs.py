"""What is asked for: which reports, under which names, and what is refused before anything is read."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import run

from bioreport.errors import InputError
from bioreport.jobs import gather, report_names
from bioreport.manifest import Entry, read_manifest, write_manifest


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
            "x/a.edf and y/a.set would both be written to {out}/a.md; give their common",
        ),
        (("a.edf", "b.edf", "a.edf"), "a.edf is given twice; give it once\n"),
    ],
)
def test_two_of_one_name_are_refused_before_anything_is_read(
    files: tuple[str, ...], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert run("generate", *files, "-o", out) == 2
    assert f"error: {words.format(out=out)}" in capsys.readouterr().err and not out.exists()
