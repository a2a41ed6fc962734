"""Sequences side by side in parts of time, for operators whose sums run over time.

An array is then [time, sequences × heads, width]: of one long sequence that is a view of [B, T, H, D],
products over it are batched ones without a copy, and sums over time run along contiguous rows.
"""

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from bioreport_kernels.reference import accumulation_dtype

# Numbers in a part of one array: a few such parts stay in the caches of a core.
PART = 2**18


@dataclass(frozen=True)
class Group:
    """One sequence, or several of about one length.

    `sequences` are their numbers among all. They are slices of the axes B and T; or, packed and not of one
    length, gathered by `rows` [length, count], of which `padding` marks those that repeat a last row.
    """

    sequences: slice | Tensor
    count: int
    length: int
    batch: slice
    start: int = 0
    rows: Tensor | None = None
    padding: Tensor | None = None

    def parts(self, most: int) -> list["Part"]:
        """Time in equal steps of at most so many rows."""
        step = math.ceil(self.length / math.ceil(self.length / most))
        return [Part(self, t, min(t + step, self.length)) for t in range(0, self.length, step)]


@dataclass(frozen=True)
class Part:
    """Times `start` to `stop` of a group."""

    group: Group
    start: int
    stop: int

    def take(self, x: Tensor) -> Tensor:
        """Its rows of x [B, T, H, D], in the dtype of accumulation; a view where it can be."""
        wide = accumulation_dtype(x.dtype)
        if self.group.rows is None:
            return self._rows(x).flatten(1, -2).to(wide)
        rows = self.group.rows[self.start : self.stop]
        return x[0].index_select(0, rows.flatten()).to(wide).view(len(rows), -1, x.shape[3])

    def room(self, x: Tensor, scratch: "Scratch") -> Tensor:
        """Where to compute what `put` then writes to its rows of x [B, T, H, D]: there, if it can be."""
        if self._in_place(x):
            return self._rows(x)
        return scratch("room", self.stop - self.start, self.group.count * x.shape[2], x.shape[3])

    def put(self, x: Tensor, value: Tensor) -> None:
        """Write to x what was computed in its `room`."""
        if self._in_place(x):
            return
        if self.group.rows is None:
            rows = self._rows(x)
            rows.copy_(value.view(rows.shape))
        else:
            real = ~self._padding
            rows = self.group.rows[self.start : self.stop][real]
            x[0].index_copy_(0, rows, value.unflatten(1, (self.group.count, -1))[real].to(x.dtype))

    def without_padding(self, x: Tensor) -> Tensor:
        """x [time, sequences × heads, D], contiguous, with zeros, in place, in the rows that only pad."""
        if self.group.padding is not None:
            x.view(self.stop - self.start, self.group.count, -1).masked_fill_(self._padding.unsqueeze(2), 0)
        return x

    @property
    def _padding(self) -> Tensor:
        assert self.group.padding is not None
        return self.group.padding[self.start : self.stop]

    def _in_place(self, x: Tensor) -> bool:
        return self.group.count == 1 and self.group.rows is None and x.dtype == accumulation_dtype(x.dtype)

    def _rows(self, x: Tensor) -> Tensor:
        """A view of its rows: [time, H, D] of one sequence, [time, count, H, D] of several."""
        group = self.group
        time = slice(group.start + self.start, group.start + self.stop)
        return x[group.batch.start, time] if group.count == 1 else x[group.batch, time].transpose(0, 1)


class Scratch:
    """Memory that parts after one another use again: fresh memory costs as much as what is computed in it."""

    def __init__(self, like: Tensor) -> None:
        self.device, self.dtype = like.device, accumulation_dtype(like.dtype)
        self.memory: dict[str, Tensor] = {}

    def __call__(self, name: str, *shape: int) -> Tensor:
        """Uninitialized memory of that shape, the same under the same name."""
        found = self.memory.get(name)
        if found is not None and found.shape == shape:
            return found
        size = math.prod(shape)
        known = 0 if found is None else found.untyped_storage().nbytes() // found.element_size()
        if found is None or known < size:
            # of this mode a tensor could not be written in the other
            with torch.inference_mode(False):
                found = torch.empty(size, dtype=self.dtype, device=self.device)
        self.memory[name] = found.as_strided((size,), (1,)).view(shape)
        return self.memory[name]


_of_this_thread = threading.local()


def scratch_of(x: Tensor) -> Scratch:
    """Scratch memory for operations on x; on a CPU the thread's own, kept from call to call."""
    if x.device.type != "cpu":
        # calls on other streams may not have ended
        return Scratch(x)
    return vars(_of_this_thread).setdefault(str(accumulation_dtype(x.dtype)), Scratch(x))


def groups(x: Tensor, cu_seqlens: Tensor | None, rows: int) -> Iterator[Group]:
    """The sequences of x [B, T, …], but for empty ones; together where they have at most so many rows.

    Packed sequences shorter than half of that stand with others of half to once their length.
    """
    if cu_seqlens is None:
        batch, length = x.shape[:2]
        together = max(1, rows // max(1, length))
        for start in range(0, batch if length else 0, together):
            some = slice(start, min(start + together, batch))
            yield Group(some, some.stop - start, length, some)
        return
    short = []
    for index, (start, stop) in enumerate(pairwise(cu_seqlens.tolist())):
        if 2 * (stop - start) > rows:
            yield Group(slice(index, index + 1), 1, stop - start, slice(0, 1), start)
        elif start < stop:
            short.append((stop - start, index))
    short.sort(reverse=True)
    first = 0
    while first < len(short):
        longest = short[first][0]
        end = first + 1
        most = min(len(short), first + rows // longest)
        while end < most and 2 * short[end][0] >= longest:
            end += 1
        yield _padded([index for _, index in short[first:end]], longest, cu_seqlens, x.device)
        first = end


def _padded(indices: list[int], longest: int, cu_seqlens: Tensor, device: torch.device) -> Group:
    sequences = torch.tensor(indices, device=device)
    borders = cu_seqlens.to(device, torch.int64)
    last = borders[sequences + 1] - 1
    rows = borders[sequences] + torch.arange(longest, device=device).unsqueeze(1)
    one = slice(0, 1)
    return Group(sequences, len(indices), longest, one, 0, torch.minimum(rows, last), rows > last)
