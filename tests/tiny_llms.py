"""Randomly initialised causal LMs of four families, and small tokenizers for them."""

import json

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

HIDDEN = 32
SPECIAL = ["<|begin|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
SPLITS = ("gpt2", "qwen", "none", "sentencepiece")
FAMILIES = ("qwen3", "llama", "gemma", "gemma3", "gpt2")
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BOS_CHAT = "{{ bos_token }}" + CHAT

TEXT = [
    "## BACKGROUND ACTIVITY\nPosterior dominant rhythm 9.5 Hz, 42 µV, symmetric. No slowing.\n",
    "## SLEEP\nDrowsiness with roving eye movements; no spindles.\n\n## IMPRESSION/INTERPRETATION\nNormal.\n",
    "## EPILEPTIFORM ABNORMALITIES\nNone seen.\n## EVENTS/SEIZURES\nNo clinical events.\n",
    "Channels: 19.\nDuration: 600 s.\nHistory: none.\nSections: SLEEP; SEIZURES.\n",
    '{"SLEEP": "none.", "EPLEPTIFORM ABNORMALITIES": "none seen."}',
]


def tokenizer(chat: str | None = CHAT, *, split: str = "gpt2", bos: bool = False) -> PreTrainedTokenizerFast:
    """A BPE tokenizer trained on a few lines.

    ``split``: "gpt2" keeps a newline apart, "qwen" lets it hang on punctuation (one token for a full stop
    and the line's end), "none" lets it merge with anything, "sentencepiece" is built like Llama 2's.
    ``bos``: whether the tokenizer begins every text with its begin token.
    """
    byte_level = {"add_prefix_space": False}
    backend = Tokenizer(models.BPE())
    if split == "sentencepiece":
        backend = _sentencepiece()
    elif split == "gpt2":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(**byte_level)
    elif split == "qwen":
        pattern = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+")
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(pattern, "isolated"),
                pre_tokenizers.ByteLevel(**byte_level, use_regex=False),
            ]
        )
    else:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(**byte_level, use_regex=False)
    if split != "sentencepiece":
        backend.decoder = decoders.ByteLevel()
        backend.train_from_iterator(
            TEXT * 3,
            trainers.BpeTrainer(
                vocab_size=420,
                special_tokens=SPECIAL,
                initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                show_progress=False,
            ),
        )
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", backend.token_to_id("<|begin|>"))]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|begin|>",
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|im_start|>"],
    )
    fast.chat_template = chat
    return fast


def _sentencepiece() -> Tokenizer:
    """As Llama 2 has it: spaces are visible characters, a newline is the byte token <0x0A>."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(
        [text.replace("\n", " ") for text in TEXT * 3],
        trainers.BpeTrainer(vocab_size=150, special_tokens=SPECIAL, show_progress=False),
    )
    state = json.loads(trained.to_str())["model"]
    vocabulary = dict(state["vocab"])
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    backend = Tokenizer(
        models.BPE(vocabulary, [tuple(pair) for pair in state["merges"]], byte_fallback=True, fuse_unk=True)
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(SPECIAL)
    return backend


def llm(family: str, vocabulary: int = 432, seed: int = 0) -> PreTrainedModel:
    """A two-layer model with random weights, in float32; its vocabulary is wider than its tokenizer's."""
    torch.manual_seed(seed)
    common = {
        "vocab_size": vocabulary,
        "hidden_size": HIDDEN,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 2048,
    }
    if family == "qwen3":
        model: PreTrainedModel = Qwen3ForCausalLM(Qwen3Config(**common, tie_word_embeddings=True))
    elif family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**common))
    elif family == "gemma":
        model = GemmaForCausalLM(GemmaConfig(**common))
    elif family == "gemma3":
        model = Gemma3ForCausalLM(
            Gemma3TextConfig(**common, sliding_window=16, layer_types=["sliding_attention", "full_attention"])
        )
    else:
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=vocabulary, n_embd=HIDDEN, n_layer=2, n_head=4, n_positions=1024)
        )
    # the default initialisation leaves all logits nearly equal, where any error would pass
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name and "ln_" not in name:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model.eval()


class Linear(nn.Module):
    """CELM's linear projector under its key."""

    def __init__(self, encoder_dim: int = 20, llm_dim: int = HIDDEN) -> None:
        super().__init__()
        self.proj = nn.Linear(encoder_dim, llm_dim)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.proj(tokens)

    def packed(self, tokens: Tensor, lengths: list[int]) -> tuple[Tensor, list[int]]:
        return self.proj(tokens), lengths
