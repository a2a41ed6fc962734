"""EDF and BDF: samples, time, and headers that do not fit their file."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from edf_files import TEN, Signal, eeg, noise, write_edf
from sentences import refuse, warned

from bioreport.recording import Segment, open_recording


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
