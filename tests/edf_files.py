"""EDF and BDF files written by hand, valid or not, as tests need them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# electrodes, as many as a montage needs
TEN = ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2")


@dataclass
class Signal:
    """A channel: digital samples [n_records * per_record] and its header fields."""

    label: str
    digital: np.ndarray
    unit: str = "uV"
    physical: tuple[str, str] = ("-3276.8", "3276.7")
    limits: tuple[str, str] = ("-32768", "32767")


def noise(n: int, seed: int = 0, scale: float = 300.0) -> np.ndarray:
    """Digital noise; with the default header 300 is 30 µV."""
    return np.random.default_rng(seed).normal(0, scale, n).round()


def write_edf(
    path: Path,
    signals: Sequence[Signal],
    *,
    n_records: int,
    seconds: float = 1.0,
    stated_records: int | None = None,
    plus: str = "",
    onsets: Sequence[float] | None = None,
    patient: str = "X X X X",
    recording: str = "Startdate X X X X",
    bdf: bool = False,
    header_bytes: int | None = None,
) -> Path:
    """Write a file; `onsets` adds an annotation channel with these time stamps."""
    rows = list(signals)
    size = 3 if bdf else 2
    stamp_samples = 16
    if onsets is not None:
        rows.append(
            Signal(
                "BDF Annotations" if bdf else "EDF Annotations", np.zeros(n_records * stamp_samples), "",
                ("-1", "1"), ("-8388608", "8388607") if bdf else ("-32768", "32767"),
            )
        )  # fmt: skip
    n = len(rows)
    per_record = [len(s.digital) // n_records for s in rows]
    stated = n_records if stated_records is None else stated_records

    def join(texts: Sequence[str], width: int) -> bytes:
        return b"".join(t.encode("latin-1")[:width].ljust(width) for t in texts)

    header = b"\xffBIOSEMI" if bdf else b"0".ljust(8)
    header += join([patient, recording], 80) + b"01.02.20" + b"03.04.05"
    header += join([str(header_bytes or 256 * (n + 1))], 8) + join([plus], 44)
    header += join([str(stated), f"{seconds:g}"], 8) + join([str(n)], 4)
    header += join([s.label for s in rows], 16) + b" " * 80 * n + join([s.unit for s in rows], 8)
    for field in ([s.physical[0] for s in rows], [s.physical[1] for s in rows],
                  [s.limits[0] for s in rows], [s.limits[1] for s in rows]):  # fmt: skip
        header += join(field, 8)
    header += b" " * 80 * n + join([str(p) for p in per_record], 8) + b" " * 32 * n

    with path.open("wb") as file:
        file.write(header)
        for record in range(n_records):
            for signal, count in zip(rows, per_record, strict=True):
                if onsets is not None and signal is rows[-1]:
                    stamp = (
                        f"{onsets[record]:+g}\x14\x14\0".encode() if onsets[record] == onsets[record] else b""
                    )
                    file.write(stamp.ljust(count * size, b"\0"))
                    continue
                values = signal.digital[record * count : (record + 1) * count].astype("<i4")
                if bdf:
                    file.write(values.view(np.uint8).reshape(-1, 4)[:, :3].tobytes())
                else:
                    file.write(values.astype("<i2").tobytes())
    return path


def eeg(labels: Sequence[str], sfreq: int = 100, seconds: int = 10, **fields: object) -> list[Signal]:
    """Noise channels of 30 µV."""
    return [Signal(label, noise(sfreq * seconds, seed=i), **fields) for i, label in enumerate(labels)]  # type: ignore[arg-type]
