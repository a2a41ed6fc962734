"""What is to be written, reports or codes, of which recordings, and under which names.

A FILE is a recording, a folder (every recording below it), a manifest (``.jsonl``), or ``@LIST``: a text file
with one of these a line, ``@-`` from standard input.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from bioreport.errors import InputError
from bioreport.manifest import Entry, read_manifest
from bioreport.remote import shown, url_of

MANIFEST = ".jsonl"


@dataclass(frozen=True)
class Job:
    """One report, or one recording's codes.

    Attributes
    ----------
    recordings : tuple of Path
        One, or several that the report is about.
    name : str
        Of the report in a folder of reports, without its ending; ``/`` where it lies in a subfolder.
    history : str or None
        Clinical history.
    target : Path or None
        Where it is written; None is standard output.
    keep : bool
        Whether a report that is there already, of the same content, model and options, stays.
    """

    recordings: tuple[Path, ...]
    name: str
    history: str | None = None
    target: Path | None = None
    keep: bool = False


def gather(
    files: Sequence[Path], history: str | None = None, *, apart: bool = False
) -> tuple[list[Job], bool]:
    """The reports that are asked for, and whether a folder, list or manifest asks for any of them.

    A recording named by itself gives a report of its stem; one out of a folder, list or manifest a report
    at the same place below that folder, the list's common folder, or the manifest's folder.

    Parameters
    ----------
    files : sequence of Path
    history : str, optional
        Of every report whose manifest has none.
    apart : bool
        A job for each recording, once, also where a manifest has several recordings or reports of one.

    Raises
    ------
    InputError
        Where a folder, list or manifest cannot be read or holds nothing.
    """
    jobs: list[Job] = []
    collected = False
    for file in files:
        if str(file).startswith("@"):
            listed = _lines(file)
            single = [one for one in listed if not _is_collection(one)]
            jobs += _mirrored([(one,) for one in single], _common(single)) if single else []
            jobs += [job for one in listed if _is_collection(one) for job in _collection(one, apart)]
            collected = True
        elif _is_collection(file):
            jobs += _collection(file, apart)
            collected = True
        else:
            jobs.append(Job((file,), file.stem))
    return [replace(job, history=job.history or history) for job in jobs], collected


def in_folder(
    jobs: Sequence[Job], folder: Path, ending: str, refuse: Callable[[str], NoReturn], *, keep: bool = False
) -> list[Job]:
    """The jobs with where each is written in a folder.

    Parameters
    ----------
    jobs : sequence of Job
    folder : Path
    ending : str
        Of every file, without a point.
    refuse : callable
        Is told of two that would be written to one file, before anything is.
    keep : bool
        See `Job`.
    """
    first: dict[str, Job] = {}
    for job in jobs:
        other = first.setdefault(job.name, job)
        if other is job:
            continue
        one, two = shown(other.recordings[0]), shown(job.recordings[0])
        if one == two:
            refuse(f"{one} is given twice; give it once")
        refuse(
            f"{one} and {two} would both be written to {folder / job.name}.{ending}; give their common "
            "folder or a manifest, whose outputs lie in subfolders, or give them in two calls with "
            "different -o"
        )
    return [replace(job, target=folder / f"{job.name}.{ending}", keep=keep) for job in jobs]


def check_targets(jobs: Sequence[Job], also: Sequence[Path] = ()) -> None:
    """See before anything is read that nothing written would take the place of what is read.

    Parameters
    ----------
    jobs : sequence of Job
    also : sequence of Path
        What is read beside the recordings and what is part of them.

    Raises
    ------
    InputError
        For the first that would.
    """
    targets = {_resolved(job.target): job.target for job in jobs if job.target is not None}
    # what is part of a recording lies beside it; whoever writes elsewhere need not look at every recording
    there = {place for place, target in targets.items() if target.is_file()}
    folders = {place.parent for place in there}
    inputs: set[Path] = {_resolved(path) for path in also}
    for path in (path for job in jobs for path in job.recordings):
        if there and url_of(path) is None and _resolved(path).parent in folders:
            inputs |= {_resolved(path), *map(_resolved, _parts(path))}
    for place in sorted(there & inputs):
        if not _is_report(place):
            raise InputError(
                targets[place],
                "is read, and would be overwritten",
                "choose another file or folder with -o",
            )


def _parts(path: Path) -> list[Path]:
    from bioreport.tokens import recording_files  # torch, which wrong usage need not wait for

    try:
        return list(recording_files(path))
    except InputError:
        # what is wrong with it is told where it is opened
        return [path.with_suffix(ending) for ending in (".hea", ".dat", ".mat")]


def _resolved(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _is_report(path: Path) -> bool:
    """Whether a file is a report in JSON, which beside its recording has the name of a sidecar."""
    try:
        content = json.loads(path.read_bytes()) if path.suffix == ".json" else None
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"file", "sections", "findings"} <= content.keys()


def report_names(entries: Sequence[Entry], manifest: Path) -> list[str]:
    """Where the reports of a manifest's entries lie in a folder of reports, without their endings."""
    return [job.name for job in _of_entries(entries, manifest)]


def _is_collection(file: Path) -> bool:
    return file.is_dir() or file.suffix.lower() == MANIFEST


def _collection(file: Path, apart: bool) -> list[Job]:
    if file.is_dir():
        from bioreport.corpora.folder import recordings

        return _mirrored([(one,) for one in recordings(file)], _absolute(file))
    entries = read_manifest(file)
    if apart:
        recordings_once = dict.fromkeys(path for entry in entries for path in entry.recordings)
        entries = [Entry((path,)) for path in recordings_once]
    return _of_entries(entries, file)


def _of_entries(entries: Sequence[Entry], manifest: Path) -> list[Job]:
    root = _absolute(manifest).parent
    first = [entry.recordings[0] for entry in entries]
    if not all(_absolute(path).is_relative_to(root) for path in first):
        root = _common(first)
    jobs = _mirrored([entry.recordings for entry in entries], root)
    return [replace(job, history=entry.history) for job, entry in zip(jobs, entries, strict=True)]


def _mirrored(groups: Sequence[tuple[Path, ...]], root: Path) -> list[Job]:
    places = [_absolute(group[0]).relative_to(root) for group in groups]
    bare = [place.with_suffix("").as_posix() for place in places]
    count = Counter(bare)
    # a.edf and a.set beside each other: with their endings they are two
    names = [name if count[name] == 1 else place.as_posix() for name, place in zip(bare, places, strict=True)]
    return [Job(group, name) for group, name in zip(groups, names, strict=True)]


def _absolute(path: Path) -> Path:
    # not resolved: a link in a corpus keeps its own name
    return Path(os.path.abspath(path))


def _common(paths: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([_absolute(path).parent for path in paths]))


def _lines(file: Path) -> list[Path]:
    name = str(file)[1:]
    cure = "give a UTF-8 text file with one recording a line after @"
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no UTF-8 text"
        raise InputError(name, f"cannot be read as a list ({reason.lower()})", cure) from error
    listed = [Path(line.strip()) for line in text.splitlines() if line.strip()]
    if not listed:
        raise InputError(name, "lists no recording", cure)
    return listed
