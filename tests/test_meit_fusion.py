"""Keys and values of a signal in unmodified language models: the published numbers, and MEIT's definition."""

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import meit_models
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM

from bioreport.fusion_cache import FAMILIES, KeyValueFusion, SignalCache, SignalLayer, embedding_width

NAMES = tuple(meit_models.CONFIGS)
# one for each way of making keys and values, of masking and of placing
FEW = ("llama-grouped", "mistral-sliding", "qwen3", "gemma3", "gpt2", "gpt_neox", "opt", "bloom")
NEW = 7  # tokens written: more than a sliding window holds


def embeddings(name: str, rows: int = 3, entries: int = 1, seed: int = 0) -> Tensor:
    width = embedding_width(meit_models.llm(name))
    draw = torch.Generator().manual_seed(seed)
    return 3 * F.normalize(torch.randn(rows, entries, width, generator=draw), dim=-1)


def text(side: str = "both") -> dict[str, Tensor]:
    """Three rows of 11 tokens, of which two are padded: on the left, on the right, or one on each."""
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(2, meit_models.VOCABULARY, (3, 11), generator=draw)
    mask = torch.ones_like(ids)
    if side in ("both", "left"):
        mask[1, :3] = 0
    if side == "left":
        mask[2, :6] = 0
    if side == "both":
        mask[2, -3:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def error(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


# --- the published numbers


@pytest.fixture(scope="module")
def published(reference_file: Callable[[str], Path]) -> dict[str, Tensor]:
    return load_file(reference_file("meit_llama_fusion.safetensors"))


def published_llama(tensors: dict[str, Tensor], variant: str, attention: str) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=97, hidden_size=64, intermediate_size=112, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4 if variant == "mha" else 2, rms_norm_eps=1e-6, tie_word_embeddings=False,
        attn_implementation=attention,
    )  # fmt: skip
    llm = LlamaForCausalLM(config).eval()
    prefix = f"state/{variant}/"
    llm.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    return llm


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("variant", ["mha", "gqa"])
@torch.no_grad()
def test_published_meit_llama_fusion(published: dict[str, Tensor], variant: str, attention: str) -> None:
    """Padded rows too: there all weight is on the signal, as in the published code."""

    def given(name: str) -> Tensor:
        return published[f"in/{variant}/{name}"]

    def out(name: str) -> Tensor:
        return published[f"out/{variant}/{name}"]

    def close(got: Tensor, name: str) -> None:
        torch.testing.assert_close(got, out(name).to(got.dtype).squeeze(), rtol=0, atol=1e-5)

    llm = published_llama(published, variant, attention)
    fusion = KeyValueFusion(llm)
    assert fusion.width == given("ecg_emb").shape[1] == 16
    inputs = {"input_ids": given("input_ids"), "attention_mask": given("attention_mask")}
    with fusion.attached(given("ecg_emb")):
        scored = llm(**inputs, labels=given("labels"), use_cache=False)
    close(scored.logits, "logits")
    close(scored.loss, "loss")
    close(llm(**inputs, past_key_values=fusion.cache(given("ecg_emb"))).logits, "logits")

    cache = fusion.cache(given("ecg_emb")[:1])
    steps = [llm(given("input_ids")[:1, i : i + 1], past_key_values=cache).logits for i in range(11)]
    close(torch.cat(steps, 1).squeeze(0), "logits_cached_sample0")

    # the published code leaves layers without the signal out of the model
    short = published_llama(published, variant, attention)
    short.model.layers = nn.ModuleList([short.model.layers[0], short.model.layers[2]])
    short.config.num_hidden_layers = 2
    short.model.layers[1].self_attn.layer_idx = 1
    with KeyValueFusion(short).attached(given("ecg_emb")):
        close(short(**inputs, use_cache=False).logits, "logits_layers_0_2")

    if attention == "eager":
        close(llm(**inputs).logits, "logits_no_ecg")
        mask = torch.full((11, 11), torch.finfo(torch.float32).min).triu(1) + torch.zeros(2, 1, 11, 11)
        hidden = given("attention_mask")[:, None, None, :] == 0
        mask = mask.masked_fill(hidden, torch.finfo(torch.float32).min)
        places = torch.arange(11)[None]
        layer: Any = llm.model.layers[0].self_attn

        def first_layer() -> Any:
            rotary = llm.model.rotary_emb(given("hidden_states"), places)
            return layer(given("hidden_states"), position_embeddings=rotary, attention_mask=mask)

        close(first_layer()[0], "attn_output_layer0_no_ecg")
        with fusion.attached(given("ecg_emb")):
            result, weights = first_layer()
        close(result, "attn_output_layer0")
        close(result, "attn_output_layer0_float64")
        close(weights, "attn_weights_layer0")


# --- the definition, family by family


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_logits_are_those_of_the_definition(name: str, attention: str) -> None:
    llm = meit_models.llm(name, "eager")
    if attention == "sdpa":
        if not llm._supports_sdpa or name == "gemma2":
            pytest.skip("the family has no attention by SDPA")
        llm = meit_models.llm(name, attention)
    fusion = KeyValueFusion(llm)
    inputs = text()
    real = inputs["attention_mask"].bool()
    for entries in (1, 3):
        signal = embeddings(name, entries=entries)
        expected = meit_models.reference(name, signal)(**inputs, use_cache=False).logits
        with fusion.attached(signal):
            got = llm(**inputs, use_cache=False).logits
        assert error(got[real], expected[real]) < 1e-5
        got = llm(**inputs, past_key_values=fusion.cache(signal)).logits
        assert error(got[real], expected[real]) < 1e-5
        without = llm(**inputs, use_cache=False).logits
        assert error(without[real], expected[real]) > 0.1
    unpadded = llm(inputs["input_ids"], past_key_values=fusion.cache(signal)).logits
    expected = meit_models.reference(name, signal)(inputs["input_ids"], use_cache=False).logits
    assert error(unpadded, expected) < 1e-5


def written(llm: Any, inputs: dict[str, Tensor], **options: Any) -> Any:
    torch.manual_seed(5)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    return llm.generate(
        **inputs,
        max_new_tokens=NEW,
        return_dict_in_generate=True,
        output_logits=True,
        pad_token_id=0,
        **options,
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", ["left", "none"])
def test_generation_is_that_of_the_definition(name: str, side: str) -> None:
    """Greedy, in a batch with padding: step by step the logits of the whole sequence without a cache."""
    llm, signal, inputs = meit_models.llm(name), embeddings(name), text(side)
    fusion = KeyValueFusion(llm)
    got = written(llm, inputs, past_key_values=fusion.cache(signal), do_sample=False)
    expected = written(meit_models.reference(name, signal), inputs, use_cache=False, do_sample=False)
    assert torch.equal(got.sequences, expected.sequences)
    assert error(torch.stack(got.logits), torch.stack(expected.logits)) < 1e-5
    alone = {key: value[1:2] for key, value in inputs.items()}
    one = written(llm, alone, past_key_values=fusion.cache(signal[1:2]), do_sample=False)
    assert torch.equal(one.sequences, got.sequences[1:2])


@pytest.mark.parametrize("name", FEW)
def test_beams_and_samples_are_those_of_the_definition(name: str) -> None:
    llm, signal, inputs = meit_models.llm(name), embeddings(name, entries=2), text("left")
    fusion, definition = KeyValueFusion(llm), meit_models.reference(name, signal)
    for options in (
        {"num_beams": 3, "do_sample": False, "num_return_sequences": 2},
        {"do_sample": True, "temperature": 1.3, "num_return_sequences": 2},
    ):
        got = written(llm, inputs, past_key_values=fusion.cache(signal), **options)
        expected = written(definition, inputs, use_cache=False, **options)
        assert torch.equal(got.sequences, expected.sequences)
        assert error(torch.stack(got.logits), torch.stack(expected.logits)) < 1e-5


def gradients(llm: Any, signal: Tensor, compute: Callable[[], Tensor]) -> dict[str, Tensor]:
    llm.zero_grad()
    signal.grad = None
    compute().backward()
    found = {key: p.grad.clone() for key, p in llm.named_parameters() if p.grad is not None}
    assert signal.grad is not None
    return found | {"signal": signal.grad.clone()}


@pytest.mark.parametrize("name", FEW)
def test_gradients_are_those_of_the_definition(name: str) -> None:
    """They reach the embeddings, and weights through the entries too; checkpointing changes nothing."""
    signal = embeddings(name, entries=2).requires_grad_()
    llm, definition = meit_models.llm(name).train(), meit_models.reference(name, signal).train()
    fusion, inputs = KeyValueFusion(llm), text()
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)

    def ours() -> Tensor:
        with fusion.attached(signal):
            loss = llm(**inputs, labels=labels, use_cache=False).loss
        return loss  # the backward pass comes when the block has been left

    expected = gradients(
        definition, signal, lambda: definition(**inputs, labels=labels, use_cache=False).loss
    )
    plain = gradients(llm, signal, ours)
    assert plain.keys() == expected.keys()
    largest = {key: float(value.abs().max()) for key, value in expected.items()}
    assert largest["signal"] > 1e-3
    for key, value in expected.items():
        assert float((plain[key] - value).abs().max()) < 1e-5 * max(largest.values()), key
    runs = []
    layer: Any = meit_models.attentions(llm)[0]
    layer.register_forward_hook(lambda *_: runs.append(1))
    fusion.checkpoint_activations()
    checkpointed = gradients(llm, signal, ours)
    assert len(runs) == 2, "the layer was not recomputed"
    assert all(torch.equal(checkpointed[key], value) for key, value in plain.items())


def test_checkpointing_that_would_lose_the_signal_is_refused() -> None:
    llm, signal = meit_models.llm("llama").train(), embeddings("llama")
    fusion = KeyValueFusion(llm)
    llm._set_gradient_checkpointing(enable=True)
    with pytest.raises(ValueError, match="checkpoint_activations"), fusion.attached(signal):
        pass
    fusion.checkpoint_activations()
    with fusion.attached(signal):
        pass


@torch.no_grad()
def test_layers_without_the_signal_attend_to_the_text() -> None:
    for name in ("llama", "gemma3"):
        signal, inputs = embeddings(name), text("left")
        llm = meit_models.llm(name)
        fusion = KeyValueFusion(llm, layers=[1])
        definition = meit_models.reference(name, signal, layers=(1,))
        expected = written(definition, inputs, use_cache=False, do_sample=False)
        got = written(llm, inputs, past_key_values=fusion.cache(signal), do_sample=False)
        assert torch.equal(got.sequences, expected.sequences)
        assert error(torch.stack(got.logits), torch.stack(expected.logits)) < 1e-5


# --- what stays as it was


@torch.no_grad()
def test_without_a_signal_the_model_is_itself() -> None:
    for name in FEW:
        inputs = text("left")
        plain = meit_models.llm(name)(**inputs).logits
        llm = meit_models.llm(name)
        weights = {key: value.clone() for key, value in llm.state_dict().items()}
        fusion = KeyValueFusion(llm)
        assert torch.equal(llm(**inputs).logits, plain)
        llm(**inputs, past_key_values=fusion.cache(embeddings(name)))
        assert torch.equal(llm(**inputs).logits, plain)
        fusion.remove()
        assert not any(m._forward_pre_hooks for m in llm.modules())
        assert all(torch.equal(value, weights[key]) for key, value in llm.state_dict().items())


@torch.no_grad()
def test_two_fusions_share_a_model() -> None:
    llm, signal, inputs = meit_models.llm("qwen3"), embeddings("qwen3"), text("left")
    first, second = KeyValueFusion(llm), KeyValueFusion(llm, layers=[0])
    for fusion, layers in ((first, (0, 1)), (second, (0,))):
        expected = meit_models.reference("qwen3", signal, layers)(**inputs, use_cache=False).logits
        real = inputs["attention_mask"].bool()
        assert error(llm(**inputs, past_key_values=fusion.cache(signal)).logits[real], expected[real]) < 1e-5


@pytest.mark.parametrize("name", ["llama", "mistral-sliding"])
@torch.no_grad()
def test_a_cache_counts_text_and_can_be_branched(name: str) -> None:
    """One record, several questions: the entries are made once and the cache copied."""
    llm, signal = meit_models.llm(name), embeddings(name, rows=1, entries=2)
    fusion = KeyValueFusion(llm)
    ids = text()["input_ids"]
    whole = llm(ids[:1], past_key_values=fusion.cache(signal)).logits
    cache = fusion.cache(signal)
    assert isinstance(cache, SignalCache) and cache.get_seq_length() == 0
    llm(ids[:1, :5], past_key_values=cache)
    branch = copy.deepcopy(cache)
    assert branch.layers[0].keys is not cache.layers[0].keys
    assert cache.get_seq_length() == 5
    rest = llm(ids[:1, 5:], past_key_values=branch).logits
    assert branch.get_seq_length() == 11 and cache.get_seq_length() == 5
    assert error(rest, whole[:, 5:]) < 1e-5
    entries = cache.layers[0].keys[:, :, :2]
    kept = 11 if name == "llama" else meit_models.WINDOW - 1
    assert branch.layers[0].keys.shape[2] == 2 + kept and torch.equal(
        branch.layers[0].keys[:, :, :2], entries
    )
    branch.reset()
    assert branch.get_seq_length() == 0
    assert error(llm(ids[:1], past_key_values=branch).logits, whole) < 1e-5
    # several prompts for one record
    shared = fusion.cache(signal)
    assert error(llm(ids, past_key_values=shared).logits[:1], whole) < 1e-5
    shared.batch_select_indices(torch.tensor([1]))
    assert len(shared.layers[0].keys) == 1


@torch.no_grad()
def test_a_cache_can_be_cropped_to_its_entries() -> None:
    llm, signal = meit_models.llm("llama"), embeddings("llama", rows=1)
    fusion, ids = KeyValueFusion(llm), text()["input_ids"][:1]
    cache = fusion.cache(signal)
    whole = llm(ids, past_key_values=cache).logits
    cache.crop(-4)
    assert cache.get_seq_length() == 7
    assert error(llm(ids[:, 7:], past_key_values=cache).logits, whole[:, 7:]) < 1e-5
    cache.crop(-11)
    assert cache.layers[0].keys.shape[2] == 1
    with pytest.raises(ValueError, match="there are 0"):
        cache.crop(-1)
    sliding = SignalLayer(torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 1, 4), window=2)
    sliding.update(torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4))
    with pytest.raises(RuntimeError, match="sliding window"):
        sliding.crop(-1)


