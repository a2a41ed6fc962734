"""From a path to a source: which format it is, and whether it can be read at all."""

import stat
from pathlib import Path

from bioreport.ecg.dicom import DicomSource, is_dicom
from bioreport.ecg.wfdb_header import header_path
from bioreport.ecg.wfdb_record import WfdbSource
from bioreport.edf import EdfSource, is_edf
from bioreport.errors import InputError
from bioreport.source import Source

_EDF = (".edf", ".bdf", ".rec")
_MNE = (".vhdr", ".set", ".fif")
# part of a recording -> the file to give instead
_PARTS = {".vmrk": ".vhdr", ".eeg": ".vhdr", ".fdt": ".set"}
_BEGINNING = 132  # bytes, up to and with the mark of DICOM
READABLE = "EDF, EDF+, BDF, BrainVision (.vhdr), EEGLAB (.set) or FIF"
READABLE_ECG = "WFDB (.hea), EDF or DICOM"


def open_source(path: Path) -> Source:
    """Open a file by what it holds, then by its name.

    Raises
    ------
    InputError
        It is absent, no regular file, empty, not readable, or of no known format.
    """
    header = header_path(path)
    if header is not None:
        _beginning(header)
        return WfdbSource(header, path)
    start = _beginning(path)
    suffix = path.suffix.lower()
    if suffix == ".gz" and path.name.lower().endswith(".fif.gz"):
        suffix = ".fif"
    if is_dicom(start):
        return DicomSource(path)
    if start[16:22] == b"SCPECG":
        raise InputError(
            path, "is an SCP-ECG file, which is not read here", f"export the ECG as {READABLE_ECG}"
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
    raise InputError(
        path, "is of no format that is read here",
        f"give the recording as {READABLE}, an ECG also as {READABLE_ECG}",
    )  # fmt: skip


def _beginning(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(path, "is a folder", "give the recording file inside it")
        if not stat.S_ISREG(mode):
            raise InputError(path, "is no regular file", "give a recording file")
        with path.open("rb") as file:
            start = file.read(_BEGINNING)
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
