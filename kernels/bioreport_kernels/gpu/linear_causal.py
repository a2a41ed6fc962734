"""Causal linear attention with elu features: chunks side by side, a state carried through each.

`_context_kernel` of the operator without causality leaves every chunk's own sums; a chunk starts from the
initial state and the sums of the chunks before it (as in flash-linear-attention's chunked form, Yang and
Zhang 2024) and goes through its blocks of rows: within a block attention is a triangle, before it the state.
Backward the same from the front for q and from the back for k and v, whose state is the gradient of the sums.

Products are of float32 operands, with TF32's mantissa for 16-bit inputs: the norm grows with the length, and
what is divided by it leaves float16's range.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from bioreport_kernels.configs import Setting, has_setting
from bioreport_kernels.gpu.launch import Case
from bioreport_kernels.gpu.linear import (
    TINY,
    Layout,
    _context_kernel,
    dense_rows,
    locate,
    positive,
    positive_slope,
    put_rows,
    rows_of,
    values_at_once,
)


@triton.jit
def _state_before(
    context, total, part_context, part_sum, first, last, heads, head, offsets, own, columns_k, valid_k,
    DK: tl.constexpr, DV: tl.constexpr,
):  # fmt: skip
    """Add the sums of slots from `first` up to `last`, in this order."""
    for part in range(first, last):
        place = part * heads + head
        context += tl.load(part_context + place * DK * DV + offsets, mask=own, other=0.0)
        total += tl.load(part_sum + place * DK + columns_k, mask=valid_k, other=0.0)
    return context, total


@triton.jit
def _causal_output_kernel(
    q, k, v, out, part_context, part_sum, context0, total0, contexts, totals,
    borders, sequences, length, chunk, heads, scale,
    q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head, o_batch, o_row, o_head,
    SOFTMAX: tl.constexpr, PACKED: tl.constexpr, HEADS: tl.constexpr, DK: tl.constexpr, DV: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, ALIGN: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    INITIAL: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    head = (tl.program_id(0) % heads).to(tl.int64)
    slot = (tl.program_id(0) // heads).to(tl.int64)
    sequence, begin, end, start, stop, first = locate(slot, borders, sequences, length, chunk, PACKED)
    batch = sequence if not PACKED else sequence * 0
    columns_k, columns_v = tl.arange(0, BK), tl.arange(0, BV)
    valid_k, valid_v = columns_k < DK, columns_v < DV
    offsets, own = columns_k[:, None] * DV + columns_v[None, :], valid_k[:, None] & valid_v[None, :]
    place = sequence * heads + head
    context = tl.zeros([BK, BV], tl.float32)
    total = tl.zeros([BK], tl.float32)
    if INITIAL:
        context += tl.load(context0 + place * DK * DV + offsets, mask=own, other=0.0).to(tl.float32)
        total += tl.load(total0 + place * DK + columns_k, mask=valid_k, other=0.0).to(tl.float32)
    chunks = (end - begin + chunk - 1) // chunk
    context, total = _state_before(
        context, total, part_context, part_sum, first, tl.minimum(slot, first + chunks), heads, head,
        offsets, own, columns_k, valid_k, DK, DV,
    )  # fmt: skip
    q += batch * (q_batch * ALIGN) + head * (q_head * ALIGN)
    k += batch * (k_batch * ALIGN) + head * (k_head * ALIGN)
    v += batch * (v_batch * ALIGN) + head * (v_head * ALIGN)
    out += batch * (o_batch * ALIGN) + head * (o_head * ALIGN)
    before = (tl.arange(0, BLOCK_T)[:, None] >= tl.arange(0, BLOCK_T)[None, :]).to(tl.float32)
    for t in range(start, stop, BLOCK_T):
        rows = t + tl.arange(0, BLOCK_T)
        inside = rows < stop
        there = inside[:, None] & valid_k[None, :]
        query = rows_of(q, rows, inside, columns_k, valid_k, q_row * ALIGN, BK == DK).to(tl.float32)
        key = rows_of(k, rows, inside, columns_k, valid_k, k_row * ALIGN, BK == DK).to(tl.float32)
        value = rows_of(v, rows, inside, columns_v, valid_v, v_row * ALIGN, BV == DV).to(tl.float32)
        query = tl.where(valid_k[None, :], positive(query), 0.0)
        key = tl.where(there, positive(key), 0.0)
        within = tl.dot(query, tl.trans(key), input_precision=PRECISION) * before
        norm = tl.sum(within, 1) + tl.sum(query * total[None, :], 1)
        result = tl.dot(within, value, input_precision=PRECISION)
        result += tl.dot(query, context, input_precision=PRECISION)
        result = result / tl.where(norm < TINY, TINY, norm)[:, None] * scale
        put_rows(out, result, rows, inside, columns_v, valid_v, o_row * ALIGN, BV == DV)
        context = tl.dot(tl.trans(key), value, context, input_precision=PRECISION)
        total += tl.sum(key, 0)
    if slot == first + tl.maximum(chunks, 1) - 1:
        tl.store(contexts + place * DK * DV + offsets, context, mask=own)
        tl.store(totals + place * DK + columns_k, total, mask=valid_k)


@triton.jit
def _causal_dquery_kernel(
    q, k, v, dout, dq, part_context, part_sum, context0, total0, part_dcontext, part_dtotal, inverse, dnorms,
    borders, sequences, length, chunk, heads, scale,
    q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head, o_batch, o_row, o_head,
    dq_batch, dq_row, dq_head,
    SOFTMAX: tl.constexpr, PACKED: tl.constexpr, HEADS: tl.constexpr, DK: tl.constexpr, DV: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, ALIGN: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    INITIAL: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    head = (tl.program_id(0) % heads).to(tl.int64)
    slot = (tl.program_id(0) // heads).to(tl.int64)
    sequence, begin, end, start, stop, first = locate(slot, borders, sequences, length, chunk, PACKED)
    batch = sequence if not PACKED else sequence * 0
    columns_k, columns_v = tl.arange(0, BK), tl.arange(0, BV)
    valid_k, valid_v = columns_k < DK, columns_v < DV
    offsets, own = columns_k[:, None] * DV + columns_v[None, :], valid_k[:, None] & valid_v[None, :]
    place = sequence * heads + head
    context = tl.zeros([BK, BV], tl.float32)
    total = tl.zeros([BK], tl.float32)
    if INITIAL:
        context += tl.load(context0 + place * DK * DV + offsets, mask=own, other=0.0).to(tl.float32)
        total += tl.load(total0 + place * DK + columns_k, mask=valid_k, other=0.0).to(tl.float32)
    chunks = (end - begin + chunk - 1) // chunk
    context, total = _state_before(
        context, total, part_context, part_sum, first, tl.minimum(slot, first + chunks), heads, head,
        offsets, own, columns_k, valid_k, DK, DV,
    )  # fmt: skip
    q += batch * (q_batch * ALIGN) + head * (q_head * ALIGN)
    k += batch * (k_batch * ALIGN) + head * (k_head * ALIGN)
    v += batch * (v_batch * ALIGN) + head * (v_head * ALIGN)
    dq += batch * (dq_batch * ALIGN) + head * (dq_head * ALIGN)
    dout += batch * (o_batch * ALIGN) + head * (o_head * ALIGN)
    before = (tl.arange(0, BLOCK_T)[:, None] >= tl.arange(0, BLOCK_T)[None, :]).to(tl.float32)
    dcontext = tl.zeros([BK, BV], tl.float32)
    dtotal = tl.zeros([BK], tl.float32)
    for t in range(start, stop, BLOCK_T):
        rows = t + tl.arange(0, BLOCK_T)
        inside = rows < stop
        there = inside[:, None] & valid_k[None, :]
        raw = rows_of(q, rows, inside, columns_k, valid_k, q_row * ALIGN, BK == DK).to(tl.float32)
        key = rows_of(k, rows, inside, columns_k, valid_k, k_row * ALIGN, BK == DK).to(tl.float32)
        value = rows_of(v, rows, inside, columns_v, valid_v, v_row * ALIGN, BV == DV).to(tl.float32)
        grad = rows_of(dout, rows, inside, columns_v, valid_v, o_row * ALIGN, BV == DV).to(tl.float32)
        query = tl.where(there, positive(raw), 0.0)
        key = tl.where(there, positive(key), 0.0)
        within = tl.dot(query, tl.trans(key), input_precision=PRECISION) * before
        norm = tl.sum(within, 1) + tl.sum(query * total[None, :], 1)
        floored = tl.where(norm < TINY, TINY, norm)
        numerator = tl.dot(within, value, input_precision=PRECISION)
        numerator += tl.dot(query, context, input_precision=PRECISION)
        factor = tl.where(inside, scale / floored, 0.0)
        dnumerator = tl.where(inside[:, None], grad * factor[:, None], 0.0)
        dnorm = tl.where(
            inside & (norm >= TINY), -tl.sum(dnumerator * (numerator / floored[:, None]), 1), 0.0
        )
        dwithin = (tl.dot(dnumerator, tl.trans(value), input_precision=PRECISION) + dnorm[:, None]) * before
        dquery = tl.dot(dwithin, key, input_precision=PRECISION)
        dquery += tl.dot(dnumerator, tl.trans(context), input_precision=PRECISION)
        dquery = (dquery + dnorm[:, None] * total[None, :]) * positive_slope(raw)
        put_rows(dq, dquery, rows, inside, columns_k, valid_k, dq_row * ALIGN, BK == DK)
        at = (batch * length + rows) * heads + head
        tl.store(inverse + at, factor, mask=inside)
        tl.store(dnorms + at, dnorm, mask=inside)
        context = tl.dot(tl.trans(key), value, context, input_precision=PRECISION)
        total += tl.sum(key, 0)
        dcontext = tl.dot(tl.trans(query), dnumerator, dcontext, input_precision=PRECISION)
        dtotal += tl.sum(query * dnorm[:, None], 0)
    place = slot * heads + head
    tl.store(part_dcontext + place * DK * DV + offsets, dcontext, mask=own)
    tl.store(part_dtotal + place * DK + columns_k, dtotal, mask=valid_k)


@triton.jit
def _causal_dkeyvalue_kernel(
    q, k, v, dout, dk, dv, part_dcontext, part_dtotal, inverse, dnorms, grad_context, grad_total,
    dcontexts, dtotals, borders, sequences, length, chunk, heads, scale,
    q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head, o_batch, o_row, o_head,
    dk_batch, dk_row, dk_head, dv_batch, dv_row, dv_head,
    SOFTMAX: tl.constexpr, PACKED: tl.constexpr, HEADS: tl.constexpr, DK: tl.constexpr, DV: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, ALIGN: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
):  # fmt: skip
    head = (tl.program_id(0) % heads).to(tl.int64)
    slot = (tl.program_id(0) // heads).to(tl.int64)
    sequence, begin, end, start, stop, first = locate(slot, borders, sequences, length, chunk, PACKED)
    batch = sequence if not PACKED else sequence * 0
    columns_k, columns_v = tl.arange(0, BK), tl.arange(0, BV)
    valid_k, valid_v = columns_k < DK, columns_v < DV
    offsets, own = columns_k[:, None] * DV + columns_v[None, :], valid_k[:, None] & valid_v[None, :]
    place = sequence * heads + head
    dcontext = tl.load(grad_context + place * DK * DV + offsets, mask=own, other=0.0)
    dtotal = tl.load(grad_total + place * DK + columns_k, mask=valid_k, other=0.0)
    chunks = (end - begin + chunk - 1) // chunk
    dcontext, dtotal = _state_before(
        dcontext, dtotal, part_dcontext, part_dtotal, slot + 1, first + chunks, heads, head,
        offsets, own, columns_k, valid_k, DK, DV,
    )  # fmt: skip
    q += batch * (q_batch * ALIGN) + head * (q_head * ALIGN)
    k += batch * (k_batch * ALIGN) + head * (k_head * ALIGN)
    v += batch * (v_batch * ALIGN) + head * (v_head * ALIGN)
    dk += batch * (dk_batch * ALIGN) + head * (dk_head * ALIGN)
    dv += batch * (dv_batch * ALIGN) + head * (dv_head * ALIGN)
    dout += batch * (o_batch * ALIGN) + head * (o_head * ALIGN)
    before = (tl.arange(0, BLOCK_T)[:, None] >= tl.arange(0, BLOCK_T)[None, :]).to(tl.float32)
    blocks = (stop - start + BLOCK_T - 1) // BLOCK_T
    for back in range(0, blocks):
        rows = start + (blocks - 1 - back) * BLOCK_T + tl.arange(0, BLOCK_T)
        inside = rows < stop
        there = inside[:, None] & valid_k[None, :]
        query = rows_of(q, rows, inside, columns_k, valid_k, q_row * ALIGN, BK == DK).to(tl.float32)
        raw = rows_of(k, rows, inside, columns_k, valid_k, k_row * ALIGN, BK == DK).to(tl.float32)
        value = rows_of(v, rows, inside, columns_v, valid_v, v_row * ALIGN, BV == DV).to(tl.float32)
        grad = rows_of(dout, rows, inside, columns_v, valid_v, o_row * ALIGN, BV == DV).to(tl.float32)
        at = (batch * length + rows) * heads + head
        factor = tl.load(inverse + at, mask=inside, other=0.0)
        dnorm = tl.load(dnorms + at, mask=inside, other=0.0)
        query = tl.where(there, positive(query), 0.0)
        key = tl.where(there, positive(raw), 0.0)
        dnumerator = grad * factor[:, None]
        within = tl.dot(query, tl.trans(key), input_precision=PRECISION) * before
        dvalue = tl.dot(tl.trans(within), dnumerator, input_precision=PRECISION)
        dvalue += tl.dot(key, dcontext, input_precision=PRECISION)
        put_rows(dv, dvalue, rows, inside, columns_v, valid_v, dv_row * ALIGN, BV == DV)
        dwithin = (tl.dot(dnumerator, tl.trans(value), input_precision=PRECISION) + dnorm[:, None]) * before
        dkey = tl.dot(tl.trans(dwithin), query, input_precision=PRECISION)
        dkey += tl.dot(value, tl.trans(dcontext), input_precision=PRECISION)
        dkey = (dkey + dtotal[None, :]) * positive_slope(raw)
        put_rows(dk, dkey, rows, inside, columns_k, valid_k, dk_row * ALIGN, BK == DK)
        dcontext = tl.dot(tl.trans(query), dnumerator, dcontext, input_precision=PRECISION)
        dtotal += tl.sum(query * dnorm[:, None], 0)
    if slot == first:
        tl.store(dcontexts + place * DK * DV + offsets, dcontext, mask=own)
        tl.store(dtotals + place * DK + columns_k, dtotal, mask=valid_k)


def _initial(
    layout: Layout, q: Tensor, context: Tensor | None, total: Tensor | None
) -> tuple[Tensor, Tensor, bool]:
    if context is None or total is None:
        unused = layout.parts(q, 1, count=1)
        return unused, unused, False
    return context.contiguous(), total.contiguous(), True


def _sums(layout: Layout, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    part_context, part_sum = layout.parts(k, layout.dk, layout.dv), layout.parts(k, layout.dk)
    layout.launch(
        _context_kernel, "linear_context", False, k, v, part_context, part_sum, part_sum, *layout.arguments(),
        rows=(k, v),
    )  # fmt: skip
    return part_context, part_sum


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    scale: float,
    context: Tensor | None,
    total: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output and final state; as `cpu.linear.forward_causal`."""
    width = values_at_once("linear_causal_output", q, v)
    if v.shape[3] > width:
        values = v.split(width, 3)
        states = [None] * len(values) if context is None else context.split(width, 3)
        some = [forward(q, k, x, cu_seqlens, scale, c, total) for x, c in zip(values, states, strict=True)]
        return torch.cat([s[0] for s in some], 3), torch.cat([s[1] for s in some], 3), some[0][2]
    q, k, v = dense_rows(q), dense_rows(k), dense_rows(v)
    layout = Layout.of(q, v, cu_seqlens)
    sums = _sums(layout, k, v)
    context0, total0, initial = _initial(layout, q, context, total)
    out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    contexts = layout.parts(q, layout.dk, layout.dv, count=layout.sequences)
    totals = layout.parts(q, layout.dk, count=layout.sequences)
    layout.launch(
        _causal_output_kernel, "linear_causal_output", False, q, k, v, out, *sums, context0, total0,
        contexts, totals, *layout.arguments(), scale, rows=(q, k, v, out), causal=True, INITIAL=initial,
    )  # fmt: skip
    return out, contexts, totals


