"""Training ECG-Tok's tokenizer, keeping it as a folder, and turning recordings into codes with it."""

import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from bioreport.ecg.preprocess import ECG_TOK, Decisions, EcgBatch, stream_windows
from bioreport.ecg.reading import EcgRecording, open_ecg
from bioreport.encoders.ecg_autoencoder import EcgTokenizer, TokenizerConfig
from bioreport.errors import InputError
from bioreport.files import check_replaceable, folder_written_atomically, write_atomically
from bioreport.hub import model_folder
from bioreport.quantizers import CodeUsage

logger = logging.getLogger(__name__)
FORMAT = 1
# Of the learning rate of encoder and decoder: QINCo's networks work on residuals, a fraction of the vectors'
# size, and a full step of Adam's would move its codewords by as much.
QUANTIZER_RATE = 0.1


@dataclass(frozen=True)
class Tokens:
    """A recording as codes.

    Attributes
    ----------
    codes : int16 Tensor, shape (W, F, L)
        Of each 10-s window's frames.
    vectors : float32 Tensor, shape (W, F, D)
        What the codes stand for.
    start_seconds : ndarray of float64, shape (W,)
    decisions : Decisions
        Of the preprocessing.
    """

    codes: Tensor
    vectors: Tensor
    start_seconds: np.ndarray
    decisions: Decisions


def to_tensor(batch: EcgBatch, stride: int) -> Tensor:
    """Windows [W, leads, T] with T a multiple of `stride`; NaN where nothing usable was recorded."""
    x = torch.from_numpy(batch.data).clone()
    x[~torch.from_numpy(batch.lead_mask)] = torch.nan
    beyond = torch.arange(x.shape[2]) >= torch.from_numpy(batch.n_valid)[:, None]
    x.masked_fill_(beyond[:, None], torch.nan)
    return torch.nn.functional.pad(x, (0, -x.shape[2] % stride), value=torch.nan)


@torch.inference_mode()
def tokenize(recording: EcgRecording, model: EcgTokenizer) -> Tokens:
    """Codes and vectors of every 10-s window; raises InputError where the ECG cannot be used."""
    stream = stream_windows(recording, ECG_TOK)
    codes, vectors, starts = [], [], []
    for batch in stream:
        found = model.tokenize(to_tensor(batch, model.config.stride))
        codes.append(found[0].to(torch.int16))
        vectors.append(found[1].float())
        starts.append(batch.start_seconds)
    return Tokens(torch.cat(codes), torch.cat(vectors), np.concatenate(starts), stream.decisions)


def write_tokens(path: str | PathLike[str], tokens: Tokens) -> None:
    """Write codes and vectors as safetensors, with the preprocessing's decisions in its header."""
    tensors = {
        "codes": tokens.codes.contiguous(),
        "vectors": tokens.vectors.contiguous(),
        "start_seconds": torch.from_numpy(tokens.start_seconds),
    }
    write_atomically(path, save(tensors, {"decisions": json.dumps(tokens.decisions.to_dict())}))


def read_windows(paths: Iterable[Path], stride: int) -> Tensor:
    """Windows [W, leads, T] of all recordings; one that cannot be used is logged and left out."""
    windows = []
    for path in paths:
        try:
            windows += [to_tensor(batch, stride) for batch in stream_windows(open_ecg(path), ECG_TOK)]
        except InputError as error:
            logger.warning("%s", error)
    if not windows:
        raise InputError("the manifest", "names no ECG that can be used", "give one with 12-lead recordings")
    return torch.cat(windows)


def train_tokenizer(
    windows: Tensor,
    config: TokenizerConfig,
    *,
    steps: int,
    batch_size: int = 32,
    lr: float = 1e-3,
    seed: int = 5,
) -> EcgTokenizer:
    """Train on windows [W, leads, T] drawn at random; returns the model in eval mode.

    AdamW; the learning rate rises over the first 5 % of the steps and falls as a cosine to a hundredth. That
    of QINCo's networks is a tenth of `lr`: the published 1e-4 by default.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model = EcgTokenizer(config).train()
    quantizer = list(model.quantizer.parameters())
    others = [*model.encoder.parameters(), *model.decoder.parameters()]
    rates = [lr, QUANTIZER_RATE * lr]
    groups = [{"params": own, "lr": rate} for own, rate in zip((others, quantizer), rates, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, rates, total_steps=steps, pct_start=0.05, div_factor=25, final_div_factor=4
    )
    for step, rows in enumerate(_batches(len(windows), batch_size, steps, generator), 1):
        loss, _ = model(windows[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps:
            logger.info("step %d of %d: loss %.4f", step, steps, loss.item())
    return model.eval()


def _batches(count: int, size: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(order) < size:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        yield order[:size]
        order = order[size:]


@torch.inference_mode()
def measure(model: EcgTokenizer, windows: Tensor, *, batch_size: int = 32) -> dict[str, float | list[float]]:
    """Reconstruction error (mV, mean absolute) and use of the codewords on windows [W, leads, T]."""
    model.eval()
    config = model.config
    one = config.quantizer == "vector"
    usage = CodeUsage(1 if one else config.stages, config.codewords * (config.stages if one else 1))
    total, count = 0.0, 0
    for x in windows.split(batch_size):
        codes, vectors = model.tokenize(x)
        usage.add(codes)
        known = ~x.isnan()
        total += ((model.decode(vectors) - x.nan_to_num(nan=0.0)).abs() * known).sum().item()
        count += int(known.sum())
    return {
        "mean_absolute_error_mv": total / max(count, 1),
        "utilisation": usage.utilisation().tolist(),
        "perplexity": usage.perplexity().tolist(),
        "pooled_utilisation": usage.pooled_utilisation(),
        "pooled_perplexity": usage.pooled_perplexity(),
    }


def check_destination(directory: str | PathLike[str]) -> Path:
    """The folder, if `save_tokenizer` may take its place; raises InputError where it holds something else."""
    return check_replaceable(
        directory,
        {"config.json", "model.safetensors", "README.md"},
        lambda config: config.get("preprocessing") == ECG_TOK.name,
        what="is no tokenizer's folder",
    )


def save_tokenizer(model: EcgTokenizer, directory: str | PathLike[str]) -> None:
    """Write a folder: `config.json` and `model.safetensors`.

    Raises
    ------
    InputError
        Where the folder holds something else or cannot be written.
    """
    directory = check_destination(directory)
    config = {"format": FORMAT, "preprocessing": ECG_TOK.name, **model.config.to_dict()}
    with folder_written_atomically(directory) as folder:
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        write_atomically(folder / "model.safetensors", save(weights))
        write_atomically(folder / "config.json", json.dumps(config, indent=2) + "\n")


def load_tokenizer(directory: str | PathLike[str]) -> EcgTokenizer:
    """What `save_tokenizer` wrote, in eval mode; raises InputError where it is not that."""
    folder = model_folder(directory)
    cure = "give a folder that `train tokenizer` wrote"
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config.pop("format") != FORMAT or config.pop("preprocessing") != ECG_TOK.name:
            raise InputError(folder, "is a tokenizer of another version", cure)
        model = EcgTokenizer(TokenizerConfig(**config))
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise InputError(folder, "is no tokenizer", cure) from error
    return model.eval()
