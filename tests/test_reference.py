"""bioreport_kernels: the definitions against formulas written out, and their gradients."""

import doctest
import math
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from bioreport_kernels import (
    EpochAggregator,
    LinearAttentionContext,
    aggregate_epochs,
    linear_attention,
    reference,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def qkv(batch: int, length: int, heads: int, dk: int, dv: int, **options: object) -> list[Tensor]:
    return [draw(batch, length, heads, dim, seed=i, **options) for i, dim in enumerate((dk, dk, dv))]  # type: ignore[arg-type]


def attend_by_rows(q: Tensor, k: Tensor, v: Tensor, feature_map: str, causal: bool, scale: float) -> Tensor:
    """The quadratic form, row by row of one head."""
    out = torch.zeros(*q.shape[:3], v.shape[3], dtype=q.dtype)
    for b in range(q.shape[0]):
        for h in range(q.shape[2]):
            for t in range(q.shape[1]):
                if feature_map == "softmax":
                    weights = F.softmax(k[b, :, h], 0) @ F.softmax(q[b, t, h], 0)
                    out[b, t, h] = scale * weights @ v[b, :, h]
                    continue
                stop = t + 1 if causal else q.shape[1]
                weights = (F.elu(k[b, :stop, h]) + 1) @ (F.elu(q[b, t, h]) + 1)
                out[b, t, h] = scale * weights @ v[b, :stop, h] / weights.sum()
    return out


@pytest.mark.parametrize(("feature_map", "causal"), [("softmax", False), ("elu", False), ("elu", True)])
@pytest.mark.parametrize("length", [1, 3, 70])
def test_linear_attention_is_the_quadratic_formula(feature_map: str, causal: bool, length: int) -> None:
    q, k, v = qkv(2, length, 3, 5, 4)
    expected = attend_by_rows(q, k, v, feature_map, causal, 0.3)
    torch.testing.assert_close(
        linear_attention(q, k, v, feature_map=feature_map, causal=causal, scale=0.3), expected
    )


def test_default_scale_is_that_of_the_head_for_softmax_and_none_for_elu() -> None:
    q, k, v = qkv(1, 6, 2, 25, 25)
    torch.testing.assert_close(linear_attention(q, k, v), linear_attention(q, k, v, scale=25**-0.5))
    elu = linear_attention(q, k, v, feature_map="elu")
    torch.testing.assert_close(elu, linear_attention(q, k, v, feature_map="elu", scale=1.0))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.sampled_from(["softmax", "elu", "causal"]))
def test_packed_sequences_attend_within_themselves(lengths: list[int], kind: str) -> None:
    options = {"feature_map": "softmax" if kind == "softmax" else "elu", "causal": kind == "causal"}
    q, k, v = qkv(1, sum(lengths), 2, 3, 4)
    borders = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32)
    packed = linear_attention(q, k, v, cu_seqlens=borders, **options)  # type: ignore[arg-type]
    assert packed.shape == v.shape
    for start, stop in pairwise(borders.tolist()):
        if start < stop:
            alone = linear_attention(*(x[:, start:stop] for x in (q, k, v)), **options)  # type: ignore[arg-type]
            torch.testing.assert_close(packed[:, start:stop], alone)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 150), st.integers(0, 150))
def test_causal_state_carries_on(first: int, second: int) -> None:
    q, k, v = qkv(2, first + second, 2, 3, 4)
    whole, end = linear_attention(q, k, v, feature_map="elu", causal=True, return_state=True)
    a, state = linear_attention(
        *(x[:, :first] for x in (q, k, v)), feature_map="elu", causal=True, return_state=True
    )
    b, last = linear_attention(
        *(x[:, first:] for x in (q, k, v)),
        feature_map="elu",
        causal=True,
        return_state=True,
        initial_state=state,
    )
    torch.testing.assert_close(torch.cat([a, b], 1), whole)
    torch.testing.assert_close(last, end)


def test_packed_states_are_those_of_each_sequence() -> None:
    q, k, v = qkv(1, 9, 2, 3, 4)
    options = {"feature_map": "elu", "causal": True, "return_state": True}
    _, (context, total) = linear_attention(q, k, v, cu_seqlens=torch.tensor([0, 4, 4, 9]), **options)  # type: ignore[arg-type]
    assert context.shape == (3, 2, 3, 4) and not context[1].any() and not total[1].any()
    _, (alone, _) = linear_attention(*(x[:, 4:] for x in (q, k, v)), **options)  # type: ignore[arg-type]
    torch.testing.assert_close(context[2:], alone)
    again = linear_attention(
        q,
        k,
        v,
        feature_map="elu",
        causal=True,
        cu_seqlens=torch.tensor([0, 4, 4, 9]),
        initial_state=(context, total),
    )
    assert isinstance(again, Tensor) and again.shape == v.shape


