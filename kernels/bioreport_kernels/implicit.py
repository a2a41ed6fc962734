"""Residual quantization with implicit codebooks: a network makes each stage's codewords from what was chosen.

QINCo (Huijben et al. 2024, arXiv 2401.14732) takes every codeword of a stage through the stage's network and
keeps the one nearest the vector. QINCo2 (Vallaeys et al. 2025, arXiv 2501.03078) draws up a shortlist by a
plain codebook first and follows several estimates at once, a beam.

Flops of a stage, a vector: beam · shortlist · R · 4 E H, the first layer being a table and one row a vector.
Codewords are never stored: memory beyond inputs and outputs is what a fixed number of vectors needs.
"""

from typing import Any

import torch
from torch import Tensor

from bioreport_kernels import reference
from bioreport_kernels.cpu import implicit as plain
from bioreport_kernels.direct import may_be_direct
from bioreport_kernels.reference import ImplicitWeights

SEARCHES = ("exact", "bfloat16")
# What the kernels' tiles hold: widths of vectors and first layers, beams, shortlists. Beyond it the CPU's
# path runs, on the GPU.
WIDEST, MOST_BEAMS, LONGEST_SHORTLIST = 512, 64, 64


def implicit_quantize(
    x: Tensor,
    weights: ImplicitWeights,
    *,
    beam: int = 1,
    shortlist: int | None = None,
    search: str = "exact",
) -> tuple[Tensor, Tensor]:
    """Codes of the vectors under QINCo's or QINCo2's weights, and what the codes stand for.

    Parameters
    ----------
    x : Tensor, shape (N, D)
    weights : ImplicitWeights
        Of S stages after the first, K codewords each.
    beam : int
        Estimates followed at once; the last stage keeps the best.
    shortlist : int, optional
        Codewords of a stage that go through its network, chosen by ``weights.shortlists``; by default all.
    search : {"exact", "bfloat16"}
        Precision of the networks' products while searching: that of float32, or bfloat16 with the distances
        of the best ``beam + 3`` candidates worked out again in float32. bfloat16 is faster and in a few rows
        of 10,000 chooses another code.

    Returns
    -------
    codes : int64 Tensor, shape (N, 1 + S)
    quantized : Tensor, shape (N, D)
        In x's dtype. ``implicit_decode(codes, weights)``, bit for bit where x is float32.

    Raises
    ------
    ValueError
        For a shape, dtype or option that does not fit; the sentence names it.

    See Also
    --------
    implicit_decode : The way back, and the one to train weights through.

    Notes
    -----
    Distances are float32, float64 for float64 x. Equal distances go to the lowest index; a NaN counts as
    infinitely far, so a row of NaN gets the codes 0.

    The gradient of ``quantized`` goes to x unchanged (straight-through); codes and weights get none.

    Examples
    --------
    >>> weights = ImplicitWeights(
    ...     first=torch.randn(16, 8), codebooks=torch.randn(3, 16, 8), concat=torch.randn(3, 8, 16) / 4,
    ...     bias=torch.zeros(3, 8), up=torch.randn(3, 2, 32, 8) / 3, down=torch.randn(3, 2, 8, 32) / 6)
    >>> codes, quantized = implicit_quantize(torch.randn(5, 8), weights)
    >>> codes.shape, torch.equal(implicit_decode(codes, weights), quantized)
    (torch.Size([5, 4]), True)
    """
    check_weights(weights)
    if x.ndim != 2 or not x.is_floating_point() or x.shape[1] != weights.first.shape[1]:
        raise ValueError(f"x must be floating [N, {weights.first.shape[1]}], got {x.dtype} {list(x.shape)}")
    if beam < 1:
        raise ValueError(f"beam must be at least 1, got {beam}")
    if search not in SEARCHES:
        raise ValueError(f"search must be one of {', '.join(SEARCHES)}, got {search!r}")
    if shortlist is not None:
        if weights.shortlists is None:
            raise ValueError("shortlist needs weights with shortlists, which QINCo2 has and QINCo has not")
        if shortlist < 1:
            raise ValueError(f"shortlist must be at least 1, got {shortlist}")
        shortlist = min(shortlist, weights.codebooks.shape[1])
    # gradients pass straight through to x, so that the weights' need of one is no concern of the operator
    run = _quantize_on_cpu if may_be_direct(x) else _quantize
    quantized, codes = run(x, *weights.map(Tensor.detach), beam, shortlist, search)
    return codes, quantized


def implicit_decode(codes: Tensor, weights: ImplicitWeights) -> Tensor:
    """The vectors that codes stand for.

    Differentiable in the weights, through the definition in `reference`: they are trained with
    ``codes, _ = implicit_quantize(x, weights)`` and a loss on ``implicit_decode(codes, weights)``.

    Parameters
    ----------
    codes : int64 or int32 Tensor, shape (N, 1 + S)
        From 0 to K - 1. A GPU, which is not waited for, takes others for the nearest of these.
    weights : ImplicitWeights

    Returns
    -------
    Tensor, shape (N, D)
        float32, or float64 where the weights are. A row's bits depend on its codes alone.

    Raises
    ------
    ValueError
        For a shape or dtype that does not fit; the sentence names it.
    IndexError
        For a code without a codeword, on a CPU.
    """
    check_weights(weights)
    if codes.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"codes must be int32 or int64, got {codes.dtype}")
    if codes.ndim != 2 or codes.shape[1] != 1 + len(weights.codebooks):
        raise ValueError(f"codes must be [N, {1 + len(weights.codebooks)}], got {list(codes.shape)}")
    vectors = (_decode_on_cpu if may_be_direct(codes) else _decode)(codes, *weights.map(Tensor.detach))
    if torch.is_grad_enabled() and any(isinstance(w, Tensor) and w.requires_grad for w in weights):
        defined = reference.implicit_decode(codes, weights)
        # nothing is added but the gradient
        vectors = vectors + (defined - defined.detach())
    return vectors


