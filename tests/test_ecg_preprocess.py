"""ECG-Tok's and MEIT's preprocessing: what they do to known signals, and what they say they did."""

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from wfdb_files import twelve

from bioreport.ecg.flatten import flatten_mains, harmonics
from bioreport.ecg.leads import LEADS
from bioreport.ecg.preprocess import (
    ECG_TOK,
    MEIT,
    SPECS,
    Decisions,
    EcgBatch,
    drift_ratio,
    preprocess_record,
    stream_windows,
)
from bioreport.ecg.reading import EcgRecording, open_ecg
from bioreport.errors import InputError

PLAIN = replace(ECG_TOK, center=False, drift_limit=None, flatten_mains=False)


def waves(sfreq: float, seconds: float, parts: dict[float, float], n_leads: int = 12) -> np.ndarray:
    """Sines of {Hz: mV}, a different phase in each lead."""
    t = np.arange(round(seconds * sfreq)) / sfreq
    phases = np.arange(n_leads)[:, None]
    return np.asarray(sum(a * np.sin(2 * np.pi * f * t + phases) for f, a in parts.items()))


def run(data: np.ndarray, sfreq: float, spec=ECG_TOK, leads=LEADS) -> tuple[EcgBatch, Decisions]:  # type: ignore[no-untyped-def]
    return preprocess_record(EcgRecording.from_array(data, sfreq, leads), spec)


# change of rate


@pytest.mark.parametrize("sfreq", [128.0, 200.0, 250.0, 257.0, 360.0, 500.0, 1000.0])
def test_any_rate_gives_the_signal_at_250_hz(sfreq: float) -> None:
    parts = {1.5: 0.5, 17.0: 0.3, 40.0: 0.2}
    batch, decisions = run(waves(sfreq, 20, parts), sfreq, PLAIN)
    assert batch.data.shape == (2, 12, 2500) and batch.data.dtype == np.float32
    assert (decisions.sfreq_in, decisions.sfreq_out) == (sfreq, 250)
    got = np.concatenate(list(batch.data), axis=1)
    expected = waves(250, 20, parts)
    # aligned in time, without a seam between windows, but for the ends where the signal is continued
    np.testing.assert_allclose(got[:, 250:-250], expected[:, 250:-250], atol=2e-4)


def test_what_the_new_rate_cannot_hold_is_gone() -> None:
    batch, _ = run(waves(1000, 10, {200.0: 1.0, 10.0: 0.1}), 1000, PLAIN)
    np.testing.assert_allclose(
        batch.data[0][:, 100:-100], waves(250, 10, {10.0: 0.1})[:, 100:-100], atol=2e-4
    )


def test_the_same_rate_passes_unchanged() -> None:
    x = twelve(10, 250)
    batch, _ = run(x, 250, PLAIN)
    np.testing.assert_array_equal(batch.data[0], x.astype(np.float32))


def test_an_uneven_rate_keeps_its_windows(tmp_path: Path) -> None:
    x = waves(199.98, 100.3, {3.0: 1.0})
    batch, _ = run(x, 199.98, PLAIN)
    assert len(batch) == 10 and (batch.n_valid == 2500).all()
    expected = waves(250, 100, {3.0: 1.0}).reshape(12, 10, 2500)
    np.testing.assert_allclose(batch.data[9][:, :-250], expected[:, 9, :-250], atol=2e-2)


# drift


def test_the_high_pass_is_for_drifting_records_only() -> None:
    x = twelve(10, 250)
    calm, decisions = run(x, 250)
    assert decisions.highpass is False and decisions.drift is not None and decisions.drift < 1
    drift = waves(250, 10, {0.2: 3.0})
    wandering, decisions = run(x + drift, 250)
    assert decisions.highpass is True and decisions.drift > 10
    middle = slice(500, 2000)
    left = wandering.data[0][:, middle] - calm.data[0][:, middle]
    assert left.std() < 0.05 * drift.std()
    # zero phase: peaks stay where they are
    before, after = (int(b.data[0][1, 1000:1200].argmax()) for b in (calm, wandering))
    assert abs(before - after) <= 1


