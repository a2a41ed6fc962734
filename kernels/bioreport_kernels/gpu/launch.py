"""How every kernel of the package is launched."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from triton import knobs

# Off and on differ in the last bit of sums of products; Triton's own default changes between versions.
FP_FUSION = True

Launch = Callable[[Any, tuple[int, ...], tuple[Any, ...], dict[str, Any]], None]
_redirected: ContextVar[Launch | None] = ContextVar("redirected", default=None)


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **settings: Any) -> None:
    """Run a kernel on a grid, on the GPU of its first tensor; an empty grid runs nothing."""
    settings = {"enable_fp_fusion": FP_FUSION, **settings}
    redirected = _redirected.get()
    if redirected is not None:
        redirected(kernel, grid, arguments, settings)
    elif 0 not in grid:
        # Triton launches on the current GPU wherever the tensors lie
        with torch.cuda.device_of(next(x for x in arguments if isinstance(x, torch.Tensor))):
            kernel[grid](*arguments, **settings)


@contextmanager
def redirected(to: Launch) -> Iterator[None]:
    """Give every launch inside to a function instead, which may compile or record it."""
    token = _redirected.set(to)
    try:
        yield
    finally:
        _redirected.reset(token)


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter (``TRITON_INTERPRET=1`` at import)."""
    return bool(knobs.runtime.interpret)


def dot_dtype(dtype: torch.dtype) -> tl.dtype:
    """Dtype of the operands of ``tl.dot``; the interpreter multiplies the bit patterns of bf16."""
    if dtype == torch.float16:
        return tl.float16
    return tl.bfloat16 if dtype == torch.bfloat16 and not interpreted() else tl.float32


def dot_precision(dtype: torch.dtype) -> str:
    """Float32 products by three TF32 ones (about 1e-6); Triton's own default is a single one (1e-3)."""
    return "tf32x3" if dtype == torch.float32 else "ieee"


def processors(device: torch.device) -> int:
    """Multiprocessors of a GPU; an H100's elsewhere, so that what is tested is shaped as there."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 132


def power_of_two(n: int, least: int = 16) -> int:
    """The next power of two, at least the 16 that a matrix product needs."""
    return max(least, triton.next_power_of_2(n))


@dataclass(frozen=True)
class Case:
    """One width and dtype of an operator: `run(device)` makes inputs there and launches every kernel of it.

    On the meta device the launches are only compiled (`compile_ahead`), on a GPU they are timed (`tune`).
    """

    operator: str
    dim: int
    dtype: torch.dtype
    run: Callable[[torch.device], None]
