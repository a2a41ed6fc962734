"""QINCo and QINCo2 from their published weights: vectors to codes and back.

Huijben et al., *Residual quantization with implicit neural codebooks*, ICML 2024 (arXiv 2401.14732);
Vallaeys et al., *Qinco2: vector compression and search with improved implicit neural codebooks*, ICLR 2025
(arXiv 2501.03078). The networks run in `bioreport_kernels.implicit_quantize`; the keys are those of the
published weights.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bioreport.errors import InputError
from bioreport.files import check_replaceable, folder_written_atomically
from bioreport_kernels import ImplicitWeights, implicit_decode, implicit_quantize
from bioreport_kernels.implicit import check_weights

FORMAT, VERSION = "bioreport-qinco", 1
_FILES = frozenset({"config.json", "model.safetensors", "README.md"})


class Qinco(nn.Module):
    """Codes of vectors under given weights, and the vectors of codes.

    Parameters
    ----------
    weights : ImplicitWeights
    mean : Tensor, shape (D,) or ()
    scale : Tensor, shape (D,) or ()
        The networks see (x - mean) / scale.
    beam, shortlist : int
        As in `bioreport_kernels.implicit_quantize`; no shape tells them.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        weights: ImplicitWeights,
        mean: Tensor,
        scale: Tensor,
        *,
        beam: int = 1,
        shortlist: int | None = None,
    ) -> None:
        super().__init__()
        self.beam, self.shortlist, self.skip = beam, shortlist, weights.skip
        for name, value in zip(weights._fields[:-1], weights[:-1], strict=True):
            self.register_buffer(name, value)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    @property
    def weights(self) -> ImplicitWeights:
        """The buffers, as the operators take them."""
        return ImplicitWeights(*(getattr(self, name) for name in ImplicitWeights._fields))

    def encode(self, x: Tensor, *, search: str = "exact") -> tuple[Tensor, Tensor]:
        """Codes, int64 [..., L], of vectors [..., D], and the float32 vectors they stand for.

        `search` as in `bioreport_kernels.implicit_quantize`; the gradient goes straight through to x.
        """
        rows = ((x - self.mean) / self.scale).to(self.mean.dtype).reshape(-1, x.shape[-1])
        codes, quantized = implicit_quantize(
            rows, self.weights, beam=self.beam, shortlist=self.shortlist, search=search
        )
        return codes.view(*x.shape[:-1], codes.shape[1]), self._unscaled(quantized).view(x.shape)

    def decode(self, codes: Tensor) -> Tensor:
        """Vectors [..., D] of codes [..., L]: bit for bit those that `encode` gave with them."""
        vectors = implicit_decode(codes.reshape(-1, codes.shape[-1]), self.weights)
        return self._unscaled(vectors).view(*codes.shape[:-1], vectors.shape[1])

    def _unscaled(self, vectors: Tensor) -> Tensor:
        return vectors * self.scale + self.mean


class _Weights:
    """A state dict that knows what was taken of it."""

    def __init__(self, state: Mapping[str, Tensor], name: str) -> None:
        self.state, self.name, self.taken = state, name, set[str]()

    def __call__(self, key: str) -> Tensor:
        if key not in self.state:
            raise self.refused(f"{key} is missing")
        self.taken.add(key)
        return self.state[key].detach().to(torch.float32)

    def numbers(self, pattern: str) -> list[int]:
        """The numbers that a pattern's group matches in the keys."""
        return sorted({int(found[1]) for key in self.state if (found := re.match(pattern, key))})

    def stacked(self, steps: list[str], name: str) -> Tensor:
        """One tensor of those under the same name in every step."""
        return self.joined([self(step + name) for step in steps], name)

    def joined(self, tensors: list[Tensor], name: str) -> Tensor:
        if any(tensor.shape != tensors[0].shape for tensor in tensors):
            raise self.refused(f"{name} has other shapes in other steps: {[list(t.shape) for t in tensors]}")
        return torch.stack(tensors)

    def blocks(self, steps: list[str], blocks: list[int], name: str) -> Tensor:
        """The residual blocks' matrices [S, R, …]; `name` has a place for a block's number."""
        return torch.stack([self.stacked(steps, name.format(block)) for block in blocks], 1)

    def complete(self, weights: ImplicitWeights) -> ImplicitWeights:
        """The weights, once nothing is left over and all shapes fit."""
        if left := sorted(self.state.keys() - self.taken):
            more = f" and {len(left) - 5} more" if len(left) > 5 else ""
            raise self.refused(f"{', '.join(left[:5])}{more} {'is' if len(left) == 1 else 'are'} unexpected")
        try:
            check_weights(weights)
        except ValueError as error:
            raise self.refused(str(error)) from None
        return weights

    def refused(self, reason: str) -> ValueError:
        return ValueError(f"these are no weights of {self.name}: {reason}")


