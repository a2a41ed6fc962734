"""Low-rank adapters on a language model, by peft (an optional dependency)."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

from safetensors import SafetensorError

from bioreport.errors import InputError


@dataclass(frozen=True)
class LoraSizes:
    """Rank, scale and dropout of low-rank adapters; by default MEIT's."""

    rank: int = 64
    alpha: int = 128
    dropout: float = 0.1


PUBLISHED = LoraSizes()
LORA_RANK, LORA_ALPHA, LORA_DROPOUT = PUBLISHED.rank, PUBLISHED.alpha, PUBLISHED.dropout
_LLAMA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Published for the Llama-like, GPT-2, BLOOM and GPT-NeoX; the others are those of the same places.
LORA_TARGETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "gpt2": ("c_attn",),
        "bloom": ("query_key_value",),
        "gpt_neox": ("query_key_value",),
        "opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
        "gptj": ("q_proj", "k_proj", "v_proj", "out_proj", "fc_in", "fc_out"),
    }
)


def need_peft() -> Any:
    """The package peft; raises InputError where it is not installed."""
    try:
        import peft
    except ImportError as error:
        raise InputError("peft", "is not installed", "run `pip install 'bioreport[train]'`") from error
    return peft


def with_lora(llm: Any, rank: int, alpha: int, dropout: float, targets: Sequence[str] | None) -> Any:
    """peft's model around a language model, whose layers it changes in place.

    Raises
    ------
    InputError
        Where peft is not installed.
    """
    peft = need_peft()
    family = llm.config.get_text_config().model_type
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=list(targets or LORA_TARGETS.get(family, _LLAMA_TARGETS)),
        # GPT-2 keeps its weights transposed
        fan_in_fan_out=family == "gpt2",
        task_type="CAUSAL_LM",
    )
    with _quiet():
        return peft.get_peft_model(llm, config)


def load_lora(llm: Any, folder: str | PathLike[str]) -> Any:
    """peft's model around a language model, with the adapter that peft wrote into a folder; it can learn on.

    Raises
    ------
    InputError
        Where peft is not installed, or the folder does not hold an adapter that fits.
    """
    peft = need_peft()
    try:
        with _quiet():
            return peft.PeftModel.from_pretrained(llm, str(folder), is_trainable=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        problem = str(error).splitlines()[0].strip()
        raise InputError(
            folder, f"does not fit the model ({problem})", "give a folder that `train` wrote"
        ) from error


def save_lora(adapter: Any, folder: str | PathLike[str]) -> None:
    """Write what peft's model has learnt: always the same bytes, and no path of this machine."""
    # with embeddings in question peft would ask the Hub for the model's vocabulary
    adapter.save_pretrained(str(folder), save_embedding_layers=False)
    path = Path(folder) / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # a set, in no order
    config["target_modules"] = sorted(config["target_modules"])
    base = config.get("base_model_name_or_path")
    if base is not None and Path(base).is_dir():
        config["base_model_name_or_path"] = None
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    # peft's card, which names the base by that path too
    (Path(folder) / "README.md").unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warning of transformers 5 that peft still reads a property under its old name."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield
