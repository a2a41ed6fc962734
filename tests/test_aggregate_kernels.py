"""The Triton kernels of epoch aggregation against their definition in float64."""

from typing import Any

import pytest
import torch
from kernel_checks import DEVICE, assert_close, relative_rms
from torch import Tensor

from bioreport_kernels import EpochAggregator, reference
from bioreport_kernels import aggregate as operator
from bioreport_kernels.gpu import aggregate

pytestmark = pytest.mark.untraced
FLOAT32 = 1e-5
MODES = ("mean", "max", "attention")


def inputs(*shape: int, queries: int = 2, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    torch.manual_seed(sum(shape))
    return torch.randn(shape).to(DEVICE, dtype), torch.randn(queries, shape[3]).to(DEVICE, dtype)


def by_kernels(x: Tensor, mask: Tensor | None, mode: str, query: Tensor, grad: Tensor | None) -> list[Tensor]:
    asked = query if mode == "attention" else None
    tokens, saved = aggregate.forward(x, mask, mode, asked, True)
    upstream = torch.ones_like(tokens) if grad is None else grad
    dx, dquery = aggregate.backward(
        upstream, x, list(x.shape), mask, mode, asked, tokens, saved, True, asked is not None
    )
    return [tokens, dx, dquery] if asked is not None else [tokens, dx]


def by_definition(
    x: Tensor, mask: Tensor | None, mode: str, query: Tensor, grad: Tensor | None
) -> list[Tensor]:
    x, query = (y.detach().double().cpu().requires_grad_() for y in (x, query))
    asked = query if mode == "attention" else None
    tokens = reference.aggregate_epochs(x, None if mask is None else mask.cpu(), mode, asked)
    leaves = [x] if asked is None else [x, query]
    upstream = torch.ones_like(tokens) if grad is None else grad.double().cpu()
    return [tokens.detach(), *torch.autograd.grad(tokens, leaves, upstream)]


def check(
    x: Tensor, mask: Tensor | None, mode: str, query: Tensor, grad: Tensor | None = None, **options: Any
) -> None:
    compare(by_kernels(x, mask, mode, query, grad), by_definition(x, mask, mode, query, grad), **options)


def compare(found: list[Tensor], wanted: list[Tensor], tolerance: float = FLOAT32) -> None:
    for name, (got, want) in zip(("tokens", "dx", "dquery"), zip(found, wanted, strict=True), strict=False):
        assert_close(got, want, tolerance, name, floor=1e-3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (3, 2, 3, 25), (1, 22, 10, 200), (1, 9, 31, 72), (2, 3, 5, 513)]
)
@pytest.mark.usefixtures("poisoned")
def test_tokens_and_gradients(shape: tuple[int, ...], mode: str) -> None:
    x, query = inputs(*shape)
    grad = torch.randn(shape[0], 2, shape[3]) if mode == "attention" else torch.randn(shape[0], shape[3])
    check(x, None, mode, query, grad.to(DEVICE))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("by_patch", [False, True])
@pytest.mark.usefixtures("poisoned")
def test_what_is_masked_changes_nothing(mode: str, by_patch: bool) -> None:
    x, query = inputs(4, 5, 6, 40)
    mask = torch.rand(4, 5, 6) > 0.4 if by_patch else torch.rand(4, 5) > 0.4
    # one epoch without anything left
    mask[2] = False
    mask = mask.to(DEVICE)
    shown = mask if by_patch else mask[:, :, None].expand(4, 5, 6)
    x[~shown] = float("nan")
    got = by_kernels(x, mask, mode, query, None)
    want = by_definition(x.nan_to_num(nan=0.0), mask, mode, query, None)
    for name, g, w in zip(("tokens", "dx", "dquery"), got, want, strict=False):
        assert_close(g, w, FLOAT32, name, floor=1e-3)
    assert not got[0][2].any() and not got[1][2].any() and not got[1][~shown].any()


@pytest.mark.usefixtures("poisoned")
def test_ties_of_a_maximum_share_its_gradient() -> None:
    x, query = inputs(2, 3, 4, 16)
    x[:, 1] = x[:, 0]
    x[:, :2] += 5
    check(x, None, "max", query)


@pytest.mark.parametrize("queries", [1, 8, 11])
@pytest.mark.usefixtures("poisoned")
def test_many_queries(queries: int) -> None:
    x, query = inputs(2, 4, 7, 40, queries=queries)
    check(x, None, "attention", query, torch.randn(2, queries, 40).to(DEVICE))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("layout", ["transposed", "sliced", "expanded", "features apart"])
