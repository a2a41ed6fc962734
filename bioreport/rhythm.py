"""The posterior dominant rhythm: its frequency, amplitude and symmetry, or its absence.

The rhythm is a peak that stands above the 1/f background of the occipital spectrum, more than above the
frontal one. It comes and goes (eyes closed, eyes open, drowsiness), so the epochs in which it stands out
most are averaged, and a peak counts only if that average shows it again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

WINDOW_SECONDS = 4.0  # 0.25 Hz between bins
LOWEST, HIGHEST = 1.0, 40.0  # Hz kept of each spectrum
SEARCH = (4.5, 13.5)  # Hz in which an adult's or child's posterior rhythm lies
HALF_BAND = 1.25  # Hz on either side of the peak that belong to the rhythm
PAIRS = (("O1", "O2"), ("P3", "P4"), ("T5", "T6"))
MIDLINE = ("Pz",)
FRONTAL = ("F3", "F4", "Fz", "C3", "C4", "Cz", "F7", "F8")
MIN_PROMINENCE = 0.9  # natural-log power above the background in the chosen epochs
MIN_GRADIENT = 0.25  # natural-log power of the peak, posterior over frontal


def frequencies(sfreq: float) -> np.ndarray:
    """Hz of the bins that `epoch_spectra` keeps, float64 [F]."""
    bins = np.fft.rfftfreq(int(WINDOW_SECONDS * sfreq), 1 / sfreq)
    return bins[(bins >= LOWEST) & (bins <= HIGHEST)]


def epoch_spectra(data: np.ndarray, patch_mask: np.ndarray, sfreq: float) -> np.ndarray:
    """Power spectra of epochs by Welch's method (Hann, 4 s, half overlap).

    Parameters
    ----------
    data : float32 [E, C, T]
        Epochs in µV.
    patch_mask : bool [E, P]
        One-second patches that hold signal; a window with any other patch is left out.
    sfreq : float
        Sampling rate in Hz.

    Returns
    -------
    float32 [E, C, F] in µV²/Hz at `frequencies(sfreq)`; zeros for an epoch without one whole window.
    """
    width = int(WINDOW_SECONDS * sfreq)
    taper = np.hanning(width + 1)[:-1].astype(np.float32)
    bins = np.fft.rfftfreq(width, 1 / sfreq)
    keep = (bins >= LOWEST) & (bins <= HIGHEST)
    total = np.zeros((*data.shape[:2], int(keep.sum())), np.float32)
    count = np.zeros(len(data), np.float32)
    seconds = int(WINDOW_SECONDS)
    for first in range(0, data.shape[2] - width + 1, width // 2):
        patch = round(first / sfreq)
        whole = patch_mask[:, patch : patch + seconds].all(axis=1)
        if not whole.any():
            continue
        piece = data[whole, :, first : first + width]
        piece = (piece - piece.mean(axis=2, keepdims=True)) * taper
        power = np.abs(np.fft.rfft(piece, axis=2)[:, :, keep]) ** 2
        total[whole] += (2 / (sfreq * np.sum(taper**2)) * power).astype(np.float32)
        count[whole] += 1
    return total / np.maximum(count, 1)[:, None, None]


@dataclass(frozen=True)
class Peak:
    """A spectral peak over its background."""

    frequency: float  # Hz
    prominence: float  # natural-log power over the 1/f background


def background(freqs: np.ndarray, log_power: np.ndarray) -> np.ndarray:
    """The 1/f line under a log spectrum, fitted in log-log where no peak stands.

    Parameters
    ----------
    freqs : float64 [F]
        Hz.
    log_power : float64 [..., F]
        Natural log of the power.

    Returns
    -------
    float64 [..., F], the fitted natural log of the power. Points above the line are dropped and the line
    fitted again, so that a peak does not lift its own background (the idea of specparam, Donoghue 2020).
    """
    used = (freqs >= 2.0) & (freqs <= 30.0)
    design = np.stack([np.ones(int(used.sum())), np.log(freqs[used])], axis=1)
    flat = log_power.reshape(-1, log_power.shape[-1])
    fitted = np.empty_like(flat)
    for row, values in enumerate(flat):
        y = values[used]
        weight = np.ones(len(y))
        coefficients = np.zeros(2)
        for _ in range(5):
            coefficients[:] = np.linalg.lstsq(design * weight[:, None], y * weight, rcond=None)[0]
            residual = y - design @ coefficients
            scale = 1.4826 * np.median(np.abs(residual - np.median(residual))) + 1e-6
            weight = (residual < 1.0 * scale).astype(float) + 1e-3
        fitted[row] = coefficients[0] + coefficients[1] * np.log(freqs)
    return fitted.reshape(log_power.shape)


def smooth(values: np.ndarray) -> np.ndarray:
    """Triangular smoothing over five bins (1.25 Hz) along the last axis."""
    kernel = np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 9
    padded = np.concatenate([values[..., :1]] * 2 + [values] + [values[..., -1:]] * 2, axis=-1)
    width = values.shape[-1]
    return np.sum([kernel[i] * padded[..., i : i + width] for i in range(5)], axis=0)


def strongest_peak(freqs: np.ndarray, residual: np.ndarray) -> Peak | None:
    """The highest local maximum within `SEARCH` of a spectrum without its background, or None."""
    values = smooth(residual)
    best: Peak | None = None
    for i in range(1, len(freqs) - 1):
        if not SEARCH[0] <= freqs[i] <= SEARCH[1]:
            continue
        left, middle, right = values[i - 1 : i + 2]
        if middle < left or middle <= right:
            continue
        curvature = left - 2 * middle + right
        shift = 0.5 * (left - right) / curvature if curvature < 0 else 0.0
        if best is None or middle > best.prominence:
            best = Peak(float(freqs[i] + shift * (freqs[1] - freqs[0])), float(middle))
    return best


def posterior_rhythm(
    spectra: np.ndarray, usable: np.ndarray, names: Sequence[str], freqs: np.ndarray
) -> dict[str, float | str | None] | None:
    """Posterior dominant rhythm of a recording.

    Parameters
    ----------
    spectra : float32 [N, C, F]
        Spectra of epochs, µV²/Hz.
    usable : bool [N, C]
        Channels that are good in each epoch.
    names : sequence of str
        The C channel names.
    freqs : float64 [F]
        Hz.

    Returns
    -------
    dict or None
        None where no rhythm stands above the background or no posterior channel is usable. Amplitudes are
        peak-to-peak µV, 2·sqrt(2) times the RMS of the power above the background within ±1.25 Hz of the
        peak, median over the epochs that show the rhythm. `asymmetry_percent` is (higher − lower) / higher
        of the pooled homologous pairs, None unless both sides of a pair are usable.
    """
    row = {name: i for i, name in enumerate(names)}
    share = usable.mean(axis=0) if len(usable) else np.zeros(len(names))

    def good(wanted: Sequence[str]) -> list[int]:
        return [row[name] for name in wanted if name in row and share[row[name]] > 0.5]

    posterior = good([name for pair in PAIRS[:1] for name in pair]) or good(
        [name for pair in PAIRS[1:] for name in pair] + list(MIDLINE)
    )
    if not posterior:
        return None
    epochs = np.flatnonzero(usable[:, posterior].all(axis=1) & (spectra[:, posterior].min(axis=(1, 2)) > 0))
    if len(epochs) == 0:
        return None
    log_power = np.log(spectra[epochs][:, posterior].astype(np.float64)).mean(axis=1)
    residual = log_power - background(freqs, log_power)
    inside = (freqs >= SEARCH[0]) & (freqs <= SEARCH[1])
    score = smooth(residual)[:, inside].max(axis=1)
    chosen = np.argsort(score)[-max(1, -(-len(score) // 3)) :]
    average = residual[chosen].mean(axis=0)
    peak = strongest_peak(freqs, average)
    if peak is None or peak.prominence < MIN_PROMINENCE:
        return None
    band = np.abs(freqs - peak.frequency) <= HALF_BAND
    frontal = good(FRONTAL)
    if frontal:
        power = spectra[epochs[chosen]][:, :, band].mean(axis=2)
        gradient = np.log(np.median(power[:, posterior]) / max(float(np.median(power[:, frontal])), 1e-12))
        if gradient < MIN_GRADIENT:
            return None
    amplitude = _amplitudes(spectra[epochs[chosen]], band, freqs)
    pairs = [(row[a], row[b]) for a, b in PAIRS if {row.get(a), row.get(b)} <= set(good([a, b]))]
    left = float(np.mean([amplitude[a] for a, _ in pairs])) if pairs else None
    right = float(np.mean([amplitude[b] for _, b in pairs])) if pairs else None
    asymmetry, lower = None, None
    if left is not None and right is not None and max(left, right) > 0:
        asymmetry = 100 * abs(left - right) / max(left, right)
        lower = "left" if left < right else "right"
    return {
        "frequency_hz": round(peak.frequency, 1),
        "amplitude_uv": round(float(np.mean(amplitude[posterior])), 1),
        "left_amplitude_uv": None if left is None else round(left, 1),
        "right_amplitude_uv": None if right is None else round(right, 1),
        "asymmetry_percent": None if asymmetry is None else round(asymmetry, 1),
        "lower_side": lower,
    }


def _amplitudes(spectra: np.ndarray, band: np.ndarray, freqs: np.ndarray) -> np.ndarray:
    """Peak-to-peak µV [C] of what stands above the background in `band`, median over epochs."""
    floor = np.exp(background(freqs, np.log(np.maximum(spectra, 1e-12).astype(np.float64))))
    above = np.clip(spectra[..., band] - floor[..., band], 0, None).sum(axis=-1) * (freqs[1] - freqs[0])
    return np.asarray(np.median(2 * np.sqrt(2 * above), axis=0))
