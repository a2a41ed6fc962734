"""QINCo and QINCo2 from state dicts under the published names."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from bioreport import published
from bioreport_kernels import reference

File = Callable[[str], Path]
# A words of a shortlist, B beams: as the fixture's outputs are named; A0 is no shortlist.
SEARCHES = [(8, 4), (8, 1), (16, 8), (0, 1)]


def tensors(reference_file: File, name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    every = load_file(reference_file(f"{name}.safetensors"))
    return every, {
        key.removeprefix("state/"): value for key, value in every.items() if key.startswith("state/")
    }


@pytest.mark.parametrize("search", ["exact", "bfloat16"])
def test_qinco_gives_the_published_codes(search: str, reference_file: File) -> None:
    fixture, state = tensors(reference_file, "qinco1")
    model = published.qinco(state)
    codes, quantized = model.encode(fixture["in/x"], search=search)
    assert torch.equal(codes, fixture["out/codes"])
    assert float((quantized - fixture["out/xhat"]).abs().max()) < 1e-4
    assert torch.equal(model.decode(codes), quantized)
    decoded = model.decode(fixture["in/random_codes"])
    assert float((decoded - fixture["out/random_decode"]).abs().max()) < 1e-4


@pytest.mark.parametrize("search", ["exact", "bfloat16"])
@pytest.mark.parametrize(("shortlist", "beam"), SEARCHES)
def test_qinco2_gives_the_published_codes(
    shortlist: int, beam: int, search: str, reference_file: File
) -> None:
    fixture, state = tensors(reference_file, "qinco2")
    model = published.qinco(state, beam=beam, shortlist=shortlist or None)
    codes, quantized = model.encode(fixture["in/x"], search=search)
    out = f"out/A{shortlist}_B{beam}/"
    assert bool(fixture[out + "codes_fp64_equal"].all())
    assert torch.equal(codes, fixture[out + "codes"].T)
    assert float((quantized - fixture[out + "xhat"]).abs().max()) < 1e-4
    assert torch.equal(model.decode(codes), quantized)


def test_qinco2_decodes_any_codes(reference_file: File) -> None:
    fixture, state = tensors(reference_file, "qinco2")
    decoded = published.qinco(state).decode(fixture["in/random_codes"].T)
    assert float((decoded - fixture["out/random_decode"]).abs().max()) < 1e-4


def test_the_definition_gives_the_published_codes(reference_file: File) -> None:
    fixture, state = tensors(reference_file, "qinco2")
    weights = published.qinco(state).weights.to(torch.float64)
    x = (fixture["in/x"].double() - state["data_mean"]) / state["data_std"]
    codes, _ = reference.implicit_quantize(x, weights, beam=4, shortlist=8)
    assert torch.equal(codes, fixture["out/A8_B4/codes"].T)


def small(steps: range = range(1, 3), **changes: Tensor) -> dict[str, Tensor]:
    """QINCo of 4 dimensions, 8 codewords, 1 block of 6."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    state = {"codebook0.weight": draw(8, 4)}
    for step in steps:
        state[f"step{step}.codebook.weight"] = draw(8, 4)
        state[f"step{step}.MLPconcat.weight"] = draw(4, 8) / 3
        state[f"step{step}.MLPconcat.bias"] = draw(4) / 3
        state[f"step{step}.residual_block0.0.weight"] = draw(6, 4) / 2
        state[f"step{step}.residual_block0.2.weight"] = draw(4, 6) / 3
    return {**state, **changes}


def small2(dim: int = 4, **changes: Tensor) -> dict[str, Tensor]:
    """QINCo2 of 4 dimensions and no projections."""
    old = small()
    names = {"MLPconcat": "concat.mlp", "residual_block0.0": "residual_blocks.0.up_proj"}
    names["residual_block0.2"] = "residual_blocks.0.down_proj"
    state = {"data_mean": torch.ones(dim), "data_std": torch.tensor(2.0)}
    for key, value in old.items():
        for name, new in names.items():
            key = key.replace(name, new)
        key = key.replace("codebook0.", "steps.0.codebook.").replace("step1.", "steps.1.")
        state[key.replace("step2.", "steps.2.")] = value
    for step in (1, 2):
        state[f"steps.{step}.substep.codebook.weight"] = state[f"steps.{step}.codebook.weight"]
    return {**state, **changes}


