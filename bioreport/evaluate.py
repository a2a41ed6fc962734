"""Reports against a manifest's truth: findings, critical ones, a measured number, wording, with controls.

Findings are read twice, from a report's `findings` and out of its text by the lexicon of its modality. Beside
the reports' scores stand those of two controls: the same reports dealt out to other recordings, and one
report that states of every recording what is most frequent.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bioreport.claims import claims_in
from bioreport.ecg import lexicon as ecg_lexicon
from bioreport.ecg import scores as ecg
from bioreport.ecg.plain import HOME as ECG_SECTIONS
from bioreport.errors import InputError
from bioreport.findings import ECG_NAMES, EEG_NAMES
from bioreport.jobs import report_names
from bioreport.lexicon import read_findings
from bioreport.manifest import Entry, read_manifest
from bioreport.scores import Resampling, error_scores, finding_scores, number
from bioreport.sentences import split_sentences
from bioreport.text_metrics import TOKENISATION, corpus_bleu, rouge_l

POSTERIOR = "posterior_dominant_rhythm"
TOLERANCE_HZ = 0.5
_ALL = "all"


@dataclass
class Statement:
    """What one report says; `number` is an EEG's posterior frequency (Hz) or an ECG's rate (/min)."""

    present: dict[str, bool] = field(default_factory=dict)
    number: float | None = None
    sections: dict[str, str] = field(default_factory=dict)
    present_in_text: dict[str, bool] = field(default_factory=dict)
    number_in_text: float | None = None


@dataclass(frozen=True)
class Modality:
    """How reports of one modality are read: their findings, and the number that is asked for."""

    names: tuple[str, ...]
    read: Callable[[Mapping[str, str]], dict[str, bool | None]]
    number: Callable[[Iterable[Mapping[str, Any]]], float | None]
    number_in_text: Callable[[Mapping[str, str]], float | None]


def evaluate(
    manifest: str | os.PathLike[str],
    reports: str | os.PathLike[str],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Score a folder of reports.

    Parameters
    ----------
    manifest : path-like
        The truth: `findings`, `sections`, or both.
    reports : path-like
        Folder of report JSONs, each where `generate MANIFEST -o reports` puts it or named by the stem of its
        (first) recording. A recording without a report counts as one whose report says nothing.
    resamples : int
        Draws of patients for the 95 % confidence intervals; 0 for none.
    seed : int
        Of these draws and of the shuffled control.

    Returns
    -------
    dict
        Ready for JSON; a share that has no denominator is None.

    Raises
    ------
    InputError
        Where the manifest or a report cannot be read, two reports share a name, or no report is there.
    """
    manifest, reports = Path(manifest), Path(reports)
    entries = read_manifest(manifest)
    names = report_names(entries, manifest)
    doubled = [name for name, count in Counter(names).items() if count > 1]
    if doubled:
        raise InputError(
            manifest,
            f"has two recordings named {doubled[0]!r}, whose reports share one name",
            "give them different names",
        )
    stems = Counter(entry.stem for entry in entries)
    modality = modality_of(manifest, entries)
    statements, missing = [], []
    for entry, name in zip(entries, names, strict=True):
        path = reports / f"{name}.json"
        if not path.is_file() and stems[entry.stem] == 1:
            path = reports / f"{entry.stem}.json"
        if path.is_file():
            statements.append(read_statement(path, modality))
        else:
            statements.append(Statement())
            missing.append(name)
    if len(missing) == len(entries):
        raise InputError(
            reports,
            "holds no report of the manifest's recordings",
            f"write them with `bioreport generate {manifest} --format json -o {reports}`",
        )
    scores = score(entries, statements, modality, resamples=resamples, seed=seed)
    typical = most_frequent(entries, modality)
    controls: dict[str, Any] = {"most_frequent": score(entries, [typical] * len(entries), modality)}
    if len(entries) > 1:
        order = derangement(len(entries), seed)
        controls["shuffled"] = score(entries, [statements[i] for i in order], modality)
    return {
        "recordings": len(entries),
        "patients": len(set(_patients(entries))),
        "missing_reports": missing,
        "confidence": {"level": 0.95, "resamples": resamples, "seed": seed, "unit": "patient"},
        **scores,
        "controls": controls,
    }


def modality_of(manifest: Path, entries: Sequence[Entry]) -> Modality:
    """EEG or ECG, by the names of the findings or, without any, of the sections.

    Raises
    ------
    InputError
        Findings of both are there.
    """
    names = {finding["name"] for entry in entries for finding in entry.findings or ()}
    if names & set(EEG_NAMES) and names & set(ECG_NAMES):
        raise InputError(
            manifest, "holds findings of EEG and of ECG", "evaluate the two in manifests of their own"
        )
    sections = {section for entry in entries for section in entry.sections}
    is_ecg = bool(names & set(ECG_NAMES)) or (not names and bool(sections & set(ECG_SECTIONS)))
    return ECG if is_ecg else EEG


