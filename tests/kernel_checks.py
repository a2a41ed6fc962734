"""What the tests of the kernels share. On a GPU they run there; elsewhere in Triton's interpreter."""

import math

import torch
from torch import Tensor

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def relative_rms(got: Tensor, want: Tensor, floor: float = 0.0) -> float:
    """Root mean square of the difference, over that of what is wanted or the floor, whichever is larger."""
    assert got.shape == want.shape, (got.shape, want.shape)
    got, want = got.double().cpu(), want.double().cpu()
    if not want.numel():
        return 0.0
    scale = max(want.square().mean().sqrt().item(), floor)
    return (got - want).square().mean().sqrt().item() / (scale if scale > 0 else 1.0)


def assert_close(
    got: Tensor, want: Tensor, tolerance: float, name: str = "result", floor: float = 0.0
) -> None:
    """Relative root mean square within the tolerance; both free of NaN.

    The floor is for a gradient that cancels: what is left of it is rounding, judged by the terms' size.
    """
    error = relative_rms(got, want, floor)
    message = f"{name}: relative RMS {error:.3g} over {tolerance:.3g}"
    assert math.isfinite(error) and error <= tolerance, message
