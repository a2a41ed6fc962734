"""Residual quantization in one launch after two small ones, and the batched argmin.

Flops of the search: 2·N·K·D·L, on tensor cores; bytes: rows, codes and results once, N·(2·D·b + 8·L), the
codebooks from the L2 cache. A program owns BLOCK_N rows through all stages, their residual in registers; no
score leaves them.

The search is in float16 with float32 sums, rows and codebooks scaled by powers of two: 11 bits at the rate of
bfloat16. Every place of the score tile keeps the best score of its column's words, with the tile's number in
the lowest bits, and the second best without. From the actual rounding of row and codebook follows a margin
(Cauchy-Schwarz), and what is not below the best by the margin is compared in float32 by

    ‖r - a‖² - ‖r - b‖² = Σ (b - a)·((r - a) + (r - b)),

which loses nothing where a and b are near each other. Where a column may hide a third candidate, or rounding
has moved the residual by enough to matter, the one row is searched exactly, all words by Σ (r - c)², with the
residual made anew from the row and its codes in two floats (TwoDiff, Knuth). The same way all rows' residuals
are renewed where they have become small against what rounding took from them. No row waits for the host.

Codebook gradients are products of one-hot matrices, made in registers, with the gradient: no atomics, so
always the same bits.
"""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from bioreport_kernels.configs import Setting, setting
from bioreport_kernels.gpu.launch import Case, dot_dtype, dot_precision, launch, power_of_two, processors

# In the place of -inf: lower than any score, and still a number with a tile's number in its bits.
LOWEST = tl.constexpr(-1e33)
# Half the square of a word that does not exist or is not finite; scores stay above minus 2**70.
ABSENT = tl.constexpr(1.2676506002282294e30)
INFINITE = tl.constexpr(float("inf"))
ROUNDING = tl.constexpr(2.0**-24)
# Rows whose residual is less than what rounding took, times this, are renewed.
LOST = tl.constexpr(2.0**-13)
# Largest elements are scaled to 2**8 and more: float16 has 2**-32 of it then.
SHIFT = tl.constexpr(8)
# A residual is taken for as large as this share of the codebook, and a codebook for that of the residual.
FAR = tl.constexpr(2.0**40)
# Bytes of a row that a few threads read together.
GROUP_BYTES = 64
# Numbers of a tile of words where one row is searched exactly.
EXACT_NUMBERS = 4096
# Codebook gradients: columns of a program, and the fewest rows that are worth one of their own.
SCATTER_COLUMNS, SCATTER_ROWS = 128, 1024
# What float16 adds to an element that is below its normal range.
UNDERFLOW = tl.constexpr(2.0**-25)


@triton.jit
def inverse_power(x):
    """The power of two that brings a positive x to 2**SHIFT or up to twice that, if float32 has it."""
    exponent = (x.to(tl.int32, bitcast=True) >> 23) & 255
    biased = tl.minimum(tl.maximum(254 + SHIFT - exponent, 1), 254)
    return (biased << 23).to(tl.float32, bitcast=True)


@triton.jit
def places_of(GROUPS: tl.constexpr, GROUP: tl.constexpr):
    """Columns of a row in groups, [GROUPS, 1, GROUP].

    Tiles of rows are [GROUPS, rows, GROUP]: a warp then reads a few rows at a time, and a thread has a few
    rows of a tile, not a sixteenth of them, whose codes and scales it would hold in as many registers.
    """
    return tl.arange(0, GROUPS)[:, None, None] * GROUP + tl.arange(0, GROUP)[None, None, :]


@triton.jit
def rows_of(x, rows, inside, stride, columns, D: tl.constexpr, WIDTH: tl.constexpr):
    """Rows of a matrix, or some of their columns, as float32; zero where they are not inside."""
    address = x + (rows * stride)[None, :, None] + columns
    if D == WIDTH:
        return tl.load(address, mask=inside[None, :, None], other=0.0).to(tl.float32)
    else:
        return tl.load(address, mask=inside[None, :, None] & (columns < D), other=0.0).to(tl.float32)


