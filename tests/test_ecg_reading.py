"""Opening ECGs: samples as wfdb reads them, what is warned about, what is refused."""

import pickle
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import wfdb
from edf_files import Signal, eeg, noise, write_edf
from wfdb_files import BLOCKS, ecg, twelve, write_random, write_record

from bioreport.ecg.leads import LEADS
from bioreport.ecg.reading import EcgRecording, guess_unit, open_ecg
from bioreport.ecg.wfdb_record import WfdbSource
from bioreport.errors import InputError
from bioreport.recording import Recording, open_recording

TOLERANCE = 1e-6  # mV


def refuse(path: Path, *words: str) -> InputError:
    with pytest.raises(InputError) as caught:
        open_recording(path)
    text = str(caught.value)
    assert text.startswith(str(path)) and "\n" not in text and text.endswith(".")
    for word in words:
        assert word in text, text
    return caught.value


def warned(recording: EcgRecording, *words: str) -> None:
    assert any(all(word in sentence for word in words) for sentence in recording.warnings), recording.warnings
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in recording.warnings)


def physical(header: Path, **options: object) -> tuple[list[str], list[np.ndarray]]:
    """Names and samples as the wfdb package reads them."""
    record = wfdb.rdrecord(str(header.with_suffix("")), smooth_frames=False, **options)
    return record.sig_name, record.e_p_signal


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


# storage formats


@pytest.mark.parametrize("storage", sorted(BLOCKS))
@pytest.mark.parametrize("frames", [1, 2, 1000, 1001])
@pytest.mark.parametrize("n_leads", [1, 2, 3])
def test_storage_formats(tmp_path: Path, storage: int, frames: int, n_leads: int) -> None:
    labels = ["I", "II", "V1"][:n_leads]
    header = write_random(tmp_path, "r", storage, labels, frames=frames, offset=3, seed=storage)
    source = WfdbSource(header)
    _, signals = physical(header)
    rows = list(range(n_leads))
    np.testing.assert_allclose(source.read(rows, 0, frames), signals, rtol=1e-12)
    assert np.isnan(signals).any() == np.isnan(source.read(rows, 0, frames)).any()


@pytest.mark.parametrize("storage", sorted(BLOCKS))
def test_any_stretch_of_any_format(tmp_path: Path, storage: int) -> None:
    header = write_random(tmp_path, "r", storage, ["I", "II", "V1"], frames=301, widths=[2, 2, 2], seed=1)
    source = WfdbSource(header)
    whole = source.read([0, 1, 2], 0, 602)
    np.testing.assert_allclose(whole, physical(header)[1], rtol=1e-12)
    rng = np.random.default_rng(storage)
    for start, stop in [(0, 0), (0, 1), (601, 602), *np.sort(rng.integers(0, 603, (40, 2)), axis=1)]:
        np.testing.assert_array_equal(source.read([2, 0], start, stop), whole[[2, 0], start:stop])


def test_frames_of_several_samples_and_skewed_signals(tmp_path: Path) -> None:
    header = write_random(
        tmp_path, "r", 16, ["I", "II", "ABP"], frames=500, widths=[4, 4, 1], skews=[0, 3, 1], seed=5
    )
    source = WfdbSource(header)
    assert source.rates == (800, 800, 200)
    # wfdb 4.3 fails on a skew: what it reads without is moved here by 3 frames of 4 and by 1 of 1
    _, signals = physical(header, ignore_skew=True)
    moved = [np.append(s[k:], np.full(k, np.nan)) for s, k in zip(signals, (0, 12, 1), strict=True)]
    np.testing.assert_allclose(source.read([0, 1], 0, 2000), moved[:2], rtol=1e-12)
    np.testing.assert_allclose(source.read([2], 0, 500)[0], moved[2], rtol=1e-12)
    whole = source.read([0, 1], 0, 2000)
    for start, stop in ((1, 2), (399, 1203), (1980, 1999), (1990, 2000)):
        np.testing.assert_array_equal(source.read([0, 1], start, stop), whole[:, start:stop])