def check_weights(weights: ImplicitWeights) -> None:
    """Raise ValueError where shapes or dtypes do not belong together."""
    w = weights
    if w.codebooks.ndim != 3 or w.up.ndim != 4:
        got = f"{list(w.codebooks.shape)} and {list(w.up.shape)}"
        raise ValueError(f"codebooks must be [S, K, D] and up [S, R, H, E], got {got}")
    (stages, k, dim), (_, blocks, hidden, wide) = w.codebooks.shape, w.up.shape
    if (w.in_proj is None or w.out_proj is None) and wide != dim:
        raise ValueError(f"without in_proj and out_proj E must be D, got E={wide} and D={dim}")
    wanted: dict[str, list[int]] = {
        "first": [*w.first.shape[:1], dim],
        "concat": [stages, wide, wide + dim],
        "bias": [stages, wide],
        "up": [stages, blocks, hidden, wide],
        "down": [stages, blocks, wide, hidden],
        "in_proj": [stages, wide, dim],
        "out_proj": [stages, dim, wide],
        "shortlists": [stages, k, dim],
    }
    for name, shape in wanted.items():
        tensor = getattr(w, name)
        if tensor is not None and list(tensor.shape) != shape:
            raise ValueError(f"{name} must be {shape}, got {list(tensor.shape)}")
    if not len(w.first) or not k or not dim or not wide:
        raise ValueError(f"weights must have codewords of a dimension, got {len(w.first)} and {k} of {dim}")
    if any(isinstance(t, Tensor) and t.dtype != w.first.dtype for t in w) or not w.first.is_floating_point():
        raise ValueError("weights must share one floating dtype")


def _check_codes(codes: Tensor, weights: ImplicitWeights) -> None:
    for part, count in ((codes[:, :1], len(weights.first)), (codes[:, 1:], weights.codebooks.shape[1])):
        if part.numel() and not 0 <= int(part.min()) <= int(part.max()) < count:
            raise IndexError(
                f"codes must be from 0 to {count - 1}, got {int(part.min())} to {int(part.max())}"
            )


def _quantize_on_cpu(
    x: Tensor,
    first: Tensor,
    codebooks: Tensor,
    concat: Tensor,
    bias: Tensor,
    up: Tensor,
    down: Tensor,
    in_proj: Tensor | None,
    out_proj: Tensor | None,
    shortlists: Tensor | None,
    skip: bool,
    beam: int,
    shortlist: int | None,
    search: str,
) -> tuple[Tensor, Tensor]:
    weights = ImplicitWeights(first, codebooks, concat, bias, up, down, in_proj, out_proj, shortlists, skip)
    codes, quantized = plain.quantize(x, weights, beam, shortlist, search)
    return quantized, codes


_quantize = torch.library.custom_op("bioreport::implicit_quantize", _quantize_on_cpu, mutates_args=())


@_quantize.register_kernel("cuda")
def _(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    weights, (beam, shortlist, search) = ImplicitWeights(*rest[:10]), rest[10:]
    if not _fits(x.dtype, weights) or beam > MOST_BEAMS or (shortlist or 0) > LONGEST_SHORTLIST:
        codes, quantized = plain.quantize(x, weights, beam, shortlist, search)
        return quantized, codes
    from bioreport_kernels.gpu import implicit as gpu

    with torch.cuda.nvtx.range("bioreport::implicit_quantize"):
        codes, quantized = gpu.quantize(x, weights, beam, shortlist, search)
    return quantized, codes


def _fits(dtype: torch.dtype, weights: ImplicitWeights) -> bool:
    return dtype != torch.float64 and max(weights.first.shape[1], weights.bias.shape[1]) <= WIDEST


@_quantize.register_fake
def _(x: Tensor, first: Tensor, codebooks: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[0], 1 + codebooks.shape[0], dtype=torch.int64)


def _straight_through(ctx: object, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return grad, *(None,) * 13


_quantize.register_autograd(_straight_through)


def _decode_on_cpu(
    codes: Tensor,
    first: Tensor,
    codebooks: Tensor,
    concat: Tensor,
    bias: Tensor,
    up: Tensor,
    down: Tensor,
    in_proj: Tensor | None,
    out_proj: Tensor | None,
    shortlists: Tensor | None,
    skip: bool,
) -> Tensor:
    weights = ImplicitWeights(first, codebooks, concat, bias, up, down, in_proj, out_proj, shortlists, skip)
    if codes.device.type == "cpu":
        _check_codes(codes, weights)
    return plain.decode(codes, weights)


_decode = torch.library.custom_op("bioreport::implicit_decode", _decode_on_cpu, mutates_args=())


@_decode.register_kernel("cuda")
def _(codes: Tensor, *rest: Any) -> Tensor:
    weights = ImplicitWeights(*rest)
    if not _fits(weights.first.dtype, weights):
        return plain.decode(codes, weights)
    from bioreport_kernels.gpu import implicit as gpu

    with torch.cuda.nvtx.range("bioreport::implicit_decode"):
        return gpu.decode(codes, weights)


@_decode.register_fake
def _(codes: Tensor, first: Tensor, *_: object) -> Tensor:
    return first.new_empty(codes.shape[0], first.shape[1], dtype=reference.accumulation_dtype(first.dtype))
