"""Regular tachycardia with wide QRS: ventricular, or conducted with a block."""

from bioreport.ecg.criteria.judgement import Measurements, quantity
from bioreport.ecg.criteria.p_waves import has_p
from bioreport.ecg.criteria.qrs import LEFT_AXIS, RIGHT_AXIS, WIDE_MS, judge_bundles

FASTEST_SINUS = 160.0  # /min, at which beats of a block's shape may still be conducted
VERY_WIDE_MS = 160.0  # wider than conducted beats are in most blocks (Brugada 1991)
TACHYCARDIA_MS = 134.0  # a regular tachycardia this wide and without P is ventricular until shown otherwise
SEPTAL_MS = 30.0  # that the septum's own wave lasts
OUTFLOW_AXIS = 75.0  # ectopic beats of the outflow tract point further down


def wide_tachycardia(m: Measurements) -> bool:
    """Whether the usual beats themselves are those of a ventricular tachycardia."""
    rate, qrs = quantity(m, "rate"), quantity(m, "qrs")
    if rate is None or qrs is None or rate <= 120 or qrs < WIDE_MS or not m["rr"]["regular"] or has_p(m):
        return False
    if _ventricular_shape(m):
        return True
    # a sinus P wave may lie in the T wave before it, where the beats look like a bundle-branch block's
    return qrs >= TACHYCARDIA_MS and not (rate <= FASTEST_SINUS and may_be_conducted(m))


def may_be_conducted(m: Measurements) -> bool:
    """Whether wide beats have the axis of conducted ones, and a block's shape or moderate width."""
    axis = quantity(m, "axis")
    if axis is None or not LEFT_AXIS <= axis <= RIGHT_AXIS:
        return False
    bundles = judge_bundles(m)
    if "right_bundle_branch_block" in bundles and bundles["right_bundle_branch_block"].present:
        return True
    # the outflow tract's tachycardia looks like a left bundle-branch block but points downwards
    left = "left_bundle_branch_block" in bundles and bundles["left_bundle_branch_block"].present
    if axis > OUTFLOW_AXIS and not _begins_in_septum(m):
        return False
    return left or float(m["qrs"]["value"]) < VERY_WIDE_MS


def _begins_in_septum(m: Measurements) -> bool:
    """Whether QRS begins as the left bundle makes it: a brief r in V1 (Kindwall 1988), a brief q opposite."""
    leads = m["leads"]
    if "V1" not in leads or not (leads["V1"]["r"] > 0 and leads["V1"]["r_peak_ms"] <= SEPTAL_MS):
        return False
    return any(lead in leads and 0 < leads[lead]["q_ms"] <= SEPTAL_MS for lead in ("I", "V6"))


def _ventricular_shape(m: Measurements) -> bool:
    """QRS that no bundle-branch block has: axis in no man's land, or initial R in aVR (Vereckei 2008)."""
    axis = quantity(m, "axis")
    waves = m["leads"].get("aVR")
    return (axis is not None and (axis < -90 or axis > 150)) or (
        waves is not None and waves["q"] == 0 and waves["r"] >= 0.6 * (waves["r"] - min(waves["s"], 0.0))
    )
