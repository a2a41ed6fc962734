"""Units of voltage: as headers write them, and, where they write none, as the amplitude tells."""

import numpy as np

# unit as written, case-folded, to µV
_FACTORS: dict[str, float] = {
    **dict.fromkeys(("uv", "µv", "μv", "\x83\xcav", "microv", "uvolt", "microvolt", "microvolts"), 1.0),
    **dict.fromkeys(("mv", "millivolt", "millivolts", "mvolt"), 1e3),
    **dict.fromkeys(("v", "volt", "volts"), 1e6),
    **dict.fromkeys(("nv", "nanovolt", "nanovolts"), 1e-3),
}
# spread of an EEG channel over 2 s, in µV: what a scalp can show, from quiet to full of movement
LEAST_UV, MOST_UV = 0.5, 2000.0


def to_microvolts(unit: str) -> float | None:
    """Factor from a unit to µV, None for anything that is no unit of voltage.

    Examples
    --------
    >>> to_microvolts("mV"), to_microvolts("uV"), to_microvolts("")
    (1000.0, 1.0, None)
    """
    return _FACTORS.get(unit.strip().casefold())


def typical_spread(windows: list[np.ndarray]) -> np.ndarray:
    """Median over windows of the standard deviation of each channel.

    Parameters
    ----------
    windows : list of ndarray, shape (n_channels, n_samples)
        NaN where there is no sample.

    Returns
    -------
    ndarray, shape (n_channels,)
        NaN for a channel without samples or without variation in most windows.
    """
    spreads = np.array([_spread(window) for window in windows])
    result = np.full(spreads.shape[1], np.nan)
    for channel, values in enumerate(spreads.T):
        if (valid := values[values > 0]).size:
            result[channel] = np.median(valid)
    return result


def _spread(window: np.ndarray) -> np.ndarray:
    valid = np.isfinite(window)
    counts = np.maximum(valid.sum(axis=1), 1)
    filled = np.where(valid, window, 0.0)
    mean = filled.sum(axis=1) / counts
    centred = np.where(valid, filled - mean[:, np.newaxis], 0.0)
    return np.sqrt((centred**2).sum(axis=1) / counts)


def guess_unit(spread: float) -> str | None:
    """The unit in which a spread is one of an EEG, None if it fits none.

    The four units are 1000 apart, and so are the bounds: 1–1000 µV is 0.001–1 mV. µV is preferred beyond its
    bounds as far as a scalp reaches.
    """
    if not np.isfinite(spread) or spread <= 0:
        return None
    if LEAST_UV <= spread <= MOST_UV:
        return "µV"
    for unit in ("mV", "V", "nV"):
        if LEAST_UV <= spread * _FACTORS[unit.casefold()] <= MOST_UV:
            return unit
    return None
