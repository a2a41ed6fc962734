"""Residual quantization and the batched argmin in PyTorch alone: rows in chunks that stay in the cache.

A stage's search is one float32 product, r·c - ½‖c‖² for every word c. The word's index goes into the lowest
bits of its score, so that one vectorised maximum finds both; the maximum of what is left tells how clear the
choice was. Where it is not provably that of exact arithmetic, the words within the margin are compared by
their distances in float64, of a residual made anew from the row and its codes.

The margin holds for any order of summation. With u = 2⁻²⁴ the score of a row r and a word c errs by less than
(D + 8) u ‖r‖ ‖c‖ + u ‖c‖² + drift ‖c‖, where drift is what rounding has moved the residual by: u ‖r‖ a stage.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from bioreport_kernels.cpu.implicit import keep_memory
from bioreport_kernels.reference import accumulation_dtype

# Numbers in a chunk's residual or in its scores, a thread: both, and the words picked, fit in the L2 cache.
CHUNK_NUMBERS = 1 << 17
# Codewords whose scores are held at once.
TILE_WORDS = 256
# Scores of doubtful rows, and their differences to words in float64, that are held at once.
DOUBTFUL_SCORES, DOUBTFUL_NUMBERS = 1 << 21, 1 << 18
# In the place of -inf, which would be NaN with an index in its bits.
LOWEST = -3e38
ROUNDING = 2.0**-24
# Norms, words and scores so small that products underflow, and norms so large that they overflow.
SMALL_NORM, SMALL_WORD, SMALL_SCORE, LARGE_NORM = 2.0**-55, 2.0**-90, 2.0**-100, 2.0**62


class Codebook(NamedTuple):
    """One stage's codewords as they are searched, as they are summed, and exactly."""

    searched: Tensor  # [K, D] float32, zero where a word is not finite
    offset: Tensor  # [K] float32, -½‖c‖²
    words: Tensor  # [K, D] in the dtype of sums
    exact: Tensor  # [K, D] float64
    longest: float  # largest norm
    rounding: float  # of a product, relative to both norms

    @classmethod
    def of(cls, codebook: Tensor, dtype: torch.dtype) -> "Codebook":
        exact = codebook.double()
        finite = exact.isfinite().all(1)
        known = exact.masked_fill(~finite[:, None], 0)
        squares = known.square().sum(1)
        offset = (squares * -0.5).masked_fill_(~finite, LOWEST).clamp_(min=LOWEST)
        rounding = (exact.shape[1] + 8) * ROUNDING
        precision = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
        if precision not in ("none", "ieee"):
            # set_float32_matmul_precision lets products be of bfloat16
            rounding += 2.0**-7
        longest = math.sqrt(float(squares.max()))
        return cls(known.float(), offset.float(), codebook.to(dtype).contiguous(), exact, longest, rounding)

    def scores(self, rows: Tensor, words: slice = slice(None)) -> Tensor:
        """r·c - ½‖c‖² of float32 rows and some words."""
        searched, offset = self.searched[words], self.offset[words]
        if rows.device.type == "cpu" and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
            # twice as fast as MKL, which addmm takes, where the processor is not Intel's
            return torch.ops.mkldnn._linear_pointwise(rows, searched, offset, "none", [], "")
        with torch.autocast(rows.device.type, enabled=False):
            return torch.addmm(offset, rows, searched.T)

    def two_best(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, float]:
        """Best score, its word, the second best, and what the index takes from them, relative to the best."""
        count = len(self.words)
        tile = min(count, TILE_WORDS)
        mask = (1 << (tile - 1).bit_length()) - 1
        index = torch.arange(tile, dtype=torch.int32, device=rows.device)
        lowest = torch.full((len(rows), 1), LOWEST, device=rows.device)
        found: tuple[Tensor, Tensor, Tensor] | None = None
        for start in range(0, count, tile):
            scores = self.scores(rows, slice(start, start + tile))
            scores.view(torch.int32).bitwise_and_(~mask).bitwise_or_(index[: scores.shape[1]])
            best = scores.amax(1)
            # a NaN's bits may be any
            word = best.view(torch.int32).bitwise_and(mask).clamp_(max=scores.shape[1] - 1).long()
            second = scores.scatter_(1, word.unsqueeze(1), lowest).amax(1)
            if found is not None:
                other, other_word, other_second = found
                second = torch.maximum(torch.minimum(best, other), torch.maximum(second, other_second))
                word = torch.where(best > other, word + start, other_word)
                best = torch.maximum(best, other)
            found = best, word, second
        assert found is not None
        return *found, (mask + 1) * 4 * ROUNDING


