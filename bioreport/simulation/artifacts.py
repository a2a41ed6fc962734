"""What is not brain: blinks, muscle, pops, bad electrodes; and patterns that only look like a finding."""

import numpy as np

from bioreport.simulation.background import FRONT, OCCIPUT, VERTEX
from bioreport.simulation.canvas import Canvas, Floats, Interval, gaussian, hann_burst


def blinks(canvas: Canvas, intervals: list[Interval]) -> None:
    """Paint eye blinks, largest at the frontal poles."""
    rng = canvas.rng
    pattern = canvas.field(np.array([0.0, 1.0, 0.0]), 0.42)
    pattern /= pattern[canvas.names.index("Fp1")]
    amplitude = rng.uniform(80, 230)
    channels = canvas.channels(pattern)
    for start, end in intervals:
        for onset in canvas.place(max(3, round((end - start) / rng.uniform(2.0, 5.0))), start, end, 0.6, 0.7):
            times = canvas.times(0.6)
            width = rng.uniform(0.05, 0.09)
            wave = gaussian(times, 0.22, width) - 0.18 * gaussian(times, 0.22 + 3 * width, 1.3 * width)
            canvas.add(wave * np.float32(amplitude * rng.uniform(0.7, 1.3)), pattern, onset)
            canvas.mark("eye_blink_artifact", onset, onset + 0.5, channels)


def muscle(canvas: Canvas, intervals: list[Interval], low_pass: float | None) -> None:
    """Paint bursts of muscle over temples and forehead, as far as the low-pass lets them through."""
    rng = canvas.rng
    top = min(95.0, 0.45 * canvas.sfreq, low_pass or 95.0)
    rms = max(rng.uniform(14, 45), 2.0 * canvas.level)
    places = [
        str(p) for p in rng.permutation(["T3", "T4", "F7", "F8", "Fp1", "Fp2"])[: int(rng.integers(2, 5))]
    ]
    for start, end in intervals:
        count = canvas.samples(end - start)
        flicker = np.interp(
            np.arange(count), np.linspace(0, count, int(4 * (end - start)) + 3),
            np.exp(rng.normal(0, 0.35, int(4 * (end - start)) + 3)),
        ).astype(np.float32)  # fmt: skip
        total = np.zeros(len(canvas.names), dtype=np.float32)
        for place in places:
            pattern = canvas.field(place, rng.uniform(0.25, 0.4))
            wave = canvas.band_noise(18.0, top, count) * flicker * hann_burst(count, 0.08)
            canvas.add(wave * np.float32(rms * rng.uniform(0.7, 1.3)), pattern, start)
            total += pattern
        canvas.mark("muscle_artifact", start, end, canvas.channels(total, 0.5))


def electrode_pops(canvas: Canvas, names: list[str], interval: Interval, count: int) -> None:
    """Paint sudden steps with slow return in single electrodes."""
    rng = canvas.rng
    for onset in canvas.place(count, *interval, 1.5, 1.5):
        name = str(rng.choice(names))
        times = canvas.times(1.5)
        wave = np.exp(-times / np.float32(rng.uniform(0.08, 0.35))) * hann_burst(len(times), 0.003)
        wave = wave * np.float32(max(rng.uniform(120, 400), 9 * canvas.level) * rng.choice([-1, 1]))
        canvas.data[canvas.names.index(name), _span(canvas, onset, len(wave))] += wave[
            : canvas.n - round(onset * canvas.sfreq)
        ]
        canvas.mark("electrode_artifact", onset, onset + 1.0, (name,))


def _span(canvas: Canvas, onset: float, count: int) -> slice:
    first = round(onset * canvas.sfreq)
    return slice(first, min(canvas.n, first + count))


