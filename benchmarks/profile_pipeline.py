"""Where the time of a report goes: ``python benchmarks/profile_pipeline.py -o FILE``.

Seconds of every stage of `generate` for one recording (22 channels at 256 Hz), the stages being those of
`bioreport.stages`, which are nvtx ranges too: ``nsys profile -t nvtx,cuda python -m bioreport generate …``
shows the same names. A second, shorter pass under PyTorch's profiler lists the operators that take the most.
"""

import argparse
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from environment import environment
from memory import long_recording
from results import write

from bioreport.pipeline import ReportPipeline
from bioreport.prompts import DEFAULT_SECTIONS

PROFILED_SECONDS, MOST = 1000, 12


def top_operators(pipeline: ReportPipeline, path: Path) -> list[dict[str, Any]]:
    """The operators with the largest self time, in ms, on the GPU where there is one."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if pipeline.bundle.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        # one section has every operator, in events that are few enough to sum up
        pipeline(path, sections=DEFAULT_SECTIONS[:1])
    key = "self_device_time_total" if len(activities) > 1 else "self_cpu_time_total"
    events = sorted(profile.key_averages(), key=lambda event: getattr(event, key), reverse=True)
    return [
        {"name": event.key, "calls": event.count, "ms": getattr(event, key) / 1e3} for event in events[:MOST]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seconds", type=int, default=10_000)
    parser.add_argument("--model", default="bioreport-tiny")
    parser.add_argument("--llm")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--attention", choices=("auto", "flash"), default="auto")
    options = parser.parse_args()
    pipeline = ReportPipeline.from_pretrained(
        options.model, llm=options.llm, device=options.device, attention=options.attention
    )
    with tempfile.TemporaryDirectory() as folder:
        short, path = Path(folder) / "short.edf", Path(folder) / "long.edf"
        long_recording(short, min(PROFILED_SECONDS, options.seconds))
        long_recording(path, options.seconds)
        # the first report pays for imports and, on a GPU, for compiling
        pipeline(short)
        start = time.perf_counter()
        report = pipeline(path)
        taken = time.perf_counter() - start
        operators = top_operators(pipeline, short)
    assert not isinstance(report, list)
    stages = {
        name: {"seconds": seconds, "share": seconds / taken}
        for name, seconds in sorted(report.timings.items(), key=lambda item: -item[1])
    }
    result = {
        **environment(),
        "date": date.today().isoformat(),
        "command": " ".join(["python", "benchmarks/profile_pipeline.py", *sys.argv[3:]]),
        "device_type": pipeline.bundle.device.type,
        "model": options.model,
        "recording_seconds": options.seconds,
        "seconds": taken,
        "times_real_time": options.seconds / taken,
        "stages": stages,
        "operators_of_seconds": min(PROFILED_SECONDS, options.seconds),
        "operators": operators,
    }
    write(options.output, result)
    for name, row in stages.items():
        print(f"{name:12} {row['seconds']:8.2f} s {row['share']:6.1%}")
    print(f"{'all':12} {taken:8.2f} s, {options.seconds / taken:,.0f} × real time")
    for row in operators:
        print(f"  {row['name'][:60]:60} {row['calls']:7} calls {row['ms']:10.1f} ms")


if __name__ == "__main__":
    main()
