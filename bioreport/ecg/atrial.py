"""What the atria do: whether P waves precede the beats, at what intervals, and whether all are conducted."""

from dataclasses import dataclass

import numpy as np
from scipy import signal

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
TOLERANCE = 0.12  # of the PP interval, by which the next P may come early or late


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
    residual: np.ndarray, hidden: np.ndarray, noise: np.ndarray, template: np.ndarray | None = None
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
    template : float64 [leads, w], optional
        The P wave, where one precedes the beats; else any wave of its width is looked for, and the
        waves that are found must resemble each other.
    """
    scaled = residual / np.maximum(noise, 0.01)[:, None]
    if template is not None:
        kernel = signal.detrend(template, axis=1) / np.maximum(noise, 0.01)[:, None]
        course = _match(scaled, kernel / np.linalg.norm(kernel))
        return _best_train([course], residual, hidden, kernel.shape[1])
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
    direction = np.linalg.svd(heights[:, strong], full_matrices=False)[0][:, 0]
    course = direction @ heights
    return _best_train([course, -course], residual, hidden, width)


def _match(data: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Inner product [n] of data [leads, n] with a kernel [leads, w] centred at every sample."""
    return np.asarray(signal.oaconvolve(data, kernel[:, ::-1], mode="same", axes=1).sum(axis=0))


def _best_train(
    courses: list[np.ndarray], residual: np.ndarray, hidden: np.ndarray, width: int
) -> Atria | None:
    best: Atria | None = None
    for course in courses:
        course = np.where(hidden, 0, course)
        peaks, _ = signal.find_peaks(course, distance=round(REFRACTORY * RATE))
        if len(peaks) < LEAST_P:
            continue
        height = course[peaks]
        peaks = peaks[height >= 0.5 * np.quantile(height, 0.75)]
        if len(peaks) < LEAST_P:
            continue
        intervals = np.diff(peaks) / RATE
        for pp in np.unique(np.round(np.concatenate([intervals, intervals / 2]), 2)):
            if not REFRACTORY <= pp <= SLOWEST:
                continue
            atria = _follow(peaks, float(pp), hidden, residual, width)
            if atria is not None and (best is None or atria.share > best.share):
                best = atria
    return best


def _follow(
    peaks: np.ndarray, pp: float, hidden: np.ndarray, residual: np.ndarray, width: int
) -> Atria | None:
    """Walk along the peaks in steps near `pp` that may change slowly."""
    found: tuple[list[int], list[int], int] = ([], [], 1)
    for start in peaks[:3]:
        # from the start of the recording on: places before the first peak count as well
        step = pp * RATE
        at = start - int(start / step) * step
        seen: list[int] = []
        train: list[int] = []
        visible = 0
        while at < len(hidden):
            near = peaks[np.abs(peaks - at) <= TOLERANCE * pp * RATE]
            if len(near):
                here = int(near[np.argmin(np.abs(near - at))])
                if seen and len(train) and train[-1] == seen[-1]:
                    step = 0.7 * step + 0.3 * (here - seen[-1])
                seen.append(here)
                train.append(here)
                visible += 1
                at = here
            else:
                reach = round(0.5 * width)
                around = slice(max(round(at) - reach, 0), round(at) + reach)
                visible += not hidden[around].mean() > 0.2
                train.append(round(at))
            at += step
        if len(seen) > len(found[0]):
            found = (seen, train, visible)
    seen, train, visible = found
    if len(seen) < LEAST_P:
        return None
    strays = len(peaks) - len(seen)
    reach = width // 2 + round(0.01 * RATE)
    whole = [
        i for i in seen if reach <= i < residual.shape[1] - reach and not hidden[i - reach : i + reach].any()
    ]
    if len(whole) < 4:
        return None
    likeness = _alike(signal.detrend(np.stack([residual[:, i - reach : i + reach] for i in whole]), axis=2))
    steps = np.diff(train) / RATE
    return Atria(
        at=np.array(seen) / RATE,
        train=np.array(train) / RATE,
        pp=float(np.median(steps)),
        share=len(seen) / (visible + 0.5 * strays),
        likeness=likeness,
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
    known = waits[np.isfinite(waits)]
    usual = labels == "N"
    if len(known) < 3 or not usual.any():
        return Conduction()
    reach = float(np.ptp(known))
    intervals = np.diff(onsets)
    regular = spread <= REGULAR_VENTRICLES and alone.sum() >= 2 and np.median(intervals) > 1.1 * atria.pp
    # in conduction PR is as steady as the ventricles are, or they are not steady
    if regular and reach >= DISSOCIATED_REACH and np.std(known) >= max(0.03, 2 * np.std(intervals)):
        return Conduction(False, 0, True)
    if np.isfinite(waits[usual]).mean() < 0.8 or reach > 0.3:
        return Conduction()
    return Conduction(True, int(alone.sum()), False)
