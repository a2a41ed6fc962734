"""Files appear whole or not at all."""

import os
from pathlib import Path

import pytest

from bioreport.errors import InputError
from bioreport.files import check_replaceable, folder_written_atomically, write_atomically


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
