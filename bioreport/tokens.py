"""Token store: a manifest's recordings are read, filtered and encoded once, and training reads the result.

``DIR/index.jsonl`` has a line a recording, ``DIR/tokens-….safetensors`` the tokens, and the ``.json`` beside
each shard what else was seen in those recordings (channels, measurements, findings), for their prompts.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

from bioreport.ecg.wfdb_header import header_path, record_files
from bioreport.errors import InputError
from bioreport.evidence import Evidence, read_evidence
from bioreport.manifest import Entry
from bioreport.recording import open_recording
from bioreport.remote import COMPANIONS, local_copy, url_of
from bioreport.token_writer import Outcome, StoreWriter, part_content, part_name

if TYPE_CHECKING:
    from bioreport.bundle import Bundle

logger = logging.getLogger(__name__)
# raised when measurements or findings of the same recording may come out otherwise than before
STORE_VERSION = 1


def recording_key(path: Path, encoding_key: str, *, without: Path | None = None) -> str:
    """Hash of a recording's content and of all that turns it into tokens.

    Parameters
    ----------
    path : Path
        The file, on this machine or in an object store; companions of the same stem (BrainVision's
        ``.eeg``, EEGLAB's ``.fdt``) and BIDS sidecars count as part of it. Of a WFDB record its header, one
        of its signal files or its name: header, segments and signal files count, and the key is the same.
    encoding_key : str
        `Bundle.encoding_key`.
    without : Path, optional
        A file that is no part of the recording although its name says so.

    Raises
    ------
    InputError
        Where the file cannot be read.
    """
    digest = hashlib.sha256(f"{STORE_VERSION} {encoding_key}".encode())
    with local_copy(path) as here:
        try:
            for file in recording_files(here):
                if without is not None and file.resolve() == without.resolve():
                    continue
                with open(file, "rb") as handle:
                    digest.update(file.suffix.encode())
                    for block in iter(partial(handle.read, 1 << 20), b""):
                        digest.update(block)
        except OSError as error:
            reason = (error.strerror or "no reason given").lower()
            raise InputError(
                here, f"cannot be read ({reason})", "give a recording that exists and is readable"
            ) from error
    return digest.hexdigest()


def recording_files(path: Path) -> Iterator[Path]:
    """A recording's file, then those that are part of it as far as they are there."""
    header = header_path(path)
    yield header or path
    if header is not None:
        # one that is missing is told of where the record is opened
        yield from (part for part in record_files(header)[1:] if part.is_file())
        return
    stem = path.name.removesuffix(path.suffix)
    companions = [path.with_name(stem + ending) for ending in COMPANIONS]
    if stem.endswith("_eeg"):
        companions.append(path.with_name(stem.removesuffix("_eeg") + "_channels.tsv"))
    yield from (file for file in companions if file.is_file() and file != path)


class TokenStore:
    """Tokens and evidence of recordings, in a folder; `bioreport.token_writer.StoreWriter` adds to it.

    Parameters
    ----------
    directory : Path

    Attributes
    ----------
    sound : int
        Bytes of the index that are whole: a killed run may leave half of what it was appending.
    torn : bool
        Whether the index is longer than that.

    Raises
    ------
    InputError
        Where its index is not one that `encode_manifest` wrote.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        self.index = self.directory / "index.jsonl"
        self.reload()

    def __contains__(self, key: str | None) -> bool:
        return key in self._lines

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def keys(self) -> Iterable[str]:
        """Of the recordings that it holds."""
        return self._lines.keys()

    @property
    def shards(self) -> set[str]:
        """Names of the shards that the index knows."""
        return {line["shard"] for line in self._lines.values()}

    def check_modality(self, bundle: "Bundle") -> None:
        """See that what the store holds, if anything, is of the bundle's modality; raises InputError."""
        held = next((self.get(key).modality for key in self._lines), bundle.modality)
        if held != bundle.modality:
            raise InputError(
                self.directory,
                f"holds tokens of {held.upper()}s, and {bundle.name} is one for {bundle.modality.upper()}",
                f"choose another folder, or a model for {held.upper()} with --model",
            )

    def get(self, key: str) -> Evidence:
        """Evidence of a recording; raises KeyError where it is not there, InputError where it is damaged."""
        shard = self._shard(key)
        try:
            if shard.name not in self._seen:
                self._seen[shard.name] = json.loads(shard.with_suffix(".json").read_text(encoding="utf-8"))
            seen = self._seen[shard.name][key]
            tokens = self.tokens(key)
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
        except (OSError, ValueError, KeyError) as error:
            raise self._damaged(shard) from error

    def tokens(self, key: str) -> Tensor:
        """Tokens of a recording alone, of which nothing is kept here; raises as `get`."""
        shard = self._shard(key)
        try:
            with safe_open(shard, "pt") as tensors:
                return tensors.get_tensor(key)
        except (OSError, SafetensorError) as error:
            raise self._damaged(shard) from error

    def _shard(self, key: str) -> Path:
        return self.directory / self._lines[key]["shard"]

    def _damaged(self, shard: Path) -> InputError:
        return InputError(
            shard, "is damaged or missing", f"remove the folder {self.directory} and encode anew"
        )

    def note(self, lines: Iterable[dict[str, Any]]) -> None:
        """Take in lines that were just appended to the index."""
        for line in lines:
            if line["error"] is None:
                self._lines[line["key"]] = line
            else:
                self._failures.add(_failure(line))

    def has_noted(self, line: dict[str, Any]) -> bool:
        """Whether the index says already that this recording fails, and why."""
        return _failure(line) in self._failures

    def reload(self) -> None:
        """Read the index."""
        self._lines: dict[str, dict[str, Any]] = {}
        self._seen: dict[str, dict[str, Any]] = {}
        self._failures: set[tuple[str, str | None, str]] = set()
        data = self.index.read_bytes() if self.index.is_file() else b""
        # a killed run may have left half a line, and of a shard's lines the first ones
        self.sound = data.rfind(b"\n") + 1
        shard, first, count, start = None, 0, 0, 0
        for number, text in enumerate(BytesIO(data[: self.sound]), 1):
            try:
                line = json.loads(text)
                self.note([line])
                if line["shard"] is not None:
                    if line["shard"] != shard:
                        shard, first, count = line["shard"], start, 0
                    count += 1
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    self.index,
                    f"line {number} is no line of an index",
                    f"remove the folder {self.directory} and encode anew",
                ) from error
            start += len(text)
        if shard is not None and count < self._recordings_in(shard):
            self.sound = first
        self.torn = self.sound < len(data)

    def _recordings_in(self, shard: str) -> int:
        """How many recordings a shard has; 0 where nobody can say, which `get` will tell of."""
        try:
            return len(json.loads((self.directory / shard).with_suffix(".json").read_bytes()))
        except (OSError, ValueError):
            return 0


