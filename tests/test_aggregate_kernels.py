"""The Triton kernels of epoch aggregation against their definition in float64."""

from typing import Any

import pytest
import torch
from kernel_checks import DEVICE, assert_close, relative_rms
from torch import Tensor

from bioreport_kernels import reference
from bioreport_kernels.gpu import aggregate

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
    pairs = zip(
        by_kernels(x, mask, mode, query, grad), by_definition(x, mask, mode, query, grad), strict=True
    )
    for name, (got, want) in zip(("tokens", "dx", "dquery"), pairs, strict=False):
        assert_close(got, want, options.get("tolerance", FLOAT32), name, floor=1e-3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (3, 2, 3, 25), (2, 22, 10, 200), (1, 19, 31, 72), (2, 3, 5, 513)]
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


def test_rows_beyond_two_gigaelements() -> None:
    stride = 2**30 + 2**28
    room = torch.empty(2 * stride + 64, dtype=torch.float16, device=DEVICE)
    x, query = inputs(1, 3, 1, 16, dtype=torch.float16)
    far = room.as_strided((1, 3, 1, 16), (0, stride, 16, 1))
    far.copy_(x)
    for mode in MODES:
        asked = query if mode == "attention" else None
        near = aggregate.forward(x, None, mode, asked, False)[0]
        assert torch.equal(aggregate.forward(far, None, mode, asked, False)[0], near)
