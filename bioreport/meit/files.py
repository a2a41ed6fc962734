"""MEIT as a folder: ``encoder.safetensors``, what the language model has learnt, ``config.json``.

With LoRA that is peft's folder ``adapter``, beside a language model named in the configuration; after full
fine-tuning the folder ``llm`` holds the language model whole.
"""

import json
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bioreport.devices import resolve_device, resolve_dtype
from bioreport.encoders.ecg_resnet import MeitEncoder
from bioreport.errors import InputError
from bioreport.files import check_replaceable, folder_written_atomically
from bioreport.fusion_cache import embedding_width
from bioreport.hub import MEIT, format_of, model_folder
from bioreport.llm import load_llm
from bioreport.lora import PUBLISHED, LoraSizes, load_lora, save_lora
from bioreport.meit.model import Meit

FORMAT, VERSION = MEIT, 1
_WEIGHTS, _CONFIG, ADAPTER, _LLM = "encoder.safetensors", "config.json", "adapter", "llm"
OWN_FILES = frozenset({_WEIGHTS, _CONFIG, ADAPTER, _LLM, "README.md"})
_CURE = "give a folder that `train meit` wrote"


def is_meit(directory: str | PathLike[str]) -> bool:
    """Whether a folder's ``config.json`` says that it holds a MEIT model."""
    return format_of(Path(directory)) == FORMAT


def check_destination(directory: str | PathLike[str]) -> Path:
    """The folder, if `save_meit` may take its place; raises InputError where it holds something else."""
    return check_replaceable(
        directory, OWN_FILES, lambda config: config.get("format") == FORMAT, what="is no folder of MEIT's"
    )


def save_meit(
    meit: Meit, directory: str | PathLike[str], *, llm_state: Mapping[str, Tensor] | None = None
) -> Path:
    """Write the folder; it appears whole, or what was there stays.

    Parameters
    ----------
    meit : Meit
    directory : path-like
    llm_state : mapping, optional
        State of a language model that has learnt, where it is not all in this process.

    Raises
    ------
    InputError
        Where the folder holds something else or cannot be written.
    """
    encoder = meit.encoder
    if not isinstance(encoder, MeitEncoder):
        raise TypeError(f"a folder is of a MeitEncoder, and this is a {type(encoder).__name__}")

    def fill(folder: Path) -> None:
        if meit.adapter is not None:
            save_lora(meit.adapter, folder / ADAPTER)
        if meit.learns_fully:
            own = {"state_dict": dict(llm_state)} if llm_state is not None else {}
            meit.language_model.save_pretrained(folder / _LLM, **own)
            meit.text.tokenizer.save_pretrained(folder / _LLM)

    settings = {
        "template": meit.text.template,
        "prompt": meit.prompt,
        "layers": meit.layers,
        "max_length": meit.max_length,
        "learnt": "all" if meit.learns_fully else "lora" if meit.adapter is not None else "encoder",
    }
    llm = None if meit.learns_fully else meit.llm_source
    return write_meit(directory, encoder, settings, llm, fill)


