"""Recordings in object stores: what is fetched, what is told, and that nothing stays."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pybv
import pytest
import wfdb_files
from fsspec.registry import known_implementations
from small_models import small_bundle

from bioreport.bids import read_sidecar
from bioreport.encode import encode_corpus
from bioreport.errors import InputError
from bioreport.evidence import read_evidence
from bioreport.manifest import Entry, read_manifest, write_manifest
from bioreport.recording import open_recording
from bioreport.remote import local_copy, shown, url_of
from bioreport.simulate import simulate_eeg, write_edf
from bioreport.tokens import TokenStore, encode_manifest, recording_key


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Any]:
    """A store in memory and its address, one for each test."""
    store = fsspec.filesystem("memory")

    def put(folder: Path) -> str:
        address = f"memory://{tmp_path.name}"
        store.put(str(folder), f"/{tmp_path.name}", recursive=True)
        return address

    yield put
    store.rm(f"/{tmp_path.name}", recursive=True)


def eeg(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_edf(simulate_eeg(seed, duration_seconds=12.0), path)
    return path


def test_an_address_travels_as_a_path(tmp_path: Path) -> None:
    for address in ("s3://b/c/a.edf", "memory://x/a.edf", f"file://{tmp_path}/a.edf"):
        assert url_of(Path(address)) == url_of(address) == shown(Path(address)) == address
        assert Path(address).stem == "a"
    assert url_of(Path("gs://b/corpus") / "sub/a.edf") == "gs://b/corpus/sub/a.edf"
    for local in ("a.edf", "/x/a.edf", "C:/x/a.edf", "c:\\x\\a.edf", "notes:/a.edf", "sub-1:2/a.edf"):
        assert url_of(Path(local)) is None
        assert shown(Path(local)) == str(Path(local))


def test_a_manifest_of_an_object_store_becomes_the_same_tokens(tmp_path: Path, bucket: Any) -> None:
    local = tmp_path / "c"
    files = [eeg(local / "a.edf"), eeg(local / "deep" / "b.edf", 1)]
    write_manifest(local / "manifest.jsonl", [Entry((file,), f"p{i}") for i, file in enumerate(files)])
    address = bucket(local)
    entries = read_manifest(f"{address}/manifest.jsonl")
    assert [shown(entry.recordings[0]) for entry in entries] == [f"{address}/a.edf", f"{address}/deep/b.edf"]
    bundle, folder = small_bundle(), tmp_path / "tokens"
    missing = Entry((Path(f"{address}/missing.edf"),))
    errors = encode_manifest([*entries, missing], bundle, folder).errors
    assert [str(error) for error in errors] == [f"{address}/missing.edf: does not exist; check the address."]
    # where a recording lies is no part of what it is
    store = TokenStore(folder)
    for file, entry in zip(files, entries, strict=True):
        key = recording_key(file, bundle.encoding_key())
        assert recording_key(entry.recordings[0], bundle.encoding_key()) == key
        found, wanted = store.get(key), read_evidence(open_recording(file), bundle)
        assert found.tokens.equal(wanted.tokens) and found.file == wanted.file
    assert f'"recording": "{address}/deep/b.edf"' in (folder / "index.jsonl").read_text()
    assert sorted(os.listdir(folder))[:2] == [".lock", "index.jsonl"] and len(os.listdir(folder)) == 4
    # and a manifest of this machine may name them
    write_manifest(tmp_path / "here.jsonl", entries)
    assert read_manifest(tmp_path / "here.jsonl") == entries


def test_all_that_is_part_of_a_recording_is_fetched(tmp_path: Path, bucket: Any) -> None:
    local = tmp_path / "c"
    local.mkdir()
    wfdb_files.write_record(local, "100", wfdb_files.ecg(), ("MLII", "V5"))
    (local / "long.hea").write_text("long/3 2 250 5100\n100 2500\n~ 100\n100 2500\n")
    pybv.write_brainvision(
        data=np.random.default_rng(0).standard_normal((2, 3000)) * 1e-5, sfreq=250, ch_names=["Cz", "Pz"],
        fname_base="b", folder_out=local, events=None,
    )  # fmt: skip
    (local / "b.eeg").rename(local / "elsewhere.eeg")
    header = local / "b.vhdr"
    header.write_text(header.read_text().replace("DataFile=b.eeg", "DataFile=elsewhere.eeg"))
    address = bucket(local)
    for name, parts in (
        ("100.hea", {"100.dat"}),
        ("100.dat", {"100.hea"}),
        ("100", {"100.hea", "100.dat"}),
        ("long.hea", {"100.hea", "100.dat"}),
        ("b.vhdr", {"elsewhere.eeg", "b.vmrk"}),
    ):
        with local_copy(Path(f"{address}/{name}")) as copy:
            assert {file.name for file in copy.parent.iterdir()} >= parts, name
            assert open_recording(copy).duration_seconds == open_recording(local / name).duration_seconds
            assert recording_key(copy, "k") == recording_key(local / name, "k")
        assert not copy.parent.exists()


def test_sidecars_above_a_recording_are_fetched_and_those_of_this_machine_are_not(
    tmp_path: Path, bucket: Any
) -> None:
    local = tmp_path / "c"
    recording = eeg(local / "study" / "sub-1" / "ses-1" / "eeg" / "sub-1_ses-1_task-rest_eeg.edf")
    (local / "study" / "task-rest_eeg.json").write_text('{"PowerLineFrequency": 60}')
    (local / "study" / "task-sleep_eeg.json").write_text('{"PowerLineFrequency": 50}')
    table = recording.with_name("sub-1_ses-1_task-rest_channels.tsv")
    table.write_text("name\ttype\tunits\tstatus\nFz\tEEG\tuV\tbad\n")
    address = bucket(local)
    name = recording.relative_to(local).as_posix()
    (tmp_path / "task-rest_eeg.json").write_text('{"PowerLineFrequency": 50}')
    with local_copy(Path(f"{address}/{name}"), tmp_path / "copies") as copy:
        assert read_sidecar(copy) == read_sidecar(recording)
        assert read_sidecar(copy).line_frequency == 60
    (local / "study" / "task-rest_eeg.json").unlink()
    lone = f"file://{recording}"
    with local_copy(Path(lone), tmp_path / "copies") as copy:
        assert read_sidecar(copy).line_frequency is None
    assert list((tmp_path / "copies").iterdir()) == []


def test_what_fails_is_told_of_the_address(
    tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a.edf").write_bytes(b"no EDF")
    (tmp_path / "c" / "a.hea").write_text("a 1 250 10\nout/side.dat 16 200 11 0 0 0 0 I\n")
    address = bucket(tmp_path / "c")
    with (
        pytest.raises(InputError, match=rf"^{address}/a\.edf: is not an EDF"),
        local_copy(Path(f"{address}/a.edf")) as copy,
    ):
        open_recording(copy)
    with pytest.raises(InputError, match=rf"^{address}/a\.hea: names a signal file outside its own"):
        recording_key(Path(f"{address}/a.hea"), "k")
    with pytest.raises(InputError, match=r"none\.jsonl: does not exist"):
        read_manifest(f"{address}/none.jsonl")
    monkeypatch.setattr(fsspec.implementations.memory.MemoryFileSystem, "get_file", refuse)
    with pytest.raises(InputError, match=r"a\.edf: cannot be fetched \(RuntimeError\); check address, cred"):
        recording_key(Path(f"{address}/a.edf"), "k")
    write_manifest(tmp_path / "m.jsonl", [Entry((Path("a.edf"),))])
    with pytest.raises(InputError, match=r"^memory://x: is in an object store, where nothing can be locked"):
        encode_corpus(tmp_path / "m.jsonl", "memory://x")


def refuse(*_: Any, **__: Any) -> None:
    raise RuntimeError("token abc123 expired")


def test_a_protocol_without_its_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(known_implementations, "s3", {"class": "no_such_driver.S3", "err": "Install s3fs"})
    with pytest.raises(InputError, match=r"s3://b/a\.edf: needs a driver for its protocol \(Install s3fs\)"):
        recording_key(Path("s3://b/a.edf"), "k")
