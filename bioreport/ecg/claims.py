"""Numbers in a sentence about an ECG, and whether a measurement supports each of them.

What a number is of follows from its unit and the words nearest before it. Rate, intervals and axis also
count without a unit, and so does a ratio such as 2:1; a number that is of nothing known has no support.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bioreport.claims import is_known_time
from bioreport.ecg.lexicon import mentions_in
from bioreport.ecg.patterns import LEAD
from bioreport.quantities import NUMBER, Claim, claim_of, find_claims, pattern_of

_UNITS = (
    ("/min", r"(?:beats?\s?)?(?:/\s?min(?:ute)?|per[\s-]minute)|bpm|b/min"),
    (
        "beats",
        r"(?:(?:ventricular|atrial|wide|consecutive|premature|supraventricular) )*(?:beats?|complexes)",
    ),
    ("Hz", r"hz|hertz"),
    ("mV", r"mv|millivolts?"),
    ("mm", r"mm|millimet(?:er|re)s?"),
    ("%", r"%|percent|per\s?cent"),
    ("°", r"(?:°|º|deg(?:rees?)?\b)(?!\s*(?:A-?V|atrio|heart))"),
    ("ms", r"ms|msecs?|milliseconds?"),
    ("s", r"s|secs?|seconds?"),
    ("min", r"mins?|minutes?"),
    ("h", r"h|hrs?|hours?"),
)
_SIGNED = rf"(?<![\w.])[-−–]\s?\d+(?:[.,]\d+)?|{NUMBER}"
_PATTERN = pattern_of(_UNITS, _SIGNED)
_NAME = r"PR|PQ|QRS|QTc\w{0,2}|QT"
_FILLER = (
    r"(?:[\s:=,]|interval|duration|axis|is|was|of|at|about|approximately|around|\((?:Bazett|Fridericia)\))"
)
_BARE = re.compile(
    rf"\b(?P<key>rate|HR|{_NAME}|axis)\b{_FILLER}*?(?P<low>[-−–]?\d+(?:[.,]\d+)?)(?![\w.,:/°%]*\d)(?!\w)",
    re.IGNORECASE,
)
_SEVERAL = re.compile(
    rf"\b(?P<keys>(?:{_NAME}|P)(?:\s?/\s?(?:{_NAME}|P))+)\b(?:[\s:=,]|intervals?|durations?|is|are|was"
    rf"|were|of)*"
    r"(?P<values>\d+(?:\s?/\s?\d+)+)(?:\s?(?:ms|msec|milliseconds)\b)?",
    re.IGNORECASE,
)
_RATIO = re.compile(r"\b(?P<low>\d)\s?:\s?\d\b|\b(?P<word>two|three|four)[- ]to[- ]one\b", re.IGNORECASE)
# digits that count nothing: leads, degrees and types of block, ordinals
_NO_CLAIM = re.compile(
    rf"\b{LEAD}\b|\b(?:12|twelve)[- ]lead\w*|\b\d(?:st|nd|rd|th)\b|\b[123]\s?(?:°|[- ]?degree)|\b(?:type"
    rf"|mobitz) \d",
    re.IGNORECASE,
)
_DIGITS = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)?(?!\w)")
_KINDS = {
    "pr": re.compile(r"\bP-?[RQ]\b", re.IGNORECASE),
    "qrs": re.compile(r"\bQRS\b", re.IGNORECASE),
    "qtc": re.compile(r"\bQ-?Tc\w{0,2}\b|\bcorrected QT\b", re.IGNORECASE),
    "qt": re.compile(r"(?<!corrected )\bQ-?T\b", re.IGNORECASE),
    "rr": re.compile(r"\bR-?R\b|\bcycle", re.IGNORECASE),
    "p": re.compile(r"\bP[- ](?:waves?|duration)\b", re.IGNORECASE),
    "pause": re.compile(r"\bpauses?\b|\barrest\b|\bstandstill|\basystol", re.IGNORECASE),
    "time": re.compile(r"\b(?:recording|tracing|strip|lasts?|duration of the)\b", re.IGNORECASE),
}
_INTERVALS = ("pr", "qrs", "qtc", "qt", "p", "rr")
_AXES = {
    "p_axis": re.compile(r"\bP(?:[- ]wave)? axis", re.IGNORECASE),
    "t_axis": re.compile(r"\bT(?:[- ]wave)? axis", re.IGNORECASE),
}
_ATRIAL = re.compile(r"\b(?:atrial|flutter|P[- ]wave) (?:rate|waves?)\b", re.IGNORECASE)
_WAVES = {
    "q": re.compile(r"\bQ\b"),
    "r": re.compile(r"\bR\b"), "s": re.compile(r"\bS\b"), "t": re.compile(r"\bT\b"),
}  # fmt: skip
# the widest range that still says something of this recording
_WIDEST = {"/min": 10.0, "ms": 40.0, "°": 30.0, "mV": 0.2, "mm": 2.0, "s": 0.2}


@dataclass(frozen=True)
class Quantity:
    """A number in a sentence and what it is of: `kind` is a measurement's name, or "" where it is unknown."""

    claim: Claim
    kind: str


