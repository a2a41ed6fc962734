"""Linear attention, not causal: two launches forward, two backward, each reading its tensors once.

Bytes: q, k, v read and o written once, 4·T·H·D·b; backward q, k, v, do read and dq, dk, dv written,
7·T·H·D·b. Flops: 4·T·H·D², forward; so it is bound by memory at D up to 128, given tensor cores.

A sequence is cut into chunks, so that one long recording fills the chip. `_context_kernel` leaves for each
chunk the maximum and the sum of every key feature and the Dk × Dv weighted sum of values; `_output_kernel`
merges them, always in the same order, and reads the queries. Backward, `_dquery_kernel` reads q and do and
leaves each chunk's share of the context's gradient, `_dkeyvalue_kernel` merges and reads k and v. The
correction of the softmax over time needs no pass over T: Σ_t A dA = Σ_e dC C for each key feature.

Narrow heads (CELM's have 25 features, rows of 50 bytes) are taken several at a time where they lie side by
side: their columns fill one tile, and of the product of all with all only the diagonal blocks are kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

import torch
import triton
import triton.language as tl
from torch import Tensor

from bioreport_kernels.configs import Setting, has_setting, setting
from bioreport_kernels.gpu.launch import Case, dot_dtype, dot_precision, launch, power_of_two, processors

LOG2E = tl.constexpr(1.4426950408889634)
# Stands for −inf where a difference of two maxima must stay a number.
LOWEST = tl.constexpr(-1e30)
# Below this sums of elu + 1 are taken for it: exp has underflowed, and the answer is zero, not NaN.
TINY = tl.constexpr(1.1754943508222875e-38)

# Rows in a chunk: a multiple of every BLOCK_T; enough rows that merging contexts costs little beside them.
CHUNK_STEP, LARGEST_CHUNK, MOST_SPLITS = 128, 4096, 8


@triton.jit
def locate(slot, borders, sequences, length, chunk, PACKED: tl.constexpr):
    """Sequence of a slot, its first row, the slot's rows, and where the sequence's slots begin.

    Packed sequence i owns the slots from borders[i] // chunk + i on: at least as many as it has chunks and
    one in any case, so that neither a list of chunks nor a length is needed on the host.
    """
    if PACKED:
        low = slot * 0
        high = low + sequences
        while low + 1 < high:
            middle = (low + high) // 2
            if tl.load(borders + middle).to(tl.int64) // chunk + middle <= slot:
                low = middle
            else:
                high = middle
        begin = tl.minimum(tl.load(borders + low).to(tl.int64), length)
        end = tl.minimum(tl.load(borders + low + 1).to(tl.int64), length)
        first = begin // chunk + low
    else:
        slots = tl.maximum((length + chunk - 1) // chunk, 1)
        low = slot // slots
        begin = slot * 0
        end = begin + length
        first = low * slots
    start = begin + (slot - first) * chunk
    stop = tl.minimum(start + chunk, end)
    return low, begin, end, start, stop, first


@triton.jit
def positive(x):
    """elu(x) + 1."""
    return tl.where(x > 0, x + 1, tl.exp2(tl.minimum(x, 0.0) * LOG2E))


@triton.jit
def positive_slope(x):
    return tl.where(x > 0, 1.0, tl.exp2(tl.minimum(x, 0.0) * LOG2E))


@triton.jit
def power_above(rows):
    """A power of two near the number of rows: sums over them divided by it stay in float16's range."""
    return tl.exp2(tl.floor(tl.log2((rows + 1).to(tl.float32))))


@triton.jit
def over_head(x, head, HEADS: tl.constexpr, MAXIMUM: tl.constexpr):
    """Maximum or sum of each row over the columns of each head, spread over these columns."""
    if HEADS == 1:
        if MAXIMUM:
            return tl.max(x, 1)[:, None]
        else:
            return tl.sum(x, 1)[:, None]
    else:
        spread = tl.zeros_like(x)
        for h in tl.static_range(HEADS):
            own = (head == h)[None, :]
            if MAXIMUM:
                spread = tl.where(own, tl.max(tl.where(own, x, float("-inf")), 1)[:, None], spread)
            else:
                spread = tl.where(own, tl.sum(tl.where(own, x, 0.0), 1)[:, None], spread)
        return spread


