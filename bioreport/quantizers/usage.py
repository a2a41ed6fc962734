"""How evenly the codewords are used."""

import torch
from torch import Tensor


class CodeUsage:
    """Counts of each codeword of each stage.

    Utilisation is the share of codewords chosen at least once; perplexity is exp of the entropy of their
    frequencies: K where all are used alike, 1 where one stands for everything.

    Examples
    --------
    >>> usage = CodeUsage(stages=1, codewords=4)
    >>> usage.add(torch.tensor([[0], [1], [0], [1]]))
    >>> usage.utilisation().item(), round(usage.perplexity().item(), 6)
    (0.5, 2.0)
    """

    def __init__(self, stages: int, codewords: int) -> None:
        self.counts = torch.zeros(stages, codewords, dtype=torch.int64)

    def add(self, codes: Tensor) -> None:
        """Take codes [..., L]."""
        rows = codes.detach().reshape(-1, codes.shape[-1]).cpu()
        offsets = torch.arange(rows.shape[1]) * self.counts.shape[1]
        self.counts += torch.bincount((rows + offsets).flatten(), minlength=self.counts.numel()).view_as(
            self.counts
        )

    def utilisation(self) -> Tensor:
        """Share of codewords used, of each stage [L]."""
        return (self.counts > 0).double().mean(1)

    def perplexity(self) -> Tensor:
        """Of each stage [L]; 0 where nothing was counted."""
        return _perplexity(self.counts)

    def pooled_utilisation(self) -> float:
        """Share of all codewords of all stages."""
        return (self.counts > 0).double().mean().item()

    def pooled_perplexity(self) -> float:
        """Of all stages' codewords as one alphabet, at most L times K."""
        return _perplexity(self.counts.reshape(1, -1)).item()


def _perplexity(counts: Tensor) -> Tensor:
    share = counts.double() / counts.sum(1, keepdim=True).clamp(min=1)
    entropy = -(share * share.clamp(min=torch.finfo(torch.float64).tiny).log()).sum(1)
    return torch.where(counts.sum(1) > 0, entropy.exp(), 0.0)
