"""What a beat shows: findings of QRS, ST, T and Q read off the waves without noise.

The limits are the usual ones (AHA, ACC and HRS 2009, doi:10.1161/CIRCULATIONAHA.108.191095 and its sister
statements; the universal definition of infarction), with a margin on both sides: what lies between is
unclear.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bioreport.ecg.leads import LEADS
from bioreport.ecg.simulation.plan import BUNDLE_BRANCH, MORPHOLOGY
from bioreport.ecg.simulation.waves import TO_TWELVE, Array, LeadField, Shape

# neighbours in which a change of ST, T or Q must be seen twice
PAIRS: tuple[tuple[str, str], ...] = (
    ("II", "aVF"), ("II", "III"), ("III", "aVF"), ("I", "aVL"),
    ("V1", "V2"), ("V2", "V3"), ("V3", "V4"), ("V4", "V5"), ("V5", "V6"),
)  # fmt: skip


@dataclass
class Morphology:
    """What the conducted beat looks like and what that means.

    Attributes
    ----------
    shape : Shape
    lead_field : LeadField
    findings : dict of str to (float or None, list of str)
        Value and leads of each finding that is present, of `MORPHOLOGY`.
    values : dict of str to float
        Value of every finding that has one, present or not.
    facts : dict
        ``axis_degrees``, ``qrs_ms``, ``qt_ms``, territories.
    """

    shape: Shape
    lead_field: LeadField
    findings: dict[str, tuple[float | None, list[str]]]
    values: dict[str, float]
    facts: dict[str, Any] = field(default_factory=dict)


def frontal_angle(limb: Array) -> float:
    """Frontal angle (radians) of a vector given by its I and II."""
    one, two = float(limb[0]), float(limb[1])
    return float(np.arctan2((two - one / 2) / np.sqrt(0.75), one))


def limb_voltage(shape: Shape) -> float:
    t = np.arange(-4, shape.qrs_ms + 4, 1.0)
    twelve = TO_TWELVE @ shape.at(t)
    return float(np.ptp(twelve[:6], axis=1).max())


def _paired(
    values: dict[str, float], above: dict[str, float], pairs: tuple[tuple[str, str], ...] = PAIRS
) -> bool:
    return any(
        values[a] >= above[a] and values[b] >= above[b] for a, b in pairs if a in values and b in values
    )


def _leads_of(values: dict[str, float], above: dict[str, float]) -> list[str]:
    """Leads over their limit, only those with a neighbour that is too; the strongest first."""
    kept = {
        lead
        for a, b in PAIRS
        if a in values and b in values and values[a] >= above[a] and values[b] >= above[b]
        for lead in (a, b)
    }
    return sorted(kept, key=lambda lead: -values[lead])


def _clear(
    values: dict[str, float], limit: dict[str, float], low: float, high: float
) -> tuple[bool | None, list[str]]:
    """Present, absent, or None in between; `low` and `high` as shares of the limit."""
    if _paired(values, {k: high * v for k, v in limit.items()}):
        return True, _leads_of(values, limit)
    if _paired(values, {k: low * v for k, v in limit.items()}):
        return None, []
    return False, []


def judge(
    shape: Shape, lead_field: LeadField, wanted: frozenset[str], rate: float, facts: dict[str, Any]
) -> Morphology | None:
    """The beat with what it shows, None where that is not what is wanted or is not clear."""
    qrs, qt = shape.qrs_ms, shape.qt_ms
    t = np.arange(-4, round(qt) + 30, 1.0)
    base = shape.at(t)
    twelve = TO_TWELVE @ base
    inside = (t >= -3) & (t <= qrs + 3)
    complexes = dict(zip(LEADS, twelve[:, inside], strict=True))
    axis = float(np.degrees(frontal_angle(base[:2, inside].sum(axis=1))))
    highest = {lead: float(row.max()) for lead, row in complexes.items()}
    deepest = {lead: float(-row.min()) for lead, row in complexes.items()}

    seen: dict[str, tuple[bool | None, float | None, list[str]]] = {}
    seen["left_axis_deviation"] = (_between(-axis, 22, 34), axis, ["I", "aVF"])
    seen["right_axis_deviation"] = (_between(axis, 82, 100), axis, ["I", "aVF"])
    fascicular = "left_anterior_fascicular_block" in wanted
    seen["left_anterior_fascicular_block"] = (fascicular, None, ["I", "aVL", "II", "III", "aVF"])
    if fascicular and not (deepest["III"] > highest["III"] and highest["aVL"] > 0.3):
        return None
    limbs = max(float(np.ptp(complexes[lead])) for lead in LEADS[:6])
    chest = max(float(np.ptp(complexes[lead])) for lead in LEADS[6:])
    small = None if limbs < 0.65 else False
    if limbs < 0.45 and chest < 0.92:
        small = True
    seen["low_qrs_voltage"] = (small, limbs, list(LEADS[:6]))
    wide_block = bool(wanted & BUNDLE_BRANCH)
    sokolow = deepest["V1"] + max(highest["V5"], highest["V6"])
    cornell = highest["aVL"] + deepest["V3"]
    left: bool | None = False
    if not wide_block and (sokolow > 3.1 or cornell > 1.85 or highest["aVL"] > 0.95):
        left = True if sokolow > 3.8 else None
    seen["left_ventricular_hypertrophy"] = (left, sokolow, ["V1", "V5", "V6", "aVL"])
    right: bool | None = False
    ratio = highest["V1"] / max(deepest["V1"], 0.01)
    if not wide_block and (highest["V1"] > 0.5 or (ratio > 0.9 and highest["V1"] > 0.2)):
        right = True if highest["V1"] > 0.8 and ratio > 1.3 and axis > 100 else None
    seen["right_ventricular_hypertrophy"] = (right, highest["V1"], ["V1", "V6"])

    after = (20, 40, 60, 80) if rate <= 80 else (20, 40, 60) if rate <= 105 else (20, 40)
    at = [int(np.argmin(np.abs(t - (qrs + ms)))) for ms in after]
    levels = twelve[:, at]
    up = dict(zip(LEADS, levels.min(axis=1), strict=True))
    up_any = dict(zip(LEADS, levels[:, :3].max(axis=1), strict=True))
    down = dict(zip(LEADS, -levels.max(axis=1), strict=True))
    down_any = dict(zip(LEADS, -levels.min(axis=1), strict=True))
    limit_up = {lead: 0.2 if lead in ("V2", "V3") else 0.1 for lead in LEADS if lead != "aVR"}
    limit_down = {lead: 0.05 for lead in LEADS if lead != "aVR"}
    for values in (up, up_any, down, down_any):
        values.pop("aVR")
    elevated, elevated_in = _clear(up, limit_up, 0.7, 1.3)
    if elevated is False and _paired(up_any, {k: 0.8 * v for k, v in limit_up.items()}):
        elevated = None
    lowered, lowered_in = _clear(down, limit_down, 0.7, 1.5)
    if lowered is False and _paired(down_any, {k: 0.8 * v for k, v in limit_down.items()}):
        lowered = None
    # T: the largest deflection in its own time
    tail = t > max(qrs + 80, 0.68 * qt)
    rows = twelve[:, tail]
    extreme = rows[np.arange(12), np.abs(rows).argmax(axis=1)]
    t_down = {lead: -float(v) for lead, v in zip(LEADS, extreme, strict=True) if lead not in ("aVR", "V1")}
    inverted, inverted_in = _clear(t_down, dict.fromkeys(t_down, 0.1), 0.4, 1.25)
    q = {lead: _q_depth(complexes[lead]) for lead in LEADS if lead != "aVR"}
    scarred, scarred_in = _clear(q, dict.fromkeys(q, 0.1), 0.8, 1.3)
    if wide_block:
        # secondary to the block
        elevated = lowered = inverted = scarred = False
    peak_up = max((up[lead] for lead in elevated_in), default=max(up.values()))
    peak_down = -max((down[lead] for lead in lowered_in), default=max(down.values()))
    seen["st_elevation"] = (elevated, float(peak_up), elevated_in)
    infarct = "st_elevation_infarction" in wanted
    seen["st_elevation_infarction"] = (infarct, float(peak_up), elevated_in)
    seen["st_depression"] = (lowered, float(peak_down), lowered_in)
    seen["t_wave_inversion"] = (inverted, -max(t_down.values()), inverted_in)
    seen["pathological_q_waves"] = (scarred, -max(q.values()), scarred_in)
    qtc = qt / np.sqrt(60 / rate)
    qtf = qt / np.cbrt(60 / rate)
    seen["prolonged_qt"] = (_between(min(qtc, qtf), 480, 480), qtc, [])
    seen["short_qt"] = (_between(-max(qtc, qtf), -340, -340), qtc, [])
    for name, leads in (
        ("left_bundle_branch_block", ["V1", "V6", "I"]),
        ("right_bundle_branch_block", ["V1", "V6", "I"]),
        ("incomplete_right_bundle_branch_block", ["V1", "V2"]),
        ("intraventricular_conduction_delay", []),
    ):
        seen[name] = (name in wanted, qrs, leads)
    if not _conduction_clear(wanted, _qrs_alone(shape, t[inside])):
        return None
    if any(seen[name][0] is None or seen[name][0] != (name in wanted) for name in MORPHOLOGY):
        return None
    found = {name: (value, leads) for name, (state, value, leads) in seen.items() if state}
    values = {name: float(value) for name, (_, value, _) in seen.items() if value is not None}
    facts |= {"axis_degrees": axis, "qrs_ms": qrs, "qt_ms": qt, "qtc_ms": float(qtc)}
    return Morphology(shape, lead_field, found, values, facts)


def _between(value: float, low: float, high: float) -> bool | None:
    return True if value >= high else False if value <= low else None


def _q_depth(row: Array) -> float:
    """Depth (mV) of an initial negative wave of 38 ms or more and a quarter of R; less from 28 ms."""
    below = row < -0.02
    if not below.any():
        return 0.0
    first = int(np.argmax(np.abs(row) > 0.02))
    if not below[first]:
        return 0.0
    up = np.flatnonzero(~below[first:])
    width = int(up[0]) if len(up) else len(row) - first
    depth = float(-row[first : first + width].min())
    if depth < 0.25 * max(float(row.max()), 0.0):
        return 0.0
    return depth if width >= 38 else 0.9 * min(depth, 0.1) if width >= 28 else 0.0


def _qrs_alone(shape: Shape, t: Array) -> dict[str, Array]:
    kept = ~shape.moving.any(axis=1)
    alone = Shape(shape.corners[kept], shape.moving[kept], shape.vectors[kept], shape.qrs_ms, shape.qt_ms)
    return dict(zip(LEADS, TO_TWELVE @ alone.at(t), strict=True))


def _conduction_clear(wanted: frozenset[str], complexes: dict[str, Array]) -> bool:
    """Whether the complexes look as their block does, and no others like one."""
    v1, v6, one = complexes["V1"], complexes["V6"], complexes["I"]
    late = slice(int(0.6 * len(v1)), None)
    if "right_bundle_branch_block" in wanted:
        return bool(v1[late].max() > 0.3 and v6[late].min() < -0.12 and one[late].min() < -0.05)
    if "incomplete_right_bundle_branch_block" in wanted:
        return bool(0.12 < v1[late].max() < 0.5 and v1.min() < -0.1 and v6[late].min() < -0.04)
    if "left_bundle_branch_block" in wanted:
        return bool(
            v1.max() < 0.12 and v1.min() < -0.4 and v6.max() > 0.4 and v6.min() > -0.1 and one.max() > 0.25
        )
    if "right_ventricular_hypertrophy" not in wanted and v1[late].max() > 0.06:
        return False
    if "intraventricular_conduction_delay" in wanted:
        return bool(v6[: len(v6) // 3].min() < -0.02 and v6[late].min() < 0.05)
    return True
