"""Recordings read ahead of the reports, in this process or in several beside it."""

import logging
import math
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from bioreport.background import made_ahead
from bioreport.bundle_reader import load_bundle
from bioreport.devices import resolve_device
from bioreport.ecg.reading import EcgRecording
from bioreport.errors import InputError, ended_its_process, unforeseen
from bioreport.evidence import BundleReader, Evidence
from bioreport.hub import EMBEDDED, MEIT, format_of, model_folder
from bioreport.jobs import Job
from bioreport.keys import report_key, written_key
from bioreport.logs import quiet_loggers
from bioreport.prompts import sections_of
from bioreport.recording import Recording, open_recording
from bioreport.remote import local_copy, shown
from bioreport.stages import Stages
from bioreport.workers import Died, NotStarted, run_in_processes

if TYPE_CHECKING:
    from bioreport.meit.pipeline import MeitPipeline
    from bioreport.meit.reading import MeitReader
    from bioreport.pipeline import ReportPipeline

logger = logging.getLogger(__name__)
# results that wait for one before them
_WAITING = 128
# seconds after which what was read waits no longer: for its turn, or for a full window of reports
PATIENCE = 30.0
_IDLE = 1.0


@dataclass
class Models:
    """The model of each modality, loaded when it is first needed and once.

    Attributes
    ----------
    model : str or None
        Name, folder or Hub id; None is the embedded one of the recording's modality.
    llm, device, dtype, attention : str
        As `ReportPipeline.from_pretrained` takes them.
    """

    model: str | None = None
    llm: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    attention: str = "auto"
    _readers: "dict[str, BundleReader | MeitReader]" = field(default_factory=dict, repr=False)
    _writers: "dict[str, ReportPipeline | MeitPipeline]" = field(default_factory=dict, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # another process loads its own
        return Models, (self.model, self.llm, self.device, self.dtype, self.attention)

    def reader(self, modality: str) -> "BundleReader | MeitReader":
        """What reads a recording, without a language model; raises InputError."""
        name = self._name(modality)
        if name not in self._readers:
            if format_of(model_folder(name)) == MEIT:
                from bioreport.meit.reading import MeitReader

                self._readers[name] = MeitReader(Path(name).name)
            else:
                self._readers[name] = BundleReader(
                    load_bundle(
                        name, llm=self.llm, device=self.device, dtype=self.dtype, attention=self.attention
                    )
                )
        return self._readers[name]

    def writer(self, modality: str) -> "ReportPipeline | MeitPipeline":
        """What writes reports, with its language model; raises InputError."""
        # not for those who only read: transformers takes a second and 100 MB
        from bioreport.meit.pipeline import MeitPipeline
        from bioreport.pipeline import ReportPipeline

        name = self._name(modality)
        if name not in self._writers:
            reader = self.reader(modality)
            if isinstance(reader, BundleReader):
                _ = reader.bundle.fusion
                self._writers[name] = ReportPipeline(reader.bundle)
            else:
                self._writers[name] = MeitPipeline.from_pretrained(
                    name, llm=self.llm, device=self.device, dtype=self.dtype
                )
        return self._writers[name]

    def _name(self, modality: str) -> str:
        return self.model or EMBEDDED[modality].name


@dataclass
class Read:
    """What came of a job's recordings.

    Attributes
    ----------
    job : Job
    stages : Stages
        Seconds that it took.
    key : str
        See `bioreport.keys`; empty where no key is asked for.
    kept : bool
        The report that is there already is the one that would be written.
    modality : str
    evidence : list of Evidence
        Empty where `kept`, or where there is an `error`.
    notes : list of str
        How the files were understood.
    error : InputError or None
    """

    job: Job
    stages: Stages = field(default_factory=Stages)
    key: str = ""
    kept: bool = False
    modality: str = ""
    evidence: list[Evidence] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    error: InputError | None = None


@dataclass
class Reader:
    """Reads a job's recordings; goes to other processes as it is.

    Attributes
    ----------
    models : Models
    sections : list of str or None
        Those asked for.
    signal : {"tokens", "statistics", "none"}
    line_frequency : float or None
        Hz.
    settings : str or None
        For the reports' keys, see `report_key`; None asks for no key.
    """

    models: Models
    sections: list[str] | None = None
    signal: str = "tokens"
    line_frequency: float | None = None
    settings: str | None = None

    def __call__(self, job: Job) -> Read:
        """Never raises: whatever a recording leads to is told of it."""
        read = Read(job)
        try:
            with ExitStack() as copies:
                # those in object stores; their names stay
                paths = tuple(copies.enter_context(local_copy(path)) for path in job.recordings)
                self._read(replace(job, recordings=paths), read)
        except InputError as error:
            read.error = error
        except Exception as error:
            read.error = unforeseen(shown(job.recordings[0]), "read", error)
        return read

    def _read(self, job: Job, read: Read) -> None:
        if self.settings is not None:
            read.key = report_key(job, self.settings)
            read.kept = job.keep and job.target is not None and written_key(job.target) == read.key
            if read.kept:
                return
        recordings = self._open(job, read)
        read.modality = recordings[0].modality
        read.evidence = self.models.reader(read.modality).read(
            tuple(recordings),
            line_frequency=self.line_frequency,
            signal=cast(Any, self.signal),
            stages=read.stages,
        )

    def _open(self, job: Job, read: Read) -> list[Recording | EcgRecording]:
        recordings: list[Recording | EcgRecording] = []
        for path in job.recordings:
            with read.stages("open"):
                recording = open_recording(path)
            read.notes += _mapping_lines(recording)
            kind = recording.modality.upper()
            if recordings and recording.modality != recordings[0].modality:
                raise InputError(
                    path,
                    f"is an {kind}, and {recordings[0].path.name} is an {recordings[0].modality.upper()}",
                    "give recordings of two kinds without --together, or an entry each in a manifest",
                )
            for name in self.sections or ():
                if name not in sections_of(recording.modality):
                    raise InputError(
                        path,
                        f"is an {kind}, whose reports have no section {name}",
                        f"choose from: {', '.join(sections_of(recording.modality))}",
                    )
            recordings.append(recording)
        return recordings


def _mapping_lines(recording: Recording | EcgRecording) -> list[str]:
    lines = [
        f"{recording.path.name}: {len(recording.names)} channels, {recording.sfreq:g} Hz, "
        f"{recording.duration_seconds:.1f} s"
    ]
    return lines + [f"  {label} -> {name}" for label, name in recording.mapping.items()]


def read_ahead(
    jobs: Sequence[Job],
    reader: Callable[[Job], Read],
    workers: int = 1,
    idle: Callable[[], None] = lambda: None,
) -> Iterator[Read]:
    """What comes of each job, in the order of the jobs.

    Parameters
    ----------
    jobs : sequence of Job
    reader : Reader
    workers : int
        1 reads in this process, each job when it is asked for. More read in processes of their own while
        what they gave is worked on; a job that takes as long as `_WAITING` others, or for which another has
        waited `PATIENCE` seconds, loses its turn, so that what waits stays small. A process that dies costs
        its job alone.
    idle : callable
        Called about once a second while processes read and nothing comes.

    Raises
    ------
    InputError
        Where a process dies before it has begun.
    """
    if workers == 1:
        yield from map(reader, jobs)
        return
    workers = min(workers, len(jobs))
    setup = _Setup(reader, workers, logger.isEnabledFor(logging.INFO))
    results = run_in_processes(setup, enumerate(jobs), workers)
    # what is under way ends with its process: whoever presses Ctrl-C does not wait for it
    ahead = made_ahead(results, 2 * workers, idle=_IDLE, leave_after=1.0)
    try:
        yield from _in_turn(_opened(ahead), idle)
    except NotStarted as error:
        raise InputError(
            f"--workers {workers}", f"cannot be had ({error})", "give fewer, each needs about 600 MB"
        ) from error


def _opened(
    results: Iterator[tuple[tuple[int, Job], bytes | Died] | None],
) -> Iterator[tuple[int, Read] | None]:
    for found in results:
        if found is None:
            yield None
            continue
        (number, job), result = found
        if isinstance(result, Died):
            yield number, Read(job, error=ended_its_process(shown(job.recordings[0]), "reading", result))
        else:
            yield number, pickle.loads(result)


def _in_turn(results: Iterator[tuple[int, Read] | None], idle: Callable[[], None]) -> Iterator[Read]:
    waiting: dict[int, tuple[float, Read]] = {}
    turn = 0
    for result in results:
        if result is not None:
            number, read = result
            if number < turn:  # it lost its turn
                yield read
                continue
            waiting[number] = (time.monotonic(), read)
        longest = time.monotonic() - min((since for since, _ in waiting.values()), default=math.inf)
        if len(waiting) > _WAITING or longest > PATIENCE:
            turn = min(waiting)
        while turn in waiting:
            yield waiting.pop(turn)[1]
            turn += 1
        if result is None:
            idle()
    yield from (waiting[number][1] for number in sorted(waiting))


@dataclass(frozen=True)
class _Setup:
    """Sets up a process that reads: its share of the cores, and of the GPUs."""

    reader: Callable[[Job], Read]
    workers: int
    verbose: bool

    def __call__(self, number: int) -> Callable[[tuple[int, Job]], bytes]:
        quiet_loggers(self.verbose)
        torch.set_num_threads(max(1, torch.get_num_threads() // self.workers))
        models = getattr(self.reader, "models", None)
        if models is not None and resolve_device(models.device).type == "cuda":
            models.device = f"cuda:{number % torch.cuda.device_count()}"

        def work(task: tuple[int, Job]) -> bytes:
            # in bytes: a tensor would go through shared memory, of which a container often has 64 MB
            return pickle.dumps(self.reader(task[1]))

        return work
