"""`aggregate_epochs` as an operator of PyTorch, and its path on a CPU against the definition."""

import sys
from typing import Any

import pytest
import torch
from kernel_checks import assert_close
from torch import Tensor

from bioreport_kernels import EpochAggregator, aggregate_epochs, reference

pytestmark = pytest.mark.untraced

MODES = ("mean", "max", "attention")
operator, plain = sys.modules["bioreport_kernels.aggregate"], sys.modules["bioreport_kernels.cpu.aggregate"]
MASKS = {
    "none": None,
    "patches": torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(1)) > 0.4,
    "channels": torch.tensor([[True, False, True], [False] * 3, [True] * 3, [False, True, False]]),
}


def inputs(mode: str, queries: int | None = 2, **options: Any) -> tuple[Tensor, Tensor | None]:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 7, **options)
    if mode != "attention":
        return x, None
    return x, torch.randn(*(() if queries is None else (queries,)), 7, **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mask", MASKS)
def test_gradients_of_the_definition(mode: str, mask: str) -> None:
    x, query = inputs(mode, dtype=torch.float64, requires_grad=True)
    asked = [x] if query is None else [x, query]
    assert torch.autograd.gradcheck(lambda x, *q: reference.aggregate_epochs(x, MASKS[mask], mode, *q), asked)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mask", MASKS)
def test_opcheck(mode: str, mask: str) -> None:
    ops = torch.ops.bioreport
    x, query = inputs(mode, requires_grad=True)
    torch.library.opcheck(ops.aggregate_epochs.default, (x, MASKS[mask], mode, query, True))
    x, query = inputs(mode)
    torch.library.opcheck(ops.aggregate_epochs.default, (x, MASKS[mask], mode, query, False))
    tokens, saved = ops.aggregate_epochs(x, MASKS[mask], mode, query, True)
    kept = None if mode == "mean" else x
    arguments = (tokens, kept, list(x.shape), MASKS[mask], mode, query, tokens, saved)
    for needed in ((True, mode == "attention"), (mode != "attention", mode == "attention")):
        torch.library.opcheck(ops.aggregate_epochs_backward.default, (*arguments, *needed))
    chunk = x.flatten(1, 2)[:3]
    shown = None if mask == "none" else chunk[..., 0] > 0
    torch.library.opcheck(ops.aggregate_patches.default, (chunk, shown, 4, 3, mode, query))


@pytest.mark.parametrize(
    ("mode", "backend"),
    [
        *((mode, "aot_eager") for mode in MODES),
        pytest.param("attention", "inductor", marks=pytest.mark.slow),
    ],
)
def test_compiles_as_one_graph(mode: str, backend: str) -> None:
    def loss(x: Tensor, *query: Tensor) -> Tensor:
        return aggregate_epochs(x * 2, MASKS["patches"], mode, *query).square().sum()

    both = []
    for run in (loss, torch.compile(loss, fullgraph=True, backend=backend)):
        leaves = [leaf for leaf in inputs(mode, None, requires_grad=True) if leaf is not None]
        both.append(torch.autograd.grad(run(*leaves), leaves))
    for eager, compiled in zip(*both, strict=True):
        assert_close(compiled, eager, 1e-6)


def test_meta_device_gives_shapes() -> None:
    x = torch.empty(6, 22, 10, 200, device="meta", dtype=torch.bfloat16, requires_grad=True)
    mask = torch.empty(6, 22, device="meta", dtype=torch.bool)
    query = torch.empty(3, 200, device="meta", requires_grad=True)
    tokens = aggregate_epochs(x, mask, "attention", query)
    assert (tokens.shape, tokens.dtype, tokens.device.type) == ((6, 3, 200), torch.bfloat16, "meta")
    dx, dquery = torch.autograd.grad(tokens.sum(), [x, query])
    assert (dx.shape, dx.dtype, dquery.shape, dquery.dtype) == (
        x.shape,
        torch.bfloat16,
        query.shape,
        torch.float32,
    )
    state = EpochAggregator(10, "max")
    assert state.update(x[0], mask[0]).shape == (1, 200)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("by_patch", [False, True])
def test_what_is_masked_changes_no_bit(mode: str, by_patch: bool) -> None:
    x, query = inputs(mode)
    mask = MASKS["patches" if by_patch else "channels"]
    assert mask is not None
    shown = mask if by_patch else mask[:, :, None].expand(4, 3, 5)
    results = []
    for hidden in (0.0, float("nan"), float("inf"), -1e30):
        leaves = [x.masked_fill(~shown[..., None], hidden).requires_grad_()]
        leaves += [] if query is None else [query.clone().requires_grad_()]
        tokens = aggregate_epochs(leaves[0], mask, mode, *leaves[1:])
        results.append([tokens, *torch.autograd.grad(tokens, leaves, torch.ones_like(tokens))])
    assert not results[0][1][~shown].any()
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            # of a product with 0 the rounding may differ, nothing else
            assert_close(b, a, 1e-6)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_chunks_of_epochs_are_the_whole(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, mask: str, mode: str
) -> None:
    monkeypatch.setattr(plain, "CHUNK", 3 * 5 * 7 * 3)
    x, query = (None if y is None else y.to(dtype) for y in inputs(mode))
    assert x is not None
    # every other feature of a longer vector, patches before channels
    x = torch.stack([x, x], 4).flatten(3)[..., ::2].transpose(1, 2).contiguous().transpose(1, 2)
    wide = [y.double().requires_grad_() for y in (x, query) if y is not None]
    leaves = [y.clone().requires_grad_() for y in (x, query) if y is not None]
    want = reference.aggregate_epochs(wide[0], MASKS[mask], mode, *wide[1:])
    got = aggregate_epochs(leaves[0], MASKS[mask], mode, *leaves[1:])
    assert got.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else torch.finfo(dtype).eps
    assert_close(got, want, tolerance)
    # the same upstream value for every token, as a sum leaves it
    slopes = torch.autograd.grad(got.sum(), leaves), torch.autograd.grad(want.sum(), wide)
    for name, ours, exact in zip(("features", "query"), *slopes, strict=False):
        assert_close(ours, exact, tolerance, name, floor=1e-2)


def test_a_call_without_gradients_keeps_nothing() -> None:
    x, query = inputs("attention", requires_grad=True)
    with torch.no_grad():
        tokens = aggregate_epochs(x, None, "attention", query)
    assert not tokens.requires_grad
    x = x.detach()
    dquery = torch.autograd.grad(aggregate_epochs(x, None, "attention", query).sum(), query)
    assert dquery[0].shape == query.shape if query is not None else False


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_s_state_is_as_small_after_a_day_as_after_a_minute(mode: str) -> None:
    query = torch.randn(2, 16) if mode == "attention" else None
    aggregator, held = EpochAggregator(10, mode, query), []
    for length in (25, 8003):
        aggregator.update(torch.randn(4, length, 16))
        assert aggregator._state is not None
        held.append(sum(tensor.untyped_storage().nbytes() for tensor in aggregator._state))
    assert held[0] == held[1] <= 8 * 2 * 18


@pytest.mark.parametrize("mode", MODES)
def test_a_long_stream_of_single_patches_is_the_whole_within_1e_6(mode: str) -> None:
    torch.manual_seed(0)
    stream = torch.randn(22, 1000, 24) + 3
    query = torch.randn(24) if mode == "attention" else None
    aggregator = EpochAggregator(1000, mode, query)
    tokens = [aggregator.update(patch) for patch in stream.split(1, 1)]
    wide = None if query is None else query.double()
    assert_close(torch.cat(tokens), reference.aggregate_epochs(stream[None].double(), None, mode, wide), 2e-7)
