"""One token an epoch from the encoder's features: mean, maximum, or attention with learned queries.

Attention: softmax over the epoch's unmasked features x of q·x / √D, then their weighted mean. The triple
(largest score, sum of weights, weighted sum) merges exactly with that of further features
(Milakov & Gimelshein 2018), so a stream needs no epoch in memory.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bioreport_kernels.cpu import aggregate as plain
from bioreport_kernels.direct import may_be_direct
from bioreport_kernels.reference import accumulation_dtype

MODES = ("mean", "max", "attention")
# Widest features of the GPU's kernels, and most of them in one epoch; beyond, PyTorch does the work there.
WIDEST, LONGEST = 1024, 1 << 30


def aggregate_epochs(
    features: Tensor, mask: Tensor | None = None, mode: str = "mean", query: Tensor | None = None
) -> Tensor:
    """Pool the features of each epoch over channels and patches.

    Parameters
    ----------
    features : Tensor, shape (E, C, P, D)
    mask : bool Tensor, shape (E, C, P) or (E, C), optional
        True where a feature counts. What lies elsewhere, NaN too, changes nothing.
    mode : {"mean", "max", "attention"}
    query : Tensor, shape (D,) or (Q, D)
        For ``"attention"``.

    Returns
    -------
    Tensor, shape (E, D), or (E, Q, D) for Q queries
        In the features' dtype; zeros for an epoch without an unmasked feature.

    Raises
    ------
    ValueError
        For a shape, dtype or mode that does not fit; the sentence names it.

    Examples
    --------
    >>> aggregate_epochs(torch.ones(4, 22, 10, 200)).shape
    torch.Size([4, 200])
    """
    if features.ndim != 4 or not features.is_floating_point():
        raise ValueError(f"features must be floating [E, C, P, D], got {_describe(features)}")
    _check_query(mode, query, features.shape[3])
    if mask is not None:
        if mask.dtype != torch.bool:
            raise ValueError(f"mask must be bool, got {mask.dtype}")
        if mask.shape not in (features.shape[:2], features.shape[:3]):
            wanted = f"{list(features.shape[:3])} or {list(features.shape[:2])}"
            raise ValueError(f"mask must be {wanted}, got {list(mask.shape)}")
    if features.shape[1] * features.shape[2] == 0:
        queries = () if query is None else query.shape[:-1]
        return features.new_zeros(features.shape[0], *queries, features.shape[3])
    save = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (features, query))
    run = plain.forward if may_be_direct(features, query) else _aggregate
    if query is None:
        return run(features, mask, mode, None, save)[0]
    tokens, _ = run(features, mask, mode, query.reshape(-1, query.shape[-1]), save)
    return tokens if query.ndim == 2 else tokens.squeeze(1)


def _check_query(mode: str, query: Tensor | None, dim: int) -> None:
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if (query is not None) != (mode == "attention"):
        raise ValueError("query belongs to mode='attention', and that mode needs it")
    if query is not None and (query.ndim not in (1, 2) or query.shape[-1] != dim):
        raise ValueError(f"query must be [{dim}] or [Q, {dim}], got {list(query.shape)}")


def _describe(x: Tensor) -> str:
    return f"{x.dtype} {list(x.shape)}"


@torch.library.custom_op("bioreport::aggregate_epochs", mutates_args=())
def _aggregate(
    features: Tensor, mask: Tensor | None, mode: str, query: Tensor | None, save: bool
) -> tuple[Tensor, Tensor]:
    """Tokens, and what a backward pass needs beside them; queries are [Q, D]."""
    return plain.forward(features, mask, mode, query, save)


@_aggregate.register_kernel("cuda")
def _(
    features: Tensor, mask: Tensor | None, mode: str, query: Tensor | None, save: bool
) -> tuple[Tensor, Tensor]:
    with torch.cuda.nvtx.range("bioreport::aggregate_epochs"):
        return _path(features).forward(features, mask, mode, query, save)


@_aggregate.register_fake
def _(
    features: Tensor, mask: Tensor | None, mode: str, query: Tensor | None, save: bool
) -> tuple[Tensor, Tensor]:
    epochs, dim = features.shape[0], features.shape[3]
    tokens = features.new_empty((epochs, dim) if query is None else (epochs, query.shape[0], dim))
    kept = {"mean": 1, "max": dim, "attention": 0 if query is None else query.shape[0]}[mode]
    return tokens, features.new_empty(
        (epochs, kept) if save else (0,), dtype=accumulation_dtype(features.dtype)
    )


@torch.library.custom_op("bioreport::aggregate_epochs_backward", mutates_args=())
def _gradients(
    grad: Tensor,
    features: Tensor | None,
    shape: Sequence[int],
    mask: Tensor | None,
    mode: str,
    query: Tensor | None,
    tokens: Tensor,
    saved: Tensor,
    need_features: bool,
    need_query: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of features and queries; empty where not needed. A mean's features are not asked for."""
    return plain.backward(
        grad, features, list(shape), mask, mode, query, tokens, saved, need_features, need_query
    )


