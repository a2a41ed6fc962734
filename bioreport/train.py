"""Training of the projector and the special tokens, and of the LLM where asked for, on a frozen encoder.

The encoder runs once (`bioreport.tokens`); training reads its tokens. ``OUT`` becomes the bundle, and the
folder ``OUT.training`` beside it holds the tokens and the checkpoint, and may be removed afterwards.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bioreport import processes, sharding
from bioreport.bundle import Bundle
from bioreport.bundle_reader import load_bundle
from bioreport.bundle_writer import check_destination, save_bundle
from bioreport.errors import InputError
from bioreport.hub import EMBEDDED
from bioreport.llm import load_llm
from bioreport.lora import PUBLISHED, LoraSizes
from bioreport.manifest import Entry, read_manifest
from bioreport.pipeline import merge_parts, prompt_for
from bioreport.projectors import Projector, build_projector
from bioreport.prompts import layout_for, sections_of
from bioreport.recipes import DEFAULT
from bioreport.tokens import TokenStore, encode_manifest
from bioreport.training import VALIDATION, Result, TrainingRun, check_settings, saved_settings

if TYPE_CHECKING:
    from bioreport.fusion import PackedInputs, PrefixFusion

logger = logging.getLogger(__name__)
# so that the model also writes reports of patients whose history nobody gave
HISTORY_LEFT_OUT = 0.25
# so that the signal's embeddings learn to say what the facts say; a prompt that always held them would teach
# the projector nothing
FACTS_LEFT_OUT = 0.5


class StoredSessions(Sequence[Tensor]):
    """Tokens of a report's recordings, read anew whenever they are asked for: a corpus's may be many GB."""

    def __init__(self, store: TokenStore, keys: Sequence[str]) -> None:
        self.store, self.keys = store, list(keys)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: Any) -> Any:
        return self.store.tokens(self.keys[index])


@dataclass(frozen=True)
class Sample:
    """What one report is trained on."""

    file: str
    sessions: Sequence[Tensor]
    keys: tuple[str, ...]  # of the sessions in the store
    epochs: int  # tokens of all sessions
    prompts: list[str]  # whole, without history, without facts, without both
    response: str


def train(
    manifest: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    llm: str | None = None,
    projector: str = "sequence-perceiver",
    projector_sizes: dict[str, Any] | None = None,
    encoder_bundle: str | os.PathLike[str] | Bundle = "bioreport-tiny",
    tune: str = "projector",
    lora: LoraSizes | None = None,
    quantize: str | None = None,
    epochs: int = DEFAULT.epochs,
    batch_size: int = DEFAULT.batch_size,
    at_once: int | None = None,
    lr: float = DEFAULT.lr,
    weight_decay: float = DEFAULT.weight_decay,
    warmup: float = DEFAULT.warmup,
    clip: float = DEFAULT.clip,
    seed: int = DEFAULT.seed,
    max_steps: int | None = None,
    patience: int | None = None,
    gradient_checkpointing: bool = False,
    shard: bool = False,
    log: str | os.PathLike[str] | None = None,
    tokens: str | os.PathLike[str] | None = None,
    resume: bool = True,
    save_every: int = 100,
    device: str = "auto",
    dtype: str = "auto",
    attention: str = "auto",
    progress: bool = False,
    on_step: Callable[[int, float], None] | None = None,
) -> Result:
    """Train a projector for an LLM and write the bundle.

    Within `bioreport.processes.joined` several processes do the same together. `bioreport.recipes` has the
    published settings, and in what training differs.

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
    tune : {"projector", "lora", "full"}
        What learns of the LLM besides: nothing, low-rank adapters, all. An LLM that learns itself is kept in
        float32, whose steps bfloat16 could not tell apart, and computed with in `dtype` (autocast).
    lora : LoraSizes, optional
    quantize : {None, "4bit"}
        See `load_llm`; with ``tune="lora"`` this is QLoRA.
    epochs, batch_size, at_once, lr, weight_decay, warmup, clip, max_steps, patience, log
        See `TrainingRun`.
    seed : int
        Of the initial weights, the order and dropout.
    gradient_checkpointing : bool
        Keep only each layer's input for the backward pass: less memory, more time.
    shard : bool
        Spread the LLM's layers over the processes, see `bioreport.sharding`.
    tokens : path-like, optional
        Folder that `bioreport encode` wrote with the same encoder; by default ``OUT.training/tokens``.
    resume : bool
        Go on from the checkpoint in ``OUT.training``, to the same bits.
    save_every : int
        Steps between checkpoints.
    device, dtype, attention
        See `load_bundle`.
    on_step : callable, optional
        Called with the number of steps done and the last loss.

    Raises
    ------
    InputError
        Where the manifest, a model or the checkpoint cannot be used, or nothing is left to train on.
    """
    out = check_destination(out)
    work = out.with_name(out.name + ".training")
    token_folder = Path(tokens) if tokens is not None else work / "tokens"
    entries = read_manifest(manifest)
    bundle = (
        encoder_bundle
        if isinstance(encoder_bundle, Bundle)
        else load_bundle(encoder_bundle, llm=llm, device=device, dtype=dtype, attention=attention)
    )
    if llm is not None:
        bundle = replace(bundle, llm_source=llm)
    for entry in entries:
        _check_sections(entry, bundle)
    store = TokenStore(token_folder)
    if tokens is not None and not store.index.is_file():
        raise InputError(
            token_folder,
            "holds no tokens (no index.jsonl lies in it)",
            "give the folder that `bioreport encode` wrote, or leave out --tokens",
        )
    store.check_modality(bundle)
    settings: dict[str, Any] = {
        "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay, "warmup": warmup, "clip": clip,
        "seed": seed, "patience": patience,
    }  # fmt: skip
    language_model = [bundle.llm_source, quantize]
    if resume and (work / "checkpoint.pt").is_file():
        # what has to be the same is told before anything is encoded, as far as it is known now
        known = {**settings, "projector": projector, "language_model": language_model}
        check_settings(work / "checkpoint.pt", saved_settings(work / "checkpoint.pt"), known)
    encoder = bundle
    filled = processes.from_first(lambda: encode_manifest(entries, encoder, token_folder, progress=progress))
    for error in filled.errors if processes.first() else ():
        logger.warning("%s", error)
    bundle, fusion = new_fusion(bundle, projector, projector_sizes or {}, seed, tune, lora, quantize)
    if gradient_checkpointing:
        fusion.checkpoint_activations()
    if shard:
        _spread(fusion, quantize)
    store = TokenStore(token_folder)
    training = read_samples([e for e in entries if e.split in ("train", None)], store, filled.keys, bundle)
    validating = read_samples([e for e in entries if e.split in VALIDATION], store, filled.keys, bundle)
    del store
    if not training:
        raise InputError(
            manifest,
            "has no report to train on (readable recording, sections, split train)",
            "give a manifest with sections, as `bioreport simulate eeg` writes it",
        )
    check_samples(fusion, [*training, *validating])
    # so that every process has something to do
    at_once = min(at_once or batch_size, processes.most(batch_size))
    run = Run(
        fusion, training, validating, epochs=epochs, at_once=at_once, max_steps=max_steps, log=log,
        kind=projector, language_model=language_model, **settings,
    )  # fmt: skip
    run.follow(
        work / "checkpoint.pt", resume=resume, save_every=save_every, progress=progress, on_step=on_step
    )
    bundle.name = out.name
    state = sharding.whole_state(fusion.llm) if tune == "full" else None
    if processes.first():
        save_bundle(bundle, out, llm_state=state)
    return Result(out, run.losses, run.validation, filled.errors)


def _spread(fusion: "PrefixFusion", quantize: str | None) -> None:
    from bioreport.packing import can_pack

    if quantize is not None:
        raise InputError("--shard", "does not spread quantized weights", "leave out --shard or --quantize")
    if not can_pack(fusion.llm):
        raise InputError(
            "--shard",
            f"needs packed batches, which a {fusion.llm.config.model_type} model does not take",
            "leave out --shard, or choose another LLM",
        )
    sharding.shard(fusion.llm)


def new_fusion(
    bundle: Bundle,
    kind: str,
    sizes: dict[str, Any],
    seed: int,
    tune: str = "projector",
    lora: LoraSizes | None = None,
    quantize: str | None = None,
) -> "tuple[Bundle, PrefixFusion]":
    """Give a bundle a fresh projector and special tokens for its LLM; these learn, and what `tune` names.

    Raises
    ------
    InputError
        Where the bundle names no LLM, it cannot be loaded, or what is asked for does not go together.
    """
    from bioreport.fusion import PrefixFusion

    if bundle.llm_source is None:
        raise InputError(bundle.where, "names no language model", "name one with --llm")
    if tune not in ("projector", "lora", "full"):
        raise ValueError(f"tune must be projector, lora or full, got {tune!r}")
    if tune == "full" and quantize is not None:
        raise InputError("--quantize", "keeps weights that cannot learn", "give --tune lora or projector")
    llm, tokenizer = load_llm(
        bundle.llm_source,
        device=bundle.device,
        dtype=torch.float32 if tune == "full" else bundle.dtype,
        attention=bundle.attention,
        quantize=quantize,
    )
    llm.requires_grad_(False).eval()
    width = llm.get_input_embeddings().embedding_dim
    # the initial weights hang on the seed alone, not on what was drawn before
    torch.manual_seed(seed)
    config = {"kind": kind, "encoder_dim": bundle.encoder_dim, "llm_dim": width, **sizes}
    if bundle.compat is not None:
        config["compat"] = bundle.compat
    try:
        projector = build_projector(**config).to(bundle.device)
    except ValueError as error:
        raise InputError(
            "--projector", f"cannot be built ({error})", "choose another, or other sizes"
        ) from error
    fusion = PrefixFusion(llm, tokenizer, projector, bundle.encoder_dim, compat=bundle.compat)
    if tune == "lora":
        fusion.add_lora(lora or PUBLISHED)
    elif tune == "full":
        fusion.learn_fully(bundle.dtype)
    learnt = "projector was" if tune == "projector" else "projector and language model were"
    fresh = replace(
        bundle,
        projector_config=config,
        projector=projector,
        special_tokens={},
        tune=tune,
        adapter=None,
        folder=None,
        disclaimer=f"Its {learnt} trained by its user, on the encoder of {bundle.name}.",
    )
    fresh.use(fusion)
    return fresh, fusion


def read_samples(
    entries: Sequence[Entry], store: TokenStore, keys_of: Mapping[Path, str], bundle: Bundle
) -> list[Sample]:
    """Entries with a report whose recordings are all in the store, as prompts and responses.

    keys_of has the key of each recording in the store, as `bioreport.tokens.Filled.keys`.
    """
    # one that does not hold what else is known of all recordings
    stored, samples = TokenStore(store.directory), []
    for entry in entries:
        _check_sections(entry, bundle)
        # the others are among encode_manifest's errors
        keys = [keys_of[path] for path in entry.recordings if path in keys_of]
        if not entry.sections or len(keys) < len(entry.recordings):
            continue
        group = [store.get(key) for key in keys]
        parts, names = merge_parts(group), list(entry.sections)
        samples.append(
            Sample(
                file=str(entry.recordings[0]),
                sessions=StoredSessions(stored, keys),
                keys=tuple(keys),
                epochs=sum(len(evidence.tokens) for evidence in group),
                prompts=[
                    prompt_for(told, names, history, "tokens", bundle)
                    for told in (parts, replace(parts, facts=[]))
                    for history in (entry.history, None)
                ],
                response=layout_for(bundle.compat).render(entry.sections),
            )
        )
    return samples


def _check_sections(entry: Entry, bundle: Bundle) -> None:
    unknown = [name for name in entry.sections if name not in sections_of(bundle.modality)]
    if not unknown:
        return
    other = {"eeg": "ecg", "ecg": "eeg"}[bundle.modality]
    if unknown[0] in sections_of(other):
        raise InputError(
            entry.recordings[0],
            f"is an {other.upper()} by its section {unknown[0]!r}, "
            f"but {bundle.name} is a model for {bundle.modality.upper()}",
            f"use --model {EMBEDDED[other].name} or another model for {other.upper()}",
        )
    raise InputError(
        entry.recordings[0],
        f"has the unknown section {unknown[0]!r} in the manifest",
        f"name it as one of: {', '.join(sections_of(bundle.modality))}",
    )


def _digest(samples: Sequence[Sample]) -> str:
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(f"{sample.prompts}\0{sample.response}\0{sample.keys}\0".encode())
    return digest.hexdigest()


def _pack(fusion: "PrefixFusion", samples: Sequence[Sample]) -> "PackedInputs":
    return fusion.pack(
        [sample.prompts[0] for sample in samples],
        [sample.sessions for sample in samples],
        [sample.response for sample in samples],
    )


@torch.no_grad()
def check_samples(fusion: "PrefixFusion", samples: Sequence[Sample]) -> None:
    """See before the first step that the language model can hold every sample, with its longest prompt.

    Raises
    ------
    InputError
        For the first one that it cannot.
    """
    limit = fusion.max_positions
    for sample in samples:
        # no token is less than a byte: what is short by this count need not be put together
        most = len(f"{sample.prompts[0]}{sample.response}".encode()) + sample.epochs
        if limit is not None and most < limit // 2 and isinstance(fusion.projector, Projector):
            continue
        try:
            _pack(fusion, [sample])
        except ValueError as error:
            raise InputError(
                sample.file, f"cannot be trained on ({error})", "shorten its history, or choose another LLM"
            ) from error


class Run(TrainingRun):
    """A run of what `read_samples` gives.

    Parameters
    ----------
    fusion : PrefixFusion
    samples, held_out : sequence of Sample
    kind : str
        The projector's.
    language_model : sequence of str or None
        What else a checkpoint must agree on: source and quantization.
    **settings
        See `TrainingRun`.
    """

    def __init__(
        self,
        fusion: "PrefixFusion",
        samples: Sequence[Sample],
        held_out: Sequence[Sample] = (),
        *,
        kind: str,
        language_model: Sequence[str | None] = (),
        **settings: Any,
    ) -> None:
        self.fusion = fusion
        self._targets: dict[str, int] = {}
        identity = {"projector": kind, "language_model": language_model, "data": _digest(samples)}
        super().__init__(fusion, samples, held_out, identity=identity, **settings)

    def plan(self, draw: torch.Generator) -> list[list[bool]]:
        """Whose history is left out of the prompt, and whose facts."""
        return [
            (torch.rand(len(self.samples), generator=draw) < share).tolist()
            for share in (HISTORY_LEFT_OUT, FACTS_LEFT_OUT)
        ]

    def shown(self, chosen: Sequence[int]) -> list[Sample]:
        """Samples of the next step, each with the prompt it is shown."""
        without_history, without_facts = self.planned()[1]
        return [
            replace(sample, prompts=[sample.prompts[without_history[i] + 2 * without_facts[i]]])
            for i, sample in ((i, self.samples[i]) for i in chosen)
        ]

    def loss(self, samples: Sequence[Sample]) -> Tensor:
        """Mean cross-entropy of the responses, after each one's first prompt."""
        return self.fusion(_pack(self.fusion, samples))

    def weight(self, samples: Sequence[Sample]) -> float:
        """Target tokens."""
        return float(sum(self._count(sample.response) for sample in samples))

    def _count(self, response: str) -> int:
        if response not in self._targets:
            self._targets[response] = len(self.fusion.encode_text(response)) + 1
        return self._targets[response]
