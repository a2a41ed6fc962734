"""BIDS sidecars: what a data set says about a recording beside it.

Brain Imaging Data Structure, EEG (Pernet et al. 2019): `*_channels.tsv` (name, type, units, status) and
`*_eeg.json` (PowerLineFrequency), found beside the recording or, by inheritance, in a folder above it.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FOLDERS_ABOVE = 4
_SIDECARS = ("channels.tsv", "eeg.json")
_KINDS = {
    "EEG": "eeg", "EOG": "eog", "VEOG": "eog", "HEOG": "eog", "ECG": "ecg", "EKG": "ecg", "EMG": "emg",
    "TRIG": "stim", "STIM": "stim", "SYSCLOCK": "stim", "RESP": "resp", "MISC": "misc", "OTHER": "misc",
    "GSR": "misc", "PPG": "misc", "TEMP": "misc", "AUDIO": "misc", "REF": "misc", "PUPIL": "misc",
    "EYEGAZE": "misc", "SEEG": "misc", "ECOG": "misc", "DBS": "misc",
}  # fmt: skip


@dataclass(frozen=True)
class SidecarChannel:
    """A row of a channels.tsv; None for what it does not say."""

    kind: str | None
    unit: str | None
    bad: bool


@dataclass
class Sidecar:
    """What the sidecars of a recording say.

    Attributes
    ----------
    channels : dict of str to list of SidecarChannel
        Rows by name, in the order of the file where a name is repeated.
    line_frequency : float or None
        PowerLineFrequency, Hz.
    """

    channels: dict[str, list[SidecarChannel]] = field(default_factory=dict)
    line_frequency: float | None = None
    warnings: list[str] = field(default_factory=list)


def read_sidecar(path: Path) -> Sidecar:
    """Read the sidecars of a recording; an empty one if there are none.

    Parameters
    ----------
    path : Path
        The recording, e.g. ``sub-01_task-rest_eeg.edf``.
    """
    sidecar = Sidecar()
    table = next(_candidates(path, "channels.tsv"), None) or _existing(path.parent / "channels.tsv")
    if table is not None:
        _read_channels(table, sidecar)
    for description in _candidates(path, "eeg.json"):
        if _read_line_frequency(description, sidecar):
            break
    return sidecar


def is_sidecar(name: str, recording: str) -> bool:
    """Whether a file applies to a recording in its folder or below, by their names."""
    stem = recording.removesuffix(Path(recording).suffix)
    entities = set(stem.removesuffix("_eeg").split("_"))
    return any(
        name.endswith(f"_{suffix}") and set(name.removesuffix(f"_{suffix}").split("_")) <= entities
        for suffix in _SIDECARS
    )


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _candidates(path: Path, suffix: str) -> Iterator[Path]:
    """Sidecars that apply, nearest first: all their entities are among the recording's."""
    entities = path.stem.split("_")
    if entities[-1] == "eeg":
        entities.pop()
    if len(entities) == 1 and "-" not in entities[0]:
        # not a BIDS name: only `name_channels.tsv`, `name_eeg.json` beside it
        if (beside := path.with_name(f"{entities[0]}_{suffix}")).is_file():
            yield beside
        return
    folder = path.parent.absolute()
    for _ in range(FOLDERS_ABOVE):
        found = [p for p in folder.glob(f"*_{suffix}") if is_sidecar(p.name, path.name)]
        yield from sorted(found, key=lambda p: (-len(p.name), p.name))
        if (folder / "dataset_description.json").is_file() or folder.parent == folder:
            return
        folder = folder.parent


def _read_channels(table: Path, sidecar: Sidecar) -> None:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (OSError, UnicodeDecodeError, csv.Error):
        sidecar.warnings.append(f"{table.name} cannot be read as a table and was not used.")
        return
    if rows and "name" not in rows[0]:
        sidecar.warnings.append(f"{table.name} has no column 'name' and was not used.")
        return
    for row in rows:
        values = {
            key: (value or "").strip()
            for key, value in row.items()
            if isinstance(key, str) and not isinstance(value, list)
        }
        unit = values.get("units", "")
        sidecar.channels.setdefault(" ".join(values.get("name", "").split()), []).append(
            SidecarChannel(
                kind=_KINDS.get(values.get("type", "").upper()),
                unit=unit if unit.lower() not in ("", "n/a") else None,
                bad=values.get("status", "").lower() == "bad",
            )
        )


def _read_line_frequency(description: Path, sidecar: Sidecar) -> bool:
    """Whether the file says something about the mains frequency."""
    try:
        content = json.loads(description.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        sidecar.warnings.append(f"{description.name} cannot be read as JSON and was not used.")
        return False
    value = content.get("PowerLineFrequency") if isinstance(content, dict) else None
    if value is None:
        return False
    try:
        frequency = float(value)
    except (TypeError, ValueError):
        return False
    if frequency not in (50.0, 60.0):
        sidecar.warnings.append(
            f"{description.name} states a mains frequency that is neither 50 nor 60 Hz; it was not used."
        )
        return False
    sidecar.line_frequency = frequency
    return True