@pytest.mark.parametrize("kind", ["softmax", "elu", "causal", "packed"])
def test_linear_attention_gradients(kind: str) -> None:
    inputs = [x.requires_grad_() for x in qkv(1, 5, 2, 3, 2)]
    options: dict[str, object] = {"feature_map": "softmax" if kind in ("softmax", "packed") else "elu"}
    if kind == "causal":
        options["causal"] = True
    if kind == "packed":
        options["cu_seqlens"] = torch.tensor([0, 2, 5])
    assert torch.autograd.gradcheck(lambda *x: linear_attention(*x, **options), inputs)  # type: ignore[arg-type]


def test_elu_features_far_below_zero_are_small_not_lost() -> None:
    x = torch.tensor([-30.0, -1e-9, 0.0, 2.0])
    torch.testing.assert_close(
        reference.positive(x), torch.tensor([math.exp(-30), 1.0, 1.0, 3.0]), rtol=1e-6, atol=0
    )
    q, k, v = qkv(1, 4, 1, 3, 3, dtype=torch.float32)
    assert not linear_attention(q - 1e4, k, v, feature_map="elu").any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_inputs_are_summed_in_float32(dtype: torch.dtype) -> None:
    q, k, v = qkv(1, 3000, 2, 8, 8, dtype=dtype)
    out = linear_attention(q, k, v)
    wide = linear_attention(q.float(), k.float(), v.float())
    assert out.dtype == dtype
    assert torch.equal(out, wide.to(dtype))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"k": draw(1, 3, 2, 5)}, "q and k"),
        ({"v": draw(1, 3, 1, 4)}, "v must"),
        ({"v": draw(1, 4, 2, 4).float()}, "dtype"),
        ({"feature_map": "relu"}, "feature_map"),
        ({"causal": True}, "causal"),
        ({"return_state": True}, "state"),
        ({"cu_seqlens": torch.tensor([0, 5])}, "cu_seqlens"),
        ({"cu_seqlens": torch.tensor([0, 3, 2, 4])}, "cu_seqlens"),
        ({"cu_seqlens": torch.tensor([0.0, 4.0])}, "cu_seqlens"),
        ({"feature_map": "elu", "causal": True, "initial_state": (draw(1), draw(1))}, "initial_state"),
    ],
)
def test_linear_attention_names_what_does_not_fit(change: dict[str, object], named: str) -> None:
    arguments: dict[str, object] = dict(zip("qkv", qkv(1, 4, 2, 3, 4), strict=True)) | change
    with pytest.raises(ValueError, match=named):
        linear_attention(**arguments)  # type: ignore[arg-type]


def test_packing_needs_a_batch_of_one() -> None:
    with pytest.raises(ValueError, match="B must be 1"):
        linear_attention(*qkv(2, 4, 2, 3, 4), cu_seqlens=torch.tensor([0, 4]))


def pool_by_epochs(features: Tensor, mask: Tensor, mode: str, query: Tensor | None) -> Tensor:
    """Each epoch's unmasked rows picked out, then pooled."""
    tokens = []
    for x, there in zip(features, mask, strict=True):
        rows = x[there]
        if not len(rows):
            rows = torch.zeros(1, x.shape[-1], dtype=x.dtype)
        if mode == "mean":
            tokens.append(rows.mean(0))
        elif mode == "max":
            tokens.append(rows.amax(0))
        else:
            assert query is not None
            tokens.append(F.softmax(query @ rows.T / math.sqrt(rows.shape[1]), -1) @ rows)
    return torch.stack(tokens)


QUERIES = {
    "mean": None,
    "max": None,
    "attention": draw(4, seed=9),
    "attention, 3 queries": draw(3, 4, seed=9),
}


@pytest.mark.parametrize("case", QUERIES)
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.booleans())
def test_aggregate_is_pooling_of_the_rows_that_are_there(case: str, seed: int, by_channel: bool) -> None:
    mode, query = case.split(",")[0], QUERIES[case]
    features = draw(3, 5, 2, 4, seed=seed)
    mask = torch.rand(3, 5, 1 if by_channel else 2, generator=generator(seed)) > 0.5
    mask[0] = False
    full = mask.expand(3, 5, 2)
    given_mask = mask[..., 0] if by_channel else mask
    tokens = aggregate_epochs(features, given_mask, mode, query)
    torch.testing.assert_close(tokens, pool_by_epochs(features, full, mode, query))
    assert not tokens[0].any()
    spoilt = features.masked_fill(~full[..., None], float("nan"))
    assert torch.equal(aggregate_epochs(spoilt, given_mask, mode, query), tokens)
    everything = torch.ones(3, 5, 2, dtype=torch.bool)
    torch.testing.assert_close(
        aggregate_epochs(features, everything, mode, query), aggregate_epochs(features, None, mode, query)
    )


@pytest.mark.parametrize("case", QUERIES)
@pytest.mark.parametrize("masked", [False, True])
def test_aggregate_gradients(case: str, masked: bool) -> None:
    mode, query = case.split(",")[0], QUERIES[case]
    mask = None
    if masked:
        mask = torch.rand(2, 3, 2, generator=generator(4)) > 0.4
        mask[1] = False
    features = draw(2, 3, 2, 4).requires_grad_()
    inputs = [features] if query is None else [features, query.clone().requires_grad_()]
    assert torch.autograd.gradcheck(lambda x, *q: aggregate_epochs(x, mask, mode, *q), inputs)


