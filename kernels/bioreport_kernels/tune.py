"""Find the fastest launch settings on this machine's GPU: ``python -m bioreport_kernels.tune -o FILE``.

Every kernel that an operator's cases launch is timed with each of its module's candidates, in turns with the
best setting so far. ``BIOREPORT_KERNEL_CONFIG=FILE`` makes the operators use what was found. Run the kernels'
tests with it, too: results are not looked at here.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bioreport_kernels.compile_ahead import OPERATORS
from bioreport_kernels.configs import VARIABLE, Setting, Tables, architecture, shipped, trying, watching

if TYPE_CHECKING:
    from bioreport_kernels.gpu.launch import Case

# Times that two settings are compared, launches each time, and the share that a better one must save.
ROUNDS, LAUNCHES, LEAST_GAIN = 6, 5, 0.02

# Seconds of one launch, given what launches it.
Clock = Callable[[Callable[[], None]], float]


@dataclass
class Job:
    """One entry of a table: what launches it, what to try, and the best setting so far."""

    kernel: str
    shipped: Setting
    cases: list["Case"]
    candidates: Iterator[Setting]
    best: Setting
    share: float = 1.0
    refused: int = 0

    def __str__(self) -> str:
        changed = {name: n for name, n in self.best.items() if n != self.shipped.get(name)}
        place = f"{self.kernel}, dim {self.shipped['dim']}, {self.shipped['bits']} bits"
        return f"{place}: {1 - self.share:.0%} less time than as shipped with {changed}"


def seconds(launch: Callable[[], None]) -> float:
    """By CUDA events, after a launch that compiles and warms up."""
    launch()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(LAUNCHES):
        launch()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / LAUNCHES


def jobs(cases: Iterable["Case"], candidates: dict[str, list[Setting]], device: torch.device) -> list[Job]:
    """The entries that the cases launch with, of kernels that have candidates."""
    from bioreport_kernels.gpu.launch import redirected

    found: dict[tuple[str, int, int], Job] = {}
    for case in cases:
        launched: list[tuple[str, Setting]] = []
        with watching() as seen, redirected(lambda *_: launched.append(seen[-1])):  # noqa: B023
            case.run(device)
        for kernel, entry in launched:
            if kernel in candidates:
                fresh = Job(kernel, entry, [], _nearest_first(entry, candidates[kernel]), entry)
                job = found.setdefault((kernel, entry["dim"], entry["bits"]), fresh)
                if case not in job.cases:
                    job.cases.append(case)
    return list(found.values())


def _nearest_first(entry: Setting, candidates: list[Setting]) -> Iterator[Setting]:
    """Candidates as entries, those first that change least."""
    entries = [{**entry, **candidate} for candidate in candidates]
    changes = [sum(entry.get(name) != n for name, n in e.items()) for e in entries]
    return iter([entries[i] for i in sorted(range(len(entries)), key=changes.__getitem__) if changes[i]])


def measure(job: Job, entry: Setting, device: torch.device, clock: Clock) -> float:
    """Seconds of a job's launches with this entry in place of the shipped one, summed over its cases."""
    from bioreport_kernels.gpu.launch import redirected

    total = 0.0

    def launch(
        kernel: Any, grid: tuple[int, ...], arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        nonlocal total
        if 0 in grid:
            return
        if seen[-1] == (job.kernel, entry):
            total += clock(lambda: kernel[grid](*arguments, **options))
        else:
            kernel[grid](*arguments, **options)

    with watching() as seen, trying(job.kernel, entry), redirected(launch):
        for case in job.cases:
            case.run(device)
    return total


def improve(job: Job, candidate: Setting, device: torch.device, clock: Clock) -> bool:
    """Whether a candidate is faster than the best so far, and takes its place; not where it cannot run."""
    try:
        measure(job, candidate, device, clock)
    except Exception:
        # registers, shared memory, a tile that the compiler refuses: Triton raises many kinds
        job.refused += 1
        if device.type == "cuda":
            # raises where the device itself has failed: nothing can be measured after that
            torch.cuda.synchronize(device)
        return False
    times: tuple[list[float], list[float]] = [], []
    for turn in range(ROUNDS):
        # either is first every other time: a clock that drifts favours neither
        for side in (0, 1) if turn % 2 else (1, 0):
            times[side].append(measure(job, (job.best, candidate)[side], device, clock))
    before, after = map(statistics.median, times)
    if after > before * (1 - LEAST_GAIN):
        return False
    job.best, job.share = candidate, job.share * after / before
    return True


def tune(
    work: list[Job],
    device: torch.device,
    clock: Clock,
    budget: float | None = None,
    improved: Callable[[Job], None] = lambda job: None,
) -> None:
    """Try the candidates of every job in turn, so that a budget in seconds is spent on all alike.

    `improved` is called with a job whenever it has a better setting.
    """
    end = None if budget is None else time.monotonic() + budget
    waiting = list(work)
    while waiting:
        for job in list(waiting):
            candidate = None if end is not None and time.monotonic() > end else next(job.candidates, None)
            if candidate is None:
                waiting.remove(job)
            elif improve(job, candidate, device, clock):
                improved(job)


def tables(work: list[Job], arch: str) -> Tables:
    """The best settings in the form of `configs`, each kernel's other shipped entries beside them."""
    # without these a wider entry of the user's file would come before a shipped one that fits
    found = {job.kernel: list(shipped()[arch][job.kernel]) for job in work}
    for job in work:
        found[job.kernel] = [job.best if entry == job.shipped else entry for entry in found[job.kernel]]
    return {arch: found}


def write(path: Path, content: Tables) -> None:
    """As JSON, whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump(content, file, indent=1)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bioreport_kernels.tune", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("kernel_settings.json"), metavar="FILE")
    parser.add_argument("--operator", action="append", choices=OPERATORS)
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="then stop with the best so far")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("tuning needs a CUDA device, and PyTorch finds none here", file=sys.stderr)
        return 2
    if not options.output.absolute().parent.is_dir():
        parser.error(f"no such folder: {options.output.absolute().parent}")
    # gains are over what is shipped
    os.environ.pop(VARIABLE, None)
    device = torch.device("cuda", torch.cuda.current_device())
    arch = architecture(device)
    modules = [import_module(f"bioreport_kernels.gpu.{name}") for name in options.operator or OPERATORS]
    candidates = {kernel: listed for module in modules for kernel, listed in module.CANDIDATES.items()}
    work = jobs((case for module in modules for case in module.cases()), candidates, device)
    print(f"{len(work)} entries of {arch}, on {torch.cuda.get_device_name(device)}", file=sys.stderr)

    def improved(job: Job) -> None:
        write(options.output, tables(work, arch))
        print(job, file=sys.stderr, flush=True)

    write(options.output, tables(work, arch))
    tune(work, device, seconds, options.budget, improved)
    better, refused = sum(job.best != job.shipped for job in work), sum(job.refused for job in work)
    print(
        f"{options.output}: {better} of {len(work)} entries faster than shipped, {refused} settings refused",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
