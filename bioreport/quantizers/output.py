"""What a quantizer gives."""

from typing import NamedTuple

from torch import Tensor


class Quantized(NamedTuple):
    """Vectors and their codes.

    Attributes
    ----------
    vectors : Tensor, shape (..., D)
        Sums of codewords; their gradient goes to the input as if it had not been quantized
        (straight-through; Bengio et al. 2013, van den Oord et al. 2017).
    codes : int64 Tensor, shape (..., L)
    loss : Tensor, scalar
        What training adds to the reconstruction's loss: commitment, and what teaches the codewords.
    """

    vectors: Tensor
    codes: Tensor
    loss: Tensor


def straight_through(z: Tensor, quantized: Tensor) -> Tensor:
    """The value of `quantized`, bit for bit, with the gradient of z."""
    return quantized.detach() + (z - z.detach())
