"""What happens to the heart's potentials on the way into the file: noise of electrodes, faults, mix-ups.

Noise arises at the nine electrodes and reaches the leads as their differences, so that Einthoven's law holds
for the noise as for the signal.
"""

import numpy as np
import scipy.fft

from bioreport.ecg.leads import LEADS
from bioreport.ecg.simulation.waves import RATE, TO_TWELVE, Array

ELECTRODES: tuple[str, ...] = ("RA", "LA", "LL", "V1", "V2", "V3", "V4", "V5", "V6")
_LEADS_OF: Array = np.zeros((8, 9))  # BASE from ELECTRODES
_LEADS_OF[0, :3] = (-1, 1, 0)
_LEADS_OF[1, :3] = (-1, 0, 1)
_LEADS_OF[2:, :3] = (-1 / 3, -1 / 3, 0)
_LEADS_OF[2:, 2] = -1 / 3
_LEADS_OF[2:, 3:] = np.eye(6)
NOISY_MV = 0.05  # RMS from which on a lead is called noisy
_BLOCK = 1 << 19  # samples for which noise is made at once


def leads_of(electrodes: Array) -> Array:
    """Leads [12, ...] of electrode potentials [9, ...]."""
    return np.asarray(TO_TWELVE @ (_LEADS_OF @ electrodes))


def add_noise(
    rng: np.random.Generator, data: Array, present: frozenset[str], avoid: frozenset[str]
) -> tuple[list[str], float | None]:
    """Add noise to base leads [8, T] in mV; leads that are noisy, and the mains' frequency where visible.

    `avoid`: leads that show a finding and should stay readable.
    """
    samples = data.shape[1]
    noisy = [""] if "noisy_lead" not in present else _draw_noisy(rng, avoid)
    device = float(rng.choice([100.0, 150.0, 240.0], p=[0.25, 0.5, 0.25]))
    white = rng.uniform(0.002, 0.007)
    muscle = float(np.exp(rng.uniform(np.log(0.0015), np.log(0.012))))
    levels = np.array([rng.uniform(0.11, 0.26) if name in noisy else muscle for name in ELECTRODES])
    for start in range(0, samples, _BLOCK):
        stop = min(samples, start + _BLOCK)
        data[:, start:stop] += _LEADS_OF @ _coloured(rng, stop - start, white, levels, device)
    data += _LEADS_OF @ _wander(rng, samples, marked="baseline_wander" in present)
    hz = None
    mains = float(rng.choice([50.0, 60.0]))
    if "mains_interference" in present:
        hz, size = mains, rng.uniform(0.05, 0.15)
    else:
        size = 0.0004 * rng.random()
    data += _LEADS_OF @ _mains(rng, samples, mains, size)
    rms = np.sqrt(((TO_TWELVE @ _LEADS_OF) ** 2 * levels**2).sum(axis=1))
    return ([lead for lead, level in zip(LEADS, rms, strict=True) if level > NOISY_MV], hz)


def _draw_noisy(rng: np.random.Generator, avoid: frozenset[str]) -> list[str]:
    if rng.random() < 0.35 and not avoid & set(LEADS[:6]):
        return [str(rng.choice(ELECTRODES[:3]))]
    free = [name for name in ELECTRODES[3:] if name not in avoid] or list(ELECTRODES[3:])
    return [str(name) for name in rng.permutation(free)[: int(rng.integers(1, 4))]]


def _coloured(rng: np.random.Generator, samples: int, white: float, muscle: Array, low_pass: float) -> Array:
    """White noise of the amplifier, some 1/f of the skin, and muscle: [9, samples] in mV."""
    size = scipy.fft.next_fast_len(samples, real=True)
    hz = scipy.fft.rfftfreq(size, 1 / RATE)
    above = np.maximum(hz, 0.5)
    power = white**2 * (1 + 8 / above) + (muscle[:, None] ** 2) * _muscle(hz)
    power *= 1 / (1 + (hz / low_pass) ** 8)
    power[:, 0] = 0
    scale = np.sqrt(power * size / 4)  # RMS of 1 where power is 1 at every frequency
    spectrum = rng.standard_normal((9, len(hz), 2)) @ np.array([1, 1j])
    return np.asarray(scipy.fft.irfft(spectrum * scale, size, axis=1)[:, :samples]) * np.sqrt(2)


