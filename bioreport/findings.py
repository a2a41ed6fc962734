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
        ``"eeg"`` or ``"ecg"``.
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

# What an ECG shows, in the order of its report; `bioreport.ecg.criteria` holds what each is measured by.
ECG_FINDINGS: tuple[Finding, ...] = (
    Finding("sinus_rhythm", "ecg", "sinus rhythm", ("normal sinus rhythm", "sinus mechanism"), unit="/min"),
    Finding("bradycardia", "ecg", "bradycardia", ("sinus bradycardia", "slow heart rate"), unit="/min"),
    Finding("tachycardia", "ecg", "tachycardia", ("sinus tachycardia", "fast heart rate"), unit="/min"),
    Finding("sinus_arrhythmia", "ecg", "sinus arrhythmia", ("respiratory sinus arrhythmia",)),
    Finding(
        "atrial_fibrillation",
        "ecg",
        "atrial fibrillation",
        ("afib", "af", "irregularly irregular rhythm without p waves"),
    ),
    Finding("atrial_flutter", "ecg", "atrial flutter", ("flutter waves", "typical flutter")),
    Finding(
        "supraventricular_tachycardia",
        "ecg",
        "supraventricular tachycardia",
        ("svt", "av nodal re-entrant tachycardia", "narrow-complex tachycardia"),
        unit="/min",
    ),
    Finding(
        "ventricular_tachycardia",
        "ecg",
        "ventricular tachycardia",
        ("vt", "run of ventricular beats", "wide-complex tachycardia"),
        critical=True,
        unit="/min",
    ),
    Finding("ventricular_fibrillation", "ecg", "ventricular fibrillation", ("vf", "v-fib"), critical=True),
    Finding("asystole", "ecg", "asystole", ("ventricular standstill", "cardiac standstill"), critical=True),
    Finding("pause", "ecg", "pause", ("sinus pause", "sinus arrest", "long rr interval"), unit="s"),
    Finding(
        "paced_rhythm", "ecg", "paced rhythm", ("pacemaker rhythm", "ventricular pacing", "pacing spikes")
    ),
    Finding(
        "premature_atrial_contractions",
        "ecg",
        "premature atrial contractions",
        ("pac", "atrial premature complexes", "atrial ectopy", "supraventricular extrasystoles"),
    ),
    Finding(
        "premature_ventricular_contractions",
        "ecg",
        "premature ventricular contractions",
        ("pvc", "ventricular premature complexes", "ventricular ectopy", "ventricular extrasystoles"),
    ),
    Finding(
        "first_degree_av_block",
        "ecg",
        "first-degree AV block",
        ("prolonged pr interval", "1st degree av block", "first degree atrioventricular block"),
        unit="ms",
    ),
    Finding(
        "second_degree_av_block",
        "ecg",
        "second-degree AV block",
        ("wenckebach", "mobitz", "2nd degree av block", "2:1 av block"),
    ),
    Finding(
        "complete_av_block",
        "ecg",
        "complete AV block",
        ("third-degree av block", "complete heart block", "av dissociation"),
        critical=True,
    ),
    Finding(
        "right_bundle_branch_block",
        "ecg",
        "right bundle branch block",
        ("rbbb", "complete right bundle branch block"),
        unit="ms",
    ),
    Finding(
        "incomplete_right_bundle_branch_block",
        "ecg",
        "incomplete right bundle branch block",
        ("incomplete rbbb", "irbbb", "rsr' pattern in v1"),
        unit="ms",
    ),
    Finding(
        "left_bundle_branch_block",
        "ecg",
        "left bundle branch block",
        ("lbbb", "complete left bundle branch block"),
        unit="ms",
    ),
    Finding(
        "intraventricular_conduction_delay",
        "ecg",
        "intraventricular conduction delay",
        ("ivcd", "nonspecific intraventricular conduction disorder", "wide qrs"),
        unit="ms",
    ),
    Finding(
        "left_anterior_fascicular_block",
        "ecg",
        "left anterior fascicular block",
        ("left anterior hemiblock", "lafb"),
    ),
    Finding("left_axis_deviation", "ecg", "left axis deviation", ("leftward axis", "lad"), unit="°"),
    Finding("right_axis_deviation", "ecg", "right axis deviation", ("rightward axis", "rad"), unit="°"),
    Finding(
        "left_ventricular_hypertrophy",
        "ecg",
        "left ventricular hypertrophy by voltage",
        ("lvh", "left ventricular high voltage", "voltage criteria for lvh"),
        unit="mV",
    ),
    Finding("right_ventricular_hypertrophy", "ecg", "right ventricular hypertrophy", ("rvh",), unit="mV"),
    Finding("low_qrs_voltage", "ecg", "low QRS voltage", ("low voltage", "microvoltage"), unit="mV"),
    Finding(
        "st_elevation_infarction",
        "ecg",
        "ST-elevation infarction pattern",
        ("stemi", "st-elevation myocardial infarction", "acute infarct", "acute myocardial infarction"),
        critical=True,
        unit="mV",
    ),
    Finding("st_elevation", "ecg", "ST elevation", ("st segment elevation", "elevated st"), unit="mV"),
    Finding("st_depression", "ecg", "ST depression", ("st segment depression", "depressed st"), unit="mV"),
    Finding(
        "t_wave_inversion", "ecg", "T-wave inversion", ("inverted t waves", "negative t waves"), unit="mV"
    ),
    Finding(
        "pathological_q_waves",
        "ecg",
        "pathological Q waves",
        ("old infarct", "significant q waves"),
        unit="mV",
    ),
    Finding("prolonged_qt", "ecg", "prolonged QT interval", ("long qt", "qt prolongation"), unit="ms"),
    Finding("short_qt", "ecg", "short QT interval", ("shortened qt",), unit="ms"),
    Finding(
        "limb_lead_reversal",
        "ecg",
        "limb lead reversal",
        ("lead swap", "arm lead reversal", "misplaced leads"),
    ),
    Finding("lead_off", "ecg", "lead off", ("flat lead", "disconnected lead", "lead without signal")),
    Finding("noisy_lead", "ecg", "noisy lead", ("muscle tremor", "poor signal quality")),
    Finding("baseline_wander", "ecg", "baseline wander", ("wandering baseline", "baseline drift")),
    Finding(
        "mains_interference", "ecg", "mains interference", ("ac interference", "power line interference")
    ),
)
ECG_NAMES: tuple[str, ...] = tuple(finding.name for finding in ECG_FINDINGS)
FINDINGS: dict[str, tuple[Finding, ...]] = {"eeg": EEG_FINDINGS, "ecg": ECG_FINDINGS}
BY_NAME: dict[str, Finding] = {finding.name: finding for table in FINDINGS.values() for finding in table}
CRITICAL: frozenset[str] = frozenset(name for name, finding in BY_NAME.items() if finding.critical)

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
