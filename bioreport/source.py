"""What every file format gives: labels, units, rates, pieces of time, samples."""

import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bioreport.montage import electrodes, kind_of

_LONGEST_LABEL = 32


class Piece(NamedTuple):
    """A stretch without a gap: samples `start` to `stop` of the stored signal, beginning at `onset` s."""

    start: int
    stop: int
    onset: float


class Source(ABC):
    """Stored samples of one file, in the units of its header, read piecewise.

    Attributes
    ----------
    labels, units : tuple of str
        A channel's label, cleaned, and its unit as written ("" if the file has none).
    rates : tuple of float
        Hz.
    kinds : tuple of (str or None)
        A channel's kind where the format states it, else None.
    unusable : dict of int to str
        Index of a channel that cannot be used, with the reason.
    warnings : list of str
        Sentences for the report.
    """

    path: Path
    labels: tuple[str, ...]
    units: tuple[str, ...]
    rates: tuple[float, ...]
    kinds: tuple[str | None, ...]
    unusable: dict[int, str]
    warnings: list[str]

    @abstractmethod
    def pieces(self, sfreq: float) -> list[Piece]:
        """Stretches without a gap, at this rate."""

    @abstractmethod
    def read(self, rows: list[int], start: int, stop: int) -> np.ndarray:
        """Samples of channels of one rate, float64 [len(rows), stop - start], in the file's units."""


def clean_labels(labels: list[str], private: str = "") -> list[str]:
    """Labels fit to be shown: printable, short, without words of the patient's or recording's identification.

    Parameters
    ----------
    labels : list of str
        As the file writes them.
    private : str
        Identification fields of the header; a label that is no electrode and holds one of their words (three
        characters or more) is replaced by its place in the file.
    """
    words = {
        word.lower() for word in re.split(r"[\W_]+", private)
        if len(word) >= 3 and kind_of(word) == "misc" and word.lower() not in ("startdate", "edf", "unknown")
    }  # fmt: skip
    cleaned = []
    for place, label in enumerate(labels, 1):
        text = " ".join("".join(c if c.isprintable() else " " for c in label).split())[:_LONGEST_LABEL]
        if not text or (electrodes(text)[0] is None and any(word in text.lower() for word in words)):
            text = f"channel {place}"
        cleaned.append(text)
    return cleaned
