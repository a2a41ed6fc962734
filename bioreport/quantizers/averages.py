"""Codewords that follow moving averages, and what happens to those that nobody chooses.

Van den Oord et al. 2017, appendix A.1, with the counts of choices as shares.
"""

import torch
from torch import Tensor

# A new codeword, of the start or of a reset, counts as chosen this many times the least share: one that
# nobody chooses is reset after 69 steps at a decay of 0.99. Counted as chosen evenly it would take 300, in
# which an encoder that learns leaves most codewords behind.
GRACE = 2.0


def fresh_share(codewords: int, least_used: float) -> float:
    """Share of the choices that a new codeword counts as having; an even one where none is ever reset."""
    return (GRACE * least_used or 1.0) / codewords


def step_sizes(chosen: Tensor, share: Tensor, decay: float) -> Tensor:
    """How far each codeword [K] moves to the mean of the vectors that chose it now, 0 to 1.

    By its `share` [K] of the averaged shares `chosen` [K]: as averages of sums over those of counts move.
    """
    return (1 - decay) * share / (decay * chosen + (1 - decay) * share).clamp(min=1e-12)


def fallen_out(chosen: Tensor, share: Tensor, decay: float, least_used: float) -> Tensor:
    """Average the shares [K] of the choices into `chosen`; returns the codewords [≤ K] to place anew.

    They are those whose average is below `least_used` of an even share; in `chosen` they are new again.
    """
    count = len(chosen)
    chosen.mul_(decay).add_(share, alpha=1 - decay)
    lost = (chosen * count < least_used).nonzero().squeeze(1)
    chosen[lost] = fresh_share(count, least_used)
    return lost


def some_rows(count: int, rows: Tensor) -> Tensor:
    """Indices [count] of rows at random."""
    return torch.randint(len(rows), (count,), device=rows.device)
