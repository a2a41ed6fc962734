"""A bundle to its folder, with its language model where that is a folder too or has learnt."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from bioreport.bundle import FORMAT, Bundle
from bioreport.files import check_replaceable, folder_written_atomically
from bioreport.lora import save_lora

_OWN_FILES = frozenset({"config.json", "model.safetensors", "llm", "adapter", "README.md"})


def check_destination(directory: str | os.PathLike[str]) -> Path:
    """The folder, if `save_bundle` may take its place; raises InputError where it holds something else."""
    return check_replaceable(
        directory,
        _OWN_FILES,
        lambda config: config.get("format") == FORMAT,
        what="is no bundle's folder",
    )


def save_bundle(
    bundle: Bundle,
    directory: str | os.PathLike[str],
    *,
    embed_llm: bool = False,
    dtype: torch.dtype | None = None,
    readme: str | None = None,
    llm_state: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a bundle in one step: the whole new folder appears, or the old one stays.

    Parameters
    ----------
    bundle : Bundle
    directory : path-like
        A new or empty folder, or a bundle, which is replaced.
    embed_llm : bool
        Copy the LLM's folder into the bundle. A folder inside a bundle always is copied.
    dtype : torch.dtype, optional
        Store floating-point weights in this dtype; by default as they are.
    readme : str, optional
        Model card, written as README.md.
    llm_state : mapping, optional
        State of an LLM that has learnt; it is written with the bundle.

    Raises
    ------
    InputError
        Where `directory` holds anything that is not a bundle's, or cannot be written.
    """
    directory = check_destination(directory)
    config = bundle.config()
    source = Path(bundle.llm_source) if bundle.llm_source is not None else None
    local = source is not None and source.is_dir()
    embed = embed_llm or (
        local and source is not None and (source.parent / "config.json").is_file() and source.name == "llm"
    )
    tensors = {}
    for key, tensor in bundle.trained_tensors().items():
        stored = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
        tensors[key] = tensor.detach().to("cpu", stored).contiguous()
    with folder_written_atomically(directory) as folder:
        if llm_state is not None:
            bundle.fusion.llm.save_pretrained(folder / "llm", state_dict=dict(llm_state))
            bundle.fusion.tokenizer.save_pretrained(folder / "llm")
        elif embed and local and source is not None:
            shutil.copytree(source, folder / "llm")
        elif embed:
            bundle.fusion.llm.save_pretrained(folder / "llm")
            bundle.fusion.tokenizer.save_pretrained(folder / "llm")
        if bundle.adapter is not None:
            shutil.copytree(bundle.adapter, folder / "adapter")
        elif bundle.tune == "lora":
            save_lora(bundle.fusion.adapter, folder / "adapter")
        if embed or llm_state is not None:
            config["llm"] = "llm"
        elif local and source is not None:
            config["llm"] = str(source.resolve())
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(
            json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        if readme is not None:
            (folder / "README.md").write_text(readme, encoding="utf-8")
        _flush_to_disk(folder)
    return directory


def _flush_to_disk(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            # safetensors writes files that only their owner can read, also into a wheel
            file.chmod(0o644)
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
