"""Ongoing activity: 1/f background, posterior rhythm, beta, drowsiness, sleep, slowing."""

import numpy as np
import scipy.fft

from bioreport.simulation.canvas import Canvas, Floats, Interval, gaussian, hann_burst
from bioreport.simulation.montages import positions

FRONT = np.array([0.0, 0.9, 0.45])
VERTEX = np.array([0.0, 0.0, 1.0])
OCCIPUT = np.array([0.0, -0.9, 0.45])
MOST_CHANNELS = 6  # named for a focal field, however dense the montage


def coloured_noise(
    rng: np.random.Generator, names: tuple[str, ...], n: int, sfreq: float, level: float
) -> Floats:
    """Draw spatially smooth 1/f noise.

    Parameters
    ----------
    rng : numpy.random.Generator
    names : tuple of str
        Electrodes.
    n : int
        Samples.
    sfreq : float
        Hz.
    level : float
        RMS between 1 and 30 Hz, µV.

    Returns
    -------
    float32 [len(names), n]
        Power falls as f^-a, a between 0.7 and 2.1; neighbours correlate by an exponential of their angle.
    """
    size = scipy.fft.next_fast_len(n, real=True)
    bins = np.arange(size // 2 + 1, dtype=np.float32) * np.float32(sfreq / size)
    exponent = rng.uniform(0.7, 2.1)
    power = 1.0 / np.maximum(bins, rng.uniform(0.3, 1.0)) ** exponent
    if rng.random() < 0.5:
        # the beta and muscle floor on which many recordings rest
        power += rng.uniform(0.2, 1.0) * 15.0**-exponent * gaussian(bins, 19.0, 6.0)
    band = (bins >= 1.0) & (bins <= 30.0)
    # irfft scales by 1/size, and a bin's two complex parts carry power 2 each on both sides
    rms = np.sqrt(4.0 * power[band].sum()) / size
    shape = (np.sqrt(power) * (level / rms)).astype(np.float32)
    count = len(names)
    parts = rng.standard_normal((count, 2 * len(bins)), dtype=np.float32).view(np.complex64)
    xyz = positions(names)
    angle = np.arccos(np.clip(xyz @ xyz.T, -1.0, 1.0))
    covariance = np.exp(-angle / rng.uniform(0.5, 1.3)) * rng.uniform(0.8, 0.97)
    covariance[np.diag_indices(count)] = 1.0
    mixing = np.linalg.cholesky(covariance).astype(np.complex64)
    spread = np.exp(rng.normal(0.0, 0.12, count)).astype(np.float32)
    spectrum = (mixing @ parts) * shape
    return scipy.fft.irfft(spectrum, size, axis=1)[:, :n] * spread[:, None]


def posterior_rhythm(
    canvas: Canvas, frequency: float, rms: float, intervals: list[Interval], lower_side: str | None
) -> Floats:
    """Paint the posterior dominant rhythm and return it, float32 [electrodes, n].

    `rms` is that of the rhythm at the occiput while it lasts, µV; on `lower_side` it is a fraction of that.
    """
    rng = canvas.rng
    linewidth, steady = rng.uniform(0.25, 0.6), rng.uniform(0.35, 0.65)
    shared = canvas.oscillation(frequency, linewidth, steady)
    width = rng.uniform(0.45, 0.7)
    wide = rng.uniform(0.1, 0.4)
    envelope = canvas.gate(intervals) * (0.85 + 0.15 * np.clip(canvas.wander(0.08), -2, 2))
    gain = np.ones(len(canvas.names), dtype=np.float32)
    weak = float(rng.uniform(0.15, 0.3)) if lower_side else float(rng.uniform(0.88, 1.0))
    weak_side = lower_side or str(rng.choice(["left", "right"]))
    sign = -1.0 if weak_side == "left" else 1.0
    for i, (x, _, _) in enumerate(canvas.xyz):
        if sign * x > 0.05:
            gain[i] = weak
        elif abs(x) <= 0.05:
            gain[i] = np.sqrt(weak)
    mixed = np.zeros((len(canvas.names), canvas.n), dtype=np.float32)
    for centre in ("O1", "O2"):
        # each side has a share of its own, the rest beats together
        own = 0.9 * shared + 0.43 * canvas.oscillation(frequency, linewidth, 0.2)
        mixed += (canvas.field(centre, width, wide) * gain)[:, None] * (own * envelope)
    if rng.random() < 0.4:
        # arc-shaped waves: a second harmonic that is locked to the first
        harmonic = (shared**2 - np.float32(np.mean(shared**2))) * envelope
        mixed += (canvas.field(OCCIPUT, width) * gain * rng.uniform(0.05, 0.2))[:, None] * harmonic
    rows = [canvas.names.index(name) for name in ("O1", "O2")]
    on = envelope > 0.5
    peak = max(float(np.sqrt(np.mean(mixed[row, on] ** 2))) for row in rows) if on.any() else 1.0
    mixed *= np.float32(rms / peak)
    canvas.data += mixed
    for start, end in intervals:
        canvas.mark("posterior_dominant_rhythm", start, end, canvas.channels(canvas.field(OCCIPUT, width)))
    return mixed


def beta(canvas: Canvas) -> None:
    """Paint frontocentral beta, of sedation where it is strong."""
    rms = canvas.rng.uniform(0.2, 0.6) * min(canvas.level, 12.0)
    wave = canvas.band_noise(14.0, 28.0) * (1 + 0.4 * np.clip(canvas.wander(0.3), -2, 2))
    canvas.add(wave * np.float32(rms), canvas.field(FRONT + VERTEX, 0.8))


def drowsiness(canvas: Canvas, intervals: list[Interval]) -> None:
    """Paint theta that waxes while the alpha is gone, and slow rolling eye movements."""
    rng = canvas.rng
    level = max(canvas.level, 6.0)
    envelope = canvas.gate(intervals, 1.5)
    theta = canvas.oscillation(rng.uniform(4.5, 6.5), 0.9, 0.2)
    pattern = canvas.in_sight(canvas.field(VERTEX + 0.5 * FRONT, 0.9))
    canvas.add(theta * envelope * np.float32(level * rng.uniform(1.2, 1.8)), pattern)
    slow = canvas.band_noise(2.0, 5.0) * envelope
    canvas.add(slow * np.float32(level * rng.uniform(0.4, 0.8)), canvas.field(VERTEX, 1.3))
    roll = canvas.oscillation(rng.uniform(0.25, 0.45), 0.08, 0.5) * envelope
    opposite = canvas.field("F8", 0.5) - canvas.field("F7", 0.5)
    canvas.add(roll * np.float32(rng.uniform(35, 80)), opposite)
    for start, end in intervals:
        canvas.mark("drowsiness", start, end, canvas.channels(canvas.field(VERTEX, 0.9)))


def sleep(canvas: Canvas, interval: Interval) -> None:
    """Paint stage N2: spindles, vertex waves, K complexes, on a background slowed by sleep."""
    rng = canvas.rng
    start, end = interval
    level = max(canvas.level, 6.0)
    envelope = canvas.gate([interval], 2.0)
    slow = canvas.band_noise(0.7, 5.0) * envelope
    canvas.add(slow * np.float32(level * rng.uniform(0.8, 1.5)), canvas.field(VERTEX + 0.3 * FRONT, 1.2))
    frequency = rng.uniform(11.8, 14.5)
    count = max(3, round((end - start) / rng.uniform(4.0, 7.0)))
    centre = VERTEX + rng.uniform(-0.3, 0.5) * FRONT
    pattern = canvas.field(centre, 0.65)
    channels = canvas.channels(pattern)
    rms = max(rng.uniform(14, 25), 1.8 * level)
    for onset in canvas.place(count, start, end, 2.0, 3.0):
        times = canvas.times(rng.uniform(0.6, 1.8))
        wave = np.sin(2 * np.pi * (frequency + rng.normal(0, 0.3)) * times + rng.uniform(0, 6.28))
        canvas.mark("sleep_spindles", onset, onset + float(times[-1]), channels)
        lateral = pattern * (1 + np.float32(rng.normal(0, 0.15)) * canvas.xyz[:, 0].astype(np.float32))
        canvas.add(
            hann_burst(len(times), 0.4) * wave * np.float32(1.41 * rms * rng.uniform(0.85, 1.3)),
            lateral,
            onset,
        )
        if rng.random() < 0.4:
            k_complex(canvas, onset - 0.6, rng.uniform(70, 150))
    for onset in canvas.place(int((end - start) / 8), start, end, 0.5, 1.0):
        wave = vertex_wave(canvas.times(0.4)) * np.float32(rng.uniform(50, 120))
        canvas.add(wave, canvas.field(VERTEX, rng.uniform(0.4, 0.6)), onset)


def vertex_wave(times: Floats) -> Floats:
    """Return a sharp negative wave with small positive sides over `times`, peak -1."""
    return (
        0.3 * gaussian(times, 0.08, 0.03) - gaussian(times, 0.17, 0.035) + 0.35 * gaussian(times, 0.28, 0.05)
    )


def k_complex(canvas: Canvas, onset: float, amplitude: float) -> None:
    """Paint one K complex: a negative wave, then a longer positive one, largest at the vertex."""
    times = canvas.times(1.0)
    wave = -gaussian(times, 0.25, 0.07) + 0.7 * gaussian(times, 0.55, 0.14)
    canvas.add(wave * np.float32(amplitude), canvas.field(VERTEX + 0.3 * FRONT, 0.7), onset)


def generalized_slowing(canvas: Canvas, intervals: list[Interval]) -> None:
    """Paint diffuse irregular delta and theta, well above the background whatever the reference."""
    rng = canvas.rng
    kept, canvas.data = canvas.data, np.zeros_like(canvas.data)
    delta_share = rng.uniform(0.3, 1.0)
    for centre in (FRONT + VERTEX, OCCIPUT + VERTEX, np.array([-0.9, 0, 0.5]), np.array([0.9, 0, 0.5])):
        delta = canvas.band_noise(0.8, 3.8) * np.float32(delta_share)
        theta = canvas.band_noise(4.0, rng.uniform(5.5, 7.0)) * np.float32(1.1 - 0.7 * delta_share)
        canvas.add(delta + theta, canvas.field(centre, 0.9))
    together = canvas.oscillation(rng.uniform(1.8, 5.0), 0.8, 0.2) * np.float32(rng.uniform(0.3, 0.9))
    canvas.add(together, canvas.field(VERTEX + rng.uniform(-0.3, 0.7) * FRONT, 1.3))
    shown = float(np.median(np.std(canvas.referenced(canvas.data), axis=1)))
    wanted = max(rng.uniform(1.6, 3.0) * canvas.level, rng.uniform(16.0, 25.0))
    canvas.data *= canvas.gate(intervals, 1.0) * np.float32(wanted / shown)
    canvas.data += kept
    for start, end in intervals:
        canvas.mark("generalized_slowing", start, end)


def focal_slowing(
    canvas: Canvas, centre: str, intervals: list[Interval], name: str | None = "focal_slowing"
) -> tuple[str, ...]:
    """Paint polymorphic delta at one place and return the channels that show it."""
    rng = canvas.rng
    level = max(canvas.level, 7.0)
    pattern = canvas.field(centre, rng.uniform(0.45, 0.65))
    low = rng.uniform(0.9, 1.5)
    wave = canvas.band_noise(low, rng.uniform(3.0, 4.5))
    if rng.random() < 0.4:
        wave += np.float32(0.5) * canvas.band_noise(4.0, 6.5)
    strength = np.float32(max(level * rng.uniform(2.8, 4.2), 24.0))
    canvas.add(wave * canvas.gate(intervals, 0.8) * strength, pattern)
    channels = canvas.channels(pattern, 0.55)[:MOST_CHANNELS]
    if name is not None:
        for start, end in intervals:
            canvas.mark(name, start, end, channels)
    return channels


def side_ratio(canvas: Canvas, wave: Floats, side: str) -> float:
    """Return one side's amplitude of a posterior rhythm over the other's, as the reference shows it.

    Pools O, P and T5/T6 as the measurement of the posterior rhythm does.
    """
    shown = canvas.referenced(wave)
    rms = [
        sum(float(np.std(shown[canvas.names.index(name)])) for name in names)
        for names in (("O1", "P3", "T5"), ("O2", "P4", "T6"))
    ]
    mine, other = rms if side == "left" else rms[::-1]
    return mine / max(other, 1e-9)
