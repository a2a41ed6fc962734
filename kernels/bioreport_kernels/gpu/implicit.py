"""Quantization with implicit codebooks: the search with a stage's whole network in one launch.

Flops: R · 4 E H a candidate, of which a vector has K, or beam · shortlist, in every stage; but for the
weights, which the second cache keeps, bytes are a thousandth of that: the matrix units are the limit.

`_search_kernel` takes a tile of candidates through all blocks: u [rows, E] stays in registers, the hidden
layer is made and used up in chunks, weights are streamed. The first layer is a table over the codewords plus
one row a vector. Of a candidate its distance alone is written, by the direct form; `_select_kernel` finds the
nearest of a vector's. That is done in bfloat16. In float32 (three TF32 products, about 1e-6) u as a factor
does not fit into the registers, so each block is a launch: `_first_kernel`, R times `_block_kernel`,
`_last_kernel`, on the few candidates that are ranked again, on all in an exact search, and on the codes
themselves to decode. A row is computed alone and always in the same order: encoder and decoder agree bit for
bit. `_shortlist_kernel` draws up QINCo2's shortlists.

Vectors are taken so many at a time that what lies between launches stays small.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from bioreport_kernels.configs import Setting, setting
from bioreport_kernels.cpu.implicit import RERANKED
from bioreport_kernels.gpu.launch import Case, dot_dtype, dot_precision, launch, power_of_two
from bioreport_kernels.reference import ImplicitWeights

# Numbers between launches for the vectors that are encoded together: a share of x's, within these bounds.
STATE_SHARE, LEAST_STATE, MOST_STATE = 4, 1 << 21, 1 << 24
# Candidates of a launch, where memory allows: in a search so many that ranking a few of them again in float32
# fills the chip too.
SEARCHED_TOGETHER, EXACT_TOGETHER = 1 << 19, 1 << 15

# Which candidates: every codeword of each row, the listed ones, or pairs of a row and a code.
EVERY, LISTED, PAIRS = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
WORST = tl.constexpr(-(2**63))
EXACT = dot_precision(torch.float32)


@triton.jit
def candidate(place, width, count, codes, parents, inside, WHICH: tl.constexpr):
    """Row and code of candidates; whatever the codes are, they stay within the tables."""
    row = tl.load(parents + place, mask=inside, other=0) if WHICH == PAIRS else place // width
    code = place - row * width if WHICH == EVERY else tl.load(codes + place, mask=inside, other=0)
    return row, tl.minimum(tl.maximum(code, 0), count - 1)


@triton.jit(do_not_specialize=["rows", "width", "count"])
def _first_kernel(
    out, estimate, along, table, codes, parents, rows, width, count,
    WHICH: tl.constexpr, TABLE: tl.constexpr, D: tl.constexpr, E: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    inside = place < rows
    row, code = candidate(place, width, count, codes, parents, inside, WHICH)
    e, c = tl.program_id(1) * BLOCK_E + tl.arange(0, BLOCK_E), tl.arange(0, BLOCK_C)[None, :]
    u = tl.zeros([BLOCK_R, BLOCK_E], tl.float32)
    for start in range(0, D, BLOCK_C):
        known = tl.load(estimate + row[:, None] * D + start + c, mask=inside[:, None], other=0.0)
        weight = tl.load(along + e[:, None] * D + start + c)
        u = tl.dot(known, tl.trans(weight).to(tl.float32), u, input_precision=PRECISION)
    if TABLE:
        u += tl.load(table + code[:, None] * E + e[None, :], mask=inside[:, None], other=0.0)
    tl.store(out + place[:, None] * E + e[None, :], u, mask=inside[:, None])


@triton.jit(do_not_specialize=["rows"])
def _block_kernel(
    values, up, down, rows, E: tl.constexpr, H: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    inside = (place < rows)[:, None]
    e, c = tl.arange(0, E), tl.arange(0, BLOCK_C)
    values += place[:, None] * E
    u = tl.load(values + e[None, :], mask=inside, other=0.0)
    for h in range(0, H, BLOCK_C):
        hidden = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
        for start in range(0, E, BLOCK_C):
            part = tl.load(values + start + c[None, :], mask=inside, other=0.0)
            lift = tl.load(up + (h + c)[:, None] * E + start + c[None, :])
            hidden = tl.dot(part, tl.trans(lift).to(tl.float32), hidden, input_precision=PRECISION)
        back = tl.load(down + e[:, None] * H + h + c[None, :])
        back = tl.trans(back).to(tl.float32)
        u = tl.dot(tl.maximum(hidden, 0.0), back, u, input_precision=PRECISION)
    tl.store(values + e[None, :], u, mask=inside)


@triton.jit(do_not_specialize=["rows", "width", "count"])
def _last_kernel(
    distances, found, values, residual, estimate, codewords, out_proj, codes, parents, rows, width, count,
    WHICH: tl.constexpr, NETWORK: tl.constexpr, PROJECTED: tl.constexpr, SKIP: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, PRECISION: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    inside = place < rows
    row, code = candidate(place, width, count, codes, parents, inside, WHICH)
    here, c = inside[:, None], tl.arange(0, BLOCK_C)
    distance = tl.zeros([BLOCK_R], tl.float32)
    for d in range(0, D, BLOCK_C):
        change = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
        if PROJECTED:
            for start in range(0, E, BLOCK_C):
                part = tl.load(values + place[:, None] * E + start + c[None, :], mask=here, other=0.0)
                weight = tl.load(out_proj + (d + c)[:, None] * E + start + c[None, :])
                weight = tl.trans(weight).to(tl.float32)
                change = tl.dot(part, weight, change, input_precision=PRECISION)
        elif NETWORK:
            change = tl.load(values + place[:, None] * E + d + c[None, :], mask=here, other=0.0)
        if SKIP:
            change += tl.load(codewords + code[:, None] * D + d + c[None, :], mask=here, other=0.0)
        if NETWORK:
            before = tl.load(estimate + row[:, None] * D + d + c[None, :], mask=here, other=0.0)
            tl.store(found + place[:, None] * D + d + c[None, :], before + change, mask=here)
        change -= tl.load(residual + row[:, None] * D + d + c[None, :], mask=here, other=0.0)
        distance += tl.sum(change * change, 1)
    tl.store(distances + place, distance, mask=inside)


@triton.jit(do_not_specialize=["rows", "width", "count", "blocks"])
def _search_kernel(
    distances, residual, offset, table, up, down, out_proj, codewords, codes, rows, width, count, blocks,
    WHICH: tl.constexpr, PROJECTED: tl.constexpr, SKIP: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, H: tl.constexpr, DOT: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    inside = place < rows
    row, code = candidate(place, width, count, codes, codes, inside, WHICH)
    here, e, c = inside[:, None], tl.arange(0, E), tl.arange(0, BLOCK_C)
    u = tl.load(table + code[:, None] * E + e[None, :], mask=here, other=0.0)
    u += tl.load(offset + row[:, None] * E + e[None, :], mask=here, other=0.0)
    for block in range(blocks):
        narrow = u.to(DOT)
        for h in range(0, H, BLOCK_C):
            lift = tl.load(up + (block * H + h + c)[:, None] * E + e[None, :])
            hidden = tl.dot(narrow, tl.trans(lift).to(DOT), input_precision="ieee")
            back = tl.load(down + (block * E + e)[:, None] * H + h + c[None, :])
            u = tl.dot(tl.maximum(hidden, 0.0).to(DOT), tl.trans(back).to(DOT), u, input_precision="ieee")
    if PROJECTED:
        narrow = u.to(DOT)
        distance = tl.zeros([BLOCK_R], tl.float32)
        for d in range(0, D, BLOCK_C):
            weight = tl.load(out_proj + (d + c)[:, None] * E + e[None, :])
            miss = tl.dot(narrow, tl.trans(weight).to(DOT), input_precision="ieee")
            miss -= tl.load(residual + row[:, None] * D + d + c[None, :], mask=here, other=0.0)
            if SKIP:
                miss += tl.load(codewords + code[:, None] * D + d + c[None, :], mask=here, other=0.0)
            distance += tl.sum(miss * miss, 1)
    else:
        u -= tl.load(residual + row[:, None] * D + e[None, :], mask=here, other=0.0)
        if SKIP:
            u += tl.load(codewords + code[:, None] * D + e[None, :], mask=here, other=0.0)
        distance = tl.sum(u * u, 1)
    tl.store(distances + place, distance, mask=inside)


@triton.jit
def rank(distance, index, valid):
    """An integer a candidate: the larger, the nearer; of equals the lower index. NaN is infinitely far."""
    distance = tl.where(tl.abs(distance) < float("inf"), distance, float("inf"))
    bits = distance.to(tl.int32, bitcast=True)
    bits = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return tl.where(valid, ~((bits.to(tl.int64) << 32) | index.to(tl.int64)), WORST)


@triton.jit
def keep_best(best, ranks, KEEP: tl.constexpr):
    """The KEEP largest of both, the largest first."""
    both = tl.join(best, tl.topk(ranks, KEEP))
    return tl.topk(tl.reshape(both, [best.shape[0], 2 * KEEP]), KEEP)


@triton.jit(do_not_specialize=["rows", "count", "keep"])
def _shortlist_kernel(
    listed, residual, codewords, squares, rows, count, keep,
    D: tl.constexpr, PRECISION: tl.constexpr, KEEP: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    inside, c = (row < rows)[:, None], tl.arange(0, BLOCK_C)[None, :]
    best = tl.full([BLOCK_R, KEEP], WORST, tl.int64)
    for first in range(0, count, BLOCK_W):
        code = first + tl.arange(0, BLOCK_W)
        valid = code < count
        product = tl.zeros([BLOCK_R, BLOCK_W], tl.float32)
        for start in range(0, D, BLOCK_C):
            part = tl.load(residual + row[:, None] * D + start + c, mask=inside, other=0.0)
            words = tl.load(codewords + code[:, None] * D + start + c, mask=valid[:, None], other=0.0)
            product = tl.dot(part, tl.trans(words), product, input_precision=PRECISION)
        score = tl.load(squares + code, mask=valid, other=0.0)[None, :] - 2.0 * product
        best = keep_best(best, rank(score, code[None, :], valid[None, :]), KEEP)
    slot = tl.arange(0, KEEP)[None, :]
    tl.store(listed + row[:, None] * keep + slot, ~best & 0xFFFFFFFF, mask=inside & (slot < keep))


@triton.jit(do_not_specialize=["rows", "count", "keep"])
def _select_kernel(
    places, distances, rows, count, keep, KEEP: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_W: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    inside = (row < rows)[:, None]
    best = tl.full([BLOCK_R, KEEP], WORST, tl.int64)
    for first in range(0, count, BLOCK_W):
        index = first + tl.arange(0, BLOCK_W)[None, :]
        valid = inside & (index < count)
        distance = tl.load(distances + row[:, None] * count + index, mask=valid, other=0.0)
        best = keep_best(best, rank(distance, index, valid), KEEP)
    slot = tl.arange(0, KEEP)[None, :]
    place = row[:, None] * count + (~best & 0xFFFFFFFF)
    tl.store(places + row[:, None] * keep + slot, place, mask=inside & (slot < keep))


class Tables(NamedTuple):
    """Weights as the kernels read them, padded with zeros: D and E to powers of two, H to 64s."""

    first: Tensor  # [K0, D], float32
    codewords: Tensor  # [S, K, D], float32
    table: Tensor  # [S, K, E], float32: the first layer but for the estimate's share
    along: Tensor  # [S, E, D], that share
    up: Tensor  # [S, R, H, E]
    down: Tensor  # [S, R, E, H]
    out_proj: Tensor | None  # [S, D, E]
    shortlists: Tensor | None  # [S, K, D], float32
    skip: bool

    @classmethod
    def of(cls, weights: ImplicitWeights) -> "Tables":
        w = weights
        hidden, wide = w.up.shape[2:]
        d, e, h = power_of_two(w.first.shape[1]), power_of_two(wide), -(-hidden // 64) * 64
        # small, and once: in float64, which no setting of the matrix units touches
        embedded = w.codebooks.double()
        if w.in_proj is not None:
            embedded = embedded @ w.in_proj.double().mT
        own, along = w.concat.tensor_split([wide], 2)
        table = embedded + embedded @ own.double().mT + w.bias.double()[:, None]
        return cls(
            first=padded(w.first.float(), d),
            codewords=padded(w.codebooks.float(), d),
            table=padded(table.float(), e),
            along=padded(along, e, d),
            up=padded(w.up, h, e),
            down=padded(w.down, e, h),
            out_proj=None if w.out_proj is None else padded(w.out_proj, d, e),
            shortlists=None if w.shortlists is None else padded(w.shortlists.float(), d),
            skip=w.skip,
        )

    def narrow(self) -> "Tables":
        """The same with the matrices of the large products in bfloat16."""
        out_proj = None if self.out_proj is None else self.out_proj.bfloat16()
        return self._replace(up=self.up.bfloat16(), down=self.down.bfloat16(), out_proj=out_proj)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """D, E and H as padded."""
        return self.first.shape[1], self.table.shape[2], self.up.shape[2]


class Candidates(NamedTuple):
    """`width` candidates of each of so many rows: every codeword, listed codes, or pairs of row and code."""

    which: tl.constexpr
    rows: int
    width: int
    codes: Tensor | None = None
    parents: Tensor | None = None

    def take(self, places: Tensor) -> "Candidates":
        """Those at these places, as pairs."""
        rows = places // self.width if self.parents is None else self.parents[places]
        codes = places % self.width if self.codes is None else self.codes[places]
        return Candidates(PAIRS, len(places), 1, codes, rows)

    def pointers(self, instead: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and parents for a kernel, `instead` where it reads none."""
        return tuple(instead if x is None else x for x in (self.codes, self.parents))  # type: ignore[return-value]


