"""Linear attention, as `bioreport_kernels.linear_attention` documents it."""

from itertools import pairwise

import torch
from torch import Tensor

from bioreport_kernels.reference.precision import accumulation_dtype

# Length of a causal chunk: within it attention is a triangular matrix, between chunks a state.
CAUSAL_CHUNK = 64


def positive(x: Tensor) -> Tensor:
    """elu(x) + 1, positive everywhere, without the cancellation of adding 1 to nearly -1."""
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    feature_map: str = "softmax",
    causal: bool = False,
    scale: float | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: tuple[Tensor, Tensor] | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
    """Definition of `bioreport_kernels.linear_attention`."""
    if cu_seqlens is None:
        out, state = _attend(q, k, v, feature_map, causal, scale, initial_state)
        return (out, state) if return_state and state is not None else out
    outs, states = [], []
    for index, (start, stop) in enumerate(pairwise(cu_seqlens.tolist())):
        begin = None
        if initial_state is not None:
            begin = initial_state[0][index, None], initial_state[1][index, None]
        rows = slice(start, stop)
        out, state = _attend(q[:, rows], k[:, rows], v[:, rows], feature_map, causal, scale, begin)
        outs.append(out)
        states.append(state)
    # one concatenation also of no sequence at all
    packed = torch.cat([v.new_zeros(*q.shape[:3], v.shape[3])[:, :0], *outs], 1)
    if return_state and causal:
        return packed, (torch.cat([s[0] for s in states if s]), torch.cat([s[1] for s in states if s]))
    return packed


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    feature_map: str,
    causal: bool,
    scale: float | None,
    state: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
    dtype, wide = v.dtype, accumulation_dtype(q.dtype)
    # heads before time, so that every product below is one batched matrix product
    q, k, v = (x.to(wide).transpose(1, 2) for x in (q, k, v))
    if feature_map == "softmax":
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        context = k.softmax(2).transpose(2, 3) @ v
        out = q.softmax(3) @ (context * factor)
        return out.transpose(1, 2).to(dtype), None
    q, k = positive(q), positive(k)
    factor = 1.0 if scale is None else scale
    if not causal:
        context = k.transpose(2, 3) @ v
        norm = q @ k.sum(2).unsqueeze(3)
        return (_divide(q @ context, norm) * factor).transpose(1, 2).to(dtype), None
    if state is None:
        batch, heads, _, dim = k.shape
        context, total = q.new_zeros(batch, heads, dim, v.shape[3]), q.new_zeros(batch, heads, dim)
    else:
        context, total = state[0].to(wide), state[1].to(wide)
    outs = [v[:, :, :0]]
    for q_t, k_t, v_t in zip(*(x.split(CAUSAL_CHUNK, 2) for x in (q, k, v)), strict=True):
        within = (q_t @ k_t.transpose(2, 3)).tril()
        norm = within.sum(3, keepdim=True) + q_t @ total.unsqueeze(3)
        outs.append(_divide(within @ v_t + q_t @ context, norm) * factor)
        context, total = context + k_t.transpose(2, 3) @ v_t, total + k_t.sum(2)
    return torch.cat(outs, 2).transpose(1, 2).to(dtype), (context, total)


def _divide(numerator: Tensor, norm: Tensor) -> Tensor:
    # exp underflows far below zero: there both vanish, and the answer is zero, not NaN
    return numerator / norm.clamp(min=torch.finfo(norm.dtype).tiny)
