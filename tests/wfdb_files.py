"""WFDB records written by hand, valid or not, as tests need them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import wfdb

TOLERANCE = 1e-6  # mV
# storage format -> samples and bytes of a block
BLOCKS = {
    80: (1, 1), 16: (1, 2), 61: (1, 2), 160: (1, 2), 24: (1, 3), 32: (1, 4), 212: (2, 3), 310: (3, 4),
    311: (3, 4),
}  # fmt: skip


def ecg(n_leads: int = 2, seconds: float = 10.0, sfreq: float = 250.0, seed: int = 0) -> np.ndarray:
    """Beats of 1 mV over noise, mV [n_leads, n_samples]; the leads differ in size and sign."""
    rng = np.random.default_rng(seed)
    n = round(seconds * sfreq)
    t = np.arange(n) / sfreq
    beat = np.exp(-(((t % 0.8) - 0.3) ** 2) / 2e-4) + 0.25 * np.exp(-(((t % 0.8) - 0.6) ** 2) / 4e-3)
    size = rng.uniform(0.4, 1.2, n_leads)[:, None]
    return np.asarray(size * beat + 0.01 * rng.standard_normal((n_leads, n)))


def twelve(seconds: float = 10.0, sfreq: float = 500.0, seed: int = 0) -> np.ndarray:
    """Twelve leads in the order of LEADS that Einthoven's law holds for, mV."""
    x = ecg(8, seconds, sfreq, seed)
    first, second = x[0], x[1]
    limb = [first, second, second - first, -(first + second) / 2, first - second / 2, second - first / 2]
    growth = np.array([-0.5, -0.2, 0.3, 0.8, 1.0, 0.9])[:, None]
    return np.concatenate([limb, growth * x[2:8].mean(axis=0) + 0.1 * x[2:8]])


def write_record(
    folder: Path,
    name: str,
    data_mv: np.ndarray,
    labels: Sequence[str],
    *,
    sfreq: float = 250.0,
    gain: str = "1000(0)/mV",
    gains: Sequence[str] | None = None,
    checksums: bool = True,
    comments: Sequence[str] = (),
    frames: str | None = None,
) -> Path:
    """A record in format 16 at 1000 steps a mV, whatever its header then says of it; returns the header."""
    digital = np.where(np.isfinite(data_mv), np.round(np.nan_to_num(data_mv) * 1000), -32768).astype("<i2")
    (folder / f"{name}.dat").write_bytes(digital.T.tobytes())
    sums = [int(row.sum(dtype=np.int64)) % 65536 for row in digital]
    lines = [f"{name} {len(labels)} {sfreq:g} {digital.shape[1] if frames is None else frames}"]
    for i, label in enumerate(labels):
        first = f"{digital[i, 0]} {sums[i]}" if checksums and digital.shape[1] else "0 0"
        lines.append(f"{name}.dat 16 {gains[i] if gains else gain} 16 0 {first} 0 {label}")
    path = folder / f"{name}.hea"
    path.write_text("\n".join([*lines, *(f"#{c}" for c in comments)]) + "\n", encoding="utf-8")
    return path


def write_random(
    folder: Path,
    name: str,
    storage: int,
    labels: Sequence[str],
    *,
    frames: int,
    widths: Sequence[int] | None = None,
    skews: Sequence[int] | None = None,
    offset: int = 0,
    seed: int = 0,
) -> Path:
    """A record of random bytes in any uncompressed format; returns the header."""
    widths = list(widths or [1] * len(labels))
    samples, width = BLOCKS[storage]
    n = frames * sum(widths)
    data = np.frombuffer(np.random.default_rng(seed).bytes(-(-n // samples) * width), np.uint8).copy()
    if storage == 311:
        data[3::4] &= 0x3F  # two bits that the format leaves zero
    (folder / f"{name}.dat").write_bytes(bytes(range(offset)) + data.tobytes())
    lines = [f"{name} {len(labels)} 200 {frames}"]
    for i, (label, w) in enumerate(zip(labels, widths, strict=True)):
        form = f"{storage}x{w}:{skews[i] if skews else 0}+{offset}"
        lines.append(f"{name}.dat {form} {150 + 10 * i}.5({3 * i - 1})/mV 12 0 0 0 0 {label}")
    path = folder / f"{name}.hea"
    path.write_text("\n".join(lines) + "\n")
    return path


def physical(header: Path, **options: object) -> tuple[list[str], list[np.ndarray]]:
    """Names and samples as the wfdb package reads them."""
    record = wfdb.rdrecord(str(header.with_suffix("")), smooth_frames=False, **options)
    return record.sig_name, record.e_p_signal
