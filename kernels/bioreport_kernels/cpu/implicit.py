"""Quantization with implicit codebooks on a CPU.

The network's first layer is split into a table over the codewords and one row a vector, and so is the first
of its products to the hidden width, which leaves 2 R - 1 of 2 R. Candidates are worked on in tiles that stay
in the cache.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bioreport_kernels.reference import ImplicitWeights, accumulation_dtype

# Candidates in a tile, a thread: with 256 hidden units a megabyte.
TILE_ROWS = 1024
# Rows that are decoded together, the last ones padded: always the same product, so always the same bits,
# whatever else is decoded and wherever the encoder stops.
DECODE_ROWS = 128
# Numbers kept between stages for the vectors that are encoded together.
STATE_NUMBERS = 1 << 20
# Candidates beyond those kept whose distances are worked out again after a search in bfloat16.
RERANKED = 3


class Stage(NamedTuple):
    """A stage's network, with what does not depend on the estimate worked out for every codeword."""

    codewords: Tensor  # [K, D]
    table: Tensor  # [K, E], u of the first layer but for the estimate's share
    lifted: Tensor | None  # [K, H], the first block's up-projection of the table
    along: Tensor  # [E, D], the first layer's share of the estimate
    up: tuple[Tensor, ...]  # R of [H, E]
    down: tuple[Tensor, ...]  # R of [E, H]
    out_proj: Tensor | None  # [D, E]
    skip: bool

    def narrow(self) -> "Stage":
        """The same with its large products in bfloat16."""
        up, down = (tuple(w.to(torch.bfloat16) for w in weights) for weights in (self.up, self.down))
        out_proj = None if self.out_proj is None else self.out_proj.to(torch.bfloat16)
        return self._replace(up=up, down=down, out_proj=out_proj)


class Vectors(NamedTuple):
    """What a vector, with the estimate it has, brings to all its candidates."""

    residual: Tensor  # [V, D]
    offset: Tensor  # [V, E], its share of the first layer
    lift: Tensor | None  # [V, H], the first block's up-projection of the offset

    def take(self, index: Tensor) -> "Vectors":
        """Those of an index, each as often as it stands there."""
        lift = None if self.lift is None else self.lift[index]
        return Vectors(self.residual[index], self.offset[index], lift)


