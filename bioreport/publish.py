"""A model's folder in the layout of the Hugging Face Hub: model card, safetensors, config, language model."""

import json
import re
import shutil
from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from bioreport import bundle
from bioreport.ecg.preprocess import ECG_TOK
from bioreport.errors import InputError
from bioreport.files import check_replaceable, folder_written_atomically
from bioreport.hub import EMBEDDED, model_folder
from bioreport.meit import files as meit
from bioreport.qinco import FORMAT as QINCO

_LLM, _CONFIG, _CARD = "llm", "config.json", "README.md"
# what of a model's folder is the model: notes and checkpoints beside it stay at home
_FOLDERS = frozenset({meit.ADAPTER, _LLM})
_FRONT = re.compile(r"\A---\n.*?\n---\n\s*", re.S)
# by kind of folder: what it is, the Hub's word for its task, tags, how it is used
_KINDS: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "eeg": (
        "Writes draft reports of EEG recordings",
        "text-generation",
        ("eeg", "clinical-report"),
        "bioreport generate recording.edf --model {name}",
    ),
    "ecg": (
        "Writes draft reports of ECG recordings",
        "text-generation",
        ("ecg", "clinical-report"),
        "bioreport generate record.hea --model {name}",
    ),
    "meit": (
        "Writes draft reports of ECG recordings (MEIT)",
        "text-generation",
        ("ecg", "clinical-report", "meit"),
        "bioreport generate record.hea --model {name}",
    ),
    "tokenizer": (
        "Turns 12-lead ECGs into discrete codes (ECG-Tok)",
        "feature-extraction",
        ("ecg", "tokenizer"),
        "bioreport tokenize record.hea --tokenizer {name} -o codes",
    ),
    "qinco": (
        "Turns vectors into discrete codes (QINCo)",
        "feature-extraction",
        ("quantization",),
        "python -c 'from bioreport.published import load_qinco; print(load_qinco(\"{name}\"))'",
    ),
}


