"""Recordings in object stores: fetched with all that is part of them, read, removed.

An address such as ``s3://bucket/a.edf`` travels as a `Path` like any other, so that a manifest's relative
names and a recording's stem mean the same there; `url_of` gives it back. What opens it is fsspec, with the
driver of its protocol (s3fs, gcsfs, adlfs and so on) and that driver's own credentials.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from bioreport.bids import FOLDERS_ABOVE, is_sidecar
from bioreport.ecg.wfdb_header import header_path, record_files
from bioreport.errors import InputError

COPIES = ".fetched-"
# two letters or more: C:/ is a drive
_URL = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):/+(.+)$")
# of files that are part of a recording of the same stem
COMPANIONS = (".eeg", ".vmrk", ".fdt", ".json", ".dat", ".tsv")
_BRAINVISION = re.compile(rb"^(?:DataFile|MarkerFile)=([^/\\\r\n]+?)\s*$", re.M)
_DESCRIPTION = "dataset_description.json"


def url_of(path: Path | str) -> str | None:
    """The address that a path stands for; None where it is one of this machine.

    >>> url_of(Path("s3://bucket/corpus") / "a.edf")
    's3://bucket/corpus/a.edf'
    >>> url_of(Path("corpus/a.edf"))
    """
    match = _URL.match(path if isinstance(path, str) else path.as_posix())
    if match is None:
        return None
    from fsspec import available_protocols

    protocol, rest = match.groups()
    if protocol not in available_protocols():
        return None
    return f"{protocol}://{'/' * (protocol in ('file', 'local'))}{rest}"


def shown(path: Path) -> str:
    """A path as its user wrote it."""
    return url_of(path) or str(path)


def read_bytes(path: Path) -> bytes:
    """Content of a file that `url_of` knows; raises InputError where it cannot be had."""
    url = _address(path)
    with _told(url):
        fs, place = _file_system(url)
        return fs.cat_file(place)


@contextmanager
def local_copy(path: Path, within: Path | None = None) -> Iterator[Path]:
    """The recording on this machine, for as long as the context lasts.

    Parameters
    ----------
    path : Path
        One of this machine is given back as it is.
    within : Path, optional
        Folder for the copy, made where it is missing; by default the system's for temporary files.

    Raises
    ------
    InputError
        Where it cannot be fetched. One raised within the context about the copy names the original.
    """
    url = url_of(path)
    if url is None:
        yield path
        return
    if within is not None:
        within.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=COPIES, dir=within) as folder:
        try:
            with _told(url):
                copy = _fetch(url, Path(folder))
            yield copy
        except InputError as error:
            if not error.path.startswith(folder):
                raise
            name = Path(error.path).name
            raise InputError(f"{url.rpartition('/')[0]}/{name}", error.problem, error.cure) from error


def _address(path: Path) -> str:
    url = url_of(path)
    assert url is not None
    return url


def _file_system(url: str) -> tuple[Any, str]:
    import fsspec

    # listings are kept by `_names`, and only the last few: memory must not grow with the corpus
    return fsspec.core.url_to_fs(url, use_listings_cache=False)


@contextmanager
def _told(url: str) -> Iterator[None]:
    """Whatever a driver raises, as one sentence."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(url, "does not exist", "check the address") from error
    except ImportError as error:
        raise InputError(url, f"needs a driver for its protocol ({error})", "install it with pip") from error
    except Exception as error:
        # every driver has exceptions of its own
        raise InputError(
            url, f"cannot be fetched ({type(error).__name__})", "check address, credentials and network"
        ) from error


@lru_cache(maxsize=16)
def _names(folder: str) -> frozenset[str]:
    """Names in a remote folder."""
    fs, place = _file_system(folder)
    try:
        return frozenset(PurePosixPath(entry).name for entry in fs.ls(place, detail=False))
    except FileNotFoundError:
        return frozenset()


def _fetch(url: str, root: Path) -> Path:
    """Fetch a recording, its companions and the BIDS sidecars above it, in folders as there."""
    remote, _, name = url.rpartition("/")
    above = [part for part in remote.partition("://")[2].split("/") if part][1:][-(FOLDERS_ABOVE - 1) :]
    folder = root.joinpath(*above)
    folder.mkdir(parents=True, exist_ok=True)
    fs, _ = _file_system(url)

    def get(wanted: str, there: str = remote, here: Path = folder) -> None:
        if not (here / wanted).exists():
            fs.get_file(fs._strip_protocol(f"{there}/{wanted}"), str(here / wanted))

    names = _names(remote)
    if name in names or f"{name}.hea" not in names:
        get(name)
    stem = name.removesuffix(PurePosixPath(name).suffix)
    bids_table = f"{stem.removesuffix('_eeg')}_channels.tsv"
    for companion in (
        *(stem + end for end in (*COMPANIONS, ".hea", ".HEA")),
        f"{name}.hea",
        bids_table,
        "channels.tsv",
    ):
        if companion in names:
            get(companion)
    if name.lower().endswith(".vhdr"):
        for named in _BRAINVISION.findall((folder / name).read_bytes()):
            if (part := named.decode("utf-8", "replace")) in names:
                get(part)
    header = header_path(folder / name)
    while header is not None:
        # headers of segments name files of their own
        missing = [f.name for f in record_files(header) if not f.exists() and f.name in names]
        if not missing:
            break
        for part in missing:
            get(part)
    _fetch_sidecars(name, remote, folder, get)
    # no sidecar of this machine applies
    (root / _DESCRIPTION).touch()
    return folder / name


def _fetch_sidecars(name: str, remote: str, folder: Path, get: Any) -> None:
    for _ in range(FOLDERS_ABOVE):
        names = _names(remote)
        for sidecar in names:
            if is_sidecar(sidecar, name):
                get(sidecar, remote, folder)
        remote = remote.rpartition("/")[0]
        if _DESCRIPTION in names or remote.endswith((":/", ":")):
            return
        folder = folder.parent
