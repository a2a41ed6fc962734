"""Whether a report that lies in a folder is the one that would be written now.

A report's key is two hashes of 32 hexadecimal digits: of its recordings' content, and of everything else that
decides its text: model, language model, options, history.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from bioreport import __version__
from bioreport.jobs import Job
from bioreport.report import key_of
from bioreport.tokens import recording_key

_HALF = 32
# beyond this a file of weights is known by size and time of writing: a language model can have 100 GB
_HASHED = 64 << 20


def report_key(job: Job, settings: str) -> str:
    """Key of a job's report.

    Parameters
    ----------
    job : Job
    settings : str
        All else that decides the text, as JSON.

    Raises
    ------
    InputError
        Where a recording cannot be read.
    """
    # a report in JSON beside its recording has the name of a sidecar
    content = " ".join(recording_key(path, "", without=job.target) for path in job.recordings)
    rest = json.dumps([__version__, settings, job.history, [path.name for path in job.recordings]])
    return _digest(content) + _digest(rest)


def written_key(target: Path) -> str:
    """Key of the report in a file, whose ending is its form; empty where there is none or it says none."""
    try:
        return key_of(target.read_text(encoding="utf-8"), target.suffix[1:])
    except (OSError, UnicodeDecodeError):
        return ""


def same_content(one: str, other: str) -> bool:
    """Whether two keys are of the same recordings."""
    return one[:_HALF] == other[:_HALF]


def fingerprint(model: Path, llm: str | None = None) -> list[Any]:
    """What tells a model, with the language model it names or is given, from another of the same name.

    Parameters
    ----------
    model : Path
        A bundle's or a MEIT folder.
    llm : str, optional
        Hub id or folder in place of the model's own.
    """
    try:
        named = json.loads((model / "config.json").read_text(encoding="utf-8")).get("llm")
    except (OSError, ValueError, AttributeError):
        named = None  # one that is no model is told of where it is loaded
    return [_files(model), _llm(llm or named)]


def _llm(name: str | None) -> Any:
    if name is None or name == "llm":  # the subfolder, which is among the model's files
        return None
    if Path(name).is_dir():
        return _files(Path(name))
    from huggingface_hub import try_to_load_from_cache

    # the folder in the Hub's cache is named by the commit
    cached = try_to_load_from_cache(name, "config.json")
    return [name, Path(cached).parent.name if isinstance(cached, str) else None]


def _files(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            told = path.stat()
            digest.update(f"{path.relative_to(folder)} {told.st_size} ".encode())
            digest.update(path.read_bytes() if told.st_size <= _HASHED else str(told.st_mtime_ns).encode())
    return digest.hexdigest()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_HALF]
