"""Modules from the weights that the papers' authors published, under the key names they used.

Sizes are read off the shapes. What no shape tells, the number of attention heads, has the published value as
its default.
"""

import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bioreport.encoders.cbramod import CBraMod
from bioreport.encoders.ecg_resnet import MeitEncoder
from bioreport.errors import InputError
from bioreport.projectors import KINDS, Projector, build_projector
from bioreport.qinco import Qinco, qinco1_weights, qinco2_weights, read_qinco

StateDict = Mapping[str, Tensor]
# What wrappers put before a key: DataParallel, and classes that hold CBraMod as a part.
_WRAPPERS = ("module.", "model.", "backbone.")
_SINUSOID = "pos_enc.pe"
_ECG_MODEL = "ecg_model."
# The names in CELM's configuration files.
CELM_NAMES: Mapping[str, str] = {
    "sequence_transformer_linear_projector": "sequence",
    "perceiver_projector": "perceiver",
    "sequence_transformer_perceiver_projector": "sequence-perceiver",
}


def cbramod(state_dict: StateDict, *, nhead: int = 8, compat: str | None = None) -> CBraMod:
    """CBraMod from its published weights.

    Parameters
    ----------
    state_dict : mapping of str to Tensor
        Of ``cbramod_pretrained_weights.pth``; ``module.`` and ``model.`` before all keys are dropped.
    nhead : int
        Heads, which no shape tells.
    compat : {None, "celm"}
        See `CBraMod`.

    Returns
    -------
    CBraMod
        In eval mode, float32, without gradients.

    Raises
    ------
    ValueError
        Where keys are missing or unexpected, naming them, or a shape does not fit.
    """
    sizes: dict[str, Any] = {**cbramod_sizes(state_dict)}
    return _filled(CBraMod(**sizes, nhead=nhead, compat=compat), unwrapped(state_dict), "CBraMod")


def cbramod_sizes(state_dict: StateDict) -> dict[str, int]:
    """``d_model``, ``n_layer``, ``dim_feedforward`` and ``out_dim`` of a CBraMod; raises ValueError."""
    state = unwrapped(state_dict)
    shape = _Shapes(state, "CBraMod")
    return {
        "d_model": shape("patch_embedding.proj_in.0.weight")[0] * 8,
        "n_layer": _count(state, r"encoder\.layers\.(\d+)\."),
        "dim_feedforward": shape("encoder.layers.0.linear1.weight")[0],
        "out_dim": shape("proj_out.0.weight")[0],
    }


def celm_projector(
    kind: str, state_dict: StateDict, *, heads: int = 8, compat: str | None = None
) -> Projector:
    """A projector of CELM from ``projector_state_dict`` of its checkpoint.

    Parameters
    ----------
    kind : str
        ``"linear"``, ``"sequence"``, ``"perceiver"`` or ``"sequence-perceiver"``, or CELM's name of it.
    state_dict : mapping of str to Tensor
        With or without the fixed sinusoid ``pos_enc.pe``.
    heads : int
        Heads, which no shape tells.
    compat : {None, "celm"}
        See `Projector`.

    Returns
    -------
    Projector
        In eval mode, float32, without gradients.

    Raises
    ------
    ValueError
        For an unknown kind; where keys are missing or unexpected, naming them; where a shape does not fit.
    """
    sizes = celm_projector_sizes(kind, state_dict)
    state = unwrapped(state_dict)
    if sizes.get("depth"):
        state.pop(_SINUSOID, None)
    projector = build_projector(CELM_NAMES.get(kind, kind), heads=heads, compat=compat, **sizes)
    assert isinstance(projector, Projector)  # the four kinds are
    return _filled(projector, state, f"a {kind} projector")


