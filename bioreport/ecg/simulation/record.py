"""One simulated ECG: rhythm, beats and noise put together, and the truth that follows from them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bioreport.ecg.leads import LEADS, LIMB_LEADS
from bioreport.ecg.simulation import acquisition, atria
from bioreport.ecg.simulation.ectopic import draw_ventricular, p_wave
from bioreport.ecg.simulation.judging import Morphology
from bioreport.ecg.simulation.morphology import draw_morphology
from bioreport.ecg.simulation.plan import (
    MORPHOLOGY,
    NO_BEATS,
    TECHNICAL,
    UNJUDGED,
    check_findings,
    draw_findings,
)
from bioreport.ecg.simulation.rhythm import Beat, Rhythm, draw_rhythm
from bioreport.ecg.simulation.waves import RATE, Array, Shape, draw_field, paint
from bioreport.ecg.simulation.wording import write_history, write_sections
from bioreport.findings import ECG_NAMES, absent_finding
from bioreport.simulation.canvas import Event

_TRIES = 200
PAUSE_SECONDS = 2.0
_IRREGULAR = ("atrial_fibrillation", "atrial_flutter")


@dataclass(frozen=True)
class TrueBeat:
    """A QRS complex in the recording: its onset and its largest deflection in seconds, and its kind."""

    onset_seconds: float
    peak_seconds: float
    kind: str


@dataclass
class EcgSimulation:
    """A simulated ECG and the truth about it.

    Attributes
    ----------
    data : float32 [12, T]
        mV, whole µV; the limb leads obey Einthoven's law to the last bit of their µV.
    sfreq : float
        500 Hz.
    leads : tuple of str
        `bioreport.ecg.leads.LEADS`.
    findings : list of dict
        Every finding of `ECG_FINDINGS`, present or not, in the shape of a report's findings. `value` is
        filled wherever the recording has one, also of findings that are absent: the ventricular rate, PR,
        QRS, QTc (Bazett), the longest RR, the axis, voltages and ST levels.
    events : list of Event
        When each present finding occurs.
    beats : tuple of TrueBeat
        Every QRS complex.
    history : str
    sections : dict of str to str
        The report.
    facts : dict
        ``rate_per_minute`` (mean over the recording), ``pr_ms``, ``qrs_ms``, ``qt_ms``, ``qtc_ms`` (Bazett),
        ``axis_degrees``, each None where the rhythm has none, and what a report says of kinds and places.
    sex : str
        ``"female"`` or ``"male"``.
    age : int
    """

    data: npt.NDArray[np.float32]
    sfreq: float
    leads: tuple[str, ...]
    findings: list[dict[str, Any]]
    events: list[Event]
    beats: tuple[TrueBeat, ...]
    history: str
    sections: dict[str, str]
    facts: dict[str, Any]
    sex: str
    age: int


def simulate_ecg(
    seed: int,
    *,
    duration_seconds: float | None = None,
    present: Iterable[str] | None = None,
    clean: bool = False,
) -> EcgSimulation:
    """Simulate one 12-lead ECG at 500 Hz; the same arguments give the same samples.

    Parameters
    ----------
    seed : int
    duration_seconds : float, optional
        10 s where not given.
    present : iterable of str, optional
        Exactly the findings to show, with what they imply (an infarct has ST elevation; without a rhythm it
        is sinus rhythm); drawn with their usual frequency where not given.
    clean : bool
        Without noise, wander and mains.

    Returns
    -------
    EcgSimulation

    Raises
    ------
    ValueError
        A finding is unknown or findings exclude each other, or the duration is below 10 s.

    Notes
    -----
    What is borderline to a reader is not simulated: a finding is either clearly there or clearly not (QTc
    below 440 or above 485 ms, ST elevation below 0.07 or above 0.13 mV, and so on).
    """
    duration = 10.0 if duration_seconds is None else float(duration_seconds)
    if duration < 10:
        raise ValueError(f"an ECG of {duration:g} s is too short to show findings; take 10 s or more")
    rng = np.random.default_rng([seed, 12])  # not the stream of the EEG of the same seed
    wanted = draw_findings(rng) if present is None else check_findings(present)
    rhythm, rate = _draw_rhythm(rng, wanted, duration)
    morphology = None
    if not wanted & UNJUDGED or "sinus_rhythm" in wanted:
        morphology = draw_morphology(rng, wanted, rate or 70.0)
    data, beats, moments = _paint(rng, wanted, rhythm, morphology, rate or 70.0, duration)

    if rhythm.facts.get("escape") == "ventricular":
        morphology = None  # no conducted beat is in the recording

    shown = _shown(wanted, morphology, beats, moments, duration)
    avoid = frozenset(lead for name in MORPHOLOGY & set(shown) for lead in shown[name][1])
    facts: dict[str, Any] = {
        "rate_per_minute": rate,
        "pr_ms": rhythm.pr_ms,
        "qrs_ms": None,
        "qt_ms": None,
        "qtc_ms": None,
        "axis_degrees": None,
        **(morphology.facts if morphology else {}),
        **rhythm.facts,
        "mains_hz": None,
    }
    if "limb_lead_reversal" in wanted:
        facts["swapped"] = acquisition.swap_limbs(rng, data)
        # the recorded axis is not the patient's
        facts["axis_degrees"] = None
        shown["limb_lead_reversal"] = (None, list(LIMB_LEADS), [(0.0, duration)])
    if not clean:
        noisy, facts["mains_hz"] = acquisition.add_noise(rng, data, wanted, avoid)
        if "noisy_lead" in wanted:
            shown["noisy_lead"] = (None, noisy, [(0.0, duration)])
    for name in ("baseline_wander", "mains_interference"):
        if name in wanted:
            shown[name] = (None, list(LEADS), [(0.0, duration)])
    counts = acquisition.to_counts(data)
    if "lead_off" in wanted:
        off = acquisition.disconnect(rng, counts, avoid | set(shown.get("noisy_lead", (None, [], []))[1]))
        shown["lead_off"] = (None, off, [(0.0, duration)])

    findings = _findings(shown, morphology, rhythm, rate, beats, facts)
    sex, age = str(rng.choice(["female", "male"])), int(rng.integers(18, 93))
    return EcgSimulation(
        data=(counts / 1000).astype(np.float32),
        sfreq=RATE,
        leads=LEADS,
        findings=findings,
        events=_events(shown),
        beats=tuple(beats),
        history=write_history(rng, age, sex),
        sections=write_sections(findings, facts, rng),
        facts=facts,
        sex=sex,
        age=age,
    )


_Shown = dict[str, tuple[float | None, list[str], list[tuple[float, float]]]]


def mean_rate(onsets: npt.NDArray[np.float64]) -> float | None:
    """Mean ventricular rate in /min between the first beat and the last."""
    return None if len(onsets) < 2 else float(60 * (len(onsets) - 1) / (onsets[-1] - onsets[0]))


def _draw_rhythm(
    rng: np.random.Generator, wanted: frozenset[str], duration: float
) -> tuple[Rhythm, float | None]:
    """Draw until rate, pauses and ectopic beats inside the recording are what is wanted."""
    for _ in range(_TRIES):
        rhythm = draw_rhythm(rng, wanted, duration)
        if wanted & NO_BEATS:
            return rhythm, None
        inside = [beat for beat in rhythm.beats if 0.0 <= beat.seconds < duration - 0.1]
        onsets = np.array([beat.seconds for beat in inside])
        rate = mean_rate(onsets)
        if rate is not None and _is_as_wanted(wanted, inside, onsets, rate, duration):
            return rhythm, rate
    raise ValueError(f"cannot be simulated in one recording: {', '.join(sorted(wanted))}")


def _is_as_wanted(
    wanted: frozenset[str], beats: list[Beat], onsets: npt.NDArray[np.float64], rate: float, duration: float
) -> bool:
    slow, fast = "bradycardia" in wanted, "tachycardia" in wanted
    if not (rate < 57 if slow else rate > 104 if fast else 62 < rate < 97):
        return False
    intervals = np.diff(onsets)
    longest = max(float(intervals.max()), float(onsets[0]), float(duration - onsets[-1]))
    if not (intervals.max() > PAUSE_SECONDS + 0.25 if "pause" in wanted else longest < PAUSE_SECONDS - 0.15):
        return False
    kinds = [beat.kind for beat in beats[1:-1]]
    for name, kind in (
        ("premature_atrial_contractions", "atrial"),
        ("premature_ventricular_contractions", "ventricular"),
    ):
        if name in wanted and kind not in kinds:
            return False
    if wanted & {"atrial_fibrillation", "pause"} or "ventricular_tachycardia" in wanted:
        return True
    normal = [
        gap for gap, a, b in zip(intervals, beats, beats[1:], strict=False) if a.kind == b.kind == "conducted"
    ]
    if "second_degree_av_block" in wanted or "atrial_flutter" in wanted:
        return True
    spread = float(np.ptp(normal)) if normal else 0.0
    if "sinus_arrhythmia" in wanted:
        return spread > 0.18
    return spread < 0.09


# ---- painting ----


def _paint(
    rng: np.random.Generator,
    wanted: frozenset[str],
    rhythm: Rhythm,
    morphology: Morphology | None,
    rate: float,
    duration: float,
) -> tuple[Array, list[TrueBeat], dict[str, list[tuple[float, float]]]]:
    """Base leads [8, T] without noise, the beats in them, and intervals of ectopic beats."""
    samples = round(duration * RATE)
    data = np.zeros((8, samples))
    chest = (morphology.lead_field if morphology else draw_field(rng)).chest
    qt = morphology.shape.qt_ms if morphology else 400.0
    shapes: dict[str, Shape] = {}
    if morphology:
        shapes["conducted"] = shapes["atrial"] = morphology.shape
    kinds = {beat.kind for beat in rhythm.beats}
    fast = 140.0 if "run" not in rhythm.facts else rhythm.facts["run_rate"]
    if "ventricular_tachycardia" in wanted:
        pace = fast if morphology else rate
        shapes["ventricular"] = draw_ventricular(rng, chest, pace, qt, "tachycardia")
    else:
        for kind in sorted(kinds & {"ventricular", "paced", "escape"}):
            shapes[kind] = draw_ventricular(rng, chest, rate, qt, kind)
    for kind in sorted({kind for _, kind in rhythm.p_waves}):
        width = float(rng.uniform(86, 112)) if rate < 130 else float(rng.uniform(76, 90))
        wave = p_wave(rng, chest, kind, width)
        for onset, this in rhythm.p_waves:
            if this == kind:
                paint(data, wave, onset, gain=1 + 0.04 * rng.standard_normal())
    if rhythm.fibrillation == "atrial":
        data += atria.fibrillatory_waves(rng, samples, chest) * (0.5 if "low_qrs_voltage" in wanted else 1.0)
    elif rhythm.fibrillation == "ventricular":
        data += atria.ventricular_fibrillation(rng, samples, chest)
    if rhythm.flutter_seconds is not None:
        first = rhythm.beats[0].seconds
        data += atria.flutter_waves(rng, samples, chest, rhythm.flutter_seconds, first)
    for onset in rhythm.spikes:
        atria.paint_spike(rng, data, onset)

    beats: list[TrueBeat] = []
    breath, phase = rng.uniform(0.18, 0.3), rng.uniform(0, 2 * np.pi)
    depth = rng.uniform(0.0, 0.06)
    moments: dict[str, list[tuple[float, float]]] = {}
    mean = 60 / rate
    previous = rhythm.beats[0].seconds - mean if rhythm.beats else 0.0
    slower = 0.12 if wanted & set(_IRREGULAR) else 0.2
    for beat in rhythm.beats:
        shape = shapes[beat.kind]
        interval = beat.seconds - previous
        # QT follows the cycle before it, not wholly
        factor = np.clip(interval / mean, 0.6, 1.5) ** slower
        this_qt = shape.qt_ms * float(factor) if beat.kind in ("conducted", "atrial") else shape.qt_ms
        gain = 1 + depth * np.sin(2 * np.pi * breath * beat.seconds + phase) + 0.01 * rng.standard_normal()
        paint(data, shape, beat.seconds, this_qt, float(gain))
        previous = beat.seconds
        if 0 <= beat.seconds < duration - 0.1:
            peak = beat.seconds + shape.peak_ms() / 1000
            beats.append(TrueBeat(beat.seconds, peak, beat.kind))
            moments.setdefault(beat.kind, []).append(
                (beat.seconds, min(duration, beat.seconds + shape.qrs_ms / 1000))
            )
    return data, beats, moments


# ---- truth ----


def _shown(
    wanted: frozenset[str],
    morphology: Morphology | None,
    beats: list[TrueBeat],
    moments: dict[str, list[tuple[float, float]]],
    duration: float,
) -> _Shown:
    """Value, leads and intervals of each finding in the signal before acquisition."""
    whole = [(0.0, duration)]
    shown: _Shown = {}
    for name in wanted - MORPHOLOGY - TECHNICAL:
        intervals = whole
        if name == "premature_atrial_contractions":
            intervals = moments["atrial"]
        elif name == "premature_ventricular_contractions" or (
            name == "ventricular_tachycardia" and morphology
        ):
            intervals = moments["ventricular"]
            if name == "ventricular_tachycardia":
                intervals = [(intervals[0][0], intervals[-1][1])]
        elif name == "pause":
            onsets = np.array([beat.onset_seconds for beat in beats])
            at = int(np.argmax(np.diff(onsets)))
            intervals = [(float(onsets[at]), float(onsets[at + 1]))]
        shown[name] = (None, [], intervals)
    if morphology:
        for name, (value, leads) in morphology.findings.items():
            shown[name] = (value, leads, whole)
    return shown


def _findings(
    shown: _Shown,
    morphology: Morphology | None,
    rhythm: Rhythm,
    rate: float | None,
    beats: list[TrueBeat],
    facts: dict[str, Any],
) -> list[dict[str, Any]]:
    values: dict[str, float | None] = dict(morphology.values) if morphology else {}
    if facts["axis_degrees"] is None:
        values["left_axis_deviation"] = values["right_axis_deviation"] = None
    values["bradycardia"] = values["tachycardia"] = rate
    values["sinus_rhythm"] = rate if "sinus_rhythm" in shown else None
    tachycardia = facts.get("run_rate", rate)
    for name in ("ventricular_tachycardia", "supraventricular_tachycardia"):
        values[name] = tachycardia if name in shown else None
    onsets = np.array([beat.onset_seconds for beat in beats])
    values["pause"] = float(np.diff(onsets).max()) if len(onsets) > 1 else None
    values["first_degree_av_block"] = rhythm.pr_ms
    findings = []
    for name in ECG_NAMES:
        entry = absent_finding(name)
        value = values.get(name)
        if entry["unit"] is not None and value is not None:
            entry["value"] = round(
                float(value), 3 if entry["unit"] == "mV" else 2 if entry["unit"] == "s" else 1
            )
        if name in shown:
            _, leads, intervals = shown[name]
            entry.update(
                present=True,
                channels=list(leads),
                start_seconds=round(min(a for a, _ in intervals), 3),
                end_seconds=round(max(b for _, b in intervals), 3),
            )
        findings.append(entry)
    return findings


def _events(shown: _Shown) -> list[Event]:
    events = [
        Event(name, round(start, 3), round(end, 3), tuple(leads))
        for name, (_, leads, intervals) in shown.items()
        for start, end in intervals
    ]
    return sorted(events, key=lambda event: (event.start_seconds, event.name))
