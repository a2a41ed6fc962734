"""Linear attention: the context of a sequence is a Dk × Dv matrix, whatever the sequence's length.

``"softmax"`` (Shen et al. 2021, *Efficient attention*; CELM's projectors): o = scale · softmax_features(q) ·
(softmax_time(k)ᵀ v). ``"elu"`` (Katharopoulos et al. 2020): o = scale · φ(q) Σ φ(k)ᵀ v / (φ(q) · Σ φ(k)),
φ(x) = elu(x) + 1; causal sums run up to the row itself.
"""

from typing import Any

import torch
from torch import Tensor

from bioreport_kernels.configs import has_setting
from bioreport_kernels.cpu import linear as plain
from bioreport_kernels.cpu import short
from bioreport_kernels.direct import may_be_direct
from bioreport_kernels.reference import accumulation_dtype


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    feature_map: str = "softmax",
    causal: bool = False,
    scale: float | None = None,
    cu_seqlens: Tensor | None = None,
    initial_state: tuple[Tensor, Tensor] | None = None,
    return_state: bool = False,
) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
    """Attention in time and memory linear in the length.

    On CUDA in float16, bfloat16 and float32, with heads up to 128 wide, by Triton kernels that read q, k and
    v as they lie (views of a fused projection too); two runs give the same bits.

    Parameters
    ----------
    q, k : Tensor, shape (B, T, H, Dk)
    v : Tensor, shape (B, T, H, Dv)
        Floating dtype of q and k. Sums are float32, or float64 for float64 inputs.
    feature_map : {"softmax", "elu"}
    causal : bool
        Row t sees rows up to t; ``"elu"`` only.
    scale : float, optional
        Factor on the result; by default Dk**-0.5 for ``"softmax"`` and 1 for ``"elu"``.
    cu_seqlens : int Tensor, shape (S + 1,), optional
        Borders of S sequences packed along T, from 0 to T; B is 1 then, and each attends within itself.
        On the CPU they are checked; on a GPU they are not, since that would wait for it.
    initial_state : (Tensor (N, H, Dk, Dv), Tensor (N, H, Dk)), optional
        What a causal call returned for the rows before these; N is S where packed, else B.
    return_state : bool
        Also return the state after the last row; causal only.

    Returns
    -------
    Tensor, shape (B, T, H, Dv)
        In the dtype of v; with `return_state` a tuple of it and the state (float32 or float64).

    Raises
    ------
    ValueError
        For a shape, dtype or option that does not fit; the sentence names it.

    Examples
    --------
    >>> q, k, v = torch.randn(3, 1, 5, 2, 8).unbind()
    >>> linear_attention(q, k, v).shape
    torch.Size([1, 5, 2, 8])
    """
    if q.ndim != 4 or q.shape != k.shape:
        raise ValueError(f"q and k must both be [B, T, H, Dk], got {list(q.shape)} and {list(k.shape)}")
    if v.ndim != 4 or v.shape[:3] != q.shape[:3]:
        raise ValueError(f"v must be [B, T, H, Dv] with q's {list(q.shape[:3])}, got {list(v.shape)}")
    if not q.is_floating_point() or not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"q, k and v must share one floating dtype, got {q.dtype}, {k.dtype} and {v.dtype}")
    if feature_map not in ("softmax", "elu"):
        raise ValueError(f"feature_map must be 'softmax' or 'elu', got {feature_map!r}")
    if causal and feature_map != "elu":
        raise ValueError("causal is defined for feature_map='elu' only")
    if (return_state or initial_state is not None) and not causal:
        raise ValueError("a state is defined for causal=True only")
    sequences = q.shape[0] if cu_seqlens is None else _count_sequences(cu_seqlens, q)
    if initial_state is not None:
        want = [sequences, q.shape[2], q.shape[3], v.shape[3]]
        got = [list(s.shape) for s in initial_state]
        if got != [want, want[:3]]:
            raise ValueError(f"initial_state must be of shapes {want} and {want[:3]}, got {got}")
    if not causal:
        if scale is None:
            scale = q.shape[-1] ** -0.5 if feature_map == "softmax" else 1.0
        direct = may_be_direct(q, k, v)
        if direct and short.is_short(q, cu_seqlens, feature_map):
            return short.infer(q, k, v, float(scale))
        out, *_ = (_on_cpu if direct else _attend)(q, k, v, cu_seqlens, feature_map, float(scale))
        return out
    context, total = (None, None) if initial_state is None else initial_state
    factor = 1.0 if scale is None else float(scale)
    run = _causal_on_cpu if may_be_direct(q, k, v, context, total) else _attend_causal
    out, context, total = run(q, k, v, cu_seqlens, factor, context, total)
    return (out, (context, total)) if return_state else out