def quantities_in(sentence: str) -> list[Quantity]:
    """Every number of a sentence that says something of the recording, in its order."""
    found: list[Quantity] = []

    def free(start: int, end: int) -> bool:
        return all(end <= q.claim.start or start >= q.claim.end for q in found)

    for match in _SEVERAL.finditer(sentence):
        keys, place = match["keys"].split("/"), match.start("values")
        values = match["values"].split("/")
        for i, value in enumerate(values):
            end = match.end() if i == len(values) - 1 else place + len(value)
            kind = _kind_of_name(keys[i].strip()) if len(keys) == len(values) else ""
            found.append(Quantity(claim_of(place, end, [value.strip()], "ms"), kind))
            place += len(value) + 1
    for claim in find_claims(sentence, _PATTERN, _UNITS):
        if free(claim.start, claim.end):
            found.append(Quantity(claim, _kind(claim, sentence)))
    for match in _BARE.finditer(sentence):
        start, end = match.span("low")
        if free(start, end):
            key = match["key"].lower()
            unit = "/min" if key in ("rate", "hr") else "°" if key == "axis" else "ms"
            claim = claim_of(start, end, [match["low"]], unit)
            found.append(Quantity(claim, _kind_of_name(key) if unit == "ms" else _kind(claim, sentence)))
    for match in _RATIO.finditer(sentence):
        if free(*match.span()):
            found.append(Quantity(claim_of(*match.span(), [match["low"] or match["word"]], ":1"), "ratio"))
    idle = [match.span() for match in _NO_CLAIM.finditer(sentence)]
    for match in _DIGITS.finditer(sentence):
        start, end = match.span()
        if free(start, end) and all(end <= a or start >= b for a, b in idle):
            found.append(Quantity(claim_of(start, end, [match[0]], ""), ""))
    return sorted(found, key=lambda quantity: quantity.claim.start)


def _kind_of_name(name: str) -> str:
    name = name.lower()
    return "pr" if name in ("pr", "pq") else "qtc" if name.startswith("qtc") else name


def _kind(claim: Claim, sentence: str) -> str:
    """What a number is of: its unit, and of the words that may stand before it the nearest."""
    if claim.unit == "/min":
        return "atrial_rate" if _ATRIAL.search(sentence[max(0, claim.start - 30) : claim.start]) else "rate"
    if claim.unit == "°":
        before = sentence[: claim.start]
        return next((kind for kind, words in _AXES.items() if words.search(before)), "axis")
    if claim.unit in ("ms", "s"):
        places = [(m.end(), kind) for kind, words in _KINDS.items() for m in words.finditer(sentence)]
        before_it = [place for place in places if place[0] <= claim.start]
        kind = max(before_it)[1] if before_it else min(places)[1] if places else "time"
        # "a pause of 2.4 s without P waves": P waves do not last seconds
        return "pause" if kind in _INTERVALS and claim.unit == "s" and claim.low > 1.5 else kind
    return {"Hz": "mains", "beats": "beats", "mV": "level", "mm": "level", "%": "share"}.get(
        claim.unit, "time"
    )


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
        `bioreport.ecg.measure.measure_ecg` of each recording the report rests on.

    Returns
    -------
    sentence : str or None
        The sentence, with a single wrong number of a known kind replaced by the measured one; None where a
        number has no support.
    problems : list of str
        What was replaced or not supported, as the end of a sentence.
    """
    problems: list[str] = []
    stated = {mention.name for mention in mentions_in(sentence) if mention.status == "present"}
    quantities = quantities_in(sentence)
    kinds = [quantity.kind for quantity in quantities]
    for quantity in reversed(quantities):
        claim = quantity.claim
        written = sentence[claim.start : claim.end]
        values = _values(quantity, sentence, stated, findings, measurements)
        if quantity.kind == "time" and is_known_time(
            claim, [*findings, *_moments(measurements)], measurements
        ):
            continue
        if any(_agrees(claim, value) for value in values) or _is_range(claim, measurements):
            continue
        single = len(measurements) == 1 and kinds.count(quantity.kind) == 1 and claim.low == claim.high
        # a level belongs to one lead of several, a share to one rhythm: there is no single value to put in
        if not values or not single or quantity.kind in ("level", "share", "time", "ratio"):
            return None, [f"no measurement supports {written!r}"]
        measured = _written(values[0], claim.unit)
        sentence = sentence[: claim.start] + measured + sentence[claim.end :]
        problems.append(f"{written!r} was replaced by the measured {measured}")
    return sentence, problems[::-1]


def _agrees(claim: Claim, value: float) -> bool:
    half = claim.step / 2 + 1e-6
    narrow = claim.high - claim.low <= _WIDEST.get(claim.unit, 0.0)
    return narrow and claim.low - half <= value <= claim.high + half


def _is_range(claim: Claim, measurements: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a range of rates is the one between which a long recording's rate went."""
    half = claim.step / 2 + 1e-6
    return claim.unit == "/min" and any(
        abs(low - claim.low) <= half and abs(high - claim.high) <= half
        for low, high in (measured.get("rate_range") or (-1.0, -1.0) for measured in measurements)
    )


