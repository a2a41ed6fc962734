"""Measurements of recordings whose truth is known: made here, simulated, and real."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bioreport import measurements
from bioreport.channel_quality import RawQuality
from bioreport.measurements import Measurer, facts, measured_findings
from bioreport.preprocess import CELM, EpochBatch, LineNoise, detect_line_frequency, stream_epochs

NAMES = (
    "Fp1",
    "Fp2",
    "F3",
    "F4",
    "C3",
    "C4",
    "P3",
    "P4",
    "O1",
    "O2",
    "T3",
    "T4",
    "T5",
    "T6",
    "Fz",
    "Cz",
    "Pz",
)


@dataclass(frozen=True)
class Piece:
    start: int
    stop: int
    onset_seconds: float = 0.0


class InMemory:
    """What preprocessing and measuring ask of a recording."""

    path = Path("memory.edf")
    line_frequency = None

    def __init__(self, data: np.ndarray, sfreq: float, names: tuple[str, ...]) -> None:
        self.data, self.sfreq, self.names = data.astype(float), float(sfreq), names
        self.n_samples = data.shape[1]
        self.duration_seconds = self.n_samples / self.sfreq
        self.segments = (Piece(0, self.n_samples),)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.data[:, start:stop]

    def stream(self, chunk_seconds: float = 60.0) -> Iterator[tuple[Piece, int, np.ndarray]]:
        step = int(chunk_seconds * self.sfreq)
        for start in range(0, self.n_samples, step):
            yield self.segments[0], start, self.data[:, start : start + step]


def measurer_of(recording, chunk_seconds: float = 60.0) -> Measurer:
    line = detect_line_frequency(recording)
    measurer = Measurer(recording, CELM, line)
    for batch in stream_epochs(
        recording,
        CELM,
        line_frequency=line.frequency,
        chunk_seconds=chunk_seconds,
        on_raw=measurer.on_raw,
    ):
        measurer.update(batch)
    return measurer


def measure(recording, chunk_seconds: float = 60.0) -> dict:
    return measurer_of(recording, chunk_seconds).result()


def brain(seconds: float = 60.0, sfreq: float = 250.0, seed: int = 0, left: float = 1.0) -> np.ndarray:
    """Pink noise with a common part, and 10 Hz of 40 µV peak to peak at the back, `left` times that on O1."""
    rng = np.random.default_rng(seed)
    n = int(seconds * sfreq)
    bins = np.maximum(np.fft.rfftfreq(n, 1 / sfreq), 0.5)
    noise = np.fft.irfft(np.fft.rfft(rng.normal(size=(len(NAMES) + 1, n)), axis=1) / bins**0.75, n, axis=1)
    data = noise[:-1] + noise[-1]
    data *= 8 / data.std()
    wave = 20 * np.sin(2 * np.pi * 10 * np.arange(n) / sfreq)
    weights = {"O1": left, "O2": 1, "P3": 0.6 * left, "P4": 0.6, "T5": 0.5 * left, "T6": 0.5, "Pz": 0.6}
    for name, weight in weights.items():
        data[NAMES.index(name)] += weight * wave
    return data


def test_a_healthy_recording():
    result = measure(InMemory(brain(), 250, NAMES))
    assert result["duration_seconds"] == 60 and result["usable_seconds"] == 60
    assert result["channels_present"] == list(NAMES)
    assert result["channels_absent"] == ["F7", "F8", "Fpz", "A1", "A2"]
    assert result["channels_flat"] == result["channels_saturated"] == result["channels_noisy"] == []
    assert result["mains"] is None
    assert result["posterior_rhythm"]["frequency_hz"] == pytest.approx(10, abs=0.1)
    occipital, frontal = (result["band_power_percent"][region] for region in ("occipital", "frontal"))
    assert sum(occipital.values()) == pytest.approx(100, abs=0.3)
    assert occipital["alpha"] > 2 * frontal["alpha"]
    assert json.loads(json.dumps(result)) == result


def test_result_does_not_depend_on_the_chunks():
    recording = InMemory(brain(), 250, NAMES)
    assert measure(recording, 7.3) == measure(recording, 60.0)


def test_each_kind_of_bad_channel_is_named():
    data = brain()
    rng = np.random.default_rng(1)
    data[NAMES.index("F3")] = 3.0
    data[NAMES.index("C4")] = np.clip(400 * np.sin(np.arange(data.shape[1]) / 100), -300, 300)
    data[NAMES.index("T3")] = rng.normal(size=data.shape[1]) * 150
    data[NAMES.index("T4")] = np.nan
    data[NAMES.index("Fz")] = np.repeat(rng.normal(size=61) * 20, 250)[: data.shape[1]]
    result = measure(InMemory(data, 250, NAMES))
    assert result["channels_flat"] == ["F3", "T4", "Fz"]
    assert result["channels_saturated"] == ["C4"]
    assert result["channels_noisy"] == ["T3"]
    assert result["posterior_rhythm"]["frequency_hz"] == pytest.approx(10, abs=0.1)
    bad = next(found for found in measured_findings(result) if found["name"] == "bad_electrode")
    assert bad["present"] and set(bad["channels"]) == {"F3", "T4", "Fz", "C4", "T3"}


def test_a_recording_of_steps_has_no_usable_second_and_no_number():
    steps = np.repeat(np.random.default_rng(0).normal(size=(len(NAMES), 60)) * 20, 250, axis=1)
    result = measure(InMemory(steps, 250, NAMES))
    assert result["usable_seconds"] == 0 and result["posterior_rhythm"] is None
    assert set(result["band_power_percent"].values()) == {None}


def test_mains_noise_where_it_is_visible():
    data = brain()
    data[:5] += 20 * np.sin(2 * np.pi * 50 * np.arange(data.shape[1]) / 250)
    result = measure(InMemory(data, 250, NAMES))
    assert result["mains"]["frequency_hz"] == 50 and result["mains"]["channels"] == list(NAMES[:5])
    found = next(entry for entry in measured_findings(result) if entry["name"] == "mains_noise")
    assert found["present"] and found["value"] == 50 and found["unit"] == "Hz"
    assert "Mains noise at 50 Hz." in facts(result)


def test_mains_frequency_of_a_sidecar_alone_is_no_finding():
    measurer = Measurer(InMemory(brain(), 250, NAMES), CELM, LineNoise(60.0, dict.fromkeys(NAMES, 1.1)))
    result = measurer.result()
    assert result["mains"]["channels"] == []
    assert not next(entry for entry in measured_findings(result) if entry["name"] == "mains_noise")["present"]


def test_nothing_fed_gives_nulls():
    result = Measurer(InMemory(brain(), 250, NAMES), CELM, LineNoise(None, {})).result()
    assert result["posterior_rhythm"] is None and result["mains"] is None and result["usable_seconds"] == 0
    assert facts(result)[0] == "No posterior dominant rhythm measured."


def test_facts_and_findings_say_the_same():
    result = measure(InMemory(brain(left=0.3), 250, NAMES))
    found = {entry["name"]: entry for entry in measured_findings(result)}
    assert list(found) == ["posterior_dominant_rhythm", "posterior_asymmetry", "mains_noise", "bad_electrode"]
    assert all(entry["source"] == "measurement" for entry in found.values())
    rhythm = result["posterior_rhythm"]
    assert found["posterior_dominant_rhythm"]["value"] == rhythm["frequency_hz"]
    assert found["posterior_asymmetry"]["present"] and rhythm["lower_side"] == "left"
    assert any("lower on the left" in line for line in facts(result))
    assert f"{rhythm['frequency_hz']:.1f} Hz, {rhythm['amplitude_uv']:.0f} µV." in facts(result)[0]


def test_memory_is_bounded_and_what_is_kept_spreads_over_the_recording(monkeypatch):
    monkeypatch.setattr(measurements, "KEPT_EPOCHS", 8)
    measurer = Measurer(InMemory(brain(20), 250, NAMES), CELM, LineNoise(None, {}))
    seconds = 0.0
    for first in range(0, 100, 5):
        data = np.ones((5, len(CELM.channels), 2000), np.float32)
        # the spectrum's level is the epoch's number
        data *= (np.random.default_rng(0).normal(size=2000)[None, None]).astype(np.float32)
        data *= np.sqrt(np.arange(first, first + 5, dtype=np.float32))[:, None, None]
        masks = np.ones((5, len(CELM.channels)), bool), np.ones((5, 10), bool)
        measurer.update(EpochBatch(data, *masks, np.arange(first, first + 5) * 10.0))
        seconds += 50
        assert measurer.kept <= 8
    assert measurer.usable_seconds == seconds and measurer.stride == 16
    level = measurer.spectra[: measurer.kept, 0].mean(axis=1)
    np.testing.assert_allclose(level / level[1] * 16, np.arange(0, 100, 16), rtol=1e-4)


def test_clipping_counts_survive_the_chunks():
    signal = np.clip(500 * np.sin(np.arange(5000) / 50), -300, 300)[None]
    quality = RawQuality(1, 250)
    for first in range(0, 5000, 333):
        quality.update(signal[:, first : first + 333])
    assert quality.saturated().tolist() == [True] and quality.flat().tolist() == [False]


@pytest.mark.untraced
def test_truth_on_simulation():
    from bioreport.simulate import simulate_eeg

    hits = dict.fromkeys(
        ("posterior_dominant_rhythm", "posterior_asymmetry", "mains_noise", "bad_electrode"), 0
    )
    errors, count = [], 40
    for seed in range(980000, 980000 + count):
        truth = simulate_eeg(seed)
        result = measure(InMemory(truth.data, truth.sfreq, truth.names))
        states = {entry["name"]: entry["present"] for entry in truth.findings}
        for entry in measured_findings(result):
            hits[entry["name"]] += entry["present"] == states[entry["name"]]
        if states["posterior_dominant_rhythm"] and result["posterior_rhythm"]:
            known = truth.facts["posterior_rhythm"]["frequency_hz"]
            errors.append(abs(result["posterior_rhythm"]["frequency_hz"] - known))
    assert min(hits.values()) >= 0.95 * count, hits
    assert len(errors) > 0.4 * count and np.mean(np.array(errors) <= 0.5) >= 0.95


@pytest.mark.parametrize(
    ("file", "seconds", "channels", "frequency"),
    [
        ("Subject00_1.edf", 182, 19, 10.5),
        ("Subject00_2.edf", 62, 19, 10.5),
        ("MB0400FU.EDF", 29, 21, None),
        ("eeglab_test.edf", 60, 16, None),
    ],
)
def test_truth_on_real_recordings(shared, file, seconds, channels, frequency):
    from bioreport.recording import open_recording

    recording = open_recording(shared / "data" / "dev" / "eeg" / file)
    result = measure(recording)
    assert result["duration_seconds"] == pytest.approx(seconds, abs=1)
    assert len(result["channels_present"]) == channels
    if frequency is None:
        assert result["posterior_rhythm"] is None
    else:
        assert result["posterior_rhythm"]["frequency_hz"] == pytest.approx(frequency, abs=1)
