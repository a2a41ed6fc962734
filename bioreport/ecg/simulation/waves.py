"""The shape of a heart beat in twelve leads: waves that begin and end at known times, and lead fields.

A wave is a squared cosine, zero outside its support, times a vector over the eight independent leads. The
vector comes from a dipole through Dower's matrix (Dower 1980, doi:10.1016/S0022-0736(80)80013-5) for the
chest, and through the frontal triangle, turned by the patient's axis, for the limbs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bioreport.ecg.leads import LEADS, LIMB

Array = npt.NDArray[np.float64]

BASE: tuple[str, ...] = ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6")
# twelve leads out of the eight
TO_TWELVE: Array = np.zeros((12, 8))
for _row, _lead in enumerate(LEADS):
    if _lead in LIMB:
        TO_TWELVE[_row, :2] = LIMB[_lead]
    else:
        TO_TWELVE[_row, BASE.index(_lead)] = 1.0

# x to the left, y down, z to the back
_DOWER_CHEST: Array = np.array(
    [(-0.515, 0.157, -0.917), (0.044, 0.164, -1.387), (0.882, 0.098, -1.277),
     (1.213, 0.127, -0.601), (1.125, 0.127, -0.086), (0.831, 0.076, 0.230)]
)  # fmt: skip
_LIMB_GAIN = (0.65, 1.0)  # of x and y
# a squared cosine's tangent meets the baseline before its support ends, by this share of the falling flank
TANGENT = 0.182
RATE = 500.0


@dataclass(frozen=True)
class LeadField:
    """How a patient's dipole is seen: chest leads [6, 3], and the turn of the frontal plane (radians)."""

    chest: Array
    turn: float = 0.0

    def see(self, dipole: Sequence[float] | Array, share: float = 1.0) -> Array:
        """Vector [8] of a dipole (x, y, z) in mV; `share` of the frontal turn applies to this wave."""
        x, y, z = dipole
        u, v = _LIMB_GAIN[0] * x, _LIMB_GAIN[1] * y
        c, s = np.cos(share * self.turn), np.sin(share * self.turn)
        u, v = u * c - v * s, u * s + v * c
        return np.concatenate([[u, np.sqrt(0.75) * v + 0.5 * u], self.chest @ np.array([x, y, z])])


def draw_field(rng: np.random.Generator, turn: float = 0.0) -> LeadField:
    """A patient's chest: turned about the long axis, electrodes nearer to the heart or farther."""
    angle = rng.normal(0, np.radians(9))
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    gain = np.exp(rng.normal(0, 0.13, (6, 1)) + rng.normal(0.06, 0.10))
    return LeadField(_DOWER_CHEST @ rotation * gain, turn)


@dataclass(frozen=True)
class Shape:
    """One kind of beat.

    Attributes
    ----------
    corners : float64 [n, 4]
        Of each wave, ms from the onset of QRS: begin, top, end of the top, end.
    moving : float64 [n, 4]
        1 where that corner keeps its distance to the end of T when QT changes from beat to beat, else 0.
    vectors : float64 [n, 8]
        Amplitude in the leads of `BASE`, mV.
    qrs_ms, qt_ms : float
        QT ends where the tangent of T meets the baseline.
    """

    corners: Array
    moving: Array
    vectors: Array
    qrs_ms: float
    qt_ms: float

    def scaled(self, gain: float | Array) -> "Shape":
        """The same beat with other amplitudes."""
        return Shape(self.corners, self.moving, self.vectors * gain, self.qrs_ms, self.qt_ms)

    def peak_ms(self) -> float:
        """Time of the largest QRS deflection of all leads together, from the onset of QRS."""
        t = np.arange(0, self.qrs_ms)
        return float(t[np.argmax(((TO_TWELVE @ self.at(t)) ** 2).sum(axis=0))])

    def at(self, ms: Array, qt_ms: float | None = None) -> Array:
        """Leads [8, len(ms)] at times from the onset of QRS."""
        corners = self.corners
        if qt_ms is not None:
            corners = corners + self.moving * (qt_ms - self.qt_ms)
        return self.vectors.T @ bumps(ms, corners)


