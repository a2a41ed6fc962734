"""Published weights to bundles.

Foreign files are read as data only: ``torch.load`` with ``weights_only=True``, or safetensors; nothing in
them is run.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from bioreport import published
from bioreport.bundle import SPECIAL_TOKENS, Bundle, load_bundle, save_bundle
from bioreport.encoders.cbramod import CBraMod
from bioreport.errors import InputError
from bioreport.montage import CBRAMOD_CHANNELS
from bioreport.preprocess import CELM, PreprocessSpec

# Filter and channels of CBraMod's pretraining (its paper, section 3.1).
CBRAMOD = PreprocessSpec(channels=CBRAMOD_CHANNELS, low=0.3)
CBRAMOD_FILE = "cbramod_pretrained_weights.pth"
CELM_LLM, CELM_LLM_DIM = "Qwen/Qwen3-4B-Instruct-2507", 2560
DISCLAIMER = "Draft written with published research weights; not for clinical use."
_PROJECTOR = "projector_state_dict"
# Under what a training script's checkpoint keeps the weights.
_NESTS = ("state_dict", "model_state_dict", "model")


def convert(kind: str, file: Path, out: Path, *, llm: str | None = None) -> Path:
    """Write a bundle from a published file.

    Parameters
    ----------
    kind : {"cbramod", "celm"}
    file : Path
        ``.pth``, ``.pt`` or ``.safetensors``.
    out : Path
        A new or empty folder, or a bundle, which is replaced.
    llm : str, optional
        Hub id or folder of the causal LM the projector was trained for.

    Returns
    -------
    Path
        The bundle's folder.

    Raises
    ------
    InputError
        Where the file cannot be read, holds other weights, or the folder cannot be written.
    """
    if kind == "cbramod":
        return convert_cbramod(file, out, llm=llm)
    if kind == "celm":
        return convert_celm(file, out, llm=llm)
    raise ValueError(f"kind must be 'cbramod' or 'celm', got {kind!r}")


def convert_cbramod(
    file: str | os.PathLike[str], out: str | os.PathLike[str], *, llm: str | None = None
) -> Path:
    """A bundle of an encoder alone, to train a projector on.

    Its preprocessing is that of CBraMod's pretraining: 19 channels in its order, 0.3 to 75 Hz.
    """
    encoder, config = _read_cbramod(Path(file), compat=None)
    bundle = Bundle("cbramod", config, encoder, preprocess=CBRAMOD, llm_source=llm, disclaimer=DISCLAIMER)
    return save_bundle(bundle, Path(out))


def convert_celm(
    file: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    llm: str | None = None,
    encoder: str | os.PathLike[str] | None = None,
) -> Path:
    """A bundle from CELM's checkpoint, which computes as CELM does (``compat="celm"``).

    Parameters
    ----------
    file : path-like
        Checkpoint with ``projector_state_dict`` and the three special tokens.
    out : path-like
        Folder of the bundle.
    llm : str, optional
        By default CELM's own, where the projector is as wide as it.
    encoder : path-like, optional
        CBraMod's published file, which CELM's checkpoints do not hold. By default
        ``cbramod_pretrained_weights.pth`` beside `file`, else the encoder of the bundle in `out`.

    Raises
    ------
    InputError
        Also where there is no encoder.
    """
    file, out = Path(file), Path(out)
    checkpoint = _read(file)
    tensors, tokens = _parts_of_checkpoint(file, checkpoint)
    try:
        kind = published.celm_projector_kind(tensors)
        sizes = published.celm_projector_sizes(kind, tensors)
        projector = published.celm_projector(kind, tensors, compat="celm")
    except ValueError as error:
        raise _unfit(file, error, "give a checkpoint of CELM, with projector_state_dict") from error
    for name, token in tokens.items():
        if token.shape != (1, sizes["llm_dim"]):
            raise InputError(
                file,
                f"has {name} of shape {list(token.shape)}, not [1, {sizes['llm_dim']}]",
                "give a checkpoint whose parts belong together",
            )
    if llm is None:
        if sizes["llm_dim"] != CELM_LLM_DIM:
            raise InputError(
                file, f"has a projector for an LLM {sizes['llm_dim']} wide", "name that LLM with --llm"
            )
        llm = CELM_LLM
    module, config = _celm_encoder(file, out, encoder)
    if config["out_dim"] != sizes["encoder_dim"]:
        raise InputError(
            file,
            f"has a projector for tokens {sizes['encoder_dim']} wide, the encoder's are {config['out_dim']}",
            "give the encoder that the projector was trained on",
        )
    bundle = Bundle(
        f"celm-{kind}",
        config,
        module,
        preprocess=CELM,
        projector_config={"kind": kind, **sizes, "compat": "celm"},
        projector=projector,
        special_tokens=tokens,
        llm_source=llm,
        compat="celm",
        disclaimer=DISCLAIMER,
    )
    return save_bundle(bundle, out)


def _parts_of_checkpoint(
    file: Path, checkpoint: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Projector's state dict and special tokens; flat in a safetensors file, nested in CELM's own."""
    prefix = _PROJECTOR + "."
    nested = checkpoint.get(_PROJECTOR)
    if nested is None:
        nested = {key.removeprefix(prefix): t for key, t in checkpoint.items() if key.startswith(prefix)}
    missing = [name for name in SPECIAL_TOKENS if not isinstance(checkpoint.get(name), Tensor)]
    if not isinstance(nested, Mapping) or not nested:
        missing.insert(0, _PROJECTOR)
    if missing:
        raise InputError(
            file,
            f"is no checkpoint of CELM ({', '.join(missing)} missing)",
            "give a file from CELM's pretrained_CELM_projectors",
        )
    return dict(nested), {name: checkpoint[name].detach().float() for name in SPECIAL_TOKENS}


