"""When the atria and the ventricles beat: sequences of beats for each rhythm."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

LEAD_IN = 2.0  # s of rhythm before and after the recording, so that its edges cut beats like any other


@dataclass(frozen=True)
class Beat:
    """One QRS complex.

    Attributes
    ----------
    seconds : float
        Onset of QRS from the start of the recording.
    kind : str
        ``"conducted"``, ``"atrial"`` (premature), ``"ventricular"`` (premature or of a tachycardia),
        ``"paced"`` or ``"escape"``.
    """

    seconds: float
    kind: str = "conducted"


@dataclass
class Rhythm:
    """Events of a recording, in seconds from its start; some lie before it and after it.

    Attributes
    ----------
    beats : list of Beat
        In order of time.
    p_waves : list of (float, str)
        Onset and kind: ``"sinus"``, ``"ectopic"``, ``"retrograde"``.
    spikes : list of float
        Pacing stimuli.
    fibrillation : str or None
        ``"atrial"`` or ``"ventricular"``.
    flutter_seconds : float or None
        Length of a flutter wave.
    pr_ms : float or None
        PR of a conducted sinus beat, the first of a Wenckebach cycle.
    facts : dict
        What a report says beyond the findings: kind of block, conduction ratio, pattern of ectopy.
    """

    beats: list[Beat] = field(default_factory=list)
    p_waves: list[tuple[float, str]] = field(default_factory=list)
    spikes: list[float] = field(default_factory=list)
    fibrillation: str | None = None
    flutter_seconds: float | None = None
    pr_ms: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def draw_rhythm(rng: np.random.Generator, present: frozenset[str], duration: float) -> Rhythm:
    """Draw the beats of a recording that shows exactly the rhythm findings in `present`."""
    if "ventricular_fibrillation" in present:
        return Rhythm(fibrillation="ventricular")
    if "asystole" in present:
        return _asystole(rng, duration)
    if "atrial_fibrillation" in present:
        rhythm = _fibrillation(rng, present, duration)
    elif "atrial_flutter" in present:
        rhythm = _flutter(rng, present, duration)
    elif "supraventricular_tachycardia" in present:
        rhythm = _supraventricular(rng, duration)
    elif "paced_rhythm" in present:
        rhythm = _paced(rng, present, duration)
    elif "complete_av_block" in present:
        rhythm = _complete_block(rng, duration)
    elif "sinus_rhythm" in present:
        rhythm = _sinus(rng, present, duration)
    else:
        rhythm = _ventricular(rng, duration)
    if "premature_ventricular_contractions" in present and "sinus_rhythm" not in present:
        _extrasystoles(rng, rhythm, duration)
    rhythm.beats.sort(key=lambda beat: beat.seconds)
    return rhythm


def draw_rate(rng: np.random.Generator, present: frozenset[str], normal: tuple[float, float]) -> float:
    """A rate in /min that is clearly slow, fast, or neither."""
    if "bradycardia" in present:
        # the pause behind an extrasystole stays shorter than a sinus pause
        slowest = 49 if "premature_ventricular_contractions" in present else 38
        return float(rng.uniform(slowest, 55))
    if "tachycardia" in present:
        return float(rng.uniform(106, 150))
    return float(rng.uniform(*normal))


def _asystole(rng: np.random.Generator, duration: float) -> Rhythm:
    rhythm = Rhythm(facts={"p_waves": bool(rng.random() < 0.25)})
    if rhythm.facts["p_waves"]:  # ventricular standstill: the atria go on
        rhythm.p_waves = [
            (float(t), "sinus") for t in _regular(rng, 60 / rng.uniform(50, 95), 0.02, duration)
        ]
    return rhythm


def _regular(rng: np.random.Generator, interval: float, jitter: float, duration: float) -> np.ndarray:
    """Times from before the recording to after it; `jitter` is the interval's relative deviation."""
    count = int((duration + 2 * LEAD_IN) / interval) + 3
    intervals = interval * (1 + jitter * rng.standard_normal(count).clip(-2.5, 2.5))
    times = -LEAD_IN - rng.uniform(0, interval) + np.cumsum(intervals)
    return times[times < duration + LEAD_IN]


