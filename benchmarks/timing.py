"""Measure several implementations of one operation side by side, in one run.

All of a case take turns, so that drifting clocks and busy neighbours meet them alike. Before the time of an
implementation counts, its result is compared with ours; a difference beyond the case's tolerance is written
in its row.

On a GPU a row has the time between two events after the L2 cache was flushed (median, 20 and 80 %), the time
of one call among many inside a CUDA graph (caches warm, no host), the wall-clock time of a call among many
without a graph (host included), and the memory that a call needs at its peak beside its inputs. On a CPU it
has wall-clock times; peak memory there is measured in a process of its own (`operators.py`). Bytes and flops
are those that the operation cannot do without, and each rate is put beside the copy bandwidth and the matrix
rates that the same machine reached in the same run.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

Outputs = tuple[Tensor, ...]
Run = Callable[[], Any]
OURS = "bioreport"
# seconds of measuring for each implementation of a case, and the fewest and most rounds of it
SECONDS, FEWEST, MOST = 0.3, 3, 50
IN_A_GRAPH = 20


class Absent(ImportError):
    """A peer that cannot run here; the sentence says why."""


@dataclass(frozen=True)
class Provider:
    """One implementation.

    Attributes
    ----------
    name : str
    role : str
        What it is, in one line.
    build : callable
        From the case's inputs to a function without arguments that is timed.
    view : callable
        From what that function returns to tensors as ours are; not timed.
    same : bool
        False where it computes something else, and is shown for scale only.
    """

    name: str
    role: str
    build: Callable[[Any], Run]
    view: Callable[[Any], Outputs] = lambda raw: raw if isinstance(raw, tuple) else (raw,)
    same: bool = True


@dataclass(frozen=True)
class Case:
    """One shape of one operator.

    Attributes
    ----------
    operator, name : str
        The name is unique within the operator.
    dtype : torch.dtype
    bytes, flops : int
        What the operation must at least move and compute.
    inputs : callable
        From a device to whatever `Provider.build` takes.
    providers : tuple of Provider
        Ours first.
    tolerance : float
        Largest relative root mean square of the difference from our result, or where `codes`, the largest
        share of rows whose codes differ.
    codes : bool
        The first output holds codes, and is what is compared.
    grad : bool
        Whether gradients are needed.
    wrong : callable, optional
        From inputs and outputs to the share of wrong rows, by float64; given for every implementation.
    shape : dict
        Sizes by name, for the tables.
    """

    operator: str
    name: str
    dtype: torch.dtype
    bytes: int
    flops: int
    inputs: Callable[[torch.device], Any]
    providers: tuple[Provider, ...]
    tolerance: float
    codes: bool = False
    grad: bool = False
    wrong: Callable[[Any, Outputs], float] | None = None
    shape: dict[str, Any] = field(default_factory=dict)


def measure(
    case: Case,
    device: torch.device,
    limits: dict[str, float],
    *,
    seconds: float = SECONDS,
    skip: tuple[str, ...] = (),
    starting: Callable[[str], None] = lambda name: None,
) -> list[dict[str, Any]]:
    """Rows of one case, one for each implementation, ours first.

    Parameters
    ----------
    limits : dict
        As `machine_limits` gives it.
    seconds : float
        For each implementation.
    skip : tuple of str
        Implementations to leave out.
    starting : callable
        Told the name of what is about to run, so that whoever waits knows what hangs.
    """
    rows: list[dict[str, Any]] = []
    with torch.set_grad_enabled(case.grad):
        inputs = case.inputs(device)
        ready: list[tuple[dict[str, Any], Run]] = []
        ours: Outputs | None = None
        for provider in case.providers:
            if provider.name in skip:
                continue
            row: dict[str, Any] = {
                "operator": case.operator,
                "case": case.name,
                **case.shape,
                "dtype": str(case.dtype).removeprefix("torch."),
                "provider": provider.name,
                "role": provider.role,
            }
            rows.append(row)
            starting(provider.name)
            try:
                run = provider.build(inputs)
                raw = run()
                if device.type == "cuda":
                    del raw
                    row["peak_mb"], raw = _peak_memory(run)
                outputs = tuple(t.detach() for t in provider.view(raw))
                del raw
                if ours is None and provider.name == OURS:
                    ours = outputs
                    row |= {"input_mb": _megabytes(inputs), "output_mb": _megabytes(outputs)}
                if provider.same:
                    row |= _compare(case, inputs, outputs, ours)
                else:
                    row["another_operation"] = True
            except ImportError as error:
                row["missing"] = _sentence(error)
            except Exception as error:
                row["problem"] = _sentence(error)
            else:
                ready.append((row, run))
        for row, times in zip(
            [row for row, _ in ready],
            _interleaved(
                [run for _, run in ready], device, seconds, [row["provider"] for row, _ in ready], starting
            ),
            strict=True,
        ):
            row |= _statistics(times)
        for row, run in ready:
            starting(row["provider"])
            if device.type == "cuda":
                row |= _wall_and_graph(run, row["ms"])
            _rates(row, case, limits)
        own = next((row for row in rows if row["provider"] == OURS and "ms" in row), None)
        for row in rows:
            if own is not None and "ms" in row:
                row["ratio"] = row["ms"] / own["ms"]
                if "graph_ms" in row and "graph_ms" in own:
                    row["graph_ratio"] = row["graph_ms"] / own["graph_ms"]
    return rows


def _megabytes(held: Any) -> float:
    """Of all tensors in nested tuples."""
    if isinstance(held, Tensor):
        return held.numel() * held.element_size() / 1e6
    return sum(map(_megabytes, held)) if isinstance(held, tuple) else 0.0


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200] if lines else 'without a message'}"


def _compare(case: Case, inputs: Any, outputs: Outputs, ours: Outputs | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if case.wrong is not None:
        found["wrong"] = case.wrong(inputs, outputs)
    if ours is None or outputs is ours:
        return found
    if case.codes:
        theirs, own = outputs[0].flatten(1) if outputs[0].ndim > 1 else outputs[0][:, None], ours[0]
        differing = (theirs != own.reshape(theirs.shape)).any(1).double().mean().item()
        found["differing"] = differing
    else:
        differing = max(relative_rms(a, b) for a, b in zip(outputs, ours, strict=True))
        found["error"] = differing
    if not differing <= case.tolerance:
        kind = "share of rows with other codes" if case.codes else "relative RMS"
        found["mismatch"] = f"{kind} {differing:.2g} over {case.tolerance:.2g}"
    return found


def relative_rms(got: Tensor, want: Tensor) -> float:
    """Root mean square of the difference over that of what is wanted; in parts, for large tensors."""
    if got.shape != want.shape:
        return math.inf
    difference = scale = 0.0
    for a, b in zip(_parts(got), _parts(want), strict=True):
        difference += (a.float() - b.float()).square().sum(dtype=torch.float64).item()
        scale += b.float().square().sum(dtype=torch.float64).item()
    return math.sqrt(difference / scale) if scale else math.sqrt(difference)


def _parts(x: Tensor) -> Iterator[Tensor]:
    return iter(x.reshape(-1).split(1 << 26))


def _peak_memory(run: Run) -> tuple[float, Any]:
    """MB of the GPU that a call needs at its peak beside what is there; and what it returns."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    raw = run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6, raw


