"""Packed batches: what padded ones give, without the padding, in every family and through every projector."""

from typing import Any

import pytest
import tiny_llms
import torch
from torch import Tensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from bioreport.fusion import IGNORED, PrefixFusion, TooLong
from bioreport.packing import can_pack
from bioreport.projectors import build_projector
from bioreport.prompts import SIGNAL

DIM = 16
LENGTHS = (3, 40, 1)


def llm(family: str) -> Any:
    if family in tiny_llms.FAMILIES:
        return tiny_llms.llm(family)
    torch.manual_seed(0)
    sizes = {"vocab_size": 432, "hidden_size": 32, "num_attention_heads": 4}
    if family == "mistral":
        config = MistralConfig(
            **sizes, num_hidden_layers=2, intermediate_size=64, num_key_value_heads=2, head_dim=8,
            sliding_window=8,
        )  # fmt: skip
        model: Any = MistralForCausalLM(config)
    elif family == "opt":
        model = OPTForCausalLM(
            OPTConfig(**sizes, num_hidden_layers=2, ffn_dim=64, word_embed_proj_dim=32, dropout=0.0)
        )
    elif family == "gptj":
        model = GPTJForCausalLM(GPTJConfig(vocab_size=432, n_embd=32, n_layer=2, n_head=4, rotary_dim=4))
    else:
        model = BloomForCausalLM(BloomConfig(**sizes, n_layer=2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name and "ln_" not in name:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model.eval()


def fused(family: str, kind: str = "linear", **sizes: Any) -> PrefixFusion:
    model = llm(family)
    torch.manual_seed(1)
    projector = build_projector(kind, DIM, 32, **sizes)
    return PrefixFusion(model, tiny_llms.tokenizer(None), projector, DIM)


def batch() -> tuple[list[str], list[list[Tensor]], list[str]]:
    draw = torch.Generator().manual_seed(2)
    sessions = [[torch.randn(length, DIM, generator=draw)] for length in LENGTHS]
    sessions[0].append(torch.randn(7, DIM, generator=draw))
    prompts = [f"{SIGNAL}\nWhat of it?", f"{SIGNAL}\nAnd of this, with a longer history?", SIGNAL]
    return prompts, sessions, ["None.", "Drowsiness; no spindles seen.", "Normal."]


def gradients(fusion: PrefixFusion, loss: Tensor) -> dict[str, Tensor]:
    fusion.zero_grad()
    loss.backward()
    return {key: p.grad.clone() for key, p in fusion.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", [*tiny_llms.FAMILIES, "mistral", "opt", "gptj", "bloom"])
def test_a_packed_batch_has_the_loss_and_gradients_of_a_padded_one(family: str) -> None:
    fusion = fused(family)
    assert can_pack(fusion.llm) == (family not in ("gptj", "bloom"))
    padded, packed = fusion.embed(*batch()), fusion.pack(*batch())
    assert packed.inputs_embeds.shape[1] == sum(packed.lengths) == int(padded.attention_mask.sum())
    before = fusion.loss(padded)
    expected, loss = gradients(fusion, before), fusion.loss(packed)
    torch.testing.assert_close(loss, before, rtol=1e-5, atol=1e-6)
    found = gradients(fusion, loss)
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-6)
    # the model goes on to take padded batches as before
    torch.testing.assert_close(fusion.loss(fusion.embed(*batch())), before, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("family", ["qwen3", "mistral", "bloom"])
def test_what_stands_beside_an_item_does_not_change_its_loss(family: str) -> None:
    fusion = fused(family)
    prompts, sessions, responses = batch()
    alone, targets = [], []
    for one in zip(prompts, sessions, responses, strict=True):
        padded = fusion.embed(*([part] for part in one))
        assert padded.labels is not None
        alone.append(fusion.loss(padded))
        targets.append(int((padded.labels != IGNORED).sum()))
    for order in ([0, 1, 2], [2, 0, 1], [1, 1, 0]):
        together = fusion.loss(fusion.pack(*([part[i] for i in order] for part in batch())))
        expected = sum(alone[i] * targets[i] for i in order) / sum(targets[i] for i in order)
        torch.testing.assert_close(together, expected, rtol=1e-5, atol=1e-6)


KINDS: dict[str, dict[str, int]] = {
    "linear": {}, "sequence": {"heads": 4}, "perceiver": {"heads": 4, "queries": 3},
    "sequence-perceiver": {"heads": 4, "queries": 3}, "attention": {"queries": 2},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_sessions_packed_through_a_projector_are_what_they_are_alone(kind: str) -> None:
    torch.manual_seed(3)
    projector = build_projector(kind, DIM, 12, **KINDS[kind])
    for lengths in ([5, 1, 40, 5], [4, 4], [9]):
        sessions = [torch.randn(length, DIM) for length in lengths]
        packed, counts = projector.packed(torch.cat(sessions), lengths)
        assert sum(counts) == len(packed)
        for session, part in zip(sessions, packed.split(counts), strict=True):
            torch.testing.assert_close(part, projector(session[None])[0], rtol=1e-4, atol=1e-5)
            with torch.no_grad():
                again = projector.packed(session, [len(session)])[0]
            torch.testing.assert_close(part, again, rtol=1e-4, atol=1e-5)


def test_celms_limit_holds_for_each_packed_session(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bioreport.projectors.MAX_POSITIONS", 6)
    projector = build_projector("sequence", DIM, 12, heads=4, compat="celm")
    sessions = [torch.randn(length, DIM) for length in (9, 4)]
    packed, counts = projector.packed(torch.cat(sessions), [9, 4])
    assert counts == [6, 4]
    torch.testing.assert_close(packed[:6], projector(sessions[0][None])[0], rtol=1e-5, atol=1e-6)


def test_no_logits_are_made_beside_the_targets() -> None:
    fusion = fused("qwen3")
    made: list[torch.Size] = []
    head = fusion.llm.get_output_embeddings()
    head.register_forward_hook(lambda module, inputs, output: made.append(output.shape))
    packed = fusion.pack(*batch())
    fusion.loss(packed).backward()
    assert made == [(1, int((packed.labels != IGNORED).sum()), 432)]
    assert made[0][1] < sum(packed.lengths) / 2


@pytest.mark.parametrize("family", ["qwen3", "mistral", "gpt2"])
def test_positions_alone_tell_transformers_where_parts_begin(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What flash-attn, which needs a GPU, is given; here transformers makes its own mask of it."""
    fusion = fused(family)
    expected = fusion.loss(fusion.embed(*batch()))
    monkeypatch.setattr("bioreport.packing._is_flash", lambda llm: True)
    found = fusion.loss(fusion.pack(*batch()))
    assert fusion.llm.config._attn_implementation == "sdpa"
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_activation_checkpointing_computes_the_same_again() -> None:
    fusion = fused("gemma3")
    expected = gradients(fusion, fusion.loss(fusion.pack(*batch())))
    ran: list[int] = []
    fusion.llm.model.layers[0].mlp.register_forward_pre_hook(lambda module, inputs: ran.append(1))
    fusion.checkpoint_activations()
    found = gradients(fusion.train(), fusion.loss(fusion.pack(*batch())))
    # of the frozen model the layers alone are in training mode, which transformers asks for
    assert len(ran) == 2 and not fusion.llm.model.layers[0].mlp.training
    fusion.loss(fusion.eval().pack(*batch())).backward()
    assert len(ran) == 3
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-5, atol=1e-7)


def test_a_session_of_more_than_a_thousand_epochs_is_learnt_up_to_the_models_positions() -> None:
    fusion = fused("qwen3", "sequence", heads=4)
    long = torch.randn(1500, DIM)
    fusion.loss(fusion.pack([SIGNAL, SIGNAL], [[long], [long[:2]]], ["Seizure.", "None."])).backward()
    assert all(p.grad is not None for p in fusion.projector.parameters())
    with pytest.raises(TooLong, match="positions and the language model has 2048"):
        fusion.pack([SIGNAL], [[long.repeat(2, 1)]], ["Seizure."])
