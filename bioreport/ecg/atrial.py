"""What the atria do: whether P waves precede the beats, at what intervals, and whether all are conducted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage, signal

from bioreport.ecg.conditioning import RATE, Stretch

WINDOW = 0.24  # s before QRS in which a conducted P wave lies
GAP = 0.02  # s between it and QRS
P_WIDTH = 0.1  # s, the typical P wave that is looked for where none is known
REFRACTORY = 0.3  # s between P waves; faster atria are flutter
SLOWEST = 1.7  # s
LEAST_P = 5  # P waves that show a rhythm
SAME_WAVE = 0.6  # correlation over all leads of what is one P wave again
TRAIN_SHARE = 0.75
SHORTEST_DELAY, LONGEST_DELAY = 0.03, 0.55  # s from the peak of P to the onset of the QRS that it leads to
REGULAR_VENTRICLES = 0.06
DISSOCIATED_REACH = 0.1  # s by which PR changes
DRIFT = 0.06  # s by which PR drifts over the recording, ...
STEADY_DRIFT = 0.9  # ... its correlation with time
LEAST_DRIFTING = 5  # beats that show it
MOST_PR_CHANGE = 0.3  # s in conduction, also of Wenckebach's kind
FASTEST_SINUS = 0.4  # s between the P waves of a sinus node in block
FASTER = 1.15  # times the ventricles' rate, which atria have in complete block
TOLERANCE = 0.12  # of the PP interval, by which the next P may come early or late
PLACE = 0.5  # of a P wave's height that every place in a train costs
BENDING = 0.3  # ... and a step at the limit of `TOLERANCE`
BIN = 5  # samples: places in a train are sought 10 ms apart
LEAST_NOISE = 0.01  # mV
# a sinus P wave in each lead, its sign and size
SINUS_P_MV = {
    "I": 0.07, "II": 0.11, "III": 0.04, "aVR": -0.09, "aVL": 0.015, "aVF": 0.075, "V2": 0.04, "V3": 0.05,
    "V4": 0.06, "V5": 0.06, "V6": 0.06,
}  # fmt: skip


@dataclass(frozen=True)
class Atria:
    """A train of P waves.

    Attributes
    ----------
    at : float [n]
        Peaks of those that were seen, in s.
    train : float [m]
        Peaks of all, those hidden by a QRS complex put in where they must be.
    pp : float
        Median interval in s.
    share : float
        Of the places in the train that no QRS hides, those with a P wave, less the waves between them.
    likeness : float
        Median correlation of each wave with the mean of the others.
    """

    at: np.ndarray
    train: np.ndarray
    pp: float
    share: float
    likeness: float


def p_likeness(stretch: Stretch, rows: np.ndarray, onsets: np.ndarray) -> float | None:
    """How alike the stretches before the beats are: near 1 with P waves, near 0 in atrial fibrillation.

    Parameters
    ----------
    onsets : int [n]
        Onsets of QRS. The half with the longer RR intervals is looked at, where no T wave is in the way.

    Returns
    -------
    float or None
        Median correlation of each with the mean of the others, over all leads; None of fewer than 4.
    """
    width, gap = round(WINDOW * RATE), round(GAP * RATE)
    rr = np.diff(onsets, prepend=onsets[:1] - 10 * RATE)
    usable = onsets - gap - width >= 0
    usable[:1] = False
    if usable.sum() < 4:
        return None
    # no fewer than four, even where that takes beats with a shorter RR
    limit = min(np.median(rr[usable]), np.sort(rr[usable])[-4])
    chosen = onsets[usable & (rr >= limit)]
    pieces = np.stack([stretch.smooth[rows, i - gap - width : i - gap] for i in chosen])
    return _alike(signal.detrend(pieces, axis=2))


def find_atria(
    residual: np.ndarray,
    hidden: np.ndarray,
    noise: np.ndarray,
    names: Sequence[str] = (),
    template: np.ndarray | None = None,
) -> Atria | None:
    """Find a train of P waves in what is left when the ventricles' waves are taken off.

    Parameters
    ----------
    residual : float64 [leads, n]
        mV at `RATE`, zero where hidden.
    hidden : bool [n]
        Samples under a QRS complex.
    noise : float64 [leads]
        Deviation of each lead's noise in mV.
    names : sequence of str
        The leads: how a sinus P wave points in them is where the search begins.
    template : float64 [leads, w], optional
        The P wave, where one precedes the beats; else any wave of its width is looked for, and the
        waves that are found must resemble each other.
    """
    if not len(residual) or residual.shape[1] < 3 * RATE:
        return None
    scaled = residual / np.maximum(noise, LEAST_NOISE)[:, None]
    if template is not None:
        kernel = signal.detrend(template, axis=1) / np.maximum(noise, LEAST_NOISE)[:, None]
        return _best_train([_match(scaled, kernel / np.linalg.norm(kernel))], residual, hidden, noise)
    width = round(P_WIDTH * RATE)
    bump = signal.windows.hann(width)
    # against the level beside it, so that a drift is no wave
    kernel = np.concatenate([np.full(width // 3, -1.0), bump, np.full(width // 3, -1.0)])
    side = kernel < 0
    kernel[side] *= bump.sum() / side.sum()
    heights = np.stack([_match(row[None], kernel[None] / np.linalg.norm(kernel)) for row in scaled])
    heights[:, hidden] = 0
    strength = np.linalg.norm(heights, axis=0)
    peaks, _ = signal.find_peaks(strength, distance=round(REFRACTORY * RATE))
    if len(peaks) < LEAST_P:
        return None
    strong = peaks[strength[peaks] >= np.quantile(strength[peaks], 0.4)]
    commonest = np.linalg.svd(heights[:, strong], full_matrices=False)[0][:, 0]
    directions = [commonest, -commonest]
    usual = np.array([SINUS_P_MV.get(name, 0.0) for name in names]) / np.maximum(noise, LEAST_NOISE)
    if usual.any():
        directions.insert(0, usual / np.linalg.norm(usual))
    return _best_train([direction @ heights for direction in directions], residual, hidden, noise)


def _match(data: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Inner product [n] of data [leads, n] with a kernel [leads, w] centred at every sample."""
    return np.asarray(signal.oaconvolve(data, kernel[:, ::-1], mode="same", axes=1).sum(axis=0))


