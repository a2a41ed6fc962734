"""Projectors: epoch tokens in, embeddings of the LLM's width out.

The four of CELM, under the key names of its checkpoints:

- ``linear``: each token alone.
- ``sequence``: two linear-attention layers over the session ("SCA"), then one embedding a token.
- ``perceiver``: 256 learned queries attend to the tokens; 256 embeddings whatever the length.
- ``sequence-perceiver``: one linear-attention layer, then one perceiver block ("SCC").

Sessions of different lengths are packed, not padded, through the linear attention. Beyond a few arrays of the
tokens' size, memory does not grow with the length: without a gradient layers run over rows in parts, and
nothing is quadratic.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from bioreport.adapters import AttentionAdapter
from bioreport_kernels import LinearAttentionContext, linear_attention
from bioreport_kernels.cpu.dense import Linear, linear

MAX_POSITIONS = 12_000  # length of CELM's stored sinusoid, beyond which its code cuts sessions off
# Rows at a time where no gradient is needed: few enough for a CPU's cache, enough to fill a GPU.
_ROWS, _ROWS_ON_GPU = 512, 16_384
_STORED_SINUSOID = "pos_enc.pe"


class FeedForward(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w1 = Linear(dim, hidden)
        self.w2 = Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.gelu(self.w1(x)))


class LinearSelfAttention(nn.Module):
    """Multi-head efficient attention: see `bioreport_kernels.linear_attention`, feature map ``"softmax"``."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = Linear(dim, dim, bias=False)
        self.to_k = Linear(dim, dim, bias=False)
        self.to_v = Linear(dim, dim, bias=False)
        self.to_out = Linear(dim, dim)

    def forward(self, x: Tensor, cu_seqlens: Tensor) -> Tensor:
        """x [rows, dim], sequences packed between the borders `cu_seqlens`."""
        q, k, v = (to(x).view(1, len(x), self.heads, -1) for to in (self.to_q, self.to_k, self.to_v))
        out = linear_attention(q, k, v, cu_seqlens=cu_seqlens)
        assert isinstance(out, Tensor)
        return self.to_out(out.view(len(x), -1))

    def context(self, parts: Iterable[Tensor]) -> LinearAttentionContext:
        """What the keys and values of one sequence leave behind, given in parts [rows, dim]; no gradient."""
        context = LinearAttentionContext()
        for x in parts:
            context.update(*(to(x).unflatten(1, (self.heads, -1)) for to in (self.to_k, self.to_v)))
        return context

    def attend(self, x: Tensor, context: LinearAttentionContext) -> Tensor:
        """The result for rows x [rows, dim] of the sequence."""
        return self.to_out(context.attend(self.to_q(x).unflatten(1, (self.heads, -1))).flatten(1))


