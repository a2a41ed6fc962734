"""`generate`: a report of each recording."""

import argparse
import json
import math
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from bioreport.commands.console import fail, quiet_libraries, say
from bioreport.errors import InputError
from bioreport.files import remove_leftovers, write_atomically
from bioreport.jobs import Job, check_targets, gather, in_folder

if TYPE_CHECKING:
    from bioreport.ahead import Models, Read
    from bioreport.report import Report

# Reports that wait to be put into batches by length, in batches: what is held stays small, and so does what
# a kill costs. Hours of EEG take long to fill one: `bioreport.ahead.PATIENCE`.
WINDOW = 4


def generate(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Write one report a recording, or one of all with ``--together``."""
    sections = _sections(options.sections, parser)
    jobs, many = gather(options.files, _history(options.history))
    if options.together:
        if any(len(job.recordings) > 1 for job in jobs):
            parser.error("--together is for recordings; a manifest says itself which share a report")
        jobs, many = [replace(jobs[0], recordings=tuple(job.recordings[0] for job in jobs))], False
    jobs, form = _with_targets(options, jobs, many, parser)
    temperature = (
        options.temperature if options.temperature is not None else 0.0 if options.seed is None else 0.7
    )
    quiet_libraries(options)

    from bioreport.ahead import Models, Reader, read_ahead

    models = Models(options.model, options.llm, options.device, options.dtype, options.attention)
    if options.model is not None:
        # a model that cannot be loaded is told before any signal is read
        models.writer("eeg")
    in_folder = jobs[0].target is not None and jobs[0].target != Path(options.output)
    reader = Reader(
        models,
        sections,
        options.signal,
        options.line_frequency,
        _settings(options, sections, temperature) if in_folder else None,
    )
    if in_folder:
        remove_leftovers(job.target for job in jobs if job.target is not None)
    # None: shown on a terminal, kept out of a log
    hidden = True if options.quiet or len(jobs) == 1 else None
    start = time.monotonic()
    with tqdm(total=len(jobs), disable=hidden, unit="report", file=sys.stderr) as bar:
        writing = _Writing(options, models, sections, form, temperature, bar)
        for read in read_ahead(jobs, reader, options.workers, writing.hasten):
            writing.take(read)
        writing.finish()
    if len(jobs) > 1:
        say(options, writing.summary(time.monotonic() - start))
    if options.verbose:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        say(options, f"peak memory {peak:.0f} MiB")
    return 1 if writing.failed else 0


class _Writing:
    """Reports out of what was read, in batches of like length."""

    def __init__(
        self,
        options: argparse.Namespace,
        models: "Models",
        sections: list[str] | None,
        form: str,
        temperature: float,
        bar: "tqdm[None]",
    ) -> None:
        self.options, self.models, self.sections = options, models, sections
        self.form, self.temperature, self.bar = form, temperature, bar
        self.read = self.written = self.kept = self.failed = 0
        self._waiting: dict[str, list[tuple[int, Read]]] = {}
        self._oldest = math.inf  # when the first of them came
        self._taken = time.monotonic()

    def take(self, read: "Read") -> None:
        """Count what needs no writing; write what waits where enough does, or has waited long."""
        # the next one will take as long as this one did
        wait = time.monotonic() - self._taken
        self._take(read)
        self.hasten(wait)
        self._taken = time.monotonic()

    def hasten(self, seconds: float = 0.0) -> None:
        """Write what waits where the oldest will have waited long in so many seconds."""
        from bioreport.ahead import PATIENCE

        if time.monotonic() + seconds - self._oldest > PATIENCE:
            self.finish()

    def _take(self, read: "Read") -> None:
        self.read += 1
        self.bar.set_postfix_str(f"{self.read} read", refresh=False)
        for line in read.notes:
            say(self.options, line, only_verbose=True)
        if read.kept:
            self.kept += 1
            self.bar.update()
            return
        if read.error is not None:
            self._lose(read, read.error)
            return
        pipeline = self.models.writer(read.modality)
        length = pipeline.length(read.evidence, read.job.history, self.sections, signal=self.options.signal)
        waiting = self._waiting.setdefault(read.modality, [])
        waiting.append((length, read))
        self._oldest = min(self._oldest, time.monotonic())
        if len(waiting) == WINDOW * self.options.batch_size:
            self._write_waiting(read.modality)

    def finish(self) -> None:
        """Write all that still waits."""
        for modality in list(self._waiting):
            self._write_waiting(modality)

    def summary(self, seconds: float) -> str:
        """What was done, in one line."""
        parts = [f"{self.written} report{'' if self.written == 1 else 's'} written"]
        if self.kept:
            parts.append(f"{self.kept} kept, whose recording, model and options are the same")
        if self.failed:
            parts.append(f"{self.failed} failed")
        speed = f", {self.written / seconds * 3600:.0f} reports/h" if self.written else ""
        return f"{'; '.join(parts)}; {seconds:.0f} s{speed}"

    def _write_waiting(self, modality: str) -> None:
        # stable: those of one length stay in the order of the call
        waiting = sorted(self._waiting.pop(modality), key=lambda pair: pair[0])
        if not self._waiting:
            self._oldest = math.inf
        size = self.options.batch_size
        for first in range(0, len(waiting), size):
            self._write([read for _, read in waiting[first : first + size]])

    def _write(self, batch: "list[Read]") -> None:
        from torch import OutOfMemoryError

        try:
            reports = self.models.writer(batch[0].modality).write(
                [read.evidence for read in batch],
                [read.job.history for read in batch],
                self.sections,
                signal=self.options.signal,
                temperature=self.temperature,
                seed=self.options.seed,
                stages=[read.stages for read in batch],
            )
        except (InputError, OutOfMemoryError) as error:
            if len(batch) > 1:  # one that is too long for the model stops no other
                for read in batch:
                    self._write([read])
            elif isinstance(error, InputError):
                self._lose(batch[0], error)
            else:
                self._lose(batch[0], _too_much(batch[0]))
            return
        for read, report in zip(batch, reports, strict=True):
            report.key = read.key
            try:
                self._deliver(read, report)
            except InputError as error:
                self._lose(read, error)
            else:
                self.written += 1
                self.bar.update()

    def _lose(self, read: "Read", error: InputError) -> None:
        fail(error)
        self.failed += 1
        self.bar.update()
        self._tell_of_stale(read)

    def _tell_of_stale(self, read: "Read") -> None:
        """A report of what a recording held before it broke stays, for it may be the only one left of it."""
        from bioreport.keys import same_content, written_key

        target = read.job.target
        if target is None or not read.key:
            return
        earlier = written_key(target)
        if earlier and not same_content(earlier, read.key):
            # an error like the recording's own, so said also where all else is quiet
            left = f"bioreport: {target}: left as it is, of what the recording held before"
            tqdm.write(left, file=sys.stderr)

    def _deliver(self, read: "Read", report: "Report") -> None:
        options, target, stages = self.options, read.job.target, read.stages
        text = report.render(self.form)
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
            f"{report.file}: {report.duration_seconds / max(signal, 1e-9):.0f} × real time to tokens; "
            f"{times}",
            only_verbose=True,
        )


def _too_much(read: "Read") -> InputError:
    return InputError(
        read.job.recordings[0],
        "needs more memory for its report than the GPU has left",
        "use --dtype bfloat16, a smaller model, or --device cpu",
    )


def _settings(options: argparse.Namespace, sections: list[str] | None, temperature: float) -> str:
    """All that decides a report's text beside its recordings and history."""
    from bioreport.devices import resolve_device, resolve_dtype
    from bioreport.hub import EMBEDDED, model_folder
    from bioreport.keys import fingerprint

    models = [model_folder(options.model)] if options.model else list(EMBEDDED.values())
    return json.dumps(
        [
            [fingerprint(model, options.llm) for model in models],
            str(resolve_dtype(options.dtype, resolve_device(options.device))),
            options.attention,
            sections,
            options.signal,
            options.line_frequency,
            temperature,
            options.seed if temperature else None,
        ]
    )


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


def _with_targets(
    options: argparse.Namespace, jobs: list[Job], many: bool, parser: argparse.ArgumentParser
) -> tuple[list[Job], str]:
    """The jobs with where each report goes, and the form of all."""
    endings = {".md": "md", ".json": "json", ".html": "html"}
    output, many = options.output, many or len(jobs) > 1
    history = [options.history] if (options.history or "").startswith("@") else []
    read = [Path(str(name).removeprefix("@")) for name in [*options.files, *history]]
    if output is None:
        if many:
            parser.error("several reports need -o DIR (or --together for one report of all)")
        return jobs, options.format or "md"
    path = Path(output)
    if not (many or path.is_dir() or output.endswith("/")):
        jobs = [replace(jobs[0], target=path)]
        check_targets(jobs, read)
        ending = path.suffix.lower()
        if ending not in ("", *endings) and options.format is None:
            parser.error(f"-o {output}: the ending is .md, .json or .html, or --format says the form")
        return jobs, options.format or endings.get(ending, "md")
    if path.exists() and not path.is_dir():
        parser.error(f"-o {output} is a file; several reports need a folder")
    form = options.format or "md"
    jobs = in_folder(jobs, path, form, parser.error, keep=many and not options.overwrite)
    check_targets(jobs, read)
    return jobs, form
