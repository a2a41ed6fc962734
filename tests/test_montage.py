"""Electrode names as recorders write them."""

import pytest

from bioreport.montage import (
    CBRAMOD_CHANNELS,
    CELM_CHANNELS,
    LEFT,
    MIDLINE,
    POSITIONS,
    REGIONS,
    RIGHT,
    bipolar_pair,
    cap_rows,
    is_cap_position,
    kind_of,
    normalise,
)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("EEG Fp1-REF", "Fp1"), ("EEG FP1-LE", "Fp1"), ("EEG Fp2-Ref", "Fp2"), ("FP1", "Fp1"), ("fpz", "Fpz"),
        ("FZ", "Fz"), ("Fc5.", "FC5"), ("C3..", "C3"), ("T10.", "T10"), ("Iz..", "Iz"), ("Poz.", "POz"),
        ("T7", "T3"), ("T8", "T4"), ("P7", "T5"), ("P8", "T6"), ("M1", "A1"), ("M2", "A2"), ("A1", "A1"),
        ("T3", "T3"), ("EEG T5", "T5"), ("POL Cz", "Cz"), ("C3-A2", "C3"), ("EEG C4-A1", "C4"),
        ("F3:M2", "F3"), ("F3-M2", "F3"), ("O1-A1A2", "O1"), ("O1-A1+A2", "O1"), ("O2-AVG", "O2"),
        ("EEG F7 - Ref", "F7"), ("[C3-A2]", "C3"), ("C3-CS2", "C3"), ("Fp1-0", "Fp1"), ("A1-REF", "A1"),
        ("  EEG   O1 ", "O1"), ("EEG P8-REF", "T6"), ("AFz", "AFz"), ("TP9", "TP9"),
    ],
)  # fmt: skip
def test_one_electrode(label: str, name: str) -> None:
    assert normalise(label) == name
    assert bipolar_pair(label) is None
    assert kind_of(label) == "eeg"


@pytest.mark.parametrize(
    ("label", "pair"),
    [
        ("FP1-F7", ("Fp1", "F7")), ("F7-T7", ("F7", "T3")), ("EEG Fpz-Cz", ("Fpz", "Cz")),
        ("EEG Pz-Oz", ("Pz", "Oz")), ("T8-P8", ("T4", "T6")), ("T8-P8-0", ("T4", "T6")),
        ("T8-P8-1", ("T4", "T6")), ("EEG A2-A1", ("A2", "A1")), ("A1-T3", ("A1", "T3")),
        ("Fz-Cz", ("Fz", "Cz")), ("FP1/F3", ("Fp1", "F3")), ("FT9-FT10", ("FT9", "FT10")),
    ],
)  # fmt: skip
def test_a_pair_is_never_one_electrode(label: str, pair: tuple[str, str]) -> None:
    assert normalise(label) is None
    assert bipolar_pair(label) == pair
    assert kind_of(label) == "eeg"


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("ECG ECG", "ecg"), ("EEG EKG1-REF", "ecg"), ("EKG", "ecg"), ("ECG1", "ecg"),
        ("EOG VEOG_I", "eog"), ("EEG LOC-REF", "eog"), ("EEG ROC-REF", "eog"), ("LOC-ROC", "eog"),
        ("EOG horizontal", "eog"), ("E1-M2", "eog"), ("E2", "eog"),
        ("EMG submental", "emg"), ("EMG-REF", "emg"), ("Chin1-Chin2", "emg"),
        ("EDF Annotations", "stim"), ("STI 014", "stim"), ("Status", "stim"), ("TRIGGER", "stim"),
        ("PHOTIC-REF", "stim"), ("DIG DTRIG", "stim"), ("Event marker", "stim"),
        ("Resp oro-nasal", "resp"), ("EEG RESP1-REF", "resp"), ("ABDO RES", "resp"), ("THOR RES", "resp"),
        ("DC01", "misc"), ("DC1-DC", "misc"), ("SaO2", "misc"), ("SpO2", "misc"), ("IBI", "misc"),
        ("Temp rectal", "misc"), ("POL X1", "misc"), ("POL $A1", "misc"), ("POL E", "misc"), ("-", "misc"),
        ("", "misc"), ("REF_EEG REF_EEG", "misc"), ("Ergo-Left", "misc"),
        ("EEG 26-REF", "eeg"), ("EEG(sec)", "eeg"), ("B12", "eeg"),
    ],
)  # fmt: skip
def test_kinds_of_what_has_no_electrode_name(label: str, kind: str) -> None:
    assert kind_of(label) == kind
    assert normalise(label) is None
    assert bipolar_pair(label) is None


def test_biosemi_positions_are_not_ear_lobes() -> None:
    labels = [f"{row}{n}" for row in "ABCDEFGH" for n in range(1, 33)]
    rows = cap_rows(labels)
    assert rows == frozenset("ABCDEFGH")
    assert all(is_cap_position(label, rows) for label in labels)


def test_ear_lobes_beside_scalp_names_stay_ear_lobes() -> None:
    rows = cap_rows(["Fp1", "C3", "C4", "F10", "A1", "A2", "E1", "E2"])
    assert rows == frozenset()
    assert not is_cap_position("A1", rows)


def test_cap_rows_with_prefix_and_reference() -> None:
    assert cap_rows(["EEG A1-REF", "EEG A5-REF"]) == {"A"}
    assert is_cap_position("A1-A2", frozenset("A"))


def test_tables_hold_canonical_names_only() -> None:
    assert len(CELM_CHANNELS) == len(set(CELM_CHANNELS)) == 22
    assert len(CBRAMOD_CHANNELS) == len(set(CBRAMOD_CHANNELS)) == 19
    for name in POSITIONS:
        assert normalise(name) == name
    assert set(CELM_CHANNELS) <= set(POSITIONS)
    assert set(CELM_CHANNELS) == {*LEFT, *RIGHT, *MIDLINE}
    assert {name for members in REGIONS.values() for name in members} == set(CELM_CHANNELS) - {"A1", "A2"}
    assert not {"T7", "T8", "P7", "P8", "M1", "M2"} & set(POSITIONS)
