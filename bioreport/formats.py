"""From a path to a source: which format it is, and whether it can be read at all."""

import stat
from pathlib import Path

from bioreport.edf import EdfSource, is_edf
from bioreport.errors import InputError
from bioreport.source import Source

_EDF = (".edf", ".bdf", ".rec")
_MNE = (".vhdr", ".set", ".fif")
# part of a recording -> the file to give instead
_PARTS = {".vmrk": ".vhdr", ".eeg": ".vhdr", ".fdt": ".set"}
_ECG = (".hea", ".dat", ".atr", ".mat")
READABLE = "EDF, EDF+, BDF, BrainVision (.vhdr), EEGLAB (.set) or FIF"


def open_source(path: Path) -> Source:
    """Open a file by what it holds, then by its name.

    Raises
    ------
    InputError
        It is absent, no regular file, empty, not readable, or of no known format.
    """
    start = _beginning(path)
    suffix = path.suffix.lower()
    if suffix == ".gz" and path.name.lower().endswith(".fif.gz"):
        suffix = ".fif"
    if suffix in _ECG:
        raise InputError(
            path, "is an ECG record, which this version does not read", f"give an EEG as {READABLE}"
        )
    if is_edf(start) and suffix not in _MNE:
        return EdfSource(path)
    if suffix in _EDF:
        raise InputError(
            path, "is not an EDF or BDF file, whatever its name says: its first bytes are others",
            "give the recording itself",
        )  # fmt: skip
    if suffix in _MNE:
        from bioreport.mne_source import MneSource

        return MneSource(path, suffix)
    if suffix in _PARTS:
        whole = _PARTS[suffix]
        raise InputError(path, "is one part of a recording", f"give the {whole} file beside it")
    raise InputError(path, "is of no format that is read here", f"give the recording as {READABLE}")


def _beginning(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(path, "is a folder", "give the recording file inside it")
        if not stat.S_ISREG(mode):
            raise InputError(path, "is no regular file", "give a recording file")
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError as error:
        raise InputError(path, "does not exist", "check the path") from error
    except PermissionError as error:
        raise InputError(
            path, "may not be read by this user", "change its permissions, or run as its owner"
        ) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a valid path"
        raise InputError(path, f"cannot be opened ({reason})", "check the path and the disk") from error
    if not start:
        raise InputError(path, "is empty", "copy the recording again")
    return start
