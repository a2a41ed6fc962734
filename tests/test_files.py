"""Files appear whole or not at all."""

import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from bioreport.errors import InputError
from bioreport.files import (
    check_replaceable,
    folder_written_atomically,
    remove_leftovers,
    write_atomically,
    written_atomically,
)


def test_write_replaces_the_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "report.md"
    write_atomically(target, "first")
    write_atomically(target, "zweiter µV")
    assert target.read_text(encoding="utf-8") == "zweiter µV"
    assert [p.name for p in target.parent.iterdir()] == ["report.md"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_full_disk_is_one_sentence() -> None:
    with pytest.raises(
        InputError, match=r"/dev/full: cannot be written \(no space left on device\); free space"
    ):
        write_atomically("/dev/full", "text")


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.md"
    write_atomically(target, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="no space left"):
        write_atomically(target, "new")
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_only_leftovers_of_the_files_named_are_removed(tmp_path: Path) -> None:
    for name in (".a.md.abcd1234", ".b.md.abcd1234", ".a.md.old", "a.md", ".hidden"):
        (tmp_path / name).touch()
    remove_leftovers([tmp_path / "a.md", tmp_path / "none" / "c.md"])
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.md.old", ".b.md.abcd1234", ".hidden", "a.md"]


def test_what_another_run_writes_now_is_no_leftover(tmp_path: Path) -> None:
    target = tmp_path / "a.md"
    (tmp_path / ".a.md.abcd1234").touch()
    with written_atomically(target) as file:
        file.write(b"whole")
        remove_leftovers([target])
    assert [path.name for path in tmp_path.iterdir()] == ["a.md"] and target.read_bytes() == b"whole"


def test_a_file_that_another_run_removed_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = tempfile.mkstemp, []

    def removed_at_once(**where: object) -> tuple[int, str]:
        made.append(make(**where))  # type: ignore[call-overload]
        if len(made) == 1:
            remove_leftovers([tmp_path / "a.md"])
        return made[-1]  # type: ignore[no-any-return]

    monkeypatch.setattr(tempfile, "mkstemp", removed_at_once)
    write_atomically(tmp_path / "a.md", "whole")
    assert len(made) == 2 and (tmp_path / "a.md").read_text() == "whole"


def test_where_files_cannot_be_locked_they_are_written_and_leftovers_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    (tmp_path / ".a.md.abcd1234").touch()
    remove_leftovers([tmp_path / "a.md"])
    write_atomically(tmp_path / "a.md", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.md.abcd1234", "a.md"]


def test_an_interrupt_just_after_the_file_took_its_place_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def interrupted(*arguments: str) -> None:
        replace(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.md", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.md"]


def test_folder_takes_its_place_only_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with folder_written_atomically(target) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(RuntimeError), folder_written_atomically(target) as folder:
        (folder / "a").write_text("2")
        raise RuntimeError("interrupted")
    assert (target / "a").read_text() == "1"
    with folder_written_atomically(target) as folder:
        (folder / "b").write_text("3")
    assert [p.name for p in target.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"config.json": "{}", "held_out.dat": "0"}, r"\('held_out.dat' lies in it\); choose a new folder"),
        ({"model.safetensors": "0"}, "its config.json is missing"),
        ({"config.json": "[]"}, "or another program's"),
        ({"config.json": '{"format": "theirs"}'}, "or another program's"),
    ],
)
def test_a_folder_that_is_not_ours_is_not_replaced(
    tmp_path: Path, content: dict[str, str], problem: str
) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    own = {"config.json", "model.safetensors"}
    with pytest.raises(InputError, match=f"is no model's folder.*{problem}"):
        check_replaceable(tmp_path, own, lambda c: c.get("format") == "ours", what="is no model's folder")
    assert {path.name for path in tmp_path.iterdir()} == set(content)


def test_what_may_be_replaced(tmp_path: Path) -> None:
    def check(folder: Path) -> Path:
        return check_replaceable(folder, {"config.json"}, lambda c: c.get("format") == 1, what="is another")

    assert check(tmp_path / "new") == tmp_path / "new"
    assert check(tmp_path) == tmp_path
    (tmp_path / "config.json").write_text('{"format": 1}')
    assert check(tmp_path) == tmp_path
    with pytest.raises(InputError, match="is a file"):
        check(tmp_path / "config.json")
