"""Text against evidence: what a report says and what was found must agree.

Per sentence: a finding that is asserted and absent, or denied and present, takes the sentence out; a number
must be supported (`bioreport.claims`). What is found and then no longer said is added in plain words. Every
change is a warning of the report.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bioreport.claims import support
from bioreport.findings import BY_NAME, EEG_NAMES, LOCATED, MEASURED, region_of
from bioreport.montage import FEW_ELECTRODES, normalise
from bioreport.rhythm import OCCIPITAL, PARIETAL
from bioreport.sentences import UNASSESSABLE, add_sentence, keep_supported, listed, split_sentences

UNREMARKABLE = "No abnormality was found."
# s of usable signal: three pages of 10 s, the least on which a background can be called constant; a whole
# examination has 20 min (ACNS, Guideline 1)
LEAST_SECONDS = 30
ABNORMAL = (
    "posterior_asymmetry",
    "generalized_slowing",
    "focal_slowing",
    "focal_epileptiform_discharges",
    "generalized_spike_wave",
    "seizure",
    "burst_suppression",
)
_DESCRIPTION = "EEG DESCRIPTION/DETAILS"
_BACKGROUND = "BACKGROUND ACTIVITY"
_IMPRESSION = "IMPRESSION/INTERPRETATION"
# where a finding is stated, the first of these sections that the report has
_HOME: dict[str, tuple[str, ...]] = {
    "drowsiness": ("SLEEP", _DESCRIPTION, _BACKGROUND),
    "sleep_spindles": ("SLEEP", _DESCRIPTION, _BACKGROUND),
    "focal_epileptiform_discharges": ("EPILEPTIFORM ABNORMALITIES", "INTERICTAL EPILEPTIFORM ABNORMALITIES"),
    "generalized_spike_wave": ("EPILEPTIFORM ABNORMALITIES", "INTERICTAL EPILEPTIFORM ABNORMALITIES"),
    "seizure": ("EVENTS/SEIZURES", "SEIZURES"),
}
_TECHNICAL = ("eye_blink_artifact", "muscle_artifact", "electrode_artifact", "mains_noise", "bad_electrode")
_NORMAL = re.compile(
    r"^\W*(?:this is )?(?:an? )?(?:essentially |within )?normal\b(?: limits)?"
    r"(?=[^.]*\b(?:eeg|study|recording|electroencephalogram|tracing)\b|\W*$)",
    re.IGNORECASE,
)
_ABNORMAL = re.compile(r"\babnormal (?:\w+,? ){0,3}(?:eeg|study|recording|tracing)\b", re.IGNORECASE)


_UNREMARKABLE = re.compile(r"\bno (?:\w+ )?abnormalit", re.IGNORECASE)
_URGENT = re.compile(r"\b(?:urgent|emergent|immediate)(?:ly)?\b", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z]+\d*")
_SIDE = re.compile(r"\b(left|right)\b", re.IGNORECASE)
_LOWER = re.compile(
    r"\b(?:lower|attenuat\w+|reduced|decreased|suppressed|diminished)\b[^.;]{0,40}"
    r"\b(?:on|over) the (left|right)",
    re.IGNORECASE,
)


def ground(
    sections: Mapping[str, str], findings: Sequence[Mapping[str, Any]], measurements: Mapping[str, Any]
) -> tuple[dict[str, str], list[str]]:
    """Make a report's text agree with its findings and measurements.

    Parameters
    ----------
    sections : dict
        Name to text.
    findings : sequence of dict
        The report's findings; one that is not listed was not looked for and is not judged.
    measurements : dict
        `Measurer.result()`, or ``{"recordings": [...]}`` with one of these for each recording.

    Returns
    -------
    sections : dict
        The same names in the same order, no text empty.
    warnings : list of str
        One sentence for each change.
    """
    from bioreport.lexicon import read_findings

    state = {finding["name"]: bool(finding["present"]) for finding in findings}
    known = list(measurements.get("recordings") or [measurements])
    unjudged = unjudged_findings(known)

    def problem_of(sentence: str, _: list[str]) -> str | None:
        read = read_findings(sentence)
        return (
            _contradiction(sentence, state, read)
            or _too_short(sentence, known)
            or _unfounded(sentence, read, state, unjudged)
            or _wrong_side(sentence, findings, known, read)
            or _wrong_electrodes(sentence, findings, read)
        )

    grounded, warnings = keep_supported(sections, problem_of, lambda one: support(one, findings, known))
    _state_missing(grounded, findings, known, warnings)
    verdict = sections.get(_IMPRESSION, "")
    judged = len(unjudged) < len(EEG_NAMES)
    withheld = _ABNORMAL.search(verdict) or any(_too_short(one, known) for one in split_sentences(verdict))
    if judged and withheld and not any(state.get(name, True) for name in ABNORMAL):
        # the verdict was withheld above; an impression without one would leave the reader guessing
        grounded[_IMPRESSION] = f"{_unremarkable(known)} {grounded[_IMPRESSION]}".strip()
    for name, text in grounded.items():
        if not text:
            grounded[name] = _plain(name, state, unjudged, known)
    return grounded, warnings


def _contradiction(sentence: str, state: Mapping[str, bool], read: Mapping[str, bool | None]) -> str | None:
    for name, said in read.items():
        if said is None or name not in state or said == state[name]:
            continue
        label = BY_NAME[name].label
        return f"it states {label}, which was not found" if said else f"it denies {label}, which was found"
    judged = [name for name in ABNORMAL if name in state]
    abnormal = [BY_NAME[name].label for name in judged if state[name]]
    if abnormal and _NORMAL.search(sentence):
        return f"it calls the recording normal, but {abnormal[0]} was found"
    if len(judged) == len(ABNORMAL) and not abnormal and _ABNORMAL.search(sentence):
        return "it calls the recording abnormal, but no abnormality was found"
    critical = [name for name in judged if BY_NAME[name].critical]
    if critical and not any(state[name] for name in critical) and _URGENT.search(sentence):
        return "it calls for urgency, but no critical finding was found"
    return None


def _usable(measurements: Sequence[Mapping[str, Any]]) -> float:
    """Usable signal of all recordings, s."""
    return float(sum(measured.get("usable_seconds", LEAST_SECONDS) for measured in measurements))


def _too_short(sentence: str, measurements: Sequence[Mapping[str, Any]]) -> str | None:
    usable = _usable(measurements)
    if usable >= LEAST_SECONDS or not _NORMAL.search(sentence):
        return None
    return f"{usable:.0f} s of usable signal are too few to call an EEG normal"


def _unremarkable(measurements: Sequence[Mapping[str, Any]]) -> str:
    usable = _usable(measurements)
    if usable >= LEAST_SECONDS:
        return UNREMARKABLE
    return f"{UNREMARKABLE[:-1]} in {usable:.0f} s of recording."


def unjudged_findings(measurements: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Findings whose absence no recording can show.

    All of them without usable signal; those of the model with fewer electrodes than `FEW_ELECTRODES`; the
    posterior rhythm's without an electrode over the back of the head.
    """
    if not any(measured.get("usable_seconds", 1) for measured in measurements):
        return frozenset(EEG_NAMES)
    if not all("channels_present" in measured for measured in measurements):
        return frozenset()
    usable = [usable_electrodes(measured) for measured in measurements]
    unjudged = frozenset(EEG_NAMES) - MEASURED if max(map(len, usable)) < FEW_ELECTRODES else frozenset()
    if not any({*OCCIPITAL, *PARIETAL}.intersection(names) for names in usable):
        unjudged |= {"posterior_dominant_rhythm", "posterior_asymmetry"}
    return unjudged


