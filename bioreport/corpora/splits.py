"""Splits by patient: the hash of the identifier alone decides, so that adding records moves nobody."""

import hashlib
from collections.abc import Iterable, Mapping

_SPLITS = (("train", 80), ("val", 90), ("test", 100))  # upper percent of the hash
SPLITS: tuple[str, ...] = tuple(name for name, _ in _SPLITS)
_SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
_CANDIDATES = 64


def split_of(patient: str, seed: int = 0) -> str:
    """Return ``"train"``, ``"val"`` or ``"test"`` (80/10/10) by the hash of the patient alone.

    Parameters
    ----------
    patient : str
    seed : int
        Another seed is another split of all patients.
    """
    text = f"{seed}:{patient}" if seed else patient
    percent = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) % 100
    return next(name for name, below in _SPLITS if percent < below)


def best_seed(findings: Mapping[str, Iterable[str]]) -> int:
    """The seed among 64 that splits every finding most evenly.

    A hash splits each finding 80/10/10 only on average: of 20 patients with a rare one, none may be in the
    test split. Moving single patients would cure that until records are added; another seed moves all, once.

    Parameters
    ----------
    findings : mapping of str to iterable of str
        Of each patient the findings that are present. A patient without any counts towards the sizes.

    Notes
    -----
    Least is the sum over findings and splits of (share − wanted)² / wanted; of equals the lowest seed.
    """
    groups: dict[str, list[str]] = {"": list(findings)}
    for patient, names in findings.items():
        for name in names:
            groups.setdefault(name, []).append(patient)

    def unevenness(seed: int) -> float:
        where = {patient: split_of(patient, seed) for patient in findings}
        total = 0.0
        for patients in groups.values():
            if not patients:
                continue
            for split, wanted in _SHARES.items():
                share = sum(where[patient] == split for patient in patients) / len(patients)
                total += (share - wanted) ** 2 / wanted
        return total

    return min(range(_CANDIDATES), key=lambda seed: (unevenness(seed), seed))
