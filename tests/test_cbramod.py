"""CBraMod: the published numbers, masks that hide completely, and training through it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from bioreport.encoders.cbramod import EPOCHS_AT_ONCE, CBraMod, _attend, linear
from bioreport_kernels import aggregate_epochs

SMALL = {"d_model": 80, "n_layer": 2, "nhead": 4, "dim_feedforward": 96, "out_dim": 12}


def small(**changes: object) -> CBraMod:
    torch.manual_seed(0)
    model = CBraMod(**{**SMALL, **changes}).eval()  # type: ignore[arg-type]
    for parameter in model.parameters():
        # no bias or gain that a dropped or swapped one would equal
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def signal(batch: int, channels: int, patches: int, seed: int = 1) -> Tensor:
    return torch.randn(batch, channels, patches, 200, generator=torch.Generator().manual_seed(seed))


def relative(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).detach().abs().max() / expected.detach().abs().max())


class Plain(nn.Module):
    """The published computation with PyTorch's own modules, over the given channels and patches of one epoch.

    Of one sample only, so that a masked channel can be left out, except where its place counts: in the
    convolution over channels and patches it stands as zeros.
    """

    def __init__(self, model: CBraMod) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [C, P, 200] and mask [C, P], a product of channels and patches, to [C, P, out_dim]."""
        embedding = self.model.patch_embedding
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns)
        seen = x[rows][:, columns]
        channels, patches = seen.shape[:2]
        y = embedding.proj_in(seen.reshape(1, 1, channels * patches, 200))
        y = y.permute(0, 2, 1, 3).reshape(channels, patches, -1)
        y = y + embedding.spectral_proj(torch.fft.rfft(seen, norm="forward").abs())
        spread = torch.zeros(*x.shape[:2], y.shape[2])
        spread[mask] = y.flatten(0, 1)
        place = embedding.positional_encoding(spread.permute(2, 0, 1)).permute(1, 2, 0)
        y = y + place[mask].view_as(y)
        half = y.shape[2] // 2
        for layer in self.model.encoder["layers"]:
            normed = layer.norm1(y)
            over_channels = self.attend(layer.self_attn_s, normed[..., :half].transpose(0, 1)).transpose(0, 1)
            y = y + torch.cat([over_channels, self.attend(layer.self_attn_t, normed[..., half:])], -1)
            y = y + layer.linear2(F.gelu(layer.linear1(layer.norm2(y))))
        out = torch.zeros(*x.shape[:2], self.model.out_dim)
        out[mask] = self.model.proj_out(y).flatten(0, 1)
        return out

    @staticmethod
    def attend(attention: nn.Module, x: Tensor) -> Tensor:
        module = nn.MultiheadAttention(x.shape[-1], attention.heads, batch_first=True)
        module.load_state_dict(attention.state_dict())
        return module(x, x, x, need_weights=False)[0]


@pytest.fixture(scope="module")
def published(reference_file: Callable[[str], Path]) -> tuple[CBraMod, dict[str, Tensor]]:
    tensors = load_file(reference_file("celm_cbramod.safetensors"))
    model = CBraMod(compat="celm").eval()
    model.load_state_dict(
        {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}
    )
    return model, tensors


@torch.inference_mode()
def test_published_numbers(published: tuple[CBraMod, dict[str, Tensor]]) -> None:
    model, tensors = published
    x = tensors["in/x"]
    embedded = model.patch_embedding.add_place(model.patch_embedding(x, None))
    assert relative(embedded[0, :4], tensors["out/patch_embed_0_4ch"]) < 1e-5
    first = model.encoder["layers"][0](embedded.reshape(-1, 200), x.shape[:3], None, None)
    assert relative(first.view_as(embedded)[0, :4], tensors["out/layer0_0_4ch"]) < 1e-5
    assert relative(model(x), tensors["out/y"]) < 1e-5
    assert relative(model.tokens(x), tensors["out/token"]) < 1e-5
    assert relative(model(tensors["in/x_small"]), tensors["out/y_small"]) < 1e-5


