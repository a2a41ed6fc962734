"""The small causal LM of `bioreport-tiny`: its tokenizer, its texts, its training.

It learns from text alone to turn the facts of a prompt into sections. Part of the time the facts stand in the
place of the signal instead, so that a projector can later say the same with embeddings, the LM being frozen.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from bioreport.findings import EEG_NAMES, absent_finding, finding_facts
from bioreport.measurements import facts
from bioreport.montage import CELM_CHANNELS
from bioreport.prompts import DEFAULT_SECTIONS, SECTIONS, SIGNAL, build_prompt, layout_for
from bioreport.simulation.plan import draw_findings
from bioreport.wording import write_history, write_sections

log = logging.getLogger(__name__)

TURN, END, PAD = "<|im_start|>", "<|im_end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VOCABULARY = 1024
# prompt and response of a made-up recording
Draw = Callable[[np.random.Generator], tuple[str, str]]
CONTEXT = 2048
FIELDS = (
    ("T3", "F7", "T5"), ("T4", "F8", "T6"), ("F3", "Fp1", "F7"), ("F4", "Fp2", "F8"), ("C3", "F3", "P3"),
    ("C4", "F4", "P4"), ("P3", "C3", "O1"), ("P4", "C4", "O2"), ("O1", "P3", "T5"), ("O2", "P4", "T6"),
    ("T5", "O1", "T3"), ("T6", "O2", "T4"), ("F7", "T3", "Fp1"), ("F8", "T4", "Fp2"), ("Fp1", "F3"),
    ("Fp2", "F4"), ("Cz", "C3"), ("Fz", "F3"), ("Pz", "P3"),
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A made-up recording as a prompt knows it: findings, measurements, length, channels, history."""

    findings: list[dict[str, Any]]
    measurements: dict[str, Any]
    duration_seconds: float
    channels: tuple[str, ...]
    history: str | None

    def facts(self) -> list[str]:
        model = [entry for entry in self.findings if entry["source"] == "model"]
        return facts(self.measurements) + finding_facts(model)