def read_statement(path: Path, modality: Modality) -> Statement:
    """Read a report's JSON; raises InputError where it is none, or of another modality."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        kind, other = ("ECG", "EEG") if modality is ECG else ("EEG", "ECG")
        if str(report.get("modality", kind)).upper() == other:
            raise InputError(
                path,
                f"is the report of an {other}, and the manifest is of {kind}s",
                "give the reports of the manifest's recordings with --reports",
            )
        sections = {section["name"]: section["text"] for section in report["sections"]}
        present = {finding["name"]: bool(finding["present"]) for finding in report["findings"]}
        return said(sections, present, modality.number(report["findings"]), modality)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            path, "is no report in JSON", "write it with `bioreport generate --format json`"
        ) from error


def said(
    sections: dict[str, str], present: dict[str, bool], value: float | None, modality: Modality
) -> Statement:
    """A statement with what its text says read out of it."""
    return Statement(
        present=present,
        number=value,
        sections=sections,
        present_in_text={name: answer is True for name, answer in modality.read(sections).items()},
        number_in_text=modality.number_in_text(sections),
    )


def posterior_of(findings: Iterable[Mapping[str, Any]]) -> float | None:
    """Frequency in Hz of a present posterior rhythm."""
    rhythm = next((finding for finding in findings if finding["name"] == POSTERIOR), {})
    return rhythm.get("value") if rhythm.get("present") else None


def posterior_frequency(sections: Mapping[str, str]) -> float | None:
    """Frequency in Hz that a text gives to the posterior rhythm, of a range the middle; None without one."""
    for text in sections.values():
        for sentence in split_sentences(text):
            lower = sentence.lower()
            if not any(
                word in lower for word in ("posterior", "occipital", "alpha rhythm", "dominant rhythm")
            ):
                continue
            for claim in claims_in(sentence):
                if claim.unit == "Hz":
                    return (claim.low + claim.high) / 2
    return None


EEG = Modality(EEG_NAMES, read_findings, posterior_of, posterior_frequency)
ECG = Modality(ECG_NAMES, ecg_lexicon.read_findings, ecg.rate_of, ecg.rate_in)


def most_frequent(entries: Sequence[Entry], modality: Modality) -> Statement:
    """One report for all: findings as most recordings have them, median number, commonest text."""
    known = [entry.findings for entry in entries if entry.findings is not None]
    votes: dict[str, list[bool]] = {}
    for findings in known:
        for finding in findings:
            votes.setdefault(finding["name"], []).append(finding["present"])
    values = [value for findings in known if (value := modality.number(findings)) is not None]
    texts: dict[str, Counter[str]] = {}
    for entry in entries:
        for name, text in entry.sections.items():
            texts.setdefault(name, Counter())[text] += 1
    return said(
        # of texts that are equally common, the first in the alphabet
        {name: min(counts, key=lambda text: (-counts[text], text)) for name, counts in texts.items()},
        {name: 2 * sum(answers) > len(answers) for name, answers in votes.items()},
        float(np.median(values)) if values else None,
        modality,
    )


def derangement(count: int, seed: int) -> list[int]:
    """A permutation of ``range(count)`` that leaves nothing in its place: one random cycle (Sattolo 1986)."""
    rng = np.random.default_rng(seed)
    order = list(range(count))
    for i in range(count - 1, 0, -1):
        j = int(rng.integers(i))
        order[i], order[j] = order[j], order[i]
    return order


def score(
    entries: Sequence[Entry],
    statements: Sequence[Statement],
    modality: Modality = EEG,
    *,
    resamples: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores of statements against the truth of the same rows, with intervals where `resamples` is not 0."""
    sample = Resampling(_patients(entries), resamples, seed)
    names = modality.names
    truth = np.full((len(entries), len(names)), -1, np.int8)
    for row, entry in enumerate(entries):
        for finding in entry.findings or ():
            truth[row, names.index(finding["name"])] = finding["present"]
    present = {
        "from_findings": _matrix([statement.present for statement in statements], names),
        "from_text": _matrix([statement.present_in_text for statement in statements], names),
    }
    asked = [modality.number(entry.findings or ()) for entry in entries]
    given = {
        "from_findings": [statement.number for statement in statements],
        "from_text": [statement.number_in_text for statement in statements],
    }
    scores: dict[str, Any] = {
        "findings": {at: finding_scores(truth, stated, names, sample) for at, stated in present.items()}
    }
    if modality is ECG:
        scores["critical"] = {at: ecg.critical_rates(truth, one, sample) for at, one in present.items()}
        scores["rate"] = {at: ecg.rate_scores(asked, one, sample) for at, one in given.items()}
    else:
        scores["seizure"] = {at: seizure_rates(truth, one, sample) for at, one in present.items()}
        scores["posterior"] = {
            at: error_scores(asked, one, TOLERANCE_HZ, sample, ("within_half_hz", "mean_absolute_error_hz"))
            for at, one in given.items()
        }
    return scores | {"text": text_scores(entries, statements, sample)}


