"""What a report may say of an ECG: numbers and kinds from the measurements, and the prompt's sentences."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bioreport.ecg.criteria import TERRITORIES
from bioreport.ecg.leads import in_order
from bioreport.findings import BY_NAME, ECG_NAMES

# findings that are named with their leads
PLACED = frozenset(
    {"st_elevation", "st_depression", "t_wave_inversion", "pathological_q_waves", "lead_off", "noisy_lead"}
)
RHYTHMS = (
    "sinus_rhythm", "atrial_fibrillation", "atrial_flutter", "supraventricular_tachycardia",
    "ventricular_tachycardia", "ventricular_fibrillation", "asystole", "paced_rhythm", "complete_av_block",
)  # fmt: skip
# what a reader expects to be told of, by the findings that say it
ASPECTS: Mapping[str, tuple[str, ...]] = {
    "rhythm": ("sinus_rhythm", "atrial_fibrillation"),
    "ectopic beats": ("premature_atrial_contractions", "premature_ventricular_contractions"),
    "AV conduction": ("first_degree_av_block",),
    "QRS": ("left_bundle_branch_block", "right_bundle_branch_block", "intraventricular_conduction_delay"),
    "axis": ("left_axis_deviation", "right_axis_deviation"),
    "hypertrophy": ("left_ventricular_hypertrophy",),
    "voltage": ("low_qrs_voltage",),
    "Q waves": ("pathological_q_waves",),
    "ST": ("st_elevation", "st_depression"),
    "T waves": ("t_wave_inversion",),
    "QT": ("prolonged_qt", "short_qt"),
}
_DIFFUSE_LEADS = 6
_JOINT = {
    frozenset({"septal", "anterior"}): "anteroseptal",
    frozenset({"anterior", "lateral"}): "anterolateral",
    frozenset({"septal", "anterior", "lateral"}): "anterolateral",
    frozenset({"inferior", "lateral"}): "inferolateral",
}


def unjudged_aspects(findings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Those of `ASPECTS` of which no finding is listed: nothing could be said of them."""
    listed = {finding["name"] for finding in findings}
    return [aspect for aspect, names in ASPECTS.items() if not listed.intersection(names)]


def territory(leads: Sequence[str]) -> str | None:
    """The wall that leads look at, in two of its leads at least; None where they look at several apart."""
    seen = frozenset(name for name, own in TERRITORIES.items() if sum(lead in own for lead in leads) >= 2)
    if len(seen) == 1:
        return next(iter(seen))
    if {"inferior", "lateral"} <= seen and len(leads) >= _DIFFUSE_LEADS:
        return "diffuse"
    return _JOINT.get(seen)


def territories(present: Mapping[str, Mapping[str, Any]]) -> dict[str, str | None]:
    """``st_territory``, ``t_territory`` and ``q_territory`` of the present findings that have leads.

    That of ST is the elevation's where there is one; only elevation is called diffuse.
    """
    found: dict[str, str | None] = {}
    for name, key in (
        ("st_elevation", "st_territory"),
        ("st_depression", "st_territory"),
        ("t_wave_inversion", "t_territory"),
        ("pathological_q_waves", "q_territory"),
    ):
        if name in present and key not in found:
            where = territory(present[name]["channels"])
            found[key] = None if where == "diffuse" and name != "st_elevation" else where
    return found


