"""Bundles come back to the same bits, and no failure costs the old one."""

import json
import os
from pathlib import Path

import pytest
import torch
from small_models import SIZES, save_small_llm, small_bundle

from bioreport import bundle_writer
from bioreport.bundle import SPECIAL_TOKENS, Bundle, hash_tensors
from bioreport.bundle_reader import load_bundle
from bioreport.bundle_writer import save_bundle
from bioreport.devices import resolve_device, resolve_dtype
from bioreport.errors import InputError
from bioreport.projectors import build_projector


def with_projector(bundle: Bundle, width: int = 32) -> Bundle:
    torch.manual_seed(1)
    bundle.projector_config = {"kind": "linear", "encoder_dim": SIZES["out_dim"], "llm_dim": width}
    bundle.projector = build_projector(**bundle.projector_config).eval()
    bundle.special_tokens = {name: torch.randn(1, width) for name in SPECIAL_TOKENS}
    return bundle


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_bundle_comes_back_to_the_same_bits(tmp_path: Path) -> None:
    llm = save_small_llm(tmp_path / "llm")
    first = with_projector(small_bundle(llm))
    save_bundle(first, tmp_path / "out", readme="# card\n")
    second = load_bundle(tmp_path / "out", device="cpu")
    assert hash_tensors(second.trained_tensors()) == hash_tensors(first.trained_tensors())
    assert second.config() == first.config() | {"llm": str(llm.resolve())}
    assert second.encoding_key() == first.encoding_key()
    assert (tmp_path / "out" / "README.md").read_text() == "# card\n"
    assert not any(p.requires_grad for p in second.encoder.parameters())
    assert not second.encoder.training and second.projector is not None and not second.projector.training
    assert torch.equal(second.fusion.start_token, first.special_tokens["start_eeg_token"])
    assert hash_tensors(second.trained_tensors()) == hash_tensors(first.trained_tensors())


def test_an_embedded_llm_makes_the_folder_self_contained(tmp_path: Path) -> None:
    llm = save_small_llm(tmp_path / "somewhere")
    save_bundle(with_projector(small_bundle(llm)), tmp_path / "one", embed_llm=True)
    (tmp_path / "one").rename(tmp_path / "two")
    moved = load_bundle(tmp_path / "two", device="cpu")
    assert json.loads((tmp_path / "two" / "config.json").read_text())["llm"] == "llm"
    assert moved.fusion.llm.config.hidden_size == 32
    # and stays so when it is written on, without being asked
    save_bundle(moved, tmp_path / "three")
    assert content(tmp_path / "three" / "llm") == content(llm)


def test_everybody_may_read_a_bundle(tmp_path: Path) -> None:
    save_bundle(small_bundle(save_small_llm(tmp_path / "llm")), tmp_path / "out", embed_llm=True)
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert len(files) > 4
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o644"}


def test_weights_can_be_stored_short(tmp_path: Path) -> None:
    first = small_bundle("some/llm")
    save_bundle(first, tmp_path / "long")
    save_bundle(first, tmp_path / "short", dtype=torch.float16)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("long", "short")]
    assert sizes[1] < 0.6 * sizes[0]
    assert load_bundle(tmp_path / "short", device="cpu").dtype_of_encoder() == torch.float32


def test_the_encoding_key_hangs_on_what_encodes_and_on_nothing_else() -> None:
    key = small_bundle().encoding_key()
    assert with_projector(small_bundle("some/llm")).encoding_key() == key
    assert small_bundle(seed=1).encoding_key() != key
    other = small_bundle()
    assert other.findings_head is not None
    other.findings_head.thresholds["seizure"] = 1.0
    assert other.encoding_key() != key


def test_provenance_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    bundle = small_bundle(save_small_llm(tmp_path / "llm"))
    provenance = bundle.provenance()
    assert str(tmp_path) not in json.dumps(provenance)
    assert provenance["llm"] == "llm"
    assert len(provenance["weights"]) == 64
    assert set(provenance["versions"]) == {"bioreport", "torch", "transformers"}