@pytest.mark.parametrize(("storage", "bits"), [("508", 8), ("516", 16), ("524", 24)])
def test_flac(tmp_path: Path, storage: str, bits: int) -> None:
    limit = 1 << bits - 1
    digital = np.clip(np.round(ecg(3).T * limit / 3), -limit + 1, limit - 1).astype(np.int64)
    digital[700:710, 1] = -limit
    wfdb.wrsamp(
        "r", fs=250, units=["mV"] * 3, sig_name=["I", "II", "V1"], d_signal=digital, fmt=[storage] * 3,
        adc_gain=[limit / 3.0] * 3, baseline=[0] * 3, write_dir=str(tmp_path),
    )  # fmt: skip
    recording = open_ecg(tmp_path / "r.hea")
    expected = wfdb.rdrecord(str(tmp_path / "r")).p_signal.T
    rows = [recording.leads.index(lead) for lead in ("I", "II", "V1")]
    np.testing.assert_allclose(recording.read()[rows], expected, rtol=0, atol=TOLERANCE)
    assert np.isnan(recording.read(700, 710)[rows[1]]).all()
    np.testing.assert_array_equal(recording.read(1203, 1777), recording.read()[:, 1203:1777])
    (tmp_path / "r.dat").write_bytes(b"fLaC" + bytes(500))
    refuse(tmp_path / "r.hea", "FLAC")


def test_signals_in_several_files(tmp_path: Path) -> None:
    data = ecg(3)
    write_record(tmp_path, "a", data[:2], ["I", "II"])
    write_record(tmp_path, "b", data[2:], ["V2"])
    first, second = ((tmp_path / f"{n}.hea").read_text().splitlines() for n in "ab")
    (tmp_path / "c.hea").write_text("\n".join(["c 3 250 2500", *first[1:], *second[1:]]))
    recording = open_ecg(tmp_path / "c")
    assert recording.leads == (*LEADS[:6], "V2")
    np.testing.assert_allclose(recording.read()[[0, 1, 6]], data, atol=6e-4)
    assert not any("checksum" in w for w in recording.warnings)


# segments


def _segments(folder: Path) -> Path:
    """Variable layout: V2 comes in later, a gap lies between, I ends early."""
    x = ecg(3, seconds=20)
    write_record(folder, "s1", x[:2, :2000], ["I", "II"])
    lines = ["layout 3 250 0", *(f"~ 0 1000(0)/mV 16 0 0 0 0 {label}" for label in ("I", "II", "V2"))]
    (folder / "layout.hea").write_text("\n".join(lines))
    write_record(folder, "s2", x[[2, 1], 2500:], ["V2", "II"], gain="1(0)/uV")
    (folder / "m.hea").write_text("m/4 3 250 5000\nlayout 0\ns1 2000\n~ 500\ns2 2500\n")
    return folder / "m.hea"


def test_variable_layout_gaps_and_units_of_segments(tmp_path: Path) -> None:
    recording = open_ecg(_segments(tmp_path))
    assert recording.leads == (*LEADS[:6], "V2") and recording.n_samples == 5000
    x, data = ecg(3, seconds=20), recording.read()
    np.testing.assert_allclose(data[0, :2000], x[0, :2000], atol=6e-4)
    np.testing.assert_allclose(data[1, 2500:], x[1, 2500:], atol=6e-4)
    np.testing.assert_allclose(data[6, 2500:], x[2, 2500:], atol=6e-4)
    assert np.isnan(data[:, 2000:2500]).all() and np.isnan(data[0, 2000:]).all()
    assert np.isnan(data[6, :2500]).all() and np.isnan(data[2, 2500:]).all()
    warned(recording, "I: 12 s of gaps")
    warned(recording, "II: 2 s of gaps")
    warned(recording, "V2: 10 s of gaps")
    for start, stop in ((1990, 2010), (2100, 2200), (2499, 2501), (0, 5000)):
        np.testing.assert_array_equal(recording.read(start, stop), data[:, start:stop])


def test_gaps_are_where_wfdb_has_them(tmp_path: Path) -> None:
    x = ecg(2, seconds=20)
    x[1, 300:350] = np.nan
    write_record(tmp_path, "s1", x[:, :2000], ["II", "V2"])
    write_record(tmp_path, "s2", x[:, 3000:], ["II", "V2"])
    lines = ["layout 2 250 0", *(f"~ 0 1000(0)/mV 16 0 0 0 0 {label}" for label in ("II", "V2"))]
    (tmp_path / "layout.hea").write_text("\n".join(lines))
    (tmp_path / "m.hea").write_text("m/4 2 250 5000\nlayout 0\ns1 2000\n~ 1000\ns2 2000\n")
    expected = wfdb.rdrecord(str(tmp_path / "m")).p_signal.T
    np.testing.assert_allclose(open_ecg(tmp_path / "m.hea").read(), expected, rtol=0, atol=TOLERANCE)
    assert np.isnan(expected[1, 300:350]).all() and np.isnan(expected[:, 2000:3000]).all()


