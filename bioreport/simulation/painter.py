"""What is painted for each finding of a plan: brain, look-alikes, artifacts, or only loose electrodes."""

from typing import Any

import numpy as np

from bioreport.simulation import artifacts, background, epileptiform
from bioreport.simulation.canvas import Canvas
from bioreport.simulation.plan import Plan

_FOCI = (
    "F3",
    "F4",
    "F7",
    "F8",
    "T3",
    "T4",
    "T3",
    "T4",
    "T5",
    "T6",
    "C3",
    "C4",
    "P3",
    "P4",
    "O1",
    "O2",
    "F7",
    "F8",
)


def paint_brain(canvas: Canvas, plan: Plan) -> dict[str, Any] | None:
    rng, present = canvas.rng, plan.present
    if "burst_suppression" in present:
        epileptiform.burst_suppression(canvas)
        return None
    if rng.random() < 0.6:
        background.beta(canvas)
    rhythm = None
    if "posterior_dominant_rhythm" in present and plan.alpha:
        rhythm = _paint_alpha(canvas, plan)
    if plan.drowsy:
        background.drowsiness(canvas, [plan.drowsy])
    if plan.asleep:
        background.sleep(canvas, plan.asleep)
    if "generalized_slowing" in present:
        background.generalized_slowing(canvas, [(0.0, canvas.duration)])
    focus = str(rng.choice([name for name in _FOCI if name in canvas.names] or ["F3"]))
    whole = (0.0, canvas.duration)
    before = (0.0, plan.seizure[0]) if plan.seizure and plan.seizure[0] > 15 else whole
    if "focal_slowing" in present:
        background.focal_slowing(canvas, focus, _patches(canvas))
    if "focal_epileptiform_discharges" in present:
        count = max(4, round((before[1] - before[0]) / rng.uniform(3.5, 10.0)))
        epileptiform.focal_discharges(canvas, focus, before, count)
    if "generalized_spike_wave" in present:
        count = max(2, round((before[1] - before[0]) / rng.uniform(12.0, 30.0)))
        epileptiform.generalized_spike_wave(canvas, before, count)
    if plan.seizure:
        canvas.data *= 1 - 0.5 * canvas.gate([plan.seizure], 1.0)
        focal = bool(rng.random() < 0.75) or "focal_slowing" in present
        if "generalized_spike_wave" in present:
            focal = False
        epileptiform.seizure(canvas, plan.seizure, focus if focal else None)
    return rhythm


def _patches(canvas: Canvas) -> list[tuple[float, float]]:
    """Continuous, or several stretches that fill at least half of the recording."""
    if canvas.rng.random() < 0.5:
        return [(0.0, canvas.duration)]
    length = canvas.rng.uniform(6.0, 14.0)
    count = max(1, int(canvas.duration * 0.6 / length))
    return [(at, at + length) for at in canvas.place(count, 0.0, canvas.duration, length, length + 1.0)]


