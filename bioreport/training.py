"""Steps of training that can stop anywhere and go on to the same bits, whatever learns.

AdamW, linear warm-up and decay, gradients clipped; a checkpoint holds all that the next step depends on.
"""

import json
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from bioreport.errors import InputError
from bioreport.files import written_atomically

logger = logging.getLogger(__name__)
# names of the split that validates
VALIDATION = frozenset({"val", "valid", "validation", "dev"})
# what `bioreport.fusion` and `bioreport.meit` call the language model
_LANGUAGE_MODELS = ("llm.", "language_model.")


def learning_rate_factor(step: int, total: int, warmup: float) -> float:
    """Linear warm-up over a share of the steps, then linear decay to zero at `total`."""
    rising = max(1, round(total * warmup))
    if step < rising:
        return (step + 1) / (rising + 1)
    return max(0.0, (total - step) / max(1, total - rising))


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """All that learns, by name; of a `PrefixFusion` the projector and the special tokens."""
    return {key: p for key, p in model.named_parameters() if p.requires_grad and not key.startswith("llm.")}


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
    count : int
        Samples of an epoch.
    seed : int
        Of the order, and of dropout.
    epochs, batch_size : int
    lr, weight_decay, warmup, clip : float
        Peak learning rate; AdamW's decay; share of the steps that warm up; largest norm of the gradient.
    max_steps : int or None
        Stop after this many steps; the learning rate reaches zero there.
    identity : mapping
        What else must be the same for a checkpoint to go on from; for JSON.
    """

    def __init__(
        self,
        model: nn.Module,
        count: int,
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
    ) -> None:
        self.model, self.count, self.seed, self.batch_size, self.clip = model, count, seed, batch_size, clip
        self.steps_per_epoch = len(self.batches(list(range(count))))
        self.total_steps = min(epochs * self.steps_per_epoch, max_steps or epochs * self.steps_per_epoch)
        self.step = 0
        self.losses: list[float] = []
        self.validation: list[float] = []
        learning = trained_parameters(model)
        self.parameters = list(learning.values())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=lr, weight_decay=weight_decay)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: learning_rate_factor(step, self.total_steps, warmup)
        )
        self.settings = json.dumps(
            {
                **identity, "shapes": {key: list(p.shape) for key, p in learning.items()},
                "batch_size": batch_size, "total_steps": self.total_steps, "lr": lr,
                "weight_decay": weight_decay, "warmup": warmup, "clip": clip, "seed": seed,
            },
            sort_keys=True,
        )  # fmt: skip
        torch.manual_seed(seed + 1)

    @abstractmethod
    def learn(self) -> tuple[float, int]:
        """Add up the gradients of the next step; returns its loss and its number of samples."""

    def batches(self, order: list[int]) -> list[list[int]]:
        """An epoch's samples, in this order, by steps."""
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.step // self.steps_per_epoch

    def at_epoch_end(self) -> bool:
        """Whether an epoch, or the run, has just ended."""
        return self.step % self.steps_per_epoch == 0 or self.step == self.total_steps

    def draw(self) -> torch.Generator:
        """The epoch's random numbers: from seed and epoch alone."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)

    def chosen(self, draw: torch.Generator) -> list[int]:
        """Samples of the next step; the first that is drawn of an epoch's numbers is its order."""
        order = torch.randperm(self.count, generator=draw).tolist()
        return self.batches(order)[self.step % self.steps_per_epoch]

    def advance(self) -> tuple[float, int]:
        """Do one step; returns its loss and its number of samples."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        value, samples = self.learn()
        if not math.isfinite(value):
            raise InputError(
                "training",
                f"the loss is {value} at step {self.step + 1}",
                "lower --lr or use --dtype float32",
            )
        nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()
        self.scheduler.step()
        self.step += 1
        self.losses.append(value)
        return value, samples

    def follow(
        self,
        checkpoint: Path,
        *,
        resume: bool,
        save_every: int,
        validate: Callable[[], float] | None = None,
        progress: bool = False,
        on_step: Callable[[int, float], None] | None = None,
    ) -> None:
        """Take all steps that are left.

        Parameters
        ----------
        checkpoint : Path
        resume : bool
            Go on from the checkpoint where there is one, else remove it.
        save_every : int
            Steps between checkpoints.
        validate : callable, optional
            Loss on other samples; called after each epoch.
        progress : bool
            Show a bar on stderr.
        on_step : callable, optional
            Called with the number of steps done and the last loss.

        Raises
        ------
        InputError
            Where the checkpoint cannot be read or written or is of another run, or the loss is not finite.
        """
        if not resume:
            checkpoint.unlink(missing_ok=True)
        elif checkpoint.is_file():
            self.load(checkpoint)
        bar = tqdm(total=self.total_steps, initial=self.step, disable=not progress, unit="step", desc="train")
        try:
            began, seen = time.perf_counter(), 0
            while self.step < self.total_steps:
                loss, samples = self.advance()
                seen += samples
                rate = f"{seen / (time.perf_counter() - began):.1f}"
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False, **{"samples/s": rate})
                bar.update()
                if self.at_epoch_end() and validate is not None:
                    self.validation.append(validate())
                    logger.info("epoch %d: validation loss %.4f", self.epoch, self.validation[-1])
                if self.step % save_every == 0 or self.step == self.total_steps:
                    self.save(checkpoint)
                if on_step is not None:
                    on_step(self.step, loss)
        finally:
            bar.close()

    def save(self, path: Path) -> None:
        """Write the checkpoint in one step."""
        state = {
            "settings": self.settings,
            "step": self.step,
            "losses": self.losses,
            "validation": self.validation,
            "weights": {key: p.detach().cpu() for key, p in trained_parameters(self.model).items()},
            "buffers": {key: buffer.cpu() for key, buffer in running_buffers(self.model).items()},
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        with written_atomically(path) as file:
            torch.save(state, file)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; raises InputError where it is damaged or of another run."""
        anew = "start anew with --no-resume, or choose another -o"
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            settings = state["settings"]
        except (
            OSError,
            RuntimeError,
            EOFError,
            ValueError,
            LookupError,
            TypeError,
            UnpicklingError,
        ) as error:
            raise InputError(path, "cannot be read as a checkpoint", anew) from error
        if settings != self.settings:
            raise InputError(path, "belongs to a run with other settings or data", anew)
        with torch.no_grad():
            for key, parameter in trained_parameters(self.model).items():
                parameter.copy_(state["weights"][key])
            for key, buffer in running_buffers(self.model).items():
                buffer.copy_(state["buffers"][key])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.step, self.losses, self.validation = state["step"], state["losses"], state["validation"]
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"]:
            torch.cuda.set_rng_state_all(state["cuda_rng"])
