"""Numbers with their units in a sentence; `bioreport.claims` and `bioreport.ecg.claims` judge them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
)  # fmt: skip
NUMBER = r"\d+(?:[.,]\d+)?|" + "|".join(rf"\b{word}\b" for word in _WORDS)
Units = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Claim:
    """A number with its unit: text[start:end], one value or a range; `step` is what it was rounded to."""

    start: int
    end: int
    low: float
    high: float
    unit: str
    step: float


def pattern_of(units: Units, number: str = NUMBER) -> re.Pattern[str]:
    """What a number or a range followed by one of `units` (name, pattern) looks like."""
    return re.compile(
        rf"(?P<low>{number})(?:\s?(?:-|–|—|\bto\b|\band\b)\s?(?P<high>{number}))?[\s-]{{0,2}}(?:"
        + "|".join(rf"(?P<u{i}>{pattern})" for i, (_, pattern) in enumerate(units))
        + r")(?![a-zµμ])",
        re.IGNORECASE,
    )


def find_claims(sentence: str, pattern: re.Pattern[str], units: Units) -> list[Claim]:
    """All numbers with a unit; a range is one claim, a single value has ``low == high``."""
    found = []
    for match in pattern.finditer(sentence):
        if match.start() and (sentence[match.start() - 1].isalnum() or sentence[match.start() - 1] == "."):
            continue
        unit = next(name for i, (name, _) in enumerate(units) if match.group(f"u{i}"))
        found.append(claim_of(match.start(), match.end(), [match["low"], match["high"]], unit))
    return found


def claim_of(start: int, end: int, written: Sequence[str | None], unit: str) -> Claim:
    """The claim of one number or of the two of a range, as they are written."""
    numbers = [text for text in written if text]
    values = [number_of(text) for text in numbers]
    decimals = max(len(re.split("[.,]", text)[1]) if re.search("[.,]", text) else 0 for text in numbers)
    return Claim(start, end, min(values), max(values), unit, 10.0**-decimals)


def number_of(text: str) -> float:
    """Value of digits or of a number's word; minus signs of print count."""
    word = text.lower()
    if word in _WORDS:
        return float(_WORDS.index(word))
    return float(re.sub(r"\s", "", word).replace(",", ".").replace("−", "-").replace("–", "-"))