def convert_hub(
    source: str | PathLike[str],
    out: str | PathLike[str],
    *,
    llm: str | None = None,
    license: str | None = None,
) -> Path:
    """Write a folder that can be uploaded as it is, and be loaded from there or here, also offline.

    Parameters
    ----------
    source : path-like
        Name or folder of a bundle, a MEIT model, an ECG tokenizer or a QINCo.
    out : path-like
        A new or empty folder, or one that this wrote, which is replaced.
    llm : str, optional
        Hub id to name in place of a copy of the language model, or a folder to copy. By default a language
        model in a folder is copied, and one named by its Hub id is named.
    license : str, optional
        The Hub's identifier of a license, e.g. ``"apache-2.0"``; by default that of this package's own
        models, and ``"other"`` for all else.

    Raises
    ------
    InputError
        Where `source` is no model, its language model is not there, or `out` holds other things.
    """
    folder, out = model_folder(source), Path(out)
    config = _config(folder)
    kind = _kind(config, folder)
    _check(out, folder)
    named = _language_model(config, folder, llm)
    license = license or ("apache-2.0" if folder in EMBEDDED.values() else "other")
    with folder_written_atomically(out) as new:
        for path in sorted(folder.iterdir()):
            if path.is_dir() and path.name in _FOLDERS - ({_LLM} if named else set()):
                shutil.copytree(path, new / path.name, copy_function=shutil.copyfile)
            elif path.suffix == ".safetensors":
                shutil.copyfile(path, new / path.name)
        if isinstance(named, Path):
            shutil.copytree(named, new / _LLM, copy_function=shutil.copyfile)
            config["llm"] = _LLM
        elif named is not None:
            config["llm"] = named
        (new / _CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        name = str(config.get("name") or Path(fspath(source)).name)
        (new / _CARD).write_text(_card(kind, name, config, folder, license), encoding="utf-8")
    return out


def _config(folder: Path) -> dict[str, Any]:
    cure = "give a folder that `bioreport train` or `bioreport convert` wrote, or a model's name"
    try:
        config = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(folder, "is no model's folder (its config.json cannot be read)", cure) from error
    if not isinstance(config, dict):
        raise InputError(folder / _CONFIG, "is not the config of a model", cure)
    return config


def _kind(config: dict[str, Any], folder: Path) -> str:
    kind = _named(config)
    if kind is None:
        raise InputError(
            folder / _CONFIG, "is the config of no bundle, MEIT model, tokenizer or QINCo",
            "give a folder that `bioreport train` or `bioreport convert` wrote",
        )  # fmt: skip
    return kind


def _named(config: Mapping[str, Any]) -> str | None:
    if config.get("format") == bundle.FORMAT:
        encoder = config.get("encoder")
        return "ecg" if isinstance(encoder, dict) and encoder.get("class") == "EcgTokenizer" else "eeg"
    if config.get("format") == meit.FORMAT:
        return "meit"
    if config.get("format") == QINCO:
        return "qinco"
    return "tokenizer" if config.get("preprocessing") == ECG_TOK.name else None


def _check(out: Path, source: Path) -> None:
    names = {path.name for path in out.iterdir() if path.suffix == ".safetensors"} if out.is_dir() else set()
    check_replaceable(
        out, names | {_CONFIG, _CARD, *_FOLDERS}, lambda config: _named(config) is not None,
        what="holds other things",
    )  # fmt: skip
    if out.exists() and out.samefile(source):
        raise InputError(out, "is the model itself", "choose a new folder with -o")


def _language_model(config: dict[str, Any], folder: Path, llm: str | None) -> Path | str | None:
    """A folder to copy, a Hub id to name, or None where there is none or it lies in the model's folder."""
    if llm is not None and (config.get("learnt") == "all" or config.get("tune") == "full"):
        raise InputError(folder, "has a language model of its own that was tuned", "leave out --llm")
    named = llm or config.get("llm")
    if named is None or named == _LLM:
        return None
    path = Path(named)
    if path.is_dir():
        return path
    if path.is_absolute() or named.count("/") > 1:
        raise InputError(
            named,
            f"is the language model of {folder} and is not there",
            "name its folder or Hub id with --llm",
        )
    return str(named)


def _card(kind: str, name: str, config: dict[str, Any], folder: Path, license: str) -> str:
    what, task, tags, command = _KINDS[kind]
    llm = config.get("llm")
    front = ModelCardData(
        license=license,
        library_name="bioreport",
        pipeline_tag=task,
        tags=["bioreport", "medical", *tags],
        base_model=llm if llm and llm != _LLM else None,
    ).to_yaml()
    try:
        body = _FRONT.sub("", (folder / _CARD).read_text(encoding="utf-8"))
    except OSError:
        body = _body(what, name, config)
    use = f"\n## Use\n\n```\n{command.format(name='FOLDER_OR_HUB_ID')}\n```\n"
    return f"---\n{front}\n---\n{body.rstrip()}\n" + ("" if "\n## Use\n" in body else use)


def _body(what: str, name: str, config: dict[str, Any]) -> str:
    lines = [f"# {name}", "", f"{what}; for `bioreport`. Not for clinical use."]
    if config.get("disclaimer"):
        lines += ["", str(config["disclaimer"])]
    parts = []
    encoder, projector, llm = config.get("encoder"), config.get("projector"), config.get("llm")
    if isinstance(encoder, dict) and encoder.get("class"):
        parts.append(f"- Encoder: {encoder['class']}.")
    if isinstance(projector, dict):
        parts.append(
            f"- Projector: {projector['kind']}, from tokens {projector['encoder_dim']} wide to embeddings "
            f"{projector['llm_dim']} wide."
        )
    if config.get("learnt"):
        learnt = {"encoder": "the encoder", "lora": "the encoder and LoRA", "all": "everything"}
        parts.append(f"- What has learnt: {learnt.get(config['learnt'], config['learnt'])}.")
    if llm or config.get("learnt") == "all":
        parts.append(f"- Language model: {'in `llm`' if llm in (None, _LLM) else f'`{llm}`'}.")
    lines += ["", *parts] if parts else []
    lines += ["", "To be filled in by who publishes it: training data, evaluation, limits, license."]
    return "\n".join(lines) + "\n"
