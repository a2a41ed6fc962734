"""Compile every shipped launch setting for GPUs that need not be there, and read what each kernel needs.

``python -m bioreport_kernels.compile_ahead`` prints one line a kernel
and exits with 1 where one spills, or needs more shared memory than the chip gives.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from importlib import import_module
from multiprocessing import get_context
from typing import Any

import torch

from bioreport_kernels.configs import ARCHITECTURES, SHARED_MEMORY, assuming

# Modules with `cases()`, one an operator.
OPERATORS = ("linear", "linear_causal", "aggregate", "quantize", "implicit")


@dataclass(frozen=True)
class Resources:
    """What one launch needs, as the assembler and the machine code say it."""

    arch: str
    operator: str
    kernel: str
    dim: int
    dtype: str
    registers: int
    stack: int
    shared: int
    tensor_core: bool
    widest_load: int

    @property
    def problems(self) -> list[str]:
        """Why this kernel could not run, or not well; empty where it can."""
        limit = SHARED_MEMORY[self.arch]
        found = []
        if self.stack:
            found.append(f"{self.stack} bytes of registers spilled")
        if self.shared > limit:
            found.append(f"{self.shared} bytes of shared memory, of {limit} allowed")
        return found


class _Absent:
    """Stands for a driver where no GPU is, so that Triton compiles for the architecture asked for."""

    def __init__(self, arch: str) -> None:
        self.capability = int(arch.removeprefix("sm_"))

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        # Triton caches compiled kernels by device
        return self.capability

    def get_current_stream(self, device: int = 0) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("meta")

    def is_active(self) -> bool:
        return True


def resources(arch: str, operator: str, index: int) -> list[Resources]:
    """Compile every launch of an operator's case and read what each needs."""
    if os.environ.get("TRITON_INTERPRET", "0") == "1":
        raise RuntimeError("TRITON_INTERPRET=1 interprets kernels and cannot compile them: unset it")
    from triton.runtime import driver

    from bioreport_kernels.gpu.launch import redirected

    case = list(import_module(f"bioreport_kernels.gpu.{operator}").cases())[index]
    found: dict[Resources, None] = {}
    read: set[str] = set()
    driver.set_active(_Absent(arch))

    def compile_only(
        kernel: Any, grid: tuple[int, ...], arguments: tuple[Any, ...], settings: dict[str, Any]
    ) -> None:
        compiled = kernel.warmup(*arguments, grid=grid, **settings)
        # a stage launches what the one before it did
        if compiled.hash not in read:
            read.add(compiled.hash)
            found[_read(compiled, arch, case.operator, kernel.__name__, case.dim, case.dtype)] = None

    with assuming(arch), redirected(compile_only):
        case.run(torch.device("meta"))
    return list(found)


def _read(compiled: Any, arch: str, operator: str, kernel: str, dim: int, dtype: torch.dtype) -> Resources:
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.run(
            [knobs.nvidia.cuobjdump.path, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    registers, stack = (int(re.findall(rf"{name}:(\d+)", usage)[0]) for name in ("REG", "STACK"))
    ptx = compiled.asm["ptx"]
    # a vector into registers, or bytes copied into shared memory
    loads = re.findall(r"ld\.global\S*?(?:\.v(\d))?\.b(\d+)|cp\.async\.\S+ \[.*?\], \[.*?\], 0x(\w+)", ptx)
    widths = [int(copied, 16) * 8 if copied else int(count or 1) * int(bits) for count, bits, copied in loads]
    return Resources(
        arch=arch,
        operator=operator,
        kernel=kernel,
        dim=dim,
        dtype=str(dtype).removeprefix("torch."),
        registers=registers,
        stack=stack,
        shared=compiled.metadata.shared,
        tensor_core=bool(re.search(r"\b(mma\.sync|wgmma\.mma_async|tcgen05\.mma)", ptx)),
        widest_load=max(widths, default=0),
    )


def every(archs: Iterable[str] = ARCHITECTURES, operators: Iterable[str] = OPERATORS) -> list[Resources]:
    """Resources of every launch of every case, compiled on all processors."""
    jobs = [
        (arch, operator, index)
        for operator in operators
        for index in range(len(list(import_module(f"bioreport_kernels.gpu.{operator}").cases())))
        for arch in archs
    ]
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
        return [row for rows in pool.map(resources, *zip(*jobs, strict=True)) for row in rows]


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bioreport_kernels.compile_ahead", description=__doc__)
    parser.add_argument("--arch", action="append", choices=ARCHITECTURES)
    parser.add_argument("--operator", action="append", choices=OPERATORS)
    parser.add_argument("--json", action="store_true", help="one JSON list instead of a table")
    options = parser.parse_args(arguments)
    rows = every(options.arch or ARCHITECTURES, options.operator or OPERATORS)
    if options.json:
        print(json.dumps([{**asdict(row), "problems": row.problems} for row in rows]))
    else:
        for row in rows:
            print(
                f"{row.arch:7}{row.kernel:28}{row.dim:5} {row.dtype:9}{row.registers:4} registers "
                f"{row.stack:5} stack {row.shared:7} B shared {row.widest_load:4}-bit loads"
                f"{' tensor cores' if row.tensor_core else ''} {'; '.join(row.problems)}"
            )
    return int(any(row.problems for row in rows))


if __name__ == "__main__":
    sys.exit(main())