@triton.jit
def softmax_over_head(x, valid, head, HEADS: tl.constexpr):
    """Softmax of each row over the features of each head; 0 in columns without a feature."""
    x = tl.where(x < LOWEST, LOWEST, x)
    x = tl.where(valid[None, :], x, float("-inf"))
    weight = tl.exp2((x - over_head(x, head, HEADS, True)) * LOG2E)
    weight = tl.where(valid[None, :], weight, 0.0)
    norm = over_head(weight, head, HEADS, False)
    return weight / (norm if HEADS == 1 else tl.where(valid[None, :], norm, 1.0))


@triton.jit
def rows_of(x, rows, inside, columns, valid, stride, EXACT: tl.constexpr):
    """A tile of rows; EXACT where the tile has no column too many, so that loads stay wide."""
    address = x + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    if EXACT:
        return tl.load(address, mask=inside[:, None], other=0.0)
    else:
        return tl.load(address, mask=inside[:, None] & valid[None, :], other=0.0)


@triton.jit
def put_rows(x, value, rows, inside, columns, valid, stride, EXACT: tl.constexpr):
    address = x + rows.to(tl.int64)[:, None] * stride + columns[None, :]
    if EXACT:
        tl.store(address, value.to(x.dtype.element_ty), mask=inside[:, None])
    else:
        tl.store(address, value.to(x.dtype.element_ty), mask=inside[:, None] & valid[None, :])


