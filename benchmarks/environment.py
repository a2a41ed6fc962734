"""The machine and the versions a result was measured with."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("bioreport", "torch", "triton", "transformers", "numpy", "scipy", "mne", "safetensors")
PEERS = (
    "linear-attention-transformer",
    "flash-linear-attention",
    "flash-attn",
    "faiss-cpu",
    "vector-quantize-pytorch",
    "flash-kmeans",
)


def environment(packages: tuple[str, ...] = PACKAGES) -> dict[str, Any]:
    """Device, cores, threads and package versions; None for a package that is not installed."""
    versions = {}
    for name in packages:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    found: dict[str, Any] = {
        "device": _processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "versions": versions,
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties()
        found |= {
            "device": properties.name,
            "host": _processor(),
            "architecture": f"sm_{properties.major}{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory_gb": properties.total_memory / 1e9,
            "cuda": torch.version.cuda,
        }
    return found


def kernel_environment() -> dict[str, Any]:
    """The same with the kernels' peers, and whether Triton may fuse multiplications into additions."""
    try:
        from bioreport_kernels.gpu.launch import FP_FUSION
    except ImportError:
        FP_FUSION = None  # type: ignore[assignment]
    return {**environment(PACKAGES + PEERS), "fp_fusion": FP_FUSION}


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    lines = cpuinfo.read_text().splitlines()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
