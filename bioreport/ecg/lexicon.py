"""Findings read out of an ECG report's text: `bioreport.ecg.patterns` with negation.

Negation, doubt and the past are `bioreport.negation`'s. ECG statements come as lists, so a comma ends what a
cue reaches unless the list goes on with "or": "no ST elevation, depression or Q waves" denies all three,
"no ectopy, left axis deviation" the first alone.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bioreport.ecg.patterns import (
    BLOCKS,
    DEGREE,
    DEGREES,
    INFARCT,
    INFARCTS,
    LEAD,
    NEVER,
    NORMALS,
    WORDINGS,
)
from bioreport.findings import ECG_NAMES
from bioreport.negation import (
    DENIED_AFTER,
    DENIED_BEFORE,
    Statement,
    clause_spans,
    fold,
    sentences_of,
    status_of,
)

_HEADING = re.compile(
    r"^\s*(?:#+ .*|(?:RHYTHM|CONDUCTION AND INTERVALS|QRS MORPHOLOGY|ST-T CHANGES|TECHNICAL QUALITY"
    r"|IMPRESSION(?:/INTERPRETATION)?|INTERPRETATION|FINDINGS|CONCLUSION):?\s*)$",
    re.MULTILINE,
)
_RATIO = re.compile(r"(?<=\d):(?=\d)")  # a colon that ends no clause: 2:1
_COMMA = re.compile(r",\s+|\s+[-–—]+\s+")  # machine statements go on behind a dash
_STOP = re.compile(r"(?<!vs)(?<!I\.V)\.\s+")
_LEAD_LAST = re.compile(rf"\b{LEAD}$")
_LEAD_FIRST = re.compile(rf"{LEAD}\b")
# what says more of the item before it
_MORE = re.compile(
    r"(?:of )?(?:age|undetermined|indeterminate|old|incomplete|complete|first|second|third|1st|2nd|3rd)\b"
    r"|(?:(?:possibly|probably|likely) )?(?:acute|recent|old)\b(?! \w)",
    re.IGNORECASE,
)
_GOES_ON = re.compile(r"\b(?:or|nor)\b", re.IGNORECASE)
_ENDS_DENIED = re.compile(rf"[^,]*\b(?:or|and)\b[^,]*?(?:{DENIED_AFTER.pattern})", re.IGNORECASE)
_NONE = re.compile(r":\s*(?:no|none|absent|negative)\s*(?:[.;,]|$)", re.IGNORECASE)
_GONE = re.compile(r"^\W*(?:[\w ]{0,20} )?(?:no longer|replaced by|(?:has|have) resolved)\b", re.IGNORECASE)
_INSTEAD = re.compile(r"\b(?:no longer|replac(?:ed|es|ing)(?! by))\b", re.IGNORECASE)
_DOUBTED = re.compile(
    r"\b(?:borderline|likely|suspect|presumed|questionable|question of|r/o)\b", re.IGNORECASE
)
_DOUBTED_AFTER = re.compile(
    r"^\W*(?:pattern )?(?:may|might|could) be\b|^\W*(?:is|are) (?:possible|questionable|not certain)\b"
    r"|^[- ]type\b(?! [I12])",
    re.IGNORECASE,
)
_FLUTTER = re.compile(r"\bflutter\b", re.IGNORECASE)
_VENTRICULAR = re.compile(r"\bventricular tachycardia\b|\bVT\b", re.IGNORECASE)
_RUN = re.compile(
    r"\b(?:runs?|non-?sustained|NSVT|short|brief|paroxysm\w*|salvos?|episodes?|bursts?|beats?(?! ?/"
    r"| per\b))\b",
    re.IGNORECASE,
)


_OTHER_RHYTHMS = {"sinus_rhythm", "atrial_fibrillation", "atrial_flutter", "paced_rhythm"}


@dataclass(frozen=True)
class Mention:
    """A finding at sentence[start:end], what is said of it (`Statement`), and its clause."""

    name: str
    status: str
    start: int
    end: int
    clause: str


def read_findings(sections: Mapping[str, str] | str) -> dict[str, bool | None]:
    """Read which findings an ECG report states and which it denies.

    Parameters
    ----------
    sections : dict of str to str, or str
        Sections by name (those of history, indication and comparison are not read), or plain text.

    Returns
    -------
    dict of str to (bool or None)
        Every name of `ECG_FINDINGS`: True where the text states it at least once or states what is never
        without it, False where it only denies it, None where it says nothing certain of it.

    Examples
    --------
    >>> read = read_findings("Sinus bradycardia. No ST elevation or depression.")
    >>> [name for name, said in read.items() if said], read["st_depression"], read["asystole"]
    (['sinus_rhythm', 'bradycardia'], False, None)
    """
    statements = read_statements(sections)
    read = fold(statements, ECG_NAMES)
    for name in implied_by(statements):
        read[name] = True if read[name] is None else read[name]
    return read


def read_statements(sections: Mapping[str, str] | str) -> list[Statement]:
    """Return every mention of a finding with what is said of it, sentence by sentence."""
    return [
        Statement(mention.name, mention.status, mention.clause)
        for sentence in sentences_of(sections, _HEADING)
        for mention in mentions_in(sentence)
    ]


def implied_by(statements: Iterable[Statement]) -> set[str]:
    """Findings that are there wherever what a text states is, and need not be stated beside it."""
    clauses = {(one.name, one.clause) for one in statements if one.status == "present"}
    stated = {name for name, _ in clauses}
    implied = {"st_elevation"} if "st_elevation_infarction" in stated else set()
    runs = any(name == "ventricular_tachycardia" and _RUN.search(clause) for name, clause in clauses)
    # a ventricular tachycardia beside another rhythm is a run in it
    if "supraventricular_tachycardia" in stated or (
        "ventricular_tachycardia" in stated and not runs and not stated & _OTHER_RHYTHMS
    ):
        implied.add("tachycardia")
    return implied


def mentions_in(sentence: str) -> list[Mention]:
    """Every mention of a finding in one sentence, in its order."""
    clean = NEVER.sub(lambda match: " " * len(match[0]), _RATIO.sub("-", sentence))
    found = []
    for start, end in clause_spans(clean):
        refused = _NONE.match(clean[end:]) is not None
        for a, b in _items(clean[start:end]):
            piece = clean[start + a : start + b]
            for name, status, at, to in _read(piece, clean):
                status = "denied" if refused and status == "present" else status
                found.append(Mention(name, status, start + a + at, start + a + to, piece.strip(" ,:;")))
    return sorted(found, key=lambda mention: mention.start)


def _items(clause: str) -> list[tuple[int, int]]:
    """Where the items of a list begin and end, each judged by itself."""
    cuts = [0]
    breaks = [*_COMMA.finditer(clause), *_STOP.finditer(clause)]
    for match in sorted(breaks, key=lambda match: match.start()):
        before, after = clause[cuts[-1] : match.start()], clause[match.end() :]
        if "." not in match[0]:
            if _LEAD_LAST.search(before) and _LEAD_FIRST.match(after):
                continue
            if _MORE.match(after) or _ENDS_DENIED.match(after):
                continue
            if DENIED_BEFORE.search(before) and _GOES_ON.search(after):
                continue
        cuts.append(match.end())
    return list(zip(cuts, [*cuts[1:], len(clause)], strict=True))


_Found = tuple[str, str, int, int]


def _read(piece: str, sentence: str) -> list[_Found]:
    found: list[_Found] = []
    for pattern, names in NORMALS:
        for match in pattern.finditer(piece):
            if _status(piece, match.start(), match.end()) == "present":
                found += [(name, "denied", match.start(), match.end()) for name in names]
    rest = piece

    def take(match: re.Match[str]) -> str:
        nonlocal rest
        rest = rest[: match.start()] + " " * len(match[0]) + rest[match.end() :]
        return _status(piece, match.start(), match.end())

    # acute infarcts before all others, and both before the words that they consist of
    acute, *others = WORDINGS
    for match in acute.pattern.finditer(rest):
        status = take(match)
        found += [(name, status, *match.span()) for name in acute.stated]
    for match in INFARCT.finditer(rest):
        found += [(name, status, *match.span()) for name, status in _infarct(match, take(match))]
    for match in DEGREES.finditer(rest):
        status = take(match)
        found += [(BLOCKS[_degree(one[0])], status, *match.span()) for one in DEGREE.finditer(match[0])]
    for wording in others:
        for match in wording.pattern.finditer(rest):
            status = take(match)
            names = wording.denied if status == "denied" else wording.stated
            found += [(name, status, *match.span()) for name in names if not _of_other(name, match, sentence)]
    return found


def _infarct(match: re.Match[str], status: str) -> list[tuple[str, str]]:
    """An infarct of which no word says that it is acute is told by its Q waves."""
    if match["late"]:
        return [(INFARCTS[0], "uncertain" if match["doubt"] else status)]
    if status == "denied" and not match["old"]:
        return [(name, status) for name in INFARCTS]
    return [(INFARCTS[1], status)]


def _degree(word: str) -> int:
    return {"f": 0, "1": 0, "s": 1, "2": 1}.get(word[0].lower(), 2)


def _of_other(name: str, match: re.Match[str], sentence: str) -> bool:
    """Whether the words belong to another rhythm: a flutter's 2:1 block, a tachycardia's dissociation."""
    if name == "second_degree_av_block" and match[0][0] in "2t":
        return _FLUTTER.search(sentence) is not None
    if name == "complete_av_block" and "dissociation" in match[0].lower():
        return _VENTRICULAR.search(sentence) is not None
    return False


def _status(piece: str, start: int, end: int) -> str:
    before, after = piece[:start], piece[end:]
    if _INSTEAD.search(before) or _GONE.match(after):
        return "denied"
    status = status_of(piece, start, end)
    if status == "present" and (_DOUBTED.search(before[-40:]) or _DOUBTED_AFTER.match(after)):
        return "uncertain"
    return status
