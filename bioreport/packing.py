"""Rows of different lengths through a causal language model one after the other, without padding.

All layers but attention treat each position alone, so that a batch may stand in one row [1, N]. Attention
runs over each part by itself: as many small causal attentions as there are parts, where transformers' own
packed mask costs N² whatever the parts are. The borders reach the layers in place of a mask: families that
make their masks by transformers' functions pass on one of four dimensions as it is, also where activation
checkpointing runs a layer twice.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

_PACKED = "bioreport_packed"
_LAYERS = {"full_attention", "sliding_attention"}


def can_pack(llm: Any) -> bool:
    """Whether a model is of attention alone, by SDPA or flash-attn through transformers' interface.

    BLOOM and GPT-J, and families with recurrent layers or with attention that SDPA has not, are not.
    """
    config = llm.config.get_text_config()
    return (
        bool(getattr(llm, "_supports_attention_backend", False))
        and not getattr(llm, "_is_stateful", False)
        and set(getattr(config, "layer_types", None) or _LAYERS) <= _LAYERS
        and (config._attn_implementation in ("sdpa", _PACKED) or _is_flash(llm))
    )


def packed_mask(llm: Any, lengths: Sequence[int]) -> Tensor | None:
    """What a model takes for its attention mask where one row [1, N] holds parts of these lengths.

    The model's attention by SDPA is replaced by one that also knows such borders; with any other mask it is
    SDPA as before. flash-attn reads the borders from the positions, which begin anew in each part.
    """
    if _is_flash(llm):
        return None
    if llm.config.get_text_config()._attn_implementation != _PACKED:
        _register()
        llm.set_attn_implementation(_PACKED)
    return torch.tensor([0, *accumulate(lengths)]).view(1, 1, 1, -1)


def packed_positions(lengths: Sequence[int]) -> Tensor:
    """Positions [1, N] that begin at 0 in each part."""
    return torch.cat([torch.arange(length) for length in lengths])[None]


def _is_flash(llm: Any) -> bool:
    return str(llm.config.get_text_config()._attn_implementation).startswith("flash_attention")


def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(_PACKED, _attend)
    AttentionMaskInterface.register(_PACKED, sdpa_mask)


def _attend(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """query [B, heads, N, head dim]; a mask of integers has the parts' borders."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if mask is None or mask.is_floating_point() or mask.dtype == torch.bool:
        return sdpa_attention_forward(module, query, key, value, mask, **options)
    window, parts = options.get("sliding_window"), []
    for first, last in pairwise(mask.flatten().tolist()):
        near = None
        if window is not None and last - first > window:
            near = torch.ones(1, 1, last - first, last - first, dtype=torch.bool, device=query.device)
            near = near.tril().triu(1 - window)
        q, k, v = (x[:, :, first:last] for x in (query, key, value))
        parts.append(sdpa_attention_forward(module, q, k, v, near, **options)[0])
    return torch.cat(parts, 1), None