def _best_train(
    courses: list[np.ndarray], residual: np.ndarray, hidden: np.ndarray, noise: np.ndarray
) -> Atria | None:
    """The train of the course (each [n]) that explains most, followed once more by its own mean wave."""
    found = [train for course in courses if (train := follow(course, hidden)) is not None]
    if not found:
        return None
    _, places = max(found, key=lambda one: one[0])
    half = round(0.7 * P_WIDTH * RATE)
    scale = np.maximum(noise, LEAST_NOISE)[:, None]
    best = None
    for _ in range(2):
        whole = _unhidden(places, hidden, half)
        if len(whole) < LEAST_P - 1:
            break
        pieces = signal.detrend(np.stack([residual[:, i - half : i + half] for i in whole]), axis=2)
        kernel = np.median(pieces, axis=0) / scale
        course = _match(residual / scale, kernel / max(np.linalg.norm(kernel), 1e-9))
        again = follow(course, hidden)
        if again is None:
            break
        best = _judged(again[1], course, residual / scale, hidden) or best
        places = again[1]
    return best


def _unhidden(places: np.ndarray, hidden: np.ndarray, half: int) -> np.ndarray:
    inside = places[(places >= half) & (places < len(hidden) - half)]
    return np.array([i for i in inside if not hidden[i - half : i + half].any()], int)


def _height(course: np.ndarray, hidden: np.ndarray) -> float:
    """Usual height of the waves in a course: what a heart at the slowest has at least as many of."""
    peaks, _ = signal.find_peaks(np.where(hidden, 0.0, course), distance=round(REFRACTORY * RATE))
    if len(peaks) < LEAST_P:
        return 0.0
    ranked = np.sort(course[peaks])[::-1]
    return float(ranked[min(round(0.6 * len(course) / RATE), len(ranked)) - 1])


