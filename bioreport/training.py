"""Steps of training that can stop anywhere and go on to the same bits, in one process or many.

AdamW, linear warm-up and decay, gradients clipped; a checkpoint holds all that the next step depends on.

A step's batch is computed in parts of ``at_once`` samples whose gradients are added up. Each part counts by
its weight in the whole step and draws its dropout from seed, step and its own number, so that it is the same
whichever process computes it: N processes take the steps of one, and a checkpoint goes on with any number.
"""

import json
import logging
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bioreport import processes, sharding
from bioreport.errors import InputError
from bioreport.files import written_atomically

logger = logging.getLogger(__name__)
_ANEW = "start anew with --no-resume, or choose another -o"
# settings of a checkpoint, as the user knows them
_NAMES = {
    "batch_size": "--batch-size", "lr": "--lr", "seed": "--seed", "patience": "--patience",
    "projector": "--projector", "language_model": "--llm or --quantize",
    "data": "the manifest or the encoder", "shapes": "what learns, and its sizes",
    "total_steps": "the number of steps",
}  # fmt: skip
# names of the split that validates
VALIDATION = frozenset({"val", "valid", "validation", "dev"})
# what `bioreport.fusion` and `bioreport.meit` call the language model
_LANGUAGE_MODELS = ("llm.", "language_model.")


@dataclass
class Result:
    """What a training run came to.

    Attributes
    ----------
    folder : Path
        Of the model.
    losses : list of float
        Mean cross-entropy of each step, in nats a token, from the first step on, resumed or not.
    validation : list of float
        The same on the validation split after each epoch; empty without one.
    errors : list of InputError
        Recordings that could not be used.
    cut : int
        Reports longer than the model was given room for, whose end it has not learnt.
    """

    folder: Path
    losses: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    errors: list[InputError] = field(default_factory=list)
    cut: int = 0


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Linear warm-up over a share of the steps, then linear decay to zero at `total`."""
    rising = max(1, round(total * warmup))
    if step < rising:
        return (step + 1) / (rising + 1)
    return max(0.0, (total - step) / max(1, total - rising))


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All that learns, by name."""
    return {key: p for key, p in model.named_parameters() if p.requires_grad}


def running_buffers(model: nn.Module) -> dict[str, Tensor]:
    """What changes in training without a gradient, by name: the running statistics of batch norms.

    Buffers of the language model and those that a ``state_dict`` leaves out are not among them.
    """
    kept = model.state_dict(keep_vars=True)
    return {
        key: buffer
        for key, buffer in model.named_buffers()
        if key in kept and not key.startswith(_LANGUAGE_MODELS)
    }


