"""MEIT: a language model that reads an ECG among its keys and values and writes its report.

Wan et al., *MEIT: Multimodal Electrocardiogram Instruction Tuning on Large Language Models for Report
Generation*, Findings of ACL 2025 (arXiv 2403.04945). An encoder makes one embedding of a record (or several),
`bioreport.fusion_cache` puts it into every attention layer, and both the encoder and LoRA on the language
model learn from pairs of records and reports.

Its records are 12 leads at 500 Hz, 10 s, each scaled to [0, 1] over all its leads.
"""

import inspect
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bioreport.bundle import resolve_device, resolve_dtype
from bioreport.encoders.ecg_resnet import MeitEncoder
from bioreport.errors import InputError
from bioreport.files import folder_written_atomically
from bioreport.fusion import IGNORED, TooLong
from bioreport.fusion_cache import KeyValueFusion, embedding_width
from bioreport.llm import load_llm
from bioreport.vocabulary import control_tokens

# What the published code asks, by data set.
PROMPTS: Mapping[str, str] = MappingProxyType(
    {
        "mimic-iv-ecg": "Given the ECG signal embeddings, please help me generate an accurate description "
        "for this ECG signal embeddings:",
        "ptb-xl": "generate a description of the ECG embeddings:",
    }
)
TEMPLATES = ("published", "chat")
USER, ASSISTANT = "<|user|>", "<|assistant|>"

# The published training, in the words of `bioreport.train.Run`; its batch of 64 is added up from ones of 16.
RECIPE: Mapping[str, float] = MappingProxyType(
    {"epochs": 5, "batch_size": 64, "lr": 2e-5, "weight_decay": 0.0, "warmup": 0.03}
)
LORA_RANK, LORA_ALPHA, LORA_DROPOUT = 64, 128, 0.1
_LLAMA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Published for the Llama-like, GPT-2, BLOOM and GPT-NeoX; the others are those of the same places.
LORA_TARGETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "gpt2": ("c_attn",),
        "bloom": ("query_key_value",),
        "gpt_neox": ("query_key_value",),
        "opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
        "gptj": ("q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"),
    }
)