def qinco1_weights(state: Mapping[str, Tensor]) -> ImplicitWeights:
    """QINCo's weights, also with a low-rank first layer, also with an inverted file's codebook as the first.

    Raises
    ------
    ValueError
        Where keys are missing or unexpected, naming them, or a shape does not fit.
    """
    take = _Weights(state, "QINCo")
    steps = [f"step{number}." for number in take.numbers(r"step(\d+)\.")] or ["step1."]
    blocks = take.numbers(r"step\d+\.residual_block(\d+)\.")
    first, codebooks = take("codebook0.weight"), take.stacked(steps, "codebook.weight")
    layers = [_first_layer(take, step + "MLPconcat.") for step in steps]
    return take.complete(
        ImplicitWeights(
            first,
            codebooks,
            concat=take.joined([weight for weight, _ in layers], "MLPconcat"),
            bias=take.joined([bias for _, bias in layers], "the bias of MLPconcat"),
            up=take.blocks(steps, blocks or [0], "residual_block{}.0.weight"),
            down=take.blocks(steps, blocks or [0], "residual_block{}.2.weight"),
        )
    )


def _first_layer(take: _Weights, prefix: str) -> tuple[Tensor, Tensor]:
    """Weight and bias; two linear layers with nothing between them are one."""

    def linear(name: str) -> tuple[Tensor, Tensor]:
        weight, key = take(f"{prefix}{name}weight"), f"{prefix}{name}bias"
        return weight, take(key) if key in take.state else weight.new_zeros(len(weight))

    if prefix + "1.weight" not in take.state:
        return linear("")
    (inner, inner_bias), (outer, outer_bias) = linear("0."), linear("1.")
    weight = outer.double() @ inner.double()
    return weight.float(), (outer.double() @ inner_bias.double() + outer_bias).float()


def qinco2_weights(
    state: Mapping[str, Tensor], *, skip: bool = True
) -> tuple[ImplicitWeights, Tensor, Tensor]:
    """QINCo2's weights, and the mean and the scale of the data.

    Parameters
    ----------
    skip : bool
        False for those trained in its ``qinco1_mode``.

    Raises
    ------
    ValueError
        Where keys are missing or unexpected, naming them, or a shape does not fit.
    """
    # running statistics of the residuals, which training alone uses
    kept = {
        key: value for key, value in state.items() if not re.match(r"steps\.\d+\.xtarget_(mean|var)$", key)
    }
    take = _Weights(kept, "QINCo2")
    steps = [f"steps.{number}." for number in take.numbers(r"steps\.(\d+)\.") if number] or ["steps.1."]
    blocks = take.numbers(r"steps\.\d+\.residual_blocks\.(\d+)\.")
    mean, scale, first = take("data_mean"), take("data_std"), take("steps.0.codebook.weight")

    def optional(name: str) -> Tensor | None:
        return take.stacked(steps, name) if steps[0] + name in kept else None

    weights = ImplicitWeights(
        first,
        take.stacked(steps, "codebook.weight"),
        concat=take.stacked(steps, "concat.mlp.weight"),
        bias=take.stacked(steps, "concat.mlp.bias"),
        up=take.blocks(steps, blocks or [0], "residual_blocks.{}.up_proj.weight"),
        down=take.blocks(steps, blocks or [0], "residual_blocks.{}.down_proj.weight"),
        in_proj=optional("in_proj.weight"),
        out_proj=optional("out_proj.weight"),
        shortlists=optional("substep.codebook.weight"),
        skip=skip,
    )
    return take.complete(weights), mean, scale


def check_destination(directory: Path) -> Path:
    """The folder, if `save_qinco` may take its place; raises InputError where it holds something else."""
    return check_replaceable(
        directory, _FILES, lambda config: config.get("format") == FORMAT, what="is no folder of a QINCo"
    )


def save_qinco(state: Mapping[str, Tensor], options: Mapping[str, Any], directory: Path) -> Path:
    """Write weights under their published names, and the options of `bioreport.published.qinco` for them.

    Raises
    ------
    InputError
        Where the folder holds something else or cannot be written.
    """
    check_destination(directory)
    config = {"format": FORMAT, "version": VERSION, "options": dict(options)}
    with folder_written_atomically(directory) as folder:
        tensors = {key: value.detach().clone().contiguous() for key, value in state.items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return directory


def read_qinco(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_qinco` wrote; raises InputError where it is not that."""
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        if config["format"] != FORMAT or config["version"] != VERSION:
            raise ValueError("another format")
        return load_file(directory / "model.safetensors"), dict(config["options"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(
            directory, "is no QINCo", "give a folder that `bioreport convert qinco` wrote"
        ) from error
