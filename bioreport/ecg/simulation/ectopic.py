"""Beats that do not come down from the atria, and P waves by themselves."""

import numpy as np

from bioreport.ecg.simulation.waves import Array, Builder, LeadField, Shape

# dipole of the main deflection, by where the beat starts
_VENTRICULAR: dict[str, tuple[float, float, float]] = {
    "right outflow tract": (0.35, 1.15, 0.80),
    "right ventricle": (0.95, -0.55, 0.70),
    "left ventricle": (-0.75, -0.80, -0.70),
    "left ventricle, high": (-0.70, 0.95, -0.70),
}


def draw_ventricular(
    rng: np.random.Generator, chest: Array, rate: float, qt_ms: float, kind: str = "ventricular"
) -> Shape:
    """A wide beat with T against QRS: premature, of a tachycardia, paced, or an escape beat."""
    field = LeadField(chest)
    qrs = float(rng.uniform(144, 176))
    # what is left of a fast cycle is T's
    qt = (
        min(max(qt_ms + 35, qrs + 210), 0.93 * 60_000 / rate)
        if kind == "tachycardia"
        else max(qt_ms + 35, qrs + 210)
    )
    qt = max(qt, qrs + 90)
    if kind == "paced":
        main = np.array((0.75, -0.85, 0.70)) * np.exp(rng.normal(0, 0.12, 3))
    else:
        main = np.array(_VENTRICULAR[str(rng.choice(list(_VENTRICULAR)))]) * np.exp(rng.normal(0, 0.12, 3))
    main *= rng.uniform(0.85, 1.25)
    beat = Builder(field, qrs, qt)
    beat.qrs(0.0, 0.32, 0.74, field.see(0.85 * main))
    beat.qrs(0.30, 0.64, 1.0, field.see(0.75 * main * np.exp(rng.normal(0, 0.2, 3))))
    beat.st(field.see(-0.05 * main))
    beat.t_wave(field.see(-0.36 * main), width=1.2)
    return beat.shape()


def p_wave(rng: np.random.Generator, chest: Array, kind: str, width_ms: float) -> Shape:
    """P by itself; its onset lies at 0 ms."""
    field = LeadField(chest)
    size = float(1.15 * np.exp(rng.normal(0, 0.18)))
    sign = {"sinus": 1.0, "ectopic": float(rng.choice([-0.9, 0.65])), "retrograde": -0.9}[kind]
    right, left = np.array((0.04, 0.085, -0.055)), np.array((0.06, 0.06, 0.05))
    if kind != "sinus":
        right = right * (0.6, sign, 1.0)
        left = left * (0.6, sign, 1.0)
    # 6 ms of each foot cannot be seen
    corners = np.array(
        [(-6, 0.36 * width_ms, 0.36 * width_ms, 0.76 * width_ms),
         (0.24 * width_ms, 0.64 * width_ms, 0.64 * width_ms, width_ms + 6)]
    )  # fmt: skip
    vectors = size * np.stack([field.see(right), field.see(left)])
    return Shape(corners, np.zeros((2, 4)), vectors, width_ms, width_ms)
