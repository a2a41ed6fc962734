"""The representative beat: kinds of beats in a stretch, and the median of one kind.

Intervals and levels are read off the median of the commonest kind, as ECG machines do: its noise falls with
the number of beats, and no ectopic beat is in it (Kligfield 2007, doi:10.1161/CIRCULATIONAHA.106.180200).
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import Akima1DInterpolator

from bioreport.ecg.beats import SAME_SHAPE, Beats, cut
from bioreport.ecg.conditioning import RATE, Stretch, high_passed

BEFORE, AFTER = 0.4, 0.7  # s of a beat kept before and after its fiducial point
ROOM = 0.45  # s after the last beat that its T wave needs
FEWEST = 3


@dataclass(frozen=True)
class MedianBeat:
    """Median of the beats of one kind.

    Attributes
    ----------
    data, smooth : float64 [leads, w]
        mV, below 150 Hz and below 40 Hz, against the level before QRS; rows are the stretch's leads.
    deviation : float64 [leads, w]
        By how much single beats differ from `smooth`, mV.
    spread : float64 [leads, w]
        Standard error of `smooth` in mV, from the beats' deviation about it.
    fiducial : int
        Sample of the beats' common point.
    count : int
        Beats that went in.
    rr : float
        Median RR in s before these beats.
    """

    data: np.ndarray
    smooth: np.ndarray
    deviation: np.ndarray
    spread: np.ndarray
    fiducial: int
    count: int
    rr: float


def kinds(beats: Beats) -> np.ndarray:
    """Number of each beat's kind, int [n]: beats whose QRS complexes look alike; 0 is the commonest."""
    n = len(beats)
    label = np.full(n, -1)
    if n == 0:
        return label
    weight = np.sqrt([max(quality, 0.05) for quality in beats.quality.values()])
    shapes = beats.shapes - beats.shapes.mean(axis=2, keepdims=True)
    flat = (shapes * weight[None, :, None]).reshape(n, -1)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    alike = flat @ flat.T >= SAME_SHAPE
    number = 0
    while (label < 0).any():
        free = label < 0
        seed = int(np.argmax((alike & free[None, :]).sum(axis=1) * free))
        members = free & alike[seed]
        # once more about the group's own mean: its first member may lie at its border
        centre = flat[members].mean(axis=0)
        members |= free & (flat @ (centre / max(np.linalg.norm(centre), 1e-9)) >= SAME_SHAPE)
        members[seed] = True
        label[members] = number
        number += 1
    order = np.argsort(-np.bincount(label), kind="stable")
    return np.argsort(order)[label]


def median_beat(
    stretch: Stretch,
    at: np.ndarray,
    rr: float,
    level: tuple[float, float] | None = None,
    fewest: int = FEWEST,
) -> MedianBeat | None:
    """Median of the beats at samples `at`; None of fewer than `fewest`.

    `level` says where the line between P and QRS lies, in s from the fiducial point: what drifts between
    these places is taken out as a smooth line, so that it does not tilt ST. Where the line is not known yet,
    it is the signal above `LOWEST` that is taken.
    """
    used = at[(at >= BEFORE * RATE) & (at < stretch.data.shape[1] - ROOM * RATE)]
    gaps = np.asarray(stretch.gaps.any(axis=0))
    if gaps.any():
        used = np.array([i for i in used if not gaps[i - 100 : i + 200].any()], int)
    if len(used) < fewest:
        return None
    pieces = [
        cut(_levelled(signal, used, level), used, -BEFORE, AFTER) for signal in (stretch.data, stretch.smooth)
    ]
    data, smooth = (np.median(p, axis=0) for p in pieces)
    deviation = 1.4826 * np.median(np.abs(pieces[1] - smooth), axis=0)
    return MedianBeat(
        data=data,
        smooth=smooth,
        deviation=deviation,
        spread=1.25 * deviation / np.sqrt(len(used)),
        fiducial=round(BEFORE * RATE),
        count=len(used),
        rr=rr,
    )


def _levelled(data: np.ndarray, at: np.ndarray, level: tuple[float, float] | None) -> np.ndarray:
    """Data against a smooth line through the levels before the beats (Meyer and Keiser 1977)."""
    if level is None:
        return high_passed(data)
    knots = at + round(np.mean(level) * RATE)
    values = cut(data, at, *level).mean(axis=2)
    if len(at) < 3:
        return np.asarray(data - values.mean(axis=0)[:, None])
    line = Akima1DInterpolator(knots, values, method="makima")(
        np.clip(np.arange(data.shape[1]), *knots[[0, -1]])
    )
    return np.asarray(data - line.T)
