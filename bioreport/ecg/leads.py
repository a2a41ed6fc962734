"""Lead names: one spelling for every lead, whatever a recorder writes, and how limb leads follow from others.

Einthoven's and Goldberger's leads are differences of the same three potentials, so any two of the six give
the other four (Kligfield et al. 2007, doi:10.1161/CIRCULATIONAHA.106.180200).
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from bioreport.montage import kind_of

LEADS: tuple[str, ...] = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
LIMB_LEADS: tuple[str, ...] = LEADS[:6]
CHEST_LEADS: tuple[str, ...] = LEADS[6:]
# each limb lead as a sum of I and II
LIMB: dict[str, tuple[float, float]] = {
    "I": (1.0, 0.0), "II": (0.0, 1.0), "III": (-1.0, 1.0),
    "aVR": (-0.5, -0.5), "aVL": (1.0, -0.5), "aVF": (-0.5, 1.0),
}  # fmt: skip

# the pair that the others are computed from: the least noise is added by I and II
_BASES = ("I", "II", "III", "aVF", "aVL", "aVR")

_NAMES: dict[str, str] = {
    **{lead.upper(): lead for lead in LEADS},
    **{f"{letter}{number}": lead for letter in ("D", "L") for number, lead in enumerate(LEADS[:3], 1)},
    **{f"D{lead}": lead for lead in LEADS[:3]},
}
# bipolar labels of the three limb electrodes
_ELECTRODES = {
    "LA-RA": ("I", 1), "RA-LA": ("I", -1), "LL-RA": ("II", 1), "LF-RA": ("II", 1), "RA-LL": ("II", -1),
    "RA-LF": ("II", -1), "LL-LA": ("III", 1), "LF-LA": ("III", 1), "LA-LL": ("III", -1), "LA-LF": ("III", -1),
}  # fmt: skip
# electrodes moved to the trunk (ML) or one of the chest leads against another place than Wilson's terminal
_MODIFIED = re.compile(
    r"^(?:ML(?P<limb>I{1,3}|[123])|(?:MCL|CM|CC|CS|CB|MV|MOD(?:IFIED)?\.? ?V)(?P<chest>[1-6]))$"
)
# posterior, right-sided, Frank's and EASI leads, pairs of chest electrodes, a chest lead without its number
_BEYOND = re.compile(r"^V(?:[789]|[3-9]R|[XYZ])?$|^MCL$|^(?:E-S|A-S|A-I)$|^V[1-6]-V[1-6]$")
_UNPLACED = re.compile(r"^E[CK]G[ _#-]?(?:CH(?:ANNEL)?)?[ _#-]?(\d{0,2})\b")
_PREFIX = re.compile(r"^(?:E[CK]G|LEAD|DERIVATION|MDC[ _]ECG[ _]LEAD)(?:[ :_-]+|$)")
_MINUS = "-−–"


class Lead(NamedTuple):
    """What a label says.

    Attributes
    ----------
    name : str
        One of `LEADS`; another name for a lead of the heart that is none of the twelve or whose place is
        not known (``V7``, ``VX``, ``ECG1``): good for beats and rhythm only.
    sign : int
        -1 where the label names the lead upside down (Cabrera's −aVR).
    modified : bool
        Electrodes at other places than the standard lead's (``MLII``).
    """

    name: str
    sign: int = 1
    modified: bool = False


def lead_of(label: str) -> Lead | None:
    """The lead that a label stands for, None if it is no ECG.

    Examples
    --------
    >>> lead_of("ECG avf"), lead_of("-aVR").sign, lead_of("MLII"), lead_of("SpO2")
    (Lead(name='aVF', sign=1, modified=False), -1, Lead(name='II', sign=1, modified=True), None)
    """
    text = re.sub(r"\(.*?\)|\[.*?\]", " ", " ".join(label.split()).upper()).strip(" .*'\"")
    core, prefixed = text, False
    while (stripped := _PREFIX.sub("", core)) != core:
        core, prefixed = stripped.strip(), True
    sign = 1
    if core[:1] in _MINUS and len(core) > 1:
        core, sign = core[1:].strip(), -1
    elif core[-1:] in _MINUS and core[:-1].strip() in _NAMES:
        core, sign = core[:-1].strip(), -1
    if re.sub(r"[ _.]", "", core) not in _NAMES:
        # "V1-REF", "II_0": the terminal or a copy number behind the name
        core = re.sub(r"[ _-](?:REF|WCT|WILSON|\d{1,2})$", "", core)
    squeezed = re.sub(r"[ _.]", "", core)
    if squeezed in _NAMES:
        return Lead(_NAMES[squeezed], sign)
    if squeezed in _ELECTRODES:
        name, direction = _ELECTRODES[squeezed]
        return Lead(name, sign * direction)
    if "LEAD" in text and squeezed in ("1", "2", "3"):
        return Lead(LEADS[int(squeezed) - 1], sign)
    if prefixed and (chest := re.fullmatch(r"C([1-6])", squeezed)):
        return Lead(f"V{chest[1]}", sign)
    if match := _MODIFIED.match(squeezed):
        number = match["limb"]
        name = (
            f"V{match['chest']}"
            if number is None
            else LEADS[len(number) - 1 if "I" in number else int(number) - 1]
        )
        return Lead(name, sign, modified=True)
    if _BEYOND.match(squeezed):
        return Lead(squeezed, sign)
    if match := _UNPLACED.match(text):
        return Lead(f"ECG{match[1]}")
    return Lead("ECG") if kind_of(label) == "ecg" else None


def is_ecg(labels: Iterable[str]) -> bool:
    """Whether a file with these channels is an ECG: leads of the heart and no electrode on the scalp."""
    labels = list(labels)
    return any(lead_of(label) for label in labels) and not any(kind_of(label) == "eeg" for label in labels)


def in_order(names: Iterable[str]) -> list[str]:
    """The twelve leads in the order of `LEADS`, then the others as they come."""
    return sorted(names, key=lambda name: LEADS.index(name) if name in LEADS else len(LEADS))


def limb_derivation(present: Sequence[str]) -> dict[str, tuple[tuple[str, float], tuple[str, float]]]:
    """How the missing limb leads follow from those that are there.

    Parameters
    ----------
    present : sequence of str
        Leads that were recorded with standard electrodes.

    Returns
    -------
    dict of str to ((lead, factor), (lead, factor))
        A sum for each missing limb lead; empty where fewer than two limb leads are there.

    Examples
    --------
    >>> limb_derivation(["I", "II"])["aVF"]
    (('I', -0.5), ('II', 1.0))
    """
    base = [lead for lead in _BASES if lead in present][:2]
    if len(base) < 2:
        return {}
    to_base = np.linalg.inv(np.array([LIMB[lead] for lead in base]))
    sums = {}
    for lead in LIMB_LEADS:
        if lead not in present:
            first, second = (float(round(c, 12)) for c in np.array(LIMB[lead]) @ to_base)
            sums[lead] = ((base[0], first), (base[1], second))
    return sums


def derive(data: np.ndarray, names: Sequence[str], lead: str) -> np.ndarray:
    """A limb lead out of two others, [samples]; NaN where either has none.

    Raises
    ------
    KeyError
        `lead` does not follow from `names`.
    """
    (first, a), (second, b) = limb_derivation(names)[lead]
    return np.asarray(a * data[list(names).index(first)] + b * data[list(names).index(second)])
