"""Opening recordings: what is right, what is warned about, what is refused."""

import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path

import mne
import numpy as np
import pybv
import pytest
from edf_files import Signal, eeg, noise, write_edf

from bioreport.errors import InputError
from bioreport.montage import CBRAMOD_CHANNELS
from bioreport.recording import Recording, Segment, open_recording

TEN = ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2")


def refuse(path: Path, *words: str) -> InputError:
    with pytest.raises(InputError) as caught:
        open_recording(path)
    text = str(caught.value)
    assert text.startswith(str(path)) and "\n" not in text and text.endswith(".")
    for word in words:
        assert word in text
    return caught.value


def warned(recording: Recording, *words: str) -> None:
    assert any(all(word in sentence for word in words) for sentence in recording.warnings), recording.warnings
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in recording.warnings)


# real recordings


@pytest.mark.parametrize(
    ("file", "names", "sfreq", "seconds"),
    [("MB0400FU.EDF", 21, 200, 29), ("Subject00_1.edf", 19, 500, 182), ("Subject00_2.edf", 19, 500, 62),
     ("eeglab_test.edf", 16, 256, 60)],
)  # fmt: skip
def test_real_recordings(shared: Path, file: str, names: int, sfreq: float, seconds: float) -> None:
    recording = open_recording(shared / "data/dev/eeg" / file)
    assert (len(recording.names), recording.sfreq, recording.duration_seconds) == (names, sfreq, seconds)
    assert set(CBRAMOD_CHANNELS) - {"Fz", "Cz", "Pz"} <= set(recording.names)
    assert recording.warnings == []
    assert recording.segments == (Segment(0, recording.n_samples, 0.0),)
    sd = np.median(recording.read(0, recording.n_samples).std(axis=1))
    assert 5 < sd < 200


@pytest.mark.parametrize("file", ["MB0400FU.EDF", "Subject00_2.edf", "eeglab_test.edf"])
def test_samples_are_those_of_mne(shared: Path, file: str) -> None:
    path = shared / "data/dev/eeg" / file
    recording = open_recording(path)
    rows = [i for i, channel in enumerate(recording.channels) if channel.name]
    expected = mne.io.read_raw_edf(path, verbose="ERROR").get_data(picks=rows) * 1e6
    np.testing.assert_allclose(recording.read(0, recording.n_samples), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("file", "word"),
    [
        ("S001R01_mangled.edf", "UTF-8"),
        ("SC4001EC-Hypnogram.edf", "annotations only"),
        ("mne_test.edf", "cap positions"),
        ("12726.hea", "ECG"),
        ("flac_3_constant.hea", "ECG"),
    ],
)
def test_odd_files_refused(shared: Path, file: str, word: str) -> None:
    refuse(shared / "data/dev/odd" / file, word)


def test_odd_files_read(shared: Path) -> None:
    odd = shared / "data/dev/odd"
    duplicate = open_recording(odd / "duplicate_channel_labels.edf")
    assert duplicate.names == ("F1", "F2")
    warned(duplicate, "F1", "more than once")
    assert duplicate.mapping["EEG F1-Ref (2)"] == "not used: a second F1"
    subsecond = open_recording(odd / "subsecond_starttime.edf")
    assert subsecond.names == ("Fp1", "F7", "T3") and subsecond.segments[0].onset_seconds == 0
    stim = open_recording(odd / "test_edf_stim_channel.edf")
    assert len(stim.names) == 19 and stim.sfreq == 128
    kinds = {channel.label: channel.kind for channel in stim.channels}
    assert kinds["DIG DTRIG"] == "stim" and kinds["EOG VEOG_I"] == "eog" and kinds["ECG ECG1"] == "ecg"


# reading


