"""The findings a report can state: their names, the words for them, and how severe they are.

One table for every part of the package: the findings head, the measurements, the simulator's truth, the
lexicon that reads findings out of text, and the report's JSON.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """A statement about a recording that is either present or absent.

    Attributes
    ----------
    name : str
        Identifier in reports and manifests, snake_case.
    modality : str
        ``"eeg"``.
    label : str
        The finding in words, as reports print it.
    synonyms : tuple of str
        Other words for it, lower case.
    critical : bool
        Whether stating it wrongly, or missing it, endangers the patient.
    unit : str or None
        Unit of its value, where it has one.
    """

    name: str
    modality: str
    label: str
    synonyms: tuple[str, ...]
    critical: bool = False
    unit: str | None = None


EEG_FINDINGS: tuple[Finding, ...] = (
    Finding(
        "posterior_dominant_rhythm",
        "eeg",
        "posterior dominant rhythm",
        ("alpha rhythm", "posterior rhythm", "posterior background rhythm", "occipital rhythm"),
        unit="Hz",
    ),
    Finding(
        "posterior_asymmetry",
        "eeg",
        "asymmetry of the posterior rhythm",
        ("posterior asymmetry", "asymmetric posterior rhythm", "attenuated on the left or right"),
    ),
    Finding("drowsiness", "eeg", "drowsiness", ("drowsy state", "stage N1 sleep", "drowsy patterns")),
    Finding(
        "sleep_spindles",
        "eeg",
        "sleep spindles",
        ("spindles", "sigma activity", "stage N2 sleep", "K complexes"),
    ),
    Finding(
        "generalized_slowing",
        "eeg",
        "generalized slowing",
        ("diffuse slowing", "diffuse theta and delta", "generalised slowing", "diffusely slow background"),
    ),
    Finding(
        "focal_slowing",
        "eeg",
        "focal slowing",
        ("regional slowing", "focal delta", "polymorphic focal delta"),
    ),
    Finding(
        "focal_epileptiform_discharges",
        "eeg",
        "focal epileptiform discharges",
        ("sharp waves", "spikes", "focal spikes", "sharp and slow waves"),
    ),
    Finding(
        "generalized_spike_wave",
        "eeg",
        "generalized spike-and-wave discharges",
        ("generalised spike-wave", "3 Hz spike and wave", "generalized epileptiform discharges"),
    ),
    Finding(
        "seizure",
        "eeg",
        "electrographic seizure",
        ("seizure", "ictal activity", "ictal pattern"),
        critical=True,
    ),
    Finding(
        "burst_suppression",
        "eeg",
        "burst suppression",
        ("burst-suppression pattern", "suppression burst"),
        critical=True,
    ),
    Finding("eye_blink_artifact", "eeg", "eye blink artifact", ("blinks", "eye blinks", "blink artefact")),
    Finding("muscle_artifact", "eeg", "muscle artifact", ("emg artifact", "myogenic artifact")),
    Finding("electrode_artifact", "eeg", "electrode artifact", ("electrode pops", "electrode pop artifact")),
    Finding(
        "mains_noise",
        "eeg",
        "mains noise",
        ("line noise", "50 hz artifact", "60 hz artifact", "mains interference"),
    ),
    Finding("bad_electrode", "eeg", "bad electrode", ("faulty electrode", "non-functioning electrode")),
)
EEG_NAMES: tuple[str, ...] = tuple(finding.name for finding in EEG_FINDINGS)
BY_NAME: dict[str, Finding] = {finding.name: finding for finding in EEG_FINDINGS}
CRITICAL: frozenset[str] = frozenset(finding.name for finding in EEG_FINDINGS if finding.critical)

# The model's own findings go into the prompt as sentences; what is measured goes in through
# `measurements.facts`, so that no number is stated twice.
MEASURED: frozenset[str] = frozenset(
    {"posterior_dominant_rhythm", "posterior_asymmetry", "mains_noise", "bad_electrode"}
)
LOCATED: frozenset[str] = frozenset({"focal_slowing", "focal_epileptiform_discharges", "seizure"})

_LOBES: dict[str, str] = {
    "Fp": "frontal", "AF": "frontal", "F": "frontal", "FC": "frontal", "FT": "temporal",
    "T": "temporal", "TP": "temporal", "A": "temporal", "C": "central", "CP": "central",
    "P": "parietal", "PO": "occipital", "O": "occipital", "I": "occipital",
}  # fmt: skip
_TEMPORAL_OF_TEN_TWENTY = frozenset({"F7", "F8", "F9", "F10", "P7", "P8"})
_GENERALISED_FROM = 10


def side_of(channel: str) -> str:
    """Say on which side an electrode lies: ``"left"``, ``"right"`` or ``"midline"``."""
    digits = channel.lstrip("".join(c for c in channel if not c.isdigit()))
    if not digits:
        return "midline"
    return "left" if int(digits) % 2 else "right"


def lobe_of(channel: str) -> str:
    """Say over which lobe an electrode lies, e.g. ``"temporal"`` for T3, T7 and F7."""
    if channel in _TEMPORAL_OF_TEN_TWENTY:
        return "temporal"
    stem = channel.rstrip("0123456789z")
    return _LOBES.get(stem, "central")


def region_of(channels: Sequence[str]) -> str:
    """Name the region of a field, e.g. ``"left temporal"``.

    Parameters
    ----------
    channels : sequence of str
        Canonical channel names, the strongest first: it alone decides lobe and side.

    Returns
    -------
    str
        ``"generalized"`` where no channel or most of the head is named.
    """
    if not channels or len(channels) >= _GENERALISED_FROM:
        return "generalized"
    side, lobe = side_of(channels[0]), lobe_of(channels[0])
    if side == "midline":
        return f"midline {lobe}"
    return f"{side} {lobe}"


def absent_finding(name: str) -> dict[str, Any]:
    """Return the entry of a finding that is looked for and not there."""
    return {
        "name": name,
        "present": False,
        "value": None,
        "unit": BY_NAME[name].unit,
        "channels": [],
        "start_seconds": None,
        "end_seconds": None,
    }


def is_present(findings: Iterable[Mapping[str, Any]], name: str) -> bool:
    """Say whether a list of finding entries states this one as present."""
    return any(entry["name"] == name and bool(entry["present"]) for entry in findings)


def finding_facts(findings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Write the model's findings as sentences of fixed form, for the prompt.

    Parameters
    ----------
    findings : iterable of dict
        Entries with ``name``, ``present``, ``channels``, ``start_seconds``, ``end_seconds``. Entries that
        are absent or measured on the signal (`MEASURED`) are left out, in the order of `EEG_FINDINGS`.

    Returns
    -------
    list of str
        E.g. ``"Finding: focal slowing, left temporal, 30-60 s."``; ``"Finding: none."`` if there is none.
    """
    entries = {entry["name"]: entry for entry in findings if entry["present"]}
    sentences = []
    for name in EEG_NAMES:
        if name not in entries or name in MEASURED:
            continue
        entry = entries[name]
        parts = [BY_NAME[name].label]
        if name in LOCATED:
            parts.append(region_of(entry.get("channels") or []))
        start, end = entry.get("start_seconds"), entry.get("end_seconds")
        if start is not None and end is not None:
            parts.append(f"{start:.0f}-{end:.0f} s")
        sentences.append(f"Finding: {', '.join(parts)}.")
    return sentences or ["Finding: none."]
