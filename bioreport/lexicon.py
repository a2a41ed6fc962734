"""Findings read out of a report's text by a small lexicon with negation.

Each sentence is cut into clauses; in a clause a mention of a finding is affirmed unless a cue denies it,
makes it uncertain or puts it into the past (`bioreport.negation`).
"""

import re
from collections.abc import Mapping

from bioreport.findings import EEG_NAMES
from bioreport.negation import Statement, clauses_of, fold, sentences_of, status_of

_LOBE = (
    r"(?:fronto|temporo|centro|parieto|occipito)?[- ]?"
    r"(?:frontal|temporal|central|parietal|occipital|hemispher\w+|frontopolar|parasagittal|midline)"
)
_PLACE = rf"(?:focal(?:ly)?|multifocal|regional|lateralized|(?:left|right)(?:[- ]sided)?|{_LOBE})"
_DIFFUSE = r"(?:generali[sz]ed|diffuse(?:ly)?|global|widespread|bisynchronous|bilateral(?:ly)? synchronous)"
_FREE = r"(?!slow|theta|delta|epilep|discharg|sharp|spike|focal|diffus|generali|seizure|sleep)[\w/%-]+"
_GAP = rf"(?:{_FREE}[ ,]+){{0,4}}?"
_SLOW = (
    r"(?:slow(?:ing|ed|er)?\b(?![- ]*(?:wave|rolling|eye))|(?:theta|delta)(?: and (?:theta|delta))?\b"
    r"|slow activity)"
)
_DISCHARGE = (
    r"(?:epileptiform(?: \w+)?|sharp[- ](?:and[- ]slow[- ])?waves?(?: \w+)?|spikes?\b(?![- ]*(?:and[- ]*)?"
    r"(?:slow[- ]*)?wave)|interictal discharges?)"
)
_SPIKE_WAVE = r"(?:poly)?spikes?[- /]*(?:and|&)?[- /]*(?:slow[- ]?)?waves?"

