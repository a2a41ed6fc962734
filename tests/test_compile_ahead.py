"""Every shipped launch setting, compiled for GPUs that are not here."""

import json
import os
import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest
import torch

from bioreport_kernels.compile_ahead import OPERATORS, Resources
from bioreport_kernels.configs import ARCHITECTURES, SHARED_MEMORY, assuming, shipped, watching
from bioreport_kernels.gpu.launch import redirected

pytestmark = pytest.mark.untraced

# Shared memory of a block on consumer chips (sm_86, sm_89, sm_120), which take sm_80's settings.
CONSUMER_SHARED_MEMORY = 101_376


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    # the interpreter's variable is set for the other tests, and would keep Triton from compiling
    variables = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "bioreport_kernels.compile_ahead", "--json"]
    found: list[dict[str, Any]] = json.loads(
        subprocess.run(command, env=variables, stdout=subprocess.PIPE).stdout
    )
    return found


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_nothing_spills_and_everything_can_be_launched(rows: list[dict[str, Any]], arch: str) -> None:
    of_arch = [row for row in rows if row["arch"] == arch]
    assert of_arch
    assert [
        (row["kernel"], row["dim"], row["dtype"], row["problems"]) for row in of_arch if row["problems"]
    ] == []


def test_16_bit_kernels_of_sm_80_fit_consumer_chips(rows: list[dict[str, Any]]) -> None:
    large = [
        (row["kernel"], row["dim"], row["shared"])
        for row in rows
        if row["arch"] == "sm_80" and row["dtype"] == "bfloat16" and row["shared"] > CONSUMER_SHARED_MEMORY
    ]
    assert large == []


def test_products_run_on_tensor_cores(rows: list[dict[str, Any]]) -> None:
    linear = [row for row in rows if row["operator"].startswith("linear_attention")]
    assert linear and all(row["tensor_core"] for row in linear)


def test_loads_are_128_bits_wide_where_rows_allow(rows: list[dict[str, Any]]) -> None:
    aligned = [row for row in rows if row["operator"].startswith("linear_attention") and row["dim"] % 8 == 0]
    assert aligned and all(row["widest_load"] == 128 for row in aligned)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_every_shipped_setting_is_among_them(operator: str, arch: str) -> None:
    """Each entry of an operator's kernels is what some case of it looks up, and so compiles."""
    module = import_module(f"bioreport_kernels.gpu.{operator}")
    with assuming(arch), watching() as seen, redirected(lambda *launch: None):
        for case in module.cases():
            case.run(torch.device("meta"))
    taken = {(kernel, entry["dim"], entry["bits"]) for kernel, entry in seen}
    entries = {
        (kernel, entry["dim"], entry["bits"])
        for kernel in module.CANDIDATES
        for entry in shipped()[arch].get(kernel, ())
    }
    assert entries - taken == set()


def test_problems_are_named() -> None:
    row = Resources("sm_90", "x", "kernel", 64, "float32", 255, 48, SHARED_MEMORY["sm_90"] + 1, True, 128)
    assert row.problems == [
        "48 bytes of registers spilled",
        f"{SHARED_MEMORY['sm_90'] + 1} bytes of shared memory, of {SHARED_MEMORY['sm_90']} allowed",
    ]