FORMAT, VERSION = "bioreport-meit", 1
_WEIGHTS, _CONFIG, _ADAPTER = "encoder.safetensors", "config.json", "adapter"


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
    """Encoder and language model; `embed` and `loss` are what `bioreport.train.Run` calls.

    Parameters
    ----------
    encoder : Module
        From [B, leads, T] to [B, N, width] or [B, width]; the width divides the language model's hidden size.
    llm : PreTrainedModel
        Of a family in `bioreport.fusion_cache.FAMILIES`. It is frozen; `add_lora` adds what learns.
    tokenizer : PreTrainedTokenizer
    template : {"published", "chat"}, optional
        Plain text with ``<|user|>`` and ``<|assistant|>`` as in MEIT, or the model's own chat template; by
        default the chat template where there is one.
    layers : sequence of int, optional
        See `KeyValueFusion`.
    max_length : int
        Tokens of prompt and report together in training; a longer report is cut, and not taught to end there.
        The published code has 128.
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
        layers: Sequence[int] | None = None,
        max_length: int = 256,
        llm_source: str | None = None,
    ) -> None:
        super().__init__()
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no end token (eos_token), so a report could not end")
        can_chat = getattr(tokenizer, "chat_template", None) is not None
        template = template or ("chat" if can_chat else "published")
        if template not in TEMPLATES or (template == "chat" and not can_chat):
            raise ValueError(
                f"template must be one of {', '.join(TEMPLATES)}, got {template!r}"
                if template not in TEMPLATES
                else "the tokenizer has no chat template; take template='published'"
            )
        self.encoder = encoder.requires_grad_(True)
        self.language_model = llm.requires_grad_(False)
        self.tokenizer = tokenizer
        self.template = template
        self.layers = None if layers is None else sorted(set(layers))
        self.max_length = max_length
        self.llm_source = llm_source
        self.fusion = KeyValueFusion(llm, layers)
        # in a list, so that its weights, which are the language model's, do not count twice
        self._adapter: list[Any] = []
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
        peft = _peft()
        family = self.language_model.config.get_text_config().model_type
        config = peft.LoraConfig(
            r=rank,
            lora_alpha=alpha,
            lora_dropout=dropout,
            target_modules=list(targets or LORA_TARGETS.get(family, _LLAMA_TARGETS)),
            # GPT-2 keeps its weights transposed
            fan_in_fan_out=family == "gpt2",
            task_type="CAUSAL_LM",
        )
        self._adapter = [peft.get_peft_model(self.language_model, config)]

    def checkpoint_activations(self) -> None:
        """Keep only each layer's input for the backward pass, and compute the layer once more there."""
        self.fusion.checkpoint_activations()

    # text

    def _clean(self, prompt: str) -> str:
        control = {*control_tokens(self.tokenizer).values(), USER, ASSISTANT}
        for word in sorted(control, key=len, reverse=True):
            prompt = prompt.replace(word, " ")
        return prompt.strip()

    def _ids(self, text: str, special: bool = False) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=special)["input_ids"]) if text else []

    def prompt_ids(self, prompt: str) -> list[int]:
        """Ids of a prompt in the template, up to where the report begins."""
        return self._prompt(prompt)[1]

    def _prompt(self, prompt: str) -> tuple[str, list[int]]:
        prompt = self._clean(prompt)
        if self.template == "published":
            text = f"{USER}\n{prompt}\n{ASSISTANT}\n"
            return text, self._ids(text, special=True)
        text = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        # the template writes the begin token itself
        return text, self._ids(text)

    def report_ids(self, prompt: str, report: str) -> list[int]:
        """Ids of a report and its end, as they follow `prompt_ids`."""
        report, end = self._clean(report), self.tokenizer.eos_token_id
        if self.template == "chat":
            return [*self._ids(report), end]
        text, before = self._prompt(prompt)
        # in one piece, as published, unless a token would reach over the border
        whole = self._ids(f"{text}{report}{self.tokenizer.eos_token}\n", special=True)
        if whole[: len(before)] == before:
            return whole[len(before) :]
        return [*self._ids(report), end]

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
        rows, answers = [self.prompt_ids(prompt) for prompt in prompts], None
        if responses is not None:
            answers = [self.report_ids(*pair) for pair in zip(prompts, responses, strict=True)]
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
        pad = self.tokenizer.pad_token_id
        whole = rows
        if answers is not None:
            whole = [(a + b)[: self.max_length] for a, b in zip(rows, answers, strict=True)]
        shape = (len(whole), max(map(len, whole)))
        ids = torch.full(shape, self.tokenizer.eos_token_id if pad is None else pad)
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
        with self.fusion.attached(inputs.embeddings):
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
        limit = getattr(llm.config.get_text_config(), "max_position_embeddings", None)
        longest = begin + options["max_new_tokens"]
        if limit is not None and longest > limit:
            raise TooLong(
                f"prompt and report take up to {longest} positions and the language model has {limit}; "
                "lower max_new_tokens"
            )
        stops = {self.tokenizer.eos_token_id}
        own = llm.generation_config.eos_token_id
        stops |= {own} if isinstance(own, int) else set(own or [])
        with _plain_generation(llm):
            written = llm.generate(
                input_ids=inputs.input_ids,
                attention_mask=inputs.attention_mask,
                past_key_values=self.fusion.cache(inputs.embeddings),
                eos_token_id=sorted(stops),
                pad_token_id=self.tokenizer.eos_token_id,
                **options,
            )
        texts = self.tokenizer.batch_decode(written[:, begin:], skip_special_tokens=True)
        return [text.strip() for text in texts]

    # files

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write a checkpoint: ``encoder.safetensors``, peft's folder ``adapter``, ``config.json``.

        The whole folder appears, or what was there stays.

        Raises
        ------
        InputError
            Where the folder holds something else or cannot be written.
        """
        directory = Path(directory)
        if not isinstance(self.encoder, MeitEncoder):
            raise TypeError(f"a checkpoint is of a MeitEncoder, and this is a {type(self.encoder).__name__}")
        strangers = (
            sorted({path.name for path in directory.iterdir()} - {_WEIGHTS, _CONFIG, _ADAPTER})
            if directory.is_dir()
            else []
        )
        if strangers or (directory.exists() and not directory.is_dir()):
            raise InputError(
                directory,
                f"is no folder of MEIT's ({strangers[0]!r} lies in it)" if strangers else "is a file",
                "choose a new folder",
            )
        source = self.llm_source
        if source is not None and Path(source).is_dir():
            source = str(Path(source).resolve())
        config = {
            "format": FORMAT,
            "version": VERSION,
            "llm": source,
            "encoder": self.encoder.config(),
            "template": self.template,
            "layers": self.layers,
            "max_length": self.max_length,
            "lora": bool(self._adapter),
        }
        state = {key: value.detach().cpu().contiguous() for key, value in self.encoder.state_dict().items()}
        with folder_written_atomically(directory) as folder:
            save_file(state, folder / _WEIGHTS, metadata={"format": "pt"})
            if self._adapter:
                # with embeddings in question peft would ask the Hub for the model's vocabulary
                self._adapter[0].save_pretrained(folder / _ADAPTER, save_embedding_layers=False)
            (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        return directory


def load_meit(
    directory: str | os.PathLike[str],
    *,
    llm: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Meit:
    """A model from what `Meit.save` wrote, in eval mode; LoRA goes on learning where it is trained.

    Parameters
    ----------
    directory : path-like
    llm : str, optional
        Hub id or folder of the language model, in place of the one that the checkpoint names.
    device : {"auto", "cpu", "cuda"}
    dtype : {"auto", "float32", "bfloat16"}
        Of the language model.

    Raises
    ------
    InputError
        Where a file is missing or broken, or does not fit the others.
    """
    directory = Path(directory)
    cure = "restore the folder that Meit.save wrote"
    try:
        config = json.loads((directory / _CONFIG).read_text(encoding="utf-8"))
        if config["format"] != FORMAT or config["version"] != VERSION:
            raise ValueError(f"it is {config['format']} {config['version']}")
        encoder = MeitEncoder(**config["encoder"])
        template, layers, max_length = config["template"], config["layers"], int(config["max_length"])
        source, has_lora = llm or config["llm"], bool(config["lora"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(directory, f"is no checkpoint of MEIT ({error})", cure) from error
    try:
        encoder.load_state_dict(load_file(directory / _WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        problem = str(error).splitlines()[-1].strip()
        raise InputError(directory / _WEIGHTS, f"does not hold the encoder ({problem})", cure) from error
    if source is None:
        raise InputError(directory, "names no language model", "name one with llm=")
    place = resolve_device(device)
    model, tokenizer = load_llm(source, device=place, dtype=resolve_dtype(dtype, place))
    try:
        meit = Meit(
            encoder.to(place),
            model,
            tokenizer,
            template=template,
            layers=layers,
            max_length=max_length,
            llm_source=source,
        )
    except ValueError as error:
        raise InputError(source, f"does not go with {directory} ({error})", "name another model") from error
    if has_lora:
        peft = _peft()
        try:
            adapted = peft.PeftModel.from_pretrained(
                meit.language_model, str(directory / _ADAPTER), is_trainable=True
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            problem = str(error).splitlines()[0].strip()
            raise InputError(directory / _ADAPTER, f"does not fit the model ({problem})", cure) from error
        meit._adapter = [adapted]
    return meit.eval()


def new_meit(
    llm: str, *, device: str = "auto", dtype: str = "auto", template: str | None = None, **encoder: Any
) -> Meit:
    """MEIT as published on a language model, untrained: `MeitEncoder` of the model's width, and LoRA.

    Parameters
    ----------
    llm : str
        Hub id or folder.
    device, dtype
        See `load_meit`.
    template
        See `Meit`.
    **encoder
        Of `MeitEncoder`.

    Raises
    ------
    InputError
        Where the language model cannot be loaded, or takes no entries among its keys and values.
    """
    place = resolve_device(device)
    model, tokenizer = load_llm(llm, device=place, dtype=resolve_dtype(dtype, place))
    module = MeitEncoder(**{"out_dim": embedding_width(model), **encoder}).to(place)
    try:
        meit = Meit(module, model, tokenizer, template=template, llm_source=llm)
    except ValueError as error:
        raise InputError(llm, f"cannot serve MEIT ({error})", "name another language model") from error
    meit.add_lora()
    return meit


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


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise InputError("peft", "is not installed", "run `pip install 'bioreport[train]'`") from error
    return peft


@contextmanager
def _plain_generation(llm: Any) -> Iterator[None]:
    """Within, no sampling flag of the checkpoint's ``generation_config`` counts."""
    from transformers import GenerationConfig

    saved, llm.generation_config = llm.generation_config, GenerationConfig()
    try:
        yield
    finally:
        llm.generation_config = saved
