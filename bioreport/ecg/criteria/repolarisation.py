"""ST, T, Q and QT."""

from collections.abc import Mapping, Sequence

from bioreport.ecg.criteria.infarct import ST_DOWN_MV, ST_UP_MV, ST_UP_V23_MV, is_infarct
from bioreport.ecg.criteria.judgement import Judgement, Measurements
from bioreport.ecg.criteria.qrs import WIDE_MS
from bioreport.ecg.criteria.territories import PAIRS, in_neighbours
from bioreport.ecg.leads import CHEST_LEADS, LIMB_LEADS

T_DOWN_MV = 0.1
Q_MS, Q_MV, Q_SHARE = 30.0, 0.1, 0.25
LONG_QTC_MS, SHORT_QTC_MS = 460.0, 345.0


def judge_repolarisation(
    m: Measurements, found: Mapping[str, Judgement], readable: Sequence[str]
) -> dict[str, Judgement]:
    """ST, T and Q in the `readable` leads, and infarct."""
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
    raised = [] if secondary else in_neighbours(up, up_limit)
    lowered = [] if secondary else in_neighbours(down, dict.fromkeys(down, ST_DOWN_MV))
    turned = [] if secondary else in_neighbours(inverted, dict.fromkeys(inverted, T_DOWN_MV))
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
    scarred = [] if secondary else in_neighbours(scars, dict.fromkeys(scars, Q_MV))
    result["pathological_q_waves"] = Judgement(
        bool(scarred), -max((scars[k] for k in scarred), default=0.0), scarred
    )
    chest = sum(lead in leads for lead in CHEST_LEADS)
    limbs = sum(lead in leads for lead in LIMB_LEADS)
    if limbs >= 5 and chest >= 4:
        infarct = bool(raised) and is_infarct(m, raised, lowered, scarred, {**found, **result})
        result["st_elevation_infarction"] = Judgement(infarct, result["st_elevation"].value, raised)
    return result


def judge_qt(m: Measurements, found: Mapping[str, Judgement]) -> dict[str, Judgement]:
    """Long and short QT, corrected by both formulas."""
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
