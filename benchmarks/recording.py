"""Benchmarks under pytest: measured side by side, printed, and kept where ``BIOREPORT_BENCH_OUT`` says.

pytest-benchmark, where it is installed, times our operator once more for its own table and its comparisons
with earlier runs (``--benchmark-save``, ``--benchmark-compare``).
"""

from datetime import date
from functools import cache
from typing import Any

import torch
from environment import kernel_environment
from options import DEVICE, OUT, SMOKE
from results import write
from timing import OURS, Case, describe, machine_limits, measure


@cache
def document() -> dict[str, Any]:
    """What this run has measured so far."""
    return {
        **kernel_environment(),
        "date": date.today().isoformat(),
        "command": "pytest benchmarks -o addopts=",
        "limits": machine_limits(DEVICE, SMOKE),
        "rows": [],
    }


def record(case: Case, benchmark: Any) -> None:
    """Measure a case; fails where ours cannot run, or is not what the definition's peers compute."""
    found = document()
    rows = measure(case, DEVICE, found["limits"], seconds=0.01 if SMOKE else 0.3)
    found["rows"] += rows
    if OUT is not None:
        write(OUT, found)
    for row in rows:
        print("\n" + describe(row), end="")
    print()
    own = rows[0]
    assert own["provider"] == OURS and "ms" in own, own
    benchmark.extra_info["rows"] = rows
    with torch.set_grad_enabled(case.grad):
        run = case.providers[0].build(case.inputs(DEVICE))

        def waited() -> None:
            run()
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()

        benchmark.pedantic(waited, rounds=min(own["rounds"], 10), warmup_rounds=1)
