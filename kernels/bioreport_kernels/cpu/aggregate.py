"""Epoch aggregation in PyTorch: chunks of epochs that stay in the cache, no copy of what a mask covers.

The mask enters as a factor, or for a maximum as a summand, of its own small size. Neither removes a NaN or an
infinity, so a chunk whose result is not finite is done again with its masked features filled.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from bioreport_kernels.reference import accumulation_dtype

# Values of a chunk of epochs: its copy in float32, where one is needed, stays in the last-level cache.
CHUNK = 1 << 21

# Largest score, sum of weights and weighted sum of each epoch: [E, Q], [E, Q] and [E, Q, D] of attention;
# nothing, [E, 1] and [E, D] of a mean; [E, D], [E, 1] and nothing of a maximum.
State = tuple[Tensor, Tensor, Tensor]


def join(mode: str, a: State, b: State) -> State:
    """State of the same epochs' features of `a` and of `b` together."""
    if mode == "mean":
        return a[0], a[1] + b[1], a[2] + b[2]
    top = torch.maximum(a[0], b[0])
    if mode == "max":
        return top, a[1] + b[1], a[2]
    old, new = (a[0] - top).exp(), (b[0] - top).exp()
    return top, a[1] * old + b[1] * new, a[2] * old.unsqueeze(2) + b[2] * new.unsqueeze(2)


def finish(mode: str, state: State) -> Tensor:
    """Tokens [E, D] or [E, Q, D]; zeros where nothing was counted."""
    top, weight, total = state
    if mode == "max":
        return torch.where(weight == 0, 0, top)
    weight = torch.where(weight == 0, 1, weight)
    return total / (weight if mode == "mean" else weight.unsqueeze(2))


def forward(
    features: Tensor, mask: Tensor | None, mode: str, query: Tensor | None, save: bool
) -> tuple[Tensor, Tensor]:
    """Tokens, and what `backward` needs: counts [E, 1], ties [E, D] or logarithms of sums [E, Q]."""
    tokens, saved = [], []
    plain = mask is None and mode != "attention" and features.dtype == accumulation_dtype(features.dtype)
    for x, there in _chunks(features, mask, whole=plain and not save):
        state = _state(x, there, mode, query)
        token = finish(mode, state)
        tokens.append(token.to(features.dtype))
        if save and mode == "mean":
            saved.append(state[1])
        elif save and mode == "max":
            ties = _tied(x, there, tokens[-1]).sum((1, 2), dtype=token.dtype)
            saved.append(torch.where(state[1] == 0, 1, ties))
        elif save:
            saved.append(torch.where(state[1] == 0, 0, state[0] + state[1].log()))
    return _joined(tokens), _joined(saved) if save else token.new_empty(0)


def reduce(
    chunk: Tensor, mask: Tensor | None, patches: int, filled: int, mode: str, query: Tensor | None
) -> State:
    """State of every epoch that a chunk [C, T, D] touches; `filled` patches of the first are past."""
    length = chunk.shape[1]
    first = min(length, patches - filled) if filled else 0
    whole = first + (length - first) // patches * patches
    states = []
    for start, stop, size in ((0, first, first), (first, whole, patches), (whole, length, length - whole)):
        if start < stop:
            by_epoch = (-1, size)
            x = chunk[:, start:stop].unflatten(1, by_epoch).transpose(0, 1)
            there = mask
            if mask is not None:
                there = mask[:, start:stop].unflatten(1, by_epoch).transpose(0, 1)
            states += [_state(*part, mode, query) for part in _chunks(x, there)]
    top, weight, total = (_joined(list(parts)) for parts in zip(*states, strict=True))
    return top, weight, total


