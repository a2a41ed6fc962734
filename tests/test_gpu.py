"""What only a GPU can show: the same bits every time, CUDA graphs, no waiting for the host, real addresses.

The first test runs anywhere, so that the calls of the others are right when a GPU is there.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from gpu_operations import Operation, Tensors, operations
from kernel_checks import assert_close
from torch import Tensor

from bioreport_kernels import aggregate_epochs, linear_attention, reference

CUDA = torch.device("cuda")
on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
each = pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.name)


def same_bits(got: Tensors, want: Tensors) -> bool:
    """Equal to the last bit, NaN included."""
    return all(
        torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))
        for a, b in zip(got, want, strict=True)
    )


@each
def test_every_call_gives_results_and_gradients(operation: Operation) -> None:
    inputs = operation.inputs(torch.device("cpu"), torch.float32)
    results = operation.run(*inputs)
    assert all(x.isfinite().all() for x in results)
    assert same_bits(operation.run(*inputs), results)


class TestOnGpu:
    pytestmark = on_gpu

    @each
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
    def test_twenty_runs_give_the_same_bits(self, operation: Operation, dtype: torch.dtype) -> None:
        inputs = operation.inputs(CUDA, dtype)
        first = operation.run(*inputs)
        for _ in range(19):
            # other blocks of memory than the last time, and not clean ones
            poison = torch.full((1 << 22,), float("nan"), device=CUDA)
            assert same_bits(operation.run(*inputs), first)
            del poison

    @each
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
    def test_replayed_in_a_cuda_graph(self, operation: Operation, dtype: torch.dtype) -> None:
        inputs = operation.inputs(CUDA, dtype)
        want = [x.clone() for x in operation.run(*inputs)]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            operation.run(*inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = operation.run(*inputs)
        changed = inputs[0].clone()
        inputs[0].zero_()
        graph.replay()
        zeroed = operation.run(*inputs)
        assert same_bits(captured, zeroed)
        inputs[0].copy_(changed)
        graph.replay()
        assert same_bits(captured, tuple(want))

    @each
    def test_the_host_is_never_waited_for(self, operation: Operation) -> None:
        inputs = operation.inputs(CUDA, torch.bfloat16)
        operation.run(*inputs)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            operation.run(*inputs)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    @each
    def test_float32_is_what_the_cpu_computes(self, operation: Operation) -> None:
        host = torch.device("cpu")
        wanted = operation.run(*operation.inputs(host, torch.float32))
        got = operation.run(*operation.inputs(CUDA, torch.float32))
        same = slice(None)
        if not wanted[0].is_floating_point():
            # codes: two that are all but equally near may be taken for each other
            same = (got[0].cpu() == wanted[0]).view(len(wanted[0]), -1).all(1)
            assert same.double().mean() > 0.99
        for a, b in zip(got, wanted, strict=True):
            assert_close(a.cpu()[same], b[same], 2e-4)

    @pytest.mark.parametrize("dim", [25, 64, 128])
    def test_bfloat16_errs_no_more_than_pytorch_itself(self, dim: int) -> None:
        wide = torch.randn(
            3, 2, 1003, 4, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        narrow = wide.to(CUDA, torch.bfloat16)
        exact = _attend_and_differentiate(reference.linear_attention, narrow.double())
        ours = _attend_and_differentiate(linear_attention, narrow)
        plain = _attend_and_differentiate(_plain, narrow)
        for got, rough, want in zip(ours, plain, exact, strict=True):
            scale = want.square().mean().sqrt()
            errors = [(x.double() - want).square().mean().sqrt() / scale for x in (got, rough)]
            assert errors[0] <= 2 * errors[1] + 1e-3

    @each
    @pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
    def test_tensors_may_lie_on_another_gpu_than_the_current_one(self, operation: Operation) -> None:
        results = operation.run(*operation.inputs(CUDA, torch.float32))
        there = operation.run(*operation.inputs(torch.device("cuda", 1), torch.float32))
        for a, b in zip(there, results, strict=True):
            assert a.device.index == 1
            assert_close(a.cpu(), b.cpu(), 2e-4)

    def test_rows_further_apart_than_two_to_the_31(self) -> None:
        rows, heads, dim = 130, 2, 64
        apart = (1 << 24) + 64
        with memory(2 * rows * apart + (1 << 30)):
            storage = torch.zeros(rows * apart, dtype=torch.bfloat16, device=CUDA)
            small = torch.randn(3, 1, rows, heads, dim, device=CUDA, dtype=torch.bfloat16)
            far = [
                storage.as_strided((1, rows, heads, dim), (0, apart, dim, 1), i * heads * dim)
                for i in range(3)
            ]
            for view, values in zip(far, small, strict=True):
                view.copy_(values)
            assert (rows - 1) * apart > 1 << 31
            want = _attend_and_differentiate(linear_attention, small)
            got = _attend_and_differentiate(linear_attention, far)
            for a, b in zip(got, want, strict=True):
                assert_close(a, b, 1e-2)
            pooled = far[0].view(1, rows, heads, dim).transpose(1, 2)
            assert_close(aggregate_epochs(pooled), aggregate_epochs(small[0].transpose(1, 2)), 1e-2)

    def test_more_features_than_two_to_the_31(self) -> None:
        epochs = (1 << 31) // (22 * 10 * 200) + 100
        with memory(3 * 2 * epochs * 22 * 10 * 200):
            features = torch.ones(epochs, 22, 10, 200, dtype=torch.bfloat16, device=CUDA)
            features[-50:] = torch.randn(50, 22, 10, 200, device=CUDA).to(torch.bfloat16)
            for mode in ("mean", "max"):
                tokens = aggregate_epochs(features, None, mode)
                assert bool((tokens[:-50] == 1).all())
                assert_close(tokens[-50:], reference.aggregate_epochs(features[-50:], None, mode), 1e-2)
            query = torch.randn(200, device=CUDA, dtype=torch.bfloat16)
            tokens = aggregate_epochs(features, None, "attention", query)
            assert_close(tokens[:-50], torch.ones_like(tokens[:-50]), 1e-2)
            want = reference.aggregate_epochs(features[-50:], None, "attention", query)
            assert_close(tokens[-50:], want, 1e-2)

    def test_more_rows_than_two_to_the_31_values(self) -> None:
        heads, dim = 8, 64
        rows = (1 << 31) // (heads * dim) + 1000
        with memory(6 * 2 * rows * heads * dim):
            q, k, v = (torch.zeros(1, rows, heads, dim, dtype=torch.bfloat16, device=CUDA) for _ in range(3))
            for x in (q, k, v):
                x[:, -700:] = torch.randn(1, 700, heads, dim, device=CUDA)
            borders = torch.tensor([0, rows - 700, rows], device=CUDA)
            out = linear_attention(q, k, v, cu_seqlens=borders)
            assert isinstance(out, Tensor)
            assert not out[:, :-700].any()
            want = reference.linear_attention(*(x[:, -700:] for x in (q, k, v)))
            assert_close(out[:, -700:], want, 2e-2)


@contextmanager
def memory(needed: int) -> Iterator[None]:
    """Skip where the GPU has not so many bytes free; give them back after."""
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0]
    if free < needed:
        pytest.skip(f"needs {needed / 1e9:.0f} GB of GPU memory, {free / 1e9:.0f} are free")
    yield
    torch.cuda.empty_cache()


def _attend_and_differentiate(function: object, qkv: Tensor | list[Tensor]) -> Tensors:
    q, k, v = (x.detach().requires_grad_() for x in qkv)
    out = function(q, k, v)  # type: ignore[operator]
    return out.detach(), *torch.autograd.grad(out, (q, k, v), torch.ones_like(out).cumsum(1) / out.shape[1])


def _plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    context = torch.einsum("bthd,bthe->bhde", k.softmax(1), v)
    return torch.einsum("bthd,bhde->bthe", q.softmax(3) * q.shape[3] ** -0.5, context)
