"""What a signal among the keys and values costs in generation: ``python benchmarks/meit.py -o FILE``.

The same language model, with random weights, writes the same number of tokens in three ways, in turns:

- without ECG;
- with it as `bioreport.fusion_cache` has it, the entries computed once, at the front of the cache;
- with it as MEIT's published code has it, the entries computed anew in every layer at every step and put in
  front of the cached keys and values there.

The last two must write the same tokens. The ways take turns at every token, so that whatever else the machine
does meets all three alike; a way's time is the sum over its prompt and its tokens, the making of the entries
included. The encoder, which makes the embeddings once a report, is timed by itself. Ratios are medians over
the rounds of the time over that of the same round without ECG; on a CPU there is that of the processor's time
too, which neighbours disturb less.
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
from environment import environment
from results import write
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import Cache, DynamicLayer

from bioreport.encoders.ecg_resnet import MeitEncoder
from bioreport.fusion_cache import KeyValueFusion, SignalCache

TARGET = 1.03  # of the time without ECG
# hidden, intermediate, layers, heads, key-value heads, vocabulary
SIZES = {
    "smoke": (64, 96, 2, 4, 2, 101),
    "small": (512, 1376, 8, 8, 8, 32_000),
    "llama-3.2-1b": (2048, 8192, 16, 32, 8, 128_256),
    "llama-2-7b": (4096, 11_008, 32, 32, 32, 32_000),
}
WITHOUT, OURS, RECOMPUTED = "without ECG", "bioreport", "computed anew at every step"


class RecomputedLayer(DynamicLayer):
    """Text in the cache; the entries are made and put in front of it at every step, as published."""

    def __init__(self, fusion: KeyValueFusion, layer: int, embeddings: Tensor) -> None:
        super().__init__()
        self.fusion, self.layer, self.embeddings = fusion, layer, embeddings
        self.entries = embeddings.shape[1]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Append text; returns it behind the entries."""
        text = super().update(key_states, value_states)
        entries = self.fusion.keys_values(self.layer, self.embeddings)
        keys, values = (torch.cat(pair, -2) for pair in zip(entries, text, strict=True))
        return keys, values


def language_model(size: str, device: torch.device, dtype: torch.dtype) -> LlamaForCausalLM:
    """A Llama with random weights."""
    hidden, intermediate, layers, heads, groups, vocabulary = SIZES[size]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        max_position_embeddings=2048,
    )
    torch.manual_seed(0)
    with torch.device(device):
        llm = LlamaForCausalLM._from_config(config, dtype=dtype)
    return llm.eval().requires_grad_(False)


def prompts(
    batch: int, length: int, vocabulary: int, padded: bool, device: torch.device
) -> dict[str, Tensor]:
    """Ids of prompts of one length, or of several, with padding in front."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(2, vocabulary, (batch, length), generator=draw)
    mask = torch.ones_like(ids)
    if padded:
        for row in range(batch):
            mask[row, : row % 4] = 0
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def timed(run: Callable[[], Tensor], device: torch.device) -> tuple[float, float, Tensor]:
    """Seconds of a call by the clock and of this process's processor time, and what it returned."""
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    start, worked = time.perf_counter(), time.process_time()
    result = run()
    synchronize()
    return time.perf_counter() - start, time.process_time() - worked, result


@dataclass
class Writing:
    """One text a row that grows greedily, and the time that it has taken so far."""

    llm: LlamaForCausalLM
    mask: Tensor
    ids: Tensor
    cache: Cache | None = None
    seconds: float = 0.0
    worked: float = 0.0

    def advance(self, cache: Callable[[], Cache]) -> None:
        """One token; the first reads the prompt, into the cache that is made then."""

        def step() -> Tensor:
            self.cache = self.cache or cache()
            new = self.ids[:, self.cache.get_seq_length() :]
            positions = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -new.shape[1] :]
            logits = self.llm(
                input_ids=new, attention_mask=self.mask, position_ids=positions, past_key_values=self.cache,
                logits_to_keep=1,
            ).logits  # fmt: skip
            return logits[:, -1].argmax(-1, keepdim=True)

        seconds, worked, token = timed(step, self.llm.device)
        self.seconds += seconds
        self.worked += worked
        self.ids = torch.cat([self.ids, token], 1)
        self.mask = torch.cat([self.mask, torch.ones_like(token)], 1)


