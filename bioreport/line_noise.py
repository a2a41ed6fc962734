"""Mains interference, measured before any filter."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy import signal

if TYPE_CHECKING:
    from bioreport.recording import Recording

WINDOWS = 10
WINDOW_SECONDS = 10.0
CANDIDATES = (50.0, 60.0)
# Peak over neighbours. Noise scatters about 1 by a few 1/sqrt(averages): below 2 with ten windows.
VISIBLE_RATIO = 3.0
SCATTER = 6.0
VISIBLE_SHARE = 0.2


@dataclass(frozen=True)
class LineNoise:
    """Mains frequency of a recording and how far it stands out, by channel.

    Attributes
    ----------
    frequency : float or None
        50 or 60 Hz; None where neither stands out and no sidecar names one.
    ratio : dict of str to float
        Power density at `frequency` over that of its neighbours (at the stronger candidate where
        `frequency` is None); 1 means no interference.
    """

    frequency: float | None
    ratio: dict[str, float] = field(default_factory=dict)


def detect_line_frequency(recording: "Recording") -> LineNoise:
    """Find 50 or 60 Hz interference in up to ten windows of 10 s spread over the recording.

    The frequency of a BIDS sidecar wins over the detected one. A candidate counts as visible where its
    peak is at least three times its neighbours (median within 2-5 Hz on either side) in the mean over a
    fifth of the channels, the most affected ones; a recording too short for a smooth spectrum needs a
    higher peak.

    Parameters
    ----------
    recording : Recording

    Returns
    -------
    LineNoise
    """
    candidates: tuple[float, ...] = (recording.line_frequency,) if recording.line_frequency else CANDIDATES
    # a narrow peak needs 0.5 Hz either side of it and neighbours up to 5 Hz below Nyquist
    candidates = tuple(c for c in candidates if c + 2.5 < recording.sfreq / 2)
    names = recording.names
    frequencies, power, averages = _spectrum(recording) if candidates else (np.empty(0), np.empty(0), 0)
    if not averages:
        return LineNoise(recording.line_frequency, dict.fromkeys(names, 1.0))
    ratios = {c: _peak_ratio(frequencies, power, c) for c in candidates}
    few = max(1, round(VISIBLE_SHARE * len(names)))
    strength = {c: float(np.sort(r)[-few:].mean()) for c, r in ratios.items()}
    strongest = max(strength, key=lambda c: strength[c])
    frequency = recording.line_frequency
    if frequency is None and strength[strongest] >= max(VISIBLE_RATIO, 1 + SCATTER / np.sqrt(averages)):
        frequency = strongest
    return LineNoise(frequency, dict(zip(names, map(float, ratios[strongest]), strict=True)))


def _spectrum(recording: "Recording") -> tuple[np.ndarray, np.ndarray, int]:
    """Frequencies 0.5 Hz apart, median over windows of the power density, number of spectra averaged."""
    length = round(WINDOW_SECONDS * recording.sfreq)
    nperseg = round(2 * recording.sfreq)
    starts: list[tuple[int, int]] = []
    longest = sorted(recording.segments, key=lambda s: s.start - s.stop)
    for segment in longest[:WINDOWS]:
        share = max(1, round(WINDOWS * (segment.stop - segment.start) / recording.n_samples))
        last = max(segment.stop - length, segment.start)
        for start in np.linspace(segment.start, last, share if last > segment.start else 1).astype(int):
            starts.append((int(start), min(int(start) + length, segment.stop)))
    spectra = []
    averages = 0
    frequencies = np.fft.rfftfreq(nperseg, 1 / recording.sfreq)
    for start, stop in starts[:WINDOWS]:
        if stop - start < nperseg:
            continue
        window = np.nan_to_num(recording.read(start, stop), nan=0.0, posinf=0.0, neginf=0.0)
        spectra.append(signal.welch(window, recording.sfreq, nperseg=nperseg)[1])
        averages += (stop - start) // (nperseg // 2) - 1
    return frequencies, np.median(spectra, axis=0) if spectra else np.empty((0, len(frequencies))), averages


def _peak_ratio(frequencies: np.ndarray, power: np.ndarray, line: float) -> np.ndarray:
    distance = np.abs(frequencies - line)
    peak = power[:, distance <= 0.5].max(axis=1)
    floor = np.median(power[:, (distance >= 2) & (distance <= 5)], axis=1)
    return np.divide(peak, floor, out=np.ones(len(power)), where=floor > 0)
