"""ECG text against evidence: what a report says and what was found must agree.

Per sentence: a finding that is asserted and absent, denied and present, or spoken of and not judged takes
the sentence out, as do leads and territories of which the finding is not; a number must be supported
(`bioreport.ecg.claims`), a remark borne out (`bioreport.ecg.remarks`). A critical statement stays only where
the finding is present. What is found and then no longer said is added in plain words. Every change is a
warning of the report.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bioreport.ecg.claims import support
from bioreport.ecg.criteria import TERRITORIES
from bioreport.ecg.facts import RHYTHMS
from bioreport.ecg.leads import CHEST_LEADS, LEADS, in_order
from bioreport.ecg.lexicon import Mention, mentions_in, read_findings
from bioreport.ecg.patterns import LEAD
from bioreport.ecg.plain import (
    ABNORMAL,
    IMPRESSION,
    RATES,
    WITH_LEADS,
    axis_words,
    finding_sentence,
    home_of,
    plain,
    rhythm_sentence,
    with_formula,
)
from bioreport.ecg.remarks import Evidence, unfounded_remark
from bioreport.findings import BY_NAME, CRITICAL
from bioreport.sentences import MAY_END, add_sentence, keep_supported, listed, tell_added

UNREMARKABLE = "No abnormality was found."
_PARTLY = " in what could be judged"
_IN_PART = re.compile(r"\bin what could be \w+", re.IGNORECASE)
# units and leads that end a sentence: "PR 160 ms. QRS 90 ms.", "in aVL and I. T waves"
_MAY_END = MAY_END | {"ms", "st", "i", "t", "p", "q"}
_ECG = r"(?:ECG|EKG|electrocardiogram|tracing|study|recording)"
_NORMAL = re.compile(
    rf"\b(?<!otherwise )(?:normal|unremarkable)(?: 12-lead| resting)? {_ECG}\b|\b{_ECG} (?:is "
    rf"|was )?(?:within )?normal\b"
    r"|^\W*(?:within )?normal(?: limits)?\W*$|\bno (?:definite |significant )?abnormalit",
    re.IGNORECASE,
)
_OTHERWISE = re.compile(
    r"\botherwise (?:normal|unremarkable)|\bno (?:other|further) abnormalit", re.IGNORECASE
)
_ABNORMAL = re.compile(
    rf"\babnormal (?:\w+,? ){{0,3}}{_ECG}\b|\b{_ECG} (?:is |was )?abnormal\b", re.IGNORECASE
)
_URGENT = re.compile(
    r"\b(?:urgent|emergent|immediate)(?:ly)?\b|\bemergency\b|\blife[- ]threatening|\bmalignant\b|\bresuscitat"
    r"|\bdefibrillat|\bcath(?:eteri[sz]ation)? lab|\breperfusion",
    re.IGNORECASE,
)
# doubts that a reader may have of a finding that is not there
_MILD = re.compile(r"\bborderline\b|\b(?:rule[d]? out|exclude[d]?)\b|\?", re.IGNORECASE)
_LEADS = re.compile(
    rf"(?<![\w'])(?<!type )(?<!mobitz )(?P<first>{LEAD})(?:\s?(?:[-–]|to|through)\s?(?P<last>{LEAD}"
    rf"|[2-6]))?(?![\w'])",
    re.IGNORECASE,
)
_TERRITORY = re.compile(r"\b(?:antero|infero)?-?(?:inferior|septal|anterior|lateral)(?:ly)?\b", re.IGNORECASE)
_JOINT = re.compile(r",? and |, ")
# what may stand beside a finding's name without saying more of it
_IDLE = re.compile(
    r"\b(?:an?|complete|nonspecific|by voltage|voltage criteria for|interval)\b|[\W_]", re.IGNORECASE
)
_RIGHT_AXIS = re.compile(r"\bright axis deviation\b", re.IGNORECASE)
_VERB = re.compile(r"\b([Tt])here is voltage(?= criteria)")
_SPELLING = {lead.upper(): lead for lead in LEADS}


def ground(
    sections: Mapping[str, str], findings: Sequence[Mapping[str, Any]], measurements: Mapping[str, Any]
) -> tuple[dict[str, str], list[str]]:
    """Make an ECG report's text agree with its findings and measurements.

    Parameters
    ----------
    sections : dict
        Name to text.
    findings : sequence of dict
        The report's findings; one that is not listed was not judged and is neither stated nor denied.
    measurements : dict
        `bioreport.ecg.measure.measure_ecg`, or ``{"recordings": [...]}`` with one for each recording.

    Returns
    -------
    sections : dict
        The same names in the same order, no text empty.
    warnings : list of str
        One sentence for each change.
    """
    known = list(measurements.get("recordings") or [measurements])
    evidence = Evidence({finding["name"]: bool(finding["present"]) for finding in findings}, known)

    def problem_of(sentence: str, kept: list[str]) -> str | None:
        mentions = mentions_in(sentence)
        return (
            _contradiction(mentions, evidence)
            or _wrong_verdict(sentence, " ".join([*kept, sentence]), evidence)
            or unfounded_remark(sentence, evidence)
            or _wrong_place(sentence, mentions, findings)
        )

    def support_of(sentence: str) -> tuple[str | None, list[str]]:
        shorter, dropped = without_repeats(sentence)
        supported, problems = support(shorter, findings, known)
        return supported, problems if supported is None else [*dropped, *problems]

    grounded, warnings = keep_supported(sections, problem_of, support_of, _MAY_END)
    _conclude(grounded, sections.get(IMPRESSION, ""), evidence)
    _state_missing(grounded, findings, known, warnings)
    _begin_with_rhythm(grounded, sections.get(IMPRESSION, ""), evidence, warnings)
    for name, text in grounded.items():
        said = text or plain(name, evidence.state, known)
        said = _RIGHT_AXIS.sub(lambda match: _like(match[0], axis_words(known)), said)
        grounded[name] = with_formula(_VERB.sub(r"\1here are voltage", said), known)
    return grounded, warnings


def _like(old: str, new: str) -> str:
    return new[0].upper() + new[1:] if old[0].isupper() else new


def _contradiction(mentions: Sequence[Mention], evidence: Evidence) -> str | None:
    for mention in mentions:
        name, label = mention.name, BY_NAME[mention.name].label
        present = evidence.state.get(name)
        if name in CRITICAL and mention.status in ("present", "uncertain") and not present:
            why = "with which the measurement does not agree" if present is False else _why(name, evidence)
            return f"the model said {label}, a critical statement {why}"
        if mention.status == "uncertain" and present is False and not _MILD.search(mention.clause):
            return f"it raises the possibility of {label}, which was not found"
        if mention.status not in ("present", "denied"):
            continue
        stated = mention.status == "present"
        if present is None:
            return f"it {'states' if stated else 'denies'} {label}, {_why(name, evidence)}"
        if stated != present:
            return (
                f"it states {label}, which was not found" if stated else f"it denies {label}, which was found"
            )
    return None


def _why(name: str, evidence: Evidence) -> str:
    """Why a finding was not judged, as a clause that follows its name."""
    if not any(measured.get("usable_seconds", 1) for measured in evidence.measurements):
        return "and hardly anything of the recording could be measured"
    if not any(measured.get("rate", 1) for measured in evidence.measurements):
        return "which cannot be judged without beats"
    if evidence.has("paced_rhythm", "ventricular_tachycardia", "complete_av_block"):
        return "which cannot be judged in this rhythm"
    return "which the leads that are there and their quality do not allow to judge"


# ---- verdict ----


def _is_judged(evidence: Evidence) -> bool:
    """Whether enough was judged to call a recording normal: everything that would make it abnormal."""
    return all(name in evidence.state for name in ABNORMAL)


def _wrong_verdict(sentence: str, said: str, evidence: Evidence) -> str | None:
    """What is wrong with the sentence's verdict; `said` is its section up to its end."""
    abnormal = [BY_NAME[name].label for name in (*ABNORMAL, *RATES) if evidence.state.get(name)]
    if _ABNORMAL.search(sentence) and not abnormal:
        return "it calls the recording abnormal, but no abnormality was found"
    otherwise = _OTHERWISE.search(sentence) is not None
    if otherwise:
        read = read_findings(said)
        named = [BY_NAME[name].label for name, stated in read.items() if stated]
        abnormal = [label for label in abnormal if label not in named]
    if otherwise or _NORMAL.search(sentence):
        if abnormal:
            return f"it calls the recording normal, but {abnormal[0]} was found"
        if not _is_judged(evidence) and not _IN_PART.search(sentence):
            return "it calls the recording normal, but not enough of it could be judged"
    if _URGENT.search(sentence) and not evidence.has(*CRITICAL):
        return "it calls for urgency, but no critical finding was found"
    return None


