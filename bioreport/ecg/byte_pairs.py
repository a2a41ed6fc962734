"""ECG-Byte (Han et al. 2024), the baseline of discrete symbols: amplitude letters, byte pairs, longest match.

Amplitudes of all leads, one lead after another, become 26 letters between fixed bounds; pairs of tokens that
follow each other most often are merged; a signal is then cut greedily into the longest known tokens (not by
replaying the merges). Of equally frequent pairs the lowest is merged, so that training is repeatable.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bioreport.files import write_atomically

LETTERS = 26
# Beyond the 1st and 99th percentile of all amplitudes, mV.
MARGIN = 0.5


class BytePairTokenizer:
    """Signals of any leads and length to token ids and back.

    Parameters
    ----------
    low, high : float
        Bounds of the letters, in the signal's unit; what lies outside is clipped.
    merges : sequence of pairs of int
        Token ``26 + i`` stands for the pair ``merges[i]``.
    """

    def __init__(self, low: float, high: float, merges: Sequence[tuple[int, int]]) -> None:
        if not low < high:
            raise ValueError(f"low must be below high, got {low} and {high}")
        self.low, self.high, self.merges = low, high, [(int(a), int(b)) for a, b in merges]
        self._letters: list[tuple[int, ...]] = [(letter,) for letter in range(LETTERS)]
        for a, b in self.merges:
            self._letters.append(self._letters[a] + self._letters[b])
        self._trie: dict[int, list] = {}
        for token, letters in enumerate(self._letters):
            node = self._trie
            for letter in letters[:-1]:
                node = node.setdefault(letter, [None, {}])[1]
            node.setdefault(letters[-1], [None, {}])[0] = token

    def __len__(self) -> int:
        return len(self._letters)

    @classmethod
    def fit(cls, signals: Sequence[np.ndarray], merges: int = 3500) -> "BytePairTokenizer":
        """Learn bounds and merges from signals [leads, T]; fewer merges where no pair occurs twice."""
        values = np.concatenate([np.asarray(s, dtype=np.float32).ravel() for s in signals])
        values = values[np.isfinite(values)]
        if not len(values):
            raise ValueError("no finite sample to learn letters from")
        low, high = np.percentile(values, [1, 99])
        untrained = cls(float(low) - MARGIN, float(high) + MARGIN, [])
        # a border no pair may cross stands between signals
        text = np.concatenate([np.append(untrained.letters(s), -1) for s in signals])
        found: list[tuple[int, int]] = []
        for token in range(LETTERS, LETTERS + merges):
            pair = _most_frequent_pair(text)
            if pair is None:
                break
            found.append(pair)
            text = _merged(text, pair, token)
        return cls(untrained.low, untrained.high, found)

    def letters(self, signal: np.ndarray) -> np.ndarray:
        """Letters 0 to 25 of a signal [leads, T], lead after lead; NaN as the letter of 0."""
        flat = np.nan_to_num(np.asarray(signal, dtype=np.float64).ravel(), nan=0.0)
        share = (flat - self.low) / (self.high - self.low)
        return np.clip((share * LETTERS).astype(np.int64), 0, LETTERS - 1)

    def encode(self, signal: np.ndarray) -> list[int]:
        """Token ids of a signal [leads, T]: the longest token at every place."""
        letters, tokens, place = self.letters(signal).tolist(), [], 0
        while place < len(letters):
            node, best, end, at = self._trie, 0, place, place
            while at < len(letters) and letters[at] in node:
                token, node = node[letters[at]]
                at += 1
                if token is not None:
                    best, end = token, at
            tokens.append(best)
            place = end
        return tokens

    def decode(self, tokens: Sequence[int]) -> np.ndarray:
        """Amplitudes, the middle of each letter's range, of token ids; one flat array."""
        letters = np.array([letter for token in tokens for letter in self._letters[token]], dtype=np.float64)
        return ((letters + 0.5) / LETTERS * (self.high - self.low) + self.low).astype(np.float32)

    def names(self) -> list[str]:
        """What to add to a language model's vocabulary, one word a token, and the two that enclose them."""
        return ["<sig_start>", "<sig_end>", *(f"signal_{token}" for token in range(len(self)))]

    def save(self, path: Path | str) -> None:
        """Write as JSON."""
        text = json.dumps({"low": self.low, "high": self.high, "merges": self.merges})
        write_atomically(Path(path), text)

    @classmethod
    def load(cls, path: Path | str) -> "BytePairTokenizer":
        """What `save` wrote."""
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls(stored["low"], stored["high"], [tuple(pair) for pair in stored["merges"]])


def _most_frequent_pair(text: np.ndarray) -> tuple[int, int] | None:
    first, second = text[:-1], text[1:]
    inside = (first >= 0) & (second >= 0)
    base = int(text.max()) + 1
    pairs, counts = np.unique(first[inside] * base + second[inside], return_counts=True)
    if not len(pairs) or counts.max() < 2:
        return None
    pair = int(pairs[counts.argmax()])
    return pair // base, pair % base


def _merged(text: np.ndarray, pair: tuple[int, int], token: int) -> np.ndarray:
    starts = np.flatnonzero((text[:-1] == pair[0]) & (text[1:] == pair[1]))
    if pair[0] == pair[1] and len(starts):
        # of overlapping places in a run every second one, from its beginning
        run = np.cumsum(np.diff(starts, prepend=starts[0] - 2) > 1)
        first_of_run = starts[np.searchsorted(run, run)]
        starts = starts[(starts - first_of_run) % 2 == 0]
    text = text.copy()
    text[starts] = token
    return np.delete(text, starts + 1)
