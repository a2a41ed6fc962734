"""One token an epoch from the encoder's features: mean, maximum, or attention with learned queries.

Attention: softmax over the epoch's unmasked features x of q·x / √D, then their weighted mean. The triple
(largest score, sum of weights, weighted sum) merges exactly with that of further features
(Milakov & Gimelshein 2018), so a stream needs no epoch in memory.
"""

import torch
from torch import Tensor

from bioreport_kernels import reference
from bioreport_kernels.reference import accumulation_dtype

MODES = ("mean", "max", "attention")


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
    return reference.aggregate_epochs(features, mask, mode, query)


def _check_query(mode: str, query: Tensor | None, dim: int) -> None:
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if (query is not None) != (mode == "attention"):
        raise ValueError("query belongs to mode='attention', and that mode needs it")
    if query is not None and (query.ndim not in (1, 2) or query.shape[-1] != dim):
        raise ValueError(f"query must be [{dim}] or [Q, {dim}], got {list(query.shape)}")


def _describe(x: Tensor) -> str:
    return f"{x.dtype} {list(x.shape)}"


class EpochAggregator:
    """`aggregate_epochs` over a stream of patches whose chunks may end anywhere.

    The state is constant: of an unfinished epoch only sums are kept.

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
        self._state: tuple[Tensor, Tensor, Tensor] | None = None
        self._empty: Tensor | None = None

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
        if mask is None:
            mask = torch.ones((), dtype=torch.bool, device=chunk.device).expand(chunk.shape[:2])
        elif mask.dtype != torch.bool or mask.shape not in (chunk.shape[:1], chunk.shape[:2]):
            wanted = f"{list(chunk.shape[:2])} or {list(chunk.shape[:1])}"
            raise ValueError(f"mask must be bool {wanted}, got {_describe(mask)}")
        elif mask.ndim == 1:
            mask = mask[:, None].expand(chunk.shape[:2])
        queries = () if self.query is None else self.query.shape[:-1]
        self._empty = chunk.new_empty(0, *queries, chunk.shape[2])
        finished, start, stop = [self._empty], 0, chunk.shape[1]
        while start < stop:
            whole = (stop - start) // self.patches if self._filled == 0 else 0
            if whole:
                end = start + whole * self.patches
                finished.append(self._whole(chunk[:, start:end], mask[:, start:end]))
            else:
                end = min(stop, start + self.patches - self._filled)
                self._merge(chunk[:, start:end], mask[:, start:end])
                if self._filled == self.patches:
                    finished.append(self.flush())
            start = end
        return torch.cat(finished)

    def flush(self) -> Tensor:
        """Token of the unfinished epoch, shape (1, D) or (1, Q, D); shape (0, …) where there is none."""
        if self._state is None:
            return self._empty if self._empty is not None else torch.empty(0)
        top, weight, total = self._state
        assert self._empty is not None
        token = top if self.mode == "max" else total / torch.where(weight > 0, weight, 1)
        token = torch.where(weight > 0, token, 0).to(self._empty.dtype)
        self._state, self._filled = None, 0
        return token.reshape(1, *self._empty.shape[1:])

    def _whole(self, chunk: Tensor, mask: Tensor) -> Tensor:
        split = (-1, self.patches)
        by_epoch, there = (x.unflatten(1, split).transpose(0, 1) for x in (chunk, mask))
        return aggregate_epochs(by_epoch, there, self.mode, self.query)

    def _merge(self, part: Tensor, mask: Tensor) -> None:
        x = part[mask].to(accumulation_dtype(part.dtype))
        self._filled += part.shape[1]
        rows = 1 if self.query is None else self.query.reshape(-1, x.shape[1]).shape[0]
        if self._state is None:
            self._state = (
                x.new_full((rows, x.shape[1] if self.mode == "max" else 1), float("-inf")),
                x.new_zeros(rows, 1),
                x.new_zeros(rows, x.shape[1]),
            )
        if not len(x):
            return
        top, weight, total = self._state
        if self.mode == "mean":
            self._state = top, weight + len(x), total + x.sum(0)
        elif self.mode == "max":
            self._state = torch.maximum(top, x.amax(0)), weight + len(x), total
        else:
            assert self.query is not None
            scores = self.query.to(x.dtype).reshape(rows, -1) @ x.T * x.shape[1] ** -0.5
            new_top = torch.maximum(top, scores.amax(1, keepdim=True))
            weights, kept = (scores - new_top).exp(), (top - new_top).exp()
            self._state = new_top, weight * kept + weights.sum(1, keepdim=True), total * kept + weights @ x