class _PreNorm(nn.Module):
    """Holder that gives parameters their published names: ``norm`` and ``fn``."""

    def __init__(self, dim: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fn = fn


def _named(name: str, module: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict({name: module})


class LinearTransformer(nn.Module):
    """Pre-norm layers of linear attention and feed-forward, no norm at the end.

    Keys as in linear-attention-transformer 0.19: ``transformer.layers.layers.I.0`` is attention, ``.1`` the
    feed-forward.
    """

    def __init__(self, dim: int, depth: int, heads: int, ff_multiple: int) -> None:
        super().__init__()
        layers = nn.ModuleList(
            nn.ModuleList(
                [
                    _PreNorm(dim, LinearSelfAttention(dim, heads)),
                    _PreNorm(dim, _named("fn", FeedForward(dim, ff_multiple * dim))),
                ]
            )
            for _ in range(depth)
        )
        self.transformer = _named("layers", _named("layers", layers))

    def forward(self, x: Tensor, cu_seqlens: Tensor) -> Tensor:
        """x [rows, dim], sequences packed between the borders `cu_seqlens`."""
        rows = _ROWS if x.device.type == "cpu" else _ROWS_ON_GPU
        in_parts = len(cu_seqlens) == 2 and x.device.type == "cpu"
        for attention, feed_forward in self.transformer["layers"]["layers"]:  # type: ignore[index]
            if torch.is_grad_enabled():
                x = x + attention.fn(attention.norm(x), cu_seqlens)
                x = x + _feed(feed_forward, x)
                continue
            out = torch.empty_like(x)
            if in_parts:
                parts = x.split(rows)
                context = attention.fn.context(map(attention.norm, parts))
                for part, place in zip(parts, out.split(rows), strict=True):
                    torch.add(part, attention.fn.attend(attention.norm(part), context), out=place)
            else:
                torch.add(x, attention.fn(attention.norm(x), cu_seqlens), out=out)
            for part in out.split(rows):
                part.add_(_feed(feed_forward, part))
            x = out
        return x


def _feed(feed_forward: _PreNorm, x: Tensor) -> Tensor:
    return feed_forward.fn["fn"](feed_forward.norm(x))  # type: ignore[index]


class PerceiverBlock(nn.Module):
    """Queries attend to the tokens, then a feed-forward; both pre-norm with residuals."""

    def __init__(self, dim: int, heads: int, ff_multiple: int) -> None:
        super().__init__()
        self.cross_attn_norm_q = nn.LayerNorm(dim)
        self.cross_attn_norm_kv = nn.LayerNorm(dim)
        self.cross_attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.ff_norm = nn.LayerNorm(dim)
        # index 3 of the published sequence is the second linear: a dropout stands between
        self.ff = nn.Sequential(
            Linear(dim, ff_multiple * dim), nn.GELU(), nn.Identity(), Linear(ff_multiple * dim, dim)
        )

    def forward(self, queries: Tensor, tokens: Tensor, lengths: Sequence[int]) -> Tensor:
        """queries [S, N, dim], tokens [rows, dim] of S sessions one after the other."""
        attention, heads = self.cross_attn, self.cross_attn.num_heads
        weight, bias = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        keys = self.cross_attn_norm_kv(tokens)
        q, k, v = (
            linear(x, w, b).unflatten(-1, (heads, -1))
            for x, w, b in zip((self.cross_attn_norm_q(queries), keys, keys), weight, bias, strict=True)
        )
        if len(set(lengths)) == 1:
            together = [(q, k.unflatten(0, (len(lengths), -1)), v.unflatten(0, (len(lengths), -1)))]
        else:
            parts = (x.split(list(lengths)) for x in (k, v))
            together = [(one[None], *(x[None] for x in pair)) for one, *pair in zip(q, *parts, strict=True)]
        attended = torch.cat(
            [F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in each)) for each in together]
        )
        queries = queries + attention.out_proj(attended.transpose(1, 2).flatten(2))
        return queries + self.ff(self.ff_norm(queries))


