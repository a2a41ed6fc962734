"""Plain and residual vector quantization, trained by moving averages or by gradient.

Moving averages: van den Oord et al. 2017, appendix A.1; residual stages: Zeghidour et al. 2021, SoundStream.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bioreport.quantizers.averages import fallen_out, fresh_share, some_rows, step_sizes
from bioreport.quantizers.kmeans import centroids, residual_kmeans
from bioreport.quantizers.output import Quantized, straight_through
from bioreport_kernels import residual_quantize


class ResidualQuantizer(nn.Module):
    """A vector is the sum of one codeword of each stage; every stage quantizes what those before it left.

    Parameters
    ----------
    dim : int
        D, width of the vectors.
    codewords : int
        K, codewords of a stage.
    stages : int
        L.
    learning : {"average", "gradient"}
        Codewords follow moving averages of the vectors that chose them, or a loss: the squared error after
        every stage.
    decay : float
        Of the moving averages.
    commitment : float
        Weight of ‖z − sg(ẑ)‖², which keeps the encoder near its codewords.
    least_used : float
        A codeword of which the moving average of choices falls below this share of an even one is reset to
        a vector of the batch, in training.

    The first batch in training starts the codewords by k-means, stage by stage.
    """

    started: Tensor
    chosen: Tensor

    def __init__(
        self,
        dim: int,
        codewords: int,
        stages: int,
        *,
        learning: Literal["average", "gradient"] = "average",
        decay: float = 0.99,
        commitment: float = 0.25,
        least_used: float = 0.05,
    ) -> None:
        super().__init__()
        if learning not in ("average", "gradient"):
            raise ValueError(f"learning must be 'average' or 'gradient', got {learning!r}")
        self.learning, self.decay, self.commitment, self.least_used = learning, decay, commitment, least_used
        self.codebooks = nn.Parameter(
            torch.randn(stages, codewords, dim), requires_grad=learning == "gradient"
        )
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))
        # moving averages: share of choices of each codeword
        self.register_buffer("chosen", torch.full((stages, codewords), fresh_share(codewords, least_used)))

    def forward(self, z: Tensor) -> Quantized:
        """Quantize vectors [..., D]; in training also learn from them."""
        rows = z.detach().reshape(-1, z.shape[-1]).to(self.codebooks.dtype)
        if self.training and not self.started and len(rows):
            with torch.no_grad():
                self.codebooks.copy_(residual_kmeans(rows, *self.codebooks.shape[:2]))
                self.started.fill_(True)
        codes, quantized = residual_quantize(rows, self.codebooks.detach())
        loss = self.commitment * F.mse_loss(z, quantized.view_as(z).to(z.dtype))
        if self.training and len(rows):
            if self.learning == "gradient":
                loss = loss + self._codeword_loss(rows, codes)
            self._learn(rows, codes)
        return Quantized(
            straight_through(z, quantized.view_as(z).to(z.dtype)), codes.view(*z.shape[:-1], -1), loss
        )

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors [..., D] of codes [..., L]: bit for bit what `forward` gave with them in float32."""
        vectors = self.codebooks[0][codes[..., 0]]
        for stage in range(1, len(self.codebooks)):
            vectors = vectors + self.codebooks[stage][codes[..., stage]]
        return vectors

    def _codeword_loss(self, rows: Tensor, codes: Tensor) -> Tensor:
        losses, estimate = [], torch.zeros_like(rows)
        for stage in range(len(self.codebooks)):
            estimate = estimate + self.codebooks[stage][codes[:, stage]]
            losses.append(F.mse_loss(estimate, rows))
        return torch.stack(losses).sum()

    @torch.no_grad()
    def _learn(self, rows: Tensor, codes: Tensor) -> None:
        rest = rows
        for stage, (book, chosen) in enumerate(zip(self.codebooks, self.chosen, strict=True)):
            means, members = centroids(rest, codes[:, stage], len(book), book)
            share = members / len(rows)
            if self.learning == "average":
                book.lerp_(means, step_sizes(chosen, share, self.decay)[:, None])
            # by the codewords as they are now: else every stage would mend the same error again
            left = rest - book[codes[:, stage]]
            lost = fallen_out(chosen, share, self.decay, self.least_used)
            book[lost] = rest[some_rows(len(lost), rest)]
            rest = left


class VectorQuantizer(ResidualQuantizer):
    """One codebook: `ResidualQuantizer` with one stage."""

    def __init__(
        self,
        dim: int,
        codewords: int,
        *,
        learning: Literal["average", "gradient"] = "average",
        decay: float = 0.99,
        commitment: float = 0.25,
        least_used: float = 0.05,
    ) -> None:
        super().__init__(
            dim, codewords, 1, learning=learning, decay=decay, commitment=commitment, least_used=least_used
        )
