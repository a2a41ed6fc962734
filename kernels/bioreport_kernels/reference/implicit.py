"""Quantization with implicit codebooks, as `bioreport_kernels.implicit_quantize` documents it."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bioreport_kernels.reference.precision import accumulation_dtype


class ImplicitWeights(NamedTuple):
    """Weights of QINCo and QINCo2: S stages after the first, each with a network that makes its codewords.

    With c a codeword of a stage and x̂ the sum of what the stages before it chose, the network computes

        e = in_proj c
        u = e + concat [e; x̂] + bias
        u = u + down relu(up u)                       R times
        f(c, x̂) = out_proj u, plus c where ``skip``

    and the stage's implicit codeword is f(c, x̂).

    Attributes
    ----------
    first : Tensor, shape (K0, D)
        The first stage's codewords, which nothing precedes.
    codebooks : Tensor, shape (S, K, D)
    concat : Tensor, shape (S, E, E + D)
    bias : Tensor, shape (S, E)
    up : Tensor, shape (S, R, H, E)
    down : Tensor, shape (S, R, E, H)
    in_proj : Tensor, shape (S, E, D), optional
        Without it E is D and e is c.
    out_proj : Tensor, shape (S, D, E), optional
        Without it E is D and nothing is projected.
    shortlists : Tensor, shape (S, K, D), optional
        Plain codewords, one for each of the stage's, whose distance to the residual draws up a shortlist.
    skip : bool
        Whether the codeword itself is added to the network's output, as in QINCo2.
    """

    first: Tensor
    codebooks: Tensor
    concat: Tensor
    bias: Tensor
    up: Tensor
    down: Tensor
    in_proj: Tensor | None = None
    out_proj: Tensor | None = None
    shortlists: Tensor | None = None
    skip: bool = False

    def map(self, change: Callable[[Tensor], Tensor]) -> "ImplicitWeights":
        """The same with every tensor changed."""
        fields: list[Any] = [change(w) if isinstance(w, Tensor) else w for w in self]
        return ImplicitWeights(*fields)

    def to(self, *args: Any, **kwargs: Any) -> "ImplicitWeights":
        """The same after `torch.Tensor.to` with these arguments."""
        return self.map(lambda tensor: tensor.to(*args, **kwargs))


def implicit_codewords(weights: ImplicitWeights, stage: int, codes: Tensor, estimate: Tensor) -> Tensor:
    """f(c, x̂) of one stage: codes of any shape, estimate [*codes.shape, D] or broadcasting to it."""
    codeword = weights.codebooks[stage][codes]
    e = codeword if weights.in_proj is None else F.linear(codeword, weights.in_proj[stage])
    both = torch.cat([e, estimate.expand(*codeword.shape[:-1], -1)], -1)
    u = e + F.linear(both, weights.concat[stage], weights.bias[stage])
    for up, down in zip(weights.up[stage], weights.down[stage], strict=True):
        u = u + F.linear(F.linear(u, up).relu(), down)
    if weights.out_proj is not None:
        u = F.linear(u, weights.out_proj[stage])
    return codeword + u if weights.skip else u


def implicit_decode(codes: Tensor, weights: ImplicitWeights) -> Tensor:
    """Definition of `bioreport_kernels.implicit_decode`; differentiable in the weights."""
    weights = weights.to(accumulation_dtype(weights.first.dtype))
    estimate = weights.first[codes[:, 0]]
    for stage in range(len(weights.codebooks)):
        estimate = estimate + implicit_codewords(weights, stage, codes[:, stage + 1], estimate)
    return estimate


@torch.no_grad()
def implicit_quantize(
    x: Tensor, weights: ImplicitWeights, *, beam: int = 1, shortlist: int | None = None
) -> tuple[Tensor, Tensor]:
    """Definition of `bioreport_kernels.implicit_quantize`, but for the gradient."""
    target = x.to(accumulation_dtype(x.dtype))
    weights = weights.to(target.dtype)
    n, stages = len(x), len(weights.codebooks)
    best = _nearest((target[:, None] - weights.first).square().sum(-1), beam if stages else 1)
    codes, estimate = best[:, :, None], weights.first[best]
    for stage in range(stages):
        if shortlist is None:
            candidates = torch.arange(weights.codebooks.shape[1], device=x.device).expand(
                n, codes.shape[1], -1
            )
        else:
            assert weights.shortlists is not None
            residual = target[:, None] - estimate
            squares = (residual[:, :, None] - weights.shortlists[stage]).square().sum(-1)
            candidates = _nearest(squares, shortlist)
        found = estimate[:, :, None] + implicit_codewords(weights, stage, candidates, estimate[:, :, None])
        squares = (target[:, None, None] - found).square().sum(-1).flatten(1)
        best = _nearest(squares, beam if stage < stages - 1 else 1)
        row = torch.arange(n, device=x.device)[:, None]
        chosen = candidates.flatten(1)[row, best]
        codes = torch.cat([codes[row, best // candidates.shape[2]], chosen[:, :, None]], 2)
        estimate = found.flatten(1, 2)[row, best]
    return codes[:, 0], estimate[:, 0].to(x.dtype)


def _nearest(squares: Tensor, count: int) -> Tensor:
    """Indices of the smallest along the last axis, the lowest first among equals; NaN counts as infinite."""
    finite = squares.nan_to_num(nan=math.inf, posinf=math.inf)
    return finite.sort(dim=-1, stable=True).indices[..., :count]
