"""Where P, QRS and T of a median beat begin and end, over all leads at once.

Global intervals from the earliest onset to the latest end, as AHA/ACC/HRS 2009 ask for (Kligfield 2007,
Rautaharju 2009, doi:10.1161/CIRCULATIONAHA.108.191096). neurokit2's delineation (wavelets, one lead and beat
at a time) gave QRS durations of 100 to 230 ms on normal development records, different in each lead; this
gives 66 to 106.
"""

from dataclasses import dataclass

import numpy as np
from scipy import signal

from bioreport.ecg.conditioning import RATE
from bioreport.ecg.median_beat import MedianBeat

SLOPE_WINDOW = 7  # samples over which a slope is fitted
QRS_SHARE = 0.05  # of the steepest slope, added to twice the slope of the line
CALM = 0.35  # of the slopes of a cycle lie below that of the line
LONGEST_QRS = 0.24  # s on either side of its steepest point
QUIET_SECONDS = 0.012
PLATEAU = 0.6  # of the largest amplitude: a slow stretch above it is the top of a wide QRS, not its end
P_LONGEST_PR = 0.36
P_SHORTEST_PR = 0.07
P_LEAST_MV = 0.02
P_LEAST_RATIO = 4.0  # standard errors
T_LEAST_MV = 0.03
P_MARGIN = 6  # samples beside P that may still belong to it
EDGE = 0.08  # of a P wave's height, where it begins and ends


@dataclass(frozen=True)
class Wave:
    """Begin, peak and end as samples of the median beat; `height` in mV over all leads, `ratio` to noise."""

    onset: int
    peak: int
    end: int
    height: float
    ratio: float
    weights: np.ndarray  # of the leads, unit length


def qrs_bounds(beat: MedianBeat, rows: np.ndarray) -> tuple[int, int]:
    """First and last sample of QRS, seen by all the given leads together."""
    data = beat.data[rows]
    fid = beat.fiducial
    slope = np.sqrt(
        (signal.savgol_filter(data, SLOPE_WINDOW, 2, deriv=1, delta=1 / RATE, axis=1) ** 2).mean(axis=0)
    )
    size = np.sqrt((data**2).mean(axis=0))
    near = slice(fid - round(0.06 * RATE), fid + round(0.06 * RATE) + 1)
    half = round(min(0.4, 0.5 * beat.rr) * RATE)
    # what moves little in a cycle is the line and the slow parts of T
    limit = QRS_SHARE * slope[near].max() + 2 * np.quantile(slope[fid - half : fid + half], CALM)
    quiet = (slope < limit) & (size < PLATEAU * size[near].max())
    hold = round(QUIET_SECONDS * RATE)
    peak = near.start + int(np.argmax(slope[near]))
    onset = peak
    while onset > max(hold, peak - round(LONGEST_QRS * RATE)) and not quiet[onset - hold : onset + 1].all():
        onset -= 1
    end = peak
    while (
        end < min(len(slope) - hold - 1, peak + round(LONGEST_QRS * RATE))
        and not quiet[end : end + hold + 1].all()
    ):
        end += 1
    return onset, end


def find_t(beat: MedianBeat, rows: np.ndarray, qrs: tuple[int, int], stop: int) -> Wave | None:
    """T wave between QRS and sample `stop`; its end where the steepest tangent meets the level behind it.

    The method of Lepeschkin and Surawicz (1952) on the first principal component of the leads.
    """
    first = qrs[1] + round(0.05 * RATE)
    stop = min(stop, beat.smooth.shape[1] - 1)
    if stop - first < round(0.1 * RATE):
        return None
    wave, weights, noise = _component(beat, rows, first, stop)
    # the level behind T: the quietest 40 ms of the last part
    peak = _last_peak(wave)
    if peak is None:
        return None
    tail = wave[peak:]
    down = np.gradient(tail)
    # up to where it turns again: next P, U wave, or the end
    turn = next(
        (i for i in range(8, len(tail) - 1) if down[i] >= 0 and tail[i] < 0.5 * tail[0]), len(tail) - 1
    )
    steepest = int(np.argmin(down[: turn + 1]))
    level = float(np.median(tail[max(turn - 5, steepest) : turn + 10]))
    level = min(level, 0.4 * tail[0])
    if down[steepest] >= 0 or tail[0] - level < T_LEAST_MV:
        return None
    end = steepest + (level - tail[steepest]) / down[steepest]
    end = int(np.clip(round(end), steepest, turn))
    return Wave(first, first + peak, first + peak + end, float(tail[0]), float(tail[0] / noise), weights)


