"""Modules from state dicts under the published names."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import bioreport
from bioreport import published
from bioreport.encoders.cbramod import CBraMod
from bioreport.projectors import KINDS, build_projector

SIZES = {"d_model": 80, "n_layer": 3, "dim_feedforward": 96, "out_dim": 12}
FIXTURES = {
    "linear": "celm_projector_linear",
    "sequence_transformer_linear_projector": "celm_projector_sequence_linear",
    "perceiver_projector": "celm_projector_perceiver",
    "sequence_transformer_perceiver_projector": "celm_projector_sequence_perceiver",
}


def small_state(nhead: int = 4) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return CBraMod(**SIZES, nhead=nhead).state_dict()


def projector_state(kind: str) -> dict[str, Tensor]:
    sizes = {"linear": {}, "sequence": {"depth": 3, "ff_multiple": 2}}.get(kind, {"queries": 7})
    return dict(build_projector(kind, 16, 24, **sizes).state_dict())


def test_it_is_a_public_name() -> None:
    assert bioreport.published is published


def test_cbramod_of_the_fixture(reference_file: Callable[[str], Path]) -> None:
    tensors = load_file(reference_file("celm_cbramod.safetensors"))
    state = {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}
    model = published.cbramod(state, compat="celm")
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    got = model.tokens(tensors["in/x"])
    assert float((got - tensors["out/token"]).abs().max() / tensors["out/token"].abs().max()) < 1e-5


@pytest.mark.parametrize("name", FIXTURES)
def test_projectors_of_the_fixtures(name: str, reference_file: Callable[[str], Path]) -> None:
    tensors = load_file(reference_file(f"{FIXTURES[name]}.safetensors"))
    state = {key.removeprefix("state/"): value for key, value in tensors.items() if key.startswith("state/")}
    if "sequence" in name:
        state["pos_enc.pe"] = torch.zeros(1, 12_000, 200)
    projector = published.celm_projector(name, state)
    assert not projector.training and not any(parameter.requires_grad for parameter in projector.parameters())
    got, expected = projector(tensors["in/x37"])[0], tensors["out/y37"]
    assert float((got - expected).abs().max() / expected.abs().max()) < 1e-5


def test_sizes_are_read_off_the_shapes() -> None:
    assert published.cbramod_sizes(small_state()) == SIZES
    for kind in KINDS:
        state = projector_state(kind)
        sizes = published.celm_projector_sizes(kind, state)
        assert (sizes["encoder_dim"], sizes["llm_dim"]) == (16, 24)
        assert published.celm_projector_kind(state) == kind
        rebuilt = build_projector(kind, **sizes)
        assert {k: v.shape for k, v in rebuilt.state_dict().items()} == {k: v.shape for k, v in state.items()}
    assert published.celm_projector_sizes("sequence", projector_state("sequence"))["depth"] == 3
    assert published.celm_projector_sizes("perceiver", projector_state("perceiver"))["queries"] == 7


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model.", "backbone."])
def test_wrappers_names_are_dropped(prefix: str) -> None:
    state = small_state()
    wrapped = {prefix + key: value for key, value in state.items()}
    model = published.cbramod(wrapped, nhead=4)
    assert torch.equal(model.state_dict()["proj_out.0.weight"], state["proj_out.0.weight"])
    projector = {prefix + key: value for key, value in projector_state("sequence").items()}
    projector[prefix + "pos_enc.pe"] = torch.zeros(1, 12_000, 16)
    published.celm_projector("sequence", projector)


def test_a_wrapper_around_some_keys_alone_is_no_wrapper() -> None:
    state = small_state()
    state["module.proj_out.0.weight"] = state.pop("proj_out.0.weight")
    with pytest.raises(ValueError, match=r"proj_out\.0\.weight is missing"):
        published.cbramod(state, nhead=4)


def test_half_precision_weights_become_float32() -> None:
    state = {key: value.half() for key, value in small_state().items()}
    assert published.cbramod(state, nhead=4).proj_out[0].weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("drop", "add", "named"),
    [
        ("encoder.layers.1.norm1.bias", None, r"encoder\.layers\.1\.norm1\.bias is missing"),
        ("encoder.layers.0.linear1.weight", None, r"encoder\.layers\.0\.linear1\.weight is missing"),
        (None, "classifier.weight", r"classifier\.weight is unexpected"),
        ("encoder.layers.1.norm1.bias", "classifier.weight", "is missing; classifier"),
    ],
)
def test_wrong_keys_are_named(drop: str | None, add: str | None, named: str) -> None:
    state = small_state()
    if drop is not None:
        del state[drop]
    if add is not None:
        state[add] = torch.zeros(2)
    with pytest.raises(ValueError, match=named):
        published.cbramod(state, nhead=4)


def test_many_wrong_keys_are_counted() -> None:
    state = {key: value for key, value in small_state().items() if "layers.1." not in key}
    with pytest.raises(ValueError, match="and 11 more are missing"):
        published.cbramod(state, nhead=4)


def test_wrong_shapes_and_values_are_named() -> None:
    state = small_state()
    state["encoder.layers.1.norm1.bias"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"norm1\.bias has shape \[3\], not \[80\]"):
        published.cbramod(state, nhead=4)
    with pytest.raises(ValueError, match="'epoch' to a int"):
        published.cbramod({**small_state(), "epoch": 3}, nhead=4)  # type: ignore[dict-item]
    linear = projector_state("linear")
    linear["proj.weight"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"proj\.weight has shape \[3\]"):
        published.celm_projector("linear", linear)


def test_a_projector_of_another_kind_is_refused() -> None:
    for kind in KINDS:
        for other in KINDS:
            if other != kind:
                with pytest.raises(ValueError, match=r"missing|unexpected"):
                    published.celm_projector(other, projector_state(kind))
    with pytest.raises(ValueError, match="projector must be one of"):
        published.celm_projector("mlp", projector_state("linear"))


def test_stored_sinusoid_is_refused_where_it_has_no_place() -> None:
    with pytest.raises(ValueError, match=r"pos_enc\.pe is unexpected"):
        published.celm_projector("linear", {**projector_state("linear"), "pos_enc.pe": torch.zeros(1)})
