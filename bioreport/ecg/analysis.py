"""One stretch of ECG, measured: from samples to beats, intervals, levels and what the atria do."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from bioreport.ecg import pacing
from bioreport.ecg.amplitudes import LeadWaves, frontal_axis, lead_waves
from bioreport.ecg.atrial import SAME_WAVE, Atria, Conduction, conduction, find_atria, p_likeness
from bioreport.ecg.beats import NOISY, Beats, cut, find_beats
from bioreport.ecg.chaos import Chaos, no_beats
from bioreport.ecg.conditioning import RATE, Stretch, condition, high_passed
from bioreport.ecg.delineation import Wave, find_p, find_t, qrs_bounds
from bioreport.ecg.flutter import flutter_rate, levels_without_flutter, possible_rate
from bioreport.ecg.leads import LEADS, derive, limb_derivation
from bioreport.ecg.median_beat import MedianBeat, kinds, median_beat
from bioreport.ecg.rhythm import Intervals, intervals, label_beats

LONGEST_QTC = 0.65  # s: no T wave is looked for later than this times the root of RR
LATEST_T = 0.8  # of RR
NARROWER_MS = 24.0  # a kind that is this much narrower and nearly as common is the usual one
NEARLY = 0.6


@dataclass
class Analysis:
    """What one stretch shows. Times are seconds from its start, durations ms, heights mV."""

    stretch: Stretch
    beats: Beats
    chaos: Chaos | None = None
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, "<U1"))
    rhythm: Intervals | None = None
    kind_ms: np.ndarray = field(default_factory=lambda: np.zeros(0))
    median: MedianBeat | None = None
    qrs: tuple[int, int] | None = None
    p: Wave | None = None
    t: Wave | None = None
    likeness: float | None = None
    atria: Atria | None = None
    conduction: Conduction = field(default_factory=Conduction)
    flutter: float | None = None
    flutter_levels: dict[str, tuple[float, float]] | None = None  # J and ST by lead without waves of flutter
    waves: dict[str, LeadWaves] = field(default_factory=dict)
    axis: float | None = None
    p_axis: float | None = None
    t_axis: float | None = None
    paced: float = 0.0

    @property
    def pr_ms(self) -> float | None:
        """From the onset of P to that of QRS."""
        if self.p is None or self.qrs is None:
            return None
        return (self.qrs[0] - self.p.onset) * 1000 / RATE

    @property
    def p_ms(self) -> float | None:
        return None if self.p is None else (self.p.end - self.p.onset) * 1000 / RATE

    @property
    def qrs_ms(self) -> float | None:
        return None if self.qrs is None else (self.qrs[1] - self.qrs[0]) * 1000 / RATE

    @property
    def qt_ms(self) -> float | None:
        if self.t is None or self.qrs is None:
            return None
        return (self.t.end - self.qrs[0]) * 1000 / RATE


def analyse(
    samples: np.ndarray,
    sfreq: float,
    leads: Sequence[str],
    *,
    derived: Collection[str] = (),
    modified: Collection[str] = (),
) -> Analysis:
    """Measure samples [leads, T] in mV, up to about a minute of them.

    Parameters
    ----------
    derived : collection of str
        Leads computed from others: they have no vote on the beats.
    modified : collection of str
        Leads whose electrodes were elsewhere: no axis, no voltage and no ST level is read off them.
    """
    samples, leads, derived = _with_limb_leads(np.asarray(samples, float), leads, derived, modified)
    result = _analyse(samples, sfreq, leads, derived, modified)
    if result.qrs is None or result.median is None:
        return result
    carrying = [i for i, lead in enumerate(leads) if lead in result.stretch.names]
    spikes = pacing.find_spikes(samples[carrying], sfreq)
    onsets = (result.beats.at + result.qrs[0] - result.median.fiducial) / RATE
    share = pacing.paced_share(spikes, onsets)
    if share >= pacing.BEAT_SHARE:
        # stimuli would be measured as part of P and QRS
        result = _analyse(pacing.without_spikes(samples, spikes, sfreq), sfreq, leads, derived, modified)
    result.paced = share
    return result


def _analyse(
    samples: np.ndarray,
    sfreq: float,
    leads: Sequence[str],
    derived: Collection[str],
    modified: Collection[str],
) -> Analysis:
    stretch = condition(samples, sfreq, leads)
    beats = find_beats(stretch, [lead for lead in stretch.names if lead not in derived])
    result = Analysis(stretch, beats)
    result.chaos = no_beats(stretch, beats)
    if result.chaos is not None or len(beats) < 2:
        return result
    kind = kinds(beats)
    rows = good_rows(stretch, beats)
    kind, result.kind_ms = _usual_first(stretch, beats, kind, rows)
    result.labels = label_beats(beats.seconds, kind, result.kind_ms, beats.agreement)
    result.rhythm = intervals(beats.seconds, kind, result.labels)
    if result.rhythm is None:
        return result
    usual = kind == 0
    # early beats have their P in the T wave before them and a T wave of their own
    timely = usual & (result.labels == "N")
    chosen = beats.at[timely if timely.sum() >= 3 else usual]
    _delineate(result, chosen, rows)
    if result.qrs is None or result.median is None:
        return result
    shift = result.qrs[0] - result.median.fiducial
    onsets = beats.at[usual] + shift
    result.likeness = p_likeness(stretch, rows, onsets)
    _read_leads(result, modified)
    result.atria = _atria(result, chosen, rows)
    result.conduction = conduction(
        result.atria, (beats.at + shift) / RATE, result.labels, result.rhythm.spread
    )
    result.flutter = flutter_rate(stretch, beats, result.qrs, result.median, result.rhythm, result.p_axis)
    fluttering = result.flutter or possible_rate(result.rhythm, result.p_axis)
    if fluttering is not None:
        result.flutter_levels = levels_without_flutter(
            result.waves, result.median, stretch.names, result.qrs, fluttering, result.rhythm
        )
    return result


def good_rows(stretch: Stretch, beats: Beats) -> np.ndarray:
    """Rows of the leads whose beats look alike; of them all where no lead's do."""
    rows = np.array([i for i, lead in enumerate(stretch.names) if beats.quality.get(lead, 0) >= NOISY], int)
    return rows if len(rows) else np.arange(len(stretch.names))


