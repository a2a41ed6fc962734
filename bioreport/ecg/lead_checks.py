"""Signs that leads are not what their labels say: exchanged cables, exchanged labels, a lead upside down.

Exchanged *labels* break Einthoven's and Goldberger's sums. Exchanged *electrodes* do not, for the sums hold
for whatever potentials the cables carry; they show in the shape: in a heart in its usual place V6, which no
limb cable touches, beats the way of I and II, and neighbours among V1–V6 resemble each other (Batchvarov,
Malik and Camm 2007, Europace 9:1081). The bounds were set so that none of 23 real 12-lead records is
suspected; of the same records with the arm cables exchanged 20 are, with right arm and left leg exchanged 18.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import numpy as np
from scipy import signal

from bioreport.ecg.leads import CHEST_LEADS, LIMB, LIMB_LEADS

# share of the limb leads' signal that Einthoven's sums leave over: below 0.01 in simultaneous leads
MOST_LEFT_OVER = 0.15
OPPOSITE = -0.6
FLAT_SHARE = 0.1
# by how much exchanging two chest leads must shorten the way from V1 to V6
LEAST_GAIN = 0.2
_BAND = (0.7, 40.0)  # Hz, P wave to QRS
_DIFFERENCE_SECONDS = 0.02
_LEAST_SECONDS = 2.0


def check_leads(
    windows: Sequence[np.ndarray], sfreq: float, leads: Sequence[str], modified: Sequence[str] = ()
) -> list[str]:
    """Suspicions that leads are exchanged or upside down.

    Parameters
    ----------
    windows : sequence of ndarray, shape (n_leads, n_samples)
        Stretches of the recording, mV; NaN where there is no sample.
    sfreq : float
        Hz.
    leads : sequence of str
        Recorded leads, the rows of `windows`; computed ones would fit by construction.
    modified : sequence of str
        Leads with electrodes at other places, which are not judged.

    Returns
    -------
    list of str
        A sentence each.
    """
    rows = {lead: i for i, lead in enumerate(leads) if lead not in modified}
    limb = [lead for lead in LIMB_LEADS if lead in rows]
    stretches = [s for window in windows for s in _whole(window, sfreq)]
    if not stretches:
        return []
    if len(limb) > 2:
        step = max(1, round(_DIFFERENCE_SECONDS * sfreq))
        sums = einthoven_residual(_slopes(stretches, [rows[lead] for lead in limb], step), limb)
        if sums > MOST_LEFT_OVER:
            return [_mislabelled(_slopes(stretches, [rows[lead] for lead in limb], step), limb, sums)]
    beats = np.concatenate([_band(s, sfreq) for s in stretches], axis=1)
    found = _limb_exchange(beats, rows)
    return [*found, *_chest_exchange(beats, rows)]


def einthoven_residual(data: np.ndarray, limb: Sequence[str]) -> float:
    """Share of the limb leads' signal that no two potentials explain, 0 to 1.

    Parameters
    ----------
    data : ndarray, shape (n_limb_leads, n_samples)
        Without offsets, of which each lead has its own.
    limb : sequence of str
        Three or more limb leads.
    """
    model = np.array([LIMB[lead] for lead in limb])
    left = data - model @ (np.linalg.pinv(model) @ data)
    total = float((data**2).sum())
    return float(np.sqrt((left**2).sum() / total)) if total > 0 else 0.0


def _whole(window: np.ndarray, sfreq: float) -> Iterator[np.ndarray]:
    """Runs of samples that every lead has, long enough to be filtered."""
    valid = np.concatenate([[False], np.isfinite(window).all(axis=0), [False]])
    edges = np.flatnonzero(np.diff(valid.astype(np.int8)))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start >= _LEAST_SECONDS * sfreq:
            yield window[:, start:stop]


def _slopes(stretches: list[np.ndarray], rows: list[int], step: int) -> np.ndarray:
    """Differences over 20 ms: QRS complexes stand out, offsets and wander are gone."""
    return np.concatenate([s[rows, step:] - s[rows, :-step] for s in stretches], axis=1)


def _band(data: np.ndarray, sfreq: float) -> np.ndarray:
    low, high = _BAND
    edges = (low, high) if high < 0.4 * sfreq else low
    sections = signal.butter(2, edges, "band" if isinstance(edges, tuple) else "high", fs=sfreq, output="sos")
    return np.asarray(signal.sosfiltfilt(sections, data, axis=1))


def _mislabelled(slopes: np.ndarray, limb: list[str], residual: float) -> str:
    trials: list[tuple[float, str]] = []
    for i, lead in enumerate(limb):
        turned = slopes.copy()
        turned[i] *= -1
        trials.append((einthoven_residual(turned, limb), f"{lead} is upside down"))
    for i, j in combinations(range(len(limb)), 2):
        exchanged = slopes.copy()
        exchanged[[i, j]] = exchanged[[j, i]]
        trials.append((einthoven_residual(exchanged, limb), f"{limb[i]} and {limb[j]} are exchanged"))
    fitting = [text for left, text in sorted(trials) if left <= MOST_LEFT_OVER / 3]
    reason = f"they would if {' or '.join(fitting)}" if fitting else "one of them may be noise or mislabelled"
    return (
        f"The limb leads do not add up as Einthoven's law demands ({100 * residual:.0f} % is left over): "
        f"{reason}."
    )


def _limb_exchange(beats: np.ndarray, rows: dict[str, int]) -> list[str]:
    sizes = {lead: float(beats[rows[lead]].std()) for lead in ("I", "II", "III") if lead in rows}
    if len(sizes) == 3:
        smallest = min(sizes, key=lambda lead: sizes[lead])
        if sizes[smallest] < FLAT_SHARE * max(sizes.values()):
            return [
                f"{smallest} is nearly flat beside the other limb leads: the electrode of the right leg may "
                "be exchanged with one of an arm."
            ]
    side = next((lead for lead in ("V6", "V5") if lead in rows), None)
    if side is None:
        return []
    alike = {lead: _alike(beats, rows, lead, side) for lead in ("I", "II", "aVR")}
    if alike["II"] < OPPOSITE and alike["aVR"] > -OPPOSITE / 2:
        electrodes, lead = "the right arm and the left leg", "II"
    elif alike["I"] < OPPOSITE:
        electrodes, lead = "the two arms", "I"
    else:
        return []
    return [
        f"{lead} runs against {side}: the electrodes of {electrodes} may be exchanged (or the axis is far "
        "off, or the heart lies on the right)."
    ]


def _alike(beats: np.ndarray, rows: dict[str, int], first: str, second: str) -> float:
    """Correlation of two leads, 0 where one is absent or flat."""
    if first not in rows or second not in rows:
        return 0.0
    a, b = beats[rows[first]], beats[rows[second]]
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else 0.0


def _chest_exchange(beats: np.ndarray, rows: dict[str, int]) -> list[str]:
    if any(lead not in rows for lead in CHEST_LEADS):
        return []
    chest = beats[[rows[lead] for lead in CHEST_LEADS]]
    apart = np.sqrt(((chest[:, None] - chest[None]) ** 2).mean(axis=2))
    order = list(range(len(CHEST_LEADS)))
    way = _way(apart, order)
    best, pair = 0.0, (0, 0)
    for i, j in combinations(order, 2):
        trial = order.copy()
        trial[i], trial[j] = j, i
        gain = 1 - _way(apart, trial) / way if way > 0 else 0.0
        if gain > best:
            best, pair = gain, (i, j)
    if best < LEAST_GAIN:
        return []
    first, second = (CHEST_LEADS[i] for i in pair)
    return [
        f"V1 to V6 change more evenly with {first} and {second} exchanged: these electrodes may be exchanged."
    ]


def _way(apart: np.ndarray, order: list[int]) -> float:
    return float(sum(apart[a, b] for a, b in pairwise(order)))