def _conclude(grounded: dict[str, str], written: str, evidence: Evidence) -> None:
    """Give an impression whose verdict was withheld one that stands; a reader would else have to guess."""
    judged = any(pattern.search(written) for pattern in (_NORMAL, _OTHERWISE, _ABNORMAL))
    kept = grounded.get(IMPRESSION, "")
    left = any(pattern.search(kept) for pattern in (_NORMAL, _OTHERWISE, _ABNORMAL))
    if IMPRESSION not in grounded or left or not (judged or not kept):
        return
    if evidence.has(*ABNORMAL) or not any(name in evidence.state for name in ABNORMAL):
        return
    verdict = UNREMARKABLE if _is_judged(evidence) else f"{UNREMARKABLE[:-1]}{_PARTLY}."
    if evidence.has(*RATES):
        grounded[IMPRESSION] = f"{kept} {verdict.replace('No ', 'No other ')}".strip()
    else:
        grounded[IMPRESSION] = f"{verdict} {kept}".strip()


def _begin_with_rhythm(
    grounded: dict[str, str], written: str, evidence: Evidence, warnings: list[str]
) -> None:
    """Begin an impression with rhythm and rate, where it was rewritten and no longer says them."""
    kept = grounded.get(IMPRESSION, "")
    if not kept or kept.split() == written.split():
        return
    read = read_findings(kept)
    sentence = rhythm_sentence(evidence.state, evidence.measurements)
    if sentence is None or any(read[name] for name in RHYTHMS):
        return
    if any(read[name] and name in RATES for name in read) and not evidence.has("sinus_rhythm"):
        return
    grounded[IMPRESSION] = f"{sentence} {kept}"
    tell_added(IMPRESSION, sentence, warnings)


