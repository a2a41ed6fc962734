"""The posterior dominant rhythm: its frequency, amplitude and symmetry, or its absence.

The rhythm is a peak that stands above the 1/f background of the occipital spectrum and is larger there than
over the front and the vertex, whatever the recording's reference: both are judged on the average reference.
It comes and goes (eyes closed, eyes open, drowsiness), so it is measured in the third of the epochs that show
it most.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import fft

WINDOW_SECONDS = 4.0  # 0.25 Hz between bins
LOWEST, HIGHEST = 1.0, 40.0  # Hz kept of each spectrum
SEARCH = (6.0, 13.25)  # Hz; slower peaks are slowing, faster ones spindles
HALF_BAND = 1.25  # Hz on either side of the peak that belong to the rhythm
SHOULDERS = (1.75, 3.0)  # Hz from the peak, where its surroundings are measured
PAIRS = (("O1", "O2"), ("P3", "P4"), ("T5", "T6"))
OCCIPITAL = ("O1", "O2")
PARIETAL = ("P3", "P4", "Pz", "T5", "T6")
ANTERIOR = ("F3", "F4", "Fz", "C3", "C4", "Cz")
# natural logarithms of power, chosen between simulated recordings with and without the rhythm
MIN_PROMINENCE = 1.3  # peak over the higher one of its two shoulders
WEAK_PROMINENCE = (
    1.0  # enough where the gradient is CLEAR_GRADIENT: real peaks are broader than simulated ones
)
CLEAR_GRADIENT = 1.6
MIN_GRADIENT = 0.5  # peak over the occiput to the same band over front and vertex
MIN_CONTRAST = 0.65  # that gradient over the gradient of all other frequencies
CEILING = 2.0  # what one epoch can add to a frequency's score, so that a seizure does not outvote the rest


def frequencies(sfreq: float) -> np.ndarray:
    """Hz of the bins that `epoch_spectra` keeps, float64 [F]."""
    bins = np.fft.rfftfreq(int(WINDOW_SECONDS * sfreq), 1 / sfreq)
    return bins[(bins >= LOWEST) & (bins <= HIGHEST)]


def epoch_spectra(
    data: np.ndarray, reference: np.ndarray, patch_mask: np.ndarray, sfreq: float
) -> tuple[np.ndarray, np.ndarray]:
    """Power spectra of epochs, by Welch's method (Hann, 4 s, half overlap): as they are, and referenced.

    Parameters
    ----------
    data : float32 [E, C, T]
        Epochs in µV.
    reference : float32 [E, T]
        See `average_reference`.
    patch_mask : bool [E, P]
        One-second patches that hold signal; a window with any other patch is left out.
    sfreq : float
        Sampling rate in Hz.

    Returns
    -------
    Two float32 [E, C, F] in µV²/Hz at `frequencies(sfreq)`; zeros for an epoch without one whole window.
    """
    width = int(WINDOW_SECONDS * sfreq)
    taper = np.hanning(width + 1)[:-1].astype(np.float32)
    bins = np.fft.rfftfreq(width, 1 / sfreq)
    keep = slice(*np.searchsorted(bins, [LOWEST, np.nextafter(HIGHEST, np.inf)]))
    total = np.zeros((2, *data.shape[:2], len(bins[keep])), np.float32)
    count = np.zeros(len(data), np.float32)
    seconds = int(WINDOW_SECONDS)
    for first in range(0, data.shape[2] - width + 1, width // 2):
        patch = round(first / sfreq)
        whole = patch_mask[:, patch : patch + seconds].all(axis=1)
        if not whole.any():
            continue
        time = slice(first, first + width)
        piece = np.concatenate([data[whole, :, time], reference[whole, None, time]], axis=1)
        piece -= piece.mean(axis=2, keepdims=True)
        piece *= taper
        transform = fft.rfft(piece, axis=2)[:, :, keep]
        own = transform[:, :-1]
        for row, z in enumerate((own, own - transform[:, -1:])):
            total[row, whole] += z.real**2 + z.imag**2
        count[whole] += 1
    total *= np.float32(2 / (sfreq * np.sum(taper**2))) / np.maximum(count, 1)[:, None, None]
    return total[0], total[1]


def average_reference(data: np.ndarray, usable: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The median of each epoch's usable scalp channels.

    A rhythm of the vertex appears over the occiput where the vertex is the reference; against all electrodes
    it does not. The median keeps one bad electrode or one focus out of the reference.

    Parameters
    ----------
    data : float32 [E, C, T]
        Epochs in µV.
    usable : bool [E, C]
        Channels that are good in each epoch.
    names : sequence of str
        The C channel names; the ear lobes are left out.

    Returns
    -------
    float32 [E, T]; zeros for an epoch with fewer than eight usable scalp channels.
    """
    scalp = np.array([name not in ("A1", "A2") for name in names])
    result = np.zeros((len(data), data.shape[2]), np.float32)
    for row, epoch, good in zip(result, data, usable & scalp, strict=True):
        count = good.sum()
        if count >= 8:
            # a median along the first axis takes six times as long
            middle = [(count - 1) // 2, count // 2]
            row[:] = np.partition(np.ascontiguousarray(epoch[good].T), middle, axis=1)[:, middle].mean(1)
    return result


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
    x = np.log(freqs[used])
    y = log_power.reshape(-1, log_power.shape[-1])[:, used].astype(np.float64)
    weight = np.ones(y.shape)
    for _ in range(5):
        # least squares of weighted residuals, about the weighted means
        share = weight**2 / np.sum(weight**2, axis=1, keepdims=True)
        mean_x = np.sum(share * x, axis=1, keepdims=True)
        mean_y = np.sum(share * y, axis=1, keepdims=True)
        spread = np.sum(share * (x - mean_x) ** 2, axis=1, keepdims=True)
        slope = np.sum(share * (x - mean_x) * (y - mean_y), axis=1, keepdims=True) / spread
        residual = y - (mean_y + slope * (x - mean_x))
        centred = np.abs(residual - np.median(residual, axis=1, keepdims=True))
        scale = 1.4826 * np.median(centred, axis=1, keepdims=True) + 1e-6
        weight = (residual < 1.0 * scale).astype(float) + 1e-3
    fitted = mean_y + slope * (np.log(freqs) - mean_x)
    return fitted.reshape(log_power.shape)


def smooth(values: np.ndarray) -> np.ndarray:
    """Triangular smoothing over five bins (1.25 Hz) along the last axis."""
    kernel = np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 9
    padded = np.concatenate([values[..., :1]] * 2 + [values] + [values[..., -1:]] * 2, axis=-1)
    width = values.shape[-1]
    return np.sum([kernel[i] * padded[..., i : i + width] for i in range(5)], axis=0)


def posterior_rhythm(
    spectra: np.ndarray, averaged: np.ndarray, usable: np.ndarray, names: Sequence[str], freqs: np.ndarray
) -> dict[str, float | str | None] | None:
    """Posterior dominant rhythm of a recording.

    Parameters
    ----------
    spectra, averaged : float32 [N, C, F]
        Spectra of epochs in µV²/Hz, in the recording's reference and in the average reference.
    usable : bool [N, C]
        Channels that are good in each epoch.
    names : sequence of str
        The C channel names.
    freqs : float64 [F]
        Hz.

    Returns
    -------
    dict or None
        None where no rhythm stands out or no posterior channel is usable. Amplitudes are peak-to-peak µV
        in the recording's reference: 2·sqrt(2) times the RMS of the power above the background within
        ±1.25 Hz of the peak, median over the epochs that show the rhythm. `asymmetry_percent` is
        (higher − lower) / higher of the pooled homologous pairs, None unless a pair is usable on both sides.
    """
    share = usable.mean(axis=0) if len(usable) else np.zeros(len(names))
    good = {name: i for i, name in enumerate(names) if share[i] > 0.5}
    posterior = [good[name] for name in OCCIPITAL if name in good] or [
        good[name] for name in PARIETAL if name in good
    ]
    anterior = [good[name] for name in ANTERIOR if name in good]
    if not posterior:
        return None
    whole = usable[:, posterior].all(axis=1) & (averaged[:, posterior].min(axis=(1, 2)) > 0)
    if not whole.any():
        return None
    spectra, averaged = spectra[whole], np.maximum(averaged[whole], 1e-9).astype(np.float64)
    log_power = np.log(averaged[:, posterior].mean(axis=1))
    above = smooth(log_power - background(freqs, log_power))
    gradient = _gradient(log_power, averaged[:, anterior])
    at = _peak_bin(freqs, above, gradient)
    if at is None:
        return None
    chosen = _showing(freqs, at, np.minimum(above, gradient))
    if not _stands_out(freqs, at, above[chosen].mean(axis=0), gradient[chosen].mean(axis=0)):
        return None
    frequency = _centre(freqs, at, log_power[chosen])
    amplitude = _amplitudes(spectra[chosen], np.abs(freqs - frequency) <= HALF_BAND, freqs)
    return {
        "frequency_hz": round(frequency, 1),
        "amplitude_uv": round(float(np.mean(amplitude[posterior])), 1),
        **_sides(amplitude, good),
    }


def _gradient(log_power: np.ndarray, anterior: np.ndarray) -> np.ndarray:
    """Log power [N, F] over the occiput minus that over front and vertex; without these, no objection."""
    if anterior.shape[1] == 0:
        return np.full(log_power.shape, CEILING)
    return smooth(log_power - np.log(np.median(anterior, axis=1)))


def _peak_bin(freqs: np.ndarray, above: np.ndarray, gradient: np.ndarray) -> int | None:
    """The bin that most epochs agree on: above the background, and above the same frequency in front."""
    offset = np.median(gradient, axis=1, keepdims=True) if np.ptp(gradient) else 0.0
    votes = np.minimum(np.clip(above, 0, CEILING), np.clip(gradient - offset, 0, CEILING)).mean(axis=0)
    inside = np.flatnonzero((freqs >= SEARCH[0]) & (freqs <= SEARCH[1]))
    peaks = [i for i in inside if votes[i] > votes[i - 1] and votes[i] >= votes[i + 1]]
    return int(max(peaks, key=lambda i: votes[i])) if peaks else None


def _showing(freqs: np.ndarray, at: int, strength: np.ndarray) -> np.ndarray:
    """The epochs that show the rhythm: the strongest third, of those whose own peak is the common one."""
    inside = (freqs >= SEARCH[0]) & (freqs <= SEARCH[1])
    own = freqs[inside][strength[:, inside].argmax(axis=1)]
    agreeing = np.flatnonzero(np.abs(own - freqs[at]) <= 1.0)
    if len(agreeing) == 0:
        agreeing = np.arange(len(strength))
    order = np.argsort(strength[agreeing][:, np.abs(freqs - freqs[at]) <= 0.5].max(axis=1))
    return np.asarray(agreeing[order[-max(1, -(-len(strength) // 3)) :]])


def _stands_out(freqs: np.ndarray, at: int, above: np.ndarray, gradient: np.ndarray) -> bool:
    distance = freqs - freqs[at]
    near, far = SHOULDERS
    below = above[(distance >= -far) & (distance <= -near)].mean()
    beyond = above[(distance >= near) & (distance <= far)].mean()
    wanted = WEAK_PROMINENCE if gradient[at] >= CLEAR_GRADIENT else MIN_PROMINENCE
    if above[at] - max(below, beyond) < wanted:
        return False
    elsewhere = (freqs > 2) & (freqs < 25) & (np.abs(distance) > 2)
    contrast = gradient[at] - np.median(gradient[elsewhere]) if np.ptp(gradient) else np.inf
    return bool(gradient[at] >= MIN_GRADIENT and contrast >= MIN_CONTRAST)


def _centre(freqs: np.ndarray, at: int, log_power: np.ndarray) -> float:
    """Centre of gravity in Hz of the power within ±1 Hz of the peak, of the mean log spectrum."""
    near = np.abs(freqs - freqs[at]) <= 1.0
    power = np.exp(log_power.mean(axis=0)[near])
    weight = power - power.min()
    return float(np.sum(weight * freqs[near]) / max(float(np.sum(weight)), 1e-12))


def _amplitudes(spectra: np.ndarray, band: np.ndarray, freqs: np.ndarray) -> np.ndarray:
    """Peak-to-peak µV [C] of what stands above the background in `band`, median over epochs."""
    floor = np.exp(background(freqs, np.log(np.maximum(spectra, 1e-12).astype(np.float64))))
    above = np.clip(spectra[..., band] - floor[..., band], 0, None).sum(axis=-1) * (freqs[1] - freqs[0])
    return np.asarray(np.median(2 * np.sqrt(2 * above), axis=0))


def _sides(amplitude: np.ndarray, good: Mapping[str, int]) -> dict[str, float | str | None]:
    pairs = [(good[left], good[right]) for left, right in PAIRS if left in good and right in good]
    if not pairs:
        return dict.fromkeys(("left_amplitude_uv", "right_amplitude_uv", "asymmetry_percent", "lower_side"))
    left = float(np.mean([amplitude[i] for i, _ in pairs]))
    right = float(np.mean([amplitude[i] for _, i in pairs]))
    higher = max(left, right)
    return {
        "left_amplitude_uv": round(left, 1),
        "right_amplitude_uv": round(right, 1),
        "asymmetry_percent": round(100 * abs(left - right) / higher, 1) if higher > 0 else None,
        "lower_side": None if left == right else "left" if left < right else "right",
    }
