"""Simulated EEG recordings with known findings, and the reports that state them.

The signals imitate the files hospitals keep: spelling of labels, montages, references, amplifier filters,
mains, artifacts. They are made from sources with smooth fields on a sphere. They are no patient's data.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.fft

from bioreport.findings import BY_NAME, EEG_NAMES, absent_finding
from bioreport.simulation import artifacts, background, epileptiform, montages
from bioreport.simulation.canvas import Canvas, Event, Floats
from bioreport.simulation.corpus import simulate_corpus, write_edf
from bioreport.simulation.plan import Plan, check_findings, draw_findings, draw_plan

__all__ = ["Event", "Simulation", "simulate_corpus", "simulate_eeg", "write_edf"]

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
_EDGE_UV = 3276.0  # full scale of a common amplifier


@dataclass
class Simulation:
    """A simulated recording and the truth about it.

    Attributes
    ----------
    data : float32 [C, T]
        EEG channels, µV.
    sfreq : float
        Hz.
    labels : tuple of str
        Labels of the C channels as the file spells them.
    names : tuple of str
        Canonical names of the C channels.
    findings : list of dict
        Every finding of `EEG_FINDINGS`, present or not, in the shape of a report's findings.
    events : list of Event
        When each present finding occurs.
    history : str
        Clinical history, as a referral states it.
    sections : dict of str to str
        The report.
    facts : dict
        What a measurement of the signal should give: ``posterior_rhythm``, ``mains``.
    line_frequency : float
        Mains of the place, 50 or 60 Hz, visible or not.
    reference : str
        ``"linked"``, ``"average"``, ``"C3C4"`` or an electrode.
    extras : dict of str to float32 [T]
        Further, non-EEG channels by label, µV.
    """

    data: Floats
    sfreq: float
    labels: tuple[str, ...]
    names: tuple[str, ...]
    findings: list[dict[str, Any]]
    events: list[Event]
    history: str
    sections: dict[str, str]
    facts: dict[str, Any]
    line_frequency: float
    reference: str
    extras: dict[str, Floats] = field(default_factory=dict)


def simulate_eeg(
    seed: int,
    *,
    duration_seconds: float | None = None,
    sfreq: float | None = None,
    present: Iterable[str] | None = None,
) -> Simulation:
    """Simulate one recording; the same arguments give the same samples.

    Parameters
    ----------
    seed : int
    duration_seconds : float, optional
        Drawn between 30 and 180 s where not given.
    sfreq : float, optional
        Hz; drawn from the rates of the drawn file family where not given.
    present : iterable of str, optional
        Exactly the findings to show; drawn with their usual frequency where not given.

    Returns
    -------
    Simulation

    Raises
    ------
    ValueError
        A finding is unknown or findings exclude each other, or the duration is below 10 s.
    """
    rng = np.random.default_rng(seed)
    style = montages.draw_style(rng)
    rate = float(sfreq if sfreq is not None else rng.choice(style.rates))
    drawn = rng.uniform(40, 180) if rng.random() < 0.85 else rng.uniform(30, 60)
    duration = float(duration_seconds if duration_seconds is not None else round(drawn))
    if duration < 10:
        raise ValueError(f"a recording of {duration:g} s is too short to show findings; take 10 s or more")
    if present is None:
        findings, junk = draw_findings(rng, duration)
    else:
        findings, junk = check_findings(present), False
    plan = draw_plan(rng, duration, findings, junk=junk)

    recorded = _drop_electrodes(rng, style.names, plan)
    electrodes = tuple(dict.fromkeys((*style.names, "A1", "A2", "C3", "C4", "Cz", "Fp1", "O1", "O2")))
    level = float(np.exp(rng.normal(np.log(9.0), 0.35)))
    samples = round(duration * rate)
    data = background.coloured_noise(rng, electrodes, samples, rate, level)
    canvas = Canvas(rng, rate, electrodes, frozenset(recorded), data, level)
    amplifier = montages.draw_amplifier(rng, rate, shows_mains="mains_noise" in findings)
    reference = str(rng.choice(style.references))
    subtract = montages.reference_members(electrodes, reference)
    line = float(rng.choice([50.0, 60.0]))

    facts: dict[str, Any] = {"posterior_rhythm": None, "mains": None, "duration_seconds": duration}
    if junk:
        _paint_failure(canvas)
    else:
        facts["posterior_rhythm"] = _paint_brain(canvas, plan, subtract)
        _paint_variants(canvas, plan, amplifier.low_pass)
    _paint_artifacts(canvas, plan, recorded, amplifier.low_pass)

    data, ratio = _acquire(canvas, subtract, recorded, amplifier, line, visible="mains_noise" in findings)
    if "mains_noise" in findings:
        facts["mains"] = {"frequency_hz": line, "ratio": ratio, "channels": list(recorded)}
        canvas.mark("mains_noise", 0.0, duration, recorded)
    if "bad_electrode" in findings:
        _break_electrodes(canvas, data, recorded, plan)
    np.clip(data, -_EDGE_UV, _EDGE_UV, out=data)

    truth = _truth(canvas.events, facts)
    from bioreport.wording import write_history, write_sections

    return Simulation(
        data=data,
        sfreq=rate,
        labels=tuple(style.label(name) for name in recorded),
        names=recorded,
        findings=truth,
        events=sorted(canvas.events, key=lambda event: (event.start_seconds, event.name)),
        history=write_history(rng),
        sections=write_sections(truth, facts, rng),
        facts=facts,
        line_frequency=line,
        reference=reference,
        extras=_extras(canvas, style.extras),
    )


def _drop_electrodes(rng: np.random.Generator, names: tuple[str, ...], plan: Plan) -> tuple[str, ...]:
    """Leave a few electrodes out of the file, as real ones are; never those a finding rests on."""
    if rng.random() > 0.22:
        return names
    needed = {
        "O1",
        "O2",
        "P3",
        "P4",
        "T5",
        "T6",
        "Fp1",
        "Fp2",
        "C3",
        "C4",
        "Cz",
        "F7",
        "F8",
        "T3",
        "T4",
        "F3",
        "F4",
    }
    free = [name for name in names if name not in needed]
    gone = set(rng.permutation(free)[: int(rng.integers(1, 4))].tolist()) if free else set()
    return tuple(name for name in names if name not in gone)


def _paint_brain(canvas: Canvas, plan: Plan, subtract: Any) -> dict[str, Any] | None:
    rng, present = canvas.rng, plan.present
    if "burst_suppression" in present:
        epileptiform.burst_suppression(canvas)
        return None
    if rng.random() < 0.6:
        background.beta(canvas)
    rhythm = None
    if "posterior_dominant_rhythm" in present and plan.alpha:
        rhythm = _paint_alpha(canvas, plan, subtract)
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


def _paint_alpha(canvas: Canvas, plan: Plan, subtract: Any) -> dict[str, Any]:
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
    rms = max(rms, (2.2 if asymmetric or slowed else 1.2) * canvas.level)
    lower = str(rng.choice(["left", "right"])) if asymmetric else None
    kept = canvas.data.copy()
    events = list(canvas.events)
    for _ in range(6):
        wave = background.posterior_rhythm(canvas, frequency, rms, plan.alpha, lower)
        ratios = {
            side: background.referenced_ratio(wave, canvas.names, subtract, side)
            for side in ("left", "right")
        }
        weakest = min(ratios.values())
        # the grey zone between an unequal and an equal rhythm is left empty
        if (asymmetric and ratios[lower or "left"] < 0.45) or (not asymmetric and weakest > 0.78):
            break
        canvas.data[:] = kept
        canvas.events[:] = events
    else:
        raise RuntimeError("the posterior rhythm could not be given the asymmetry that was asked for")
    shown = wave - wave[subtract].mean(axis=0)
    on = canvas.gate(plan.alpha) > 0.5
    p2p = {name: 2 * np.sqrt(2) * float(np.std(shown[canvas.names.index(name)][on])) for name in ("O1", "O2")}
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


def _paint_variants(canvas: Canvas, plan: Plan, low_pass: float | None) -> None:
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


def _paint_artifacts(canvas: Canvas, plan: Plan, recorded: tuple[str, ...], low_pass: float | None) -> None:
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


def _paint_failure(canvas: Canvas) -> None:
    """Replace the brain by what loose electrodes record: drifts, steps, each for itself."""
    rng = canvas.rng
    steps = rng.standard_normal(canvas.data.shape, dtype=np.float32)
    canvas.data[:] = np.cumsum(steps, axis=1) * np.float32(
        np.exp(rng.uniform(-3.0, 1.5)) * np.sqrt(200 / canvas.sfreq)
    )
    canvas.data -= canvas.data.mean(axis=1, keepdims=True)


def _acquire(
    canvas: Canvas,
    subtract: Any,
    recorded: tuple[str, ...],
    amplifier: montages.Amplifier,
    line: float,
    *,
    visible: bool,
) -> tuple[Floats, float]:
    """Reference, filter and add amplifier noise and mains: float32 [C, T], and mains over its neighbours."""
    rng, n, sfreq = canvas.rng, canvas.n, canvas.sfreq
    rows = [canvas.names.index(name) for name in recorded]
    data = canvas.data[rows] - canvas.data[subtract].mean(axis=0)
    size = scipy.fft.next_fast_len(n, real=True)
    spectrum = scipy.fft.rfft(data, size, axis=1)
    bins = (np.arange(spectrum.shape[1]) * (sfreq / size)).astype(np.float32)
    data = scipy.fft.irfft(spectrum * amplifier.response(bins, line), size, axis=1)[:, :n].astype(np.float32)
    data += rng.standard_normal(data.shape, dtype=np.float32) * np.float32(amplifier.noise)
    near = (np.abs(bins - line) > 1.5) & (np.abs(bins - line) < 5.0)
    density = np.mean(np.abs(spectrum[:, near]) ** 2, axis=1) * (2.0 / (sfreq * size))
    floor = np.sqrt(density + 2.0 * amplifier.noise**2 / sfreq)  # µV/√Hz
    if visible:
        rms = np.maximum(
            float(np.exp(rng.uniform(np.log(4.0), np.log(40.0)))) * np.exp(rng.normal(0, 0.4, len(rows))),
            9 * floor,
        )
    elif line < 0.48 * sfreq and not amplifier.notch and (amplifier.low_pass or 100.0) > line:
        rms = floor * rng.uniform(0.0, 0.5)
    else:
        return data, 1.0
    wave = np.sin(
        2 * np.pi * (line * (1 + rng.normal(0, 2e-4))) * np.arange(n) / sfreq + rng.uniform(0, 6.28)
    )
    data += (np.sqrt(2) * rms).astype(np.float32)[:, None] * wave.astype(np.float32)
    return data, round(float(np.median((rms / floor) ** 2)), 1)


def _break_electrodes(canvas: Canvas, data: Floats, recorded: tuple[str, ...], plan: Plan) -> None:
    rng = canvas.rng
    needed = {"O1", "O2", "P3", "P4", "T5", "T6", "Fp1", "Fp2", "A1", "A2"}
    for event in canvas.events:
        if event.name in ("focal_slowing", "focal_epileptiform_discharges", "seizure", "electrode_artifact"):
            needed.update(event.channels[:3])
    free = [i for i, name in enumerate(recorded) if name not in needed] or [0]
    rows = rng.permutation(free)[: int(rng.integers(1, 4))].tolist()
    typical = float(np.median(np.std(data, axis=1)))
    artifacts.break_electrodes(data, rows, rng, canvas.sfreq, typical)
    canvas.mark("bad_electrode", 0.0, canvas.duration, [recorded[row] for row in rows])


def _extras(canvas: Canvas, labels: tuple[str, ...]) -> dict[str, Floats]:
    extras: dict[str, Floats] = {}
    for label in labels:
        if "ECG" in label or "EKG" in label:
            extras[label] = artifacts.heartbeat(canvas) * np.float32(600)
        else:
            extras[label] = canvas.band_noise(0.5, 30.0) * np.float32(canvas.rng.uniform(2, 30))
    return extras


def _truth(events: list[Event], facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Every finding, present where an event of it was painted, with its extent."""
    truth = []
    for name in EEG_NAMES:
        entry = absent_finding(name)
        mine = [event for event in events if event.name == name]
        if mine:
            channels = dict.fromkeys(channel for event in mine for channel in event.channels)
            entry.update(
                present=True,
                channels=list(channels),
                start_seconds=min(event.start_seconds for event in mine),
                end_seconds=max(event.end_seconds for event in mine),
            )
            if BY_NAME[name].unit == "Hz":
                entry["value"] = facts["posterior_rhythm"]["frequency_hz"]
        truth.append(entry)
    return truth
