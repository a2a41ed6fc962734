"""Linear attention with softmax features of sequences that fit in the cache as a whole.

The same results as `cpu.linear`, whose parts of time cost a fixed time each: here few operations, each of
them over everything. Backward the parts are the faster way at any length.
"""

import math

import torch
from torch import Tensor

from bioreport_kernels.reference import accumulation_dtype

# Numbers of one array, below which this is the faster way.
SHORT = 2**18
_LOG2_E = math.log2(math.e)


def is_short(q: Tensor, cu_seqlens: Tensor | None, feature_map: str) -> bool:
    """Whether `forward` here takes these arguments and is the faster one."""
    return feature_map == "softmax" and cu_seqlens is None and 0 < q.numel() <= SHORT


def infer(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """The result [B, T, H, Dv] alone: both softmaxes are PyTorch's own, which leave no maximum and no sum."""
    wide = accumulation_dtype(q.dtype)
    weight = k.softmax(1, dtype=wide).permute(0, 2, 3, 1)
    context = torch.matmul(weight, v.to(wide).transpose(1, 2)).mul_(scale)
    o = torch.matmul(q.softmax(3, dtype=wide).transpose(1, 2), context)
    return o.transpose(1, 2).to(v.dtype).contiguous()


def forward(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `cpu.linear.forward` of softmax features and dense sequences [B, T, H, D]."""
    wide = accumulation_dtype(q.dtype)
    keys = k.permute(0, 2, 3, 1).to(wide, copy=True, memory_format=torch.contiguous_format)
    # a finite floor: -inf throughout must not give -inf - -inf
    top = keys.amax(3).clamp_(min=torch.finfo(wide).min)
    weight = keys.sub_(top.unsqueeze(3)).mul_(_LOG2_E).exp2_()
    total = weight.sum(3)
    context = torch.matmul(weight, v.to(wide).transpose(1, 2)).div_(total.unsqueeze(3))
    features = q.softmax(3, dtype=wide).transpose(1, 2)
    o = torch.matmul(features, context * scale)
    return o.transpose(1, 2).to(v.dtype).contiguous(), context, top, total
