"""BLEU and ROUGE-L against values worked out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioreport.text_metrics import corpus_bleu, rouge_l, tokenise

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12).map(" ".join)


def test_numbers_stay_whole_and_case_does_not_count() -> None:
    assert tokenise("Rhythm 9.5 Hz, 42 µV (left>right)") == [
        "rhythm", "9.5", "hz", ",", "42", "µv", "(", "left", ">", "right", ")"
    ]  # fmt: skip


def test_bleu_clips_repeated_words() -> None:
    # Papineni 2002, example 2: 2 of 7
    assert corpus_bleu(["the the the the the the the"], ["the cat is on the mat"], 1) == pytest.approx(2 / 7)


def test_bleu_pools_counts_over_the_corpus_and_punishes_brevity() -> None:
    hypotheses, references = ["a b c", "d"], ["a b d", "d e"]
    # unigrams 3 of 4; 4 tokens against 5
    assert corpus_bleu(hypotheses, references, 1) == pytest.approx(0.75 * math.exp(1 - 5 / 4))
    # bigrams 1 of 2
    expected = math.sqrt(0.75 * 0.5) * math.exp(1 - 5 / 4)
    assert corpus_bleu(hypotheses, references, 2) == pytest.approx(expected)


def test_bleu_of_equal_and_of_empty_texts() -> None:
    text = "no epileptiform discharges were seen."
    assert corpus_bleu([text], [text]) == pytest.approx(1.0)
    assert corpus_bleu([""], [text]) == 0.0
    assert corpus_bleu(["other words entirely stand here"], [text]) == 0.0


def test_rouge_l_by_hand() -> None:
    # common subsequence "police the gunman" of 4 and 4 tokens
    assert rouge_l("police the killed gunman", "police killed the gunman") == pytest.approx(0.75)
    assert rouge_l("a b", "a b") == 1.0
    assert rouge_l("", "a") == 0.0
    assert rouge_l("", "") == 1.0


def plain_lcs(a: list[str], b: list[str]) -> int:
    lengths = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            lengths[i + 1][j + 1] = lengths[i][j] + 1 if x == y else max(lengths[i][j + 1], lengths[i + 1][j])
    return lengths[-1][-1]


@given(WORDS, WORDS)
def test_rouge_l_is_that_of_the_plain_dynamic_programme(a: str, b: str) -> None:
    x, y = a.split(), b.split()
    if x and y:
        assert rouge_l(a, b) == pytest.approx(2 * plain_lcs(x, y) / (len(x) + len(y)))


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4), st.integers(1, 4))
def test_bleu_is_between_zero_and_one(pairs: list[tuple[str, str]], order: int) -> None:
    hypotheses, references = zip(*pairs, strict=True)
    assert 0.0 <= corpus_bleu(hypotheses, references, order) <= 1.0
