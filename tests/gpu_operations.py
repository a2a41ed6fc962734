"""Every operator, forward and backward, as calls that only differ in their inputs."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

import bioreport_kernels as kernels
from bioreport_kernels.reference import ImplicitWeights

Tensors = tuple[Tensor, ...]


class Operation(NamedTuple):
    """`run(*inputs(device, dtype))`: results first, then the gradients of the inputs that have one."""

    name: str
    inputs: Callable[[torch.device, torch.dtype], list[Tensor]]
    run: Callable[..., Tensors]


def _random(device: torch.device, dtype: torch.dtype, *shape: int) -> Tensor:
    # drawn on the CPU, so that every device gets the same numbers
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + shape[-1])).to(
        device, dtype
    )


def _differentiated(call: Callable[..., Tensor], count: int, *inputs: Tensor) -> Tensors:
    """The result and the gradients of the first `count` inputs, for an upstream gradient that varies."""
    leaves = [x.detach().requires_grad_() for x in inputs[:count]]
    out = call(*leaves, *inputs[count:])
    wave = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out).to(out.dtype)
    return out.detach(), *torch.autograd.grad(out, leaves, wave)


def _linear(dim: int, borders: list[int] | None, feature_map: str) -> Operation:
    def inputs(device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        qkv = _random(device, dtype, 3, 1, 1003, 4, dim).unbind()
        # q, k and v lie beside each other where a fused projection has made them
        fused = torch.stack(qkv, 3).unbind(3)
        return [*fused, *([torch.tensor(borders, device=device)] if borders else [])]

    def call(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None = None) -> Tensor:
        out = kernels.linear_attention(q, k, v, feature_map=feature_map, cu_seqlens=cu_seqlens)
        assert isinstance(out, Tensor)
        return out

    packed = ", packed" if borders else ""
    return Operation(
        f"linear_attention {feature_map} D={dim}{packed}", inputs, partial(_differentiated, call, 3)
    )


def _causal() -> Operation:
    def inputs(device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        qkv = _random(device, dtype, 3, 1, 300, 4, 40).unbind()
        return [
            *qkv,
            _random(device, torch.float32, 1, 4, 40, 40),
            _random(device, torch.float32, 1, 4, 40).abs(),
        ]

    def call(q: Tensor, k: Tensor, v: Tensor, context: Tensor, total: Tensor) -> Tensor:
        out, (context, total) = kernels.linear_attention(
            q, k, v, feature_map="elu", causal=True, initial_state=(context, total), return_state=True
        )
        return out.float() + 1e-3 * (context.sum() + total.sum())

    return Operation("linear_attention causal", inputs, partial(_differentiated, call, 5))


def _aggregate(mode: str, queries: int = 0) -> Operation:
    def inputs(device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        features = _random(device, dtype, 33, 22, 10, 200)
        mask = _random(device, torch.float32, 33, 22) > -1
        mask[3] = False
        query = [_random(device, dtype, queries, 200)] if queries else []
        return [features, *query, mask]

    def call(features: Tensor, *rest: Tensor) -> Tensor:
        *query, mask = rest
        return kernels.aggregate_epochs(features, mask, mode, *query)

    return Operation(f"aggregate_epochs {mode}", inputs, partial(_differentiated, call, 2 if queries else 1))


def _with_codes(
    call: Callable[..., tuple[Tensor, Tensor]], differentiable: bool, x: Tensor, *rest: Tensor
) -> Tensors:
    leaf = x.detach().requires_grad_(differentiable)
    codes, result = call(leaf, *rest)
    if not differentiable:
        return codes, result
    return codes, result.detach(), *torch.autograd.grad(result, [leaf], torch.ones_like(result))


def _residual() -> Operation:
    def inputs(device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        return [_random(device, dtype, 1003, 72), _random(device, dtype, 8, 100, 72)]

    return Operation("residual_quantize", inputs, partial(_with_codes, kernels.residual_quantize, True))


def _nearest() -> Operation:
    def inputs(device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        return [_random(device, dtype, 1003, 72), _random(device, dtype, 1003, 33, 72)]

    return Operation("nearest_codeword", inputs, partial(_with_codes, kernels.nearest_codeword, False))


def _implicit(search: str, shortlist: int | None) -> Operation:
    def inputs(device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        random = partial(_random, device, torch.float32)
        first, codebooks = random(32, 40), random(3, 32, 40)
        concat, bias = random(3, 48, 88) / 8, random(3, 48) / 8
        up, down = random(3, 2, 64, 48) / 8, random(3, 2, 48, 64) / 8
        ins, outs = random(3, 48, 40) / 8, random(3, 40, 48) / 8
        return [
            random(131, 40).to(dtype),
            first,
            codebooks,
            concat,
            bias,
            up,
            down,
            ins,
            outs,
            codebooks * 1.01,
        ]

    def call(x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        beam = 4 if shortlist else 1
        return kernels.implicit_quantize(
            x, ImplicitWeights(*weights, skip=True), beam=beam, shortlist=shortlist, search=search
        )

    name = f"implicit_quantize {search}{', beam' if shortlist else ''}"
    return Operation(name, inputs, partial(_with_codes, call, True))


def operations() -> list[Operation]:
    """All of them; each launches every kernel of its operator's mode."""
    borders = [0, 0, 1, 700, 702, 1003]
    return [
        *(_linear(dim, None, "softmax") for dim in (25, 64, 128)),
        _linear(25, borders, "softmax"),
        _linear(64, borders, "elu"),
        _causal(),
        _aggregate("mean"),
        _aggregate("max"),
        _aggregate("attention", 4),
        *([_residual(), _nearest()] if hasattr(kernels, "residual_quantize") else []),
        *(
            [_implicit("exact", None), _implicit("bfloat16", None), _implicit("exact", 8)]
            if hasattr(kernels, "implicit_quantize")
            else []
        ),
    ]
