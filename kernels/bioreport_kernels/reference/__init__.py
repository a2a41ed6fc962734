"""What every operator computes, in plain PyTorch: any device, any floating dtype, differentiable.

float64 stays float64; narrower inputs are accumulated in float32 and the result is returned in the input's
dtype.
Arguments are taken as valid: the public functions of the package check them.
"""

from bioreport_kernels.reference.attention import linear_attention, positive
from bioreport_kernels.reference.epochs import aggregate_epochs
from bioreport_kernels.reference.implicit import (
    ImplicitWeights,
    implicit_codewords,
    implicit_decode,
    implicit_quantize,
)
from bioreport_kernels.reference.precision import accumulation_dtype
from bioreport_kernels.reference.quantization import nearest_codeword, residual_quantize

__all__ = [
    "ImplicitWeights",
    "accumulation_dtype",
    "aggregate_epochs",
    "implicit_codewords",
    "implicit_decode",
    "implicit_quantize",
    "linear_attention",
    "nearest_codeword",
    "positive",
    "residual_quantize",
]
