"""Signals without QRS complexes: ventricular fibrillation, a flat line, or nothing but noise."""

from dataclasses import dataclass

import numpy as np
from scipy import signal

from bioreport.ecg.beats import Beats
from bioreport.ecg.conditioning import RATE, Stretch, high_passed

LEAST_MV = 0.15  # peak to peak in a second: what is smaller in every lead is no ventricular activity
STANDSTILL_SECONDS = 4.0  # without a QRS complex (AAMI EC13 asks monitors to alarm at 4 s)
ALIKE = 0.85  # correlation of the beats in the median lead, above which they are beats
LEAST_ALIKE = 0.45
REGULAR = 0.12
# steepest over usual slope: above 9 with QRS complexes in the development records, 4 in a sine
PEAKED = 5.0
FIBRILLATION_HZ = (2.5, 10.0)
IN_BAND = 0.6  # of the power between 1 and 30 Hz that lies about the strongest frequency
STEEPEST_P = 9.0  # mV/s; atrial waves rise no faster
TALLEST_P = 0.4  # mV in the median lead


@dataclass(frozen=True)
class Chaos:
    """What there is instead of beats: ``"asystole"``, ``"fibrillation"`` or ``"noise"``; its time in s."""

    kind: str
    start: float
    end: float


def no_beats(stretch: Stretch, beats: Beats) -> Chaos | None:
    """Say what a stretch without beats is; None where it has beats."""
    if not stretch.names:
        return None
    data = high_passed(stretch.smooth)
    whole = (0.0, stretch.seconds)
    height = _height(data)
    if len(stretch.names) >= 2 and (height < LEAST_MV).all():
        return Chaos("asystole", *whole)
    if len(stretch.names) >= 6 and len(beats) and _atrial_only(data, beats):
        return Chaos("asystole", *whole)
    quality = np.median(list(beats.quality.values())) if beats.quality else 0.0
    rr = np.diff(beats.seconds)
    regular = len(rr) >= 4 and np.std(rr) / np.mean(rr) < REGULAR
    if len(beats) >= 3 and (quality >= ALIKE or (regular and quality >= 0.6)):
        return _standstill(stretch, beats, data)
    if _fibrillates(data):
        return Chaos("fibrillation", *whole)
    if len(beats) >= 3 and quality >= LEAST_ALIKE:
        return None
    return Chaos("noise", *whole)


def _height(data: np.ndarray) -> np.ndarray:
    """Peak-to-peak height of each lead in the middle second."""
    seconds = max(1, data.shape[1] // RATE)
    pieces = data[:, : seconds * RATE].reshape(len(data), seconds, -1)
    return np.asarray(np.quantile(np.ptp(pieces, axis=2), 0.75, axis=1))


def _atrial_only(data: np.ndarray, beats: Beats) -> bool:
    """Whether what was taken for beats is small and slow in every lead, as P waves are."""
    template = np.median(beats.shapes, axis=0)
    steep = np.abs(signal.savgol_filter(template, 11, 2, deriv=1, delta=1 / RATE, axis=1)).max()
    seconds = data.shape[1] // RATE
    pieces = data[:, : seconds * RATE].reshape(len(data), seconds, -1)
    # slow ventricles may beat between P waves that were taken for beats
    tallest = float(np.median(np.quantile(np.ptp(pieces, axis=2), 0.9, axis=1)))
    return bool(np.ptp(template, axis=1).max() < 0.5 and steep < STEEPEST_P and tallest < TALLEST_P)


def _fibrillates(data: np.ndarray) -> bool:
    """Whether one slow frequency holds most of the power, and nothing is as brief as a QRS complex."""
    slopes = signal.savgol_filter(data, 13, 2, deriv=1, axis=1)
    steep = np.sqrt((slopes**2).mean(axis=0))
    freqs, power = signal.welch(data, RATE, nperseg=min(data.shape[1], 2 * RATE), axis=1)
    used = (freqs >= 1) & (freqs <= 30)
    freqs, power = freqs[used], power[:, used]
    strongest = freqs[power.argmax(axis=1)]
    near = np.abs(freqs - strongest[:, None]) <= np.maximum(1.5, 0.35 * strongest)[:, None]
    within = (power * near).sum(axis=1) / power.sum(axis=1)
    low, high = FIBRILLATION_HZ
    alike = (strongest >= low) & (strongest <= high) & (within >= IN_BAND)
    return bool(np.mean(alike) > 0.5 and np.quantile(steep, 0.995) < PEAKED * np.median(steep))


def _standstill(stretch: Stretch, beats: Beats, data: np.ndarray) -> Chaos | None:
    """A time without beats between beats, before or after them, in which the leads are connected."""
    edges = np.concatenate([[0], beats.at, [data.shape[1]]])
    longest = int(np.argmax(np.diff(edges)))
    first, last = int(edges[longest]), int(edges[longest + 1])
    if last - first < STANDSTILL_SECONDS * RATE:
        return None
    inner = slice(first + round(0.6 * RATE) * (longest > 0), last - round(0.4 * RATE))
    if stretch.gaps[:, inner].any():
        return None
    qrs = np.median(np.ptp(beats.shapes, axis=2), axis=0)
    quiet = _height(data[:, inner]) < np.maximum(0.35 * qrs, LEAST_MV)
    return Chaos("asystole", first / RATE, last / RATE) if quiet.mean() > 0.5 else None
