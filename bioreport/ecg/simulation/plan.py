"""Which findings a simulated ECG shows together, and how often each comes."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from bioreport.findings import ECG_NAMES

# One rhythm rules a recording; ventricular tachycardia may also be a run in sinus rhythm.
RHYTHMS: Mapping[str, float] = {
    "sinus_rhythm": 0.655,
    "atrial_fibrillation": 0.085,
    "atrial_flutter": 0.05,
    "supraventricular_tachycardia": 0.035,
    "ventricular_tachycardia": 0.03,
    "ventricular_fibrillation": 0.025,
    "asystole": 0.03,
    "paced_rhythm": 0.05,
    "complete_av_block": 0.04,
}
# rhythms whose beats do not show what the ventricles' own conduction, mass and repolarisation are like
UNJUDGED = frozenset({"ventricular_tachycardia", "ventricular_fibrillation", "asystole", "paced_rhythm"})
NO_BEATS = frozenset({"ventricular_fibrillation", "asystole"})
_SINUS_ONLY = frozenset(
    {"sinus_arrhythmia", "pause", "premature_atrial_contractions", "first_degree_av_block",
     "second_degree_av_block"}
)  # fmt: skip
_ECTOPIC_IN = frozenset({"sinus_rhythm", "atrial_fibrillation", "atrial_flutter"})
BUNDLE_BRANCH = frozenset({"left_bundle_branch_block", "right_bundle_branch_block"})
CONDUCTION = frozenset(
    {*BUNDLE_BRANCH, "incomplete_right_bundle_branch_block", "intraventricular_conduction_delay"}
)
_AXIS = frozenset({"left_axis_deviation", "right_axis_deviation", "left_anterior_fascicular_block"})
_VOLTAGE = frozenset({"left_ventricular_hypertrophy", "right_ventricular_hypertrophy", "low_qrs_voltage"})
_ST_T = frozenset(
    {"st_elevation_infarction", "st_elevation", "st_depression", "t_wave_inversion", "pathological_q_waves"}
)
_QT = frozenset({"prolonged_qt", "short_qt"})
MORPHOLOGY = CONDUCTION | _AXIS | _VOLTAGE | _ST_T | _QT
TECHNICAL = frozenset(
    {"limb_lead_reversal", "lead_off", "noisy_lead", "baseline_wander", "mains_interference"}
)
_Draw = Callable[[Mapping[str, float]], str]
_ECTOPIC = frozenset({"premature_atrial_contractions", "premature_ventricular_contractions"})
_RATES = frozenset({"bradycardia", "tachycardia"})
_ON_LIMB_LEADS = MORPHOLOGY - _QT
_IMPLIED: Mapping[str, str] = {
    "st_elevation_infarction": "st_elevation",
    "left_anterior_fascicular_block": "left_axis_deviation",
    "right_ventricular_hypertrophy": "right_axis_deviation",
    "complete_av_block": "bradycardia",
    "supraventricular_tachycardia": "tachycardia",
}
_AT_MOST_ONE = (
    CONDUCTION,
    _VOLTAGE,
    _QT,
    frozenset({"bradycardia", "tachycardia"}),
    frozenset({"left_axis_deviation", "right_axis_deviation"}),
    frozenset({"pause", "second_degree_av_block"}),
    frozenset({"first_degree_av_block", "second_degree_av_block"}),
    frozenset({"sinus_arrhythmia", "second_degree_av_block"}),
    frozenset({"left_anterior_fascicular_block", "left_bundle_branch_block"}),
    frozenset({"intraventricular_conduction_delay", "short_qt"}),
)
# what may come together; elevation without infarct is benign or pericarditic and stands alone
_ST_SETS = (
    {"st_elevation_infarction", "st_elevation", "st_depression", "pathological_q_waves"},
    {"st_elevation"},
    {"st_depression", "t_wave_inversion", "pathological_q_waves"},
)


def check_findings(names: Iterable[str]) -> frozenset[str]:
    """Return the findings with those they imply, sinus rhythm where no other rhythm is named.

    Raises
    ------
    ValueError
        One is unknown, or two of them cannot be in one simulated recording.
    """
    present = set(names)
    if unknown := sorted(present - set(ECG_NAMES)):
        raise ValueError(f"unknown ECG finding {unknown[0]!r}; known are {', '.join(ECG_NAMES)}")
    for name, implied in _IMPLIED.items():
        if name in present:
            present.add(implied)
    rhythms = present & set(RHYTHMS)
    if not rhythms:
        present.add("sinus_rhythm")
        rhythms = {"sinus_rhythm"}
    if rhythms == {"ventricular_tachycardia"}:
        present.add("tachycardia")
    rules: list[tuple[set[str] | frozenset[str], bool]] = [
        (rhythms, len(rhythms) > 1 and rhythms != {"sinus_rhythm", "ventricular_tachycardia"}),
        (present & (_SINUS_ONLY | rhythms), bool(present & _SINUS_ONLY) and rhythms != {"sinus_rhythm"}),
        (
            present & {"premature_ventricular_contractions", *rhythms},
            "premature_ventricular_contractions" in present
            and not (len(rhythms) == 1 and rhythms <= _ECTOPIC_IN),
        ),
        (present & (MORPHOLOGY | rhythms), bool(present & MORPHOLOGY) and bool(rhythms & UNJUDGED)),
        (
            present & (CONDUCTION | rhythms),
            bool(present & CONDUCTION)
            and bool(rhythms & {"complete_av_block", "supraventricular_tachycardia"}),
        ),
        (
            present & {"right_bundle_branch_block", *_AXIS},  # the terminal forces hide the axis
            "right_bundle_branch_block" in present and bool(present & _AXIS),
        ),
        (
            present & ({"second_degree_av_block"} | _ECTOPIC),
            "second_degree_av_block" in present and bool(present & _ECTOPIC),
        ),
        (
            present & (BUNDLE_BRANCH | _ST_T | _VOLTAGE),
            bool(present & BUNDLE_BRANCH) and bool(present & (_ST_T | _VOLTAGE)),
        ),
        (present & (_RATES | rhythms), bool(present & _RATES) and bool(rhythms & NO_BEATS)),
        (present & {"bradycardia", *rhythms}, "bradycardia" in present and "tachycardia" in rhythms),
        (
            present & {"limb_lead_reversal", *(MORPHOLOGY | rhythms)},
            "limb_lead_reversal" in present
            and (rhythms != {"sinus_rhythm"} or bool(present & _ON_LIMB_LEADS)),
        ),
        (present & {"lead_off", "limb_lead_reversal"}, {"lead_off", "limb_lead_reversal"} <= present),
        (
            present & _ST_T,
            bool(present & _ST_T) and not any((present & _ST_T) <= allowed for allowed in _ST_SETS),
        ),
        (present & (_ST_T | _VOLTAGE), "low_qrs_voltage" in present and bool(present & _ST_T)),
        (present & {"pause", "tachycardia"}, {"pause", "tachycardia"} <= present),
        (
            present & (_QT | {"tachycardia"} | rhythms),  # where T runs into the next beat
            bool(present & _QT) and ("tachycardia" in present or rhythms != {"sinus_rhythm"}),
        ),
    ]  # fmt: skip
    rules += [(present & group, len(present & group) > 1) for group in _AT_MOST_ONE]
    for involved, broken in rules:
        if broken:
            raise ValueError(f"cannot be simulated in one recording: {', '.join(sorted(involved))}")
    return frozenset(present)


def draw_findings(rng: np.random.Generator) -> frozenset[str]:
    """Draw findings that clinically go together."""
    rhythms = list(RHYTHMS)
    weights = np.array(list(RHYTHMS.values()))
    rhythm = rhythms[int(rng.choice(len(rhythms), p=weights / weights.sum()))]
    present = {rhythm}

    def one(table: Mapping[str, float]) -> str:
        """One of the names or, with what probability is left, none."""
        chosen, drawn = "", rng.random()
        for name, probability in table.items():
            if 0 <= drawn < probability:
                chosen = name
            drawn -= probability
        if chosen:
            present.update(chosen.split("+"))
        return chosen

    normal = rhythm == "sinus_rhythm" and rng.random() < 0.2
    if rhythm == "sinus_rhythm" and not normal:
        one({"bradycardia": 0.13, "tachycardia": 0.15, "ventricular_tachycardia": 0.015})
    elif rhythm in ("atrial_fibrillation", "atrial_flutter"):
        one({"tachycardia": 0.45, "bradycardia": 0.08 if rhythm == "atrial_fibrillation" else 0.0})
    run = rhythm == "sinus_rhythm" and "ventricular_tachycardia" in present
    if rhythm not in UNJUDGED and not run and not normal:
        if rhythm == "sinus_rhythm":
            _draw_sinus(present, one)
        if rhythm in _ECTOPIC_IN and "second_degree_av_block" not in present:
            one({"premature_ventricular_contractions": 0.11 if rhythm == "sinus_rhythm" else 0.06})
        _draw_morphology(present, one)
    technical = {"noisy_lead": 0.07, "baseline_wander": 0.08, "mains_interference": 0.08, "lead_off": 0.05}
    for name, probability in technical.items():
        one({name: probability})
    possible = rhythm == "sinus_rhythm" and not present & (_ON_LIMB_LEADS | {"lead_off"}) and not run
    if possible:
        one({"limb_lead_reversal": 0.13})
    return check_findings(present)


def _draw_sinus(present: set[str], draw: _Draw) -> None:
    slow, fast = "bradycardia" in present, "tachycardia" in present
    draw(
        {
            "second_degree_av_block": 0.0 if fast else 0.065,
            "first_degree_av_block": 0.03 if fast else 0.09,
            "pause": 0.0 if fast else 0.06,
            "sinus_arrhythmia": 0.0 if fast else 0.16 if slow else 0.09,
        }
    )
    if "second_degree_av_block" not in present and "sinus_arrhythmia" not in present:
        draw({"premature_atrial_contractions": 0.13})


def _draw_morphology(present: set[str], draw: _Draw) -> None:
    if present & {"complete_av_block", "second_degree_av_block", "supraventricular_tachycardia"}:
        return
    conduction = draw(
        {
            "left_bundle_branch_block": 0.06,
            "right_bundle_branch_block": 0.065,
            "incomplete_right_bundle_branch_block": 0.05,
            "intraventricular_conduction_delay": 0.055,
            "left_anterior_fascicular_block": 0.055,
            "left_axis_deviation": 0.035,
            "right_axis_deviation": 0.035,
        }
    )
    if "bundle_branch_block" in conduction and "incomplete" not in conduction:
        return
    if not conduction:
        draw(
            {
                "left_ventricular_hypertrophy": 0.065,
                "left_ventricular_hypertrophy+st_depression+t_wave_inversion": 0.03,
                "right_ventricular_hypertrophy": 0.04,
                "right_ventricular_hypertrophy+t_wave_inversion": 0.025,
                "low_qrs_voltage": 0.07,
                "st_elevation_infarction": 0.04,
                "st_elevation_infarction+st_depression": 0.06,
                "st_elevation_infarction+pathological_q_waves": 0.02,
                "st_elevation": 0.06,
                "st_depression": 0.05,
                "st_depression+t_wave_inversion": 0.03,
                "t_wave_inversion": 0.05,
                "t_wave_inversion+pathological_q_waves": 0.03,
                "pathological_q_waves": 0.05,
            }
        )
    if "sinus_rhythm" in present and "tachycardia" not in present and not present & _VOLTAGE:
        wide = "intraventricular_conduction_delay" in present
        draw({"prolonged_qt": 0.11, "short_qt": 0.0 if wide or "bradycardia" in present else 0.15})
