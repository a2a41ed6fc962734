"""A report's text to sections, by rules: headers at the beginning of a line, the longest that fits.

The headers are those by which CELM asked a language model for sections (EEG and clinical, its misspelling
among them), those of TUH EEG's reports, and those that a report of our own has. A header counts

- before a colon, with its markdown or number in front and a remark in brackets behind,
- alone on its line, with a capital,
- in capitals before text that is not, without a colon ("IMPRESSION This is a normal EEG."),
- within a line in capitals and with a colon ("... of seizures. MEDICATIONS: none.").

What a section is for decides where its text goes: to a section of the report, to the history, or nowhere
(how the recording was made, comparison with former recordings). Lines of names, numbers and dates of persons
go. No text of an unknown header is lost; it stays in the section in which it stands.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from bioreport.prompts import ECG_SECTIONS, SECTIONS, celm_name, clean, one_line

HISTORY, DROPPED = "history", "dropped"
_DETAILS, _IMPRESSION = "EEG DESCRIPTION/DETAILS", "IMPRESSION/INTERPRETATION"

_EEG: dict[str, str] = {
    "details": _DETAILS,
    "detail": _DETAILS,
    "description": _DETAILS,
    "eeg description": _DETAILS,
    "electroencephalogram description": _DETAILS,
    "description of the record": _DETAILS,
    "description of record": _DETAILS,
    "eeg findings": _DETAILS,
    "findings": _DETAILS,
    "eeg artifacts": _DETAILS,
    "artifacts": _DETAILS,
    "other activity": _DETAILS,
    "activation procedures": _DETAILS,
    "hyperventilation": _DETAILS,
    "photic stimulation": _DETAILS,
    "heart rate": _DETAILS,
    "background": "BACKGROUND ACTIVITY",
    "background activity": "BACKGROUND ACTIVITY",
    "sleep": "SLEEP",
    "interictal epileptiform abnormalities": "INTERICTAL EPILEPTIFORM ABNORMALITIES",
    "epileptiform abnormalities": "EPILEPTIFORM ABNORMALITIES",
    "seizures": "SEIZURES",
    "events/seizures": "EVENTS/SEIZURES",
    "marked events and other clinical events": "EVENTS/SEIZURES",
    "events": "EVENTS/SEIZURES",
    "eeg classification": _IMPRESSION,
    "summary of the findings": _IMPRESSION,
    "clinical significance": _IMPRESSION,
    "eeg impression": _IMPRESSION,
    "eeg interpretation": _IMPRESSION,
    "eeg diagnosis": _IMPRESSION,
}
_ECG: dict[str, str] = {
    "findings": _IMPRESSION,
    "ecg findings": _IMPRESSION,
    "ecg impression": _IMPRESSION,
    "ecg interpretation": _IMPRESSION,
    "rhythm and rate": "RHYTHM",
    "conduction": "CONDUCTION AND INTERVALS",
    "intervals": "CONDUCTION AND INTERVALS",
    "st-t": "ST-T CHANGES",
    "quality": "TECHNICAL QUALITY",
}
_BOTH: dict[str, str] = {
    "impression": _IMPRESSION,
    "interpretation": _IMPRESSION,
    "final impression": _IMPRESSION,
    "clinical impression": _IMPRESSION,
    "overall impression": _IMPRESSION,
    "clinical interpretation": _IMPRESSION,
    "clinical correlation": _IMPRESSION,
    "clinical correlations": _IMPRESSION,
    "conclusion": _IMPRESSION,
    "conclusions": _IMPRESSION,
    "summary": _IMPRESSION,
    "history": HISTORY,
    "clinical history": HISTORY,
    "patient's clinical history": HISTORY,
    "brief clinical history": HISTORY,
    "history/reason for monitoring": HISTORY,
    "history/indication": HISTORY,
    "clinical history/indication": HISTORY,
    "indication": HISTORY,
    "indications": HISTORY,
    "indication for eeg": HISTORY,
    "indication for study": HISTORY,
    "clinical indication": HISTORY,
    "reason for study": HISTORY,
    "reason for eeg": HISTORY,
    "reason for exam": HISTORY,
    "reason for monitoring": HISTORY,
    "reason for referral": HISTORY,
    "medication": HISTORY,
    "medications": HISTORY,
    "current medications": HISTORY,
    # how it compares with the last recording is a result, of that one and of this
    "comparison": DROPPED,
    "previous eeg": DROPPED,
    "introduction": DROPPED,
    "method": DROPPED,
    "methods": DROPPED,
    "technique": DROPPED,
    "technical": DROPPED,
    "technical description": DROPPED,
    "technical summary": DROPPED,
    "technical difficulties": DROPPED,
    "recording conditions": DROPPED,
}

# who and when: such a line goes, what follows it stays where it would be without
_ADMINISTRATIVE = re.compile(
    r"^[ \t]*[#>*_•·–-]*[ \t]*(?:(?:patient|patient'?s name|name|patient name|patient id|dob|d\.o\.b\."
    r"|date of birth|mrn|medical record number|account number|accession number|date|study date|eeg number"
    r"|date of (?:study|service|exam|recording)|(?:referring|ordering|interpreting|reading) physician"
    r"|(?:referring|ordering|interpreting|reading) provider|attending|technologist|technician"
    r"|(?:electronically )?signed by)[*_]*[ \t]*[:#].*|electronically signed by .*)$",
    re.IGNORECASE | re.MULTILINE,
)


def _with_own(headers: Mapping[str, str], own: tuple[str, ...]) -> dict[str, str]:
    spelt = {name.lower(): name for name in own} | {celm_name(name).lower(): name for name in own}
    return {**spelt, **_BOTH, **headers}


HEADERS: dict[str, dict[str, str]] = {"eeg": _with_own(_EEG, SECTIONS), "ecg": _with_own(_ECG, ECG_SECTIONS)}
_WHOLE = {"eeg": _DETAILS, "ecg": _IMPRESSION}
_ORDER = {"eeg": SECTIONS, "ecg": ECG_SECTIONS}
_FRONT = r"(?:[#>*_•·–-]+[ \t]*|\d{1,2}[.)][ \t]*)*"
_REMARK = re.compile(r"[ \t*_]*\([^()\n]{0,60}\)")


def _pattern(names: Mapping[str, str]) -> str:
    # of alternatives the first that fits is taken: the longest must come first
    longest_first = sorted(names, key=lambda name: (-len(name), name))
    spelt = [
        re.escape(name).replace(r"\ ", r"[ \t]+").replace("/", r"[ \t]*/[ \t]*").replace("'", "['’]")
        for name in longest_first
    ]
    return rf"(?P<name>{'|'.join(spelt)})(?![\w/'’-])"


_AT_BEGINNING = {
    modality: re.compile(rf"^[ \t]*{_FRONT}{_pattern(names)}", re.IGNORECASE | re.MULTILINE)
    for modality, names in HEADERS.items()
}
# the first of the two keeps "CLINICAL HISTORY:" from being broken before its second word
_WITHIN = {
    modality: re.compile(
        rf"{pattern.pattern.replace('?P<name>', '?:')}|(?<=[ \t]){_pattern(HEADERS[modality])}[ \t]*:",
        re.IGNORECASE | re.MULTILINE,
    )
    for modality, pattern in _AT_BEGINNING.items()
}


@dataclass(frozen=True)
class ReportText:
    """A report, cut.

    Attributes
    ----------
    sections : dict of str to str
        Text by the names of `bioreport.prompts`, in their order; one line each.
    history : str or None
        History, indication and medication.
    """

    sections: dict[str, str] = field(default_factory=dict)
    history: str | None = None


def cut(text: str, modality: str = "eeg") -> ReportText:
    """Cut a report's text into sections.

    Parameters
    ----------
    text : str
        With its line breaks where it has any; a text without one is searched for headers in lower case too.
    modality : {"eeg", "ecg"}

    Returns
    -------
    ReportText
        Passages of the same section are joined. Text before the first header, or of a report without any,
        goes to the description (of an ECG to the impression), before a header without lines that are in
        capitals throughout or headings of Markdown, which are titles.
    """
    text = _ADMINISTRATIVE.sub("", _one_header_a_line(clean(text), modality))
    headers = list(_headers(text, modality))
    parts: dict[str, list[str]] = {}
    ends = [*(start for start, _, _ in headers), len(text)]
    before = _without_titles(text[: ends[0]]) if headers else text
    if one_line(before):
        parts[_WHOLE[modality]] = [before]
    for (_, begin, target), end in zip(headers, ends[1:], strict=True):
        body = text[begin:end].strip(" \t\n*_")
        if body:
            parts.setdefault(target, []).append(body)
    joined = {target: one_line("\n".join(bodies)) for target, bodies in parts.items()}
    sections = {name: joined[name] for name in _ORDER[modality] if joined.get(name)}
    return ReportText(sections, joined.get(HISTORY) or None)


def _one_header_a_line(text: str, modality: str) -> str:
    """The text with a line break before each header that stands within a line."""
    single = "\n" not in text.strip()

    def broken(match: re.Match[str]) -> str:
        if match["name"] is None:
            return match[0]
        begins = match["name"].isupper() or (single and text[: match.start()].rstrip()[-1:] in ".;!?:")
        return f"\n{match[0]}" if begins else match[0]

    return _WITHIN[modality].sub(broken, text)


def _headers(text: str, modality: str) -> Iterator[tuple[int, int, str]]:
    """Of each header where its line begins, where its text begins, and where that goes."""
    for match in _AT_BEGINNING[modality].finditer(text):
        begin = _text_begins(text, match)
        if begin is not None:
            name = re.sub(r"\s*/\s*", "/", " ".join(match["name"].lower().split())).replace("’", "'")
            yield match.start(), begin, HEADERS[modality][name]


def _text_begins(text: str, match: re.Match[str]) -> int | None:
    """Where the text of a header at the beginning of a line begins; None where it is no header."""
    stop = text.find("\n", match.end())
    stop = len(text) if stop < 0 else stop
    at = match.end()
    remark = _REMARK.match(text, at, stop)
    at = remark.end() if remark else at
    rest = text[at:stop].lstrip(" \t*_")
    if rest.startswith(":"):
        return stop - len(rest) + 1
    if not rest.strip("#= \t-–"):
        # a word in lower case is the rest of a sentence that was wrapped
        return stop if match["name"][0].isupper() else None
    if not match["name"].isupper():
        return None
    word = re.search(r"[^\W\d_]+", rest)
    return stop - len(rest.lstrip("-–— \t")) if word and not word[0].isupper() else None


def _without_titles(text: str) -> str:
    lines = (line.strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if any(c.islower() for c in line) and not line.startswith("#"))
