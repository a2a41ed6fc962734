"""QINCo: each stage's codewords depend on what the stages before it chose (Huijben et al. 2024)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bioreport.quantizers.averages import fallen_out, fresh_share, some_rows, step_sizes
from bioreport.quantizers.kmeans import centroids, residual_kmeans
from bioreport.quantizers.output import Quantized, straight_through
from bioreport_kernels import ImplicitWeights, implicit_decode, implicit_quantize
from bioreport_kernels.reference.implicit import implicit_codewords

PLACING_STEPS = 3


class QincoQuantizer(nn.Module):
    """Residual quantization with implicit codebooks, of QINCo's first form.

    Parameters
    ----------
    dim, codewords, stages : int
        D, K, and L stages; the first has a plain codebook.
    blocks : int
        Residual blocks in a stage's network.
    hidden : int
        Width inside a block.
    learning : {"average", "gradient"}
        Codewords follow moving averages: each moves by the mean of what its vectors still miss after its
        stage, which is `ResidualQuantizer`'s rule where the networks are the identity. Or they learn by the
        loss, as published; that suits vectors that stay as they are. Behind an encoder that still learns,
        steps of a fixed size leave the codewords behind and few of them in use.
    commitment : float
        Weight of ‖z − sg(ẑ)‖².
    least_used, decay : float
        As in `ResidualQuantizer`.

    Codewords start from k-means of the first batch in training. The networks start as the identity on
    codewords (concatenation and last layers zero, as in QINCo2, Vallaeys et al. 2025), so that training sets
    out from plain residual quantization. Codes are found without gradient; then the networks of the chosen
    codewords are differentiated: the loss is the squared error after every stage, summed.
    """

    started: Tensor
    chosen: Tensor

    def __init__(
        self,
        dim: int,
        codewords: int,
        stages: int,
        *,
        blocks: int = 2,
        hidden: int = 256,
        learning: Literal["average", "gradient"] = "average",
        commitment: float = 0.25,
        decay: float = 0.99,
        least_used: float = 0.05,
    ) -> None:
        super().__init__()
        if learning not in ("average", "gradient"):
            raise ValueError(f"learning must be 'average' or 'gradient', got {learning!r}")
        later, by_gradient = stages - 1, learning == "gradient"
        self.learning = learning
        self.commitment, self.decay, self.least_used = commitment, decay, least_used
        self.first = nn.Parameter(torch.randn(codewords, dim), requires_grad=by_gradient)
        self.codebooks = nn.Parameter(torch.randn(later, codewords, dim), requires_grad=by_gradient)
        self.concat = nn.Parameter(torch.zeros(later, dim, 2 * dim))
        self.bias = nn.Parameter(torch.zeros(later, dim))
        self.up = nn.Parameter(torch.randn(later, blocks, hidden, dim) * (2 / dim) ** 0.5)
        self.down = nn.Parameter(torch.zeros(later, blocks, dim, hidden))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))
        self.register_buffer("chosen", torch.full((stages, codewords), fresh_share(codewords, least_used)))

    @property
    def weights(self) -> ImplicitWeights:
        """The parameters, as the operators take them."""
        return ImplicitWeights(self.first, self.codebooks, self.concat, self.bias, self.up, self.down)

    def forward(self, z: Tensor) -> Quantized:
        """Quantize vectors [..., D]; in training also prepare what its loss teaches."""
        rows = z.detach().reshape(-1, z.shape[-1]).to(self.first.dtype)
        if self.training and not self.started and len(rows):
            with torch.no_grad():
                books = residual_kmeans(rows, len(self.codebooks) + 1, len(self.first))
                self.first.copy_(books[0])
                self.codebooks.copy_(books[1:])
                self.started.fill_(True)
        with torch.no_grad():
            codes, quantized = implicit_quantize(rows, self.weights)
        vectors = quantized.view_as(z).to(z.dtype)
        loss = self.commitment * F.mse_loss(z, vectors)
        if self.training and len(rows):
            loss = loss + self._stage_loss(rows, codes)
            self._learn(rows, codes)
        return Quantized(straight_through(z, vectors), codes.view(*z.shape[:-1], -1), loss)

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors [..., D] of codes [..., L]: bit for bit what `forward` gave with them in float32."""
        return implicit_decode(codes.reshape(-1, codes.shape[-1]), self.weights).view(*codes.shape[:-1], -1)

    def _stage_loss(self, rows: Tensor, codes: Tensor) -> Tensor:
        return torch.stack([F.mse_loss(estimate, rows) for estimate in self._estimates(codes)]).sum()

    def _estimates(self, codes: Tensor) -> list[Tensor]:
        """What is known of the vectors [N, D] after each stage."""
        estimates = [self.first[codes[:, 0]]]
        for stage in range(1, codes.shape[1]):
            estimates.append(estimates[-1] + self._step(stage, codes[:, stage], estimates[-1]))
        return estimates

    def _step(self, stage: int, codes: Tensor, estimate: Tensor) -> Tensor:
        """Codewords [N, D] of a stage after the `estimate` of those before it."""
        if stage == 0:
            return self.first[codes]
        return implicit_codewords(self.weights, stage - 1, codes, estimate)

    @torch.no_grad()
    def _learn(self, rows: Tensor, codes: Tensor) -> None:
        known = torch.zeros_like(rows)
        for stage, (book, chosen) in enumerate(zip((self.first, *self.codebooks), self.chosen, strict=True)):
            taken = codes[:, stage]
            left = rows - known - self._step(stage, taken, known)
            missed, members = centroids(left, taken, len(book), torch.zeros_like(book))
            share = members / len(rows)
            if self.learning == "average":
                book.add_(missed * step_sizes(chosen, share, self.decay)[:, None])
            # by the codewords as they are now: else every stage would mend the same error again
            before, known = known, known + self._step(stage, taken, known)
            lost = fallen_out(chosen, share, self.decay, self.least_used)
            some = some_rows(len(lost), rows)
            self._place(stage, book, lost, before[some], rows[some])

    def _place(self, stage: int, book: Tensor, codes: Tensor, known: Tensor, wanted: Tensor) -> None:
        """Set codewords so that the stage turns each row of `known` [N, D] into that of `wanted`.

        The networks stay near the identity, so that what is missing can be added to the codeword.
        """
        book[codes] = wanted - known
        for _ in range(PLACING_STEPS if stage else 0):
            book[codes] += wanted - known - self._step(stage, codes, known)
