"""From what was measured to findings: the published limits, each with its source.

AHA/ACC/HRS 2009 is the series of recommendations for the interpretation of the electrocardiogram: part III
on conduction (Surawicz, doi:10.1161/CIRCULATIONAHA.108.191095), part IV on ST, T and QT (Rautaharju,
…191096), part V on chambers (Hancock, …191097), part VI on ischaemia (Wagner, …191098). A finding that the
leads, the rhythm or the quality do not allow to judge is left out: it is neither present nor absent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bioreport.ecg.leads import CHEST_LEADS, LEADS, LIMB_LEADS
from bioreport.findings import ECG_NAMES, absent_finding

SLOW, FAST = 60.0, 100.0  # /min
LONG_PR_MS = 210.0  # 200 ms, and 10 ms that P's onset is uncertain by (CSE Working Party 1985)
P_ALIKE = 0.5  # likeness of what precedes the beats, above which it is a P wave
LONGEST_P_MS = 170.0  # a T wave lasts longer
SAME_BEFORE = 0.85  # ... above which what precedes them is the same each time
LATEST_PR = 0.55  # of RR
NO_P = 0.4  # ... below which there is none
PACED_SHARE = 0.6
FASTEST_ESCAPE = 65.0  # /min; a faster rhythm of the ventricles' own is no escape from a block
SUPRAVENTRICULAR_RATE = 150.0
FASTEST_SINUS = 160.0  # /min, at which beats of a block's shape may still be conducted
FLUTTER_RATES = (220.0, 360.0)
WHOLE = 0.025  # of a whole number of flutter waves in RR
WIDE_MS = 120.0
VERY_WIDE_MS = 160.0  # wider than conducted beats are in most blocks (Brugada 1991)
TACHYCARDIA_MS = 134.0  # a regular tachycardia this wide and without P is ventricular until shown otherwise
# 120, 110 and 110 ms in single leads; over all leads together a QRS lasts some 5 ms longer (Kligfield 2007)
COMPLETE_MS, INCOMPLETE_MS, DELAY_MS = 124.0, 109.0, 116.0
LEFT_AXIS, RIGHT_AXIS = -30.0, 90.0
WEAK_P = 7.0  # standard errors that the median P wave stands out by
SINUS_P_AXIS = (-20.0, 100.0)
FASCICULAR_AXIS = -45.0
OUTFLOW_AXIS = 75.0  # ectopic beats of the outflow tract point further down
SOKOLOW_MV, CORNELL_MV, AVL_MV = 3.5, 2.8, 1.1
RIGHT_R_MV = 0.6
LOW_LIMB_MV, LOW_CHEST_MV = 0.5, 1.0
ST_UP_MV, ST_UP_V23_MV, ST_DOWN_MV = 0.1, 0.2, 0.05  # Fourth Universal Definition (Thygesen 2018)
RAISED_MV = 0.05  # elevation of a lead that takes part in what others show
INFERIOR_MV = 0.15
T_DOWN_MV = 0.1
Q_MS, Q_MV, Q_SHARE = 30.0, 0.1, 0.25
LONG_QTC_MS, SHORT_QTC_MS = 460.0, 345.0
SMITH = 23.4  # anterior infarct rather than early repolarisation above it (Smith 2012)
WANDER_MV = 0.4  # peak to peak: four small squares
FLAT_MV = 0.1  # of a QRS complex, in a lead between two electrodes of one place

# neighbours in which a change must be seen twice (AHA/ACC/HRS 2009, part VI)
PAIRS: tuple[tuple[str, str], ...] = (
    ("aVL", "I"), ("II", "aVF"), ("aVF", "III"), ("II", "III"), ("V1", "V2"), ("V2", "V3"), ("V3", "V4"),
    ("V4", "V5"), ("V5", "V6"),
)  # fmt: skip
TERRITORIES: dict[str, tuple[str, ...]] = {
    "inferior": ("II", "III", "aVF"),
    "septal": ("V1", "V2"),
    "anterior": ("V2", "V3", "V4"),
    "lateral": ("I", "aVL", "V5", "V6"),
}
Measurements = Mapping[str, Any]


@dataclass(frozen=True)
class Judgement:
    """Whether a finding is there, its value, and the leads that show it."""

    present: bool
    value: float | None = None
    leads: Sequence[str] = ()
    start: float | None = None
    end: float | None = None


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
    Q waves, or Smith's formula.
    """
    judged = judge(measurements)
    if name == "st_elevation_infarction" and name in judged:
        return judged[name].present or _elevation_unexplained(measurements, judged)
    return judged[name].present if name in judged else None