def x(*shape: int) -> Tensor:
    return torch.randn(*shape, 4, generator=torch.Generator().manual_seed(2))


def test_any_leading_shape_and_the_wrappers_names() -> None:
    model = published.qinco({"module." + key: value for key, value in small().items()})
    codes, quantized = model.encode(x(3, 5))
    assert codes.shape == (3, 5, 3) and quantized.shape == (3, 5, 4)
    alone, _ = model.encode(x(3, 5)[1, 2])
    assert torch.equal(alone, codes[1, 2])
    for shape in ((0,), (2, 0)):
        codes, quantized = model.encode(x(*shape))
        assert codes.shape == (*shape, 3) and quantized.shape == (*shape, 4)
        assert model.decode(codes).shape == (*shape, 4)


def test_data_is_scaled_and_gradients_go_through() -> None:
    plain, scaled = published.qinco(small()), published.qinco(small(), db_scale=7.0)
    codes, quantized = plain.encode(x(9))
    inputs = (7 * x(9)).requires_grad_()
    scaled_codes, scaled_quantized = scaled.encode(inputs)
    assert torch.equal(scaled_codes, codes)
    torch.testing.assert_close(scaled_quantized, 7 * quantized)
    scaled_quantized.sum().backward()
    torch.testing.assert_close(inputs.grad, torch.ones(9, 4))
    assert not any(parameter.requires_grad for parameter in scaled.parameters())


def test_a_low_rank_first_layer_is_the_product_of_its_two() -> None:
    state = small()
    whole = published.qinco(state)
    for step in (1, 2):
        weight = state.pop(f"step{step}.MLPconcat.weight")
        outer, singular, inner = torch.linalg.svd(weight, full_matrices=False)
        state[f"step{step}.MLPconcat.0.weight"] = singular[:, None] * inner
        state[f"step{step}.MLPconcat.1.weight"] = outer
        state[f"step{step}.MLPconcat.1.bias"] = state.pop(f"step{step}.MLPconcat.bias")
    codes, quantized = published.qinco(state).encode(x(20))
    assert torch.equal(codes, whole.encode(x(20))[0])
    torch.testing.assert_close(quantized, whole.encode(x(20))[1])


def test_an_inverted_file_comes_before_the_steps() -> None:
    state = small(range(0, 2), **{"codebook0.weight": torch.randn(50, 4)})
    codes, _ = published.qinco(state).encode(x(200))
    assert codes.shape == (200, 3) and 8 < int(codes[:, 0].max()) < 50 and int(codes[:, 1:].max()) < 8


def test_qinco1_mode_leaves_the_codeword_out() -> None:
    codes, quantized = published.qinco(small()).encode((x(30) - 1) / 2)
    model = published.qinco(small2(), qinco1_mode=True)
    assert torch.equal(model.encode(x(30))[0], codes)
    torch.testing.assert_close(model.encode(x(30))[1], quantized * 2 + 1)
    assert not torch.equal(published.qinco(small2()).encode(x(30))[0], codes)


@pytest.mark.parametrize(
    ("state", "options", "named"),
    [
        ({"weight": torch.ones(2)}, {}, "data_mean is missing"),
        ({"codebook0.weight": torch.ones(8, 4)}, {}, r"step1\.codebook\.weight is missing"),
        (small(extra=torch.ones(1)), {}, "extra is unexpected"),
        (
            small(range(1, 4), **{"step3.codebook.weight": torch.ones(9, 4)}),
            {},
            "other shapes in other steps",
        ),
        (small(**{"codebook0.weight": torch.ones(8, 5)}), {}, r"first must be \[8, 4\], got \[8, 5\]"),
        (small(), {"shortlist": 3}, "shortlist is for QINCo2"),
        (small(), {"qinco1_mode": True}, "qinco1_mode"),
        (small2(), {"db_scale": 2.0}, "db_scale"),
        ({k: v for k, v in small2().items() if "substep" not in k}, {"shortlist": 3}, "needs weights with"),
    ],
)
def test_what_does_not_fit_is_named(state: dict[str, Tensor], options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        published.qinco(state, **options).encode(x(2))  # type: ignore[arg-type]
