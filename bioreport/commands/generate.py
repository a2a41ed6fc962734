"""`generate`: a report of each recording."""

import argparse
import resource
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from bioreport.commands.console import fail, quiet_libraries, say
from bioreport.errors import InputError
from bioreport.files import write_atomically

if TYPE_CHECKING:
    from bioreport.ecg.reading import EcgRecording
    from bioreport.evidence import Evidence
    from bioreport.meit.pipeline import MeitPipeline
    from bioreport.pipeline import ReportPipeline
    from bioreport.recording import Recording
    from bioreport.report import Report
    from bioreport.stages import Stages


def generate(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Write one report a file, or one of all with ``--together``."""
    sections = _sections(options.sections, parser)
    groups: list[tuple[Path, ...]] = (
        [tuple(options.files)] if options.together else [(f,) for f in options.files]
    )
    targets, form = _targets(options, groups, parser)
    history = _history(options.history)
    temperature = (
        options.temperature if options.temperature is not None else 0.0 if options.seed is None else 0.7
    )
    quiet_libraries(options)

    from bioreport.bundle import EMBEDDED
    from bioreport.pipeline import ReportPipeline
    from bioreport.stages import Stages

    @cache
    def pipeline_of(model: str) -> "ReportPipeline | MeitPipeline":
        if Path(model).is_dir():
            from bioreport.meit import is_meit
            from bioreport.meit.pipeline import MeitPipeline

            if is_meit(model):
                return MeitPipeline.from_pretrained(
                    model, llm=options.llm, device=options.device, dtype=options.dtype
                )
        return ReportPipeline.from_pretrained(
            model,
            llm=options.llm,
            device=options.device,
            dtype=options.dtype,
            attention=options.attention,
        )

    def pipeline_for(modality: str) -> "ReportPipeline | MeitPipeline":
        return pipeline_of(options.model or EMBEDDED[modality].name)

    if options.model is not None:
        # a model that cannot be loaded is told before any signal is read
        pipeline_of(options.model)
    failed = 0
    waiting: dict[str, list[tuple[Path | None, list[Evidence], Stages]]] = {}

    def write_waiting(modality: str) -> int:
        batch = waiting.pop(modality, [])
        return write_batch(modality, batch) if batch else 0

    def write_batch(modality: str, batch: "list[tuple[Path | None, list[Evidence], Stages]]") -> int:
        try:
            reports = pipeline_for(modality).write(
                [evidence for _, evidence, _ in batch],
                [history] * len(batch),
                sections,
                signal=options.signal,
                temperature=temperature,
                seed=options.seed,
                stages=[stages for _, _, stages in batch],
            )
        except InputError as error:
            if len(batch) > 1:  # one that is too long for the model stops no other
                return sum(write_batch(modality, [one]) for one in batch)
            fail(error)
            return 1
        lost = 0
        for (target, _, stages), report in zip(batch, reports, strict=True):
            try:
                _deliver(options, target, form, report, stages)
            except InputError as error:
                fail(error)
                lost += 1
        return lost

    # None: shown on a terminal, kept out of a log
    hidden = True if options.quiet or len(groups) == 1 else None
    bar = tqdm(groups, disable=hidden, unit="report", file=sys.stderr)
    for group, target in zip(bar, targets, strict=True):
        stages = Stages()
        try:
            recordings = _open_group(group, sections, options, stages)
        except InputError as error:
            fail(error)
            failed += 1
            continue
        modality = recordings[0].modality
        # outside of what counts as a recording's failure: without its model no report can be written
        pipeline = pipeline_for(modality)
        try:
            evidence = pipeline.read(
                tuple(recordings), line_frequency=options.line_frequency, signal=options.signal, stages=stages
            )
        except InputError as error:
            fail(error)
            failed += 1
            continue
        waiting.setdefault(modality, []).append((target, evidence, stages))
        if len(waiting[modality]) == options.batch_size:
            failed += write_waiting(modality)
    failed += sum(write_waiting(modality) for modality in list(waiting))
    if options.verbose:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        say(options, f"peak memory {peak:.0f} MiB")
    return 1 if failed else 0


def _sections(given: str | None, parser: argparse.ArgumentParser) -> list[str] | None:
    """The names of ``--sections`` as they are spelt in reports."""
    from bioreport.prompts import ECG_SECTIONS, SECTIONS

    if given is None:
        return None
    known = tuple(dict.fromkeys([*SECTIONS, *ECG_SECTIONS]))
    by_fold = {name.casefold(): name for name in known}
    sections: list[str] = []
    for one in given.split(","):
        if one.strip().casefold() not in by_fold:
            parser.error(f"unknown section {one.strip()!r}; known are: {', '.join(known)}")
        sections.append(by_fold[one.strip().casefold()])
        if sections.count(sections[-1]) > 1:
            parser.error(f"section {sections[-1]} is asked for twice")
    return sections


def _open_group(
    group: tuple[Path, ...], sections: list[str] | None, options: argparse.Namespace, stages: "Stages"
) -> "list[Recording | EcgRecording]":
    from bioreport.prompts import sections_of
    from bioreport.recording import open_recording

    recordings: list[Recording | EcgRecording] = []
    for path in group:
        with stages("open"):
            recording = open_recording(path)
        for line in _mapping_lines(recording):
            say(options, line, only_verbose=True)
        kind = recording.modality.upper()
        if recordings and recording.modality != recordings[0].modality:
            raise InputError(
                path,
                f"is an {kind}, and {recordings[0].path.name} is an {recordings[0].modality.upper()}",
                "give recordings of two kinds without --together",
            )
        for name in sections or ():
            if name not in sections_of(recording.modality):
                raise InputError(
                    path,
                    f"is an {kind}, whose reports have no section {name}",
                    f"choose from: {', '.join(sections_of(recording.modality))}",
                )
        recordings.append(recording)
    return recordings


def _mapping_lines(recording: "Recording | EcgRecording") -> list[str]:
    lines = [
        f"{recording.path.name}: {len(recording.names)} channels, {recording.sfreq:g} Hz, "
        f"{recording.duration_seconds:.1f} s"
    ]
    return lines + [f"  {label} -> {name}" for label, name in recording.mapping.items()]


def _deliver(
    options: argparse.Namespace, target: Path | None, form: str, report: "Report", stages: "Stages"
) -> None:
    text = report.render(form)
    if target is None:
        if sys.stdout is None:  # closed before we began
            raise InputError("standard output", "is closed", "leave it open or name a file with -o")
        sys.stdout.write(text)
        sys.stdout.flush()
    else:
        write_atomically(target, text)
        say(options, f"{target}: written")
    for warning in report.warnings:
        say(options, f"{report.file}: {warning}")
    signal = sum(
        stages.seconds.get(name, 0.0) for name in ("mains", "read", "preprocess", "measure", "encode")
    )
    times = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in stages.seconds.items())
    say(
        options,
        f"{report.file}: {report.duration_seconds / max(signal, 1e-9):.0f} × real time to tokens; {times}",
        only_verbose=True,
    )


def _history(given: str | None) -> str | None:
    if given is None or not given.startswith("@"):
        return given
    path = Path(given[1:])
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is no UTF-8 text"
        raise InputError(
            path,
            f"cannot be read as a history ({reason.lower()})",
            "give a UTF-8 text file after --history @",
        ) from error


def _targets(
    options: argparse.Namespace, groups: list[tuple[Path, ...]], parser: argparse.ArgumentParser
) -> tuple[list[Path | None], str]:
    """Where each report goes, and in which form."""
    endings = {".md": "md", ".json": "json", ".html": "html"}
    output = options.output
    if output is None:
        if len(groups) > 1:
            parser.error("several reports need -o DIR (or --together for one report of all)")
        return [None], options.format or "md"
    path = Path(output)
    is_folder = len(groups) > 1 or path.is_dir() or output.endswith("/")
    if not is_folder:
        return [path], options.format or endings.get(path.suffix.lower(), "md")
    if path.exists() and not path.is_dir():
        parser.error(f"-o {output} is a file; several reports need a folder")
    form = options.format or "md"
    targets: list[Path | None] = [path / f"{group[0].stem}.{form}" for group in groups]
    for target in targets:
        if targets.count(target) > 1:
            parser.error(f"two inputs would both write {target}; give them in two calls with different -o")
    return targets, form
