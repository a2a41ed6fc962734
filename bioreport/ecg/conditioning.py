"""One stretch of ECG made ready to be measured: 500 Hz, gaps filled and marked, mains out, faults found.

Nothing here is meant to be looked at: filters of a diagnostic tracing are in `bioreport.ecg.preprocess`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from scipy import ndimage, signal

# Hz at which everything is measured: AHA 2007 asks for it (Kligfield, doi:10.1161/CIRCULATIONAHA.106.180200)
RATE = 500
# zero-phase high-pass for finding beats; below it lies the baseline, above it all of QRS and T
LOWEST = 0.5
# P, ST and T are read below this: muscle is above, and a wave of 80 ms is not
SMOOTH = 40.0
QRS_HIGHEST = 150.0  # AHA 2007: what a QRS needs
MAINS = (50.0, 60.0)
MAINS_RATIO = 10.0  # power at the mains frequency over its neighbours, seen by eye
MAINS_WIDTH = 30.0  # quality factor of the notch
FLAT_MV = 0.02  # peak to peak in a second; a lead on a body has more noise than this
HELD_SHARE = 0.9  # of a second's samples equal to the one before
BAD_SHARE = 0.5  # of a stretch a lead must be flat or missing for to count as that
RAIL_SHARE = 0.05  # of all samples on the lead's own extreme value
RAIL_MV = 1.0  # peak to peak below which an extreme is no clipping
# s over which medians are taken one after the other: no QRS is left, then no T wave (de Chazal 2004)
BASELINE_SECONDS = (0.2, 0.6)
BASELINE_BLOCK = 10  # samples; a drift is slow


@dataclass(frozen=True)
class Stretch:
    """Leads over the same time at `RATE`.

    Attributes
    ----------
    names : tuple of str
        Leads that carry a signal.
    data : float64 [leads, n]
        mV, without mains; below `QRS_HIGHEST`.
    smooth : float64 [leads, n]
        The same below `SMOOTH`.
    gaps : bool [leads, n]
        Samples that the recording has not.
    state : dict of str to str
        Every lead, also those left out: ``"good"``, ``"flat"``, ``"saturated"``, ``"missing"``.
    mains : dict of str to float
        Power at the mains frequency over its neighbours, by lead.
    mains_mv : dict of str to float
        Its peak-to-peak height, by lead.
    mains_hz : float or None
    wander_mv : dict of str to float
        Peak-to-peak drift of the baseline, by lead.
    noise_mv : dict of str to float
        Root mean square of what is between `SMOOTH` and `QRS_HIGHEST` outside QRS complexes, by lead.
    """

    names: tuple[str, ...]
    data: np.ndarray
    smooth: np.ndarray
    gaps: np.ndarray
    state: dict[str, str]
    mains: dict[str, float]
    mains_mv: dict[str, float]
    mains_hz: float | None
    wander_mv: dict[str, float]
    noise_mv: dict[str, float]
    bandwidth: float

    @property
    def seconds(self) -> float:
        return self.data.shape[1] / RATE

    def row(self, lead: str) -> int | None:
        """Row of a lead; None where it is absent or carries no signal."""
        return self.names.index(lead) if lead in self.names else None

    def rows(self, leads: Sequence[str]) -> list[int]:
        return [self.names.index(lead) for lead in leads if lead in self.names]


def condition(samples: np.ndarray, sfreq: float, leads: Sequence[str]) -> Stretch:
    """Prepare samples [leads, T] in mV (NaN where there is none) for measurement."""
    samples = np.asarray(samples, np.float64)
    missing = ~np.isfinite(samples)
    state = {lead: _state(row, gone, sfreq) for lead, row, gone in zip(leads, samples, missing, strict=True)}
    kept = [i for i, lead in enumerate(leads) if state[lead] == "good"]
    names = tuple(leads[i] for i in kept)
    filled = _filled(samples[kept], missing[kept])
    ratio = Fraction(RATE / sfreq).limit_denominator(1000)
    mains_hz, mains, mains_mv = _mains(filled, sfreq, names)
    data = signal.resample_poly(filled, ratio.numerator, ratio.denominator, axis=1, padtype="line")
    if mains_hz is not None:
        b, a = signal.iirnotch(mains_hz, MAINS_WIDTH, fs=RATE)
        data = signal.filtfilt(b, a, data, axis=1)
    below, smooth = _filter(data, QRS_HIGHEST, "lowpass"), _filter(data, SMOOTH, "lowpass")
    slow = _baseline(smooth)
    # QRS complexes are too brief to count in a median
    fast = 1.4826 * np.median(np.abs(below - smooth), axis=1) if data.size else np.zeros(len(data))
    at = np.minimum((np.arange(data.shape[1]) * sfreq / RATE).astype(int), samples.shape[1] - 1)
    return Stretch(
        names=names,
        data=below,
        smooth=smooth,
        gaps=missing[kept][:, at],
        state=state,
        mains=mains,
        mains_mv=mains_mv,
        mains_hz=mains_hz,
        wander_mv={
            lead: float(np.ptp(np.percentile(row, [2, 98]))) for lead, row in zip(names, slow, strict=True)
        },
        noise_mv=dict(zip(names, np.round(fast, 4).tolist(), strict=True)),
        bandwidth=sfreq / 2,
    )


def high_passed(data: np.ndarray) -> np.ndarray:
    """Without the baseline, zero phase: for finding beats and comparing their shapes."""
    return _filter(data, LOWEST, "highpass")


def _baseline(data: np.ndarray) -> np.ndarray:
    """The line under the waves, thinned by `BASELINE_BLOCK`."""
    blocks = data.shape[1] // BASELINE_BLOCK
    line = data[:, : blocks * BASELINE_BLOCK].reshape(len(data), blocks, BASELINE_BLOCK).mean(axis=2)
    if not line.size:
        return np.zeros((len(data), 1))
    for seconds in BASELINE_SECONDS:
        width = 2 * round(seconds * RATE / BASELINE_BLOCK / 2) + 1
        line = ndimage.median_filter(line, size=(1, width), mode="nearest")
    return np.asarray(line)


def _filter(data: np.ndarray, hz: float, kind: str) -> np.ndarray:
    sections = signal.butter(2, hz, kind, fs=RATE, output="sos")
    pad = min(data.shape[1] - 1, 3 * int(RATE / min(hz, 10)))
    return signal.sosfiltfilt(sections, data, axis=1, padlen=max(pad, 0)) if data.size else data


def _state(row: np.ndarray, missing: np.ndarray, sfreq: float) -> str:
    if missing.mean() > BAD_SHARE:
        return "missing"
    second = max(2, round(sfreq))
    starts = range(0, max(len(row) - second, 0) + 1, second)
    still = []
    for start in starts:
        piece = row[start : start + second]
        piece = piece[np.isfinite(piece)]
        if len(piece) > 1:
            still.append(np.ptp(piece) < FLAT_MV or np.mean(np.diff(piece) == 0) > HELD_SHARE)
    if np.mean(still) > BAD_SHARE:
        return "flat"
    valid = row[~missing]
    low, high = valid.min(), valid.max()
    railed = np.mean((valid == low) | (valid == high))
    return "saturated" if railed > RAIL_SHARE and high - low > RAIL_MV else "good"


def _filled(samples: np.ndarray, missing: np.ndarray) -> np.ndarray:
    if not missing.any():
        return samples
    filled = samples.copy()
    at = np.arange(samples.shape[1])
    for row, gone in zip(filled, missing, strict=True):
        if gone.any():
            row[gone] = np.interp(at[gone], at[~gone], row[~gone])
    return filled


def _mains(
    data: np.ndarray, sfreq: float, names: Sequence[str]
) -> tuple[float | None, dict[str, float], dict[str, float]]:
    """The mains frequency that a fifth of the leads show; every lead's ratio, and its height in mV."""
    candidates = [hz for hz in MAINS if hz + 6 < sfreq / 2]
    if not candidates or not len(data):
        return None, dict.fromkeys(names, 1.0), dict.fromkeys(names, 0.0)
    freqs, power = signal.welch(data, sfreq, nperseg=min(data.shape[1], int(2 * sfreq)), axis=1)
    ratios = {}
    for hz in candidates:
        peak = power[:, np.abs(freqs - hz) <= 0.6].max(axis=1)
        beside = power[:, (np.abs(freqs - hz) >= 2) & (np.abs(freqs - hz) <= 6)]
        ratios[hz] = peak / np.maximum(np.median(beside, axis=1), 1e-12)
    hz = max(candidates, key=lambda f: float(np.mean(np.log(ratios[f]))))
    ratio = {name: round(float(r), 1) for name, r in zip(names, ratios[hz], strict=True)}
    stands = sum(r >= MAINS_RATIO for r in ratio.values()) >= max(1, 0.2 * len(ratio))
    within = np.abs(freqs - hz) <= 1.5
    height = 2 * np.sqrt(2 * power[:, within].sum(axis=1) * (freqs[1] - freqs[0]))
    heights = {name: round(float(h), 4) for name, h in zip(names, height, strict=True)}
    return (hz if stands else None), ratio, heights
