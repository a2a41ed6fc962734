"""The one response against MNE's own chain, and its blocks against each other."""

import mne
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from bioreport.filters import OverlapSave, Response, design_response, highest_edge

RATES = [100, 128, 160, 199.98, 200, 250, 256, 500, 512, 1000, 2048]


def response_at(sfreq: float, line_frequency: float | None = 50.0) -> Response:
    return design_response(sfreq, low=0.1, high=75.0, sfreq_out=200.0, line_frequency=line_frequency)


def brownian(sfreq: float, seconds: float, channels: int = 2, seed: int = 0) -> np.ndarray:
    steps = np.random.default_rng(seed).standard_normal((channels, int(seconds * sfreq)))
    return steps.cumsum(axis=1) + 40.0


def run(engine: OverlapSave, data: np.ndarray, pieces: list[int] | None = None) -> np.ndarray:
    parts = np.split(data, pieces or [], axis=1)
    result = [block.copy() for part in parts for block in engine.push(part)]
    return np.concatenate([*result, *engine.flush()], axis=1)


@pytest.mark.parametrize("sfreq", RATES)
def test_equals_mne_filter_then_notch_then_aligned_resample(sfreq: float) -> None:
    response = response_at(sfreq)
    data = brownian(sfreq, 60)
    expected = mne.filter.filter_data(data, sfreq, 0.1, response.high, verbose="ERROR")
    if response.notches:
        expected = mne.filter.notch_filter(expected, sfreq, np.array(response.notches), verbose="ERROR")
    result = run(OverlapSave(response, 2), data)
    # odd continuation long enough to keep the wrap of MNE's circular resampling away, and its padded length
    # a multiple of `down`: with its default padding MNE stretches time by up to 1e-4 at such rates
    pad = -(-int(20 * sfreq) // response.down) * response.down
    room = -(expected.shape[1] + 2 * pad) % response.down
    extended = np.pad(expected, ((0, 0), (pad, pad + room)), "reflect", reflect_type="odd")
    resampled = signal.resample(extended, extended.shape[1] * response.up // response.down, axis=1)
    start = pad * response.up // response.down
    resampled = resampled[:, start : start + result.shape[1]]
    error = np.sqrt(np.mean((result - resampled) ** 2) / np.mean(resampled**2))
    assert error < 5e-4


@pytest.mark.parametrize("sfreq", RATES)
def test_block_length_does_not_matter(sfreq: float) -> None:
    response = response_at(sfreq)
    data = brownian(sfreq, 150)
    chosen = OverlapSave(response, 2)
    longer = OverlapSave(response, 2, block=3 * chosen._block)
    one, other = run(chosen, data), run(longer, data)
    assert one.shape == other.shape == (2, response.output_length(data.shape[1]))
    assert np.abs(one - other).max() < 1e-6 * one.std(axis=1).min()


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 40_000), max_size=8).map(sorted))
def test_pieces_do_not_matter(pieces: list[int]) -> None:
    data = brownian(256, 150)
    response = response_at(256)
    whole = run(OverlapSave(response, 2), data)
    np.testing.assert_array_equal(run(OverlapSave(response, 2), data, pieces), whole)


def test_reset_forgets_the_segment_before() -> None:
    response = response_at(256)
    engine = OverlapSave(response, 2)
    run(engine, brownian(256, 70, seed=1))
    engine.reset()
    data = brownian(256, 50)
    np.testing.assert_array_equal(run(engine, data), run(OverlapSave(response, 2), data))


@pytest.mark.parametrize("seconds", [0.1, 1, 5, 9, 20, 41])
def test_segments_shorter_than_the_response_stay_finite_and_lose_their_offset(seconds: float) -> None:
    data = brownian(256, seconds)
    response = response_at(256)
    result = run(OverlapSave(response, 2), data)
    assert result.shape[1] == round(data.shape[1] * 200 / 256)
    shifted = run(OverlapSave(response, 2), data + 30_000)
    np.testing.assert_allclose(result, shifted, atol=1e-6)


def test_no_samples_no_result() -> None:
    assert list(OverlapSave(response_at(256), 2).flush()) == []


@pytest.mark.parametrize("sfreq", RATES)
def test_no_gain_at_zero_and_at_mains(sfreq: float) -> None:
    response = response_at(sfreq)

    def gain(f: float) -> float:
        half = response.half
        return float(abs(response.taps @ np.cos(2 * np.pi * f / sfreq * np.arange(-half, half + 1))))

    assert gain(0) < 1e-12
    assert gain(10) == pytest.approx(1, abs=5e-3)
    assert gain(30) == pytest.approx(1, abs=5e-3)
    if response.notches:
        assert gain(50) < 1e-2
    if sfreq > 200:
        assert gain(100.5) < 1e-7


def test_tone_keeps_phase_and_amplitude_at_a_crooked_rate() -> None:
    sfreq, seconds = 199.98, 100
    time = np.arange(int(sfreq * seconds)) / sfreq
    result = run(OverlapSave(response_at(sfreq), 1), np.sin(2 * np.pi * 10 * time)[None])
    expected = np.sin(2 * np.pi * 10 * np.arange(result.shape[1]) / 200)
    middle = slice(4000, -4000)
    assert np.abs(result[0, middle] - expected[middle]).max() < 5e-3


@pytest.mark.parametrize(("sfreq", "edge"), [(100, 40), (128, 51.2), (150, 60), (153, 61.2), (160, 75)])
def test_low_pass_moves_down_where_it_does_not_fit(sfreq: float, edge: float) -> None:
    assert highest_edge(sfreq, 75.0) == pytest.approx(edge)
    assert response_at(sfreq).high == pytest.approx(edge)


def test_harmonics_only_as_far_as_the_band_pass_lets_them_through() -> None:
    assert response_at(256, 60.0).notches == (60.0,)
    assert response_at(1000, 50.0).notches == (50.0,)
    assert response_at(256, None).notches == ()
    assert response_at(100, 50.0).notches == ()
    wide = design_response(1000, low=0.5, high=150.0, sfreq_out=500.0, line_frequency=50.0)
    assert wide.notches == (50.0, 100.0, 150.0)


def test_impossible_bands_and_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="no pass-band"):
        design_response(500, low=0.1, high=120.0, sfreq_out=200.0, line_frequency=None)
    response = response_at(256)
    with pytest.raises(ValueError, match="multiple"):
        OverlapSave(response, 1, block=43_201)
    with pytest.raises(ValueError, match="too short"):
        OverlapSave(response, 1, block=3200)
