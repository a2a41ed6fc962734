"""Linear attention of a sequence that comes in parts: one pass over the keys, one over the queries.

With the ``"softmax"`` feature map (Shen et al. 2021, Efficient Attention) the sequence enters only through,
for each key feature, a maximum, a sum and a weighted sum of values. These are merged over parts exactly, as
in an online softmax, so a sequence of any length needs memory for one part.
"""

import torch
from torch import Tensor

from bioreport_kernels.cpu.linear import Sums, attend, with_norm
from bioreport_kernels.cpu.sequences import Scratch
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
        self._sums: Sums | None = None
        # what `attend` multiplies with, by scale, until the next keys come
        self._ready: dict[float, Tensor] = {}

    @torch.no_grad()
    def update(self, k: Tensor, v: Tensor) -> None:
        """Take the next part: keys k [T, H, Dk] and values v [T, H, Dv]; T may be 0."""
        if not len(k):
            return
        if self._sums is None:
            self._sums = Sums("softmax", Scratch(k))
        wide = accumulation_dtype(k.dtype)
        self._sums.add(k.to(wide), v.to(wide))
        self._ready.clear()

    @torch.no_grad()
    def attend(self, q: Tensor, scale: float | None = None) -> Tensor:
        """Output [T, H, Dv] of queries q [T, H, Dk], in q's dtype.

        Raises
        ------
        ValueError
            Where no key has been taken.
        """
        if self._sums is None:
            raise ValueError("no keys yet: call update first")
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        if factor not in self._ready:
            known, _, total = self._sums.result()
            self._ready[factor] = with_norm("softmax", known, total, factor)
        context = self._ready[factor]
        out = context.new_empty(*q.shape[:2], context.shape[2] - 1)
        attend("softmax", q.to(context.dtype), context, self._sums.scratch, out)
        return out.to(q.dtype)
