"""Atrial flutter: the same wave again and again between the QRS complexes, 240 to 340 times a minute."""

import numpy as np
from scipy import signal

from bioreport.ecg.beats import Beats
from bioreport.ecg.conditioning import RATE, Stretch
from bioreport.ecg.median_beat import MedianBeat
from bioreport.ecg.rhythm import Intervals

PERIODS = (0.17, 0.26)  # s
LOWEST_HZ = 3.0  # the waves' own frequency is above, T's is mostly below
ALIKE = 0.7  # correlation of the waves with the next ones
OPPOSITE = -0.2  # ... and with what lies half a wave later
LEAST_MV = 0.04
LEADS = ("II", "III", "aVF", "V1", "I", "aVL")


def flutter_rate(
    stretch: Stretch, beats: Beats, qrs: tuple[int, int], beat: MedianBeat, rhythm: Intervals
) -> float | None:
    """Rate of flutter waves in /min, None where there are none."""
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
    if alike[best] < ALIKE or half > OPPOSITE:
        return None
    return float(60 * RATE / lags[best])


def _at_lag(data: np.ndarray, seen: np.ndarray, lag: int) -> float:
    both = seen[:-lag] & seen[lag:]
    if both.sum() < RATE // 4:
        return 0.0
    a, b = data[:, :-lag][:, both], data[:, lag:][:, both]
    return float((a * b).sum() / np.sqrt(max((a**2).sum() * (b**2).sum(), 1e-12)))