@triton.jit
def block_of(columns_k, columns_v, valid_k, valid_v, HEADS: tl.constexpr, DK: tl.constexpr, DV: tl.constexpr):
    """Offsets and mask of the heads' Dk × Dv matrices as the diagonal blocks of one tile."""
    own = valid_k[:, None] & valid_v[None, :]
    if HEADS == 1:
        return columns_k[:, None] * DV + columns_v[None, :], own
    else:
        head_v = columns_v // DV
        own = own & ((columns_k // DK)[:, None] == head_v[None, :])
        return columns_k[:, None] * DV + (columns_v - head_v * DV)[None, :], own


@triton.jit
def _context_kernel(
    k, v, part_context, part_top, part_sum, borders, sequences, length, chunk, heads,
    k_batch, k_row, k_head, v_batch, v_row, v_head,
    SOFTMAX: tl.constexpr, PACKED: tl.constexpr, HEADS: tl.constexpr, DK: tl.constexpr, DV: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, ALIGN: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
):  # fmt: skip
    groups = heads // HEADS
    group = tl.program_id(0) % groups
    slot = (tl.program_id(0) // groups).to(tl.int64)
    sequence, _, _, start, stop, _ = locate(slot, borders, sequences, length, chunk, PACKED)
    batch = sequence if not PACKED else sequence * 0
    columns_k, columns_v = tl.arange(0, BK), tl.arange(0, BV)
    valid_k, valid_v = columns_k < HEADS * DK, columns_v < HEADS * DV
    k += batch * (k_batch * ALIGN) + group.to(tl.int64) * HEADS * (k_head * ALIGN if HEADS == 1 else DK)
    v += batch * (v_batch * ALIGN) + group.to(tl.int64) * HEADS * (v_head * ALIGN if HEADS == 1 else DV)
    top = tl.full([BK], LOWEST, tl.float32)
    total = tl.zeros([BK], tl.float32)
    context = tl.zeros([BK, BV], tl.float32)
    for t in range(start, stop, BLOCK_T):
        rows = t + tl.arange(0, BLOCK_T)
        inside = rows < stop
        key = rows_of(k, rows, inside, columns_k, valid_k, k_row * ALIGN, BK == HEADS * DK).to(tl.float32)
        value = rows_of(v, rows, inside, columns_v, valid_v, v_row * ALIGN, BV == HEADS * DV)
        if SOFTMAX:
            key = tl.where(key < LOWEST, LOWEST, key)
            key = tl.where(inside[:, None], key, float("-inf"))
            higher = tl.maximum(top, tl.max(key, 0))
            weight = tl.exp2((key - higher[None, :]) * LOG2E)
            kept = tl.exp2((top - higher) * LOG2E)
            total = total * kept + tl.sum(weight, 0)
            context = context * kept[:, None]
            top = higher
        else:
            weight = tl.where(inside[:, None], positive(key), 0.0)
            total += tl.sum(weight, 0)
        context = tl.dot(tl.trans(weight).to(DOT), value.to(DOT), context, input_precision=PRECISION)
    place = slot * heads + group * HEADS
    offsets, own = block_of(columns_k, columns_v, valid_k, valid_v, HEADS, DK, DV)
    tl.store(part_context + place * DK * DV + offsets, context, mask=own)
    tl.store(part_sum + place * DK + columns_k, total, mask=valid_k)
    if SOFTMAX:
        tl.store(part_top + place * DK + columns_k, top, mask=valid_k)


@triton.jit
def _output_kernel(
    q, out, part_context, part_top, part_sum, contexts, tops, totals,
    borders, sequences, length, chunk, heads, scale, q_batch, q_row, q_head, o_batch, o_row, o_head,
    SOFTMAX: tl.constexpr, PACKED: tl.constexpr, HEADS: tl.constexpr, DK: tl.constexpr, DV: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, ALIGN: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
):  # fmt: skip
    groups = heads // HEADS
    group = tl.program_id(0) % groups
    slot = (tl.program_id(0) // groups).to(tl.int64)
    sequence, begin, end, start, stop, first = locate(slot, borders, sequences, length, chunk, PACKED)
    batch = sequence if not PACKED else sequence * 0
    columns_k, columns_v = tl.arange(0, BK), tl.arange(0, BV)
    valid_k, valid_v = columns_k < HEADS * DK, columns_v < HEADS * DV
    head = columns_k // DK
    offsets, own = block_of(columns_k, columns_v, valid_k, valid_v, HEADS, DK, DV)
    top = tl.full([BK], LOWEST, tl.float32)
    total = tl.zeros([BK], tl.float32)
    context = tl.zeros([BK, BV], tl.float32)
    for part in range(first, first + (end - begin + chunk - 1) // chunk):
        place = part * heads + group * HEADS
        part_c = tl.load(part_context + place * DK * DV + offsets, mask=own, other=0.0)
        part_z = tl.load(part_sum + place * DK + columns_k, mask=valid_k, other=0.0)
        if SOFTMAX:
            part_m = tl.load(part_top + place * DK + columns_k, mask=valid_k, other=LOWEST)
            higher = tl.maximum(top, part_m)
            kept, added = tl.exp2((top - higher) * LOG2E), tl.exp2((part_m - higher) * LOG2E)
            total = total * kept + part_z * added
            context = context * kept[:, None] + part_c * added[:, None]
            top = higher
        else:
            total += part_z
            context += part_c
    place = sequence * heads + group * HEADS
    if SOFTMAX:
        context = context / tl.where(total == 0, 1.0, total)[:, None]
    if slot == first:
        tl.store(contexts + place * DK * DV + offsets, context, mask=own)
        tl.store(totals + place * DK + columns_k, total, mask=valid_k)
        if SOFTMAX:
            tl.store(tops + place * DK + columns_k, top, mask=valid_k)
    rows_scale = power_above(end - begin)
    context = (context * scale if SOFTMAX else context / rows_scale).to(DOT)
    q += batch * (q_batch * ALIGN) + group.to(tl.int64) * HEADS * (q_head * ALIGN if HEADS == 1 else DK)
    out += batch * (o_batch * ALIGN) + group.to(tl.int64) * HEADS * (o_head * ALIGN if HEADS == 1 else DV)
    for t in range(start, stop, BLOCK_T):
        rows = t + tl.arange(0, BLOCK_T)
        inside = rows < stop
        query = rows_of(q, rows, inside, columns_k, valid_k, q_row * ALIGN, BK == HEADS * DK).to(tl.float32)
        if SOFTMAX:
            query = softmax_over_head(query, valid_k, head, HEADS)
            result = tl.dot(query.to(DOT), context, input_precision=PRECISION)
        else:
            query = tl.where(valid_k[None, :], positive(query), 0.0)
            norm = over_head(query * total[None, :], head, HEADS, False)
            result = tl.dot(query.to(DOT), context, input_precision=PRECISION)
            result = result / (tl.where(norm < TINY, TINY, norm) / rows_scale) * scale
        put_rows(out, result, rows, inside, columns_v, valid_v, o_row * ALIGN, BV == HEADS * DV)


@triton.jit
def _dquery_kernel(
    q, dout, dq, contexts, tops, totals, part_dcontext, part_dtotal,
    borders, sequences, length, chunk, heads, scale,
    q_batch, q_row, q_head, o_batch, o_row, o_head, dq_batch, dq_row, dq_head,
    SOFTMAX: tl.constexpr, PACKED: tl.constexpr, HEADS: tl.constexpr, DK: tl.constexpr, DV: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, ALIGN: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
):  # fmt: skip
    groups = heads // HEADS
    group = tl.program_id(0) % groups
    slot = (tl.program_id(0) // groups).to(tl.int64)
    sequence, begin, end, start, stop, _ = locate(slot, borders, sequences, length, chunk, PACKED)
    batch = sequence if not PACKED else sequence * 0
    columns_k, columns_v = tl.arange(0, BK), tl.arange(0, BV)
    valid_k, valid_v = columns_k < HEADS * DK, columns_v < HEADS * DV
    head = columns_k // DK
    offsets, own = block_of(columns_k, columns_v, valid_k, valid_v, HEADS, DK, DV)
    place = sequence * heads + group * HEADS
    context = tl.load(contexts + place * DK * DV + offsets, mask=own, other=0.0)
    rows_scale = power_above(end - begin)
    context = (context * scale if SOFTMAX else context / rows_scale).to(DOT)
    total = tl.load(totals + place * DK + columns_k, mask=valid_k, other=0.0)
    q += batch * (q_batch * ALIGN) + group.to(tl.int64) * HEADS * (q_head * ALIGN if HEADS == 1 else DK)
    dq += batch * (dq_batch * ALIGN) + group.to(tl.int64) * HEADS * (dq_head * ALIGN if HEADS == 1 else DK)
    dout += batch * (o_batch * ALIGN) + group.to(tl.int64) * HEADS * (o_head * ALIGN if HEADS == 1 else DV)
    dcontext = tl.zeros([BK, BV], tl.float32)
    dtotal = tl.zeros([BK], tl.float32)
    for t in range(start, stop, BLOCK_T):
        rows = t + tl.arange(0, BLOCK_T)
        inside = rows < stop
        query = rows_of(q, rows, inside, columns_k, valid_k, q_row * ALIGN, BK == HEADS * DK).to(tl.float32)
        grad = rows_of(dout, rows, inside, columns_v, valid_v, o_row * ALIGN, BV == HEADS * DV)
        if SOFTMAX:
            weight = softmax_over_head(query, valid_k, head, HEADS)
            dweight = tl.dot(grad.to(DOT), tl.trans(context), input_precision=PRECISION)
            dquery = weight * (dweight - over_head(weight * dweight, head, HEADS, False))
            # rows beyond the chunk have weights but no gradient: they add zero
            dcontext = tl.dot(tl.trans(weight).to(DOT), grad.to(DOT), dcontext, input_precision=PRECISION)
        else:
            weight = tl.where(valid_k[None, :], positive(query), 0.0)
            norm = over_head(weight * total[None, :], head, HEADS, False)
            floored = tl.where(norm < TINY, TINY, norm)
            # numerator and its gradient, one divided and the other multiplied by the power of two
            numerator = tl.dot(weight.to(DOT), context, input_precision=PRECISION)
            dnumerator = grad.to(tl.float32) / (floored / rows_scale) * scale
            # columns of a head have one norm, in q's layout and in v's
            dnorm = -over_head(dnumerator * numerator, columns_v // DV, HEADS, False) / floored
            dnorm = tl.where(norm < TINY, 0.0, dnorm)
            dweight = tl.dot(dnumerator.to(DOT), tl.trans(context), input_precision=PRECISION)
            dquery = (dweight + dnorm * total[None, :]) * positive_slope(query)
            dcontext = tl.dot(
                tl.trans(weight).to(DOT), dnumerator.to(DOT), dcontext, input_precision=PRECISION
            )
            dtotal += tl.sum(tl.where(inside[:, None], weight * dnorm, 0.0), 0)
        put_rows(dq, dquery, rows, inside, columns_k, valid_k, dq_row * ALIGN, BK == HEADS * DK)
    place = slot * heads + group * HEADS
    tl.store(part_dcontext + place * DK * DV + offsets, dcontext, mask=own)
    if not SOFTMAX:
        tl.store(part_dtotal + place * DK + columns_k, dtotal, mask=valid_k)


@triton.jit
def _dkeyvalue_kernel(
    k, v, dk, dv, contexts, tops, totals, part_dcontext, part_dtotal,
    borders, sequences, length, chunk, heads, scale,
    k_batch, k_row, k_head, v_batch, v_row, v_head, dk_batch, dk_row, dk_head, dv_batch, dv_row, dv_head,
    SOFTMAX: tl.constexpr, PACKED: tl.constexpr, HEADS: tl.constexpr, DK: tl.constexpr, DV: tl.constexpr,
    BK: tl.constexpr, BV: tl.constexpr, ALIGN: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
):  # fmt: skip
    groups = heads // HEADS
    group = tl.program_id(0) % groups
    slot = (tl.program_id(0) // groups).to(tl.int64)
    sequence, begin, end, start, stop, first = locate(slot, borders, sequences, length, chunk, PACKED)
    batch = sequence if not PACKED else sequence * 0
    columns_k, columns_v = tl.arange(0, BK), tl.arange(0, BV)
    valid_k, valid_v = columns_k < HEADS * DK, columns_v < HEADS * DV
    offsets, own = block_of(columns_k, columns_v, valid_k, valid_v, HEADS, DK, DV)
    dcontext = tl.zeros([BK, BV], tl.float32)
    dtotal = tl.zeros([BK], tl.float32)
    for part in range(first, first + (end - begin + chunk - 1) // chunk):
        place = part * heads + group * HEADS
        dcontext += tl.load(part_dcontext + place * DK * DV + offsets, mask=own, other=0.0)
        if not SOFTMAX:
            dtotal += tl.load(part_dtotal + place * DK + columns_k, mask=valid_k, other=0.0)
    place = sequence * heads + group * HEADS
    rows_scale = power_above(end - begin)
    dcontext = dcontext / rows_scale
    if SOFTMAX:
        top = tl.load(tops + place * DK + columns_k, mask=valid_k, other=0.0)
        total = tl.load(totals + place * DK + columns_k, mask=valid_k, other=1.0)
        # weights below 1 in one factor, what they are divided by in the other: both in float16's range
        dcontext = dcontext * (scale * (rows_scale / tl.where(total == 0, 1.0, total)))[:, None]
        context = tl.load(contexts + place * DK * DV + offsets, mask=own, other=0.0)
        correction = tl.sum(dcontext * context, 1)
    dcontext = dcontext.to(DOT)
    k += batch * (k_batch * ALIGN) + group.to(tl.int64) * HEADS * (k_head * ALIGN if HEADS == 1 else DK)
    v += batch * (v_batch * ALIGN) + group.to(tl.int64) * HEADS * (v_head * ALIGN if HEADS == 1 else DV)
    dk += batch * (dk_batch * ALIGN) + group.to(tl.int64) * HEADS * (dk_head * ALIGN if HEADS == 1 else DK)
    dv += batch * (dv_batch * ALIGN) + group.to(tl.int64) * HEADS * (dv_head * ALIGN if HEADS == 1 else DV)
    for t in range(start, stop, BLOCK_T):
        rows = t + tl.arange(0, BLOCK_T)
        inside = rows < stop
        key = rows_of(k, rows, inside, columns_k, valid_k, k_row * ALIGN, BK == HEADS * DK).to(tl.float32)
        value = rows_of(v, rows, inside, columns_v, valid_v, v_row * ALIGN, BV == HEADS * DV)
        dweight = tl.dot(value.to(DOT), tl.trans(dcontext), input_precision=PRECISION)
        if SOFTMAX:
            key = tl.where(key < LOWEST, LOWEST, key)
            weight = tl.exp2((key - top[None, :]) * LOG2E)
            # beyond the chunk key is 0, and so far above a low maximum that the exponential overflows
            weight = tl.where(inside[:, None] & valid_k[None, :], weight, 0.0)
            dkey = weight * (dweight - correction[None, :])
        else:
            weight = tl.where(valid_k[None, :], positive(key), 0.0)
            dkey = (dweight + dtotal[None, :]) * positive_slope(key)
        dvalue = tl.dot(weight.to(DOT), dcontext, input_precision=PRECISION)
        put_rows(dk, dkey, rows, inside, columns_k, valid_k, dk_row * ALIGN, BK == HEADS * DK)
        put_rows(dv, dvalue, rows, inside, columns_v, valid_v, dv_row * ALIGN, BV == HEADS * DV)


@dataclass(frozen=True)
class Layout:
    """What the launches of one call share."""

    sequences: int
    length: int
    heads: int
    dk: int
    dv: int
    chunk: int
    slots: int
    borders: Tensor | None

    @classmethod
    def of(cls, q: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> "Layout":
        """From shapes alone: nothing is read from the device."""
        batch, length, heads, dk = q.shape
        sequences = batch if cu_seqlens is None else cu_seqlens.shape[0] - 1
        mean = triton.cdiv(batch * length, max(sequences, 1))
        wanted = triton.cdiv(2 * processors(q.device), max(sequences * heads, 1))
        step = triton.cdiv(mean, max(1, min(wanted, MOST_SPLITS)))
        chunk = min(max(triton.cdiv(step, CHUNK_STEP), 1) * CHUNK_STEP, LARGEST_CHUNK)
        if cu_seqlens is None:
            slots = batch * max(triton.cdiv(length, chunk), 1)
        else:
            slots = length // chunk + sequences
            if cu_seqlens.device != q.device:
                cu_seqlens = cu_seqlens.to(q.device, non_blocking=True)
        return cls(sequences, length, heads, dk, v.shape[3], chunk, slots, cu_seqlens)

    def arguments(self) -> tuple[Tensor | None, int, int, int, int]:
        return self.borders, self.sequences, self.length, self.chunk, self.heads

    def parts(self, like: Tensor, *columns: int, count: int | None = None) -> Tensor:
        """Room for float32 numbers of every head of every slot, or of `count` sequences."""
        count = self.slots if count is None else count
        return torch.empty(count, self.heads, *columns, dtype=torch.float32, device=like.device)

    def launch(
        self,
        kernel: triton.JITFunction,
        name: str,
        softmax: bool,
        *args: object,
        rows: tuple[Tensor, ...],
        causal: bool = False,
        **flags: bool,
    ) -> None:
        """Start a kernel on every slot and group of heads; `rows`: its [B, T, H, D] tensors in order."""
        dtype = rows[0].dtype
        if not causal:
            name = f"{name}_{'softmax' if softmax else 'elu'}"
        chosen: Setting = dict(setting(name, max(self.dk, self.dv), dtype, rows[0].device))
        columns = chosen.pop("COLUMNS", 0)
        chosen.pop("VALUES", None)
        heads = 1
        if self.dk == self.dv and all(x.stride(2) == x.shape[3] for x in rows):
            # heads share a program only where there are enough of them for the whole chip
            most = min(columns // self.dk, self.slots * self.heads // processors(rows[0].device))
            heads = max((n for n in range(1, most + 1) if self.heads % n == 0), default=1)
        strides = [stride for x in rows for stride in x.stride()[:3]]
        if heads > 1:
            # a head's place follows from its width there
            strides = [stride for x in rows for stride in (x.stride(0), x.stride(1), 0)]
        align = gcd(16 // rows[0].element_size(), *strides)
        precision = dot_precision(dtype)
        if causal:
            precision = "tf32x3" if dtype == torch.float32 else "tf32"
        launch(
            kernel,
            (self.slots * (self.heads // heads),),
            *args,
            *(stride // align for stride in strides),
            SOFTMAX=softmax,
            PACKED=self.borders is not None,
            HEADS=heads,
            DK=self.dk,
            DV=self.dv,
            BK=power_of_two(heads * self.dk),
            BV=power_of_two(heads * self.dv),
            ALIGN=align,
            DOT=dot_dtype(dtype),
            PRECISION=precision,
            **flags,
            **chosen,
        )


def dense_rows(x: Tensor) -> Tensor:
    """The tensor itself where the features of a head lie side by side, else a copy."""
    return x if x.stride(3) == 1 or x.shape[3] == 1 else x.contiguous()


def values_at_once(kernel: str, q: Tensor, v: Tensor) -> int:
    """Values that one launch takes: as many as leave room for a Dk × Dv matrix in what a program has.

    Results of the others follow by themselves; gradients of q and k are sums over values, so over launches.
    """
    return setting(kernel, max(q.shape[3], v.shape[3]), v.dtype, v.device).get("VALUES", max(v.shape[3], 1))


def forward(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, feature_map: str, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output, and the contexts, maxima and sums that `backward` needs; as `cpu.linear.forward`."""
    width = values_at_once(f"linear_output_{feature_map}", q, v)
    if v.shape[3] > width:
        some = [forward(q, k, x, cu_seqlens, feature_map, scale) for x in v.split(width, 3)]
        return torch.cat([s[0] for s in some], 3), torch.cat([s[1] for s in some], 3), some[0][2], some[0][3]
    q, k, v = dense_rows(q), dense_rows(k), dense_rows(v)
    layout, softmax = Layout.of(q, v, cu_seqlens), feature_map == "softmax"
    part_context, part_sum = layout.parts(k, layout.dk, layout.dv), layout.parts(k, layout.dk)
    part_top = layout.parts(k, layout.dk) if softmax else part_sum
    context = layout.parts(k, layout.dk, layout.dv, count=layout.sequences)
    total = layout.parts(k, layout.dk, count=layout.sequences)
    top = torch.empty_like(total) if softmax else total.new_empty(0)
    out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    parts = (part_context, part_top, part_sum)
    layout.launch(_context_kernel, "linear_context", softmax, k, v, *parts, *layout.arguments(), rows=(k, v))
    layout.launch(
        _output_kernel, "linear_output", softmax, q, out, *parts, context, top, total, *layout.arguments(),
        scale, rows=(q, out),
    )  # fmt: skip
    return out, context, top, total


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    context: Tensor,
    top: Tensor,
    total: Tensor,
    cu_seqlens: Tensor | None,
    feature_map: str,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v; as `cpu.linear.backward`."""
    width = values_at_once(f"linear_dquery_{feature_map}", q, v)
    if v.shape[3] > width:
        some = [
            backward(g, q, k, x, c.contiguous(), top, total, cu_seqlens, feature_map, scale)
            for g, x, c in zip(*(y.split(width, 3) for y in (grad, v, context)), strict=True)
        ]
        dq, dk = (torch.stack([s[i] for s in some]).sum(0) for i in (0, 1))
        return dq, dk, torch.cat([s[2] for s in some], 3)
    grad, q, k, v = dense_rows(grad), dense_rows(q), dense_rows(k), dense_rows(v)
    layout, softmax = Layout.of(q, v, cu_seqlens), feature_map == "softmax"
    part_dcontext = layout.parts(k, layout.dk, layout.dv)
    part_dtotal = part_dcontext if softmax else layout.parts(k, layout.dk)
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    known = (context, top, total, part_dcontext, part_dtotal, *layout.arguments(), scale)
    layout.launch(_dquery_kernel, "linear_dquery", softmax, q, grad, dq, *known, rows=(q, grad, dq))
    layout.launch(_dkeyvalue_kernel, "linear_dkeyvalue", softmax, k, v, dk, dv, *known, rows=(k, v, dk, dv))
    return dq, dk, dv


CANDIDATES: dict[str, list[Setting]] = {
    f"{kernel}_{feature_map}": [
        {"BLOCK_T": rows, "COLUMNS": columns, "num_warps": warps, "num_stages": stages}
        for rows in (32, 64, 128)
        for columns in (0, 128)
        for warps in (4, 8)
        for stages in (2, 3, 4)
    ]
    for kernel in ("linear_context", "linear_output", "linear_dquery", "linear_dkeyvalue")
    for feature_map in ("softmax", "elu")
}


def cases() -> Iterator[Case]:
    """Every width and dtype there is a setting for, both feature maps, packed: dense needs less."""

    def case(dim: int, dtype: torch.dtype) -> Case:
        def run(device: torch.device) -> None:
            q, k, v, grad = torch.empty(4, 1, 2**19, 8, dim, dtype=dtype, device=device).normal_().unbind()
            borders = torch.tensor([0, 300_000, 2**19], device=device)
            for feature_map in ("softmax", "elu"):
                _, context, top, total = forward(q, k, v, borders, feature_map, 1.0)
                if has_setting(f"linear_dquery_{feature_map}", dim, dtype, device):
                    backward(grad, q, k, v, context, top, total, borders, feature_map, 1.0)

        return Case("linear_attention", dim, dtype, run)

    for dim in (25, 64, 128):
        for dtype in (torch.bfloat16, torch.float32):
            yield case(dim, dtype)