def test_samples_units_and_pieces(tmp_path: Path) -> None:
    signals = eeg(TEN, sfreq=128, seconds=11)
    signals[1] = Signal("EEG Fp2-REF", signals[1].digital, "mV", ("-3.2768", "3.2767"))
    recording = open_recording(write_edf(tmp_path / "a.edf", signals, n_records=11))
    assert recording.names == TEN and recording.n_samples == 128 * 11
    whole = recording.read(0, recording.n_samples)
    np.testing.assert_allclose(whole[0], signals[0].digital * 0.1, atol=1e-9)
    np.testing.assert_allclose(whole[1], signals[1].digital * 0.1, atol=1e-9)
    for start, stop in ((0, 0), (5, 6), (127, 129), (300, 1000), (1407, 1408)):
        np.testing.assert_array_equal(recording.read(start, stop), whole[:, start:stop])
    chunks = list(recording.stream(chunk_seconds=2.5))
    np.testing.assert_array_equal(np.concatenate([data for _, _, data in chunks], axis=1), whole)
    assert [start for _, start, _ in chunks] == [0, 320, 640, 960, 1280]
    assert whole.dtype == np.float64
    again = pickle.loads(pickle.dumps(recording))
    np.testing.assert_array_equal(again.read(100, 200), whole[:, 100:200])
    with pytest.raises(ValueError, match="not within"):
        recording.read(0, recording.n_samples + 1)


def test_one_long_record_is_read_in_parts(tmp_path: Path) -> None:
    signals = eeg(TEN, sfreq=200, seconds=300)
    recording = open_recording(write_edf(tmp_path / "a.edf", signals, n_records=1, seconds=300))
    np.testing.assert_allclose(
        recording.read(12345, 23456)[3], signals[3].digital[12345:23456] * 0.1, atol=1e-9
    )


def test_bdf_24_bits(tmp_path: Path) -> None:
    digital = np.concatenate([[-8388608, 8388607, -1, 0, 1], noise(251, scale=30000)])
    signals = [
        Signal(name, digital, "uV", ("-262144", "262143"), ("-8388608", "8388607"))
        for name in ("Fp1", "Fp2", "A1")
    ]
    signals.append(
        Signal("Status", np.zeros(256), "Boolean", ("-8388608", "8388607"), ("-8388608", "8388607"))
    )
    recording = open_recording(write_edf(tmp_path / "a.bdf", signals, n_records=1, bdf=True))
    gain = (262143 + 262144) / (8388607 + 8388608)
    np.testing.assert_allclose(recording.read(0, 256)[0], (digital + 8388608) * gain - 262144, atol=1e-6)
    assert recording.names == ("Fp1", "Fp2", "A1")
    assert recording.channels[3].kind == "stim"


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


# time


def test_discontinuous_file_has_segments(tmp_path: Path) -> None:
    onsets = [0.25, 1.25, 2.25, 10.25, 11.25, 11.25 + 4.5]
    signals = eeg(TEN, 100, 6)
    recording = open_recording(
        write_edf(tmp_path / "a.edf", signals, n_records=6, plus="EDF+D", onsets=onsets)
    )
    assert recording.segments == (Segment(0, 300, 0.0), Segment(300, 500, 10.0), Segment(500, 600, 15.5))
    assert recording.duration_seconds == 6.0
    warned(recording, "2 gaps", "10.5 s")
    assert [(s.onset_seconds, start, d.shape[1]) for s, start, d in recording.stream(2.0)] == [
        (0.0, 0, 200), (0.0, 200, 100), (10.0, 300, 200), (15.5, 500, 100),
    ]  # fmt: skip


