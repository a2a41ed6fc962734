"""A corpus to tokens by several processes: each opens, filters and encodes, one writes (`token_writer`)."""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bioreport.bundle_reader import load_bundle
from bioreport.devices import resolve_device, resolve_dtype
from bioreport.encoders.cbramod import CBraMod
from bioreport.errors import InputError, ended_its_process, unforeseen
from bioreport.evidence import Evidence, read_evidence
from bioreport.files import write_atomically
from bioreport.logs import quiet_loggers
from bioreport.manifest import read_manifest
from bioreport.progress import Progress
from bioreport.recording import open_recording
from bioreport.remote import shown, url_of
from bioreport.token_writer import PARTS, Outcome, StoreWriter
from bioreport.tokens import TokenStore, encode_one, listed_name
from bioreport.workers import Died, run_in_processes

if TYPE_CHECKING:
    from bioreport.bundle import Bundle

logger = logging.getLogger(__name__)
Task = tuple[int, str]


@dataclass
class Summary:
    """What a run of `encode` came to.

    Attributes
    ----------
    encoded, already : int
        Recordings encoded by this run, and those that were there.
    errors : list of InputError
        One for each recording that could not be used.
    signal_seconds, seconds : float
        Of the signal that was encoded, and of the run.
    """

    encoded: int = 0
    already: int = 0
    errors: list[InputError] = field(default_factory=list)
    signal_seconds: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        done = f"{self.encoded:,} encoded, {self.already:,} already there, {len(self.errors):,} failed"
        if not self.encoded:
            return done
        speed = self.signal_seconds / max(self.seconds, 1e-9)
        signal = f"{self.signal_seconds / 3600:.2f} h of signal in {self.seconds:.1f} s"
        return f"{done}; {signal}, {speed:.0f} × real time"


@dataclass(frozen=True)
class Encoding:
    """All that a worker needs to encode any recording of a corpus.

    Attributes
    ----------
    model, device : str
        See `bioreport.bundle_reader.load_bundle`.
    dtype : str
        See `encode_corpus`.
    key : str
        `Bundle.encoding_key`.
    directory : Path
        Of the store.
    known : frozenset of bytes
        Keys that the store holds.
    left_over : frozenset of str
        Parts that a killed run has left.
    threads : int
        Of each worker; of EEGs each encodes batches of its own, see `bioreport.evidence.read_evidence`.
    copies : Path or None
        Where a recording from an object store lies meanwhile; None: where temporary files do.
    """

    model: str
    device: str
    dtype: str
    key: str
    directory: Path
    known: frozenset[bytes]
    left_over: frozenset[str]
    threads: int
    copies: Path | None = None

    def load(self, number: int) -> "Bundle":
        """The model, for worker `number`; workers share the GPUs in turn."""
        device = resolve_device(self.device)
        if device.type == "cuda":
            device = torch.device("cuda", number % torch.cuda.device_count())
            torch.cuda.set_device(device)
        bundle = load_bundle(self.model, device=device)
        torch.set_num_threads(1 if bundle.modality == "eeg" else self.threads)
        if isinstance(bundle.encoder, CBraMod):
            bundle.encoder.multiply_in(_products(self.dtype, device))
        return bundle

    def encode(self, bundle: "Bundle", task: Task) -> tuple[Outcome, bytes | None]:
        """One recording; see `bioreport.tokens.encode_one`. Whatever a reader raises is told of the file."""
        position, name = task
        path = Path(name)

        # a GPU takes one batch after the other
        threads = self.threads if bundle.device.type == "cpu" else 1

        def read(file: Path) -> Evidence:
            try:
                return read_evidence(open_recording(file), bundle, threads=threads)
            except InputError:
                raise
            except Exception as error:
                raise unforeseen(file, "encoded", error) from error

        return encode_one(
            position, path, self.directory, self.key, read,
            known=lambda key: bytes.fromhex(key) in self.known, left_over=self.left_over, copies=self.copies,
        )  # fmt: skip


@dataclass(frozen=True)
class _Local:
    """Sets up a worker on this machine, which writes its parts itself."""

    encoding: Encoding
    verbose: bool

    def __call__(self, number: int) -> Callable[[Task], Outcome]:
        quiet_loggers(self.verbose)
        bundle = self.encoding.load(number)

        def work(task: Task) -> Outcome:
            outcome, content = self.encoding.encode(bundle, task)
            if content is not None:
                assert outcome.part is not None
                write_atomically(self.encoding.directory / PARTS / outcome.part, content)
            return outcome

        return work