def quantize(
    x: Tensor, weights: ImplicitWeights, beam: int, shortlist: int | None, search: str
) -> tuple[Tensor, Tensor]:
    """`bioreport_kernels.implicit_quantize` of valid arguments."""
    tables = Tables.of(weights)
    rough = tables.narrow() if search == "bfloat16" else None
    (stages, words), (d, e, _) = tables.table.shape[:2], tables.sizes
    codes = torch.empty(len(x), 1 + stages, dtype=torch.int64, device=x.device)
    quantized = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    width = beam * (shortlist or words)
    exact, least = (width, EXACT_TOGETHER) if rough is None else (beam + RERANKED, SEARCHED_TOGETHER)
    numbers = (
        len(tables.first) + beam * (3 * d + e) + 3 * width + exact * (e if tables.out_proj is None else d + e)
    )
    together = max(_state(x.numel()) // numbers, min(least // width, MOST_STATE // numbers), 1)
    for start in range(0, len(x), together):
        some = slice(start, start + together)
        codes[some], estimate = _encode(x[some], tables, rough, beam, shortlist)
        quantized[some] = estimate[:, : x.shape[1]]
    return codes, quantized


def decode(codes: Tensor, weights: ImplicitWeights) -> Tensor:
    """`bioreport_kernels.implicit_decode` of valid arguments."""
    tables = Tables.of(weights)
    d, e, _ = tables.sizes
    out = torch.empty(len(codes), weights.first.shape[1], dtype=torch.float32, device=codes.device)
    together = _state(out.numel()) // (2 * d + e)
    for start in range(0, len(codes), together):
        some = codes[start : start + together].to(torch.int64).T.contiguous()
        estimate = tables.first[some[0].clamp(0, len(tables.first) - 1)]
        row = torch.arange(len(estimate), device=codes.device)
        for stage in range(len(tables.table)):
            chosen = Candidates(PAIRS, len(estimate), 1, some[stage + 1], row)
            _, estimate = _network(tables, stage, estimate, estimate, chosen)
        out[start : start + together] = estimate[:, : out.shape[1]]
    return out


def _state(numbers: int) -> int:
    return min(max(numbers // STATE_SHARE, LEAST_STATE), MOST_STATE)


def _encode(
    x: Tensor, tables: Tables, rough: Tables | None, beam: int, shortlist: int | None
) -> tuple[Tensor, Tensor]:
    n, (stages, words) = len(x), tables.table.shape[:2]
    target = padded(x.to(torch.float32), tables.sizes[0])
    candidates = Candidates(EVERY, n, len(tables.first))
    keep = min(beam if stages else 1, candidates.width)
    chosen = candidates.take(_select(_plain(tables, target, candidates), n, keep))
    assert chosen.codes is not None
    estimate, history = tables.first[chosen.codes], [chosen]
    for stage in range(stages):
        residual = (target[:, None] - estimate.view(n, keep, -1)).flatten(0, 1)
        candidates = Candidates(EVERY, n * keep, words)
        if shortlist is not None:
            listed = _shortlist(tables, stage, residual, shortlist)
            candidates = Candidates(LISTED, n * keep, shortlist, listed)
        count = keep * candidates.width
        keep = min(beam if stage < stages - 1 else 1, count)
        if rough is not None and keep + RERANKED < count:
            distances = _search(rough, stage, residual, estimate, candidates)
            candidates = candidates.take(_select(distances, n, keep + RERANKED))
        distances, found = _network(tables, stage, residual, estimate, candidates)
        places = _select(distances, n, keep)
        estimate = found[places]
        history.append(candidates.take(places))
    # back from the one beam that is left to those it descends from
    codes, row = [], torch.arange(n, device=x.device)
    for chosen in reversed(history):
        assert chosen.codes is not None and chosen.parents is not None
        codes.append(chosen.codes[row])
        row = chosen.parents[row]
    return torch.stack(codes[::-1], 1), estimate


def _plain(tables: Tables, target: Tensor, candidates: Candidates) -> Tensor:
    """Distances to the first stage's codewords."""
    return _last(tables, target, target, tables.first, candidates)[0]


def _search(tables: Tables, stage: int, residual: Tensor, estimate: Tensor, candidates: Candidates) -> Tensor:
    """Distances [C] of the candidates, in the precision of the tables."""
    (d, e, h), (which, rows, width, *_) = tables.sizes, candidates
    distances = residual.new_empty(rows * width)
    offset = _first(tables, stage, estimate)
    codes, _ = candidates.pointers(distances)
    options = dict(setting("implicit_search", e, tables.up.dtype, residual.device))
    launch(
        _search_kernel, _grid(rows * width, options),
        distances, residual, offset, tables.table[stage], tables.up[stage], tables.down[stage],
        distances if tables.out_proj is None else tables.out_proj[stage], tables.codewords[stage], codes,
        rows * width, width, tables.table.shape[1], tables.up.shape[1],
        WHICH=which, PROJECTED=tables.out_proj is not None, SKIP=tables.skip, D=d, E=e, H=h,
        DOT=dot_dtype(tables.up.dtype), **_within(options, d),
    )  # fmt: skip
    return distances


def _network(
    tables: Tables, stage: int, residual: Tensor, estimate: Tensor, candidates: Candidates
) -> tuple[Tensor, Tensor]:
    """Distances [C] of the candidates, and the estimates [C, D] that each gives, both float32."""
    (d, e, h), rows = tables.sizes, candidates.rows * candidates.width
    values = _first(tables, stage, estimate, candidates)
    options = _within(setting("implicit_exact", e, torch.float32, values.device), min(d, e))
    for up, down in zip(tables.up[stage], tables.down[stage], strict=True):
        launch(
            _block_kernel, _grid(rows, options), values, up, down, rows, E=e, H=h, PRECISION=EXACT, **options
        )
    return _last(tables, residual, estimate, tables.codewords[stage], candidates, values, stage)


def _first(tables: Tables, stage: int, estimate: Tensor, candidates: Candidates | None = None) -> Tensor:
    """The first layer of candidates, or without them the estimates' share of it."""
    d, e, _ = tables.sizes
    which, rows, width, *_ = candidates or Candidates(EVERY, len(estimate), 1)
    out = estimate.new_empty(rows * width, e)
    codes, parents = (out, out) if candidates is None else candidates.pointers(out)
    options = _within(setting("implicit_exact", e, torch.float32, out.device), min(d, e))
    block = min(e, 128)
    launch(
        _first_kernel, (*_grid(rows * width, options), e // block),
        out, estimate, tables.along[stage], tables.table[stage], codes, parents, rows * width, width,
        tables.table.shape[1],
        WHICH=which, TABLE=candidates is not None, D=d, E=e, PRECISION=EXACT, BLOCK_E=block, **options,
    )  # fmt: skip
    return out


def _last(
    tables: Tables,
    residual: Tensor,
    estimate: Tensor,
    codewords: Tensor,
    candidates: Candidates,
    values: Tensor | None = None,
    stage: int = 0,
) -> tuple[Tensor, Tensor]:
    (d, e, _), (which, rows, width, *_) = tables.sizes, candidates
    distances = residual.new_empty(rows * width)
    projected = values is not None and tables.out_proj is not None
    # as wide as the values they are read from, estimates take their place
    found = residual.new_empty(rows * width, d) if projected else distances if values is None else values
    options = _within(setting("implicit_exact", e, torch.float32, residual.device), min(d, e))
    launch(
        _last_kernel, _grid(rows * width, options),
        distances, found, found if values is None else values, residual, estimate, codewords,
        tables.out_proj[stage] if projected and tables.out_proj is not None else found,
        *candidates.pointers(found), rows * width, width, len(codewords),
        WHICH=which, NETWORK=values is not None, PROJECTED=projected, SKIP=values is None or tables.skip,
        D=d, E=e, PRECISION=EXACT, **options,
    )  # fmt: skip
    return distances, found


def _shortlist(tables: Tables, stage: int, residual: Tensor, keep: int) -> Tensor:
    """Codes [V · keep] of the plain codewords nearest to the residuals."""
    assert tables.shortlists is not None
    (rows, d), codewords = residual.shape, tables.shortlists[stage]
    listed = torch.empty(rows * keep, dtype=torch.int64, device=residual.device)
    kept = triton.next_power_of_2(keep)
    options = _within(setting("implicit_shortlist", kept, torch.float32, residual.device), d)
    launch(
        _shortlist_kernel, _grid(rows, options),
        listed, residual, codewords, codewords.square().sum(1), rows, len(codewords), keep,
        D=d, PRECISION=EXACT, KEEP=kept, **options,
    )  # fmt: skip
    return listed


def _select(distances: Tensor, n: int, keep: int) -> Tensor:
    """Places of the nearest `keep` of each vector's candidates, the nearest first: [n · keep]."""
    places = torch.empty(n * keep, dtype=torch.int64, device=distances.device)
    kept, count = triton.next_power_of_2(keep), len(distances) // n
    options = setting("implicit_select", kept, torch.float32, distances.device)
    launch(_select_kernel, _grid(n, options), places, distances, n, count, keep, KEEP=kept, **options)
    return places


def _grid(rows: int, options: Setting) -> tuple[int]:
    return (triton.cdiv(rows, options["BLOCK_R"]),)


def _within(options: Setting, dim: int) -> Setting:
    """Chunks no longer than what they are chunks of."""
    return options | {"BLOCK_C": min(dim, options["BLOCK_C"])}


def padded(x: Tensor, *sizes: int) -> Tensor:
    """The last dimensions grown to these sizes, with zeros."""
    if tuple(x.shape[-len(sizes) :]) == sizes:
        return x.contiguous()
    more = [n for size, old in zip(reversed(sizes), reversed(x.shape), strict=False) for n in (0, size - old)]
    return F.pad(x, more)


CANDIDATES: dict[str, list[Setting]] = {
    **{
        kernel: [
            {"BLOCK_R": rows, "BLOCK_C": chunk, "num_warps": warps, "num_stages": stages}
            for rows in (16, 32, 64, 128)
            for chunk in (32, 64)
            for warps in (4, 8)
            for stages in (2, 3, 4)
        ]
        for kernel in ("implicit_search", "implicit_exact")
    },
    "implicit_shortlist": [
        {"BLOCK_R": rows, "BLOCK_W": 128, "BLOCK_C": 32, "num_warps": warps, "num_stages": 2}
        for rows in (16, 32)
        for warps in (4, 8)
    ],
    "implicit_select": [
        {"BLOCK_R": rows, "BLOCK_W": columns, "num_warps": 4, "num_stages": 1}
        for rows in (1, 2, 4, 8)
        for columns in (128, 256, 512)
    ],
}


def cases() -> Iterator[Case]:
    """QINCo and QINCo2 at the published widths of their first layer."""

    def case(dim: int, dtype: torch.dtype) -> Case:
        def run(device: torch.device) -> None:
            def random(*shape: int) -> Tensor:
                return torch.empty(*shape, device=device).normal_(0, shape[-1] ** -0.5)

            k, d, search = 256, 128, "exact" if dtype == torch.float32 else "bfloat16"
            x, first, words = random(4096, d), random(k, d), random(1, k, d)
            concat, bias = random(1, dim, dim + d), random(1, dim)
            up, down = random(1, 2, dim, dim), random(1, 2, dim, dim)
            if dim == d:
                first_form = ImplicitWeights(first, words, concat, bias, up, down)
                second_form = first_form._replace(shortlists=words, skip=True)
                quantize(x, first_form, 1, None, search)
                quantize(x, second_form, 32, 16, search)
                # a beam between two stages, the widest that the selection takes
                two = second_form._replace(
                    codebooks=words.expand(2, -1, -1),
                    concat=concat.expand(2, -1, -1),
                    bias=bias.expand(2, -1),
                    up=up.expand(2, -1, -1, -1),
                    down=down.expand(2, -1, -1, -1),
                    shortlists=words.expand(2, -1, -1),
                )
                quantize(x, two, 64, 16, search)
            projections = random(1, dim, d), random(1, d, dim)
            weights = ImplicitWeights(first, words, concat, bias, up, down, *projections, words, True)
            quantize(x, weights, 32, 16, search)

        return Case("implicit_quantize", dim, dtype, run)

    yield case(128, torch.float32)
    for dim in (128, 256, 384):
        yield case(dim, torch.bfloat16)