@torch.no_grad()
def test_bfloat16_model_takes_float32_embeddings() -> None:
    llm, signal, inputs = meit_models.llm("llama-grouped"), embeddings("llama-grouped"), text("left")
    real = inputs["attention_mask"].bool()
    expected = llm(**inputs, past_key_values=KeyValueFusion(llm).cache(signal)).logits
    llm = meit_models.llm("llama-grouped").to(torch.bfloat16)
    fusion = KeyValueFusion(llm)
    got = llm(**inputs, past_key_values=fusion.cache(signal)).logits
    assert got.dtype == torch.bfloat16 and error(got[real].float(), expected[real]) < 0.1
    llm = meit_models.llm("llama-grouped")
    fusion = KeyValueFusion(llm)
    cache = fusion.cache(signal)
    with torch.autocast("cpu", torch.bfloat16):
        got = llm(**inputs, past_key_values=cache).logits
    assert error(got[real].float(), expected[real]) < 0.1


def test_width_of_an_embedding() -> None:
    """The head dimension, or the hidden size where the heads are wider together than that."""
    widths = {name: embedding_width(meit_models.llm(name)) for name in NAMES}
    assert {name for name, width in widths.items() if width == meit_models.HIDDEN} == {"qwen3", "gemma"}
    assert set(widths.values()) == {8, meit_models.HIDDEN}
    assert {meit_models.llm(name).config.model_type for name in NAMES} == set(FAMILIES)


