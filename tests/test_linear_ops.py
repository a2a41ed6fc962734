"""`linear_attention` as an operator of PyTorch: checked, compiled, differentiated, on no device at all."""

import pytest
import torch
from kernel_checks import assert_close

from bioreport_kernels import linear_attention, reference

pytestmark = pytest.mark.untraced

OP, CAUSAL = torch.ops.bioreport.linear_attention.default, torch.ops.bioreport.linear_attention_causal.default


def leaves(*shape: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(*shape, requires_grad=True) for _ in range(3)]


@pytest.mark.parametrize("feature_map", ["softmax", "elu"])
@pytest.mark.parametrize("borders", [None, torch.tensor([0, 3, 3, 7])])
def test_opcheck(feature_map: str, borders: torch.Tensor | None) -> None:
    torch.library.opcheck(OP, (*leaves(1, 7, 2, 5), borders, feature_map, 0.5))


@pytest.mark.parametrize("state", [True, False])
def test_opcheck_causal(state: bool) -> None:
    start = (torch.randn(1, 2, 5, 5).abs().requires_grad_(), torch.rand(1, 2, 5, requires_grad=True))
    torch.library.opcheck(CAUSAL, (*leaves(1, 7, 2, 5), None, 0.5, *(start if state else (None, None))))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("causal", [False, True])
def test_compiles_as_one_graph(causal: bool, backend: str) -> None:
    def loss(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = linear_attention(q * 2, k, v, feature_map="elu" if causal else "softmax", causal=causal)
        assert isinstance(out, torch.Tensor)
        return out.square().sum()

    eager, compiled = leaves(2, 9, 2, 5), leaves(2, 9, 2, 5)
    loss(*eager).backward()
    torch.compile(loss, fullgraph=True, backend=backend)(*compiled).backward()
    for x, y in zip(eager, compiled, strict=True):
        assert x.grad is not None and y.grad is not None
        assert_close(y.grad, x.grad, 1e-6)


def test_packed_compiles_as_one_graph() -> None:
    borders = torch.tensor([0, 4, 9])
    compiled = torch.compile(linear_attention, fullgraph=True, backend="aot_eager")
    q, k, v = leaves(1, 9, 2, 5)
    want = reference.linear_attention(q, k, v, cu_seqlens=borders)
    assert_close(compiled(q, k, v, cu_seqlens=borders), want, 1e-6)


def test_meta_device_gives_shapes() -> None:
    q, k, v = (torch.empty(2, 9, 2, 5, device="meta") for _ in range(3))
    out = linear_attention(q, k, v[..., :3])
    assert out.shape == (2, 9, 2, 3) and out.device.type == "meta"
    out, (context, total) = linear_attention(q, k, v, feature_map="elu", causal=True, return_state=True)
    assert (context.shape, total.shape) == ((2, 2, 5, 5), (2, 2, 5))


def test_borders_that_do_not_fit_are_named() -> None:
    q, k, v = leaves(1, 9, 2, 5)
    with pytest.raises(ValueError, match="must rise from 0 to T=9, got 0 to 8"):
        linear_attention(q, k, v, cu_seqlens=torch.tensor([0, 8]))
