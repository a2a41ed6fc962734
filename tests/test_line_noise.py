"""50 or 60 Hz, or neither."""

from types import SimpleNamespace

import numpy as np
import pytest

from bioreport.line_noise import LineNoise, detect_line_frequency


def detect(
    data: np.ndarray,
    sfreq: float,
    *,
    sidecar: float | None = None,
    segments: list[tuple[int, int]] | None = None,
) -> LineNoise:
    recording = SimpleNamespace(
        sfreq=sfreq,
        names=tuple(f"ch{i}" for i in range(len(data))),
        n_samples=data.shape[1],
        line_frequency=sidecar,
        segments=[SimpleNamespace(start=a, stop=b) for a, b in segments or [(0, data.shape[1])]],
        read=lambda start, stop: data[:, start:stop],
    )
    return detect_line_frequency(recording)  # type: ignore[arg-type]


def eeg(
    sfreq: float, seconds: float, mains: float = 0.0, line: float = 50.0, channels: int = 6
) -> np.ndarray:
    rng = np.random.default_rng(5)
    time = np.arange(int(sfreq * seconds)) / sfreq
    noise = rng.standard_normal((channels, len(time))).cumsum(axis=1)
    return noise + mains * np.sin(2 * np.pi * line * time)


@pytest.mark.parametrize("sfreq", [128, 160, 256, 500, 199.98])
@pytest.mark.parametrize("line", [50.0, 60.0])
def test_finds_the_mains(sfreq: float, line: float) -> None:
    noise = detect(eeg(sfreq, 120, 2.0, line), sfreq)
    assert noise.frequency == line
    assert min(noise.ratio.values()) > 3


@pytest.mark.parametrize("seconds", [5, 30, 600])
def test_finds_nothing_in_plain_noise(seconds: float) -> None:
    noise = detect(eeg(256, seconds), 256)
    assert noise.frequency is None
    assert max(noise.ratio.values()) < (3 if seconds >= 30 else 5)


def test_two_of_ten_channels_suffice() -> None:
    data = eeg(256, 60, channels=10)
    data[:2] = eeg(256, 60, 2.0, 60.0, channels=2)
    noise = detect(data, 256)
    assert noise.frequency == 60
    assert [name for name, ratio in noise.ratio.items() if ratio > 3] == ["ch0", "ch1"]


def test_the_sidecar_wins() -> None:
    noise = detect(eeg(256, 60, 2.0, 50.0), 256, sidecar=60.0)
    assert noise.frequency == 60
    assert max(noise.ratio.values()) < 3


def test_rates_at_which_mains_cannot_be_seen() -> None:
    assert detect(eeg(100, 60), 100) == LineNoise(None, {f"ch{i}": 1.0 for i in range(6)})
    assert detect(eeg(100, 60), 100, sidecar=50.0).frequency == 50


def test_missing_flat_and_very_short_signals() -> None:
    data = eeg(256, 60, 2.0, 50.0)
    data[0] = np.nan
    data[1] = 0.0
    data[2, ::7] = np.nan
    noise = detect(data, 256)
    assert noise.frequency == 50
    assert noise.ratio["ch0"] == noise.ratio["ch1"] == 1.0
    assert detect(data[:, :100], 256).frequency is None


def test_windows_stay_inside_segments() -> None:
    data = eeg(256, 60, 2.0, 60.0)
    assert detect(data, 256, segments=[(0, 3000), (3000, 3400), (3400, 15360)]).frequency == 60