def test_published_numbers_with_gradients_on(published: tuple[CBraMod, dict[str, Tensor]]) -> None:
    model, tensors = published
    assert relative(model(tensors["in/x"]), tensors["out/y"]) < 1e-5


@torch.inference_mode()
def test_celm_ignores_masks_and_pools_what_is_absent(published: tuple[CBraMod, dict[str, Tensor]]) -> None:
    model, tensors = published
    mask = torch.ones(2, 22, dtype=torch.bool)
    mask[:, 5:] = False
    assert torch.equal(model(tensors["in/x"], mask), model(tensors["in/x"]))
    assert torch.equal(model.tokens(tensors["in/x"], mask), model.tokens(tensors["in/x"]))


@torch.inference_mode()
def test_sane_computes_the_same_where_nothing_is_masked(published: tuple[CBraMod, dict[str, Tensor]]) -> None:
    model, tensors = published
    sane = CBraMod().eval()
    sane.load_state_dict(model.state_dict())
    everything = torch.ones(2, 22, dtype=torch.bool), torch.ones(2, 10, dtype=torch.bool)
    assert torch.equal(sane(tensors["in/x"], *everything), model(tensors["in/x"]))
    assert torch.equal(sane.tokens(tensors["in/x"], *everything), model.tokens(tensors["in/x"]))


def test_parameters_are_the_published_ones() -> None:
    state = CBraMod().state_dict()
    assert len(state) == 211
    assert sum(tensor.numel() for tensor in state.values()) == 4_924_000


masks = st.lists(st.booleans(), min_size=6, max_size=6), st.lists(st.booleans(), min_size=3, max_size=3)


@settings(max_examples=25, deadline=None)
@given(*masks, *masks, st.integers(0, 1000))
@torch.no_grad()
def test_masked_is_as_if_left_out(
    channels_a: list[bool], patches_a: list[bool], channels_b: list[bool], patches_b: list[bool], seed: int
) -> None:
    model, x = small(), signal(2, 6, 3, seed)
    channel_mask, patch_mask = torch.tensor([channels_a, channels_b]), torch.tensor([patches_a, patches_b])
    mask = channel_mask[:, :, None] & patch_mask[:, None, :]
    features = model(x, channel_mask, patch_mask)
    for sample, there, got in zip(x, mask, features, strict=True):
        expected = Plain(model)(sample, there) if there.any() else torch.zeros(6, 3, 12)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert not features[~mask].any()
    spoilt = x.clone()
    spoilt[~mask] = float("nan")
    assert torch.equal(model(spoilt, channel_mask, patch_mask), features)
    torch.testing.assert_close(
        model.tokens(spoilt, channel_mask, patch_mask), aggregate_epochs(features, mask)
    )


@torch.no_grad()
def test_one_kind_of_mask_alone() -> None:
    model, x = small(), signal(2, 6, 3)
    channels = torch.tensor([[True] * 5 + [False], [True] * 6])
    patches = torch.tensor([[True, True, False], [True] * 3])
    all_channels, all_patches = torch.ones(2, 6, dtype=torch.bool), torch.ones(2, 3, dtype=torch.bool)
    assert torch.equal(model(x, channels), model(x, channels, all_patches))
    assert torch.equal(model(x, patch_mask=patches), model(x, all_channels, patches))


@torch.no_grad()
def test_a_channel_that_all_lack_is_left_out_of_the_work_not_of_the_geometry() -> None:
    model, x = small(), signal(3, 6, 3)
    mask = torch.ones(3, 6, dtype=torch.bool)
    mask[:, 2] = False
    alone = model(x, mask)
    mask[0, 4] = False
    mixed = model(x, mask)
    torch.testing.assert_close(mixed[1:], alone[1:])
    assert relative(mixed[:1], alone[:1]) > 1e-3


