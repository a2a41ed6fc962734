"""MEIT's and QINCo's published files to folders, with the same numbers afterwards."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import save_small_llm
from torch import Tensor

from bioreport import cli, published
from bioreport.convert import convert
from bioreport.encoders.ecg_resnet import MeitEncoder
from bioreport.errors import InputError
from bioreport.meit import load_meit, meit_loss, new_meit
from bioreport.meit.model import Meit
from bioreport.qinco import read_qinco

SMALL: dict[str, Any] = {"width": 4, "blocks": (1, 1, 1, 1), "hidden": 16}
PROMPTS, REPORTS = ["Describe:"] * 2, ["sinus rhythm.", "atrial fibrillation."]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_small_llm(tmp_path_factory.mktemp("llm") / "llm"))


def records() -> list[Tensor]:
    draw = torch.Generator().manual_seed(3)
    return [torch.rand(12, 500, generator=draw) for _ in PROMPTS]


@torch.no_grad()
def loss(meit: Meit) -> Tensor:
    return meit_loss(meit.eval(), records(), PROMPTS, REPORTS)


def trained(llm: str, full: bool = False) -> Meit:
    """One with weights that no initialisation gives."""
    meit = new_meit(llm, device="cpu", seed=0, full=full, max_length=128, **SMALL)
    draw = torch.Generator().manual_seed(1)
    for parameter in meit.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=draw)
    return meit


def checkpoint(meit: Meit) -> dict[str, Tensor]:
    """As the published code saves it: one state dict, the encoder's keys with its prefix."""
    state = {f"ecg_model.{key}": value for key, value in meit.encoder.state_dict().items()}
    model = meit.adapter if meit.adapter is not None else meit.language_model
    return state | {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("form", ["one file", "beside", "beside with config"])
def test_meit_with_lora_writes_what_it_did(form: str, llm: str, tmp_path: Path) -> None:
    meit = trained(llm)
    expected, state = loss(meit), checkpoint(meit)
    # base weights of the language model lie in such a file too
    assert any(".base_layer." in key for key in state) and any(".lora_A.default." in key for key in state)
    file = tmp_path / "pytorch_model.bin"
    if form != "one file":
        meit.adapter.save_pretrained(tmp_path, save_embedding_layers=False)
        if form == "beside":
            (tmp_path / "adapter_config.json").unlink()
        state = {key: value for key, value in state.items() if "ecg_model." in key}
    torch.save(state, file)
    again = load_meit(convert("meit", file, tmp_path / "meit", llm=llm), device="cpu")
    torch.testing.assert_close(loss(again), expected)
    config = json.loads((tmp_path / "meit" / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None  # no folder of this machine
    assert again.adapter is not None and again.text.template == "published" and again.max_length == 128


def test_meit_without_lora_is_an_encoder_to_train_with(llm: str, tmp_path: Path) -> None:
    encoder = MeitEncoder(16, **SMALL).eval()
    file = tmp_path / "encoder.safetensors"
    save_file({f"ecg_model.{key}": value for key, value in encoder.state_dict().items()}, file)
    folder = convert("meit", file, tmp_path / "meit")
    with pytest.raises(InputError, match="names no language model"):
        load_meit(folder, device="cpu")
    again = load_meit(folder, llm=llm, device="cpu")
    with torch.no_grad():
        assert torch.equal(again.encoder(torch.stack(records())), encoder(torch.stack(records())))
    assert again.adapter is None and not again.learns_fully


def test_meit_tuned_whole_keeps_its_language_model(llm: str, tmp_path: Path) -> None:
    meit = trained(llm, full=True)
    expected, file = loss(meit), tmp_path / "model.pt"
    torch.save({"state_dict": checkpoint(meit), "epoch": 5}, file)
    with pytest.raises(InputError, match=r"without its sizes and tokenizer; .*--llm"):
        convert("meit", file, tmp_path / "meit")
    again = load_meit(convert("meit", file, tmp_path / "meit", llm=llm), device="cpu")
    assert again.learns_fully
    torch.testing.assert_close(loss(again), expected)
    other = save_small_llm(tmp_path / "other", hidden=16)
    with pytest.raises(InputError, match=r"size mismatch|does not hold"):
        convert("meit", file, tmp_path / "meit", llm=str(other))
    less = {key: value for key, value in checkpoint(meit).items() if "q_norm" not in key}
    torch.save(less, file)
    with pytest.raises(InputError, match=r"q_norm.* is missing"):
        convert("meit", file, tmp_path / "none", llm=llm)
    assert not (tmp_path / "none").exists()


def test_odd_meit_files_are_a_sentence(llm: str, tmp_path: Path) -> None:
    file, out = tmp_path / "a.pt", tmp_path / "meit"
    torch.save({"ecg_model.nothing": torch.zeros(2)}, file)
    with pytest.raises(InputError, match=r"holds no weights of MEIT's encoder: ecg_encoder\.conv1\.weight"):
        convert("meit", file, out)
    meit = trained(llm)
    two = {
        key: value[:1] if "lora_A" in key and "q_proj" in key else value
        for key, value in checkpoint(meit).items()
    }
    torch.save(two, file)
    with pytest.raises(InputError, match=r"LoRA of 2 ranks; put peft's adapter_config\.json beside"):
        convert("meit", file, out)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    with pytest.raises(InputError, match="no configuration of LoRA"):
        convert("meit", file, out)
    torch.save(MeitEncoder(16, **SMALL), file)
    with pytest.raises(InputError, match=r"pickle with a bioreport\S+MeitEncoder.*model\.state_dict\(\)"):
        convert("meit", file, out)
    assert not out.exists()


# --- QINCo


@pytest.mark.parametrize(("name", "options"), [("qinco1", {}), ("qinco2", {"shortlist": 8, "beam": 4})])
def test_qinco_gives_the_published_codes_after_conversion(
    name: str, options: dict[str, int], reference_file: Callable[[str], Path], tmp_path: Path
) -> None:
    fixture = load_file(reference_file(f"{name}.safetensors"))
    state = {key.removeprefix("state/"): t for key, t in fixture.items() if key.startswith("state/")}
    file = tmp_path / "weights.pt"
    torch.save({f"module.{key}": value for key, value in state.items()}, file)
    assert cli.main(["convert", "qinco", str(file), "-o", str(tmp_path / "qinco"), "-q"]) == 0
    model = published.load_qinco(tmp_path / "qinco", **options)
    codes, quantized = model.encode(fixture["in/x"])
    out = "out/" if name == "qinco1" else "out/A8_B4/"
    expected = fixture[out + "codes"]
    assert torch.equal(codes, expected if name == "qinco1" else expected.T)
    assert float((quantized - fixture[out + "xhat"]).abs().max()) < 1e-4
    named = read_qinco(tmp_path / "qinco")[1]
    assert named == ({} if name == "qinco1" else {"beam": 32, "shortlist": 16})
    with pytest.raises(InputError, match="does not fit"):
        published.load_qinco(tmp_path / "qinco", db_scale=2.0, shortlist=3)


def small_qinco() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    shapes = {
        "codebook0.weight": (8, 4), "step1.codebook.weight": (8, 4), "step1.MLPconcat.weight": (4, 8),
        "step1.MLPconcat.bias": (4,), "step1.residual_block0.0.weight": (6, 4),
        "step1.residual_block0.2.weight": (4, 6),
    }  # fmt: skip
    return {key: torch.randn(*shape, generator=draw) for key, shape in shapes.items()}


def test_qincos_scale_comes_along(tmp_path: Path) -> None:
    file, x = tmp_path / "weights.pt", torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    torch.save({"state_dict": small_qinco(), "db_scale": 2.5}, file)
    model = published.load_qinco(convert("qinco", file, tmp_path / "qinco"))
    codes, quantized = published.qinco(small_qinco(), db_scale=2.5).encode(x)
    assert torch.equal(model.encode(x)[0], codes) and torch.equal(model.encode(x)[1], quantized)
    assert float(model.scale) == 2.5


def test_odd_qinco_files_are_a_sentence(tmp_path: Path) -> None:
    file, out = tmp_path / "a.pt", tmp_path / "qinco"
    for content, words in (
        ({"epoch": 3}, "does not fit .*maps names to tensors"),
        ({"codebook0.weight": torch.zeros(8, 4)}, "holds no weights of QINCo"),
        (
            torch.nn.Linear(2, 2),
            r"pickle with a torch\S+Linear in it; it was not unpickled; export the weights",
        ),
    ):
        torch.save(content, file)
        with pytest.raises(InputError, match=words):
            convert("qinco", file, out)
    with pytest.raises(InputError, match="is no QINCo"):
        published.load_qinco(tmp_path)
    out.mkdir()
    (out / "thesis.txt").touch()
    torch.save(small_qinco(), file)
    with pytest.raises(InputError, match="is no folder of a QINCo"):
        convert("qinco", file, out)
    (out / "thesis.txt").unlink()
    convert("qinco", file, out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"version": 9}))
    with pytest.raises(InputError, match="is no QINCo"):
        published.load_qinco(out)