def bumps(t: Array, corners: Array) -> Array:
    """Squared-cosine flanks around a level top: [n, len(t)] from corners [n, 4]."""
    begin, top, hold, end = (corners[:, i : i + 1] for i in range(4))
    hold = np.maximum(hold, top)
    end = np.maximum(end, hold + 1)
    rising = (t - top) / np.maximum(top - begin, 1e-9)
    falling = (t - hold) / (end - hold)
    phase = np.clip(np.where(t < top, rising, np.where(t > hold, falling, 0.0)), -1, 1)
    return np.cos(phase * (np.pi / 2)) ** 2


class Builder:
    """Collects the waves of a beat."""

    def __init__(self, field: LeadField, qrs_ms: float, qt_ms: float) -> None:
        self.field, self.qrs_ms, self.qt_ms = field, qrs_ms, qt_ms
        self._corners: list[Sequence[float]] = []
        self._moving: list[Sequence[float]] = []
        self._vectors: list[Array] = []

    def qrs(self, begin: float, peak: float, end: float, vector: Array) -> None:
        """A part of QRS; times as shares of its duration."""
        # the feet of a squared cosine are below what can be seen: the support is 1 ms longer at each end
        stretch = self.qrs_ms + 2
        a, b, c = (-1 + share * stretch for share in (begin, peak, end))
        self._add((a, b, b, c), (0, 0, 0, 0), vector)

    def t_wave(self, vector: Array, *, width: float = 1.0) -> None:
        """T: a slow rise, a quicker fall, the tangent of which ends QT."""
        rise, fall = 0.28 * self.qt_ms * width, 0.18 * self.qt_ms * width
        end = self.qt_ms + TANGENT * fall
        self._add((end - fall - rise, end - fall, end - fall, end), (1, 1, 1, 1), vector)

    def st(self, vector: Array) -> None:
        """A level from the J point on: an elevation ends with T, a depression before the top of T."""
        fall = 0.18 * self.qt_ms
        end = self.qt_ms + TANGENT * fall
        top = end - fall
        for part, last in ((np.maximum(vector, 0), end), (np.minimum(vector, 0), top)):
            if part.any():
                corners = (
                    0.8 * self.qrs_ms,
                    self.qrs_ms + 8,
                    max(top - 0.19 * self.qt_ms, self.qrs_ms + 8),
                    last,
                )
                self._add(corners, (0, 0, 1, 1), part)

    def _add(self, corners: Sequence[float], moving: Sequence[float], vector: Array) -> None:
        self._corners.append(corners)
        self._moving.append(moving)
        self._vectors.append(np.asarray(vector, float))

    def shape(self) -> Shape:
        """The finished beat."""
        return Shape(
            np.array(self._corners, float),
            np.array(self._moving, float),
            np.array(self._vectors),
            self.qrs_ms,
            self.qt_ms,
        )


def paint(
    data: Array,
    shape: Shape,
    seconds: float,
    qt_ms: float | None = None,
    gain: float = 1.0,
    sfreq: float = RATE,
) -> None:
    """Add a beat whose QRS begins at `seconds` to data [8, T]."""
    corners = shape.corners
    last = corners[:, 3].max() + max(0.0, (qt_ms or 0.0) - shape.qt_ms)
    first = max(0, int(np.floor((seconds + corners[:, 0].min() / 1000) * sfreq)))
    stop = min(data.shape[1], int(np.ceil((seconds + last / 1000) * sfreq)) + 1)
    if first >= stop:
        return
    ms = (np.arange(first, stop) / sfreq - seconds) * 1000
    data[:, first:stop] += gain * shape.at(ms, qt_ms)
