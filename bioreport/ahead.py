"""Recordings read ahead of the reports, in this process or in several beside it."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bioreport.bundle import load_bundle
from bioreport.ecg.reading import EcgRecording
from bioreport.errors import InputError
from bioreport.evidence import Evidence
from bioreport.hub import EMBEDDED, model_folder
from bioreport.jobs import Job
from bioreport.keys import report_key, written_key
from bioreport.meit.files import is_meit
from bioreport.meit.pipeline import MeitPipeline, MeitReader
from bioreport.pipeline import ReportPipeline
from bioreport.prompts import sections_of
from bioreport.recording import Recording, open_recording
from bioreport.stages import Stages

if TYPE_CHECKING:
    pass


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
    _readers: dict[str, ReportPipeline | MeitReader] = field(default_factory=dict, repr=False)
    _writers: dict[str, ReportPipeline | MeitPipeline] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> tuple[Any, ...]:
        # another process loads its own
        return Models, (self.model, self.llm, self.device, self.dtype, self.attention)

    def reader(self, modality: str) -> ReportPipeline | MeitReader:
        """What reads a recording, without a language model; raises InputError."""
        name = self._name(modality)
        if name not in self._readers:
            if is_meit(model_folder(name)):
                self._readers[name] = MeitReader(Path(name).name)
            else:
                self._readers[name] = ReportPipeline(
                    load_bundle(
                        name, llm=self.llm, device=self.device, dtype=self.dtype, attention=self.attention
                    )
                )
        return self._readers[name]

    def writer(self, modality: str) -> ReportPipeline | MeitPipeline:
        """What writes reports, with its language model; raises InputError."""
        name = self._name(modality)
        if name not in self._writers:
            reader = self.reader(modality)
            if isinstance(reader, ReportPipeline):
                _ = reader.bundle.fusion
                self._writers[name] = reader
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
        """Never raises InputError for a recording, only where the model cannot be loaded."""
        read = Read(job)
        try:
            if self.settings is not None:
                read.key = report_key(job, self.settings)
                read.kept = job.keep and job.target is not None and written_key(job.target) == read.key
                if read.kept:
                    return read
            recordings = self._open(job, read)
        except InputError as error:
            read.error = error
            return read
        read.modality = recordings[0].modality
        reader = self.models.reader(read.modality)
        try:
            read.evidence = reader.read(
                tuple(recordings),
                line_frequency=self.line_frequency,
                signal=cast(Any, self.signal),
                stages=read.stages,
            )
        except InputError as error:
            read.error = error
        return read

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


def read_ahead(jobs: Sequence[Job], reader: Callable[[Job], Read], workers: int = 1) -> Iterator[Read]:
    """What comes of each job, in the order of the jobs.

    Parameters
    ----------
    jobs : sequence of Job
    reader : Reader
    workers : int
        1 reads in this process, each job when it is asked for. More read in as many processes of their own,
        each at most two jobs ahead, whose results wait for their turn.

    Raises
    ------
    InputError
        Where a process was ended from outside.
    """
    if workers == 1:
        yield from map(reader, jobs)
        return
    from torch.utils.data import DataLoader

    loader: DataLoader[Any] = DataLoader(
        cast(Any, _Reading(jobs, reader)),
        batch_size=None,
        num_workers=min(workers, len(jobs)),
        prefetch_factor=2,
        collate_fn=_unchanged,
        multiprocessing_context="spawn",
    )
    # a worker that was killed is told of as a RuntimeError of these words
    try:
        for content in loader:
            yield pickle.loads(content)
    except RuntimeError as error:
        if "exited unexpectedly" not in str(error) and "is killed by signal" not in str(error):
            raise
        raise InputError(
            "--workers", "a process that read recordings was ended, perhaps for want of memory",
            "run the same command again with fewer; reports that are written stay",
        ) from error  # fmt: skip


@dataclass
class _Reading:
    """The jobs as a data set whose items are read in the loader's processes."""

    jobs: Sequence[Job]
    reader: Callable[[Job], Read]

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, number: int) -> bytes:
        # in bytes: a tensor would go through shared memory, of which a container often has 64 MB
        return pickle.dumps(self.reader(self.jobs[number]))


def _unchanged(item: Any) -> Any:
    return item