def _sinus(rng: np.random.Generator, present: frozenset[str], duration: float) -> Rhythm:
    run = "ventricular_tachycardia" in present
    blocked = "second_degree_av_block" in present
    rate = draw_rate(rng, present, (68.0, 88.0) if run or "pause" in present else (63.5, 96.0))
    if blocked and "bradycardia" not in present:
        rate = float(rng.uniform(84, 96))
    if blocked and "bradycardia" in present:
        rate = float(rng.uniform(70, 84))
    if "sinus_arrhythmia" in present and "bradycardia" not in present:
        rate = min(rate, 88.0)
    rhythm = Rhythm()
    longest = 330.0 if rate < 90 else 260.0 if rate < 125 else 235.0
    first = "first_degree_av_block" in present
    pr = rng.uniform(225, longest) if first else rng.uniform(122, min(185.0, 40_000 / rate))
    rhythm.pr_ms = float(pr)
    interval = 60 / rate
    times = _respiratory(rng, interval, "sinus_arrhythmia" in present, duration)
    if blocked:
        _second_degree(rng, rhythm, times, slow="bradycardia" in present)
        return rhythm
    if "pause" in present:
        times = _paused(rng, rhythm, times, duration)
    early = "premature_atrial_contractions" in present
    late = "premature_ventricular_contractions" in present
    kinds = _place_ectopics(rng, rhythm, times, duration, early, late)
    if run:
        _insert_run(rng, rhythm, times, duration)
        return rhythm
    shift = 0.0
    for i, t in enumerate(times):
        kind = kinds.get(i, "conducted")
        if kind == "atrial":
            # the sinus node is reset: the cycle starts anew from the early P
            t0 = t + shift
            lead = interval * rng.uniform(0.28, 0.42)
            early_pr = pr * rng.uniform(0.95, 1.1)
            rhythm.p_waves.append((t0 - lead - early_pr / 1000, "ectopic"))
            rhythm.beats.append(Beat(t0 - lead, "atrial"))
            shift -= lead - interval * rng.uniform(0.0, 0.1)
        elif kind == "ventricular":
            # the sinus node goes on, its impulse finds the ventricles refractory: a full pause
            rhythm.beats.append(Beat(t + shift - interval * rng.uniform(0.28, 0.42), "ventricular"))
        else:
            rhythm.p_waves.append((t + shift - pr / 1000, "sinus"))
            rhythm.beats.append(Beat(t + shift))
    return rhythm


def _respiratory(rng: np.random.Generator, interval: float, marked: bool, duration: float) -> np.ndarray:
    """Sinus beats whose intervals follow respiration, by 0.16 s or more peak to peak where `marked`."""
    if marked:
        swing = rng.uniform(0.11, 0.18) * min(max(interval / 0.85, 0.95), 1.3)
    else:
        swing = rng.uniform(0.002, 0.02)
    breath, phase = rng.uniform(0.17, 0.28), rng.uniform(0, 2 * np.pi)
    t, times = -LEAD_IN - rng.uniform(0, interval), []
    while t < duration + LEAD_IN:
        times.append(t)
        wave = np.sin(2 * np.pi * breath * t + phase)
        t += interval + swing * wave + 0.005 * float(np.clip(rng.standard_normal(), -2, 2))
    return np.array(times)


def _second_degree(rng: np.random.Generator, rhythm: Rhythm, times: np.ndarray, *, slow: bool) -> None:
    kind = "2:1" if slow else str(rng.choice(["type I", "type II"]))
    cycle = 2 if kind == "2:1" else int(rng.integers(4, 7))
    pr = float(rng.uniform(150, 195)) if kind != "type I" else float(rng.uniform(145, 190))
    # the first step of a Wenckebach cycle is the longest
    steps = np.cumsum([0.0, *(rng.uniform(60, 80) * 0.6**i for i in range(cycle))])
    offset = int(rng.integers(cycle))
    rhythm.pr_ms = pr
    rhythm.facts["block"] = kind
    for i, t in enumerate(times):
        place = (i + offset) % cycle
        onset = t - pr / 1000
        rhythm.p_waves.append((onset, "sinus"))
        if place < cycle - 1:
            longer = steps[place] if kind == "type I" else 0.0
            rhythm.beats.append(Beat(t + longer / 1000))


