"""Residual quantization: `pytest benchmarks/bench_residual_quantize.py -o addopts=`.

Flops, N rows of D features, L codebooks of K words: 2·N·K·D·L, the products of rows and words. Bytes: the
rows read, codes (8 bytes) and quantized rows written, N·(2·D·b + 8·L), and the codebooks once. At K = 1,024,
D = 128, L = 8 that is thousands of flops a byte: the matrix rate is the limit.

Every row of the table has the share of 4,096 sampled rows whose codes are not those of float64 arithmetic
where the nearest is nearer than the second by more than 1e-6 (`wrong`).

Peers
-----
PyTorch
    A loop over the codebooks: all N·K distances by |c|² - 2 r·c in float32, argmin, subtract.
torch.compile
    The same through PyTorch's compiler.
vector-quantize-pytorch
    `ResidualVQ` in eval mode with the same codebooks (1.32.0).
faiss
    `ResidualQuantizer` with beam 1 and the same codebooks; CPU; codes alone.
flash-kmeans
    Its Triton assignment, once a codebook; GPU.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from options import DEVICE, SMOKE
from timing import OURS, Absent, Case, Outputs, Provider, compiled
from torch import Tensor

SAMPLE, GAP = 4096, 1e-6


class Inputs(NamedTuple):
    """x [N, D]; codebooks [L, K, D] whose spread falls from stage to stage as residuals do."""

    x: Tensor
    codebooks: Tensor


def _ours(x: Inputs) -> Callable[[], Outputs]:
    from bioreport_kernels import residual_quantize

    return lambda: residual_quantize(x.x, x.codebooks)


def naive(x: Tensor, codebooks: Tensor) -> Outputs:
    """Codes [N, L] and the sum of their words."""
    residual, codes = x.float(), []
    for codebook in codebooks.float():
        squares = codebook.square().sum(1) - 2 * residual @ codebook.T
        codes.append(squares.argmin(1))
        residual = residual - codebook[codes[-1]]
    return torch.stack(codes, 1), (x.float() - residual).to(x.dtype)


def wrong(inputs: Inputs, outputs: Outputs) -> float:
    """Share of sampled rows that leave float64's codes where these are clear."""
    count = min(SAMPLE, len(inputs.x))
    rows = torch.linspace(0, len(inputs.x) - 1, count, device=inputs.x.device).long()
    residual, codes = inputs.x[rows].double(), outputs[0][rows].long()
    bad = torch.zeros(count, dtype=torch.bool, device=rows.device)
    clear = ~bad
    for stage, codebook in enumerate(inputs.codebooks.double()):
        norms = residual.square().sum(1, keepdim=True) + codebook.square().sum(1)
        squares = norms - 2 * residual @ codebook.T
        two, index = squares.topk(min(2, len(codebook)), largest=False)
        # beyond an unclear choice a row may go either way
        clear &= (two[:, -1] - two[:, 0]) > GAP * two[:, -1] if two.shape[1] > 1 else clear
        bad |= clear & (codes[:, stage] != index[:, 0])
        residual = residual - codebook[index[:, 0]]
    return bad.double().mean().item()


def _vqt(x: Inputs) -> Callable[[], Any]:
    from vector_quantize_pytorch import ResidualVQ

    stages, size, dim = x.codebooks.shape
    network = ResidualVQ(dim=dim, num_quantizers=stages, codebook_size=size).to(x.x.device).eval()
    for layer, codebook in zip(network.layers, x.codebooks, strict=True):
        layer._codebook.embed.data.copy_(codebook[None])
    return lambda: network(x.x[None])


