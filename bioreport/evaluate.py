"""Reports against a manifest's truth: findings, seizures, posterior frequency, wording, with controls.

Findings are read twice, from a report's `findings` and out of its text by `bioreport.lexicon`. Beside the
reports' scores stand those of two controls: the same reports dealt out to other recordings, and one report
that states of every recording what is most frequent.
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bioreport.claims import claims_in
from bioreport.errors import InputError
from bioreport.findings import EEG_NAMES
from bioreport.grounding import split_sentences
from bioreport.lexicon import read_findings
from bioreport.manifest import Entry, read_manifest
from bioreport.text_metrics import TOKENISATION, corpus_bleu, rouge_l

POSTERIOR = "posterior_dominant_rhythm"
TOLERANCE_HZ = 0.5
_ALL = "all"


@dataclass
class Statement:
    """What one report says."""

    present: dict[str, bool] = field(default_factory=dict)
    frequency: float | None = None
    sections: dict[str, str] = field(default_factory=dict)
    present_in_text: dict[str, bool] = field(default_factory=dict)
    frequency_in_text: float | None = None


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
        Folder of report JSONs, each named by the stem of its (first) recording. A recording without a report
        counts as one whose report says nothing.
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
        Where the manifest or a report cannot be read, two recordings share a stem, or no report is there.
    """
    manifest, reports = Path(manifest), Path(reports)
    entries = read_manifest(manifest)
    doubled = [stem for stem, count in Counter(entry.stem for entry in entries).items() if count > 1]
    if doubled:
        raise InputError(
            manifest,
            f"has two recordings named {doubled[0]!r}, whose reports share one name",
            "give them different names",
        )
    statements, missing = [], []
    for entry in entries:
        path = reports / f"{entry.stem}.json"
        if path.is_file():
            statements.append(read_statement(path))
        else:
            statements.append(Statement())
            missing.append(entry.stem)
    if len(missing) == len(entries):
        raise InputError(
            reports,
            "holds no report of the manifest's recordings",
            "write them with `bioreport generate FILE... --format json -o DIR`",
        )
    scores = score(entries, statements, resamples=resamples, seed=seed)
    controls: dict[str, Any] = {"most_frequent": score(entries, [most_frequent(entries)] * len(entries))}
    if len(entries) > 1:
        order = derangement(len(entries), seed)
        controls["shuffled"] = score(entries, [statements[i] for i in order])
    return {
        "recordings": len(entries),
        "patients": len(set(_patients(entries))),
        "missing_reports": missing,
        "confidence": {"level": 0.95, "resamples": resamples, "seed": seed, "unit": "patient"},
        **scores,
        "controls": controls,
    }


def read_statement(path: Path) -> Statement:
    """Read a report's JSON; raises InputError where it is none."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        sections = {section["name"]: section["text"] for section in report["sections"]}
        found = {finding["name"]: finding for finding in report["findings"]}
        rhythm = found.get(POSTERIOR, {})
        return said(
            sections,
            {name: bool(finding["present"]) for name, finding in found.items()},
            rhythm.get("value") if rhythm.get("present") else None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            path, "is no report in JSON", "write it with `bioreport generate --format json`"
        ) from error


def said(sections: dict[str, str], present: dict[str, bool], frequency: float | None) -> Statement:
    """A statement with what its text says read out of it."""
    return Statement(
        present=present,
        frequency=frequency,
        sections=sections,
        present_in_text={name: answer is True for name, answer in read_findings(sections).items()},
        frequency_in_text=posterior_frequency(sections),
    )


def posterior_frequency(sections: dict[str, str]) -> float | None:
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


def most_frequent(entries: Sequence[Entry]) -> Statement:
    """One report for all: findings as most recordings have them, median frequency, commonest text."""
    known = [entry.findings for entry in entries if entry.findings is not None]
    votes: dict[str, list[bool]] = {}
    for findings in known:
        for finding in findings:
            votes.setdefault(finding["name"], []).append(finding["present"])
    frequencies = [
        f["value"]
        for findings in known
        for f in findings
        if f["name"] == POSTERIOR and f["present"] and f.get("value") is not None
    ]
    texts: dict[str, Counter[str]] = {}
    for entry in entries:
        for name, text in entry.sections.items():
            texts.setdefault(name, Counter())[text] += 1
    return said(
        # of texts that are equally common, the first in the alphabet
        {name: min(counts, key=lambda text: (-counts[text], text)) for name, counts in texts.items()},
        {name: 2 * sum(answers) > len(answers) for name, answers in votes.items()},
        float(np.median(frequencies)) if frequencies else None,
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
    entries: Sequence[Entry], statements: Sequence[Statement], *, resamples: int = 0, seed: int = 0
) -> dict[str, Any]:
    """Scores of statements against the truth of the same rows, with intervals where `resamples` is not 0."""
    sample = Resampling(_patients(entries), resamples, seed)
    truth = np.full((len(entries), len(EEG_NAMES)), -1, np.int8)
    for row, entry in enumerate(entries):
        for finding in entry.findings or ():
            truth[row, EEG_NAMES.index(finding["name"])] = finding["present"]
    in_findings = _matrix([statement.present for statement in statements])
    in_text = _matrix([statement.present_in_text for statement in statements])
    return {
        "findings": {
            "from_findings": finding_scores(truth, in_findings, sample),
            "from_text": finding_scores(truth, in_text, sample),
        },
        "seizure": {
            "from_findings": seizure_rates(truth, in_findings, sample),
            "from_text": seizure_rates(truth, in_text, sample),
        },
        "posterior": {
            "from_findings": frequency_scores(entries, [s.frequency for s in statements], sample),
            "from_text": frequency_scores(entries, [s.frequency_in_text for s in statements], sample),
        },
        "text": text_scores(entries, statements, sample),
    }


class Resampling:
    """Draws of patients with replacement: [draws, patients] weights; row 0 is the sample itself."""

    def __init__(self, patients: Sequence[str], resamples: int, seed: int) -> None:
        _, self.group = np.unique(np.asarray(patients), return_inverse=True)
        count = int(self.group.max()) + 1
        drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
        self.weights = np.concatenate([np.ones((1, count), np.int64), drawn])

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum over recordings in every draw: [recordings, ...] -> [draws, ...]."""
        by_patient = np.zeros((self.weights.shape[1], *values.shape[1:]))
        np.add.at(by_patient, self.group, values)
        return np.tensordot(self.weights, by_patient, 1)

    def share(self, part: np.ndarray, whole: np.ndarray, name: str) -> dict[str, Any]:
        """`name` and its interval, of part/whole summed over recordings."""
        return self.interval(_divide(self.sums(part), self.sums(whole)), name)

    @staticmethod
    def interval(draws: np.ndarray, name: str) -> dict[str, Any]:
        """First draw as the estimate, the others as its 95 % interval."""
        rest = draws[1:][~np.isnan(draws[1:])]
        ends = [_number(end) for end in np.percentile(rest, [2.5, 97.5])] if len(rest) else None
        return {name: _number(draws[0]), f"{name}_ci": ends}


