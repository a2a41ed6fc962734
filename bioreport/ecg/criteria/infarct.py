"""ST elevation of an infarct, or of early repolarisation, pericarditis, hypertrophy, a block."""

from collections.abc import Mapping, Sequence

from bioreport.ecg.criteria.judgement import Judgement, Measurements, quantity
from bioreport.ecg.criteria.territories import TERRITORIES
from bioreport.ecg.leads import CHEST_LEADS

ST_UP_MV, ST_UP_V23_MV, ST_DOWN_MV = 0.1, 0.2, 0.05  # Fourth Universal Definition (Thygesen 2018)
RAISED_MV = 0.05  # elevation of a lead that takes part in what others show
INFERIOR_MV = 0.15
# above it T and P leave no level between them to measure from: slight shifts either way are the rate's
NO_LEVEL_RATE, CLEAR_UP_MV = 130.0, 0.15
OBVIOUS_MV = 0.5  # in V2 to V4: more than early repolarisation raises (left out of Smith 2012 as obvious)
# anterior infarct rather than early repolarisation above it (Smith 2012), from it on with QRS (Driver 2017)
SMITH, SMITH_QRS = 23.4, 18.2


def is_infarct(
    m: Measurements,
    raised: Sequence[str],
    lowered: Sequence[str],
    scarred: Sequence[str],
    found: Mapping[str, Judgement],
) -> bool:
    """Whether ST elevation in the leads `raised` is an infarct's."""
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
    leads, rate = m["leads"], quantity(m, "rate")
    slight = sum(_level(m, lead) >= CLEAR_UP_MV for lead in raised) < 2
    down = 2 * ST_DOWN_MV if slight and rate is not None and rate > NO_LEVEL_RATE else ST_DOWN_MV
    if any(lead in leads and max(leads[lead]["j"], leads[lead]["st"]) <= -down for lead in places):
        return True
    anterior = [lead for lead in ("V2", "V3", "V4") if lead in raised]
    if anterior:
        high = max(_level(m, lead) for lead in anterior) >= OBVIOUS_MV
        return not _spread_out(m) and (high or _smith(m))
    return _inferior_alone(m, raised)


def _level(m: Measurements, lead: str) -> float:
    """The lower of J and ST in mV, 0 where the lead is absent."""
    waves = m["leads"].get(lead)
    return 0.0 if waves is None else float(min(waves["j"], waves["st"]))


def _spread_out(m: Measurements) -> bool:
    """Whether the elevation reaches beyond one artery's leads, as in early repolarization."""
    return _level(m, "V6") >= RAISED_MV and max(_level(m, "II"), _level(m, "I")) >= 0.5 * RAISED_MV


def _inferior_alone(m: Measurements, raised: Sequence[str]) -> bool:
    """Clear elevation in the inferior leads and not over the front of the heart; V6 lies beside them."""
    below = [lead for lead in ("II", "III", "aVF") if lead in raised and _level(m, lead) >= INFERIOR_MV]
    return (
        len(below) >= 2
        and max(_level(m, lead) for lead in below) >= 2 * ST_UP_MV
        and all(_level(m, lead) < (ST_UP_MV if lead == "V6" else RAISED_MV) for lead in CHEST_LEADS)
    )


def _smith(m: Measurements) -> bool:
    """Smith's formulas of ST in V3, QTc (Bazett) and R in V4; mm are 0.1 mV.

    That of Driver 2017, with QRS in V2, told occlusion from early repolarisation better; without V2, that of
    2012.
    """
    leads = m["leads"]
    if "V3" not in leads or "V4" not in leads or m["qtc_bazett"] is None:
        return False
    st, r, qtc = 10 * leads["V3"]["st"], 10 * leads["V4"]["r"], float(m["qtc_bazett"]["value"])
    if "V2" in leads:
        return bool(1.062 * st + 0.052 * qtc - 0.151 * 10 * leads["V2"]["range"] - 0.268 * r >= SMITH_QRS)
    return bool(1.196 * st + 0.059 * qtc - 0.326 * r > SMITH)


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


def elevation_unexplained(m: Measurements, found: Mapping[str, Judgement]) -> bool:
    one = found.get("st_elevation", Judgement(False))
    return one.present and _may_be_infarct(m, one.leads, found)