def test_half_precision_mean_is_summed_wide() -> None:
    features = torch.ones(1, 300, 30, 2, dtype=torch.float16)  # 9000 ones: beyond float16's integers
    mask = torch.ones(1, 300, dtype=torch.bool)
    assert torch.equal(aggregate_epochs(features, mask), torch.ones(1, 2, dtype=torch.float16))
    assert torch.equal(aggregate_epochs(features), torch.ones(1, 2, dtype=torch.float16))


def test_no_channel_at_all_gives_zeros() -> None:
    assert torch.equal(aggregate_epochs(torch.ones(2, 0, 3, 4)), torch.zeros(2, 4))
    assert aggregate_epochs(torch.ones(2, 0, 3, 4), mode="attention", query=torch.ones(5, 4)).shape == (
        2,
        5,
        4,
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"features": torch.ones(3, 4)}, "features"),
        ({"features": torch.ones(2, 3, 2, 4, dtype=torch.int64)}, "features"),
        ({"mask": torch.ones(2, 3)}, "mask must be bool"),
        ({"mask": torch.ones(2, 2, dtype=torch.bool)}, "mask must be"),
        ({"mode": "median"}, "mode"),
        ({"mode": "attention"}, "query"),
        ({"query": torch.ones(4)}, "query"),
        ({"mode": "attention", "query": torch.ones(5)}, "query"),
    ],
)
def test_aggregate_names_what_does_not_fit(change: dict[str, object], named: str) -> None:
    arguments: dict[str, object] = {"features": torch.ones(2, 3, 2, 4)} | change
    with pytest.raises(ValueError, match=named):
        aggregate_epochs(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("case", QUERIES)
@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 4), st.booleans(), st.integers(0, 99)
)
def test_stream_gives_the_epochs_tokens_wherever_it_is_cut(
    case: str, chunks: list[int], patches: int, masked: bool, seed: int
) -> None:
    mode, query = case.split(",")[0], QUERIES[case]
    length = sum(chunks)
    stream = draw(3, length, 4, seed=seed)
    mask = torch.rand(3, length, generator=generator(seed)) > (0.6 if masked else -1.0)
    aggregator = EpochAggregator(patches, mode, query)
    tokens, start = [], 0
    for chunk in chunks:
        part = slice(start, start + chunk)
        tokens.append(aggregator.update(stream[:, part], mask[:, part] if masked else None))
        start += chunk
    last = aggregator.flush()
    assert len(last) == (length % patches > 0)
    padded = F.pad(stream, (0, 0, 0, -length % patches)).unflatten(1, (-1, patches)).transpose(0, 1)
    there = F.pad(mask, (0, -length % patches)).unflatten(1, (-1, patches)).transpose(0, 1)
    torch.testing.assert_close(torch.cat([*tokens, last]), aggregate_epochs(padded, there, mode, query))
    assert len(aggregator.flush()) == 0


def test_stream_keeps_no_epoch() -> None:
    aggregator = EpochAggregator(1000, "attention", draw(2, 4))
    for _ in range(3):
        assert len(aggregator.update(draw(22, 300, 4), torch.ones(22, dtype=torch.bool))) == 0
    state = aggregator._state
    assert state is not None and sum(tensor.numel() for tensor in state) == 2 * (4 + 2)


def test_stream_names_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="patches"):
        EpochAggregator(0)
    with pytest.raises(ValueError, match="query"):
        EpochAggregator(10, "attention")
    aggregator = EpochAggregator(10)
    with pytest.raises(ValueError, match="chunk"):
        aggregator.update(torch.ones(3, 4))
    with pytest.raises(ValueError, match="mask"):
        aggregator.update(torch.ones(3, 4, 5), torch.ones(3, 4))


@pytest.mark.parametrize("name", ["linear", "aggregate"])
def test_examples_run(name: str) -> None:
    failed, tried = doctest.testmod(sys.modules[f"bioreport_kernels.{name}"])
    assert tried and not failed


def test_the_package_needs_neither_bioreport_nor_its_dependencies() -> None:
    code = (
        "import sys, bioreport_kernels; loaded = {name.split('.')[0] for name in sys.modules}; "
        "print(*sorted({'bioreport', 'transformers', 'mne', 'scipy'} & loaded))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


@pytest.mark.parametrize("parts", [[1], [7], [3, 0, 1, 9], [64, 64]])
def test_a_context_in_parts_is_the_whole(parts: list[int]) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(sum(parts), 2, 25, generator=generator, dtype=torch.float64) for _ in range(3))
    k[0] += 300  # a sum of plain exponentials would overflow
    context = LinearAttentionContext()
    for part_k, part_v in zip(k.split(parts), v.split(parts), strict=True):
        context.update(part_k, part_v)
    whole = linear_attention(q[None], k[None], v[None])[0]
    torch.testing.assert_close(context.attend(q), whole, rtol=1e-10, atol=1e-12)


def test_a_context_without_keys_is_refused() -> None:
    with pytest.raises(ValueError, match="no keys yet"):
        LinearAttentionContext().attend(torch.randn(1, 2, 4))
