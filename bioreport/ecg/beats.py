"""Heart beats: XQRS on every lead, and a vote among the leads.

XQRS is wfdb's. On the development records it and neurokit2's detectors were run on every lead: by votes of
all leads XQRS alone had the annotated beats with the fewest false ones, at half the price of the others that
came near.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy import ndimage, signal

from bioreport.ecg.conditioning import RATE, Stretch, high_passed

DETECTOR_RATE = 250  # XQRS was made at this rate; at 500 Hz it costs three times as much and finds the same
TOGETHER = 0.1  # s within which detections in several leads are one beat
REFRACTORY = 0.2  # s in which no second beat can come
QRS_WINDOW = (-0.06, 0.1)  # s around a beat in which its shape is compared
NEAR = 0.04  # s by which any beat is moved
ALIGN = 0.15  # s by which a beat is moved onto the others
SAME_SHAPE = 0.85  # correlation of QRS complexes over all leads from which on they are of one kind
# beat-to-beat correlation below which a lead is noise: 0.66 (Orphanidou 2015, doi:10.1109/JBHI.2014.2338351)
NOISY = 0.66
SLOPE_WINDOW = 13  # samples over which a slope is taken: a QRS complex's, not the noise's
BESIDE = 0.2  # s from a P wave to its QRS complex
FLANKS = 0.16  # s between the flanks of one broad complex
STEEP, LEAST_STEEP = 0.55, 0.2  # of the usual slope of a QRS complex
SLOWEST = 0.4  # beats in a second
LARGE = 0.38  # of a QRS complex's usual height
APART = 0.25  # s that a beat found later is at least away from any other
T_SHIFTS = np.arange(-25, 26, 5)  # samples by which a T wave may come early or late
MINORITY, ADDED = 0.2, 0.6  # shares of the leads' weight
FAST_RR = 0.45  # s, at which the next beat comes while XQRS still looks for a T wave
LONG_GAP = 1.66  # usual intervals, after which a beat must have been missed
EDGE = (0.02, 0.05)  # s from the begin and the end within which a QRS complex is not whole
FEWEST = 3  # beats that show what a lead's beats look like


@dataclass(frozen=True)
class Beats:
    """Beats of a stretch.

    Attributes
    ----------
    at : int [n]
        Sample (at `RATE`) of each, in the order of time, at the same point of each QRS complex.
    agreement : float [n]
        Share of the leads' weight that saw it.
    shapes : float64 [n, leads, w]
        Each beat's QRS complex, high-passed.
    quality : dict of str to float
        Median correlation of a lead's beats with their own average, 0 to 1.
    """

    at: np.ndarray
    agreement: np.ndarray
    shapes: np.ndarray
    quality: dict[str, float]

    def __len__(self) -> int:
        return len(self.at)

    @property
    def seconds(self) -> np.ndarray:
        return self.at / RATE


def find_beats(stretch: Stretch, voters: Sequence[str] | None = None) -> Beats:
    """Detect the beats of a stretch by the votes of its leads, or of those that are `voters`."""
    names = stretch.names
    data = high_passed(stretch.smooth)
    voting = stretch.rows(names if voters is None else voters)
    if not voting or data.shape[1] < RATE:
        return Beats(np.zeros(0, int), np.zeros(0), np.zeros((0, len(names), 0)), dict.fromkeys(names, 0.0))
    every, data = data, data[voting]
    slow = signal.resample_poly(data, DETECTOR_RATE, RATE, axis=1)
    found = [_xqrs(row) * (RATE // DETECTOR_RATE) for row in slow]
    found = [
        times[~gaps[np.minimum(times, len(gaps) - 1)]]
        for times, gaps in zip(found, stretch.gaps[voting], strict=True)
    ]
    # what most leads see shows each lead's shape; its likeness from beat to beat is the lead's weight
    candidates, seen = _clusters(found)
    at = candidates[seen.mean(axis=1) >= 0.5] if len(candidates) else candidates
    steepest = _steepest(data, candidates)
    if np.median(_quality(data, at)) < NOISY and np.median(_quality(data, steepest)) >= SAME_SHAPE:
        # more P and T waves than beats, as in block, are no two alike
        at = steepest
    share = np.zeros(len(at))
    # once more by what is kept: where P waves that no QRS follows are among the beats, the leads that
    # show P best would weigh most
    for _ in range(2):
        weight = _weights(data, at)
        share = (seen * weight).sum(axis=1) / weight.sum()
        at, share = _merged(_climbed(data, candidates, weight), share)
        at, share = _as_steep(data, at, share, weight)
        at, share = _spaced(at, share)
    weight = _weights(data, at)
    at = _aligned(data, at, weight)
    at, share = _with_missed(data, at, share, weight)
    at, share = _spaced(at, share)
    at, share = _searched_back(data, at, share, weight)
    at, share = _spaced(at, share)
    # what the border cuts through is no beat yet
    whole = (at >= EDGE[0] * RATE) & (at < data.shape[1] - EDGE[1] * RATE)
    at, share = at[whole], share[whole]
    share = np.maximum(share, _seen(data, at, weight))
    return Beats(
        at=at,
        agreement=np.round(share, 3),
        shapes=cut(every, at, *QRS_WINDOW),
        quality=dict(zip(names, np.round(_quality(every, at), 3).tolist(), strict=True)),
    )


def cut(data: np.ndarray, at: np.ndarray, start: float, end: float) -> np.ndarray:
    """Pieces [n, leads, w] of data [leads, T] around samples; the border value is held beyond the data."""
    offsets = np.arange(round(start * RATE), round(end * RATE))
    index = np.clip(np.asarray(at, int)[:, None] + offsets, 0, data.shape[1] - 1)
    return data[:, index].transpose(1, 0, 2)


def correlation(pieces: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Correlation [n] of pieces [n, leads, w] with a template [leads, w], over all leads at once."""
    a = pieces - pieces.mean(axis=2, keepdims=True)
    b = template - template.mean(axis=1, keepdims=True)
    return (a * b).sum(axis=(1, 2)) / np.sqrt(np.maximum((a**2).sum(axis=(1, 2)) * (b**2).sum(), 1e-12))