def find_p(beat: MedianBeat, rows: np.ndarray, onset: int, start: int) -> Wave | None:
    """P wave between sample `start` and the onset of QRS, None where none rises out of the noise."""
    first = max(start, onset - round(P_LONGEST_PR * RATE), 0)
    last = onset - round(0.006 * RATE)
    if last - first < round(0.08 * RATE):
        return None
    span = last - first + 1
    outside = np.ones(span, bool)
    wave, begin, peak, end = np.zeros(span), 0, 0, 0
    for _ in range(2):
        # the line that P stands on is drawn through what is beside it
        wave, weights, noise = _component(beat, rows, first, last, outside)
        inner = slice(3, span - round((P_SHORTEST_PR - 0.045) * RATE))
        peaks, _ = signal.find_peaks(np.abs(wave)[inner], prominence=0.4 * np.abs(wave).max())
        if not len(peaks):
            return None
        peak = int(peaks[np.argmax(np.abs(wave)[inner][peaks])]) + inner.start
        wave = wave * np.sign(wave[peak])
        begin, end = _foot(wave, peak, -1), _foot(wave, peak, 1)
        outside = np.ones(span, bool)
        outside[max(begin - P_MARGIN, 0) : end + P_MARGIN] = False
        if outside.sum() < 2 * P_MARGIN:
            break
    height = float(wave[peak] - max(min(wave[begin], wave[end]), 0.0))
    if height < P_LEAST_MV * np.sqrt(len(rows)) * 0.5 or height / noise < P_LEAST_RATIO:
        return None
    return Wave(first + begin, first + peak, first + end, height, height / noise, weights)


def _component(
    beat: MedianBeat, rows: np.ndarray, first: int, last: int, level: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, float]:
    """First principal component of the leads in a window: its course, the leads' weights, its noise.

    `level` says which samples lie on the line that is taken off each lead first.
    """
    part = beat.smooth[rows, first : last + 1]
    if level is not None:
        at = np.arange(part.shape[1])
        part = part - np.stack([np.polyval(np.polyfit(at[level], row[level], 1), at) for row in part])
    u, _, _ = np.linalg.svd(part, full_matrices=False)
    weights = u[:, 0]
    course = weights @ part
    if course[np.argmax(np.abs(course))] < 0:
        weights, course = -weights, -course
    spread = beat.spread[rows, first : last + 1]
    noise = float(np.median(np.sqrt((weights[:, None] ** 2 * spread**2).sum(axis=0))))
    return course, weights, max(noise, 1e-4)


def _last_peak(wave: np.ndarray) -> int | None:
    """The last extreme of at least 0.6 of the largest; the wave is turned so that it is upright."""
    size = np.abs(wave)
    peaks, _ = signal.find_peaks(np.r_[0.0, size], height=0.6 * size.max(), prominence=0.3 * size.max())
    peaks = peaks - 1
    peaks = peaks[peaks > 2]
    if not len(peaks):
        return None
    peak = int(peaks[-1])
    if wave[peak] < 0:
        wave *= -1
    return peak


def _foot(wave: np.ndarray, peak: int, step: int) -> int:
    """Where a wave leaves its level: below `EDGE` of its height, or where it rises again."""
    i = peak
    while 0 < i + step < len(wave) - 1:
        i += step
        if wave[i] <= EDGE * wave[peak]:
            break
        if wave[i] < 0.5 * wave[peak] and wave[i + step] > wave[i]:
            break
    return i
