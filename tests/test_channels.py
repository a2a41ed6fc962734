"""A recording's channels: labels, montages that are solved for electrodes, units, rates."""

from pathlib import Path

import numpy as np
import pytest
from edf_files import TEN, Signal, eeg, noise, write_edf
from sentences import refuse, warned

from bioreport.montage import CBRAMOD_CHANNELS
from bioreport.recording import open_recording


def test_biosemi_cap_has_no_ear_lobes(tmp_path: Path) -> None:
    labels = [f"{row}{n}" for row in "AB" for n in range(1, 33)]
    path = write_edf(tmp_path / "a.bdf", eeg([*labels, "EXG1", "Status"], seconds=1), n_records=1, bdf=True)
    refuse(path, "cap positions", "Fp1")


def test_eegmmidb_labels(tmp_path: Path) -> None:
    labels = ("Fc5.", "C3..", "Cz..", "Fp1.", "Fpz.", "T7..", "T10.", "P8..", "Poz.", "Iz..", "O1..")
    recording = open_recording(write_edf(tmp_path / "a.edf", eeg(labels, 160), n_records=10))
    assert recording.names == ("FC5", "C3", "Cz", "Fp1", "Fpz", "T3", "T10", "T6", "POz", "Iz", "O1")


def test_tuh_labels(tmp_path: Path) -> None:
    labels = (
        "EEG FP1-REF",
        "EEG T5-REF",
        "EEG A1-REF",
        "EEG EKG1-REF",
        "EEG ROC-REF",
        "PHOTIC-REF",
        "EEG 26-REF",
    )
    signals = [*eeg(labels, 250), Signal("IBI", np.zeros(10)), Signal("BURSTS", np.zeros(10))]
    recording = open_recording(write_edf(tmp_path / "a.edf", signals, n_records=10))
    assert recording.names == ("Fp1", "T5", "A1") and recording.warnings == []
    assert recording.mapping["EEG 26-REF"] == "not used: no 10-20 name"
    assert recording.mapping["PHOTIC-REF"] == "not used: stim"
    assert [c.kind for c in recording.channels] == ["eeg"] * 3 + ["ecg", "eog", "stim", "eeg", "misc", "misc"]


BANANA = (
    "FP1-F7", "F7-T7", "T7-P7", "P7-O1", "FP1-F3", "F3-C3", "C3-P3", "P3-O1", "FP2-F4", "F4-C4", "C4-P4",
    "P4-O2", "FP2-F8", "F8-T8", "T8-P8", "P8-O2", "FZ-CZ", "CZ-PZ",
)  # fmt: skip


