"""First codewords: k-means of the first vectors seen, stage by stage on what the stages before leave."""

import torch
from torch import Tensor

from bioreport_kernels import residual_quantize


def kmeans(x: Tensor, count: int, *, steps: int = 10, generator: torch.Generator | None = None) -> Tensor:
    """Lloyd's algorithm from randomly chosen rows.

    Parameters
    ----------
    x : Tensor, shape (N, D), N ≥ 1
    count : int
        Centres wanted. Where there are fewer rows than that, rows repeat with a little noise.
    steps : int

    Returns
    -------
    Tensor, shape (count, D), float32
    """
    x = x.detach().float()
    order = torch.randperm(len(x), generator=generator)
    repeated = order.repeat(-(-count // len(x)))[:count].to(x.device)
    centres = x[repeated]
    if len(x) < count:
        noise = torch.randn(centres.shape, generator=generator).to(x.device)
        return centres + noise * (1e-2 * x.std(0, correction=0) + 1e-6)
    for _ in range(steps):
        codes, _ = residual_quantize(x, centres[None])
        centres, members = centroids(x, codes[:, 0], count, centres)
        empty = members == 0
        if empty.any():
            # the rows that are represented worst start the centres that nobody chose
            worst = (x - centres[codes[:, 0]]).square().sum(1).topk(int(empty.sum())).indices
            centres[empty] = x[worst]
    return centres


def residual_kmeans(
    x: Tensor, stages: int, count: int, *, steps: int = 10, generator: torch.Generator | None = None
) -> Tensor:
    """Codebooks [stages, count, D] for `residual_quantize`, each from the residuals of those before it."""
    books, rest = [], x.detach().float()
    for _ in range(stages):
        books.append(kmeans(rest, count, steps=steps, generator=generator))
        rest = rest - residual_quantize(rest, books[-1][None])[1]
    return torch.stack(books)


def centroids(x: Tensor, codes: Tensor, count: int, otherwise: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the rows of each code [count, D], and their number [count]; `otherwise` where there is none."""
    members = torch.bincount(codes, minlength=count)
    sums = torch.zeros(count, x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, codes, x)
    means = sums / members.clamp(min=1)[:, None]
    return torch.where(members[:, None] > 0, means, otherwise), members