def report_facts(measurements: Mapping[str, Any], findings: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The numbers and kinds that a report of this ECG may state.

    Parameters
    ----------
    measurements : dict
        From `bioreport.ecg.measure.measure_ecg`.
    findings : iterable of dict
        The report's; what is not listed could not be judged.

    Returns
    -------
    dict
        ``rate_per_minute``, ``pr_ms``, ``qrs_ms``, ``qt_ms``, ``qtc_ms`` (Bazett), ``axis_degrees``, each a
        number or None; ``conduction``, ``run``, ``st_territory``, ``t_territory``, ``q_territory``,
        ``escape``, ``mains_hz`` where they are known. What `write_sections` and `prompt_facts` take.
    """
    findings = list(findings)
    listed = {finding["name"] for finding in findings}
    present = {finding["name"]: finding for finding in findings if finding["present"]}
    facts: dict[str, Any] = {
        "rate_per_minute": _number(measurements, "rate"),
        # an interval from whatever precedes the beats is a PR interval in sinus rhythm alone
        "pr_ms": _number(measurements, "pr") if "sinus_rhythm" in present else None,
        "qrs_ms": _number(measurements, "qrs") if listed.intersection(ASPECTS["QRS"]) else None,
        "qt_ms": _number(measurements, "qt") if "prolonged_qt" in listed else None,
        "qtc_ms": _number(measurements, "qtc_bazett") if "prolonged_qt" in listed else None,
        "axis_degrees": _number(measurements, "axis") if "left_axis_deviation" in listed else None,
    }
    if present.keys() & {"asystole", "ventricular_fibrillation"} and not present.keys() & {"sinus_rhythm"}:
        facts = dict.fromkeys(facts)
    flutter, rate = (measurements.get("atrial") or {}).get("flutter_rate"), facts["rate_per_minute"]
    if "atrial_flutter" in present and flutter and rate and (measurements.get("rr") or {}).get("regular"):
        facts["conduction"] = f"{round(flutter / rate)}:1"
    if measurements.get("runs") and "ventricular_tachycardia" in present:
        facts["run"] = max(run["beats"] for run in measurements["runs"])
    if "complete_av_block" in present and not listed.intersection(ASPECTS["QRS"]):
        facts["escape"] = "ventricular"
    facts |= territories(present)
    mains = measurements.get("mains") or {}
    if "mains_interference" in present and mains:
        facts["mains_hz"] = mains["frequency_hz"]
    return facts


def _number(measurements: Mapping[str, Any], key: str) -> float | None:
    quantity = measurements.get(key)
    return None if quantity is None else float(quantity["value"])


def prompt_facts(facts: Mapping[str, Any], findings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Short sentences of fixed form for the prompt: numbers, findings, and what could not be judged.

    Parameters
    ----------
    facts : dict
        From `report_facts`.
    findings : iterable of dict
        The report's.
    """
    findings = list(findings)
    numbers = [
        f"{words} {facts[key]:.0f}{unit}."
        for key, words, unit in (
            ("rate_per_minute", "Rate", " /min"),
            ("pr_ms", "PR", " ms"),
            ("qrs_ms", "QRS", " ms"),
            ("qt_ms", "QT", " ms"),
            ("qtc_ms", "QTc", " ms"),
            ("axis_degrees", "Axis", "°"),
            ("mains_hz", "Mains", " Hz"),
            ("run", "Run", " beats"),
        )
        if facts.get(key) is not None
    ]
    kinds = [
        f"{words}: {facts[key]}."
        for key, words in (
            ("conduction", "Conduction"),
            ("escape", "Escape"),
            ("st_territory", "ST"),
            ("t_territory", "T"),
            ("q_territory", "Q"),
        )
        if facts.get(key)
    ]
    present = {finding["name"]: finding for finding in findings if finding["present"]}
    said = []
    for name in ECG_NAMES:
        if name not in present:
            continue
        parts = [BY_NAME[name].label]
        if name in PLACED:
            # measurements list the largest change first; a reader looks for the usual order
            parts += in_order(present[name].get("channels") or [])
        if name == "pause" and present[name].get("value") is not None:
            parts.append(f"{present[name]['value']:.1f} s")
        said.append(f"Finding: {', '.join(parts)}.")
    if not present.keys() & set(RHYTHMS):
        said.insert(0, "Rhythm undetermined.")
    aspects = unjudged_aspects(findings)
    return [
        *numbers,
        *kinds,
        *(said or ["Finding: none."]),
        *([f"Not judged: {', '.join(aspects)}."] * bool(aspects)),
    ]
