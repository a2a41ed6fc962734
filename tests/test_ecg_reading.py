"""Opening ECGs: samples as wfdb reads them, what is warned about, what is refused."""

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from edf_files import Signal, eeg, noise, write_edf
from sentences import refuse, warned
from wfdb_files import TOLERANCE, ecg, physical, twelve, write_random, write_record

from bioreport.ecg.leads import LEADS
from bioreport.ecg.reading import EcgRecording, guess_unit, open_ecg
from bioreport.errors import InputError
from bioreport.recording import Recording, open_recording

# real records


def test_every_real_record_is_read_as_wfdb_reads_it(shared: Path) -> None:
    headers = sorted((shared / "data/dev/ecg").glob("*.hea"))
    assert len(headers) == 32
    for header in headers:
        recording = open_recording(header)
        assert isinstance(recording, EcgRecording) and recording.modality == "ecg"
        names, signals = physical(header)
        data = recording.read()
        assert data.dtype == np.float32 and data.shape == (len(recording.leads), recording.n_samples)
        n_compared = 0
        for name, samples in zip(names, signals, strict=True):
            lead = recording.mapping[name]
            if lead in recording.leads:
                np.testing.assert_allclose(data[recording.leads.index(lead)], samples, rtol=0, atol=TOLERANCE)
                n_compared += 1
            else:  # an electrode that was off
                assert lead == "not used: constant, no signal" and np.ptp(samples) == 0
        assert n_compared + len(recording.derived) == len(recording.leads)


def test_leads_of_real_records(shared: Path) -> None:
    folder = shared / "data/dev/ecg"
    normal = open_ecg(folder / "E07500.hea")
    assert normal.leads == LEADS and normal.warnings == [] and normal.derived == ()
    assert (normal.sfreq, normal.duration_seconds) == (500, 10)
    holter = open_ecg(folder / "100.hea")
    assert holter.leads == ("II", "V5") and holter.modified == ("II",) and holter.derived == ()
    warned(holter, "MLII as II", "ST")
    two = open_ecg(folder / "data_8_2.hea")
    assert two.leads == LEADS[:6] and two.derived == ("III", "aVR", "aVL", "aVF")
    warned(two, "III, aVR, aVL, aVF", "computed")
    warned(two, "V1–V6", "cannot be judged")
    off = open_ecg(folder / "JS20004.hea")
    assert off.leads == tuple(lead for lead in LEADS if lead not in ("V2", "V4", "V6"))
    warned(off, "V2, V4, V6", "constant")