# ---- repeated findings ----


def without_repeats(sentence: str) -> tuple[str, list[str]]:
    """The sentence without items of its list that are another name of a finding listed before.

    Returns
    -------
    sentence : str
    problems : list of str
        What was left out, as the end of a sentence.
    """
    cuts = [match.span() for match in _JOINT.finditer(sentence)]
    starts, ends = [0, *(end for _, end in cuts)], [*(start for start, _ in cuts), len(sentence)]
    mentions = [mention for mention in mentions_in(sentence) if mention.status == "present"]
    said: set[str] = set()
    items: list[tuple[str, str]] = []  # with the joint before each
    dropped = []
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        own = [mention for mention in mentions if start <= mention.start and mention.end <= end]
        text = sentence[start:end]
        rest = text
        for mention in own:
            rest = rest.replace(sentence[mention.start : mention.end], " ")
        joint = sentence[slice(*cuts[i - 1])] if i else ""
        if i and own and {mention.name for mention in own} <= said and not _IDLE.sub("", rest):
            name = text.rstrip(" .")
            dropped.append(f"{name!r} was left out, which was said before it")
            items[-1] = (items[-1][0], items[-1][1] + text[len(name) :])
            if "and" in joint and len(items) > 1:
                items[-1] = (" and ", items[-1][1])
        else:
            items.append((joint, text))
        said |= {mention.name for mention in own}
    return "".join(joint + text for joint, text in items), dropped


# ---- places ----


