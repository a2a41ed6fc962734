"""Projectors: the published numbers, masks, one-epoch and very long recordings."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from bioreport.projectors import KINDS, MAX_POSITIONS, build_projector, sinusoid

FIXTURES = {
    "linear": "celm_projector_linear",
    "sequence": "celm_projector_sequence_linear",
    "perceiver": "celm_projector_perceiver",
    "sequence-perceiver": "celm_projector_sequence_perceiver",
}
SMALL = {"linear": {}, "sequence": {"heads": 2}, "perceiver": {"queries": 5, "heads": 2}}
SMALL["sequence-perceiver"] = SMALL["perceiver"]


def relative(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max())


def small(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_projector(kind, 16, 12, **SMALL[kind]).eval()


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=list(FIXTURES))
def published(
    request: pytest.FixtureRequest, reference_file: Callable[[str], Path]
) -> tuple[str, dict[str, Tensor]]:
    return request.param, load_file(reference_file(f"{FIXTURES[request.param]}.safetensors"))


def state_of(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}


@torch.inference_mode()
def test_published_numbers(published: tuple[str, dict[str, Tensor]]) -> None:
    kind, tensors = published
    projector = build_projector(kind, 200, 64).eval()
    projector.load_state_dict(state_of(tensors))
    compared = 0
    for name in ("37", "1000", "1"):
        if f"out/y{name}" in tensors:
            x, y = tensors[f"in/x{name}"], tensors[f"out/y{name}"]
            got = projector(x.reshape(-1, 200))
            assert relative(got[0], y.reshape(got.shape[1:])) < 1e-5
            compared += 1
    assert compared >= 2


@torch.inference_mode()
def test_published_transformer_alone(reference_file: Callable[[str], Path]) -> None:
    tensors = load_file(reference_file("celm_projector_sequence_linear.safetensors"))
    projector = build_projector("sequence", 200, 64).eval()
    projector.load_state_dict(state_of(tensors))
    rows = tensors["in/x37"] + sinusoid(37, 200)
    assert projector.transformer is not None
    assert relative(projector.transformer(rows, torch.tensor([0, 37])), tensors["out/transformer37"]) < 1e-5


def test_published_numbers_with_gradients_on(published: tuple[str, dict[str, Tensor]]) -> None:
    kind, tensors = published
    projector = build_projector(kind, 200, 64)
    projector.load_state_dict(state_of(tensors))
    assert relative(projector(tensors["in/x1000"])[0].detach(), tensors["out/y1000"]) < 1e-5


def test_stored_sinusoid_is_accepted_where_it_belongs_and_not_kept() -> None:
    for kind in KINDS:
        projector = small(kind)
        state = dict(projector.state_dict()) | {"pos_enc.pe": torch.zeros(1, MAX_POSITIONS, 16)}
        if kind.startswith("sequence"):
            projector.load_state_dict(state)
            holder = torch.nn.ModuleDict({"projector": projector})
            holder.load_state_dict({f"projector.{key}": value for key, value in state.items()})
            assert "pos_enc.pe" in state
        else:
            with pytest.raises(RuntimeError, match=r"pos_enc\.pe"):
                projector.load_state_dict(state)
        assert not any("pos_enc" in key for key in projector.state_dict())


def test_parameter_counts_are_the_published_ones() -> None:
    counts = {kind: sum(p.numel() for p in build_projector(kind, 200, 2560).parameters()) for kind in KINDS}
    assert counts["linear"] == 514_560
    assert counts["sequence"] == 1_478_560
    assert counts["sequence-perceiver"] == 1_370_760


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7).filter(any), min_size=1, max_size=4))
@torch.no_grad()
def test_a_batch_gives_what_single_sessions_give(kind: str, rows: list[list[bool]]) -> None:
    projector, mask = small(kind), torch.tensor(rows)
    tokens = draw(len(rows), 7, 16).masked_fill(~mask[..., None], float("nan"))
    together = projector(tokens, mask)
    for session, there, got in zip(tokens, mask, together, strict=True):
        alone = projector(session[there])[0]
        if "perceiver" in kind:
            torch.testing.assert_close(got, alone)
        else:
            torch.testing.assert_close(got[there], alone)
            assert not got[~there].any()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_mask_of_nothing_but_tokens_changes_nothing(kind: str) -> None:
    projector, tokens = small(kind), draw(3, 7, 16)
    whole = projector(tokens)
    assert whole.shape == (3, 5 if "perceiver" in kind else 7, 12)
    assert torch.equal(projector(tokens, torch.ones(3, 7, dtype=torch.bool)), whole)
    assert torch.equal(projector(tokens[0], torch.ones(7, dtype=torch.bool)), projector(tokens[0]))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_one_epoch(kind: str) -> None:
    projector, tokens = small(kind), draw(2, 1, 16)
    got = projector(tokens)
    assert got.shape == (2, 5 if "perceiver" in kind else 1, 12)
    torch.testing.assert_close(got[1:], projector(tokens[1]))
    assert relative(got[0], got[1]) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(kind: str) -> None:
    projector = small(kind).train()
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    projector(draw(2, 6, 16), mask).square().sum().backward()
    for name, parameter in projector.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        assert torch.isfinite(parameter.grad).all(), name


@torch.no_grad()
def test_order_of_time_matters_only_where_there_is_a_position() -> None:
    tokens = draw(1, 6, 16)
    for kind, differs in (("perceiver", False), ("sequence-perceiver", True)):
        projector = small(kind)
        change = relative(projector(tokens.flip(1)), projector(tokens))
        assert (change > 1e-3) == differs


@torch.no_grad()
def test_beyond_the_published_length() -> None:
    tokens = draw(1, MAX_POSITIONS + 50, 16)
    torch.manual_seed(0)
    sane = build_projector("sequence", 16, 12, heads=2)
    celm = build_projector("sequence", 16, 12, heads=2, compat="celm")
    celm.load_state_dict(sane.state_dict())
    assert sane(tokens).shape == (1, MAX_POSITIONS + 50, 12)
    assert torch.equal(celm(tokens), sane(tokens[:, :MAX_POSITIONS]))
    assert relative(sane(tokens)[:, :MAX_POSITIONS], celm(tokens)) > 1e-6
    mask = torch.ones(1, MAX_POSITIONS + 50, dtype=torch.bool)
    mask[0, :10] = False
    assert celm(tokens, mask).shape == (1, MAX_POSITIONS, 12)
    # CELM's perceiver alone knows no positions, and cuts nothing off
    perceiver = build_projector("perceiver", 16, 12, heads=2, queries=3, compat="celm")
    longer = tokens.clone()
    longer[:, MAX_POSITIONS:] += 10
    assert not torch.equal(perceiver(longer), perceiver(tokens))


def test_sinusoid_is_the_formula() -> None:
    table = sinusoid(20_000, 8)
    for position in (0, 1, 37, 12_345, 19_999):
        for column in range(8):
            angle = position * 10_000 ** (-(column // 2 * 2) / 8)
            expected = math.sin(angle) if column % 2 == 0 else math.cos(angle)
            assert abs(float(table[position, column]) - expected) < 2e-3
    assert sinusoid(3, 5).shape == (3, 5)


@torch.inference_mode()
def test_no_array_is_quadratic_or_as_wide_as_the_hidden_layer() -> None:
    projector = build_projector("sequence-perceiver", 40, 12, heads=4, queries=4, ff_multiple=16).eval()
    largest = 0

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor):
                largest = max(largest, out.numel())
            return out

    tokens = draw(1, 6000, 40)
    with Sizes():
        projector(tokens)
    assert 6000 * 40 <= largest <= 2 * 6000 * 40


@pytest.mark.parametrize(
    ("arguments", "sizes", "named"),
    [
        (("transformer", 16, 12), {}, "projector must be one of"),
        (("linear", 16, 12), {"depth": 1}, "depth=1"),
        (("sequence", 16, 12), {"perceiver_depth": 1}, "perceiver_depth=1"),
        (("sequence", 16, 12), {"depth": 0}, "depth=0"),
        (("sequence", 16, 12), {"heads": 3}, "heads=3"),
        (("linear", 16, 12), {"compat": "other"}, "compat"),
    ],
)
def test_sizes_that_do_not_fit_are_named(
    arguments: tuple[str, int, int], sizes: dict[str, object], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        build_projector(*arguments, **sizes)


def test_shapes_that_do_not_fit_are_named() -> None:
    projector = small("linear")
    with pytest.raises(ValueError, match="tokens must be"):
        projector(draw(2, 7, 15))
    with pytest.raises(ValueError, match="tokens must be"):
        projector(draw(2, 0, 16))
    with pytest.raises(ValueError, match="mask must be"):
        projector(draw(2, 7, 16), torch.ones(2, 7))
    with pytest.raises(ValueError, match="without a token"):
        projector(draw(2, 7, 16), torch.zeros(2, 7, dtype=torch.bool))


@pytest.mark.parametrize("kind", ["linear", "sequence"])
def test_neighbours_may_share_an_embedding(kind: str) -> None:
    torch.manual_seed(0)
    single = build_projector(kind, 16, 12, heads=2).eval()
    shared = build_projector(kind, 16, 12, heads=2, combine=4).eval()
    shared.load_state_dict(single.state_dict())
    lengths = [9, 4, 1]
    tokens = draw(sum(lengths), 16)
    one, _ = single.packed(tokens, lengths)
    got, fewer = shared.packed(tokens, lengths)
    assert fewer == [3, 1, 1]
    # the last layer is linear, so a mean before it is one after it
    wanted = [part.mean(0) for session in one.split(lengths) for part in session.split(4)]
    torch.testing.assert_close(got, torch.stack(wanted))
    padded = torch.nn.utils.rnn.pad_sequence(tokens.split(lengths), batch_first=True)
    mask = torch.arange(9) < torch.tensor(lengths)[:, None]
    batch = shared(padded, mask)
    assert batch.shape == (3, 3, 12)
    torch.testing.assert_close(torch.cat([row[:n] for row, n in zip(batch, fewer, strict=True)]), got)
    assert not batch[1, 1:].any()
    torch.testing.assert_close(shared(tokens[:9])[0], got[:3])


def test_a_perceiver_combines_by_its_queries() -> None:
    with pytest.raises(ValueError, match="combine"):
        build_projector("perceiver", 16, 12, heads=2, combine=2)
    with pytest.raises(ValueError, match="combine"):
        build_projector("linear", 16, 12, combine=0)