def break_electrodes(
    data: Floats, rows: list[int], rng: np.random.Generator, sfreq: float, typical: float
) -> None:
    """Replace channels of the finished recording by a flat, saturated or wildly noisy signal, in place.

    Parameters
    ----------
    data : float32 [C, n]
        µV, after reference and filters.
    rows : list of int
        Channels to break.
    rng : numpy.random.Generator
    sfreq : float
        Hz.
    typical : float
        Standard deviation of the other channels, µV; noise is many times that.
    """
    n = data.shape[1]
    for row in rows:
        kind = rng.choice(["flat", "saturated", "noisy"], p=[0.45, 0.2, 0.35])
        if kind == "flat":
            data[row] = 0.0
        elif kind == "saturated":
            limit = np.float32(rng.choice([500.0, 1000.0, 3276.0]))
            swings = np.cumsum(rng.standard_normal(n, dtype=np.float32)) * np.float32(
                limit / np.sqrt(sfreq) / 1.2
            )
            data[row] = np.clip(swings - swings.mean(), -limit, limit)
        else:
            colour: Floats = rng.standard_normal((n,), dtype=np.float32)
            if rng.random() < 0.5:
                colour = np.convolve(colour, np.full(5, 0.45), mode="same").astype(np.float32)
            # what lies above the usual 75 Hz is filtered away again by whoever reads the file
            loudness = min(rng.uniform(9, 20) * max(typical, 10.0), 220.0) * np.sqrt(max(1.0, sfreq / 150.0))
            data[row] = colour * np.float32(loudness)


# ---- patterns that are no finding; a classifier has to see them to leave them alone ----


def mu_rhythm(canvas: Canvas) -> None:
    """Paint the arc-shaped rhythm of the motor cortex, no posterior rhythm."""
    rng = canvas.rng
    frequency, envelope = rng.uniform(8.0, 11.0), np.clip(canvas.wander(0.25), 0, 2)
    for centre in ("C3", "C4"):
        wave = canvas.oscillation(frequency, 0.5, 0.3)
        wave = (
            (wave + 0.3 * (wave**2 - 1))
            * envelope
            * np.float32(max(6.0, canvas.level) * rng.uniform(0.4, 0.9))
        )
        canvas.add(wave, canvas.field(centre, 0.35))


def wicket_spikes(canvas: Canvas) -> None:
    """Paint short trains of arc-shaped temporal waves without a slow wave after them."""
    rng = canvas.rng
    frequency = rng.uniform(6.0, 10.0)
    pattern = canvas.field(str(rng.choice(["T3", "T4"])), 0.4)
    for onset in canvas.place(int(rng.integers(2, 7)), 0.0, canvas.duration, 2.0, 2.0):
        times = canvas.times(rng.uniform(0.5, 1.6))
        arcs = np.abs(np.sin(np.pi * frequency * times)) - 0.64
        canvas.add(
            (-arcs * hann_burst(len(times), 0.3) * rng.uniform(40, 75)).astype(np.float32), pattern, onset
        )


def temporal_theta(canvas: Canvas) -> None:
    """Paint rhythmic temporal theta of drowsiness: seconds long, without evolution, so no seizure."""
    rng = canvas.rng
    pattern = canvas.field(str(rng.choice(["T3", "T4"])), 0.45)
    for onset in canvas.place(int(rng.integers(1, 4)), 0.0, canvas.duration, 9.0, 9.5):
        times = canvas.times(rng.uniform(3.0, 9.0))
        frequency = rng.uniform(5.0, 6.8)
        wave = np.sin(2 * np.pi * frequency * times) + 0.3 * np.sin(4 * np.pi * frequency * times + 1.0)
        canvas.add(
            (wave * hann_burst(len(times), 0.3) * max(18.0, 1.2 * canvas.level)).astype(np.float32),
            pattern,
            onset,
        )


def theta_bursts(canvas: Canvas) -> None:
    """Paint bursts of rhythmic diffuse theta as in falling asleep, without spikes."""
    rng = canvas.rng
    pattern = canvas.field(VERTEX + 0.5 * FRONT, 0.9)
    for onset in canvas.place(int(rng.integers(1, 5)), 0.0, canvas.duration, 3.0, 4.0):
        times = canvas.times(rng.uniform(1.0, 3.0))
        wave = np.sin(2 * np.pi * rng.uniform(4.5, 6.5) * times)
        canvas.add(
            (wave * hann_burst(len(times), 0.4) * rng.uniform(25, 55)).astype(np.float32), pattern, onset
        )


