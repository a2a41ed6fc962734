"""Mains interference taken out of a spectrum by flattening its peaks, as ECG-Tok does.

The paper: spectral peaks near the mains frequency and its harmonics that exceed the local mean by two
standard deviations are flattened with a LOESS fit. What it leaves open is decided here: the spectrum is the
rFFT of the window after the line from its first to its last sample is taken off (else the jump between them
raises all frequencies); *local* is 2 Hz to either side, *near* 1 Hz; the fit is local-linear (statsmodels'
LOWESS) with a span of two thirds over the local bins that are no peaks, without robust passes, for the
outliers are out; phases are kept; shoulders that stand out once the peak is gone are flattened too, in ten
passes at most. In 10 s a sine at 50 Hz falls by 46 dB; at 50.05 Hz, between two bins of the spectrum, by 14,
for what leaks beyond the neighbourhood stays at the ends of the window.
"""

from collections.abc import Iterator

import numpy as np
from statsmodels.nonparametric.smoothers_lowess import lowess

MAINS = (50.0, 60.0)
LOCAL_HZ = 2.0
NEAR_HZ = 1.0
DEVIATIONS = 2.0
PASSES = 10
_LEAST_BINS = 8
# a peak this many times the fit is interference; chance makes peaks too, of less than three times
VISIBLE = 4.0


def harmonics(sfreq: float) -> Iterator[float]:
    """Mains frequencies and their harmonics that a signal of this rate can hold, Hz."""
    for mains in MAINS:
        yield from np.arange(mains, sfreq / 2 - NEAR_HZ, mains).tolist()


def flatten_mains(data: np.ndarray, sfreq: float) -> tuple[np.ndarray, dict[float, np.ndarray]]:
    """Flatten the peaks of mains interference.

    Parameters
    ----------
    data : ndarray of float64, shape (n_leads, n_samples)
        One window, all finite.
    sfreq : float
        Hz.

    Returns
    -------
    flattened : ndarray of float64, shape (n_leads, n_samples)
    height : dict of float to ndarray, shape (n_leads,)
        By harmonic: how many times the fit the highest flattened bin was, 1 where none was.
    """
    n = data.shape[1]
    heights = {frequency: np.ones(len(data)) for frequency in harmonics(sfreq)}
    if n < 2:
        return data.copy(), heights
    line = data[:, :1] + (data[:, -1:] - data[:, :1]) * (np.arange(n) / (n - 1))
    spectrum = np.fft.rfft(data - line, axis=1)
    frequencies = np.fft.rfftfreq(n, 1 / sfreq)
    for frequency, height in heights.items():
        local = np.flatnonzero(np.abs(frequencies - frequency) <= LOCAL_HZ)
        if len(local) < _LEAST_BINS:
            continue
        near = np.abs(frequencies[local] - frequency) <= NEAR_HZ
        for lead, row in enumerate(spectrum):
            height[lead] = _flatten(row, frequencies, local, near)
    return np.fft.irfft(spectrum, n, axis=1) + line, heights


def _flatten(spectrum: np.ndarray, frequencies: np.ndarray, local: np.ndarray, near: np.ndarray) -> float:
    """Flatten one lead's bins around one harmonic, in place; returns the highest peak over the fit."""
    magnitude = np.abs(spectrum[local])
    peaks = np.zeros(len(local), bool)
    for _ in range(PASSES):
        rest = magnitude[~peaks]
        found = near & ~peaks & (magnitude > rest.mean() + DEVIATIONS * rest.std())
        if not found.any() or (~(peaks | found)).sum() < _LEAST_BINS // 2:
            break
        peaks |= found
    if not peaks.any():
        return 1.0
    at = frequencies[local]
    fit = lowess(magnitude[~peaks], at[~peaks], it=0, xvals=at[peaks])
    # where neighbours are all alike the fit has nothing to weigh
    fit = np.where(np.isfinite(fit), np.maximum(fit, 0.0), np.median(magnitude[~peaks]))
    highest = float((magnitude[peaks] / np.maximum(fit, 1e-12)).max())
    spectrum[local[peaks]] *= fit / magnitude[peaks]
    return max(highest, 1.0)