def test_a_record_by_any_of_its_names(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shared / "data/dev/ecg"
    expected = open_ecg(folder / "E07500.hea").read()
    for path in (folder / "E07500.mat", folder / "E07500", str(folder / "E07500")):
        np.testing.assert_array_equal(open_ecg(path).read(), expected)
    assert open_ecg(folder / "100.dat").path == folder / "100.dat"
    monkeypatch.chdir(folder)
    assert open_ecg("100").leads == ("II", "V5")
    refuse(folder / "100.atr", "annotations", "100.hea")


def test_a_multi_segment_record_with_ecg_among_pressures(shared: Path) -> None:
    header = shared / "data/dev/odd/041s.hea"
    recording = open_ecg(header)
    assert recording.leads == ("I", "II", "III", "aVR", "aVL", "aVF", "V") and recording.sfreq == 500
    assert recording.duration_seconds == 16
    names, signals = physical(header)
    data = recording.read()
    for name in ("III", "I", "V"):
        row = recording.leads.index(name)
        np.testing.assert_allclose(data[row], signals[names.index(name)], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(data[1], data[0] + data[2], atol=1e-6)
    assert recording.mapping["ABP"] == "not used: no ECG lead"
    warned(recording, "V", "rhythm only")


@pytest.mark.parametrize(
    ("file", "words"),
    [("12726.hea", ("12726.dat", "ECG")), ("flac_3_constant.hea", ("no ECG lead", "col 0"))],
)
def test_odd_records_refused(shared: Path, file: str, words: tuple[str, ...]) -> None:
    refuse(shared / "data/dev/odd" / file, *words)


# leads, units, rates


def test_any_order_and_spelling(tmp_path: Path) -> None:
    x = twelve()
    labels = ["v6", "V5", "ECG V4", "v3", "V2", "Lead_V1", "AVF", "avl", "-aVR", "LEAD III", "ii", "i"]
    data = x[::-1].copy()
    data[8] *= -1
    recording = open_ecg(write_record(tmp_path, "r", data, labels, sfreq=500))
    assert recording.leads == LEADS and recording.warnings == []
    np.testing.assert_allclose(recording.read(), x, atol=6e-4)
    assert recording.mapping["-aVR"] == "aVR, turned over"


@pytest.mark.parametrize(
    "gain", ["1(0)/uV", "1(0)/µV", "1000(0)/mV", "1000/mv", "1000", "1e3(0)", "1000000(0)/V"]
)
def test_units(tmp_path: Path, gain: str) -> None:
    x = twelve()
    recording = open_ecg(write_record(tmp_path, "r", x, LEADS, sfreq=500, gain=gain))
    np.testing.assert_allclose(recording.read(), x, atol=6e-4)
    assert recording.warnings == []


def test_a_missing_unit_is_found_by_the_amplitude(tmp_path: Path) -> None:
    recording = open_ecg(write_record(tmp_path, "r", twelve(), LEADS, sfreq=500, gain="1"))
    np.testing.assert_allclose(recording.read(), twelve(), atol=6e-4)
    warned(recording, "no unit", "µV")
    assert [guess_unit(s) for s in (0.2, 200.0, 2e-4, 1e6)] == ["mV", "µV", "V", None]
    strange = open_ecg(write_record(tmp_path, "s", twelve(), LEADS, sfreq=500, gain="0.00001"))
    warned(strange, "fits none")


def test_a_stated_unit_that_cannot_be_is_doubted(tmp_path: Path) -> None:
    recording = open_ecg(write_record(tmp_path, "r", twelve(), LEADS, sfreq=500, gain="1(0)/mV"))
    warned(recording, "too much for an ECG", "gain")


def test_baseline_zero_and_a_missing_gain(tmp_path: Path) -> None:
    data = ecg(2) + 0.5
    header = write_record(tmp_path, "r", data, ["II", "V5"], gain="1000(500)/mV")
    np.testing.assert_allclose(open_ecg(header).read(), data - 0.5, atol=6e-4)
    text = header.read_text().replace("1000(500)/mV 16 0", "1000/mV 16 500")
    header.write_text(text)
    np.testing.assert_allclose(open_ecg(header).read(), data - 0.5, atol=6e-4)
    header.write_text("r 2 250 2500\nr.dat 16\nr.dat 16\n")
    refuse(header, "no ECG lead among its 2")
    header.write_text(text.replace("1000/mV 16 500", "1000(500)/mmHg 16 0", 1))
    recording = open_ecg(header)
    assert recording.leads == ("V5",)
    warned(recording, "II", "mmHg is no unit of voltage")


def test_zero_gain(tmp_path: Path) -> None:
    refuse(write_record(tmp_path, "r", ecg(2), ["II", "V5"], gain="0(0)/mV"), "gain is zero")
    partly = write_record(tmp_path, "s", ecg(2), ["II", "V5"], gains=["0/mV", "1000/mV"])
    recording = open_ecg(partly)
    assert recording.leads == ("V5",)
    warned(recording, "II", "gain is zero")


def test_duplicates_and_modified_leads(tmp_path: Path) -> None:
    recording = open_ecg(write_record(tmp_path, "r", ecg(4), ["MLII", "II", "ECG", "ECG"]))
    assert recording.leads == ("II", "ECG", "ECG (2)") and recording.modified == ()
    warned(recording, "II is recorded more than once")
    np.testing.assert_allclose(recording.read()[0], ecg(4)[1], atol=6e-4)
    # a lead from other electrodes takes no part in sums
    modified = open_ecg(write_record(tmp_path, "s", ecg(2), ["MLII", "I"]))
    assert modified.leads == ("I", "II") and modified.derived == ()


def test_leads_of_another_rate_are_left_out(tmp_path: Path) -> None:
    header = write_random(tmp_path, "r", 16, ["I", "II", "V1"], frames=1000, widths=[2, 2, 1])
    recording = open_ecg(header)
    assert "V1" not in recording.leads and recording.sfreq == 400
    warned(recording, "different sampling rates", "V1")


@pytest.mark.parametrize("sfreq", [10, 1e6])
def test_impossible_rate(tmp_path: Path, sfreq: float) -> None:
    refuse(write_record(tmp_path, "r", ecg(2), ["I", "II"], sfreq=sfreq), "sampling rate")


def test_constant_leads(tmp_path: Path) -> None:
    x = twelve()
    x[8] = 0.3
    x[2] = np.nan
    recording = open_ecg(write_record(tmp_path, "r", x, LEADS, sfreq=500))
    assert recording.leads == tuple(lead for lead in LEADS if lead != "V3") and recording.derived == ("III",)
    np.testing.assert_allclose(recording.read()[2], twelve()[2], atol=2e-3)
    warned(recording, "III, V3", "constant")
    refuse(write_record(tmp_path, "s", np.zeros((2, 2500)), ["I", "II"]), "ECG leads are constant")
    refuse(write_record(tmp_path, "t", np.full((1, 2500), np.nan), ["II"]), "ECG lead is constant")
    # a lead that is still for long but not always
    late = np.zeros((1, 500_000))
    late[0, 77_777] = 1.0
    assert open_ecg(write_record(tmp_path, "u", late, ["II"])).leads == ("II",)


# reading


def test_pieces_are_the_whole(tmp_path: Path) -> None:
    recording = open_ecg(write_record(tmp_path, "r", ecg(2, seconds=33.3), ["I", "II"]))
    whole = recording.read()
    assert whole.shape == (6, 8325)
    np.testing.assert_array_equal(np.concatenate(list(recording.stream(2.5)), axis=1), whole)
    assert [c.shape[1] for c in recording.stream(30)] == [7500, 825]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(recording)).read(100, 200), whole[:, 100:200])
    with pytest.raises(ValueError, match="not within"):
        recording.read(0, 8326)
    memory = EcgRecording.from_array(whole, 250.0, recording.leads)
    np.testing.assert_array_equal(memory.read(5, 50), whole[:, 5:50])
    assert memory.names == recording.leads and memory.duration_seconds == 33.3
    with pytest.raises(ValueError, match="do not fit"):
        EcgRecording.from_array(whole, 250.0)


