"""How long 11,000 h of EEG take on 1, 8 and 64 H100s, by arithmetic from what was measured on one device.

    python benchmarks/throughput.py -o benchmarks/results/throughput-DATE.json

What the host does (reading, filtering, measuring) is taken from the newest ``profile-*.json``. The encoder's
operations are counted on CBraMod at its published size, the language model's are two a weight and token
forward and two backward: a frozen model needs gradients of its activations alone. Until an encoder was timed
on a GPU its time is a share of the data sheet's rate, so it is a prediction and the table says so.
"""

import argparse
import json
from datetime import date
from pathlib import Path
from typing import Any

import torch
from environment import environment
from results import newest
from torch.utils.flop_counter import FlopCounterMode

from bioreport.encoders.cbramod import CBraMod

HOURS = 11_000
DEVICES = (1, 8, 64)
EPOCH_SECONDS, CHANNELS, SFREQ, BYTES_A_SAMPLE, TOKEN_BYTES = 10, 22, 256, 2, 400
# data sheet of the H100 SXM, and of the servers that hold eight: dense bf16, cores and disk for one GPU
BF16_FLOPS, CORES, READ_BYTES = 989e12, 14, 0.875e9
# what large products and whole training steps reach of the data sheet
SHARE = 0.4
# Qwen3-4B: weights besides the embeddings, width, vocabulary; CELM's schedule
WEIGHTS, WIDTH, VOCABULARY, EPOCHS, TRAINED_SHARE, BATCH = 3.6e9, 2560, 151_936, 10, 0.6, 4
PROMPT_TOKENS, RESPONSE_TOKENS = 900, 300
HOST_STAGES = ("mains", "read", "preprocess", "measure")


def encoder_flops() -> int:
    """Operations of one 10-s epoch of 22 channels."""
    with torch.device("meta"):
        encoder, epoch = CBraMod(), torch.empty(1, CHANNELS, EPOCH_SECONDS, 200)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(epoch)
    return int(counter.get_total_flops())


def encoding(profile: dict[str, Any], flops: int) -> list[dict[str, Any]]:
    """Seconds of every part of `encode`, which run side by side, by number of devices."""
    seconds = HOURS * 3600
    cores = max(profile["torch_threads"], 1)
    host = sum(profile["stages"][name]["seconds"] for name in HOST_STAGES) * cores
    host_cost = host / profile["recording_seconds"]
    rows = []
    for devices in DEVICES:
        parts = {
            "reading": seconds * CHANNELS * SFREQ * BYTES_A_SAMPLE / (READ_BYTES * devices),
            "host": seconds * host_cost / (CORES * devices),
            "encoder": seconds / EPOCH_SECONDS * flops / (BF16_FLOPS * SHARE * devices),
        }
        first = max(parts, key=lambda name: parts[name])
        rows.append({"devices": devices, "seconds": parts, "saturates_first": first})
    return rows


def training() -> list[dict[str, Any]]:
    """Seconds of CELM's ten epochs on tokens, one report an hour of EEG."""
    tokens = 3600 / EPOCH_SECONDS + PROMPT_TOKENS + RESPONSE_TOKENS
    flops = 4 * (WEIGHTS * tokens + WIDTH * VOCABULARY * RESPONSE_TOKENS)
    reports = HOURS * TRAINED_SHARE * EPOCHS
    rows = []
    for devices in DEVICES:
        # a step waits for the fullest device: with fewer reports than devices some have none
        used = min(devices, BATCH)
        rows.append(
            {
                "devices": devices,
                "seconds": reports * flops / (BF16_FLOPS * SHARE * used),
                "seconds_with_a_report_for_each": reports * flops / (BF16_FLOPS * SHARE * devices),
                "saturates_first": "matrix products" if devices <= BATCH else "the recipe's batch",
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    found = newest("profile")
    if found is None:
        parser.error("benchmarks/results has no profile-*.json; run profile_pipeline.py first")
    path, profile = found
    flops = encoder_flops()
    result = {
        **environment(),
        "date": date.today().isoformat(),
        "command": f"python benchmarks/throughput.py -o {options.output}",
        "hours": HOURS,
        "profile": path.name,
        "encoder_flops": flops,
        "assumed": {
            "bf16_flops": BF16_FLOPS,
            "share_of_data_sheet": SHARE,
            "cores": CORES,
            "read_bytes_a_second": READ_BYTES,
            "epochs": EPOCHS,
            "trained_share": TRAINED_SHARE,
            "prompt_tokens": PROMPT_TOKENS,
            "response_tokens": RESPONSE_TOKENS,
            "batch": BATCH,
        },
        "files": {
            "recordings_bytes": HOURS * 3600 * CHANNELS * SFREQ * BYTES_A_SAMPLE,
            "tokens_bytes": HOURS * 3600 // EPOCH_SECONDS * TOKEN_BYTES,
        },
        "encoding": encoding(profile, flops),
        "training": training(),
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
