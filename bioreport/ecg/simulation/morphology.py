"""Beats that show exactly the wanted findings of QRS, ST, T and QT: drawn, judged, and drawn again."""

import numpy as np

from bioreport.ecg.simulation.judging import Morphology, frontal_angle, judge, limb_voltage
from bioreport.ecg.simulation.plan import BUNDLE_BRANCH, MORPHOLOGY
from bioreport.ecg.simulation.waves import Array, Builder, LeadField, draw_field

_TRIES = 400
# mV at the leads of BASE and what part of the heart it is; limb leads follow from I and II
_ELEVATION: dict[str, tuple[float, ...]] = {
    "inferior": (-0.06, 0.21, 0.0, 0.0, 0.0, 0.0, 0.0, 0.03),
    "anterior": (0.02, 0.0, 0.10, 0.34, 0.40, 0.30, 0.12, 0.02),
    "septal": (0.0, 0.0, 0.22, 0.36, 0.20, 0.05, 0.0, 0.0),
    "lateral": (0.17, 0.03, 0.0, 0.0, 0.0, 0.06, 0.19, 0.20),
}
_RECIPROCAL: dict[str, tuple[float, ...]] = {
    "inferior": (-0.12, 0.0, -0.03, -0.10, -0.07, 0.0, 0.0, 0.0),
    "anterior": (0.02, -0.12, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "septal": (0.03, -0.12, 0.0, 0.0, 0.0, 0.0, -0.02, -0.03),
    "lateral": (0.02, -0.08, -0.08, -0.08, 0.0, 0.0, 0.0, 0.0),
}
_EARLY_REPOLARISATION = (0.04, 0.07, 0.02, 0.24, 0.34, 0.30, 0.20, 0.11)
_PERICARDITIS = (0.17, 0.22, 0.03, 0.16, 0.22, 0.24, 0.22, 0.19)
_DEPRESSION: dict[str, tuple[float, ...]] = {
    "anterior": (0.0, -0.02, 0.02, -0.10, -0.16, -0.17, -0.08, -0.02),
    "inferior": (-0.03, -0.15, 0.02, 0.02, 0.0, 0.0, -0.02, -0.02),
    "lateral": (-0.11, -0.05, 0.04, 0.0, -0.02, -0.12, -0.16, -0.13),
}
_INVERSION: dict[str, tuple[float, ...]] = {
    "anterior": (0.10, 0.10, -0.18, -0.32, -0.36, -0.28, -0.10, 0.08),
    "inferior": (0.08, -0.20, 0.06, 0.28, 0.36, 0.28, 0.14, 0.07),
    "lateral": (-0.19, -0.04, 0.08, 0.24, 0.16, -0.08, -0.24, -0.22),
    "septal": (0.12, 0.12, -0.22, -0.30, -0.22, 0.10, 0.16, 0.12),
}
_Q: dict[str, tuple[float, ...]] = {
    "inferior": (0.04, -0.36, 0.0, 0.0, 0.0, 0.0, -0.02, -0.04),
    "anterior": (0.0, 0.03, -0.45, -0.75, -0.75, -0.50, -0.12, 0.0),
    "lateral": (-0.36, -0.05, 0.05, 0.0, 0.0, -0.10, -0.40, -0.36),
}


def draw_morphology(rng: np.random.Generator, present: frozenset[str], rate: float) -> Morphology:
    """Draw a conducted beat that shows those findings of `MORPHOLOGY` that are in `present` and no other.

    Raises
    ------
    ValueError
        No such beat was found.
    """
    wanted = present & MORPHOLOGY
    places = _draw_places(rng, wanted)
    for _ in range(_TRIES):
        drawn = _draw(rng, wanted, rate, places)
        if drawn is not None:
            return drawn
    raise ValueError(f"cannot be simulated in one recording: {', '.join(sorted(wanted))} at {rate:.0f}/min")


def _draw_places(rng: np.random.Generator, wanted: frozenset[str]) -> dict[str, str]:
    """Which part of the heart shows the changes of Q, ST and T: one for all of them.

    It is drawn before the beats are, so that no part is rarer because its beats are harder to draw.
    """
    if wanted & {"left_ventricular_hypertrophy", "right_ventricular_hypertrophy"}:
        place = "lateral" if "left_ventricular_hypertrophy" in wanted else "anterior"
    elif "st_elevation" in wanted and "st_elevation_infarction" not in wanted:
        return {"st_territory": "diffuse" if rng.random() < 0.4 else "early repolarization"}
    else:
        tables = {
            "pathological_q_waves": _Q, "st_elevation_infarction": _ELEVATION,
            "st_depression": _DEPRESSION, "t_wave_inversion": _INVERSION,
        }  # fmt: skip
        if "st_elevation_infarction" in wanted:
            del tables["st_depression"]  # it is the infarct's reciprocal
        asked = [set(table) for name, table in tables.items() if name in wanted]
        if not asked:
            return {}
        place = str(rng.choice(sorted(set.intersection(*asked))))
    places = {}
    for key, names in (
        ("q_territory", {"pathological_q_waves"}),
        ("st_territory", {"st_elevation", "st_depression"}),
        ("t_territory", {"t_wave_inversion"}),
    ):
        if wanted & names:
            places[key] = place
    return places


def draw_qt(rng: np.random.Generator, present: frozenset[str], rate: float) -> float:
    """QT in ms that is long, short or neither by Bazett's and Fridericia's formula alike."""
    root, cube = np.sqrt(60 / rate), np.cbrt(60 / rate)
    if "prolonged_qt" in present:
        return float(rng.uniform(490, 550) * max(root, cube) if rate < 60 else rng.uniform(490, 550) * cube)
    if "short_qt" in present:
        return float(rng.uniform(285, 325) * min(root, cube))
    low, high = 370 * max(root, cube), 438 * min(root, cube)
    if low > high:  # very fast: the formulas no longer agree
        return float(400 * (root + cube) / 2)
    return float(rng.uniform(low, high))


def _draw(
    rng: np.random.Generator, wanted: frozenset[str], rate: float, places: dict[str, str]
) -> Morphology | None:
    qrs = _draw_qrs_ms(rng, wanted)
    qt = draw_qt(rng, wanted, rate)
    if wanted & BUNDLE_BRANCH or "intraventricular_conduction_delay" in wanted:
        qt = max(qt, qrs + 190)
    axis = _draw_axis(rng, wanted)
    field = draw_field(rng)
    # the parts of QRS: when, and the dipole
    parts = _qrs_parts(rng, wanted)
    net = sum((end - begin) * field.see(dipole)[:2] for begin, _, end, dipole in parts)
    turn = np.radians(axis) - frontal_angle(np.asarray(net))
    turn = (turn + np.pi) % (2 * np.pi) - np.pi
    field = LeadField(field.chest, float(turn))

    beat = Builder(field, qrs, qt)
    vectors = [field.see(dipole) for *_, dipole in parts]
    if "right_axis_deviation" in wanted:
        vectors[0][:2] = rng.uniform(0.10, 0.16), rng.uniform(-0.02, 0.04)  # r in I and aVL before the S
    # no two leads look through the same tissue
    gain = np.exp(rng.normal(0, 0.08, 8))
    for (begin, peak, end, _), vector in zip(parts, vectors, strict=True):
        beat.qrs(begin, peak, end, vector * gain)
    if "pathological_q_waves" in wanted:
        beat.qrs(0.0, 0.27, 0.60, _varied(rng, _Q[places["q_territory"]], 0.9, 1.5))
    st, t = _repolarisation(rng, wanted, field, places)
    beat.st(st)
    beat.t_wave(t, width=float(rng.uniform(0.9, 1.15)))
    shape = beat.shape()
    if "low_qrs_voltage" in wanted:
        small = rng.uniform(0.3, 0.42) / limb_voltage(shape)
        if small > 1:
            return None
        shape = shape.scaled(
            np.array([small] * 2 + [small * rng.uniform(0.9, 1.2)] * 6) if small < 0.6 else small
        )
    return judge(shape, field, wanted, rate, dict(places))


def _draw_qrs_ms(rng: np.random.Generator, wanted: frozenset[str]) -> float:
    if "left_bundle_branch_block" in wanted:
        return float(rng.uniform(132, 168))
    if "right_bundle_branch_block" in wanted:
        return float(rng.uniform(128, 158))
    if "intraventricular_conduction_delay" in wanted:
        return float(rng.uniform(128, 152))
    if "incomplete_right_bundle_branch_block" in wanted:
        return float(rng.uniform(110, 116))
    return float(rng.uniform(92, 106) if "pathological_q_waves" in wanted else rng.uniform(76, 102))


def _draw_axis(rng: np.random.Generator, wanted: frozenset[str]) -> float:
    if "left_anterior_fascicular_block" in wanted:
        return float(rng.uniform(-72, -50))
    if "left_axis_deviation" in wanted:
        return float(rng.uniform(-62 if "left_bundle_branch_block" in wanted else -42, -36))
    if "right_axis_deviation" in wanted:
        return float(rng.uniform(104, 140))
    return float(np.clip(rng.normal(40, 26), -18, 78))


def _qrs_parts(
    rng: np.random.Generator, wanted: frozenset[str]
) -> list[tuple[float, float, float, tuple[float, float, float]]]:
    def about(x: float, y: float, z: float, spread: float = 0.15) -> tuple[float, float, float]:
        size = np.exp(rng.normal(0, spread))
        wobble = rng.normal(0, 0.05, 3)
        return x * size + wobble[0], y * size + wobble[1], z * size + wobble[2]

    if "left_bundle_branch_block" in wanted:
        # no septal wave; the left ventricle follows late and slowly, with a notch between
        return [
            (0.0, 0.30, 0.66, about(0.85, 0.55, 0.80)),
            (0.30, float(rng.uniform(0.60, 0.70)), 1.0, about(1.05, 0.45, 0.80)),
        ]
    septal = about(-0.15, -0.04, -0.20, 0.3)
    size = float(1.12 * np.exp(rng.normal(0, 0.2))) * (0.85 if "left_axis_deviation" in wanted else 1.0)
    main = (0.92 * size, 0.72 * size, float(rng.normal(0.52, 0.12)) * size)
    late = about(-0.14, -0.10, 0.55, 0.3)
    if "right_bundle_branch_block" in wanted:
        # the left ventricle as always, then the right one alone: slow, to the right and to the front
        return [
            (0.0, 0.11, 0.24, septal),
            (0.09, 0.27, 0.48, main),
            (0.38, float(rng.uniform(0.58, 0.68)), 1.0, about(-0.52, 0.04, -0.68)),
        ]
    if "incomplete_right_bundle_branch_block" in wanted:
        return [
            (0.0, 0.13, 0.30, septal),
            (0.11, 0.34, 0.60, main),
            (0.46, 0.62, 0.84, (late[0], late[1], 0.5 * late[2])),
            (0.62, 0.82, 1.0, about(-0.22, 0.0, -0.30, 0.12)),
        ]
    if "right_ventricular_hypertrophy" in wanted:
        return [
            (0.0, 0.16, 0.36, about(0.20, -0.04, -0.16)),
            (0.18, 0.46, 0.76, (-0.28 * size, 0.8 * size, -0.95 * size)),
            (0.55, 0.80, 1.0, about(-0.40, 0.0, 0.02)),
        ]
    if "left_ventricular_hypertrophy" in wanted:
        size = float(rng.uniform(1.8, 2.4))
        main = (0.98 * size, 0.55 * size, float(rng.uniform(0.55, 0.85)) * size)
    wide = "intraventricular_conduction_delay" in wanted
    if wide:
        second = float(rng.uniform(0.55, 0.8))
        return [
            (0.0, 0.14, 0.32, septal),
            (0.12, 0.38, 0.70, main),
            (0.42, 0.66, 0.92, (second * main[0], second * main[1], second * main[2])),
            (0.66, 0.84, 1.0, late),
        ]
    if "pathological_q_waves" in wanted:
        return [(0.0, 0.17, 0.38, septal), (0.28, 0.55, 0.82, main), (0.62, 0.82, 1.0, late)]
    parts = [(0.0, 0.18, 0.38, septal), (0.19, 0.45, 0.69, main), (0.53, 0.76, 1.0, late)]
    for _ in range(int(rng.integers(0, 3))):  # notches and slurs
        at = float(rng.uniform(0.3, 0.75))
        x, y, z = rng.normal(0, 0.09, 3)
        parts.append((at - 0.13, at, at + 0.13, (float(x), float(y), float(z))))
    return parts


def _varied(rng: np.random.Generator, vector: tuple[float, ...], low: float, high: float) -> Array:
    return np.array(vector) * rng.uniform(low, high) * np.exp(rng.normal(0, 0.08, 8))


def _repolarisation(
    rng: np.random.Generator, wanted: frozenset[str], field: LeadField, places: dict[str, str]
) -> tuple[Array, Array]:
    """ST level and T wave, vectors [8]."""
    size = float(np.exp(rng.normal(0, 0.25)))
    share = 0.0 if wanted & {"left_axis_deviation", "right_axis_deviation"} else 0.5
    t = field.see((0.23 * size, 0.21 * size, float(rng.uniform(-0.22, -0.06)) * size), share=share)
    st = np.zeros(8)
    if "left_bundle_branch_block" in wanted:
        return field.see((-0.07, -0.03, -0.10)), field.see((-0.26, -0.12, -0.34))
    if "right_bundle_branch_block" in wanted:
        t = field.see((0.32 * size, 0.18 * size, 0.17 * size), share=share)
        return field.see((0.02, 0.0, 0.04)), t
    place = places.get("st_territory", "")
    if "st_elevation_infarction" in wanted:
        st = _varied(rng, _ELEVATION[place], 1.0, 2.0)
        if "st_depression" in wanted:
            st = st + _varied(rng, _RECIPROCAL[place], 0.9, 1.6)
        elif place == "inferior":
            st[0] = rng.uniform(0.10, 0.13) * st[1] / 0.25
        elif place == "lateral":
            st[1] = rng.uniform(0.5, 0.6) * st[0]
        t = t + 0.7 * np.maximum(st, 0)
        # T stays upright in the leads opposite
        if place == "inferior":
            t[0] += 0.12
        elif place == "lateral":
            t[1] += 0.6 * max(t[0], 0.0)
        return st, t
    if "st_elevation" in wanted:
        diffuse = place == "diffuse"
        st = _varied(rng, _PERICARDITIS if diffuse else _EARLY_REPOLARISATION, 0.9, 1.3)
        return st, t * (1.0 if diffuse else 1.35)
    if "st_depression" in wanted:
        st = _varied(rng, _DEPRESSION[place], 0.9, 1.9)
        t = 1.1 * t
    if "t_wave_inversion" in wanted:
        t = _varied(rng, _INVERSION[places["t_territory"]], 0.8, 1.7)
    return st, t
