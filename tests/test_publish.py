"""A model's folder in the Hub's layout: what lies in it, and that it is loaded from there."""

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard, constants
from safetensors.torch import load_file
from small_models import save_small_llm, small_bundle

from bioreport import cli
from bioreport.bundle import SPECIAL_TOKENS, Bundle
from bioreport.bundle_reader import load_bundle
from bioreport.bundle_writer import save_bundle
from bioreport.convert import convert
from bioreport.ecg.tokenizer import load_tokenizer, save_tokenizer
from bioreport.encoders.ecg_autoencoder import EcgTokenizer, TokenizerConfig
from bioreport.errors import InputError
from bioreport.hub import EMBEDDED, model_folder
from bioreport.meit import load_meit, new_meit, save_meit
from bioreport.projectors import build_projector
from bioreport.publish import convert_hub
from bioreport.simulate import simulate_eeg, write_edf

TOKENIZER = TokenizerConfig(leads=2, widths=(4, 8), dim=4, stages=2, codewords=4)


def front(folder: Path) -> dict[str, object]:
    """The model card's YAML."""
    return ModelCard.load(folder / "README.md").data.to_dict()


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """With a projector, beside its language model and what is nobody else's business."""
    torch.manual_seed(0)
    made: Bundle = small_bundle(save_small_llm(tmp_path / "some-llm"))
    made.projector_config = {"kind": "linear", "encoder_dim": 40, "llm_dim": 32}
    made.projector = build_projector(**made.projector_config)
    made.special_tokens = {name: torch.randn(1, 32) for name in SPECIAL_TOKENS}
    folder = save_bundle(made, tmp_path / "bundle")
    (folder / "notes.txt").write_text("patients")
    (folder / "checkpoint").mkdir()
    return folder


def test_a_bundle_with_its_language_model_reports_offline(bundle: Path, tmp_path: Path) -> None:
    recording = tmp_path / "a.edf"
    write_edf(simulate_eeg(1, duration_seconds=20, sfreq=200), recording)
    hub = tmp_path / "hub"
    assert cli.main(["convert", "hub", str(bundle), "-o", str(hub), "--license", "mit", "-q"]) == 0
    assert sorted(p.name for p in hub.iterdir()) == ["README.md", "config.json", "llm", "model.safetensors"]
    assert front(hub) == {
        "license": "mit", "library_name": "bioreport", "pipeline_tag": "text-generation",
        "tags": ["bioreport", "medical", "eeg", "clinical-report"],
    }  # fmt: skip
    card = (hub / "README.md").read_text()
    assert "# small\n" in card and "CBraMod" in card and "\n## Use\n" in card and "in `llm`" in card
    # nothing of it lies elsewhere
    (tmp_path / "some-llm").rename(tmp_path / "gone")
    moved = hub.rename(tmp_path / "moved")
    texts = []
    for model, llm in ((moved, ()), (bundle, ("--llm", str(tmp_path / "gone")))):
        out = tmp_path / "report.json"
        always = ["generate", str(recording), "--sections", "SLEEP", "-o", str(out), "-q"]
        assert cli.main([*always, "--model", str(model), *llm]) == 0
        texts.append(json.loads(out.read_text())["sections"])
    assert texts[0] == texts[1]
    # once more, of what it wrote itself, in its place
    assert convert_hub(moved, tmp_path / "again") and convert_hub(moved, tmp_path / "again")
    assert (tmp_path / "again" / "llm" / "config.json").is_file()