def lambda_waves(canvas: Canvas) -> None:
    """Paint small sharp occipital waves of looking about."""
    rng = canvas.rng
    pattern = canvas.field(OCCIPUT, 0.4)
    amplitude = rng.uniform(12, 28)
    for onset in canvas.place(int(canvas.duration / 3), 0.0, canvas.duration, 0.5, 0.6):
        times = canvas.times(0.4)
        wave = gaussian(times, 0.15, 0.035) - 0.4 * gaussian(times, 0.26, 0.05)
        canvas.add(wave * np.float32(amplitude), pattern, onset)


def chewing(canvas: Canvas, low_pass: float | None) -> None:
    """Paint rhythmic muscle of chewing: bursts at 1–2 Hz on a slow swing. It is a muscle artifact."""
    rng = canvas.rng
    length = rng.uniform(5.0, max(5.0, min(15.0, 0.4 * canvas.duration)))
    start = rng.uniform(0, canvas.duration - length)
    times = canvas.times(length)
    rate = rng.uniform(1.0, 2.0)
    on = np.clip(np.sin(2 * np.pi * rate * times), 0, 1).astype(np.float32)
    top = min(95.0, 0.45 * canvas.sfreq, low_pass or 95.0)
    pattern = canvas.field("T3", 0.5) + canvas.field("T4", 0.5)
    for centre in ("T3", "T4"):
        wave = canvas.band_noise(18.0, top, len(times)) * on * np.float32(max(30.0, 3 * canvas.level))
        canvas.add(wave, canvas.field(centre, 0.45), start)
    swing = np.sin(2 * np.pi * rate * times + 0.5) * hann_burst(len(times), 0.1) * rng.uniform(15, 45)
    canvas.add(swing.astype(np.float32), pattern, start)
    canvas.mark("muscle_artifact", start, start + length, canvas.channels(pattern))


def movement(canvas: Canvas) -> None:
    """Paint large irregular swings in all electrodes, each in its own measure."""
    rng = canvas.rng
    for onset in canvas.place(int(rng.integers(1, 4)), 0.0, canvas.duration, 4.0, 4.5):
        count = canvas.samples(rng.uniform(1.0, 4.0))
        for row in range(len(canvas.names)):
            wave = canvas.band_noise(0.3, rng.uniform(2.0, 6.0), count) * hann_burst(count, 0.3)
            stop = min(canvas.n, round(onset * canvas.sfreq) + count)
            canvas.data[row, stop - count : stop] += wave * np.float32(rng.uniform(10, 120))


def sweat(canvas: Canvas) -> None:
    """Paint very slow drifts of sweating."""
    for name in ("Fp1", "Fp2", "F7", "F8", "T3", "T4"):
        if name in canvas.names:
            drift = canvas.band_noise(0.05, 0.4) * np.float32(canvas.rng.uniform(20, 90))
            canvas.data[canvas.names.index(name)] += drift


def heartbeat(canvas: Canvas) -> Floats:
    """Return an ECG, float32 [n], peak about 1."""
    rng = canvas.rng
    rate = rng.uniform(0.9, 1.6)
    beats = np.cumsum(rng.normal(1 / rate, 0.03, int(canvas.duration * rate) + 3))
    wave = np.zeros(canvas.n + canvas.samples(1.0), dtype=np.float32)
    times = canvas.times(0.6)
    beat = gaussian(times, 0.2, 0.01) - 0.2 * gaussian(times, 0.23, 0.012) + 0.2 * gaussian(times, 0.45, 0.05)
    for at in beats[beats < canvas.duration]:
        first = round(float(at) * canvas.sfreq)
        wave[first : first + len(beat)] += beat[: max(0, len(wave) - first)]
    return wave[: canvas.n]


def pulse(canvas: Canvas) -> None:
    """Paint the heart into the EEG: QRS in all electrodes, or a pulse wave under one of them."""
    rng = canvas.rng
    ecg = heartbeat(canvas)
    if rng.random() < 0.6:
        canvas.add(ecg * np.float32(rng.uniform(8, 25)), canvas.field(np.array([-0.9, 0.0, -0.5]), 1.1))
    else:
        row = int(rng.integers(len(canvas.names)))
        kernel = np.hanning(canvas.samples(0.35)).astype(np.float32)
        slow = np.convolve(ecg, kernel / kernel.sum(), mode="same")
        canvas.data[row] += slow * np.float32(rng.uniform(20, 50) / max(float(np.abs(slow).max()), 1e-6))
