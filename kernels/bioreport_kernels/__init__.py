"""Operators for long biomedical signals; needs PyTorch alone.

`reference` has the definition of every operator in plain PyTorch, under the same name.
"""

from bioreport_kernels import reference
from bioreport_kernels.aggregate import EpochAggregator, aggregate_epochs
from bioreport_kernels.context import LinearAttentionContext
from bioreport_kernels.implicit import ImplicitWeights, implicit_decode, implicit_quantize
from bioreport_kernels.linear import linear_attention

__all__ = [
    "EpochAggregator",
    "ImplicitWeights",
    "LinearAttentionContext",
    "aggregate_epochs",
    "implicit_decode",
    "implicit_quantize",
    "linear_attention",
    "reference",
]