def celm_projector_sizes(kind: str, state_dict: StateDict) -> dict[str, int]:
    """``encoder_dim``, ``llm_dim`` and the other sizes that `build_projector` takes; raises ValueError."""
    name = CELM_NAMES.get(kind, kind)
    if name not in KINDS:
        raise ValueError(f"projector must be one of {', '.join([*KINDS, *CELM_NAMES])}, got {kind!r}")
    state = unwrapped(state_dict)
    shape = _Shapes(state, f"a {kind} projector")
    llm_dim, encoder_dim = shape("proj.weight", 2)
    sizes = {"encoder_dim": encoder_dim, "llm_dim": llm_dim}
    if "depth" in KINDS[name]:
        layers = "transformer.transformer.layers.layers."
        sizes["ff_multiple"] = shape(layers + "0.1.fn.fn.w1.weight")[0] // encoder_dim
        sizes["depth"] = _count(state, re.escape(layers) + r"(\d+)\.")
    if "perceiver_depth" in KINDS[name]:
        sizes["queries"] = shape("query_tokens", 3)[1]
        sizes["perceiver_ff_multiple"] = shape("perceiver_blocks.0.ff.0.weight")[0] // encoder_dim
        sizes["perceiver_depth"] = _count(state, r"perceiver_blocks\.(\d+)\.")
    return sizes


def celm_projector_kind(state_dict: StateDict) -> str:
    """Which of the four kinds the keys are of."""
    state = unwrapped(state_dict)
    along = any(key.startswith("transformer.") for key in state)
    perceives = any(key.startswith("perceiver_blocks.") for key in state)
    return {(False, False): "linear", (True, False): "sequence", (False, True): "perceiver"}.get(
        (along, perceives), "sequence-perceiver"
    )


def qinco(
    state_dict: StateDict,
    *,
    beam: int = 1,
    shortlist: int | None = None,
    db_scale: float | None = None,
    qinco1_mode: bool = False,
) -> Qinco:
    """QINCo or QINCo2 from its published weights, told apart by their keys.

    The published checkpoints are pickled modules: save their ``state_dict()`` once, and QINCo's ``db_scale``.

    Parameters
    ----------
    state_dict : mapping of str to Tensor
    beam, shortlist : int
        QINCo2's B and A, which no shape tells. 32 and 16 in its published settings; by default one beam, and
        every codeword through the network.
    db_scale : float, optional
        QINCo: what the data is divided by, 1 where not given.
    qinco1_mode : bool
        QINCo2: trained with its option of this name.

    Returns
    -------
    Qinco
        ``encode(x) -> (codes, quantized)`` and ``decode(codes)``; float32, without gradients to the weights.

    Raises
    ------
    ValueError
        Where keys are missing or unexpected, naming them, or a shape or an option does not fit.
    """
    state = unwrapped(state_dict)
    if "codebook0.weight" in state:
        if qinco1_mode:
            raise ValueError("qinco1_mode is an option of QINCo2, and these are weights of QINCo")
        if shortlist is not None:
            raise ValueError("shortlist is for QINCo2, and these are weights of QINCo, which has none")
        scale = torch.tensor(1.0 if db_scale is None else db_scale)
        return Qinco(qinco1_weights(state), torch.zeros(()), scale, beam=beam).eval()
    if db_scale is not None:
        raise ValueError("db_scale is for QINCo: QINCo2's weights bring the mean and scale of their data")
    weights, mean, scale = qinco2_weights(state, skip=not qinco1_mode)
    return Qinco(weights, mean, scale, beam=beam, shortlist=shortlist).eval()


def load_qinco(directory: str | PathLike[str], **options: Any) -> Qinco:
    """QINCo from a folder that ``bioreport convert qinco`` wrote.

    Parameters
    ----------
    directory : path-like
    **options
        Of `qinco`, in place of those that the folder names.

    Raises
    ------
    InputError
        Where it is no such folder, or its weights or the options do not fit.
    """
    state, named = read_qinco(Path(directory))
    try:
        return qinco(state, **{**named, **options})
    except (ValueError, TypeError) as error:
        raise InputError(
            directory, f"holds a QINCo that does not fit ({error})", "convert it anew"
        ) from error