def judge(m: Measurements) -> dict[str, Judgement]:
    """Every finding that can be judged."""
    found = _technical(m)
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
            "st_elevation_infarction",
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
    rhythm = _rhythm(m)
    found |= {**rhythm, **{k: v for k, v in found.items() if v.present}}
    found |= _rate(m)
    found |= _ectopy(m, found)
    found |= _conduction_av(m, found)
    escape = found["complete_av_block"].present if "complete_av_block" in found else False
    wide_escape = escape and m["qrs"] is not None and float(m["qrs"]["value"]) >= DELAY_MS
    judged_shape = not (
        found["paced_rhythm"].present or _wide_tachycardia(m) or wide_escape or m["qrs"] is None
    )
    if _wide_tachycardia(m):
        # no line between its waves
        found.pop("baseline_wander", None)
    if not judged_shape and "limb_lead_reversal" in found:
        # beats that come from the ventricles may point anywhere
        found["limb_lead_reversal"] = Judgement(False, None, LIMB_LEADS)
    # limb leads whose electrodes are exchanged show another heart
    reversed_ = found.get("limb_lead_reversal", Judgement(False)).present
    if judged_shape:
        found |= _bundles(m)
        found |= {} if reversed_ else _axis(m)
        found |= _chambers(m, found)
        if found["atrial_flutter"].present:
            # its waves lie on ST and T, and before QRS
            found["st_elevation_infarction"] = Judgement(False)
        else:
            found |= _repolarisation(m, found, CHEST_LEADS if reversed_ else LEADS)
            found |= _qt(m, found)
    elif "st_elevation_infarction" not in found and m["leads"]:
        # not to be read in this rhythm, and so not to be stated
        found["st_elevation_infarction"] = Judgement(False)
    return found


# ---- rhythm ----


def _value(m: Measurements, key: str) -> float | None:
    return None if m[key] is None else float(m[key]["value"])


def _wide_tachycardia(m: Measurements) -> bool:
    """Whether the usual beats themselves are those of a ventricular tachycardia."""
    rate, qrs = _value(m, "rate"), _value(m, "qrs")
    if rate is None or qrs is None or rate <= 120 or qrs < WIDE_MS or not m["rr"]["regular"] or _has_p(m):
        return False
    if _ventricular_shape(m):
        return True
    # a sinus P wave may lie in the T wave before it, where the beats look like a bundle-branch block's
    return qrs >= TACHYCARDIA_MS and not (rate <= FASTEST_SINUS and _may_be_conducted(m))


def _may_be_conducted(m: Measurements) -> bool:
    """Whether wide beats have the axis of conducted ones, and a block's shape or moderate width."""
    axis = _value(m, "axis")
    if axis is None or not LEFT_AXIS <= axis <= RIGHT_AXIS:
        return False
    bundles = _bundles(m)
    if "right_bundle_branch_block" in bundles and bundles["right_bundle_branch_block"].present:
        return True
    # the outflow tract's tachycardia looks like a left bundle-branch block but points downwards
    left = "left_bundle_branch_block" in bundles and bundles["left_bundle_branch_block"].present
    return axis <= OUTFLOW_AXIS and (left or float(m["qrs"]["value"]) < VERY_WIDE_MS)


def _ventricular_shape(m: Measurements) -> bool:
    """QRS that no bundle-branch block has: axis in no man's land, or initial R in aVR (Vereckei 2008)."""
    axis = _value(m, "axis")
    waves = m["leads"].get("aVR")
    return (axis is not None and (axis < -90 or axis > 150)) or (
        waves is not None and waves["q"] == 0 and waves["r"] >= 0.6 * (waves["r"] - min(waves["s"], 0.0))
    )