def backward(
    grad: Tensor,
    grad_context: Tensor,
    grad_total: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    context: Tensor | None,
    total: Tensor | None,
    cu_seqlens: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and of the initial state; as `cpu.linear.backward_causal`."""
    width = values_at_once("linear_causal_dquery", q, v)
    if v.shape[3] > width:
        values = v.split(width, 3)
        states = [None] * len(values) if context is None else context.split(width, 3)
        # what comes from the total's own gradient is handed on once
        total_grads = [grad_total, *[torch.zeros_like(grad_total)] * (len(values) - 1)]
        some = [
            backward(g, gc.contiguous(), gt, q, k, x, c, total, cu_seqlens, scale)
            for g, gc, gt, x, c in zip(
                grad.split(width, 3), grad_context.split(width, 3), total_grads, values, states, strict=True
            )
        ]
        dq, dk, dtotal = (torch.stack([s[i] for s in some]).sum(0) for i in (0, 1, 4))
        return dq, dk, torch.cat([s[2] for s in some], 3), torch.cat([s[3] for s in some], 3), dtotal
    grad, q, k, v = dense_rows(grad), dense_rows(q), dense_rows(k), dense_rows(v)
    layout = Layout.of(q, v, cu_seqlens)
    sums = _sums(layout, k, v)
    context0, total0, initial = _initial(layout, q, context, total)
    part_dcontext, part_dtotal = layout.parts(k, layout.dk, layout.dv), layout.parts(k, layout.dk)
    rows = q.shape[:3]
    inverse, dnorms = (torch.empty(rows, dtype=torch.float32, device=q.device) for _ in range(2))
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    layout.launch(
        _causal_dquery_kernel, "linear_causal_dquery", False, q, k, v, grad, dq, *sums, context0, total0,
        part_dcontext, part_dtotal, inverse, dnorms, *layout.arguments(), scale, rows=(q, k, v, grad, dq),
        causal=True, INITIAL=initial,
    )  # fmt: skip
    dcontext = layout.parts(q, layout.dk, layout.dv, count=layout.sequences)
    dtotal = layout.parts(q, layout.dk, count=layout.sequences)
    layout.launch(
        _causal_dkeyvalue_kernel, "linear_causal_dkeyvalue", False, q, k, v, grad, dk, dv, part_dcontext,
        part_dtotal, inverse, dnorms, grad_context.contiguous(), grad_total.contiguous(), dcontext, dtotal,
        *layout.arguments(), scale, rows=(q, k, v, grad, dk, dv), causal=True,
    )  # fmt: skip
    return dq, dk, dv, dcontext, dtotal


CANDIDATES: dict[str, list[Setting]] = {
    name: [
        {"BLOCK_T": rows, "num_warps": warps, "num_stages": stages}
        for rows in (16, 32, 64)
        for warps in (4, 8)
        for stages in (1, 2, 3)
    ]
    for name in ("linear_causal_output", "linear_causal_dquery", "linear_causal_dkeyvalue")
}


def cases() -> Iterator[Case]:
    """Every width and dtype there is a setting for, packed and from a state."""

    def case(dim: int, dtype: torch.dtype) -> Case:
        def run(device: torch.device) -> None:
            q, k, v, grad = torch.empty(4, 1, 16_384, 8, dim, dtype=dtype, device=device).normal_().unbind()
            borders = torch.tensor([0, 10_000, 16_384], device=device)
            state = torch.zeros(2, 8, dim, dim, device=device), torch.ones(2, 8, dim, device=device)
            if has_setting("linear_causal_output", dim, dtype, device):
                forward(q, k, v, borders, 1.0, *state)
            if has_setting("linear_causal_dquery", dim, dtype, device):
                backward(grad, *state, q, k, v, *state, borders, 1.0)

        return Case("linear_attention causal", dim, dtype, run)

    for dim in (25, 64, 128):
        for dtype in (torch.bfloat16, torch.float32):
            yield case(dim, dtype)
