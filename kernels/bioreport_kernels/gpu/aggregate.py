"""Epoch aggregation: one pass over the features forward, one read and one write of them backward.

Bytes: the E·C·P·D features read and E·D tokens written; backward the features read and their gradient
written, of a mean only written. Flops: 1 to 4·Q a feature for Q queries, so all of it is bound by memory.

A program takes one epoch, or a slice of it where epochs are too few to fill the chip; slices leave the triple
(largest, weight, total), and `_merge_kernel` joins these in their order. Sums and maxima are kept for every
element of a tile of rows and joined at the end. Attention is an online softmax over tiles (Milakov and
Gimelshein 2018). Its products go to the tensor cores, eight queries for one read and at the price of one,
except for float32, whose exact products there (three TF32 ones) want more registers than there are.
"""

from collections.abc import Iterator
from functools import partial
from math import gcd
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from bioreport_kernels.configs import Setting, setting
from bioreport_kernels.gpu.launch import Case, dot_dtype, launch, power_of_two, processors

LOG2E, LN2 = tl.constexpr(1.4426950408889634), tl.constexpr(0.6931471805599453)
# Stands for the largest of no score: finite, so that a difference of two of them is a number.
LOWEST = tl.constexpr(-3.4028234663852886e38)

# Queries of one product on tensor cores; settings that name fewer are for the other units.
BLOCK_Q = 8
# Columns of one part of the gradient.
PART_D = 128
# No argument makes a kernel compile anew: alignment is said by UNIT, and layouts by RUN.
NUMBERS = (
    "x_epoch", "x_channel", "x_patch", "mask_epoch", "mask_channel", "mask_patch",
    "start", "queries", "rows", "patches", "filled", "length", "splits", "slice_rows",
)  # fmt: skip


@triton.jit
def _begin(
    x, mask, epoch, row, patches, filled, length,
    x_epoch, x_channel, x_patch, mask_epoch, mask_channel, mask_patch,
    UNIT: tl.constexpr,
):  # fmt: skip
    """Addresses of rows of an epoch and of their mask, their patch, and which patches lie in the chunk."""
    before = epoch * 0 + filled
    channel = row // patches
    patch = row - channel * patches
    wide_channel, wide_patch = channel.to(tl.int64), patch.to(tl.int64) - before
    x += (epoch * x_epoch + wide_channel * x_channel + wide_patch * x_patch) * UNIT
    mask += epoch * mask_epoch + wide_channel * mask_channel + wide_patch * mask_patch
    first = before - epoch * patches
    last = tl.minimum(first + length, patches)
    return x, mask, patch, tl.maximum(first, 0).to(tl.int32), last.to(tl.int32)


