"""Codewords that follow moving averages, and what happens to those that nobody chooses.

Van den Oord et al. 2017, appendix A.1, with the counts of choices as shares.
"""

import torch
from torch import Tensor


def step_sizes(chosen: Tensor, share: Tensor, decay: float) -> Tensor:
    """How far each codeword [K] moves to the mean of the vectors that chose it now, 0 to 1.

    By its `share` [K] of the averaged shares `chosen` [K]: as averages of sums over those of counts move.
    """
    return (1 - decay) * share / (decay * chosen + (1 - decay) * share).clamp(min=1e-12)


def note_choices(
    book: Tensor, chosen: Tensor, share: Tensor, rest: Tensor, decay: float, least_used: float
) -> None:
    """Average the shares [K] of the choices, and reset codewords [K, D] that fell out of use.

    Where the average `chosen` is below `least_used` of an even share, the codeword becomes one of the vectors
    `rest` [N, D], and counts as chosen evenly. Changes `book` and `chosen`.
    """
    count = len(book)
    chosen.mul_(decay).add_(share, alpha=1 - decay)
    unused = chosen * count < least_used
    if unused.any():
        book[unused] = rest[torch.randint(len(rest), (int(unused.sum()),), device=rest.device)]
        chosen[unused] = 1 / count
