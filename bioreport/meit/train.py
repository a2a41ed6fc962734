"""MEIT's instruction tuning: encoder and LoRA learn from pairs of ECGs and reports.

``OUT`` becomes the model's folder; ``OUT.training`` beside it holds the records as the encoder sees them,
read once, and the checkpoint. It may be removed afterwards.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bioreport import processes, sharding
from bioreport.errors import InputError
from bioreport.lora import LoraSizes
from bioreport.manifest import Entry, read_manifest
from bioreport.meit.files import check_destination, new_meit, save_meit
from bioreport.meit.model import Meit
from bioreport.meit.records import RECORD_KEY, record_evidence
from bioreport.meit.text import PROMPTS, report_text
from bioreport.recipes import RECIPES
from bioreport.tokens import TokenStore, fill_store
from bioreport.training import VALIDATION, Result, TrainingRun

logger = logging.getLogger(__name__)
RECIPE = RECIPES["meit"]


@dataclass(frozen=True)
class EcgSample:
    """An ECG of the store and its report."""

    file: str
    key: str
    report: str


def train_meit(
    manifest: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    llm: str,
    full: bool = False,
    template: str | None = None,
    prompt: str = PROMPTS["mimic-iv-ecg"],
    max_length: int = 256,
    encoder: Mapping[str, Any] | None = None,
    lora: LoraSizes = RECIPE.lora,
    quantize: str | None = None,
    epochs: int = RECIPE.epochs,
    batch_size: int = RECIPE.batch_size,
    at_once: int = RECIPE.at_once or RECIPE.batch_size,
    lr: float = RECIPE.lr,
    weight_decay: float = RECIPE.weight_decay,
    warmup: float = RECIPE.warmup,
    clip: float = RECIPE.clip,
    seed: int = RECIPE.seed,
    max_steps: int | None = None,
    patience: int | None = None,
    gradient_checkpointing: bool = False,
    shard: bool = False,
    log: str | os.PathLike[str] | None = None,
    resume: bool = True,
    save_every: int = 100,
    device: str = "auto",
    dtype: str = "auto",
    progress: bool = False,
    on_step: Callable[[int, float], None] | None = None,
) -> Result:
    """Train MEIT on a manifest of ECGs and write its folder.

    The recipe is the published one (arXiv 2403.04945), see `bioreport.recipes`; the encoder learns from
    scratch. Within `bioreport.processes.joined` several processes do the same together: they share a batch's
    parts of `at_once` ECGs, so that batch norms see what they see with one process.

    Parameters
    ----------
    manifest : path-like
        Entries of split ``train`` or of none are trained on, those of ``val`` validate; others are left out.
        Each report is of one ECG.
    out : path-like
        Folder of the model.
    llm : str
        Hub id or folder of the language model.
    full : bool
        All its weights learn, in place of LoRA, and are written with the model.
    template, prompt, max_length
        See `Meit`.
    encoder : mapping, optional
        Sizes of `MeitEncoder`; by default the published ones.
    lora : LoraSizes
    quantize : {None, "4bit"}
        See `load_llm`.
    epochs, batch_size : int
        A last batch of a single ECG joins the one before it: batch norms need two.
    at_once : int
        ECGs computed at once; the gradients of a larger batch are added up, its batch norms see so many.
    lr, weight_decay, warmup, clip, seed, max_steps, patience, gradient_checkpointing, shard, log, resume, \
    save_every, on_step
        See `bioreport.train.train`.
    device, dtype
        See `new_meit`.
    progress : bool
        Show bars on stderr.

    Raises
    ------
    InputError
        Where the manifest, the language model or the checkpoint cannot be used, nothing is left to train on,
        or the prompt leaves no room for a report.
    """
    out = check_destination(out)
    work = out.with_name(out.name + ".training")
    entries = read_manifest(manifest)
    sizes = dict(encoder or {})
    meit = new_meit(
        llm, device=device, dtype=dtype, template=template, full=full, lora=lora, quantize=quantize,
        seed=seed, max_length=max_length, **sizes,
    )  # fmt: skip
    meit.prompt = prompt
    _check_room(meit)
    if gradient_checkpointing:
        meit.checkpoint_activations()
    if shard:
        sharding.shard(meit.language_model)
    single = [entry for entry in entries if len(entry.recordings) == 1 and entry.sections]
    paths = [entry.recordings[0] for entry in single]
    filled = processes.from_first(
        lambda: fill_store(
            TokenStore(work / "records"), paths, RECORD_KEY, record_evidence, progress=progress
        )
    )
    errors = _several(entries) + filled.errors
    store = TokenStore(work / "records")
    for error in errors if processes.first() else ():
        logger.warning("%s", error)
    training = read_samples([e for e in single if e.split in ("train", None)], filled.keys)
    validating = read_samples([e for e in single if e.split in VALIDATION], filled.keys)
    if not training:
        raise InputError(
            manifest,
            "has no report to train on (readable ECG, sections, split train)",
            "give a manifest with sections, as `bioreport simulate ecg` writes it",
        )
    if _normed_over_batch(sizes) and min(len(training), batch_size, at_once) < 2:
        raise InputError(
            manifest,
            "leaves one ECG to a batch, and the encoder's batch norms need two",
            "give more ECGs, or a --batch-size of 2 or more",
        )
    busy = -(-batch_size // at_once)
    if processes.first() and busy < processes.world():
        logger.warning(
            "%d of %d processes have nothing to do: lower --at-once or raise --batch-size",
            processes.world() - busy,
            processes.world(),
        )
    run = MeitRun(
        meit, training, validating, store=store, at_once=at_once, encoder=sizes, seed=seed, epochs=epochs,
        batch_size=batch_size, lr=lr, weight_decay=weight_decay, warmup=warmup, clip=clip,
        max_steps=max_steps, patience=patience, log=log,
    )  # fmt: skip
    run.follow(
        work / "checkpoint.pt", resume=resume, save_every=save_every, progress=progress, on_step=on_step
    )
    state = sharding.whole_state(meit.language_model) if full else None
    if processes.first():
        save_meit(meit.eval(), out, llm_state=state)
    cut = sum(_length(meit, sample) > meit.max_length for sample in training)
    return Result(out, run.losses, run.validation, errors, cut)


def _several(entries: Sequence[Entry]) -> list[InputError]:
    return [
        InputError(
            entry.recordings[0],
            f"has one report with {len(entry.recordings) - 1} more in the manifest, and MEIT reads one ECG",
            "give each ECG a report of its own",
        )
        for entry in entries
        if len(entry.recordings) > 1
    ]


def _normed_over_batch(sizes: Mapping[str, Any]) -> bool:
    """Whether an encoder of these sizes has batch norms over one embedding for each ECG."""
    return sizes.get("norm", "batch") == "batch" and sizes.get("entries", 1) == 1


def _check_room(meit: Meit) -> None:
    taken = len(meit.text.prompt_ids(meit.prompt))
    if taken >= meit.max_length:
        raise InputError(
            meit.llm_source or "the language model",
            f"takes {taken} tokens for the prompt, of {meit.max_length} for prompt and report together",
            "give more with --max-length, or choose a language model with more positions",
        )


def read_samples(entries: Sequence[Entry], keys_of: Mapping[Path, str]) -> list[EcgSample]:
    """Entries with a report whose ECGs are in the store, under these keys."""
    return [
        EcgSample(str(path), keys_of[path], report_text(entry.sections))
        for entry in entries
        if (path := entry.recordings[0]) in keys_of
    ]


def _length(meit: Meit, sample: EcgSample) -> int:
    text = meit.text
    return len(text.prompt_ids(meit.prompt)) + len(text.report_ids(meit.prompt, sample.report))


class MeitRun(TrainingRun):
    """A run of instruction tuning.

    Parameters
    ----------
    meit : Meit
    samples, held_out : sequence of EcgSample
    store : TokenStore
        Where their ECGs are; read when they are needed.
    at_once : int
        Samples computed at once, which batch norms see.
    encoder : mapping
        Sizes that were asked for, see `train_meit`.
    **settings
        See `TrainingRun`.
    """

    def __init__(
        self,
        meit: Meit,
        samples: Sequence[EcgSample],
        held_out: Sequence[EcgSample] = (),
        *,
        store: TokenStore,
        at_once: int,
        encoder: Mapping[str, Any],
        **settings: Any,
    ) -> None:
        self.meit, self.store = meit, store
        data = hashlib.sha256("".join(f"{s.key}\0{s.report}\0" for s in samples).encode()).hexdigest()
        identity = {
            "llm": meit.llm_source, "template": meit.text.template, "prompt": meit.prompt,
            "max_length": meit.max_length, "encoder": encoder, "at_once": at_once, "data": data,
        }  # fmt: skip
        super().__init__(meit, samples, held_out, identity=identity, at_once=at_once, **settings)

    def parts(self, samples: Sequence[Any], size: int) -> list[Sequence[Any]]:
        """Pieces of `size`, the last one shorter; one of a single sample joins the one before it."""
        parts = super().parts(samples, size)
        if len(parts) > 1 and len(parts[-1]) == 1:
            last = parts.pop()
            parts[-1] = [*parts[-1], *last]
        return parts

    def loss(self, samples: Sequence[EcgSample]) -> Tensor:
        """Mean cross-entropy of the reports' tokens."""
        records = [[self.store.tokens(sample.key)] for sample in samples]
        prompts = [self.meit.prompt] * len(samples)
        return self.meit(self.meit.embed(prompts, records, [sample.report for sample in samples]))
