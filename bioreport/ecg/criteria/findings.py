"""All criteria together: which findings can be judged, and which are there."""

from typing import Any

from bioreport.ecg.criteria.infarct import elevation_unexplained
from bioreport.ecg.criteria.judgement import Judgement, Measurements
from bioreport.ecg.criteria.qrs import DELAY_MS, judge_axis, judge_bundles, judge_chambers
from bioreport.ecg.criteria.recording import judge_recording
from bioreport.ecg.criteria.repolarisation import judge_qt, judge_repolarisation
from bioreport.ecg.criteria.rhythm import judge_av_conduction, judge_ectopy, judge_rate, judge_rhythm
from bioreport.ecg.criteria.wide_tachycardia import wide_tachycardia
from bioreport.ecg.leads import CHEST_LEADS, LEADS, LIMB_LEADS
from bioreport.findings import ECG_NAMES, absent_finding

INFARCT = "st_elevation_infarction"


def ecg_findings(measurements: Measurements) -> list[dict[str, Any]]:
    """Findings that follow from the measurements, each of those that could be judged, present or not.

    Parameters
    ----------
    measurements : dict
        From `bioreport.ecg.measure.measure_ecg`.

    Returns
    -------
    list of dict
        In the shape of a report's findings, with ``source`` ``"measurement"``, in the order of
        `bioreport.findings.ECG_FINDINGS`. What is not listed could not be judged.
    """
    judged = judge(measurements)
    entries = []
    for name in ECG_NAMES:
        if name not in judged:
            continue
        one = judged[name]
        entry = absent_finding(name)
        value = None if one.value is None else round(float(one.value), 3)
        entry |= {
            "present": one.present,
            "value": value,
            "unit": entry["unit"] if value is not None else None,
            "channels": list(one.leads) if one.present else [],
            "start_seconds": one.start if one.present else None,
            "end_seconds": one.end if one.present else None,
            "source": "measurement",
        }
        entries.append(entry)
    return entries


def permits(name: str, measurements: Measurements) -> bool | None:
    """Whether the signal's measurements allow a critical statement; None where they cannot tell.

    Looser than `ecg_findings` for an infarct alone: ST elevation in neighbouring leads that nothing else
    explains allows the statement, while the measurements make it themselves only with reciprocal depression,
    Q waves, Smith's formulas, or a height or place that nothing else has.
    """
    judged = judge(measurements)
    if name == INFARCT and name in judged:
        return judged[name].present or elevation_unexplained(measurements, judged)
    return judged[name].present if name in judged else None


def judge(m: Measurements) -> dict[str, Judgement]:
    """Every finding that can be judged."""
    found = judge_recording(m)
    if m["standstill"] is not None:
        kind = {"asystole": "asystole", "fibrillation": "ventricular_fibrillation"}.get(
            m["standstill"]["kind"]
        )
        if kind is None:
            return found
        for name in (
            "asystole",
            "ventricular_fibrillation",
            "ventricular_tachycardia",
            "complete_av_block",
            INFARCT,
            "sinus_rhythm",
            "atrial_fibrillation",
            "atrial_flutter",
            "supraventricular_tachycardia",
            "paced_rhythm",
        ):
            found[name] = Judgement(name == kind)
        place = m["standstill"]
        found[kind] = Judgement(True, None, (), place["start_seconds"], place["end_seconds"])
        if place["whole"]:
            return found
    if m["rate"] is None:
        return found
    rhythm = judge_rhythm(m)
    found |= {**rhythm, **{k: v for k, v in found.items() if v.present}}
    found |= judge_rate(m)
    found |= judge_ectopy(m, found)
    found |= judge_av_conduction(m, found)
    escape = found["complete_av_block"].present if "complete_av_block" in found else False
    wide_escape = escape and m["qrs"] is not None and float(m["qrs"]["value"]) >= DELAY_MS
    judged_shape = not (
        found["paced_rhythm"].present or wide_tachycardia(m) or wide_escape or m["qrs"] is None
    )
    if wide_tachycardia(m):
        # no line between its waves
        found.pop("baseline_wander", None)
    if not judged_shape and "limb_lead_reversal" in found:
        # beats that come from the ventricles may point anywhere
        found["limb_lead_reversal"] = Judgement(False, None, LIMB_LEADS)
    # limb leads whose electrodes are exchanged show another heart
    reversed_ = found.get("limb_lead_reversal", Judgement(False)).present
    if judged_shape:
        found |= judge_bundles(m)
        found |= {} if reversed_ else judge_axis(m)
        found |= judge_chambers(m, found)
        if found["atrial_flutter"].present:
            found |= _between_flutter_waves(m, found)
        else:
            found |= judge_repolarisation(m, found, CHEST_LEADS if reversed_ else LEADS)
            if m["flutter_levels"] is not None and found.get(INFARCT, Judgement(False)).present:
                # waves like flutter's, whatever they are, must not make an infarct
                found[INFARCT] = _between_flutter_waves(m, found).get(INFARCT, Judgement(False))
            found |= judge_qt(m, found)
    elif INFARCT not in found and m["leads"]:
        # not to be read in this rhythm, and so not to be stated
        found[INFARCT] = Judgement(False)
    return found


def _between_flutter_waves(m: Measurements, found: dict[str, Judgement]) -> dict[str, Judgement]:
    """ST where it could be read without the flutter waves, which also lie on T and before QRS."""
    names = ("st_elevation", "st_depression", INFARCT)
    unread = {INFARCT: Judgement(False)}
    if m["flutter_levels"] is None:
        return unread
    leads = {lead: {**m["leads"][lead], **levels} for lead, levels in m["flutter_levels"].items()}
    judged = judge_repolarisation({**m, "leads": leads}, found, LEADS)
    return unread | {name: judged[name] for name in names if name in judged}
