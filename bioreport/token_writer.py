"""Writing a token store so that a kill at any instant loses nothing, doubles nothing and leaves no trace.

Recordings stand in the order of the manifest, `RECORDINGS_PER_SHARD` to a group. Each is written to
``DIR/parts/`` as soon as it is encoded; when a group is whole and all before it are written, its shard is
written, then its lines of the index in one piece, then its parts are removed. Which shard a recording is in,
and every byte of it, so hang on the manifest alone: neither on the number of workers nor on the kills.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from bioreport.errors import InputError
from bioreport.evidence import Evidence
from bioreport.files import write_atomically, write_error
from bioreport.remote import COPIES

if TYPE_CHECKING:
    from bioreport.tokens import TokenStore

RECORDINGS_PER_SHARD = 32
PARTS = "parts"
_LOCK = ".lock"


@dataclass(frozen=True)
class Outcome:
    """What became of one recording of a run.

    Attributes
    ----------
    position : int
        Its place in the run, from 0.
    name : str
        As the index lists it.
    key : str or None
        See `bioreport.tokens.recording_key`; None where it could not be read.
    part : str or None
        Name of its file in ``parts``; None where it failed or the store holds it already.
    fresh : bool
        Whether this run encoded it.
    seconds : float
        Of signal, where it is fresh.
    error : InputError or None
        Why it failed.
    """

    position: int
    name: str
    key: str | None = None
    part: str | None = None
    fresh: bool = False
    seconds: float = 0.0
    error: InputError | None = None


def part_name(name: str, key: str) -> str:
    """Name of a recording's part: two files of the same content differ in what is said of them."""
    return f"{key}-{hashlib.sha256(name.encode()).hexdigest()[:16]}.safetensors"


def part_content(key: str, evidence: Evidence) -> bytes:
    """A recording as a file of its own: the tokens under its key, all else as JSON in the header."""
    seen = {
        "file": evidence.file,
        "duration_seconds": evidence.duration_seconds,
        "channels": list(evidence.channels),
        "findings": evidence.findings,
        "measurements": evidence.measurements,
        "statistics": evidence.statistics,
        "warnings": evidence.warnings,
        "modality": evidence.modality,
    }
    return save({key: evidence.tokens.contiguous()}, {"seen": json.dumps(seen, ensure_ascii=False)})


class StoreWriter:
    """The one writer of a store; use it as a context.

    Parameters
    ----------
    store : TokenStore
    count : int
        Recordings of the run.

    Raises
    ------
    InputError
        On entry or at the first write, where another process writes to the store, or the disk refuses.
    """

    def __init__(self, store: "TokenStore", count: int) -> None:
        self.store = store
        self.parts = store.directory / PARTS
        self._waiting: dict[int, list[Outcome]] = {}
        self._count = count
        self._next = 0
        self._lock: FileLock | None = None

    def __enter__(self) -> "StoreWriter":
        if self.store.torn or self.parts.is_dir():
            # a run was killed here
            self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is None:
            return
        if kind is None and not self._waiting:
            # also those of recordings that the manifest no longer lists
            shutil.rmtree(self.parts, ignore_errors=True)
        self._lock.release()

    def open(self) -> None:
        """Lock the store and take away what a killed run left half done; nothing where that has been."""
        if self._lock is not None:
            return
        self._lock = _locked(self.store.directory)
        self.store.reload()
        if self.store.torn:
            os.truncate(self.store.index, self.store.sound)
            self.store.reload()
        for folder in (self.store.directory, self.parts):
            for stale in folder.glob(".*.safetensors.*"):
                stale.unlink(missing_ok=True)
        for stale in self.store.directory.glob(".tokens-*.json.*"):
            stale.unlink(missing_ok=True)
        for copy in self.parts.glob(f"{COPIES}*"):
            shutil.rmtree(copy, ignore_errors=True)
        if self.parts.is_dir():
            # the kill came after a shard and before its lines
            for shard in self.store.directory.glob("tokens-*"):
                if shard.with_suffix(".safetensors").name not in self.store.shards:
                    shard.unlink(missing_ok=True)

    def left_over(self) -> frozenset[str]:
        """Names of the parts that a killed run has left."""
        return frozenset(os.listdir(self.parts)) if self.parts.is_dir() else frozenset()

    def write_part(self, name: str, content: bytes) -> None:
        """Keep a recording until its group is whole."""
        self.open()
        write_atomically(self.parts / name, content)

    def put(self, outcome: Outcome) -> None:
        """Take in one recording of the run, in any order; its part, where it has one, is written already."""
        self._waiting.setdefault(outcome.position // RECORDINGS_PER_SHARD, []).append(outcome)
        while group := self._waiting.get(self._next):
            before = self._next * RECORDINGS_PER_SHARD
            if len(group) < min(RECORDINGS_PER_SHARD, self._count - before):
                return
            self._write(sorted(group, key=lambda o: o.position))
            del self._waiting[self._next]
            self._next += 1

    def _write(self, group: Sequence[Outcome]) -> None:
        """Shard, evidence beside it, lines; in this order, so that what is in the index is in a shard."""
        tensors: dict[str, Any] = {}
        seen: dict[str, Any] = {}
        lines: list[dict[str, Any]] = []
        for outcome in group:
            line = {
                "recording": outcome.name,
                "key": outcome.key,
                "shard": None,
                "tokens": 0,
                "duration_seconds": None,
                "error": str(outcome.error) if outcome.error is not None else None,
            }
            if outcome.error is not None:
                if not self.store.has_noted(line):
                    lines.append(line)
            elif outcome.part is not None and outcome.key not in self.store and outcome.key not in seen:
                assert outcome.key is not None
                tensors[outcome.key], seen[outcome.key] = self._read_part(outcome.part, outcome.key)
                shard = f"tokens-{next(iter(seen))[:16]}.safetensors"
                duration = seen[outcome.key]["duration_seconds"]
                tokens = len(tensors[outcome.key])
                lines.append(line | {"shard": shard, "tokens": tokens, "duration_seconds": duration})
        if lines:
            self.open()
        if seen:
            path = self.store.directory / shard
            write_atomically(path, save(tensors))
            write_atomically(path.with_suffix(".json"), json.dumps(seen, ensure_ascii=False))
        if lines:
            _append(self.store.index, lines)
            self.store.note(lines)
        for outcome in group:
            if outcome.part is not None:
                (self.parts / outcome.part).unlink(missing_ok=True)

    def _read_part(self, name: str, key: str) -> tuple[Any, dict[str, Any]]:
        try:
            with safe_open(self.parts / name, "pt") as part:
                return part.get_tensor(key), json.loads(part.metadata()["seen"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(self.parts / name, "is damaged", "remove it and encode again") from error


def _locked(directory: Path) -> FileLock:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / _LOCK)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(
            directory, "is being written by another run", "wait for it to end, or choose another folder"
        ) from error
    except OSError as error:
        raise write_error(directory, error) from error
    return lock


def _append(index: Path, lines: Iterable[dict[str, Any]]) -> None:
    """One write to a file opened for appending: a reader never sees half a line beside another's."""
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    try:
        handle = os.open(index, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            written = os.write(handle, data)
            if written != len(data):
                os.ftruncate(handle, os.fstat(handle).st_size - written)
                raise OSError(28, "No space left on device")
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise write_error(index, error) from error
