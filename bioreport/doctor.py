"""What is installed, what is missing, and the command that would add it."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

# distribution, module, what it is for, command that adds it
REQUIRED = (
    ("torch", "torch", "tensors", "pip install 'torch>=2.11,<2.14'"),
    ("transformers", "transformers", "the language model", "pip install 'transformers>=5,<6'"),
    ("numpy", "numpy", "arrays", "pip install numpy"),
    ("scipy", "scipy", "spectra", "pip install scipy"),
    ("mne", "mne", "reading EEG", "pip install mne"),
    ("edfio", "edfio", "writing EDF", "pip install edfio"),
    ("wfdb", "wfdb", "beats of ECGs, writing WFDB", "pip install wfdb"),
    ("soundfile", "soundfile", "WFDB signals in FLAC", "pip install soundfile"),
    ("statsmodels", "statsmodels", "flattening mains in ECGs", "pip install statsmodels"),
    ("safetensors", "safetensors", "weights", "pip install safetensors"),
    ("filelock", "filelock", "one writer to a folder of tokens", "pip install filelock"),
    ("fsspec", "fsspec", "recordings in object stores", "pip install fsspec"),
    ("nvtx", "nvtx", "profiling ranges", "pip install nvtx"),
)
OPTIONAL = (
    ("triton", "triton", "GPU kernels", "pip install triton  (Linux)"),
    ("flash-attn", "flash_attn", "faster LLM attention on GPU", "pip install 'bioreport[flash]'"),
    ("pydicom", "pydicom", "ECGs in DICOM", "pip install 'bioreport[dicom]'"),
    ("ray", "ray", "encode --cluster ray", "pip install 'bioreport[cluster]'"),
    ("s3fs", "s3fs", "recordings at s3://… (other stores: gcsfs, adlfs)", "pip install s3fs"),
    ("bitsandbytes", "bitsandbytes", "train --quantize 4bit", "pip install 'bioreport[quantize]'"),
    ("accelerate", "accelerate", "accelerate launch, 4-bit weights", "pip install 'bioreport[train]'"),
    ("peft", "peft", "LoRA", "pip install 'bioreport[train]'"),
    (
        "tensorboard",
        "tensorboard",
        "logs of training (train --tensorboard)",
        "pip install 'bioreport[train]'",
    ),
)


def examine() -> tuple[list[str], bool]:
    """Lines that say what there is, and whether everything required is there."""
    import sys

    lines = [f"python {sys.version.split()[0]}"]
    complete = sys.version_info >= (3, 11)
    if not complete:
        lines[0] += ": too old; install Python 3.11 or newer"
    for required, table in ((True, REQUIRED), (False, OPTIONAL)):
        for distribution, module, purpose, command in table:
            found = _version(distribution, module)
            if found is None:
                complete &= not required
                kind = "missing" if required else "not installed (optional)"
                lines.append(f"{distribution}: {kind}; {purpose}; {command}")
            else:
                lines.append(f"{distribution} {found}: {purpose}")
    lines += _devices()
    for name, model in _embedded_models().items():
        complete &= model is not None
        lines.append(f"{name}: {model or 'missing; reinstall bioreport'}")
    return lines, complete


def _version(distribution: str, module: str) -> str | None:
    try:
        import_module(module)
        return version(distribution)
    except (ImportError, PackageNotFoundError):
        return None


def _devices() -> list[str]:
    import torch

    lines = [f"cpu: {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            lines.append(
                f"cuda:{index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB, "
                f"sm_{properties.major}{properties.minor}"
            )
    else:
        lines.append("cuda: no device; everything runs on the CPU")
    return lines


def _embedded_models() -> dict[str, str | None]:
    """Size of each model inside the package, None where it is not there."""
    from bioreport.hub import EMBEDDED

    sizes: dict[str, str | None] = {}
    for folder in EMBEDDED.values():
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        sizes[folder.name] = f"{size / 1e6:.1f} MB" if (folder / "model.safetensors").is_file() else None
    return sizes