def test_drift_is_the_power_ratio_of_the_median_lead() -> None:
    beat = waves(250, 10, {10.0: 1.0})
    for amplitude, high in ((3.0, False), (3.3, True)):
        x = beat + waves(250, 10, {0.5: amplitude})
        ratio = drift_ratio([x], 250)
        assert ratio == pytest.approx(amplitude**2, rel=0.03)
        assert run(x, 250)[1].highpass is high
    few = beat + waves(250, 10, {0.5: 10.0}) * (np.arange(12) < 5)[:, None]
    assert run(few, 250)[1].highpass is False
    assert drift_ratio([np.zeros((12, 2500))], 250) is None
    offset = run(twelve(10, 250) + 5.0, 250)[1]
    assert offset.drift is not None and offset.drift < 1


def test_offsets_are_taken_off() -> None:
    x = twelve(10, 250)
    batch, decisions = run(x + np.linspace(-3, 3, 12)[:, None], 250)
    plain, _ = run(x, 250)
    np.testing.assert_allclose(batch.data, plain.data, atol=1e-5)
    assert decisions.centered["V6"] == pytest.approx(3 + np.median(x[11]), abs=1e-3)


# mains


@pytest.mark.parametrize("frequency", [50.0, 60.0])
def test_mains_and_harmonics_are_flattened(frequency: float) -> None:
    x = twelve(10, 250)
    noise = waves(250, 10, {frequency: 0.3, 2 * frequency: 0.1})
    noise[6:] = 0
    batch, decisions = run(x + noise, 250)
    clean, nothing = run(x, 250)
    # the offset taken off differs by what interference does to a median
    left = batch.data[0] - clean.data[0]
    assert (left - left.mean(axis=1, keepdims=True)).std() < 0.02 * noise[:6].std()
    assert set(decisions.mains) == {f"{frequency:g} Hz", f"{2 * frequency:g} Hz"}
    assert decisions.mains[f"{frequency:g} Hz"] == dict.fromkeys(LEADS[:6], 1.0)
    assert nothing.mains == {}
    assert json.loads(json.dumps(decisions.to_dict()))["mains"] == decisions.mains


def test_mains_beside_its_nominal_frequency() -> None:
    x = twelve(10, 250)
    noise = waves(250, 10, {49.95: 0.3})
    flattened, heights = flatten_mains(x + noise, 250)
    assert (flattened - x).std() < 0.25 * noise.std()
    assert (flattened - x)[:, 250:-250].std() < 0.06 * noise.std()
    assert (heights[50.0] > 10).all()


def test_nothing_else_is_touched_by_flattening() -> None:
    x = twelve(10, 250) + waves(250, 10, {47.0: 0.1, 53.5: 0.1})
    flattened, _ = flatten_mains(x, 250)
    frequencies = np.fft.rfftfreq(2500, 1 / 250)
    far = np.all([np.abs(frequencies - h) > 1.01 for h in harmonics(250)], axis=0)
    # the line that was off during the transform is back: what changed has no part beyond the peaks
    change = np.fft.rfft(flattened - x)
    assert np.abs(change[:, far]).max() < 1e-9 and np.abs(change).max() > 0.01
    assert np.abs(flattened - x).max() < 0.01
    assert list(harmonics(250)) == [50, 100, 60, 120] and list(harmonics(100)) == []


# MEIT


def test_meit_is_the_published_arithmetic() -> None:
    x = twelve(10, 500).astype(np.float32)
    batch, decisions = run(x, 500, MEIT)
    assert batch.data.shape == (1, 12, 5000)
    np.testing.assert_allclose(batch.data[0], (x - x.min()) / (x.max() - x.min()), atol=1e-6)
    assert decisions.scaling == "minmax" and not decisions.highpass and decisions.centered == {}
    holes = x.copy()
    holes[3, 100:110] = np.nan
    bridged, _ = run(holes, 500, MEIT)
    assert np.isfinite(bridged.data).all() and bridged.lead_mask.all()
    np.testing.assert_allclose(bridged.data[0, :, 200:], batch.data[0, :, 200:], atol=1e-6)
    mimic = replace(MEIT, leads=("I", "II", "III", "aVR", "aVF", "aVL", *LEADS[6:]))
    np.testing.assert_array_equal(run(x, 500, mimic)[0].data[0, 4], batch.data[0, 5])
    assert SPECS == {"ecg-tok": ECG_TOK, "meit": MEIT}


