"""Linear attention in plain PyTorch: any device, and nothing of the sequence's length but inputs and results.

Parts of time (`cpu.sequences`) enter through products of their rows: Σ weightᵀ v of the keys, then
features(q) times that, with the norm as one more column, as if v had a column of ones. The softmax over time
is online (Milakov and Gimelshein 2018). Exponentials are powers of two: exp is four times slower on some
processors.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from bioreport_kernels.cpu.sequences import PART, Group, Part, Scratch, groups, scratch_of
from bioreport_kernels.reference import accumulation_dtype

# Queries between these bounds need no maximum taken off before the exponential: no product comes near an
# overflow, no sum of them near zero.
BOUND = 40
# Rows of a causal part: within it attention is a triangular matrix.
CAUSAL_PART = 64
_LOG2_E = math.log2(math.e)


class Sums:
    """Σ weight and Σ weightᵀ v over time, weight = exp(k - top) or φ(k), of keys that come in parts."""

    def __init__(self, feature_map: str, scratch: Scratch) -> None:
        self.feature_map, self.scratch = feature_map, scratch
        self._sums: tuple[Tensor, Tensor] | None = None
        self._top: Tensor

    def add(self, k: Tensor, v: Tensor, part: Part | None = None) -> None:
        """Take k [time, G, Dk] and v [time, G, Dv] in the dtype of accumulation; `part` knows of padding."""
        weight = self.scratch("weight", *k.shape)
        old = None
        if self.feature_map == "softmax":
            # a finite floor: -inf throughout must not give -inf - -inf
            top = k.amax(0).clamp_(min=torch.finfo(k.dtype).min)
            if self._sums is not None:
                top = torch.maximum(top, self._top)
                old = _exp_(self._top - top)
            self._top = top
            _exp_(torch.sub(k, top, out=weight))
        else:
            _positive(k, weight)
        if part is not None:
            part.without_padding(weight)
        weight_t, v = weight.permute(1, 2, 0), v.transpose(0, 1)
        if self._sums is None:
            self._sums = torch.bmm(weight_t, v), weight.sum(0)
            return
        context, total = self._sums
        if old is not None:
            context.mul_(old.unsqueeze(2))
            total.mul_(old)
        context.baddbmm_(weight_t, v)
        total.add_(weight.sum(0))

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        """Context [G, Dk, Dv], top and total [G, Dk] of the keys so far, as `forward` returns them."""
        assert self._sums is not None
        context, total = self._sums
        if self.feature_map == "elu":
            return context, total.new_empty(0), total
        return context / total.unsqueeze(2), self._top, total


def with_norm(feature_map: str, context: Tensor, total: Tensor, scale: float) -> Tensor:
    """Scaled context [G, Dk, Dv + 1] whose last column makes the norm: that of a query's features by itself
    for ``"softmax"``, with the keys' total for ``"elu"``.
    """
    norm = torch.ones_like(total) if feature_map == "softmax" else total
    return torch.cat([context * scale, norm.unsqueeze(2)], 2)


def attend(feature_map: str, q: Tensor, context: Tensor, scratch: Scratch, out: Tensor) -> Tensor:
    """Result [time, G, Dv] of q [time, G, Dk] and the context that `with_norm` makes."""
    return _divide(_product(_features(feature_map, q, scratch), context, scratch), out)


def _features(feature_map: str, x: Tensor, scratch: Scratch, name: str = "features") -> Tensor:
    """φ(x), or the exponentials of a softmax over the last axis before their sum divides them."""
    out = scratch(name, *x.shape)
    if feature_map == "elu":
        return _positive(x, out)
    # elsewhere looking at the values would wait for the device
    if x.device.type == "cpu" and x.numel() and x.amin() > -BOUND and x.amax() < BOUND:
        return torch.mul(x, _LOG2_E, out=out).exp2_()
    return _exp_(torch.sub(x, x.amax(2, keepdim=True), out=out))


def _exp_(x: Tensor) -> Tensor:
    return x.mul_(_LOG2_E).exp2_()


def _positive(x: Tensor, out: Tensor) -> Tensor:
    """elu(x) + 1."""
    return _exp_(torch.clamp(x, max=0, out=out)).add_(x.clamp(min=0))


def _product(x: Tensor, context: Tensor, scratch: Scratch, plus: Tensor | None = None) -> Tensor:
    """x [time, G, D] times context [G, D, E], plus [G, E], in scratch memory: [time, G, E]."""
    # MKL's batched product wants a contiguous result
    out = scratch("product", x.shape[1], x.shape[0], context.shape[2])
    if plus is None:
        torch.bmm(x.transpose(0, 1), context, out=out)
    else:
        torch.baddbmm(plus.unsqueeze(1), x.transpose(0, 1), context, out=out)
    return out.transpose(0, 1)


def _divide(ratio: Tensor, out: Tensor) -> Tensor:
    """All columns but the last by the last; zero where both vanish."""
    return torch.div(ratio[..., :-1], ratio[..., -1:].clamp_(min=torch.finfo(ratio.dtype).tiny), out=out)


def _grouped(
    q: Tensor, v: Tensor, cu_seqlens: Tensor | None, rows: int | None = None
) -> Iterator[tuple[Group, list[Part]]]:
    """Groups of sequences with their parts of time, by default such that a part stays in the cache."""
    most = max(1, PART // max(1, q.shape[2] * max(q.shape[3], v.shape[3])))
    for group in groups(q, cu_seqlens, most):
        yield group, group.parts(rows or max(1, most // group.count))


def forward(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor | None, feature_map: str, scale: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Result [B, T, H, Dv], and per sequence the context [N, H, Dk, Dv], top and total [N, H, Dk].

    For ``"softmax"`` the context is softmax_time(k)ᵀ v, top the largest key and total Σ exp(k - top); for
    ``"elu"`` context and total are Σ φ(k)ᵀ v and Σ φ(k), and top is empty. Zeros for an empty sequence.
    """
    context, total = _zeros(q, v, cu_seqlens)
    top = torch.zeros_like(total) if feature_map == "softmax" else total.new_empty(0)
    o = v.new_empty(v.shape)
    scratch = scratch_of(q)
    for group, parts in _grouped(q, v, cu_seqlens):
        sums = Sums(feature_map, scratch)
        for part in parts:
            sums.add(part.take(k), part.take(v), part)
        known, highest, norm = sums.result()
        if feature_map == "softmax":
            top[group.sequences] = highest.unflatten(0, (group.count, -1))
        context[group.sequences] = known.unflatten(0, (group.count, -1))
        total[group.sequences] = norm.unflatten(0, (group.count, -1))
        extended = with_norm(feature_map, known, norm, scale)
        for part in parts:
            part.put(o, attend(feature_map, part.take(q), extended, scratch, part.room(o, scratch)))
    return o, context, top, total


