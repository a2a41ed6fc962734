"""Training of the projector and the special tokens on a frozen encoder and a frozen LLM.

The encoder runs once (`bioreport.tokens`); training reads its tokens. ``OUT`` becomes the bundle, and the
folder ``OUT.training`` beside it holds the tokens and the checkpoint, and may be removed afterwards.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bioreport.bundle import Bundle, load_bundle, save_bundle
from bioreport.errors import InputError
from bioreport.llm import load_llm
from bioreport.manifest import Entry, read_manifest
from bioreport.pipeline import merge_parts, prompt_for
from bioreport.projectors import build_projector
from bioreport.prompts import layout_for, sections_of
from bioreport.tokens import TokenStore, encode_manifest, recording_key
from bioreport.training import VALIDATION, TrainingRun

if TYPE_CHECKING:
    from bioreport.fusion import PrefixFusion

logger = logging.getLogger(__name__)
# so that the model also writes reports of patients whose history nobody gave
HISTORY_LEFT_OUT = 0.25
# so that the signal's embeddings learn to say what the facts say; a prompt that always held them would teach
# the projector nothing
FACTS_LEFT_OUT = 0.5


@dataclass(frozen=True)
class Sample:
    """What one report is trained on."""

    file: str
    sessions: list[Tensor]
    prompts: list[str]  # whole, without history, without facts, without both
    response: str


@dataclass
class Result:
    """What a training run came to.

    Attributes
    ----------
    bundle : Path
    losses : list of float
        Mean cross-entropy of each step, in nats a token, from the first step on, resumed or not.
    validation : list of float
        The same on the validation split after each epoch; empty without one.
    errors : list of InputError
        Recordings that could not be used.
    """

    bundle: Path
    losses: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    errors: list[InputError] = field(default_factory=list)


def train(
    manifest: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    llm: str | None = None,
    projector: str = "sequence-perceiver",
    projector_sizes: dict[str, Any] | None = None,
    encoder_bundle: str | os.PathLike[str] | Bundle = "bioreport-tiny",
    epochs: int = 10,
    batch_size: int = 4,
    lr: float = 1e-4,
    weight_decay: float = 0.01,
    warmup: float = 0.1,
    clip: float = 1.0,
    seed: int = 5,
    max_steps: int | None = None,
    tokens: str | os.PathLike[str] | None = None,
    resume: bool = True,
    save_every: int = 100,
    device: str = "auto",
    dtype: str = "auto",
    progress: bool = False,
    on_step: Callable[[int, float], None] | None = None,
) -> Result:
    """Train a projector for an LLM and write the bundle.

    The recipe is CELM's (Jathurshan0330/CELM): AdamW, linear warm-up and linear decay, gradients clipped.
    Unlike there, the encoder and the LLM are in eval mode, without dropout, and the rate does reach zero.

    Parameters
    ----------
    manifest : path-like
        Entries of split ``train`` or of none are trained on, those of ``val`` validate; others are left out.
    out : path-like
        Folder of the bundle.
    llm : str, optional
        Hub id or folder; by default the encoder bundle's.
    projector : {"linear", "sequence", "perceiver", "sequence-perceiver", "attention"}
        The last is ECG-Tok's adapter.
    projector_sizes : dict, optional
        Passed to `build_projector`.
    encoder_bundle : str, path-like or Bundle
        Where encoder, preprocessing and findings head come from.
    epochs, batch_size : int
    lr, weight_decay, warmup, clip : float
        Peak learning rate; AdamW's decay; share of the steps that warm up; largest norm of the gradient.
    seed : int
        Of the initial weights, the order and dropout.
    max_steps : int, optional
        Stop after this many steps; the learning rate reaches zero there.
    tokens : path-like, optional
        Folder that `bioreport encode` wrote with the same encoder; by default ``OUT.training/tokens``.
    resume : bool
        Go on from the checkpoint in ``OUT.training``, to the same bits.
    save_every : int
        Steps between checkpoints.
    on_step : callable, optional
        Called with the number of steps done and the last loss.

    Raises
    ------
    InputError
        Where the manifest, a model or the checkpoint cannot be used, or nothing is left to train on.
    """
    out = Path(out)
    work = out.with_name(out.name + ".training")
    token_folder = Path(tokens) if tokens is not None else work / "tokens"
    entries = read_manifest(manifest)
    bundle = (
        encoder_bundle
        if isinstance(encoder_bundle, Bundle)
        else load_bundle(encoder_bundle, llm=llm, device=device, dtype=dtype)
    )
    if llm is not None:
        bundle = replace(bundle, llm_source=llm)
    errors = encode_manifest(entries, bundle, token_folder, progress=progress)
    for error in errors:
        logger.warning("%s", error)
    bundle, fusion = new_fusion(bundle, projector, projector_sizes or {}, seed)
    store = TokenStore(token_folder)
    training = read_samples([e for e in entries if e.split in ("train", None)], store, bundle)
    validating = read_samples([e for e in entries if e.split in VALIDATION], store, bundle)
    if not training:
        raise InputError(
            manifest,
            "has no report to train on (readable recording, sections, split train)",
            "give a manifest with sections, as `bioreport simulate eeg` writes it",
        )
    run = Run(
        fusion,
        training,
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        warmup=warmup,
        clip=clip,
        max_steps=max_steps,
        kind=projector,
    )
    run.follow(
        work / "checkpoint.pt",
        resume=resume,
        save_every=save_every,
        validate=partial(mean_loss, fusion, validating, batch_size) if validating else None,
        progress=progress,
        on_step=on_step,
    )
    bundle.name = out.name
    save_bundle(bundle, out)
    return Result(out, run.losses, run.validation, errors)


def new_fusion(bundle: Bundle, kind: str, sizes: dict[str, Any], seed: int) -> "tuple[Bundle, PrefixFusion]":
    """Give a bundle a fresh projector and special tokens for its LLM; only these learn."""
    from bioreport.fusion import PrefixFusion

    if bundle.llm_source is None:
        raise InputError(bundle.where, "names no language model", "name one with --llm")
    llm, tokenizer = load_llm(bundle.llm_source, device=bundle.device, dtype=bundle.dtype)
    llm.requires_grad_(False).eval()
    width = llm.get_input_embeddings().embedding_dim
    # the initial weights hang on the seed alone, not on what was drawn before
    torch.manual_seed(seed)
    config = {"kind": kind, "encoder_dim": bundle.encoder_dim, "llm_dim": width, **sizes}
    if bundle.compat is not None:
        config["compat"] = bundle.compat
    projector = build_projector(**config)
    fusion = PrefixFusion(llm, tokenizer, projector, bundle.encoder_dim, compat=bundle.compat).to(
        bundle.device
    )
    fresh = replace(
        bundle,
        projector_config=config,
        projector=projector,
        special_tokens={},
        folder=None,
        disclaimer=f"Its projector was trained by its user, on the encoder of {bundle.name}.",
    )
    fresh.use(fusion)
    return fresh, fusion


def read_samples(entries: Sequence[Entry], store: TokenStore, bundle: Bundle) -> list[Sample]:
    """Entries with a report whose recordings are all in the store, as prompts and responses."""
    encoding = bundle.encoding_key()
    samples = []
    for entry in entries:
        unknown = [name for name in entry.sections if name not in sections_of(bundle.modality)]
        if unknown:
            raise InputError(
                entry.recordings[0],
                f"has the unknown section {unknown[0]!r} in the manifest",
                f"name it as one of: {', '.join(sections_of(bundle.modality))}",
            )
        try:
            keys = [recording_key(path, encoding) for path in entry.recordings]
        except InputError:
            # listed by encode_manifest already
            continue
        if not entry.sections or not all(key in store for key in keys):
            continue
        group = [store.get(key) for key in keys]
        parts, names = merge_parts(group), list(entry.sections)
        samples.append(
            Sample(
                file=str(entry.recordings[0]),
                sessions=[evidence.tokens for evidence in group],
                prompts=[
                    prompt_for(told, names, history, "tokens", bundle)
                    for told in (parts, replace(parts, facts=[]))
                    for history in (entry.history, None)
                ],
                response=layout_for(bundle.compat).render(entry.sections),
            )
        )
    return samples


def _digest(samples: Sequence[Sample]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(f"{sample.prompts}\0{sample.response}\0{[len(s) for s in sample.sessions]}\0".encode())
    return digest.hexdigest()


class Run(TrainingRun):
    """A run of what `read_samples` gives; ``kind`` is the projector's, the rest `TrainingRun`'s."""

    def __init__(
        self, fusion: "PrefixFusion", samples: Sequence[Sample], *, kind: str, **settings: Any
    ) -> None:
        self.fusion, self.samples = fusion, samples
        identity = {"projector": kind, "data": _digest(samples)}
        super().__init__(fusion, len(samples), identity=identity, **settings)

    def batch(self) -> list[tuple[Sample, str]]:
        """Samples of the next step with the prompt each is shown: from seed and step alone."""
        draw = self.draw()
        chosen = self.chosen(draw)
        without_history, without_facts = (
            (torch.rand(len(self.samples), generator=draw) < share).tolist()
            for share in (HISTORY_LEFT_OUT, FACTS_LEFT_OUT)
        )
        return [
            (self.samples[i], self.samples[i].prompts[without_history[i] + 2 * without_facts[i]])
            for i in chosen
        ]

    def learn(self) -> tuple[float, int]:
        """Gradients of the next step; returns its loss and its number of samples."""
        batch = self.batch()
        loss = loss_of(self.fusion, [sample for sample, _ in batch], [prompt for _, prompt in batch])
        loss.backward()
        return float(loss.detach()), len(batch)


def loss_of(fusion: "PrefixFusion", samples: Sequence[Sample], prompts: Sequence[str]) -> Tensor:
    """Mean cross-entropy of the responses."""
    try:
        fused = fusion.pack(
            prompts, [sample.sessions for sample in samples], [sample.response for sample in samples]
        )
    except ValueError as error:
        raise InputError(
            samples[0].file, f"cannot be trained on ({error})", "shorten its history, or choose another LLM"
        ) from error
    return fusion.loss(fused)


@torch.no_grad()
def mean_loss(fusion: "PrefixFusion", samples: Sequence[Sample], batch_size: int) -> float:
    """Mean over samples of the loss, without dropout."""
    fusion.eval()
    total = 0.0
    for first in range(0, len(samples), batch_size):
        batch = samples[first : first + batch_size]
        total += float(loss_of(fusion, batch, [sample.prompts[0] for sample in batch])) * len(batch)
    return total / len(samples)
