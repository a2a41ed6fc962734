"""Which channels of an epoch hold signal, decided on the raw samples before any filter spreads them."""

import numpy as np

FLAT_UV = 0.1
FLAT_SHARE = 0.5
NAN_SHARE = 0.05
# EEG stays below 1 mV; pick-up of mains that a notch can still remove reaches 1-2 mV.
IMPLAUSIBLE_UV = 3000.0
IMPLAUSIBLE_SHARE = 0.25
RAIL_SHARE = 0.05
RAIL_RUN_SECONDS = 0.05
HELD_SHARE = 0.5


def usable_channels(raw_uv: np.ndarray, sfreq: float) -> np.ndarray:
    """Tell the channels of one epoch that hold signal from missing, flat and saturated ones.

    A channel is unusable where more than 5 % of its samples are no number; where it stays within 0.1 µV of
    one level for at least half of the seconds; where its range exceeds 3 mV in a quarter of the seconds or
    more; or where more than 5 % of its samples sit at the epoch's largest or smallest value, in runs of
    which one lasts at least 50 ms (the amplifier's rail).

    Parameters
    ----------
    raw_uv : ndarray of float64, shape (n_channels, n_samples)
        Unfiltered samples, µV.
    sfreq : float
        Hz.

    Returns
    -------
    ndarray of bool, shape (n_channels,)
    """
    n_channels, n_samples = raw_uv.shape
    if not n_samples:
        return np.zeros(n_channels, bool)
    usable = np.ones(n_channels, bool)
    if not np.isfinite(raw_uv.sum()):
        invalid = ~np.isfinite(raw_uv)
        usable = invalid.mean(axis=1) <= NAN_SHARE
        raw_uv = _hold(np.where(invalid, np.nan, raw_uv))
    pieces = min(max(round(n_samples / sfreq), 1), n_samples)
    length = n_samples // pieces
    seconds = raw_uv[:, : pieces * length].reshape(n_channels, pieces, length)
    highest, lowest = seconds.max(axis=2), seconds.min(axis=2)
    ranges = highest - lowest
    # at one level: a recording of low resolution or rate in a faster file stands still, too, but moves on
    level = np.median(lowest, axis=1, keepdims=True)
    flat = (ranges < FLAT_UV) & (np.abs(lowest - level) < FLAT_UV)
    usable &= flat.mean(axis=1) < FLAT_SHARE
    usable &= (ranges > IMPLAUSIBLE_UV).mean(axis=1) < IMPLAUSIBLE_SHARE
    at_rail = (raw_uv == highest.max(axis=1)[:, None]) | (raw_uv == lowest.min(axis=1)[:, None])
    for channel in np.flatnonzero(usable & (at_rail.mean(axis=1) > RAIL_SHARE)):
        usable[channel] = not _is_rail(raw_uv[channel], at_rail[channel], RAIL_RUN_SECONDS * sfreq)
    return usable


def fill_invalid(raw_uv: np.ndarray, last: np.ndarray) -> None:
    """Replace NaN and infinities in place by the straight line between their neighbours.

    Parameters
    ----------
    raw_uv : ndarray of float64, shape (n_channels, n_samples)
        The next samples of a segment; afterwards all finite.
    last : ndarray of float64, shape (n_channels,)
        The last valid value of each channel before them, NaN where there was none yet; updated in place.
        A gap that no later sample closes holds the last value.
    """
    if not raw_uv.shape[1]:
        return
    if np.isfinite(raw_uv.sum()):
        last[:] = raw_uv[:, -1]
        return
    position = np.arange(raw_uv.shape[1])
    for channel, row in enumerate(raw_uv):
        valid = np.isfinite(row)
        if valid.any():
            known, values = position[valid], row[valid]
            if np.isfinite(last[channel]):
                known, values = np.append(-1, known), np.append(last[channel], values)
            row[:] = np.interp(position, known, values)
            last[channel] = values[-1]
        else:
            row[:] = last[channel] if np.isfinite(last[channel]) else 0.0


def _hold(raw_uv: np.ndarray) -> np.ndarray:
    fill_invalid(raw_uv, np.full(len(raw_uv), np.nan))
    return raw_uv


def _is_rail(samples: np.ndarray, at_extreme: np.ndarray, least_run: float) -> bool:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], at_extreme, [False]]).astype(np.int8)))
    if (edges[1::2] - edges[::2]).max() < least_run:
        return False
    # samples held everywhere, not only at the extremes, are a low rate in a faster file
    between = ~at_extreme[1:]
    held = (samples[1:] == samples[:-1])[between]
    return not (between.mean() > RAIL_SHARE and held.mean() > HELD_SHARE)
