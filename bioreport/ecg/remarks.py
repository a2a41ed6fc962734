"""Remarks in an ECG report that name no finding and still need ground: what each asks of the evidence."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bioreport.ecg.facts import RHYTHMS
from bioreport.negation import status_of

WIDE_MS = 110.0  # below it nobody calls a QRS wide
NARROW_MS = 130.0
_WIDE = (
    "paced_rhythm", "ventricular_tachycardia", "complete_av_block", "left_bundle_branch_block",
    "right_bundle_branch_block", "intraventricular_conduction_delay",
)  # fmt: skip
_ECTOPIC = ("premature_atrial_contractions", "premature_ventricular_contractions")
_NO_BEATS = ("asystole", "ventricular_fibrillation")
_IRREGULAR = (
    "atrial_fibrillation", "atrial_flutter", "sinus_arrhythmia", "second_degree_av_block", "pause",
    *_ECTOPIC, *_NO_BEATS,
)  # fmt: skip
_ST_T = (
    "st_elevation", "st_depression", "t_wave_inversion", "left_ventricular_hypertrophy",
    "right_ventricular_hypertrophy",
)  # fmt: skip
_CONDUCTION = (
    "incomplete_right_bundle_branch_block", "left_anterior_fascicular_block", "first_degree_av_block",
    "second_degree_av_block",
)  # fmt: skip
_TECHNICAL = ("limb_lead_reversal", "lead_off", "noisy_lead", "baseline_wander", "mains_interference")


@dataclass(frozen=True)
class Evidence:
    """What was found and measured.

    Attributes
    ----------
    state : dict of str to bool
        Presence of each finding that was judged.
    measurements : sequence of dict
        One for each recording.
    """

    state: Mapping[str, bool]
    measurements: Sequence[Mapping[str, Any]]

    def has(self, *names: str) -> bool:
        """Whether one of them is present."""
        return any(self.state.get(name, False) for name in names)

    def values(self, key: str) -> list[float]:
        """A quantity of every recording that has it."""
        return [float(m[key]["value"]) for m in self.measurements if m.get(key)]


_Test = Callable[[Evidence], bool]


def _needs(*names: str) -> _Test:
    return lambda evidence: evidence.has(*names)


def _is_wide(evidence: Evidence) -> bool:
    return evidence.has(*_WIDE) or any(qrs >= WIDE_MS for qrs in evidence.values("qrs"))


def _irregular(evidence: Evidence) -> bool:
    return evidence.has(*_IRREGULAR) or any(
        (m.get("rr") or {}).get("irregular") for m in evidence.measurements
    )


def _regular(evidence: Evidence) -> bool:
    rhythms = [m["rr"] for m in evidence.measurements if m.get("rr")]
    return bool(rhythms) and not any(rr.get("irregular") for rr in rhythms) and not evidence.has(
        "atrial_fibrillation", "sinus_arrhythmia"
    )  # fmt: skip


def _unmeasured(*keys: str) -> _Test:
    return lambda evidence: not any(evidence.values(key) for key in keys)


def _unjudged(*names: str) -> _Test:
    return lambda evidence: not any(name in evidence.state for name in names)


_CANNOT = (
    r"\b[^.]*\b(?:cannot be|could not be|are not|is not|not) (?:reliably )?"
    r"(?:assess|measur|judg|determin|evaluat)\w+"
)

# pattern, what must hold, and what is wrong where it does not
_REMARKS: tuple[tuple[re.Pattern[str], _Test, str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), test, reason)
    for pattern, test, reason in (
        (
            r"\b(?:no|without (?:any |organi[sz]ed )*)\s?QRS\b|\bno ST segments\b|\bno intervals to\b",
            _needs(*_NO_BEATS),
            "beats were found",
        ),
        (rf"\bintervals?{_CANNOT}", _unmeasured("pr", "qrs", "qt"), "intervals were measured"),
        (rf"\b(?:axis|voltages?){_CANNOT}", _unjudged("left_axis_deviation"), "the axis was judged"),
        (
            rf"\b(?:ST|T waves?){_CANNOT}",
            _unjudged("st_elevation", "st_depression"),
            "the ST segments were judged",
        ),
        (
            r"\bQRS complexes are (?:wide|broad)|\b(?:wide|broad) QRS\b(?! (?:complex )?tachycardia)"
            r"|\bbeats are wide\b",
            _is_wide,
            "no wide QRS complexes were measured",
        ),
        (
            r"\bsecondary to the (?:wide|bundle)|\bsecondary repolari[sz]ation",
            _is_wide,
            "nothing that they could be secondary to was found",
        ),
        (r"\birregular", _irregular, "the rhythm was not found irregular"),
        (r"(?<!ir)\bregular\b(?! narrow| wide| broad)", _regular, "the rhythm was not found regular"),
        (
            r"\bventricular escape",
            lambda evidence: any(qrs >= WIDE_MS for qrs in evidence.values("qrs")),
            "no wide QRS complexes were measured",
        ),
        (
            r"\bjunctional escape",
            lambda evidence: any(qrs < NARROW_MS for qrs in evidence.values("qrs")),
            "no narrow QRS complexes were measured",
        ),
        (
            r"\bescape\b",
            _needs("complete_av_block", "second_degree_av_block", "pause", "asystole", "bradycardia"),
            "nothing that it could escape from was found",
        ),
        (r"\bP waves continue", _needs("asystole"), "no asystole was found"),
        (r"\bearly repolari[sz]ation|\bpericarditis", _needs("st_elevation"), "no ST elevation was found"),
        (
            r"\breciprocal\b|\bhyper-?acute\b",
            _needs("st_elevation_infarction"),
            "no ST-elevation infarction pattern was found",
        ),
        (
            r"\bstrain\b",
            _needs("left_ventricular_hypertrophy", "right_ventricular_hypertrophy"),
            "no hypertrophy was found",
        ),
        (
            r"\bischa?emi[ac]\b",
            _needs(*_ST_T[:3]),
            "no change of ST or T was found",
        ),
        (
            r"\b(?:S-?T|T)(?:[- ](?:waves?|segments?|T))*[- ](?:\w+ )?(?:abnormalit|change)",
            lambda evidence: evidence.has(*_ST_T) or _is_wide(evidence),
            "no change of ST or T was found",
        ),
        (
            r"\bconduction (?:delay|defect|disturbance|abnormalit)",
            lambda evidence: evidence.has(*_CONDUCTION) or _is_wide(evidence),
            "no disturbance of conduction was found",
        ),
        (r"\bbigemin|\btrigemin", _needs(*_ECTOPIC), "no premature beats were found"),
        (r"\bcardiac arrest", _needs(*_NO_BEATS, "ventricular_tachycardia"), "nothing of the kind was found"),
        (
            r"\b(?:undetermined|unclear|indeterminate|unidentified) rhythm|\brhythm (?:is"
            r"|cannot be) (?:undet|uncl|indet|det|ident)",
            lambda evidence: not evidence.has(*RHYTHMS),
            "the rhythm was found",
        ),
        (r"\bfaulty\b", _needs("lead_off", "noisy_lead"), "every lead that was judged is in order"),
        (r"\bbifascicular", _needs("left_anterior_fascicular_block"), "no fascicular block was found"),
        (
            r"\bcorrected (?:limb )?leads|\blimb leads\b[^.]*\brepeat",
            _needs("limb_lead_reversal"),
            "no limb lead reversal was found",
        ),
        (r"\b(?:please "
            r"|should be )?repeat(?:ed)?\b", _needs(*_TECHNICAL), "nothing is wrong with the recording"),
    )
)  # fmt: skip
# what the package measures nothing of can be neither stated nor denied
_NOT_MEASURED = re.compile(
    r"\b(?:WPW|wolff|pre-?excitation|delta waves?|brugada|hyper-?kal\w+|hypo-?kal\w+|digoxin|digitalis"
    r"|pulmonary embolism|left posterior (?:fascicular|hemi)|poor R[- ]wave progression|U waves?"
    r"|T[- ]waves? (?:is |are )?flat\w*"
    r"|junctional (?!escape)|idioventricular|(?:left |right |bi-?)?atrial (?:enlargement|abnormality"
    r"|hypertrophy)"
    r"|P (?:mitrale|pulmonale)|trifascicular|osborn|pulseless|ectopic atrial rhythm|wandering atrial"
    r"|incomplete (?:left bundle|LBBB)|ILBBB)",
    re.IGNORECASE,
)
# there is no other recording to compare with
_COMPARED = re.compile(
    r"\bcompared (?:with|to)\b|\bsince (?:the )?(?:last|previous|prior)\b|\b(?:previous|prior|last) (?:ECG"
    r"|tracing)"
    r"|\b(?:has|have) (?:lengthened|shortened|replaced|increased|decreased|resolved|improved|worsened)\b"
    r"|\bchanges? (?:has|have) occurred|\bnow (?:present|evident|seen)\b|\bno longer\b|\bunchanged\b"
    r"|\bserial\b"
    r"|\bnew (?:since|compared)\b",
    re.IGNORECASE,
)


def unfounded_remark(sentence: str, evidence: Evidence) -> str | None:
    """What is wrong with the first remark that the evidence does not bear out, None if all of them stand."""
    if _NOT_MEASURED.search(sentence):
        return "it speaks of what is not measured here"
    if _COMPARED.search(sentence):
        return "it compares with a recording that is not here"
    for pattern, test, reason in _REMARKS:
        match = pattern.search(sentence)
        if match and status_of(sentence, *match.span()) != "denied" and not test(evidence):
            return reason
    return None