@_gradients.register_kernel("cuda")
def _(
    grad: Tensor,
    features: Tensor | None,
    shape: Sequence[int],
    mask: Tensor | None,
    mode: str,
    query: Tensor | None,
    tokens: Tensor,
    saved: Tensor,
    need_features: bool,
    need_query: bool,
) -> tuple[Tensor, Tensor]:
    with torch.cuda.nvtx.range("bioreport::aggregate_epochs_backward"):
        return _path(grad, shape).backward(
            grad, features, list(shape), mask, mode, query, tokens, saved, need_features, need_query
        )


@_gradients.register_fake
def _(
    grad: Tensor,
    features: Tensor | None,
    shape: Sequence[int],
    mask: Tensor | None,
    mode: str,
    query: Tensor | None,
    tokens: Tensor,
    saved: Tensor,
    need_features: bool,
    need_query: bool,
) -> tuple[Tensor, Tensor]:
    dquery = grad.new_empty((0,))
    if query is not None and need_query:
        dquery = torch.empty_like(query, memory_format=torch.contiguous_format)
    return grad.new_empty(tuple(shape) if need_features else (0,)), dquery


@torch.library.custom_op("bioreport::aggregate_patches", mutates_args=())
def _patches(
    chunk: Tensor, mask: Tensor | None, patches: int, filled: int, mode: str, query: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """State of every epoch that a chunk [C, T, D] touches; `filled` patches of the first are past."""
    return plain.reduce(chunk, mask, patches, filled, mode, query)


@_patches.register_kernel("cuda")
def _(
    chunk: Tensor, mask: Tensor | None, patches: int, filled: int, mode: str, query: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.cuda.nvtx.range("bioreport::aggregate_patches"):
        return _path(chunk).reduce(chunk, mask, patches, filled, mode, query)


@_patches.register_fake
def _(
    chunk: Tensor, mask: Tensor | None, patches: int, filled: int, mode: str, query: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    epochs, dim = -(-(filled + chunk.shape[1]) // patches), chunk.shape[2]
    wide = accumulation_dtype(chunk.dtype)
    if mode == "attention":
        assert query is not None
        queries = query.shape[0]
        shapes: tuple[tuple[int, ...], ...] = (epochs, queries), (epochs, queries), (epochs, queries, dim)
    else:
        mean = mode == "mean"
        shapes = ((0,) if mean else (epochs, dim)), (epochs, 1), ((epochs, dim) if mean else (0,))
    top, weight, total = (chunk.new_empty(shape, dtype=wide) for shape in shapes)
    return top, weight, total


def _path(x: Tensor, shape: Sequence[int] | None = None) -> Any:
    """The module that does the work on a GPU."""
    shape = x.shape if shape is None else shape
    rows = shape[-3] * shape[-2]
    if x.dtype == torch.float64 or not 1 <= shape[-1] <= WIDEST or rows > LONGEST:
        return plain
    from bioreport_kernels.gpu import aggregate

    return aggregate


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    features, mask, mode, query, _ = inputs
    tokens, saved = output
    ctx.mark_non_differentiable(saved)
    ctx.set_materialize_grads(False)
    ctx.mode, ctx.shape = mode, features.shape
    ctx.save_for_backward(None if mode == "mean" else features, mask, query, tokens, saved)


def _backward(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return None, None, None, None, None
    features, mask, query, tokens, saved = ctx.saved_tensors
    if ctx.mode == "mean" and mask is None:
        # the same for every feature of an epoch: nothing to write
        share = grad.to(saved.dtype) / saved
        return share.to(grad.dtype)[:, None, None].expand(ctx.shape), None, None, None, None
    needed = ctx.needs_input_grad[0], ctx.needs_input_grad[3]
    dfeatures, dquery = _gradients(grad, features, ctx.shape, mask, ctx.mode, query, tokens, saved, *needed)
    return dfeatures if needed[0] else None, None, None, dquery if needed[1] else None, None


_aggregate.register_autograd(_backward, setup_context=_keep)


class EpochAggregator:
    """`aggregate_epochs` over a stream of patches whose chunks may end anywhere; without gradients.

    The state is constant: of an unfinished epoch only the largest score, the sum of weights and the weighted
    sum are kept, and what a chunk adds is merged with them exactly.

    Parameters
    ----------
    patches : int
        Patches in an epoch.
    mode, query
        As in `aggregate_epochs`.

    Examples
    --------
    >>> aggregator = EpochAggregator(patches=10)
    >>> aggregator.update(torch.ones(22, 25, 200)).shape, aggregator.flush().shape
    (torch.Size([2, 200]), torch.Size([1, 200]))
    """

    def __init__(self, patches: int, mode: str = "mean", query: Tensor | None = None) -> None:
        if patches < 1:
            raise ValueError(f"patches must be at least 1, got {patches}")
        _check_query(mode, query, query.shape[-1] if query is not None else 0)
        self.patches, self.mode, self.query = patches, mode, query
        self._filled = 0
        self._state: plain.State | None = None
        self._empty: Tensor | None = None

    @torch.no_grad()
    def update(self, chunk: Tensor, mask: Tensor | None = None) -> Tensor:
        """Take the next patches and give the tokens of the epochs they finish.

        Parameters
        ----------
        chunk : Tensor, shape (C, T, D)
            T patches of every channel, T from 0 on.
        mask : bool Tensor, shape (C, T) or (C,), optional

        Returns
        -------
        Tensor, shape (finished, D), or (finished, Q, D) for Q queries
        """
        if chunk.ndim != 3 or not chunk.is_floating_point():
            raise ValueError(f"chunk must be floating [C, T, D], got {_describe(chunk)}")
        _check_query(self.mode, self.query, chunk.shape[2])
        if mask is not None:
            if mask.dtype != torch.bool or mask.shape not in (chunk.shape[:1], chunk.shape[:2]):
                wanted = f"{list(chunk.shape[:2])} or {list(chunk.shape[:1])}"
                raise ValueError(f"mask must be bool {wanted}, got {_describe(mask)}")
            mask = mask if mask.ndim == 2 else mask[:, None].expand(chunk.shape[:2])
        queries = () if self.query is None else self.query.shape[:-1]
        self._empty = chunk.new_empty(0, *queries, chunk.shape[2])
        if not chunk.shape[1]:
            return self._empty
        query = None if self.query is None else self.query.reshape(-1, chunk.shape[2])
        # in float64, so that an epoch of thousands of chunks is no less exact than one of a few
        run = plain.reduce if may_be_direct(chunk, query) else _patches
        state = _wide(run(chunk, mask, self.patches, self._filled, self.mode, query))
        if self._state is not None:
            opened = plain.join(self.mode, self._state, _epochs(state, slice(0, 1)))
            for part, merged in zip(state, opened, strict=True):
                part[:1] = merged
        finished, self._filled = divmod(self._filled + chunk.shape[1], self.patches)
        # a copy: a view would keep the finished epochs
        self._state = _epochs(state, slice(finished, None), copy=True) if self._filled else None
        return self._tokens(_epochs(state, slice(0, finished)))

    @torch.no_grad()
    def flush(self) -> Tensor:
        """Token of the unfinished epoch, shape (1, D) or (1, Q, D); shape (0, …) where there is none."""
        if self._state is None:
            return self._empty if self._empty is not None else torch.empty(0)
        token, self._state, self._filled = self._tokens(self._state), None, 0
        return token

    def _tokens(self, state: plain.State) -> Tensor:
        assert self._empty is not None
        return plain.finish(self.mode, state).to(self._empty.dtype).reshape(-1, *self._empty.shape[1:])


def _epochs(state: plain.State, part: slice, copy: bool = False) -> plain.State:
    top, weight, total = (x[part].clone() if copy else x[part] for x in state)
    return top, weight, total


def _wide(state: plain.State) -> plain.State:
    top, weight, total = (x.double() for x in state)
    return top, weight, total
