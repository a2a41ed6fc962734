"""Dense layers by oneDNN: PyTorch's own, but for rounding."""

import pytest
import torch
from kernel_checks import assert_close
from torch.nn import functional as F

from bioreport_kernels.cpu import dense
from bioreport_kernels.cpu.dense import LEAST_ROWS, Linear, linear

by_onednn = pytest.mark.skipif(not dense._is_there(), reason="PyTorch multiplies here")


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float32, requires_grad=True)


@pytest.mark.parametrize(
    "shape", [(LEAST_ROWS, 20), (1003, 20), (3, 50, 20), (2, 3, 7, 20), (5, 20), (20,), (0, 20)]
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("upstream", ["own", "expanded", "transposed"])
def test_result_and_gradients(shape: tuple[int, ...], bias: bool, upstream: str) -> None:
    torch.manual_seed(0)
    leaves = [draw(*shape), draw(30, 20), *([draw(30)] if bias else [])]
    wide = [x.detach().double().requires_grad_() for x in leaves]
    got, want = linear(*leaves), F.linear(*wide)
    grad = torch.ones(()).expand(got.shape) if upstream == "expanded" else torch.randn(got.shape)
    if upstream == "transposed":
        grad = grad.transpose(0, -1).contiguous().transpose(0, -1)
    assert_close(got.detach(), want.detach(), 1e-6)
    grads = zip(
        torch.autograd.grad(got, leaves, grad), torch.autograd.grad(want, wide, grad.double()), strict=True
    )
    for x, y in grads:
        assert_close(x, y, 1e-6)


def test_rows_that_are_views() -> None:
    x = torch.randn(20, 200).t()
    layer = Linear(20, 30)
    assert_close(layer(x).detach(), F.linear(x, layer.weight, layer.bias).detach(), 1e-6)
    assert_close(layer(x[::2]).detach(), F.linear(x[::2], layer.weight, layer.bias).detach(), 1e-6)


@by_onednn
def test_only_what_is_asked_for_is_differentiated(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    product = dense._product
    monkeypatch.setattr(dense, "_product", lambda *args: calls.append(args) or product(*args))
    x, weight = torch.randn(40, 20), draw(30, 20)
    linear(x, weight).sum().backward()
    assert len(calls) == 2 and weight.grad is not None
    with torch.no_grad():
        assert not linear(x, weight).requires_grad


@by_onednn
def test_where_it_does_not_suit_pytorch_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("oneDNN was called")

    monkeypatch.setattr(dense, "_product", refuse)
    x, weight = torch.randn(40, 20), torch.randn(30, 20)
    with pytest.raises(AssertionError, match="oneDNN"):
        linear(x, weight)
    linear(x.double(), weight.double())
    linear(x[: LEAST_ROWS - 1], weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    torch._C._set_mkldnn_enabled(False)
    try:
        linear(x, weight)
    finally:
        torch._C._set_mkldnn_enabled(True)
    with monkeypatch.context() as patch:
        patch.setattr(dense, "_is_there", lambda: False)
        linear(x, weight)
    compiled = torch.compile(lambda x: linear(x, weight), fullgraph=True, backend="aot_eager")
    assert compiled(x).shape == (40, 30)