def residual_quantize(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    """`bioreport_kernels.residual_quantize` of valid arguments."""
    (count, dim), (stages, words, _) = x.shape, codebooks.shape
    wide = accumulation_dtype(torch.promote_types(x.dtype, codebooks.dtype))
    codes = torch.empty(count, stages, dtype=torch.int64, device=x.device)
    quantized = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    books = [Codebook.of(codebook, wide) for codebook in codebooks]
    keep_memory(x.device)
    together = CHUNK_NUMBERS * torch.get_num_threads() // max(dim, min(words, TILE_WORDS))
    together = max(1, min(together, count))
    room = torch.empty(together, dim, dtype=torch.float32, device=x.device)
    picked, total = torch.empty(2, together, dim, dtype=wide, device=x.device).unbind()
    for start in range(0, count, together):
        some, size = slice(start, start + together), min(together, count - start)
        chunk = Chunk(x[some], books, room[:size])
        if x.dtype == wide:
            chunk.quantize(picked[:size], quantized[some])
        else:
            quantized[some] = chunk.quantize(picked[:size], total[:size])
        codes[some] = chunk.codes.T
    return codes, quantized


class Chunk:
    """Rows that are quantized together, with their residual before the stage that is at work."""

    def __init__(self, x: Tensor, books: list[Codebook], room: Tensor) -> None:
        self.x, self.books, self.room = x, books, room
        narrow = x.dtype == torch.float32 and x.is_contiguous()
        self.residual = x if narrow else room.copy_(x)
        self.drift = room.new_zeros(len(x))
        self.codes = torch.empty(len(books), len(x), dtype=torch.int64, device=x.device)

    def quantize(self, picked: Tensor, total: Tensor) -> Tensor:
        """Fill the codes [L, N] and the total, the sum of the words in the order of the stages."""
        finite = True
        for stage, book in enumerate(self.books):
            norm = torch.linalg.vector_norm(self.residual, dim=1)
            if stage == 0:
                finite = math.isfinite(float(norm.sum()))
            if stage or self.x.dtype == torch.float64:
                self.drift.add_(norm, alpha=ROUNDING)
            code = self.codes[stage] = self.search(stage, norm)
            words = torch.index_select(book.words, 0, code, out=picked if stage else total)
            if stage:
                total.add_(words)
            if stage + 1 < len(self.books):
                self.residual = torch.sub(self.residual, words, out=self.room)
        if not finite:
            # no word is nearest to a row that is not finite
            total.add_((self.x - self.x).sum(1, keepdim=True))
        return total

    def search(self, stage: int, norm: Tensor, renew: bool = True) -> Tensor:
        """Codes of a stage."""
        book = self.books[stage]
        best, code, second, packing = book.two_best(self.residual)
        rate = 2 * book.rounding * (book.longest + SMALL_WORD)
        margin = (norm * rate).add_(self.drift, alpha=2 * book.longest).add_(best.abs(), alpha=packing)
        clearance = best.sub_(second).sub_(margin)
        needed = rate * SMALL_NORM + book.longest**2 * (2 * ROUNDING) + SMALL_SCORE
        if book.longest > LARGE_NORM:
            needed = math.inf
        if float(clearance.min()) > needed:
            return code
        doubtful = (~(clearance > needed)).nonzero().squeeze(1)
        if stage and renew and len(doubtful) * 8 > len(code):
            # deep residuals: most of the margin may be what rounding took from them
            self.residual = self.room.copy_(self.exactly(stage, slice(None)))
            norm = torch.linalg.vector_norm(self.residual, dim=1)
            torch.mul(norm, ROUNDING, out=self.drift)
            return self.search(stage, norm, renew=False)
        for rows in doubtful.split(max(1, DOUBTFUL_SCORES // len(book.words))):
            code[rows] = self.compare(stage, rows)
        return code

    def exactly(self, stage: int, rows: Tensor | slice) -> Tensor:
        """Residuals before a stage in float64."""
        residual, codes = self.x[rows].double(), self.codes[:, rows]
        for before, book in enumerate(self.books[:stage]):
            residual = residual - book.exact[codes[before]]
        return residual

    def compare(self, stage: int, rows: Tensor) -> Tensor:
        """Codes of doubtful rows: float64 distances of the words whose scores come near the best."""
        book, residual = self.books[stage], self.exactly(stage, rows)
        if len(rows) * book.exact.numel() <= DOUBTFUL_NUMBERS:
            squares = (residual[:, None] - book.exact).square_().sum(2)
            return squares.nan_to_num_(nan=math.inf, posinf=math.inf).argmin(1)
        scores = book.scores(residual.float())
        best, norm = scores.amax(1), torch.linalg.vector_norm(residual, dim=1)

        def margin(longest: Tensor | float) -> Tensor:
            rate = 2 * book.rounding * (longest + SMALL_WORD)
            return (norm + SMALL_NORM) * rate + longest**2 * (2 * ROUNDING) + SMALL_SCORE

        # no word nearer than the best is longer than this, however long the longest
        reach = norm + (norm.square() - 2 * best + margin(book.longest)).clamp(min=0).sqrt()
        least = best - margin(reach.clamp(max=book.longest))
        least.masked_fill_((norm > LARGE_NORM) | (book.longest > LARGE_NORM), -math.inf)
        row, word = (~(scores < least[:, None])).nonzero().unbind(1)
        squares = torch.empty(len(row), dtype=torch.float64, device=row.device)
        step = max(1, DOUBTFUL_NUMBERS // residual.shape[1])
        for part in range(0, len(row), step):
            pair = slice(part, part + step)
            squares[pair] = (residual[row[pair]] - book.exact[word[pair]]).square().sum(1)
        squares.nan_to_num_(nan=math.inf, posinf=math.inf)
        smallest = squares.new_full((len(rows),), math.inf).scatter_reduce_(0, row, squares, "amin")
        nearest = word.masked_fill(squares > smallest[row], len(book.words))
        return word.new_full((len(rows),), len(book.words)).scatter_reduce_(0, row, nearest, "amin")


def residual_quantize_backward(grad: Tensor, codes: Tensor, words: int) -> Tensor:
    """Gradient of the codebooks [L, K, D]: of each word the sum of the gradients of rows that chose it."""
    shape = codes.shape[1], words, grad.shape[1]
    grad = grad.to(accumulation_dtype(grad.dtype))
    codebooks = torch.zeros(shape, dtype=grad.dtype, device=grad.device)
    for stage, code in enumerate(codes.T):
        codebooks[stage].index_add_(0, code, grad)
    return codebooks


def nearest_codeword(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    """`bioreport_kernels.nearest_codeword` of valid arguments."""
    count, words, dim = codebooks.shape
    wide = accumulation_dtype(torch.promote_types(x.dtype, codebooks.dtype))
    codes = torch.empty(count, dtype=torch.int64, device=x.device)
    distances = torch.empty(count, dtype=wide, device=x.device)
    keep_memory(x.device)
    together = max(1, min(count, CHUNK_NUMBERS * torch.get_num_threads() // (words * dim)))
    difference = torch.empty(together, words, dim, dtype=wide, device=x.device)
    # of two distances, relative
    rounding = (dim + 8) * ROUNDING
    for start in range(0, count, together):
        some = slice(start, start + together)
        row, book = x[some].to(wide).contiguous(), codebooks[some]
        near = difference[: len(row)]
        if book.dtype == wide:
            torch.sub(book, row[:, None], out=near)
        else:
            near.copy_(book).sub_(row[:, None])
        norm = torch.linalg.vector_norm(near, dim=2)
        best, code = norm.min(1)
        second = norm.scatter_(1, code[:, None], math.inf).amin(1)
        # squares that overflow or underflow are compared exactly, too; also false of NaN
        clear = (second > best * (1 + rounding)) & (best > SMALL_NORM) & (best < 1 / SMALL_NORM)
        if not bool(clear.all()):
            doubtful = (~clear).nonzero().squeeze(1)
            for rows in doubtful.split(max(1, DOUBTFUL_NUMBERS // (words * dim))):
                squares = (row[rows, None].double() - book[rows].double()).square().sum(2)
                code[rows] = squares.nan_to_num_(nan=math.inf, posinf=math.inf).argmin(1)
        codes[some] = code
        chosen = book[torch.arange(len(row), device=x.device), code].to(wide).contiguous()
        distances[some] = (row - chosen).square().sum(1)
    return codes, distances
