"""QINCo: each stage's codewords depend on what the stages before it chose (Huijben et al. 2024)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bioreport.quantizers.kmeans import residual_kmeans
from bioreport.quantizers.output import Quantized, straight_through
from bioreport_kernels import ImplicitWeights, implicit_decode, implicit_quantize
from bioreport_kernels.reference.implicit import implicit_codewords


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
        commitment: float = 0.25,
        decay: float = 0.99,
        least_used: float = 0.05,
    ) -> None:
        super().__init__()
        later = stages - 1
        self.commitment, self.decay, self.least_used = commitment, decay, least_used
        self.first = nn.Parameter(torch.randn(codewords, dim))
        self.codebooks = nn.Parameter(torch.randn(later, codewords, dim))
        self.concat = nn.Parameter(torch.zeros(later, dim, 2 * dim))
        self.bias = nn.Parameter(torch.zeros(later, dim))
        self.up = nn.Parameter(torch.randn(later, blocks, hidden, dim) * (2 / dim) ** 0.5)
        self.down = nn.Parameter(torch.zeros(later, blocks, dim, hidden))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))
        self.register_buffer("chosen", torch.full((stages, codewords), 1 / codewords))

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
            self._reset_unused(rows, codes)
        return Quantized(straight_through(z, vectors), codes.view(*z.shape[:-1], -1), loss)

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors [..., D] of codes [..., L]: bit for bit what `forward` gave with them in float32."""
        return implicit_decode(codes.reshape(-1, codes.shape[-1]), self.weights).view(*codes.shape[:-1], -1)

    def _stage_loss(self, rows: Tensor, codes: Tensor) -> Tensor:
        return torch.stack([F.mse_loss(estimate, rows) for estimate in self._estimates(codes)]).sum()

    def _estimates(self, codes: Tensor) -> list[Tensor]:
        """What is known of the vectors [N, D] after each stage."""
        weights = self.weights
        estimates = [self.first[codes[:, 0]]]
        for stage in range(len(self.codebooks)):
            step = implicit_codewords(weights, stage, codes[:, stage + 1], estimates[-1])
            estimates.append(estimates[-1] + step)
        return estimates

    @torch.no_grad()
    def _reset_unused(self, rows: Tensor, codes: Tensor) -> None:
        count = len(self.first)
        before = [torch.zeros_like(rows), *self._estimates(codes)[:-1]]
        for stage, (known, chosen) in enumerate(zip(before, self.chosen, strict=True)):
            share = torch.bincount(codes[:, stage], minlength=count) / len(rows)
            chosen.mul_(self.decay).add_(share, alpha=1 - self.decay)
            unused = chosen * count < self.least_used
            if unused.any():
                some = torch.randint(len(rows), (int(unused.sum()),), device=rows.device)
                book = self.first if stage == 0 else self.codebooks[stage - 1]
                book[unused] = (rows - known)[some]
                chosen[unused] = 1 / count