def _has_p(m: Measurements) -> bool:
    """Whether P waves precede the beats, at one interval or in a train of their own."""
    pr, qt, atrial = _value(m, "pr"), m["qt"], m["atrial"]
    if atrial["p_train"] and not atrial["dissociated"]:
        return True
    rr = float(m["rr"]["median_ms"])
    if pr is None or not 80 <= pr <= min(400, LATEST_PR * rr):
        return False
    if m["p"] is not None and float(m["p"]["value"]) > LONGEST_P_MS:
        return False
    # in fast rhythms a P wave is only told from a T wave where both are seen
    if rr < 500 and qt is None:
        return False
    alike = atrial["p_likeness"]
    return alike is None or alike >= P_ALIKE


def _lacks_p(m: Measurements) -> bool:
    """Whether what precedes the beats is never the same."""
    atrial = m["atrial"]
    alike, ratio = atrial["p_likeness"], atrial["p_ratio"]
    if alike is None or atrial["p_train"]:
        return False
    many = sum(lead in m["leads"] for lead in LEADS) >= 6
    return alike < NO_P or (many and alike < P_ALIKE and (ratio is None or ratio < WEAK_P))


def _upright(m: Measurements) -> bool:
    """Whether P has a sinus node's direction, where leads show it."""
    heights = [m["leads"][lead]["p"] for lead in ("II", "aVF", "I") if lead in m["leads"]]
    # no P before the median beat where PR changes: its train alone does not say which way it points
    return not any(heights) or (max(heights) > 0 and heights[0] > -0.02)


def _hides_p(m: Measurements) -> bool:
    """Whether a regular tachycardia is too slow for a re-entrant one, and P may lie hidden in T."""
    alike = m["atrial"]["p_likeness"]
    return (
        FAST < float(m["rate"]["value"]) < SUPRAVENTRICULAR_RATE
        and bool(m["rr"]["regular"])
        and alike is not None
        and alike >= SAME_BEFORE
        and m["qrs"] is not None
        and (float(m["qrs"]["value"]) < WIDE_MS or _may_be_conducted(m))
    )


def _rhythm(m: Measurements) -> dict[str, Judgement]:
    rate, rr, atrial = float(m["rate"]["value"]), m["rr"], m["atrial"]
    names = (
        "paced_rhythm", "ventricular_tachycardia", "complete_av_block", "atrial_fibrillation",
        "atrial_flutter", "supraventricular_tachycardia", "sinus_rhythm",
    )  # fmt: skip
    result = {name: Judgement(False) for name in (*names, "ventricular_fibrillation", "asystole")}
    qrs = _value(m, "qrs")
    alike = atrial["p_likeness"]
    main = ""
    if m["paced_share"] >= PACED_SHARE:
        main = "paced_rhythm"
    elif _wide_tachycardia(m):
        main = "ventricular_tachycardia"
    elif atrial["dissociated"] and rate <= FASTEST_ESCAPE:
        main = "complete_av_block"
    elif _flutters(m):
        main = "atrial_flutter"
    elif rr["irregular"] and _lacks_p(m) and m["beats"]["count"] >= 6:
        main = "atrial_fibrillation"
    elif (
        rate >= SUPRAVENTRICULAR_RATE
        and rr["regular"]
        and (qrs or 0) < WIDE_MS
        and not (_has_p(m) and rate < 160)
    ):
        main = "supraventricular_tachycardia"
    elif (_has_p(m) and (_upright(m) or _reversed(m))) or _hides_p(m):
        main = "sinus_rhythm"
    if main:
        value = (
            rate
            if main in ("sinus_rhythm", "supraventricular_tachycardia", "ventricular_tachycardia")
            else None
        )
        result[main] = Judgement(True, value)
    if m["runs"]:
        run = max(m["runs"], key=lambda one: one["beats"])
        result["ventricular_tachycardia"] = Judgement(
            True, run["rate"], (), run["start_seconds"], run["end_seconds"]
        )
    elif alike is None and not main:
        # too few beats to say what the atria do
        for name in ("atrial_fibrillation", "sinus_rhythm", "complete_av_block"):
            del result[name]
    result["sinus_arrhythmia"] = Judgement(main == "sinus_rhythm" and bool(rr["sinus_arrhythmia"]))
    return result


