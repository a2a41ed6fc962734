"""Files of weights that others wrote, read as data only: nothing in them is run.

``torch.load`` with ``weights_only=True``, or safetensors.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from bioreport.errors import InputError

# Under what a training script's checkpoint keeps the weights.
_NESTS = ("state_dict", "model_state_dict", "model")
# what torch says of a pickle that wants more than tensors, numbers and containers
_WANTED = re.compile(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)")


def read_weights(file: Path) -> Mapping[str, Any]:
    """Tensors and numbers of a foreign file.

    Raises
    ------
    InputError
        Where it cannot be read, or holds a pickled module or other objects, with how to export the weights.
    """
    cure = "give a .pth, .pt, .bin or .safetensors file of weights"
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
        wanted = _WANTED.search(str(error))
        if wanted:
            raise InputError(
                file,
                f"is no file of weights but a pickle with a {wanted[1][:80]} in it; it was not unpickled",
                "export the weights alone where the file was made: "
                "torch.save(model.state_dict(), 'weights.pt')",
            ) from error
        raise InputError(
            file, "holds something else than weights, or is damaged; it was not unpickled", cure
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(file, f"holds a {type(content).__name__}, not named weights", cure)
    return content


def unnested(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state dict in a training script's checkpoint, or what was given."""
    for nest in _NESTS:
        if isinstance(content.get(nest), Mapping):
            content = content[nest]
    return content


def unfit(file: Path, error: ValueError, cure: str) -> InputError:
    """What a file of other weights is told as."""
    problem = str(error).replace("these are no weights of", "holds no weights of", 1)
    return InputError(file, problem if problem != str(error) else f"does not fit ({problem})", cure)