def follow(course: np.ndarray, hidden: np.ndarray) -> tuple[float, np.ndarray] | None:
    """The train of places that gathers most of a course, each step near one interval.

    Every place that is not hidden costs `PLACE` of a wave's height, so that a train with too many places
    gains as little as one with too few. All intervals are tried at once (dynamic programming).

    Returns
    -------
    (float, int [m]) or None
        What is gathered, in wave heights, and the places as samples.
    """
    height = _height(course, hidden)
    if height <= 0:
        return None
    bins = len(course) // BIN
    peak = course[: bins * BIN].reshape(bins, BIN).max(axis=1)
    dark = hidden[: bins * BIN].reshape(bins, BIN).mean(axis=1) > 0.5
    # half a wave beside a QRS complex tells nothing either way
    dark = ndimage.binary_dilation(dark, iterations=2)
    gain = np.where(
        dark, np.clip(peak / height - PLACE, 0.0, 1 - PLACE), np.clip(peak / height, -0.5, 1) - PLACE
    )
    intervals = np.geomspace(REFRACTORY, SLOWEST, 56) * RATE / BIN
    bend = np.linspace(-TOLERANCE, TOLERANCE, 13)
    steps = np.maximum(np.rint(intervals[:, None] * (1 + bend)), 1).astype(int)
    cost = BENDING * (bend / TOLERANCE) ** 2
    column = np.arange(len(intervals))
    lead_in = steps.max()
    best = np.full((bins + lead_in, len(intervals)), -np.inf)
    chosen = np.full((bins, len(intervals)), -1, np.int8)
    # no step is shorter than a block, so that all bins of a block stand on earlier ones alone
    block = int(steps.min())
    ahead = np.arange(block)[:, None, None]
    sources = (lead_in + ahead - steps) * len(intervals) + column[:, None]
    for first in range(0, bins, block):
        size = min(block, bins - first)
        values = best.take(sources[:size] + first * len(intervals)) - cost
        which = values.argmax(axis=2)
        reached = np.take_along_axis(values, which[:, :, None], axis=2)[:, :, 0]
        fresh = (first + ahead[:size, :, 0] < intervals * (1 + TOLERANCE)) & (reached < 0)
        rows = slice(first, first + size)
        chosen[rows] = np.where(fresh, -1, which)
        best[lead_in + first : lead_in + first + size] = gain[rows, None] + np.where(fresh, 0.0, reached)
    last = np.arange(bins)[:, None] >= bins - intervals
    ends = np.where(last, best[lead_in:], -np.inf)
    t, which_interval = (int(i) for i in np.unravel_index(int(ends.argmax()), ends.shape))
    value = float(ends[t, which_interval])
    if not np.isfinite(value) or value <= 0:
        return None
    places = []
    while t >= 0:
        near = slice(max((t - 1) * BIN, 0), (t + 2) * BIN)
        places.append(
            near.start + int(np.argmax(np.where(hidden[near], -np.inf, course[near])))
            if not dark[t]
            else t * BIN + BIN // 2
        )
        step = chosen[t, which_interval]
        if step < 0:
            break
        t -= int(steps[which_interval, step])
    return value, np.array(places[::-1], int)