def _count_sequences(cu_seqlens: Tensor, q: Tensor) -> int:
    if q.shape[0] != 1:
        raise ValueError(f"with cu_seqlens B must be 1, got {q.shape[0]}")
    if cu_seqlens.ndim != 1 or len(cu_seqlens) < 2 or cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise ValueError("cu_seqlens must be an int32 or int64 vector of at least two borders")
    return len(cu_seqlens) - 1


def _check_borders(cu_seqlens: Tensor | None, length: int) -> None:
    if cu_seqlens is None or cu_seqlens.device.type != "cpu":
        return
    borders = cu_seqlens.tolist()
    if borders[0] != 0 or borders[-1] != length or borders != sorted(borders):
        raise ValueError(f"cu_seqlens must rise from 0 to T={length}, got {borders[0]} to {borders[-1]}")


def _in_kernel(kernel: str, q: Tensor, v: Tensor) -> bool:
    """Whether a kernel takes these widths and dtype; what none takes is computed in PyTorch on GPUs, too."""
    return has_setting(kernel, max(q.shape[3], v.shape[3]), q.dtype, q.device)


def _state_like(q: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor]:
    sequences = q.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    shape, dtype = (sequences, q.shape[2], q.shape[3]), accumulation_dtype(q.dtype)
    return q.new_empty(*shape, v.shape[3], dtype=dtype), q.new_empty(shape, dtype=dtype)