def _muscle(hz: Array) -> Array:
    shape = (hz / 25) ** 2 / (1 + (hz / 25) ** 2) / (1 + (hz / 110) ** 4)
    return np.asarray(shape / shape.mean())


def _wander(rng: np.random.Generator, samples: int, *, marked: bool) -> Array:
    """Drift of each electrode by breathing and by its own chemistry, below 0.5 Hz."""
    t = np.arange(samples) / RATE
    breath = rng.uniform(0.18, 0.32)
    drift = np.zeros((9, samples))
    for row in drift:
        row += rng.uniform(0.3, 1.0) * np.sin(2 * np.pi * breath * t + rng.uniform(0, 2 * np.pi))
        for _ in range(3):
            row += rng.normal() * np.sin(2 * np.pi * rng.uniform(0.04, 0.35) * t + rng.uniform(0, 2 * np.pi))
    reach = float(np.ptp(_LEADS_OF @ drift, axis=1).max())
    target = rng.uniform(0.8, 2.0) if marked else rng.uniform(0.01, 0.16)
    return drift * (target / max(reach, 1e-9))


def _mains(rng: np.random.Generator, samples: int, hz: float, size: float) -> Array:
    """A sine and a little of its third harmonic in all electrodes; the largest lead has `size`."""
    t = np.arange(samples) / RATE
    weights = rng.uniform(0.3, 1.0, 9) * np.exp(1j * rng.normal(0, 0.6, 9))
    weights *= size / max(float(np.abs(_LEADS_OF @ weights).max()), 1e-9)
    phase = rng.uniform(0, 2 * np.pi)
    carrier = np.exp(1j * (2 * np.pi * hz * t + phase)) + 0.1 * np.exp(3j * (2 * np.pi * hz * t + phase))
    return np.real(weights[:, None] * carrier)


def swap_limbs(rng: np.random.Generator, data: Array) -> str:
    """Exchange two limb electrodes in base leads [8, T]; says which."""
    one, two = data[0].copy(), data[1].copy()
    if rng.random() < 0.75:
        data[0], data[1] = -one, two - one
        return "left arm and right arm"
    data[0], data[1] = one - two, -two
    return "right arm and left leg"


def to_counts(data: Array) -> np.ndarray:
    """Base leads [8, T] in mV to twelve leads in µV, int32 [12, T], that obey Einthoven to the last bit.

    I and II are rounded to even numbers, so that half their sum is a whole one.
    """
    base = np.empty(data.shape, np.int64)
    base[:2] = 2 * np.rint(data[:2] * 500)
    base[2:] = np.rint(data[2:] * 1000)
    doubled = np.rint(2 * TO_TWELVE).astype(np.int64) @ base
    return np.clip(doubled // 2, -32767, 32767).astype(np.int32)


def disconnect(rng: np.random.Generator, counts: np.ndarray, avoid: frozenset[str]) -> list[str]:
    """Take off one electrode or two of the chest, or one limb's; returns the leads without signal."""
    if rng.random() < 0.25 and not avoid & set(LEADS[:6]):
        kept = str(rng.choice(["I", "II", "III"]))
        off = [lead for lead in LEADS[:6] if lead != kept]
    else:
        free = [lead for lead in LEADS[6:] if lead not in avoid]
        free = free or ["V4"]
        off = [str(lead) for lead in rng.permutation(free)[: 1 if rng.random() < 0.8 else 2]]
    level = 0 if rng.random() < 0.75 else int(rng.choice([-1, 1])) * int(rng.integers(2000, 9000))
    for lead in off:
        counts[LEADS.index(lead)] = level
    return sorted(off, key=LEADS.index)
