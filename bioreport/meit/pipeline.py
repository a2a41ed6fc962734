"""Grounded reports of a trained MEIT, with the interface of `bioreport.pipeline.ReportPipeline`."""

from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

from transformers import LogitsProcessorList

from bioreport.bundle import hash_tensors
from bioreport.ecg.grounding import ground
from bioreport.errors import InputError
from bioreport.evidence import Evidence
from bioreport.fusion import TooLong
from bioreport.generation import Sampling
from bioreport.meit.files import load_meit
from bioreport.meit.model import Meit
from bioreport.meit.reading import MeitReader
from bioreport.meit.records import EcgRecord
from bioreport.meit.writing import write_reports
from bioreport.prompts import ECG_SECTIONS, PLAIN, one_line
from bioreport.report import Report
from bioreport.stages import Stages

IMPRESSION = ECG_SECTIONS[-1]
DISCLAIMER = "Written by a MEIT model that its user trained."


class MeitPipeline:
    """Writes draft reports of ECGs with MEIT: the text is the model's, held to what was measured.

    Parameters
    ----------
    model : Meit
        From `bioreport.meit.load_meit`.
    name : str
        What reports call it.
    """

    def __init__(self, model: Meit, name: str) -> None:
        self.model, self.name = model, name

    @classmethod
    def from_pretrained(
        cls, folder: str | PathLike[str], *, llm: str | None = None, device: str = "auto", dtype: str = "auto"
    ) -> "MeitPipeline":
        """Load what ``train meit`` wrote; raises InputError as `load_meit` does."""
        return cls(load_meit(folder, llm=llm, device=device, dtype=dtype), Path(folder).name)

    def read(
        self,
        item: Any,
        *,
        line_frequency: float | None = None,
        signal: str = "tokens",
        stages: Stages | None = None,
    ) -> list[Evidence]:
        """What `MeitReader.read` gives."""
        return MeitReader(self.name).read(item, line_frequency=line_frequency, signal=signal, stages=stages)

    def length(
        self,
        evidence: list[Evidence],
        history: str | None = None,
        sections: Sequence[str] | None = None,
        *,
        signal: str = "tokens",
    ) -> int:
        """As of `ReportPipeline.length`, as far as reports differ: before MEIT's texts stands the same."""
        return 0

    def write(
        self,
        evidence: list[list[Evidence]],
        histories: Sequence[str | None],
        sections: Sequence[str] | None = None,
        *,
        signal: str = "tokens",
        temperature: float = 0.0,
        seed: int | None = None,
        stages: Sequence[Stages] | None = None,
    ) -> list[Report]:
        """Write a batch of reports.

        A model that was trained on whole reports gives its sections, of which `sections` chooses; one that
        was trained on a single text gives that as the impression. A history is not used, and that is said.
        """
        stages = stages or [Stages() for _ in evidence]
        records = [EcgRecord(e.file, e.tokens, 0.0, ()) for (e,) in evidence]
        sampling = LogitsProcessorList([Sampling(temperature, seed)])
        batch = Stages()
        try:
            with batch("generate"):
                texts = write_reports(self.model, records, batch_size=len(records), logits_processor=sampling)
        except TooLong as error:
            raise InputError(self.name, str(error), "train it with a greater length") from error
        reports = []
        for (e,), text, history, stage in zip(evidence, texts, histories, stages, strict=True):
            stage.seconds["generate"] = batch.seconds["generate"] / len(texts)
            reports.append(self._report(e, text, history, sections, stage))
        return reports

    def _report(
        self, e: Evidence, text: str, history: str | None, sections: Sequence[str] | None, stages: Stages
    ) -> Report:
        text = text.replace("\N{REPLACEMENT CHARACTER}", "")
        said = {name: body for name, body in PLAIN.parse(text).items() if name in ECG_SECTIONS}
        said = said or {IMPRESSION: one_line(text)}
        if sections is not None:
            said = {name: said.get(name, "") for name in sections}
        with stages("ground"):
            grounded, withheld = ground(said, e.findings, e.measurements)
        unused = ["MEIT takes no history; the one that was given was not used."] if history else []
        return Report(
            file=e.file,
            modality="ecg",
            duration_seconds=e.duration_seconds,
            model=dict(self.provenance),
            sections=[{"name": name, "text": body} for name, body in grounded.items()],
            findings=e.findings,
            measurements=e.measurements,
            warnings=[*e.warnings, *unused, *withheld],
            timings={name: round(seconds, 4) for name, seconds in stages.seconds.items()},
        )

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What a report says of the model that wrote it; hashed once."""
        return {
            "name": self.name,
            "disclaimer": DISCLAIMER,
            "llm": None if self.model.llm_source is None else Path(self.model.llm_source).name,
            "weights": hash_tensors(dict(self.model.encoder.state_dict())),
        }