def _interleaved(
    runs: list[Run],
    device: torch.device,
    seconds: float,
    names: Sequence[str] | None = None,
    starting: Callable[[str], None] = lambda name: None,
) -> list[list[float]]:
    """Milliseconds of every call of each; slow ones take part in fewer rounds."""
    if device.type == "cuda":
        return _interleaved_events(runs, seconds)
    rounds = []
    names = names or [""] * len(runs)
    for run, name in zip(runs, names, strict=True):
        starting(name)
        rounds.append(_rounds(_wall(run), seconds))
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(max(rounds, default=0)):
        for run, name, count, taken in zip(runs, names, rounds, times, strict=True):
            if turn < count:
                if count == FEWEST:  # slow: whoever waits must not take it for one that hangs
                    starting(name)
                taken.append(1e3 * _wall(run))
    return times


def _interleaved_events(runs: list[Run], seconds: float) -> list[list[float]]:
    # twice the L2 cache
    size = 2 * torch.cuda.get_device_properties().L2_cache_size
    flush = torch.empty(size, dtype=torch.int8, device="cuda")

    def timed(run: Run) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        start.record()
        run()
        stop.record()
        return start, stop

    rounds = []
    for run in runs:
        start, stop = timed(run)
        torch.cuda.synchronize()
        rounds.append(_rounds(start.elapsed_time(stop) / 1e3, seconds))
    times: list[list[float]] = [[] for _ in runs]
    for turn in range(max(rounds, default=0)):
        events = [(timed(run), taken) for run, n, taken in zip(runs, rounds, times, strict=True) if turn < n]
        torch.cuda.synchronize()
        for (start, stop), taken in events:
            taken.append(start.elapsed_time(stop))
    return times