def _judged(places: np.ndarray, course: np.ndarray, residual: np.ndarray, hidden: np.ndarray) -> Atria | None:
    """A train with the share of its places that have a wave and how alike the waves are (in noise)."""
    height = _height(course, hidden)
    half = round(0.5 * P_WIDTH * RATE)
    clear = _unhidden(places, hidden, half // 2)
    seen = clear[course[clear] >= 0.5 * height]
    whole = _unhidden(seen, hidden, half)
    if len(seen) < LEAST_P or len(whole) < LEAST_P - 1:
        return None
    peaks, _ = signal.find_peaks(
        np.where(hidden, 0.0, course), height=0.6 * height, distance=round(REFRACTORY * RATE)
    )
    strays = sum(np.abs(places - i).min() > 0.06 * RATE for i in peaks)
    return Atria(
        at=seen / RATE,
        train=places / RATE,
        pp=float(np.median(np.diff(places)) / RATE),
        share=len(seen) / (len(clear) + 0.5 * strays),
        likeness=_alike(signal.detrend(np.stack([residual[:, i - half : i + half] for i in whole]), axis=2)),
    )


def _alike(pieces: np.ndarray) -> float:
    """Median correlation of pieces [n, leads, w] each with the mean of the others."""
    others = (pieces.sum(axis=0) - pieces) / (len(pieces) - 1)
    scale = np.sqrt((pieces**2).sum(axis=(1, 2)) * (others**2).sum(axis=(1, 2)))
    return float(np.median((pieces * others).sum(axis=(1, 2)) / np.maximum(scale, 1e-12)))


@dataclass(frozen=True)
class Conduction:
    """How P waves and QRS complexes go together.

    Attributes
    ----------
    p_train : bool
        P waves come regularly, and most beats follow one.
    dropped : int
        P waves of a regular train that no QRS follows.
    dissociated : bool
        Atria and ventricles beat regularly, each at a rate of its own.
    """

    p_train: bool = False
    dropped: int = 0
    dissociated: bool = False


def conduction(atria: Atria | None, onsets: np.ndarray, labels: np.ndarray, spread: float) -> Conduction:
    """Follow each P wave of a regular train to its QRS complex.

    Parameters
    ----------
    onsets : float [n]
        Onsets of the QRS complexes in s.
    labels : str [n]
        As from `bioreport.ecg.rhythm.label_beats`.
    spread : float
        Relative deviation of the usual RR intervals.
    """
    if atria is None or atria.share < TRAIN_SHARE or atria.likeness < SAME_WAVE or len(onsets) < 3:
        return Conduction()
    rr = float(np.median(np.diff(onsets)))
    if atria.pp < FASTEST_SINUS and abs(rr - atria.pp) > TOLERANCE * rr:
        # what comes oftener than a sinus node beats and is not conducted each time is no P wave
        return Conduction()
    longest = min(LONGEST_DELAY, atria.pp)
    waits = np.full(len(onsets), np.nan)
    followed = np.zeros(len(atria.train), bool)
    for i, onset in enumerate(onsets):
        before = np.flatnonzero((atria.train < onset - SHORTEST_DELAY) & (atria.train >= onset - longest))
        if len(before):
            waits[i] = onset - atria.train[before[-1]]
            followed[before[-1]] = True
    inside = np.isin(atria.train, atria.at)
    inside &= (atria.train > onsets[0] - longest) & (atria.train < onsets[-1] - SHORTEST_DELAY)
    alone = inside & ~followed
    # the P wave that a ventricular beat forestalls is not conducted in health either
    for onset in onsets[labels != "N"]:
        alone &= ~((atria.train > onset - 0.3) & (atria.train < onset + 0.45))
    usual = labels == "N"
    if usual.sum() < 3:
        return Conduction()
    # where in the atria's cycle the usual beats come: always at one place if they are conducted
    phase = np.array([_since_last(atria.train, onset) for onset in onsets[usual]])
    turn = np.exp(2j * np.pi * phase / atria.pp)
    apart = np.angle(turn / turn.mean()) * atria.pp / (2 * np.pi)
    if spread <= REGULAR_VENTRICLES:
        wandering = np.ptp(apart) >= DISSOCIATED_REACH and np.std(apart) >= max(0.03, 2 * spread * rr)
        if rr > FASTER * atria.pp:
            # a P wave that is never near enough leads to none of the beats, at whatever distance
            apart_for_good = wandering or _drifts(onsets[usual], apart) or not np.isfinite(waits[usual]).any()
            if apart_for_good:
                return Conduction(False, 0, True)
        elif wandering:
            # no faster than the ventricles, and not conducted: beside a tachycardia of their own
            return Conduction()
    known = waits[np.isfinite(waits)]
    if len(known) < 3 or np.isfinite(waits[usual]).mean() < 0.8 or np.ptp(known) > MOST_PR_CHANGE:
        return Conduction()
    return Conduction(True, int(alone.sum()), False)


def _drifts(onsets: np.ndarray, apart: np.ndarray) -> bool:
    """Whether PR grows or shrinks all the time, as where atria beat nearly twice as fast as ventricles.

    Conduction keeps PR, or lengthens it until a beat is dropped and RR changes.
    """
    if len(onsets) < LEAST_DRIFTING:
        return False
    slope, _ = np.polyfit(onsets, apart, 1)
    return bool(
        abs(slope) * np.ptp(onsets) >= DRIFT and abs(np.corrcoef(onsets, apart)[0, 1]) >= STEADY_DRIFT
    )


def _since_last(train: np.ndarray, onset: float) -> float:
    """Time from the P wave before `onset`, or to the first one, in s; trains are regular."""
    before = train[train < onset]
    return float(onset - before[-1]) if len(before) else float(onset - train[0])
