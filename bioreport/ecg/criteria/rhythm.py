"""Rhythm, rate, early beats, and conduction from the atria to the ventricles."""

from collections.abc import Mapping

from bioreport.ecg.criteria.judgement import Judgement, Measurements, quantity
from bioreport.ecg.criteria.p_waves import has_p, lacks_p, upright
from bioreport.ecg.criteria.qrs import WIDE_MS
from bioreport.ecg.criteria.recording import limbs_reversed
from bioreport.ecg.criteria.wide_tachycardia import may_be_conducted, wide_tachycardia

SLOW, FAST = 60.0, 100.0  # /min
LONG_PR_MS = 210.0  # 200 ms, and 10 ms that P's onset is uncertain by (CSE Working Party 1985)
SAME_BEFORE = 0.85  # ... above which what precedes them is the same each time
PACED_SHARE = 0.6
FASTEST_ESCAPE = 65.0  # /min; a faster rhythm of the ventricles' own is no escape from a block
SUPRAVENTRICULAR_RATE = 150.0
FLUTTER_RATES = (220.0, 360.0)
WHOLE = 0.025  # of a whole number of flutter waves in RR


def judge_rhythm(m: Measurements) -> dict[str, Judgement]:
    """The rhythm that rules the recording, and runs of ventricular tachycardia."""
    rate, rr, atrial = float(m["rate"]["value"]), m["rr"], m["atrial"]
    names = (
        "paced_rhythm", "ventricular_tachycardia", "complete_av_block", "atrial_fibrillation",
        "atrial_flutter", "supraventricular_tachycardia", "sinus_rhythm",
    )  # fmt: skip
    result = {name: Judgement(False) for name in (*names, "ventricular_fibrillation", "asystole")}
    qrs = quantity(m, "qrs")
    alike = atrial["p_likeness"]
    main = ""
    if m["paced_share"] >= PACED_SHARE:
        main = "paced_rhythm"
    elif wide_tachycardia(m):
        main = "ventricular_tachycardia"
    elif atrial["dissociated"] and rate <= FASTEST_ESCAPE:
        main = "complete_av_block"
    elif _flutters(m):
        main = "atrial_flutter"
    elif rr["irregular"] and lacks_p(m) and m["beats"]["count"] >= 6:
        main = "atrial_fibrillation"
    elif (
        rate >= SUPRAVENTRICULAR_RATE
        and rr["regular"]
        and (qrs or 0) < WIDE_MS
        and not (has_p(m) and rate < 160)
    ):
        main = "supraventricular_tachycardia"
    elif (has_p(m) and (upright(m) or limbs_reversed(m))) or _hides_p(m):
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


def _hides_p(m: Measurements) -> bool:
    """Whether a regular tachycardia is too slow for a re-entrant one, and P may lie hidden in T."""
    alike = m["atrial"]["p_likeness"]
    return (
        FAST < float(m["rate"]["value"]) < SUPRAVENTRICULAR_RATE
        and bool(m["rr"]["regular"])
        and alike is not None
        and alike >= SAME_BEFORE
        and m["qrs"] is not None
        and (float(m["qrs"]["value"]) < WIDE_MS or may_be_conducted(m))
    )


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


def judge_rate(m: Measurements) -> dict[str, Judgement]:
    """Bradycardia and tachycardia."""
    rate = float(m["rate"]["value"])
    return {"bradycardia": Judgement(rate < SLOW, rate), "tachycardia": Judgement(rate > FAST, rate)}


def judge_ectopy(m: Measurements, found: Mapping[str, Judgement]) -> dict[str, Judgement]:
    """Early beats and pauses."""
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


def judge_av_conduction(m: Measurements, found: Mapping[str, Judgement]) -> dict[str, Judgement]:
    """AV block of first and second degree."""
    pr = quantity(m, "pr")
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
