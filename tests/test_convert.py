"""Published files to bundles; what is no file of weights is refused in one sentence."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bioreport.bundle import SPECIAL_TOKENS
from bioreport.bundle_reader import load_bundle
from bioreport.convert import CELM_LLM, convert, convert_celm
from bioreport.encoders.cbramod import CBraMod
from bioreport.errors import InputError
from bioreport.montage import CBRAMOD_CHANNELS, CELM_CHANNELS
from bioreport.projectors import build_projector

ENCODER = {"d_model": 40, "n_layer": 1, "nhead": 8, "dim_feedforward": 16, "out_dim": 16}


def encoder_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(CBraMod(**ENCODER).state_dict())  # type: ignore[arg-type]


def checkpoint(kind: str = "sequence", llm_dim: int = 24) -> dict[str, object]:
    torch.manual_seed(1)
    projector = build_projector(kind, 16, llm_dim)
    return {
        "projector_state_dict": {**projector.state_dict(), "pos_enc.pe": torch.zeros(1, 12_000, 16)},
        **{name: torch.randn(1, llm_dim) for name in SPECIAL_TOKENS},
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 1e-4}]},
        "epoch": 3,
        "step": 100,
        "loss": 1.25,
    }


@pytest.fixture
def encoder_file(tmp_path: Path) -> Path:
    path = tmp_path / "weights" / "cbramod_pretrained_weights.pth"
    path.parent.mkdir()
    torch.save(encoder_state(), path)
    return path


def test_cbramod_becomes_a_bundle_of_an_encoder(encoder_file: Path, tmp_path: Path) -> None:
    out = convert("cbramod", encoder_file, tmp_path / "bundle", llm="somebody/some-llm")
    bundle = load_bundle(out, device="cpu")
    assert bundle.preprocess.channels == CBRAMOD_CHANNELS and bundle.compat is None
    assert bundle.projector is None and bundle.llm_source == "somebody/some-llm"
    assert bundle.encoder_config == {"class": "CBraMod", **ENCODER, "compat": None}
    for key, value in encoder_state().items():
        assert torch.equal(bundle.encoder.state_dict()[key], value)
    config = json.loads((out / "config.json").read_text())
    assert config["format"] == "bioreport-bundle"


@pytest.mark.parametrize("form", ["safetensors", "nested", "module"])
def test_cbramod_in_other_clothes(form: str, tmp_path: Path) -> None:
    state = encoder_state()
    if form == "safetensors":
        file = tmp_path / "a.safetensors"
        save_file(state, file)
    else:
        file = tmp_path / "a.pt"
        wrapped = {f"module.{key}": value for key, value in state.items()}
        torch.save({"state_dict": state, "epoch": 3} if form == "nested" else wrapped, file)
    bundle = load_bundle(convert("cbramod", file, tmp_path / "bundle"), device="cpu")
    assert torch.equal(bundle.encoder.state_dict()["proj_out.0.bias"], state["proj_out.0.bias"])


@pytest.mark.parametrize("form", ["beside", "named", "bundle"])
def test_celm_becomes_a_bundle_that_computes_as_celm(form: str, encoder_file: Path, tmp_path: Path) -> None:
    published, out = checkpoint(), tmp_path / "bundle"
    if form == "beside":
        file = encoder_file.with_name("SCA.pt")
        torch.save(published, file)
        convert("celm", file, out, llm="somebody/some-llm")
    else:
        file = tmp_path / "SCA.pt"
        torch.save(published, file)
        if form == "bundle":
            convert("cbramod", encoder_file, out)
            convert_celm(file, out, llm="somebody/some-llm")
        else:
            convert_celm(file, out, llm="somebody/some-llm", encoder=encoder_file)
    bundle = load_bundle(out, device="cpu")
    assert bundle.compat == bundle.encoder_config["compat"] == "celm"
    assert bundle.encoder.compat == "celm"
    assert bundle.preprocess.channels == CELM_CHANNELS
    for name in SPECIAL_TOKENS:
        assert torch.equal(bundle.special_tokens[name], published[name])  # type: ignore[arg-type]
    assert bundle.projector is not None and bundle.projector.compat == "celm"
    for key, value in bundle.projector.state_dict().items():
        assert torch.equal(value, published["projector_state_dict"][key])  # type: ignore[index]
    assert torch.equal(bundle.encoder.state_dict()["proj_out.0.bias"], encoder_state()["proj_out.0.bias"])


def test_celm_as_one_safetensors_file(encoder_file: Path, tmp_path: Path) -> None:
    published = checkpoint("linear", llm_dim=2560)
    state = published["projector_state_dict"]
    assert isinstance(state, dict)
    del state["pos_enc.pe"]
    file = encoder_file.with_name("linear.safetensors")
    tokens = {name: published[name] for name in SPECIAL_TOKENS}
    save_file({**{f"projector_state_dict.{key}": value for key, value in state.items()}, **tokens}, file)
    bundle = load_bundle(convert("celm", file, tmp_path / "bundle"), device="cpu")
    assert bundle.llm_source == CELM_LLM
    assert bundle.projector_config is not None and bundle.projector_config["kind"] == "linear"


def test_celm_without_an_encoder_says_where_to_get_one(tmp_path: Path) -> None:
    file = tmp_path / "SCA.pt"
    torch.save(checkpoint(), file)
    with pytest.raises(InputError, match=r"not the encoder.*convert cbramod"):
        convert("celm", file, tmp_path / "bundle", llm="x/y")
    assert not (tmp_path / "bundle").exists()


def test_celm_for_an_unknown_llm_wants_its_name(encoder_file: Path, tmp_path: Path) -> None:
    file = encoder_file.with_name("SCA.pt")
    torch.save(checkpoint(), file)
    with pytest.raises(InputError, match=r"24 wide.*--llm"):
        convert("celm", file, tmp_path / "bundle")


def test_parts_that_do_not_belong_together(encoder_file: Path, tmp_path: Path) -> None:
    file = encoder_file.with_name("SCA.pt")
    torch.save({**checkpoint(), "start_eeg_token": torch.zeros(1, 25)}, file)
    with pytest.raises(InputError, match=r"start_eeg_token of shape \[1, 25\]"):
        convert("celm", file, tmp_path / "bundle", llm="x/y")
    wider = {**checkpoint(), "projector_state_dict": dict(build_projector("linear", 32, 24).state_dict())}
    torch.save(wider, file)
    with pytest.raises(InputError, match="tokens 32 wide"):
        convert("celm", file, tmp_path / "bundle", llm="x/y")


class Runs:
    """Unpickling it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def write_odd(kind: str, path: Path) -> None:
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "noise":
        path.write_bytes(bytes(range(256)) * 40)
    elif kind == "text":
        path.write_text("<!DOCTYPE html><html>Not found</html>\n")
    elif kind == "truncated":
        torch.save(encoder_state(), path)
        path.write_bytes(path.read_bytes()[:2000])
    elif kind == "code":
        torch.save({"proj.weight": Runs(path.with_name("was-run"))}, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps({"a": Runs(path.with_name("was-run"))}))
    elif kind == "list":
        torch.save([torch.zeros(2)], path)
    elif kind == "other weights":
        torch.save({"conv1.weight": torch.zeros(2, 2)}, path)
    elif kind == "numbers":
        torch.save({"epoch": 3}, path)
    elif kind == "folder":
        path.mkdir()