def test_a_day_is_read_in_flat_memory(tmp_path: Path) -> None:
    frames = 24 * 3600 * 128
    piece = np.random.default_rng(0).bytes(3 * 128 * 600)
    with (tmp_path / "day.dat").open("wb") as file:
        for _ in range(24 * 6):
            file.write(piece)
    lines = [f"day.dat 212 200/mV 12 0 0 0 0 {label}" for label in ("MLII", "V5")]
    (tmp_path / "day.hea").write_text("\n".join([f"day 2 128 {frames}", *lines]))
    tracemalloc.start()
    recording = open_ecg(tmp_path / "day.hea")
    total = sum(chunk.shape[1] for chunk in recording.stream(60))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == frames and recording.duration_seconds == 86400
    assert peak < 8e6


# EDF


def _leads(sfreq: int = 250, seconds: int = 12, unit: str = "mV") -> list[Signal]:
    x = twelve(seconds, sfreq)
    scale = {"mV": 1.0, "uV": 1000.0, "V": 1e-3, "": 1.0}[unit]
    limits = (f"{-10 * scale:g}", f"{10 * scale:g}")
    steps = np.round((x + 10) / 20 * 65535 - 32768)
    return [Signal(f"ECG {lead}", row, unit, limits) for lead, row in zip(LEADS, steps, strict=True)]


@pytest.mark.parametrize("unit", ["mV", "uV", "V", ""])
def test_edf_with_leads_is_an_ecg(tmp_path: Path, unit: str) -> None:
    signals = [*_leads(unit=unit), Signal("SpO2", noise(12 * 250), "%")]
    recording = open_recording(write_edf(tmp_path / "a.edf", signals, n_records=12))
    assert isinstance(recording, EcgRecording) and recording.leads == LEADS
    np.testing.assert_allclose(recording.read(), twelve(12, 250), atol=4e-4)
    assert recording.mapping["SpO2"] == "not used: no ECG lead"
    if not unit:
        warned(recording, "no unit", "mV")


