"""What training on tokens saves, side by side in one run, on a CPU in both settings of the allocator.

    python benchmarks/training.py -o benchmarks/results/training-DATE.json

Two comparisons, each in turns batch by batch, so that whatever else the machine does meets both ways alike:

- *tokens*: an epoch of training from a token store, beside one that computes the frozen encoder again for
  every session as CELM's loop does: a pickle for each 10 s, sessions one after another, epochs by up to 500.
- *packed*: steps at skewed lengths (10 to 1,000 epochs, as many sessions in each factor of two), items one
  after the other beside items padded to the batch's longest.

Both ways of a comparison take the same steps with the same weights; their losses are compared. The language
model is small (two layers, random weights), so that what stands around it can be seen; with one of billions
of weights the encoder's share is smaller, and that of padding as it is here.
"""

import argparse
import json
import math
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import environment
from operators import MALLOC
from peers import EagerCBraMod
from results import write
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from bioreport.encoders.cbramod import CBraMod
from bioreport.evidence import Evidence
from bioreport.fusion import PrefixFusion
from bioreport.projectors import build_projector
from bioreport.prompts import SIGNAL
from bioreport.tokens import TokenStore, fill_store

TARGETS = {"tokens": 20.0, "packed": 2.0}
CHANNELS, PATCHES, PATCH, DIM = 22, 10, 200, 200
CHUNK = 500  # epochs that CELM's loop gives its encoder at once
PROMPT = f"{SIGNAL}\nDescribe the background activity, epileptiform discharges and seizures of this EEG.\n"
RESPONSE = "## BACKGROUND ACTIVITY\nPosterior dominant rhythm of 9 Hz, symmetric.\n"

Loss = Callable[[Sequence[int]], Tensor]