@pytest.mark.parametrize(
    ("record", "word"),
    [
        ("m/2 2 250 4000\ns1 2000\nm 2000\n", "segments itself"),
        ("m/2 2 250 4000\ns1 2000\ns9 2000\n", "s9.hea"),
        ("m/2 2 250 4000\ns1 2000\n../s1 2000\n", "outside"),
        ("m/2 2 250 4000\ns1 2000\n/etc/passwd 2000\n", "outside"),
        ("m/3 2 250 4000\ns1 2000\ns1 2000\n", "3 segments and describes 2"),
        ("m/2 2 250 4000\ns1 2000\ns1 1999\n", "3999"),
        ("m/1 2 250 2500\ns1 2500\n", "2000"),
        ("m/2 2 500 4000\ns1 2000\ns1 2000\n", "250 Hz"),
        ("m/2 2 250 4000\n~ 2000\n~ 2000\n", "gaps only"),
        ("m/1 2 250 4000\ns1\n", "without a length"),
        ("m/0 2 250 4000\n", "0 segments"),
    ],
)
def test_bad_segments(tmp_path: Path, record: str, word: str) -> None:
    write_record(tmp_path, "s1", ecg(2, seconds=8), ["I", "II"])
    (tmp_path / "m.hea").write_text(record)
    refuse(tmp_path / "m.hea", word)


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


