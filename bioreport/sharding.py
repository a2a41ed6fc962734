"""A language model spread over the processes that train, layer by layer (FSDP2, the sharing of ZeRO-3).

Only layers are spread. What embeds and unembeds tokens is whole in each process, because it is also used
apart from the model's forward; and so is all that learns beside or inside the layers of a frozen model
(projector, LoRA), which is small. Weights and optimizer states that are spread leave this module whole: a
checkpoint or a bundle does not depend on the number of processes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from bioreport.errors import InputError
from bioreport.processes import first, world


def shard(llm: Any) -> None:
    """Spread the layers of a language model over the processes; one process keeps them.

    Raises
    ------
    InputError
        For a model that does not say what its layers are.
    """
    if world() == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    names = set(llm._no_split_modules or ())
    layers = [module for module in llm.modules() if type(module).__name__ in names]
    if not layers:
        raise InputError("--shard", "finds no layers in this language model", "leave out --shard")
    embeddings = (llm.get_input_embeddings(), llm.get_output_embeddings())
    whole = {p for module in embeddings if module is not None for p in module.parameters()}
    if not all(p.requires_grad for p in layers[0].parameters()):
        whole |= {p for p in llm.parameters() if p.requires_grad}
    mesh = init_device_mesh(next(llm.parameters()).device.type, (world(),))
    for module in (*layers, llm):
        fully_shard(module, mesh=mesh, ignored_params=whole)
        # gradients come out weighted: they are added up, as those of all that is whole
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)


def spreads(model: nn.Module) -> bool:
    """Whether part of a model is spread."""
    return any(is_spread(p) for p in model.parameters())


def is_spread(tensor: Any) -> bool:
    """Whether a tensor is spread over the processes."""
    # DTensors alone have it; their module takes a second to import, which generation need not spend
    return hasattr(tensor, "full_tensor")


def whole(tensor: Any) -> Tensor:
    """A tensor with all its values, on the CPU; all processes must call it."""
    full: Tensor = tensor.full_tensor() if is_spread(tensor) else tensor
    return full.detach().cpu()


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """A module's state with all values, kept by the first process alone; all must call it."""
    state = {}
    for key, tensor in module.state_dict().items():
        full = whole(tensor)
        if first():
            state[key] = full
    return state


def spread_as(full: Tensor, like: Any) -> Tensor:
    """`full` spread as `like` is."""
    if not is_spread(like):
        return full
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(full.to(like.device), like.device_mesh, like.placements)


def clip(parameters: Sequence[nn.Parameter], largest: float) -> None:
    """Scale gradients so that their norm is at most `largest`, also where some are spread."""
    spread = [p for p in parameters if is_spread(p)]
    if not spread:
        nn.utils.clip_grad_norm_(parameters, largest)
        return
    grads: list[Any] = [p.grad for p in parameters if p.grad is not None]
    local: list[Any] = [g.to_local() if is_spread(g) else g for g in grads]
    squares = [
        sum((g.float().square().sum() for g, of in zip(local, grads, strict=True) if is_spread(of) == which),
            torch.zeros((), device=local[0].device))
        for which in (True, False)
    ]  # fmt: skip
    distributed.all_reduce(squares[0])
    norm = (squares[0] + squares[1]).sqrt()
    scale = (largest / (norm + 1e-6)).clamp(max=1.0)
    for gradient in local:
        gradient.mul_(scale)
