"""Where a model lies: inside the package, in a folder, or on the Hugging Face Hub."""

import json
from os import PathLike, fspath
from pathlib import Path

from bioreport.llm import absent, on_hub

MEIT = "bioreport-meit"
_MODELS = Path(__file__).parent / "models"
# the model inside the package for each kind of recording
EMBEDDED = {"eeg": _MODELS / "bioreport-tiny", "ecg": _MODELS / "bioreport-ecg-tiny"}


def model_folder(name_or_dir: str | PathLike[str]) -> Path:
    """The folder of a model by its name inside the package, its own path, or its Hub id.

    A Hub id (``owner/name``) is fetched into the Hub's cache, from which it comes without a network. A path
    that is not there comes back as it is, for the caller to say what is missing.

    Raises
    ------
    InputError
        Where a Hub id is neither in the cache nor given by the Hub now.
    """
    name = fspath(name_or_dir)
    inside = {path.name: path for path in EMBEDDED.values()}
    path = inside.get(name, Path(name))
    if path.exists() or not _may_be_id(name):
        return path
    if not on_hub(name):
        raise absent(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name))
    except (OSError, ValueError) as error:  # the client's own errors are of these two kinds
        raise absent(name) from error


def format_of(folder: Path) -> str | None:
    """What a model's ``config.json`` says that it is; None where it does not."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config.get("format") if isinstance(config, dict) else None


def _may_be_id(name: str) -> bool:
    owner, _, model = name.partition("/")
    return bool(owner and model) and "/" not in model and owner[0] not in ".~"