# windows and masks


def test_absent_and_unusable_leads_are_masked() -> None:
    x = twelve(20, 250)
    x[3, 100:400] = np.nan  # 12 % of the first window
    x[4, 2500:] = 0.25  # constant in the second
    x[5] *= 1000  # no heart is so large
    batch, _ = run(x[:9], 250, leads=LEADS[:9])
    assert batch.lead_mask.tolist() == [
        [True, True, True, False, True, False, True, True, True, False, False, False],
        [True, True, True, True, False, False, True, True, True, False, False, False],
    ]
    assert (batch.data[~batch.lead_mask] == 0).all() and np.isfinite(batch.data).all()
    empty = twelve(30, 250)
    empty[:, 2500:5000] = np.nan
    masked, _ = run(empty, 250)
    assert masked.lead_mask.any(axis=1).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("seconds", "windows", "valid", "dropped"),
    [(10, 1, 2500, 0), (2.5, 1, 625, 0), (33, 4, 750, 0), (32, 3, 2500, 2.0), (12.4, 1, 2500, 2.4)],
)
def test_remainders(seconds: float, windows: int, valid: int, dropped: float) -> None:
    recording = EcgRecording.from_array(twelve(seconds, 500), 500)
    stream = stream_windows(recording)
    assert stream.n_windows == windows and stream.dropped_seconds == pytest.approx(dropped)
    batch = next(stream)
    assert len(batch) == windows and batch.n_valid[-1] == valid
    assert (batch.data[-1, :, valid:] == 0).all() and batch.start_seconds.tolist() == [
        10.0 * k for k in range(windows)
    ]
    with pytest.raises(StopIteration):
        next(stream)


def test_batches_are_cuts_of_the_same_stream() -> None:
    recording = EcgRecording.from_array(twelve(73, 360), 360)
    whole, _ = preprocess_record(recording)
    pieces = list(stream_windows(recording, batch_windows=3))
    assert [len(p) for p in pieces] == [3, 3, 2] and len(whole) == 8
    np.testing.assert_array_equal(np.concatenate([p.data for p in pieces]), whole.data)


def test_what_cannot_be_preprocessed() -> None:
    with pytest.raises(InputError, match="none of the twelve standard leads"):
        run(twelve(10, 250)[:1], 250, leads=("ECG1",))
    with pytest.raises(InputError, match=r"shorter than 2\.5 s"):
        run(twelve(2, 250), 250)


def test_hours_need_no_more_memory_than_minutes() -> None:
    x = twelve(10, 250).astype(np.float32)

    def tiled(hours: float) -> EcgRecording:
        recording = EcgRecording.from_array(x, 250)
        recording.n_samples = round(hours * 3600 * 250)
        recording.duration_seconds = hours * 3600
        recording._reader = lambda a, b: x[:, np.arange(a, b) % 2500]
        return recording

    def peak(hours: float) -> int:
        tracemalloc.start()
        windows = sum(len(b) for b in stream_windows(tiled(hours), replace(ECG_TOK, flatten_mains=False)))
        assert windows == hours * 360
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(0.1)
    assert peak(4) < 1.2 * peak(0.25) + 1e6


@pytest.mark.parametrize("spec", [ECG_TOK, MEIT], ids=["ecg-tok", "meit"])
def test_real_records(shared: Path, spec) -> None:  # type: ignore[no-untyped-def]
    for name in ("E07500", "HR06002", "JS20004", "data_8_2"):
        recording = open_ecg(shared / "data/dev/ecg" / name)
        batch, decisions = preprocess_record(recording, spec)
        present = [lead in recording.leads for lead in LEADS]
        assert (batch.lead_mask == present).all() and np.isfinite(batch.data).all()
        assert decisions.highpass is False
        if spec is ECG_TOK and recording.sfreq == 500:
            raw = recording.read()[:, ::2]
            raw = raw - np.median(recording.read(), axis=1, keepdims=True)
            rows = [LEADS.index(lead) for lead in recording.leads]
            assert np.corrcoef(batch.data[0, rows].ravel(), raw.ravel())[0, 1] > 0.99
        if spec is MEIT:
            assert batch.data.min() == 0 and batch.data.max() == 1
