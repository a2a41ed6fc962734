"""Sentences of a report, cut and put together; what the grounding of EEG and ECG text shares."""

import re
from collections.abc import Callable, Mapping, Sequence

_ABBREVIATIONS = (
    "e.g", "i.e", "vs", "approx", "ca", "cf", "dr", "etc", "fig", "no", "nr", "resp", "sec", "min", "max",
    "ampl", "avg", "incl", "st", "mr", "mrs", "ms", "prof", "vol",
)  # fmt: skip
_END = re.compile(r"[.!?]+[\"”')\]]*(?=\s+|$)|\n+")
MAY_END = frozenset({"sec", "min", "etc", "resp"})
_REPEATED = re.compile(
    # "There is There is", or a word that no sentence has twice in a row
    r"\b([A-Za-z][\w'-]*(?:[ ,]+[\w'-]+){1,11})[ ,]+\1\b"
    r"|\b(the|an?|of|is|are|was|were|and|or|with|at|in|on|no|there)[ ,]+\2\b"
    r"|\b([A-Za-z]{2,})(?:[ ,]+\3\b){2}",
    re.IGNORECASE,
)
_MOST_OF = 4  # sentences; of fewer that were withheld nothing follows for the text
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


def repeats_itself(sentence: str) -> bool:
    """Whether words follow upon themselves, which only a model does that has not learnt the language."""
    return _REPEATED.search(sentence) is not None


def keep_supported(
    sections: Mapping[str, str],
    problem_of: Callable[[str, list[str]], str | None],
    support: Callable[[str], tuple[str | None, list[str]]],
    may_end: frozenset[str] = MAY_END,
) -> tuple[dict[str, str], list[str]]:
    """Sections without the sentences that repeat themselves or that the evidence speaks against.

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
        One sentence for each change; first one that says so where the text as a whole is of no use.
    """
    kept: dict[str, str] = {}
    warnings: list[str] = []
    written = withheld = repeating = 0
    for name, text in sections.items():
        sentences: list[str] = []
        for sentence in split_sentences(text, may_end):
            written += 1
            repeats = sentence in sentences or repeats_itself(sentence)
            repeating += repeats
            problem = "it repeats itself" if repeats else problem_of(sentence, sentences)
            supported, mended = (None, [problem]) if problem else support(sentence)
            if supported is None:
                warnings.append(f'{name}: withheld "{sentence}", {mended[0]}.')
                withheld += 1
                continue
            warnings += [f"{name}: {change}." for change in mended]
            sentences.append(supported)
        kept[name] = " ".join(sentences)
    if repeating:
        warnings.insert(
            0,
            f"The model's text is not usable language, {repeating} of {written} sentences repeat themselves: "
            "rely on the findings alone; the model may need more training.",
        )
    elif withheld >= _MOST_OF and 2 * withheld > written:
        warnings.insert(
            0,
            f"Most of the model's text was not usable, {withheld} of {written} sentences were withheld: what "
            "stands here rests on the findings.",
        )
    return kept, warnings


def add_sentence(grounded: dict[str, str], section: str, sentence: str, warnings: list[str]) -> None:
    """Put a sentence that the findings demand at the end of a section, with its warning."""
    grounded[section] = f"{grounded[section]} {sentence}".strip()
    tell_added(section, sentence, warnings)


def tell_added(section: str, sentence: str, warnings: list[str]) -> None:
    """The warning of a sentence that the text owes to the findings."""
    warnings.append(f'{section}: "{sentence}" was added from the findings.')


def listed(words: Sequence[str], joint: str = "and") -> str:
    """``"a, b and c"``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {joint} {words[-1]}"
