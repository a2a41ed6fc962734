"""Small random causal LMs of every family that takes entries, and MEIT's attention on them by its definition.

The definition is eager and without a cache: the scores of every query against the signal's column are put in
front of the masked scores of the text, and one softmax runs over both. It shares no code with the package.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)
from transformers.masking_utils import eager_mask

HIDDEN, HEADS, VOCABULARY = 32, 4, 61
WINDOW = 4
_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
_NAMES = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": None}
_MIXED = ["sliding_attention", "full_attention"]
_QUIET = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaConfig(**_COMMON | {"num_key_value_heads": HEADS}),
    "llama-grouped": lambda: LlamaConfig(**_COMMON, attention_bias=True),
    "mistral": lambda: MistralConfig(**_COMMON, sliding_window=None),
    "mistral-sliding": lambda: MistralConfig(**_COMMON, sliding_window=WINDOW),
    "qwen2": lambda: Qwen2Config(**_COMMON),
    # heads wider together than the hidden states, as in Qwen3-4B
    "qwen3": lambda: Qwen3Config(**_COMMON, head_dim=16),
    "qwen3-sliding": lambda: Qwen3Config(
        **_COMMON, head_dim=8, use_sliding_window=True, sliding_window=WINDOW, layer_types=_MIXED
    ),
    "gemma": lambda: GemmaConfig(**_COMMON, head_dim=16),
    "gemma2": lambda: Gemma2Config(**_COMMON, head_dim=8, sliding_window=WINDOW, layer_types=_MIXED),
    "gemma3": lambda: Gemma3TextConfig(**_COMMON, head_dim=8, sliding_window=WINDOW, layer_types=_MIXED),
    "gpt2": lambda: GPT2Config(
        **_NAMES, **_QUIET, n_embd=HIDDEN, n_layer=2, n_head=HEADS, n_positions=256,
        scale_attn_by_inverse_layer_idx=True,
    ),
    "gptj": lambda: GPTJConfig(
        **_NAMES, **_QUIET, n_embd=HIDDEN, n_layer=2, n_head=HEADS, rotary_dim=4, n_positions=256
    ),
    "gpt_neox": lambda: GPTNeoXConfig(**_COMMON, attention_bias=True),
    "opt": lambda: OPTConfig(
        **_NAMES, hidden_size=HIDDEN, num_hidden_layers=2, num_attention_heads=HEADS, ffn_dim=48,
        max_position_embeddings=256, dropout=0.0, word_embed_proj_dim=24,
    ),
    "bloom": lambda: BloomConfig(
        **_NAMES, hidden_size=HIDDEN, n_layer=2, n_head=HEADS, hidden_dropout=0.0, attention_dropout=0.0
    ),
}  # fmt: skip


def llm(name: str, attention: str | None = None, seed: int = 0) -> PreTrainedModel:
    """A model of two layers in float32 and eval mode; biases and norms are not at their initial values."""
    torch.manual_seed(seed)
    options = {"attn_implementation": attention} if attention else {}
    model = AutoModelForCausalLM.from_config(CONFIGS[name](), **options)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            scale = 0.1 if "norm" in key or "ln_" in key or key.endswith("bias") else 0.25
            parameter.add_(torch.randn_like(parameter) * scale)
    return model.eval()


def attentions(model: Any) -> list[Any]:
    """Attention layers in order."""
    found = [m for m in model.modules() if hasattr(m, "layer_idx") and type(m).__name__.endswith("Attention")]
    return sorted(found, key=lambda m: m.layer_idx)


def entries(attention: Any, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values [B, heads, N, head dim] of embeddings [B, N, width], from the layer's weights."""
    hidden = torch.cat([embeddings] * (HIDDEN // embeddings.shape[-1]), -1)
    kind = type(attention).__name__
    if kind.startswith("GPT2"):
        fused = hidden @ attention.c_attn.weight + attention.c_attn.bias
        keys, values = fused[..., HIDDEN : 2 * HIDDEN], fused[..., 2 * HIDDEN :]
    elif kind.startswith(("Bloom", "GPTNeoX")):
        weight = attention.query_key_value.weight.view(HEADS, 3, HIDDEN // HEADS, HIDDEN)
        bias = attention.query_key_value.bias.view(HEADS, 3, HIDDEN // HEADS)
        keys, values = (
            (torch.einsum("bni,hdi->bnhd", hidden, weight[:, i]) + bias[:, i]).flatten(2) for i in (1, 2)
        )
    else:
        keys, values = (F.linear(hidden, p.weight, p.bias) for p in (attention.k_proj, attention.v_proj))
    dim = HIDDEN // HEADS if not hasattr(attention, "head_dim") else attention.head_dim
    keys, values = (x.view(*x.shape[:2], -1, dim) for x in (keys, values))
    if hasattr(attention, "k_norm"):
        norm = attention.k_norm
        weight = norm.weight + 1 if kind.startswith("Gemma") else norm.weight
        scale = (keys.square().mean(-1, keepdim=True) + getattr(norm, "eps", 1e-6)).rsqrt()
        keys = keys * scale * weight
    return keys.transpose(1, 2), values.transpose(1, 2)


def _attend(
    attention: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float, softcap: Any = None
) -> tuple[Tensor, Tensor]:
    def scores(keys: Tensor) -> Tensor:
        keys = keys.repeat_interleave(query.shape[1] // keys.shape[1], 1)
        found = query @ keys.transpose(-1, -2) * scale
        return softcap * torch.tanh(found / softcap) if softcap else found

    text = scores(key) + bias
    columns = value.new_zeros(*query.shape[:3], 0)
    seen = value
    if getattr(attention, "signal", None) is not None:
        ours = entries(attention, attention.signal)
        # beams and several samples
        ours = tuple(x.repeat_interleave(len(query) // len(x), 0) for x in ours)
        columns, seen = scores(ours[0]), torch.cat([ours[1], value], 2)
    weights = torch.cat([columns, text], -1).softmax(-1)
    return weights @ seen.repeat_interleave(query.shape[1] // seen.shape[1], 1), weights


def _interface(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    out, weights = _attend(module, query, key, value, attention_mask, scaling, kwargs.get("softcap"))
    return out.transpose(1, 2).contiguous(), weights


def _gptj(self: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor) -> Any:
    return _attend(self, query, key, value, attention_mask, 1 / self.scale_attn)


def _bloom(
    self: Any, hidden_states: Tensor, residual: Tensor, alibi: Tensor, attention_mask: Tensor, **kwargs: Any
) -> Any:
    query, key, value = self._reshape(self.query_key_value(hidden_states))
    bias = alibi.view(len(query), HEADS, 1, -1) + attention_mask
    out, weights = _attend(self, query, key, value, bias, self.inv_norm_factor)
    return residual + self.dense(out.transpose(1, 2).flatten(2)), weights


AttentionInterface.register("definition", _interface)
AttentionMaskInterface.register("definition", eager_mask)


def reference(name: str, embeddings: Tensor | None, layers: tuple[int, ...] = (0, 1), seed: int = 0) -> Any:
    """The model `llm` gives, with MEIT's attention over `embeddings` [B, N, width] by its definition.

    It keeps no cache: call its ``generate`` with ``use_cache=False``.
    """
    patched: dict[str, Any] = {"gptj": ("_attn", _gptj), "bloom": ("forward", _bloom)}
    model = llm(name, "eager" if name in patched else "definition", seed)
    for attention in attentions(model):
        if name in patched:
            method, function = patched[name]
            setattr(attention, method, MethodType(function, attention))
        attention.signal = embeddings if attention.layer_idx in layers else None
    return model
