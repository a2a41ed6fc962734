"""Residual quantization and the batched argmin beneath it, with the codes of exact arithmetic.

A stage chooses the codeword nearest what the stages before left over (Juang & Gray 1982; Zeghidour et al.
2021, *SoundStream*, arXiv 2107.03312): code_l = argmin_k ‖r_l - c_lk‖², r_{l+1} = r_l - c_{l, code_l}, from
r_0 = x on. Flops: 2·N·K·D·L; no [N, K] matrix is stored.
"""

from typing import Any

import torch
from torch import Tensor

from bioreport_kernels.configs import has_setting
from bioreport_kernels.cpu import quantize as plain
from bioreport_kernels.direct import may_be_direct
from bioreport_kernels.reference import accumulation_dtype

# Codewords a stage beyond which the kernel's search has too few bits for a word's index.
MOST_WORDS = 16_384


def residual_quantize(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    """Codes of vectors under a sequence of codebooks, each for what the ones before left over.

    Parameters
    ----------
    x : Tensor, shape (N, D)
    codebooks : Tensor, shape (L, K, D)
        L stages of K codewords. Its floating dtype may be another than that of x.

    Returns
    -------
    codes : int64 Tensor, shape (N, L)
    quantized : Tensor, shape (N, D)
        Sum of the chosen codewords, in float32 (float64 where an input is) from the first stage to the last,
        then in x's dtype.

    Raises
    ------
    ValueError
        For a shape or dtype that does not fit; the sentence names it.

    See Also
    --------
    nearest_codeword : One stage, with a codebook for every row.

    Notes
    -----
    The codes are those of float64 arithmetic on the inputs as they are, float16 and bfloat16 too, wherever
    the second nearest codeword is farther than the nearest by a millionth of its distance: a search in lower
    precision gives way, where it does not prove its choice, to distances of a residual kept in two floats.
    Equally near codewords: the lowest index.

    A row with NaN or infinity has no nearest codeword: its codes are 0 and its ``quantized`` is NaN. A
    codeword with one is never chosen, unless its whole codebook is like that; then 0 is, and ``quantized``
    follows.

    Gradient of ``quantized``: to x unchanged (straight-through), and to each chosen codeword as to a term of
    the sum. A quantizer whose codebooks are no parameters detaches them; a loss that is to move codewords
    alone takes a detached x::

        codes, quantized = residual_quantize(x, codebooks.detach())  # for what comes after
        codebook_loss = (residual_quantize(x.detach(), codebooks)[1] - x.detach()).square().mean()

    Examples
    --------
    >>> codebooks = torch.tensor([[[0.0, 0.0], [4.0, 4.0]], [[1.0, 0.0], [0.0, 1.0]]])
    >>> codes, quantized = residual_quantize(torch.tensor([[4.1, 4.9], [0.7, 0.2]]), codebooks)
    >>> codes.tolist(), quantized.tolist()
    ([[1, 1], [0, 0]], [[4.0, 5.0], [1.0, 0.0]])
    """
    _check(x, codebooks, "[L, K, D]")
    if not codebooks.shape[0]:
        raise ValueError(f"codebooks must have at least one stage, got {list(codebooks.shape)}")
    quantized, codes = (_residual_on_cpu if may_be_direct(x, codebooks) else _residual)(x, codebooks)
    return codes, quantized


def nearest_codeword(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest codeword of every vector, each in a codebook of its own.

    Parameters
    ----------
    x : Tensor, shape (N, D)
    codebooks : Tensor, shape (N, K, D)
        Its floating dtype may be another than that of x.

    Returns
    -------
    codes : int64 Tensor, shape (N,)
    distances : Tensor, shape (N,)
        Squared distances ‖x - c‖², float32, or float64 where an input is. Differentiable in both inputs.

    Raises
    ------
    ValueError
        For a shape or dtype that does not fit; the sentence names it.

    Notes
    -----
    Exact as `residual_quantize` is. Equally near codewords: the lowest index. A row with NaN gets index 0
    and a NaN distance. A codeword that is not finite, or infinitely far, is chosen only where all are, and
    then it is the first.

    Examples
    --------
    >>> x, codebooks = torch.zeros(2, 3), torch.ones(2, 4, 3)
    >>> codebooks[1, 2] = 0.5
    >>> nearest_codeword(x, codebooks)
    (tensor([0, 2]), tensor([3.0000, 0.7500]))
    """
    _check(x, codebooks, "[N, K, D]")
    if codebooks.shape[0] != x.shape[0]:
        rows = x.shape[0]
        raise ValueError(f"codebooks must have one for each of {rows} rows, got {codebooks.shape[0]}")
    distances, codes = (_nearest_on_cpu if may_be_direct(x, codebooks) else _nearest)(x, codebooks)
    return codes, distances


def _check(x: Tensor, codebooks: Tensor, shape: str) -> None:
    for name, tensor, axes, want in (("x", x, 2, "[N, D]"), ("codebooks", codebooks, 3, shape)):
        if tensor.ndim != axes or not tensor.is_floating_point():
            raise ValueError(f"{name} must be floating {want}, got {tensor.dtype} {list(tensor.shape)}")
    if x.shape[1] != codebooks.shape[2]:
        raise ValueError(f"x and codebooks must share D, got {x.shape[1]} and {codebooks.shape[2]}")
    if not codebooks.shape[1] or not x.shape[1]:
        raise ValueError(f"codebooks must have codewords of a dimension, got {list(codebooks.shape)}")
    if x.device != codebooks.device:
        raise ValueError(f"x and codebooks must be on one device, got {x.device} and {codebooks.device}")


def _sum_dtype(x: Tensor, codebooks: Tensor) -> torch.dtype:
    return accumulation_dtype(torch.promote_types(x.dtype, codebooks.dtype))


def _in_kernel(kernel: str, narrow: Tensor, other: Tensor) -> bool:
    """Whether a kernel takes this width and these dtypes; what none takes is PyTorch's on GPUs, too."""
    return has_setting(kernel, narrow.shape[-1], narrow.dtype, narrow.device) and other.dtype != torch.float64


def _residual_on_cpu(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    codes, quantized = plain.residual_quantize(x, codebooks)
    return quantized, codes


_residual = torch.library.custom_op("bioreport::residual_quantize", _residual_on_cpu, mutates_args=())


@_residual.register_kernel("cuda")
def _(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    from bioreport_kernels.gpu import quantize as gpu

    taken = _in_kernel("quantize_residual", x, codebooks) and codebooks.shape[1] <= MOST_WORDS
    with torch.cuda.nvtx.range("bioreport::residual_quantize"):
        codes, quantized = (gpu.forward if taken else plain.residual_quantize)(x, codebooks)
    return quantized, codes


@_residual.register_fake
def _(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[0], codebooks.shape[0], dtype=torch.int64)


@torch.library.custom_op("bioreport::residual_quantize_backward", mutates_args=())
def _residual_backward(grad: Tensor, codes: Tensor, words: int) -> Tensor:
    return plain.residual_quantize_backward(grad, codes, words)


@_residual_backward.register_kernel("cuda")
def _(grad: Tensor, codes: Tensor, words: int) -> Tensor:
    from bioreport_kernels.gpu import quantize as gpu

    taken = has_setting("quantize_scatter", grad.shape[1], grad.dtype, grad.device)
    with torch.cuda.nvtx.range("bioreport::residual_quantize_backward"):
        return (gpu.backward if taken else plain.residual_quantize_backward)(grad, codes, words)


@_residual_backward.register_fake
def _(grad: Tensor, codes: Tensor, words: int) -> Tensor:
    shape = codes.shape[1], words, grad.shape[1]
    return grad.new_empty(shape, dtype=accumulation_dtype(grad.dtype))


def _keep_codes(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.words, ctx.dtype = inputs[1].shape[1], inputs[1].dtype
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _differentiate(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    codebooks = None
    if ctx.needs_input_grad[1]:
        codebooks = _residual_backward(grad, *ctx.saved_tensors, ctx.words).to(ctx.dtype)
    return grad if ctx.needs_input_grad[0] else None, codebooks


_residual.register_autograd(_differentiate, setup_context=_keep_codes)


def _nearest_on_cpu(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    codes, distances = plain.nearest_codeword(x, codebooks)
    return distances, codes


_nearest = torch.library.custom_op("bioreport::nearest_codeword", _nearest_on_cpu, mutates_args=())


@_nearest.register_kernel("cuda")
def _(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    from bioreport_kernels.gpu import quantize as gpu

    taken = _in_kernel("quantize_nearest", codebooks, x)
    with torch.cuda.nvtx.range("bioreport::nearest_codeword"):
        codes, distances = (gpu.nearest if taken else plain.nearest_codeword)(x, codebooks)
    return distances, codes


@_nearest.register_fake
def _(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    distances = x.new_empty(x.shape[0], dtype=_sum_dtype(x, codebooks))
    return distances, x.new_empty(x.shape[0], dtype=torch.int64)


def _keep_nearest(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*inputs, output[1])


def _differentiate_nearest(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    x, codebooks, codes = ctx.saved_tensors
    place = codes[:, None, None].expand(-1, 1, x.shape[1])
    slope = (x.to(grad.dtype) - codebooks.gather(1, place)[:, 0].to(grad.dtype)) * (2 * grad[:, None])
    grad_books = None
    if ctx.needs_input_grad[1]:
        grad_books = torch.zeros_like(codebooks, memory_format=torch.contiguous_format)
        grad_books = grad_books.scatter(1, place, -slope[:, None].to(codebooks.dtype))
    return slope.to(x.dtype) if ctx.needs_input_grad[0] else None, grad_books


_nearest.register_autograd(_differentiate_nearest, setup_context=_keep_nearest)