class TrainingRun(ABC):
    """A training run that can stop after any step and go on to the same bits.

    Parameters
    ----------
    model : Module
        Set to training mode before each step.
    samples : sequence
        What is learnt from, in any form that `loss` takes.
    held_out : sequence
        What validates after each epoch.
    seed : int
        Of the order, and of dropout.
    epochs : int
    batch_size : int
        Samples of a step, over all processes.
    at_once : int, optional
        Samples computed at once; by default as many as a process has of a step.
    lr, weight_decay, warmup, clip : float
        Peak learning rate; AdamW's decay; share of the steps that warm up; largest norm of the gradient.
    max_steps : int or None
        Stop after this many steps; the learning rate reaches zero there.
    patience : int, optional
        Stop after so many epochs without a lower validation loss, and keep the weights of the lowest.
    log : path-like, optional
        Folder of TensorBoard's files.
    identity : mapping
        What else must be the same for a checkpoint to go on from; for JSON.

    Raises
    ------
    InputError
        Where patience has nothing to validate with, or TensorBoard is not installed.
    """

    def __init__(
        self,
        model: nn.Module,
        samples: Sequence[Any],
        held_out: Sequence[Any] = (),
        *,
        seed: int,
        epochs: int,
        batch_size: int,
        lr: float,
        weight_decay: float,
        warmup: float,
        clip: float,
        max_steps: int | None,
        identity: Mapping[str, Any],
        at_once: int | None = None,
        patience: int | None = None,
        log: str | os.PathLike[str] | None = None,
    ) -> None:
        self.model, self.samples, self.held_out = model, samples, held_out
        self.seed, self.batch_size, self.clip, self.patience = seed, batch_size, clip, patience
        self.at_once = at_once or processes.most(batch_size)
        self.steps_per_epoch = len(self.parts(range(len(samples)), batch_size))
        self.total_steps = min(epochs * self.steps_per_epoch, max_steps or epochs * self.steps_per_epoch)
        self.step = 0
        self._planned: tuple[int, list[Sequence[int]], Any] | None = None
        self.losses: list[float] = []
        self.validation: list[float] = []
        self.best: dict[str, dict[str, Tensor]] | None = None
        if patience is not None and not held_out:
            raise InputError(
                "--patience", "needs reports that validate", "give a manifest with entries of the split val"
            )
        learning = trained_parameters(model)
        self.spreads = sharding.spreads(model)
        self.parameters = list(learning.values())
        self.spread = [p for p in self.parameters if sharding.is_spread(p)]
        self.whole = [p for p in self.parameters if not sharding.is_spread(p)]
        processes.same_everywhere(self.whole)
        # one group each: AdamW cannot take them together
        groups = [{"params": group} for group in (self.whole, self.spread) if group]
        self.optimizer = torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay)
        self.lr, self.warmup = lr, warmup
        self.settings = json.dumps(
            {
                **identity, "shapes": {key: list(p.shape) for key, p in learning.items()},
                "batch_size": batch_size, "total_steps": self.total_steps, "lr": lr,
                "weight_decay": weight_decay, "warmup": warmup, "clip": clip, "seed": seed,
                "patience": patience,
            },
            sort_keys=True,
        )  # fmt: skip
        self.log = log if processes.first() else None
        self.writer: Any = None
        if log is not None:
            _summary_writer()

    @abstractmethod
    def loss(self, samples: Sequence[Any]) -> Tensor:
        """Mean cross-entropy of samples that are computed at once."""

    def weight(self, samples: Sequence[Any]) -> float:
        """How much the loss of samples that are computed at once counts in that of several such parts."""
        return float(len(samples))

    def shown(self, chosen: Sequence[int]) -> list[Any]:
        """Samples of the next step as the model is shown them."""
        return [self.samples[i] for i in chosen]

    def parts(self, samples: Sequence[Any], size: int) -> list[Sequence[Any]]:
        """Pieces of `size`, in this order, the last one shorter."""
        return [samples[i : i + size] for i in range(0, len(samples), size)]

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.step // self.steps_per_epoch

    def at_epoch_end(self) -> bool:
        """Whether an epoch, or the run, has just ended."""
        return self.step % self.steps_per_epoch == 0 or self.step == self.total_steps

    def finished(self) -> bool:
        """Whether all steps are done, or patience has ended."""
        if self.patience is not None and self.validation:
            since = len(self.validation) - 1 - self.validation.index(min(self.validation))
            if since >= self.patience:
                return True
        return self.step >= self.total_steps

    def plan(self, draw: torch.Generator) -> Any:
        """What else is drawn for an epoch's samples, for `shown`."""
        return None

    def planned(self) -> tuple[list[Sequence[int]], Any]:
        """The epoch's samples by steps, and its `plan`: drawn once, from seed and epoch alone."""
        if self._planned is None or self._planned[0] != self.epoch:
            draw = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(len(self.samples), generator=draw).tolist()
            self._planned = (self.epoch, self.parts(order, self.batch_size), self.plan(draw))
        return self._planned[1:]

    def rate(self) -> float:
        """Learning rate of the next step."""
        return self.lr * learning_rate_factor(self.step, self.total_steps, self.warmup)

    def advance(self) -> tuple[float, int]:
        """Do one step; returns its loss and its number of samples."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        samples = self.shown(self.planned()[0][self.step % self.steps_per_epoch])
        statistics = processes.RunningStatistics(self.model)
        value = self._over_parts(samples, learn=True)
        statistics.unite()
        processes.add_gradients(self.whole)
        if not math.isfinite(value):
            raise InputError(
                "training",
                f"the loss is {value} at step {self.step + 1}",
                "lower --lr or use --dtype float32",
            )
        sharding.clip(self.parameters, self.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.step()
        self.step += 1
        self.losses.append(value)
        return value, len(samples)

    def _over_parts(self, samples: Sequence[Any], *, learn: bool) -> float:
        """Weighted mean of the loss over all parts of all processes; adds up this one's gradients."""
        parts = self.parts(samples, self.at_once)
        mine = list(processes.share(len(parts)))
        weights = [self.weight(part) for part in parts]
        shares = [weights[number] / sum(weights) for number in mine]
        if self.spreads:
            # all processes must run a spread model equally often: one that has nothing left runs for nothing
            idle = processes.most(len(parts)) - len(mine)
            mine, shares = mine + [0] * idle, shares + [0.0] * idle
        value = 0.0
        for number, share in zip(mine, shares, strict=True):
            torch.manual_seed(((self.seed + 1) * 1_000_003 + self.step) * 1_009 + number)
            with processes.running_statistics_kept(self.model, not share):
                loss = self.loss(parts[number]) * share
            if learn:
                loss.backward()
            value += float(loss.detach())
        return processes.added_up([value], self.parameters[0].device)[0]

    def follow(
        self,
        checkpoint: Path,
        *,
        resume: bool,
        save_every: int,
        progress: bool = False,
        on_step: Callable[[int, float], None] | None = None,
    ) -> None:
        """Take all steps that are left; with patience, the weights are then those that validated best.

        Parameters
        ----------
        checkpoint : Path
            All processes must see it.
        resume : bool
            Go on from the checkpoint where there is one, else remove it.
        save_every : int
            Steps between checkpoints.
        progress : bool
            Show a bar on stderr.
        on_step : callable, optional
            Called with the number of steps done and the last loss.

        Raises
        ------
        InputError
            Where the checkpoint cannot be read or written or is of another run, or the loss is not finite.
        """
        processes.wait()
        if resume and checkpoint.is_file():
            self.load(checkpoint)
        processes.wait()
        if processes.first():
            if not resume:
                checkpoint.unlink(missing_ok=True)
            for half in checkpoint.parent.glob(f".{checkpoint.name}.*"):
                # of a run that was killed while it wrote
                half.unlink()
        if self.log is not None:
            self.writer = _summary_writer()(str(self.log), purge_step=self.step + 1)
        bar = tqdm(
            total=self.total_steps, initial=self.step, disable=not (progress and processes.first()),
            unit="step", desc="train",
        )  # fmt: skip
        try:
            began, seen = time.perf_counter(), 0
            while not self.finished():
                rate = self.rate()
                loss, samples = self.advance()
                seen += samples
                speed = seen / (time.perf_counter() - began)
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False, **{"samples/s": f"{speed:.1f}"})
                bar.update()
                self._note({"train/loss": loss, "train/lr": rate, "train/samples_per_second": speed})
                if self.at_epoch_end() and self.held_out:
                    self._validate()
                if self.step % save_every == 0 or self.finished():
                    self.save(checkpoint)
                if on_step is not None:
                    on_step(self.step, loss)
        finally:
            bar.close()
            if self.writer is not None:
                self.writer.close()
        if self.best is not None:
            self._put(self.best["weights"], self.best["buffers"])

    def _note(self, scalars: Mapping[str, float]) -> None:
        if self.writer is not None:
            for name, value in scalars.items():
                self.writer.add_scalar(name, value, self.step)

    def mean_loss(self, samples: Sequence[Any]) -> float:
        """Mean loss of samples, without dropout and by running statistics."""
        self.model.eval()
        with torch.no_grad():
            return self._over_parts(samples, learn=False)

    def _validate(self) -> None:
        self.validation.append(self.mean_loss(self.held_out))
        logger.info("epoch %d: validation loss %.4f", self.epoch, self.validation[-1])
        self._note({"validation/loss": self.validation[-1]})
        if self.patience is not None and self.validation[-1] < min(self.validation[:-1], default=math.inf):
            self.best = {"weights": self._weights(), "buffers": self._buffers()}

    def _weights(self) -> dict[str, Tensor]:
        # a copy: on a CPU the next steps would change it
        return {key: sharding.whole(p).clone() for key, p in trained_parameters(self.model).items()}

    def _buffers(self) -> dict[str, Tensor]:
        return {key: buffer.cpu().clone() for key, buffer in running_buffers(self.model).items()}

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
        for key, parameter in trained_parameters(self.model).items():
            parameter.copy_(sharding.spread_as(weights[key], parameter))
        for key, buffer in running_buffers(self.model).items():
            buffer.copy_(buffers[key])

    def _names(self) -> list[str]:
        """Names of the parameters as the optimizer numbers them."""
        names = {id(p): key for key, p in trained_parameters(self.model).items()}
        return [names[id(p)] for p in (*self.whole, *self.spread)]

    def _moments(self) -> dict[str, dict[str, Tensor]]:
        """The optimizer's state by names, which does not depend on how the model is spread."""
        state, names = self.optimizer.state_dict()["state"], self._names()
        return {
            names[number]: {key: sharding.whole(value) for key, value in moments.items()}
            for number, moments in state.items()
        }

    def _put_moments(self, saved: Mapping[str, Mapping[str, Tensor]]) -> None:
        parameters, state = trained_parameters(self.model), self.optimizer.state_dict()
        state["state"] = {
            number: {
                key: value if key == "step" else sharding.spread_as(value, parameters[name])
                for key, value in saved[name].items()
            }
            for number, name in enumerate(self._names())
            if name in saved
        }
        self.optimizer.load_state_dict(state)

    def save(self, path: Path) -> None:
        """Write the checkpoint in one step: the first process does, and all must call it."""
        state = {
            "settings": self.settings,
            "step": self.step,
            "losses": self.losses,
            "validation": self.validation,
            "best": self.best,
            "weights": self._weights(),
            "buffers": self._buffers(),
            "optimizer": self._moments(),
        }
        if processes.first():
            with written_atomically(path) as file:
                torch.save(state, file)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; raises InputError where it is damaged or of another run."""
        state = _read_checkpoint(path)
        check_settings(path, state["settings"], json.loads(self.settings))
        self._put(state["weights"], state["buffers"])
        self._put_moments(state["optimizer"])
        self.step, self.losses, self.validation = state["step"], state["losses"], state["validation"]
        self.best = state["best"]


def saved_settings(path: Path) -> str:
    """Settings of the run that a checkpoint belongs to; raises InputError where it is damaged."""
    return str(_read_checkpoint(path, mmap=True)["settings"])


def check_settings(path: Path, saved: str, now: Mapping[str, Any]) -> None:
    """Compare a checkpoint's settings with those of `now` that are known.

    Raises
    ------
    InputError
        Naming all that differ.
    """
    before = json.loads(saved)
    known = json.loads(json.dumps(now))
    other = sorted(key for key in known if key not in before or before[key] != known[key])
    if other:
        names = ", ".join(_NAMES.get(key, key.replace("_", " ")) for key in other)
        raise InputError(path, f"belongs to a run with other settings or data ({names})", _ANEW)


def _read_checkpoint(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        json.loads(state["settings"])
    except (
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        UnpicklingError,
    ) as error:
        raise InputError(path, "cannot be read as a checkpoint", _ANEW) from error
    return dict(state)


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError(
            "--tensorboard",
            "needs TensorBoard, which is not installed",
            "run `pip install 'bioreport[train]'`",
        ) from error
    return SummaryWriter