def _with_limb_leads(
    samples: np.ndarray, leads: Sequence[str], derived: Collection[str], modified: Collection[str]
) -> tuple[np.ndarray, tuple[str, ...], frozenset[str]]:
    """Add the limb leads that follow from others."""
    standard = [lead for lead in leads if lead in LEADS and lead not in modified]
    missing = [lead for lead in limb_derivation(standard) if lead not in leads]
    if not missing:
        return samples, tuple(leads), frozenset(derived)
    rows = [list(leads).index(lead) for lead in standard]
    added = [derive(samples[rows], standard, lead) for lead in missing]
    return np.vstack([samples, *added]), (*leads, *missing), frozenset({*derived, *missing})


def _usual_first(
    stretch: Stretch, beats: Beats, kind: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Kinds with the usual one as 0, and each kind's QRS duration in ms.

    Usual is the commonest, unless one nearly as common is narrower: in bigeminy and in runs of ventricular
    beats these may outnumber the others.
    """
    count = np.bincount(kind)
    rr = float(np.median(np.diff(beats.seconds)))
    duration = np.array([_kind_ms(stretch, beats.at[kind == k], rr, rows) for k in range(len(count))])
    usual = 0
    for k in range(1, len(count)):
        often = count[k] >= max(3, 0.3 * count[0])
        if (
            often
            and duration[k] <= duration[usual] - NARROWER_MS
            and (count[k] >= NEARLY * count[0] or duration[0] >= 120)
        ):
            usual = k
    if usual:
        swap = {0: usual, usual: 0}
        kind = np.array([swap.get(int(k), int(k)) for k in kind])
        duration[[0, usual]] = duration[[usual, 0]]
    return kind, duration


def _kind_ms(stretch: Stretch, at: np.ndarray, rr: float, rows: np.ndarray) -> float:
    beat = median_beat(stretch, at, rr, fewest=1)
    if beat is None:
        return float("nan")
    onset, end = qrs_bounds(beat, rows)
    return (end - onset) * 1000 / RATE


def _delineate(result: Analysis, at: np.ndarray, rows: np.ndarray) -> None:
    """Median beat and its waves; the level before QRS is found in a second look."""
    assert result.rhythm is not None
    rr = result.rhythm.median
    beat = median_beat(result.stretch, at, rr)
    if beat is None:
        return
    onset, _ = qrs_bounds(beat, rows)
    level = ((onset - 12 - beat.fiducial) / RATE, (onset - 2 - beat.fiducial) / RATE)
    beat = median_beat(result.stretch, at, rr, level)
    if beat is None:
        return
    onset, _ = qrs = qrs_bounds(beat, rows)
    samples = round(rr * RATE)
    # T lies before the P of the next beat, also where that comes early
    soonest = np.quantile(np.diff(result.beats.seconds), 0.25)
    stop = onset + round(min(LONGEST_QTC * np.sqrt(rr), LATEST_T * min(rr, soonest)) * RATE)
    t = find_t(beat, rows, qrs, stop)
    p = find_p(beat, rows, onset, t.end - samples if t is not None else onset - round(0.3 * RATE))
    if p is not None and p.onset + samples < stop:
        t = find_t(beat, rows, qrs, p.onset + samples) or t
    result.median, result.qrs, result.p, result.t = beat, qrs, p, t


def _read_leads(result: Analysis, modified: Collection[str]) -> None:
    beat, qrs = result.median, result.qrs
    assert beat is not None and qrs is not None
    p_span = (result.p.onset, result.p.end) if result.p is not None else None
    for row, lead in enumerate(result.stretch.names):
        if lead in LEADS and lead not in modified and result.beats.quality.get(lead, 0) >= NOISY:
            result.waves[lead] = lead_waves(beat, row, qrs, result.t.end if result.t else None, p_span)
    one, avf = result.waves.get("I"), result.waves.get("aVF")
    if one is None or avf is None:
        return
    result.axis = frontal_axis(one.area, avf.area)
    if result.p is not None:
        result.p_axis = frontal_axis(one.p, avf.p)
    if result.t is not None:
        result.t_axis = frontal_axis(one.t, avf.t)


def _atria(result: Analysis, at: np.ndarray, rows: np.ndarray) -> Atria | None:
    """P waves between the beats, found when each beat's median is taken off."""
    beat, qrs = result.median, result.qrs
    assert beat is not None and qrs is not None
    data = high_passed(result.stretch.smooth[rows])
    fade = round(0.08 * RATE)
    start, end = qrs[0] - beat.fiducial, (result.t.end if result.t else qrs[1] + 150) - beat.fiducial + fade
    template = np.median(cut(data, at, start / RATE, end / RATE), axis=0)
    template[:, -fade:] *= np.linspace(1, 0, fade)
    hidden = np.zeros(data.shape[1], bool)
    for i in result.beats.at:
        first, last = max(i + start, 0), min(i + end, data.shape[1])
        data[:, first:last] -= template[:, first - i - start : last - i - start]
        hidden[max(i + start - 5, 0) : i + qrs[1] - beat.fiducial + 15] = True
    data[:, hidden] = 0
    noise = 1.4826 * np.median(np.abs(data[:, ~hidden]), axis=1) if (~hidden).any() else np.ones(len(data))
    names = [result.stretch.names[row] for row in rows]
    known = result.p is not None and result.likeness is not None and result.likeness >= SAME_WAVE
    if known and result.p is not None:
        template = beat.smooth[rows, max(result.p.onset - 5, 0) : min(result.p.end + 5, qrs[0])]
        return find_atria(data, hidden, noise, names, template)
    return find_atria(data, hidden, noise, names)
