"""Writing files so that a reader never sees half of one."""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bioreport.errors import InputError


def write_error(path: Path, error: OSError) -> InputError:
    """What is told of a file or folder that the disk refuses."""
    reason = (error.strerror or type(error).__name__).lower()
    return InputError(path, f"cannot be written ({reason})", "free space or choose another place with -o")


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write `content` to `path` in one step: the whole new file appears, or the old one stays.

    Parameters
    ----------
    path : path-like
        Missing parent folders are made. A device or pipe is written to directly.
    content : str or bytes
        Text is encoded as UTF-8.

    Raises
    ------
    InputError
        Where the disk is full, the folder is read-only, or the like; nothing partial is left.
    """
    with written_atomically(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


@contextmanager
def written_atomically(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write to that takes the place of `path` at the end; on an exception `path` stays as it was.

    Parameters
    ----------
    path : path-like
        Missing parent folders are made. A device or pipe is written to directly.

    Raises
    ------
    InputError
        Where the disk is full, the folder is read-only, or the like; nothing partial is left.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            with open(path, "wb", buffering=0) as device:
                yield device
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _held_temporary(path)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o666 & ~_umask())
                # while it is held: closed first, it could be taken for a leftover
                os.replace(temporary, path)
        except BaseException:
            # missing where Ctrl-C came after it had taken its place
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise write_error(path, error) from error


def check_replaceable(
    directory: str | os.PathLike[str],
    own: Container[str],
    ours: Callable[[Mapping[str, Any]], bool],
    *,
    what: str,
) -> Path:
    """The folder, if a model's folder may take its place.

    Parameters
    ----------
    directory : path-like
        One that is missing or empty will do, or one whose ``config.json`` `ours` knows, with nothing beside
        it that is not `own`.
    own : container of str
        Names of what such a folder holds.
    ours : callable
        Whether a configuration is one of ours.
    what : str
        What the sentence says of another folder, as in "is no bundle's folder".

    Raises
    ------
    InputError
        Where `directory` is a file or holds something else: whoever replaces it would delete that.
    """
    directory, cure = Path(directory), "choose a new folder with -o"
    try:
        names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    except OSError as error:
        raise write_error(directory, error) from error
    if directory.exists() and not directory.is_dir():
        raise InputError(directory, "is a file", cure)
    strangers = [name for name in names if name not in own]
    if strangers:
        raise InputError(directory, f"{what} ({strangers[0]!r} lies in it)", cure)
    if names:
        try:
            config = json.loads((directory / "config.json").read_bytes())
        except (OSError, ValueError):
            config = None
        if not (isinstance(config, dict) and ours(config)):
            raise InputError(directory, f"{what} (its config.json is missing or another program's)", cure)
    return directory


@contextmanager
def folder_written_atomically(directory: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder beside `directory` to fill; on success it takes the place of `directory`.

    On an exception `directory` stays as it was; what it holds is deleted else, so `check_replaceable` before.
    Raises InputError where the disk refuses.
    """
    directory = Path(directory)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    except OSError as error:
        raise write_error(directory, error) from error
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        if directory.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{directory.name}.old.", dir=directory.parent))
            os.replace(directory, old / "content")
            os.replace(temporary, directory)
            shutil.rmtree(old)
        else:
            os.replace(temporary, directory)
    except OSError as error:
        raise write_error(directory, error) from error
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


def _held_temporary(path: Path) -> tuple[int, str]:
    """A file beside `path`, locked until it is closed, so that no other run takes it for a leftover."""
    while True:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            # a file system without locks, on which nobody can tell leftovers and they stay
            return handle, temporary
        # else another run came between the two steps and removed it
        if os.fstat(handle).st_nlink:
            return handle, temporary
        os.close(handle)


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove what writers of these files left behind that were killed while they wrote.

    What a writer that lives is writing stays.
    """
    names: dict[Path, set[str]] = {}
    for path in paths:
        names.setdefault(path.parent, set()).add(path.name)
    for folder, known in names.items():
        for file in folder.glob(".*.????????"):
            if file.name[1:-9] in known:
                _remove_leftover(file)


def _remove_leftover(file: Path) -> None:
    try:
        handle = open(file, "r+b")  # noqa: SIM115
    except (FileNotFoundError, PermissionError):
        return  # its writer is done, or is somebody else
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return  # its writer lives, or the file system has no locks
        file.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