def new_fusion(hidden: int, vocabulary: int) -> PrefixFusion:
    """A linear-attention projector on a Qwen3 of two layers with random weights; a byte is a token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(["<pad>", "<eos>", *letters])}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>")
    torch.manual_seed(0)
    llm = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocabulary, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=2,
            num_attention_heads=8, num_key_value_heads=4, head_dim=hidden // 8, max_position_embeddings=4096,
            tie_word_embeddings=True,
        )
    )  # fmt: skip
    return PrefixFusion(llm, tokenizer, build_projector("sequence", DIM, hidden), DIM)


def compare(
    fusion: PrefixFusion, ways: dict[str, Loss], batches: Sequence[Sequence[int]], repeats: int
) -> list[dict[str, Any]]:
    """Steps of all ways in turns from the same weights; the last way is what the others are compared with."""
    start = {key: tensor.clone() for key, tensor in fusion.trainable_state_dict().items()}
    learning = [p for p in fusion.parameters() if p.requires_grad]
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    losses: dict[str, list[float]] = {name: [] for name in ways}
    state = {name: (start, torch.optim.AdamW(learning, lr=1e-4).state_dict()) for name in ways}
    order = list(ways)
    for turn in range(repeats + 1):  # the first is for warming up
        spent = dict.fromkeys(ways, 0.0)
        for batch in batches:
            order = order[1:] + order[:1]
            for name in order:
                # each way has weights and moments of its own
                weights, moments = state[name]
                fusion.load_trainable_state_dict(weights)
                optimizer = torch.optim.AdamW(learning, lr=1e-4)
                optimizer.load_state_dict(moments)
                began = time.perf_counter()
                optimizer.zero_grad()
                loss = ways[name](batch)
                loss.backward()
                optimizer.step()
                spent[name] += time.perf_counter() - began
                losses[name].append(float(loss.detach()))
                kept = {key: tensor.clone() for key, tensor in fusion.trainable_state_dict().items()}
                state[name] = (kept, optimizer.state_dict())
        if turn:
            for name in ways:
                seconds[name].append(spent[name])
    count, other = sum(map(len, batches)), list(ways)[-1]
    return [
        {
            "way": name,
            "seconds": statistics.median(seconds[name]),
            "runs": seconds[name],
            "recordings_per_second": count / statistics.median(seconds[name]),
            "speedup": statistics.median(
                theirs / own for own, theirs in zip(seconds[name], seconds[other], strict=True)
            ),
            "largest_difference_of_loss": max(
                abs(own - theirs) for own, theirs in zip(losses[name], losses[other], strict=True)
            ),
        }
        for name in ways
    ]


def packed(smoke: bool, repeats: int) -> dict[str, Any]:
    """Items one after the other beside padded ones."""
    hidden, count, size = (64, 4, 2) if smoke else (256, 32, 8)
    fusion = new_fusion(hidden, 300 if smoke else 8000)
    shortest, longest = (3, 40) if smoke else (10, 1000)
    draw = np.random.default_rng(0)
    lengths = np.exp(draw.uniform(math.log(shortest), math.log(longest), count)).astype(int).tolist()
    lengths[0] = longest
    sessions = [torch.randn(length, DIM) for length in lengths]

    def inputs(batch: Sequence[int]) -> tuple[list[str], list[list[Tensor]], list[str]]:
        return [PROMPT] * len(batch), [[sessions[i]] for i in batch], [RESPONSE] * len(batch)

    ways: dict[str, Loss] = {
        "packed": lambda batch: fusion.loss(fusion.pack(*inputs(batch))),
        "padded": lambda batch: fusion.loss(fusion.embed(*inputs(batch))),
    }
    batches = [range(first, min(first + size, count)) for first in range(0, count, size)]
    rows = compare(fusion, ways, batches, repeats)
    return {"lengths": lengths, "batch_size": size, "llm_hidden": hidden, "rows": rows}


def tokens(smoke: bool, repeats: int, folder: Path) -> dict[str, Any]:
    """Training from a token store beside computing the encoder in every epoch."""
    count, epochs = (2, 3) if smoke else (4, 60)
    fusion = new_fusion(64 if smoke else 256, 300 if smoke else 8000)
    torch.manual_seed(0)
    encoder, eager = CBraMod().eval(), EagerCBraMod().eval()
    eager.load_state_dict(encoder.state_dict())
    paths, draw = [folder / f"{i}" for i in range(count)], np.random.default_rng(0)
    for path in paths:
        path.mkdir()
        for i in range(epochs):
            # as CELM stores an epoch; volts there, µV/100 here
            epoch = draw.standard_normal((CHANNELS, PATCHES * PATCH))
            (path / f"seg_{i}.pkl").write_bytes(pickle.dumps(epoch))
        (path / "recording").write_text(path.name)

    def session(path: Path) -> Tensor:
        found = [pickle.loads((path / f"seg_{i}.pkl").read_bytes()) for i in range(epochs)]
        return torch.from_numpy(np.stack(found)).float().unflatten(-1, (PATCHES, PATCH))

    @torch.no_grad()
    def encoded(path: Path) -> Tensor:
        return torch.cat([eager(chunk).mean((1, 2)) for chunk in session(path).split(CHUNK)])

    def read(path: Path) -> Evidence:
        with torch.inference_mode():
            found = encoder(session(path.parent)).mean((1, 2))
        return Evidence(path.name, 10.0 * epochs, (), found.clone(), [], {}, "", [])

    recordings = [path / "recording" for path in paths]
    filled = fill_store(TokenStore(folder / "tokens"), recordings, "benchmark", read)
    assert not filled.errors
    store = TokenStore(folder / "tokens")
    keys = [filled.keys[path] for path in recordings]

    def loss(sessions: list[list[Tensor]]) -> Tensor:
        return fusion.loss(fusion.pack([PROMPT] * len(sessions), sessions, [RESPONSE] * len(sessions)))

    ways: dict[str, Loss] = {
        "from tokens": lambda batch: loss([[store.get(keys[i]).tokens] for i in batch]),
        "encoder in every epoch": lambda batch: loss([[encoded(paths[i])] for i in batch]),
    }
    rows = compare(fusion, ways, [range(first, first + 2) for first in range(0, count, 2)], repeats)
    return {"recordings": count, "epochs_of_a_recording": epochs, "batch_size": 2, "rows": rows}


def child(smoke: bool, repeats: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        found = {"tokens": tokens(smoke, repeats, Path(folder)), "packed": packed(smoke, repeats)}
    for name, result in found.items():
        speedup = result["rows"][0]["speedup"]
        result |= {"speedup": speedup, "target": TARGETS[name], "reached": speedup >= TARGETS[name]}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--smoke", action="store_true", help="small, to see that it runs")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.smoke, options.repeats)))
        return
    if options.output is None:
        parser.error("-o FILE is needed")
    found = {}
    for setting, variables in MALLOC.items():
        arguments = ["--child", "--repeats", str(options.repeats), *(["--smoke"] if options.smoke else [])]
        said = subprocess.run(
            [sys.executable, __file__, *arguments],
            env={**os.environ, **variables}, stdout=subprocess.PIPE, check=True, text=True,
        ).stdout  # fmt: skip
        found[setting] = json.loads(said)
        for name, result in found[setting].items():
            print(f"{setting}, {name}: {result['speedup']:.1f} x", flush=True)
    write(
        options.output,
        {
            **environment(),
            "date": date.today().isoformat(),
            "command": f"python benchmarks/training.py -o {options.output}",
            "repeats": options.repeats,
            "malloc": found,
        },
    )


if __name__ == "__main__":
    main()
