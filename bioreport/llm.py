"""Loading the causal language model and its tokenizer, from a folder or the Hub."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from bioreport.errors import InputError


def load_llm(
    name_or_dir: str | PathLike[str],
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "cpu",
    *,
    attention: str | None = None,
    quantize: str | None = None,
) -> tuple[Any, Any]:
    """A decoder-only causal LM in eval mode, and its tokenizer.

    Parameters
    ----------
    name_or_dir : str or path
        Folder of a saved model, or a Hub id. No code out of a model's repository is run.
    dtype : {"auto", "float32", "bfloat16", "float16"} or torch.dtype
        ``"auto"``: as stored.
    device : str or torch.device
    attention : {None, "sdpa", "eager", "flash_attention_2"}
        Transformers' own names. None takes the fastest that torch alone has for this family (SDPA as a
        rule); ``"flash_attention_2"`` needs flash-attn, a CUDA device, and 16 bits.
    quantize : {None, "4bit"}
        ``"4bit"``: frozen weights as NormalFloat4, computed with in `dtype` (QLoRA); needs bitsandbytes and a
        CUDA device.

    Returns
    -------
    llm : PreTrainedModel
    tokenizer : PreTrainedTokenizer

    Raises
    ------
    InputError
        Where the model is not there, cannot be fetched, is incomplete or no causal LM, or where the attention
        asked for is not installed or cannot run as asked.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    name = fspath(name_or_dir)
    if isinstance(dtype, str) and dtype != "auto":
        dtype = getattr(torch, dtype)
    if attention == "flash_attention_2":
        _check_flash(name, torch.device(device), dtype)
    local = Path(name).is_dir()
    if local and not (Path(name) / "config.json").is_file():
        raise InputError(
            name,
            "holds no language model: config.json is missing",
            "name a folder that save_pretrained wrote",
        )
    if not local and (Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise InputError(
            name,
            "is not a folder of a language model",
            "name a folder that save_pretrained wrote, or a Hub id",
        )
    if not local and not on_hub(name):
        raise absent(name, local)
    options: dict[str, Any] = {"attn_implementation": attention} if attention else {}
    if quantize is not None:
        options |= _quantized(torch.device(device), dtype)
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                name, dtype=dtype, trust_remote_code=False, output_loading_info=True, **options
            )
    except (SafetensorError, json.JSONDecodeError, EOFError) as error:
        raise InputError(name, "has a broken file", "fetch the model again") from error
    except OSError as error:
        raise absent(name, local) from error
    except (ValueError, KeyError, RuntimeError, ImportError) as error:
        problem = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            name,
            f"cannot be loaded as a causal language model ({problem[:200].rstrip('.')})",
            "name a decoder-only model that this version of transformers knows",
        ) from error
    llm, report = loaded
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(
            name, f"lacks {len(missing)} of its weights, {missing[0]} first", "fetch the whole model again"
        )
    if llm.config.is_encoder_decoder:
        raise InputError(name, "is an encoder-decoder model", "name a decoder-only causal language model")
    if tokenizer.eos_token_id is None:
        raise InputError(name, "has a tokenizer without an end token", "name a model whose tokenizer has one")
    # a quantized one is at its place, and refuses to be moved
    return (llm if quantize is not None else llm.to(device)).eval(), tokenizer


def on_hub(name: str) -> bool:
    """Whether a model is in the cache or the Hub answers for it, asked once.

    The Hub's own client repeats a failed request for nearly a minute and warns of each.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    try:
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return True
        get_hf_file_metadata(hf_hub_url(name, "config.json"))
    except Exception:
        # of whichever HTTP library the installed client uses; no answer is no model
        return False
    return True


def absent(name: str, local: bool = False) -> InputError:
    """What a model that is not there, or not whole, is told as."""
    if local:
        return InputError(
            name, "is not complete: its weights or its tokenizer are missing", "copy the whole folder"
        )
    return InputError(
        name,
        "is neither a folder nor a model that the Hugging Face Hub gives us now",
        f"check the name and the network, or run `hf download {name}` where there is one and name the folder "
        "(a gated model needs `hf auth login`)",
    )


def _quantized(device: torch.device, dtype: str | torch.dtype) -> dict[str, Any]:
    from transformers import BitsAndBytesConfig
    from transformers.utils import is_bitsandbytes_available

    if not is_bitsandbytes_available():
        raise InputError(
            "--quantize 4bit",
            "needs bitsandbytes, which is not installed here",
            "run `pip install 'bioreport[quantize]'`, or leave out --quantize",
        )
    if device.type != "cuda":
        # bitsandbytes' way of computing on a CPU in eval mode has no gradient
        raise InputError(
            "--quantize 4bit", f"needs a CUDA device and not the {device.type}", "leave out --quantize"
        )
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if isinstance(dtype, str) else dtype,
    )
    return {"quantization_config": config, "device_map": {"": device}}


def _check_flash(name: str, device: torch.device, dtype: str | torch.dtype) -> None:
    from transformers.utils import is_flash_attn_2_available

    if device.type != "cuda":
        raise InputError(
            name,
            f"is to run with flash-attn, which needs a CUDA device and not the {device.type}",
            "choose --device cuda on a machine that has one, or leave out --attention flash",
        )
    if not is_flash_attn_2_available():
        raise InputError(
            name,
            "is to run with flash-attn, which is not installed here",
            "run `pip install 'bioreport[flash]'`, or leave out --attention flash",
        )
    if dtype not in ("auto", torch.float16, torch.bfloat16):
        raise InputError(
            name,
            "is to run with flash-attn, which computes in 16 bits only",
            "choose --dtype bfloat16 or auto, or leave out --attention flash",
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar of weights: a report's stderr is the caller's."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