def meit_encoder(state_dict: StateDict, *, entries: int = 1) -> MeitEncoder:
    """MEIT's encoder and projection from its published weights.

    Parameters
    ----------
    state_dict : mapping of str to Tensor
        With the keys' ``ecg_model.`` or without; weights of the language model beside them are left out.
    entries : int
        Embeddings of a record, which no shape tells; 1 as published.

    Returns
    -------
    MeitEncoder
        In eval mode, float32, without gradients.

    Raises
    ------
    ValueError
        Where keys are missing or unexpected, naming them, or a shape does not fit.
    """
    state = unwrapped(state_dict)
    if any(_ECG_MODEL in key for key in state):
        state = {key.split(_ECG_MODEL, 1)[1]: value for key, value in state.items() if _ECG_MODEL in key}
    what = "MEIT's encoder"
    shape = _Shapes(state, what)
    width, leads, _ = shape("ecg_encoder.conv1.weight", 3)
    stages = (_count(state, rf"ecg_encoder\.layer{i}\.(\d+)\.") for i in (1, 2, 3, 4))
    norm = "none" if "proj_ecg.1.weight" not in state else "layer"
    if "proj_ecg.1.running_mean" in state:
        norm = "batch"
    last = "proj_ecg.2.weight" if norm == "none" else "proj_ecg.3.weight"
    module = MeitEncoder(
        shape(last, 2)[0],
        leads=leads,
        blocks=[max(count, 1) for count in stages],
        width=width,
        hidden=shape("proj_ecg.0.weight", 2)[0],
        entries=entries,
        norm=norm,
    )
    return _filled(module, state, what)


def unwrapped(state_dict: StateDict) -> dict[str, Tensor]:
    """The state dict without what wrapper classes put before every key."""
    state = dict(state_dict)
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            kind = type(value).__name__
            raise ValueError(f"a state dict maps names to tensors, but {str(key)[:80]!r} to a {kind}")
    while state and any(all(key.startswith(wrapper) for key in state) for wrapper in _WRAPPERS):
        state = {key.partition(".")[2]: value for key, value in state.items()}
    return state


class _Shapes:
    """Shapes by key, with an error that says what the key is missing from."""

    def __init__(self, state: StateDict, what: str) -> None:
        self.state, self.what = state, what

    def __call__(self, key: str, ndim: int | None = None) -> tuple[int, ...]:
        if key not in self.state:
            raise ValueError(f"these are no weights of {self.what}: {key} is missing")
        shape = tuple(self.state[key].shape)
        if not shape or (ndim is not None and len(shape) != ndim):
            raise ValueError(f"these are no weights of {self.what}: {key} has shape {list(shape)}")
        return shape


def _count(state: StateDict, pattern: str) -> int:
    numbers = [int(found[1]) for key in state if (found := re.match(pattern, key))]
    return max(numbers, default=-1) + 1


def _filled(module: Any, state: StateDict, what: str) -> Any:
    own = module.state_dict()
    missing, unexpected = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unexpected:
        parts = [_listing("missing", missing)] if missing else []
        parts += [_listing("unexpected", unexpected)] if unexpected else []
        raise ValueError(f"these are no weights of {what}: {'; '.join(parts)}")
    for key, tensor in own.items():
        if state[key].shape != tensor.shape:
            raise ValueError(
                f"these are no weights of {what}: {key} has shape {list(state[key].shape)}, "
                f"not {list(tensor.shape)}"
            )
    assert isinstance(module, nn.Module)
    module.load_state_dict(dict(state))
    return module.eval().requires_grad_(False)


def _listing(what: str, keys: list[str], most: int = 5) -> str:
    rest = f" and {len(keys) - most} more" if len(keys) > most else ""
    return f"{', '.join(keys[:most])}{rest} {'is' if len(keys) == 1 else 'are'} {what}"
