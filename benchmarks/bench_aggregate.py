"""Epoch aggregation: `pytest benchmarks/bench_aggregate.py -o addopts=`.

Bytes, E epochs of C channels, P patches, D features of b bytes each: E·C·P·D·b are read and E·Q·D·b written
(Q queries, 1 without); backward of the mean E·C·P·D·b written, of the attention read once more and written,
and E·Q·D·b read. A mask [E, C] adds E·C bytes. What a mask leaves out need not be read, but is counted.
Flops: 1 a feature, attention 4·Q: memory is the limit.

Peers
-----
PyTorch
    The masked mean, maximum or softmax written down: several passes over the features.
torch.compile
    The same through PyTorch's compiler, which fuses what it can.
SDPA
    PyTorch's attention with the learned query as the only query: the same result as mode "attention".
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from options import DEVICE, SMOKE
from timing import OURS, Case, Outputs, Provider, compiled
from torch import Tensor
from torch.nn import functional as F

from bioreport_kernels import aggregate_epochs


class Inputs(NamedTuple):
    """features [E, C, P, D]; mask [E, C] or None; query [Q, D] or None; gradient of the tokens."""

    features: Tensor
    mask: Tensor | None
    query: Tensor | None
    do: Tensor


def naive_mean(x: Tensor, mask: Tensor | None, query: None) -> Tensor:
    """Mean over channels and patches that count."""
    if mask is None:
        return x.mean((1, 2))
    weight = mask[:, :, None, None].to(x.dtype)
    return (x * weight).sum((1, 2)) / (weight.sum((1, 2)) * x.shape[2]).clamp(min=1)


def naive_max(x: Tensor, mask: Tensor | None, query: None) -> Tensor:
    """Maximum over channels and patches that count."""
    return (x if mask is None else x.masked_fill(~mask[:, :, None, None], float("-inf"))).amax((1, 2))


def naive_attention(x: Tensor, mask: Tensor | None, query: Tensor) -> Tensor:
    """Softmax of the scaled scores of every query over what counts, and their weighted mean."""
    rows = x.flatten(1, 2)
    scores = query @ rows.transpose(1, 2) * x.shape[3] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask.repeat_interleave(x.shape[2], 1)[:, None], float("-inf"))
    return scores.softmax(2) @ rows


NAIVE: dict[str, Callable[..., Tensor]] = {
    "mean": naive_mean,
    "max": naive_max,
    "attention": naive_attention,
}


def sdpa(x: Tensor, mask: Tensor | None, query: Tensor) -> Tensor:
    """The attention by PyTorch's own kernel."""
    rows = x.flatten(1, 2)
    seen = None if mask is None else mask.repeat_interleave(x.shape[2], 1)[:, None]
    return F.scaled_dot_product_attention(query.expand(len(x), -1, -1), rows, rows, attn_mask=seen)


def _forward(function: Callable[..., Tensor]) -> Callable[[Inputs], Callable[[], Tensor]]:
    return lambda x: lambda: function(x.features, x.mask, x.query)


def _backward(function: Callable[..., Tensor]) -> Callable[[Inputs], Callable[[], Outputs]]:
    def build(x: Inputs) -> Callable[[], Outputs]:
        wanted = [t for t in (x.features, x.query) if t is not None]

        def run() -> Outputs:
            out = function(x.features, x.mask, x.query)
            return out, *torch.autograd.grad(out, wanted, x.do)

        return run

    return build


