"""WFDB records: storage formats, segments, and what is damaged or hostile."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import wfdb
from sentences import refuse, warned
from wfdb_files import BLOCKS, TOLERANCE, ecg, physical, write_random, write_record

from bioreport.ecg.leads import LEADS
from bioreport.ecg.reading import open_ecg
from bioreport.ecg.wfdb_record import WfdbSource
from bioreport.errors import InputError
from bioreport.recording import open_recording

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