def _rounds(once: float, seconds: float) -> int:
    return min(max(int(seconds / max(once, 1e-9)), FEWEST), MOST)


def _wall(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _statistics(times: list[float]) -> dict[str, Any]:
    ordered = sorted(times)

    def quantile(share: float) -> float:
        return ordered[round(share * (len(ordered) - 1))]

    return {
        "ms": statistics.median(ordered),
        "ms_20": quantile(0.2),
        "ms_80": quantile(0.8),
        "rounds": len(ordered),
    }


def _wall_and_graph(run: Run, once_ms: float) -> dict[str, Any]:
    """Wall-clock time of a call among many, and of one inside a CUDA graph of many, in ms."""
    many = min(max(int(20 / once_ms), 1), IN_A_GRAPH)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(many):
        run()
    torch.cuda.synchronize()
    found: dict[str, Any] = {"wall_ms": 1e3 * (time.perf_counter() - start) / many}
    try:
        replay = captured(run, many)
        times = []
        for _ in range(10):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            replay()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / many)
        found["graph_ms"] = statistics.median(times)
    except Exception as error:
        found["no_graph"] = _sentence(error)
    return found


def captured(run: Run, times: int = 1) -> Callable[[], None]:
    """Replay of a CUDA graph in which `run` is called so many times."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(times):
            run()
    return graph.replay


def _rates(row: dict[str, Any], case: Case, limits: dict[str, float]) -> None:
    if row.get("another_operation"):
        return
    best = row["ms"]
    row["gb_s"] = case.bytes / best / 1e6
    row["tflops"] = case.flops / best / 1e9
    row["share_of_copy"] = row["gb_s"] / limits["copy_gb_s"]
    row["share_of_bf16"] = row["tflops"] / limits["bf16_tflops"]


def machine_limits(device: torch.device, smoke: bool = False) -> dict[str, float]:
    """Copy bandwidth (GB/s, read and written) and matrix rates (TF/s) that this machine reaches now."""
    count, side = (1 << 29, 8192) if device.type == "cuda" else (1 << 26, 2048)
    if smoke:
        count, side = 1 << 16, 128
    source, target = (torch.empty(count, dtype=torch.bfloat16, device=device) for _ in range(2))
    source.zero_()
    # the faster of a plain copy and a kernel that reads and writes
    runs: list[Run] = [lambda: target.copy_(source), lambda: torch.mul(source, 1, out=target)]
    dtypes = (torch.bfloat16, torch.float32)
    for dtype in dtypes:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        runs.append(partial(torch.mm, a, b, out=torch.empty_like(a)))
    with torch.no_grad():
        for run in runs:
            run()
        taken = [statistics.median(times) for times in _interleaved(runs, device, SECONDS)]
    rates = dict(zip(dtypes, (2 * side**3 / ms / 1e9 for ms in taken[2:]), strict=True))
    return {
        "copy_gb_s": 2 * 2 * count / min(taken[:2]) / 1e6,
        "bf16_tflops": rates[torch.bfloat16],
        "float32_tflops": rates[torch.float32],
    }


def compiled(function: Callable[..., Any], smoke: bool) -> Callable[..., Any]:
    """torch.compile of a function for one shape; in a smoke test without its compiler."""
    torch.compiler.reset()
    return torch.compile(function, dynamic=False, backend="eager" if smoke else "inductor")


def describe(row: dict[str, Any]) -> str:
    """One line of a row, for a terminal."""
    start = f"{row['operator']:18} {row['case']:44} {row['provider']:28}"
    for key in ("missing", "problem"):
        if key in row:
            return f"{start} {key}: {row[key]}"
    parts = [f"{row['ms']:10.4f} ms [{row['ms_20']:.4f}–{row['ms_80']:.4f}]"]
    if "graph_ms" in row:
        parts.append(f"graph {row['graph_ms'] * 1e3:.1f} µs")
    if "gb_s" in row:
        parts.append(f"{row['gb_s']:.0f} GB/s ({row['share_of_copy']:.0%} of copy)")
        parts.append(f"{row['tflops']:.1f} TF/s ({row['share_of_bf16']:.0%} of bf16)")
    if "peak_mb" in row:
        parts.append(f"peak {row['peak_mb']:.0f} MB")
    if "ratio" in row and row["provider"] != OURS:
        parts.append(f"{row['ratio']:.2f} × ours")
    if "mismatch" in row:
        parts.append(f"MISMATCH {row['mismatch']}")
    return f"{start} {'; '.join(parts)}"