def test_edf_with_one_unplaced_lead(tmp_path: Path) -> None:
    signals = [
        Signal("ECG", np.round(ecg(1)[0] * 1000), "uV", ("-32768", "32767")),
        Signal("Resp", noise(2500)),
    ]
    recording = open_recording(write_edf(tmp_path / "a.edf", signals, n_records=10))
    assert isinstance(recording, EcgRecording) and recording.leads == ("ECG",)
    np.testing.assert_allclose(recording.read(), ecg(1), atol=6e-4)


def test_an_eeg_with_an_ecg_channel_stays_an_eeg(tmp_path: Path) -> None:
    names = ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2", "ECG I", "ECG II")
    recording = open_recording(write_edf(tmp_path / "a.edf", eeg(names), n_records=10))
    assert isinstance(recording, Recording) and recording.modality == "eeg" and "I" not in recording.names
    with pytest.raises(InputError):
        open_recording(write_edf(tmp_path / "b.edf", eeg(("EEG 1", "ECG I")), n_records=10))


def test_edf_gaps_are_nan(tmp_path: Path) -> None:
    onsets = [0.0, 1, 2, 3, 7, 8, 9, 10, 11, 12, 13, 14]
    path = write_edf(tmp_path / "a.edf", _leads(), n_records=12, plus="EDF+D", onsets=onsets)
    recording = open_ecg(path)
    assert recording.duration_seconds == 15
    data, x = recording.read(), twelve(12, 250)
    assert np.isnan(data[:, 1000:1750]).all()
    np.testing.assert_allclose(data[:, :1000], x[:, :1000], atol=4e-4)
    np.testing.assert_allclose(data[:, 1750:], x[:, 1000:], atol=4e-4)
    np.testing.assert_array_equal(recording.read(900, 1800), data[:, 900:1800])
    warned(recording, "gap", "3 s")
    late = [*onsets[:6], *(o + 777_600 for o in onsets[6:])]
    far = write_edf(tmp_path / "b.edf", _leads(), n_records=12, plus="EDF+D", onsets=late)
    refuse(far, "gap of 9 days")


def test_edf_without_a_unit_and_of_no_plausible_size(tmp_path: Path) -> None:
    signals = _leads(unit="")
    for signal in signals:
        signal.physical = ("-1e7", "1e7")
    refuse(write_edf(tmp_path / "a.edf", signals, n_records=12), "no unit")


# DICOM and SCP-ECG


def test_dicom(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.data import get_testdata_file
    from pydicom.waveforms import multiplex_array

    path = get_testdata_file("waveform_ecg.dcm", download=False)
    recording = open_recording(path)
    assert isinstance(recording, EcgRecording) and recording.leads == LEADS
    assert (recording.sfreq, recording.duration_seconds) == (1000, 10)
    dataset = pydicom.dcmread(path)
    expected = multiplex_array(dataset, 0, as_raw=False).T / 1000
    np.testing.assert_allclose(recording.read(), expected, rtol=0, atol=TOLERANCE)
    held = repr(vars(recording)) + repr(vars(recording._reader.source))  # type: ignore[attr-defined]
    name = str(dataset.get("PatientName", "")) or "no name"
    assert name not in held and str(dataset.get("PatientID", "")) not in (
        held if dataset.get("PatientID") else ""
    )

    group = dataset.WaveformSequence[0]
    group.WaveformData = group.WaveformData[:1000]
    dataset.save_as(tmp_path / "short.dcm")
    refuse(tmp_path / "short.dcm", "holds 41 samples")
    del dataset.WaveformSequence
    dataset.save_as(tmp_path / "none.dcm")
    refuse(tmp_path / "none.dcm", "no waveform")
    (tmp_path / "noise.dcm").write_bytes(bytes(128) + b"DICM" + np.random.default_rng(0).bytes(3000))
    refuse(tmp_path / "noise.dcm", "DICOM")


def test_dicom_without_pydicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    (tmp_path / "a.dcm").write_bytes(bytes(128) + b"DICM" + bytes(300))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    refuse(tmp_path / "a.dcm", "pip install 'bioreport[dicom]'")


def test_scp_ecg_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.scp").write_bytes(bytes(16) + b"SCPECG" + bytes(300))
    refuse(tmp_path / "a.scp", "SCP-ECG")
