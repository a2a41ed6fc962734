"""MEIT's model: an encoder, a language model that has its embeddings among the keys and values, LoRA."""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bioreport.fusion import IGNORED, TooLong
from bioreport.fusion_cache import KeyValueFusion
from bioreport.lora import LORA_ALPHA, LORA_DROPOUT, LORA_RANK, with_lora
from bioreport.meit.text import PROMPTS, ReportText


@dataclass
class MeitInputs:
    """A batch of ECGs, prompts and reports.

    Attributes
    ----------
    embeddings : Tensor [B, N, width]
    input_ids, attention_mask : Tensor [B, T] int64
        Padded on the right with labels, on the left without.
    labels : Tensor [B, T] int64 or None
        Ids of the report and its end, -100 elsewhere.
    """

    embeddings: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor | None = None


class Meit(nn.Module):
    """Encoder and language model; `embed` and `loss` are what training calls.

    Parameters
    ----------
    encoder : Module
        From [B, leads, T] to [B, N, width] or [B, width]; the width divides the language model's hidden size.
    llm : PreTrainedModel
        Of a family in `bioreport.fusion_cache.FAMILIES`. It is frozen; `add_lora` adds what learns, or
        `learn_fully` thaws it.
    tokenizer : PreTrainedTokenizer
    template : {"published", "chat"}, optional
        See `ReportText`.
    prompt : str
        What reports are asked for with, where nothing else is given.
    layers : sequence of int, optional
        See `KeyValueFusion`.
    max_length : int
        Tokens of prompt and report together in training; a longer report is cut, and not taught to end there.
        The published code has 128. Never more than the language model has positions.
    llm_source : str, optional
        Hub id or folder of the language model, which a checkpoint names.

    Raises
    ------
    ValueError
        For a model of another family, a tokenizer without an end token or, where asked for, a chat template.
    """

    def __init__(
        self,
        encoder: nn.Module,
        llm: Any,
        tokenizer: Any,
        *,
        template: str | None = None,
        prompt: str = PROMPTS["mimic-iv-ecg"],
        layers: Sequence[int] | None = None,
        max_length: int = 256,
        llm_source: str | None = None,
    ) -> None:
        super().__init__()
        self.text = ReportText(tokenizer, template)
        self.encoder = encoder.requires_grad_(True)
        self.language_model = llm.requires_grad_(False)
        self.prompt = prompt
        self.layers = None if layers is None else sorted(set(layers))
        self.positions: int | None = getattr(llm.config.get_text_config(), "max_position_embeddings", None)
        self.max_length = min(max_length, self.positions or max_length)
        self.llm_source = llm_source
        self.fusion = KeyValueFusion(llm, layers)
        # in a list, so that its weights, which are the language model's, do not count twice
        self._adapter: list[Any] = []
        self.learns_fully = False
        self.compute: torch.dtype | None = None
        self._slices_logits = "logits_to_keep" in inspect.signature(llm.forward).parameters

    # what learns

    def add_lora(
        self,
        rank: int = LORA_RANK,
        alpha: int = LORA_ALPHA,
        dropout: float = LORA_DROPOUT,
        targets: Sequence[str] | None = None,
    ) -> None:
        """Low-rank adapters on the language model, as published unless told otherwise.

        Parameters
        ----------
        rank, alpha : int
        dropout : float
        targets : sequence of str, optional
            Names of linear layers; by default those of `LORA_TARGETS` for the family.

        Raises
        ------
        InputError
            Where peft is not installed.
        """
        self._adapter = [with_lora(self.language_model, rank, alpha, dropout, targets)]

    def learn_fully(self, compute: torch.dtype | None = None) -> None:
        """Let all weights of the language model learn, in place of LoRA.

        Parameters
        ----------
        compute : torch.dtype, optional
            What it computes in, where its weights have another dtype.
        """
        self.language_model.requires_grad_(True)
        self.learns_fully = True
        self.compute = compute if compute != self.language_model.dtype else None

    @property
    def adapter(self) -> Any:
        """peft's model, or None without LoRA."""
        return self._adapter[0] if self._adapter else None

    def adopt(self, adapter: Any) -> None:
        """Take peft's model, made around `language_model`, for the LoRA."""
        self._adapter = [adapter]

    def checkpoint_activations(self) -> None:
        """Keep only each layer's input for the backward pass, and compute the layer once more there."""
        self.fusion.checkpoint_activations()

    # batches

    def embed(
        self,
        prompts: Sequence[str],
        sessions: Sequence[Sequence[Tensor]],
        responses: Sequence[str] | None = None,
    ) -> MeitInputs:
        """Embeddings and ids of a batch.

        Parameters
        ----------
        prompts : sequence of str, length B
            See `PROMPTS`.
        sessions : sequence of (sequence of one Tensor [leads, T]), length B
            Each report's record, all of one length.
        responses : sequence of str, length B, optional
            Reports to learn.

        Raises
        ------
        ValueError
            Where numbers or lengths do not fit, a record is not finite, or a prompt leaves no room.
        """
        if len(sessions) != len(prompts) or (responses is not None and len(responses) != len(prompts)):
            raise ValueError("prompts, records and reports differ in number")
        if not prompts:
            raise ValueError("an empty batch")
        if any(len(records) != 1 for records in sessions):
            raise ValueError("each report is of one record")
        records = [session[0] for session in sessions]
        if len({record.shape for record in records}) > 1:
            raise ValueError("the records of a batch differ in shape; cut or pad them to one length")
        rows, answers = [self.text.prompt_ids(prompt) for prompt in prompts], None
        if responses is not None:
            answers = [self.text.report_ids(*pair) for pair in zip(prompts, responses, strict=True)]
            for row in rows:
                if len(row) >= self.max_length:
                    raise TooLong(f"a prompt takes {len(row)} of {self.max_length} tokens and leaves no room")
        embeddings = self._encode(torch.stack(records))
        return MeitInputs(embeddings, *self._padded(rows, answers))

    def _encode(self, records: Tensor) -> Tensor:
        like = next(self.encoder.parameters())
        records = records.to(like.device, like.dtype)
        if not bool(records.isfinite().all()):
            raise ValueError("a record holds NaN or infinity; fill its gaps first")
        return self.encoder(records)

    def _padded(
        self, rows: list[list[int]], answers: list[list[int]] | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        device = self.language_model.get_input_embeddings().weight.device
        pad = self.text.tokenizer.pad_token_id
        whole = rows
        if answers is not None:
            whole = [(a + b)[: self.max_length] for a, b in zip(rows, answers, strict=True)]
        shape = (len(whole), max(map(len, whole)))
        ids = torch.full(shape, self.text.tokenizer.eos_token_id if pad is None else pad)
        mask, labels = torch.zeros(shape, dtype=torch.int64), torch.full(shape, IGNORED)
        for i, row in enumerate(whole):
            where = slice(0, len(row)) if answers is not None else slice(shape[1] - len(row), None)
            ids[i, where], mask[i, where] = torch.tensor(row), 1
            labels[i, len(rows[i]) : len(row)] = torch.tensor(row[len(rows[i]) :], dtype=torch.int64)
        return ids.to(device), mask.to(device), labels.to(device) if answers is not None else None

    # training and writing

    def logits(self, inputs: MeitInputs, keep: Tensor | None = None) -> Tensor:
        """Logits [B, T, vocabulary], or [B, K, vocabulary] at the positions ``keep`` [K] alone."""
        slices = keep is not None and self._slices_logits
        device = inputs.input_ids.device.type
        with (
            self.fusion.attached(inputs.embeddings),
            torch.autocast(device, self.compute, enabled=self.compute is not None),
        ):
            logits = self.language_model(
                input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask,
                use_cache=False,
                **({"logits_to_keep": keep} if slices else {}),
            ).logits
        return logits if keep is None or slices else logits[:, keep]

    def loss(self, inputs: MeitInputs) -> Tensor:
        """Mean cross-entropy over all the batch's report and end tokens, float32.

        Raises
        ------
        ValueError
            Where ``inputs`` has no labels.
        """
        if inputs.labels is None:
            raise ValueError("a loss needs reports: give them to embed()")
        targets = inputs.labels[:, 1:]
        keep = (targets != IGNORED).any(0).nonzero().squeeze(1)
        targets = targets[:, keep]
        chosen = targets != IGNORED
        return F.cross_entropy(self.logits(inputs, keep)[chosen].float(), targets[chosen])

    def forward(self, inputs: MeitInputs) -> Tensor:
        """`loss`, so that wrappers such as DDP see the training step."""
        return self.loss(inputs)

    @torch.no_grad()
    def generate(
        self, records: Tensor | Sequence[Tensor], prompts: Sequence[str], **options: Any
    ) -> list[str]:
        """Reports of a batch, greedy unless told otherwise.

        Parameters
        ----------
        records : Tensor [B, leads, T] or sequence of Tensor [leads, T]
        prompts : sequence of str, length B
        **options
            Of the model's ``generate``: ``max_new_tokens`` (128 by default), ``num_beams``, ``do_sample``,
            ``temperature``, ``num_return_sequences``, … The checkpoint's own ``generation_config`` does not
            count.

        Returns
        -------
        list of str
            One a record, or ``num_return_sequences`` of them, side by side.

        Raises
        ------
        ValueError
            As `embed`; or where the text could become longer than the model has positions.
        """
        trains = self.training
        self.eval()
        try:
            return self._write(self.embed(prompts, [[record] for record in records]), options)
        finally:
            self.train(trains)

    def _write(self, inputs: MeitInputs, options: dict[str, Any]) -> list[str]:
        options = {"max_new_tokens": 128, "do_sample": False, **options}
        begin, llm = inputs.input_ids.shape[1], self.language_model
        longest = begin + options["max_new_tokens"]
        if self.positions is not None and longest > self.positions:
            raise TooLong(
                f"prompt and report take up to {longest} positions and the language model has "
                f"{self.positions}; lower max_new_tokens"
            )
        stops = {self.text.tokenizer.eos_token_id}
        own = llm.generation_config.eos_token_id
        stops |= {own} if isinstance(own, int) else set(own or [])
        with _plain_generation(llm):
            written = llm.generate(
                input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask,
                past_key_values=self.fusion.cache(inputs.embeddings),
                eos_token_id=sorted(stops),
                pad_token_id=self.text.tokenizer.eos_token_id,
                **options,
            )
        return self.text.texts(written[:, begin:])


def meit_loss(
    model: Meit, records: Sequence[Tensor], prompts: Sequence[str], reports: Sequence[str]
) -> Tensor:
    """Loss of one step of instruction tuning: mean cross-entropy of the reports, as `Meit.loss`.

    Parameters
    ----------
    model : Meit
    records : sequence of Tensor [leads, T]
    prompts, reports : sequence of str
    """
    return model(model.embed(prompts, [[record] for record in records], reports))


@contextmanager
def _plain_generation(llm: Any) -> Iterator[None]:
    """Within, no sampling flag of the checkpoint's ``generation_config`` counts."""
    from transformers import GenerationConfig

    saved, llm.generation_config = llm.generation_config, GenerationConfig()
    try:
        yield
    finally:
        llm.generation_config = saved