def _flutters(m: Measurements) -> bool:
    flutter, rate = m["atrial"]["flutter_rate"], float(m["rate"]["value"])
    if flutter is None or not FLUTTER_RATES[0] <= flutter <= FLUTTER_RATES[1]:
        return False
    ratio = flutter * float(m["rr"]["median_ms"]) / 60_000
    if not m["rr"]["regular"]:
        return ratio >= 1.7 and rate <= 180
    # conduction at one ratio makes RR a whole number of waves, and an odd number is rare
    whole = abs(ratio - round(ratio)) <= WHOLE * ratio
    return round(ratio) in (2, 4, 6) and whole and rate <= 180


def _rate(m: Measurements) -> dict[str, Judgement]:
    rate = float(m["rate"]["value"])
    return {"bradycardia": Judgement(rate < SLOW, rate), "tachycardia": Judgement(rate > FAST, rate)}


def _ectopy(m: Measurements, found: Mapping[str, Judgement]) -> dict[str, Judgement]:
    beats = m["beats"]
    own = any(found[name].present for name in ("atrial_fibrillation", "atrial_flutter") if name in found)
    blocked = m["atrial"]["dropped"] > 0
    ventricular = beats["ventricular"] - sum(run["beats"] for run in m["runs"])
    longest = m["rr"]["longest_ms"] / 1000
    return {
        "premature_atrial_contractions": Judgement(beats["atrial"] > 0 and not own and not blocked),
        "premature_ventricular_contractions": Judgement(ventricular > 0),
        "pause": Judgement(bool(m["pauses"]), longest),
    }


def _conduction_av(m: Measurements, found: Mapping[str, Judgement]) -> dict[str, Judgement]:
    pr = _value(m, "pr")
    if "sinus_rhythm" not in found:
        return {}
    sinus = found["sinus_rhythm"].present
    dropped = m["atrial"]["dropped"] > 0 and not found["complete_av_block"].present
    return {
        "first_degree_av_block": Judgement(
            sinus and not dropped and pr is not None and pr > LONG_PR_MS, pr if sinus else None
        ),
        "second_degree_av_block": Judgement(sinus and dropped),
    }


# ---- QRS ----


def _bundles(m: Measurements) -> dict[str, Judgement]:
    qrs = float(m["qrs"]["value"])
    leads = m["leads"]
    v1, side = leads.get("V1"), leads.get("V6") or leads.get("V5")
    one = leads.get("I")
    names = (
        "right_bundle_branch_block", "incomplete_right_bundle_branch_block", "left_bundle_branch_block",
        "intraventricular_conduction_delay",
    )  # fmt: skip
    if v1 is None or (side is None and one is None):
        # narrow complexes exclude every block; wide ones without V1 cannot be told apart
        return {name: Judgement(False, qrs) for name in names} if qrs < INCOMPLETE_MS else {}
    late_v1 = v1["r2"] >= 0.08 or (v1["r"] >= 0.3 and v1["r_peak_ms"] >= 50 and -v1["s"] < v1["r"])
    late_s = any(w is not None and w["s"] <= -0.08 for w in (side, one))
    right = late_v1 and late_s
    left = (
        v1["r"] <= 0.3 * max(-v1["s"], -v1["q"], 0.1)
        and all(w is None or (w["q"] > -0.06 and w["r"] >= 0.2) for w in (side, one))
        and any(
            w is not None and (w["r_peak_ms"] >= 55 or w["notched"]) and -w["s"] < 0.35 * w["r"]
            for w in (side, one)
        )
    )
    wide = qrs >= COMPLETE_MS
    judgements = {
        "right_bundle_branch_block": wide and right,
        "left_bundle_branch_block": wide and left and not right,
        "incomplete_right_bundle_branch_block": not wide and qrs >= INCOMPLETE_MS and right and v1["r2"] > 0,
    }
    judgements["intraventricular_conduction_delay"] = qrs > DELAY_MS and not any(judgements.values())
    return {
        name: Judgement(there, qrs, ("V1", "V6") if "bundle" in name else ())
        for name, there in judgements.items()
    }