def test_what_does_not_fit_is_said() -> None:
    mamba = MambaForCausalLM(MambaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1))
    with pytest.raises(ValueError, match="a mamba model takes no entries"):
        KeyValueFusion(mamba)
    llm = meit_models.llm("llama")
    with pytest.raises(ValueError, match="some of 0 to 1"):
        KeyValueFusion(llm, layers=[2])
    with pytest.raises(ValueError, match="some of 0 to 1"):
        KeyValueFusion(llm, layers=[])
    fusion = KeyValueFusion(llm)
    for wrong in (torch.zeros(2, 1, 5), torch.zeros(2, 0, 8), torch.zeros(8)):
        with pytest.raises(ValueError, match="width that divides 32"):
            fusion.cache(wrong)
        with pytest.raises(ValueError, match="width that divides 32"), fusion.attached(wrong):
            pass
    with pytest.raises(ValueError, match="2 signals do not fit 3 rows"):
        llm(text()["input_ids"], past_key_values=fusion.cache(embeddings("llama", rows=2)))
    with pytest.raises(ValueError, match="use_cache=False"), fusion.attached(embeddings("llama")):
        llm(text()["input_ids"], past_key_values=DynamicCache(config=llm.config))
    llm.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="flash_attention_2"):
        fusion.cache(embeddings("llama"))