def backward(
    grad: Tensor,
    features: Tensor | None,
    shape: list[int],
    mask: Tensor | None,
    mode: str,
    query: Tensor | None,
    tokens: Tensor,
    saved: Tensor,
    need_features: bool,
    need_query: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of the features [E, C, P, D] and of the queries [Q, D]; empty where they are not needed."""
    dfeatures = grad.new_empty(shape if need_features else [0])
    dquery = saved.new_zeros((0,) if query is None or not need_query else query.shape)
    if mode == "attention":
        assert features is not None and query is not None
        start = 0
        for x, there in _chunks(features, mask):
            part = slice(start, start + len(x))
            to = dfeatures[part] if need_features else None
            step = _attention_backward(x, there, query, grad[part], saved[part], to, need_query)
            if step is not None:
                dquery += step
            start = part.stop
        return dfeatures, dquery.to(query.dtype)
    if need_features:
        share = grad.to(saved.dtype) / (saved.clamp(min=1) if mode == "mean" else saved)
        share = share.to(grad.dtype)[:, None, None]
        start = 0
        for x, there in _chunks(dfeatures if features is None else features, mask):
            part = slice(start, start + len(x))
            if mode == "max":
                factor = _tied(x, there, tokens[part])
            else:
                factor = (x.new_ones(()) if there is None else there.to(grad.dtype)).expand_as(x)
            torch.mul(factor, share[part], out=dfeatures[part])
            if there is not None and not _known(share[part].sum().isfinite()):
                dfeatures[part].masked_fill_(~there, 0)
            start = part.stop
    return dfeatures, dquery


def _chunks(
    features: Tensor, mask: Tensor | None, whole: bool = False
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Epochs a chunk at a time, or as a whole where none needs memory, with their mask [E, C, P, 1]."""
    step = len(features)
    if features.device.type == "cpu" and not whole:
        step = max(1, CHUNK // max(1, features[:1].numel()))
    if mask is not None:
        mask = (mask.unsqueeze(2) if mask.ndim == 2 else mask).unsqueeze(3)
        mask = mask.expand(-1, -1, features.shape[2], -1)
    for start in range(0, max(1, len(features)), max(1, step)):
        part = slice(start, start + step)
        there = None if mask is None else mask[part]
        yield features[part], None if there is None or _known(there.all()) else there


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _known(condition: Tensor) -> bool:
    """Whether it is true, where asking does not wait for a device."""
    return condition.device.type == "cpu" and bool(condition)


def _state(x: Tensor, there: Tensor | None, mode: str, query: Tensor | None) -> State:
    pools: dict[str, Callable[..., State]] = {"mean": _mean, "max": _maximum, "attention": _attend}
    if there is not None:
        state = pools[mode](x, there, query)
        # one sum tells, quicker than looking at each value
        if _known(~state[0].sum().isnan() if mode == "max" else state[2].sum().isfinite()):
            return state
        x = x.masked_fill(~there, float("-inf") if mode == "max" else 0)
    return pools[mode](x, there, query)


def _mean(x: Tensor, there: Tensor | None, query: None) -> State:
    wide = accumulation_dtype(x.dtype)
    if there is None:
        total = x.sum((1, 2), dtype=wide)
        return total.new_empty(0), total.new_full((len(x), 1), x.shape[1] * x.shape[2]), total
    share = there.flatten(1).to(wide)
    total = (share.unsqueeze(1) @ x.to(wide).flatten(1, 2)).squeeze(1)
    return total.new_empty(0), share.sum(1, keepdim=True), total


def _maximum(x: Tensor, there: Tensor | None, query: None) -> State:
    wide = accumulation_dtype(x.dtype)
    weight = x.new_full((len(x), 1), x.shape[1] * x.shape[2], dtype=wide)
    if there is not None:
        weight = there.flatten(1).sum(1, keepdim=True, dtype=wide)
        x = x + x.new_zeros(there.shape).masked_fill(~there, float("-inf"))
    top = x.amax((1, 2)).to(wide)
    return top, weight, top.new_empty(0)


def _attend(x: Tensor, there: Tensor | None, query: Tensor) -> State:
    rows, score = _scores(x, query)
    if there is not None:
        gone = ~there.flatten(1).unsqueeze(1)
        # finite, so that what is left of nothing stays a number
        score = score.masked_fill_(gone, torch.finfo(score.dtype).min)
    top = score.amax(2, keepdim=True)
    share = score.sub_(top).exp_()
    if there is not None:
        share = share.masked_fill_(gone, 0)
    return top.squeeze(2), share.sum(2), share @ rows


def _scores(x: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [E, N, D] and their scores [E, Q, N]."""
    wide = accumulation_dtype(x.dtype)
    rows = x.to(wide).flatten(1, 2)
    return rows, (query.to(wide) * x.shape[3] ** -0.5) @ rows.transpose(1, 2)


def _tied(x: Tensor, there: Tensor | None, tokens: Tensor) -> Tensor:
    """1 where a feature equals its epoch's token, else 0; written so, comparisons are vector instructions."""
    tied = torch.eq(x, tokens[:, None, None], out=torch.empty_like(x))
    return tied if there is None else tied.mul_(there.to(x.dtype))


def _attention_backward(
    x: Tensor,
    there: Tensor | None,
    query: Tensor,
    grad: Tensor,
    logarithm: Tensor,
    dfeatures: Tensor | None,
    need_query: bool,
) -> Tensor | None:
    rows, score = _scores(x, query)
    grad, query, scale = grad.to(rows.dtype), query.to(rows.dtype), x.shape[3] ** -0.5
    share, along = score.sub_(logarithm.unsqueeze(2)).exp_(), grad @ rows.transpose(1, 2)
    if there is not None:
        gone = ~there.flatten(1).unsqueeze(1)
        share, along = share.masked_fill_(gone, 0), along.masked_fill_(gone, 0)
    slope = share * (along - (share * along).sum(2, keepdim=True)) * scale
    if dfeatures is not None:
        weights, vectors = torch.cat([share, slope], 1), torch.cat([grad, query.expand_as(grad)], 1)
        if dfeatures.dtype == rows.dtype:
            torch.bmm(weights.transpose(1, 2), vectors, out=dfeatures.view_as(rows))
        else:
            dfeatures.copy_((weights.transpose(1, 2) @ vectors).view(dfeatures.shape))
    if not need_query:
        return None
    dquery = (slope @ rows).sum(0)
    if there is not None and not _known(dquery.sum().isfinite()):
        dquery = (slope @ rows.masked_fill(gone.transpose(1, 2), 0)).sum(0)
    return dquery