def draw_case(rng: np.random.Generator) -> Case:
    """Findings that go together, with places, times and numbers drawn widely."""
    duration = float(round(np.exp(rng.uniform(np.log(15), np.log(20_000)))))
    present, _ = draw_findings(rng, max(duration, 60.0))
    if rng.random() < 0.3:
        # other combinations than the simulator's: at work, measurement and model decide each on its own
        present = {name for name in EEG_NAMES if rng.random() < rng.uniform(0.05, 0.35)}
    channels = tuple(name for name in CELM_CHANNELS if rng.random() < 0.9) or CELM_CHANNELS
    rhythm = None
    if "posterior_dominant_rhythm" in present:
        left, right = rng.uniform(8, 110, 2)
        if "posterior_asymmetry" in present:
            left, right = sorted((left, 0.5 * left), reverse=bool(rng.random() < 0.5))
        asymmetry = rng.uniform(41, 85) if "posterior_asymmetry" in present else rng.uniform(0, 30)
        rhythm = {
            "frequency_hz": round(float(np.clip(rng.normal(9.4, 1.5), 5.0, 13.0)), 1),
            "amplitude_uv": round(float(max(left, right)), 1),
            "left_amplitude_uv": round(float(left), 1),
            "right_amplitude_uv": round(float(right), 1),
            "asymmetry_percent": round(float(asymmetry), 1),
            "lower_side": "left" if left < right else "right",
        }
    else:
        present.discard("posterior_asymmetry")
    broken: dict[str, list[str]] = {"channels_flat": [], "channels_saturated": [], "channels_noisy": []}
    if "bad_electrode" in present:
        for name in rng.permutation(channels)[: rng.integers(1, 4)]:
            broken[str(rng.choice(list(broken)))].append(str(name))
    mains = None
    if "mains_noise" in present:
        mains = {
            "frequency_hz": float(rng.choice([50.0, 60.0])),
            "ratio": float(round(rng.uniform(10, 900), 1)),
            "channels": list(channels),
        }
    measurements = {
        "posterior_rhythm": rhythm,
        "mains": mains,
        "duration_seconds": duration,
        "channels_present": list(channels),
        **broken,
    }
    entries = []
    for name in EEG_NAMES:
        measured = name in (
            "posterior_dominant_rhythm",
            "posterior_asymmetry",
            "mains_noise",
            "bad_electrode",
        )
        entry = {**absent_finding(name), "source": "measurement" if measured else "model"}
        if name in present:
            start = float(10 * rng.integers(0, max(1, int(duration // 10))))
            entry.update(
                present=True,
                start_seconds=start,
                end_seconds=float(
                    min(duration, start + 10 * rng.integers(1, 1 + max(1, int(duration // 20))))
                ),
            )
            if name in ("focal_slowing", "focal_epileptiform_discharges", "electrode_artifact") or (
                name == "seizure" and rng.random() < 0.7
            ):
                entry["channels"] = list(FIELDS[rng.integers(len(FIELDS))])
            if name == "posterior_dominant_rhythm" and rhythm is not None:
                entry.update(value=rhythm["frequency_hz"], unit="Hz")
            if name == "posterior_asymmetry" and rhythm is not None:
                side = ("O1", "P3", "T5") if rhythm["lower_side"] == "left" else ("O2", "P4", "T6")
                entry["channels"] = list(side)
            if name == "bad_electrode":
                entry["channels"] = [channel for kind in broken.values() for channel in kind]
        entries.append(entry)
    history = write_history(rng) if rng.random() < 0.6 else None
    return Case(entries, measurements, duration, channels, history)


def draw_text(rng: np.random.Generator) -> tuple[str, str]:
    """Prompt and response of a made-up recording; the facts stand in the prompt, for the signal, or both."""
    case = draw_case(rng)
    if rng.random() < 0.5:
        sections: Sequence[str] = DEFAULT_SECTIONS
    else:
        sections = [str(name) for name in rng.permutation(SECTIONS)[: rng.integers(1, len(SECTIONS) + 1)]]
    where = rng.choice(["prompt", "signal", "both"], p=[0.4, 0.35, 0.25])
    known = case.facts()
    prompt = build_prompt(
        sections,
        channels=case.channels,
        duration_seconds=case.duration_seconds,
        history=case.history,
        facts=known if where != "signal" else (),
        style="compact",
    )
    prompt = prompt.replace(SIGNAL, " ".join(known) if where != "prompt" else "")
    written = write_sections(case.findings, case.measurements, rng)
    response = layout_for(None).render({name: written[name] for name in sections})
    return prompt, response


def train_tokenizer(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE; every digit is a token of its own, so that numbers are copied digit by digit."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[PAD, TURN, END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def build_llm(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A Qwen3 of 2 M parameters with random weights."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=576,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=48,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        use_cache=True,
    )
    return Qwen3ForCausalLM(config)


def tokenized(
    tokenizer: PreTrainedTokenizerFast, rng: np.random.Generator, draw: Draw
) -> tuple[list[int], int]:
    """Ids of one chat and the number of those that belong to the prompt."""
    prompt, response = draw(rng)
    head = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    asked = tokenizer(head, add_special_tokens=False)["input_ids"]
    answer = tokenizer(response, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    return asked + answer, len(asked)


def packed_batches(
    tokenizer: PreTrainedTokenizerFast, batch_size: int, rng: np.random.Generator, draw: Draw
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Right-padded ids, mask and labels; samples of like length share a batch."""
    while True:
        pool = sorted(
            (tokenized(tokenizer, rng, draw) for _ in range(batch_size * 16)), key=lambda item: len(item[0])
        )
        for group in rng.permutation(16):
            rows = pool[group * batch_size : (group + 1) * batch_size]
            longest = max(len(ids) for ids, _ in rows)
            ids = torch.full((batch_size, longest), tokenizer.pad_token_id)
            labels = torch.full((batch_size, longest), -100)
            mask = torch.zeros(batch_size, longest, dtype=torch.long)
            for row, (tokens, asked) in enumerate(rows):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                mask[row, : len(tokens)] = 1
                labels[row, asked : len(tokens)] = torch.tensor(tokens[asked:])
            yield ids, mask, labels


def train_llm(
    llm: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    steps: int,
    batch_size: int = 32,
    lr: float = 2e-3,
    seed: int = 0,
    draw: Draw = draw_text,
) -> list[float]:
    """Train on texts that `draw` gives, loss on the response alone; returns the loss of every step."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(llm.parameters(), lr=lr, weight_decay=0.05, betas=(0.9, 0.98))
    warmup = max(1, min(200, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min(1, (s + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * s / steps))),
    )
    llm.train()
    losses: list[float] = []
    stream = packed_batches(tokenizer, batch_size, rng, draw)
    for step in range(steps):
        ids, mask, labels = next(stream)
        with torch.autocast("cpu", torch.bfloat16):
            loss = llm(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(llm.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if (step + 1) % 100 == 0:
            log.info("step %d of %d: loss %.4f", step + 1, steps, float(np.mean(losses[-100:])))
    llm.eval()
    return losses


def language_model(folder: Path, rounds: Sequence[tuple[int, float]], draw: Draw = draw_text) -> Path:
    """Train a language model and its tokenizer on texts that `draw` gives, unless the folder holds them.

    `rounds` are steps and learning rate of one training after another.
    """
    if not (folder / "config.json").exists():
        rng = np.random.default_rng(0)
        tokenizer = train_tokenizer(" ".join(draw(rng)) for _ in range(20_000))
        torch.manual_seed(0)
        llm = build_llm(tokenizer)
        for number, (steps, rate) in enumerate(rounds):
            losses = train_llm(llm, tokenizer, steps=steps, lr=rate, seed=number, draw=draw)
            log.info("language model: loss %.4f", float(np.mean(losses[-100:])))
        llm.bfloat16().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    return folder
