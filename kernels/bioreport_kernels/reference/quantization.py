"""Residual quantization and the batched argmin, as `bioreport_kernels.quantize` documents them."""

import math

import torch
from torch import Tensor

from bioreport_kernels.reference.precision import accumulation_dtype


def residual_quantize(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    """Definition of `bioreport_kernels.residual_quantize`; the codes are those of float64 arithmetic."""
    wide = accumulation_dtype(torch.promote_types(x.dtype, codebooks.dtype))
    residual = x.detach().double()
    codes, quantized = [], torch.zeros_like(x, dtype=wide)
    for codebook in codebooks:
        exact = codebook.detach().double()
        code = _nearest((residual[:, None] - exact).square().sum(-1))
        residual = residual - exact[code]
        quantized = quantized + codebook.to(wide)[code]
        codes.append(code)
    # nothing is added but the gradient of x, and NaN to rows that are not finite
    unfinite = (x.detach() * 0).sum(1, keepdim=True)
    return torch.stack(codes, 1), (quantized.to(x.dtype) + unfinite) + (x - x.detach())


def nearest_codeword(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    """Definition of `bioreport_kernels.nearest_codeword`; differentiable in both."""
    wide = accumulation_dtype(torch.promote_types(x.dtype, codebooks.dtype))
    exact = x.detach().double()[:, None] - codebooks.detach().double()
    codes = _nearest(exact.square().sum(-1))
    nearest = codebooks.to(wide)[torch.arange(len(x), device=x.device), codes]
    return codes, (x.to(wide) - nearest).square().sum(1)


def _nearest(squares: Tensor) -> Tensor:
    """Index of the smallest along the last axis, the lowest among equals; NaN counts as infinite."""
    return squares.nan_to_num(nan=math.inf, posinf=math.inf).argmin(-1)
