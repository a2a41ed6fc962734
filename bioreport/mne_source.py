"""BrainVision, EEGLAB and FIF, read by MNE without loading the file.

MNE gives volts. It is imported here and not before, because its import takes longer than opening an EDF.
"""

import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bioreport.errors import InputError
from bioreport.source import Piece, Source, clean_labels

_KINDS = {
    "eeg": None,  # readers call everything EEG that says nothing else: the label decides
    "eog": "eog", "ecg": "ecg", "emg": "emg", "stim": "stim", "resp": "resp",
}  # fmt: skip
_SKIPPED = "BAD_ACQ_SKIP"
_CUTS = ("boundary", "EDGE boundary", "New Segment")


class MneSource(Source):
    """Samples in volts of a file that MNE opens lazily.

    Parameters
    ----------
    path : Path
        The file to give to MNE.
    suffix : str
        ``.vhdr``, ``.set`` or ``.fif``.
    """

    def __init__(self, path: Path, suffix: str) -> None:
        raw = _open(path, suffix)
        info = raw.info
        kinds = raw.get_channel_types()
        subject = info.get("subject_info") or {}
        private = " ".join(str(v) for v in subject.values() if isinstance(v, str))
        self.path = path
        self.labels = tuple(clean_labels(list(raw.ch_names), private=private))
        self.units = ("V",) * len(kinds)
        self.rates = (float(info["sfreq"]),) * len(kinds)
        self.kinds = tuple(_KINDS.get(kind, "misc") for kind in kinds)
        self.unusable = {i: "marked bad in the file" for i, n in enumerate(raw.ch_names) if n in info["bads"]}
        self.warnings: list[str] = []
        self._n_samples = int(raw.n_times)
        self._skips: list[tuple[int, int]] = []
        self._pieces = self._find_pieces(raw)
        # subject, operator and dates are of no use here and must not travel with the object
        raw.set_annotations(None)
        raw.anonymize(verbose="ERROR")
        self._raw = raw

    def pieces(self, sfreq: float) -> list[Piece]:
        """Stretches without a gap."""
        return self._pieces

    def read(self, rows: list[int], start: int, stop: int) -> np.ndarray:
        """Samples in volts, float64 [len(rows), stop - start]."""
        if stop <= start or not rows:
            return np.empty((len(rows), 0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            try:
                data = self._raw.get_data(picks=np.array(rows), start=start, stop=stop, verbose="ERROR")
            except (ValueError, RuntimeError, EOFError) as error:
                raise InputError(
                    self.path, "holds fewer samples than its header says", "export it again"
                ) from error
        data = np.ascontiguousarray(data, np.float64)
        for begin, end in self._skips:
            data[:, max(begin - start, 0) : max(end - start, 0)] = np.nan
        return data

    def _find_pieces(self, raw: Any) -> list[Piece]:
        sfreq = float(raw.info["sfreq"])
        cuts: set[int] = set()
        shift = raw.first_time if raw.annotations.orig_time is not None else 0.0
        for annotation in raw.annotations:
            begin = round((annotation["onset"] - shift) * sfreq)
            description = str(annotation["description"])
            if description == _SKIPPED:
                end = begin + max(1, round(annotation["duration"] * sfreq))
                self._skips.append((max(begin, 0), min(end, self._n_samples)))
            elif description.endswith(_CUTS) or description.startswith(_CUTS):
                cuts.add(begin)
        bounds = sorted({0, self._n_samples, *(c for c in cuts if 0 < c < self._n_samples)})
        n_cuts = len(bounds) - 2
        if n_cuts > 0:
            self.warnings.append(
                f"The recording was cut and joined at {n_cuts} place{'s' if n_cuts > 1 else ''}; "
                "nothing is filtered across a cut, and times are those of the joined signal."
            )
        # MNE gives a gap twice where the file has it as a gap and as an annotation
        self._skips = sorted(set(self._skips))
        missing, covered = 0, 0
        for begin, end in self._skips:
            missing += max(end - max(begin, covered), 0)
            covered = max(covered, end)
        if missing > 0:
            self.warnings.append(f"The recording has gaps, together {missing / sfreq:.4g} s without signal.")
        return [Piece(a, b, a / sfreq) for a, b in pairwise(bounds)]


def _open(path: Path, suffix: str) -> Any:
    import mne

    readers = {
        ".vhdr": mne.io.read_raw_brainvision,
        ".set": mne.io.read_raw_eeglab,
        ".fif": mne.io.read_raw_fif,
    }
    names = {".vhdr": "BrainVision", ".set": "EEGLAB", ".fif": "FIF"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return readers[suffix](path, preload=False, verbose="ERROR")
        except FileNotFoundError as error:
            raise InputError(
                path, "names a data file that is not there", "put all files of the recording into one folder"
            ) from error
        except PermissionError as error:
            raise InputError(path, "may not be read by this user", "change its permissions") from error
        except MemoryError:
            raise
        except Exception as error:
            # MNE raises whatever a damaged file leads it to, with parts of the header in the message
            raise InputError(
                path, f"cannot be read as {names[suffix]} ({type(error).__name__})",
                "export it again, or as EDF",
            ) from error  # fmt: skip