def case(
    epochs: int,
    dim: int,
    dtype: torch.dtype,
    mode: str,
    *,
    masked: bool = False,
    queries: int = 1,
    backward: bool = False,
    channels: int = 22,
    patches: int = 10,
    compile: bool = False,
) -> Case:
    """`compile`: with the compiled peer, which takes ten seconds and more a case."""
    queries = queries if mode == "attention" else 1

    def make(device: torch.device) -> Inputs:
        generator = torch.Generator(device).manual_seed(0)

        def random(*shape: int, grad: bool = False) -> Tensor:
            return torch.randn(
                shape, generator=generator, device=device, dtype=dtype, requires_grad=grad and backward
            )

        features = random(epochs, channels, patches, dim, grad=True)
        mask = None
        if masked:
            # one channel in ten is absent or bad; never all of an epoch
            mask = torch.rand(epochs, channels, generator=generator, device=device) > 0.1
            mask[:, 0] = True
        if mode == "attention":
            return Inputs(features, mask, random(queries, dim, grad=True), random(epochs, queries, dim))
        return Inputs(features, mask, None, random(epochs, dim))

    direction = _backward if backward else _forward
    plain = NAIVE[mode]
    providers = [
        Provider(
            OURS,
            "this repository's operator",
            direction(lambda x, mask, query: aggregate_epochs(x, mask, mode, query)),
        ),
        Provider("PyTorch", "the formula, in several passes", direction(plain)),
    ]
    if compile:
        providers.append(
            Provider("torch.compile", "the same, compiled", lambda x: direction(compiled(plain, SMOKE))(x))
        )
    if mode == "attention":
        providers.append(Provider("SDPA", "PyTorch's attention, one query", direction(sdpa)))
    width = torch.finfo(dtype).bits // 8
    features, tokens = epochs * channels * patches * dim, epochs * queries * dim
    passes = (3 if mode == "attention" else 2) if backward else 1
    per_feature = 4 * queries if mode == "attention" else 1
    words = [mode, *(["masked"] if masked else []), *([f"{queries} queries"] if queries > 1 else [])]
    words += ["forward + backward" if backward else "forward", str(dtype).removeprefix("torch.")]
    return Case(
        operator="aggregate_epochs",
        name=f"{epochs:,} x {channels} x {patches} x {dim}, {', '.join(words)}",
        dtype=dtype,
        bytes=(passes * features + (2 if backward else 1) * tokens) * width
        + (epochs * channels if masked else 0),
        flops=features * per_feature * (3 if backward else 1),
        inputs=make,
        providers=tuple(providers),
        tolerance=1e-4 if dtype == torch.float32 else 3e-2,
        grad=backward,
        shape={"epochs": epochs, "channels": channels, "patches": patches, "dim": dim},
    )


def cases() -> Iterator[Case]:
    """On a GPU bf16 at the targets' sizes, one that the L2 holds in part and one far beyond it."""
    if SMOKE:
        for mode in NAIVE:
            yield case(3, 8, torch.float32, mode, masked=True, channels=4, patches=2, compile=True)
        yield case(2, 8, torch.float32, "attention", backward=True, channels=4, patches=2)
        return
    if DEVICE.type == "cpu":
        for mode in NAIVE:
            yield case(100, 200, torch.float32, mode, masked=True, compile=True)
        yield case(1000, 200, torch.float32, "mean")
        yield case(1000, 200, torch.float32, "mean", masked=True)
        yield case(1000, 200, torch.float32, "attention", masked=True)
        yield case(100, 200, torch.float32, "attention", masked=True, backward=True)
        yield case(1, 200, torch.float32, "mean", masked=True)
        return
    bf16 = torch.bfloat16
    for epochs in (10_000, 1_000):
        yield case(epochs, 200, bf16, "mean")
        yield case(epochs, 200, bf16, "mean", masked=True, compile=epochs == 10_000)
        yield case(epochs, 200, bf16, "attention", masked=True, compile=epochs == 10_000)
    yield case(10_000, 200, bf16, "max", masked=True)
    yield case(10_000, 200, bf16, "attention", masked=True, queries=4)
    yield case(4_000, 512, bf16, "mean", masked=True)
    yield case(10_000, 200, bf16, "mean", masked=True, backward=True)
    yield case(10_000, 200, bf16, "attention", masked=True, backward=True, compile=True)
    yield case(10_000, 200, torch.float32, "mean", masked=True)
    yield case(1, 200, bf16, "mean", masked=True)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_aggregate_epochs(case: Case, benchmark: Any) -> None:
    from recording import record

    record(case, benchmark)
