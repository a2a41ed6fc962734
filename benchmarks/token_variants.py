"""How many embeddings of a session a report needs: projectors that spend fewer, trained alike.

    python benchmarks/token_variants.py -o benchmarks/results/token-variants-DATE.json

Every variant stands on the embedded model's encoder and language model, learns the same impressions of the
same simulated EEGs in the same batches for as many steps, and is judged on others. No measured fact stands in
a prompt, so that all a variant knows of a recording came through its embeddings.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from environment import environment
from results import write

from bioreport.bundle import Bundle
from bioreport.bundle_reader import load_bundle
from bioreport.fusion import PrefixFusion
from bioreport.generation import generate_sections
from bioreport.lexicon import read_findings
from bioreport.manifest import Entry, read_manifest
from bioreport.simulate import simulate_corpus
from bioreport.tokens import TokenStore, encode_manifest
from bioreport.train import Run, Sample, new_fusion, read_samples

SECTION = "IMPRESSION/INTERPRETATION"
# Seeds far from those that the embedded model was trained on.
TRAIN_SEED, TEST_SEED = 3_100_000, 3_200_000
VARIANTS: tuple[tuple[str, str, dict[str, int]], ...] = (
    *((f"sequence, {k} epoch{'s' * (k > 1)} an embedding", "sequence", {"combine": k}) for k in (1, 2, 4, 8)),
    *((f"sequence-perceiver, {n} queries", "sequence-perceiver", {"queries": n}) for n in (4, 16, 64)),
    ("perceiver, 16 queries", "perceiver", {"queries": 16}),
)


def corpus(folder: Path, seed: int, count: int, seconds: float, bundle: Bundle) -> list[tuple[Entry, Sample]]:
    """Simulated recordings, encoded once: impressions alone, and prompts without facts."""
    manifest = simulate_corpus(count, seed, folder, modality="eeg", duration_seconds=seconds)
    entries = [
        replace(entry, sections={SECTION: entry.sections[SECTION]}) for entry in read_manifest(manifest)
    ]
    filled = encode_manifest(entries, bundle, folder / "tokens")
    if filled.errors:
        raise filled.errors[0]
    samples = read_samples(entries, TokenStore(folder / "tokens"), filled.keys, bundle)
    # with and without history, never with facts
    return [
        (
            entry,
            replace(
                sample, sessions=list(sample.sessions), prompts=[*sample.prompts[2:], *sample.prompts[2:]]
            ),
        )
        for entry, sample in zip(entries, samples, strict=True)
    ]


def learn(
    bundle: Bundle, kind: str, sizes: dict[str, int], samples: Sequence[Sample], options: argparse.Namespace
) -> PrefixFusion:
    """A fusion whose projector learnt for so many steps."""
    _, fusion = new_fusion(bundle, kind, dict(sizes), seed=1)
    run = Run(
        fusion,
        samples,
        kind=kind,
        seed=1,
        epochs=1 + options.steps * options.batch // len(samples),
        batch_size=options.batch,
        lr=options.lr,
        weight_decay=0.01,
        warmup=0.1,
        clip=1.0,
        max_steps=options.steps,
    )
    for _ in range(options.steps):
        run.advance()
    return fusion


@torch.no_grad()
def judge(fusion: PrefixFusion, held_out: Sequence[tuple[Entry, Sample]], size: int) -> dict[str, Any]:
    """Embeddings of a session, loss in nats a response token, F1 of the findings that greedy texts state."""
    fusion.eval()
    total = right = stated = there = embeddings = 0.0
    for first in range(0, len(held_out), size):
        batch = held_out[first : first + size]
        samples = [sample for _, sample in batch]
        prompts = [sample.prompts[0] for sample in samples]
        sessions = [sample.sessions for sample in samples]
        packed = fusion.pack(prompts, sessions, [sample.response for sample in samples])
        total += float(fusion.loss(packed)) * len(batch)
        embeddings += sum(len(fusion.projector(tokens)[0]) for group in sessions for tokens in group)
        texts = generate_sections(
            fusion, fusion.embed(prompts, sessions), [SECTION], max_new_tokens_per_section=120
        )
        for (entry, _), text in zip(batch, texts, strict=True):
            said = {name for name, status in read_findings(text[SECTION]).items() if status}
            truth = {finding["name"] for finding in entry.findings or () if finding["present"]}
            right, stated, there = right + len(said & truth), stated + len(said), there + len(truth)
    return {
        "embeddings": embeddings / len(held_out),
        "held_out_loss": total / len(held_out),
        "text_f1": 2 * right / max(stated + there, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--recordings", type=int, default=300)
    parser.add_argument("--held-out", type=int, default=80)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1e-3)
    options = parser.parse_args()
    bundle = load_bundle("bioreport-tiny", device="cpu", dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        training = corpus(Path(folder) / "train", TRAIN_SEED, options.recordings, options.seconds, bundle)
        held_out = corpus(Path(folder) / "test", TEST_SEED, options.held_out, options.seconds, bundle)
    rows = []
    for name, kind, sizes in VARIANTS:
        fusion = learn(bundle, kind, sizes, [sample for _, sample in training], options)
        parameters = sum(p.numel() for p in fusion.projector.parameters())
        rows.append({"variant": name, "parameters": parameters, **judge(fusion, held_out, options.batch)})
        print(rows[-1], flush=True)
    write(
        options.output,
        {
            **environment(),
            "date": date.today().isoformat(),
            "command": f"python benchmarks/token_variants.py -o {options.output}",
            "recording_seconds": options.seconds,
            "trained_on": len(training),
            "judged_on": len(held_out),
            "steps": options.steps,
            "batch_size": options.batch,
            "learning_rate": options.lr,
            "rows": rows,
        },
    )


if __name__ == "__main__":
    main()
