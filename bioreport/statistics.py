"""Band powers as text: the baseline that gives an LLM numbers in place of signal tokens.

The arithmetic is CELM's (`bandpower_segments`), checked against its output; the text says what the numbers
are: relative powers in dB, with the band edges that were used.
"""

from typing import TYPE_CHECKING

import numpy as np
from scipy.signal import welch

if TYPE_CHECKING:
    from bioreport.preprocess import EpochBatch, PreprocessSpec

BANDS: dict[str, tuple[float, float]] = {
    "delta": (0.5, 4.0),
    "theta": (4.0, 8.0),
    "alpha": (8.0, 13.0),
    "beta": (13.0, 30.0),
    "gamma": (30.0, 80.0),
}
POOL_EPOCHS = 10
EPS = 1e-12
MAX_POOLS = 100  # held at once; past that, neighbours are averaged
MAX_TEXT_POOLS = 4  # written into a prompt: 22 channels × 5 bands each


def band_power(segments: np.ndarray, sfreq: float, *, relative: bool = True) -> np.ndarray:
    """Linear band power of segments.

    Parameters
    ----------
    segments : float [N, C, T]
        Signal; its unit squared is the unit of absolute power.
    sfreq : float
        Sampling rate in Hz.
    relative : bool
        Divide by the power over all bins plus 1e-12.

    Returns
    -------
    float [N, C, 5] in the order of `BANDS`. Welch (Hann, nperseg ``min(T, max(256, 2 sfreq))``, half overlap,
    constant detrend), then the trapezoid over bins with ``low <= f < high``: the gap of one bin between two
    bands belongs to neither, as in CELM.
    """
    length = segments.shape[-1]
    nperseg = int(min(length, max(256, 2 * sfreq)))
    freqs, density = welch(segments, fs=sfreq, nperseg=nperseg, axis=-1)
    power = np.stack(
        [
            np.trapezoid(density[..., inside], freqs[inside], axis=-1)
            for inside in ((freqs >= low) & (freqs < high) for low, high in BANDS.values())
        ],
        axis=-1,
    )
    if relative:
        power = power / (np.trapezoid(density, freqs, axis=-1)[..., None] + EPS)
    return np.asarray(power)


def decibels(power: np.ndarray) -> np.ndarray:
    """``10 log10(power + 1e-12)``, the float32 that CELM stores before it rounds."""
    return np.asarray(10 * np.log10(power + EPS), np.float32)


def bandpower_segments(
    segments: np.ndarray,
    sfreq: float = 200.0,
    *,
    pool: int = 1,
    relative: bool = True,
    decimals: int | None = 1,
) -> np.ndarray:
    """Band power of each segment in dB, as CELM's statistics baseline computes it.

    Parameters
    ----------
    segments : float [N, C, T]
        Epochs; CELM gives volts/100, for which "relative" is meaningless (1e-12 exceeds the total power).
    sfreq : float
        Sampling rate in Hz.
    pool : int
        Consecutive segments joined in time before Welch; CELM's baseline uses 10. A tail that fills no pool
        is dropped.
    relative : bool
        Power over total power; else absolute.
    decimals : int or None
        Rounding; None keeps the float32 value.

    Returns
    -------
    float32 [N // pool, C, 5] in dB, in the order of `BANDS`.
    """
    count, channels, length = segments.shape
    pools = count // pool
    by_pool = segments[: pools * pool].reshape(pools, pool, channels, length)
    joined = by_pool.transpose(0, 2, 1, 3).reshape(pools, channels, pool * length)
    if pools == 0:
        return np.zeros((0, channels, len(BANDS)), np.float32)
    result = decibels(band_power(joined, sfreq, relative=relative))
    return result if decimals is None else np.round(result, decimals)


