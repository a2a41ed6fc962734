"""Rate, regularity, early beats and runs of them, pauses, from the times and kinds of beats."""

from dataclasses import dataclass

import numpy as np

# RR of successive beats differ by a tenth of the mean or more (Dash 2009, doi:10.1007/s10439-009-9740-z)
IRREGULAR_RMSSD = 0.1
# ... and not only about single early beats: half of all differences are that large
IRREGULAR_MEDIAN = 0.06
REGULAR_SPREAD = 0.05
EARLY = 0.82  # of the usual RR: an early supraventricular beat; sinus arrhythmia seldom shortens it as much
SUDDEN = 0.82  # of the RR before
EARLY_VENTRICULAR = 0.93
WIDE_MS = 120.0
WIDER_MS = 24.0  # than the usual QRS
RUN = 3  # beats in a row that make a tachycardia (AAMI EC57)
RUN_RATE = 100.0  # /min
PAUSE_SECONDS = 2.0
PAUSE_RATIO = 1.5
ARRHYTHMIA_SECONDS = 0.12  # between the longest and the shortest sinus RR


@dataclass(frozen=True)
class Intervals:
    """RR intervals between usual beats and what they say; seconds."""

    rr: np.ndarray  # between all successive beats
    usual: np.ndarray  # bool: both beats are of the usual kind and neither is early
    mean: float
    median: float
    spread: float  # deviation of the usual ones, of their mean
    rmssd: float  # of differences of successive intervals between beats of the usual kind, of their mean
    median_step: float  # median of these differences, of the median
    longest: float

    @property
    def irregular(self) -> bool:
        return self.rmssd >= IRREGULAR_RMSSD and self.median_step >= IRREGULAR_MEDIAN

    @property
    def regular(self) -> bool:
        return self.spread <= REGULAR_SPREAD


def usual_rr(seconds: np.ndarray) -> np.ndarray:
    """The RR to be expected at every beat: half the median of sums of two, over the ten beats about it.

    Sums of two are the same with early beats, which are followed by a longer interval.
    """
    rr = np.diff(seconds)
    if len(rr) < 2:
        return np.full(len(seconds), rr.mean() if len(rr) else np.nan)
    pairs = (rr[1:] + rr[:-1]) / 2
    return np.array([np.median(pairs[max(i - 6, 0) : i + 5]) for i in range(len(seconds))])


def label_beats(
    seconds: np.ndarray, kinds: np.ndarray, qrs_ms: np.ndarray, agreement: np.ndarray
) -> np.ndarray:
    """Name each beat ``"N"`` (usual), ``"A"`` (early, usual shape), ``"V"`` (ventricular) or ``"?"``.

    Parameters
    ----------
    seconds : float [n]
    kinds : int [n]
        0 is the usual shape.
    qrs_ms : float [kinds]
        QRS duration of each kind.
    agreement : float [n]
        Share of the leads that saw the beat.
    """
    n = len(seconds)
    labels = np.full(n, "N")
    if n < 2:
        return labels
    expected = usual_rr(seconds)
    rr = np.diff(seconds, prepend=np.nan)
    after = np.append(np.diff(seconds), np.nan)
    usual_ms = qrs_ms[0]
    # a long run sets the interval to be expected within it: its begin is held against the usual beats' own
    between_usual = rr[1:][(kinds[1:] == 0) & (kinds[:-1] == 0)]
    own = float(np.median(between_usual)) if len(between_usual) >= 2 else 0.0
    for i in range(n):
        other = kinds[i] != 0
        # beside a usual beat that is wide itself the other shape must do
        wide = other and qrs_ms[kinds[i]] >= max(WIDE_MS - 10, min(usual_ms + WIDER_MS, WIDE_MS))
        early = rr[i] < EARLY_VENTRICULAR * expected[i]
        if other and i + RUN <= n and (kinds[i : i + RUN] == kinds[i]).all():
            early |= bool((rr[i : i + RUN] < EARLY_VENTRICULAR * own).all())
        # an interpolated beat shortens both its intervals; in a run the next beat is early as well
        between = after[i] < EARLY_VENTRICULAR * expected[i]
        in_run = i > 0 and labels[i - 1] == "V"
        if wide and agreement[i] >= 0.5 and (early or between or in_run or np.isnan(rr[i])):
            labels[i] = "V"
        elif other:
            labels[i] = "?"
        elif i > 0 and rr[i] < EARLY * expected[i]:
            # a sinus node that quickens does so by and by, and does not stop afterwards
            known = i > 1
            sudden = rr[i] < SUDDEN * rr[i - 1] if known else rr[i] < SUDDEN * expected[i]
            then_slow = not after[i] < (1.1 if known else 1.3) * rr[i]
            if (sudden and then_slow) or labels[i - 1] in ("A", "V"):
                labels[i] = "A"
    return labels


def intervals(seconds: np.ndarray, kinds: np.ndarray, labels: np.ndarray) -> Intervals | None:
    """Statistics of the RR intervals; None of fewer than three beats."""
    if len(seconds) < 3:
        return None
    rr = np.diff(seconds)
    same = (kinds[1:] == 0) & (kinds[:-1] == 0)
    usual = same & (labels[1:] == "N") & (labels[:-1] == "N")
    # the pause after an early beat is no usual interval either
    kept = rr[usual] if usual.sum() >= 3 else rr
    judged = rr[same] if same.sum() >= 4 else rr
    steps = np.abs(np.diff(judged))
    return Intervals(
        rr=rr,
        usual=usual,
        mean=float((seconds[-1] - seconds[0]) / len(rr)),
        median=float(np.median(kept)),
        spread=float(np.std(kept) / np.mean(kept)),
        rmssd=float(np.sqrt(np.mean(steps**2)) / np.mean(judged)) if len(steps) else 0.0,
        median_step=float(np.median(steps) / np.median(judged)) if len(steps) else 0.0,
        longest=float(rr.max()),
    )


def runs(labels: np.ndarray, seconds: np.ndarray, name: str = "V", least: int = RUN) -> list[tuple[int, int]]:
    """First and last beat of each run of `least` or more beats of one name, faster than `RUN_RATE`."""
    found = []
    first = None
    for i in range(len(labels) + 1):
        inside = i < len(labels) and labels[i] == name
        if inside and first is None:
            first = i
        elif not inside and first is not None:
            count = i - first
            if count >= least and 60 * (count - 1) / (seconds[i - 1] - seconds[first]) > RUN_RATE:
                found.append((first, i - 1))
            first = None
    return found