def encode_corpus(
    manifest: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] = "bioreport-tiny",
    device: str = "auto",
    dtype: str = "auto",
    workers: int = 1,
    cluster: str | None = None,
    progress: bool = False,
    on_error: Callable[[InputError], None] = lambda error: None,
) -> Summary:
    """Encode every recording of a manifest that the store does not hold yet.

    Killed at any instant and started again, it goes on; the store comes out the same, byte for byte, and
    with any number of workers: each batch of an EEG is one thread's. Of ECGs as far as the tokenizer computes
    the same bits with any number of threads.

    Parameters
    ----------
    manifest : path-like
    directory : path-like
        The store; made where it is missing.
    model : str or path-like
        Bundle.
    device : {"auto", "cpu", "cuda"}
        Worker i uses GPU i modulo their number.
    dtype : {"auto", "float32", "bfloat16"}
        That an EEG's encoder multiplies matrices in, see `CBraMod.multiply_in`; auto is bfloat16 where the
        device multiplies it. An ECG's tokenizer computes in float32.
    workers : int
        Processes. Each loads the model and has its share of the cores. A script that asks for them needs
        ``if __name__ == "__main__"``, as Python's `multiprocessing` does.
    cluster : {None, "ray"}
        ``"ray"``: the workers are actors of a Ray cluster, see `bioreport.cluster`.
    progress : bool
        Show it on stderr.
    on_error : callable
        Told of each recording that cannot be used, when it fails.

    Raises
    ------
    InputError
        Where the manifest, the model or the store cannot be used.
    """
    directory = Path(directory)
    if url_of(directory) is not None:
        raise InputError(
            shown(directory), "is in an object store, where nothing can be locked or appended to",
            "give a folder of this machine with -o, and copy it there afterwards",
        )  # fmt: skip
    paths = list(dict.fromkeys(path for entry in read_manifest(manifest) for path in entry.recordings))
    resolve_device(device)
    # on the CPU: this process encodes nothing
    bundle = load_bundle(model, device="cpu")
    key = bundle.encoding_key()
    store, summary = TokenStore(directory), Summary()
    store.check_modality(bundle)
    with (
        StoreWriter(store, len(paths)) as writer,
        Progress("encode", len(paths), progress) as bar,
    ):
        writer.open()
        encoding = Encoding(
            str(model), device, dtype, key, directory,
            known=frozenset(bytes.fromhex(key) for key in store.keys),
            left_over=writer.left_over(),
            threads=max(1, min(torch.get_num_threads(), _cores() // workers)),
            # where the next run finds what a killed one leaves
            copies=writer.parts,
        )  # fmt: skip
        if cluster == "ray":
            from bioreport.cluster import encoded_by_ray

            outcomes = encoded_by_ray(encoding, paths, workers, writer.write_part)
        else:
            outcomes = _encoded_here(encoding, paths, workers)
        for outcome in outcomes:
            if outcome.error is not None:
                summary.errors.append(outcome.error)
                on_error(outcome.error)
            elif outcome.fresh:
                summary.encoded += 1
                summary.signal_seconds += outcome.seconds
            else:
                summary.already += 1
            writer.put(outcome)
            bar.step(outcome.seconds, outcome.fresh or outcome.error is not None)
        summary.seconds = bar.seconds
    return summary


def _encoded_here(encoding: Encoding, paths: list[Path], workers: int) -> Iterator[Outcome]:
    """Outcomes as processes of this machine give them."""
    tasks = enumerate(map(str, paths))
    setup = _Local(encoding, logger.isEnabledFor(logging.INFO))
    for (position, name), outcome in run_in_processes(setup, tasks, min(workers, len(paths))):
        if isinstance(outcome, Died):
            outcome = lost(encoding, position, name, str(outcome))
        yield outcome


def lost(encoding: Encoding, position: int, name: str, why: str) -> Outcome:
    """What is told of a recording whose process died over it."""
    error = ended_its_process(shown(Path(name)), "encoding", why)
    return Outcome(position, listed_name(Path(name), encoding.directory), error=error)


def _products(dtype: str, device: torch.device) -> torch.dtype:
    if dtype != "auto":
        return resolve_dtype(dtype, device)
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def _cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
