"""What the language model is asked, and the form in which it answers.

A prompt holds `SIGNAL` once, where the signal's embeddings go; `bioreport.fusion` puts them there.
"""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

SIGNAL = "<|signal|>"

_IMPRESSION = {"IMPRESSION/INTERPRETATION": "the conclusion: normal or abnormal, why, and what it means."}
DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "EEG DESCRIPTION/DETAILS": "the recording as a whole: background, state changes, artifacts.",
        "BACKGROUND ACTIVITY": "posterior rhythm (frequency, amplitude, symmetry), slowing, other rhythms.",
        "SLEEP": "whether drowsiness or sleep was reached, and its features such as spindles.",
        "INTERICTAL EPILEPTIFORM ABNORMALITIES": "spikes, sharp waves, spike-wave between seizures; where.",
        "EPILEPTIFORM ABNORMALITIES": "epileptiform discharges: form, place, how often; or their absence.",
        "SEIZURES": "electrographic seizures: number, onset, spread, duration; or their absence.",
        "EVENTS/SEIZURES": "clinical events and electrographic seizures, or their absence.",
        **_IMPRESSION,
    }
)
SECTIONS: tuple[str, ...] = tuple(DESCRIPTIONS)
DEFAULT_SECTIONS: tuple[str, ...] = (
    "BACKGROUND ACTIVITY",
    "SLEEP",
    "EPILEPTIFORM ABNORMALITIES",
    "EVENTS/SEIZURES",
    "IMPRESSION/INTERPRETATION",
)
ECG_DESCRIPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "RHYTHM": "the rhythm, its rate, ectopic beats and pauses.",
        "CONDUCTION AND INTERVALS": "PR, QRS, QT and QTc; AV, bundle-branch and fascicular blocks.",
        "QRS MORPHOLOGY": "axis, voltages, hypertrophy, pathological Q waves.",
        "ST-T CHANGES": "ST elevation or depression and T-wave inversion, with their leads.",
        "TECHNICAL QUALITY": "exchanged, missing or noisy leads, wander, mains interference.",
        **_IMPRESSION,
    }
)
ECG_SECTIONS: tuple[str, ...] = tuple(ECG_DESCRIPTIONS)


def sections_of(modality: str) -> tuple[str, ...]:
    """Every section that a report of ``"eeg"`` or ``"ecg"`` can have."""
    return {"eeg": SECTIONS, "ecg": ECG_SECTIONS}[modality]


def default_sections(modality: str) -> tuple[str, ...]:
    """The sections that are written where none are asked for."""
    return {"eeg": DEFAULT_SECTIONS, "ecg": ECG_SECTIONS}[modality]


# models of compact prompts are small and learnt from short histories; a longer one takes their language away
HISTORY_CHARACTERS = 240
_MISSPELT = "EPLEPTIFORM"  # as in CELM's published data, whose checkpoints have learnt it
_SPELT = "EPILEPTIFORM"


def celm_name(section: str) -> str:
    """A section's name as CELM's published data spell it."""
    return section.replace(_SPELT, _MISSPELT)


def standard_name(section: str) -> str:
    """A section's correct name from CELM's spelling of it."""
    return section.replace(_MISSPELT, _SPELT)