# The first pattern of a finding that matches anywhere counts; what is in _NEVER is removed before.
_PATTERNS: dict[str, str] = {
    "posterior_dominant_rhythm": (
        r"posterior(?:[- ]dominant)?(?: background| alpha| basic)? (?:rhythm|alpha)|\bpdr\b|alpha rhythm"
        r"|occipital (?:dominant )?(?:alpha|rhythm)|dominant posterior \w*[- ]?(?:rhythm|frequency)"
        r"|dominant (?:background )?rhythm"
    ),
    "drowsiness": r"\bdrows\w+|stage (?:n1|1|i)\b|\bn1 sleep",
    "sleep_spindles": r"(?<!alpha )(?<!beta )\bspindles?\b|stage (?:n2|2|ii)\b|\bn2 sleep|\bk[- ]complex\w*",
    "generalized_slowing": (
        rf"{_DIFFUSE}[ ,]+{_GAP}{_SLOW}|slowing of (?:the )?background"
        r"|background (?:is |was )?\w* ?slow(?:ing|ed)\b"
        rf"|(?:slowing|delta|theta)(?: activity)? (?:is |was )?(?:present )?{_DIFFUSE}"
    ),
    "focal_slowing": (
        rf"{_PLACE}[ ,]+{_GAP}{_SLOW}"
        rf"|{_SLOW}(?: {_FREE}){{0,4}}? (?:over|in|at|from|on) (?:the )?(?:left|right|midline|{_LOBE})"
    ),
    "focal_epileptiform_discharges": _DISCHARGE,
    "generalized_spike_wave": rf"{_SPIKE_WAVE}|{_DIFFUSE}[ ,]+{_GAP}{_DISCHARGE}",
    "seizure": r"(?<!anti)(?<!anti-)\bseizures?\b|(?<![\w-])ictal\b|status epilepticus",
    "burst_suppression": (
        r"burst[- /]*(?:and[- ])?suppression|suppression[- /]*burst|bursts?\b[^.;]{0,60}\bsuppress(?:ed|ion)"
    ),
    "eye_blink_artifact": r"\b(?:eye[- ]?)?blink\w*|eye[- ]movement arti?e?facts?",
    "muscle_artifact": r"\bmuscle\b(?! relax)|\bmyogenic\b|\belectromyogra\w+|\bemg arti?e?facts?",
    "electrode_artifact": (
        r"\belectrode (?:pops?\b|popping)|\belectrode(?: and \w+(?: \w+)?| or \w+(?: \w+)?)?,? arti?e?facts?"
    ),
    "mains_noise": (
        r"\bmains\b|\b(?:power[- ]?)?line (?:noise|arti?e?fact|interference|frequency)"
        r"|\b[56]0[- ]?(?:hz|cycle) (?:noise|arti?e?fact|interference)|electrical interference"
    ),
    "bad_electrode": (
        r"\b(?:bad|faulty|malfunctioning|non-?functioning|defective|flat|saturated|noisy|disconnected|unusable)"
        r" (?:electrodes?|channels?)|\b(?:electrodes?|channels?)\b[^.;]{0,40}?\b(?:is|are|was|were) "
        r"(?:flat|saturated|noisy|bad|faulty|defective|unusable|disconnected|not usable)"
    ),
}  # fmt: skip
_SLOWING = ("generalized_slowing", "focal_slowing")
_DISCHARGES = ("focal_epileptiform_discharges", "generalized_spike_wave")
_BOTH = re.compile(
    rf"(?:{_PLACE}[ ,]+(?:and|or|nor)[ ,]+{_DIFFUSE}|{_DIFFUSE}[ ,]+(?:and|or|nor)[ ,]+{_PLACE})[ ,]+{_GAP}"
    rf"(?P<what>{_SLOW}|{_DISCHARGE})",
    re.IGNORECASE,
)
_GENERALIZED_BEFORE = re.compile(rf"{_DIFFUSE}[ ,]+{_GAP}$", re.IGNORECASE)
_PLACED_BEFORE = re.compile(rf"{_PLACE}[ ,]+{_GAP}$", re.IGNORECASE)
_PLACED_AFTER = re.compile(
    rf"(?: {_FREE}){{0,4}}? (?:over|in|at|from|on) (?:the )?(?:left|right|midline|{_LOBE})", re.IGNORECASE
)
_COMPILED = {name: re.compile(pattern, re.IGNORECASE) for name, pattern in _PATTERNS.items()}

_NEVER = re.compile(
    r"(?:seizure|seizures)[- ](?:disorder|medication|drug|risk|tendency|threshold|precaution|like)\w*"
    r"|(?:risk|tendency|predisposition|potential|concern|evaluat\w+|susceptibility|threshold|rule[sd]? out)"
    r"(?: (?:to|for|of|of having|towards?))*(?: \w+)? seizures?|post[- ]?ictal\w*(?: \w+)? slow\w*"
    r"|anti[- ]?(?:seizure|epileptic) \w+"
    r"|post[- ]?ictal\w*|wicket (?:spikes?|waves?)|vertex sharp (?:waves?|transients?)"
    r"|positive occipital sharp "
    r"transients?|sharp transients?|small sharp spikes|benign \w+ (?:spikes?|transients?)|[56]0[- ]?hz notch"
    r"|(?:line|mains) (?:noise )?(?:filter|notch)\w*|drowsy theta|theta of drowsiness",
    re.IGNORECASE,
)
_ASYMMETRY = re.compile(
    r"asymmetr\w+|\b(?:lower|attenuat\w+|reduced|decreased|suppressed|diminished|higher)\b[^.;]{0,40}"
    r"\b(?:on|over) the (?:left|right)|\b(?:not|no longer) symmetric\w*",
    re.IGNORECASE,
)
_SYMMETRY = re.compile(r"(?<!not )(?<!no longer )\bsymmetric(?:al(?:ly)?)?\b|\bsymmetry\b", re.IGNORECASE)
_POSTERIOR = re.compile(r"posterior|occipital|alpha|\bpdr\b|background|dominant rhythm", re.IGNORECASE)