# damaged and hostile records


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.replace("r.dat", "../r.dat"), ("outside its own folder",)),
        (lambda t: t.replace("r.dat", "..\\r.dat"), ("outside",)),
        (lambda t: t.replace("r.dat", "/etc/passwd"), ("outside",)),
        (lambda t: t.replace("r.dat", ".."), ("outside",)),
        (lambda t: t.replace("r.dat", "s3://bucket/r.dat"), ("outside",)),
        (lambda t: t.replace("r.dat", "-"), ("outside",)),
        (lambda t: t.replace("r.dat", "~"), ("without a file",)),
        (lambda t: t.replace("r.dat", "absent.dat"), ("absent.dat", "not beside it")),
        (lambda t: t.replace("dat 16 ", "dat 17 "), ("format 17",)),
        (lambda t: t.replace("dat 16 ", "dat 8 "), ("format 8",)),
        (lambda t: t.replace("dat 16 ", "dat sixteen "), ("storage format",)),
        (lambda t: t.replace("dat 16 ", "dat 212 ", 1), ("two formats",)),
        (lambda t: t.replace("1000(0)/mV", "nan/mV"), ("gain",)),
        (lambda t: t.replace("r 2 250 2500", "r 2 250 2501"), ("2500", "2501")),
        (lambda t: t.replace("r 2 250 2500", "r 3 250 2500"), ("3 signals and describes 2",)),
        (lambda t: t.replace("r 2 250 2500", "r 1 250 2500"), ("1 signals and describes 2",)),
        (lambda t: t.replace("r 2 250 2500", "r 0 250 2500"), ("0 signals and describes 2",)),
        (lambda t: "r 0 250 2500\n", ("0 leads",)),
        (lambda t: t.replace("r 2 250 2500", "r 2 0 2500"), ("sampling rate",)),
        (lambda t: t.replace("r 2 250 2500", "r 2 x 2500"), ("sampling rate",)),
        (lambda t: "", ("is empty",)),
        (lambda t: "# nothing but a comment\n", ("not the header of an ECG record",)),
        (lambda t: "hello, world\n", ("not the header of an ECG record",)),
        (lambda t: t.replace(" II", " Pleth").replace(" V5", " Resp"), ("no ECG lead", "Pleth, Resp")),
    ],
)  # fmt: skip
def test_bad_headers(tmp_path: Path, change, words: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path / "folder"
    folder.mkdir()
    header = write_record(folder, "r", ecg(2), ["II", "V5"])
    shutil.copy(folder / "r.dat", tmp_path / "r.dat")
    header.write_text(change(header.read_text()))
    refuse(header, *words)
    if words != ("is empty",):
        refuse(folder / "r", *words)
        refuse(folder / "r.dat", *words)


def test_header_or_signal_file_alone(tmp_path: Path) -> None:
    header = write_record(tmp_path, "r", ecg(2), ["II", "V5"])
    (tmp_path / "r.dat").rename(tmp_path / "other.dat")
    refuse(header, "r.dat", "not beside it")
    refuse(tmp_path / "other.dat", "other.hea", "beside it")
    refuse(tmp_path / "r.dat", "does not exist")
    (tmp_path / "x.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(500))
    refuse(tmp_path / "x.mat", "x.hea", "ECG")


def test_a_signal_file_that_is_too_short_or_too_long(tmp_path: Path) -> None:
    header = write_record(tmp_path, "r", ecg(2), ["II", "V5"])
    whole = (tmp_path / "r.dat").read_bytes()
    (tmp_path / "r.dat").write_bytes(whole[:-4])
    refuse(header, "2499 samples", "2500")
    (tmp_path / "r.dat").write_bytes(b"")
    refuse(header, "0 samples")
    (tmp_path / "r.dat").write_bytes(whole + bytes(400))
    warned(open_ecg(header), "100 samples a lead longer")
    (tmp_path / "r.dat").write_bytes(whole.decode("latin-1").encode("utf-8"))
    refuse(header, "UTF-8")


def test_a_length_that_is_not_stated(tmp_path: Path) -> None:
    header = write_record(tmp_path, "r", ecg(2), ["II", "V5"], frames="")
    recording = open_ecg(header)
    assert recording.n_samples == 2500
    warned(recording, "does not say how long")
    assert open_ecg(write_record(tmp_path, "s", ecg(2), ["II", "V5"], frames="0")).n_samples == 2500


def test_checksums(tmp_path: Path) -> None:
    header = write_record(tmp_path, "r", ecg(2), ["II", "V5"])
    assert not any("checksum" in w for w in open_ecg(header).warnings)
    data = bytearray((tmp_path / "r.dat").read_bytes())
    data[4002] ^= 0x10
    (tmp_path / "r.dat").write_bytes(data)
    warned(open_ecg(header), "V5", "checksum")
    write_record(tmp_path, "r", ecg(2), ["II", "V5"], checksums=False)
    assert not any("checksum" in w for w in open_ecg(header).warnings)


def test_matlab_files_are_what_the_header_says(tmp_path: Path) -> None:
    digital = np.round(ecg(2) * 1000).astype("<i2")

    def write(kind: int = 30, rows: int = 2, columns: int = 2500, name: bytes = b"val\0") -> Path:
        start = np.array([kind, rows, columns, 0, len(name)], "<i4").tobytes() + name
        (tmp_path / "r.mat").write_bytes(start + digital.T.tobytes())
        lines = [f"r.mat 16+24 1000/mV 16 0 0 0 0 {label}" for label in ("II", "V5")]
        (tmp_path / "r.hea").write_text("\n".join(["r 2 250 2500", *lines]))
        return tmp_path / "r.mat"

    np.testing.assert_allclose(open_ecg(write()).read(), digital / 1000, atol=TOLERANCE)
    refuse(write(kind=0), "MATLAB")
    refuse(write(rows=12), "MATLAB")
    refuse(write(name=b"ecg"), "MATLAB")
    refuse(write(columns=2400), "2400")
    write()
    (tmp_path / "r.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(20000))
    refuse(tmp_path / "r.hea", "MATLAB")


def test_a_file_that_shrinks_or_goes(tmp_path: Path) -> None:
    recording = open_ecg(write_record(tmp_path, "r", ecg(2), ["II", "V5"]))
    (tmp_path / "r.dat").write_bytes((tmp_path / "r.dat").read_bytes()[:4000])
    with pytest.raises(InputError, match="became shorter"):
        recording.read()
    (tmp_path / "r.dat").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        recording.read()


def test_damaged_headers_never_end_in_a_traceback(tmp_path: Path) -> None:
    header = write_record(tmp_path, "r", ecg(3), ["I", "II", "V5"], comments=["Age: 50"])
    write_record(tmp_path, "s1", ecg(2, seconds=4), ["I", "II"])
    texts = [header.read_bytes(), b"m/3 2 250 2500\ns1 1000\n~ 500\ns1 1000\n"]
    rng = np.random.default_rng(0)
    opened = 0
    for trial in range(400):
        damaged = bytearray(texts[trial % 2])
        for _ in range(rng.integers(1, 4)):
            at = rng.integers(len(damaged))
            kind = rng.integers(3)
            if kind == 0:
                damaged[at] = rng.choice(list(b"0123456789/()x:+-~. \n#\xff\x00ai"))
            elif kind == 1:
                del damaged[at : at + rng.integers(1, 8)]
            else:
                damaged[at:at] = bytes(rng.choice(list(b"0123456789/()x:+-~. \n"), 3))
        (tmp_path / "m.hea").write_bytes(damaged)
        try:
            recording = open_recording(tmp_path / "m.hea")
            assert recording.read(0, min(recording.n_samples, 5000)).shape[0] == len(recording.names)
            opened += 1
        except InputError as error:
            assert str(error).startswith(str(tmp_path)) and str(error).endswith(".")
    assert 20 < opened < 300


def test_comments_are_left_behind(tmp_path: Path) -> None:
    secret = ["Name: Haagse Harry", "Dx: 426783006", "Age: 61"]
    recording = open_ecg(write_record(tmp_path, "r", ecg(2), ["II", "V5"], comments=secret))
    held = repr(vars(recording)) + repr(vars(recording._reader)) + repr(vars(recording._reader.source))  # type: ignore[attr-defined]
    assert "Harry" not in held and "426783006" not in held


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
