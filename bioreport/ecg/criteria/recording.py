"""The recording itself: leads off, noisy, wandering or exchanged, and mains."""

from bioreport.ecg.criteria.judgement import Judgement, Measurements, quantity
from bioreport.ecg.leads import LIMB_LEADS

SINUS_P_AXIS = (-20.0, 100.0)
WANDER_MV = 0.4  # peak to peak: four small squares
FLAT_MV = 0.1  # of a QRS complex, in a lead between two electrodes of one place


def judge_recording(m: Measurements) -> dict[str, Judgement]:
    """Faults of leads and electrodes, wander and mains."""
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
        result["limb_lead_reversal"] = Judgement(limbs_reversed(m), None, LIMB_LEADS)
    return result


def limbs_reversed(m: Measurements) -> bool:
    """Whether limb leads look exchanged, and P as well as QRS: an odd axis alone is a heart's own."""
    if not m["lead_swap"]:
        return False
    flat = next((s.split()[0] for s in m["lead_swap"] if "nearly flat" in s), None)
    if flat is not None:
        # an axis at a right angle to a lead leaves small waves in it, two electrodes on legs leave none
        return flat in m["leads"] and m["leads"][flat]["range"] < FLAT_MV
    axis = quantity(m, "p_axis")
    return axis is not None and not SINUS_P_AXIS[0] <= axis <= SINUS_P_AXIS[1]
