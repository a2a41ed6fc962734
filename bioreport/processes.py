"""Training by several processes, as torchrun and ``accelerate launch`` start them.

Each process computes a share of a step's parts; gradients, which come out weighted already, are added up.
Nothing here does anything where there is one process.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed, nn

from bioreport.errors import InputError

T = TypeVar("T")
# one process may encode a whole corpus while the others wait
_PATIENCE = timedelta(days=7)


@contextmanager
def joined(device: str = "auto") -> Iterator[None]:
    """Within, the processes that the launcher has started work together; one alone stays alone.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        With GPUs each process takes the one of its local rank, and they talk by NCCL; else by Gloo.

    Raises
    ------
    InputError
        Where the launcher wants DeepSpeed, or there are fewer GPUs than processes of this machine.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or distributed.is_initialized():
        yield
        return
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() in ("true", "1"):
        raise InputError(
            "accelerate launch",
            "is configured for DeepSpeed, which this training does not use",
            "launch without it and give --shard, which spreads the language model as ZeRO-3 does",
        )
    gpus = device != "cpu" and torch.cuda.is_available()
    if gpus:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise InputError(
                "torchrun",
                f"started process {local + 1} on a machine with {torch.cuda.device_count()} GPUs",
                "start as many processes as GPUs, or give --device cpu",
            )
        torch.cuda.set_device(local)
    distributed.init_process_group("nccl" if gpus else "gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        distributed.destroy_process_group()


def world() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def first() -> bool:
    """Whether this process is the one that encodes, writes and speaks."""
    return rank() == 0


def wait() -> None:
    """Go on when all processes are here."""
    if world() > 1:
        distributed.barrier()


def from_first(make: Callable[[], T]) -> T:
    """What the first process makes, in all of them; pickled."""
    if world() == 1:
        return make()
    made = [make() if first() else None]
    distributed.broadcast_object_list(made)
    return cast(T, made[0])


def share(count: int) -> range:
    """Which of `count` parts are this process's: one piece after another, in order of the ranks."""
    return range(count * rank() // world(), count * (rank() + 1) // world())


def most(count: int) -> int:
    """The largest share that a process has of `count` parts."""
    return -(-count // world())


def added_up(values: Sequence[float], device: torch.device) -> list[float]:
    """Sums over the processes."""
    if world() == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return total.tolist()


def same_everywhere(parameters: Sequence[Tensor]) -> None:
    """Give all processes the first one's values."""
    if world() > 1:
        for parameter in parameters:
            distributed.broadcast(parameter.detach(), 0)


def add_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Add up gradients over the processes; one that no process has stays None, as with one process."""
    if world() == 1:
        return
    for dtype in sorted({p.dtype for p in parameters}, key=str):
        group = [p for p in parameters if p.dtype == dtype]
        present = torch.tensor([p.grad is not None for p in group], dtype=dtype, device=group[0].device)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in group]
        flat = torch.cat([present, *(g.flatten() for g in grads)])
        distributed.all_reduce(flat)
        present, *sums = flat.split([len(group), *(p.numel() for p in group)])
        for parameter, there, total in zip(group, present.tolist(), sums, strict=True):
            parameter.grad = total.view_as(parameter) if there else None


def _batch_norms(model: nn.Module) -> list[Any]:
    kind = nn.modules.batchnorm._BatchNorm
    return [m for m in model.modules() if isinstance(m, kind) and m.running_mean is not None]


@contextmanager
def running_statistics_kept(model: nn.Module, kept: bool) -> Iterator[None]:
    """Within, batch norms do not change their running statistics, if they are to be kept."""
    learning = [norm for norm in _batch_norms(model) if norm.training] if kept else []
    for norm in learning:
        norm.eval()
    try:
        yield
    finally:
        for norm in learning:
            norm.train()


class RunningStatistics:
    """Running statistics of batch norms, as if one process had seen all parts in order.

    An update is affine: ``(1 - momentum) * running + momentum * batch``. What a process has done to its own
    is therefore known from their values before and after, and can be done to another's.

    Parameters
    ----------
    model : Module
        As it is before the step.
    """

    def __init__(self, model: nn.Module) -> None:
        self.norms = _batch_norms(model) if world() > 1 else []
        self.before = self._values()

    def _values(self) -> list[tuple[Tensor, int]]:
        return [
            (torch.cat([norm.running_mean, norm.running_var]), int(norm.num_batches_tracked))
            for norm in self.norms
        ]

    def unite(self) -> None:
        """Put together what the processes did in this step, in order of their ranks."""
        for norm, (start, seen), (end, now) in zip(self.norms, self.before, self._values(), strict=True):
            mine = torch.cat([end, end.new_tensor([now - seen])])
            parts = [torch.empty_like(mine) for _ in range(world())]
            distributed.all_gather(parts, mine)
            united, batches = start, 0
            for part in parts:
                steps = round(float(part[-1]))
                decay = (1 - norm.momentum) ** steps
                united, batches = decay * united + (part[:-1] - decay * start), batches + steps
            norm.running_mean.copy_(united[: len(united) // 2])
            norm.running_var.copy_(united[len(united) // 2 :])
            norm.num_batches_tracked.fill_(seen + batches)