@triton.jit
def _advance(
    x, mask, patch, patches, x_channel, x_patch, mask_channel, mask_patch,
    RUN: tl.constexpr, UNIT: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """The rows STEP further on, without a division for each, which would cost more than its sum."""
    if RUN:
        return x + STEP * x_patch.to(tl.int64) * UNIT, mask + STEP * mask_patch.to(tl.int64), patch
    else:
        channels, patch = (STEP // patches).to(tl.int64), patch + STEP % patches
        over, left = patch >= patches, (STEP % patches).to(tl.int64)
        step = channels * x_channel + left * x_patch
        x += tl.where(over, step + x_channel - patches.to(tl.int64) * x_patch, step) * UNIT
        step = channels * mask_channel + left * mask_patch
        mask += tl.where(over, step + mask_channel - patches.to(tl.int64) * mask_patch, step)
        return x, mask, tl.where(over, patch - patches, patch)


@triton.jit
def _load(
    x, mask, row, end, patch, first, last, columns, other,
    DIM: tl.constexpr, MASKED: tl.constexpr, RUN: tl.constexpr,
):  # fmt: skip
    """A tile of rows [BLOCK_T, BLOCK_D], `other` where there is none, and which of them count."""
    there = row < end
    if not RUN:
        there &= (patch >= first) & (patch < last)
    if MASKED:
        there &= tl.load(mask, mask=there, other=0) != 0
    inside = there[:, None] & (columns < DIM)[None, :]
    return tl.load(x[:, None] + columns[None, :], mask=inside, other=other), there


@triton.jit
def _larger(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit(do_not_specialize=NUMBERS)
def _pool_kernel(
    x, mask, top_out, weight_out, total_out, token_out,
    x_epoch, x_channel, x_patch, mask_epoch, mask_channel, mask_patch,
    rows, patches, filled, length, splits, slice_rows,
    DIM: tl.constexpr, MAXIMUM: tl.constexpr, MASKED: tl.constexpr, TIES: tl.constexpr, FINISH: tl.constexpr,
    RUN: tl.constexpr, UNIT: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    epoch, begin = program // splits, (program % splits).to(tl.int32) * slice_rows
    end = tl.minimum(begin + slice_rows, rows)
    columns = tl.arange(0, BLOCK_D)
    row = begin + tl.arange(0, BLOCK_T)
    x, mask, patch, first, last = _begin(
        x, mask, epoch, row, patches, filled, length,
        x_epoch, x_channel, x_patch, mask_epoch, mask_channel, mask_patch, UNIT,
    )  # fmt: skip
    empty: tl.constexpr = float("-inf") if MAXIMUM else 0.0
    pooled = tl.full([BLOCK_T, BLOCK_D], empty, tl.float32)
    ties = tl.zeros([BLOCK_T, BLOCK_D], tl.float32)
    count = tl.zeros([BLOCK_T], tl.float32)
    for _ in tl.range(begin, end, BLOCK_T, num_stages=STAGES):
        tile, there = _load(x, mask, row, end, patch, first, last, columns, empty, DIM, MASKED, RUN)
        tile = tile.to(tl.float32)
        count += there.to(tl.float32)
        if MAXIMUM:
            if TIES:
                ties = tl.where(tile > pooled, 1.0, ties + (tile == pooled).to(tl.float32))
            pooled = _larger(pooled, tile)
        else:
            pooled += tile
        row += BLOCK_T
        x, mask, patch = _advance(
            x, mask, patch, patches, x_channel, x_patch, mask_channel, mask_patch, RUN, UNIT, BLOCK_T
        )
    weight = tl.sum(count, 0)
    valid = columns < DIM
    at = program * DIM + columns
    if MAXIMUM:
        top = tl.reduce(pooled, 0, _larger)
        if TIES:
            ties = tl.sum(tl.where(pooled == top[None, :], ties, 0.0), 0)
            # masked rows were taken for −inf, and counted where that is the largest
            ties = tl.where(top == float("-inf"), weight, ties)
            if FINISH:
                # of nothing one part, not none: 0 is a gradient, 0 / 0 is not
                ties = tl.where(weight == 0, 1.0, ties)
            tl.store(total_out + at, ties, mask=valid)
        token = tl.where(weight == 0, 0.0, top)
        if not FINISH:
            tl.store(top_out + at, top, mask=valid)
    else:
        total = tl.sum(pooled, 0)
        token = total / tl.maximum(weight, 1.0)
        if not FINISH:
            tl.store(total_out + at, total, mask=valid)
    tl.store(weight_out + program, weight)
    if FINISH:
        tl.store(token_out + at, token.to(token_out.dtype.element_ty), mask=valid)


@triton.jit
def _rows(vectors, columns, chosen, queries, DIM: tl.constexpr):
    """Columns of the chosen vectors, [BLOCK_Q, columns], float32."""
    inside = (chosen < queries)[:, None] & (columns < DIM)[None, :]
    return tl.load(vectors + chosen[:, None] * DIM + columns[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _vector(vectors, columns, index, queries, DIM: tl.constexpr):
    inside = columns < tl.where(index < queries, DIM, 0)
    return tl.load(vectors + index * DIM + columns, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _column(matrix, lane, index: tl.constexpr):
    return tl.sum(tl.where((lane == index)[None, :], matrix, 0.0), 1)


@triton.jit
def _products(tile, vectors, columns, lane, start, queries, DIM: tl.constexpr, BLOCK_Q: tl.constexpr):
    """Products of every row with every vector, [BLOCK_T, BLOCK_Q]."""
    out = tl.zeros([tile.shape[0], BLOCK_Q], tl.float32)
    for j in tl.static_range(BLOCK_Q):
        product = tl.sum(tile * _vector(vectors, columns, start + j, queries, DIM)[None, :], 1)
        out = tl.where((lane == j)[None, :], product[:, None], out)
    return out


@triton.jit
def _by_query(vector, TENSOR: tl.constexpr):
    """A value a query against a total, whose queries are columns after a tensor core, and rows elsewhere."""
    return vector[None, :] if TENSOR else vector[:, None]


@triton.jit
def _by_column(vector, TENSOR: tl.constexpr):
    return vector[:, None] if TENSOR else vector[None, :]


@triton.jit
def _totals(tile, share, lane, BLOCK_Q: tl.constexpr):
    """Sum of the rows by each column of shares, [BLOCK_Q, BLOCK_D]."""
    out = tl.zeros([BLOCK_Q, tile.shape[1]], tl.float32)
    for j in tl.static_range(BLOCK_Q):
        total = tl.sum(_column(share, lane, j)[:, None] * tile, 0)
        out = tl.where((lane == j)[:, None], total[None, :], out)
    return out


@triton.jit(do_not_specialize=NUMBERS)
def _attend_kernel(
    x, mask, query, top_out, weight_out, total_out, token_out,
    x_epoch, x_channel, x_patch, mask_epoch, mask_channel, mask_patch,
    queries, scale, rows, patches, filled, length, splits, slice_rows,
    DIM: tl.constexpr, MASKED: tl.constexpr, FINISH: tl.constexpr, EXACT: tl.constexpr, DOT: tl.constexpr,
    TENSOR: tl.constexpr, RUN: tl.constexpr, UNIT: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    groups = (queries + BLOCK_Q - 1) // BLOCK_Q
    # groups of the same rows run side by side: the second read finds them in the L2 cache
    start, program = tl.program_id(0) % groups * BLOCK_Q, (tl.program_id(0) // groups).to(tl.int64)
    epoch, begin = program // splits, (program % splits).to(tl.int32) * slice_rows
    end = tl.minimum(begin + slice_rows, rows)
    columns, lane = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_Q)
    row = begin + tl.arange(0, BLOCK_T)
    x, mask, patch, first, last = _begin(
        x, mask, epoch, row, patches, filled, length,
        x_epoch, x_channel, x_patch, mask_epoch, mask_channel, mask_patch, UNIT,
    )  # fmt: skip
    q = tl.trans(_rows(query, columns, start + lane, queries, DIM))
    coarse = q.to(DOT)
    top = tl.full([BLOCK_Q], LOWEST, tl.float32)
    weight = tl.zeros([BLOCK_Q], tl.float32)
    total = tl.zeros([BLOCK_D, BLOCK_Q] if TENSOR else [BLOCK_Q, BLOCK_D], tl.float32)
    for _ in tl.range(begin, end, BLOCK_T, num_stages=STAGES):
        tile, there = _load(x, mask, row, end, patch, first, last, columns, 0.0, DIM, MASKED, RUN)
        tile = tile.to(DOT)
        if TENSOR:
            score = tl.dot(tile, coarse, input_precision="ieee")
            if not EXACT:
                score += tl.dot(tile, (q - coarse.to(tl.float32)).to(DOT), input_precision="ieee")
        else:
            score = _products(tile, query, columns, lane, start, queries, DIM, BLOCK_Q)
        score = tl.where(there[:, None], score * scale, LOWEST)
        higher = tl.maximum(top, tl.max(score, 0))
        kept = tl.exp2(top - higher)
        share = tl.where(there[:, None], tl.exp2(score - higher[None, :]), 0.0)
        weight = weight * kept + tl.sum(share, 0)
        total *= _by_query(kept, TENSOR)
        if TENSOR:
            total += tl.dot(tl.trans(tile), share.to(DOT), input_precision="ieee")
        else:
            total += _totals(tile, share, lane, BLOCK_Q)
        top = higher
        row += BLOCK_T
        x, mask, patch = _advance(
            x, mask, patch, patches, x_channel, x_patch, mask_channel, mask_patch, RUN, UNIT, BLOCK_T
        )
    known = start + lane < queries
    state = program * queries + start + lane
    at = _by_query(state, TENSOR) * DIM + _by_column(columns, TENSOR)
    inside = _by_column(columns < DIM, TENSOR) & _by_query(known, TENSOR)
    if FINISH:
        token = total / _by_query(tl.where(weight == 0, 1.0, weight), TENSOR)
        tl.store(token_out + at, token.to(token_out.dtype.element_ty), mask=inside)
        logarithm = tl.where(weight == 0, 0.0, (top + tl.log2(weight)) * LN2)
        tl.store(weight_out + state, logarithm, mask=known)
    else:
        tl.store(top_out + state, top * LN2, mask=known)
        tl.store(weight_out + state, weight, mask=known)
        tl.store(total_out + at, total, mask=inside)


@triton.jit(do_not_specialize=NUMBERS)
def _pool_backward_kernel(
    x, mask, grad, token, saved, dx,
    x_epoch, x_channel, x_patch, mask_epoch, mask_channel, mask_patch,
    rows, patches, splits, slice_rows,
    DIM: tl.constexpr, MAXIMUM: tl.constexpr, MASKED: tl.constexpr, RUN: tl.constexpr, UNIT: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    epoch, begin = program // splits, (program % splits).to(tl.int32) * slice_rows
    end = tl.minimum(begin + slice_rows, rows)
    columns = tl.arange(0, BLOCK_D)
    valid = columns < DIM
    row = begin + tl.arange(0, BLOCK_T)
    x, mask, patch, _, _ = _begin(
        x, mask, epoch, row, patches, 0, patches,
        x_epoch, x_channel, x_patch, mask_epoch, mask_channel, mask_patch, UNIT,
    )  # fmt: skip
    share = tl.load(grad + epoch * DIM + columns, mask=valid, other=0.0).to(tl.float32)
    if MAXIMUM:
        top = tl.load(token + epoch * DIM + columns, mask=valid, other=0.0).to(tl.float32)
        share /= tl.load(saved + epoch * DIM + columns, mask=valid, other=1.0)
    else:
        share /= tl.maximum(tl.load(saved + epoch), 1.0)
    dx += (epoch * rows + row)[:, None] * DIM + columns[None, :]
    for _ in tl.range(begin, end, BLOCK_T, num_stages=STAGES):
        if MAXIMUM:
            tile, there = _load(x, mask, row, end, patch, 0, patches, columns, 0.0, DIM, MASKED, RUN)
            # not 0 where it differs: of a NaN nothing is known, as in PyTorch's own
            value = (tile.to(tl.float32) == top[None, :]).to(tl.float32) * share[None, :]
        else:
            there = row < end
            if MASKED:
                there &= tl.load(mask, mask=there, other=0) != 0
            value = share[None, :]
        value = tl.where(there[:, None], value, 0.0).to(dx.dtype.element_ty)
        tl.store(dx, value, mask=(row < end)[:, None] & valid[None, :])
        row += BLOCK_T
        dx += BLOCK_T * DIM
        x, mask, patch = _advance(
            x, mask, patch, patches, x_channel, x_patch, mask_channel, mask_patch, RUN, UNIT, BLOCK_T
        )


@triton.jit(do_not_specialize=NUMBERS)
def _attend_backward_kernel(
    x, mask, query, grad, token, logarithm, dx, dquery,
    x_epoch, x_channel, x_patch, mask_epoch, mask_channel, mask_patch,
    start, queries, scale, rows, patches, splits, slice_rows,
    DIM: tl.constexpr, MASKED: tl.constexpr, EXACT: tl.constexpr, DOT: tl.constexpr, TENSOR: tl.constexpr,
    DX: tl.constexpr, DQUERY: tl.constexpr, ADD: tl.constexpr, RUN: tl.constexpr, UNIT: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_Q: tl.constexpr, PART_D: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    epoch, begin = program // splits, (program % splits).to(tl.int32) * slice_rows
    end = tl.minimum(begin + slice_rows, rows)
    columns, lane = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_Q)
    valid = columns < DIM
    row = begin + tl.arange(0, BLOCK_T)
    x, mask, patch, _, _ = _begin(
        x, mask, epoch, row, patches, 0, patches,
        x_epoch, x_channel, x_patch, mask_epoch, mask_channel, mask_patch, UNIT,
    )  # fmt: skip
    grad += epoch * queries * DIM
    token += epoch * queries * DIM
    q = tl.trans(_rows(query, columns, start + lane, queries, DIM))
    coarse = q.to(DOT)
    g = _rows(grad, columns, start + lane, queries, DIM)
    inner = tl.sum(g * _rows(token, columns, start + lane, queries, DIM), 1)
    known = start + lane < queries
    norm = tl.load(logarithm + epoch * queries + start + lane, mask=known, other=0.0) * LOG2E
    total = tl.zeros([BLOCK_Q, BLOCK_D], tl.float32)
    dx += epoch * rows * DIM
    for _ in tl.range(begin, end, BLOCK_T, num_stages=STAGES):
        tile, there = _load(x, mask, row, end, patch, 0, patches, columns, 0.0, DIM, MASKED, RUN)
        tile = tile.to(DOT)
        if TENSOR:
            score = tl.dot(tile, coarse, input_precision="ieee")
            if not EXACT:
                score += tl.dot(tile, (q - coarse.to(tl.float32)).to(DOT), input_precision="ieee")
            along = tl.dot(tile, tl.trans(g).to(DOT), input_precision="ieee")
        else:
            score = _products(tile, query, columns, lane, start, queries, DIM, BLOCK_Q)
            along = _products(tile, grad, columns, lane, start, queries, DIM, BLOCK_Q)
        counts = there[:, None] & known[None, :]
        share = tl.where(counts, tl.exp2(score * (scale * LOG2E) - norm[None, :]), 0.0)
        slope = share * (along - inner[None, :]) * scale
        if DQUERY:
            if TENSOR:
                total += tl.dot(tl.trans(slope.to(DOT)), tile, input_precision="ieee")
            else:
                total += _totals(tile, slope, lane, BLOCK_Q)
        if DX:
            # columns a part at a time: with all of them at once there would be no registers for the rest
            for first in tl.static_range(0, BLOCK_D, PART_D):
                part = first + tl.arange(0, PART_D)
                if TENSOR:
                    # TF32 holds what float16 and bfloat16 hold, and does not underflow
                    vectors = _rows(grad, part, start + lane, queries, DIM)
                    value = tl.dot(share, vectors, input_precision="tf32")
                    vectors = _rows(query, part, start + lane, queries, DIM)
                    value += tl.dot(slope, vectors, input_precision="tf32")
                else:
                    value = tl.zeros([BLOCK_T, PART_D], tl.float32)
                    for j in tl.static_range(BLOCK_Q):
                        vector = _vector(grad, part, start + j, queries, DIM)
                        value += _column(share, lane, j)[:, None] * vector[None, :]
                        vector = _vector(query, part, start + j, queries, DIM)
                        value += _column(slope, lane, j)[:, None] * vector[None, :]
                to = dx + row.to(tl.int64)[:, None] * DIM + part[None, :]
                inside = (row < end)[:, None] & (part < DIM)[None, :]
                if ADD:
                    value += tl.load(to, mask=inside, other=0.0)
                tl.store(to, value.to(dx.dtype.element_ty), mask=inside)
        row += BLOCK_T
        x, mask, patch = _advance(
            x, mask, patch, patches, x_channel, x_patch, mask_channel, mask_patch, RUN, UNIT, BLOCK_T
        )
    if DQUERY:
        at = (program * queries + start + lane)[:, None] * DIM + columns[None, :]
        tl.store(dquery + at, total, mask=valid[None, :] & known[:, None])


@triton.jit(do_not_specialize=NUMBERS)
def _merge_kernel(
    top_in, weight_in, total_in, top_out, weight_out, total_out, token_out,
    queries, splits,
    DIM: tl.constexpr, MODE: tl.constexpr, TIES: tl.constexpr, FINISH: tl.constexpr,
    BLOCK_S: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    state = tl.program_id(0).to(tl.int64)
    epoch, query = state // queries, state % queries
    columns, valid = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_D) < DIM
    top = tl.full([BLOCK_D], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_D], tl.float32)
    highest, weight = tl.full([], LOWEST, tl.float32), tl.full([], 0.0, tl.float32)
    for begin in tl.range(0, splits, BLOCK_S):
        part = begin + tl.arange(0, BLOCK_S)
        known = part < splits
        each = (epoch * splits + part) * queries + query
        inside = known[:, None] & valid[None, :]
        at = each[:, None] * DIM + columns[None, :]
        weights = tl.load(weight_in + each, mask=known, other=0.0)
        if MODE == "mean":
            total += tl.sum(tl.load(total_in + at, mask=inside, other=0.0), 0)
        elif MODE == "max":
            tops = tl.load(top_in + at, mask=inside, other=float("-inf"))
            higher = _larger(top, tl.reduce(tops, 0, _larger))
            if TIES:
                ties = tl.load(total_in + at, mask=inside, other=0.0)
                total = tl.where(top == higher, total, 0.0)
                total += tl.sum(tl.where(tops == higher[None, :], ties, 0.0), 0)
            top = higher
        else:
            tops = tl.load(top_in + each, mask=known, other=LOWEST) * LOG2E
            higher = tl.maximum(highest, tl.max(tops, 0))
            kept = tl.exp2(highest - higher)
            factor = tl.where(known, tl.exp2(tops - higher), 0.0)
            totals = tl.load(total_in + at, mask=inside, other=0.0)
            weights *= factor
            weight *= kept
            total = total * kept + tl.sum(totals * factor[:, None], 0)
            highest = higher
        weight += tl.sum(weights, 0)
    at = state * DIM + columns
    if MODE == "max":
        token = tl.where(weight == 0, 0.0, top)
        if FINISH:
            total = tl.where(weight == 0, 1.0, total)
    else:
        token = total / tl.where(weight == 0, 1.0, weight)
    if FINISH:
        tl.store(token_out + at, token.to(token_out.dtype.element_ty), mask=valid)
    if TIES or not FINISH:
        tl.store(total_out + at, total, mask=valid)
    if not FINISH:
        if MODE == "max":
            tl.store(top_out + at, top, mask=valid)
        elif MODE == "attention":
            tl.store(top_out + state, highest * LN2)
    if FINISH and MODE == "attention":
        weight = tl.where(weight == 0, 0.0, (highest + tl.log2(weight)) * LN2)
    tl.store(weight_out + state, weight)


class _Rows(NamedTuple):
    """Features as rows of a stream of epochs, and which of them count."""

    x: Tensor
    mask: Tensor | None
    epochs: int
    channels: int
    patches: int
    strides: tuple[int, ...]
    filled: int
    length: int
    run: bool
    unit: int

    @property
    def in_epoch(self) -> int:
        return self.channels * self.patches

    @property
    def dim(self) -> int:
        return self.x.shape[-1]

    def flags(self) -> dict[str, int | bool]:
        return {
            "DIM": self.dim,
            "MASKED": self.mask is not None,
            "RUN": self.run,
            "UNIT": self.unit,
            "BLOCK_D": power_of_two(self.dim),
        }


def _rows_of(features: Tensor, mask: Tensor | None) -> _Rows:
    features = features if features.stride(3) == 1 else features.contiguous()
    epochs, channels, patches, _ = features.shape
    if mask is not None and mask.ndim == 2:
        mask = mask.unsqueeze(2).expand(-1, -1, patches)
    return _layout(features, mask, (epochs, channels, patches), features.stride()[:3], 0, epochs * patches)


def _rows_of_stream(chunk: Tensor, mask: Tensor | None, patches: int, filled: int) -> _Rows:
    chunk = chunk if chunk.stride(2) == 1 else chunk.contiguous()
    channels, length, _ = chunk.shape
    by_channel, by_patch, _ = chunk.stride()
    shape = -(-(filled + length) // patches), channels, patches
    strides = patches * by_patch, by_channel, by_patch
    return _layout(chunk, mask, shape, strides, filled, length, stream=True)


def _layout(
    x: Tensor,
    mask: Tensor | None,
    shape: tuple[int, int, int],
    strides: tuple[int, ...],
    filled: int,
    length: int,
    stream: bool = False,
) -> _Rows:
    masks: tuple[int, ...] = (0, 0, 0)
    if mask is not None:
        masks = mask.stride() if not stream else (shape[2] * mask.stride(1), mask.stride(0), mask.stride(1))
        mask = mask.view(torch.uint8)
    strides, masks = _even(strides, shape), _even(masks, shape)
    unit = gcd(16 // x.element_size(), *strides)
    run = not stream and all(by[1] == shape[2] * by[2] for by in (strides, masks))
    return _Rows(
        x, mask, *shape, (*(stride // unit for stride in strides), *masks), filled, length, run, unit
    )


def _even(strides: tuple[int, ...], shape: tuple[int, int, int]) -> tuple[int, ...]:
    """Strides as those of evenly spaced rows wherever an axis of length 1 leaves them open."""
    epoch, channel, patch = strides
    if shape[2] == 1:
        patch = channel if shape[1] > 1 else 0
    if shape[1] == 1:
        channel = shape[2] * patch
    return 0 if shape[0] == 1 else epoch, channel, patch


def _slices(programs: int, rows: int, block: int, device: torch.device) -> tuple[int, int]:
    """Slices of an epoch, and rows in each: enough programs for the chip, at least a tile for each."""
    wanted = -(-2 * processors(device) // programs) if 0 < programs < processors(device) else 1
    tiles = max(1, -(-rows // block))
    each = -(-tiles // min(wanted, tiles)) * block
    return max(1, -(-rows // each)), each


def _reduce(
    rows: _Rows, mode: str, query: Tensor | None, ties: bool, tokens: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Launch what fills `tokens`, if given, and return (top, weight, total) of every epoch.

    With tokens only what a backward pass needs is filled of it: of a mean the weight, of a maximum the total,
    which counts ties, of attention the weight, which is the logarithm of its sum.
    """
    x, dim, device = rows.x, rows.dim, rows.x.device
    queries = 1 if query is None else query.shape[0]
    kernel = "aggregate_attend" if mode == "attention" else f"aggregate_{mode}"
    chosen = setting(kernel, dim, x.dtype, device)
    groups, block_q = 1, 0
    if mode == "attention":
        tensor, block_q = _shared(chosen, x.dtype, queries)
        groups = -(-queries // block_q)
    splits, slice_rows = _slices(rows.epochs * groups, rows.in_epoch, chosen["BLOCK_T"], device)

    def state(count: int) -> tuple[Tensor, Tensor, Tensor]:
        def room(shape: tuple[int, ...]) -> Tensor:
            return torch.empty(shape, dtype=torch.float32, device=device)

        top = {"mean": (0,), "max": (count, dim), "attention": (count, queries)}[mode]
        summed = (count, dim) if ties or mode == "mean" else (0,)
        total = (count, queries, dim) if mode == "attention" else summed
        return room(top), room((count, queries)), room(total)

    result = state(rows.epochs)
    pieces = result if splits == 1 else state(rows.epochs * splits)
    finish = tokens is not None
    token = result[2] if tokens is None else tokens
    where = (*pieces, token, *rows.strides)
    size = (rows.in_epoch, rows.patches, rows.filled, rows.length, splits, slice_rows)
    options = {
        **rows.flags(),
        "FINISH": finish and splits == 1,
        "BLOCK_T": chosen["BLOCK_T"],
        "STAGES": chosen["num_stages"],
        "num_warps": chosen["num_warps"],
        "num_stages": chosen["num_stages"],
    }
    mask = x if rows.mask is None else rows.mask
    grid = (rows.epochs * splits * groups,)
    if mode == "attention":
        assert query is not None
        options |= {"EXACT": query.dtype == x.dtype, "TENSOR": tensor}
        options["DOT"] = dot_dtype(x.dtype) if tensor else tl.float32
        options["BLOCK_Q"] = block_q
        launch(_attend_kernel, grid, x, mask, query, *where, queries, _scale(dim), *size, **options)
    else:
        launch(_pool_kernel, grid, x, mask, *where, *size, MAXIMUM=mode == "max", TIES=ties, **options)
    if splits > 1:
        chosen = setting("aggregate_merge", dim, x.dtype, device)
        launch(
            _merge_kernel,
            (rows.epochs * queries,),
            *pieces,
            *result,
            token,
            queries,
            splits,
            DIM=dim,
            MODE=mode,
            TIES=ties,
            FINISH=finish,
            BLOCK_S=chosen["BLOCK_S"],
            BLOCK_D=power_of_two(dim),
            num_warps=chosen["num_warps"],
        )
    return result


def _shared(chosen: Setting, dtype: torch.dtype, queries: int) -> tuple[bool, int]:
    """Whether products go to the tensor cores, and how many queries share a read."""
    tensor = chosen["BLOCK_Q"] == BLOCK_Q and dtype != torch.float32
    return tensor, BLOCK_Q if tensor else min(chosen["BLOCK_Q"], power_of_two(queries, 1))


def _scale(dim: int) -> float:
    return float(dim**-0.5) * LOG2E.value


def forward(
    features: Tensor, mask: Tensor | None, mode: str, query: Tensor | None, save: bool
) -> tuple[Tensor, Tensor]:
    """Tokens, and what `backward` needs: counts [E, 1], ties [E, D] or logarithms of sums [E, Q]."""
    epochs, dim = features.shape[0], features.shape[3]
    shape = (epochs, dim) if query is None else (epochs, query.shape[0], dim)
    tokens = torch.empty(shape, dtype=features.dtype, device=features.device)
    ties = save and mode == "max"
    _, weight, total = _reduce(
        _rows_of(features, mask), mode, None if query is None else query.contiguous(), ties, tokens
    )
    return tokens, (total if ties else weight) if save else weight.new_empty(0)


def reduce(
    chunk: Tensor, mask: Tensor | None, patches: int, filled: int, mode: str, query: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(top, weight, total) of what a chunk [C, T, D] has of each epoch that it touches."""
    rows = _rows_of_stream(chunk, mask, patches, filled)
    return _reduce(rows, mode, None if query is None else query.contiguous(), False, None)


def backward(
    grad: Tensor,
    features: Tensor | None,
    shape: list[int],
    mask: Tensor | None,
    mode: str,
    query: Tensor | None,
    tokens: Tensor,
    saved: Tensor,
    need_features: bool,
    need_query: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of the features [E, C, P, D] and of the queries [Q, D]; empty where they are not needed."""
    grad, dim, device = grad.contiguous(), shape[3], grad.device
    dfeatures = torch.empty(shape if need_features else [0], dtype=grad.dtype, device=device)
    # a mean does not look at its features again
    rows = _rows_of(dfeatures if features is None else features, mask)
    if mode != "attention":
        if not need_features:
            return dfeatures, grad.new_empty(0)
        chosen = setting(f"aggregate_{mode}_backward", dim, grad.dtype, device)
        splits, slice_rows = _slices(rows.epochs, rows.in_epoch, chosen["BLOCK_T"], device)
        launch(
            _pool_backward_kernel,
            (rows.epochs * splits,),
            rows.x,
            rows.x if rows.mask is None else rows.mask,
            grad,
            tokens,
            saved,
            dfeatures,
            *rows.strides,
            rows.in_epoch,
            rows.patches,
            splits,
            slice_rows,
            **rows.flags(),
            MAXIMUM=mode == "max",
            BLOCK_T=chosen["BLOCK_T"],
            STAGES=chosen["num_stages"],
            num_warps=chosen["num_warps"],
            num_stages=chosen["num_stages"],
        )
        return dfeatures, grad.new_empty(0)
    assert query is not None
    query = query.contiguous()
    queries = query.shape[0]
    chosen = setting("aggregate_attend_backward", dim, grad.dtype, device)
    tensor, block_q = _shared(chosen, grad.dtype, queries)
    splits, slice_rows = _slices(rows.epochs, rows.in_epoch, chosen["BLOCK_T"], device)
    wide = dfeatures.float() if queries > block_q else dfeatures
    parts = rows.epochs * splits if need_query else 0
    dquery = torch.empty((parts, queries, dim), dtype=torch.float32, device=device)
    for start in range(0, queries, block_q):
        launch(
            _attend_backward_kernel,
            (rows.epochs * splits,),
            rows.x,
            rows.x if rows.mask is None else rows.mask,
            query,
            grad,
            tokens,
            saved,
            wide,
            dquery,
            *rows.strides,
            start,
            queries,
            float(dim**-0.5),
            rows.in_epoch,
            rows.patches,
            splits,
            slice_rows,
            **rows.flags(),
            EXACT=query.dtype == grad.dtype,
            DOT=dot_dtype(grad.dtype) if tensor else tl.float32,
            TENSOR=tensor,
            DX=need_features,
            DQUERY=need_query,
            ADD=start > 0,
            BLOCK_T=chosen["BLOCK_T"],
            BLOCK_Q=block_q,
            PART_D=min(power_of_two(dim), PART_D),
            STAGES=chosen["num_stages"],
            num_warps=chosen["num_warps"],
            num_stages=chosen["num_stages"],
        )
    return wide.to(grad.dtype), dquery.sum(0).to(query.dtype) if need_query else dquery


def _tried(*blocks: int, queries: tuple[int, ...] = ()) -> list[Setting]:
    return [
        {"BLOCK_T": rows, **({"BLOCK_Q": count} if count else {}), "num_warps": warps, "num_stages": stages}
        for rows in blocks
        for count in queries or (0,)
        for warps in (4, 8)
        for stages in (1, 2, 3)
    ]


CANDIDATES: dict[str, list[Setting]] = {
    "aggregate_mean": _tried(8, 16, 32, 64),
    "aggregate_max": _tried(8, 16, 32, 64),
    "aggregate_attend": _tried(8, 16, 32, 64, queries=(2, 4, BLOCK_Q)),
    "aggregate_mean_backward": _tried(8, 16, 32, 64),
    "aggregate_max_backward": _tried(8, 16, 32, 64),
    "aggregate_attend_backward": _tried(4, 8, 16, 32, 64, queries=(2, 4, BLOCK_Q)),
    "aggregate_merge": [{"BLOCK_S": parts, "num_warps": warps} for parts in (4, 8, 16) for warps in (4, 8)],
}


def cases() -> Iterator[Case]:
    """Every entry of the tables, forward and backward; the widths that load worst of theirs."""
    for dim in (25, 200, 512, 1024):
        for dtype in (torch.bfloat16, torch.float32):
            yield Case("aggregate", dim, dtype, partial(_run, dim, dtype))


def _run(dim: int, dtype: torch.dtype, device: torch.device) -> None:
    features = torch.randn(1000, 22, 10, dim, device=device).to(dtype)
    mask = torch.ones(features.shape[:3], dtype=torch.bool, device=device)
    for mode in ("mean", "max", "attention"):
        query = torch.randn(8, dim, device=device).to(dtype) if mode == "attention" else None
        tokens, saved = forward(features, mask, mode, query, True)
        shape, trained = list(features.shape), query is not None
        backward(tokens, features, shape, mask, mode, query, tokens, saved, True, trained)
    # one epoch is cut into slices
    forward(features[:1], mask[:1], "mean", None, False)
    if dim == 200:
        reduce(features.flatten(0, 1), mask.flatten(0, 1), 20, 3, "attention", query)
