"""Training of the small CBraMod and its findings head on labelled epochs."""

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bioreport.encoders.cbramod import CBraMod
from bioreport.heads import FindingsHead
from bioreport.tiny.corpus import MODEL_FINDINGS, TAUGHT_PLACES, Shard

log = logging.getLogger(__name__)

# states last; their score is averaged over neighbouring epochs before a recording's strongest is taken
POOL_EPOCHS = {"drowsiness": 2, "generalized_slowing": 3, "focal_slowing": 3, "burst_suppression": 2}
SIZES: dict[str, Any] = {"d_model": 120, "n_layer": 4, "nhead": 8, "dim_feedforward": 480, "out_dim": 120}


class EpochClassifier(nn.Module):
    """Encoder, mean pooling and findings head, trained together; the pooled vector is the epoch's token."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = CBraMod(**SIZES)
        self.head = FindingsHead(
            SIZES["out_dim"], MODEL_FINDINGS, pool_epochs=POOL_EPOCHS, located=TAUGHT_PLACES
        )

    def forward(self, x: Tensor, channel_mask: Tensor, patch_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [E, F] and places [E, F, C] of x [E, C, P, 200] µV/100."""
        return self.head(*self.encoder.pooled(x, channel_mask, patch_mask))


def batches(shards: list[Path], batch_size: int, rng: np.random.Generator) -> Iterator[dict[str, Tensor]]:
    """One pass over the corpus in random order, four shards mixed at a time."""
    order = rng.permutation(len(shards))
    for begin in range(0, len(order), 4):
        group = [Shard.load(shards[i]) for i in order[begin : begin + 4]]
        joined = {name: np.concatenate([getattr(s, name) for s in group]) for name in vars(group[0])}
        rows = rng.permutation(len(joined["labels"]))
        for at in range(0, len(rows) - batch_size + 1, batch_size):
            pick = np.sort(rows[at : at + batch_size])
            yield {name: torch.from_numpy(array[pick]) for name, array in joined.items()}


def augment(batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Other amplifiers and caps: a gain by recording, missing channels, a little noise."""
    x, mask = batch["data"].float(), batch["channel_mask"].clone()
    epochs = len(x)
    gain = torch.exp(0.15 * torch.randn(epochs, 1, 1, generator=generator))
    noise = 0.02 * torch.rand(epochs, 1, 1, generator=generator) * torch.randn(x.shape, generator=generator)
    drop = (
        torch.rand(mask.shape, generator=generator) < 0.25 * torch.rand(epochs, 1, generator=generator) ** 2
    )
    # the channels that carry a focal finding stay, or its label would be wrong
    drop &= ~batch["places"].any(1)
    mask &= ~drop
    x = (x * gain + noise) * mask[..., None]
    return {**batch, "data": x.unflatten(-1, (-1, 200)), "channel_mask": mask}


def losses(model: nn.Module, batch: dict[str, Tensor], weights: Tensor) -> tuple[Tensor, Tensor]:
    """Detection loss (weighted binary cross-entropy) and location loss of one batch."""
    logits, places = model(batch["data"], batch["channel_mask"], batch["patch_mask"])
    labels = batch["labels"]
    known = labels >= 0
    detection = functional.binary_cross_entropy_with_logits(
        logits, labels.clamp(min=0).float(), pos_weight=weights, reduction="none"
    )
    detection = (detection * known).sum() / known.sum()
    located = torch.tensor([name in TAUGHT_PLACES for name in MODEL_FINDINGS])
    counted = ((labels == 1) & located)[..., None] & batch["channel_mask"][:, None, :]
    location = functional.binary_cross_entropy_with_logits(
        places.masked_fill(~counted, 0.0), batch["places"].float(), reduction="none"
    )
    location = (location * counted).sum() / counted.sum().clamp(min=1)
    return detection, location


def train_encoder(
    shards: list[Path], out: Path, *, steps: int, batch_size: int = 32, lr: float = 1.5e-3, seed: int = 0
) -> EpochClassifier:
    """Train from random weights; the state is kept in `out` every 200 steps and taken up from there."""
    torch.manual_seed(seed)
    model = EpochClassifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05, betas=(0.9, 0.98))
    warmup = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1, (s + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * min(1.0, s / steps)))
    )
    weights = torch.full((len(MODEL_FINDINGS),), 2.0)
    step = 0
    if out.exists():
        saved = torch.load(out, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        step = saved["step"]
    generator = torch.Generator().manual_seed(seed + step)
    rng = np.random.default_rng(seed + step)
    model.train()
    mean = 0.0
    while step < steps:
        for raw in batches(shards, batch_size, rng):
            batch = augment(raw, generator)
            with torch.autocast("cpu", torch.bfloat16):
                detection, location = losses(model, batch, weights)
            optimizer.zero_grad(set_to_none=True)
            (detection + 0.2 * location).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            mean += (float(detection.detach()) - mean) / min(step, 100)
            if step % 100 == 0:
                log.info(
                    "step %d of %d: detection loss %.4f, location %.3f", step, steps, mean, float(location)
                )
            if step % 200 == 0 or step == steps:
                state = {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                    "step": step,
                }
                torch.save(state, out.with_suffix(".partial"))
                out.with_suffix(".partial").replace(out)
            if step >= steps:
                break
    return model.eval()


@torch.inference_mode()
def score(model: EpochClassifier, shards: list[Path]) -> dict[str, np.ndarray]:
    """Logits [E, F], labels [E, F] and recording [E] of every epoch of `shards`."""
    model.eval()
    out: dict[str, list[np.ndarray]] = {"logits": [], "labels": [], "recording": []}
    for path in shards:
        shard = Shard.load(path)
        for at in range(0, len(shard.labels), 32):
            part = slice(at, at + 32)
            x = torch.from_numpy(shard.data[part]).float().unflatten(-1, (-1, 200))
            logits, _ = model(
                x, torch.from_numpy(shard.channel_mask[part]), torch.from_numpy(shard.patch_mask[part])
            )
            out["logits"].append(logits.numpy())
        out["labels"].append(shard.labels)
        out["recording"].append(shard.recording)
    return {name: np.concatenate(parts) for name, parts in out.items()}


def calibrate(head: FindingsHead, scores: dict[str, np.ndarray]) -> tuple[dict[str, float], dict[str, float]]:
    """Threshold and recording-level F1 of each finding, on the head's own recording scores.

    For a seizure the threshold is the one of best F1 among those at which at most 0.5 % of the recordings
    without a seizure are called.
    """
    rows = [scores["recording"] == recording for recording in np.unique(scores["recording"])]
    top = torch.stack([head.recording_scores(torch.from_numpy(scores["logits"][r])) for r in rows]).numpy()
    truth = np.stack([(scores["labels"][r] == 1).any(0) for r in rows])
    thresholds, f1s = {}, {}
    for column, name in enumerate(MODEL_FINDINGS):
        candidates = np.unique(np.quantile(top[:, column], np.linspace(0, 1, 500)))
        called = top[:, column, None] >= candidates
        hits = (called & truth[:, column, None]).sum(0)
        f1 = 2 * hits / np.maximum(called.sum(0) + truth[:, column].sum(), 1)
        if name == "seizure":
            invented = (called & ~truth[:, column, None]).sum(0) / max(int((~truth[:, column]).sum()), 1)
            f1 = np.where(invented <= 0.005, f1, -1.0)
        # the middle of the plateau, not its edge
        plateau = np.flatnonzero(f1 >= f1.max() - 1e-9)
        thresholds[name] = float(candidates[plateau].mean())
        f1s[name] = float(f1.max())
    return thresholds, f1s