def _xqrs(row: np.ndarray) -> np.ndarray:
    from wfdb.processing import XQRS

    detector = XQRS(row, DETECTOR_RATE)
    try:
        detector.detect(verbose=False)
    except (ValueError, IndexError):  # too short or too few peaks to learn from
        return np.zeros(0, int)
    return np.asarray(detector.qrs_inds, int)


def _clusters(found: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Times [n] and which lead saw each [n, leads]; a cluster lies within `TOGETHER` of its median."""
    times = np.concatenate(found)
    lead = np.repeat(np.arange(len(found)), [len(t) for t in found])
    order = np.argsort(times, kind="stable")
    times, lead = times[order], lead[order]
    at, seen = [], []
    first = 0
    while first < len(times):
        last = int(np.searchsorted(times, times[first] + TOGETHER * RATE, side="right"))
        row = np.zeros(len(found), bool)
        row[lead[first:last]] = True
        at.append(int(np.median(times[first:last])))
        seen.append(row)
        first = last
    return np.array(at, int), np.array(seen, bool).reshape(-1, len(found))


def _quality(data: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Median correlation of each lead's beats with their median, in the QRS and the T wave."""
    if len(at) < FEWEST:
        return np.full(len(data), 0.5)
    pieces = cut(data, at, -0.1, 0.3)
    template = np.median(pieces, axis=0)
    return np.array(
        [
            max(0.0, float(np.median(correlation(pieces[:, i : i + 1], template[i : i + 1]))))
            for i in range(len(data))
        ]
    )


def _weights(data: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Weight [leads] of each lead's vote, by how alike its beats are."""
    return np.asarray(np.clip(_quality(data, at) - 0.3, 0.05, None) ** 2)


def _climbed(data: np.ndarray, at: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Move a detection that took the P or the T wave for the beat to the QRS complex beside it."""
    if not len(at):
        return at
    steep = _steepness(data, weight)
    own = _around(steep, at)
    reach = round(BESIDE * RATE)
    best = np.array([max(i - reach, 0) + int(np.argmax(steep[max(i - reach, 0) : i + reach])) for i in at])
    return np.where(steep[best] > 1.5 * own, best, at)


def _merged(at: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Put the two flanks of a broad complex, each seen by other leads, together at the more agreed one."""
    order = np.argsort(-share, kind="stable")
    taken = np.zeros(len(at), bool)
    kept, total = [], []
    for i in order:
        if taken[i]:
            continue
        near = ~taken & (np.abs(at - at[i]) <= FLANKS * RATE)
        taken |= near
        kept.append(at[i])
        total.append(min(1.0, share[near].sum()))
    again = np.argsort(kept)
    return np.array(kept, int)[again], np.array(total)[again]


def _steepness(data: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Slope [n] in mV per sample of all leads together."""
    slopes = signal.savgol_filter(data, SLOPE_WINDOW, 2, deriv=1, axis=1)
    return np.asarray(np.sqrt(weight @ slopes**2 / weight.sum()))


def _steepest(data: np.ndarray, at: np.ndarray) -> np.ndarray:
    """As many of the samples as a heart beats at the slowest, steepest in the median lead."""
    count = max(FEWEST, round(SLOWEST * data.shape[1] / RATE))
    slopes = np.abs(signal.savgol_filter(data, SLOPE_WINDOW, 2, deriv=1, axis=1))
    slopes /= np.maximum(slopes.std(axis=1, keepdims=True), 1e-9)
    return np.sort(at[np.argsort(-_around(np.median(slopes, axis=0), at), kind="stable")[:count]])


def _around(course: np.ndarray, at: np.ndarray, reach: float = 0.08) -> np.ndarray:
    """Largest value of a course [n] within `reach` (s) of samples."""
    width = round(reach * RATE)
    return np.array([course[max(i - width, 0) : i + width + 1].max() for i in at])


def _as_steep(
    data: np.ndarray, at: np.ndarray, share: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keep what is as steep as QRS complexes are in all leads together: P and T waves seldom are."""
    if not len(at):
        return at, share
    steep = _around(_steepness(data, weight), at)
    seen = share > MINORITY
    # as many as beat at the slowest: what is commoner may be P waves that no QRS follows
    slowest = max(3, round(SLOWEST * data.shape[1] / RATE))
    ranked = np.sort(steep[seen] if seen.any() else steep)[::-1]
    usual = ranked[min(slowest, len(ranked)) - 1]
    kept = seen & (steep >= STEEP * usual)
    return at[kept], share[kept]


def _with_missed(
    data: np.ndarray, at: np.ndarray, share: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Add what is as large as a beat when the beats that are known are taken off with their T waves.

    Broad ventricular beats between narrow ones are too slow for a detector that looks at one lead.
    """
    if len(at) < FEWEST:
        return at, share
    left, lonely = _without_beats(data, at, weight)
    energy = _energy(left, weight)
    usual = float(np.median(_energy(data, weight)[at]))
    peaks, _ = signal.find_peaks(energy, height=LEAST_STEEP * usual, distance=round(APART * RATE))
    # the T wave of a beat before the start is nobody's
    peaks = peaks[(peaks >= RATE // 2) & (np.abs(peaks[:, None] - at).min(axis=1) >= APART * RATE)]
    if not len(peaks):
        return at, share
    whole = _range(data)
    # what is only in one of them was taken off where it was not, or left where it was
    sizes = np.minimum(_range(left), whole)
    usual_sizes = np.median(whole[:, at], axis=1)
    size = np.sqrt(weight @ sizes[:, peaks] ** 2 / (weight @ usual_sizes**2))
    voted = (sizes[:, peaks] >= 0.6 * LARGE * usual_sizes[:, None]).T @ weight / weight.sum()
    # two or three leads have their noise at the same time
    few = len(data) < 4
    enough = (size >= LARGE) & (voted >= (0.9 if few else ADDED))
    enough &= energy[peaks] >= (STEEP if few else LEAST_STEEP) * usual
    peaks, voted = peaks[enough], voted[enough]
    # the T wave of a ventricular beat is as large as a beat, but slower
    every = np.concatenate([peaks, at[lonely]])
    sharp = np.concatenate([energy[peaks], energy[at[lonely]]])
    behind = [
        ((i > every) & (i - every < 0.6 * RATE) & (sharp > 1.4 * own)).any()
        for i, own in zip(peaks, energy[peaks], strict=True)
    ]
    kept = ~np.array(behind, bool)
    return _spaced(np.concatenate([at, peaks[kept]]), np.concatenate([share, voted[kept]]))


def _searched_back(
    data: np.ndarray, at: np.ndarray, share: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Add what looks like the other beats in the gaps of a fast rhythm.

    XQRS takes what follows a beat within 0.36 s for its T wave, unless it is as steep. Where an interval
    is `LONG_GAP` of the usual one, it is searched again (Pan and Tompkins 1985,
    doi:10.1109/TBME.1985.325532), here by the shape and the height of the beats that are known.
    """
    if len(at) <= FEWEST:
        return at, share
    usual = float(np.median(np.diff(at)))
    if usual > FAST_RR * RATE:
        return at, share
    scaled = data * np.sqrt(weight / weight.max())[:, None]
    template = np.median(cut(scaled, at, *QRS_WINDOW), axis=0)
    template -= template.mean(axis=1, keepdims=True)
    found = []
    for first, last in pairwise(at):
        begin, stop = int(first), int(last - 0.6 * usual)
        while stop - begin > (LONG_GAP - 0.6) * usual:
            inside = np.arange(round(begin + 0.6 * usual), min(round(begin + 1.4 * usual), stop))
            pieces = cut(scaled, inside, *QRS_WINDOW)
            alike = correlation(pieces, template)
            best = int(np.argmax(alike))
            height = float((pieces[best] * template).sum() / (template**2).sum())
            if alike[best] >= SAME_SHAPE and height >= 0.6:
                found.append(int(inside[best]))
            begin = int(inside[best])
    order = np.argsort(np.concatenate([at, found]), kind="stable")
    every = np.concatenate([at, np.array(found, int)])[order]
    return every, np.concatenate([share, np.ones(len(found))])[order]


def _without_beats(data: np.ndarray, at: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Data without each beat's median of its kind, and which beats [n] have no other of their kind.

    The T wave moves with the RR before it: it is taken off where it fits best.
    """
    before, later, longest, fade = (round(s * RATE) for s in (0.1, 0.14, 0.6, 0.06))
    shapes = cut(data, at, *QRS_WINDOW).reshape(len(at), -1)
    shapes = shapes / np.maximum(np.linalg.norm(shapes, axis=1, keepdims=True), 1e-9)
    alike = shapes @ shapes.T >= SAME_SHAPE
    lonely = alike.sum(axis=1) < 2
    room = np.append(np.diff(at), data.shape[1]) - fade + before
    pieces = cut(data, at, -before / RATE, longest / RATE)
    width = pieces.shape[2]
    pieces = np.where(np.arange(width) < room[:, None, None], pieces, np.nan)
    left = data.copy()
    templates: dict[bytes, np.ndarray] = {}
    for i in np.flatnonzero(~lonely):
        key = alike[i].tobytes()
        if key not in templates:
            templates[key] = _until_next(_template(pieces[alike[i]]), weight, before + later)
        template = templates[key].copy()
        shown = template.shape[1]
        template[:, -fade:] *= np.linspace(1, 0, min(fade, shown))
        start = at[i] - before
        stop = min(shown, int(room[i]), data.shape[1] - start)
        index = np.arange(stop)
        if stop > before + later:
            late = np.arange(before + later, stop)
            fits = []
            for shift in T_SHIFTS:
                moved = np.clip(late - shift, before + later, shown - 1)
                fits.append((((pieces[i][:, late]) - template[:, moved]) ** 2).sum())
            index[late] = np.clip(late - T_SHIFTS[int(np.argmin(fits))], before + later, shown - 1)
        kept = index[max(-start, 0) : stop]
        left[:, max(start, 0) : start + stop] -= template[:, kept]
    return left, lonely


def _template(pieces: np.ndarray) -> np.ndarray:
    """Median [leads, w] of pieces [n, leads, w], as far as two of them reach before the next beat (NaN)."""
    reach = np.isfinite(pieces[:, 0])
    parts = []
    # pieces end one after the other: between two ends the same ones are there
    ends = np.unique(reach.sum(axis=1))
    first = 0
    for end in ends:
        there = pieces[reach[:, end - 1], :, first:end]
        if len(there) < 2:
            break
        parts.append(np.median(there, axis=0))
        first = int(end)
    return np.concatenate(parts, axis=1) if parts else np.zeros((pieces.shape[1], 0))


def _until_next(template: np.ndarray, weight: np.ndarray, later: int) -> np.ndarray:
    """The template up to a ventricular beat that follows each beat at one distance, as in bigeminy."""
    energy = _energy(template, weight)
    high = LEAST_STEEP * energy[:later].max()
    peaks, _ = signal.find_peaks(energy[later:], prominence=0.25 * high)
    for wave, peak in pairwise(peaks + later):
        # a beat is sharper than the T wave before it
        if energy[peak] > max(high, 1.4 * energy[wave]) and peak - wave >= 0.15 * RATE:
            return template[:, : int(peak - round(0.12 * RATE))]
    return template


def _energy(data: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Root mean square slope [n] of all leads over a QRS complex's time, in mV per sample."""
    slopes = signal.savgol_filter(data, SLOPE_WINDOW, 2, deriv=1, axis=1)
    power = weight @ slopes**2 / weight.sum()
    return np.sqrt(np.maximum(ndimage.uniform_filter1d(power, round(0.12 * RATE)), 0.0))


def _seen(data: np.ndarray, at: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Share of the leads' weight in which each beat is as large as beats are there."""
    if not len(at):
        return np.zeros(0)
    sizes = _range(data)[:, at]
    return np.asarray((sizes >= 0.5 * np.median(sizes, axis=1, keepdims=True)).T @ weight / weight.sum())


def _range(data: np.ndarray) -> np.ndarray:
    """Peak-to-peak height [leads, n] within 0.16 s about every sample."""
    width = 2 * round(0.08 * RATE) + 1
    return np.asarray(
        ndimage.maximum_filter1d(data, width, axis=1) - ndimage.minimum_filter1d(data, width, axis=1)
    )


def _spaced(at: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop the less agreed one of two beats closer than a heart can beat."""
    order = np.argsort(at)
    at, share = at[order], share[order]
    while len(at) > 1:
        close = np.flatnonzero(np.diff(at) < REFRACTORY * RATE)
        if not len(close):
            break
        i = int(close[0])
        drop = i if share[i] < share[i + 1] else i + 1
        at, share = np.delete(at, drop), np.delete(share, drop)
    return at, share


def _aligned(data: np.ndarray, at: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Move each beat to where its shape fits the median of all best."""
    if len(at) < FEWEST:
        return at
    energy = _energy(data, weight)
    data = data * np.sqrt(weight / weight.max())[:, None]
    for reach, step in ((round(ALIGN * RATE), 5), (5, 1)):
        template = np.median(cut(data, at, *QRS_WINDOW), axis=0)
        shifts = np.arange(-reach, reach + 1, step)
        fit = np.array([correlation(cut(data, at + shift, *QRS_WINDOW), template) for shift in shifts])
        best, far = shifts[fit.argmax(axis=0)], np.abs(shifts[fit.argmax(axis=0)]) > NEAR * RATE
        # a beat of another shape has no common point with the others: it stays where it was found
        moved = np.where(fit.max(axis=0) >= np.where(far, 0.9, 0.5), best, 0)
        there = energy[np.clip(at + moved, 0, len(energy) - 1)]
        moved = np.where(there >= 0.6 * energy[at], moved, 0)
        at = np.clip(at + moved, 0, data.shape[1] - 1)
    return at
