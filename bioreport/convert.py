"""Published weights to folders that this package loads, and these to the Hub's layout."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from bioreport import published
from bioreport.bundle import SPECIAL_TOKENS, Bundle
from bioreport.bundle_reader import load_bundle
from bioreport.bundle_writer import check_destination as check_bundle
from bioreport.bundle_writer import save_bundle
from bioreport.encoders.cbramod import CBraMod
from bioreport.errors import InputError
from bioreport.foreign import read_weights, unfit, unnested
from bioreport.montage import CBRAMOD_CHANNELS
from bioreport.preprocess import CELM, PreprocessSpec
from bioreport.qinco import check_destination, save_qinco

# Filter and channels of CBraMod's pretraining (its paper, section 3.1).
CBRAMOD = PreprocessSpec(channels=CBRAMOD_CHANNELS, low=0.3)
CBRAMOD_FILE = "cbramod_pretrained_weights.pth"
CELM_LLM, CELM_LLM_DIM = "Qwen/Qwen3-4B-Instruct-2507", 2560
DISCLAIMER = "Draft written with published research weights; not for clinical use."
_PROJECTOR = "projector_state_dict"
KINDS = ("cbramod", "celm", "meit", "qinco", "hub")


def convert(
    kind: str,
    file: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    llm: str | None = None,
    license: str | None = None,
) -> Path:
    """Write a folder from a published file, or the Hub's layout from a folder.

    Parameters
    ----------
    kind : {"cbramod", "celm", "meit", "qinco", "hub"}
    file : path-like
        ``.pth``, ``.pt``, ``.bin`` or ``.safetensors``; for the Hub a model's folder or name.
    out : path-like
        A new or empty folder, or one of the same kind, which is replaced.
    llm : str, optional
        Hub id or folder of the causal LM that goes with it.
    license : str, optional
        For the Hub, its identifier of a license.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        Where the file cannot be read, holds other weights, or the folder cannot be written.
    """
    if kind == "cbramod":
        return convert_cbramod(file, out, llm=llm)
    if kind == "celm":
        return convert_celm(file, out, llm=llm)
    if kind == "meit":
        from bioreport.meit.convert import convert_meit

        return convert_meit(file, out, llm=llm)
    if kind == "qinco":
        return convert_qinco(file, out)
    if kind == "hub":
        from bioreport.publish import convert_hub

        return convert_hub(file, out, llm=llm, license=license)
    raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")


def convert_cbramod(
    file: str | os.PathLike[str], out: str | os.PathLike[str], *, llm: str | None = None
) -> Path:
    """A bundle of an encoder alone, to train a projector on.

    Its preprocessing is that of CBraMod's pretraining: 19 channels in its order, 0.3 to 75 Hz.
    """
    out = check_bundle(out)
    encoder, config = _read_cbramod(Path(file), compat=None)
    bundle = Bundle("cbramod", config, encoder, preprocess=CBRAMOD, llm_source=llm, disclaimer=DISCLAIMER)
    return save_bundle(bundle, out)


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
    file, out = Path(file), check_bundle(out)
    checkpoint = read_weights(file)
    tensors, tokens = _parts_of_checkpoint(file, checkpoint)
    try:
        kind = published.celm_projector_kind(tensors)
        sizes = published.celm_projector_sizes(kind, tensors)
        projector = published.celm_projector(kind, tensors, compat="celm")
    except ValueError as error:
        raise unfit(file, error, "give a checkpoint of CELM, with projector_state_dict") from error
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
    state = unnested(read_weights(file))
    try:
        encoder = published.cbramod(state, compat=compat)
        sizes = published.cbramod_sizes(state)
    except ValueError as error:
        raise unfit(file, error, f"give CBraMod's {CBRAMOD_FILE}") from error
    return encoder, {"class": "CBraMod", **sizes, "nhead": encoder.nhead, "compat": compat}


def convert_qinco(file: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """A folder that `bioreport.published.load_qinco` loads, from QINCo's or QINCo2's state dict.

    The file is a state dict, or ``{"state_dict": ..., "db_scale": ...}`` for a QINCo whose data was divided
    by ``db_scale``. The search is the published one: of QINCo2 with a shortlist, 32 beams and 16 candidates.

    Raises
    ------
    InputError
        Where it holds other weights, or is a pickled module.
    """
    file, out = Path(file), Path(out)
    check_destination(out)
    content = read_weights(file)
    options: dict[str, Any] = {}
    scale = content.get("db_scale")
    if scale is not None:
        options["db_scale"] = float(scale)
    try:
        state = published.unwrapped(unnested(content))
        if any(".substep." in key for key in state):
            options |= {"beam": 32, "shortlist": 16}
        published.qinco(state, **options)
    except (ValueError, TypeError) as error:
        raise unfit(file, ValueError(str(error)), "give the state dict of a QINCo or QINCo2") from error
    return save_qinco(state, options, out)
