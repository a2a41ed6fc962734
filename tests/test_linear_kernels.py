"""The Triton kernels of linear attention against its definition in float64."""

import itertools
from typing import Any

import pytest
import torch
from kernel_checks import DEVICE, assert_close, relative_rms
from torch import Tensor

from bioreport_kernels import configs, reference
from bioreport_kernels.gpu import linear, linear_causal

pytestmark = pytest.mark.untraced
FLOAT32, NAMES = 1e-5, ("o", "dq", "dk", "dv")


def tensors(*shape: int, values: int | None = None, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """q, k, v and the gradient of the output."""
    torch.manual_seed(sum(shape))
    dims = (shape[-1], shape[-1], values or shape[-1], values or shape[-1])
    return [torch.randn(*shape[:-1], d).to(DEVICE, dtype) for d in dims]


def by_kernels(
    q: Tensor, k: Tensor, v: Tensor, grad: Tensor, feature_map: str, borders: Tensor | None = None
) -> list[Tensor]:
    scale = q.shape[3] ** -0.5 if feature_map == "softmax" else 1.0
    out, *kept = linear.forward(q, k, v, borders, feature_map, scale)
    return [out, *linear.backward(grad, q, k, v, *kept, borders, feature_map, scale)]


def by_definition(
    q: Tensor, k: Tensor, v: Tensor, grad: Tensor, feature_map: str, borders: Tensor | None = None
) -> list[Tensor]:
    leaves = [x.detach().double().cpu().requires_grad_() for x in (q, k, v)]
    borders = None if borders is None else borders.cpu()
    out = reference.linear_attention(*leaves, feature_map=feature_map, cu_seqlens=borders)
    assert isinstance(out, Tensor)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad.double().cpu())]


def check(*args: Any, tolerance: float = FLOAT32, **options: Any) -> None:
    for name, got, want in zip(
        NAMES, by_kernels(*args, **options), by_definition(*args, **options), strict=True
    ):
        assert_close(got, want, tolerance, name, floor=0.1)


DIMS, LENGTHS = (1, 25, 40, 64, 72, 100, 128), (1, 2, 63, 129, 1003)


@pytest.mark.parametrize("feature_map", ["softmax", "elu"])
@pytest.mark.parametrize(
    ("length", "dim"),
    # every dim over tiles of which the last is not full, every length with one dim
    [(length, dim) for length in LENGTHS for dim in DIMS if length == 129 or dim == 25],
)
@pytest.mark.usefixtures("poisoned")
def test_output_and_gradients(length: int, dim: int, feature_map: str) -> None:
    check(*tensors(1 if length > 500 else 2, length, 2, dim), feature_map)


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full chip, where narrow heads share a program; chunks stay short."""
    monkeypatch.setattr(linear, "processors", lambda device: 1)
    monkeypatch.setattr(linear, "LARGEST_CHUNK", 128)
    setting = {"BLOCK_T": 64, "COLUMNS": 128, "num_warps": 8, "num_stages": 2}
    monkeypatch.setattr(configs, "_trial", dict.fromkeys(linear.CANDIDATES, setting))


def heads_in_a_program(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Heads that each later launch takes together."""
    seen: list[int] = []
    start = linear.launch

    def note(*args: Any, **settings: Any) -> None:
        seen.append(settings["HEADS"])
        start(*args, **settings)

    monkeypatch.setattr(linear, "launch", note)
    return seen


@pytest.mark.parametrize("feature_map", ["softmax", "elu"])
@pytest.mark.parametrize(("heads", "dim"), [(8, 25), (6, 25), (3, 40), (5, 1)])
@pytest.mark.usefixtures("poisoned", "crowded")
def test_heads_side_by_side(monkeypatch: pytest.MonkeyPatch, heads: int, dim: int, feature_map: str) -> None:
    seen = heads_in_a_program(monkeypatch)
    check(*tensors(1, 270, heads, dim), feature_map)
    assert seen and min(seen) > 1
    q, k, v, grad = tensors(2, 40, heads, dim)
    check(*torch.stack([q, k, v], 2).unbind(2), grad, feature_map)


