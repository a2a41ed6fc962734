"""Which channels count as usable, sample by sample."""

import numpy as np
import pytest

from bioreport.quality import fill_invalid, usable_channels

SFREQ = 256.0


@pytest.fixture
def eeg() -> np.ndarray:
    noise = np.random.default_rng(3).standard_normal((3, 2560)).cumsum(axis=1)
    return noise - noise.mean(axis=1, keepdims=True)


def judged(eeg: np.ndarray) -> list[bool]:
    return usable_channels(eeg, SFREQ).tolist()


def test_plain_eeg_is_usable_at_any_scale_offset_and_resolution(eeg: np.ndarray) -> None:
    assert judged(eeg) == [True] * 3
    assert judged(eeg + 30_000) == [True] * 3
    assert judged(np.round(eeg)) == [True] * 3
    assert judged(eeg[:, :1300]) == [True] * 3


def test_flat_over_all_or_most_of_the_epoch(eeg: np.ndarray) -> None:
    eeg[0] = 12.0
    eeg[1, 1000:] = eeg[1, 1000]
    eeg[2, 2000:] = eeg[2, 2000]
    assert judged(eeg) == [False, False, True]


def test_noise_below_a_tenth_of_a_microvolt_is_flat(eeg: np.ndarray) -> None:
    eeg[0] = np.random.default_rng(0).uniform(-0.04, 0.04, 2560)
    assert judged(eeg) == [False, True, True]


def test_clipped_at_one_or_both_rails(eeg: np.ndarray) -> None:
    low, high = np.quantile(eeg[0], [0.05, 0.9])
    eeg[0] = eeg[0].clip(low, high)
    eeg[1] = eeg[1].clip(None, np.quantile(eeg[1], 0.85))
    assert judged(eeg) == [False, False, True]


def test_square_wave_between_the_rails_is_saturated(eeg: np.ndarray) -> None:
    eeg[0] = np.where(np.arange(2560) // 300 % 2, 1000.0, -1000.0)
    assert judged(eeg) == [False, True, True]


def test_implausible_for_long_or_for_a_moment(eeg: np.ndarray) -> None:
    wave = 4000 * np.sin(2 * np.pi * 50 * np.arange(2560) / SFREQ)
    eeg[0] += wave
    eeg[1, :200] += wave[:200]
    assert judged(eeg) == [False, True, True]


def test_missing_samples_up_to_a_twentieth_are_forgiven(eeg: np.ndarray) -> None:
    eeg[0, 100:200] = np.nan
    eeg[1, 100:400] = np.nan
    eeg[2, 5] = np.inf
    assert judged(eeg) == [True, False, True]
    assert judged(np.full((2, 2560), np.nan)) == [False, False]


def test_a_value_a_second_held_in_a_faster_file_is_not_flat_nor_saturated() -> None:
    """eeglab's sample_data/test_data/test.edf: 60 values in a file of 256 Hz, some of them equal."""
    slow = np.array([-5.3, -15.0, -22.0, -26.3, -28.3, -28.7, -28.7, -28.3, -25.7, -21.3])
    assert judged(np.repeat(slow, 256)[None]) == [True]


def test_no_samples_no_use() -> None:
    assert judged(np.empty((2, 0))) == [False, False]


def test_gaps_become_straight_lines_within_and_across_pieces() -> None:
    row = np.array([[np.nan, 1.0, np.nan, np.nan, 4.0, np.nan]])
    last = np.array([np.nan])
    fill_invalid(row, last)
    np.testing.assert_allclose(row, [[1, 1, 2, 3, 4, 4]])
    assert last[0] == 4.0
    following = np.array([[np.inf, np.nan, 10.0]])
    fill_invalid(following, last)
    np.testing.assert_allclose(following, [[6, 8, 10]])
    nothing = np.array([[np.nan, np.nan]])
    fill_invalid(nothing, last)
    np.testing.assert_allclose(nothing, [[10, 10]])
    fill_invalid(np.empty((1, 0)), last)
    assert last[0] == 10.0


def test_what_was_never_valid_is_zero() -> None:
    row, last = np.full((1, 3), np.nan), np.array([np.nan])
    fill_invalid(row, last)
    assert not row.any()
    assert np.isnan(last[0])