ODD = (
    "empty",
    "noise",
    "text",
    "truncated",
    "code",
    "pickle",
    "list",
    "other weights",
    "numbers",
    "folder",
    "absent",
)


@pytest.mark.parametrize("target", ["cbramod", "celm"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", ODD)
def test_odd_files_are_refused_in_a_sentence(kind: str, suffix: str, target: str, tmp_path: Path) -> None:
    file = tmp_path / f"odd{suffix}"
    write_odd(kind, file)
    with pytest.raises(InputError) as caught:
        convert(target, file, tmp_path / "bundle", llm="x/y")
    sentence = str(caught.value)
    assert sentence.startswith(str(file)) and "\n" not in sentence and sentence.endswith(".")
    assert len(sentence) < 500
    assert not (tmp_path / "was-run").exists()
    assert not (tmp_path / "bundle").exists()


def test_a_full_folder_is_left_as_it_was(encoder_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="no bundle's folder"):
        convert("cbramod", encoder_file, out)
    assert [p.name for p in out.iterdir()] == ["thesis.txt"]


def test_unknown_kind(encoder_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kind must be"):
        convert("labram", encoder_file, tmp_path / "bundle")


def test_bundle_holds_the_weights_under_their_names(encoder_file: Path, tmp_path: Path) -> None:
    file = encoder_file.with_name("SCC.pt")
    torch.save(checkpoint("sequence-perceiver"), file)
    out = convert("celm", file, tmp_path / "bundle", llm="x/y")
    keys = set(load_file(out / "model.safetensors"))
    assert {f"encoder.{key}" for key in encoder_state()} <= keys
    assert {"projector.query_tokens", *SPECIAL_TOKENS} <= keys
    assert not any("pos_enc" in key for key in keys)