def _paused(rng: np.random.Generator, rhythm: Rhythm, times: np.ndarray, duration: float) -> np.ndarray:
    """Sinus arrest: everything from one beat on comes later."""
    inside = np.flatnonzero((times > 1.0) & (times < duration - 5.0))
    at = int(rng.choice(inside)) if len(inside) else int(np.searchsorted(times, 0.5))
    longer = times.copy()
    longer[at:] += rng.uniform(2.4, 3.8) - (times[at] - times[at - 1])
    return longer


def _place_ectopics(
    rng: np.random.Generator, rhythm: Rhythm, times: np.ndarray, duration: float, early: bool, late: bool
) -> dict[int, str]:
    """Which beats come early, never two in a row and with at least one of each kind well inside."""
    kinds: dict[int, str] = {}
    gaps = np.diff(times, prepend=times[0] - 1)
    usable = [
        i for i in range(2, len(times) - 2)
        if 1.0 < times[i] < duration - 2.0 and max(gaps[i], gaps[i + 1]) < 1.65
    ]  # fmt: skip
    if late and rng.random() < 0.2:
        rhythm.facts["ectopy"] = "bigeminy"
        return {i: "ventricular" for i in usable[:: 2 if not early else 4]} | (
            {i: "atrial" for i in usable[2::4]} if early else {}
        )
    for kind, wanted in (("atrial", early), ("ventricular", late)):
        if not wanted:
            continue
        count = max(1, int(rng.poisson(0.17 * duration)))
        free = [i for i in usable if not {i - 1, i, i + 1, i - 2} & set(kinds)]
        for i in rng.permutation(free)[:count]:
            if not {int(i) - 1, int(i) + 1} & set(kinds):
                kinds[int(i)] = kind
    return kinds


def _insert_run(rng: np.random.Generator, rhythm: Rhythm, times: np.ndarray, duration: float) -> None:
    """A non-sustained ventricular tachycardia of five beats or more between sinus beats."""
    interval = 60 / rng.uniform(140, 200)
    count = int(rng.integers(5, 10))
    start = rng.uniform(1.5, max(1.6, duration - count * interval - 2.5))
    begin = times[times < start].max() + 0.55 * float(np.median(np.diff(times)))
    run = begin + interval * np.arange(count)
    assert rhythm.pr_ms is not None
    shift = float(run[-1] + rng.uniform(0.9, 1.15) - times[times > begin].min())
    for t in [*times[times < begin], *(times[times > begin] + shift)]:
        rhythm.p_waves.append((float(t) - rhythm.pr_ms / 1000, "sinus"))
        rhythm.beats.append(Beat(float(t)))
    rhythm.beats += [Beat(float(t), "ventricular") for t in run]
    rhythm.facts["run"] = count
    rhythm.facts["run_rate"] = 60 / interval


def _fibrillation(rng: np.random.Generator, present: frozenset[str], duration: float) -> Rhythm:
    interval = 60 / draw_rate(rng, present, (66.0, 92.0))
    spread = rng.uniform(0.18, 0.27)
    rhythm = Rhythm(fibrillation="atrial")
    count = int((duration + 2 * LEAD_IN) / interval * 1.6) + 8
    while True:
        intervals = interval * np.exp(spread * rng.standard_normal(count) - spread**2 / 2)
        intervals = intervals.clip(max(0.29, 0.45 * interval), 1.75)
        times = -LEAD_IN - rng.uniform(0, interval) + np.cumsum(intervals)
        inside = times[(times >= 0) & (times < duration)]
        if len(inside) > 3 and np.std(np.diff(inside)) / np.mean(np.diff(inside)) > 0.14:
            break
    rhythm.beats = [Beat(float(t)) for t in times[times < duration + LEAD_IN]]
    return rhythm


