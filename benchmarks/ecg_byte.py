"""ECG-Byte's symbols and ECG-Tok's vectors before the same language model, trained alike.

Part of `ecg_tokenizers.py`. One small language model learns report texts first; from its weights each way
trains on the same records, in the same batches, for as many steps: all weights of the language model and of
what brings the signal in. Without a signal the text alone is learnt: what a way gains over that, it has read.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Qwen3ForCausalLM

from bioreport.ecg.byte_pairs import BytePairTokenizer
from bioreport.ecg.leads import LEADS
from bioreport.ecg.lexicon import read_findings
from bioreport.fusion import PrefixFusion
from bioreport.generation import generate_sections
from bioreport.llm import load_llm
from bioreport.projectors import build_projector
from bioreport.prompts import build_prompt, layout_for
from bioreport.tiny.ecg_language import draw_text
from bioreport.tiny.language import build_llm, train_llm
from bioreport.tiny.language import train_tokenizer as train_vocabulary

# Of a report the part that says what was found; the others would mostly cost time.
SECTION = "IMPRESSION/INTERPRETATION"
# The published code reads 2 s or 10 s and keeps 1,000 tokens: of 10 s those of the last leads would be cut
# off, of 2 s none is.
BYTE_SAMPLES, MOST_SYMBOLS = 500, 1000
WITHOUT, BYTE = "without ECG", "ECG-Byte"
# queries of the adapter: 1 is the paper's
TOK = {"ECG-Tok, one vector": 1, "ECG-Tok, 16 vectors": 16}


@dataclass(frozen=True)
class Record:
    """A simulated ECG: mV [12, T] at 250 Hz with NaN where nothing usable is, its findings and its report."""

    window: Tensor
    present: frozenset[str]
    impression: str
    history: str


@dataclass(frozen=True)
class ReportSizes:
    """How much is trained; `fitted` records teach the byte pairs, `written` texts are read for findings.

    `llm` is the folder of a language model that knows report texts; without, one learns them first.
    """

    llm: str | None = None
    texts: int = 5000
    language_steps: int = 100
    language_batch: int = 16
    merges: int = 3500
    fitted: int = 200
    steps: int = 100
    batch: int = 8
    lr: float = 5e-4
    width: int = 128
    written: int = 60
    section_tokens: int = 120


class Symbols(nn.Module):
    """Numbers of byte-pair tokens [B, T, 1] to the language model's own embeddings of them [B, T, E]."""

    def __init__(self, embedding: nn.Embedding, first: int) -> None:
        super().__init__()
        self.embedding, self.first = embedding, first

    def forward(self, numbers: Tensor) -> Tensor:
        return self.embedding(numbers.squeeze(2).long() + self.first)

    def packed(self, numbers: Tensor, lengths: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Records of any lengths one after the other, [rows, 1]; as `Projector.packed`."""
        return self(numbers[None])[0], list(lengths)


class WholeFusion(PrefixFusion):
    """`PrefixFusion` whose language model learns too, word embeddings included."""

    def __init__(self, llm: Qwen3ForCausalLM, tokenizer: Any, projector: nn.Module) -> None:
        super().__init__(llm, tokenizer, projector)
        self.llm.requires_grad_(True)

    def _embed_ids(self, ids: list[int]) -> Tensor:
        return self.llm.get_input_embeddings()(torch.tensor(ids, dtype=torch.int64))


@dataclass
class Way:
    """A fusion and what it is given of each record; None where that is nothing."""

    fusion: WholeFusion
    train: list[Tensor] | None
    test: list[Tensor] | None


def compare(
    train: Sequence[Record],
    test: Sequence[Record],
    train_vectors: Tensor,
    test_vectors: Tensor,
    sizes: ReportSizes,
) -> dict[str, Any]:
    """Train and measure every way; vectors [N, F, D] are the tokenizer's of the records."""
    llm, vocabulary, origin = language_model(sizes)
    pairs = BytePairTokenizer.fit([signal(record) for record in train[: sizes.fitted]], sizes.merges)
    symbols = [[pairs.encode(signal(record)) for record in records] for records in (train, test)]
    lengths = [len(row) for row in symbols[1]]
    whole = statistics.mean(len(pairs.encode(signal(record, None))) for record in test)
    result: dict[str, Any] = {
        "language_model": {
            "parameters": sum(p.numel() for p in llm.parameters()),
            "origin": origin,
        },
        "steps": sizes.steps,
        "batch_size": sizes.batch,
        "learning_rate": sizes.lr,
        "byte_pairs": {
            "merges": len(pairs.merges),
            "symbols_of_10_s": whole,
            "seconds_read": BYTE_SAMPLES / 250,
            "symbols_read": statistics.mean(lengths),
            "records_cut": statistics.mean(length > MOST_SYMBOLS for length in lengths),
        },
        "text_f1_of_the_references": finding_f1(test, [record.impression for record in test]),
        "ways": [],
    }
    cut = [[torch.tensor(row[:MOST_SYMBOLS]).float()[:, None] for row in rows] for rows in symbols]
    vectors = standardised(train_vectors, test_vectors)
    for name, queries in [(WITHOUT, 0), *TOK.items(), (BYTE, None)]:
        torch.manual_seed(1)
        own = deepcopy(llm)
        if queries is None:
            own.resize_token_embeddings(len(vocabulary) + len(pairs), mean_resizing=False)
            projector: nn.Module = Symbols(own.get_input_embeddings(), len(vocabulary))
            way = Way(WholeFusion(own, vocabulary, projector), *cut)
        elif queries:
            projector = build_projector(
                "attention", vectors[0].shape[2], own.config.hidden_size, width=sizes.width, queries=queries
            )
            way = Way(WholeFusion(own, vocabulary, projector), *(list(part) for part in vectors))
        else:
            way = Way(WholeFusion(own, vocabulary, nn.Identity()), None, None)
        row = {"way": name, **learn(way, train, sizes), **judge(way, test, sizes)}
        print(row, flush=True)
        result["ways"].append(row)
    return result


def language_model(sizes: ReportSizes) -> tuple[Qwen3ForCausalLM, Any, str]:
    """The model that every way starts from, its tokenizer, and where it comes from."""
    if sizes.llm is not None:
        llm, vocabulary = load_llm(sizes.llm, torch.float32)
        return llm, vocabulary, f"`{sizes.llm}`"
    rng = np.random.default_rng(0)
    vocabulary = train_vocabulary(" ".join(draw_text(rng)) for _ in range(sizes.texts))
    torch.manual_seed(0)
    llm = build_llm(vocabulary)
    train_llm(llm, vocabulary, steps=sizes.language_steps, batch_size=sizes.language_batch, draw=draw_text)
    return llm, vocabulary, f"taught {sizes.language_steps} steps of texts in the same run"


def signal(record: Record, samples: int | None = BYTE_SAMPLES) -> np.ndarray:
    """The record's first samples [12, T], or all 2500 without what fills the last frame."""
    return record.window[:, : samples or 2500].numpy()


def standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Both with each dimension's mean and deviation over the training frames taken out."""
    mean, deviation = train.mean((0, 1)), train.std((0, 1)).clamp(min=1e-6)
    return (train - mean) / deviation, (test - mean) / deviation


def prompt(record: Record, with_signal: bool) -> str:
    """What is asked; no fact of the signal stands in it."""
    return build_prompt(
        [SECTION],
        channels=LEADS,
        duration_seconds=10.0,
        history=record.history,
        style="compact",
        modality="ecg",
        with_signal=with_signal,
    )


def embed(
    way: Way, records: Sequence[Record], signals: list[Tensor] | None, rows: Sequence[int], answered: bool
) -> Any:
    """Fused inputs of some records, with their reports as responses where `answered`."""
    chosen = [records[i] for i in rows]
    layout = layout_for(None)
    return way.fusion.embed(
        [prompt(record, signals is not None) for record in chosen],
        [[] if signals is None else [signals[i]] for i in rows],
        [layout.render({SECTION: record.impression}) for record in chosen] if answered else None,
    )


def batches(count: int, size: int, steps: int) -> Iterator[list[int]]:
    """Rows of each step: all in an order of chance, then all in another."""
    draw = torch.Generator().manual_seed(2)
    order: list[int] = []
    for _ in range(steps):
        while len(order) < size:
            order += torch.randperm(count, generator=draw).tolist()
        yield order[:size]
        order = order[size:]


def learn(way: Way, train: Sequence[Record], sizes: ReportSizes) -> dict[str, Any]:
    """Train all weights of a way; the rate rises over a twentieth of the steps, then falls."""
    parameters = [p for p in way.fusion.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=sizes.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, sizes.lr, total_steps=sizes.steps, pct_start=0.05
    )
    way.fusion.train()
    wall, worked, losses = [], [], []
    for rows in batches(len(train), sizes.batch, sizes.steps):
        start, busy = time.perf_counter(), time.process_time()
        with torch.autocast("cpu", torch.bfloat16):
            loss = way.fusion.loss(embed(way, train, way.train, rows, answered=True))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        wall.append(time.perf_counter() - start)
        worked.append(time.process_time() - busy)
    return {
        "parameters": sum(p.numel() for p in parameters),
        "train_loss": statistics.mean(losses[-20:]),
        "seconds_a_step": statistics.median(wall),
        "processor_seconds_a_step": statistics.median(worked),
    }


@torch.no_grad()
def judge(way: Way, test: Sequence[Record], sizes: ReportSizes) -> dict[str, Any]:
    """Loss on other records, nats a response token, and the findings of greedy texts."""
    way.fusion.eval()
    total, count = 0.0, 0
    for first in range(0, len(test), sizes.batch):
        rows = range(first, min(first + sizes.batch, len(test)))
        fused = embed(way, test, way.test, rows, answered=True)
        targets = int((fused.labels[:, 1:] >= 0).sum())
        total += way.fusion.loss(fused).item() * targets
        count += targets
    asked = test[: sizes.written]
    texts: list[str] = []
    for first in range(0, len(asked), 20):
        rows = range(first, min(first + 20, len(asked)))
        fused = embed(way, asked, way.test, rows, answered=False)
        texts += [
            written[SECTION]
            for written in generate_sections(
                way.fusion, fused, [SECTION], max_new_tokens_per_section=sizes.section_tokens
            )
        ]
    signal_tokens = 0.0
    if isinstance(way.fusion.projector, Symbols):
        signal_tokens = statistics.mean(len(row) for row in way.test or [])
    elif way.test is not None:
        signal_tokens = float(len(way.fusion.projector(way.test[0][None])[0]))
    return {
        "signal_tokens": signal_tokens,
        "held_out_loss": total / count,
        "text_f1": finding_f1(asked, texts),
    }


def finding_f1(records: Sequence[Record], texts: Sequence[str]) -> float:
    """Micro F1 of the findings that texts state."""
    right = stated = there = 0
    for record, text in zip(records, texts, strict=True):
        said = {name for name, status in read_findings(text).items() if status}
        right += len(said & record.present)
        stated += len(said)
        there += len(record.present)
    return 2 * right / max(stated + there, 1)
