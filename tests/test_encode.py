"""`encode`: kills, deaths, failures and the number of workers leave no trace in what it writes."""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from small_models import SIZES, small_bundle

from bioreport import cli, token_writer
from bioreport.bundle_reader import load_bundle
from bioreport.encode import Summary, encode_corpus
from bioreport.errors import InputError
from bioreport.evidence import Evidence
from bioreport.findings import absent_finding
from bioreport.manifest import Entry, read_manifest, write_manifest
from bioreport.simulate import simulate_eeg, write_edf
from bioreport.tokens import TokenStore, encode_manifest, fill_store, recording_key


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


def index(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]


def forked(run: Callable[[], object], kill_after: float | None = None) -> int:
    """Exit code of `run` in a child that is killed after so many seconds; negative where by a signal."""
    child = os.fork()
    if child == 0:
        try:
            run()
        except BaseException:
            os._exit(99)
        os._exit(0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# stand-ins: files that hold a number, read in no time


def read(path: Path) -> Evidence:
    if path.read_bytes() == b"broken":
        raise InputError(path, "is broken", "mend it")
    draw = torch.Generator().manual_seed(int(path.read_bytes()))
    return Evidence(
        file=path.name,
        duration_seconds=30.0,
        channels=("O1", "O2"),
        tokens=torch.randn(3, SIZES["out_dim"], generator=draw),
        findings=[absent_finding("seizure") | {"source": "model"}],
        measurements={"mains": None},
        warnings=[],
    )


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Seven recordings in groups of three: the third is broken, the fifth says what the second says."""
    monkeypatch.setattr(token_writer, "RECORDINGS_PER_SHARD", 3)
    (tmp_path / "c").mkdir()
    files = [tmp_path / "c" / f"r{i}.edf" for i in range(7)]
    for i, file in enumerate(files):
        file.write_text({2: "broken", 4: "1"}.get(i, str(i)))
    return files


def fill(folder: Path, paths: list[Path]) -> list[InputError]:
    return fill_store(TokenStore(folder), paths, "encoding", read).errors


def die_at(call: int) -> None:
    """Kill this process at so many changes of the disk: half a write is left, anything else is not begun."""
    calls = 0

    def fatal(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                if change is write:
                    handle, data = arguments
                    write(handle, data[: random.Random(call).randrange(len(data))])
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*arguments, **options)

        return changed

    write = os.write
    for name in ("write", "replace", "unlink", "truncate", "fsync", "rmdir", "mkdir"):
        setattr(os, name, fatal(getattr(os, name)))


def test_a_kill_at_any_change_of_the_disk_leaves_no_trace(tmp_path: Path, paths: list[Path]) -> None:
    whole = tmp_path / "whole"
    assert len(fill(whole, paths)) == 1
    wanted = content(whole)
    lines = index(whole)
    assert [line["recording"] for line in lines] == [f"../c/r{i}.edf" for i in range(7) if i != 4]
    assert [line["error"] is None for line in lines] == [i != 2 for i in range(6)]
    assert len({line["shard"] for line in lines} - {None}) == 3
    call = 0
    while True:
        call += 1
        folder = tmp_path / f"killed-{call}"

        def killed(folder: Path = folder, call: int = call) -> None:
            die_at(call)
            fill(folder, paths)

        code = forked(killed)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        if call % 3 == 0:
            # and once more while it mends what the first kill left
            forked(lambda folder=folder: (die_at(2), fill(folder, paths)))  # type: ignore[misc]
        assert len(fill(folder, paths)) == 1
        assert content(folder) == wanted, call
    assert call > 40


def test_a_store_is_added_to_and_its_failures_are_told_once(tmp_path: Path, paths: list[Path]) -> None:
    folder = tmp_path / "tokens"
    fill(folder, paths[:4])
    before = content(folder)
    fill(folder, paths[:4])
    assert content(folder) == before
    fill(folder, paths)
    after = content(folder)
    assert after.pop("index.jsonl").startswith(before.pop("index.jsonl"))
    assert before.items() <= after.items()
    paths[2].write_text("2")
    assert fill(folder, paths) == []
    lines = index(folder)
    assert [line["error"] is None for line in lines if line["recording"] == "../c/r2.edf"] == [False, True]
    assert len(TokenStore(folder)) == 6
    # what a killed run left of recordings that the manifest no longer lists
    (folder / "parts").mkdir()
    (folder / "parts" / "left.safetensors").write_bytes(b"x")
    (folder / "tokens-0000.safetensors").write_bytes(b"x")
    kept = content(folder)
    fill(folder, paths)
    assert content(folder) == {name: data for name, data in kept.items() if data != b"x"}


def test_a_store_of_the_first_version_is_read_and_continued(tmp_path: Path, paths: list[Path]) -> None:
    folder = tmp_path / "tokens"
    fill(folder, paths[:3])
    # it wrote a shard of what it had when it was interrupted, a line at a time, and a failure at every run
    lines = (folder / "index.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    (folder / "index.jsonl").write_bytes(b"".join([lines[2], *lines, lines[2], lines[0][:20]]))
    (folder / ".tokens-1.safetensors.abc").write_bytes(b"half")
    assert len(TokenStore(folder)) == 2
    fill(folder, paths)
    store = TokenStore(folder)
    assert len(store) == 5 and not store.torn
    assert torch.equal(store.get(recording_key(paths[1], "encoding")).tokens, read(paths[1]).tokens)
    assert sum(line["error"] is not None for line in index(folder)) == 3  # as they were
    assert not list(folder.glob(".tokens*"))


def test_one_run_writes_at_a_time(tmp_path: Path, paths: list[Path]) -> None:
    folder = tmp_path / "tokens"
    fill(folder, paths[:2])
    with FileLock(folder / ".lock"):
        # who only reads is not held up
        assert fill(folder, paths[:2]) == []
        with pytest.raises(InputError, match="is being written by another run; wait for it to end"):
            fill(folder, paths)
    assert len(fill(folder, paths)) == 1


# recordings and models as they are


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of six short EEGs, the third no EDF."""
    folder = tmp_path_factory.mktemp("corpus")
    entries = []
    for i in range(6):
        path = folder / f"r{i}.edf"
        write_edf(simulate_eeg(i, duration_seconds=12.0), path)
        entries.append(Entry((path,)))
    entries[2].recordings[0].write_bytes(b"no EDF")
    return write_manifest(folder / "manifest.jsonl", entries)


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_kills_at_random_instants_leave_no_trace(corpus: Path, tmp_path: Path, one_thread: None) -> None:
    entries, bundle = read_manifest(corpus), small_bundle()
    start = time.monotonic()
    encode_manifest(entries, bundle, tmp_path / "whole")
    seconds = time.monotonic() - start
    draw, kills = random.Random(7), 0
    while kills < 6:
        instant = draw.uniform(0, seconds)
        if forked(lambda: encode_manifest(entries, bundle, tmp_path / "killed"), instant) != 0:
            kills += 1
        else:
            assert content(tmp_path / "killed") == content(tmp_path / "whole")
            shutil.rmtree(tmp_path / "killed")
    assert len(encode_manifest(entries, bundle, tmp_path / "killed").errors) == 1
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_workers_write_what_one_process_writes(
    corpus: Path, tmp_path: Path, one_thread: None, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = load_bundle("bioreport-tiny", device="cpu")
    errors = encode_manifest(read_manifest(corpus), bundle, tmp_path / "whole").errors
    arguments = ["encode", str(corpus), "-o", str(tmp_path / "killed"), "--device", "cpu"]
    arguments += ["--dtype", "float32"]

    def killed() -> None:
        cli.main([*arguments, "--workers", "2"])

    child = os.fork()
    if child == 0:
        killed()
        os._exit(0)
    # in the middle: something is encoded, nothing is finished
    until = time.monotonic() + 60
    while not list((tmp_path / "killed" / "parts").glob("[!.]*")) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert cli.main([*arguments, "--workers", "1"]) == 1
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    told = capsys.readouterr().err
    assert f"bioreport: {errors[0]}\n" in told
    assert "already there, 1 failed; 0.0" in told and "× real time" in told


def test_a_worker_that_dies_costs_its_recording_alone_and_others_fetch_theirs(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import multiprocessing
    import threading

    entries = read_manifest(corpus)[:2]
    # so long that its key is still being computed when the worker is killed
    endless = tmp_path / "endless.edf"
    with open(endless, "wb") as file:
        file.truncate(1 << 40)
    remote = Entry((Path(f"file://{entries[1].recordings[0]}"),))
    manifest = write_manifest(tmp_path / "manifest.jsonl", [entries[0], Entry((endless,)), remote])
    put = token_writer.StoreWriter.put

    def kill_the_worker_soon(writer: Any, outcome: Any) -> None:
        if outcome.position == 0:
            (worker,) = multiprocessing.active_children()
            threading.Timer(0.3, worker.kill).start()
        put(writer, outcome)

    monkeypatch.setattr(token_writer.StoreWriter, "put", kill_the_worker_soon)
    told: list[InputError] = []
    summary = encode_corpus(manifest, tmp_path / "tokens", device="cpu", on_error=told.append)
    assert (summary.encoded, summary.already, summary.errors) == (2, 0, told)
    assert [Path(error.path).name for error in told] == ["endless.edf"]
    assert "killed by SIGKILL" in str(told[0]) and "fewer --workers" in str(told[0])
    lines = index(tmp_path / "tokens")
    assert [line["error"] is None for line in lines] == [True, False, True]
    assert lines[2]["recording"] == f"file://{entries[1].recordings[0]}"
    assert not (tmp_path / "tokens" / "parts").exists()


def test_a_run_with_nothing_to_encode_tells_of_no_speed() -> None:
    assert str(Summary(already=3, seconds=0.1)) == "0 encoded, 3 already there, 0 failed"
    assert str(Summary(1, 0, [], 7200.0, 10.0)).endswith("; 2.00 h of signal in 10.0 s, 720 × real time")
