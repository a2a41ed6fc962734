"""Loading a language model: what is there loads, what is not is said in a sentence."""

import json
import shutil

import pytest
import tiny_llms
import torch
from safetensors.torch import load_file, save_file
from transformers import T5Config, T5ForConditionalGeneration

from bioreport import ReportPipeline
from bioreport.errors import InputError
from bioreport.llm import load_llm


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "llm"
    tiny_llms.llm("llama").save_pretrained(folder)
    tiny_llms.tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "llm")


def test_loads_frozen_weights_as_saved(saved):
    llm, tokenizer = load_llm(saved)
    expected = tiny_llms.llm("llama").state_dict()
    assert not llm.training and llm.dtype == torch.float32
    assert all(torch.equal(value, expected[key]) for key, value in llm.state_dict().items())
    assert tokenizer.chat_template == tiny_llms.CHAT
    assert tokenizer("None seen.")["input_ids"] == tiny_llms.tokenizer()("None seen.")["input_ids"]


def test_dtype_and_attention(saved):
    llm, _ = load_llm(str(saved), dtype="bfloat16", attention="eager")
    assert llm.dtype == torch.bfloat16 and llm.config._attn_implementation == "eager"
    assert load_llm(saved, torch.float16)[0].dtype == torch.float16
    assert load_llm(saved)[0].config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_file(copy, name):
    (copy / name).unlink()
    with pytest.raises(InputError, match=r"missing|cannot be loaded") as error:
        load_llm(copy)
    assert str(copy) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("model.safetensors", b"\x00" * 40),
        ("config.json", b"{}"),
        ("tokenizer.json", b"["),
    ],
)
def test_broken_file(copy, name, content):
    (copy / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        load_llm(copy)
    assert "\n" not in str(error.value)


def test_missing_weights_are_not_invented(copy):
    state = load_file(copy / "model.safetensors")
    del state["model.layers.1.mlp.up_proj.weight"]
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of its weights, model\.layers\.1\.mlp\.up_proj\.weight"):
        load_llm(copy)


def test_encoder_decoder_is_refused(copy):
    config = T5Config(vocab_size=40, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    (copy / "model.safetensors").unlink()
    T5ForConditionalGeneration(config).save_pretrained(copy)
    with pytest.raises(InputError, match="causal"):
        load_llm(copy)


def test_code_in_a_repository_is_not_run(copy):
    config = json.loads((copy / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "code.C", "AutoModelForCausalLM": "code.M"}}
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "code.py").write_text("raise SystemExit('ran')")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_llm(copy)


def test_tokenizer_without_end_token(copy):
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (copy / name).exists():
            config = json.loads((copy / name).read_text())
            config.pop("eos_token", None)
            (copy / name).write_text(json.dumps(config))
    with pytest.raises(InputError, match="end token"):
        load_llm(copy)


def test_neither_folder_nor_hub_id(tmp_path):
    file = tmp_path / "weights.gguf"
    file.write_bytes(b"x")
    for name in (tmp_path / "absent", file, "./absent", "a/b/c"):
        with pytest.raises(InputError, match="not a folder of a language model"):
            load_llm(name)
    with pytest.raises(InputError, match=r"config\.json is missing"):
        load_llm(tmp_path)


def test_unknown_hub_id_without_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="check the name and the network"):
        load_llm("bioreport-tests/no-such-model")


@pytest.mark.parametrize(
    ("installed", "device", "dtype", "sentence"),
    [
        (True, "cpu", "auto", r"needs a CUDA device and not the cpu; choose --device cuda"),
        (False, "cuda", "auto", r"is not installed here; run `pip install 'bioreport\[flash\]'`"),
        (True, "cuda", "float32", r"computes in 16 bits only; choose --dtype bfloat16"),
    ],
)
def test_flash_attention_that_cannot_run_is_said(saved, monkeypatch, installed, device, dtype, sentence):
    monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda: installed)
    with pytest.raises(InputError, match=sentence):
        load_llm(saved, dtype=dtype, device=device, attention="flash_attention_2")


def test_attention_of_the_pipeline_is_that_of_the_llm(monkeypatch):
    asked = []

    def load(name, dtype, device, *, attention):
        asked.append(attention)
        raise InputError(name, "was asked for", "nothing")

    monkeypatch.setattr("bioreport.llm.load_llm", load)
    for options in ({}, {"attention": "flash"}):
        with pytest.raises(InputError, match="was asked for"):
            ReportPipeline.from_pretrained(**options)
    assert asked == [None, "flash_attention_2"]


def test_a_model_that_the_hub_does_not_answer_for_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unreachable(url: str) -> None:
        asked.append(url)
        raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    with pytest.raises(InputError, match="neither a folder nor a model"):
        load_llm("nobody/nothing-here")
    assert len(asked) == 1