@dataclass(frozen=True)
class Layout:
    """The form of a response: a fixed text before, between and after the sections' bodies.

    Attributes
    ----------
    first, between, last : str
        Text before the first body, between two bodies, after the last; ``{name}`` is the section's name.
    mark : str
        The character that ends a body; no body holds it.
    forbidden : str
        Further characters that no body may hold; control characters none may.
    celm_names : bool
        Whether names are written in CELM's spelling.
    """

    first: str
    between: str
    last: str
    mark: str
    forbidden: str
    celm_names: bool

    def opening(self, section: str) -> str:
        """Text before the first section's body."""
        return self.first.format(name=self._name(section))

    def passage(self, section: str | None) -> str:
        """Text that ends a body and opens ``section``, or ends the response where that is None."""
        return self.last if section is None else self.between.format(name=self._name(section))

    def _name(self, section: str) -> str:
        return celm_name(section) if self.celm_names else section

    def render(self, sections: Mapping[str, str]) -> str:
        """The response that says ``sections``, as the language model is trained to write it."""
        if self is JSON:
            return json.dumps(
                {self._name(name): one_line(body) for name, body in sections.items()}, ensure_ascii=False
            )
        return "".join(f"## {self._name(name)}\n{one_line(body)}\n" for name, body in sections.items())

    def parse(self, text: str) -> dict[str, str]:
        """Sections by their correct names out of a response; empty where it has none.

        Notes
        -----
        A section that occurs twice keeps its first text.
        """
        found: dict[str, str] = {}
        for name, body in self._pairs(text):
            found.setdefault(standard_name(name.strip().upper()), one_line(body))
        return found

    def _pairs(self, text: str) -> list[tuple[str, str]]:
        if self is not JSON:
            parts = re.split(r"^[ \t]*##[ \t]*(\S.*?)[ \t]*$", text, flags=re.MULTILINE)[1:]
            return list(zip(parts[::2], parts[1::2], strict=True))
        start, stop = text.find("{"), text.rfind("}")
        try:
            content = json.loads(text[start : stop + 1], strict=False) if 0 <= start < stop else {}
        except json.JSONDecodeError:
            return []
        return [(name, body) for name, body in content.items() if isinstance(body, str)]


# a body with "#" in it could pose as the next section
PLAIN = Layout("## {name}\n", "\n## {name}\n", "\n", mark="\n", forbidden="#", celm_names=False)
# passage() formats ``between`` but not ``last``: hence one brace there, two here
JSON = Layout('{{"{name}": "', '", "{name}": "', '"}', mark='"', forbidden="\\", celm_names=True)


def layout_for(compat: str | None) -> Layout:
    """The response's form: lines of Markdown, or JSON for ``compat="celm"``."""
    return JSON if _celm(compat) else PLAIN


def build_prompt(
    sections: Sequence[str],
    *,
    channels: Sequence[str] = (),
    duration_seconds: float | None = None,
    history: str | None = None,
    facts: Sequence[str] = (),
    style: str = "full",
    compat: str | None = None,
    with_signal: bool = True,
    modality: str = "eeg",
) -> str:
    """The user's turn that asks for a report.

    Parameters
    ----------
    sections : sequence of str
        Names out of `sections_of` the modality, in the order wanted.
    channels : sequence of str
        Channels that are present in the recording.
    duration_seconds : float, optional
        Length of the recording in seconds.
    history : str, optional
        Clinical history; None where there is none. Of a long one a prompt holds what `history_shown` keeps.
    facts : sequence of str
        Sentences that say what was measured or found in the signal.
    style : {"full", "compact"}
        ``"compact"`` is for small language models.
    compat : {None, "celm"}
        ``"celm"`` asks for JSON under CELM's section names.
    with_signal : bool
        Whether the prompt holds `SIGNAL`.
    modality : {"eeg", "ecg"}

    Returns
    -------
    str

    Raises
    ------
    ValueError
        Where ``sections`` is empty, repeats a name or holds an unknown one, or an option is not known.
    """
    _check(sections, modality)
    if style not in ("full", "compact"):
        raise ValueError(f"unknown prompt style {style!r}; known are: full, compact")
    names = [celm_name(name) for name in sections] if _celm(compat) else list(sections)
    facts = [line for line in (one_line(fact) for fact in facts) if line]
    history = history_shown(history, style, compat)
    channels = [one_line(channel) for channel in channels]
    if style == "compact":
        text = _compact(names, channels, duration_seconds, history, facts)
    else:
        text = _full(names, channels, duration_seconds, history, facts, _celm(compat), modality)
    return f"{SIGNAL}\n{text}" if with_signal else text


