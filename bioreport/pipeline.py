"""From recordings to reports: evidence, prompt, generation, grounding."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Literal

import numpy as np
import torch

from bioreport.bundle import Bundle
from bioreport.bundle_reader import load_bundle
from bioreport.ecg.grounding import ground as ground_ecg
from bioreport.ecg.reading import EcgRecording
from bioreport.errors import InputError
from bioreport.evidence import BundleReader, Evidence
from bioreport.findings import BY_NAME
from bioreport.fusion import FusedInputs, TooLong
from bioreport.generation import generate_sections
from bioreport.grounding import ground
from bioreport.prompts import build_prompt, default_sections, history_shown, layout_for, one_line, sections_of
from bioreport.recording import Recording
from bioreport.report import Report
from bioreport.stages import Stages

Signal = Literal["none", "statistics", "tokens"]
BASELINE = (
    "Baseline ({signal}): the text was written without the signal's tokens and is not checked against it."
)
GROUND = {"eeg": ground, "ecg": ground_ecg}
Source = str | PathLike[str] | Recording | EcgRecording
# one report may rest on several recordings of the same patient
Item = Source | tuple[Source, ...]


@dataclass(frozen=True)
class PromptParts:
    """Everything that a prompt says, so that training and generation say it alike."""

    channels: tuple[str, ...]
    duration_seconds: float
    facts: list[str]
    statistics: str = ""


def prompt_for(
    parts: PromptParts, sections: Sequence[str], history: str | None, signal: Signal, bundle: Bundle
) -> str:
    """The prompt of one report. ``signal="none"`` leaves out everything that comes from the signal."""
    known = list(parts.facts) if signal == "tokens" else [parts.statistics] if signal == "statistics" else []
    return build_prompt(
        sections,
        channels=parts.channels,
        duration_seconds=parts.duration_seconds,
        history=history,
        facts=known,
        style=bundle.prompt_style,
        compat=bundle.compat,
        with_signal=signal == "tokens",
        modality=bundle.modality,
    )


class ReportPipeline:
    """Writes draft reports of EEGs or of ECGs: a bundle is a model for one of them.

    Parameters
    ----------
    bundle : Bundle
        Encoder, projector, special tokens, LLM; see `from_pretrained`.

    Examples
    --------
    >>> pipeline = ReportPipeline.from_pretrained("bioreport-tiny")       # doctest: +SKIP
    >>> report = pipeline("recording.edf", history="First seizure last week.")   # doctest: +SKIP
    >>> print(report.to_markdown())                                       # doctest: +SKIP
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle

    @classmethod
    def from_pretrained(
        cls,
        name_or_dir: str | PathLike[str] = "bioreport-tiny",
        *,
        llm: str | None = None,
        device: str = "auto",
        dtype: str = "auto",
        attention: str = "auto",
    ) -> "ReportPipeline":
        """Load a bundle by name or folder.

        Parameters
        ----------
        name_or_dir : str
            ``"bioreport-tiny"`` (EEG) and ``"bioreport-ecg-tiny"`` are inside the package; or a bundle's
            folder, or its Hub id.
        llm : str, optional
            Hub id or folder of the causal LM to use in place of the bundle's.
        device : {"auto", "cpu", "cuda"}
        dtype : {"auto", "float32", "bfloat16"}
        attention : {"auto", "flash"}
            Of the LLM: what torch alone has, or flash-attn, where that is installed and there is a GPU.

        Raises
        ------
        InputError
            Where the bundle or its LLM is missing or does not fit, or flash-attn cannot run.
        """
        bundle = load_bundle(name_or_dir, llm=llm, device=device, dtype=dtype, attention=attention)
        # loads the LLM: one that is missing or does not fit is told before any signal is read
        _ = bundle.fusion
        return cls(bundle)

    def __call__(
        self,
        recording: Item | list[Item],
        history: str | list[str | None] | None = None,
        sections: Sequence[str] | None = None,
        *,
        signal: Signal = "tokens",
        line_frequency: float | None = None,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Report | list[Report]:
        """Write the report of one recording, or of each in a list as one batch.

        Parameters
        ----------
        recording : path or Recording, a tuple of these, or a list
            A tuple is several recordings in one report; a list gives a list of reports.
        history : str or list of str, optional
            Clinical history of each; None writes without.
        sections : sequence of str, optional
            Names out of `bioreport.prompts.sections_of` the modality; by default its `default_sections`.
        signal : {"tokens", "statistics", "none"}
            What the LLM gets of the signal: tokens and measured facts, CELM's band powers, or nothing.
        line_frequency : float, optional
            Mains frequency in Hz; by default from the sidecar or the signal.
        temperature : float
            0 is greedy; above, sampling with `seed`.

        Raises
        ------
        InputError
            Where a recording cannot be read or used.
        ValueError
            Where a section's name is not known.
        """
        items = recording if isinstance(recording, list) else [recording]
        histories = history if isinstance(history, list) else [history] * len(items)
        if len(histories) != len(items):
            raise ValueError(f"{len(items)} recordings but {len(histories)} histories")
        stages = [Stages() for _ in items]
        evidence = [
            self.read(item, line_frequency=line_frequency, signal=signal, stages=stage)
            for item, stage in zip(items, stages, strict=True)
        ]
        reports = self.write(
            evidence, histories, sections, signal=signal, temperature=temperature, seed=seed, stages=stages
        )
        return reports if isinstance(recording, list) else reports[0]

    def read(
        self,
        item: Item,
        *,
        line_frequency: float | None = None,
        signal: Signal = "tokens",
        stages: Stages | None = None,
    ) -> list[Evidence]:
        """The evidence of one report's recordings; raises InputError."""
        return BundleReader(self.bundle).read(
            item, line_frequency=line_frequency, signal=signal, stages=stages
        )

    def write(
        self,
        evidence: list[list[Evidence]],
        histories: Sequence[str | None],
        sections: Sequence[str] | None = None,
        *,
        signal: Signal = "tokens",
        temperature: float = 0.0,
        seed: int | None = None,
        stages: Sequence[Stages] | None = None,
    ) -> list[Report]:
        """Write a batch of reports from their evidence; arguments as for a call."""
        modality = self.bundle.modality
        sections = list(sections or default_sections(modality))
        unknown = [name for name in sections if name not in sections_of(modality)]
        if unknown:
            raise ValueError(f"unknown section {unknown[0]!r}; known are: {', '.join(sections_of(modality))}")
        stages = stages or [Stages() for _ in evidence]
        batch = Stages()
        try:
            with batch("project"):
                fused = self._embed(evidence, histories, sections, signal)
            with batch("generate"):
                texts = generate_sections(
                    self.bundle.fusion,
                    fused,
                    sections,
                    layout=layout_for(self.bundle.compat),
                    temperature=temperature,
                    seed=seed,
                )
        except TooLong as error:
            raise InputError(
                self.bundle.where,
                str(error).partition(";")[0],
                "shorten the history, ask for fewer sections, or use a model with a longer context",
            ) from error
        reports = []
        for group, history, text, stage in zip(evidence, histories, texts, stages, strict=True):
            for name, seconds in batch.seconds.items():
                stage.seconds[name] = seconds / len(texts)
            report = self._report(group, text, stage, signal)
            report.warnings += history_warnings(history, self.bundle)
            reports.append(report)
        return reports

    def length(
        self,
        evidence: list[Evidence],
        history: str | None = None,
        sections: Sequence[str] | None = None,
        *,
        signal: Signal = "tokens",
    ) -> int:
        """Positions that a report's prompt and signal take; reports of like lengths make a batch unpadded."""
        sections = list(sections or default_sections(self.bundle.modality))
        try:
            return self._embed([evidence], [history], sections, signal).inputs_embeds.shape[1]
        except TooLong:
            return sys.maxsize  # by itself, where its sentence is said

    @torch.inference_mode()
    def _embed(
        self,
        evidence: list[list[Evidence]],
        histories: Sequence[str | None],
        sections: Sequence[str],
        signal: Signal,
    ) -> FusedInputs:
        prompts = [
            prompt_for(merge_parts(group), sections, history, signal, self.bundle)
            for group, history in zip(evidence, histories, strict=True)
        ]
        sessions = [
            [e.tokens.to(self.bundle.device) for e in group if signal == "tokens" and len(e.tokens)]
            for group in evidence
        ]
        return self.bundle.fusion.embed(prompts, sessions)

    def _report(self, group: list[Evidence], text: dict[str, str], stages: Stages, signal: Signal) -> Report:
        findings = merge_findings(group)
        measurements = (
            group[0].measurements if len(group) == 1 else {"recordings": [e.measurements for e in group]}
        )
        if signal == "tokens":
            with stages("ground"):
                grounded, withheld = GROUND[self.bundle.modality](text, findings, measurements)
        else:
            # what a baseline says is its own; mending it from the signal would make every baseline good
            grounded, withheld = text, [BASELINE.format(signal=signal)]
            findings = []
        return Report(
            file=", ".join(e.file for e in group),
            modality=self.bundle.modality,
            duration_seconds=float(np.sum([e.duration_seconds for e in group])),
            model=self.bundle.provenance(),
            sections=[{"name": name, "text": body} for name, body in grounded.items()],
            findings=findings,
            measurements=measurements,
            warnings=[*(w for e in group for w in e.warnings), *whose_times(group), *withheld],
            timings={name: round(seconds, 4) for name, seconds in stages.seconds.items()},
        )


def history_warnings(history: str | None, bundle: Bundle) -> list[str]:
    """That of a long history only the beginning was used, where that is so."""
    given, shown = one_line(history), one_line(history_shown(history, bundle.prompt_style, bundle.compat))
    if len(shown) == len(given):
        return []
    return [
        f"Only the first {len(shown)} of the {len(given)} characters of the history were used: the model was "
        "trained on short ones."
    ]


def whose_times(group: list[Evidence]) -> list[str]:
    """Of a report of several recordings: from the start of which of them a finding's times count."""
    if len(group) == 1:
        return []
    return [
        f"Recording {number} ({e.file}): {BY_NAME[finding['name']].label} at {finding['start_seconds']:.0f}–"
        f"{finding['end_seconds']:.0f} s from its own start."
        for number, e in enumerate(group, 1)
        for finding in e.findings
        if finding["present"] and finding["start_seconds"] is not None
    ]


def merge_parts(group: list[Evidence]) -> PromptParts:
    """What one prompt says of several recordings."""
    numbered = len(group) > 1
    return PromptParts(
        channels=tuple(dict.fromkeys(name for e in group for name in e.channels)),
        duration_seconds=float(np.sum([e.duration_seconds for e in group])),
        facts=[
            f"Recording {number}: {fact}" if numbered else fact
            for number, e in enumerate(group, 1)
            for fact in e.facts()
        ],
        statistics="\n".join(e.statistics for e in group if e.statistics),
    )


def merge_findings(group: list[Evidence]) -> list[dict[str, Any]]:
    """Findings of several recordings: one that any of them shows is present."""
    merged: dict[str, dict[str, Any]] = {}
    for e in group:
        for finding in e.findings:
            known = merged.get(finding["name"])
            if known is None or (finding["present"] and not known["present"]):
                merged[finding["name"]] = finding
    return list(merged.values())
