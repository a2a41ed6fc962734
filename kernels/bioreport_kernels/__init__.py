"""Operators for long biomedical signals; needs PyTorch alone.

`reference` has the definition of every operator in plain PyTorch, under the same name.
"""

from bioreport_kernels import reference
from bioreport_kernels.aggregate import EpochAggregator, aggregate_epochs
from bioreport_kernels.context import LinearAttentionContext
from bioreport_kernels.implicit import ImplicitWeights, implicit_decode, implicit_quantize
from bioreport_kernels.linear import linear_attention
from bioreport_kernels.quantize import nearest_codeword, residual_quantize

__all__ = [
    "EpochAggregator",
    "ImplicitWeights",
    "LinearAttentionContext",
    "aggregate_epochs",
    "implicit_decode",
    "implicit_quantize",
    "linear_attention",
    "nearest_codeword",
    "reference",
    "residual_quantize",
]