def _axis(m: Measurements) -> dict[str, Judgement]:
    axis = _value(m, "axis")
    if axis is None:
        return {}
    left = -90 <= axis < LEFT_AXIS
    right = axis > RIGHT_AXIS or axis < -90
    result = {
        "left_axis_deviation": Judgement(left, axis, ("I", "aVF")),
        "right_axis_deviation": Judgement(right, axis, ("I", "aVF")),
    }
    leads, qrs = m["leads"], float(m["qrs"]["value"])
    if "aVL" in leads and "III" in leads:
        avl, three = leads["aVL"], leads["III"]
        # rS below, qR or R in aVL; a left bundle-branch block explains the axis by itself
        fascicle = axis <= FASCICULAR_AXIS and avl["r"] > 0.2 and three["r"] < -three["s"]
        left_block = (
            qrs >= WIDE_MS
            and leads.get("V1", {}).get("r2", 0.0) < 0.08
            and leads.get("V1", {}).get("r", 0.0) < 0.3
        )
        result["left_anterior_fascicular_block"] = Judgement(
            fascicle and not left_block, None, ("I", "aVL", "II", "III", "aVF")
        )
    return result


def _chambers(m: Measurements, found: Mapping[str, Judgement]) -> dict[str, Judgement]:
    leads = m["leads"]
    blocked = any(
        found.get(name, Judgement(False)).present
        for name in ("left_bundle_branch_block", "right_bundle_branch_block")
    )
    result: dict[str, Judgement] = {}
    lateral = [leads[lead]["r"] for lead in ("V5", "V6") if lead in leads]
    if "V1" in leads and lateral:
        sokolow = -min(leads["V1"]["s"], leads["V1"]["q"]) + max(lateral)
        cornell = 0.0
        if "aVL" in leads and "V3" in leads:
            cornell = leads["aVL"]["r"] - min(leads["V3"]["s"], leads["V3"]["q"])
        avl = leads["aVL"]["r"] if "aVL" in leads else 0.0
        axis = _value(m, "axis")
        high = sokolow >= SOKOLOW_MV or cornell >= CORNELL_MV or (avl >= AVL_MV and (axis or 0.0) > LEFT_AXIS)
        result["left_ventricular_hypertrophy"] = Judgement(
            high and not blocked, sokolow, ("V1", "V5", "V6", "aVL")
        )
        v1 = leads["V1"]
        right = max(v1["r"], v1["r2"])
        dominant = right >= RIGHT_R_MV and right > -min(v1["s"], v1["q"])
        result["right_ventricular_hypertrophy"] = Judgement(
            dominant and axis is not None and axis > RIGHT_AXIS and not blocked, right, ("V1",)
        )
    limbs = [leads[lead]["range"] for lead in LIMB_LEADS if lead in leads]
    chest = [leads[lead]["range"] for lead in CHEST_LEADS if lead in leads]
    if len(limbs) == 6 and len(chest) >= 4:
        low = max(limbs) < LOW_LIMB_MV and max(chest) < LOW_CHEST_MV
        result["low_qrs_voltage"] = Judgement(low, max(limbs), LIMB_LEADS)
    return result


# ---- ST, T, Q, QT ----


