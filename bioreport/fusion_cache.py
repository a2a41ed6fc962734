"""The signal among the keys and values of an unmodified causal language model.

In each attention layer a signal's embedding passes through the layer's own key and value projections, and the
result stands beside the keys and values of the text as entries that every query sees: MEIT's concatenated
fusion (Wan et al., arXiv 2403.04945), whose code is a forked modelling file for every family and computes the
entries anew in every layer at every step. Here they come first in the layer's cache, computed once.

What an entry is, in every family:

- The embedding, tiled to the hidden size, through the layer's key and value projections (with their LoRA),
  without the layer's input norm and without rotary position: an entry has no place in the text.
- Normed by the layer's key norm where it has one (Qwen3, Gemma 3). The published code knows no such family;
  queries there have the norm's scale, so a key without it would count for far too much or for nothing.
- Visible to every query: causality, padding and sliding windows are about text. ALiBi adds nothing to it.
- Without a position: the first token of the text is at position 0, and the cache's length is the text's.

The models' own code is not touched. A hook before each attention layer puts the entries' columns in front of
the mask that the model has made for its text, and hands over the entries where there is no cache.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

KeysValues = tuple[Tensor, Tensor]


def _separate(attention: Any, hidden: Tensor) -> KeysValues:
    heads = (-1, attention.head_dim)
    keys = attention.k_proj(hidden).unflatten(-1, heads)
    if hasattr(attention, "k_norm"):
        keys = attention.k_norm(keys)
    return keys, attention.v_proj(hidden).unflatten(-1, heads)


def _in_one(attention: Any, hidden: Tensor) -> KeysValues:
    heads = (-1, attention.head_dim)
    _, keys, values = attention.c_attn(hidden).chunk(3, -1)
    return keys.unflatten(-1, heads), values.unflatten(-1, heads)


def _by_head(attention: Any, hidden: Tensor) -> KeysValues:
    dim = attention.head_dim if hasattr(attention, "head_dim") else attention.head_size
    _, keys, values = attention.query_key_value(hidden).unflatten(-1, (-1, 3, dim)).unbind(-2)
    return keys, values


# How each family, by its configuration's model_type, makes keys and values [B, N, heads, head dim] from
# hidden states [B, N, hidden]. A family stands here when a test compares it with its own attention.
FAMILIES: dict[str, Callable[[Any, Tensor], KeysValues]] = {
    "llama": _separate,
    "mistral": _separate,
    "qwen2": _separate,
    "qwen3": _separate,
    "gemma": _separate,
    "gemma2": _separate,
    "gemma3_text": _separate,
    "opt": _separate,
    "gptj": _separate,
    "gpt2": _in_one,
    "bloom": _by_head,
    "gpt_neox": _by_head,
}
# Those whose masks can say that an entry is seen from beyond a sliding window.
ATTENTIONS = ("sdpa", "eager")
_PROJECTIONS = ("k_proj", "c_attn", "query_key_value")


def embedding_width(llm: Any) -> int:
    """Width that MEIT gives an embedding for a language model.

    The head dimension where the heads together are as wide as the hidden states, so that tiling repeats the
    embedding over the heads; else (Qwen3-4B, Gemma-7B) the hidden size.
    """
    config = llm.config.get_text_config()
    heads = config.num_attention_heads
    dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return int(dim if dim * heads == config.hidden_size else config.hidden_size)


class SignalLayer(DynamicLayer):
    """One layer's cache: entries of the signal in front, text behind; its lengths are the text's.

    Parameters
    ----------
    keys, values : Tensor [B, heads, N, head dim]
        The entries. A batch that turns out n times as large (beams, several samples) repeats each n times.
    window : int, optional
        Tokens of text that a query sees, itself included. The entries stay whatever the window drops.
    """

    keys: Any  # never None, unlike in the base class
    values: Any

    def __init__(self, keys: Tensor, values: Tensor, window: int | None = None) -> None:
        super().__init__()
        self.dtype, self.device = keys.dtype, keys.device
        self.keys, self.values = keys, values
        self.is_initialized = True
        self.entries = keys.shape[-2]
        self.window = window
        self.seen = 0
        self.is_sliding = window is not None
        # what a window has dropped cannot come back
        self.is_croppable = window is None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append text; returns keys and values of the entries and of all text that a query may see."""
        if not self.seen:
            repeats, left = divmod(len(key_states), len(self.keys))
            if left:
                raise ValueError(f"{len(self.keys)} signals do not fit {len(key_states)} rows of text")
            if repeats > 1:
                self.batch_repeat_interleave(repeats)
            # autocast may give the text another dtype than the entries had
            self.keys, self.values = self.keys.to(key_states), self.values.to(value_states)
        self.seen += key_states.shape[-2]
        # one after the other: the old keys' memory is free for the new values, where both at once would need
        # fresh pages at every step
        keys = torch.cat([self.keys, key_states], -2)
        self.keys = self._kept(keys)
        values = torch.cat([self.values, value_states], -2)
        self.values = self._kept(values)
        return keys, values

    def _kept(self, states: Tensor) -> Tensor:
        if self.window is None:
            return states
        surplus = states.shape[-2] - self.entries - (self.window - 1)
        if surplus <= 0:
            return states
        return torch.cat([states[..., : self.entries, :], states[..., self.entries + surplus :, :]], -2)

    def get_seq_length(self) -> int:
        """Tokens of text so far."""
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the text's part of the mask."""
        if self.window is None:
            return self.seen + query_length, 0
        past = min(self.seen, self.window - 1)
        return past + query_length, self.seen - past

    def crop(self, tokens_to_remove: int) -> None:
        """Remove tokens of text from the end: a negative number, as in `DynamicLayer`."""
        if self.window is not None and self.seen >= self.window:
            raise RuntimeError("a cache cannot be cropped once its sliding window has dropped text")
        if -tokens_to_remove > self.seen:
            raise ValueError(f"{-tokens_to_remove} tokens are to go, and there are {self.seen}")
        super().crop(tokens_to_remove)
        self.seen += tokens_to_remove

    def reset(self) -> None:
        """Forget the text."""
        self.keys = self.keys[..., : self.entries, :]
        self.values = self.values[..., : self.entries, :]
        self.seen = 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take the rows `beam_idx`, the entries' too."""
        self.batch_select_indices(beam_idx.to(self.keys.device))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row."""
        self.keys = self.keys.repeat_interleave(repeats, 0)
        self.values = self.values.repeat_interleave(repeats, 0)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices`."""
        self.keys, self.values = self.keys[indices, ...], self.values[indices, ...]


