"""Stimuli of a pacemaker: deflections far narrower than the heart's, at a fixed time before the beats."""

import numpy as np
from scipy import ndimage

LEAST_RATE = 200.0  # Hz; slower recordings smear a stimulus of a millisecond away
WIDEST = 0.005  # s
LEAST_MV = 0.15
OVER_NOISE = 8.0
LEAD_SHARE = 0.3
# s from a stimulus to the onset of the QRS that it makes; filtered, the stimulus itself looks like an onset
BEFORE_QRS = (-0.024, 0.06)
BLANK = (-0.004, 0.01)  # s about a stimulus that its recoil and the amplifier's filter reach
BEAT_SHARE = 0.6
TOGETHER = 0.006  # s within which leads show one stimulus


def find_spikes(samples: np.ndarray, sfreq: float) -> np.ndarray:
    """Times in s of narrow deflections seen by several leads at once, of samples [leads, T] in mV."""
    if sfreq < LEAST_RATE or samples.shape[1] < sfreq:
        return np.zeros(0)
    width = 2 * max(1, int(WIDEST * sfreq)) + 1
    samples = np.where(np.isfinite(samples), samples, 0.0)
    apart = np.abs(samples - ndimage.median_filter(samples, size=(1, width)))
    noise = 1.4826 * np.median(apart, axis=1, keepdims=True)
    # the residue at the tops of steep QRS complexes counts as noise as well
    limit = np.maximum(LEAST_MV, OVER_NOISE * np.maximum(noise, 0.002))
    reach = max(1, round(TOGETHER * sfreq / 2))
    seen = ndimage.maximum_filter1d((apart > limit).astype(np.uint8), 2 * reach + 1, axis=1).sum(axis=0)
    least = max(1, int(np.ceil(LEAD_SHARE * len(samples))))
    edges = np.flatnonzero(np.diff(np.r_[0, seen >= least, 0]))
    centres = []
    for a, b in zip(edges[::2], edges[1::2], strict=True):
        # a step or a burst of noise is wider
        if b - a <= 2 * reach + 1 + width:
            centres.append(a + int(np.argmax(apart[:, a:b].max(axis=0))))
    return np.array(centres) / sfreq


def paced_share(spikes: np.ndarray, onsets: np.ndarray) -> float:
    """Share of the beats whose QRS, beginning at `onsets` (s), follows a stimulus at once."""
    if not len(spikes) or not len(onsets):
        return 0.0
    wait = onsets[:, None] - spikes[None, :]
    near = (wait >= BEFORE_QRS[0]) & (wait <= BEFORE_QRS[1])
    return float(near.any(axis=1).mean())


def without_spikes(samples: np.ndarray, spikes: np.ndarray, sfreq: float) -> np.ndarray:
    """Samples [leads, T] with a straight line in place of each stimulus (times in s)."""
    result = np.array(samples, float)
    for at in spikes:
        first = max(int((at + BLANK[0]) * sfreq), 0)
        last = min(int(np.ceil((at + BLANK[1]) * sfreq)), result.shape[1] - 1)
        result[:, first : last + 1] = np.linspace(result[:, first], result[:, last], last - first + 1, axis=1)
    return result
