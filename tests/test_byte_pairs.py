"""ECG-Byte's tokenizer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioreport.ecg.byte_pairs import LETTERS, BytePairTokenizer, _merged


def signals() -> list[np.ndarray]:
    time = np.arange(300) / 100
    return [np.stack([np.sin(2 * np.pi * (time + shift)), 0.2 * time]) for shift in (0.0, 0.1)]


def test_merges_shorten_and_decode_to_the_same_letters() -> None:
    tokenizer = BytePairTokenizer.fit(signals(), merges=100)
    plain = BytePairTokenizer(tokenizer.low, tokenizer.high, [])
    for signal in signals():
        tokens = tokenizer.encode(signal)
        assert len(tokens) < 0.5 * signal.size
        assert np.array_equal(tokenizer.decode(tokens), plain.decode(plain.encode(signal)))


def test_amplitudes_return_within_half_a_letter() -> None:
    tokenizer = BytePairTokenizer.fit(signals(), merges=20)
    step = (tokenizer.high - tokenizer.low) / LETTERS
    back = tokenizer.decode(tokenizer.encode(signals()[0]))
    assert np.abs(back - signals()[0].ravel()).max() <= 0.5 * step + 1e-6


def test_the_longest_token_wins_and_not_the_order_of_merges() -> None:
    # merges: ab, bc, then abc from a and bc; replaying them would cut "abc" as ab, c
    tokenizer = BytePairTokenizer(0.0, 26.0, [(0, 1), (1, 2), (0, 27)])
    assert tokenizer.encode(np.array([[0.5, 1.5, 2.5]])) == [28]


def test_fitting_is_repeatable() -> None:
    assert BytePairTokenizer.fit(signals(), 50).merges == BytePairTokenizer.fit(signals(), 50).merges


def test_saving(tmp_path) -> None:  # type: ignore[no-untyped-def]
    tokenizer = BytePairTokenizer.fit(signals(), 30)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = BytePairTokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.merges == tokenizer.merges and loaded.encode(signals()[0]) == tokenizer.encode(signals()[0])
    assert len(loaded.names()) == len(loaded) + 2


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.integers(0, 3), st.integers(0, 3))
def test_merging_is_left_to_right_without_overlap(text: list[int], a: int, b: int) -> None:
    want, place = [], 0
    while place < len(text):
        if place + 1 < len(text) and (text[place], text[place + 1]) == (a, b):
            want.append(9)
            place += 2
        else:
            want.append(text[place])
            place += 1
    assert _merged(np.array(text), (a, b), 9).tolist() == want


def test_gaps_and_outliers_are_clipped() -> None:
    tokenizer = BytePairTokenizer(-1.0, 1.0, [])
    assert tokenizer.encode(np.array([[np.nan, -99.0, 99.0]])) == [13, 0, 25]


def test_no_sample_to_learn_from_is_said() -> None:
    with pytest.raises(ValueError, match="no finite sample"):
        BytePairTokenizer.fit([np.full((2, 5), np.nan)])