class Projector(nn.Module):
    """Any of the four; built by `build_projector`.

    Parameters
    ----------
    encoder_dim, llm_dim : int
        Width of a token and of an embedding.
    depth : int
        Linear-attention layers.
    perceiver_depth : int
        Perceiver blocks; 0 gives one embedding a token.
    queries : int
        Embeddings of a session, where there is a perceiver.
    heads, ff_multiple, perceiver_ff_multiple : int
    combine : int
        Tokens that share an embedding, where there is no perceiver: the mean of so many neighbours after
        the linear attention, of fewer at a session's end.
    compat : {None, "celm"}
        ``"celm"`` cuts sessions off after 12,000 tokens where there is linear attention, as CELM's code does.
    """

    def __init__(
        self,
        encoder_dim: int,
        llm_dim: int,
        *,
        depth: int = 0,
        perceiver_depth: int = 0,
        queries: int = 256,
        heads: int = 8,
        ff_multiple: int = 4,
        perceiver_ff_multiple: int = 2,
        combine: int = 1,
        compat: str | None = None,
    ) -> None:
        super().__init__()
        if combine < 1 or (combine > 1 and perceiver_depth):
            raise ValueError(f"combine must be at least 1, and 1 with a perceiver, got {combine}")
        if compat not in (None, "celm"):
            raise ValueError(f"compat must be None or 'celm', got {compat!r}")
        if (depth or perceiver_depth) and encoder_dim % heads:
            raise ValueError(f"heads={heads} must divide encoder_dim={encoder_dim}")
        self.encoder_dim, self.llm_dim, self.compat = encoder_dim, llm_dim, compat
        self.combine = combine
        self.proj = Linear(encoder_dim, llm_dim)
        nn.init.xavier_uniform_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)
        self.transformer = LinearTransformer(encoder_dim, depth, heads, ff_multiple) if depth else None
        self.perceiver_blocks: nn.ModuleList | None = None
        if perceiver_depth:
            self.query_tokens = nn.Parameter(0.02 * torch.randn(1, queries, encoder_dim))
            self.perceiver_blocks = nn.ModuleList(
                PerceiverBlock(encoder_dim, heads, perceiver_ff_multiple) for _ in range(perceiver_depth)
            )
            self.final_norm = nn.LayerNorm(encoder_dim)
        self.register_load_state_dict_pre_hook(_drop_stored_sinusoid)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Project sessions.

        Parameters
        ----------
        tokens : Tensor, shape (B, T, encoder_dim) or (T, encoder_dim)
            Epoch tokens in the order of time, T from 1 on; without the first axis, B is 1.
        mask : bool Tensor, shape (B, T) or (T,), optional
            True where a token is. What lies elsewhere, NaN too, changes nothing.

        Returns
        -------
        Tensor, shape (B, T, llm_dim), or (B, queries, llm_dim) where there is a perceiver
            Zeros in place of masked tokens. With `combine`, (B, N, llm_dim): a session's embeddings, then
            zeros up to the longest session's ``N = ceil(T / combine)``.

        Raises
        ------
        ValueError
            For a shape or dtype that does not fit, or a session without a token.
        """
        if tokens.ndim == 2:
            tokens, mask = tokens.unsqueeze(0), None if mask is None else mask.reshape(1, -1)
        if tokens.ndim != 3 or tokens.shape[2] != self.encoder_dim or not tokens.shape[1]:
            raise ValueError(f"tokens must be [B, T >= 1, {self.encoder_dim}], got {list(tokens.shape)}")
        if mask is not None:
            if mask.dtype != torch.bool or mask.shape != tokens.shape[:2]:
                raise ValueError(
                    f"mask must be bool {list(tokens.shape[:2])}, got {mask.dtype} {list(mask.shape)}"
                )
            if not bool(mask.any(1).all()):
                raise ValueError("mask leaves a session without a token")
            if bool(mask.all()):
                mask = None
        if self.transformer is not None and self.compat == "celm":
            tokens = tokens[:, :MAX_POSITIONS]
            mask = None if mask is None else mask[:, :MAX_POSITIONS]
        batch, length, _ = tokens.shape
        if mask is None:
            rows, lengths = tokens.flatten(0, 1), [length] * batch
        else:
            rows, lengths = tokens[mask], mask.sum(1).tolist()
        out, lengths = self.packed(rows, lengths)
        if self.perceiver_blocks is not None or mask is None:
            return out.unflatten(0, (batch, -1))
        if self.combine > 1:
            return pad_sequence(out.split(lengths), batch_first=True)
        return out.new_zeros(batch, length, self.llm_dim).masked_scatter(mask.unsqueeze(2), out)

    def packed(self, tokens: Tensor, lengths: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Project sessions of any lengths, one after the other, without padding.

        Parameters
        ----------
        tokens : Tensor [rows, encoder_dim]
            The sessions' tokens.
        lengths : sequence of int
            Tokens of each session, from 1 on; their sum is the number of rows.

        Returns
        -------
        embeddings : Tensor [rows, llm_dim], or [sessions * queries, llm_dim] where there is a perceiver
            With `combine` fewer rows, see `lengths`.
        lengths : list of int
            Embeddings of each session.
        """
        lengths = list(lengths)
        if self.transformer is not None:
            if self.compat == "celm" and max(lengths) > MAX_POSITIONS:
                tokens = torch.cat([session[:MAX_POSITIONS] for session in tokens.split(lengths)])
                lengths = [min(length, MAX_POSITIONS) for length in lengths]
            table = sinusoid(max(lengths), self.encoder_dim, tokens.device).to(tokens.dtype)
            places = table if len(lengths) == 1 else torch.cat([table[:length] for length in lengths])
            borders = torch.tensor([0, *accumulate(lengths)], device=tokens.device)
            tokens = self.transformer(tokens + places, borders)
        if self.perceiver_blocks is None:
            return self.proj(_means(tokens, lengths, self.combine)), [-(-n // self.combine) for n in lengths]
        queries = self.query_tokens.expand(len(lengths), -1, -1)
        for block in self.perceiver_blocks:
            queries = block(queries, tokens, lengths)
        return self.proj(self.final_norm(queries)).flatten(0, 1), [queries.shape[1]] * len(lengths)


def _means(tokens: Tensor, lengths: Sequence[int], size: int) -> Tensor:
    """Means [groups, D] of each `size` neighbours within a session, of rows [sum of lengths, D]."""
    if size == 1:
        return tokens
    parts = []
    for session in tokens.split(list(lengths)):
        whole = len(session) // size * size
        parts.append(session[:whole].unflatten(0, (-1, size)).mean(1))
        if whole < len(session):
            parts.append(session[whole:].mean(0, keepdim=True))
    return torch.cat(parts)


# Sizes of CELM's checkpoints.
KINDS: Mapping[str, Mapping[str, int]] = {
    "linear": {},
    "sequence": {"depth": 2},
    "perceiver": {"perceiver_depth": 2},
    "sequence-perceiver": {"depth": 1, "perceiver_depth": 1},
}


def build_projector(kind: str, encoder_dim: int, llm_dim: int, **sizes: Any) -> Projector | AttentionAdapter:
    """A fresh projector.

    Parameters
    ----------
    kind : {"linear", "sequence", "perceiver", "sequence-perceiver", "attention"}
        CELM's four, and ECG-Tok's `AttentionAdapter`.
    encoder_dim, llm_dim : int
        Width of an epoch token and of the LLM's embeddings.
    **sizes
        What `Projector` or `AttentionAdapter` takes besides; by default the published sizes.

    Raises
    ------
    ValueError
        For an unknown kind, or sizes that do not fit it or one another.
    """
    wrong = "queries" if kind in ("linear", "sequence") else "combine"
    if wrong in sizes:
        raise ValueError(f"{wrong}={sizes[wrong]} is no size of a {kind} projector")
    if kind == "attention":
        return AttentionAdapter(encoder_dim, embedding=llm_dim, **{"width": encoder_dim, **sizes})
    if kind not in KINDS:
        raise ValueError(f"projector must be one of {', '.join(KINDS)} or attention, got {kind!r}")
    chosen: dict[str, Any] = {**KINDS[kind], **sizes}
    for name in ("depth", "perceiver_depth"):
        if bool(chosen.get(name)) != (name in KINDS[kind]):
            raise ValueError(f"{name}={chosen.get(name)} is no size of a {kind} projector")
    return Projector(encoder_dim, llm_dim, **chosen)


def sinusoid(length: int, dim: int, device: torch.device | None = None) -> Tensor:
    """Positional encoding of Vaswani et al. 2017, [length, dim]: sines in even, cosines in odd columns."""
    position = torch.arange(length, dtype=torch.float32, device=device).unsqueeze(1)
    rate = torch.exp(torch.arange(0, dim, 2, device=device) * (-math.log(10_000.0) / dim))
    table = torch.empty(length, dim, device=device)
    table[:, 0::2] = torch.sin(position * rate)
    table[:, 1::2] = torch.cos(position * rate[: dim // 2])
    return table


def _drop_stored_sinusoid(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    # a constant of the published checkpoints, 9.6 MB; computed here, for any length
    if isinstance(module, Projector) and module.transformer is not None:
        state_dict.pop(prefix + _STORED_SINUSOID, None)
