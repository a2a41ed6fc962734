"""Three quantizers on one autoencoder, what their vectors tell, and ECG-Byte beside ECG-Tok, in one run.

    python benchmarks/ecg_tokenizers.py -o benchmarks/results/ecg-tokenizers-DATE.json

- VQ, RVQ and QINCo of 512 codewords each learn the same simulated ECGs in the same batches. How many
  codewords are used, and how well the signal comes back, is measured on other simulated ECGs and on real
  12-lead records; with codewords reset that fell out of use, and without.
- A classifier learns the simulated findings from each tokenizer's vectors, and is scored on other records.
- ECG-Byte's symbols and QINCo's vectors go before the same language model (`ecg_byte.py`).

Seeds lie apart from those of every other simulation. Times are of one thread with ``OMP_NUM_THREADS=1``.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ecg_byte import SECTION, Record, ReportSizes, batches, compare, standardised
from environment import environment
from results import write
from torch import Tensor
from torch.nn import functional as F

from bioreport.ecg.classifier import FINDING_GROUPS, EcgClassifier, micro_auc_by_group
from bioreport.ecg.leads import LEADS
from bioreport.ecg.preprocess import ECG_TOK, preprocess_record
from bioreport.ecg.reading import EcgRecording, open_ecg
from bioreport.ecg.simulation import simulate_ecg
from bioreport.ecg.tokenizer import measure, read_windows, to_tensor, train_tokenizer
from bioreport.encoders.ecg_autoencoder import EcgTokenizer, TokenizerConfig
from bioreport.errors import InputError
from bioreport.findings import ECG_NAMES

TRAIN_SEED, HELD_OUT_SEED = 3 * 10**15, 4 * 10**15
TARGET = 0.95  # of QINCo's codewords
# in the order that their utilisation should have
QUANTIZERS = {"vector": "VQ", "residual": "RVQ", "qinco": "QINCo"}


@dataclass(frozen=True)
class Sizes:
    """How much is simulated and trained."""

    records: int = 500
    held_out: int = 100
    steps: int = 400
    batch: int = 8
    # narrower than the default, so that all six can be trained on one core
    config: TokenizerConfig = field(
        default_factory=lambda: TokenizerConfig(dim=32, widths=(16, 24, 32, 48, 64), hidden=64)
    )
    classifier_steps: int = 150
    classifier_batch: int = 32
    reports: ReportSizes = field(default_factory=ReportSizes)


SMOKE = Sizes(
    records=8,
    held_out=3,
    steps=2,
    batch=2,
    config=TokenizerConfig(dim=8, widths=(8, 8, 8, 8, 8), stages=2, codewords=8, blocks=1, hidden=8),
    classifier_steps=2,
    classifier_batch=4,
    reports=ReportSizes(
        texts=20,
        language_steps=1,
        language_batch=2,
        merges=40,
        fitted=2,
        steps=1,
        batch=2,
        width=8,
        written=1,
        section_tokens=2,
    ),
)


def simulated(seed: int, count: int, stride: int) -> list[Record]:
    """Records of 10 s as the tokenizer takes them, with findings and report."""
    found = []
    for number in range(count):
        ecg = simulate_ecg(seed + number)
        recording = EcgRecording.from_array(ecg.data, ecg.sfreq, ecg.leads)
        window = to_tensor(preprocess_record(recording, ECG_TOK)[0], stride)[0]
        present = frozenset(entry["name"] for entry in ecg.findings if entry["present"])
        found.append(Record(window, present, ecg.sections[SECTION], ecg.history))
    return found


def twelve_lead_records(folder: Path) -> list[Path]:
    """Headers of the folder's records that have all leads."""
    found = []
    for path in sorted(folder.glob("*.hea")):
        try:
            complete = set(LEADS) <= set(open_ecg(path).leads)
        except InputError as error:
            print(error, flush=True)
            continue
        if complete:
            found.append(path)
    return found


def quantizers(
    train: Tensor, held_out: Tensor, real: Tensor | None, sizes: Sizes
) -> tuple[list[dict[str, Any]], dict[str, EcgTokenizer]]:
    """A row of each quantizer with and without reset, and the tokenizers with it."""
    rows, models = [], {}
    for reset in (True, False):
        for kind, name in QUANTIZERS.items():
            config = replace(sizes.config, quantizer=kind, **({} if reset else {"least_used": 0.0}))
            start, busy = time.perf_counter(), time.process_time()
            model = train_tokenizer(train, config, steps=sizes.steps, batch_size=sizes.batch)
            seconds = [time.perf_counter() - start, time.process_time() - busy]
            one = kind == "vector"
            row: dict[str, Any] = {
                "quantizer": name,
                "stages": 1 if one else config.stages,
                "codewords": config.codewords * (config.stages if one else 1),
                "reset": reset,
                "parameters": sum(p.numel() for p in model.quantizer.parameters()),
                "seconds_a_step": seconds[0] / sizes.steps,
                "processor_seconds_a_step": seconds[1] / sizes.steps,
                "held_out": measure(model, held_out),
                "real": None if real is None else measure(model, real),
            }
            print(row, flush=True)
            rows.append(row)
            if reset:
                models[name] = model
    return rows, models