def _written(value: float, unit: str) -> str:
    if unit == "s":
        return f"{value:.1f} s"
    return f"{value:.0f}{'' if unit in ('/min', '°') else ' '}{unit}"


def _values(
    quantity: Quantity,
    sentence: str,
    stated: set[str],
    findings: Sequence[Mapping[str, Any]],
    measurements: Sequence[Mapping[str, Any]],
) -> list[float]:
    """Measurements that a number can stand for, in its unit, the likeliest first."""
    kind, unit = quantity.kind, quantity.claim.unit
    # what precedes the beats in another rhythm is no P wave of theirs
    sinus = any(finding["name"] == "sinus_rhythm" and finding["present"] for finding in findings)
    values: list[float | None] = []
    for measured in measurements:
        atrial, runs = measured.get("atrial") or {}, measured.get("runs") or []
        if kind == "rate":
            if "ventricular_tachycardia" in stated:
                values += [run["rate"] for run in runs]
            values.append(_value(measured, "rate"))
        elif kind == "atrial_rate":
            values += [atrial.get("flutter_rate"), atrial.get("rate")]
        elif kind == "qtc":
            values += [_value(measured, "qtc_bazett"), _value(measured, "qtc_fridericia")]
        elif kind == "rr":
            rr = measured.get("rr") or {}
            values += [rr.get(f"{key}_ms") for key in ("mean", "median", "shortest", "longest")]
        elif kind in ("qrs", "qt", "axis", "t_axis") or (sinus and kind in ("pr", "p", "p_axis")):
            values.append(_value(measured, kind))
        elif kind == "pause":
            values += [1000 * pause["seconds"] for pause in measured.get("pauses") or []]
        elif kind == "beats":
            beats = measured.get("beats") or {}
            values += [run["beats"] for run in runs]
            if stated & {"premature_ventricular_contractions"}:
                values.append(beats.get("ventricular"))
            if stated & {"premature_atrial_contractions"}:
                values.append(beats.get("atrial"))
        elif kind == "mains":
            mains = measured.get("mains") or {}
            values.append(mains.get("frequency_hz") if mains.get("channels") else None)
        elif kind == "share":
            values += [
                100 * share for name, share in (measured.get("rhythms") or {}).items() if name in stated
            ]
        elif kind == "ratio":
            values.append(_ratio(measured, stated))
        elif kind == "level":
            fluttering = any(f["name"] == "atrial_flutter" and f["present"] for f in findings)
            values += _levels(measured, sentence, fluttering)
    if kind == "level":
        values += [
            f["value"] for f in findings if f["name"] in stated and f.get("unit") == "mV" and _is_measured(f)
        ]
        values = [None if value is None else abs(value) * (10 if unit == "mm" else 1) for value in values]
    scale = 0.001 if unit == "s" and kind in (*_INTERVALS, "pause") else 1.0
    return [scale * float(value) for value in values if value is not None]


def _moments(measurements: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Episodes and runs of long recordings, with begin and end as present findings have them."""
    return [
        {"present": True, "start_seconds": one["start_seconds"], "end_seconds": one["end_seconds"]}
        for measured in measurements
        for key in ("episodes", "runs")
        for one in measured.get(key) or []
    ]


def _is_measured(finding: Mapping[str, Any]) -> bool:
    return finding.get("source") == "measurement" and finding.get("value") is not None


def _value(measured: Mapping[str, Any], key: str) -> float | None:
    quantity = measured.get(key)
    return None if quantity is None else float(quantity["value"])


def _ratio(measured: Mapping[str, Any], stated: set[str]) -> float | None:
    """Atrial beats for one ventricular beat."""
    rate, atrial = _value(measured, "rate"), measured.get("atrial") or {}
    fast = atrial.get("flutter_rate") if "atrial_flutter" in stated else atrial.get("rate")
    return None if not rate or not fast else float(round(fast / rate))


def _levels(measured: Mapping[str, Any], sentence: str, fluttering: bool) -> list[float | None]:
    """Waves and ST levels of the leads that the sentence names, mV; in flutter those without its waves."""
    leads = measured.get("leads") or {}
    if fluttering:
        levels = measured.get("flutter_levels") or {}
        leads = {lead: {**waves, **levels.get(lead, {})} for lead, waves in leads.items()}
    named = [lead for lead in leads if re.search(rf"\b{re.escape(lead)}\b", sentence, re.IGNORECASE)]
    keys = [key for key, words in _WAVES.items() if words.search(sentence)] or ["j", "st"]
    return [leads[lead].get(key) for lead in named for key in keys]


def value_in(sentence: str, kind: str) -> float | None:
    """The first number of a kind in a sentence, of a range the middle."""
    for quantity in quantities_in(sentence):
        if quantity.kind == kind:
            return (quantity.claim.low + quantity.claim.high) / 2
    return None
