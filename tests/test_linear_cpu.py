"""Linear attention in plain PyTorch, in parts and groups: against the definition in float64."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from kernel_checks import assert_close, relative_rms
from torch import Tensor

from bioreport_kernels import LinearAttentionContext, linear_attention, reference
from bioreport_kernels.cpu import linear, sequences
from bioreport_kernels.cpu.sequences import groups, scratch_of

KINDS = ("softmax", "elu", "causal")
NAMES = ("o", "dq", "dk", "dv")
# Empty ones at either end and between, one longer than a part, of one row, of equal and of similar lengths.
SKEWED = torch.tensor([0, 0, 3, 5, 42, 67, 67, 68, 338, 341, 353, 360, 360])


@pytest.fixture(autouse=True)
def fresh_scratch() -> None:
    """Nothing left in scratch memory by another test, which would hide what is read before it is written."""
    vars(sequences._of_this_thread).clear()


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts so small that the sequences of a test take several."""
    monkeypatch.setattr(linear, "PART", 2**10)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def inputs(
    batch: int, length: int, heads: int, dk: int, dv: int, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    return [draw(batch, length, heads, dim, seed=i, dtype=dtype) for i, dim in enumerate((dk, dk, dv, dv))]


def states(count: int, heads: int, dk: int, dv: int) -> list[Tensor]:
    """As sums of positive features are: not near zero."""
    return [draw(count, heads, dk, dv, seed=8), draw(count, heads, dk, seed=9).abs() + 1]


def by_parts(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grad: Tensor,
    kind: str,
    borders: Tensor | None = None,
    state: list[Tensor] | None = None,
) -> list[Tensor]:
    """Result and gradients of this path; of a causal call also the state, its gradient given as itself."""
    if kind != "causal":
        o, *kept = linear.forward(q, k, v, borders, kind, 0.3)
        return [o, *linear.backward(grad, q, k, v, *kept, borders, kind, 0.3)]
    start = state or (None, None)
    o, context, total = linear.forward_causal(q, k, v, borders, 0.3, *start)
    grads = linear.backward_causal(grad, context, total, q, k, v, *start, borders, 0.3)
    return [o, *grads[:3], context, total, *(grads[3:] if state else ())]


def defined(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    grad: Tensor,
    kind: str,
    borders: Tensor | None = None,
    state: list[Tensor] | None = None,
) -> list[Tensor]:
    """The same by the definition and autograd, in float64."""
    leaves = [x.detach().double().requires_grad_() for x in (q, k, v, *(state or ()))]
    causal = kind == "causal"
    found = reference.linear_attention(
        *leaves[:3],
        feature_map="elu" if causal else kind,
        causal=causal,
        scale=0.3,
        cu_seqlens=borders,
        initial_state=tuple(leaves[3:]) if state else None,  # type: ignore[arg-type]
        return_state=causal,
    )
    if not causal:
        return [found.detach(), *torch.autograd.grad(found, leaves, grad.double())]
    o, (context, total) = found
    outs, upstream = [o, context, total], [grad.double(), context.detach(), total.detach()]
    dq, dk, dv, *dstate = torch.autograd.grad(outs, leaves, upstream)
    return [o.detach(), dq, dk, dv, context.detach(), total.detach(), *dstate]


def check(found: list[Tensor], wanted: list[Tensor], tolerance: float) -> None:
    assert len(found) == len(wanted)
    for place, (got, want) in enumerate(zip(found, wanted, strict=True)):
        name = NAMES[place] if place < len(NAMES) else f"state {place}"
        assert got.is_contiguous(), name
        # of a gradient that cancels only rounding is left: that of terms near 0.1
        assert_close(got, want, tolerance, name, floor=0.1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("length", "dk", "dv"),
    [(1, 25, 25), (2, 1, 3), (63, 64, 40), (129, 72, 100), (1003, 25, 25), (129, 128, 128)],
)
def test_is_the_definition(
    kind: str, length: int, dk: int, dv: int, small_parts: None, poisoned: None
) -> None:
    given = inputs(2, length, 3, dk, dv)
    check(by_parts(*given, kind), defined(*given, kind), 2e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [1, 2**10, 2**18])
def test_packed_is_the_definition(
    kind: str, part: int, monkeypatch: pytest.MonkeyPatch, poisoned: None
) -> None:
    monkeypatch.setattr(linear, "PART", part)
    given = inputs(1, 360, 2, 25, 13)
    state = states(len(SKEWED) - 1, 2, 25, 13) if kind == "causal" else None
    check(by_parts(*given, kind, SKEWED, state), defined(*given, kind, SKEWED, state), 2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_float64_stays_float64(kind: str, small_parts: None) -> None:
    given = inputs(2, 150, 2, 25, 13, torch.float64)
    check(by_parts(*given, kind), defined(*given, kind), 1e-13)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_floats_lose_no_more_than_pytorch(kind: str, dtype: torch.dtype, small_parts: None) -> None:
    given = inputs(1, 360, 2, 25, 25, dtype)
    wanted = defined(*given, kind, SKEWED)
    found = by_parts(*given, kind, SKEWED)
    assert [x.dtype for x in found[:4]] == [dtype] * 4
    for got, want in zip(found, wanted, strict=True):
        # rounding the result is all that is lost
        assert relative_rms(got, want) <= 1.5 * relative_rms(want.to(dtype), want) + 1e-6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("borders", [None, SKEWED])
def test_any_strides(kind: str, borders: Tensor | None, small_parts: None) -> None:
    fused = draw(1, 360, 3, 2, 25)
    q, k, v = fused.unbind(2)
    want = by_parts(*(x.contiguous() for x in (q, k, v)), torch.ones(1, 360, 2, 25), kind, borders)
    expanded = torch.ones(()).expand(1, 360, 2, 25)
    by_heads = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    by_features = [x.transpose(1, 3).contiguous().transpose(1, 3) for x in (q, k, v)]
    wider = [torch.cat([x, x], 3)[..., 25:] for x in (q, k, v)]
    for given in ([q, k, v], by_heads, by_features, wider):
        check(by_parts(*given, expanded, kind, borders), want, 2e-6)
    sliced = torch.cat([torch.ones(1, 360, 2, 25)] * 2, 3)[..., :25]
    one_head = [x[:, :, :1].expand(-1, -1, 2, -1) for x in (q, k, v)]
    check(by_parts(*one_head, sliced, kind, borders), defined(*one_head, sliced, kind, borders), 2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_attend_to(kind: str) -> None:
    none = torch.tensor([0, 0, 0])
    for batch, length, borders in ((0, 5, None), (2, 0, None), (1, 0, none)):
        given = inputs(batch, length, 2, 3, 4)
        o, dq, dk, dv, *_ = by_parts(*given, kind, borders)
        assert (o.shape, dq.shape, dk.shape, dv.shape) == tuple(given[i].shape for i in (3, 0, 1, 2))


def test_empty_sequences_leave_zeros(poisoned: None) -> None:
    q, k, v, _ = inputs(1, 360, 2, 25, 13)
    empty = SKEWED.diff() == 0
    for feature_map in ("softmax", "elu"):
        _, *kept = linear.forward(q, k, v, SKEWED, feature_map, 1.0)
        for x in kept:
            assert not len(x) or (not x[empty].any() and x[~empty].any(2).all())


def test_context_and_sums_are_those_of_the_definition(small_parts: None) -> None:
    q, k, v, _ = inputs(2, 300, 2, 25, 13)
    _, context, top, total = linear.forward(q, k, v, None, "softmax", 0.3)
    weight = k.double().softmax(1)
    assert_close(context, torch.einsum("bthd,bthe->bhde", weight, v.double()), 1e-6)
    assert torch.equal(top, k.amax(1))
    assert_close(top + total.log(), k.double().logsumexp(1), 1e-6)
    _, context, top, total = linear.forward(q, k, v, None, "elu", 0.3)
    weight = reference.positive(k.double())
    assert_close(context, torch.einsum("bthd,bthe->bhde", weight, v.double()), 1e-6)
    assert_close(total, weight.sum(1), 1e-6)
    assert not top.numel()


def extremes() -> Iterator[tuple[str, Tensor, Tensor]]:
    q, k = draw(1, 300, 2, 25), draw(1, 300, 2, 25, seed=1)
    yield "keys that grow from part to part", q, k + torch.arange(300.0)[:, None, None]
    yield "large", 30 * q, 30 * k
    far = q.clone()
    far[:, ::7, :, 3] += 1e4
    yield "queries beyond the bound", far, k - 1e4
    yield "queries far below it", q - 500, k
    masked = k.clone()
    masked[:, :200] = float("-inf")
    yield "keys of -inf for more than a part", q, masked
    off = q.clone()
    off[..., 1:5] = float("-inf")
    yield "queries of -inf", off, k


@pytest.mark.parametrize(("q", "k"), [pytest.param(q, k, id=name) for name, q, k in extremes()])
def test_softmax_of_extreme_values(q: Tensor, k: Tensor, small_parts: None) -> None:
    v, grad = draw(1, 300, 2, 13, seed=2), draw(1, 300, 2, 13, seed=3)
    o, dq, dk, dv = by_parts(q, k, v, grad, "softmax")
    wanted = defined(q, k, v, grad, "softmax")
    for name, got, want in zip(NAMES, (o, dq, dk, dv), wanted, strict=True):
        # a float32 is exact to 2e-6 of 30 only
        assert_close(got, want, 2e-5, name)


@pytest.mark.parametrize("kind", ["elu", "causal"])
def test_elu_features_that_vanish_give_zeros(kind: str) -> None:
    q, k, v, grad = inputs(1, 100, 2, 5, 4)
    o, *grads = by_parts(q - 1e4, k, v, grad, kind)
    assert not o.any() and all(x.isfinite().all() for x in grads)


def test_many_short_sequences_stand_together() -> None:
    lengths = torch.randint(0, 40, (5000,), generator=torch.Generator().manual_seed(0))
    borders = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    found = list(groups(torch.empty(1, int(borders[-1]), 1), borders, 1310))
    assert len(found) < 250
    together = torch.cat([torch.arange(len(lengths))[g.sequences] for g in found])
    assert together.sort().values.equal(lengths.nonzero().squeeze(1))
    assert all(g.padding is not None and g.padding.float().mean() < 0.5 for g in found)
    # one much longer would have the others padded to its length
    lengths = torch.tensor([1, 2, 100, 1, 60])
    found = list(groups(torch.empty(1, 164, 1), torch.cat([lengths[:1] * 0, lengths.cumsum(0)]), 1310))
    assert [(g.count, g.length) for g in found] == [(2, 100), (3, 2)]
    # and ones of a part's length alone, as views
    assert [g.rows for g in groups(torch.empty(1, 5000, 1), torch.tensor([0, 1000, 5000]), 1310)] == [
        None,
        None,
    ]


def test_the_context_in_parts_is_this_path(small_parts: None) -> None:
    q, k, v, _ = inputs(1, 500, 2, 25, 13)
    context = LinearAttentionContext()
    for start in range(0, 500, 130):
        context.update(k[0, start : start + 130], v[0, start : start + 130])
    assert_close(context.attend(q[0], 0.3), linear.forward(q, k, v, None, "softmax", 0.3)[0][0], 1e-6)
    assert_close(context.attend(q[0], 0.6), 2 * context.attend(q[0], 0.3), 1e-6)
    context.update(k[0] + 3, v[0])
    twice = [torch.cat([x, y], 1) for x, y in ((k, k + 3), (v, v))]
    want = reference.linear_attention(torch.cat([q, q], 1).double(), *(x.double() for x in twice), scale=0.3)
    assert isinstance(want, Tensor)
    assert_close(context.attend(q[0], 0.3), want[0, :500], 1e-6)
    assert context.attend(q[0, :0]).shape == (0, 2, 13)


def test_scratch_memory_serves_every_call_of_a_thread() -> None:
    q, k, v, grad = inputs(1, 300, 2, 25, 13)
    with torch.inference_mode():
        first = linear.forward(q, k, v, None, "softmax", 0.3)[0].clone()
    again = by_parts(q, k, v, grad, "softmax")[0]
    assert torch.equal(first, again)
    wide = inputs(2, 200, 2, 40, 64)
    check(by_parts(*wide, "softmax"), defined(*wide, "softmax"), 2e-6)
    scratch = scratch_of(q)
    assert scratch is scratch_of(v) and scratch is not scratch_of(q.double())
    a = scratch("a", 3, 4)
    assert (
        scratch("a", 2, 6).data_ptr()
        == a.data_ptr()
        == scratch("a", 3).data_ptr()
        == scratch("a", 12).data_ptr()
    )
    assert scratch("a", 13).shape == (13,) and scratch("b", 3, 4).data_ptr() != a.data_ptr()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(scratch_of, q).result() is not scratch
        assert torch.equal(pool.submit(linear.forward, q, k, v, None, "softmax", 0.3).result()[0], first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (2, 37, 3, 25, 8), (1, 300, 8, 25, 25)])
def test_short_ones_are_the_same_where_nothing_is_kept(
    shape: tuple[int, int, int, int, int], dtype: torch.dtype
) -> None:
    q, k, v, _ = inputs(*shape, dtype=dtype)
    alone = linear_attention(q, k, v)
    kept = linear_attention(q.clone().requires_grad_(), k, v)
    want = reference.linear_attention(q.double(), k.double(), v.double())
    assert alone.dtype == dtype and alone.is_contiguous()
    limit = 1e-6 if dtype == torch.float32 else 1e-14 if dtype == torch.float64 else 4e-3
    assert relative_rms(alone.double(), want) < limit
    assert relative_rms(alone.double(), kept.detach().double()) < 2 * limit