def quantize(
    x: Tensor, weights: ImplicitWeights, beam: int, shortlist: int | None, search: str
) -> tuple[Tensor, Tensor]:
    """`bioreport_kernels.implicit_quantize` of valid arguments."""
    keep_memory(x.device)
    weights = weights.to(accumulation_dtype(x.dtype))
    prepared = stages(weights)
    codes = torch.empty(len(x), 1 + len(prepared), dtype=torch.int64, device=x.device)
    quantized = torch.empty_like(x, memory_format=torch.contiguous_format)
    hidden, wide = weights.up.shape[2:]
    candidates = len(weights.first) + beam * (shortlist or weights.codebooks.shape[1])
    together = max(1, STATE_NUMBERS // (candidates + beam * (2 * x.shape[1] + wide + hidden)))
    for start in range(0, len(x), together):
        some = slice(start, start + together)
        target = x[some].to(weights.first.dtype)
        codes[some], quantized[some] = _encode(target, weights, prepared, beam, shortlist, search)
    return codes, quantized


def decode(codes: Tensor, weights: ImplicitWeights) -> Tensor:
    """`bioreport_kernels.implicit_decode` of valid arguments."""
    weights = weights.to(accumulation_dtype(weights.first.dtype))
    estimate = weights.first[codes[:, 0]]
    for index, stage in enumerate(stages(weights), 1):
        estimate = _advance(stage, estimate, codes[:, index])
    return estimate


def stages(weights: ImplicitWeights) -> list[Stage]:
    """Every stage after the first, prepared."""
    prepared = []
    for stage in range(len(weights.codebooks)):
        codewords = weights.codebooks[stage]
        e = codewords if weights.in_proj is None else F.linear(codewords, weights.in_proj[stage])
        own, along = weights.concat[stage].tensor_split([e.shape[1]], 1)
        table = e + F.linear(e, own, weights.bias[stage])
        up, down = weights.up[stage].contiguous().unbind(), weights.down[stage].contiguous().unbind()
        lifted = F.linear(table, up[0]) if up else None
        out_proj = None if weights.out_proj is None else weights.out_proj[stage].contiguous()
        prepared.append(Stage(codewords, table, lifted, along.contiguous(), up, down, out_proj, weights.skip))
    return prepared


def _encode(
    target: Tensor,
    weights: ImplicitWeights,
    prepared: list[Stage],
    beam: int,
    shortlist: int | None,
    search: str,
) -> tuple[Tensor, Tensor]:
    n = len(target)
    best = lowest(_plain_distances(target, weights.first), beam if prepared else 1)
    codes, estimate = best[:, :, None], weights.first[best]
    row = torch.arange(n, device=target.device)[:, None]
    for index, stage in enumerate(prepared):
        beams = codes.shape[1]
        # a row a beam of a vector from here on
        estimate = estimate.flatten(0, 1)
        residual = target.repeat_interleave(beams, 0) - estimate
        offset = linear(estimate, stage.along)
        vectors = Vectors(residual, offset, linear(offset, stage.up[0]) if stage.up else None)
        listed = None
        if shortlist is not None:
            assert weights.shortlists is not None
            listed = lowest(_expanded_distances(residual, weights.shortlists[index]), shortlist)
        width = len(stage.codewords) if listed is None else listed.shape[1]
        keep = min(beam if index < len(prepared) - 1 else 1, beams * width)
        if search == "bfloat16" and keep + RERANKED < beams * width:
            rough = _distances(stage.narrow(), vectors, listed).view(n, -1)
            likely = lowest(rough, keep + RERANKED)
            parent = (row * beams + likely // width).flatten()
            code = _code(likely.reshape(-1, 1), parent, width, listed)
            exact = _distances(stage, vectors.take(parent), code).view(n, -1)
            best = likely.gather(1, lowest(exact, keep))
        else:
            best = lowest(_distances(stage, vectors, listed).view(n, -1), keep)
        parent = (row * beams + best // width).flatten()
        code = _code(best.reshape(-1, 1), parent, width, listed)
        codes = torch.cat([codes.flatten(0, 1)[parent], code], 1).unflatten(0, best.shape)
        estimate = _advance(stage, estimate[parent], code[:, 0]).unflatten(0, best.shape)
    return codes[:, 0], estimate[:, 0]


def _code(candidate: Tensor, parent: Tensor, width: int, listed: Tensor | None) -> Tensor:
    """Codes [V, 1] of candidates that are counted through all beams of their vector."""
    return candidate % width if listed is None else listed[parent].gather(1, candidate % width)


def _distances(stage: Stage, vectors: Vectors, listed: Tensor | None) -> Tensor:
    """‖residual - f‖ of each vector to every codeword's f, or to those of its listed codes: [V, A]."""
    residual, offset, lift = vectors
    width = len(stage.codewords) if listed is None else listed.shape[1]
    found = residual.new_empty(len(residual), width)
    rows = TILE_ROWS * torch.get_num_threads()
    across = min(width, rows)
    down = min(max(1, rows // across), len(residual))
    spread, end = (
        offset.new_empty(down * across, offset.shape[1]),
        residual.new_empty(down * across, residual.shape[1]),
    )
    hidden_spread = None if lift is None else lift.new_empty(down * across, lift.shape[1])
    for top in range(0, len(residual), down):
        some = slice(top, top + down)
        for left in range(0, width, across):
            columns = slice(left, left + across)
            codes = columns if listed is None else listed[some, columns]
            u = _spread(stage.table, codes, offset[some], spread)
            shape = u.shape[:2]
            dtype = stage.up[0].dtype if stage.up else u.dtype
            u = u.flatten(0, 1).to(dtype)
            for block, (up, back) in enumerate(zip(stage.up, stage.down, strict=True)):
                if block == 0:
                    assert stage.lifted is not None and lift is not None and hidden_spread is not None
                    hidden = _spread(stage.lifted, codes, lift[some], hidden_spread).relu_()
                    hidden = hidden.flatten(0, 1).to(dtype)
                else:
                    hidden = linear(u, up, relu=True)
                u = linear(hidden, back, plus=u)
            if stage.out_proj is not None:
                u = linear(u, stage.out_proj)
            miss = end[: len(u)].view(*shape, -1)
            torch.sub(u.view(miss.shape), residual[some, None], out=miss)
            if stage.skip:
                miss += stage.codewords[codes]
            found[some, columns] = torch.linalg.vector_norm(miss, dim=-1)
    return found


def _spread(table: Tensor, codes: Tensor | slice, rows: Tensor, out: Tensor) -> Tensor:
    """table[codes] + rows[:, None] in the memory given: [V, A, width]."""
    if isinstance(codes, slice):
        part = table[codes]
        return torch.add(part, rows[:, None], out=out[: len(rows) * len(part)].view(len(rows), *part.shape))
    out = out[: codes.numel()]
    torch.index_select(table, 0, codes.flatten(), out=out)
    return out.view(*codes.shape, -1).add_(rows[:, None])


def _advance(stage: Stage, estimate: Tensor, codes: Tensor) -> Tensor:
    """The estimates [V, D] with the stage's codewords of these codes [V] added."""
    after = torch.empty_like(estimate)
    for start in range(0, len(codes), DECODE_ROWS):
        before, code = estimate[start : start + DECODE_ROWS], codes[start : start + DECODE_ROWS]
        rows = len(code)
        before = F.pad(before, (0, 0, 0, DECODE_ROWS - rows))
        code = F.pad(code, (0, DECODE_ROWS - rows))
        u = linear(before, stage.along, plus=stage.table[code])
        for up, down in zip(stage.up, stage.down, strict=True):
            u = linear(linear(u, up, relu=True), down, plus=u)
        if stage.out_proj is not None:
            u = linear(u, stage.out_proj)
        if stage.skip:
            u = u + stage.codewords[code]
        after[start : start + rows] = (before + u)[:rows]
    return after


def _plain_distances(target: Tensor, codewords: Tensor) -> Tensor:
    together = max(1, TILE_ROWS * torch.get_num_threads() // len(codewords))
    found = target.new_empty(len(target), len(codewords))
    for top in range(0, len(target), together):
        some = slice(top, top + together)
        found[some] = torch.linalg.vector_norm(target[some, None] - codewords, dim=-1)
    return found


def _expanded_distances(target: Tensor, codewords: Tensor) -> Tensor:
    """‖c‖² - 2 target·c: less exact, which a shortlist bears."""
    return torch.addmm(codewords.square().sum(1), target, codewords.T, alpha=-2)


def lowest(distances: Tensor, count: int) -> Tensor:
    """Indices of the smallest along the last axis, the lowest first among equals; NaN counts as infinite."""
    finite = distances.nan_to_num(nan=math.inf, posinf=math.inf, neginf=math.inf)
    if count == 1:
        return finite.argmin(-1, keepdim=True)
    if finite.dtype == torch.float64 or count >= finite.shape[-1]:
        return finite.sort(dim=-1, stable=True).indices[..., :count]
    # topk leaves open which of equals it takes: with the index in the low half there are none
    bits = finite.view(torch.int32).to(torch.int64)
    bits ^= (bits >> 31) & 0x7FFFFFFF
    keys = (bits << 32) + torch.arange(finite.shape[-1], device=finite.device)
    return keys.topk(count, largest=False).values & 0xFFFFFFFF


def linear(rows: Tensor, weight: Tensor, *, relu: bool = False, plus: Tensor | None = None) -> Tensor:
    """rows weightᵀ, plus something or through relu.

    oneDNN's product does both as it writes, and in float32 it is twice as fast as MKL, which PyTorch's own
    linear takes, where the processor is not Intel's.
    """
    if rows.device.type == "cpu" and rows.dtype in _fused_dtypes():
        product = torch.ops.mkldnn._linear_pointwise
        if plus is not None:
            return product.binary(rows, plus, weight, None, "add")
        return product(rows, weight, None, "relu" if relu else "none", [], "")
    out = F.linear(rows, weight) if plus is None else torch.addmm(plus, rows, weight.T)
    return out.relu_() if relu else out


def _fused_dtypes() -> tuple[torch.dtype, ...]:
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return ()
    narrow = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (torch.float32, torch.bfloat16) if narrow else (torch.float32,)


def keep_memory(device: torch.device) -> None:
    """Have glibc keep the tiles' memory between tiles, instead of giving it back and zeroing it anew.

    It keeps what is smaller than the largest block freed before, up to 32 MB.
    """
    if device.type == "cpu":
        torch.empty(16 << 20, dtype=torch.uint8)