class SignalCache(Cache):
    """A cache for one generation whose layers begin with the signal's entries; see `KeyValueFusion.cache`."""

    layers: list[Any]

    def __init__(self, layers: list[Any], owner: int) -> None:
        super().__init__(layers=layers)
        # by id, so that a copy of the cache does not copy the language model
        self.owner = owner
        self.columns = _Columns()


class _Beside:
    """What an attention layer takes for its cache where there is none: entries, and nothing is kept.

    Activation checkpointing runs a layer twice, which a cache that grows would not bear.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        return (
            torch.cat([self.keys.to(key_states.dtype), key_states], -2),
            torch.cat([self.values.to(value_states.dtype), value_states], -2),
        )


class _Columns:
    """Masks with the entries' columns in front; made once for all the layers that share a mask."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], tuple[Any, Tensor]] = {}

    def before(self, mask: Tensor, entries: int) -> Tensor:
        """`mask` [..., keys] with `entries` columns in front that hide nothing and add nothing."""
        visible = True if mask.dtype == torch.bool else 0 if mask.is_floating_point() else 1
        return self._once((id(mask), entries), mask, lambda: F.pad(mask, (entries, 0), value=visible))

    def causal(self, text: int, entries: int, device: torch.device) -> Tensor:
        """Bool [1, 1, text, entries + text]: causal among the text, behind entries that all see."""
        return self._once(
            (text, entries, device),
            None,
            lambda: torch.ones(1, 1, text, entries + text, dtype=torch.bool, device=device).tril(entries),
        )

    def _once(self, key: tuple[Any, ...], held: Any, make: Callable[[], Tensor]) -> Tensor:
        if key not in self._made:
            # of the masks of one step: full and sliding, and ALiBi's biases
            if len(self._made) > 3:
                self._made.clear()
            # held, so that no other tensor gets its id
            self._made[key] = (held, make())
        return self._made[key][1]


