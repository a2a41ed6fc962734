"""Which channels carry a signal: flat, saturated and noisy ones, counted in one pass over the file."""

from collections.abc import Sequence

import numpy as np

FLAT_UV = 0.2  # peak to peak in one second; amplifiers' own noise is above this
HELD_SHARE = 0.9  # of a second's samples equal to the one before: a held or stepped value
SATURATED_SHARE = 0.02  # of all samples lying on the channel's own extreme value
SATURATED_UV = 200.0  # peak to peak below which an extreme is no clipping
FAR_LARGER, LARGER = 10.0, 4.0  # times the median channel
UNRELATED = 0.25  # highest correlation with any other channel
BAD_SHARE = 0.5  # of the recording a channel must be bad for to be called bad


class RawQuality:
    """Counts over raw chunks, before any filter; memory does not grow with the recording.

    Parameters
    ----------
    n_channels : int
        Rows of the chunks.
    sfreq : float
        Sampling rate in Hz.
    """

    def __init__(self, n_channels: int, sfreq: float) -> None:
        self.second = max(2, round(sfreq))
        self.samples = np.zeros(n_channels, np.int64)
        self.missing = np.zeros(n_channels, np.int64)
        self.seconds = np.zeros(n_channels, np.int64)
        self.flat_seconds = np.zeros(n_channels, np.int64)
        self.highest = np.full(n_channels, -np.inf)
        self.lowest = np.full(n_channels, np.inf)
        self.at_highest = np.zeros(n_channels, np.int64)
        self.at_lowest = np.zeros(n_channels, np.int64)

    def update(self, chunk: np.ndarray) -> None:
        """Count one chunk, float64 [C, n] in µV with NaN where the file has no sample."""
        if chunk.shape[1] == 0:
            return
        self.samples += chunk.shape[1]
        # one infinite or missing sample makes the sum so, too
        valid = None if np.isfinite(chunk.sum()) else np.isfinite(chunk)
        high = low = chunk
        if valid is not None:
            self.missing += (~valid).sum(axis=1)
            high, low = np.where(valid, chunk, -np.inf), np.where(valid, chunk, np.inf)
        self._count_extremes(high, self.highest, self.at_highest, np.maximum)
        self._count_extremes(low, self.lowest, self.at_lowest, np.minimum)
        count = chunk.shape[1] // self.second
        length = count * self.second
        shape = (len(chunk), count, self.second)
        seconds = chunk[:, :length].reshape(shape)
        whole = np.ones(shape[:2], bool) if valid is None else valid[:, :length].reshape(shape).all(axis=2)
        if valid is not None:
            seconds = np.where(whole[:, :, None], seconds, 0.0)
        still = seconds.max(axis=2) - seconds.min(axis=2) < FLAT_UV
        held = (seconds[:, :, 1:] == seconds[:, :, :-1]).mean(axis=2) > HELD_SHARE
        self.seconds += whole.sum(axis=1)
        self.flat_seconds += (whole & (still | held)).sum(axis=1)

    @staticmethod
    def _count_extremes(
        values: np.ndarray, extreme: np.ndarray, count: np.ndarray, further: np.ufunc
    ) -> None:
        reached = further(extreme, further.reduce(values, axis=1))
        count[reached != extreme] = 0
        extreme[:] = reached
        count += np.count_nonzero(values == extreme[:, None], axis=1) * np.isfinite(extreme)

    def flat(self) -> np.ndarray:
        """bool [C], True where most whole seconds are flat, held, or there is no valid sample."""
        return (self.flat_seconds > BAD_SHARE * np.maximum(self.seconds, 1)) | (self.samples == self.missing)

    def saturated(self) -> np.ndarray:
        """bool [C], True where the samples pile up on the channel's own limits; a flat channel is not."""
        present = np.maximum(self.samples - self.missing, 1)
        reach = np.where(self.samples > self.missing, self.highest - self.lowest, 0.0)
        piled = (self.at_highest + self.at_lowest) / present > SATURATED_SHARE
        return piled & (reach > SATURATED_UV) & ~self.flat()


def noisy(
    spread: np.ndarray, correlation: np.ndarray, usable: np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """Channels that are far larger than the others, or larger and like none of them.

    Parameters
    ----------
    spread : float32 [N, C]
        Standard deviation in µV of each epoch's differences over 25 ms.
    correlation : float32 [N, C]
        Highest absolute correlation of these with any other channel.
    usable : bool [N, C]
        Entries that count.
    names : sequence of str
        The C channel names; ear electrodes are often the reference itself and are not judged.

    Returns
    -------
    bool [C]. Deviation and correlation are criteria of PREP (Bigdely-Shamlo 2015); the limits lie between
    simulated noisy channels (11 to 55 times the others) and muscle (up to 5 times).
    """
    result = np.zeros(len(names), bool)
    typical = _masked_median(spread, usable)
    scalp = [i for i, name in enumerate(names) if name not in ("A1", "A2") and usable[:, i].any()]
    if len(scalp) < 4:
        return result
    centre = float(np.median(typical[scalp]))
    follows = _masked_median(correlation, usable)
    for i in scalp:
        result[i] = typical[i] > FAR_LARGER * centre or (
            follows[i] < UNRELATED and typical[i] > LARGER * centre
        )
    return result


def _masked_median(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.array([np.median(v[m]) if m.any() else 0.0 for v, m in zip(values.T, mask.T, strict=True)])
