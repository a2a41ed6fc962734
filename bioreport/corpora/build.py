"""A corpus to a manifest: read, split by patient, checked for leakage, written as a whole."""

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from bioreport.corpora import folder, heedb, mimic_iv_ecg, ptbxl, tuh
from bioreport.corpora.leakage import Leak, LeakageCheck
from bioreport.corpora.notes import Notes
from bioreport.corpora.splits import SPLITS, best_seed, split_of
from bioreport.errors import InputError
from bioreport.manifest import Entry, check_manifest_replaceable, write_manifest

Reader = Callable[[Path, Notes], Iterator[Entry]]


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk, and whether its reports are stock phrases."""

    read: Reader
    formulas: bool = False


LAYOUTS: dict[str, Layout] = {
    "heedb": Layout(heedb.read),
    "ptbxl": Layout(ptbxl.read, formulas=True),
    "mimic-iv-ecg": Layout(mimic_iv_ecg.read, formulas=True),
    "tuh": Layout(tuh.read),
    "folder": Layout(folder.read),
}


@dataclass
class Summary:
    """What a manifest holds.

    Attributes
    ----------
    manifest : Path
    seed : int
        Of the split by the hash of the patient.
    entries, patients, reports, labelled : int
        Entries in all, their patients, and how many entries have sections and findings.
    splits : dict of str to int
        Entries by split.
    notes : Notes
    leaks : list of Leak
    """

    manifest: Path
    seed: int = 0
    entries: int = 0
    patients: int = 0
    reports: int = 0
    labelled: int = 0
    splits: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    notes: Notes = field(default_factory=Notes)
    leaks: list[Leak] = field(default_factory=list)
    _present: dict[str, set[str]] = field(default_factory=dict)

    def count(self, entry: Entry) -> None:
        """Count an entry."""
        self.entries += 1
        self.reports += bool(entry.sections)
        self.labelled += entry.findings is not None
        split = entry.split or "none"
        self.splits[split] = self.splits.get(split, 0) + 1
        for name in _present(entry):
            self._present.setdefault(name, set()).add(split)

    def sentences(self) -> list[str]:
        """What it holds, what was missing, and which findings a split has none of."""
        splits = ", ".join(f"{name} {count:,}" for name, count in self.splits.items())
        said = [
            f"{self.entries:,} entries of {self.patients:,} patients ({splits}), "
            f"{self.reports:,} with a report, {self.labelled:,} with findings.",
            *self.notes.sentences(),
        ]
        for split in SPLITS:
            absent = sorted(name for name, where in self._present.items() if split not in where)
            if absent and self.splits[split]:
                said.append(f"No entry of {split} has: {', '.join(absent)}.")
        return said


def build_manifest(
    layout: str,
    directory: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    signals: bool = False,
    list_leaks: bool = False,
    seed: int | None = 0,
    patient: str | None = None,
    progress: bool = False,
) -> Summary:
    """Read a corpus and write its manifest.

    Parameters
    ----------
    layout : str
        Out of `LAYOUTS`.
    directory : path-like
        Where the corpus lies.
    output : path-like
        The manifest; replaced as a whole, or not at all. Another file there is left as it is.
    signals : bool
        Whether the recordings are read and compared too, not only patients and reports.
    list_leaks : bool
        Write the manifest in spite of leaks and give them in the summary.
    seed : int or None
        Of the split by the hash of the patient, where the data set has none of its own; None takes the one of
        64 that splits every finding most evenly, which reads the corpus twice.
    patient : str, optional
        Of a plain folder: the regular expression that finds the patient in a recording's path.
    progress : bool
        Show a count on a terminal.

    Returns
    -------
    Summary

    Raises
    ------
    InputError
        The corpus cannot be read, `output` is there and no manifest, the manifest cannot be written, or two
        splits share a patient, a signal or a report (unless `list_leaks`); no manifest is written then.
    """
    directory, manifest = Path(directory), Path(output)
    check_manifest_replaceable(manifest)
    known = LAYOUTS[layout]
    read = known.read if patient is None else partial(folder.read, patient=re.compile(patient))
    if seed is None:
        seed = best_seed(_findings_by_patient(read(directory, Notes())))
    summary = Summary(manifest, seed)
    bar = partial(tqdm, unit="entry", disable=None if progress else True)
    with LeakageCheck(directory, summary.notes, signals=signals, formulas=known.formulas) as check:

        def checked() -> Iterator[Entry]:
            for entry in bar(read(directory, summary.notes)):
                if entry.split is None and entry.patient is not None:
                    entry = replace(entry, split=split_of(entry.patient, summary.seed))
                summary.leaks += check.leaks(entry)
                summary.count(entry)
                yield entry
            if summary.leaks and not list_leaks:
                raise _refusal(manifest, summary.leaks)

        write_manifest(manifest, checked())
        summary.patients = check.patients
    return summary


def _refusal(manifest: Path, leaks: list[Leak]) -> InputError:
    more = f" (and {len(leaks) - 1:,} more such pairs)" if len(leaks) > 1 else ""
    return InputError(
        manifest,
        f"is not written: {leaks[0]}{more}",
        "take one of them out, or list all leaks and write it all the same with --list-leaks",
    )


def _findings_by_patient(entries: Iterable[Entry]) -> dict[str, set[str]]:
    """What each patient has, of those whose split is the hash's to decide."""
    found: dict[str, set[str]] = {}
    for entry in entries:
        if entry.split is None and entry.patient is not None:
            found.setdefault(entry.patient, set()).update(_present(entry))
    return found


def _present(entry: Entry) -> Iterator[str]:
    return (finding["name"] for finding in entry.findings or () if finding["present"])
