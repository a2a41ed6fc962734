"""From a tokenizer's vectors to embeddings of the language model (ECG-Tok's adapter).

Linear, learned positions, one self-attention with a residual, then the mean over frames and a linear layer:
one context vector, as the paper has it. Its own critique is that one vector is little; `queries` > 1 takes
as many learned queries over the frames instead of the mean.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AttentionAdapter(nn.Module):
    """Vectors [B, T, D] to embeddings [B, queries, E].

    Parameters
    ----------
    dim : int
        D, width of the tokenizer's vectors.
    width : int
        Inside.
    embedding : int
        E, width of the language model.
    positions : int
        Most frames; longer inputs are refused.
    queries : int
        Embeddings a recording becomes: 1 is the published mean, 2 to 64 learned queries.
    heads : int
    """

    def __init__(
        self, dim: int, width: int, embedding: int, *, positions: int = 512, queries: int = 1, heads: int = 4
    ) -> None:
        super().__init__()
        if not 1 <= queries <= 64:
            raise ValueError(f"queries must be from 1 to 64, got {queries}")
        self.project = nn.Linear(dim, width)
        self.positions = nn.Parameter(torch.randn(positions, width) * 0.02)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.queries = nn.Parameter(torch.randn(queries, width) * width**-0.5) if queries > 1 else None
        self.out = nn.Linear(width, embedding)

    def forward(self, vectors: Tensor, present: Tensor | None = None) -> Tensor:
        """Embeddings; `present` [B, T] is True where a frame counts (all by default).

        Raises
        ------
        ValueError
            For more frames than there are positions.
        """
        length = vectors.shape[1]
        if length > len(self.positions):
            raise ValueError(f"{length} frames are more than this adapter's {len(self.positions)} positions")
        x = self.project(vectors) + self.positions[:length]
        absent = None if present is None else ~present
        x = x + self.attention(x, x, x, key_padding_mask=absent, need_weights=False)[0]
        if self.queries is None:
            if present is None:
                pooled = x.mean(1, keepdim=True)
            else:
                weight = present.unsqueeze(2).to(x.dtype)
                pooled = ((x * weight).sum(1) / weight.sum(1).clamp(min=1)).unsqueeze(1)
        else:
            scores = F.linear(x, self.queries).transpose(1, 2) * x.shape[2] ** -0.5
            if absent is not None:
                scores = scores.masked_fill(absent.unsqueeze(1), torch.finfo(scores.dtype).min)
            pooled = scores.softmax(2) @ x
        return self.out(pooled)

    def packed(self, vectors: Tensor, lengths: Sequence[int]) -> tuple[Tensor, list[int]]:
        """Recordings of any lengths one after the other, [rows, D]; as `Projector.packed`."""
        if len(set(lengths)) == 1:
            embeddings = self(vectors.unflatten(0, (len(lengths), -1)))
        else:
            embeddings = torch.cat([self(each[None]) for each in vectors.split(list(lengths))])
        return embeddings.flatten(0, 1), [embeddings.shape[1]] * len(lengths)