def _celm_encoder(
    file: Path, out: Path, encoder: str | os.PathLike[str] | None
) -> tuple[CBraMod, dict[str, Any]]:
    beside = file.with_name(CBRAMOD_FILE)
    if encoder is not None or beside.is_file():
        return _read_cbramod(Path(encoder) if encoder is not None else beside, compat="celm")
    if (out / "config.json").is_file():
        bundle = load_bundle(out, device="cpu")
        config = {**bundle.encoder_config, "compat": "celm"}
        module = CBraMod(**{key: value for key, value in config.items() if key != "class"})
        module.load_state_dict(bundle.encoder.state_dict())
        return module.eval().requires_grad_(False), config
    raise InputError(
        file,
        "holds a projector, not the encoder that it was trained on",
        f"put {CBRAMOD_FILE} beside it, or run `bioreport convert cbramod` into {out} first",
    )


def _read_cbramod(file: Path, compat: str | None) -> tuple[CBraMod, dict[str, Any]]:
    state = _read(file)
    for nest in _NESTS:
        if isinstance(state.get(nest), Mapping):
            state = state[nest]
    try:
        encoder = published.cbramod(state, compat=compat)
        sizes = published.cbramod_sizes(state)
    except ValueError as error:
        raise _unfit(file, error, f"give CBraMod's {CBRAMOD_FILE}") from error
    return encoder, {"class": "CBraMod", **sizes, "nhead": encoder.nhead, "compat": compat}


def _unfit(file: Path, error: ValueError, cure: str) -> InputError:
    problem = str(error).replace("these are no weights of", "holds no weights of", 1)
    return InputError(file, problem if problem != str(error) else f"does not fit ({problem})", cure)


def _read(file: Path) -> Mapping[str, Any]:
    """Tensors and numbers of a foreign file; nothing in it is run."""
    cure = "give a .pth, .pt or .safetensors file of weights"
    if not file.is_file():
        raise InputError(file, "is a folder" if file.is_dir() else "does not exist", cure)
    try:
        if file.suffix == ".safetensors":
            content: Any = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        reason = (error.strerror or "no reason given").lower()
        raise InputError(file, f"cannot be read ({reason})", cure) from error
    except SafetensorError as error:
        raise InputError(file, "is no safetensors file, or not a whole one", cure) from error
    except Exception as error:
        # a damaged pickle raises almost anything; one that wants to run code raises UnpicklingError
        raise InputError(
            file, "holds something else than weights, or is damaged; it was not unpickled", cure
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(file, f"holds a {type(content).__name__}, not named weights", cure)
    return content