def _flutter(rng: np.random.Generator, present: frozenset[str], duration: float) -> Rhythm:
    if "tachycardia" in present:
        wave, ratios = rng.uniform(0.19, 0.245), [2]
    else:
        wave, ratios = (
            (rng.uniform(0.19, 0.23), [4]) if rng.random() < 0.6 else (rng.uniform(0.19, 0.215), [2, 4, 4, 3])
        )
    rhythm = Rhythm(flutter_seconds=float(wave))
    rhythm.facts["conduction"] = f"{ratios[0]}:1" if len(ratios) == 1 else "variable"
    t = -LEAD_IN - rng.uniform(0, wave)
    while t < duration + LEAD_IN:
        rhythm.beats.append(Beat(float(t)))
        t += wave * int(rng.choice(ratios))
    return rhythm


def _supraventricular(rng: np.random.Generator, duration: float) -> Rhythm:
    interval = 60 / rng.uniform(156, 215)
    times = _regular(rng, interval, 0.004, duration)
    rhythm = Rhythm(beats=[Beat(float(t)) for t in times])
    if rng.random() < 0.5:  # the atria are excited backwards, just behind QRS
        rhythm.p_waves = [(float(t) + rng.uniform(0.085, 0.088), "retrograde") for t in times]
    return rhythm


def _ventricular(rng: np.random.Generator, duration: float) -> Rhythm:
    times = _regular(rng, 60 / rng.uniform(135, 215), 0.008, duration)
    rhythm = Rhythm(beats=[Beat(float(t), "ventricular") for t in times])
    if rng.random() < 0.6:  # the atria keep their own time
        rhythm.p_waves = [
            (float(t), "sinus") for t in _regular(rng, 60 / rng.uniform(60, 95), 0.01, duration)
        ]
    return rhythm


def _paced(rng: np.random.Generator, present: frozenset[str], duration: float) -> Rhythm:
    mode = str(rng.choice(["ventricular", "dual chamber", "atrial tracking"]))
    rate = (
        draw_rate(rng, present, (63.0, 90.0))
        if mode != "ventricular"
        else draw_rate(rng, present, (63.0, 80.0))
    )
    times = _regular(rng, 60 / rate, 0.001 if mode != "atrial tracking" else 0.01, duration)
    rhythm = Rhythm(beats=[Beat(float(t), "paced") for t in times], facts={"pacing": mode})
    rhythm.spikes = [float(t) - 0.004 for t in times]
    delay = float(rng.uniform(0.14, 0.19))
    if mode == "dual chamber":
        rhythm.spikes += [float(t) - delay - 0.02 for t in times]
    if mode != "ventricular":
        rhythm.p_waves = [(float(t) - delay, "sinus") for t in times]
    elif rng.random() < 0.5:
        rhythm.fibrillation = "atrial"
    return rhythm


def _complete_block(rng: np.random.Generator, duration: float) -> Rhythm:
    wide = rng.random() < 0.6
    times = _regular(rng, 60 / (rng.uniform(35, 42) if wide else rng.uniform(38, 54)), 0.006, duration)
    rhythm = Rhythm(beats=[Beat(float(t), "escape" if wide else "conducted") for t in times])
    rhythm.p_waves = [(float(t), "sinus") for t in _regular(rng, 60 / rng.uniform(68, 105), 0.012, duration)]
    rhythm.facts["escape"] = "ventricular" if wide else "junctional"
    return rhythm


def _extrasystoles(rng: np.random.Generator, rhythm: Rhythm, duration: float) -> None:
    """Early ventricular beats in place of some conducted ones, with a pause behind each."""
    beats = sorted(rhythm.beats, key=lambda beat: beat.seconds)
    usable = [
        i for i in range(2, len(beats) - 2)
        if 1.0 < beats[i].seconds < duration - 1.5 and beats[i].seconds - beats[i - 1].seconds > 0.42
    ]  # fmt: skip
    for i in rng.permutation(usable)[: max(1, int(rng.poisson(0.12 * duration)))]:
        before = beats[int(i) - 1]
        if "ventricular" in (before.kind, beats[int(i) + 1].kind):
            continue
        gap = beats[int(i)].seconds - before.seconds
        beats[int(i)] = Beat(before.seconds + gap * rng.uniform(0.66, 0.8), "ventricular")
    rhythm.beats = beats