def _faiss(x: Inputs) -> Callable[[], Any]:
    import faiss
    import numpy as np

    if x.x.is_cuda:
        raise Absent("runs on a CPU alone")
    stages, size, dim = x.codebooks.shape
    bits = size.bit_length() - 1
    if size != 1 << bits:
        raise Absent("takes codebooks of a power of two")
    faiss.omp_set_num_threads(torch.get_num_threads())
    quantizer = faiss.ResidualQuantizer(dim, stages, bits)
    quantizer.max_beam_size = 1
    words = np.ascontiguousarray(x.codebooks.float().numpy())
    faiss.copy_array_to_vector(words.ravel(), quantizer.codebooks)
    quantizer.is_trained = True
    quantizer.compute_codebook_tables()
    rows = np.ascontiguousarray(x.x.float().numpy())
    return lambda: (quantizer.compute_codes(rows), stages, bits)


def _faiss_view(raw: Any) -> Outputs:
    import faiss

    packed, stages, bits = raw
    return (torch.from_numpy(faiss.unpack_bitstrings(packed, stages, bits)).long(),)


def _flash_kmeans(x: Inputs) -> Callable[[], Outputs]:
    from flash_kmeans.assign_euclid_triton import euclid_assign_triton

    if not x.x.is_cuda:
        raise Absent("runs on a GPU alone")

    def run() -> Outputs:
        residual, codes = x.x, []
        for codebook in x.codebooks:
            squares = residual.float().square().sum(1)
            codes.append(euclid_assign_triton(residual[None], codebook[None], squares[None])[0].long())
            residual = residual - codebook[codes[-1]]
        return torch.stack(codes, 1), x.x - residual

    return run


PROVIDERS = (
    Provider(OURS, "this repository's operator", _ours),
    Provider("PyTorch", "a loop over the codebooks, all distances stored", lambda x: partial(naive, *x)),
    Provider(
        "torch.compile",
        "the same, compiled",
        lambda x: partial(compiled(naive, SMOKE), *x),
    ),
    Provider(
        "vector-quantize-pytorch",
        "ResidualVQ, eval",
        _vqt,
        lambda raw: (raw[1][0].long(), raw[0][0]),
    ),
    Provider("faiss", "ResidualQuantizer, beam 1, codes alone", _faiss, _faiss_view),
    Provider("flash-kmeans", "its Triton assignment, once a codebook", _flash_kmeans),
)


def case(n: int, dim: int, words: int, stages: int, dtype: torch.dtype) -> Case:
    def make(device: torch.device) -> Inputs:
        generator = torch.Generator(device).manual_seed(0)
        x = torch.randn(n, dim, generator=generator, device=device)
        codebooks = torch.randn(stages, words, dim, generator=generator, device=device)
        scale = 0.8 ** torch.arange(stages, device=device)[:, None, None]
        return Inputs(x.to(dtype), (codebooks * scale).to(dtype))

    width = torch.finfo(dtype).bits // 8
    return Case(
        operator="residual_quantize",
        name=f"{n:,} x {dim}, {stages} x {words:,} words, {str(dtype).removeprefix('torch.')}",
        dtype=dtype,
        bytes=n * (2 * dim * width + 8 * stages) + stages * words * dim * width,
        flops=2 * n * words * dim * stages,
        inputs=make,
        providers=PROVIDERS,
        tolerance=0.0,
        codes=True,
        wrong=wrong,
        shape={"rows": n, "dim": dim, "words": words, "stages": stages},
    )


def cases() -> Iterator[Case]:
    """KERNELS' three shapes on a GPU; on a CPU the shape of the published timings."""
    if SMOKE:
        yield case(70, 8, 16, 3, torch.float32)
    elif DEVICE.type == "cpu":
        yield case(65_536, 64, 64, 8, torch.float32)
        yield case(8_192, 128, 1024, 8, torch.float32)
        yield case(65_536, 64, 64, 8, torch.bfloat16)
    else:
        yield case(1 << 20, 128, 1024, 8, torch.bfloat16)
        yield case(65_536, 64, 64, 8, torch.bfloat16)
        yield case(65_536, 512, 4096, 8, torch.bfloat16)
        yield case(1 << 20, 128, 1024, 8, torch.float32)
        yield case(65_536, 64, 64, 8, torch.float32)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_residual_quantize(case: Case, benchmark: Any) -> None:
    from recording import record

    record(case, benchmark)
