"""Electrodes, label styles, references and amplifier filters of the recordings that hospitals keep.

Each style imitates a family of real files: the spelling of labels, which electrodes there are, sampling rate
and what else the amplifier recorded. Electrode positions are those of the 10-10 system on a unit sphere.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

TEN_TWENTY = (
    "Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T3", "C3", "Cz", "C4", "T4", "T5", "P3", "Pz", "P4", "T6",
    "O1", "O2",
)  # fmt: skip
_CELM = (
    "C3", "C4", "O1", "O2", "Cz", "F3", "F4", "F7", "F8", "Fz", "Fp1", "Fp2", "Fpz", "P3", "P4", "Pz", "T3",
    "T4", "T5", "T6", "A1", "A2",
)  # fmt: skip
_EEGMAT = (
    "Fp1", "Fp2", "F3", "F4", "F7", "F8", "T3", "T4", "C3", "C4", "T5", "T6", "P3", "P4", "O1", "O2", "Fz",
    "Cz", "Pz",
)  # fmt: skip
_NIHON_KOHDEN = (
    "Fp2", "Fp1", "F4", "F3", "C4", "C3", "P4", "P3", "O2", "O1", "F8", "F7", "T4", "T3", "T6", "T5", "Fz",
    "Cz", "Pz",
)  # fmt: skip
_SIXTEEN = (
    "Fp1", "Fp2", "T3", "T4", "T5", "T6", "F7", "F8", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2",
)  # fmt: skip
_TEN_TEN = (
    "FC5", "FC3", "FC1", "FCz", "FC2", "FC4", "FC6", "C5", "C3", "C1", "Cz", "C2", "C4", "C6", "CP5", "CP3",
    "CP1", "CPz", "CP2", "CP4", "CP6", "Fp1", "Fpz", "Fp2", "AF7", "AF3", "AFz", "AF4", "AF8", "F7", "F5",
    "F3", "F1", "Fz", "F2", "F4", "F6", "F8", "FT7", "FT8", "T3", "T4", "T9", "T10", "TP7", "TP8", "T5",
    "P5", "P3", "P1", "Pz", "P2", "P4", "P6", "T6", "PO7", "PO3", "POz", "PO4", "PO8", "O1", "Oz", "O2",
    "Iz",
)  # fmt: skip
TEMPLATE_ALIASES = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}


@dataclass(frozen=True)
class Style:
    """A family of files: electrodes in file order, spelling, and what goes with it.

    Attributes
    ----------
    names : tuple of str
        Canonical electrode names in file order.
    spelling : str
        Format string with ``{name}``, ``{upper}`` or ``{dotted}``.
    rates : tuple of float
        Sampling rates, Hz.
    references : tuple of str
        References these files come with (see `reference_members`).
    extras : tuple of str
        Labels of further, non-EEG channels.
    weight : float
        How often the style is drawn.
    """

    names: tuple[str, ...]
    spelling: str
    rates: tuple[float, ...]
    references: tuple[str, ...]
    extras: tuple[str, ...] = ()
    weight: float = 1.0

    def label(self, name: str) -> str:
        """Spell an electrode as the files of this style do."""
        dotted = (TEMPLATE_ALIASES.get(name, name).capitalize() + "....")[:4]
        return self.spelling.format(name=name, upper=name.upper(), dotted=dotted)


_ROUTINE = (200.0, 250.0, 256.0, 500.0, 512.0)
STYLES: tuple[Style, ...] = (
    Style(_CELM, "{name}", (200.0, 256.0, 512.0), ("linked", "average", "Cz", "A1"), weight=2.0),
    Style(TEN_TWENTY, "{name}", _ROUTINE, ("linked", "average", "Cz"), weight=1.5),
    Style((*TEN_TWENTY, "A1", "A2"), "{name}", _ROUTINE, ("Cz", "average", "A1", "C3C4"), weight=1.5),
    Style(_EEGMAT, "EEG {name}", (500.0, 250.0, 200.0), ("linked",), ("EEG A2-A1", "ECG ECG"), weight=2.0),
    Style(
        (*_NIHON_KOHDEN, "A2", "A1"),
        "EEG {name}-Ref",
        (200.0, 500.0),
        ("C3C4", "average"),
        ("POL E", "POL X1", "POL X2"),
        weight=1.0,
    ),
    Style(
        (*TEN_TWENTY, "A1", "A2"),
        "EEG {upper}-REF",
        (250.0, 256.0, 512.0),
        ("average", "linked"),
        ("EEG EKG1-REF", "PHOTIC-REF"),
        weight=1.5,
    ),
    Style(TEN_TWENTY, "EEG {upper}-LE", (250.0, 256.0), ("linked",), ("EMG-REF",), weight=0.7),
    Style(_SIXTEEN, "EEG {name}", (256.0, 200.0), ("linked", "average"), weight=0.7),
    Style(_TEN_TEN, "{dotted}", (160.0,), ("linked",), weight=0.8),
)


# Inclination from the vertex and azimuth from the right ear, degrees, of the left half and the midline of the
# 10-10 system on a sphere; the right half mirrors the left.
_SPHERE: dict[str, tuple[float, float]] = {
    "Fp1": (92, 108), "AF7": (92, 126), "F7": (92, 144), "FT7": (92, 162), "T7": (92, 180), "TP7": (92, 198),
    "P7": (92, 216), "PO7": (92, 234), "O1": (92, 252), "AF3": (74, 115), "F5": (75, 139), "F3": (60, 129),
    "F1": (50, 112), "FC5": (71, 159), "FC3": (50, 152), "FC1": (32, 135), "C5": (69, 180), "C3": (46, 180),
    "C1": (23, 180), "CP5": (71, 201), "CP3": (50, 208), "CP1": (32, 225), "P5": (75, 221), "P3": (60, 231),
    "P1": (50, 248), "PO3": (74, 245), "T9": (115, 180), "A1": (122, 188), "Fpz": (92, 90), "AFz": (69, 90),
    "Fz": (46, 90), "FCz": (23, 90), "Cz": (0, 0), "CPz": (23, 270), "Pz": (46, 270), "POz": (69, 270),
    "Oz": (92, 270), "Iz": (115, 270),
}  # fmt: skip


@lru_cache(maxsize=256)
def position(name: str) -> tuple[float, float, float]:
    """Return the unit vector of an electrode: x to the right, y to the front, z up."""
    name = TEMPLATE_ALIASES.get(name, name)
    stem = name.rstrip("0123456789")
    number = name[len(stem) :]
    mirrored = bool(number) and int(number) % 2 == 0
    inclination, azimuth = np.deg2rad(_SPHERE[f"{stem}{int(number) - 1}" if mirrored else name])
    x = np.sin(inclination) * np.cos(azimuth) * (-1.0 if mirrored else 1.0)
    return float(x), float(np.sin(inclination) * np.sin(azimuth)), float(np.cos(inclination))


def positions(names: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """Return the unit vectors of several electrodes, float64 [len(names), 3]."""
    return np.array([position(name) for name in names])


def draw_style(rng: np.random.Generator) -> Style:
    """Draw a family of files by its weight."""
    weights = np.array([style.weight for style in STYLES])
    return STYLES[int(rng.choice(len(STYLES), p=weights / weights.sum()))]


def reference_members(names: tuple[str, ...], reference: str) -> npt.NDArray[np.intp]:
    """Return the rows whose mean is the reference.

    Parameters
    ----------
    names : tuple of str
        Electrodes of the potentials; must hold those the reference needs.
    reference : str
        ``"linked"`` (mean of both ears), ``"average"``, ``"C3C4"`` (their mean), or an electrode's name.
    """
    if reference == "average":
        return np.array([i for i, name in enumerate(names) if name not in ("A1", "A2")])
    wanted = {"linked": ("A1", "A2"), "C3C4": ("C3", "C4")}.get(reference, (reference,))
    return np.array([names.index(name) for name in wanted])


@dataclass(frozen=True)
class Amplifier:
    """Filters and noise of the acquisition: corner frequencies in Hz, white noise in µV RMS."""

    high_pass: float
    low_pass: float | None
    notch: bool
    noise: float

    def response(self, frequencies: Floats, line_frequency: float) -> Floats:
        """Return the magnitude response at `frequencies` (Hz), float32 of the same shape."""
        safe = np.maximum(frequencies, 1e-3)
        gain = 1.0 / np.sqrt(1.0 + (self.high_pass / safe) ** 4)
        gain[0] = 0.0 if self.high_pass >= 0.05 else 1.0
        if self.low_pass is not None:
            gain /= np.sqrt(1.0 + (safe / self.low_pass) ** 8)
        if self.notch:
            gain *= 1.0 - np.exp(-0.5 * ((frequencies - line_frequency) / 1.0) ** 2)
        return gain.astype(np.float32)


def draw_amplifier(rng: np.random.Generator, sfreq: float, *, shows_mains: bool) -> Amplifier:
    """Draw the acquisition filters; mains can only show where the low-pass and the notch let it."""
    low_passes = (70.0, 70.0, 100.0, None) if shows_mains else (35.0, 45.0, 70.0, 70.0, 100.0, None)
    low_pass = low_passes[int(rng.integers(len(low_passes)))]
    if low_pass is not None and low_pass >= 0.45 * sfreq:
        low_pass = None
    return Amplifier(
        high_pass=float(rng.choice([0.016, 0.1, 0.3, 0.5, 0.5, 1.0])),
        low_pass=low_pass,
        notch=bool(not shows_mains and rng.random() < 0.35),
        noise=float(rng.uniform(0.1, 0.9)),
    )
