"""Small random models on disk, for tests that need a language model or a bundle."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from bioreport.bundle import Bundle
from bioreport.encoders.cbramod import CBraMod
from bioreport.heads import FindingsHead

SIZES: dict[str, Any] = {
    "d_model": 40,
    "n_layer": 1,
    "nhead": 4,
    "dim_feedforward": 40,
    "out_dim": 40,
}
# of a recording that nothing was measured in
MEASUREMENTS: dict[str, Any] = {
    "duration_seconds": 30.0, "usable_seconds": 30.0, "channels_present": ["O1", "O2"], "channels_absent": [],
    "channels_flat": [], "channels_saturated": [], "channels_noisy": [], "mains": None,
    "posterior_rhythm": None, "band_power_percent": {},
}  # fmt: skip


def save_small_llm(folder: Path, hidden: int = 32, seed: int = 0) -> Path:
    """A Qwen3 of one layer with a byte tokenizer, as `save_pretrained` writes it."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>").save_pretrained(
        folder
    )
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(vocabulary), hidden_size=hidden, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, max_position_embeddings=4096,
        tie_word_embeddings=True, initializer_range=0.3, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def small_bundle(llm: Path | str | None = None, seed: int = 0) -> Bundle:
    """Encoder and findings head with random weights, no projector."""
    torch.manual_seed(seed)
    encoder = CBraMod(**SIZES)
    head = FindingsHead(SIZES["out_dim"], ("seizure", "focal_slowing"), located=("focal_slowing",))
    return Bundle(
        name="small", encoder_config={"class": "CBraMod", **SIZES}, encoder=encoder, findings_head=head,
        llm_source=str(llm) if llm is not None else None, prompt_style="compact",
    )  # fmt: skip