@pytest.mark.usefixtures("crowded")
def test_heads_apart_are_taken_singly(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = heads_in_a_program(monkeypatch)
    check(*(x.transpose(1, 2).contiguous().transpose(1, 2) for x in tensors(1, 70, 4, 25)), "softmax")
    assert set(seen) == {1}


@pytest.mark.usefixtures("poisoned", "crowded")
def test_a_head_far_above_its_neighbours_in_one_tile() -> None:
    q, k, v, grad = tensors(1, 130, 4, 25)
    q[:, :, 3] += 90.0
    k[:, :, 0] -= 90.0
    check(q, k, v, grad, "softmax")


@pytest.mark.parametrize("feature_map", ["softmax", "elu"])
@pytest.mark.parametrize(("dim", "heads"), [(25, 8), (64, 2), (100, 1)])
@pytest.mark.usefixtures("poisoned")
def test_float16_within_twice_pytorch_s_own_error(dim: int, heads: int, feature_map: str) -> None:
    q, k, v, grad = tensors(1, 300, heads, dim, dtype=torch.float16)
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    if feature_map == "softmax":
        query, key = leaves[0].softmax(3) * dim**-0.5, leaves[1].softmax(1)
        naive = torch.einsum("bthd,bhde->bthe", query, torch.einsum("bthd,bthe->bhde", key, leaves[2]))
    else:
        query, key = (torch.nn.functional.elu(x) + 1 for x in leaves[:2])
        # every sum of 300 values and more is divided early, or float16 would end
        context = torch.einsum("bthd,bthe->bhde", key / 300, leaves[2])
        norm = torch.einsum("bthd,bhd->bth", query, (key / 300).sum(1))
        naive = torch.einsum("bthd,bhde->bthe", query, context) / norm[..., None]
    own = [naive, *torch.autograd.grad(naive, leaves, grad)]
    wanted = by_definition(q, k, v, grad, feature_map)
    for name, got, plain, want in zip(
        NAMES, by_kernels(q, k, v, grad, feature_map), own, wanted, strict=True
    ):
        assert got.dtype == torch.float16
        assert_close(got, want, 2 * relative_rms(plain, want) + 1e-4, name)


@pytest.mark.parametrize("feature_map", ["softmax", "elu"])
@pytest.mark.parametrize(
    ("heads", "dim", "values", "lengths"),
    [
        (8, 25, 25, [0, 130, 1, 0, 70, 2]),
        (6, 25, 25, [130, 0]),
        (2, 64, 64, [1, 500, 0, 0, 64]),
        (1, 40, 72, [0]),
        (1, 16, 128, [5, 129]),
    ],
)
@pytest.mark.usefixtures("poisoned")
def test_packed_sequences_attend_within_themselves(
    heads: int, dim: int, values: int, lengths: list[int], feature_map: str
) -> None:
    borders = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device=DEVICE)
    check(*tensors(1, sum(lengths), heads, dim, values=values), feature_map, borders=borders)


def views(layout: str) -> list[Tensor]:
    q, k, v, grad = tensors(2, 70, 4, 25)
    match layout:
        case "fused projection":
            return [*torch.stack([q, k, v], 2).unbind(2), grad]
        case "heads before time":
            return [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v, grad)]
        case "features apart":
            return [x.transpose(2, 3).contiguous().transpose(2, 3) for x in (q, k, v, grad)]
        case "sliced":
            wide = [torch.cat([x, x, x], 3)[:, :, :, 3:28] for x in (q, k, v, grad)]
            return [torch.cat([x, x], 1)[:, 35:105] for x in wide]
        case "expanded":
            return [
                q[:, :, :1].expand_as(q),
                k[:1].expand_as(k),
                v[:, :1].expand_as(v),
                grad[:, :1].expand_as(v),
            ]
        case "gradient of a sum":
            return [q, k, v, torch.ones((), device=DEVICE).expand_as(v)]
    raise AssertionError(layout)


@pytest.mark.parametrize("feature_map", ["softmax", "elu"])
@pytest.mark.parametrize(
    "layout",
    ["fused projection", "heads before time", "features apart", "sliced", "expanded", "gradient of a sum"],
)
@pytest.mark.usefixtures("poisoned")
def test_any_strides(layout: str, feature_map: str) -> None:
    q, k, v, grad = views(layout)
    check(q, k, v, grad, feature_map)


@pytest.mark.parametrize("feature_map", ["softmax", "elu"])
@pytest.mark.usefixtures("poisoned")
def test_large_and_very_low_values(feature_map: str) -> None:
    q, k, v, grad = tensors(1, 130, 4, 25)
    k[:, ::3, 1] += 300.0
    k[:, 5:, 2] = torch.finfo(torch.float32).min
    q[:, 7, 0, :20] = torch.finfo(torch.float32).min
    q[:, 9] += 200.0
    q[:, :, 3] += 90.0
    k[:, :, 0] -= 60.0
    check(q, k, v, grad, feature_map, tolerance=FLOAT32 if feature_map == "softmax" else 3e-5)


def test_a_feature_that_is_nowhere_counts_evenly() -> None:
    q, k, v, grad = tensors(1, 20, 1, 16)
    k[..., 3] = float("-inf")
    evenly = k.clone()
    evenly[..., 3] = 0.0
    for got, want in zip(
        by_kernels(q, k, v, grad, "softmax"), by_kernels(q, evenly, v, grad, "softmax"), strict=True
    ):
        assert_close(got, want, FLOAT32)


def test_nan_reaches_the_result() -> None:
    q, k, v, _ = tensors(1, 20, 1, 16)
    k[0, 3, 0, 5] = float("nan")
    out, *_ = linear.forward(q, k, v, None, "softmax", 1.0)
    assert out.isnan().all()


