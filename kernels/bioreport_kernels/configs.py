"""Launch settings as data: tile sizes, warps and stages of every kernel by architecture, width and dtype.

Shipped: one JSON file an operator in `settings/`, ``{"sm_90": {"kernel": [{"dim": 64, "bits": 16,
"BLOCK_T": 128, "num_warps": 4, "num_stages": 3}, …]}}``. A file of the same form, as
``python -m bioreport_kernels.tune`` writes it, takes precedence where the environment variable
``BIOREPORT_KERNEL_CONFIG`` names it.
Nothing is tuned at a first call, and the same machine always runs the same settings.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

VARIABLE = "BIOREPORT_KERNEL_CONFIG"
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
# Shared memory a block may use, bytes.
SHARED_MEMORY = {"sm_80": 166_912, "sm_90": 232_448, "sm_100": 232_448}

Setting = dict[str, int]
Tables = dict[str, dict[str, list[Setting]]]

# Set by `assuming`, `trying` and `watching`: compiling for a machine that is not there, and tuning.
_architecture: str | None = None
_trial: dict[str, Setting] = {}
_watched: list[tuple[str, Setting]] | None = None


def architecture(device: torch.device) -> str:
    """The table for a device: that of the newest shipped architecture which is not newer than it.

    Consumer chips (sm_86, sm_89, sm_120) take sm_80's, whose tiles are small enough for them. Without a GPU
    it is sm_90.
    """
    if _architecture is not None:
        return _architecture
    if device.type != "cuda":
        return "sm_90"
    major, _ = torch.cuda.get_device_capability(device)
    return {9: "sm_90", 10: "sm_100"}.get(major, "sm_80")


def setting(kernel: str, dim: int, dtype: torch.dtype, device: torch.device) -> Setting:
    """Launch settings of a kernel: the entry of this dtype's width with the smallest ``dim`` that fits.

    Raises
    ------
    ValueError
        Where no table has an entry, or the user's file is not one.
    """
    found = _find(kernel, dim, dtype, device)
    if found is None:
        bits, arch = dtype.itemsize * 8, architecture(device)
        raise ValueError(f"no launch setting for {kernel} with dim {dim} and {bits} bits on {arch}")
    return found


def has_setting(kernel: str, dim: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a kernel may be launched: none is shipped where it would spill, or not fit."""
    return _find(kernel, dim, dtype, device) is not None


def _find(kernel: str, dim: int, dtype: torch.dtype, device: torch.device) -> Setting | None:
    trial = _trial.get(kernel)
    if trial is not None and "dim" not in trial:
        return trial
    arch, bits = architecture(device), dtype.itemsize * 8
    for tables in (_own(os.environ.get(VARIABLE, "")), shipped()):
        fitting = [e for e in tables.get(arch, {}).get(kernel, ()) if e["bits"] == bits and e["dim"] >= dim]
        if fitting:
            best = min(fitting, key=lambda e: e["dim"])
            if trial is not None and trial["dim"] == best["dim"] and trial["bits"] == bits:
                best = trial
            if _watched is not None:
                _watched.append((kernel, best))
            return {name: value for name, value in best.items() if name not in ("dim", "bits")}
    return None


@cache
def shipped() -> Tables:
    """The tables in `settings/`, by architecture and kernel."""
    tables: Tables = {}
    for path in sorted((Path(__file__).parent / "settings").glob("*.json")):
        for arch, kernels in json.loads(path.read_text(encoding="utf-8")).items():
            tables.setdefault(arch, {}).update(kernels)
    return tables


@cache
def _own(path: str) -> Tables:
    if not path:
        return {}
    advice = f"{VARIABLE}={path}: write one with python -m bioreport_kernels.tune"
    try:
        tables = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{advice} ({error})") from None
    entries = [
        entry
        for kernels in (tables.values() if isinstance(tables, dict) else [None])
        for listed in (kernels.values() if isinstance(kernels, dict) else [[None]])
        for entry in (listed if isinstance(listed, list) else [None])
    ]
    if not all(
        isinstance(e, dict) and {"dim", "bits"} <= e.keys() and all(isinstance(n, int) for n in e.values())
        for e in entries
    ):
        raise ValueError(f"{advice} (its form is not that of the tables in settings/)")
    return tables


@contextmanager
def assuming(arch: str) -> Iterator[None]:
    """Take the tables of an architecture that is not there, to compile for it."""
    global _architecture
    before, _architecture = _architecture, arch
    try:
        yield
    finally:
        _architecture = before


@contextmanager
def trying(kernel: str, values: Setting) -> Iterator[None]:
    """Use these settings for one kernel, to measure them: in place of all of its entries in the tables, or of
    the one entry that has their ``dim`` and ``bits``.
    """
    global _trial
    before, _trial = _trial, {**_trial, kernel: values}
    try:
        yield
    finally:
        _trial = before


@contextmanager
def watching() -> Iterator[list[tuple[str, Setting]]]:
    """The kernels looked up inside and the entries found for them, in order: a launch uses the last."""
    global _watched
    before, _watched = _watched, []
    try:
        yield _watched
    finally:
        _watched = before
