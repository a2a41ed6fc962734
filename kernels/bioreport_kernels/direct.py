"""Calls that go past PyTorch's dispatcher to an operator's CPU function.

The first call of any ``torch.library`` operator imports PyTorch's compiler, which takes more than a second.
"""

import torch
from torch import Tensor


def may_be_direct(*tensors: Tensor | None) -> bool:
    """Whether the CPU function may be called itself: no gradient is to be kept, and no graph compiled."""
    present = [x for x in tensors if x is not None]
    if present[0].device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return not (torch.is_grad_enabled() and any(x.requires_grad for x in present))
