"""Electrode names: one spelling for every position, whatever a recorder writes.

The spelling used everywhere in this package is that of the 10-20 system with its old temporal names
(T3, T4, T5, T6) and the ear lobes A1, A2; the closer positions of the 10-10 system keep their modern names.
"""

import re
from collections import defaultdict
from collections.abc import Iterable

CELM_CHANNELS: tuple[str, ...] = (
    "C3", "C4", "O1", "O2", "Cz", "F3", "F4", "F7", "F8", "Fz", "Fp1", "Fp2", "Fpz", "P3", "P4", "Pz",
    "T3", "T4", "T5", "T6", "A1", "A2",
)  # fmt: skip
CBRAMOD_CHANNELS: tuple[str, ...] = (
    "Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T3", "C3", "Cz", "C4", "T4", "T5", "P3", "Pz", "P4", "T6",
    "O1", "O2",
)  # fmt: skip

# fewer leave whole regions of the head without an electrode
FEW_ELECTRODES = 8
LEFT: tuple[str, ...] = ("Fp1", "F7", "F3", "T3", "C3", "T5", "P3", "O1", "A1")
RIGHT: tuple[str, ...] = ("Fp2", "F8", "F4", "T4", "C4", "T6", "P4", "O2", "A2")
MIDLINE: tuple[str, ...] = ("Fpz", "Fz", "Cz", "Pz")
REGIONS: dict[str, tuple[str, ...]] = {
    "frontal": ("Fp1", "Fp2", "Fpz", "F3", "F4", "F7", "F8", "Fz"),
    "central": ("C3", "C4", "Cz"),
    "temporal_left": ("T3", "T5"),
    "temporal_right": ("T4", "T6"),
    "parietal": ("P3", "P4", "Pz"),
    "occipital": ("O1", "O2"),
}

# other name of a position -> the name used here
SYNONYMS: dict[str, str] = {
    "T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6",  # 10-10 names of the temporal chain
    "M1": "A1", "M2": "A2",  # the mastoids stand for the ear lobes beside them
}  # fmt: skip

# rows of the 10-10 system from nose to neck: prefix, numbers at the sides ("z" is the midline)
_GRID: tuple[tuple[str, str], ...] = (
    ("N", "z"), ("Fp", "1 z 2"), ("AF", "9 7 5 3 1 z 2 4 6 8 10"), ("F", "9 7 5 3 1 z 2 4 6 8 10"),
    ("FT", "9 7 8 10"), ("FC", "5 3 1 z 2 4 6"), ("T", "9 7 3 5 1 2 4 6 8 10"), ("C", "5 3 1 z 2 4 6"),
    ("TP", "9 7 8 10"), ("CP", "5 3 1 z 2 4 6"), ("P", "9 7 5 3 1 z 2 4 6 8 10"),
    ("PO", "9 7 5 3 1 z 2 4 6 8 10"), ("O", "9 1 z 2 10"), ("I", "z"), ("A", "1 2"), ("M", "1 2"),
)  # fmt: skip
_NAMES: dict[str, str] = {
    f"{row}{place}".upper(): SYNONYMS.get(f"{row}{place}", f"{row}{place}")
    for row, places in _GRID
    for place in places.split()
}
POSITIONS: tuple[str, ...] = tuple(dict.fromkeys(_NAMES.values()))

# what stands behind an electrode's name and is a reference, not a second electrode
_REFERENCES = frozenset((
    "REF", "REF1", "REF2", "R", "LE", "AVG", "AVE", "AV", "AR", "CAR", "CLE", "ORG", "G", "G2", "GND", "CS2",
    "VREF", "LINKED", "LINK", "LK", "EAR", "EARS", "NOSE", "COM", "COMMON", "A1A2", "A12", "M1M2", "M12",
    "AA", "MM", "A+", "M+",
))  # fmt: skip
_EARS = frozenset(("A1", "A2"))

_PREFIX = re.compile(r"^(?:EEG|POL|SEEG)(?:[\s:_-]+|$)", re.IGNORECASE)
_SEPARATOR = re.compile(r"\s*[-–/:_]\s*")
_COPY_NUMBER = re.compile(r"(?<=.)-\d{1,2}$")

# kinds of what is not EEG, tried in this order on the label without "EEG " or "POL "
_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        ("stim", r"^(EDF|BDF) ANNOTATIONS|^STI|STATUS|TRIG|^TTL|^DIG\b|MARK|EVENT|PHOTIC|^PHO\b|STIM|"
                 r"^FLASH|^SYNC"),
        ("ecg", r"\bE[CK]G|^E[CK]G|^X?EKG"),
        ("eog", r"EOG|^(LUC|RLC|LIO|RIO|LSO|RSO|LHC|RHC)\b|\b(LOC|ROC)\b|^E[12]\b|^PG[12]\b|\bEYE"),
        ("emg", r"EMG|\bCHIN|^(L|R)?AT\d?\b|\bLEG\b|^(L|R)LEG|TIBIAL|DELTOID|MASSETER|SUBMENTAL"),
        ("resp", r"\bRESP|ABD(O|\b)|THOR|CHEST|AIR ?FLOW|NASAL|^FLOW|EFFORT|SNORE|^NAF|\bTHERM|CANNULA"),
        ("misc", r"S[PA]O2|^OSAT|^SAT\b|CO2|PULSE|^HR\b|^H\.R\.|^PR\b|^DC\s?\d|^TEMP|^BP\d|^IBI|BURST|SUPPR|"
                 r"LIGHT|POSITION|^POS\b|ACC|GYRO|^ERGO|^GSR|^REF_"),
    )
)  # fmt: skip
_CAP_POSITION = re.compile(r"^([A-I])(\d{1,3})$", re.IGNORECASE)