def _on_cpu(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, feature_map: str, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _check_borders(cu_seqlens, q.shape[1])
    if short.is_short(q, cu_seqlens, feature_map):
        return short.forward(q, k, v, scale)
    return plain.forward(q, k, v, cu_seqlens, feature_map, scale)


_attend = torch.library.custom_op("bioreport::linear_attention", _on_cpu, mutates_args=())


@_attend.register_kernel("cuda")
def _(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, feature_map: str, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from bioreport_kernels.gpu import linear as gpu

    _check_borders(cu_seqlens, q.shape[1])
    run = gpu.forward if _in_kernel(f"linear_output_{feature_map}", q, v) else plain.forward
    with torch.cuda.nvtx.range("bioreport::linear_attention"):
        return run(q, k, v, cu_seqlens, feature_map, scale)


@_attend.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, feature_map: str, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    context, total = _state_like(q, v, cu_seqlens)
    top = total.new_empty(total.shape if feature_map == "softmax" else 0)
    return v.new_empty(v.shape), context, top, total


@torch.library.custom_op("bioreport::linear_attention_backward", mutates_args=())
def _attend_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    context: Tensor,
    top: Tensor,
    total: Tensor,
    cu_seqlens: Tensor | None,
    feature_map: str,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return plain.backward(grad, q, k, v, context, top, total, cu_seqlens, feature_map, scale)


@_attend_backward.register_kernel("cuda")
def _(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    context: Tensor,
    top: Tensor,
    total: Tensor,
    cu_seqlens: Tensor | None,
    feature_map: str,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    from bioreport_kernels.gpu import linear as gpu

    run = gpu.backward if _in_kernel(f"linear_dquery_{feature_map}", q, v) else plain.backward
    with torch.cuda.nvtx.range("bioreport::linear_attention_backward"):
        return run(grad, q, k, v, context, top, total, cu_seqlens, feature_map, scale)


@_attend_backward.register_fake
def _(grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, cu_seqlens, ctx.feature_map, ctx.scale = inputs
    _, *kept = output
    ctx.mark_non_differentiable(*kept)
    ctx.save_for_backward(q, k, v, *kept, cu_seqlens)


def _differentiate(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    q, k, v, context, top, total, cu_seqlens = ctx.saved_tensors
    grads = _attend_backward(grad, q, k, v, context, top, total, cu_seqlens, ctx.feature_map, ctx.scale)
    return (*grads, None, None, None)


_attend.register_autograd(_differentiate, setup_context=_keep)


def _causal_on_cpu(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    scale: float,
    context: Tensor | None,
    total: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    _check_borders(cu_seqlens, q.shape[1])
    return plain.forward_causal(q, k, v, cu_seqlens, scale, context, total)


_attend_causal = torch.library.custom_op(
    "bioreport::linear_attention_causal", _causal_on_cpu, mutates_args=()
)


@_attend_causal.register_kernel("cuda")
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    scale: float,
    context: Tensor | None,
    total: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    from bioreport_kernels.gpu import linear_causal as gpu

    _check_borders(cu_seqlens, q.shape[1])
    run = gpu.forward if _in_kernel("linear_causal_output", q, v) else plain.forward_causal
    with torch.cuda.nvtx.range("bioreport::linear_attention_causal"):
        return run(q, k, v, cu_seqlens, scale, context, total)


@_attend_causal.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, scale: float, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return (v.new_empty(v.shape), *_state_like(q, v, cu_seqlens))


@torch.library.custom_op("bioreport::linear_attention_causal_backward", mutates_args=())
def _attend_causal_backward(
    grad: Tensor,
    grad_context: Tensor,
    grad_total: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    context: Tensor | None,
    total: Tensor | None,
    cu_seqlens: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return plain.backward_causal(grad, grad_context, grad_total, q, k, v, context, total, cu_seqlens, scale)


@_attend_causal_backward.register_kernel("cuda")
def _(
    grad: Tensor,
    grad_context: Tensor,
    grad_total: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    context: Tensor | None,
    total: Tensor | None,
    cu_seqlens: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from bioreport_kernels.gpu import linear_causal as gpu

    run = gpu.backward if _in_kernel("linear_causal_dquery", q, v) else plain.backward_causal
    with torch.cuda.nvtx.range("bioreport::linear_attention_causal_backward"):
        return run(grad, grad_context, grad_total, q, k, v, context, total, cu_seqlens, scale)


@_attend_causal_backward.register_fake
def _(
    grad: Tensor, grad_context: Tensor, grad_total: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    grads = q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)
    return (*grads, grad_context.new_empty(grad_context.shape), grad_total.new_empty(grad_total.shape))


def _keep_causal(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, cu_seqlens, ctx.scale, context, total = inputs
    ctx.save_for_backward(q, k, v, context, total, cu_seqlens)


def _differentiate_causal(
    ctx: Any, grad: Tensor, grad_context: Tensor, grad_total: Tensor
) -> tuple[Tensor | None, ...]:
    q, k, v, context, total, cu_seqlens = ctx.saved_tensors
    *grads, dcontext, dtotal = _attend_causal_backward(
        grad, grad_context, grad_total, q, k, v, context, total, cu_seqlens, ctx.scale
    )
    if context is None:
        return (*grads, None, None, None, None)
    return (*grads, None, None, dcontext.to(context.dtype), dtotal.to(total.dtype))


_attend_causal.register_autograd(_differentiate_causal, setup_context=_keep_causal)