def test_a_language_model_may_be_named_by_its_hub_id(bundle: Path, tmp_path: Path) -> None:
    hub = convert_hub(bundle, tmp_path / "hub", llm="somebody/some-llm")
    assert not (hub / "llm").exists() and front(hub)["base_model"] == "somebody/some-llm"
    assert front(hub)["license"] == "other"
    assert load_bundle(hub, device="cpu").llm_source == "somebody/some-llm"
    (tmp_path / "some-llm").rename(tmp_path / "gone")
    with pytest.raises(InputError, match=r"some-llm: is the language model of .* and is not there"):
        convert_hub(bundle, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_packages_own_models_keep_their_cards(tmp_path: Path) -> None:
    for modality, folder in EMBEDDED.items():
        hub = convert("hub", folder.name, tmp_path / modality)
        assert front(hub)["license"] == "apache-2.0" and modality in front(hub)["tags"]  # type: ignore[operator]
        assert (folder / "README.md").read_text().strip() in (hub / "README.md").read_text()
        assert load_file(hub / "model.safetensors").keys() == load_file(folder / "model.safetensors").keys()
        assert (
            load_bundle(hub, device="cpu").encoding_key() == load_bundle(folder, device="cpu").encoding_key()
        )
        # a card with YAML of its own gets no second one
        assert (convert("hub", hub, tmp_path / "again") / "README.md").read_text().count("license:") == 1


def test_meit_and_tokenizers_have_the_layout_too(bundle: Path, tmp_path: Path) -> None:
    llm = tmp_path / "some-llm"
    for full in (False, True):
        made = new_meit(str(llm), device="cpu", seed=0, full=full, width=4, blocks=(1, 1, 1, 1), hidden=16)
        hub = convert_hub(save_meit(made, tmp_path / f"meit{full}"), tmp_path / f"hub{full}")
        assert {"encoder.safetensors", "llm", "README.md"} <= {p.name for p in hub.iterdir()}
        assert "meit" in front(hub)["tags"]  # type: ignore[operator]
        again = load_meit(hub, device="cpu")
        assert again.learns_fully == full and (again.adapter is None) == full
        state = again.language_model.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in made.language_model.state_dict().items())
    with pytest.raises(InputError, match="leave out --llm"):
        convert_hub(tmp_path / "meitTrue", tmp_path / "other", llm="x/y")
    model = EcgTokenizer(TOKENIZER)
    save_tokenizer(model, tmp_path / "tokenizer")
    with pytest.raises(InputError, match="is the model itself"):
        convert_hub(tmp_path / "tokenizer", tmp_path / "tokenizer")
    hub = convert_hub(tmp_path / "tokenizer", tmp_path / "hub-tokenizer")
    assert front(hub)["pipeline_tag"] == "feature-extraction"
    again_state = load_tokenizer(hub).state_dict()
    assert all(torch.equal(value, again_state[key]) for key, value in model.state_dict().items())


def test_what_is_no_model_is_a_sentence(bundle: Path, tmp_path: Path) -> None:
    llm = tmp_path / "some-llm"
    with pytest.raises(InputError, match="is no model's folder"):
        convert_hub(tmp_path, tmp_path / "hub")
    with pytest.raises(InputError, match="no bundle, MEIT model, tokenizer or QINCo"):
        convert_hub(llm, tmp_path / "hub")
    with pytest.raises(InputError, match=r"holds other things \('checkpoint' lies in it\)"):
        convert_hub(bundle, bundle)
    assert not (tmp_path / "hub").exists()
    assert cli.main(["convert", "hub", str(tmp_path / "none"), "-o", str(tmp_path / "hub"), "-q"]) == 1
    with pytest.raises(SystemExit):
        cli.main(["convert", "celm", "a.pt", "-o", str(tmp_path / "hub"), "--license", "mit"])


def test_a_hub_id_is_taken_from_the_cache(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "cache" / "models--somebody--small"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    convert_hub(bundle, repository / "snapshots" / ("0" * 40))
    assert model_folder("somebody/small") == repository / "snapshots" / ("0" * 40)
    assert load_bundle("somebody/small", device="cpu").name == "small"
    assert model_folder("./somebody/small") == Path("./somebody/small")
    assert cli.main(["generate", "a.edf", "--model", "somebody/other", "-q"]) == 1
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert (
        "somebody/other: is neither a folder nor a model that the Hugging Face Hub gives us now" in sentence
    )