def test_gap_in_a_file_that_calls_itself_continuous(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", eeg(TEN, 100, 3), n_records=3, plus="EDF+C", onsets=[0, 1, 60])
    recording = open_recording(path)
    assert len(recording.segments) == 2
    warned(recording, "1 gap,", "58 s")


def test_time_going_back(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", eeg(TEN, 100, 3), n_records=3, plus="EDF+D", onsets=[0, 1, 0.5])
    warned(open_recording(path), "goes back")


def test_rounded_time_stamps_are_no_gaps(tmp_path: Path) -> None:
    onsets = [round(i / 3, 3) for i in range(9)]
    path = write_edf(
        tmp_path / "a.edf", eeg(TEN, 99, 3), n_records=9, seconds=1 / 3, plus="EDF+D", onsets=onsets
    )
    assert len(open_recording(path).segments) == 1


def test_missing_time_stamps(tmp_path: Path) -> None:
    onsets = [0, 1, float("nan"), 3]
    continuous = write_edf(tmp_path / "a.edf", eeg(TEN, 100, 4), n_records=4, plus="EDF+C", onsets=onsets)
    warned(open_recording(continuous), "record 3")
    other = write_edf(tmp_path / "b.edf", eeg(TEN, 100, 4), n_records=4, plus="EDF+D", onsets=onsets)
    refuse(other, "record 3", "damaged")


# headers that do not fit


def test_truncated_file(tmp_path: Path) -> None:
    signals = eeg(TEN)
    path = write_edf(tmp_path / "a.edf", signals, n_records=10)
    path.write_bytes(path.read_bytes()[:-3001])
    recording = open_recording(path)
    assert recording.duration_seconds == 8
    warned(recording, "truncated", "10 s", "8 s")
    np.testing.assert_allclose(recording.read(0, 800)[9], signals[9].digital[:800] * 0.1, atol=1e-9)


def test_header_that_promises_more(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", eeg(TEN), n_records=10, stated_records=5000)
    warned(open_recording(path), "5000 s", "10 s")


def test_unfinished_header(tmp_path: Path) -> None:
    recording = open_recording(write_edf(tmp_path / "a.edf", eeg(TEN), n_records=10, stated_records=-1))
    assert recording.duration_seconds == 10
    warned(recording, "does not say", "10 s")


def test_longer_than_its_header(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", eeg(TEN), n_records=10, stated_records=7)
    recording = open_recording(path)
    assert recording.duration_seconds == 7
    warned(recording, "longer", "7 s")
    path.write_bytes(path.read_bytes() + b"ab" * 7)
    refuse(path, "longer than its header says", "binary")


def test_text_conversions(tmp_path: Path) -> None:
    data = write_edf(tmp_path / "a.edf", eeg(TEN), n_records=10).read_bytes()
    header, samples = data[: 256 * 11], data[256 * 11 :]
    for name, converted in (
        ("utf8", samples.decode("latin-1").encode()),
        ("replaced", samples.decode("utf-8", "replace").encode()),
        ("crlf", samples.replace(b"\n", b"\r\n")),
    ):
        path = tmp_path / f"{name}.edf"
        path.write_bytes(header + converted)
        refuse(path, "line ends" if name == "crlf" else "UTF-8", "binary mode")


def test_shifted_records_of_a_truncated_file(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", eeg(TEN), n_records=10, plus="EDF+C", onsets=list(range(10)))
    data = path.read_bytes()
    path.write_bytes(data[:5000] + data[5001:])
    refuse(path, "time stamp", "shifted")


@pytest.mark.parametrize("length", [1, 100, 255, 300, 2000, 2816, 2900])
def test_cut_within_or_behind_the_header(tmp_path: Path, length: int) -> None:
    path = write_edf(tmp_path / "a.edf", eeg(TEN), n_records=10)
    path.write_bytes(path.read_bytes()[:length])
    refuse(path)


def test_damaged_header_fields(tmp_path: Path) -> None:
    data = write_edf(tmp_path / "a.edf", eeg(TEN), n_records=10).read_bytes()
    path = tmp_path / "b.edf"
    for start, field, word in (
        (252, b"xxxx", "number of signals"), (252, b"0   ", "no channel"), (252, b"-3  ", "no channel"),
        (184, b"512     ", "header of 512"), (236, b"many    ", "number of records"),
        (244, b"0       ", "no duration"), (244, b"nan     ", "record duration"),
        (256 + 216 * 10, b"-5      ", "no samples"),
    ):  # fmt: skip
        path.write_bytes(data[:start] + field + data[start + len(field) :])
        refuse(path, word)


@pytest.mark.parametrize("seconds", [1e-6, 1000.0])
def test_impossible_rate(tmp_path: Path, seconds: float) -> None:
    refuse(write_edf(tmp_path / "a.edf", eeg(TEN), n_records=1, seconds=seconds), "sampling rate")


def test_no_eeg_channel(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", eeg(("EMG", "Resp", "SpO2")), n_records=10)
    refuse(path, "no EEG channel among its 3", "1 emg", "Fp1")
    unnamed = write_edf(tmp_path / "b.edf", eeg(("EEG 1", "EEG 2")), n_records=10)
    refuse(unnamed, "no channel with a 10-20 name", "2 eeg")


# no recording at all


def test_what_is_no_recording(tmp_path: Path) -> None:
    refuse(tmp_path, "is a folder")
    refuse(tmp_path / "absent.edf", "does not exist")
    refuse(tmp_path / ("n" * 5000), "check the path")
    (tmp_path / "empty.edf").touch()
    refuse(tmp_path / "empty.edf", "is empty")
    os.mkfifo(tmp_path / "pipe.edf")
    refuse(tmp_path / "pipe.edf", "no regular file")
    for name, word in (
        ("noise.edf", "not an EDF"),
        ("noise.bdf", "not an EDF"),
        ("noise.xyz", "no format"),
        ("noise", "no format"),
        ("noise.fif", "FIF"),
        ("noise.vhdr", "BrainVision"),
        ("noise.set", "EEGLAB"),
        ("noise.eeg", ".vhdr"),
        ("noise.fdt", ".set"),
        ("noise.hea", "ECG"),
    ):
        (tmp_path / name).write_bytes(np.random.default_rng(1).bytes(20000))
        refuse(tmp_path / name, word)


def test_forbidden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_edf(tmp_path / "a.edf", eeg(TEN), n_records=10)

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    refuse(path, "may not be read", "permissions")


def test_file_that_shrinks_or_goes(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", eeg(TEN), n_records=10)
    recording = open_recording(path)
    path.write_bytes(path.read_bytes()[:6000])
    with pytest.raises(InputError, match="became shorter"):
        recording.read(0, 1000)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read further"):
        recording.read(0, 1000)


# other formats


def _raw(names: tuple[str, ...], seconds: int = 8, sfreq: int = 128):  # type: ignore[no-untyped-def]
    data = np.array([noise(sfreq * seconds, seed=i, scale=30e-6 * 1e6) * 1e-6 for i in range(len(names))])
    return mne.io.RawArray(data, mne.create_info(list(names), sfreq, "eeg"), verbose="ERROR"), data * 1e6


def test_fif(tmp_path: Path) -> None:
    raw, data = _raw((*TEN, "T7", "ECG"))
    raw.info["bads"] = ["F3"]
    raw.info["subject_info"] = {"his_id": "P12345", "last_name": "Mustermann"}
    raw.set_annotations(mne.Annotations([2.0], [1.0], ["BAD_ACQ_SKIP"]))
    raw.save(tmp_path / "a_raw.fif", fmt="double", verbose="ERROR")
    recording = open_recording(tmp_path / "a_raw.fif")
    assert recording.names == (*TEN[:2], *TEN[3:], "T3")
    warned(recording, "F3", "marked bad")
    warned(recording, "gaps", "1 s")
    found = recording.read(0, recording.n_samples)
    assert np.isnan(found[:, 256:384]).all() and not np.isnan(found[:, 384:]).any()
    np.testing.assert_allclose(found[0, :256], data[0, :256], atol=1e-6)
    np.testing.assert_allclose(recording.read(300, 400)[0, 84:], data[0, 384:400], atol=1e-6)
    held = repr(vars(recording)) + repr(recording._reader.source._raw.info)  # type: ignore[attr-defined]
    assert "Mustermann" not in held and "P12345" not in held


def test_brainvision(tmp_path: Path) -> None:
    _, data = _raw(TEN)
    pybv.write_brainvision(
        data=data * 1e-6, sfreq=128, ch_names=list(TEN), fname_base="a", folder_out=tmp_path, unit="µV",
        resolution=0.001,
    )  # fmt: skip
    recording = open_recording(tmp_path / "a.vhdr")
    assert recording.names == TEN and recording.segments == (Segment(0, 1024, 0.0),)
    np.testing.assert_allclose(recording.read(10, 500), data[:, 10:500], atol=0.01)
    refuse(tmp_path / "a.eeg", "one part")
    (tmp_path / "a.eeg").unlink()
    refuse(tmp_path / "a.vhdr")


def _write_set(path: Path, data: np.ndarray, *, inside: bool) -> None:
    from scipy.io import savemat

    chanlocs = np.zeros(len(TEN), dtype=[("labels", "O"), ("type", "O")])
    chanlocs["labels"], chanlocs["type"] = TEN, "EEG"
    events = np.zeros(1, dtype=[("type", "O"), ("latency", "O"), ("duration", "O")])
    events[0] = ("boundary", 512.5, 0.0)
    if not inside:
        path.with_suffix(".fdt").write_bytes(data.T.astype("<f4").tobytes())
    fields = {
        "setname": "a",
        "nbchan": len(TEN),
        "trials": 1,
        "pnts": data.shape[1],
        "srate": 128.0,
        "xmin": 0.0,
        "xmax": (data.shape[1] - 1) / 128,
        "chanlocs": chanlocs,
        "event": events,
        "epoch": [],
        "icawinv": [],
        "icaweights": [],
        "icasphere": [],
        "icaact": [],
        "data": data if inside else path.with_suffix(".fdt").name,
    }
    savemat(path, fields if inside else {"EEG": fields}, appendmat=False)


@pytest.mark.parametrize("inside", [False, True])
def test_eeglab(tmp_path: Path, inside: bool) -> None:
    _, data = _raw(TEN)
    data[2, 100:110] = np.nan
    data[3, 50] = np.inf
    _write_set(tmp_path / "a.set", data, inside=inside)
    recording = open_recording(tmp_path / "a.set")
    assert recording.names == TEN
    found = recording.read(0, 1024)
    np.testing.assert_allclose(found[0], data[0], rtol=1e-5, atol=1e-5)
    assert np.isnan(found[2, 100:110]).all() and np.isnan(found[3, 50]) and np.isnan(found).sum() == 11
    assert [s.start for s in recording.segments] == [0, 512]
    warned(recording, "cut and joined at 1 place")


# sidecars


def test_bids_sidecars(tmp_path: Path) -> None:
    (tmp_path / "dataset_description.json").write_text("{}")
    folder = tmp_path / "sub-01" / "eeg"
    folder.mkdir(parents=True)
    path = write_edf(
        folder / "sub-01_task-rest_eeg.edf",
        eeg((*TEN, "Fz"), unit="", physical=("-3.2768", "3.2767")),
        n_records=10,
    )
    rows = [f"{n}\tEEG\tmV\tgood" for n in TEN]
    rows[0] = "Fp1\tEOG\tmV\tgood"
    rows[4] = "C3\tEEG\tmV\tbad"
    (folder / "sub-01_task-rest_channels.tsv").write_text(
        "name\ttype\tunits\tstatus\n" + "\n".join(rows) + "\n"
    )
    (folder / "sub-02_task-rest_eeg.json").write_text('{"PowerLineFrequency": 50}')
    (tmp_path / "task-rest_eeg.json").write_text(json.dumps({"PowerLineFrequency": 60, "TaskName": "rest"}))
    recording = open_recording(path)
    assert recording.line_frequency == 60
    assert recording.names == ("Fp2", "F3", "F4", "C4", "P3", "P4", "O1", "O2", "Fz")
    warned(recording, "C3", "marked bad in channels.tsv")
    warned(recording, "1 of the 9", "no unit", "mV")
    assert recording.mapping["Fp1"] == "not used: eog"
    assert np.median(recording.read(0, 1000).std(axis=1)) == pytest.approx(30, rel=0.1)
    assert recording.channels[4].status == "bad" and recording.channels[5].status == "good"
    (folder / "sub-01_task-rest_eeg.json").write_text('{"PowerLineFrequency": 50}')
    assert open_recording(path).line_frequency == 50


def test_plain_and_broken_sidecars(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "night.edf", eeg(TEN), n_records=10)
    (tmp_path / "channels.tsv").write_text("name\tstatus\nO2\tbad\n")
    (tmp_path / "night_eeg.json").write_text('{"PowerLineFrequency": 400}')
    recording = open_recording(path)
    assert recording.names == TEN[:-1] and recording.line_frequency is None
    warned(recording, "neither 50 nor 60")
    (tmp_path / "channels.tsv").write_bytes(b"\xff\xfe\x00\x01")
    (tmp_path / "night_eeg.json").write_text("{")
    recording = open_recording(path)
    assert recording.names == TEN
    warned(recording, "channels.tsv", "not used")
    warned(recording, "night_eeg.json", "not used")
    (tmp_path / "channels.tsv").write_text("name\tstatus\n" + "".join(f"{n}\tbad\n" for n in TEN))
    refuse(path, "marked bad")


# privacy, silence, memory


def test_nothing_of_the_patient_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    patient = "MRN-0815 F 01-APR-1961 Erika_Musterfrau"
    labels = (*TEN, "Musterfrau", "X-0815\x07", "Sleepy")
    path = write_edf(tmp_path / "a.edf", eeg(labels), n_records=10, patient=patient, plus="EDF+C",
                     recording="Startdate 01-FEB-2020 K4711 Dr_Weiss X", onsets=list(range(10)))  # fmt: skip
    recording = open_recording(path)
    list(recording.stream())
    state = pickle.dumps(recording).decode("latin-1") + repr(vars(recording)) + caplog.text
    for word in ("Musterfrau", "Erika", "0815", "1961", "K4711", "Weiss"):
        assert word not in state
    assert list(recording.mapping)[10:13] == ["channel 11", "channel 12", "Sleepy"]
    path.write_bytes(path.read_bytes()[:3000])
    assert "Musterfrau" not in str(refuse(path))


def test_nothing_is_printed(tmp_path: Path, shared: Path) -> None:
    noisy = tmp_path / "a.set"
    noisy.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200))
    files = [str(p) for p in sorted((shared / "data/dev").glob("*/*")) if p.suffix.lower() == ".edf"] + [
        str(noisy)
    ]
    code = (
        "import sys\nfrom bioreport.errors import InputError\n"
        "from bioreport.recording import open_recording\n"
        "for p in sys.argv[1:]:\n  try: open_recording(p).read(0, 100)\n  except InputError: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)
    assert done.stdout == "" and done.stderr == ""


def test_memory_does_not_grow(tmp_path: Path) -> None:
    def peak(seconds: int) -> int:
        signals = [Signal(name, np.zeros(256), physical=("-100", "100")) for name in TEN]
        path = write_edf(tmp_path / f"{seconds}.edf", signals, n_records=1, stated_records=seconds)
        size = 256 * 11 + seconds * 256 * 10 * 2
        with path.open("r+b") as file:
            file.truncate(size)  # sparse: zeros that take no space
        tracemalloc.start()
        for _ in open_recording(path).stream(10.0):
            pass
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        path.unlink()
        return result

    peak(100)
    assert peak(4000) < 1.1 * peak(200) + 50_000


def test_from_array() -> None:
    data = np.arange(12, dtype=np.float32).reshape(2, 6)
    data[0, 1] = np.inf
    recording = Recording.from_array(data, 2.0, ("C3", "O1"))
    assert (recording.n_samples, recording.duration_seconds, recording.names) == (6, 3.0, ("C3", "O1"))
    found = recording.read(0, 3)
    assert np.isnan(found[0, 1]) and found.dtype == np.float64 and found[1].tolist() == [6, 7, 8]
    assert np.isinf(data[0, 1])
    assert [d.shape[1] for _, _, d in recording.stream(2.0)] == [4, 2]
    with pytest.raises(ValueError, match="do not fit"):
        Recording.from_array(data, 2.0, ("C3",))