def write_meit(
    directory: str | PathLike[str],
    encoder: MeitEncoder,
    settings: dict[str, Any],
    llm: str | None,
    fill: Callable[[Path], None] = lambda folder: None,
) -> Path:
    """Write the folder of a model that need not be loaded.

    Parameters
    ----------
    directory : path-like
    encoder : MeitEncoder
    settings : dict
        ``template``, ``prompt``, ``layers`` and ``max_length`` as `Meit` takes them, and what has ``learnt``
        beside the encoder: ``"encoder"`` (nothing), ``"lora"`` or ``"all"``.
    llm : str or None
        Hub id or folder of the language model.
    fill : callable
        Writes what has learnt into the new folder.

    Raises
    ------
    InputError
        Where the folder holds something else or cannot be written.
    """
    directory = check_destination(directory)
    if llm is not None and Path(llm).is_dir():
        llm = str(Path(llm).resolve())
    config = {"format": FORMAT, "version": VERSION, "llm": llm, "encoder": encoder.config(), **settings}
    state = {key: value.detach().cpu().contiguous() for key, value in encoder.state_dict().items()}
    with folder_written_atomically(directory) as folder:
        save_file(state, folder / _WEIGHTS, metadata={"format": "pt"})
        fill(folder)
        (folder / _CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return directory


def load_meit(
    directory: str | PathLike[str],
    *,
    llm: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Meit:
    """A model from what `save_meit` wrote, in eval mode; what has learnt goes on learning in training.

    Parameters
    ----------
    directory : path-like
    llm : str, optional
        Hub id or folder of the language model, in place of the one that the folder names.
    device : {"auto", "cpu", "cuda"}
    dtype : {"auto", "float32", "bfloat16"}
        Of the language model.

    Raises
    ------
    InputError
        Where a file is missing or broken, or does not fit the others.
    """
    directory = model_folder(directory)
    try:
        config = json.loads((directory / _CONFIG).read_text(encoding="utf-8"))
        if config["format"] != FORMAT or config["version"] != VERSION:
            raise ValueError(f"it is {config['format']} {config['version']}")
        encoder = MeitEncoder(**config["encoder"])
        options = {name: config[name] for name in ("template", "prompt", "layers")}
        options["max_length"] = int(config["max_length"])
        source, learnt = llm or config["llm"], config["learnt"]
        if learnt not in ("all", "lora", "encoder"):
            raise ValueError(f"learnt is {learnt!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(directory, f"is no model of MEIT's ({error})", _CURE) from error
    try:
        encoder.load_state_dict(load_file(directory / _WEIGHTS))
    except (OSError, SafetensorError, RuntimeError) as error:
        problem = str(error).splitlines()[-1].strip()
        raise InputError(directory / _WEIGHTS, f"does not hold the encoder ({problem})", _CURE) from error
    if learnt == "all":
        if llm is not None:
            raise InputError(directory, "has a language model of its own that was tuned", "leave out --llm")
        source = str(directory / _LLM)
    if source == _LLM:
        source = str(directory / _LLM)
    if source is None:
        raise InputError(directory, "names no language model", "name one with --llm")
    place = resolve_device(device)
    model, tokenizer = load_llm(source, device=place, dtype=resolve_dtype(dtype, place))
    try:
        meit = Meit(encoder.to(place), model, tokenizer, llm_source=source, **options)
    except ValueError as error:
        raise InputError(source, f"does not go with {directory} ({error})", "name another model") from error
    if learnt == "all":
        meit.learn_fully()
    elif learnt == "lora":
        meit.adopt(load_lora(meit.language_model, directory / ADAPTER))
    return meit.eval()


def new_meit(
    llm: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    template: str | None = None,
    full: bool = False,
    lora: LoraSizes = PUBLISHED,
    quantize: str | None = None,
    seed: int | None = None,
    max_length: int = 256,
    **encoder: Any,
) -> Meit:
    """MEIT as published on a language model, untrained: `MeitEncoder` of the model's width, and LoRA.

    Parameters
    ----------
    llm : str
        Hub id or folder.
    device, dtype
        See `load_meit`. A language model that learns itself is kept in float32, whose steps bfloat16 could
        not tell apart, and computed with in `dtype` (autocast).
    template, max_length
        See `Meit`.
    full : bool
        All weights of the language model learn, in place of LoRA.
    lora : LoraSizes
    quantize : {None, "4bit"}
        See `load_llm`.
    seed : int, optional
        Of the initial weights.
    **encoder
        Of `MeitEncoder`.

    Raises
    ------
    InputError
        Where the language model cannot be loaded, or takes no entries among its keys and values.
    """
    if full and quantize is not None:
        raise InputError("--quantize", "keeps weights that cannot learn", "give --tune lora")
    place = resolve_device(device)
    model, tokenizer = load_llm(
        llm,
        device=place,
        quantize=quantize,
        dtype=torch.float32 if full else resolve_dtype(dtype, place),
    )
    if seed is not None:
        # the initial weights hang on the seed alone, not on what was drawn before
        torch.manual_seed(seed)
    module = MeitEncoder(**{"out_dim": embedding_width(model), **encoder}).to(place)
    try:
        meit = Meit(module, model, tokenizer, template=template, max_length=max_length, llm_source=llm)
    except ValueError as error:
        raise InputError(llm, f"cannot serve MEIT ({error})", "name another language model") from error
    if full:
        meit.learn_fully(resolve_dtype(dtype, place))
    else:
        meit.add_lora(lora.rank, lora.alpha, lora.dropout)
    return meit