@torch.no_grad()
def test_a_sample_does_not_depend_on_its_batch() -> None:
    model, x = small(), signal(5, 6, 3)
    mask = torch.rand(5, 6, generator=torch.Generator().manual_seed(3)) > 0.3
    mask[4] = False
    together = model(x, mask)
    for sample, there, got in zip(x, mask, together, strict=True):
        torch.testing.assert_close(model(sample[None], there[None])[0], got, rtol=1e-4, atol=1e-5)
    assert not together[4].any()
    assert not model.tokens(x, mask)[4].any()


@torch.no_grad()
def test_all_masked_batch_gives_zeros() -> None:
    model = small()
    nothing = torch.zeros(2, 6, dtype=torch.bool)
    x = torch.full((2, 6, 3, 200), float("nan"))
    assert torch.equal(model(x, nothing), torch.zeros(2, 6, 3, 12))
    assert torch.equal(model.tokens(x, nothing), torch.zeros(2, 12))


@torch.no_grad()
def test_half_precision_masks_leave_no_nan() -> None:
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[0] = False
    mask[1, :2] = False
    for dtype in (torch.float16, torch.bfloat16):
        features = small().to(dtype)(signal(2, 6, 3).to(dtype), mask)
        assert features.dtype == dtype and torch.isfinite(features).all()
        assert features[1, 2:].any()


@torch.no_grad()
@pytest.mark.parametrize(
    ("dtype", "size"),
    [(torch.float16, 1), (torch.float16, 3), (torch.bfloat16, 1), *((torch.float32, n) for n in (1, 3, 30))],
)
def test_scores_of_any_size_give_the_softmax_of_them(dtype: torch.dtype, size: int) -> None:
    q, k, v = (torch.randn(4, 7, 5, generator=torch.Generator().manual_seed(i)) for i in range(3))
    q, k, v = (size * q).to(dtype), (size * k).to(dtype), v.to(dtype)
    weights = (k.double() @ q.double().transpose(1, 2) * 5**-0.5).softmax(1)
    expected = weights.transpose(1, 2) @ v.double()
    got = _attend(q, k, v, None)
    assert got.dtype == dtype
    # scores are rounded to the dtype, and weights differ by their exponentials
    spacing = torch.finfo(dtype).eps * size**2
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=20 * spacing)


def test_epochs_in_parts_equal_epochs_together() -> None:
    model, x = small(), signal(2 * EPOCHS_AT_ONCE + 1, 6, 3)
    mask = torch.rand(len(x), 6, generator=torch.Generator().manual_seed(3)) > 0.3
    with torch.inference_mode():
        parts, masked = model(x), model(x, mask)
    assert relative(parts, model(x)) < 1e-5
    assert relative(masked, model(x, mask)) < 1e-5


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 33, 160])
def test_linear_is_linear(rows: int) -> None:
    x = signal(1, 1, rows)[0, 0, :, :24].requires_grad_()
    weight, bias = torch.randn(40, 12, requires_grad=True), torch.randn(40, requires_grad=True)
    for part in (x[:, :12], x[:, 12:]):
        torch.testing.assert_close(
            linear(part, weight, bias), F.linear(part, weight, bias), rtol=1e-5, atol=1e-5
        )
    if rows:
        got = torch.autograd.grad(linear(x[:, 12:], weight, bias).square().sum(), (x, weight, bias))
        expected = torch.autograd.grad(F.linear(x[:, 12:], weight, bias).square().sum(), (x, weight, bias))
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)