def _paint_alpha(canvas: Canvas, plan: Plan) -> dict[str, Any]:
    """Paint the posterior rhythm and return what a measurement of it should give."""
    rng = canvas.rng
    asymmetric = "posterior_asymmetry" in plan.present
    slowed = "generalized_slowing" in plan.present
    frequency = float(
        np.clip(rng.normal(7.4, 0.6), 6.4, 8.6) if slowed else np.clip(rng.normal(9.8, 1.1), 8.0, 12.5)
    )
    rms = float(rng.uniform(9, 26))
    if rng.random() < 0.05:
        rms = float(rng.uniform(28, 38))
    rms = max(rms, (2.2 if asymmetric or slowed else 1.6) * canvas.level)
    lower = str(rng.choice(["left", "right"])) if asymmetric else None
    kept = canvas.data.copy()
    events = list(canvas.events)
    for _ in range(6):
        wave = background.posterior_rhythm(canvas, frequency, rms, plan.alpha, lower)
        ratios = {side: background.side_ratio(canvas, wave, side) for side in ("left", "right")}
        weakest = min(ratios.values())
        # the grey zone between an unequal and an equal rhythm is left empty
        if (asymmetric and ratios[lower or "left"] < 0.45) or (not asymmetric and weakest > 0.78):
            break
        canvas.data[:] = kept
        canvas.events[:] = events
    else:
        raise RuntimeError("the posterior rhythm could not be given the asymmetry that was asked for")
    shown = canvas.referenced(wave)
    on = canvas.gate(plan.alpha) > 0.5
    p2p = {name: 2 * 2**0.5 * float(np.std(shown[canvas.names.index(name)][on])) for name in ("O1", "O2")}
    if asymmetric:
        start, end = plan.alpha[0][0], plan.alpha[-1][1]
        side = [name for name in ("O1", "P3", "T5") if lower == "left"] or ["O2", "P4", "T6"]
        canvas.mark("posterior_asymmetry", start, end, [name for name in side if name in canvas.recorded])
    return {
        "frequency_hz": round(frequency, 1),
        "amplitude_uv": round((p2p["O1"] + p2p["O2"]) / 2, 1),
        "left_amplitude_uv": round(p2p["O1"], 1),
        "right_amplitude_uv": round(p2p["O2"], 1),
        "asymmetry_percent": round(100 * (1 - min(ratios.values())), 1),
        "lower_side": lower or ("left" if p2p["O1"] < p2p["O2"] else "right"),
    }


def paint_variants(canvas: Canvas, plan: Plan, low_pass: float | None) -> None:
    """Add what is no finding but looks like one."""
    rng = canvas.rng
    if "burst_suppression" not in plan.present:
        if rng.random() < 0.12:
            artifacts.mu_rhythm(canvas)
        if rng.random() < 0.06:
            artifacts.wicket_spikes(canvas)
        if rng.random() < 0.06:
            artifacts.temporal_theta(canvas)
        if rng.random() < 0.07:
            artifacts.theta_bursts(canvas)
        if plan.eyes_open and rng.random() < 0.3:
            artifacts.lambda_waves(canvas)
    if rng.random() < 0.12:
        artifacts.pulse(canvas)
    if rng.random() < 0.08:
        artifacts.sweat(canvas)
    if rng.random() < 0.06:
        artifacts.movement(canvas)
    if "muscle_artifact" in plan.present and rng.random() < 0.25:
        artifacts.chewing(canvas, low_pass)


def paint_artifacts(canvas: Canvas, plan: Plan, recorded: tuple[str, ...], low_pass: float | None) -> None:
    rng, present = canvas.rng, plan.present
    whole = (0.0, canvas.duration)
    if "eye_blink_artifact" in present:
        open_eyes = [(a, b) for a, b in plan.eyes_open if b - a > 5]
        artifacts.blinks(canvas, open_eyes or [whole])
    if "muscle_artifact" in present:
        length = rng.uniform(2.0, 8.0)
        count = max(2, round(canvas.duration / rng.uniform(10, 30)))
        onsets = canvas.place(count, *whole, length, length + 0.5)
        artifacts.muscle(canvas, [(at, at + length) for at in onsets or [0.0]], low_pass)
    if "electrode_artifact" in present:
        names = rng.permutation([name for name in recorded if name not in ("A1", "A2")])[
            : int(rng.integers(1, 4))
        ]
        artifacts.electrode_pops(
            canvas, names.tolist(), whole, max(4, round(canvas.duration / rng.uniform(4, 12)))
        )


def paint_failure(canvas: Canvas) -> None:
    """Replace the brain by what loose electrodes record: drifts, steps, each for itself."""
    rng = canvas.rng
    steps = rng.standard_normal(canvas.data.shape, dtype=np.float32)
    canvas.data[:] = np.cumsum(steps, axis=1) * np.float32(
        np.exp(rng.uniform(-3.0, 1.5)) * np.sqrt(200 / canvas.sfreq)
    )
    canvas.data -= canvas.data.mean(axis=1, keepdims=True)
