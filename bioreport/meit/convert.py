"""MEIT's checkpoints, as its authors' code writes them, to a folder that `load_meit` reads."""

import json
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from bioreport import published
from bioreport.encoders.ecg_resnet import MeitEncoder
from bioreport.errors import InputError
from bioreport.foreign import read_weights, unfit, unnested
from bioreport.llm import load_llm
from bioreport.lora import LORA_DROPOUT
from bioreport.meit.files import ADAPTER, check_destination, save_meit, write_meit
from bioreport.meit.model import Meit
from bioreport.meit.text import PROMPTS

_ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_LORA = re.compile(r"\.lora_[AB]\.(?:default\.)?weight$")
_WRAPPERS = re.compile(r"^(?:module\.|base_model\.model\.)+")
# as the published code trains: its template, MIMIC-IV-ECG's prompt, 128 tokens in all
_SETTINGS: dict[str, Any] = {
    "template": "published",
    "prompt": PROMPTS["mimic-iv-ecg"],
    "layers": None,
    "max_length": 128,
}


def convert_meit(file: str | PathLike[str], out: str | PathLike[str], *, llm: str | None = None) -> Path:
    """A MEIT folder from a checkpoint.

    The file holds the encoder and its projection under ``ecg_model.``. LoRA's weights are taken from it, or
    from peft's ``adapter_model`` beside it; without peft's ``adapter_config.json`` beside it the rank is read
    off the shapes, and alpha is twice the rank, as published. A file without LoRA but with a language model's
    weights is of one that was tuned whole, and these are taken. The prompt in the new ``config.json`` is
    MIMIC-IV-ECG's; a model trained on PTB-XL wants its own (`bioreport.meit.PROMPTS`).

    Parameters
    ----------
    file : path-like
    out : path-like
        A new or empty folder, or one of MEIT's, which is replaced.
    llm : str, optional
        Hub id or folder of the language model that it was trained on. One that was tuned whole needs it here
        for its sizes and its tokenizer; the others can be given it later.

    Raises
    ------
    InputError
        Where the file holds other weights, or parts do not belong together.
    """
    file, out = Path(file), check_destination(out)
    try:
        state = published.unwrapped(unnested(read_weights(file)))
        encoder = published.meit_encoder(state)
    except ValueError as error:
        raise unfit(
            file, error, "give MEIT's checkpoint, with ecg_model. before the encoder's keys"
        ) from error
    rest = {key: tensor for key, tensor in state.items() if not _of_encoder(key)}
    lora = {key: tensor for key, tensor in rest.items() if _LORA.search(key)} or _lora_beside(file)
    if lora:
        return _with_lora(file, out, encoder, lora, llm)
    if rest:
        return _tuned_whole(file, out, encoder, rest, llm)
    return write_meit(out, encoder, {**_SETTINGS, "learnt": "encoder"}, llm)


def _of_encoder(key: str) -> bool:
    return "ecg_model." in key or key.startswith(("ecg_encoder.", "proj_ecg."))


def _lora_beside(file: Path) -> dict[str, Tensor]:
    for name in _ADAPTER_FILES:
        path = file.with_name(name)
        if path.is_file() and path != file:
            return {key: t for key, t in read_weights(path).items() if _LORA.search(key)}
    return {}


def _with_lora(
    file: Path, out: Path, encoder: MeitEncoder, lora: Mapping[str, Tensor], llm: str | None
) -> Path:
    # peft's names in a file, whatever the class was wrapped in
    tensors = {
        "base_model.model." + _WRAPPERS.sub("", key).replace(".default.weight", ".weight"): tensor.clone()
        for key, tensor in lora.items()
    }
    config = _adapter_config(file, tensors)
    # no path of this machine or of another
    config["base_model_name_or_path"] = None if llm is None or Path(llm).is_dir() else llm

    def fill(folder: Path) -> None:
        (folder / ADAPTER).mkdir()
        save_file(tensors, folder / ADAPTER / _ADAPTER_FILES[0], metadata={"format": "pt"})
        (folder / ADAPTER / _ADAPTER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    return write_meit(out, encoder, {**_SETTINGS, "learnt": "lora"}, llm, fill)


def _adapter_config(file: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    path = file.with_name(_ADAPTER_CONFIG)
    if path.is_file():
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            if config["peft_type"] != "LORA":
                raise ValueError(f"an adapter of type {config['peft_type']}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                path, f"is no configuration of LoRA ({error})", "give the one that peft wrote"
            ) from error
        return dict(config)
    ranks = {len(tensor) for key, tensor in tensors.items() if ".lora_A." in key}
    if len(ranks) != 1:
        raise InputError(
            file, f"holds LoRA of {len(ranks) or 'no'} ranks", f"put peft's {_ADAPTER_CONFIG} beside it"
        )
    (rank,) = ranks
    targets = sorted({key.split(".lora_")[0].rpartition(".")[2] for key in tensors})
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": 2 * rank,
        "lora_dropout": LORA_DROPOUT,
        "target_modules": targets,
        # GPT-2 keeps its weights transposed
        "fan_in_fan_out": "c_attn" in targets,
        "bias": "none",
    }


def _tuned_whole(
    file: Path, out: Path, encoder: MeitEncoder, rest: Mapping[str, Tensor], llm: str | None
) -> Path:
    if llm is None:
        raise InputError(
            file, f"holds a language model's weights ({len(rest)} tensors) without its sizes and tokenizer",
            "name the model that they were tuned from with --llm",
        )  # fmt: skip
    model, tokenizer = load_llm(llm, dtype=next(iter(rest.values())).dtype)
    state = {_WRAPPERS.sub("", key): tensor for key, tensor in rest.items()}
    try:
        found = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise unfit(
            file, ValueError(str(error).splitlines()[-1].strip()), f"name another --llm than {llm}"
        ) from error
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    missing = [key for key in found.missing_keys if key not in tied]
    odd = [*missing, *found.unexpected_keys]
    if odd:
        raise InputError(
            file,
            f"does not hold the weights of {llm} ({odd[0]} is {'missing' if missing else 'unexpected'})",
            "name the language model that it was tuned from with --llm",
        )  # fmt: skip
    meit = Meit(encoder, model, tokenizer, llm_source=llm, **_SETTINGS)
    meit.learn_fully()
    return save_meit(meit, out)