def verdict(rows: Sequence[dict[str, Any]], where: str) -> dict[str, Any] | None:
    """Whether utilisation rises from VQ to RVQ to QINCo, and QINCo's reaches the target."""
    if rows[0][where] is None:
        return None
    found: dict[str, Any] = {}
    for reset in (True, False):
        used = [row[where]["pooled_utilisation"] for row in rows if row["reset"] == reset]
        found["with reset" if reset else "without reset"] = {
            "pooled_utilisation": dict(zip(QUANTIZERS.values(), used, strict=True)),
            "rises": used[0] < used[1] < used[2],
            "target": TARGET,
            "reached": used[2] >= TARGET,
        }
    return found


@torch.no_grad()
def vectors_of(model: EcgTokenizer, windows: Tensor, batch: int = 32) -> Tensor:
    """Vectors [N, F, D] of windows."""
    return torch.cat([model.tokenize(x)[1] for x in windows.split(batch)])


def truth(records: Sequence[Record]) -> np.ndarray:
    """Findings of records, bool [N, names]."""
    return np.array([[name in record.present for name in ECG_NAMES] for record in records])


def classify(
    train: Tensor, test: Tensor, train_truth: np.ndarray, test_truth: np.ndarray, sizes: Sizes
) -> dict[str, float | None]:
    """Micro-AUC by group of a classifier on vectors [N, F, D] of a frozen tokenizer."""
    torch.manual_seed(0)
    train, test = standardised(train, test)
    labels = torch.from_numpy(train_truth).float()
    model = EcgClassifier(train.shape[2], ECG_NAMES)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=sizes.classifier_steps)
    for rows in batches(len(train), sizes.classifier_batch, sizes.classifier_steps):
        loss = F.binary_cross_entropy_with_logits(model(train[rows]), labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        scores = torch.cat([model(x) for x in test.split(64)]).numpy()
    return micro_auc_by_group(scores, test_truth, ECG_NAMES, FINDING_GROUPS)


def main() -> None:
    shared = Path(os.environ.get("BIOREPORT_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--records", type=int, default=Sizes.records, help="simulated ECGs to learn from")
    parser.add_argument("--steps", type=int, default=Sizes.steps, help="of each tokenizer")
    parser.add_argument("--report-steps", type=int, default=ReportSizes.steps, help="of each language model")
    parser.add_argument(
        "--llm",
        help="language model to start from, as WORK/llm of bioreport.tiny.ecg; default: one learns first",
    )
    parser.add_argument("--real", type=Path, default=shared / "data" / "dev" / "ecg", help="WFDB records")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that everything runs")
    options = parser.parse_args()
    reports = ReportSizes(steps=options.report_steps)
    sizes = SMOKE if options.smoke else Sizes(options.records, steps=options.steps, reports=reports)
    sizes = replace(sizes, reports=replace(sizes.reports, llm=options.llm))
    began = time.perf_counter()

    stride = sizes.config.stride
    train = simulated(TRAIN_SEED, sizes.records, stride)
    test = simulated(HELD_OUT_SEED, sizes.held_out, stride)
    train_windows, test_windows = (torch.stack([r.window for r in records]) for records in (train, test))
    paths = twelve_lead_records(options.real)[: 2 if options.smoke else None]
    real = read_windows(paths, stride) if paths else None
    print(f"simulated and read in {time.perf_counter() - began:.0f} s", flush=True)

    rows, models = quantizers(train_windows, test_windows, real, sizes)
    areas, vectors = [], {}
    for name, model in models.items():
        vectors[name] = [vectors_of(model, windows) for windows in (train_windows, test_windows)]
        found = classify(*vectors[name], truth(train), truth(test), sizes)
        areas.append({"quantizer": name, "micro_auc": found})
        print(areas[-1], flush=True)
    compared = compare(train, test, *vectors["QINCo"], sizes.reports)

    arguments = [argument for argument in sys.argv[1:] if argument not in ("-o", str(options.output))]
    write(
        options.output,
        {
            **environment(),
            "date": date.today().isoformat(),
            "command": " ".join(["python benchmarks/ecg_tokenizers.py", *arguments]),
            "seconds": time.perf_counter() - began,
            "records": sizes.records,
            "held_out": sizes.held_out,
            "steps": sizes.steps,
            "batch_size": sizes.batch,
            "config": sizes.config.to_dict(),
            "real_records": [path.stem for path in paths]
            if paths
            else f"skipped: {options.real.name} holds no 12-lead record",
            "tokenizers": rows,
            "verdict": {"held_out": verdict(rows, "held_out"), "real": verdict(rows, "real")},
            "classification": {
                "labels": len(ECG_NAMES),
                "steps": sizes.classifier_steps,
                "batch_size": sizes.classifier_batch,
                "rows": areas,
            },
            "reports": {**compared, "sizes": asdict(sizes.reports)},
        },
    )


if __name__ == "__main__":
    main()
