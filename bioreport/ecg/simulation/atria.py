"""What has no QRS: fibrillation and flutter of the atria, fibrillation of the ventricles, pacing stimuli."""

import numpy as np
import scipy.fft

from bioreport.ecg.simulation.waves import RATE, Array, LeadField


def _narrow_band(rng: np.random.Generator, rows: int, samples: int, hz: float, width: float) -> Array:
    """Noise around a frequency, RMS 1 each row."""
    size = scipy.fft.next_fast_len(samples, real=True)
    freqs = scipy.fft.rfftfreq(size, 1 / RATE)
    shape = np.exp(-0.5 * ((freqs - hz) / width) ** 2)
    spectrum = (rng.standard_normal((rows, len(freqs), 2)) @ np.array([1, 1j])) * shape
    noise = scipy.fft.irfft(spectrum, size, axis=1)[:, :samples]
    return np.asarray(noise / np.sqrt((noise**2).mean(axis=1, keepdims=True)))


def _seen(dipole: Array, chest: Array) -> Array:
    """Leads [8, T] of a moving dipole [3, T]."""
    field = LeadField(chest)
    return np.stack([field.see(axis) for axis in np.eye(3)], axis=1) @ dipole


def fibrillatory_waves(rng: np.random.Generator, samples: int, chest: Array) -> Array:
    """Waves of 5 to 8 Hz, no two alike, largest in V1 and the inferior leads: [8, samples] in mV."""
    hz, size = rng.uniform(5.0, 7.5), rng.uniform(0.02, 0.06)
    waves = _narrow_band(rng, 3, samples, hz, 0.7) + 0.35 * _narrow_band(rng, 3, samples, 1.9 * hz, 1.2)
    return _seen(waves * size * np.array([[0.5], [0.7], [1.0]]), chest)


def flutter_waves(rng: np.random.Generator, samples: int, chest: Array, period: float, first: float) -> Array:
    """A saw-tooth without a flat line, negative in the inferior leads, positive in V1."""
    phase = (np.arange(samples) / RATE - first) / period + rng.uniform(0.3, 0.7)
    # falls slowly over two thirds of the cycle, rises in the last; a few harmonics keep it round
    order = np.arange(1, 5)
    t = np.linspace(0, 1, 256, endpoint=False)
    saw = np.where(t < 0.66, 1 - 2 * t / 0.66, -1 + 2 * (t - 0.66) / 0.34)
    coefficients = np.array([(saw * np.exp(-2j * np.pi * k * t)).mean() for k in order])
    wave = 2 * np.real(coefficients @ np.exp(2j * np.pi * order[:, None] * (phase % 1.0)))
    size = rng.uniform(0.15, 0.26)
    return _seen(wave * size * np.array([[0.12], [1.0], [0.0]]), chest) + np.array(
        [0, 0, 0.7, 0.3, 0.0, 0.0, 0.0, 0.0]
    )[:, None] * size * -np.roll(wave, int(0.1 * period * RATE))


def ventricular_fibrillation(rng: np.random.Generator, samples: int, chest: Array) -> Array:
    """Chaos of 3.5 to 7 Hz that waxes and wanes: [8, samples] in mV."""
    hz, size = rng.uniform(3.8, 6.5), rng.uniform(0.25, 0.7)
    waves = _narrow_band(rng, 3, samples, hz, 0.6) + 0.3 * _narrow_band(rng, 3, samples, 1.7 * hz, 1.0)
    envelope = 1 + 0.35 * _narrow_band(rng, 1, samples, 0.3, 0.15)
    return _seen(waves * np.clip(envelope, 0.35, 1.8) * size, chest)


def paint_spike(rng: np.random.Generator, data: Array, seconds: float) -> None:
    """A pacing stimulus: 2 ms, with the little recoil that the amplifier's filter leaves."""
    at = round(seconds * RATE)
    direction = np.array([-0.4, -0.9, -0.5, -0.6, -0.7, -0.6, -0.5, -0.4])
    for offset, share in ((0, 1.0), (1, 0.35), (2, -0.12)):
        if 0 <= at + offset < data.shape[1]:
            data[:, at + offset] += share * direction * _SPIKE_MV * (1 + 0.05 * rng.standard_normal())


_SPIKE_MV = 1.1
