"""Sentences of a report, cut and put together; what the grounding of EEG and ECG text shares."""

import re
from collections.abc import Callable, Mapping, Sequence

_ABBREVIATIONS = (
    "e.g", "i.e", "vs", "approx", "ca", "cf", "dr", "etc", "fig", "no", "nr", "resp", "sec", "min", "max",
    "ampl", "avg", "incl", "st", "mr", "mrs", "ms", "prof", "vol",
)  # fmt: skip
_END = re.compile(r"[.!?]+[\"”')\]]*(?=\s+|$)|\n+")
MAY_END = frozenset({"sec", "min", "etc", "resp"})
UNASSESSABLE = "Not assessable from this recording."


def split_sentences(text: str, may_end: frozenset[str] = MAY_END) -> list[str]:
    """Sentences of a paragraph, stripped; decimals (9.5 Hz) and abbreviations (approx.) end none.

    Parameters
    ----------
    text : str
    may_end : frozenset of str
        Abbreviations and single letters, lower case, that end a sentence where a capital follows.
    """
    sentences, begin = [], 0
    for match in _END.finditer(text):
        if match[0] == "." and not _ends_sentence(text, match.start(), match.end(), may_end):
            continue
        sentences.append(text[begin : match.end()].strip())
        begin = match.end()
    sentences.append(text[begin:].strip())
    return [sentence for sentence in sentences if sentence]


def _ends_sentence(text: str, dot: int, after: int, may_end: frozenset[str]) -> bool:
    following = text[after:].lstrip()
    if not following:
        return True
    words = text[:dot].split()
    word = words[-1].lower().lstrip("(") if words else ""
    initial = len(word) == 1 and word.isalpha() and word not in ("s", "h")
    if initial or word in _ABBREVIATIONS:
        # "in sec. The" ends one, "approx. 9 Hz" and "vs. left" do not
        return following[0].isupper() and word in may_end
    return not following[0].islower()


def keep_supported(
    sections: Mapping[str, str],
    problem_of: Callable[[str, list[str]], str | None],
    support: Callable[[str], tuple[str | None, list[str]]],
    may_end: frozenset[str] = MAY_END,
) -> tuple[dict[str, str], list[str]]:
    """Sections without the sentences that the evidence speaks against.

    Parameters
    ----------
    sections : dict
        Name to text.
    problem_of : callable
        From a sentence, and those of its section kept before it, to what is wrong with it, or None.
    support : callable
        From a sentence to itself with its numbers mended, or None, and what was mended or not supported.
    may_end : frozenset of str
        As for `split_sentences`.

    Returns
    -------
    sections : dict
        The same names in the same order; a text may be empty.
    warnings : list of str
        One sentence for each change.
    """
    kept: dict[str, str] = {}
    warnings: list[str] = []
    for name, text in sections.items():
        sentences: list[str] = []
        for sentence in split_sentences(text, may_end):
            problem = problem_of(sentence, sentences)
            supported, mended = (None, [problem]) if problem else support(sentence)
            if supported is None:
                warnings.append(f'{name}: withheld "{sentence}", {mended[0]}.')
                continue
            warnings += [f"{name}: {change}." for change in mended]
            sentences.append(supported)
        kept[name] = " ".join(sentences)
    return kept, warnings


def add_sentence(grounded: dict[str, str], section: str, sentence: str, warnings: list[str]) -> None:
    """Put a sentence that the findings demand at the end of a section, with its warning."""
    grounded[section] = f"{grounded[section]} {sentence}".strip()
    warnings.append(f'{section}: "{sentence}" was added from the findings.')


def listed(words: Sequence[str], joint: str = "and") -> str:
    """``"a, b and c"``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {joint} {words[-1]}"
