"""A bundle from its folder: config first, then the modules it describes, then their weights."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bioreport.bundle import FORMAT, SPECIAL_TOKENS, VERSION, Bundle
from bioreport.devices import resolve_device, resolve_dtype
from bioreport.ecg.preprocess import SPECS, EcgSpec
from bioreport.encoders.cbramod import CBraMod
from bioreport.encoders.ecg_autoencoder import EcgTokenizer, TokenizerConfig
from bioreport.errors import InputError
from bioreport.heads import FindingsHead
from bioreport.hub import EMBEDDED, model_folder
from bioreport.preprocess import PreprocessSpec
from bioreport.projectors import build_projector


def load_bundle(
    name_or_dir: str | os.PathLike[str] = "bioreport-tiny",
    *,
    llm: str | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    attention: str = "auto",
) -> Bundle:
    """Read a bundle; its LLM is loaded when it is first needed.

    Parameters
    ----------
    name_or_dir : str or path-like
        ``"bioreport-tiny"`` (EEG) or ``"bioreport-ecg-tiny"``, which lie inside the package, a bundle's
        folder, or its Hub id.
    llm : str, optional
        Hub id or folder of the LLM to use in place of the bundle's.
    device : {"auto", "cpu", "cuda"} or torch.device
    dtype : {"auto", "float32", "bfloat16"} or torch.dtype
        Of the LLM; encoder and projector stay in float32.
    attention : {"auto", "flash"}
        Of the LLM: what torch alone has, or flash-attn.

    Raises
    ------
    InputError
        Where a file is missing, cannot be read, or does not fit the others.
    """
    folder = model_folder(name_or_dir)
    place = resolve_device(device)
    config = _read_config(folder)
    weights = folder / "model.safetensors"
    try:
        tensors = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise InputError(
            weights, "is missing or is no safetensors file", "restore the bundle's folder"
        ) from error
    try:
        bundle = _build(config, folder)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            folder / "config.json", f"does not describe a model ({error})", "restore the bundle's folder"
        ) from error
    for prefix, module in (
        ("encoder.", bundle.encoder),
        ("projector.", bundle.projector),
        ("findings_head.", bundle.findings_head),
    ):
        if module is not None:
            _load(
                module,
                {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)},
                weights,
                prefix,
            )
            module.to(place).eval().requires_grad_(False)
    bundle.special_tokens = {key: tensors[key] for key in SPECIAL_TOKENS if key in tensors}
    bundle.device, bundle.dtype = place, resolve_dtype(dtype, place)
    bundle.attention = {"auto": None, "flash": "flash_attention_2"}[attention]
    if llm is not None and bundle.tune == "full":
        raise InputError(folder, "has a language model of its own that was tuned", "leave out --llm")
    bundle.llm_source = llm or bundle.llm_source
    return bundle


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    names = " or ".join(path.name for path in EMBEDDED.values())
    cure = f"give {names} or a folder that `bioreport train` or `bioreport convert` has written"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(folder, "is no model bundle (it has no config.json)", cure) from error
    except (OSError, ValueError) as error:
        raise InputError(path, "cannot be read as JSON", cure) from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(path, "is not the config of a bioreport bundle", cure)
    if config.get("version") != VERSION:
        raise InputError(
            path,
            f"has bundle version {config.get('version')!r}, this bioreport reads {VERSION}",
            "install the bioreport that wrote it",
        )
    return config


def _build(config: dict[str, Any], folder: Path) -> Bundle:
    encoder, preprocess = _build_encoder(dict(config["encoder"]), dict(config["preprocess"]))
    bundle = Bundle(
        name=str(config["name"]),
        encoder_config=dict(config["encoder"]),
        encoder=encoder,
        preprocess=preprocess,
        prompt_style=config["prompt"],
        compat=config["compat"],
        disclaimer=config.get("disclaimer", ""),
        llm_source=str(folder / "llm") if config["llm"] == "llm" else config["llm"],
        tune=config.get("tune", "projector"),
        adapter=folder / "adapter" if config.get("tune") == "lora" else None,
        folder=folder,
    )
    if config["projector"] is not None:
        bundle.projector_config = dict(config["projector"])
        bundle.projector = build_projector(**bundle.projector_config)
    if config["findings_head"] is not None:
        bundle.findings_head = FindingsHead(bundle.encoder_dim, **config["findings_head"])
    return bundle


def _build_encoder(
    sizes: dict[str, Any], preprocess: dict[str, Any]
) -> tuple[CBraMod | EcgTokenizer, PreprocessSpec | EcgSpec]:
    kind = sizes.pop("class")
    if kind == "CBraMod":
        preprocess["channels"] = tuple(preprocess["channels"])
        return CBraMod(**sizes), PreprocessSpec(**preprocess)
    if kind == "EcgTokenizer":
        return EcgTokenizer(TokenizerConfig(**sizes)), SPECS[preprocess["name"]]
    raise ValueError(f"unknown encoder {kind!r}")


def _load(module: nn.Module, tensors: dict[str, Tensor], weights: Path, prefix: str) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise InputError(
            weights, f"does not fit config.json ({prefix[:-1]}: {detail})", "restore the bundle's folder"
        ) from error