def _in_neighbours(values: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
    """Leads beyond their limit that have a neighbour beyond its own; the largest first."""
    kept = {
        lead
        for pair in PAIRS
        if all(lead in values and values[lead] >= limits[lead] for lead in pair)
        for lead in pair
    }
    return sorted(kept, key=lambda lead: -values[lead])


def _repolarisation(
    m: Measurements, found: Mapping[str, Judgement], readable: Sequence[str]
) -> dict[str, Judgement]:
    leads = {lead: w for lead, w in m["leads"].items() if w["confidence"] >= 0.5 and lead in readable}
    if not any(a in leads and b in leads for a, b in PAIRS):
        return {}
    secondary = any(
        found.get(name, Judgement(False)).present
        for name in ("left_bundle_branch_block", "right_bundle_branch_block")
    )
    up_limit = {lead: ST_UP_V23_MV if lead in ("V2", "V3") else ST_UP_MV for lead in leads}
    up = {lead: min(w["j"], w["st"]) for lead, w in leads.items() if lead != "aVR"}
    down = {lead: -max(w["j"], w["st"]) for lead, w in leads.items() if lead != "aVR"}
    inverted = {
        lead: -w["t"]
        for lead, w in leads.items()
        if lead not in ("aVR", "V1", "III") or (lead == "III" and -w["t"] > 0.15)
    }
    raised = [] if secondary else _in_neighbours(up, up_limit)
    lowered = [] if secondary else _in_neighbours(down, dict.fromkeys(down, ST_DOWN_MV))
    turned = [] if secondary else _in_neighbours(inverted, dict.fromkeys(inverted, T_DOWN_MV))
    result = {
        "st_elevation": Judgement(
            bool(raised), max((up[k] for k in raised), default=max(up.values(), default=0.0)), raised
        ),
        "st_depression": Judgement(
            bool(lowered), -max((down[k] for k in lowered), default=max(down.values(), default=0.0)), lowered
        ),
    }
    if m["qt"] is not None:
        result["t_wave_inversion"] = Judgement(
            bool(turned),
            -max((inverted[k] for k in turned), default=max(inverted.values(), default=0.0)),
            turned,
        )
    scars = {
        lead: -w["q"]
        for lead, w in leads.items()
        if lead not in ("aVR", "V1") and w["q_ms"] >= Q_MS and -w["q"] >= Q_SHARE * max(w["r"], w["r2"], 0.0)
    }
    scarred = [] if secondary else _in_neighbours(scars, dict.fromkeys(scars, Q_MV))
    result["pathological_q_waves"] = Judgement(
        bool(scarred), -max((scars[k] for k in scarred), default=0.0), scarred
    )
    chest = sum(lead in leads for lead in CHEST_LEADS)
    limbs = sum(lead in leads for lead in LIMB_LEADS)
    if limbs >= 5 and chest >= 4:
        infarct = bool(raised) and _infarct(m, raised, lowered, scarred, {**found, **result})
        result["st_elevation_infarction"] = Judgement(infarct, result["st_elevation"].value, raised)
    return result


def _infarct(
    m: Measurements,
    raised: Sequence[str],
    lowered: Sequence[str],
    scarred: Sequence[str],
    found: Mapping[str, Judgement],
) -> bool:
    if not _may_be_infarct(m, raised, found):
        return False
    if any(lead in scarred for lead in raised):
        return True
    # reciprocal: opposite leads, so that a strain pattern beside the elevation does not count
    opposite = {
        "II": ("I", "aVL"),
        "III": ("I", "aVL"),
        "aVF": ("I", "aVL"),
        "I": ("III", "aVF"),
        "aVL": ("III", "aVF"),
    }
    places = {other for lead in raised for other in opposite.get(lead, ("III", "aVF", "II"))}
    leads = m["leads"]
    if any(lead in leads and max(leads[lead]["j"], leads[lead]["st"]) <= -ST_DOWN_MV for lead in places):
        return True
    if any(lead in raised for lead in ("V2", "V3", "V4")):
        return not _spread_out(m) and _smith(m)
    return _inferior_alone(m, raised)


def _level(m: Measurements, lead: str) -> float:
    """The lower of J and ST in mV, 0 where the lead is absent."""
    waves = m["leads"].get(lead)
    return 0.0 if waves is None else float(min(waves["j"], waves["st"]))


def _spread_out(m: Measurements) -> bool:
    """Whether the elevation reaches beyond one artery's leads, as in early repolarization."""
    return _level(m, "V6") >= RAISED_MV and max(_level(m, "II"), _level(m, "I")) >= 0.5 * RAISED_MV


def _inferior_alone(m: Measurements, raised: Sequence[str]) -> bool:
    """Clear elevation in the inferior leads and nowhere in the chest."""
    below = [lead for lead in ("II", "III", "aVF") if lead in raised and _level(m, lead) >= INFERIOR_MV]
    return (
        len(below) >= 2
        and max(_level(m, lead) for lead in below) >= 2 * ST_UP_MV
        and all(_level(m, lead) < RAISED_MV for lead in CHEST_LEADS)
    )


def _smith(m: Measurements) -> bool:
    """Smith's formula of 2012: ST in V3, QTc (Bazett) and R in V4; mm are 0.1 mV."""
    leads = m["leads"]
    if "V3" not in leads or "V4" not in leads or m["qtc_bazett"] is None:
        return False
    st, r = 10 * leads["V3"]["st"], 10 * leads["V4"]["r"]
    return bool(1.196 * st + 0.059 * float(m["qtc_bazett"]["value"]) - 0.326 * r > SMITH)


def _may_be_infarct(m: Measurements, raised: Sequence[str], found: Mapping[str, Judgement]) -> bool:
    """Whether nothing else explains the elevation: a block, voltage, or a field over the whole heart."""
    if m["quality"]["usable_share"] < 0.5:
        return False
    if any(
        found.get(name, Judgement(False)).present
        for name in (
            "left_bundle_branch_block",
            "right_bundle_branch_block",
            "paced_rhythm",
            "intraventricular_conduction_delay",
        )
    ):
        return False
    high = found.get("left_ventricular_hypertrophy", Judgement(False)).present
    if high and set(raised) <= {"V1", "V2", "V3"}:
        return False
    territories = [name for name, leads in TERRITORIES.items() if sum(lead in raised for lead in leads) >= 2]
    diffuse = "inferior" in territories and "lateral" in territories and len(raised) >= 6
    return not diffuse


def _elevation_unexplained(m: Measurements, found: Mapping[str, Judgement]) -> bool:
    one = found.get("st_elevation", Judgement(False))
    return one.present and _may_be_infarct(m, one.leads, found)


def _qt(m: Measurements, found: Mapping[str, Judgement]) -> dict[str, Judgement]:
    if m["qtc_bazett"] is None:
        return {}
    bazett, fridericia = float(m["qtc_bazett"]["value"]), float(m["qtc_fridericia"]["value"])
    # what a block adds to QRS it adds to QT (AHA/ACC/HRS 2009, part IV)
    wide = max(0.0, float(m["qrs"]["value"]) - WIDE_MS)
    # Bazett's is too long in fast and too short in slow rhythms: both must say so
    return {
        "prolonged_qt": Judgement(min(bazett, fridericia) - wide >= LONG_QTC_MS, bazett),
        "short_qt": Judgement(max(bazett, fridericia) <= SHORT_QTC_MS, bazett),
    }


# ---- the recording itself ----


def _technical(m: Measurements) -> dict[str, Judgement]:
    off = [*m["channels_flat"]]
    noisy = list(m["channels_noisy"])
    wander = [
        lead
        for lead, q in m["quality"]["leads"].items()
        if q["wander_mv"] is not None and q["wander_mv"] >= WANDER_MV
    ]
    present = max(1, len(m["quality"]["leads"]))
    mains = m["mains"]
    result = {
        "lead_off": Judgement(bool(off), None, off),
        "noisy_lead": Judgement(bool(noisy), None, noisy),
        "baseline_wander": Judgement(len(wander) >= 0.25 * present, None, wander),
        "mains_interference": Judgement(
            bool(mains and mains["channels"]), None, mains["channels"] if mains else ()
        ),
    }
    if m["standstill"] is not None and m["standstill"]["kind"] == "fibrillation":
        # waves without a line between them
        del result["baseline_wander"]
    if m["lead_swap"] is not None:
        result["limb_lead_reversal"] = Judgement(_reversed(m), None, LIMB_LEADS)
    return result


def _reversed(m: Measurements) -> bool:
    """Whether limb leads look exchanged, and P as well as QRS: an odd axis alone is a heart's own."""
    if not m["lead_swap"]:
        return False
    flat = next((s.split()[0] for s in m["lead_swap"] if "nearly flat" in s), None)
    if flat is not None:
        # an axis at a right angle to a lead leaves small waves in it, two electrodes on legs leave none
        return flat in m["leads"] and m["leads"][flat]["range"] < FLAT_MV
    axis = _value(m, "p_axis")
    return axis is not None and not SINUS_P_AXIS[0] <= axis <= SINUS_P_AXIS[1]