def seizure_rates(truth: np.ndarray, said_present: np.ndarray, sample: Resampling) -> dict[str, Any]:
    """Share of recordings without a seizure that are said to have one, and of those with one that are not."""
    column = EEG_NAMES.index("seizure")
    there, absent, stated = truth[:, column] == 1, truth[:, column] == 0, said_present[:, column]
    return {
        **sample.share(absent & stated, absent, "invented_rate"),
        **sample.share(there & ~stated, there, "missed_rate"),
        "recordings_with": int(there.sum()),
        "recordings_without": int(absent.sum()),
    }


def text_scores(
    entries: Sequence[Entry], statements: Sequence[Statement], sample: Resampling
) -> dict[str, Any]:
    """BLEU-1, BLEU-4 and ROUGE-L against the reference text, by section; a missing section scores 0."""
    names = list(dict.fromkeys(name for entry in entries for name in entry.sections))
    rouge = np.zeros((len(entries), len(names)))
    asked = np.zeros((len(entries), len(names)), bool)
    pairs: dict[str, list[tuple[str, str]]] = {name: [] for name in names}
    for row, (entry, statement) in enumerate(zip(entries, statements, strict=True)):
        for column, name in enumerate(names):
            if name in entry.sections:
                pair = statement.sections.get(name, ""), entry.sections[name]
                pairs[name].append(pair)
                asked[row, column] = True
                rouge[row, column] = rouge_l(*pair)
    scores: dict[str, Any] = {"tokenisation": TOKENISATION, "sections": {}}
    for column, name in enumerate(names):
        scores["sections"][name] = _bleu(pairs[name]) | sample.share(
            rouge[:, column], asked[:, column], "rouge_l"
        )
    everything = [pair for name in names for pair in pairs[name]]
    if everything:
        scores[_ALL] = _bleu(everything) | sample.share(rouge.sum(1), asked.sum(1), "rouge_l")
    return scores


def _bleu(pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    hypotheses, references = zip(*pairs, strict=True)
    return {
        "count": len(pairs),
        **{f"bleu{n}": number(corpus_bleu(hypotheses, references, n)) for n in (1, 4)},
    }


def _patients(entries: Sequence[Entry]) -> list[str]:
    # a recording of nobody known is resampled alone
    return [
        f"p {entry.patient}" if entry.patient is not None else f"r {i}" for i, entry in enumerate(entries)
    ]


def _matrix(rows: Sequence[dict[str, bool]], names: Sequence[str]) -> np.ndarray:
    return np.array([[row.get(name, False) for name in names] for row in rows], bool)


# rows of the table below those of the findings: title, place in the metrics, name
_ROWS = (
    ("invented seizure rate", "seizure", "invented_rate"),
    ("missed seizure rate", "seizure", "missed_rate"),
    ("posterior frequency within 0.5 Hz", "posterior", "within_half_hz"),
    ("posterior frequency, mean error (Hz)", "posterior", "mean_absolute_error_hz"),
    ("invented critical findings, recordings", "critical", "invented_rate"),
    ("missed critical findings", "critical", "missed_rate"),
    ("rate within 3 /min", "rate", "within_three"),
    ("rate, mean error (/min)", "rate", "mean_absolute_error"),
)


def render(metrics: dict[str, Any], form: str) -> str:
    """Metrics as one JSON object (``"json"``) or as a table with the controls beside (``"text"``)."""
    if form == "json":
        return json.dumps(metrics, ensure_ascii=False, allow_nan=False)
    controls = metrics["controls"]
    columns = [metrics, controls.get("shuffled", {}), controls["most_frequent"]]
    lines = [
        f"{metrics['recordings']} recordings of {metrics['patients']} patients, "
        f"{len(metrics['missing_reports'])} without a report (counted as saying nothing)",
        "",
        f"{'':48}{'reports':>9} {'95 % interval':>16} {'shuffled':>10} {'most frequent':>14}",
    ]

    def row(title: str, place: tuple[str, ...], name: str) -> None:
        scores = [_at(column, place) for column in columns]
        ends = scores[0].get(f"{name}_ci")
        between = f"{ends[0]:.3f}–{ends[1]:.3f}" if ends else ""
        shown = ["–" if score.get(name) is None else f"{score[name]:.3f}" for score in scores]
        lines.append(f"{title:48}{shown[0]:>9} {between:>16} {shown[1]:>10} {shown[2]:>14}")

    sources = (("from_findings", "findings"), ("from_text", "text"))
    for source, where in sources:
        for average in ("micro", "macro"):
            for name in ("precision", "recall", "f1"):
                row(f"{average} {name}, {where}", ("findings", source, average), name)
        for title, place, name in _ROWS:
            if place in metrics:
                row(f"{title}, {where}", (place, source), name)
        lines.append("")
    for finding in metrics["findings"]["from_findings"]["per_finding"]:
        for source, where in sources:
            row(f"F1 {finding}, {where}", ("findings", source, "per_finding", finding), "f1")
    if _ALL in metrics["text"]:
        lines.append("")
        for name in ("bleu1", "bleu4", "rouge_l"):
            row(f"{name}, all sections", ("text", _ALL), name)
        for section in metrics["text"]["sections"]:
            row(f"rouge_l, {section}", ("text", "sections", section), "rouge_l")
    return "\n".join(lines)


def _at(scores: dict[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    for key in place:
        scores = scores.get(key, {})
    return scores
