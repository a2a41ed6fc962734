"""Token store: a manifest's recordings are read, filtered and encoded once, and training reads the result.

``DIR/index.jsonl`` has a line a recording, ``DIR/tokens-….safetensors`` the tokens, and the ``.json`` beside
each shard what else was seen in those recordings (channels, measurements, findings), for their prompts.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from tqdm import tqdm

from bioreport.ecg.wfdb_header import header_path, record_files
from bioreport.errors import InputError
from bioreport.evidence import Evidence, read_evidence
from bioreport.files import write_atomically
from bioreport.manifest import Entry
from bioreport.recording import open_recording

if TYPE_CHECKING:
    from bioreport.bundle import Bundle

logger = logging.getLogger(__name__)
RECORDINGS_PER_SHARD = 32
# raised when measurements or findings of the same recording may come out otherwise than before
STORE_VERSION = 1
_SIDECARS = (".eeg", ".vmrk", ".fdt", ".json", ".dat", ".tsv")


def recording_key(path: Path, encoding_key: str) -> str:
    """Hash of a recording's content and of all that turns it into tokens.

    Parameters
    ----------
    path : Path
        The file; companions of the same stem (BrainVision's ``.eeg``, EEGLAB's ``.fdt``) and BIDS sidecars
        count as part of it. Of a WFDB record its header, one of its signal files or its name: header,
        segments and signal files count, and the key is the same.
    encoding_key : str
        `Bundle.encoding_key`.

    Raises
    ------
    InputError
        Where the file cannot be read.
    """
    digest = hashlib.sha256(f"{STORE_VERSION} {encoding_key}".encode())
    try:
        for file in _files(path):
            with open(file, "rb") as handle:
                digest.update(file.suffix.encode())
                for block in iter(partial(handle.read, 1 << 20), b""):
                    digest.update(block)
    except OSError as error:
        reason = (error.strerror or "no reason given").lower()
        raise InputError(
            path, f"cannot be read ({reason})", "give a recording that exists and is readable"
        ) from error
    return digest.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    """A recording's file, then those that are part of it as far as they are there."""
    header = header_path(path)
    yield header or path
    if header is not None:
        # one that is missing is told of where the record is opened
        yield from (part for part in record_files(header)[1:] if part.is_file())
        return
    stem = path.name.removesuffix(path.suffix)
    companions = [path.with_name(stem + ending) for ending in _SIDECARS]
    if stem.endswith("_eeg"):
        companions.append(path.with_name(stem.removesuffix("_eeg") + "_channels.tsv"))
    yield from (file for file in companions if file.is_file() and file != path)