@pytest.mark.parametrize("shape", [(2, 0, 3, 8), (0, 5, 3, 8), (1, 4, 0, 8)])
@pytest.mark.parametrize("feature_map", ["softmax", "elu"])
def test_nothing_gives_nothing(shape: tuple[int, ...], feature_map: str) -> None:
    for got, x in zip(by_kernels(*tensors(*shape), feature_map), tensors(*shape)[2:] * 2, strict=True):
        assert got.shape == x.shape


def test_rows_beyond_two_gigaelements() -> None:
    stride = 2**30 + 2**28
    # memory that is never touched costs nothing: three rows in 5 GB
    room = torch.empty(2 * stride + 64, dtype=torch.float16, device=DEVICE)
    q, k, v, grad = tensors(1, 3, 1, 16, dtype=torch.float16)
    far = []
    for i, x in enumerate((q, k, v, grad)):
        view = room.as_strided((1, 3, 1, 16), (0, stride, 16, 1), 16 * i)
        view.copy_(x)
        far.append(view)
    for got, want in zip(by_kernels(*far, "softmax"), by_kernels(q, k, v, grad, "softmax"), strict=True):
        assert torch.equal(got, want)


@pytest.fixture
def any_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings for float32, too: none is shipped, as kernels would spill, but it checks them most closely."""
    setting = {"BLOCK_T": 32, "VALUES": 64, "num_warps": 8, "num_stages": 1}
    monkeypatch.setattr(configs, "_trial", dict.fromkeys(linear_causal.CANDIDATES, setting))


def causal_by_definition(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    borders: Tensor | None,
    state: tuple[Tensor, Tensor] | None,
    grads: list[Tensor],
) -> list[Tensor]:
    leaves = [x.detach().double().cpu().requires_grad_() for x in (q, k, v, *(state or ()))]
    out, final = reference.linear_attention(
        *leaves[:3],
        feature_map="elu",
        causal=True,
        cu_seqlens=None if borders is None else borders.cpu(),
        initial_state=None if state is None else (leaves[3], leaves[4]),
        return_state=True,
    )
    results = [out, *final]
    wanted = torch.autograd.grad(results, leaves, [g.double().cpu() for g in grads])
    return [*(x.detach() for x in results), *wanted]


@pytest.mark.parametrize(
    ("shape", "values", "lengths", "with_state"),
    [
        ((2, 1, 1, 1), 1, None, True),
        ((1, 2, 2, 25), 25, None, False),
        ((2, 129, 2, 25), 25, None, True),
        ((1, 1003, 1, 40), 72, None, True),
        ((1, 131, 1, 100), 128, None, False),
        ((1, 0, 2, 8), 8, None, True),
        ((1, 333, 2, 25), 25, [0, 300, 1, 0, 32], True),
        ((1, 63, 1, 64), 64, [63], False),
    ],
)
@pytest.mark.skipif(DEVICE.type == "cuda", reason="no kernel is shipped for float32")
@pytest.mark.usefixtures("poisoned", "any_dtype")
def test_causal(shape: tuple[int, ...], values: int, lengths: list[int] | None, with_state: bool) -> None:
    q, k, v, grad = tensors(*shape, values=values)
    sequences = shape[0] if lengths is None else len(lengths)
    borders = None
    if lengths is not None:
        borders = torch.tensor([0, *itertools.accumulate(lengths)], device=DEVICE)
    state_shape = (sequences, shape[2], shape[3], values)
    state = torch.randn(state_shape).to(DEVICE), torch.rand(state_shape[:3]).to(DEVICE) * 5
    grads = [grad, torch.randn(state_shape).to(DEVICE), torch.randn(state_shape[:3]).to(DEVICE)]
    start = state if with_state else (None, None)
    got = [*linear_causal.forward(q, k, v, borders, 1.0, *start)]
    got += linear_causal.backward(*grads, q, k, v, *start, borders, 1.0)[: 5 if with_state else 3]
    wanted = causal_by_definition(q, k, v, borders, state if with_state else None, grads)
    names = ("o", "context", "total", "dq", "dk", "dv", "dcontext0", "dtotal0")
    for name, g, w in zip(names[: len(wanted)], got, wanted, strict=True):
        assert_close(g, w, FLOAT32, name, floor=0.1)


@pytest.mark.usefixtures("poisoned")
def test_causal_float16_keeps_its_mantissa() -> None:
    q, k, v, grad = tensors(1, 500, 2, 25, dtype=torch.float16)
    grads = [grad, torch.zeros(1, 2, 25, 25, device=DEVICE), torch.zeros(1, 2, 25, device=DEVICE)]
    got = [*linear_causal.forward(q, k, v, None, 1.0, None, None)]
    got += linear_causal.backward(*grads, q, k, v, None, None, None, 1.0)[:3]
    for g, w in zip(got, causal_by_definition(q, k, v, None, None, grads), strict=True):
        assert_close(g, w, 1e-3)
