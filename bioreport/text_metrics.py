"""BLEU and ROUGE-L, deterministic and without downloads.

Texts are compared in lower case, cut into words, numbers (9.5 is one) and single other characters.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence

TOKENISATION = "lower case; words, numbers and single other characters"
_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+|[^\w\s]")


def tokenise(text: str) -> list[str]:
    """Words, numbers and other characters of a text, in lower case.

    >>> tokenise("A 9.5-Hz rhythm.")
    ['a', '9.5', '-', 'hz', 'rhythm', '.']
    """
    return _TOKEN.findall(text.lower())


def corpus_bleu(hypotheses: Sequence[str], references: Sequence[str], order: int = 4) -> float:
    """BLEU of a corpus with one reference each, without smoothing: 0 to 1.

    Parameters
    ----------
    hypotheses, references : sequences of str, of the same length
    order : int
        Longest n-gram.

    References
    ----------
    Papineni et al. 2002, eq. 1-3: clipped n-gram precisions over the corpus, geometric mean, brevity penalty.
    """
    matched, total = [0] * order, [0] * order
    length = reference_length = 0
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        words, truth = tokenise(hypothesis), tokenise(reference)
        length += len(words)
        reference_length += len(truth)
        for n in range(1, order + 1):
            have, want = _ngrams(words, n), _ngrams(truth, n)
            matched[n - 1] += sum((have & want).values())
            total[n - 1] += sum(have.values())
    if not length or not all(matched):
        return 0.0
    precision = sum(math.log(m / t) for m, t in zip(matched, total, strict=True)) / order
    return math.exp(min(0.0, 1 - reference_length / length) + precision)


def rouge_l(hypothesis: str, reference: str) -> float:
    """F1 of the longest common subsequence of tokens, 0 to 1 (Lin 2004, section 3, with beta 1)."""
    words, truth = tokenise(hypothesis), tokenise(reference)
    if not words or not truth:
        return float(words == truth)
    common = _longest_common_subsequence(words, truth)
    return 2 * common / (len(words) + len(truth))


def _ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[i:] for i in range(n)), strict=False))


def _longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    # one row of the dynamic programme is one integer, a zero bit where the length grows (Hyyrö 2004)
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full
    for word in b:
        step = row & places.get(word, 0)
        row = ((row + step) | (row - step)) & full
    return len(a) - row.bit_count()
