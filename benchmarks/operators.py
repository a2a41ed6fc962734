"""All kernel benchmarks into one result file: ``python benchmarks/operators.py -o FILE``.

The measuring is done by a child process, and what it measured is written after every case. A peer that hangs
or crashes is named in the file, and another child goes on without it. On a CPU there is a child for either
setting of the allocator: `default` as glibc comes, `keep` with freed memory kept, in which the times are
steadier (large tensors otherwise cost page faults at every call); compare within one setting.
"""

import argparse
import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

from results import write

# and the parts of the time that each may have
OPERATORS = {
    "linear_attention": 3,
    "aggregate": 2,
    "residual_quantize": 2,
    "nearest_codeword": 1,
    "implicit_quantize": 2,
}
MALLOC = {
    "default": {},
    "keep": {
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(1 << 35),
        "MALLOC_TOP_PAD_": str(1 << 28),
    },
}
# every larger block goes back to the kernel when it is freed, so that a second call's peak shows
RETURNED = {"MALLOC_MMAP_THRESHOLD_": str(1 << 16)}
HERE = Path(__file__).resolve().parent


@dataclass
class Plan:
    """What a child is to do.

    Attributes
    ----------
    operators : list of str
    seconds : float
        Of measuring for each implementation of a case.
    until : float
        Unix time after which no case begins; an operator leaves what it does not need to the next.
    done : list
        (operator, case) that have rows already.
    skip : list
        (operator, case, provider) that hung or crashed.
    memory : tuple
        (operator, case, provider) whose peak memory is wanted, and nothing else.
    """

    operators: list[str]
    seconds: float = 0.3
    until: float = 4e9
    done: list[tuple[str, str]] = field(default_factory=list)
    skip: list[tuple[str, str, str]] = field(default_factory=list)
    memory: tuple[str, str, str] | None = None


def child(plan: Plan) -> None:
    """Measure, and tell of it in JSON lines on standard output, which nothing else may use."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def tell(**message: Any) -> None:
        channel.write(json.dumps(message) + "\n")

    from environment import kernel_environment
    from options import DEVICE, SMOKE
    from timing import describe, machine_limits, measure

    if plan.memory is not None:
        tell(peak_mb=peak_memory(*plan.memory))
        return
    tell(starting=["limits", "", ""])
    tell(environment=kernel_environment())
    limits = machine_limits(DEVICE, SMOKE)
    tell(limits=limits)
    for index, operator in enumerate(plan.operators):
        parts = [OPERATORS.get(name, 1) for name in plan.operators[index:]]
        deadline = time.time() + (plan.until - time.time()) * parts[0] / sum(parts)
        try:
            cases = list(import_module(f"bench_{operator}").cases())
        except ImportError as error:
            tell(rows=[{"operator": operator, "case": "", "provider": "", "problem": str(error)}])
            continue
        for case in cases:
            if (case.operator, case.name) in plan.done:
                continue
            if time.time() > deadline:
                tell(left_out=[case.operator, case.name])
                continue

            def starting(name: str, case: Any = case) -> None:
                tell(starting=[case.operator, case.name, name])

            skip = tuple(name for o, c, name in plan.skip if (o, c) == (case.operator, case.name))
            rows = measure(case, DEVICE, limits, seconds=plan.seconds, skip=skip, starting=starting)
            tell(rows=rows)
            for row in rows:
                print(describe(row), flush=True)


def peak_memory(operator: str, name: str, provider: str) -> float:
    """MB of this process at the peak of one call, above what it held with the inputs there.

    Of the second call: the first starts threads, compiles, and makes what is made once.
    """
    import torch
    from options import DEVICE

    modules = (import_module(f"bench_{operator}") for operator in OPERATORS)
    case = next(c for m in modules for c in m.cases() if (c.operator, c.name) == (operator, name))
    chosen = next(p for p in case.providers if p.name == provider)
    with torch.set_grad_enabled(case.grad):
        run = chosen.build(case.inputs(DEVICE))
        run()
        ctypes.CDLL(None).malloc_trim(0)
        # forget earlier peaks
        Path("/proc/self/clear_refs").write_text("5")
        before = _memory("VmRSS")
        kept = run()
        peak = _memory("VmHWM")
    del kept
    return (peak - before) * 1024 / 1e6


def _memory(field_name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field_name))


def _lines(command: list[str], environment: dict[str, str], stall: float, until: float) -> Iterator[Any]:
    """Messages of a child; last its exit code, or why it was stopped."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    messages: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            messages.put(line)
        messages.put(None)

    threading.Thread(target=read, daemon=True).start()
    # imports take their time
    patience = stall + 60
    try:
        while True:
            wait = min(patience, until + 10 - time.time())
            try:
                line = messages.get(timeout=max(wait, 0.1))
            except queue.Empty:
                late = time.time() > until
                yield {"stopped": "time was up" if late else f"gave no sign for {patience:.0f} s"}
                return
            if line is None:
                code = process.wait()
                yield {"stopped": f"exit code {code}"} if code else {"finished": True}
                return
            patience = stall
            yield json.loads(line)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(
    document: dict[str, Any],
    output: Path,
    *,
    device: str,
    operators: tuple[str, ...] = tuple(OPERATORS),
    seconds: float = 0.3,
    budget: float = 1e9,
    stall: float = 90.0,
    smoke: bool = False,
    memory: bool = False,
    settings: tuple[str, ...] | None = None,
) -> None:
    """Measure everything into a document, which is written to a file whenever it has grown.

    Parameters
    ----------
    document : dict
        Gets ``rows``, ``limits``, ``left_out`` and what describes the machine.
    device : {"cpu", "cuda"}
    seconds : float
        Of measuring for each implementation of a case.
    budget, stall : float
        Seconds for all, and for one implementation to give a sign of life.
    memory : bool
        On a CPU also the peak memory, in a process for each row of the default allocator.
    settings : tuple of str
        On a CPU, out of `MALLOC`; by default all.
    """
    until = time.time() + budget
    document["device_type"] = device
    chosen: tuple[str | None, ...] = (settings or tuple(MALLOC)) if device == "cpu" else (None,)
    base = {
        **os.environ,
        "BIOREPORT_BENCH_DEVICE": device,
        "BIOREPORT_BENCH_SMOKE": str(int(smoke)),
        "PYTHONPATH": os.pathsep.join(
            [
                str(HERE.parent),
                str(HERE.parent / "kernels"),
                *filter(None, [os.environ.get("PYTHONPATH")]),
            ]
        ),
    }
    rows = document.setdefault("rows", [])
    for index, setting in enumerate(chosen):
        share = time.time() + (until - time.time()) / (len(chosen) - index)
        plan = Plan(list(operators), seconds, until=share)
        environment = base | MALLOC[setting or "default"]
        while _attempt(plan, environment, document, output, setting, stall):
            pass
    if memory and device == "cpu":
        for row in rows:
            if row.get("malloc") != "default" or "ms" not in row:
                continue
            plan = Plan([], memory=(row["operator"], row["case"], row["provider"]))
            for message in _lines(_command(plan), base | RETURNED, stall, until):
                if "peak_mb" in message:
                    row["peak_mb"] = message["peak_mb"]
                    print(f"{row['case']}, {row['provider']}: peak {row['peak_mb']:.0f} MB", file=sys.stderr)
            write(output, document)


