"""Atrial flutter: the same wave again and again between the QRS complexes, 240 to 340 times a minute."""

from collections.abc import Collection, Sequence

import numpy as np
from scipy import signal

from bioreport.ecg.beats import Beats
from bioreport.ecg.conditioning import RATE, Stretch
from bioreport.ecg.median_beat import MedianBeat
from bioreport.ecg.rhythm import Intervals

PERIODS = (0.17, 0.26)  # s
LOWEST_HZ = 3.0  # the waves' own frequency is above, T's is mostly below
# correlation of the waves with the next ones, and with what lies half a wave later
CLEAR = ((0.7, -0.2), (0.6, -0.65))
STEADY = 0.45  # correlation with the wave that comes so many later
WAVES_LATER = 3
HALVED = (
    (0.45, -0.25),
    (0.55, 0.0),
)  # the same at half of an unvarying RR, where T lies on every second wave
NEARLY = 0.1  # less alike at a whole part of RR than at the best length, and still of that length
UPRIGHT_AXIS = (75.0, 105.0)  # degrees either way: the waves of typical flutter run up and down
LEAST_MV = 0.04
TIMED = 0.12  # of a wave by which a whole number of them may miss RR
LONGEST_QT = 0.45  # s at 60/min; T is over after this times the cube root of RR (Fridericia)
LEADS = ("II", "III", "aVF", "V1", "I", "aVL")


