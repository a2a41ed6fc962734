"""Whether P waves precede the beats."""

from bioreport.ecg.criteria.judgement import Measurements, quantity
from bioreport.ecg.leads import LEADS

P_ALIKE = 0.5  # likeness of what precedes the beats, above which it is a P wave
LONGEST_P_MS = 170.0  # a T wave lasts longer
LATEST_PR = 0.55  # of RR
NO_P = 0.4  # ... below which there is none
WEAK_P = 7.0  # standard errors that the median P wave stands out by


def has_p(m: Measurements) -> bool:
    """Whether P waves precede the beats, at one interval or in a train of their own."""
    pr, qt, atrial = quantity(m, "pr"), m["qt"], m["atrial"]
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


def lacks_p(m: Measurements) -> bool:
    """Whether what precedes the beats is never the same."""
    atrial = m["atrial"]
    alike, ratio = atrial["p_likeness"], atrial["p_ratio"]
    if alike is None or atrial["p_train"]:
        return False
    many = sum(lead in m["leads"] for lead in LEADS) >= 6
    return alike < NO_P or (many and alike < P_ALIKE and (ratio is None or ratio < WEAK_P))


def upright(m: Measurements) -> bool:
    """Whether P has a sinus node's direction, where leads show it."""
    heights = [m["leads"][lead]["p"] for lead in ("II", "aVF", "I") if lead in m["leads"]]
    # no P before the median beat where PR changes: its train alone does not say which way it points
    return not any(heights) or (max(heights) > 0 and heights[0] > -0.02)