def finding_scores(truth: np.ndarray, said_present: np.ndarray, sample: Resampling) -> dict[str, Any]:
    """Precision, recall and F1: truth int8 [N, F] (-1 unknown), said_present bool [N, F].

    Macro is the mean over the findings whose F1 has a denominator.
    """
    tp = sample.sums((truth == 1) & said_present)
    fp = sample.sums((truth == 0) & said_present)
    fn = sample.sums((truth == 1) & ~said_present)
    f1 = _divide(2 * tp, 2 * tp + fp + fn)
    counted = ~np.isnan(f1)
    macro = _divide(np.where(counted, f1, 0.0).sum(1), counted.sum(1).astype(float))
    all_tp, all_fp, all_fn = tp.sum(1), fp.sum(1), fn.sum(1)
    per_finding = {}
    for column, name in enumerate(EEG_NAMES):
        if (truth[:, column] >= 0).any():
            per_finding[name] = {
                "precision": _number(_divide(tp[0, column], tp[0, column] + fp[0, column])),
                "recall": _number(_divide(tp[0, column], tp[0, column] + fn[0, column])),
                **sample.interval(f1[:, column], "f1"),
                "present": int((truth[:, column] == 1).sum()),
                "said": int(((truth[:, column] >= 0) & said_present[:, column]).sum()),
            }
    return {
        "micro": {
            "precision": _number(_divide(all_tp[0], all_tp[0] + all_fp[0])),
            "recall": _number(_divide(all_tp[0], all_tp[0] + all_fn[0])),
            **sample.interval(_divide(2 * all_tp, 2 * all_tp + all_fp + all_fn), "f1"),
        },
        "macro": {
            "precision": _mean([scores["precision"] for scores in per_finding.values()]),
            "recall": _mean([scores["recall"] for scores in per_finding.values()]),
            **sample.interval(macro, "f1"),
        },
        "per_finding": per_finding,
    }


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


def frequency_scores(
    entries: Sequence[Entry], given: Sequence[float | None], sample: Resampling
) -> dict[str, Any]:
    """Error of the posterior frequency, where the truth has one; not stated counts as not within 0.5 Hz."""
    errors = np.full(len(entries), np.nan)
    asked = np.zeros(len(entries), bool)
    for row, (entry, value) in enumerate(zip(entries, given, strict=True)):
        for finding in entry.findings or ():
            if finding["name"] == POSTERIOR and finding["present"] and finding.get("value") is not None:
                asked[row] = True
                errors[row] = np.nan if value is None else abs(value - finding["value"])
    stated = asked & ~np.isnan(errors)
    # the tolerance includes its border, whatever binary fractions make of 9.5 - 9.0
    within = stated & (np.nan_to_num(errors, nan=np.inf) <= TOLERANCE_HZ + 1e-9)
    return {
        **sample.share(within, asked, "within_half_hz"),
        **sample.share(np.where(stated, np.nan_to_num(errors), 0.0), stated, "mean_absolute_error_hz"),
        **sample.share(stated, asked, "stated"),
        "recordings": int(asked.sum()),
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
        **{f"bleu{n}": _number(corpus_bleu(hypotheses, references, n)) for n in (1, 4)},
    }


def _patients(entries: Sequence[Entry]) -> list[str]:
    # a recording of nobody known is resampled alone
    return [
        f"p {entry.patient}" if entry.patient is not None else f"r {i}" for i, entry in enumerate(entries)
    ]


def _matrix(rows: Sequence[dict[str, bool]]) -> np.ndarray:
    return np.array([[row.get(name, False) for name in EEG_NAMES] for row in rows], bool)


def _divide(part: Any, whole: Any) -> Any:
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 6) if known else None


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
        row(f"invented seizure rate, {where}", ("seizure", source), "invented_rate")
        row(f"missed seizure rate, {where}", ("seizure", source), "missed_rate")
        row(f"posterior frequency within 0.5 Hz, {where}", ("posterior", source), "within_half_hz")
        row(f"posterior frequency, mean error (Hz), {where}", ("posterior", source), "mean_absolute_error_hz")
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