def test_double_banana_is_solved_for_its_electrodes(tmp_path: Path) -> None:
    electrodes = list(CBRAMOD_CHANNELS)
    spelled = {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
    digital = {spelled.get(e, e).upper(): noise(2560, seed=i) for i, e in enumerate(electrodes)}
    signals = [Signal(p, digital[p.split("-")[0]] - digital[p.split("-")[1]]) for p in BANANA]
    signals += [Signal("T8-P8", signals[14].digital), Signal("-", np.zeros(2560)), Signal("ECG", noise(2560))]
    recording = open_recording(write_edf(tmp_path / "chb.edf", signals, n_records=10))
    assert set(recording.names) == set(CBRAMOD_CHANNELS)
    warned(recording, "bipolar", "19 electrodes", "18 differences", "3 groups", "least squares")
    warned(recording, "T4-T6", "more than once")
    data = recording.read(0, recording.n_samples)
    for group in (("Fp1", "F7", "T3", "T5", "O1", "F3", "C3", "P3"), ("Fz", "Cz", "Pz")):
        truth = np.array([digital[spelled.get(e, e).upper()] for e in group]) * 0.1
        found = data[[recording.names.index(e) for e in group]]
        np.testing.assert_allclose(found, truth - truth.mean(axis=0), atol=1e-9)
    assert recording.mapping["T8-P8 (2)"] == "not used: a second T4-T6"
    assert all(channel.name is None for channel in recording.channels)


def test_common_electrode_as_reference_is_solved_too(tmp_path: Path) -> None:
    labels = [f"{name}-Cz" for name in TEN]
    recording = open_recording(write_edf(tmp_path / "a.edf", eeg(labels), n_records=10))
    assert set(recording.names) == {*TEN, "Cz"}
    np.testing.assert_allclose(recording.read(0, 100).sum(axis=0), 0, atol=1e-9)


def test_sleep_edf_has_too_few_pairs(tmp_path: Path) -> None:
    signals = [*eeg(("EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal"), 100), Signal("Event marker", np.zeros(10))]
    refuse(write_edf(tmp_path / "a.edf", signals, n_records=10), "bipolar", "eight", "referential")


def test_bipolar_beside_referential_is_left_out(tmp_path: Path) -> None:
    recording = open_recording(write_edf(tmp_path / "a.edf", eeg((*TEN, "EEG A2-A1")), n_records=10))
    assert recording.names == TEN
    assert recording.mapping["EEG A2-A1"].startswith("not used: bipolar")


def test_mixed_rates_keep_the_most_common(tmp_path: Path) -> None:
    signals = [*eeg(TEN, 100), *eeg(("Fz", "Cz"), 200), Signal("ECG", noise(5000))]
    recording = open_recording(write_edf(tmp_path / "a.edf", signals, n_records=10))
    assert recording.names == TEN and recording.sfreq == 100
    warned(recording, "2 without 100 Hz")
    np.testing.assert_allclose(recording.read(0, 1000)[2], signals[2].digital * 0.1, atol=1e-9)
    assert recording.mapping["Fz"] == "not used: 200 Hz where most EEG channels have 100 Hz"


@pytest.mark.parametrize(
    ("span", "unit"),
    [
        (("-3276.8", "3276.7"), "µV"),
        (("-3.2768", "3.2767"), "mV"),
        (("-3.28e-3", "3.28e-3"), "V"),
        (("-3.28e6", "3.28e6"), "nV"),
    ],
)
def test_absent_unit_is_decided_by_amplitude(tmp_path: Path, span: tuple[str, str], unit: str) -> None:
    recording = open_recording(write_edf(tmp_path / "a.edf", eeg(TEN, unit="", physical=span), n_records=10))
    warned(recording, "no unit", unit)
    sd = np.median(recording.read(0, 1000).std(axis=1))
    assert sd == pytest.approx(30, rel=0.1)
    assert recording.channels[0].unit == unit


def test_nonsense_amplitude_is_doubted(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", eeg(TEN, unit="V"), n_records=10)
    warned(open_recording(path), "header may be wrong")
    flat = write_edf(tmp_path / "b.edf", [Signal(n, np.zeros(1000)) for n in TEN], n_records=10)
    assert open_recording(flat).warnings == []


def test_channel_without_scale_is_left_out(tmp_path: Path) -> None:
    signals = eeg(TEN)
    signals[3].limits = ("0", "0")
    signals[4].physical = ("5", "5")
    recording = open_recording(write_edf(tmp_path / "a.edf", signals, n_records=10))
    assert recording.names == TEN[:3] + TEN[5:]
    assert recording.channels[3].status == "bad"
    warned(recording, "F4, C3", "physical range")


def test_amplitude_of_no_unit(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", eeg(TEN, unit="A/D", physical=("-3.28e-8", "3.28e-8")), n_records=10)
    recording = open_recording(path)
    warned(recording, "fits none", "µV is assumed")
    flat = [Signal(n, np.zeros(1000), unit="") for n in TEN]
    warned(open_recording(write_edf(tmp_path / "b.edf", flat, n_records=10)), "fits none")


def test_bipolar_channels_of_other_rates_and_lonely_pairs(tmp_path: Path) -> None:
    signals = [
        *eeg(BANANA, 100),
        *eeg(("A1-A2", "F9-F10"), 100),
        *eeg(("AF3-AF7",), 200),
        *eeg(("C3-A2",), 100),
    ]
    recording = open_recording(write_edf(tmp_path / "a.edf", signals, n_records=10))
    warned(recording, "1 without 100 Hz")
    assert set(recording.names) == {*CBRAMOD_CHANNELS, "A1", "A2"}
    assert recording.mapping["F9-F10"] == "not used: a bipolar pair joined to no other"
    assert recording.mapping["C3-A2"] == "C3-A2, used to compute both electrodes"


def test_no_eeg_channel(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", eeg(("EMG", "Resp", "SpO2")), n_records=10)
    refuse(path, "no EEG channel among its 3", "1 emg", "Fp1")
    unnamed = write_edf(tmp_path / "b.edf", eeg(("EEG 1", "EEG 2")), n_records=10)
    refuse(unnamed, "no channel with a 10-20 name", "2 eeg")