def measure(
    llm: LlamaForCausalLM, inputs: dict[str, Tensor], embeddings: Tensor, new_tokens: int, repeats: int
) -> list[dict[str, Any]]:
    """A row for each way."""
    # the same weights without hooks
    plain = copy.deepcopy(llm, {id(weight): weight for weight in llm.parameters()})
    fusion = KeyValueFusion(llm)

    def recomputed() -> Cache:
        layers = [RecomputedLayer(fusion, layer, embeddings) for layer in fusion.attentions]
        return SignalCache(layers, id(fusion))

    ways: dict[str, tuple[LlamaForCausalLM, Callable[[], Cache]]] = {
        WITHOUT: (plain, lambda: DynamicCache(config=plain.config)),
        OURS: (llm, lambda: fusion.cache(embeddings)),
        RECOMPUTED: (llm, recomputed),
    }
    runs: dict[str, list[Writing]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        texts = {
            name: Writing(model, inputs["attention_mask"], inputs["input_ids"])
            for name, (model, _) in ways.items()
        }
        order = list(ways)
        for _ in range(new_tokens):
            # each comes first as often as the others
            order = order[1:] + order[:1]
            for name in order:
                texts[name].advance(ways[name][1])
        if turn:  # the first is for warming up
            for name, text in texts.items():
                text.cache = None
                runs[name].append(text)
    fusion.remove()
    rows = []
    for name, texts_by in runs.items():
        pairs = list(zip(texts_by, runs[WITHOUT], strict=True))
        clock = statistics.median(ours.seconds / theirs.seconds for ours, theirs in pairs)
        seconds = statistics.median(text.seconds for text in texts_by)
        row: dict[str, Any] = {
            "way": name,
            "seconds": seconds,
            "runs": [text.seconds for text in texts_by],
            "tokens_per_second": len(embeddings) * new_tokens / seconds,
            "ratio": clock,
        }
        if llm.device.type == "cpu":
            row["processor_ratio"] = statistics.median(ours.worked / theirs.worked for ours, theirs in pairs)
        if name == OURS:
            same = float((runs[OURS][-1].ids == runs[RECOMPUTED][-1].ids).float().mean())
            row |= {"target": TARGET, "reached": clock <= TARGET, "same_tokens_as_computed_anew": same}
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", choices=SIZES, help="default: llama-2-7b on a GPU, else small")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--prompt-tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args()
    has_gpu = torch.cuda.is_available()
    device = torch.device(options.device if options.device != "auto" else "cuda" if has_gpu else "cpu")
    size = options.size or ("llama-2-7b" if device.type == "cuda" else "small")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with torch.inference_mode():
        llm = language_model(size, device, dtype)
        encoder = MeitEncoder(llm.config.head_dim).to(device).eval()
        records = torch.rand(options.batch_size, 12, 5000, device=device)
        timed(lambda: encoder(records), device)
        encoding = [timed(lambda: encoder(records), device) for _ in range(3)]
        embeddings = encoding[-1][2]
        rows = []
        for padded in (False, True):
            inputs = prompts(options.batch_size, options.prompt_tokens, llm.config.vocab_size, padded, device)
            for row in measure(llm, inputs, embeddings, options.new_tokens, options.repeats):
                rows.append({"prompts": "of several lengths" if padded else "of one length", **row})
                print({key: value for key, value in row.items() if key != "runs"}, flush=True)
    arguments = [argument for argument in sys.argv[1:] if argument not in ("-o", str(options.output))]
    write(
        options.output,
        {
            **environment(),
            "date": date.today().isoformat(),
            "command": " ".join(["python benchmarks/meit.py", *arguments]),
            "llm": size,
            "parameters": sum(p.numel() for p in llm.parameters()),
            "dtype": str(dtype).removeprefix("torch."),
            "batch_size": options.batch_size,
            "new_tokens": options.new_tokens,
            "prompt_tokens": options.prompt_tokens,
            "repeats": options.repeats,
            "encoder_seconds": statistics.median(run[0] for run in encoding),
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
