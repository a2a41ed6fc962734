"""The canvas a simulated recording is painted on: electrodes, time, and the waves the painters share."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import scipy.fft

from bioreport.simulation.montages import positions

Floats = npt.NDArray[np.float32]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Event:
    """What happens when and where: interval in seconds from the start, channels with the strongest first."""

    name: str
    start_seconds: float
    end_seconds: float
    channels: tuple[str, ...] = ()


@dataclass
class Canvas:
    """Potentials of all electrodes before reference and filters.

    Attributes
    ----------
    rng : numpy.random.Generator
    sfreq : float
        Hz.
    names : tuple of str
        Electrodes, those of the reference included.
    recorded : frozenset of str
        Electrodes that the file will hold; only these are named in events.
    data : float32 [len(names), n]
        µV.
    events : list of Event
    level : float
        RMS of the background between 1 and 30 Hz, µV.
    reference_rows : int [k]
        Electrodes whose mean is the reference.
    """

    rng: np.random.Generator
    sfreq: float
    names: tuple[str, ...]
    recorded: frozenset[str]
    data: Floats
    level: float
    reference_rows: npt.NDArray[np.intp]
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.xyz = positions(self.names)

    @property
    def n(self) -> int:
        """Samples."""
        return self.data.shape[1]

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.n / self.sfreq

    def samples(self, seconds: float) -> int:
        """Return the number of samples of a length in seconds, at least one."""
        return max(1, round(seconds * self.sfreq))

    def times(self, seconds: float) -> Floats:
        """Return sample times from zero, float32 [samples(seconds)]."""
        return np.arange(self.samples(seconds), dtype=np.float32) / np.float32(self.sfreq)

    def field(self, centre: str | npt.NDArray[np.float64], width: float, wide: float = 0.0) -> Floats:
        """Return a smooth field on the sphere, 1 at its centre.

        Parameters
        ----------
        centre : str or float64 [3]
            Electrode or direction.
        width : float
            Angle in radians at which a Gaussian field falls to 61 %.
        wide : float
            Share of a second, three times as wide field, as volume conduction gives.
        """
        where = positions((centre,))[0] if isinstance(centre, str) else centre / np.linalg.norm(centre)
        angle = np.arccos(np.clip(self.xyz @ where, -1.0, 1.0))
        near = np.exp(-0.5 * (angle / width) ** 2)
        far = np.exp(-0.5 * (angle / (3 * width)) ** 2)
        return ((1 - wide) * near + wide * far).astype(np.float32)

    def referenced(self, wave: Floats) -> Floats:
        """Return a wave [electrodes, n] against the recording's reference."""
        return wave - wave[self.reference_rows].mean(axis=0)

    def in_sight(self, pattern: Floats) -> Floats:
        """Scale a wide field so that a quarter of the channels show it fully whatever the reference."""
        shown = np.abs(pattern - pattern[self.reference_rows].mean())
        return pattern / np.float32(max(0.35, float(np.percentile(shown, 75))))

    def channels(self, pattern: Floats, above: float = 0.5) -> tuple[str, ...]:
        """Name the recorded channels where a field exceeds `above` of its maximum, the strongest first."""
        rows = [i for i, name in enumerate(self.names) if name in self.recorded]
        strength = np.abs(pattern[rows])
        order = [rows[i] for i in np.argsort(-strength) if strength[i] >= above * strength.max()]
        return tuple(self.names[i] for i in order)

    def add(self, wave: Floats, pattern: Floats, start_seconds: float = 0.0) -> None:
        """Add a wave [k] with a field [electrodes], cut at the ends of the recording."""
        start = round(start_seconds * self.sfreq)
        first, last = max(0, start), min(self.n, start + len(wave))
        if last <= first:
            return
        piece = wave[first - start : last - start].astype(np.float32, copy=False)
        rows = np.flatnonzero(np.abs(pattern) > 0.01)
        if len(rows) > 0.8 * len(pattern):
            self.data[:, first:last] += pattern[:, None] * piece
        else:
            for row in rows:
                self.data[row, first:last] += pattern[row] * piece

    def mark(self, name: str, start: float, end: float, channels: Sequence[str] = ()) -> None:
        """Note an event, cut at the ends of the recording."""
        start, end = max(0.0, start), min(self.duration, end)
        if end > start:
            self.events.append(Event(name, round(start, 3), round(end, 3), tuple(channels)))

    def gate(self, intervals: Iterable[Interval], ramp: float = 0.5) -> Floats:
        """Return a smooth 0–1 envelope that is 1 inside the intervals, float32 [n]."""
        steps = 20.0
        coarse = np.zeros(int(self.duration * steps) + 2, dtype=np.float32)
        for start, end in intervals:
            coarse[max(0, round(start * steps)) : max(0, round(end * steps))] = 1.0
        width = max(1, round(ramp * steps))
        padded = np.pad(coarse, width, mode="edge")
        smooth = np.convolve(padded, np.ones(width) / width, mode="same")[width:-width]
        return self.upsample(smooth, steps)

    def upsample(self, coarse: npt.NDArray[np.floating], steps_per_second: float) -> Floats:
        """Interpolate a slow course to every sample, float32 [n]."""
        at = np.arange(self.n) * (steps_per_second / self.sfreq)
        return np.interp(at, np.arange(len(coarse)), coarse).astype(np.float32)

    def wander(self, cutoff: float) -> Floats:
        """Return a slow Gaussian course of unit variance below `cutoff` Hz, float32 [n]."""
        steps = max(4.0, 8.0 * cutoff)
        count = int(self.duration * steps) + 3
        kernel = np.hanning(max(3, round(steps / cutoff)) + 2)[1:-1]
        noise = np.convolve(self.rng.standard_normal(count + len(kernel) - 1), kernel, mode="valid")
        return self.upsample(noise / np.sqrt((kernel**2).sum()), steps)

    def oscillation(self, frequency: float, bandwidth: float, steadiness: float = 0.5) -> Floats:
        """Return a waxing and waning rhythm of unit RMS, float32 [n].

        `bandwidth` (Hz) is how fast amplitude and phase change; `steadiness` the share of the power whose
        amplitude does not change.
        """
        phase = np.cumsum(self.wander(bandwidth)) * np.float32(2 * np.pi * 0.35 * bandwidth / self.sfreq)
        carrier = self.rng.uniform(0, 2 * np.pi) + np.arange(self.n) * (2 * np.pi * frequency / self.sfreq)
        steady, loose = np.sqrt(2 * steadiness), np.sqrt(1 - steadiness)
        angle = (carrier + phase).astype(np.float32)
        # cos and sin through one complex exponential of float32 phases: the longest step of this module
        in_phase = steady + loose * self.wander(bandwidth)
        quadrature = loose * self.wander(bandwidth)
        return in_phase * np.cos(angle) - quadrature * np.sin(angle)

    def band_noise(self, low: float, high: float, count: int | None = None) -> Floats:
        """Return Gaussian noise between two frequencies (Hz), unit RMS, float32 [count or n]."""
        n = self.n if count is None else count
        size = scipy.fft.next_fast_len(n, real=True)
        bins = np.arange(size // 2 + 1) * (self.sfreq / size)
        inside = np.flatnonzero((bins >= low) & (bins <= max(high, low + self.sfreq / size)))
        spectrum = np.zeros(len(bins), dtype=np.complex64)
        parts = self.rng.standard_normal((2, len(inside)), dtype=np.float32)
        spectrum[inside] = parts[0] + 1j * parts[1]
        wave = scipy.fft.irfft(spectrum, size)[:n]
        rms = float(np.sqrt(np.mean(wave**2)))
        return wave / np.float32(rms if rms > 0 else 1.0)

    def place(self, count: int, low: float, high: float, length: float, spacing: float) -> list[float]:
        """Draw up to `count` onsets in [low, high - length], at least `spacing` seconds apart."""
        room = max(0.0, high - low - length - spacing * (count - 1))
        offsets = np.sort(self.rng.uniform(0, room, count)) + spacing * np.arange(count)
        return [float(low + x) for x in offsets if low + x + length <= high]


def hann_burst(n: int, edge: float = 0.2) -> Floats:
    """Return a 0–1 envelope of n samples with raised-cosine edges, each a share `edge` of the length."""
    k = max(1, round(edge * n))
    envelope = np.ones(n, dtype=np.float32)
    rise = (0.5 - 0.5 * np.cos(np.pi * (np.arange(k) + 0.5) / k)).astype(np.float32)
    envelope[:k] = rise
    envelope[-k:] = rise[::-1]
    return envelope


def gaussian(times: Floats, centre: float, width: float) -> Floats:
    """Return a Gaussian bump over `times`, 1 at `centre`, standard deviation `width` (seconds)."""
    return np.exp(-0.5 * ((times - np.float32(centre)) / np.float32(width)) ** 2)