def _command(plan: Plan) -> list[str]:
    return [sys.executable, str(HERE / "operators.py"), "--child", json.dumps(vars(plan))]


def _attempt(
    plan: Plan,
    environment: dict[str, str],
    document: dict[str, Any],
    output: Path,
    setting: str | None,
    stall: float,
) -> bool:
    """One child; true where another should go on after what stopped it."""
    running = ["", "", ""]
    for message in _lines(_command(plan), environment, stall, plan.until):
        if "starting" in message:
            running = message["starting"]
        for key in ("limits", "environment"):
            if key in message:
                found = message[key]
                document.update(found if key == "environment" else {_named(key, setting): found})
        if "left_out" in message:
            document.setdefault("left_out", []).append(message["left_out"])
        if "rows" in message:
            kept = [row | ({"malloc": setting} if setting else {}) for row in message["rows"]]
            document["rows"] += kept
            plan.done += [(row["operator"], row["case"]) for row in kept[:1]]
        if "stopped" in message:
            row = dict(zip(("operator", "case", "provider"), running, strict=True))
            document["rows"].append(
                row | {"problem": message["stopped"]} | ({"malloc": setting} if setting else {})
            )
            print(f"{running}: {message['stopped']}", file=sys.stderr)
            plan.skip.append((running[0], running[1], running[2]))
            write(output, document)
            # before the first case there is nothing that could be left out
            return bool(running[2]) and len(plan.skip) < 20 and time.time() < plan.until
        write(output, document)
    return False


def _named(key: str, setting: str | None) -> str:
    return key if setting in (None, "default") else f"{key}_{setting}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--operator", action="append", choices=OPERATORS, help="default: all")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each implementation of a case")
    parser.add_argument("--budget", type=float, default=1e9, metavar="SECONDS", help="for all")
    parser.add_argument("--stall", type=float, default=90.0, metavar="SECONDS", help="for one sign of life")
    parser.add_argument("--memory", action="store_true", help="on a CPU also peak memory (many processes)")
    parser.add_argument(
        "--malloc", action="append", choices=tuple(MALLOC), help="on a CPU; default: one after the other"
    )
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, to see that everything runs")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        given = json.loads(options.child)
        for key in ("done", "skip"):
            given[key] = [tuple(entry) for entry in given[key]]
        child(Plan(**given))
        return 0
    if options.output is None:
        parser.error("-o FILE is needed")
    device = options.device
    if device is None:
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    document = {"date": date.today().isoformat(), "command": " ".join(["python", *sys.argv])}
    run(
        document,
        options.output,
        device=device,
        operators=tuple(options.operator or OPERATORS),
        seconds=options.seconds,
        budget=options.budget,
        stall=options.stall,
        smoke=options.smoke,
        memory=options.memory,
        settings=tuple(options.malloc) if options.malloc else None,
    )
    return int(any("problem" in row and row["provider"] in ("", "bioreport") for row in document["rows"]))


if __name__ == "__main__":
    sys.exit(main())
