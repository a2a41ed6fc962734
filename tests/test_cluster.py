"""`encode --cluster ray`: the same tokens as here, and a recording that kills its process told of."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from bioreport import encode as encode_module
from bioreport.bundle_reader import load_bundle
from bioreport.encode import Encoding, encode_corpus
from bioreport.errors import InputError
from bioreport.manifest import Entry, write_manifest
from bioreport.simulate import simulate_eeg, write_edf
from bioreport.tokens import encode_manifest


class Deadly(Encoding):
    """Dies over one recording."""

    def encode(self, bundle: Any, task: tuple[int, str]) -> Any:
        if task[1].endswith("deadly.edf"):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode(bundle, task)


def corpus(folder: Path) -> list[Entry]:
    entries = []
    for i, name in enumerate(("a", "b", "deadly", "c")):
        write_edf(simulate_eeg(i, duration_seconds=12.0), folder / f"{name}.edf")
        entries.append(Entry((folder / f"{name}.edf",)))
    entries.append(Entry((folder / "missing.edf",)))
    return entries


@pytest.mark.slow
def test_two_workers_of_a_cluster_write_what_one_process_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="bioreport[cluster] is not installed")
    # the workers know nothing of this file
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(encode_module, "Encoding", Deadly)
    entries = corpus(tmp_path)
    manifest = write_manifest(tmp_path / "manifest.jsonl", entries)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        summary = encode_corpus(
            manifest, tmp_path / "tokens", device="cpu", dtype="float32", workers=2, cluster="ray"
        )
    finally:
        ray.shutdown()
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert summary.encoded == 3
    told = {Path(error.path).name: error.problem for error in summary.errors}
    assert told == {
        "deadly.edf": "ended the process that was encoding it (2 times)",
        "missing.edf": "cannot be read (no such file or directory)",
    }
    without = [entry for entry in entries if entry.stem != "deadly"]
    encode_manifest(without, load_bundle(device="cpu"), tmp_path / "here")
    for file in (tmp_path / "here").glob("tokens-*"):
        assert (tmp_path / "tokens" / file.name).read_bytes() == file.read_bytes()
    assert not (tmp_path / "tokens" / "parts").exists()


def test_a_machine_without_ray_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    manifest = write_manifest(tmp_path / "manifest.jsonl", [Entry((tmp_path / "a.edf",))])
    with pytest.raises(InputError, match=r"--cluster ray: needs Ray.*pip install 'bioreport\[cluster\]'"):
        encode_corpus(manifest, tmp_path / "tokens", device="cpu", cluster="ray")