def _core(label: str) -> str:
    """The label without the decoration that recorders put around a name (`Fc5.`, `[C3-A2]`, `EEG …`)."""
    text = " ".join(label.split()).strip("[]()'\" ")
    return _PREFIX.sub("", text).rstrip(". ").strip("[]()'\" ")


def _position(text: str) -> str | None:
    return _NAMES.get(text.strip(". ").upper())


def electrodes(label: str) -> tuple[str | None, str | None]:
    """The two sides of a label: electrode, and what it was recorded against if that is a position too.

    Parameters
    ----------
    label : str
        As a file writes it, e.g. ``EEG C3-A2``.

    Returns
    -------
    tuple of (str or None, str or None)
        ``("C3", "A2")``; ``("C3", None)`` for ``C3``, ``C3-REF``; ``(None, None)`` where a side is no name.
    """
    core = _core(label)
    if (whole := _position(core)) is not None:
        return whole, None
    parts = _SEPARATOR.split(_COPY_NUMBER.sub("", core))
    if len(parts) == 1:
        return _position(parts[0]), None
    first, second = _position(parts[0]), _position(parts[1]) if len(parts) == 2 else None
    if first is None:
        return None, None
    if second is not None:
        return first, second
    reference = "+".join(parts[1:]).upper().strip(". ")
    if reference in _REFERENCES or reference.replace("+", "") in _REFERENCES:
        return first, None
    return None, None


def normalise(label: str) -> str | None:
    """Name of the one electrode that a label stands for.

    Parameters
    ----------
    label : str
        As a file writes it: ``EEG Fp1-REF``, ``Fc5.``, ``FP1``, ``T7``, ``C3-A2``.

    Returns
    -------
    str or None
        ``Fp1``, ``FC5``, ``Fp1``, ``T3``, ``C3``; None for anything else, pairs of electrodes
        (``FP1-F7``) included: a difference between two places is not the potential of either.

    Examples
    --------
    >>> normalise("EEG Fp2-Ref"), normalise("P7"), normalise("EEG Fpz-Cz")
    ('Fp2', 'T5', None)
    """
    first, second = electrodes(label)
    if second is None or (second in _EARS and first not in _EARS):
        return first
    return None


def bipolar_pair(label: str) -> tuple[str, str] | None:
    """The two electrodes of a bipolar label, None if it is not one.

    An ear or mastoid behind a scalp electrode is a reference (``C3-A2``), before it (``A1-T3``) or behind
    another ear (``A2-A1``) it makes a pair.

    Examples
    --------
    >>> bipolar_pair("T8-P8"), bipolar_pair("EEG Fpz-Cz"), bipolar_pair("C3-A2")
    (('T4', 'T6'), ('Fpz', 'Cz'), None)
    """
    first, second = electrodes(label)
    if first is None or second is None or first == second or normalise(label) is not None:
        return None
    return first, second


def _cap_position(label: str) -> tuple[str, int] | None:
    match = _CAP_POSITION.match(_SEPARATOR.split(_core(label))[0])
    return None if match is None else (match[1].upper(), int(match[2]))


def kind_of(label: str) -> str:
    """What a channel records, from its label.

    Returns
    -------
    str
        ``eeg``, ``eog``, ``ecg``, ``emg``, ``stim``, ``resp`` or ``misc``.
    """
    text = " ".join(label.split())
    if electrodes(text)[0] is not None:
        return "eeg"
    core = _core(text)
    for kind, pattern in _KINDS:
        if pattern.search(core) or pattern.search(text):
            return kind
    if text.upper().startswith("EEG") or _cap_position(core):
        return "eeg"
    return "misc"


def cap_rows(labels: Iterable[str]) -> frozenset[str]:
    """Letters that number the positions of an electrode cap instead of naming places of the 10-20 system.

    BioSemi caps are labelled A1…A32, B1…; their A1 is near the vertex, not an ear. A letter is such a row
    when it numbers a position that the 10-10 system does not have (A3, B1, C7, F11).

    Parameters
    ----------
    labels : iterable of str
        All labels of a recording.
    """
    numbers: dict[str, set[int]] = defaultdict(set)
    for label in labels:
        if position := _cap_position(label):
            numbers[position[0]].add(position[1])
    return frozenset(
        row for row, found in numbers.items()
        if any(f"{row}{n}" not in _NAMES for n in found - ({1, 2} if row == "E" else set()))
    )  # fmt: skip


def is_cap_position(label: str, rows: frozenset[str]) -> bool:
    """Whether a label is a numbered position of one of the cap rows that `cap_rows` found."""
    position = _cap_position(label)
    return position is not None and position[0] in rows