@pytest.mark.usefixtures("poisoned")
def test_any_strides(mode: str, layout: str) -> None:
    x, query = inputs(2, 5, 6, 25)
    match layout:
        case "transposed":
            x = x.transpose(1, 2)
        case "sliced":
            x = torch.cat([x, x], 3)[..., 3:28]
        case "expanded":
            x = x[:, :1].expand(2, 5, 6, 25)
        case "features apart":
            x = x.transpose(2, 3).contiguous().transpose(2, 3)
    shape = (1, 2, 25) if mode == "attention" else (1, 25)
    check(x, None, mode, query, torch.randn(shape).to(DEVICE).expand(2, *shape[1:]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("poisoned")
def test_float16_within_twice_pytorch_s_own_error(mode: str) -> None:
    x, query = inputs(2, 9, 10, 64, dtype=torch.float16)
    if mode == "attention":
        scores = (torch.einsum("qd,ecpd->eqcp", query, x) * 64**-0.5).flatten(2)
        naive = torch.einsum("eqn,end->eqd", scores.softmax(2), x.flatten(1, 2))
    else:
        naive = x.flatten(1, 2).mean(1) if mode == "mean" else x.flatten(1, 2).amax(1)
    got, want = by_kernels(x, None, mode, query, None)[0], by_definition(x, None, mode, query, None)[0]
    assert_close(got, want, 2 * relative_rms(naive, want) + 3e-4)


def test_large_scores() -> None:
    x, query = inputs(2, 3, 4, 16)
    check(x * 100, None, "attention", query * 10, tolerance=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_rows_beyond_two_gigaelements(axis: int) -> None:
    """Each of the three products of an address, where 32 bits would not hold it."""
    # odd, so that it is not passed as a multiple of a vector's length
    stride = 2**30 + 2**28 + 1
    # never touched beyond the few rows, so it costs no memory where the system hands it out by use
    room = torch.empty(2 * stride + 64, dtype=torch.float16, device=DEVICE)
    shape = [1, 1, 1, 16]
    shape[axis] = 3
    x, query = inputs(*shape, dtype=torch.float16)
    strides = [0, 0, 0, 1]
    strides[axis] = stride
    far = room.as_strided(shape, strides)
    far.copy_(x)
    mask = torch.ones(shape[:3], dtype=torch.bool, device=DEVICE)
    for mode in MODES:
        for near, distant in zip(
            by_kernels(x, mask, mode, query, None), by_kernels(far, mask, mode, query, None), strict=True
        ):
            assert torch.equal(distant, near)


def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that are launched from here on."""
    seen: list[str] = []
    start = aggregate.launch

    def note(kernel: Any, *args: Any, **settings: Any) -> None:
        seen.append(kernel.__name__)
        start(kernel, *args, **settings)

    monkeypatch.setattr(aggregate, "launch", note)
    return seen


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("poisoned")
def test_slices_of_an_epoch_are_merged_always_alike(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    seen = launched(monkeypatch)
    x, query = inputs(2, 19, 31, 40)
    # later slices have the larger scores
    x *= torch.linspace(0.5, 3.0, 19, device=DEVICE)[:, None, None]
    # equal maxima in several slices, and in rows of the same place of several tiles
    x[:, ::4, 3, ::2] = 9.0
    mask = torch.rand(2, 19, 31, device=DEVICE) > 0.3
    # the first slices of an epoch have nothing
    mask[1, :12] = False
    grad = torch.randn((2, 2, 40) if mode == "attention" else (2, 40), device=DEVICE)
    once, again = (by_kernels(x, mask, mode, query, grad) for _ in range(2))
    assert "_merge_kernel" in seen
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    compare(once, by_definition(x, mask, mode, query, grad))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("poisoned")
def test_tiles_after_one_another(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """Of a whole epoch, by channel and patch, since a mask of channels does not run through the rows."""
    monkeypatch.setattr(aggregate, "processors", lambda device: 1)
    seen = launched(monkeypatch)
    x, query = inputs(1, 7, 60, 40)
    # ties of rows that lie whole tiles apart
    x[:, :, ::4, ::2] = 9.0
    mask = torch.tensor([[True, True, False, True, False, True, True]], device=DEVICE)
    check(x, mask, mode, query, torch.randn((1, 2, 40) if mode == "attention" else (1, 40), device=DEVICE))
    assert "_merge_kernel" not in seen


@pytest.mark.parametrize("mode", MODES)
def test_many_epochs_take_one_launch_forward_and_one_backward(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    seen = launched(monkeypatch)
    monkeypatch.setattr(aggregate, "processors", lambda device: 3)
    x, query = inputs(3, 1, 40, 16, queries=8)
    by_kernels(x, None, mode, query, None)
    kind = "pool" if mode != "attention" else "attend"
    backward = [f"_{kind}_backward_kernel"] * (4 if mode == "attention" else 1)
    # float32 takes two queries at a time backward
    assert seen == [f"_{kind}_kernel", *backward]


@pytest.mark.parametrize("needed", [(True, False), (False, True)])
def test_only_what_is_needed_is_computed(needed: tuple[bool, bool]) -> None:
    x, query = inputs(2, 3, 4, 25)
    tokens, saved = aggregate.forward(x, None, "attention", query, True)
    arguments = (tokens, x, list(x.shape), None, "attention", query, tokens, saved)
    both = aggregate.backward(*arguments, True, True)
    for got, want, need in zip(aggregate.backward(*arguments, *needed), both, needed, strict=True):
        assert torch.equal(got, want) if need else not got.numel()


@pytest.mark.parametrize("mode", MODES)
def test_infinities_and_nan_that_count_are_pytorch_s(mode: str) -> None:
    x, query = inputs(4, 2, 3, 16)
    x[0, 0, 0, :4] = float("nan")
    x[1, 1, 2, :4] = float("inf")
    x[2, :, :, :4] = float("-inf")
    for got, want in zip(
        by_kernels(x, None, mode, query, None), by_definition(x, None, mode, query, None), strict=True
    ):
        torch.testing.assert_close(got.double().cpu(), want, equal_nan=True, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("poisoned")
def test_a_query_finer_than_the_features_keeps_its_precision() -> None:
    x, query = inputs(2, 5, 6, 64, dtype=torch.float16)
    query = query.float() * (1 + 2**-12)
    coarse = by_definition(x, None, "attention", query.half(), None)
    got, want = (
        by_kernels(x, None, "attention", query, None),
        by_definition(x, None, "attention", query, None),
    )
    assert got[2].dtype == torch.float32
    assert relative_rms(got[0], want[0]) < relative_rms(coarse[0], want[0])
    assert_close(got[0], want[0], 4e-4)
    assert_close(got[1], want[1], 1e-3)
    assert_close(got[2], want[2], 1e-3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("poisoned")
def test_gradients_of_float16_within_twice_pytorch_s_own_error(mode: str) -> None:
    x, query = inputs(3, 7, 10, 64, dtype=torch.float16)
    leaves = [y.clone().requires_grad_() for y in ([x, query] if mode == "attention" else [x])]
    if mode == "attention":
        scores = torch.einsum("qd,ecpd->eqcp", leaves[1], leaves[0]).flatten(2) * 64**-0.5
        naive = torch.einsum("eqn,end->eqd", scores.softmax(2), leaves[0].flatten(1, 2))
    else:
        rows = leaves[0].flatten(1, 2)
        naive = rows.mean(1) if mode == "mean" else rows.amax(1)
    grad = torch.randn_like(naive)
    own = torch.autograd.grad(naive, leaves, grad)
    got, want = by_kernels(x, None, mode, query, grad)[1:], by_definition(x, None, mode, query, grad)[1:]
    for ours, theirs, exact in zip(got, own, want, strict=True):
        assert_close(ours, exact, 2 * relative_rms(theirs, exact) + 1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chunks", [[3, 0, 9, 1, 8], [21], [1] * 6])
@pytest.mark.usefixtures("poisoned")
def test_a_stream_gives_the_tokens_of_its_epochs(
    monkeypatch: pytest.MonkeyPatch, chunks: list[int], mode: str
) -> None:
    monkeypatch.setattr(operator, "_patches", aggregate.reduce)
    # a view of a longer recording, channels last
    stream = torch.randn(30, 3, 24, device=DEVICE).transpose(0, 1)[:, : sum(chunks)]
    mask = torch.rand(3, sum(chunks), device=DEVICE) > 0.3
    mask[:, :4] = False
    stream[~mask] = float("nan")
    query = torch.randn(2, 24, device=DEVICE) if mode == "attention" else None
    aggregator, tokens = EpochAggregator(4, mode, query), []
    for part, there in zip(stream.split(chunks, 1), mask.split(chunks, 1), strict=True):
        tokens.append(aggregator.update(part, there))
    tokens.append(aggregator.flush())
    padding = -sum(chunks) % 4
    by_epoch, shown = (
        torch.cat([y, y.new_zeros(3, padding, *y.shape[2:])], 1).unflatten(1, (-1, 4)).transpose(0, 1)
        for y in (stream, mask)
    )
    want = reference.aggregate_epochs(
        by_epoch.double(), shown, mode, None if query is None else query.double()
    )
    assert_close(torch.cat(tokens), want, 1e-6, floor=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a GPU")
@pytest.mark.parametrize("mode", MODES)
def test_bits_are_the_same_from_run_to_run_and_in_a_graph(mode: str) -> None:
    x, query = inputs(3, 22, 100, 200, queries=3, dtype=torch.bfloat16)
    asked = query if mode == "attention" else None
    first = by_kernels(x, None, mode, query, None)
    for _ in range(20):
        assert all(
            torch.equal(a, b) for a, b in zip(first, by_kernels(x, None, mode, query, None), strict=True)
        )
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        tokens, _ = aggregate.forward(x, None, mode, asked, False)
    graph.replay()
    assert torch.equal(tokens, first[0])
