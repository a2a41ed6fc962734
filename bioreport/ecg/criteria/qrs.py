"""QRS: bundle-branch blocks, axis, chambers and voltage."""

from collections.abc import Mapping

from bioreport.ecg.criteria.judgement import Judgement, Measurements, quantity
from bioreport.ecg.leads import CHEST_LEADS, LIMB_LEADS

WIDE_MS = 120.0
# 120, 110 and 110 ms in single leads; over all leads together a QRS lasts some 5 ms longer (Kligfield 2007)
COMPLETE_MS, INCOMPLETE_MS, DELAY_MS = 124.0, 109.0, 116.0
LEFT_AXIS, RIGHT_AXIS = -30.0, 90.0
FASCICULAR_AXIS = -45.0
SOKOLOW_MV, CORNELL_MV, AVL_MV = 3.5, 2.8, 1.1
RIGHT_R_MV = 0.6
LOW_LIMB_MV, LOW_CHEST_MV = 0.5, 1.0


def judge_bundles(m: Measurements) -> dict[str, Judgement]:
    """Bundle-branch blocks and other delay within the ventricles."""
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


def judge_axis(m: Measurements) -> dict[str, Judgement]:
    """Deviation of the axis and left anterior fascicular block."""
    axis = quantity(m, "axis")
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


def judge_chambers(m: Measurements, found: Mapping[str, Judgement]) -> dict[str, Judgement]:
    """Hypertrophy, and low voltage."""
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
        axis = quantity(m, "axis")
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