def usable_electrodes(measured: Mapping[str, Any]) -> list[str]:
    """Electrodes of `Measurer.result()` that are neither flat, nor saturated, nor noisy."""
    bad = {name for kind in ("flat", "saturated", "noisy") for name in measured[f"channels_{kind}"]}
    return [name for name in measured["channels_present"] if name not in bad]


def _unfounded(
    sentence: str, read: Mapping[str, bool | None], state: Mapping[str, bool], unjudged: frozenset[str]
) -> str | None:
    if len(unjudged) == len(EEG_NAMES):
        # without signal a sentence may only repeat what was found nevertheless, such as the bad electrodes
        said = any(read.get(name) and present for name, present in state.items())
        return None if said else "hardly anything of the recording could be measured"
    unfounded = [name for name in unjudged if read.get(name) is not None and not state.get(name)]
    few = not unjudged <= MEASURED
    verdict = any(pattern.search(sentence) for pattern in (_NORMAL, _ABNORMAL, _UNREMARKABLE))
    if few and (verdict or set(unfounded) - MEASURED):
        return f"fewer than {FEW_ELECTRODES} electrodes do not show it"
    return "no electrode over the back of the head could be measured" if unfounded else None


def _wrong_electrodes(
    sentence: str, findings: Sequence[Mapping[str, Any]], read: Mapping[str, bool | None]
) -> str | None:
    """What is wrong where the sentence lists other bad electrodes than were measured."""
    if not read.get("bad_electrode") or sum(bool(said) for said in read.values()) > 1:
        return None
    bad = next((set(f.get("channels") or ()) for f in findings if f["name"] == "bad_electrode"), set())
    named = {name for word in _WORD.findall(sentence) if (name := normalise(word)) is not None}
    if not bad or not named or named == bad:
        return None
    return "these are not the bad electrodes that were measured"


