"""What a sentence does to what it mentions: affirms, denies, doubts it, or puts it into the past.

After NegEx (Chapman 2001) and ConText (Harkema 2009): a sentence is cut into clauses, and within its clause
a mention is affirmed unless a cue says otherwise. The lexicons of EEG and ECG share this.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[^a-z])|\n+")
_CLAUSE = re.compile(
    r";|:|,? \b(?:but|however|although|though|except(?: for)?|whereas|while|yet|nevertheless|apart from|"
    r"aside from|other than)\b|,? which\b|, (?:and )?(?:there (?:is|are|was|were))\b",
    re.IGNORECASE,
)
DENIED_BEFORE = re.compile(
    r"\b(?:no(?! longer)|not|without|neither|nor|never|absence of|absent|free of|free from|negative for"
    r"|lack(?:s|ed|ing)?"
    r"(?: of)?|fail\w* to|den(?:y|ies|ied)|rather than|ruled out|devoid of|instead of|cannot)\b",
    re.IGNORECASE,
)
DENIED_AFTER = re.compile(
    r"\b(?:(?:is|are|was|were|be|been|could|did|do|does|has|have|had)(?: \w+)? ?"
    r"(?:not|never)(?! (?:well|fully|symmetric|always|only|as)\w*)|cannot|absent|lacking|denied|ruled out"
    r"|excluded|not (?:seen|recorded|present|found|observed|identified|noted|evident))\b",
    re.IGNORECASE,
)
_UNCERTAIN = re.compile(
    r"\b(?:possibl[ey]|probabl[ey]|suspected|suspicious|questionable|equivocal|may|might|could"
    r" (?:be|represent)"
    r"|suggest\w*|cannot (?:be )?(?:exclude[d]?|rule[d]? out)|versus|vs|unclear|consider|differential|if)\b",
    re.IGNORECASE,
)
_PAST = re.compile(
    r"\b(?:history|prior|previous(?:ly)?|past|known|reported|earlier|indication|reason for"
    r"|compared (?:to|with)|"
    r"referred for|evaluation|rule out|last (?:eeg|study|recording)|years? ago|medication)\b",
    re.IGNORECASE,
)
_NOT_ABOUT_THE_RECORDING = re.compile(r"history|indication|comparison|reason|medication", re.IGNORECASE)


@dataclass(frozen=True)
class Statement:
    """One mention: finding, ``"present"``, ``"denied"``, ``"uncertain"`` or ``"past"``, and its clause."""

    name: str
    status: str
    clause: str


def sentences_of(sections: Mapping[str, str] | str, heading: re.Pattern[str]) -> list[str]:
    """Sentences about the recording.

    Parameters
    ----------
    sections : dict of str to str, or str
        Sections by name (those of history, indication and comparison are left out), or plain text.
    heading : re.Pattern
        What is taken out of plain text as the heading of a section.
    """
    if isinstance(sections, str):
        texts = [heading.sub("", sections)]
    else:
        texts = [text for name, text in sections.items() if not _NOT_ABOUT_THE_RECORDING.search(name)]
    return [sentence for text in texts for sentence in _SENTENCE.split(text)]


def clause_spans(sentence: str) -> list[tuple[int, int]]:
    """Where each clause of a sentence begins and ends; those without a word are left out."""
    cuts = [0, *(match.start() for match in _CLAUSE.finditer(sentence)), len(sentence)]
    return [(a, b) for a, b in pairwise(cuts) if sentence[a:b].strip()]


def clauses_of(sentence: str) -> list[str]:
    return [sentence[a:b] for a, b in clause_spans(sentence)]


def status_of(clause: str, start: int, end: int) -> str:
    """What a clause says of its mention clause[start:end], as in `Statement`."""
    before, after = clause[:start], clause[end:]
    if _PAST.search(before[-60:]):
        return "past"
    if re.search(
        r"cannot (?:be )?(?:exclude|rule)|not (?:be )?(?:excluded|ruled out)", clause, re.IGNORECASE
    ):
        return "uncertain"
    cues = list(DENIED_BEFORE.finditer(before))
    if cues and not re.search(
        r"\b(?:with|showing|shows|shown|due to|because of)\b", before[cues[-1].end() :]
    ):
        return "denied"
    if DENIED_AFTER.search(after):
        return "denied"
    if _UNCERTAIN.search(before[-40:]) or re.search(r"\bversus\b|\bvs\b|\?", after[:25], re.IGNORECASE):
        return "uncertain"
    return "present"


def fold(statements: Iterable[Statement], names: Sequence[str]) -> dict[str, bool | None]:
    """Each of `names`: True where it is stated at least once, False where only denied, else None."""
    read: dict[str, bool | None] = dict.fromkeys(names)
    for statement in statements:
        if statement.status == "present":
            read[statement.name] = True
        elif statement.status == "denied" and read[statement.name] is None:
            read[statement.name] = False
    return read
