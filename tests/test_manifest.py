"""Manifests come back as they were written, and every fault names its file and line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bioreport.errors import InputError
from bioreport.manifest import Entry, read_manifest, write_manifest


def line(**fields: object) -> str:
    return json.dumps({"recording": "a.edf", **fields})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    finding = {
        "name": "seizure",
        "present": True,
        "value": None,
        "unit": None,
        "channels": ["T3"],
        "start_seconds": 3.0,
        "end_seconds": 9.0,
    }
    event = {"name": "seizure", "start_seconds": 3.0, "end_seconds": 9.0, "channels": ["T3"]}
    entries = [
        Entry(
            (tmp_path / "a.edf",),
            "p1",
            "Seizures since µ.",
            {"SLEEP": "None."},
            (finding,),
            (event,),
            "train",
            "en",
            {"scp_codes": {"SR": 0.0}},
        ),
        Entry((tmp_path / "sub" / "b.edf", tmp_path / "c.edf")),
    ]
    path = write_manifest(tmp_path / "manifest.jsonl", entries)
    assert read_manifest(path) == entries
    assert [json.loads(text)["recording"] for text in path.read_text().splitlines()] == [
        "a.edf",
        ["sub/b.edf", "c.edf"],
    ]


def test_a_recording_elsewhere_keeps_its_whole_path(tmp_path: Path) -> None:
    entry = Entry((tmp_path / "elsewhere" / "a.edf",))
    path = write_manifest(tmp_path / "corpus" / "manifest.jsonl", [entry])
    assert read_manifest(path) == [entry]


def test_paths_are_relative_to_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "m.jsonl").write_text(line() + "\n\n")
    monkeypatch.chdir(tmp_path)
    assert read_manifest("deep/m.jsonl")[0].recordings == (Path("deep/a.edf"),)
    write_manifest("deep/m.jsonl", read_manifest("deep/m.jsonl"))
    assert json.loads((tmp_path / "deep" / "m.jsonl").read_text())["recording"] == "a.edf"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[1]", "is no JSON object"),
        (json.dumps({"patient": "p"}), "'recording' must be"),
        (line(recording=[]), "'recording' must be"),
        (line(recording=[1]), "'recording' must be"),
        (line(recordings="a.edf"), "unknown field 'recordings'"),
        (line(patient=3), "'patient' must be text"),
        (line(sections=["SLEEP"]), "'sections' must map"),
        (line(sections={"SLEEP": None}), "'sections' must map"),
        (line(language=1), "'language' must be text"),
        (line(labels=["SR"]), "'labels' must be"),
        (line(findings={"seizure": True}), "'findings' must be a list"),
        (line(findings=[{"name": "seizure"}]), "'name' and 'present'"),
        (line(findings=[{"name": "seizure", "present": 1}]), "'name' and 'present'"),
        (line(findings=[{"name": "siezure", "present": True}]), "unknown finding 'siezure'"),
        (line(findings=[{"name": "seizure", "present": True}] * 2), "listed twice"),
        (line(findings=[{"name": "seizure", "present": True, "value": "9"}]), "must be a number"),
        (line(events=[3]), "'events' must be"),
    ],
)
def test_a_fault_names_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(line() + "\n" + text + "\n")
    with pytest.raises(InputError, match="line 2") as error:
        read_manifest(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe\x00"])
def test_no_entries_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"m\.jsonl"):
        read_manifest(path)


def test_entries_that_fail_leave_what_was_there(tmp_path: Path) -> None:
    path = write_manifest(tmp_path / "m.jsonl", [Entry((tmp_path / "a.edf",))])
    before = path.read_bytes()

    def failing() -> Iterator[Entry]:
        yield Entry((tmp_path / "b.edf",))
        raise InputError("corpus", "is broken", "mend it")

    with pytest.raises(InputError, match="mend it"):
        write_manifest(path, failing())
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def test_a_missing_manifest_and_a_folder_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.jsonl", tmp_path):
        with pytest.raises(InputError, match="cannot be read as a manifest"):
            read_manifest(path)