@triton.jit
def sum_of(x):
    """Of each row."""
    return tl.sum(tl.sum(x, 2), 0)


@triton.jit
def largest_of(x):
    """Of each row."""
    return tl.max(tl.max(x, 2), 0)


@triton.jit
def finite(x):
    """Whether each row is."""
    return sum_of(x * 0.0) == 0


@triton.jit(do_not_specialize=["words", "tiles"])
def _extent_kernel(
    codebooks, extents, words, tiles,
    D: tl.constexpr, WIDTH: tl.constexpr, GROUP: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Largest element of the finite words of a tile."""
    stage, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    index = tile * BLOCK_K + tl.arange(0, BLOCK_K)
    book = codebooks + stage.to(tl.int64) * words * D
    word = rows_of(book, index, index < words, D, places_of(WIDTH // GROUP, GROUP), D, WIDTH)
    largest = tl.where(finite(word), largest_of(tl.abs(word)), 0.0)
    tl.store(extents + tl.program_id(0), tl.max(largest, 0))


@triton.jit(do_not_specialize=["words", "tiles"])
def _tables_kernel(
    codebooks, extents, halves, offsets, facts, words, tiles,
    D: tl.constexpr, WIDTH: tl.constexpr, GROUP: tl.constexpr, BLOCK_K: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """A tile of words in float16, half their squares, their largest norm and how far float16 is from them.

    Words are scaled by the power of two that `facts` hold first. Rounding moves a word c by no more than the
    third fact times ‖c‖ plus UNDERFLOW √D.
    """
    stage, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    listed = tl.arange(0, TILES)
    largest = tl.max(tl.load(extents + stage * tiles + listed, mask=listed < tiles, other=0.0), 0)
    scale = inverse_power(largest)
    local, columns = tl.arange(0, BLOCK_K), places_of(WIDTH // GROUP, GROUP)
    index = tile * BLOCK_K + local
    word = rows_of(codebooks + stage * words * D, index, index < words, D, columns, D, WIDTH)
    known = finite(word)
    word = tl.where(known[None, :, None], word * scale, 0.0)
    half = word.to(tl.float16)
    error = word - half.to(tl.float32)
    square = sum_of(word * word)
    norm = tl.sqrt(square)
    moved = tl.sqrt(sum_of(error * error)) - UNDERFLOW * tl.sqrt(D * 1.0)
    place = stage * tiles + tile
    tl.store(halves + ((place * BLOCK_K + local) * WIDTH)[None, :, None] + columns, half)
    tl.store(offsets + place * BLOCK_K + local, tl.where(known & (index < words), square * 0.5, ABSENT))
    tl.store(facts + place * 3, scale)
    tl.store(facts + place * 3 + 1, tl.max(norm, 0))
    tl.store(facts + place * 3 + 2, tl.max(tl.where(moved > 0, moved / norm, 0.0), 0))


@triton.jit
def measure(residual, book_scale):
    """The power of two that scales a row for float16, and the norm of the scaled row."""
    scale = tl.minimum(inverse_power(largest_of(tl.abs(residual))), book_scale * FAR)
    scaled = residual * scale[None, :, None]
    return scale, tl.sqrt(sum_of(scaled * scaled))


@triton.jit
def narrow(residual, scale, sound, WIDTH: tl.constexpr):
    """Scaled rows in float16, zero where not sound, and how far from the rows that is."""
    scaled = tl.where(sound[None, :, None], residual * scale[None, :, None], 0.0)
    half = scaled.to(tl.float16)
    error = scaled - half.to(tl.float32)
    return tl.reshape(tl.permute(half, (1, 0, 2)), (sound.shape[0], WIDTH)), tl.sqrt(sum_of(error * error))


@triton.jit
def square_to(residual, book, code, inside, scale, columns, D: tl.constexpr, WIDTH: tl.constexpr):
    """Σ (r - c)² of each row and its word, scaled."""
    apart = (residual - rows_of(book, code, inside, D, columns, D, WIDTH)) * scale[None, :, None]
    return sum_of(apart * apart)


@triton.jit
def residual_of(
    x,
    codebooks,
    codes,
    rows,
    inside,
    stage,
    stages,
    words,
    x_row,
    columns,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Rows less the words of the stages before, as the unevaluated sum of two floats."""
    book = codebooks
    high = rows_of(x, rows.to(tl.int64), inside, x_row, columns, D, WIDTH)
    low = tl.zeros_like(high)
    for before in range(stage):
        code = tl.load(codes + rows * stages + before, mask=inside, other=0).to(tl.int32)
        word = rows_of(book, code, inside, D, columns, D, WIDTH)
        book += words * D
        less = high - word
        part = less - high
        low += (high - (less - part)) - (word + part)
        high = less + low
        low -= high - less
    return high, low


@triton.jit
def search_exactly(
    high, low, book, book_scale, words, columns, D: tl.constexpr, WIDTH: tl.constexpr, BLOCK_X: tl.constexpr
):
    """The word nearest one row by Σ (r - c)², the lowest among equals."""
    scale, _ = measure(high, book_scale)
    high, low = high * scale[None, :, None], low * scale[None, :, None]
    nearest = words * 0
    least = tl.max(scale, 0) * 0 + INFINITE
    for start in range(0, words, BLOCK_X):
        index = start + tl.arange(0, BLOCK_X)
        word = rows_of(book, index, index < words, D, columns, D, WIDTH)
        apart = (high - word * scale[None, :, None]) + low
        square = sum_of(apart * apart)
        square = tl.where((index < words) & (square == square), square, INFINITE)
        smallest = tl.min(square, 0)
        first = tl.min(tl.where(square == smallest, index, words), 0)
        nearest = tl.where(smallest < least, first, nearest)
        least = tl.minimum(smallest, least)
    return nearest


@triton.jit
def best_of(scores, words, BLOCK_K: tl.constexpr, TILE_BITS: tl.constexpr):
    """Best score of each row and the word in its bits."""
    best = tl.max(scores, 1)
    bits = best.to(tl.int32, bitcast=True)
    word = (bits & ((1 << TILE_BITS) - 1)) * BLOCK_K + ((bits >> TILE_BITS) & (BLOCK_K - 1))
    return best, tl.minimum(word, words - 1)


@triton.jit(do_not_specialize=["count", "stages", "words", "tiles"])
def _residual_kernel(
    x, codebooks, halves, offsets, facts, codes, quantized, count, stages, words, tiles, x_row,
    D: tl.constexpr, WIDTH: tl.constexpr, GROUP: tl.constexpr, TILES: tl.constexpr, TILE_BITS: tl.constexpr,
    INDEX_BITS: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    begin = tl.program_id(0).to(tl.int64) * BLOCK_N
    x += begin * x_row
    codes += begin * stages
    quantized += begin * D
    rows, columns, places = tl.arange(0, BLOCK_N), places_of(WIDTH // GROUP, GROUP), tl.arange(0, BLOCK_K)
    inside = begin + rows < count
    residual = rows_of(x, rows.to(tl.int64), inside, x_row, columns, D, WIDTH)
    whole = finite(residual)
    # by how much rounding has moved the residual, at most, by norm
    drift = tl.zeros([BLOCK_N], tl.float32)
    book = codebooks
    scale, norm = measure(residual, tl.load(facts))
    sound = inside & (norm < INFINITE)
    half, missed = narrow(residual, scale, sound, WIDTH)
    for stage in range(stages):
        listed = (stage * tiles + tl.arange(0, TILES)) * 3
        there = tl.arange(0, TILES) < tiles
        book_scale = tl.load(facts + stage * tiles * 3)
        longest = tl.max(tl.load(facts + listed + 1, mask=there, other=0.0), 0)
        rough = tl.max(tl.load(facts + listed + 2, mask=there, other=0.0), 0)
        # from the row's units to those of the codebook
        factor = tl.minimum(book_scale / scale, FAR)
        best = tl.full([BLOCK_N, BLOCK_K], LOWEST, tl.float32)
        second = tl.full([BLOCK_N, BLOCK_K], LOWEST, tl.float32)
        for tile in range(tiles):
            place = (stage * tiles + tile) * BLOCK_K + places
            address = halves + place.to(tl.int64)[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
            product = tl.dot(half, tl.trans(tl.load(address)), input_precision="ieee")
            score = product * factor[:, None] - tl.load(offsets + place)[None, :]
            if TILE_BITS > 0:
                bits = score.to(tl.int32, bitcast=True) & -(1 << TILE_BITS) | tile
                score = bits.to(tl.float32, bitcast=True)
            second = tl.maximum(second, tl.minimum(best, score))
            best = tl.maximum(best, score)
        bits = best.to(tl.int32, bitcast=True) & (-(1 << INDEX_BITS) | ((1 << TILE_BITS) - 1))
        best = (bits | (places << TILE_BITS)[None, :]).to(tl.float32, bitcast=True)
        score, code = best_of(best, words, BLOCK_K, TILE_BITS)
        # what a score errs by; words longer than `reach` are farther than the best, whatever theirs errs by
        lost = drift * scale
        length = norm * factor
        rate = (missed + lost + norm * (rough + (D + 16) * 2.0 * ROUNDING)) * factor + length * (8 * ROUNDING)
        constant = length * (UNDERFLOW * tl.sqrt(D * 1.0))
        reach = longest
        for _ in tl.static_range(2):
            errs = rate * reach + constant + reach * reach * (8 * ROUNDING)
            reach = length + tl.sqrt(tl.maximum(length * length - 2 * score + 2.1 * errs, 0.0))
            reach = tl.minimum(longest, reach * 1.001)
        errs = rate * reach + constant + reach * reach * (8 * ROUNDING)
        threshold = score - 2.1 * errs - tl.abs(score) * ((1 << INDEX_BITS) * 4.0 * ROUNDING)
        threshold = tl.where(sound, threshold, INFINITE)
        doubtful = tl.max(second, 1) >= threshold
        threshold = tl.where(doubtful, INFINITE, threshold)
        code = tl.where(sound, code, 0)
        best = tl.where(best == score[:, None], LOWEST, best)
        score, other = best_of(best, words, BLOCK_K, TILE_BITS)
        close = score >= threshold
        square = square_to(residual, book, code, close, scale, columns, D, WIDTH)
        while tl.max(close.to(tl.int32), 0) > 0:
            other_square = square_to(residual, book, other, close, scale, columns, D, WIDTH)
            unclear = tl.abs(square - other_square) < 2.1 * lost * (tl.sqrt(square) + tl.sqrt(other_square))
            # of equals, no two words that differ have the same norm, too
            half_square = tl.load(offsets + stage * tiles * BLOCK_K + code)
            other_half = tl.load(offsets + stage * tiles * BLOCK_K + other)
            unclear = close & unclear & ((square != other_square) | (half_square != other_half))
            better = close & ((other_square < square) | ((other_square == square) & (other < code)))
            code = tl.where(better, other, code)
            square = tl.where(better, other_square, square)
            doubtful = doubtful | unclear
            threshold = tl.where(unclear, INFINITE, threshold)
            best = tl.where(best == score[:, None], LOWEST, best)
            score, other = best_of(best, words, BLOCK_K, TILE_BITS)
            close = score >= threshold
        for _ in range(tl.sum(doubtful.to(tl.int32), 0)):
            place = tl.min(tl.where(doubtful, rows, BLOCK_N), 0)
            row = place + tl.zeros([1], tl.int32)
            high, low = residual_of(
                x, codebooks, codes, row, row < BLOCK_N, stage, stages, words, x_row, columns, D, WIDTH
            )
            found = search_exactly(high, low, book, book_scale, words, columns, D, WIDTH, BLOCK_X)
            code = tl.where(rows == place, found, code)
            doubtful = doubtful & (rows != place)
        tl.store(codes + rows * stages + stage, code.to(tl.int64), mask=inside)
        # other threads of the program read them
        tl.debug_barrier()
        residual -= rows_of(book, code, inside, D, columns, D, WIDTH)
        book += words * D
        # of the next stage; after the last that of the last, for nothing
        following = tl.minimum(stage + 1, stages - 1)
        book_scale = tl.load(facts + following * tiles * 3)
        scale, norm = measure(residual, book_scale)
        drift += norm * ROUNDING / scale
        sound = inside & (norm < INFINITE)
        sunk = sound & (drift * scale > norm * LOST) & (stage + 1 < stages)
        if tl.max(sunk.to(tl.int32), 0) > 0:
            for group in range(WIDTH // GROUP):
                part = group * GROUP + tl.arange(0, GROUP)[None, None, :]
                high, low = residual_of(
                    x, codebooks, codes, rows, inside, stage + 1, stages, words, x_row, part, D, WIDTH
                )
                residual = tl.where(columns // GROUP == group, high, residual)
            scale, norm = measure(residual, book_scale)
            drift = norm * ROUNDING / scale
        half, missed = narrow(residual, scale, sound, WIDTH)
    total = tl.zeros_like(residual)
    book = codebooks
    for stage in range(stages):
        chosen = tl.load(codes + rows * stages + stage, mask=inside, other=0).to(tl.int32)
        total += rows_of(book, chosen, inside, D, columns, D, WIDTH)
        book += words * D
    total = tl.where(whole[None, :, None], total, float("nan")).to(quantized.dtype.element_ty)
    tl.store(
        quantized + (rows * D)[None, :, None] + columns, total, mask=inside[None, :, None] & (columns < D)
    )


@triton.jit(do_not_specialize=["count", "chunk", "stages", "words", "tiles"])
def _scatter_kernel(
    grad, codes, parts, count, chunk, stages, words, tiles, grad_row,
    D: tl.constexpr, BLOCK_D: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Sum of the gradient rows of each word of a tile, over one part of the rows."""
    blocks: tl.constexpr = (D + BLOCK_D - 1) // BLOCK_D
    stage = tl.program_id(0) // (tiles * blocks)
    tile = tl.program_id(0) // blocks % tiles
    columns = tl.program_id(0) % blocks * BLOCK_D + tl.arange(0, BLOCK_D)
    index = tile * BLOCK_K + tl.arange(0, BLOCK_K)
    part = tl.program_id(1).to(tl.int64)
    total = tl.zeros([BLOCK_K, BLOCK_D], tl.float32)
    for start in range(part * chunk, tl.minimum(part * chunk + chunk, count), BLOCK_N):
        rows = tl.arange(0, BLOCK_N).to(tl.int64) + start
        inside = rows < count
        code = tl.load(codes + rows * stages + stage, mask=inside, other=-1).to(tl.int32)
        value = tl.load(
            grad + rows[:, None] * grad_row + columns[None, :],
            mask=inside[:, None] & (columns < D)[None, :], other=0.0,
        )  # fmt: skip
        chosen = (code[None, :] == index[:, None]).to(DOT)
        total = tl.dot(chosen, value.to(DOT), total, input_precision=PRECISION)
    address = ((part * stages + stage) * words + index)[:, None] * D + columns[None, :]
    tl.store(parts + address, total, mask=(index < words)[:, None] & (columns < D)[None, :])


@triton.jit
def dense_words(x, rows, inside, stride, columns, D: tl.constexpr):
    """Rows of a matrix as float32, [rows, columns]."""
    address = x + (rows * stride)[:, None] + columns[None, :]
    return tl.load(address, mask=inside[:, None] & (columns < D)[None, :], other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["words"])
def _nearest_kernel(
    x, codebooks, codes, distances, words, x_row, book_stage, book_row,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The nearest word of a row's own codebook. Differences are scaled by a power of two, tile by tile."""
    number = tl.program_id(0).to(tl.int64)
    columns, one = tl.arange(0, BLOCK_D), tl.zeros([1], tl.int64)
    row = dense_words(x + number * x_row, one, one == 0, x_row, columns, D)
    book = codebooks + number * book_stage
    nearest, least, least_scale = one, tl.full([1], INFINITE, tl.float32), tl.full([1], 1.0, tl.float32)
    for start in range(0, words, BLOCK_K):
        index = start + tl.arange(0, BLOCK_K)
        apart = row - dense_words(book, index.to(tl.int64), index < words, book_row, columns, D)
        known = (index < words) & (tl.sum(apart * 0.0, 1) == 0)
        # by the nearest word's largest difference, so that its square is a number whatever the others are
        largest = tl.min(tl.where(known, tl.max(tl.abs(apart), 1), INFINITE), 0, keep_dims=True)
        scale = inverse_power(largest)
        apart *= scale[:, None]
        square = tl.where(known, tl.sum(apart * apart, 1), INFINITE)
        smallest = tl.min(square, 0, keep_dims=True)
        first = tl.min(tl.where(square == smallest, index, words), 0, keep_dims=True)
        ratio = least_scale / scale
        better = (smallest * ratio * ratio < least) | ((least == INFINITE) & (smallest < INFINITE))
        nearest = tl.where(better, first, nearest)
        least = tl.where(better, smallest, least)
        least_scale = tl.where(better, scale, least_scale)
    apart = (row - dense_words(book, nearest, one == 0, book_row, columns, D)) * least_scale[:, None]
    tl.store(codes + number + one, nearest)
    tl.store(distances + number + one, tl.sum(apart * apart, 1) / least_scale / least_scale)


def dense_rows(x: Tensor) -> Tensor:
    """The tensor itself where the elements of a row lie side by side, else a copy."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def forward(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and their sum; as `cpu.quantize.residual_quantize`."""
    x, codebooks = dense_rows(x), codebooks.contiguous()
    (count, dim), (stages, words, _) = x.shape, codebooks.shape
    chosen: Setting = dict(setting("quantize_residual", dim, x.dtype, x.device))
    tile, width = chosen["BLOCK_K"], power_of_two(dim)
    tiles = triton.cdiv(words, tile)
    bits = (tiles - 1).bit_length()

    def room(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=x.device)

    codes, quantized = room(count, stages, dtype=torch.int64), room(count, dim, dtype=x.dtype)
    halves, offsets = room(stages, tiles * tile, width, dtype=torch.float16), room(stages, tiles * tile)
    extents, facts = room(stages, tiles), room(stages, tiles, 3)
    # 512 bytes a warp, of no more rows than it has
    group = max(GROUP_BYTES, 512 * chosen["num_warps"] // chosen["BLOCK_N"]) // x.element_size()
    shape = {"D": dim, "WIDTH": width, "GROUP": min(width, group)}
    preparing = setting("quantize_tables", dim, codebooks.dtype, x.device)
    grid, listed = (stages * tiles,), triton.next_power_of_2(tiles)
    tables = (halves, offsets, facts)
    launch(_extent_kernel, grid, codebooks, extents, words, tiles, BLOCK_K=tile, **shape, **preparing)
    launch(
        _tables_kernel, grid, codebooks, extents, *tables, words, tiles,
        BLOCK_K=tile, TILES=listed, **shape, **preparing,
    )  # fmt: skip
    # looked up once more: the tuner takes a launch to be of the setting asked for last
    chosen = dict(setting("quantize_residual", dim, x.dtype, x.device))
    launch(
        _residual_kernel,
        (triton.cdiv(count, chosen["BLOCK_N"]),),
        x,
        codebooks,
        *tables,
        codes,
        quantized,
        count,
        stages,
        words,
        tiles,
        x.stride(0),
        TILES=listed,
        TILE_BITS=bits,
        INDEX_BITS=bits + (tile - 1).bit_length(),
        BLOCK_X=max(16, EXACT_NUMBERS // width),
        **shape,
        **chosen,
    )
    return codes, quantized


def backward(grad: Tensor, codes: Tensor, words: int) -> Tensor:
    """Gradient of the codebooks in float32; as `cpu.quantize.scatter`."""
    grad, codes = dense_rows(grad), codes.contiguous()
    (count, dim), stages = grad.shape, codes.shape[1]
    chosen: Setting = dict(setting("quantize_scatter", dim, grad.dtype, grad.device))
    block = min(power_of_two(dim), SCATTER_COLUMNS)
    tiles = triton.cdiv(words, chosen["BLOCK_K"])
    programs = stages * tiles * triton.cdiv(dim, block)
    splits = max(1, min(triton.cdiv(2 * processors(grad.device), programs), triton.cdiv(count, SCATTER_ROWS)))
    chunk = max(1, triton.cdiv(triton.cdiv(count, splits), chosen["BLOCK_N"])) * chosen["BLOCK_N"]
    parts = torch.empty(splits, stages, words, dim, dtype=torch.float32, device=grad.device)
    launch(
        _scatter_kernel,
        (programs, splits),
        grad,
        codes,
        parts,
        count,
        chunk,
        stages,
        words,
        tiles,
        grad.stride(0),
        D=dim,
        BLOCK_D=block,
        DOT=dot_dtype(grad.dtype),
        PRECISION=dot_precision(grad.dtype),
        **chosen,
    )
    return parts.sum(0) if splits > 1 else parts[0]


def nearest(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and squared distances; as `cpu.quantize.nearest_codeword`."""
    x, codebooks = dense_rows(x), dense_rows(codebooks)
    (count, dim), words = x.shape, codebooks.shape[1]
    chosen: Setting = dict(setting("quantize_nearest", dim, codebooks.dtype, x.device))
    block = power_of_two(dim)
    codes = torch.empty(count, dtype=torch.int64, device=x.device)
    distances = torch.empty(count, dtype=torch.float32, device=x.device)
    tile = min(power_of_two(words, 1), chosen.pop("NUMBERS") // block)
    launch(
        _nearest_kernel,
        (count,),
        x,
        codebooks,
        codes,
        distances,
        words,
        x.stride(0),
        codebooks.stride(0),
        codebooks.stride(1),
        D=dim,
        BLOCK_D=block,
        BLOCK_K=tile,
        **chosen,
    )
    return codes, distances


CANDIDATES: dict[str, list[Setting]] = {
    "quantize_residual": [
        {"BLOCK_N": rows, "BLOCK_K": words, "num_warps": warps, "num_stages": stages}
        for rows in (32, 64, 128)
        for words in (32, 64, 128)
        for warps in (4, 8)
        for stages in (2, 3)
    ],
    "quantize_tables": [{"num_warps": warps, "num_stages": 1} for warps in (4, 8)],
    "quantize_scatter": [
        {"BLOCK_N": rows, "BLOCK_K": words, "num_warps": warps, "num_stages": stages}
        for rows in (32, 64)
        for words in (64, 128)
        for warps in (4, 8)
        for stages in (2, 3)
    ],
    "quantize_nearest": [
        {"NUMBERS": numbers, "num_warps": warps, "num_stages": stages}
        for numbers in (4096, 8192, 16384)
        for warps in (4, 8)
        for stages in (1, 2)
    ],
}


def cases() -> Iterator[Case]:
    """Every width and dtype there is a setting for, with several tiles of codewords."""

    def case(dim: int, dtype: torch.dtype, count: int, stages: int, words: int) -> Case:
        def run(device: torch.device) -> None:
            x = torch.empty(count, dim, dtype=dtype, device=device).normal_()
            codebooks = torch.empty(stages, words, dim, dtype=dtype, device=device).normal_()
            codes, quantized = forward(x, codebooks)
            backward(quantized, codes, words)
            own = torch.empty(count // 16, 64, dim, dtype=dtype, device=device).normal_()
            nearest(x[: count // 16], own)

        return Case("residual_quantize", dim, dtype, run)

    for dim in (25, 64, 128, 256, 512):
        for dtype in (torch.bfloat16, torch.float32):
            yield case(dim, dtype, 65_536, 4, 1024)