def flutter_rate(
    stretch: Stretch,
    beats: Beats,
    qrs: tuple[int, int],
    beat: MedianBeat,
    rhythm: Intervals,
    p_axis: float | None = None,
) -> float | None:
    """Rate of flutter waves in /min, None where there are none; `p_axis` is that of what precedes QRS."""
    rows = stretch.rows(LEADS) or list(range(len(stretch.names)))
    rows = [row for row in rows if beats.quality[stretch.names[row]] >= 0.5]
    if not rows:
        return None
    sections = signal.butter(2, [LOWEST_HZ, 15.0], "bandpass", fs=RATE, output="sos")
    seen = np.ones(stretch.data.shape[1], bool)
    start, end = qrs[0] - beat.fiducial - 10, qrs[1] - beat.fiducial + 10
    data = stretch.smooth[rows].copy()
    for i in beats.at:
        first, last = max(i + start, 0), min(i + end, data.shape[1] - 1)
        seen[first : last + 1] = False
        # without QRS, or the filter would ring
        data[:, first : last + 1] = np.linspace(data[:, first], data[:, last], last - first + 1, axis=1)
    data = signal.sosfiltfilt(sections, data, axis=1)
    if np.percentile(np.ptp(data[:, seen], axis=1), 100) < LEAST_MV:
        return None
    lags = np.arange(round(0.5 * PERIODS[0] * RATE), round(PERIODS[1] * RATE) + 1, 2)
    alike = np.array([_at_lag(data, seen, int(lag)) for lag in lags])
    allowed = lags >= PERIODS[0] * RATE
    best = int(np.argmax(np.where(allowed, alike, -1)))
    half = _at_lag(data, seen, int(lags[best] // 2))
    clear = any(alike[best] >= least and half <= most for least, most in CLEAR)
    if not clear or _later(data, seen, int(lags[best])) < STEADY:
        return _two_to_one(data, seen, rhythm, p_axis)
    waves = max(1, round(rhythm.median * RATE / lags[best]))
    if waves == 2 and not _vertical(p_axis):
        # a sinus tachycardia's T and P take turns as well
        return None
    # conduction at one ratio: RR tells the waves' length better than waves with T among them
    exact = rhythm.median / waves
    if rhythm.regular and _at_lag(data, seen, round(exact * RATE)) >= alike[best] - NEARLY:
        return 60 / exact
    return float(60 * RATE / lags[best])


def possible_rate(rhythm: Intervals, p_axis: float | None) -> float | None:
    """Rate of flutter waves that may be hidden, every second conducted; None where they cannot be."""
    halved = PERIODS[0] <= rhythm.median / 2 <= PERIODS[1]
    possible = rhythm.regular and halved and p_axis is not None and _vertical(p_axis)
    return 120 / rhythm.median if possible else None


def _vertical(p_axis: float | None) -> bool:
    """Whether what precedes QRS may be a wave of flutter: it points up or down, or its axis is not known."""
    return p_axis is None or UPRIGHT_AXIS[0] <= abs(p_axis) <= UPRIGHT_AXIS[1]


def _later(data: np.ndarray, seen: np.ndarray, lag: int) -> float:
    """How alike waves are with the third after them: those of fibrillation keep no length that long."""
    slack = 2 * WAVES_LATER
    lags = range(WAVES_LATER * lag - slack, WAVES_LATER * lag + slack + 1, 2)
    return max(_at_lag(data, seen, one) for one in lags)


def _two_to_one(data: np.ndarray, seen: np.ndarray, rhythm: Intervals, p_axis: float | None) -> float | None:
    """Rate of flutter waves of which every second is conducted."""
    lag = round(rhythm.median * RATE / 2)
    if not rhythm.regular or not PERIODS[0] <= lag / RATE <= PERIODS[1] or p_axis is None:
        return None
    again, between = _at_lag(data, seen, lag), _at_lag(data, seen, lag // 2)
    clear = any(again >= least and between <= most for least, most in HALVED)
    return float(60 * RATE / lag) if _vertical(p_axis) and clear else None


def _at_lag(data: np.ndarray, seen: np.ndarray, lag: int) -> float:
    both = seen[:-lag] & seen[lag:]
    if both.sum() < RATE // 4:
        return 0.0
    a, b = data[:, :-lag][:, both], data[:, lag:][:, both]
    return float((a * b).sum() / np.sqrt(max((a**2).sum() * (b**2).sum(), 1e-12)))


def levels_without_flutter(
    leads: Collection[str],
    beat: MedianBeat,
    names: Sequence[str],
    qrs: tuple[int, int],
    flutter: float,
    rhythm: Intervals,
) -> dict[str, tuple[float, float]] | None:
    """Levels of J and ST in mV, each against the same phase of the flutter wave before QRS.

    The atria keep their time whatever the ventricles do, and QRS follows them at one distance: what lies a
    whole wave earlier is the flutter wave alone, if the T wave of the beat before is over there.

    Parameters
    ----------
    leads : collection of str
        Those to read.
    names : sequence of str
        Leads of the rows of `beat`.
    flutter : float
        Waves in a minute.

    Returns
    -------
    dict of str to (float, float) or None
        Both by lead; None where the T wave lies at that place.
    """
    onset, end = qrs
    period = 60 / flutter
    ratio = round(rhythm.median / period)
    if rhythm.regular and ratio >= 1 and abs(ratio * period - rhythm.median) < TIMED * period:
        period = rhythm.median / ratio
    back = round(period * RATE)
    j_at = end + round(0.004 * RATE)
    st_at = end + round((0.08 if beat.rr >= 0.6 else 0.06) * RATE)
    back *= int(np.ceil((st_at + 3 - onset + 2) / back))
    after_last = rhythm.median - back / RATE
    over = LONGEST_QT * np.cbrt(rhythm.median)
    if st_at - back - 2 < 0 or after_last + (st_at - onset) / RATE < over:
        return None
    # J comes first: where the T wave may still be at its place, the level later stands for both
    early = after_last + (j_at - onset) / RATE >= over and j_at - back >= 0
    result = {}
    for lead in leads:
        row = beat.smooth[names.index(lead)]
        st = float(row[st_at - 2 : st_at + 3].mean() - row[st_at - 2 - back : st_at + 3 - back].mean())
        j = float(row[j_at : j_at + 3].mean() - row[j_at - back : j_at + 3 - back].mean()) if early else st
        result[lead] = (j, st)
    return result
