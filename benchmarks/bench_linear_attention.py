"""Linear attention: `pytest benchmarks/bench_linear_attention.py -o addopts=`.

Bytes, T rows in all, H heads of D features, b bytes each: forward q, k, v are read and o written, 4·T·H·D·b;
backward q, k, v, do are read and dq, dk, dv written, 7·T·H·D·b. Flops: forward two products, 4·T·H·D²;
backward four, 8·T·H·D². At D = 64 in 16 bits that is 32 flops a byte: memory is the limit.

Peers
-----
PyTorch
    The operation written down with softmax and einsum, sequence by sequence where lengths differ.
torch.compile
    The same through PyTorch's compiler.
linear-attention-transformer
    The package CELM's projectors are built on (0.19.1): its `linear_attn`, and its whole transformer.
flash-bidirectional-linear-attention
    Triton, not causal, elu + 1 with the feature map outside: the nearest peer; no softmax map.
flash-linear-attention
    Triton, causal: beside our causal call.
SDPA, flash-attn
    Quadratic softmax attention: another operation, for scale.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
import torch
from options import DEVICE, SMOKE
from timing import OURS, Absent, Case, Outputs, Provider, compiled
from torch import Tensor
from torch.nn import functional as F

from bioreport_kernels import linear_attention

HEADS = 8


class Inputs(NamedTuple):
    """q, k, v [B, T, H, D]; the gradient of the result; borders where B = 1 holds packed sequences."""

    q: Tensor
    k: Tensor
    v: Tensor
    do: Tensor
    cu_seqlens: Tensor | None
    lengths: tuple[int, ...]


Forward = Callable[[Inputs], Callable[[], Tensor]]


def inputs(lengths: Sequence[int], dim: int, dtype: torch.dtype, grad: bool) -> Callable[[Any], Inputs]:
    """Sequences of these lengths packed one after another; a single one is not packed."""

    def make(device: torch.device) -> Inputs:
        generator = torch.Generator(device).manual_seed(0)
        shape = (1, sum(lengths), HEADS, dim)
        q, k, v, do = (
            torch.randn(shape, generator=generator, device=device, dtype=dtype, requires_grad=grad and i < 3)
            for i in range(4)
        )
        borders = torch.tensor([0, *lengths], device=device).cumsum(0) if len(lengths) > 1 else None
        return Inputs(q, k, v, do, borders, tuple(lengths))

    return make


def skewed(total: int, count: int) -> list[int]:
    """Lengths that fall by a constant factor, from 40 % of the rows down to a few."""
    ratio = 0.6
    lengths = [max(1, int(total * (1 - ratio) * ratio**i)) for i in range(count)]
    return [lengths[0] + total - sum(lengths), *lengths[1:]]


def naive(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Of [B, T, H, D], the formula as it stands."""
    context = torch.einsum("bthd,bthe->bhde", k.softmax(1), v)
    return torch.einsum("bthd,bhde->bthe", q.softmax(3) * q.shape[3] ** -0.5, context)