class _Attached:
    """Embeddings [B, N, width] that stand in every layer while the model runs without a cache."""

    def __init__(self, embeddings: Tensor) -> None:
        self.embeddings = embeddings
        self.columns = _Columns()


class KeyValueFusion:
    """Entries of a signal among the keys and values of a causal LM.

    Parameters
    ----------
    llm : PreTrainedModel
        Of one of `FAMILIES`; LoRA may be injected before or after. It gets a hook on each attention layer,
        and computes as ever where no signal is given.
    layers : sequence of int, optional
        Layers with entries; by default all. The published code skips the others altogether; here they
        attend to the text alone.

    Raises
    ------
    ValueError
        For another family, or a model whose layers are not all of attention, or layers that are not there.

    Examples
    --------
    >>> fusion = KeyValueFusion(llm)                                              # doctest: +SKIP
    >>> llm.generate(input_ids, past_key_values=fusion.cache(embeddings))         # doctest: +SKIP
    >>> with fusion.attached(embeddings):                                         # doctest: +SKIP
    ...     loss = llm(input_ids, labels=labels, use_cache=False).loss
    """

    def __init__(self, llm: Any, layers: Sequence[int] | None = None) -> None:
        config = llm.config.get_text_config()
        if config.model_type not in FAMILIES:
            raise ValueError(
                f"a {config.model_type} model takes no entries among its keys and values; "
                f"known families are: {', '.join(FAMILIES)}"
            )
        self.llm = llm
        self._project = FAMILIES[config.model_type]
        self.hidden_size: int = config.hidden_size
        attentions = {m.layer_idx: m for m in llm.modules() if _is_attention(m)}
        kinds = DynamicCache(config=config).layers
        if sorted(attentions) != list(range(len(kinds))) or any(
            type(kind) not in (DynamicLayer, DynamicSlidingWindowLayer) for kind in kinds
        ):
            raise ValueError("the model has layers that are not of attention over cached keys and values")
        self._windows = [getattr(kind, "sliding_window", None) for kind in kinds]
        chosen = sorted(attentions) if layers is None else sorted(set(layers))
        if not chosen or not set(chosen) <= set(attentions):
            raise ValueError(f"layers must be some of 0 to {len(kinds) - 1}, got {layers}")
        self.attentions = {i: attentions[i] for i in chosen}
        self._signal: _Attached | None = None
        self._checkpointing = [m for m in llm.modules() if hasattr(m, "gradient_checkpointing")]
        self._handles = [
            attention.register_forward_pre_hook(
                partial(self._admit, _name_of_cache(attention)), with_kwargs=True
            )
            for attention in self.attentions.values()
        ]

    def remove(self) -> None:
        """Take the hooks off the model."""
        for handle in self._handles:
            handle.remove()

    @property
    def width(self) -> int:
        """See `embedding_width`."""
        return embedding_width(self.llm)

    def keys_values(self, layer: int, embeddings: Tensor) -> KeysValues:
        """Entries [B, heads, N, head dim] of embeddings [B, N, width] in one layer."""
        hidden = embeddings.to(self.llm.get_input_embeddings().weight.dtype)
        hidden = hidden.repeat(1, 1, self.hidden_size // hidden.shape[-1])
        keys, values = self._project(self.attentions[layer], hidden)
        return keys.transpose(1, 2), values.transpose(1, 2)

    def cache(self, embeddings: Tensor) -> SignalCache:
        """A cache filled with the entries, for ``llm.generate(..., past_key_values=cache)`` or a forward.

        Parameters
        ----------
        embeddings : Tensor [B, N, width] or [B, width]
            Of each record; the width divides the hidden size. Prompts are padded on the left, as ever.

        Raises
        ------
        ValueError
            Where the shape does not fit.
        """
        embeddings = self._checked(embeddings)
        layers: list[Any] = []
        for i, window in enumerate(self._windows):
            if i in self.attentions:
                layers.append(SignalLayer(*self.keys_values(i, embeddings), window))
            else:
                layers.append(DynamicLayer() if window is None else DynamicSlidingWindowLayer(window))
        return SignalCache(layers, id(self))

    @contextmanager
    def attached(self, embeddings: Tensor) -> Iterator[None]:
        """Within, the model runs with the entries of `embeddings` and without a cache (``use_cache=False``).

        For training and scoring: gradients reach the embeddings and the projections. With activation
        checkpointing, `checkpoint_activations` must have turned it on; the backward pass may then come after
        the block.

        Raises
        ------
        ValueError
            Where the shape does not fit, or checkpointing was turned on by other means.
        """
        signal = _Attached(self._checked(embeddings))
        if torch.is_grad_enabled() and any(m.gradient_checkpointing for m in self._checkpointing):
            for module in self._checkpointing:
                options = getattr(module._gradient_checkpointing_func, "keywords", {})
                if options.get("context_fn") != self._contexts:
                    raise ValueError(
                        "the model's own activation checkpointing would lose the signal in the backward "
                        "pass; turn it on with checkpoint_activations()"
                    )
        with self._carrying(signal):
            yield

    def checkpoint_activations(self) -> None:
        """Turn on the model's activation checkpointing; the recomputed layers see the signal too."""
        model = self.llm
        enable = getattr(model, "activation_checkpointing_enable", None)
        # older versions of transformers have the other name
        options = {"use_reentrant": False, "context_fn": self._contexts}
        (enable or model.gradient_checkpointing_enable)(options)

    def _contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), self._carrying(self._signal)

    @contextmanager
    def _carrying(self, signal: _Attached | None) -> Iterator[None]:
        outer, self._signal = self._signal, signal
        try:
            yield
        finally:
            self._signal = outer

    def _checked(self, embeddings: Tensor) -> Tensor:
        attention = self.llm.config._attn_implementation
        if attention not in ATTENTIONS:
            raise ValueError(
                f"entries are for attention by {' or '.join(ATTENTIONS)}, and the model has {attention}"
            )
        if embeddings.ndim == 2:
            embeddings = embeddings[:, None]
        if embeddings.ndim != 3 or not embeddings.shape[1] or self.hidden_size % embeddings.shape[2]:
            raise ValueError(
                f"embeddings must be [B, N, width] with a width that divides {self.hidden_size}, "
                f"got {list(embeddings.shape)}"
            )
        return embeddings

    def _admit(
        self, name: str, attention: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Before an attention layer: entries beside its keys and values, and columns for them in its mask."""
        cache, layer = kwargs.get(name), int(attention.layer_idx)  # type: ignore[arg-type]
        if isinstance(cache, SignalCache):
            if cache.owner != id(self):
                return None
            entries, columns = cache.layers[layer].entries, cache.columns
        elif self._signal is not None:
            if cache is not None:
                raise ValueError("a signal is attached; run the model with use_cache=False, or use cache()")
            signal = self._signal
            kwargs[name] = _Beside(*self.keys_values(layer, signal.embeddings))
            entries, columns = signal.embeddings.shape[1], signal.columns
        else:
            return None
        hidden = args[0] if args else kwargs["hidden_states"]
        mask = kwargs.get("attention_mask")
        if mask is not None:
            kwargs["attention_mask"] = columns.before(mask, entries)
        elif hidden.shape[1] > 1:
            # PyTorch's causal flag, which no mask stands for, would take the entries for the text's beginning
            kwargs["attention_mask"] = columns.causal(hidden.shape[1], entries, hidden.device)
        if kwargs.get("alibi") is not None:
            kwargs["alibi"] = columns.before(kwargs["alibi"], entries)
        return args, kwargs


def _is_attention(module: nn.Module) -> bool:
    return hasattr(module, "layer_idx") and any(hasattr(module, name) for name in _PROJECTIONS)


def _name_of_cache(attention: nn.Module) -> str:
    return (
        "layer_past" if "layer_past" in inspect.signature(attention.forward).parameters else "past_key_values"
    )
