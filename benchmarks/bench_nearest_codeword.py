"""Nearest word of each row's own codebook: `pytest benchmarks/bench_nearest_codeword.py -o addopts=`.

Bytes, N rows of D features and K words each, b bytes a feature: the codebooks once, N·K·D·b, the rows
N·D·b, and codes and distances written, N·(8 + 4). Flops: 3·N·K·D. About a flop a byte: memory is the limit.

Peers
-----
PyTorch
    Differences, squares, sum, minimum: the [N, K, D] differences are stored.
torch.compile
    The same through PyTorch's compiler, which need not store them.
torch.cdist
    PyTorch's batched distances, then the minimum.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from options import DEVICE, SMOKE
from timing import OURS, Case, Outputs, Provider, compiled
from torch import Tensor


class Inputs(NamedTuple):
    """x [N, D]; codebooks [N, K, D]."""

    x: Tensor
    codebooks: Tensor


def _ours(x: Inputs) -> Callable[[], Outputs]:
    from bioreport_kernels import nearest_codeword

    return lambda: nearest_codeword(x.x, x.codebooks)


def naive(x: Tensor, codebooks: Tensor) -> Outputs:
    """Codes [N] and squared distances [N]."""
    squares = (x[:, None].float() - codebooks.float()).square().sum(2)
    nearest = squares.min(1)
    return nearest.indices, nearest.values


def cdist(x: Tensor, codebooks: Tensor) -> Outputs:
    """The same by PyTorch's distances."""
    nearest = torch.cdist(x[:, None].float(), codebooks.float())[:, 0].min(1)
    return nearest.indices, nearest.values.square()


PROVIDERS = (
    Provider(OURS, "this repository's operator", _ours),
    Provider("PyTorch", "differences, squares, minimum", lambda x: partial(naive, *x)),
    Provider(
        "torch.compile",
        "the same, compiled",
        lambda x: partial(compiled(naive, SMOKE), *x),
    ),
    Provider("torch.cdist", "batched distances, then the minimum", lambda x: partial(cdist, *x)),
)


def case(n: int, words: int, dim: int, dtype: torch.dtype) -> Case:
    def make(device: torch.device) -> Inputs:
        generator = torch.Generator(device).manual_seed(0)
        return Inputs(
            torch.randn(n, dim, generator=generator, device=device, dtype=dtype),
            torch.randn(n, words, dim, generator=generator, device=device, dtype=dtype),
        )

    width = torch.finfo(dtype).bits // 8
    return Case(
        operator="nearest_codeword",
        name=f"{n:,} x {words} x {dim}, {str(dtype).removeprefix('torch.')}",
        dtype=dtype,
        bytes=n * words * dim * width + n * (dim * width + 12),
        flops=3 * n * words * dim,
        inputs=make,
        providers=PROVIDERS,
        # float32 distances of different order may swap two that are all but equal
        tolerance=1e-4,
        codes=True,
        shape={"rows": n, "words": words, "dim": dim},
    )


def cases() -> Iterator[Case]:
    """The target's shape, and one where a codebook is a few KB."""
    if SMOKE:
        yield case(9, 5, 4, torch.float32)
    elif DEVICE.type == "cpu":
        yield case(4_096, 64, 128, torch.float32)
        yield case(4_096, 64, 128, torch.bfloat16)
    else:
        yield case(65_536, 64, 128, torch.bfloat16)
        yield case(65_536, 64, 128, torch.float32)
        yield case(262_144, 16, 64, torch.bfloat16)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_nearest_codeword(case: Case, benchmark: Any) -> None:
    from recording import record

    record(case, benchmark)