def naive_elu(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same for elu + 1 with its normaliser."""
    q, k = F.elu(q) + 1, F.elu(k) + 1
    norm = torch.einsum("bthd,bhd->bth", q, k.sum(1))
    return torch.einsum("bthd,bhde->bthe", q, torch.einsum("bthd,bthe->bhde", k, v)) / norm[..., None]


def naive_causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """elu + 1 where each row sees those before it, by running sums; the contexts of all rows are stored."""
    q, k = F.elu(q) + 1, F.elu(k) + 1
    context = torch.einsum("bthd,bthe->bthde", k, v).cumsum(1)
    norm = (q * k.cumsum(1)).sum(3, keepdim=True)
    return torch.einsum("bthd,bthde->bthe", q, context) / norm


def per_sequence(function: Callable[..., Tensor], x: Inputs) -> Callable[[], Tensor]:
    """Apply a dense function to packed sequences: as a batch where all are equally long."""
    if len(set(x.lengths)) == 1:
        batch = (len(x.lengths), -1, *x.q.shape[2:])
        return lambda: function(x.q.view(batch), x.k.view(batch), x.v.view(batch)).reshape(x.q.shape)
    rows = [slice(*pair) for pair in pairwise([0, *torch.tensor(x.lengths).cumsum(0).tolist()])]
    return lambda: torch.cat([function(x.q[:, r], x.k[:, r], x.v[:, r]) for r in rows], 1)


def dense(function: Callable[..., Tensor]) -> Forward:
    """A peer without packing: only where all sequences are equally long."""

    def build(x: Inputs) -> Callable[[], Tensor]:
        if len(set(x.lengths)) > 1:
            raise Absent("takes no packed sequences of different lengths")
        return per_sequence(function, x)

    return build


def heads_first(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """From [B, T, H, D] to what takes [B, H, T, D]."""
    return lambda *qkv: function(*(x.transpose(1, 2) for x in qkv)).transpose(1, 2)


def with_backward(build: Forward) -> Callable[[Inputs], Callable[[], Outputs]]:
    """Forward and the gradients of q, k and v."""

    def built(x: Inputs) -> Callable[[], Outputs]:
        forward = build(x)

        def run() -> Outputs:
            out = forward()
            return out, *torch.autograd.grad(out, (x.q, x.k, x.v), x.do)

        return run

    return built


def ours(**options: Any) -> Forward:
    def build(x: Inputs) -> Callable[[], Any]:
        return lambda: linear_attention(x.q, x.k, x.v, cu_seqlens=x.cu_seqlens, **options)

    return build


def _lat(x: Inputs) -> Callable[[], Tensor]:
    from linear_attention_transformer.linear_attention_transformer import linear_attn

    # its reshape needs no mask here, with which it would write into the caller's k and v
    return dense(heads_first(linear_attn))(x)


def _fbla(x: Inputs) -> Callable[[], Tensor]:
    from flash_bla.ops.linear_attn.fused import linear_attention as peer

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return peer((F.elu(q) + 1).contiguous(), (F.elu(k) + 1).contiguous(), v.contiguous())

    return dense(heads_first(attend))(x)


def _fla(x: Inputs) -> Callable[[], Tensor]:
    from fla.ops.linear_attn import chunk_linear_attn

    return dense(lambda q, k, v: chunk_linear_attn(F.elu(q) + 1, F.elu(k) + 1, v, normalize=True)[0])(x)


def _flash(x: Inputs) -> Callable[[], Tensor]:
    from flash_attn import flash_attn_func, flash_attn_varlen_func

    if x.cu_seqlens is None:
        return lambda: flash_attn_func(x.q, x.k, x.v)
    borders, longest = x.cu_seqlens.int(), max(x.lengths)
    return lambda: flash_attn_varlen_func(x.q[0], x.k[0], x.v[0], borders, borders, longest, longest)[None]


@cache
def softmax_providers() -> tuple[Provider, ...]:
    return (
        Provider(OURS, "this repository's operator", ours()),
        Provider("PyTorch", "the formula with softmax and einsum", lambda x: per_sequence(naive, x)),
        Provider("torch.compile", "the same, compiled", lambda x: per_sequence(compiled(naive, SMOKE), x)),
        Provider("linear-attention-transformer", "CELM's package, its linear_attn", _lat),
        Provider(
            "SDPA",
            "PyTorch's quadratic attention",
            dense(heads_first(F.scaled_dot_product_attention)),
            same=False,
        ),
        Provider("flash-attn", "quadratic attention", _flash, same=False),
    )


def elu_providers(causal: bool) -> tuple[Provider, ...]:
    plain = naive_causal if causal else naive_elu
    peer = (
        Provider("flash-linear-attention", "Triton, causal", _fla)
        if causal
        else Provider("flash-bidirectional-linear-attention", "Triton, elu + 1 outside", _fbla)
    )
    return (
        Provider(OURS, "this repository's operator", ours(feature_map="elu", causal=causal)),
        Provider("PyTorch", "the formula with einsum", dense(plain)),
        Provider("torch.compile", "the same, compiled", lambda x: dense(compiled(plain, SMOKE))(x)),
        peer,
    )


def case(
    name: str,
    lengths: Sequence[int],
    dim: int,
    dtype: torch.dtype,
    *,
    backward: bool = False,
    providers: tuple[Provider, ...] | None = None,
    quadratic: bool = False,
    compile: bool = False,
) -> Case:
    """`quadratic`: with the peers that are quadratic in the length; `compile`: with torch.compile.

    Compiling takes ten seconds and more a case, so that one case of each kind has it.
    """
    left_out = set() if compile else {"torch.compile"}
    chosen = [
        p
        for p in providers or softmax_providers()
        if p.name not in left_out and (p.same or (quadratic and not backward))
    ]
    if backward:
        chosen = [Provider(p.name, p.role, with_backward(p.build), p.view, p.same) for p in chosen]
    rows, width = sum(lengths), torch.finfo(dtype).bits // 8
    elements = rows * HEADS * dim
    return Case(
        operator="linear_attention",
        name=f"{name}, D={dim}, {'forward + backward' if backward else 'forward'}",
        dtype=dtype,
        bytes=(11 if backward else 4) * elements * width,
        flops=(12 if backward else 4) * elements * dim,
        inputs=inputs(lengths, dim, dtype, backward),
        providers=tuple(chosen),
        tolerance={torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}[dtype],
        grad=backward,
        shape={"sequences": len(lengths), "rows": rows, "heads": HEADS, "dim": dim},
    )


class Projector(NamedTuple):
    """Tokens of a session and a seed, from which both transformers take the same weights."""

    x: Tensor


def _projector_ours(x: Projector) -> Callable[[], Tensor]:
    from bioreport.projectors import LinearTransformer

    torch.manual_seed(0)
    network = LinearTransformer(200, 2, HEADS, 4).to(x.x).eval()
    borders = torch.tensor([0, x.x.shape[1]], device=x.x.device)
    return lambda: network(x.x[0], borders)[None]


def _projector_lat(x: Projector) -> Callable[[], Tensor]:
    from linear_attention_transformer.linear_attention_transformer import LinearAttentionTransformer

    from bioreport.projectors import LinearTransformer

    torch.manual_seed(0)
    state = LinearTransformer(200, 2, HEADS, 4).state_dict()
    network = LinearAttentionTransformer(dim=200, depth=2, max_seq_len=12_000, heads=HEADS)
    network.load_state_dict({key.removeprefix("transformer."): value for key, value in state.items()})
    network.to(x.x).eval()
    return lambda: network(x.x)


def projector(tokens: int, dtype: torch.dtype) -> Case:
    """The sequence projector's two layers: attention is a part of it, linear layers are the rest."""
    width, elements = torch.finfo(dtype).bits // 8, tokens * 200
    return Case(
        operator="linear_attention",
        name=f"projector, 2 layers of 200, {tokens:,} tokens",
        dtype=dtype,
        bytes=2 * elements * width,
        # four projections of 200 × 200, a feed-forward of 200 × 800 × 200, attention over 8 heads of 25
        flops=2 * elements * (2 * 4 * 200 + 2 * 2 * 800 + 4 * 25),
        inputs=lambda device: Projector(torch.randn(1, tokens, 200, device=device, dtype=dtype)),
        providers=(
            Provider(OURS, "bioreport's sequence projector", _projector_ours),
            Provider("linear-attention-transformer", "CELM's package, its whole transformer", _projector_lat),
        ),
        tolerance=1e-4 if dtype == torch.float32 else 5e-2,
        shape={"rows": tokens, "dim": 200},
    )


def cases() -> Iterator[Case]:
    """On a GPU the shapes of the targets in bf16; on a CPU smaller ones in float32."""
    elu, causal = elu_providers(False), elu_providers(True)
    if SMOKE:
        yield case("1 x 40", [40], 5, torch.float32, quadratic=True, compile=True)
        yield case("3 skewed", [20, 1, 9], 5, torch.float32, backward=True, compile=True)
        yield case("1 x 40, elu", [40], 5, torch.float32, providers=elu)
        yield case("1 x 40, causal elu", [40], 5, torch.float32, providers=causal)
        yield projector(40, torch.float32)
        return
    if DEVICE.type == "cpu":
        f32 = torch.float32
        yield case("1 x 1,000", [1000], 25, f32, quadratic=True, compile=True)
        yield case("1 x 12,000", [12_000], 25, f32, compile=True)
        yield case("1 x 12,000", [12_000], 64, f32)
        yield case("1 x 12,000", [12_000], 25, f32, backward=True, compile=True)
        yield case("16 x 1,000, packed", [1000] * 16, 25, f32)
        yield case("16,000 rows, 16 skewed", skewed(16_000, 16), 25, f32)
        yield case("1 x 12,000, elu", [12_000], 25, f32, providers=elu)
        yield case("1 x 1,000, causal elu", [1000], 25, f32, providers=causal)
        yield projector(1_000, f32)
        yield projector(12_000, f32)
        return
    bf16, many = torch.bfloat16, [12_000] * 64
    for dim in (64, 128, 25):
        yield case("64 x 12,000, packed", many, dim, bf16, compile=dim == 64)
    for dim in (25, 64, 128):
        yield case("1 x 12,000", [12_000], dim, bf16, quadratic=True, compile=dim == 25)
    for dim in (64, 128, 25):
        yield case("64 x 12,000, packed", many, dim, bf16, backward=True, compile=dim == 64)
    for dim in (25, 64, 128):
        yield case("768,000 rows, 64 skewed", skewed(768_000, 64), dim, bf16)
    yield case("768,000 rows, 64 skewed", skewed(768_000, 64), 64, bf16, backward=True)
    yield case("1 x 12,000", [12_000], 25, bf16, backward=True)
    yield case("64 x 12,000, elu", many, 64, bf16, providers=elu, compile=True)
    yield case("64 x 12,000, elu", many, 64, bf16, backward=True, providers=elu)
    yield case("1 x 12,000, causal elu", [12_000], 64, bf16, providers=causal)
    yield case("64 x 12,000, packed, float32", many, 64, torch.float32)
    yield projector(12_000, torch.float32)


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_linear_attention(case: Case, benchmark: Any) -> None:
    from recording import record

    record(case, benchmark)
