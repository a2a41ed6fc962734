"""What each lead shows of a beat: heights of its waves, net QRS, ST levels; and the axis of them all."""

from dataclasses import dataclass

import numpy as np

from bioreport.ecg.conditioning import RATE
from bioreport.ecg.median_beat import MedianBeat

LEAST_MV = 0.03  # smaller deflections within QRS are noise of the baseline
NOTCH_MV = 0.1


@dataclass(frozen=True)
class LeadWaves:
    """Waves of one lead; mV against the level before QRS, times in ms.

    Attributes
    ----------
    q, r, s, r2 : float
        Heights: `q` and `s` are zero or negative, `r2` is a second positive wave (R'), 0 without one.
    q_ms : float
        Duration of the initial negative wave.
    r_peak_ms : float
        From the onset of QRS to the top of the last positive wave (R-peak time).
    area : float
        Net area of QRS in mV·ms.
    j, st : float
        Level at the J point and 60 ms (80 ms below 100/min) later.
    slope : float
        Of the ST segment between these, mV; positive upwards.
    t : float
        Height of T, of the larger part where it has two.
    p : float
        Height of P, 0 without one.
    notched : bool
        Whether the main positive wave has a notch or two tops.
    """

    q: float
    r: float
    s: float
    r2: float
    q_ms: float
    r_peak_ms: float
    area: float
    j: float
    st: float
    slope: float
    t: float
    p: float
    notched: bool

    @property
    def range(self) -> float:
        """Peak-to-peak height of QRS."""
        return max(self.r, self.r2, 0.0) - min(self.q, self.s, 0.0)


def lead_waves(
    beat: MedianBeat,
    row: int,
    qrs: tuple[int, int],
    t_end: int | None,
    p_span: tuple[int, int] | None,
) -> LeadWaves:
    """Read one lead of a median beat."""
    onset, end = qrs
    smooth, data = beat.smooth[row], beat.data[row]
    base = float(data[max(onset - 10, 0) : max(onset - 2, 1)].mean())
    complex_ = data[onset : end + 1] - base
    q, r, s, r2, q_samples, peak, notched = _deflections(complex_)
    after = 0.08 if beat.rr >= 0.6 else 0.06
    j_at = min(end + round(0.004 * RATE), len(smooth) - 1)
    st_at = min(end + round(after * RATE), len(smooth) - 1)
    level = float(smooth[max(onset - 12, 0) : max(onset - 4, 1)].mean())
    j = float(smooth[j_at : j_at + 3].mean() - level)
    st = float(smooth[st_at - 2 : st_at + 3].mean() - level)
    t = 0.0
    if t_end is not None and t_end > st_at:
        part = smooth[st_at : t_end + 1] - level
        t = float(part[np.argmax(np.abs(part))])
        # a T wave that turns: the part that differs from ST counts
        apart = part - np.linspace(part[0], part[-1], len(part))
        extreme = float(part[np.argmax(np.abs(apart))])
        t = extreme if abs(extreme) >= 0.5 * abs(t) else t
    p = 0.0
    if p_span is not None:
        part = smooth[p_span[0] : p_span[1] + 1]
        part = part - np.linspace(part[0], part[-1], len(part))
        p = float(part[np.argmax(np.abs(part))])
    ms = 1000 / RATE
    return LeadWaves(
        q=q, r=r, s=s, r2=r2,
        q_ms=q_samples * ms, r_peak_ms=peak * ms,
        area=float(complex_.sum() * ms),
        j=j, st=st, slope=st - j, t=t, p=p, notched=notched,
    )  # fmt: skip


def _deflections(x: np.ndarray) -> tuple[float, float, float, float, int, int, bool]:
    """q, r, s, r', samples of q, sample of the last positive top, notched; of a QRS from its onset."""
    least = max(LEAST_MV, 0.03 * float(np.ptp(x)))
    sign = np.where(x > least, 1, np.where(x < -least, -1, 0))
    # runs of one sign, in order
    runs: list[tuple[int, int, int]] = []
    for i, value in enumerate(sign):
        if value and runs and runs[-1][0] == value:
            runs[-1] = (int(value), runs[-1][1], i)
        elif value:
            runs.append((int(value), i, i))
    q = r = s = r2 = 0.0
    q_samples, peak = 0, 0
    for value, first, last in runs:
        top = first + int(np.argmax(value * x[first : last + 1]))
        height = float(x[top])
        if value > 0:
            if r == 0.0:
                r = height
            else:
                r2 = max(r2, height)
            peak = first + _last_top(x[first : last + 1])
        elif r == 0.0:
            if height < q:
                q = height
            q_samples = last - first + 1
        else:
            s = min(s, height)
    if r == 0.0 and q < 0:  # QS
        s = q
    main = next((run for run in runs if run[0] > 0 and x[run[1] : run[2] + 1].max() == max(r, r2)), None)
    return q, r, s, r2, q_samples, peak, main is not None and _notched(x[main[1] : main[2] + 1])


def _last_top(wave: np.ndarray) -> int:
    """Sample of the last top of nearly the full height: where a notched wave's second half peaks."""
    inner = (
        np.flatnonzero((wave[1:-1] >= wave[:-2]) & (wave[1:-1] > wave[2:]) & (wave[1:-1] >= 0.7 * wave.max()))
        + 1
    )
    return int(inner[-1]) if len(inner) else int(np.argmax(wave))


def _notched(wave: np.ndarray) -> bool:
    """Two tops with a dip between them, or a slur: a stretch of the flank that hardly moves."""
    if len(wave) < 10:
        return False
    slope = np.diff(wave)
    turns = np.flatnonzero((slope[:-1] > 0) & (slope[1:] <= 0))
    if len(turns) > 1:
        return True
    top = int(np.argmax(wave))
    steep = np.abs(slope).max()
    inner = np.r_[slope[4 : max(top - 4, 4)], slope[top + 4 : -4]]
    return bool(len(inner) and (np.abs(inner) < 0.12 * steep).sum() >= 5)


def frontal_axis(one: float, avf: float) -> float | None:
    """Angle in degrees of net deflections in I and aVF (any unit); None where both are next to nothing."""
    if np.hypot(one, avf) < 1e-6:
        return None
    # aVF is shorter than a bipolar lead by the square root of 3/4
    return float(np.degrees(np.arctan2(avf * 2 / np.sqrt(3), one)))
