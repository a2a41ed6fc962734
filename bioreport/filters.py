"""Band-pass, mains notch and resampling as one symmetric response, applied in one overlap-save pass.

MNE designs the filters. A symmetric filter commutes with the odd reflection that MNE pads a border with, so
the convolution of its band-pass and its notch gives what the two give one after the other. A Kaiser low-pass
in front of the lower Nyquist frequency makes the response band-limited for every practical purpose, so that
the change of rate is a change of the number of bins between the forward and the inverse transform.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import mne
import numpy as np
import torch
from scipy import fft, signal

# A ratio of rates is kept to about 1e-8: half a sample in a recording of three days.
LARGEST_DENOMINATOR = 10_000
# Attenuation (dB) at the lower Nyquist frequency, on top of the 53 dB of MNE's band-pass.
ANTI_ALIAS_DB = 120.0
# MNE's smallest transition band (Hz): a low-pass with less room than this below Nyquist is moved down.
LEAST_TRANSITION = 2.0
# Values in the spectra of one call of the transform: keeps temporaries near 16 MB at any rate.
VALUES_PER_TRANSFORM = 2**21
# A block of this many samples counts as twice the work, for its memory.
LONG_BLOCK = 2**20

MOST_THREADS = 4  # of a transform


@dataclass(frozen=True)
class Response:
    """A symmetric response at the input rate and the change of rate that follows it.

    Attributes
    ----------
    taps : ndarray of float64, shape (2 * half + 1,)
        Impulse response, centred.
    up, down : int
        Output rate over input rate, in lowest terms.
    low, high : float
        Edges of the pass-band in Hz; `high` may lie below the one asked for (see `design_response`).
    notches : tuple of float
        Mains frequencies (Hz) taken out.
    """

    taps: np.ndarray
    up: int
    down: int
    low: float
    high: float
    notches: tuple[float, ...]

    @property
    def half(self) -> int:
        return len(self.taps) // 2

    def output_length(self, n_samples: int) -> int:
        """Number of output samples of a segment of `n_samples`, rounded as MNE does."""
        return max(round(n_samples * self.up / self.down), 1) if n_samples else 0


def highest_edge(sfreq: float, high: float) -> float:
    """`high` where a transition of 2 Hz fits below Nyquist, else 0.8 of Nyquist.

    MNE's transition is a quarter of the edge: from 0.8 of Nyquist it ends at Nyquist exactly.
    """
    nyquist = sfreq / 2
    return high if high + LEAST_TRANSITION <= nyquist else 0.8 * nyquist


def design_response(
    sfreq: float, *, low: float, high: float, sfreq_out: float, line_frequency: float | None
) -> Response:
    """Design the one response of the preprocessing.

    Band-pass and notch have the lengths and transitions of `mne.io.Raw.filter` and
    `mne.io.Raw.notch_filter` at their defaults (firwin, Hamming, zero phase).

    Parameters
    ----------
    sfreq, sfreq_out : float
        Rate of the recording and of the result, Hz.
    low, high : float
        Edges of the pass-band, Hz. A `high` that does not fit below Nyquist is lowered to 0.8 of Nyquist.
    line_frequency : float or None
        Mains frequency, Hz; None designs no notch. Harmonics are taken out too as far as the band-pass
        lets them through: those beyond its upper stop edge are gone already.

    Returns
    -------
    Response

    Raises
    ------
    ValueError
        If the pass-band is empty at these rates.
    """
    high = highest_edge(sfreq, high)
    if not 0 < low < high < sfreq_out / 2:
        raise ValueError(f"no pass-band between {low} and {high} Hz at {sfreq} Hz in, {sfreq_out} Hz out")
    stop = high + min(max(0.25 * high, LEAST_TRANSITION), sfreq / 2 - high)
    with mne.use_log_level("ERROR"):
        taps = mne.filter.create_filter(None, sfreq, low, high)
        notches = _notches(line_frequency, sfreq, stop)
        if notches:
            reach = np.array(notches) / 200 / 2 + 0.5
            taps = np.convolve(
                taps,
                mne.filter.create_filter(
                    None,
                    sfreq,
                    np.array(notches) + reach,
                    np.array(notches) - reach,
                    l_trans_bandwidth=0.5,
                    h_trans_bandwidth=0.5,
                ),
            )
    ratio = (Fraction(sfreq_out) / Fraction(sfreq)).limit_denominator(LARGEST_DENOMINATOR)
    if ratio != 1:
        cutoff = min(sfreq, sfreq_out) / 2
        width = max(cutoff - stop, 0.02 * cutoff)
        length, beta = signal.kaiserord(ANTI_ALIAS_DB, 2 * width / sfreq)
        lowpass = signal.firwin(length | 1, cutoff - width / 2, window=("kaiser", beta), fs=sfreq)
        taps = np.convolve(taps, lowpass)
    return Response(taps, ratio.numerator, ratio.denominator, low, high, notches)


def _notches(line_frequency: float | None, sfreq: float, stop: float) -> tuple[float, ...]:
    if not line_frequency:
        return ()
    found = []
    harmonic = line_frequency
    while harmonic * (1 - 1 / 400) - 1 < stop and harmonic * (1 + 1 / 400) + 1 <= sfreq / 2:
        found.append(float(harmonic))
        harmonic += line_frequency
    return tuple(found)


class OverlapSave:
    """Streaming convolution with a `Response` and change of rate, one segment at a time.

    The blocks lie on a grid that starts at the segment's first sample, so that the result does not depend
    on the pieces in which the segment arrives. Borders are continued by odd reflection about the end sample,
    as far as the segment reaches, then by the segment's first value (MNE's ``reflect_limited`` continues with
    zero, which differs only for a segment shorter than half the response, and makes a step of any offset).

    Parameters
    ----------
    response : Response
    n_channels : int
    block : int, optional
        Length of the transform in input samples, a multiple of ``response.down``; chosen for speed if absent.
    """

    def __init__(self, response: Response, n_channels: int, block: int | None = None) -> None:
        self.response = response
        down, half = response.down, response.half
        self._pad = -(-half // down) * down
        self._block = block or _fast_block(response, self._pad)
        if self._block % down:
            raise ValueError(f"block {self._block} is no multiple of {down}")
        self._step = (self._block - self._pad - half) // down * down
        if self._step <= 0 or self._block < 2 * self._pad + 2:
            raise ValueError(f"block {self._block} is too short for {len(response.taps)} taps")
        self._block_out = self._block * response.up // down
        self._first_out = self._pad * response.up // down
        self._step_out = self._step * response.up // down

        centred = np.zeros(self._block)
        centred[: half + 1] = response.taps[half:]
        centred[-half:] = response.taps[:half]
        bins = min(self._block, self._block_out) // 2 + 1
        self._gain = fft.rfft(centred).real[:bins] * (self._block_out / self._block)
        self._buffer = np.empty((n_channels, self._block + half))
        self._rows = max(1, VALUES_PER_TRANSFORM // self._block)
        self.reset()

    def reset(self) -> None:
        """Start a new segment."""
        self._fill = self._pad
        self._n_in = 0
        self._n_out = 0
        self._begun = False

    def push(self, data: np.ndarray) -> Iterator[np.ndarray]:
        """Take the next samples, array [channels, samples]; yield pieces of the result, float64."""
        taken = 0
        while taken < data.shape[1]:
            count = min(self._block - self._fill, data.shape[1] - taken)
            self._buffer[:, self._fill : self._fill + count] = data[:, taken : taken + count]
            self._fill += count
            self._n_in += count
            taken += count
            if self._fill == self._block:
                yield self._transform()

    def flush(self) -> Iterator[np.ndarray]:
        """End the segment: continue it at its end and yield what is left of the result."""
        total = self.response.output_length(self._n_in)
        if not total:
            return
        self._begin()
        reflected = min(self.response.half, self._n_in - 1)
        end = self._fill
        tail = self._buffer[:, end : end + self.response.half]
        last = self._buffer[:, end - 1 : end]
        mirror = self._buffer[:, end - 1 - reflected : end - 1][:, ::-1]
        np.subtract(2 * last, mirror, out=tail[:, :reflected])
        tail[:, reflected:] = self._first
        filled = end + self.response.half
        while self._n_out < total:
            if filled < self._block:
                self._buffer[:, filled : self._block] = self._first
            missing = total - self._n_out
            yield self._transform()[:, :missing]
            filled = max(filled - self._step, 0)

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        pad = self._pad
        self._first = self._buffer[:, pad : pad + 1].copy()
        reflected = min(self.response.half, self._n_in - 1)
        mirror = self._buffer[:, pad + 1 : pad + 1 + reflected][:, ::-1]
        np.subtract(2 * self._first, mirror, out=self._buffer[:, pad - reflected : pad])
        self._buffer[:, : pad - reflected] = self._first

    def _transform(self) -> np.ndarray:
        self._begin()
        result = np.empty((len(self._buffer), self._step_out))
        bins = len(self._gain)
        # one number for a process's share of the cores
        threads = min(MOST_THREADS, torch.get_num_threads())
        for top in range(0, len(self._buffer), self._rows):
            rows = slice(top, top + self._rows)
            spectrum = fft.rfft(self._buffer[rows, : self._block], axis=1, workers=threads)[:, :bins]
            spectrum *= self._gain
            block = fft.irfft(spectrum, self._block_out, axis=1, workers=threads)
            result[rows] = block[:, self._first_out : self._first_out + self._step_out]
        kept = self._buffer.shape[1] - self._step
        self._buffer[:, :kept] = self._buffer[:, self._step :]
        self._fill = max(self._fill - self._step, 0)
        self._n_out += self._step_out
        return result


def _fast_block(response: Response, pad: int) -> int:
    """The block with the least work per sample among those whose two transforms have small factors.

    Long blocks count as more work, for the memory they need; of those within a tenth of the least the
    shortest is taken.
    """
    down, up, half = response.down, response.up, response.half
    shortest = 2 * pad + 2
    costs: dict[int, float] = {}
    for fast_only in (True, False):
        for multiple in range(shortest // down + 1, max(10 * shortest // down, shortest // down + 4) + 1):
            block, block_out = multiple * down, multiple * up
            step = (block - pad - half) // down * down
            if step <= 0:
                continue
            if fast_only and not (
                block % 2 == 0
                and fft.next_fast_len(block, real=True) == block
                and fft.next_fast_len(block_out, real=True) == block_out
            ):
                continue
            costs[block] = block * np.log2(block) / step * (1 + block / LONG_BLOCK)
        if costs:
            break
    least = min(costs.values())
    return min(block for block, cost in costs.items() if cost <= 1.1 * least)
