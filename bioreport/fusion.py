"""The signal as a prefix of embeddings in a frozen causal language model.

Any decoder-only Hugging Face model is used as it is, through ``inputs_embeds``. What learns is the projector
and three embeddings, [1, hidden] each: before the signal, after it, and between two recordings of one report.

The frame around the signal is that of CELM (https://github.com/Jathurshan0330/CELM); ``compat="celm"`` also
puts it where that code does: in front of the chat template, with a separator after the last recording too.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bioreport.lora import LoraSizes, with_lora
from bioreport.packing import can_pack, packed_mask, packed_positions
from bioreport.prompts import SIGNAL
from bioreport.vocabulary import control_tokens

IGNORED = -100  # label of a position without a target, as in torch and transformers
TOKEN_KEYS = {
    "start_token": "start_eeg_token",
    "end_token": "end_eeg_token",
    "separator_token": "eeg_session_separator_token",
}


class TooLong(ValueError):
    """What the language model would have to hold exceeds its positions."""


@dataclass
class FusedInputs:
    """Embeddings of a batch of prompts with their signals.

    Attributes
    ----------
    inputs_embeds : Tensor [B, T, hidden]
        In the LLM's dtype; zeros where padded.
    attention_mask : Tensor [B, T] int64
        1 where there is a token.
    labels : Tensor [B, T] int64 or None
        The response's ids and the end token's; -100 elsewhere. None without responses.
    """

    inputs_embeds: Tensor
    attention_mask: Tensor
    labels: Tensor | None = None

    @property
    def position_ids(self) -> Tensor:
        """Positions [B, T] that count tokens alone, so that padding moves nothing."""
        return (self.attention_mask.cumsum(-1) - 1).clamp(min=0)

    def left_padded(self) -> "FusedInputs":
        """The same batch with its padding in front, as generation needs it."""
        rows = [e[m.bool()] for e, m in zip(self.inputs_embeds, self.attention_mask, strict=True)]
        return _pad(rows, None, side="left")


@dataclass
class PackedInputs:
    """Embeddings of a batch, one after the other: what training computes, without padding.

    Attributes
    ----------
    inputs_embeds : Tensor [1, N, hidden]
        In the LLM's dtype.
    labels : Tensor [1, N] int64
        The responses' ids and end tokens; -100 elsewhere.
    lengths : list of int
        Positions of each item; their sum is N.
    """

    inputs_embeds: Tensor
    labels: Tensor
    lengths: list[int]


def _pad(rows: list[Tensor], labels: list[Tensor] | None, side: str) -> FusedInputs:
    longest = max(len(row) for row in rows)
    device = rows[0].device

    def padded(tensors: Sequence[Tensor], value: int) -> Tensor:
        out = tensors[0].new_full((len(tensors), longest, *tensors[0].shape[1:]), value)
        for i, tensor in enumerate(tensors):
            where = slice(longest - len(tensor), None) if side == "left" else slice(0, len(tensor))
            out[i, where] = tensor
        return out

    mask = padded([torch.ones(len(row), dtype=torch.int64, device=device) for row in rows], 0)
    return FusedInputs(padded(rows, 0), mask, padded(labels, IGNORED) if labels is not None else None)


class PrefixFusion(nn.Module):
    """A causal LM that reads projected signal tokens amid its prompt.

    Parameters
    ----------
    llm : PreTrainedModel
        Decoder-only causal LM. It is frozen and stays in eval mode, until `add_lora` or `learn_fully` lets it
        learn.
    tokenizer : PreTrainedTokenizer
        Its tokenizer; must have an end token. Its chat template is used where it has one.
    projector : Module
        Its method ``packed`` maps tokens of several sessions to embeddings, as that of `Projector`.
    encoder_dim : int, optional
        Width of the tokens; checked in `embed` where given.
    compat : {None, "celm"}
        ``"celm"``: the sequence and the right padding of CELM's code.
    """

    def __init__(
        self,
        llm: Any,
        tokenizer: Any,
        projector: nn.Module,
        encoder_dim: int | None = None,
        *,
        compat: str | None = None,
    ) -> None:
        super().__init__()
        if compat not in (None, "celm"):
            raise ValueError(f"unknown compat {compat!r}; known is: celm")
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no end token (eos_token), so a response could not end")
        self.llm = llm.requires_grad_(False)
        self.tokenizer = tokenizer
        self.projector = projector
        self.encoder_dim = encoder_dim
        self.compat = compat
        embedding = llm.get_input_embeddings()
        width, device = embedding.embedding_dim, embedding.weight.device
        self.start_token = nn.Parameter(torch.empty(1, width, device=device))
        self.end_token = nn.Parameter(torch.empty(1, width, device=device))
        self.separator_token = nn.Parameter(torch.empty(1, width, device=device))
        for name in TOKEN_KEYS:
            nn.init.xavier_uniform_(getattr(self, name))
        # in a list, so that its weights, which are the LLM's, do not count twice
        self._adapter: list[Any] = []
        self.learns_fully = False
        self.compute: torch.dtype | None = None
        self._checkpointed: list[Any] = []
        # which of the optional arguments this family's forward has
        self._accepts = frozenset(inspect.signature(llm.forward).parameters)
        self.train(self.training)

    def train(self, mode: bool = True) -> "PrefixFusion":
        """Set the mode of what learns; an LLM that does not stays in eval mode, without dropout."""
        super().train(mode)
        if self.adapter is None and not self.learns_fully:
            self.llm.eval()
            # transformers asks a layer's mode whether to checkpoint it; its dropouts stay in eval mode
            for layer in self._checkpointed:
                layer.training = mode
        return self

    # what learns of the LLM

    @property
    def adapter(self) -> Any:
        """peft's model, or None without LoRA."""
        return self._adapter[0] if self._adapter else None

    def add_lora(self, sizes: LoraSizes, targets: Sequence[str] | None = None) -> None:
        """Low-rank adapters on the LLM; raises InputError where peft is not installed."""
        self.adopt(with_lora(self.llm, sizes.rank, sizes.alpha, sizes.dropout, targets))

    def adopt(self, adapter: Any) -> None:
        """Take peft's model, made around `llm`, for the LoRA."""
        self._adapter = [adapter]

    def learn_fully(self, compute: torch.dtype | None = None) -> None:
        """Let all weights of the LLM learn; where they have another dtype, it computes in `compute`."""
        self.llm.requires_grad_(True)
        self.learns_fully = True
        self.compute = compute if compute != self.llm.dtype else None

    def checkpoint_activations(self) -> None:
        """Keep only each layer's input for the backward pass, and compute the layer once more there."""
        enable = getattr(self.llm, "activation_checkpointing_enable", None)
        # older versions of transformers have the other name
        (enable or self.llm.gradient_checkpointing_enable)({"use_reentrant": False})
        self._checkpointed = [m for m in self.llm.modules() if getattr(m, "gradient_checkpointing", False)]

    @property
    def max_positions(self) -> int | None:
        """The longest sequence the LLM has positions for, where its configuration says."""
        return getattr(self.llm.config.get_text_config(), "max_position_embeddings", None)

    # state

    def trainable_state_dict(self) -> dict[str, Tensor]:
        """What learns, under the keys of a bundle: ``projector.*`` and the three special tokens."""
        state = {f"projector.{key}": value for key, value in self.projector.state_dict().items()}
        return state | {key: getattr(self, name).detach() for name, key in TOKEN_KEYS.items()}

    def load_trainable_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load what `trainable_state_dict` gave.

        Raises
        ------
        KeyError
            Where a special token is missing.
        RuntimeError
            Where the projector's keys or a shape do not fit.
        """
        prefix = "projector."
        self.projector.load_state_dict(
            {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        )
        with torch.no_grad():
            for name, key in TOKEN_KEYS.items():
                if state[key].shape != getattr(self, name).shape:
                    raise RuntimeError(
                        f"{key} has shape {tuple(state[key].shape)}, not {tuple(getattr(self, name).shape)}"
                    )
                getattr(self, name).copy_(state[key])

    # text

    def encode_text(self, text: str) -> list[int]:
        """Ids of ``text`` without special tokens at its ends.

        Line by line: a token then never reaches into the next line, so that a response is tokenised in
        training as it is put together in generation. For ``compat="celm"`` in one piece, as published.
        """
        lines = [text] if self.compat == "celm" else text.splitlines(keepends=True)
        return [i for line in lines for i in self._ids(line)]

    def _ids(self, text: str, special: bool = False) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=special)["input_ids"]) if text else []

    def _prompt_ids(self, prompt: str) -> tuple[list[int], list[int]]:
        """Ids of the prompt before and after its signal."""
        tokenizer = self.tokenizer
        templated = getattr(tokenizer, "chat_template", None) is not None
        if self.compat == "celm":
            if templated:
                prompt = tokenizer.apply_chat_template(
                    [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
                )
            return [], self._ids(prompt, special=True)
        # in a history they would forge the chat's structure
        for word in sorted(control_tokens(tokenizer).values(), key=len, reverse=True):
            if word != SIGNAL:
                prompt = prompt.replace(word, " ")
        if prompt.count(SIGNAL) > 1:
            raise ValueError(f"the prompt holds {SIGNAL} {prompt.count(SIGNAL)} times; once is the most")
        if templated:
            # families that think aloud would otherwise put that where the report begins
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=False,
            )
            begin: list[int] = []
        else:
            text = f"{prompt}\n"
            begin = self._begin_ids()
        if text.count(SIGNAL) != prompt.count(SIGNAL):
            raise ValueError("the chat template does not pass on the prompt unchanged")
        before, _, after = text.partition(SIGNAL) if SIGNAL in text else ("", "", text)
        return begin + self._ids(before), self._ids(after)

    def _begin_ids(self) -> list[int]:
        begin = self.tokenizer.bos_token_id
        return [begin] if begin is not None and self._ids("a", special=True)[:1] == [begin] else []

    # fusion

    def embed(
        self,
        prompts: Sequence[str],
        sessions: Sequence[Sequence[Tensor]],
        responses: Sequence[str] | None = None,
    ) -> FusedInputs:
        """Embeddings of prompts, their signals, and the responses to learn.

        Parameters
        ----------
        prompts : sequence of str, length B
            From `bioreport.prompts.build_prompt`.
        sessions : sequence of (sequence of Tensor [T, encoder_dim]), length B
            Tokens of each report's recordings; an empty inner sequence is a prompt without signal.
        responses : sequence of str, length B, optional
            What the LLM shall write. With them the batch has labels and is padded on the right; without, on
            the left.

        Raises
        ------
        ValueError
            Where lengths or widths do not fit, a recording has no tokens, a prompt with a signal has no place
            for it, or a sequence is longer than the LLM has positions.
        """
        rows, labels = self._rows(prompts, sessions, responses)
        if responses is not None:
            return _pad(rows, labels, side="right")
        return _pad(rows, None, side="right" if self.compat == "celm" else "left")

    def pack(
        self, prompts: Sequence[str], sessions: Sequence[Sequence[Tensor]], responses: Sequence[str]
    ) -> PackedInputs:
        """What `embed` makes of a batch to learn, one item after the other in place of padded rows."""
        rows, labels = self._rows(prompts, sessions, responses)
        return PackedInputs(torch.cat(rows)[None], torch.cat(labels)[None], [len(row) for row in rows])

    def _rows(
        self,
        prompts: Sequence[str],
        sessions: Sequence[Sequence[Tensor]],
        responses: Sequence[str] | None,
    ) -> tuple[list[Tensor], list[Tensor]]:
        if len(sessions) != len(prompts) or (responses is not None and len(responses) != len(prompts)):
            raise ValueError("prompts, sessions and responses differ in number")
        if not prompts:
            raise ValueError("an empty batch")
        signals = self._project(sessions)
        rows, labels = [], []
        for i, prompt in enumerate(prompts):
            if sessions[i] and self.compat is None and SIGNAL not in prompt:
                raise ValueError(f"a prompt with recordings has no {SIGNAL} to say where they go")
            if not sessions[i] or self.compat == "celm":
                prompt = prompt.replace(f"{SIGNAL}\n", "").replace(SIGNAL, "")
            before, after = self._prompt_ids(prompt)
            target = []
            if responses is not None:
                target = [*self.encode_text(responses[i]), self.tokenizer.eos_token_id]
            text = self._embed_ids(before + after + target)
            head, tail = text[: len(before)], text[len(before) :]
            row = torch.cat([head, self._frame(signals[i]).to(text.dtype), tail]) if signals[i] else text
            self._check_length(len(row))
            rows.append(row)
            label = torch.full((len(row),), IGNORED, device=row.device)
            if target:
                label[-len(target) :] = torch.tensor(target, device=row.device)
            labels.append(label)
        return rows, labels

    def _embed_ids(self, ids: list[int]) -> Tensor:
        embedding = self.llm.get_input_embeddings()
        return embedding(torch.tensor(ids, dtype=torch.int64, device=embedding.weight.device))

    def _frame(self, signals: list[Tensor]) -> Tensor:
        pieces: list[Tensor] = [self.start_token]
        for i, signal in enumerate(signals):
            pieces.append(signal)
            if self.compat == "celm" or i + 1 < len(signals):
                pieces.append(self.separator_token)
        return torch.cat([*pieces, self.end_token])

    def _project(self, sessions: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Projected tokens of every session, all packed through the projector together."""
        packed = [tokens for group in sessions for tokens in group]
        for tokens in packed:
            if tokens.ndim != 2 or not len(tokens):
                raise ValueError(f"tokens have shape {tuple(tokens.shape)}, not [T >= 1, dim]")
            if self.encoder_dim is not None and tokens.shape[1] != self.encoder_dim:
                raise ValueError(f"tokens are {tokens.shape[1]} wide, not {self.encoder_dim}")
        if not packed:
            return [[] for _ in sessions]
        like = next(self.projector.parameters(), self.start_token)
        rows = torch.cat(packed).to(like.device, like.dtype)
        project: Any = self.projector.packed
        embeddings, lengths = project(rows, [len(tokens) for tokens in packed])
        parts = iter(embeddings.to(self.start_token.dtype).split(lengths))
        return [[next(parts) for _ in range(len(group))] for group in sessions]

    def _check_length(self, length: int) -> None:
        limit = self.max_positions
        if limit is not None and length > limit:
            raise TooLong(
                f"prompt, signal and response take {length} positions and the language model has {limit}; "
                "shorten the history or the sections, or use a projector with fewer tokens"
            )

    # what the LLM makes of it

    def logits(self, fused: FusedInputs, keep: Tensor | None = None) -> Tensor:
        """Logits [B, T, vocabulary], or [B, K, vocabulary] at the positions ``keep`` [K] alone."""
        return self._run(fused.inputs_embeds, fused.attention_mask, fused.position_ids, keep)

    def _run(self, embeds: Tensor, mask: Tensor | None, positions: Tensor, keep: Tensor | None) -> Tensor:
        kwargs: dict[str, Any] = {}
        if "position_ids" in self._accepts:
            kwargs["position_ids"] = positions
        slices = keep is not None and "logits_to_keep" in self._accepts
        if slices:
            kwargs["logits_to_keep"] = keep
        with torch.autocast(embeds.device.type, self.compute, enabled=self.compute is not None):
            logits = self.llm(inputs_embeds=embeds, attention_mask=mask, use_cache=False, **kwargs).logits
        return logits if keep is None or slices else logits[:, keep]

    def loss(self, fused: FusedInputs | PackedInputs) -> Tensor:
        """Mean cross-entropy over all the batch's response tokens and end tokens, float32.

        Logits are made only at positions before a target, never [B, T, vocabulary].

        Raises
        ------
        ValueError
            Where ``fused`` has no labels.
        """
        if fused.labels is None:
            raise ValueError("a loss needs responses: give them to embed()")
        if isinstance(fused, PackedInputs):
            return self._packed_loss(fused)
        targets = fused.labels[:, 1:]
        keep = (targets != IGNORED).any(0).nonzero().squeeze(1)
        targets = targets[:, keep]
        logits = self.logits(fused, keep)
        chosen = targets != IGNORED
        return F.cross_entropy(logits[chosen].float(), targets[chosen])

    def _packed_loss(self, packed: PackedInputs) -> Tensor:
        device = packed.inputs_embeds.device
        if can_pack(self.llm):
            groups, mask = [packed.lengths], packed_mask(self.llm, packed.lengths)
        else:
            # one after the other: no padding either
            groups, mask = [[length] for length in packed.lengths], None
        sizes = [sum(group) for group in groups]
        logits, targets = [], []
        for group, embeds, labels in zip(
            groups, packed.inputs_embeds.split(sizes, 1), packed.labels.split(sizes, 1), strict=True
        ):
            # an item begins with its prompt, so that no position before it has its first label to learn
            keep = (labels[0, 1:] != IGNORED).nonzero().squeeze(1)
            logits.append(self._run(embeds, mask, packed_positions(group).to(device), keep)[0])
            targets.append(labels[0, keep + 1])
        return F.cross_entropy(torch.cat(logits).float(), torch.cat(targets))

    def forward(self, fused: FusedInputs | PackedInputs) -> Tensor:
        """`loss`, so that wrappers such as DDP see the training step."""
        return self.loss(fused)

    @contextmanager
    def plain_generation(self) -> Iterator[None]:
        """The LLM with a neutral ``generation_config``: no sampling flag of a checkpoint counts in here."""
        from transformers import GenerationConfig

        saved = self.llm.generation_config
        self.llm.generation_config = GenerationConfig()
        try:
            yield
        finally:
            self.llm.generation_config = saved
