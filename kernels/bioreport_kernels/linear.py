"""Linear attention: the context of a sequence is a Dk × Dv matrix, whatever the sequence's length.

``"softmax"`` (Shen et al. 2021, *Efficient attention*; CELM's projectors): o = scale · softmax_features(q) ·
(softmax_time(k)ᵀ v). ``"elu"`` (Katharopoulos et al. 2020): o = scale · φ(q) Σ φ(k)ᵀ v / (φ(q) · Σ φ(k)),
φ(x) = elu(x) + 1; causal sums run up to the row itself.
"""

import torch
from torch import Tensor

from bioreport_kernels import reference


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
    sequences = q.shape[0]
    if cu_seqlens is not None:
        sequences = _count_sequences(cu_seqlens, q)
    if initial_state is not None:
        want = [sequences, q.shape[2], q.shape[3], v.shape[3]]
        got = [list(s.shape) for s in initial_state]
        if got != [want, want[:3]]:
            raise ValueError(f"initial_state must be of shapes {want} and {want[:3]}, got {got}")
    return reference.linear_attention(
        q,
        k,
        v,
        feature_map=feature_map,
        causal=causal,
        scale=scale,
        cu_seqlens=cu_seqlens,
        initial_state=initial_state,
        return_state=return_state,
    )


def _count_sequences(cu_seqlens: Tensor, q: Tensor) -> int:
    if q.shape[0] != 1:
        raise ValueError(f"with cu_seqlens B must be 1, got {q.shape[0]}")
    if cu_seqlens.ndim != 1 or len(cu_seqlens) < 2 or cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise ValueError("cu_seqlens must be an int32 or int64 vector of at least two borders")
    borders = cu_seqlens.tolist()
    if borders[0] != 0 or borders[-1] != q.shape[1] or borders != sorted(borders):
        raise ValueError(f"cu_seqlens must rise from 0 to T={q.shape[1]}, got {borders[0]} to {borders[-1]}")
    return len(borders) - 1
