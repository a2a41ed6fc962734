"""Findings of an ECG in plain words, and where in a report they belong."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from bioreport.ecg.facts import PLACED, RHYTHMS
from bioreport.ecg.leads import in_order
from bioreport.findings import BY_NAME
from bioreport.sentences import UNASSESSABLE, listed

RHYTHM = "RHYTHM"
CONDUCTION = "CONDUCTION AND INTERVALS"
MORPHOLOGY = "QRS MORPHOLOGY"
ST_T = "ST-T CHANGES"
TECHNICAL = "TECHNICAL QUALITY"
IMPRESSION = "IMPRESSION/INTERPRETATION"
HOME: dict[str, tuple[str, ...]] = {
    RHYTHM: (
        "sinus_rhythm", "bradycardia", "tachycardia", "sinus_arrhythmia", "atrial_fibrillation",
        "atrial_flutter", "supraventricular_tachycardia", "ventricular_tachycardia",
        "ventricular_fibrillation", "asystole", "pause", "paced_rhythm", "premature_atrial_contractions",
        "premature_ventricular_contractions", "complete_av_block",
    ),
    CONDUCTION: (
        "first_degree_av_block", "second_degree_av_block", "right_bundle_branch_block",
        "incomplete_right_bundle_branch_block", "left_bundle_branch_block",
        "intraventricular_conduction_delay", "left_anterior_fascicular_block", "prolonged_qt", "short_qt",
    ),
    MORPHOLOGY: (
        "left_axis_deviation", "right_axis_deviation", "left_ventricular_hypertrophy",
        "right_ventricular_hypertrophy", "low_qrs_voltage", "pathological_q_waves",
    ),
    ST_T: ("st_elevation_infarction", "st_elevation", "st_depression", "t_wave_inversion"),
    TECHNICAL: ("limb_lead_reversal", "lead_off", "noisy_lead", "baseline_wander", "mains_interference"),
}  # fmt: skip
# what makes an ECG abnormal, the gravest first; a slow or fast sinus rhythm alone leaves it otherwise normal
ABNORMAL: tuple[str, ...] = (
    "asystole", "ventricular_fibrillation", "ventricular_tachycardia", "st_elevation_infarction",
    "complete_av_block", "atrial_fibrillation", "atrial_flutter", "supraventricular_tachycardia",
    "paced_rhythm", "second_degree_av_block", "first_degree_av_block", "pause",
    "premature_ventricular_contractions", "premature_atrial_contractions", "left_bundle_branch_block",
    "right_bundle_branch_block", "incomplete_right_bundle_branch_block",
    "intraventricular_conduction_delay", "left_anterior_fascicular_block", "left_axis_deviation",
    "right_axis_deviation", "left_ventricular_hypertrophy", "right_ventricular_hypertrophy",
    "low_qrs_voltage", "st_elevation", "st_depression", "t_wave_inversion", "pathological_q_waves",
    "prolonged_qt", "short_qt",
)  # fmt: skip
RATES = ("bradycardia", "tachycardia")
# leads that a sentence may name beside these are those of the finding
WITH_LEADS = PLACED | {"st_elevation_infarction"}
# denied in a section of which nothing else is left
_DENIED: dict[str, tuple[str, ...]] = {
    RHYTHM: ("atrial_fibrillation", "ventricular_tachycardia", "asystole"),
    CONDUCTION: ("first_degree_av_block", "left_bundle_branch_block", "right_bundle_branch_block"),
    MORPHOLOGY: ("left_axis_deviation", "left_ventricular_hypertrophy", "low_qrs_voltage"),
    ST_T: ("st_elevation", "st_depression", "t_wave_inversion"),
    TECHNICAL: ("lead_off", "noisy_lead", "baseline_wander", "mains_interference"),
}
# at usual rates Bazett's and Fridericia's QTc are this near; beyond, Bazett corrects too much
FORMULAS_APART_MS = 30
_QTC = re.compile(r"\bQTc\b[^.;,()]{0,25}?(?P<value>\d+) ?ms(?! ?\()")
_Measured = Sequence[Mapping[str, Any]]


def home_of(name: str, sections: Collection[str]) -> str | None:
    """The section in which a finding is stated: its own, else the impression where it is no matter of
    technique; None where neither was asked for, unless it is critical."""
    own = next(section for section, names in HOME.items() if name in names)
    if own in sections:
        return own
    if IMPRESSION in sections and own != TECHNICAL:
        return IMPRESSION
    return next(iter(sections), None) if BY_NAME[name].critical else None


def rhythm_sentence(state: Mapping[str, bool], measurements: _Measured) -> str | None:
    """Sinus rhythm, or a rate of unknown origin, with the number; None for other rhythms."""
    rate = next((name for name in RATES if state.get(name)), None)
    if state.get("sinus_rhythm"):
        words = f"Sinus {rate or 'rhythm'}"
    elif rate and not any(state.get(name) for name in RHYTHMS):
        words = rate.capitalize()
    else:
        return None
    value = number(measurements, "rate")
    return f"{words}{', rate ' + value if value else ''}."


def number(measurements: _Measured, key: str) -> str:
    """A measured quantity with its unit, "" where several recordings or none have it."""
    one = measurements[0].get(key) if len(measurements) == 1 else None
    if one is None:
        return ""
    unit = one["unit"]
    return f"{one['value']:.0f}{'' if unit in ('/min', '°') else ' '}{unit}"


def axis_words(measurements: _Measured) -> str:
    """Name of a right axis deviation: beyond -90° it is neither right nor left, but extreme."""
    one = measurements[0].get("axis") if len(measurements) == 1 else None
    return "extreme axis deviation" if one and one["value"] < -90 else BY_NAME["right_axis_deviation"].label


def with_formula(text: str, measurements: _Measured) -> str:
    """``text`` with the formula behind each QTc, where the two differ so much that a reader must know it."""
    known = {
        word: {f"{one[key]['value']:.0f}" for one in measurements if one.get(key)}
        for word, key in (("Bazett", "qtc_bazett"), ("Fridericia", "qtc_fridericia"))
    }
    apart = [
        abs(one["qtc_bazett"]["value"] - one["qtc_fridericia"]["value"])
        for one in measurements
        if one.get("qtc_bazett") and one.get("qtc_fridericia")
    ]
    if max(apart, default=0) <= FORMULAS_APART_MS:
        return text

    def named(match: re.Match[str]) -> str:
        word = next((word for word, values in known.items() if match["value"] in values), None)
        return match[0] if word is None else f"{match[0]} ({word})"

    return _QTC.sub(named, text)


def finding_sentence(finding: Mapping[str, Any], measurements: _Measured = ()) -> str:
    """A present finding in plain words, with the leads and the number that go with it."""
    name, label = finding["name"], BY_NAME[finding["name"]].label
    leads = in_order(finding.get("channels") or [])
    if name in ("lead_off", "noisy_lead"):
        what = "off" if name == "lead_off" else "noisy"
        if not leads:
            return "A lead is off." if name == "lead_off" else "The recording is noisy: noisy leads."
        return (
            f"Lead{'s' if len(leads) > 1 else ''} {listed(leads)} {'are' if len(leads) > 1 else 'is'} {what}."
        )
    if name == "ventricular_tachycardia":
        return _tachycardia(measurements)
    if name == "pause":
        pauses = measurements[0].get("pauses") or [] if len(measurements) == 1 else []
        longest = max((pause["seconds"] for pause in pauses), default=None)
        return "A pause is present." if longest is None else f"A pause of {longest:.1f} s is present."
    if name == "right_axis_deviation":
        label = axis_words(measurements)
    verb = "are" if label.endswith(("contractions", "waves")) else "is"
    text = f"{label[0].upper()}{label[1:]} {verb} present"
    if name in WITH_LEADS and leads:
        text += f" in {listed(leads)}"
    key = {
        "sinus_rhythm": "rate", "bradycardia": "rate", "tachycardia": "rate",
        "supraventricular_tachycardia": "rate",
        "first_degree_av_block": "pr", "prolonged_qt": "qtc_bazett", "short_qt": "qtc_bazett",
        "left_axis_deviation": "axis", "right_axis_deviation": "axis",
        "left_bundle_branch_block": "qrs", "right_bundle_branch_block": "qrs",
        "incomplete_right_bundle_branch_block": "qrs", "intraventricular_conduction_delay": "qrs",
    }.get(name, "")  # fmt: skip
    value = number(measurements, key)
    if value:
        word = {"rate": "rate", "pr": "PR", "qrs": "QRS", "qtc_bazett": "QTc", "axis": "axis"}[key]
        text += f", {word} {value}"
    return text + "."


def _tachycardia(measurements: _Measured) -> str:
    """Ventricular tachycardia as the rhythm, or as the longest run in another."""
    runs = measurements[0].get("runs") or [] if len(measurements) == 1 else []
    if runs:
        run = max(runs, key=lambda one: one["beats"])
        what = f"A run of {run['beats']} beats of ventricular tachycardia"
        return f"{what} is present, rate {run['rate']:.0f}/min."
    value = number(measurements, "rate")
    return f"Ventricular tachycardia is present{', rate ' + value if value else ''}."


def plain(section: str, state: Mapping[str, bool], measurements: _Measured) -> str:
    """Text of a section in which nothing was left: what was measured, or looked for and not found."""
    numbers = {
        RHYTHM: (("The ventricular rate is", "rate", "bradycardia"),),
        CONDUCTION: (
            ("PR", "pr", "first_degree_av_block"),
            ("QRS", "qrs", "intraventricular_conduction_delay"),
            ("QT", "qt", "prolonged_qt"),
            ("QTc", "qtc_bazett", "prolonged_qt"),
        ),
        MORPHOLOGY: (("The QRS axis is", "axis", "left_axis_deviation"),),
    }.get(section, ())
    # a number only where what it is judged by was judged, PR in sinus rhythm alone
    measured = [
        f"{word} {value}"
        for word, key, name in numbers
        if name in state
        and (key != "pr" or state.get("sinus_rhythm"))
        and (value := number(measurements, key))
    ]
    absent = [name for name in _DENIED.get(section, ()) if state.get(name) is False]
    sentences = [f"{', '.join(measured)}."] if measured else []
    if absent:
        labels = [BY_NAME[name].label for name in absent]
        sentences.append(f"No {listed(labels, 'or')} was found.")
    return " ".join(sentences) or UNASSESSABLE