def backward(
    grad_o: Tensor,
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
    """Gradients of q, k and v: one pass over q and grad_o, one over k and v.

    With the gradient dC of the context C, a softmax over time takes off each column the same
    δ = Σₑ C[:, e] dC[:, e], so no third pass is needed.
    """
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    scratch = scratch_of(q)
    for group, parts in _grouped(q, v, cu_seqlens):
        known, norm = context[group.sequences].flatten(0, 1), total[group.sequences].flatten(0, 1)
        if feature_map == "softmax":
            dcontext = _softmax_queries(parts, grad_o, q, known * scale, dq, scratch).mul_(scale)
            dcontext.div_(norm.unsqueeze(2))
            highest = top[group.sequences].flatten(0, 1)
            shift = -(known * dcontext).sum(2)
        else:
            both = _elu_queries(parts, grad_o, q, with_norm(feature_map, known, norm, scale), dq, scratch)
            dcontext, shift = both[..., :-1] * scale, both[..., -1]
        for part in parts:
            keys, values = part.take(k), part.take(v)
            weight = scratch("weight", *keys.shape)
            if feature_map == "softmax":
                _exp_(torch.sub(keys, highest, out=weight))
            else:
                _positive(keys, weight)
            part.put(dv, part.room(dv, scratch).copy_(_product(weight, dcontext, scratch)))
            slope = weight if feature_map == "softmax" else weight.clamp_(max=1)
            dweight = _product(values, dcontext.transpose(1, 2), scratch, shift)
            part.put(dk, torch.mul(slope, dweight, out=part.room(dk, scratch)))
    return dq, dk, dv


def _softmax_queries(
    parts: list[Part], grad_o: Tensor, q: Tensor, context: Tensor, dq: Tensor, scratch: Scratch
) -> Tensor:
    """Write dq; the gradient of the context [G, Dk, Dv]."""
    dcontext = torch.zeros_like(context)
    for part in parts:
        features = _features("softmax", part.take(q), scratch)
        part.without_padding(features.div_(features.sum(2, keepdim=True)))
        grad = part.take(grad_o)
        dcontext.baddbmm_(features.permute(1, 2, 0), grad.transpose(0, 1))
        dfeatures = _product(grad, context.transpose(1, 2), scratch)
        out = part.room(dq, scratch)
        torch._softmax_backward_data(dfeatures, features, 2, features.dtype, grad_input=out)
        part.put(dq, out)
    return dcontext


def _elu_queries(
    parts: list[Part], grad_o: Tensor, q: Tensor, context: Tensor, dq: Tensor, scratch: Scratch
) -> Tensor:
    """The same where the last column of the context [G, Dk, Dv + 1] is the total."""
    dcontext = torch.zeros_like(context)
    for part in parts:
        features = _features("elu", part.take(q), scratch)
        grad = part.take(grad_o)
        factors = _quotient_factors(grad, _product(features, context, scratch))
        grad = _quotient_gradient(part, grad, factors, scratch)
        dcontext.baddbmm_(features.permute(1, 2, 0), grad.transpose(0, 1))
        dfeatures = _product(grad, context.transpose(1, 2), scratch)
        part.put(dq, torch.mul(features.clamp_(max=1), dfeatures, out=part.room(dq, scratch)))
    return dcontext


def _quotient_factors(grad: Tensor, ratio: Tensor) -> Tensor:
    """Two numbers a row and head, [time, G, 2]: the gradient of ratio [time, G, Dv + 1] is grad times the
    first, and in its last column, the norm, the second. Zero where the norm vanishes.
    """
    norm = ratio[..., -1:]
    inverse = torch.where(norm < torch.finfo(norm.dtype).tiny, 0, norm.reciprocal())
    along = (grad * ratio[..., :-1]).sum(2, keepdim=True)
    return torch.cat([inverse, along.mul_(inverse).mul_(inverse).neg_()], 2)


def _quotient_gradient(part: Part, grad: Tensor, factors: Tensor, scratch: Scratch) -> Tensor:
    out = scratch("gradient", *grad.shape[:2], grad.shape[2] + 1)
    torch.mul(grad, factors[..., :1], out=out[..., :-1])
    out[..., -1:] = factors[..., 1:]
    return part.without_padding(out)


def forward_causal(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    scale: float,
    context0: Tensor | None,
    total0: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Result [B, T, H, Dv] with elu features, and the sums after each sequence's last row."""
    states = _joined(context0, total0, q, v, cu_seqlens)
    o = v.new_empty(v.shape)
    scratch = scratch_of(q)
    for group, parts in _grouped(q, v, cu_seqlens, CAUSAL_PART):
        state = states[group.sequences].flatten(0, 1)
        for part in parts:
            queries, keys, values = _causal_inputs(part, q, k, v, scratch)
            ratio = _causal_ratio(queries, keys, values, state)
            part.put(o, _divide(ratio, part.room(o, scratch)).mul_(scale))
            state.baddbmm_(keys.permute(1, 2, 0), values.transpose(0, 1))
        states[group.sequences] = state.unflatten(0, (group.count, -1))
    return o, *_apart(states)


def backward_causal(
    grad_o: Tensor,
    grad_context: Tensor | None,
    grad_total: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    context0: Tensor | None,
    total0: Tensor | None,
    cu_seqlens: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, and of the sums before each sequence's first row.

    One pass forward in time for q, with the sums as they grow, one backward for k and v, with their gradient
    as it does; between them two numbers a row and head.
    """
    states = _joined(context0, total0, q, v, cu_seqlens)
    dstates = _joined(grad_context, grad_total, q, v, cu_seqlens)
    dq, dk, dv = (x.new_empty(x.shape) for x in (q, k, v))
    kept = q.new_empty(*q.shape[:3], 2, dtype=states.dtype)
    scratch = scratch_of(q)
    for group, parts in _grouped(q, v, cu_seqlens, CAUSAL_PART):
        state = states[group.sequences].flatten(0, 1)
        for part in parts:
            queries, keys, values = _causal_inputs(part, q, k, v, scratch)
            grad = part.take(grad_o) * scale
            factors = _quotient_factors(grad, _causal_ratio(queries, keys, values, state))
            part.put(kept, part.room(kept, scratch).copy_(factors))
            grad = _quotient_gradient(part, grad, factors, scratch)
            dqueries = torch.bmm(grad.transpose(0, 1), state.transpose(1, 2))
            dqueries.baddbmm_(_until(grad, values), keys.transpose(0, 1))
            slope = queries.clamp_(max=1)
            part.put(dq, torch.mul(slope, dqueries.transpose(0, 1), out=part.room(dq, scratch)))
            state.baddbmm_(keys.permute(1, 2, 0), values.transpose(0, 1))
        dstate = dstates[group.sequences].flatten(0, 1)
        for part in reversed(parts):
            queries, keys, values = _causal_inputs(part, q, k, v, scratch)
            grad = _quotient_gradient(part, part.take(grad_o) * scale, part.take(kept), scratch)
            dkeys = torch.bmm(values.transpose(0, 1), dstate.transpose(1, 2))
            dkeys.baddbmm_(_until(grad, values).transpose(1, 2), queries.transpose(0, 1))
            dvalues = torch.bmm(keys.transpose(0, 1), dstate)
            dvalues.baddbmm_(_until(queries, keys).transpose(1, 2), grad.transpose(0, 1))
            part.put(dv, part.room(dv, scratch).copy_(dvalues[..., :-1].transpose(0, 1)))
            slope = keys.clamp_(max=1)
            part.put(dk, torch.mul(slope, dkeys.transpose(0, 1), out=part.room(dk, scratch)))
            dstate.baddbmm_(queries.permute(1, 2, 0), grad.transpose(0, 1))
        dstates[group.sequences] = dstate.unflatten(0, (group.count, -1))
    return dq, dk, dv, *_apart(dstates)


def _causal_inputs(part: Part, q: Tensor, k: Tensor, v: Tensor, scratch: Scratch) -> tuple[Tensor, ...]:
    """φ(q), φ(k), and v with a column of ones."""
    queries = _features("elu", part.take(q), scratch, "queries")
    keys = part.without_padding(_features("elu", part.take(k), scratch, "keys"))
    values = part.take(v)
    return queries, keys, torch.cat([values, values.new_ones(*values.shape[:2], 1)], 2)


def _causal_ratio(queries: Tensor, keys: Tensor, values: Tensor, state: Tensor) -> Tensor:
    ratio = torch.bmm(queries.transpose(0, 1), state)
    return ratio.baddbmm_(_until(queries, keys), values.transpose(0, 1)).transpose(0, 1)


def _until(x: Tensor, y: Tensor) -> Tensor:
    """Products [G, time, time] of each row of x with those of y up to its own time."""
    return torch.bmm(x.transpose(0, 1), y.permute(1, 2, 0)).tril_()


def _zeros(q: Tensor, v: Tensor, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor]:
    """For the context [N, H, Dk, Dv] and the total [N, H, Dk]."""
    sequences = len(q) if cu_seqlens is None else len(cu_seqlens) - 1
    shape, wide = (sequences, *q.shape[2:]), accumulation_dtype(q.dtype)
    return q.new_zeros(*shape, v.shape[3], dtype=wide), q.new_zeros(*shape, dtype=wide)


def _joined(
    context: Tensor | None, total: Tensor | None, q: Tensor, v: Tensor, cu_seqlens: Tensor | None
) -> Tensor:
    """Context and total side by side, [N, H, Dk, Dv + 1]; zeros for what is None."""
    zeros = _zeros(q, v, cu_seqlens)
    context = zeros[0] if context is None else context.to(zeros[0].dtype)
    total = zeros[1] if total is None else total.to(zeros[1].dtype)
    return torch.cat([context, total.unsqueeze(3)], 3)


def _apart(states: Tensor) -> tuple[Tensor, Tensor]:
    # copies: where one row is all there is, a slice of it is contiguous and would share its memory
    return states[..., :-1].clone(memory_format=torch.contiguous_format), states[..., -1].clone()
