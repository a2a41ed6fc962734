"""From potentials to the channels of a file: reference, filters, noise, mains, missing and bad electrodes."""

import numpy as np
import scipy.fft

from bioreport.simulation import artifacts, montages
from bioreport.simulation.canvas import Canvas, Floats
from bioreport.simulation.plan import Plan


def drop_electrodes(rng: np.random.Generator, names: tuple[str, ...], plan: Plan) -> tuple[str, ...]:
    """Leave a few electrodes out of the file, as real ones are; never those a finding rests on."""
    if rng.random() > 0.22:
        return names
    needed = {
        "O1",
        "O2",
        "P3",
        "P4",
        "T5",
        "T6",
        "Fp1",
        "Fp2",
        "C3",
        "C4",
        "Cz",
        "F7",
        "F8",
        "T3",
        "T4",
        "F3",
        "F4",
    }
    free = [name for name in names if name not in needed]
    gone = set(rng.permutation(free)[: int(rng.integers(1, 4))].tolist()) if free else set()
    return tuple(name for name in names if name not in gone)


def acquire(
    canvas: Canvas,
    recorded: tuple[str, ...],
    amplifier: montages.Amplifier,
    line: float,
    *,
    visible: bool,
) -> tuple[Floats, float]:
    """Reference, filter and add amplifier noise and mains: float32 [C, T], and mains over its neighbours."""
    rng, n, sfreq = canvas.rng, canvas.n, canvas.sfreq
    rows = [canvas.names.index(name) for name in recorded]
    data = canvas.data[rows] - canvas.data[canvas.reference_rows].mean(axis=0)
    size = scipy.fft.next_fast_len(n, real=True)
    spectrum = scipy.fft.rfft(data, size, axis=1)
    bins = (np.arange(spectrum.shape[1]) * (sfreq / size)).astype(np.float32)
    data = scipy.fft.irfft(spectrum * amplifier.response(bins, line), size, axis=1)[:, :n].astype(np.float32)
    data += rng.standard_normal(data.shape, dtype=np.float32) * np.float32(amplifier.noise)
    near = (np.abs(bins - line) > 1.5) & (np.abs(bins - line) < 5.0)
    shown = np.abs(spectrum[:, near] * amplifier.response(bins, line)[near]) ** 2
    white = 2.0 * amplifier.noise**2 / sfreq
    floor = np.sqrt(np.mean(shown, axis=1) * (2.0 / (sfreq * size)) + white)  # µV/√Hz
    if visible:
        usual = np.exp(rng.uniform(np.log(4.0), np.log(40.0)) + rng.normal(0, 0.4, len(rows)))
        rms = np.maximum(usual, 9 * floor)
    elif line < 0.48 * sfreq and not amplifier.notch and (amplifier.low_pass or 100.0) > line:
        rms = np.full(len(rows), np.sqrt(white) * rng.uniform(0.0, 0.5))
    else:
        return data, 1.0
    wave = np.sin(
        2 * np.pi * (line * (1 + rng.normal(0, 2e-4))) * np.arange(n) / sfreq + rng.uniform(0, 6.28)
    )
    data += (np.sqrt(2) * rms).astype(np.float32)[:, None] * wave.astype(np.float32)
    return data, round(float(np.median((rms / floor) ** 2)), 1)


def break_electrodes(canvas: Canvas, data: Floats, recorded: tuple[str, ...], plan: Plan) -> None:
    rng = canvas.rng
    needed = {"O1", "O2", "P3", "P4", "T5", "T6", "Fp1", "Fp2", "A1", "A2"}
    for event in canvas.events:
        if event.name in ("focal_slowing", "focal_epileptiform_discharges", "seizure", "electrode_artifact"):
            needed.update(event.channels[:3])
    free = [i for i, name in enumerate(recorded) if name not in needed] or [0]
    rows = rng.permutation(free)[: int(rng.integers(1, 4))].tolist()
    typical = float(np.median(np.std(data, axis=1)))
    artifacts.break_electrodes(data, rows, rng, canvas.sfreq, typical)
    canvas.mark("bad_electrode", 0.0, canvas.duration, [recorded[row] for row in rows])


def extras(canvas: Canvas, labels: tuple[str, ...]) -> dict[str, Floats]:
    extras: dict[str, Floats] = {}
    for label in labels:
        if "ECG" in label or "EKG" in label:
            extras[label] = artifacts.heartbeat(canvas) * np.float32(600)
        else:
            extras[label] = canvas.band_noise(0.5, 30.0) * np.float32(canvas.rng.uniform(2, 30))
    return extras