def test_gradients_with_masks_are_those_of_the_plain_computation() -> None:
    model, x = small(), signal(2, 6, 3)
    channel_mask = torch.tensor([[True] * 4 + [False] * 2, [True] * 6])
    patch_mask = torch.tensor([[True] * 3, [True, True, False]])
    mask = channel_mask[:, :, None] & patch_mask[:, None, :]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    weights = torch.randn(2, 6, 3, 12, generator=torch.Generator().manual_seed(5))
    got = torch.autograd.grad((model(x, channel_mask, patch_mask) * weights).sum(), learning)

    tied = Plain(model)
    tied.attend = attend_with_gradients  # type: ignore[method-assign]
    expected = torch.autograd.grad(
        sum((tied(*pair) * w).sum() for *pair, w in zip(x, mask, weights, strict=True)), learning
    )
    for name, a, b in zip(
        [n for n, p in model.named_parameters() if p.requires_grad], got, expected, strict=True
    ):
        assert float((a - b).abs().max()) < 1e-4 * (1 + float(b.abs().max())), name


def attend_with_gradients(attention: nn.Module, x: Tensor) -> Tensor:
    out, _ = F.multi_head_attention_forward(
        *(x.transpose(0, 1),) * 3, x.shape[-1], attention.heads,
        attention.in_proj_weight, attention.in_proj_bias, None, None, False, 0.0,
        attention.out_proj.weight, attention.out_proj.bias, need_weights=False,
    )  # fmt: skip
    return out.transpose(0, 1)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_small_one_learns(autocast: bool) -> None:
    torch.manual_seed(0)
    model, head = CBraMod(**SMALL), nn.Linear(12, 1)  # type: ignore[arg-type]
    t = torch.arange(600) / 200
    slow, fast = torch.sin(2 * torch.pi * 3 * t), torch.sin(2 * torch.pi * 15 * t)
    label = torch.arange(16) % 2 == 0
    x = torch.where(label[:, None], slow, fast).view(16, 1, 3, 200) + 0.3 * signal(16, 6, 3)
    mask = torch.rand(16, 6, generator=torch.Generator().manual_seed(2)) > 0.3
    mask[:, 0] = True
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=2e-3)
    losses = []
    for _ in range(20):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = head(model.tokens(x, mask)).squeeze(1)
            loss = F.binary_cross_entropy_with_logits(logits.float(), label.float())
        optimizer.zero_grad()
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"d_model": 100}, "d_model"),
        ({"conv_channels": 25}, "conv_channels"),
        ({"nhead": 5}, "nhead"),
        ({"compat": "labram"}, "compat"),
    ],
)
def test_sizes_that_do_not_fit_are_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        small(**changes)


def test_shapes_that_do_not_fit_are_named() -> None:
    model, x = small(), signal(2, 6, 3)
    with pytest.raises(ValueError, match="x must be"):
        model(x[..., :100])
    with pytest.raises(ValueError, match="channel_mask must be"):
        model(x, torch.ones(2, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="patch_mask must be"):
        model(x, patch_mask=torch.ones(2, 3))


@pytest.mark.parametrize("rows", [1, 15, 48])
def test_products_without_gradients_are_those_with(rows: int) -> None:
    draw = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=draw) for shape in ((2 * rows, 40), (24, 40), (24,)))
    # as a layer gives them: every other row and column of something larger
    x = x[::2, ::2]
    weight = weight[:, ::2]
    expected = F.gelu(F.linear(x.double(), weight.double(), bias.double()))
    with torch.inference_mode():
        assert relative(linear(x, weight, bias, gelu=True).double(), expected) < 1e-6
    assert relative(linear(x, weight.requires_grad_(), bias, gelu=True).double(), expected) < 1e-6


def test_products_in_bfloat16_stay_near() -> None:
    x = signal(3, 5, 4)
    exact, rounded = small(), small()
    rounded.load_state_dict(exact.state_dict())
    rounded.multiply_in(torch.bfloat16)
    with torch.inference_mode():
        expected, got = exact(x), rounded(x)
    assert got.dtype == torch.float32
    error = float((got - expected).square().mean().sqrt() / expected.std())
    assert 1e-4 < error < 2e-2
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[:, 2] = False
    with torch.inference_mode():
        assert relative(rounded(x, mask), rounded(x.index_fill(1, torch.tensor(2), 7.0), mask)) == 0
        rounded.multiply_in(None)
        assert torch.equal(rounded(x), expected)