class TokenStore:
    """Tokens and evidence of recordings, in a folder.

    Parameters
    ----------
    directory : Path
        Made where it is missing.

    Raises
    ------
    InputError
        Where its index is not one that `encode_manifest` wrote.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self.index = self.directory / "index.jsonl"
        self._lines: dict[str, dict[str, Any]] = {}
        self._seen: dict[str, dict[str, Any]] = {}
        self._read_index()

    def __contains__(self, key: str) -> bool:
        return key in self._lines

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, encoded: Sequence[tuple[Path, str, Evidence]]) -> None:
        """Write one shard of recordings, then their lines; an interruption loses no line that was written."""
        if not encoded:
            return
        name = f"tokens-{encoded[0][1][:16]}.safetensors"
        unique = {key: evidence for _, key, evidence in encoded}
        seen = {
            key: {
                "file": evidence.file,
                "duration_seconds": evidence.duration_seconds,
                "channels": list(evidence.channels),
                "findings": evidence.findings,
                "measurements": evidence.measurements,
                "statistics": evidence.statistics,
                "warnings": evidence.warnings,
                "modality": evidence.modality,
            }
            for key, evidence in unique.items()
        }
        write_atomically(self.directory / name, save({k: e.tokens.contiguous() for k, e in unique.items()}))
        write_atomically((self.directory / name).with_suffix(".json"), json.dumps(seen, ensure_ascii=False))
        for path, key, evidence in encoded:
            self._append(
                {
                    "recording": os.path.relpath(path, self.directory),
                    "key": key,
                    "shard": name,
                    "tokens": len(evidence.tokens),
                    "duration_seconds": evidence.duration_seconds,
                    "error": None,
                }
            )

    def add_error(self, path: Path, key: str | None, error: InputError) -> None:
        """Note that a recording failed; it is tried again next time."""
        self._append(
            {
                "recording": os.path.relpath(path, self.directory),
                "key": key,
                "shard": None,
                "tokens": 0,
                "duration_seconds": None,
                "error": str(error),
            }
        )

    def get(self, key: str) -> Evidence:
        """Evidence of a recording; raises KeyError where it is not there, InputError where it is damaged."""
        shard = self.directory / self._lines[key]["shard"]
        cure = f"remove the folder {self.directory} and encode anew"
        try:
            if shard.name not in self._seen:
                self._seen[shard.name] = json.loads(shard.with_suffix(".json").read_text(encoding="utf-8"))
            seen = self._seen[shard.name][key]
            with safe_open(shard, "pt") as tensors:
                tokens = tensors.get_tensor(key)
            return Evidence(
                file=seen["file"],
                duration_seconds=seen["duration_seconds"],
                channels=tuple(seen["channels"]),
                tokens=tokens,
                findings=seen["findings"],
                measurements=seen["measurements"],
                statistics=seen["statistics"],
                warnings=seen["warnings"],
                modality=seen.get("modality", "eeg"),  # shards of EEGs alone did not say it
            )
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise InputError(shard, "is damaged or missing", cure) from error

    def _read_index(self) -> None:
        if not self.index.is_file():
            return
        data = self.index.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            # the machine stopped within a line; that recording is encoded again
            os.truncate(self.index, whole)
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                entry = json.loads(line)
                if entry["error"] is None:
                    self._lines[entry["key"]] = entry
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    self.index,
                    f"line {number} is no line of an index",
                    f"remove the folder {self.directory} and encode anew",
                ) from error

    def _append(self, line: dict[str, Any]) -> None:
        data = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            # one write of one line to a file opened for appending: never half a line beside another's
            handle = os.open(self.index, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                written = os.write(handle, data)
                if written != len(data):
                    os.ftruncate(handle, os.fstat(handle).st_size - written)
                    raise OSError(28, "No space left on device")
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            reason = (error.strerror or "no reason given").lower()
            raise InputError(
                self.index, f"cannot be written ({reason})", "free space or choose another place with -o"
            ) from error
        if line["error"] is None:
            self._lines[line["key"]] = line


def encode_manifest(
    entries: Iterable[Entry],
    bundle: "Bundle",
    directory: str | os.PathLike[str],
    *,
    progress: bool = False,
    statistics: bool = False,
) -> list[InputError]:
    """Encode every recording that the store does not hold yet.

    Parameters
    ----------
    entries : iterable of Entry
    bundle : Bundle
        Its encoder and preprocessing.
    directory : path-like
        The store; made where it is missing, continued where it is there.
    progress : bool
        Show a bar on stderr.
    statistics : bool
        Also keep CELM's band-power text.

    Returns
    -------
    list of InputError
        One for each recording that could not be used; the others are in the store.
    """

    def read(path: Path) -> Evidence:
        return read_evidence(open_recording(path), bundle, statistics=statistics)

    paths = [path for entry in entries for path in entry.recordings]
    return fill_store(TokenStore(directory), paths, bundle.encoding_key(), read, progress=progress)


def fill_store(
    store: TokenStore,
    paths: Iterable[Path],
    encoding_key: str,
    read: Callable[[Path], Evidence],
    *,
    progress: bool = False,
) -> list[InputError]:
    """Read every recording that the store does not hold yet.

    Parameters
    ----------
    store : TokenStore
    paths : iterable of Path
        Each is read once.
    encoding_key : str
        Of what `read` makes of a recording, see `recording_key`.
    read : callable
        Raises InputError where a recording cannot be used.
    progress : bool
        Show a bar on stderr.

    Returns
    -------
    list of InputError
        One for each recording that could not be used; the others are in the store.
    """
    errors: list[InputError] = []
    waiting: list[tuple[Path, str, Evidence]] = []
    queued: set[str] = set()
    try:
        for path in tqdm(list(dict.fromkeys(paths)), disable=not progress, unit="recording", desc="encode"):
            key = None
            try:
                key = recording_key(path, encoding_key)
                if key in store or key in queued:
                    continue
                evidence = read(path)
            except InputError as error:
                logger.info("%s", error)
                errors.append(error)
                store.add_error(path, key, error)
                continue
            waiting.append((path, key, evidence))
            queued.add(key)
            if len(waiting) == RECORDINGS_PER_SHARD:
                shard, waiting = waiting, []
                store.add(shard)
    finally:
        # also when interrupted: what is encoded is kept
        store.add(waiting)
    return errors