def _wrong_side(
    sentence: str,
    findings: Sequence[Mapping[str, Any]],
    measurements: Sequence[Mapping[str, Any]],
    read: Mapping[str, bool | None],
) -> str | None:
    """What is wrong where the sentence puts one finding on the side on which it was not found."""
    sides = {match.lower() for match in _SIDE.findall(sentence)}
    if len(sides) != 1:
        return None
    said = sides.pop()
    rhythm = measurements[0].get("posterior_rhythm") if len(measurements) == 1 else None
    if read.get("posterior_asymmetry") and rhythm and rhythm["lower_side"]:
        lower = _LOWER.search(sentence)
        if lower and lower[1].lower() != rhythm["lower_side"]:
            return f"the posterior rhythm is lower on the {rhythm['lower_side']}"
        return None
    stated = [finding for finding in findings if finding["name"] in LOCATED and read.get(finding["name"])]
    if len(stated) != 1 or not stated[0].get("channels"):
        return None
    region = region_of(stated[0]["channels"])
    if region.split()[0] in ("left", "right") and region.split()[0] != said:
        return f"{BY_NAME[stated[0]['name']].label} was found in the {region} region"
    return None


def _state_missing(
    grounded: dict[str, str],
    findings: Sequence[Mapping[str, Any]],
    measurements: Sequence[Mapping[str, Any]],
    warnings: list[str],
) -> None:
    """Add a plain sentence for each present finding that the text no longer states, and to the impression
    one for the abnormal ones that are missing there."""
    from bioreport.lexicon import read_findings

    present = [finding for finding in findings if finding["present"] and finding["name"] in BY_NAME]
    stated = {name for name, said in read_findings(grounded).items() if said}
    for finding in present:
        section = _home_of(finding["name"], grounded)
        if section is not None and finding["name"] not in stated:
            add_sentence(grounded, section, finding_sentence(finding, measurements), warnings)
    if _IMPRESSION not in grounded:
        return
    concluded = read_findings(grounded[_IMPRESSION])
    names = [finding["name"] for finding in present]
    missing = [BY_NAME[name].label for name in ABNORMAL if name in names and not concluded[name]]
    if missing:
        add_sentence(grounded, _IMPRESSION, f"Abnormal EEG because of {listed(missing, 'and')}.", warnings)


def _home_of(name: str, sections: Mapping[str, str]) -> str | None:
    """The section to state a finding in; None where none that is about it was asked for.

    Artifacts are no conclusion; what is critical is said wherever there is room.
    """
    homes = [*_HOME.get(name, (_BACKGROUND,)), _DESCRIPTION]
    homes += [_IMPRESSION] * (name not in _TECHNICAL) + [*sections] * BY_NAME[name].critical
    return next((home for home in homes if home in sections), None)


def finding_sentence(finding: Mapping[str, Any], measurements: Sequence[Mapping[str, Any]] = ()) -> str:
    """A present finding in plain words, with its place and time where they are known."""
    name = finding["name"]
    rhythm = measurements[0].get("posterior_rhythm") if len(measurements) == 1 else None
    if name == "posterior_dominant_rhythm":
        if rhythm:
            values = f"{rhythm['frequency_hz']:.1f} Hz with an amplitude of {rhythm['amplitude_uv']:.0f} µV"
            return f"The posterior dominant rhythm is {values}."
        return "A posterior dominant rhythm is present."
    if name == "posterior_asymmetry" and rhythm and rhythm["lower_side"]:
        side = rhythm["lower_side"]
        return f"The posterior dominant rhythm is asymmetric, with lower amplitude on the {side}."
    label = BY_NAME[name].label
    verb = "are" if label.endswith(("discharges", "spindles")) else "is"
    text = f"{label[0].upper()}{label[1:]} {verb} present"
    channels = list(finding.get("channels") or [])
    if name == "bad_electrode" and len(channels) > 1:
        text = "Bad electrodes are present"
    if name in ("bad_electrode", "electrode_artifact") and channels:
        text += f" at {', '.join(channels)}"
    elif name in LOCATED and channels:
        region = region_of(channels)
        text += " over most of the head" if region == "generalized" else f" in the {region} region"
    start, end = finding.get("start_seconds"), finding.get("end_seconds")
    if start is not None and end is not None:
        text += f", {start:.0f}-{end:.0f} s"
    return text + "."


def _plain(
    section: str,
    state: Mapping[str, bool],
    unjudged: frozenset[str],
    measurements: Sequence[Mapping[str, Any]],
) -> str:
    """Text of a section in which nothing was left: what was looked for and not found, if anything was."""
    if len(unjudged) == len(EEG_NAMES):
        return UNASSESSABLE
    if section == _IMPRESSION:
        if all(name in state and not state[name] for name in ABNORMAL):
            return _unremarkable(measurements)
        return UNASSESSABLE
    absent = [name for name, homes in _HOME.items() if section in homes[:2] and state.get(name) is False]
    rhythm = "posterior_dominant_rhythm"
    if section == _BACKGROUND and state.get(rhythm) is False and rhythm not in unjudged:
        return "No posterior dominant rhythm was found."
    if not absent or section in (_BACKGROUND, _DESCRIPTION):
        return UNASSESSABLE
    labels = [BY_NAME[name].label for name in absent]
    verb = "were" if labels[-1].endswith("s") and labels[-1] != "drowsiness" else "was"
    return f"No {listed(labels, 'or')} {verb} found."