class BandPowerStatistics:
    """Relative band powers of a recording while it streams, and their text.

    Parameters
    ----------
    spec : PreprocessSpec
        What the epochs are made with.

    Notes
    -----
    Ten epochs make a pool, as in CELM. At most `MAX_POOLS` pools are held: past that, neighbouring pools are
    averaged in pairs and later ones are made as wide, so memory is constant. A last pool that is not full is
    dropped, unless it is the only one.
    """

    def __init__(self, spec: "PreprocessSpec") -> None:
        self.names = tuple(spec.channels)
        self.sfreq = float(spec.sfreq)
        self.epoch_seconds = float(spec.epoch_seconds)
        self.epochs: list[tuple[np.ndarray, np.ndarray]] = []  # of the pool that is filling
        self.wide: list[np.ndarray] = []  # pools of ten epochs on their way into one wider pool
        self.pools: list[np.ndarray] = []  # each [C, 5], relative power, NaN where a channel is not usable
        self.width = 1  # pools of ten epochs in each of `pools`

    def update(self, batch: "EpochBatch") -> None:
        """Take a batch of epochs in µV; epochs with masked seconds are left out."""
        whole = batch.patch_mask.all(axis=1)
        for data, mask in zip(batch.data[whole], batch.channel_mask[whole], strict=True):
            self.epochs.append((data, mask))
            if len(self.epochs) == POOL_EPOCHS:
                self._add(self._pool())
                self.epochs = []

    def _pool(self) -> np.ndarray:
        joined = np.concatenate([data for data, _ in self.epochs], axis=1)[None]
        # µV/100 keeps the 1e-12 of the formula far below any power
        power = band_power(joined / 100, self.sfreq)[0].astype(np.float64)
        power[~np.all([mask for _, mask in self.epochs], axis=0)] = np.nan
        return power

    def _add(self, power: np.ndarray) -> None:
        self.wide.append(power)
        if len(self.wide) < self.width:
            return
        self.pools.append(np.mean(self.wide, axis=0))
        self.wide = []
        if len(self.pools) == MAX_POOLS:
            self.pools = _halve(self.pools)
            self.width *= 2

    def text(self) -> str:
        """The table for a prompt: at most `MAX_TEXT_POOLS` times, one line a usable channel."""
        pools, width = list(self.pools), self.width
        if not pools and self.wide:
            pools, width = [np.mean(self.wide, axis=0)], len(self.wide)
        if not pools and self.epochs:
            pools = [self._pool()]
        pool_seconds = POOL_EPOCHS * self.epoch_seconds
        total = len(pools) * width * pool_seconds
        if not self.pools and not self.wide:
            total = len(self.epochs) * self.epoch_seconds
        while len(pools) > MAX_TEXT_POOLS:
            pools, width = _halve(pools), 2 * width
        return statistics_text(pools, self.names, width * pool_seconds, total)


def _halve(pools: list[np.ndarray]) -> list[np.ndarray]:
    """Means of neighbouring pairs; an odd last one stays as it is."""
    return [np.mean(pools[i : i + 2], axis=0) for i in range(0, len(pools), 2)]


def statistics_text(pools: list[np.ndarray], names: tuple[str, ...], seconds: float, total: float) -> str:
    """Write relative band powers for a prompt.

    Parameters
    ----------
    pools : list of float [C, 5]
        Relative power of each stretch, NaN for a channel that is not usable in it.
    names : tuple of str
        The C channel names.
    seconds : float
        Length of a stretch.
    total : float
        Where the last stretch ends, which may be shorter.

    Returns
    -------
    str
        A line that says what the numbers are, then for each stretch one line a usable channel. Empty for no
        pool.
    """
    if not pools:
        return ""
    bands = ", ".join(f"{name} {low:g}-{high:g} Hz" for name, (low, high) in BANDS.items())
    lines = [f"Relative band power in dB of total power ({bands}), by channel:"]
    for number, pool in enumerate(pools):
        lines.append(f"{number * seconds:.0f}-{min((number + 1) * seconds, total):.0f} s")
        for name, values in zip(names, decibels(pool), strict=True):
            if np.isfinite(values).all():
                lines.append(f"{name} " + " ".join(f"{value:.1f}" for value in values))
    return "\n".join(lines)