def _wrong_place(
    sentence: str, mentions: Sequence[Mention], findings: Sequence[Mapping[str, Any]]
) -> str | None:
    """What is wrong where leads or a territory beside a finding are not those in which it was found."""
    found = {finding["name"]: set(finding.get("channels") or ()) for finding in findings}
    named: dict[str, set[str]] = {}
    for match in _LEADS.finditer(sentence):
        owner = _owner(match.start(), mentions)
        if owner is not None:
            named.setdefault(owner.name, set()).update(_expanded(match))
    for name, leads in named.items():
        if leads != found.get(name, set()):
            return _places(name, found.get(name, set()))
    for match in _TERRITORY.finditer(sentence):
        owner = next((m for m in mentions if m.start <= match.start() < m.end), None)
        owner = (
            owner
            or next((m for m in mentions if m.start >= match.end()), None)
            or _owner(match.start(), mentions)
        )
        if owner is None or owner.status != "present" or owner.name not in WITH_LEADS:
            continue
        leads = found.get(owner.name, set())
        if leads and not leads & _leads_of(match[0].lower()):
            return _places(owner.name, leads)
    return None


def _owner(place: int, mentions: Sequence[Mention]) -> Mention | None:
    """The finding whose place a word tells: the last one before it, else the first one behind."""
    before = [mention for mention in mentions if mention.start <= place]
    owner = before[-1] if before else mentions[0] if mentions else None
    return owner if owner is not None and owner.status == "present" and owner.name in WITH_LEADS else None


def _expanded(match: re.Match[str]) -> set[str]:
    first = _SPELLING[_long(match["first"])]
    if not match["last"]:
        return {first}
    last = match["last"]
    last = _SPELLING[f"V{last}" if last.isdigit() else _long(last)]
    if first in CHEST_LEADS and last in CHEST_LEADS:
        return set(CHEST_LEADS[CHEST_LEADS.index(first) : CHEST_LEADS.index(last) + 1])
    return {first, last}


def _long(lead: str) -> str:
    upper = lead.upper()
    return f"A{upper}" if upper in ("VR", "VL", "VF") else upper


def _leads_of(territory: str) -> set[str]:
    return {lead for name, leads in TERRITORIES.items() if name[:5] in territory for lead in leads}


def _places(name: str, leads: set[str]) -> str:
    label = BY_NAME[name].label
    if not leads:
        return f"no lead is known in which {label} was found"
    verb = "were" if label.endswith("waves") else "was"
    return f"{label} {verb} found in {listed(in_order(leads))}"


# ---- what is missing ----


def _state_missing(
    grounded: dict[str, str],
    findings: Sequence[Mapping[str, Any]],
    measurements: Sequence[Mapping[str, Any]],
    warnings: list[str],
) -> None:
    """Add a plain sentence for each present finding that the text no longer states, and to the impression
    one for the abnormal ones that are missing there."""
    present = {f["name"]: f for f in findings if f["present"] and f["name"] in BY_NAME}
    for name, finding in present.items():
        home = home_of(name, grounded)
        if home is None:
            continue
        # read anew: one sentence may state what the next would, as a tachycardia states its rate; what the
        # conclusion alone says is said where it belongs too
        body = {section: text for section, text in grounded.items() if section != IMPRESSION}
        if not read_findings(body if home in body else grounded)[name]:
            add_sentence(grounded, home, finding_sentence(finding, measurements), warnings)
    if IMPRESSION not in grounded:
        return
    concluded = read_findings(grounded[IMPRESSION])
    absent = [name for name in ABNORMAL if name in present and not concluded[name]]
    if "st_elevation_infarction" in absent:
        absent = [name for name in absent if name != "st_elevation"]
    missing = [BY_NAME[name].label for name in absent]
    if not missing:
        return
    if _ABNORMAL.search(grounded[IMPRESSION]):
        verb = "are" if len(missing) > 1 or missing[0].endswith(("contractions", "waves")) else "is"
        names = listed(missing)
        sentence = f"{names[0].upper()}{names[1:]} {verb} also present."
    else:
        sentence = f"Abnormal ECG because of {listed(missing)}."
    add_sentence(grounded, IMPRESSION, sentence, warnings)