def _failure(line: dict[str, Any]) -> tuple[str, str | None, str]:
    # without the path, which is another where the command is given in another folder
    return line["recording"], line["key"], line["error"].partition(": ")[2]


@dataclass
class Filled:
    """What became of the recordings that a store was to hold.

    Attributes
    ----------
    keys : dict of Path to str
        Of those that it holds now.
    errors : list of InputError
        One for each recording that could not be used.
    """

    keys: dict[Path, str] = field(default_factory=dict)
    errors: list[InputError] = field(default_factory=list)


def encode_manifest(
    entries: Iterable[Entry],
    bundle: "Bundle",
    directory: str | os.PathLike[str],
    *,
    progress: bool = False,
    statistics: bool = False,
) -> Filled:
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
) -> Filled:
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
    """
    # each once
    listed = list(dict.fromkeys(paths))
    filled = Filled()
    queued: set[str] = set()
    with StoreWriter(store, len(listed)) as writer:
        left_over = writer.left_over()

        def locked_read(path: Path) -> Evidence:
            writer.open()
            return read(path)

        for position, path in enumerate(tqdm(listed, disable=not progress, unit="recording", desc="encode")):
            outcome, content = encode_one(
                position,
                path,
                store.directory,
                encoding_key,
                locked_read,
                known=lambda key: key in store or key in queued,
                left_over=left_over,
            )
            if outcome.error is not None:
                logger.info("%s", outcome.error)
                filled.errors.append(outcome.error)
            elif outcome.key is not None:
                queued.add(outcome.key)
                filled.keys[path] = outcome.key
            if content is not None:
                assert outcome.part is not None
                writer.write_part(outcome.part, content)
            writer.put(outcome)
    return filled


def encode_one(
    position: int,
    path: Path,
    directory: Path,
    encoding_key: str,
    read: Callable[[Path], Evidence],
    *,
    known: Callable[[str], bool],
    left_over: Container[str],
    copies: Path | None = None,
) -> tuple[Outcome, bytes | None]:
    """Encode one recording unless it is there; it is not written yet.

    Parameters
    ----------
    position : int
        Its place in the run.
    path : Path
    directory : Path
        Of the store.
    encoding_key, read
        See `fill_store`.
    known : callable
        Whether the store holds a key.
    left_over : container of str
        Parts that a killed run has left.
    copies : Path, optional
        Where a recording from an object store lies meanwhile; by default where temporary files do.

    Returns
    -------
    tuple of (Outcome, bytes or None)
        The content of its part, where it was encoded now.
    """
    name, key = listed_name(path, directory), None
    try:
        with local_copy(path, copies) as here:
            key = recording_key(here, encoding_key)
            if known(key):
                return Outcome(position, name, key), None
            part = part_name(name, key)
            if part in left_over:
                return Outcome(position, name, key, part), None
            evidence = read(here)
    except InputError as error:
        return Outcome(position, name, key, error=error), None
    seconds = evidence.duration_seconds
    return Outcome(position, name, key, part, fresh=True, seconds=seconds), part_content(key, evidence)


def listed_name(path: Path, directory: Path) -> str:
    """A recording as the index lists it: from the store's folder, or its address in an object store."""
    return url_of(path) or os.path.relpath(path, directory)