def test_a_failing_write_keeps_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_bundle(small_bundle("some/llm"), tmp_path / "out")
    before = content(tmp_path / "out")

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundle_writer, "save_file", full)
    with pytest.raises(InputError, match="no space left"):
        save_bundle(small_bundle("some/llm", seed=1), tmp_path / "out")
    assert content(tmp_path / "out") == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_bundle_is_replaced_whole(tmp_path: Path) -> None:
    save_bundle(small_bundle("some/llm"), tmp_path / "out", readme="old")
    second = small_bundle("some/llm", seed=1)
    save_bundle(second, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]
    assert load_bundle(tmp_path / "out", device="cpu").encoding_key() == second.encoding_key()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        save_bundle(small_bundle("some/llm"), tmp_path)
    assert content(tmp_path) == {"thesis.tex": b"years of work"}
    with pytest.raises(InputError, match="is a file"):
        save_bundle(small_bundle("some/llm"), tmp_path / "thesis.tex")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        save_bundle(small_bundle("some/llm"), tmp_path / "out")


def spoil(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "other"}, "is not the config of a bioreport bundle"),
        ({"version": 9}, "bundle version 9"),
        ({"encoder": None}, "does not describe a model"),
        ({"encoder": {"class": "Other"}}, "unknown encoder 'Other'"),
        ({"encoder": {"class": "CBraMod", "layers": 3}}, "does not describe a model"),
        ({"encoder": {"class": "CBraMod", **SIZES, "n_layer": 2}}, "does not fit config.json"),
        ({"preprocess": {"channels": [], "colour": 1}}, "does not describe a model"),
        ({"projector": {"kind": "cubic", "encoder_dim": 40, "llm_dim": 32}}, "does not describe a model"),
        ({"findings_head": {"names": ["siezure"]}}, "siezure"),
        ({"findings_head": {"names": ["seizure"]}}, "does not fit config.json"),
    ],
)
def test_a_spoilt_config_is_one_sentence(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    save_bundle(small_bundle("some/llm"), tmp_path / "out")
    spoil(tmp_path / "out", **changes)
    with pytest.raises(InputError) as error:
        load_bundle(tmp_path / "out", device="cpu")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no model bundle"):
        load_bundle(tmp_path / "nowhere", device="cpu")
    save_bundle(small_bundle("some/llm"), tmp_path / "out")
    weights = tmp_path / "out" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_bundle(tmp_path / "out", device="cpu")
    weights.unlink()
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_bundle(tmp_path / "out", device="cpu")
    (tmp_path / "out" / "config.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read as JSON"):
        load_bundle(tmp_path / "out", device="cpu")


def test_what_cannot_write_reports_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no projector"):
        _ = small_bundle("some/llm").fusion
    with pytest.raises(InputError, match="names no language model"):
        _ = with_projector(small_bundle()).fusion
    wide = save_small_llm(tmp_path / "wide", hidden=64)
    with pytest.raises(InputError, match="64 wide"):
        _ = with_projector(small_bundle(wide)).fusion
    damaged = with_projector(small_bundle(save_small_llm(tmp_path / "llm")))
    del damaged.special_tokens["end_eeg_token"]
    with pytest.raises(InputError, match="special tokens"):
        _ = damaged.fusion


def test_devices_and_dtypes() -> None:
    assert resolve_dtype("auto", torch.device("cpu")) == torch.float32
    assert resolve_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
    assert resolve_device("cpu") == torch.device("cpu")
    if not torch.cuda.is_available():
        assert resolve_device("auto").type == "cpu"
        with pytest.raises(InputError, match="no CUDA device"):
            resolve_device("cuda")


def test_hashes_see_values_names_and_shapes() -> None:
    a = {"x": torch.arange(6.0)}
    assert hash_tensors(a) == hash_tensors({"x": torch.arange(6.0)})
    assert hash_tensors(a) != hash_tensors({"y": torch.arange(6.0)})
    assert hash_tensors(a) != hash_tensors({"x": torch.arange(6.0).view(2, 3)})
    assert hash_tensors(a) != hash_tensors({"x": torch.arange(6.0).nextafter(torch.tensor(9.0))})
    assert hash_tensors({"x": torch.tensor(1.0, dtype=torch.bfloat16)})
