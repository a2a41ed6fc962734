"""Linear attention of a sequence that comes in parts: one pass over the keys, one over the queries.

With the ``"softmax"`` feature map (Shen et al. 2021, Efficient Attention) the sequence enters only through,
for each key feature, a maximum, a sum and a weighted sum of values. These are merged over parts exactly, as
in an online softmax, so a sequence of any length needs memory for one part.
"""

import torch
from torch import Tensor

from bioreport_kernels.reference import accumulation_dtype


class LinearAttentionContext:
    """What the keys and values of one sequence leave behind, [H, Dk, Dv]; inference only.

    Examples
    --------
    >>> import torch
    >>> context = LinearAttentionContext()
    >>> for k, v in [(torch.randn(5, 2, 4), torch.randn(5, 2, 4)) for _ in range(3)]:
    ...     context.update(k, v)
    >>> context.attend(torch.randn(7, 2, 4)).shape
    torch.Size([7, 2, 4])
    """

    def __init__(self) -> None:
        self._state: tuple[Tensor, Tensor, Tensor] | None = None

    @torch.no_grad()
    def update(self, k: Tensor, v: Tensor) -> None:
        """Take the next part: keys k [T, H, Dk] and values v [T, H, Dv]; T may be 0."""
        if not len(k):
            return
        wide = accumulation_dtype(k.dtype)
        k, v = k.to(wide).transpose(0, 1), v.to(wide).transpose(0, 1)
        top = k.amax(1)
        weight = (k - top[:, None]).exp()
        total, values = weight.sum(1), weight.transpose(1, 2) @ v
        if self._state is not None:
            known_top, known_total, known_values = self._state
            merged = torch.maximum(top, known_top)
            old, new = (known_top - merged).exp(), (top - merged).exp()
            total = known_total * old + total * new
            values = known_values * old[..., None] + values * new[..., None]
            top = merged
        self._state = top, total, values

    @torch.no_grad()
    def attend(self, q: Tensor, scale: float | None = None) -> Tensor:
        """Output [T, H, Dv] of queries q [T, H, Dk], in q's dtype.

        Raises
        ------
        ValueError
            Where no key has been taken.
        """
        if self._state is None:
            raise ValueError("no keys yet: call update first")
        _, total, values = self._state
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        context = values / total[..., None] * factor
        out = q.to(values.dtype).softmax(-1).transpose(0, 1) @ context
        return out.transpose(0, 1).to(q.dtype)
