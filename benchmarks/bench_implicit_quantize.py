"""Quantization with implicit codebooks: `pytest benchmarks/bench_implicit_quantize.py -o addopts=`.

QINCo v1 puts every word through the stage's network, QINCo2 those of a shortlist (A words for each of B
beams). Flops, S stages after the first, R residual blocks from E to H features, C candidates a stage and row
(K, or A·B): S·(4·C·R·E·H + 2·B·E·D) a row. The first layer is linear in word and sum, so that it costs a
table once and a product a beam; published code computes it for every candidate, 2·C·E·(E + D), and stores
[N, C, E]. Bytes: rows, codes and quantized rows, N·(2·D·b + 8·(S + 1)), and the weights once. Thousands of
flops a byte: the matrix rate is the limit.

Peers
-----
PyTorch
    The published algorithm in our own words: all candidates of a stage as one array through linear layers.
torch.compile
    The same through PyTorch's compiler.
published QINCo
    facebookresearch/Qinco's v1 module (`model_qinco`), where its folder is on PYTHONPATH; never part of this
    repository (CC-BY-NC).
PyTorch, bfloat16
    The same with rows and weights in bfloat16, as the published code's inference runs in half precision.
vector-quantize-pytorch
    `ResidualVQ(implicit_neural_codebook=True)`: a network of the same size, of another form, for scale.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from options import DEVICE, SMOKE
from timing import OURS, Absent, Case, Outputs, Provider, compiled
from torch import Tensor
from torch.nn import functional as F

from bioreport_kernels.reference.implicit import ImplicitWeights


class Inputs(NamedTuple):
    """x [N, D], weights, beam and shortlist."""

    x: Tensor
    weights: ImplicitWeights
    beam: int
    shortlist: int | None


def _ours(search: str) -> Callable[[Inputs], Callable[[], Outputs]]:
    def build(x: Inputs) -> Callable[[], Outputs]:
        from bioreport_kernels import implicit_quantize

        return lambda: implicit_quantize(x.x, x.weights, beam=x.beam, shortlist=x.shortlist, search=search)

    return build


def naive(x: Tensor, weights: ImplicitWeights, beam: int, shortlist: int | None) -> Outputs:
    """Codes [N, S + 1] and what they stand for; distances by |a|² - 2 a·b as in the published code."""
    stages, words = weights.codebooks.shape[:2]
    squares = weights.first.square().sum(1) - 2 * x @ weights.first.T
    best = squares.topk(beam if stages else 1, dim=1, largest=False).indices
    codes, estimate = best[:, :, None], weights.first[best]
    row = torch.arange(len(x), device=x.device)[:, None]
    for stage in range(stages):
        codebook = weights.codebooks[stage]
        if shortlist is None:
            chosen = torch.arange(words, device=x.device).expand(*estimate.shape[:2], -1)
        else:
            assert weights.shortlists is not None
            plain = weights.shortlists[stage]
            residual = x[:, None] - estimate
            squares = plain.square().sum(1) - 2 * residual @ plain.T
            chosen = squares.topk(shortlist, dim=2, largest=False).indices
        word = codebook[chosen]
        e = word if weights.in_proj is None else F.linear(word, weights.in_proj[stage])
        both = torch.cat([e, estimate[:, :, None].expand(*word.shape[:3], -1)], 3)
        u = e + F.linear(both, weights.concat[stage], weights.bias[stage])
        for up, down in zip(weights.up[stage], weights.down[stage], strict=True):
            u = u + F.linear(F.linear(u, up).relu(), down)
        u = u if weights.out_proj is None else F.linear(u, weights.out_proj[stage])
        candidate = (estimate[:, :, None] + (word + u if weights.skip else u)).flatten(1, 2)
        squares = candidate.square().sum(2) - 2 * torch.einsum("nd,ncd->nc", x, candidate)
        best = squares.topk(beam if stage < stages - 1 else 1, dim=1, largest=False).indices
        codes = torch.cat([codes[row, best // chosen.shape[2]], chosen.flatten(1)[row, best][..., None]], 2)
        estimate = candidate[row, best]
    return codes[:, 0], estimate[:, 0]


def _narrow(x: Inputs) -> Inputs:
    return x._replace(x=x.x.bfloat16(), weights=x.weights.to(torch.bfloat16))


def _compiled(x: Inputs) -> Callable[[], Outputs]:
    return partial(compiled(naive, SMOKE), *(_narrow(x) if x.x.is_cuda else x))


def _published(x: Inputs) -> Callable[[], Outputs]:
    from model_qinco import QINCo  # type: ignore[import-not-found]

    w = x.weights
    if x.shortlist is not None or x.beam > 1 or w.in_proj is not None or w.skip:
        raise Absent("its v1 module has no shortlist, beam or skip")
    stages, words, dim = w.codebooks.shape
    network = QINCo(d=dim, K=words, L=w.up.shape[1], M=stages + 1, h=w.up.shape[2])
    state = {"codebook0.weight": w.first}
    for stage in range(stages):
        step = f"step{stage + 1}"
        state[f"{step}.codebook.weight"] = w.codebooks[stage]
        state[f"{step}.MLPconcat.weight"] = w.concat[stage]
        state[f"{step}.MLPconcat.bias"] = w.bias[stage]
        for block in range(w.up.shape[1]):
            state[f"{step}.residual_block{block}.0.weight"] = w.up[stage, block]
            state[f"{step}.residual_block{block}.2.weight"] = w.down[stage, block]
    network.load_state_dict(state)
    network.to(x.x).eval()
    return lambda: network.encode(x.x)


def _vqt(x: Inputs) -> Callable[[], Any]:
    from vector_quantize_pytorch import ResidualVQ

    w = x.weights
    if x.shortlist is not None:
        raise Absent("has no shortlist")
    stages, words, dim = w.codebooks.shape
    network = ResidualVQ(
        dim=dim,
        num_quantizers=stages + 1,
        codebook_size=words,
        implicit_neural_codebook=True,
        mlp_kwargs={"dim_hidden": w.up.shape[2], "depth": w.up.shape[1]},
    )
    network.to(x.x.device).eval()
    return lambda: network(x.x[None])


PROVIDERS = (
    Provider(OURS, "this repository's operator, exact in float32", _ours("exact")),
    Provider(f"{OURS}, bfloat16 search", "the same, nearest few worked out again", _ours("bfloat16")),
    Provider("PyTorch", "the published algorithm, all candidates stored", lambda x: partial(naive, *x)),
    Provider("PyTorch, bfloat16", "the same in bfloat16 throughout", lambda x: partial(naive, *_narrow(x))),
    Provider("torch.compile", "the same, compiled; in bfloat16 on a GPU", _compiled),
    Provider("published QINCo", "Qinco's own v1 module", _published),
    Provider(
        "vector-quantize-pytorch",
        "ResidualVQ, implicit codebooks of another form",
        _vqt,
        lambda raw: (raw[1][0].long(), raw[0][0]),
        same=False,
    ),
)


def case(
    name: str,
    n: int,
    *,
    dim: int,
    width: int,
    hidden: int,
    blocks: int,
    words: int,
    stages: int = 8,
    beam: int = 1,
    shortlist: int | None = None,
) -> Case:
    """`stages` counts the first, which has no network. With a shortlist it is QINCo2, else v1."""

    def make(device: torch.device) -> Inputs:
        generator = torch.Generator(device).manual_seed(0)

        def random(*shape: int, fan: int | None = None) -> Tensor:
            values = torch.randn(shape, generator=generator, device=device)
            return values if fan is None else values * (0.5 * fan**-0.5)

        after, second = stages - 1, shortlist is not None
        falling = 0.75 ** torch.arange(1, stages, device=device)[:, None, None]
        codebooks = random(after, words, dim) * falling
        weights = ImplicitWeights(
            first=random(words, dim),
            codebooks=codebooks,
            concat=random(after, width, width + dim, fan=width + dim),
            bias=random(after, width, fan=width),
            up=random(after, blocks, hidden, width, fan=width),
            down=random(after, blocks, width, hidden, fan=hidden),
            in_proj=random(after, width, dim, fan=dim) if width != dim else None,
            out_proj=random(after, dim, width, fan=width) if width != dim else None,
            shortlists=codebooks + random(after, words, dim, fan=dim) * falling if second else None,
            skip=second,
        )
        return Inputs(random(n, dim), weights, beam, shortlist)

    candidates = words if shortlist is None else shortlist * beam
    network = width * (width + dim) + 2 * blocks * width * hidden
    parameters = words * dim + (stages - 1) * (words * dim + network)
    return Case(
        operator="implicit_quantize",
        name=f"{name}, {n:,} x {dim}",
        dtype=torch.float32,
        bytes=n * (2 * dim * 4 + 8 * stages) + parameters * 4,
        flops=n * (stages - 1) * (candidates * 4 * blocks * width * hidden + beam * 2 * width * dim),
        inputs=make,
        providers=PROVIDERS,
        # what a search in bfloat16 may cost; peers' distances are expanded, and choose otherwise now and then
        tolerance=1e-3,
        codes=True,
        shape={"rows": n, "dim": dim, "words": words, "stages": stages, "blocks": blocks, "hidden": hidden},
    )


def cases() -> Iterator[Case]:
    """The targets' networks on a GPU; on a CPU those of the published timings."""
    small = {"width": 128, "hidden": 256, "words": 256, "dim": 128}
    tiny = {"dim": 8, "hidden": 16, "blocks": 1, "words": 8, "stages": 3}
    if SMOKE:
        yield case("QINCo", 6, width=8, **tiny)
        yield case("QINCo2", 6, width=12, beam=2, shortlist=4, **tiny)
    elif DEVICE.type == "cpu":
        for dim in (128, 32):
            yield case("QINCo L=2", 4096, dim=dim, width=dim, hidden=256, blocks=2, words=64)
        yield case("QINCo2-S", 128, **small, blocks=2, beam=32, shortlist=16)
    else:
        yield case("QINCo L=16", 8192, **small, blocks=16)
        yield case("QINCo2-S", 8192, **small, blocks=2, beam=32, shortlist=16)
        yield case("QINCo L=2", 4096, dim=128, width=128, hidden=256, blocks=2, words=64)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_implicit_quantize(case: Case, benchmark: Any) -> None:
    from recording import record

    record(case, benchmark)
