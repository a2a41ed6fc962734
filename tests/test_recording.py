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
from edf_files import TEN, Signal, eeg, noise, write_edf
from sentences import refuse, warned

from bioreport.errors import InputError
from bioreport.montage import CBRAMOD_CHANNELS
from bioreport.recording import Recording, Segment, open_recording

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
