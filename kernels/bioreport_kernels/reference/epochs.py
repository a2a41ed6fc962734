"""One token an epoch, as `bioreport_kernels.aggregate_epochs` documents it."""

import torch
from torch import Tensor
from torch.nn import functional as F

from bioreport_kernels.reference.precision import accumulation_dtype


def aggregate_epochs(
    features: Tensor, mask: Tensor | None = None, mode: str = "mean", query: Tensor | None = None
) -> Tensor:
    """Definition of `bioreport_kernels.aggregate_epochs`."""
    wide = accumulation_dtype(features.dtype)
    there = None if mask is None else (mask if mask.ndim == 3 else mask.unsqueeze(2)).unsqueeze(3)
    if mode == "mean":
        if there is None:
            return features.mean((1, 2), dtype=wide).to(features.dtype)
        # filled, not multiplied: NaN times zero is NaN
        total = features.masked_fill(~there, 0).sum((1, 2), dtype=wide)
        count = there.expand(*features.shape[:3], 1).sum((1, 2))
        return (total / count.clamp(min=1)).to(features.dtype)
    if mode == "max":
        if there is None:
            return features.amax((1, 2))
        top = features.masked_fill(~there, float("-inf")).amax((1, 2))
        return torch.where(there.any(2).any(1), top, 0)
    assert query is not None
    x = features.to(wide).flatten(1, 2)
    queries = query.to(wide).reshape(-1, query.shape[-1])
    if there is not None:
        rows = there.expand(*features.shape[:3], 1).flatten(1, 2)
        x = x.masked_fill(~rows, 0)
    scores = queries @ x.transpose(1, 2) * x.shape[-1] ** -0.5
    if there is not None:
        # a finite floor keeps the softmax, and its gradient, defined where nothing is left
        scores = scores.masked_fill(~rows.transpose(1, 2), torch.finfo(wide).min)
    tokens = F.softmax(scores, -1) @ x
    return (tokens if query.ndim == 2 else tokens.squeeze(1)).to(features.dtype)
