"""Numbers in a sentence, and whether a measurement supports each of them.

A number counts as a claim when a unit follows it: Hz, µV, percent, seconds, minutes, per minute. Numbers
without a unit (the 10-20 system, electrode T3) are none.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bioreport.quantities import Claim, find_claims, pattern_of

_UNITS = (
    ("Hz", r"hz|hertz|cps|c/s|/\s?s(?:ec)?\b|cycles?[\s-]per[\s-]second|cycles?/s(?:ec)?|per[\s-]second"),
    ("µV", r"[µμu]v(?:olts?)?|mcv|microvolts?"),
    ("mV", r"mv|millivolts?"),
    ("%", r"%|percent|per\s?cent"),
    ("/min", r"/\s?min(?:ute)?|per[\s-]minute|bpm"),
    ("s", r"s|secs?|seconds?"),
    ("ms", r"ms|msecs?|milliseconds?"),
    ("min", r"mins?|minutes?"),
    ("h", r"h|hrs?|hours?"),
)
_PATTERN = pattern_of(_UNITS)
_POSTERIOR = re.compile(
    r"\b(?:posterior|occipital|alpha rhythm|dominant rhythm|background rhythm|pdr)\b", re.IGNORECASE
)
_ASYMMETRY = re.compile(r"asymmetr|attenuat|lower|higher|reduc|differ|side|left|right", re.IGNORECASE)
_MAINS = re.compile(r"\b(?:mains|line|power|electrical|hz artefact|hz artifact|notch)\b", re.IGNORECASE)
_SPIKE_WAVE = re.compile(r"spike[\s-]*(?:and|&)?[\s-]*(?:slow[\s-]*)?wave", re.IGNORECASE)
_SPINDLES = re.compile(r"spindle|sigma", re.IGNORECASE)
# nominal bands: a definition, not a measurement
_BANDS = {"delta": (0.5, 4), "theta": (4, 8), "alpha": (8, 13), "beta": (13, 30), "gamma": (30, 80)}

SECONDS_TOLERANCE = 1.0
# the widest range that still says something of this recording
WIDEST = {"Hz": 2.0, "µV": 40.0, "%": 40.0}


def claims_in(sentence: str) -> list[Claim]:
    """All numbers with a unit; a range is one claim, a single value has ``low == high``."""
    return [_as_read(claim) for claim in find_claims(sentence, _PATTERN, _UNITS)]


def _as_read(claim: Claim) -> Claim:
    if claim.step == 1.0 and claim.unit in ("µV", "%"):
        # readers write amplitudes and percentages in fives and tens
        for step in (10.0, 5.0):
            if claim.low % step == 0 and claim.high % step == 0:
                return replace(claim, step=step)
    return claim


def support(
    sentence: str, findings: Sequence[Mapping[str, Any]], measurements: Sequence[Mapping[str, Any]]
) -> tuple[str | None, list[str]]:
    """Hold the numbers of a sentence against what was measured.

    Parameters
    ----------
    sentence : str
    findings : sequence of dict
        As in a report.
    measurements : sequence of dict
        `Measurer.result()` of each recording the report rests on.

    Returns
    -------
    sentence : str or None
        The sentence, with a contradicted posterior frequency, amplitude, asymmetry or mains frequency
        replaced by the measured one; None where a number has no support.
    problems : list of str
        What was replaced or not supported, as the end of a sentence.
    """
    problems: list[str] = []
    for claim in reversed(claims_in(sentence)):
        written = sentence[claim.start : claim.end]
        if _supported(claim, sentence, findings, measurements):
            continue
        measured = _measured(claim, sentence, measurements)
        if measured is None:
            return None, [f"no measurement supports {written!r}"]
        sentence = sentence[: claim.start] + measured + sentence[claim.end :]
        problems.append(f"{written!r} was replaced by the measured {measured}")
    return sentence, problems[::-1]


def _supported(
    claim: Claim,
    sentence: str,
    findings: Sequence[Mapping[str, Any]],
    measurements: Sequence[Mapping[str, Any]],
) -> bool:
    present = {finding["name"] for finding in findings if finding["present"]}
    if claim.unit == "Hz" and _is_definition(claim, sentence, present):
        return True
    if claim.unit in ("s", "ms", "min", "h"):
        return is_known_time(claim, findings, measurements)
    return any(
        value is not None and _agrees(claim, value) for value in _values(claim.unit, sentence, measurements)
    )


def _agrees(claim: Claim, value: float) -> bool:
    half = claim.step / 2 + 1e-6
    narrow = claim.high - claim.low <= WIDEST[claim.unit]
    return narrow and claim.low - half <= value <= claim.high + half


def _values(unit: str, sentence: str, measurements: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """The measurements a number of this unit in this sentence can stand for, the likeliest first."""
    values: list[float | None] = []
    for measured in measurements:
        rhythm = measured.get("posterior_rhythm") or {}
        mains = measured.get("mains") or {}
        if unit == "Hz" and _MAINS.search(sentence):
            values.append(mains.get("frequency_hz") if mains.get("channels") else None)
        elif unit == "Hz" and _POSTERIOR.search(sentence):
            values.append(rhythm.get("frequency_hz"))
        elif unit == "µV" and _POSTERIOR.search(sentence):
            values += [rhythm.get(key) for key in ("amplitude_uv", "left_amplitude_uv", "right_amplitude_uv")]
        elif unit == "%" and _ASYMMETRY.search(sentence):
            values.append(rhythm.get("asymmetry_percent"))
    return values


def _measured(claim: Claim, sentence: str, measurements: Sequence[Mapping[str, Any]]) -> str | None:
    """The measured value that belongs where the claim stands, written out, or None."""
    values = [value for value in _values(claim.unit, sentence, measurements) if value is not None]
    # several recordings, or a sentence that is about something else as well: no single value to put in
    if not values or len(measurements) > 1:
        return None
    if not (_POSTERIOR.search(sentence) or _MAINS.search(sentence)):
        return None
    same = [other for other in claims_in(sentence) if other.unit == claim.unit]
    if len(same) > 1:
        return None
    if claim.unit == "Hz":
        return f"{values[0]:g} Hz" if _MAINS.search(sentence) else f"{values[0]:.1f} Hz"
    return f"{values[0]:.0f} {claim.unit}"


def _is_definition(claim: Claim, sentence: str, present: set[str]) -> bool:
    """A band's nominal edges beside its name, or a rate that is part of a present finding's name."""
    lower = sentence.lower()
    if claim.high > claim.low:
        for band, (low, high) in _BANDS.items():
            if band in lower and abs(claim.low - low) <= 0.5 and abs(claim.high - high) <= 1:
                return not (band == "alpha" and _POSTERIOR.search(sentence))
    if _SPIKE_WAVE.search(sentence) and "generalized_spike_wave" in present:
        return claim.low >= 2.5 and claim.high <= 4
    if _SPINDLES.search(sentence) and "sleep_spindles" in present:
        return claim.low >= 11 and claim.high <= 16
    return False


def is_known_time(
    claim: Claim, findings: Sequence[Mapping[str, Any]], measurements: Sequence[Mapping[str, Any]]
) -> bool:
    """Whether a time is a recording's length, or a present finding's begin, end or length."""
    scale = {"s": 1.0, "ms": 1e-3, "min": 60.0, "h": 3600.0}[claim.unit]
    known = [measured[key] for measured in measurements for key in ("duration_seconds", "usable_seconds")]
    known.append(sum(measured["duration_seconds"] for measured in measurements))
    for finding in findings:
        start, end = finding.get("start_seconds"), finding.get("end_seconds")
        if finding["present"] and start is not None and end is not None:
            known += [start, end, end - start]
    tolerance = max(SECONDS_TOLERANCE, 0.5 * scale) if claim.unit != "ms" else 0.0
    return all(
        any(abs(value * scale - seconds) <= tolerance for seconds in known)
        for value in {claim.low, claim.high}
    )