_HEADING = re.compile(r"^\s*(?:#+ .*|[A-Z][A-Z /]+:?\s*)$", re.MULTILINE)


def read_findings(sections: Mapping[str, str] | str) -> dict[str, bool | None]:
    """Read which findings a report states and which it denies.

    Parameters
    ----------
    sections : dict of str to str, or str
        Sections by name (those of history, indication and comparison are not read), or plain text.

    Returns
    -------
    dict of str to (bool or None)
        Every name of `EEG_FINDINGS`: True where the text states it at least once, False where it only
        denies it, None where it says nothing certain of it.
    """
    return fold(read_statements(sections), EEG_NAMES)


def read_statements(sections: Mapping[str, str] | str) -> list[Statement]:
    """Return every mention of a finding with what is said of it, in the order of the text."""
    return [
        statement
        for sentence in sentences_of(sections, _HEADING)
        for clause in clauses_of(_NEVER.sub(" ", sentence))
        for statement in _read_clause(clause)
    ]


def _read_clause(clause: str) -> list[Statement]:
    statements = _read_symmetry(clause)
    for match in _BOTH.finditer(clause):
        status = status_of(clause, match.start(), match.end())
        kind = _SLOWING if re.fullmatch(_SLOW, match["what"], re.IGNORECASE) else _DISCHARGES
        statements += [Statement(name, status, clause.strip()) for name in kind]
    rest = _BOTH.sub(lambda match: "." * len(match[0]), clause)
    for name, pattern in _COMPILED.items():
        for match in pattern.finditer(rest):
            status = status_of(rest, match.start(), match.end())
            if name == "posterior_dominant_rhythm" and re.search(
                r"symmetry (?:of|in) (?:the )?$", rest[: match.start()]
            ):
                # "no asymmetry of the posterior rhythm": the rhythm itself is not denied
                status = "present" if status == "denied" else status
            names = _meant(name, match, rest, status)
            statements += [Statement(meant, status, clause.strip()) for meant in names]
    bare = re.search(r"\bslowing\b", rest, re.IGNORECASE)
    if bare and not any(statement.name in _SLOWING for statement in statements):
        status = status_of(rest, bare.start(), bare.end())
        # "no slowing" denies both kinds; slowing without a place is the background's
        named = _SLOWING if status == "denied" else _SLOWING[:1]
        statements += [Statement(name, status, clause.strip()) for name in named]
    return statements


def _meant(name: str, match: re.Match[str], clause: str, status: str) -> tuple[str, ...]:
    """Findings that a mention stands for, decided by the words beside it."""
    before, after = clause[: match.start()], clause[match.end() :]
    generalized = _GENERALIZED_BEFORE.search(before) is not None
    if name == "focal_epileptiform_discharges":
        if generalized:
            return ()
        placed = _PLACED_BEFORE.search(before) or _PLACED_AFTER.match(after)
        return _DISCHARGES if status == "denied" and not placed else (name,)
    if name == "generalized_spike_wave" and re.fullmatch(_SPIKE_WAVE, match[0], re.IGNORECASE):
        placed = _PLACED_BEFORE.search(before) or _PLACED_AFTER.match(after)
        return ("focal_epileptiform_discharges",) if placed and not generalized else (name,)
    if name == "focal_slowing" and generalized:
        return ()
    return (name,)


def _read_symmetry(clause: str) -> list[Statement]:
    if not _POSTERIOR.search(clause):
        return []
    for match in _ASYMMETRY.finditer(clause):
        return [
            Statement("posterior_asymmetry", status_of(clause, match.start(), match.end()), clause.strip())
        ]
    even = _SYMMETRY.search(clause)
    if even is None or status_of(clause, even.start(), even.end()) != "present":
        return []
    return [Statement("posterior_asymmetry", "denied", clause.strip())]