def history_shown(history: str | None, style: str, compat: str | None = None) -> str:
    """What a prompt holds of a history: all of it, of a compact prompt's the first `HISTORY_CHARACTERS`.

    Whole words; "" where there is none.
    """
    if style != "compact":
        return _paragraphs(history)
    text = one_line(history)
    if _celm(compat) or len(text) <= HISTORY_CHARACTERS:
        return text
    words = text[: HISTORY_CHARACTERS + 1].rpartition(" ")[0]
    return words or text[:HISTORY_CHARACTERS]


def _check(sections: Sequence[str], modality: str) -> None:
    if isinstance(sections, str) or not sections:
        raise ValueError("sections must be a sequence of at least one name")
    known = sections_of(modality)
    for name in sections:
        if name not in known:
            raise ValueError(f"unknown section {name!r}; known are: {', '.join(known)}")
    if len(set(sections)) < len(sections):
        raise ValueError(f"a section is asked for twice: {', '.join(sections)}")


def _celm(compat: str | None) -> bool:
    if compat not in (None, "celm"):
        raise ValueError(f"unknown compat {compat!r}; known is: celm")
    return compat == "celm"


def _compact(
    names: list[str],
    channels: list[str],
    duration_seconds: float | None,
    history: str,
    facts: list[str],
) -> str:
    lines = [f"Channels: {len(channels)}."] if channels else []
    if duration_seconds is not None:
        lines.append(f"Duration: {duration_seconds:.0f} s.")
    lines.append(f"History: {history or 'none.'}")
    lines += facts
    lines.append(f"Sections: {'; '.join(names)}.")
    return "\n".join(lines)


def _full(
    names: list[str],
    channels: list[str],
    duration_seconds: float | None,
    history: str,
    facts: list[str],
    celm: bool,
    modality: str,
) -> str:
    reader, places = {"eeg": ("a neurologist", "channels"), "ecg": ("a cardiologist", "leads")}[modality]
    descriptions = {"eeg": DESCRIPTIONS, "ecg": ECG_DESCRIPTIONS}[modality]
    blocks = [f"You draft {modality.upper()} reports that {reader} will check before anyone relies on them."]
    recording = (
        [f"{places.capitalize()} present ({len(channels)}): {', '.join(channels)}."] if channels else []
    )
    if duration_seconds is not None:
        recording.append(f"Duration: {duration_seconds:.0f} s ({duration_seconds / 60:.1f} min).")
    if recording:
        blocks.append("Recording\n" + "\n".join(recording))
    blocks.append(
        f"Patient history\n{history}" if history else "Patient history\nNone was given; do not assume any."
    )
    if facts:
        blocks.append("Measurements and findings\n" + "\n".join(f"- {fact}" for fact in facts))
    blocks.append(
        "Task\nWrite these sections of the report, in this order:\n"
        + "\n".join(f"- {name}: {descriptions[standard_name(name)]}" for name in names)
    )
    blocks.append(
        "Guidelines\n"
        "- Say only what the signal and the measurements support.\n"
        "- Use no number that does not stand above.\n"
        f"- Name places by the {places} that are present.\n"
        "- Do not repeat the history as if it were a finding.\n"
        "- Write full sentences in the usual clinical terms, one paragraph a section."
    )
    form = ", ".join(f'"{name}": "..."' for name in names) if celm else ""
    blocks.append(
        f"Format\nOne JSON object and nothing else: {{{form}}}"
        if celm
        else 'Format\nFor each section a line "## NAME", then its paragraph on one line. Nothing else.'
    )
    return "\n\n".join(blocks)


def clean(text: str) -> str:
    """``text`` without control, surrogate and private characters; line ends become newlines."""
    text = re.sub(r"\r\n?|[\u0085\u2028\u2029]", "\n", text).replace("\t", " ")
    return "".join(c for c in text if c == "\n" or unicodedata.category(c) not in ("Cc", "Cs", "Co", "Cn"))


def one_line(text: str | None) -> str:
    """``text`` cleaned, on one line, with single spaces, without the signal's placeholder."""
    return " ".join(clean(text or "").replace(SIGNAL, " ").split())


def _paragraphs(text: str | None) -> str:
    lines = [one_line(line) for line in clean(text or "").split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
