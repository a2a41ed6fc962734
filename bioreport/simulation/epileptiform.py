"""Epileptiform activity: focal discharges, generalized spike-and-wave, seizures, burst suppression."""

import numpy as np

from bioreport.simulation.background import FRONT, MOST_CHANNELS, OCCIPUT, VERTEX
from bioreport.simulation.canvas import Canvas, Floats, Interval, gaussian, hann_burst


def spike_and_slow_wave(times: Floats, width: float, slow: float) -> Floats:
    """Return one discharge over `times`: a sharp negative wave of `width` seconds, then a slow wave.

    The sharp peak is -1 at 0.15 s, `slow` the height of the after-going wave.
    """
    sigma = width / 4.0
    sharp = -gaussian(times, 0.15, sigma) + 0.45 * gaussian(times, 0.15 + 2.2 * sigma, 1.2 * sigma)
    return sharp - np.float32(slow) * gaussian(times, 0.15 + 4.5 * sigma + 0.12, 0.08)


def focal_discharges(canvas: Canvas, centre: str, interval: Interval, count: int) -> None:
    """Paint spikes or sharp waves at one place and mark each of them."""
    rng = canvas.rng
    pattern = canvas.field(centre, rng.uniform(0.42, 0.6))
    channels = canvas.channels(pattern, 0.55)[:MOST_CHANNELS]
    width = rng.uniform(0.06, 0.16)
    slow = rng.uniform(0.25, 0.6)
    amplitude = max(rng.uniform(80, 170), 9.0 * canvas.level)
    for onset in canvas.place(count, *interval, 0.8, 0.9):
        times = canvas.times(0.8)
        wave = spike_and_slow_wave(times, width * rng.uniform(0.85, 1.15), slow)
        jittered = pattern ** np.float32(rng.uniform(0.8, 1.2))
        canvas.add(wave * np.float32(amplitude * rng.uniform(0.8, 1.25)), jittered, onset)
        canvas.mark("focal_epileptiform_discharges", onset, onset + 0.6, channels)


def generalized_spike_wave(canvas: Canvas, interval: Interval, count: int) -> None:
    """Paint bursts of 2.5–4 Hz spike-and-wave over the whole head, largest in front."""
    rng = canvas.rng
    pattern = canvas.in_sight(canvas.field(FRONT + rng.uniform(0.3, 1.0) * VERTEX, rng.uniform(1.1, 1.6)))
    amplitude = max(rng.uniform(110, 260), 8.0 * canvas.level)
    frequency = rng.uniform(2.6, 4.0)
    longest = min(7.0, 0.6 * (interval[1] - interval[0]) / count)
    for onset in canvas.place(count, *interval, longest, longest + 1.5):
        length = rng.uniform(min(1.2, longest), longest)
        periods = max(2, int(length * frequency))
        at = 0.0
        for i in range(periods):
            period = (1.0 / frequency) * (1 + 0.12 * i / periods)
            times = canvas.times(period)
            wave = -gaussian(times, 0.07, 0.014) * 0.8 + gaussian(times, 0.11, 0.02) * 0.3
            wave -= np.sin(np.pi * np.clip((times - 0.1) / (period - 0.1), 0, 1)).astype(np.float32) * 0.8
            wave += np.float32(0.35)
            canvas.add(wave * np.float32(amplitude * rng.uniform(0.85, 1.1)), pattern, onset + at)
            at += period
        canvas.mark("generalized_spike_wave", onset, onset + at, canvas.channels(pattern, 0.4))


def seizure(canvas: Canvas, interval: Interval, centre: str | None) -> tuple[str, ...]:
    """Paint a seizure that evolves in frequency, amplitude and place, then post-ictal slowing.

    Parameters
    ----------
    canvas : Canvas
    interval : (float, float)
        Seconds; at least 8 s long.
    centre : str or None
        Electrode of the onset; None for a generalized onset.

    Returns
    -------
    tuple of str
        Channels of the onset, the strongest first.
    """
    rng = canvas.rng
    start, end = interval
    times = canvas.times(end - start)
    progress = times / times[-1]
    first, last = rng.uniform(5.0, 9.5), rng.uniform(1.5, 3.2)
    course = first * (last / first) ** (progress ** np.float32(rng.uniform(0.8, 1.3)))
    seconds = np.arange(int(end - start) + 2)
    wobble = 1 + 0.05 * np.interp(times, seconds, rng.standard_normal(len(seconds)))
    phase = 2 * np.pi * np.cumsum(course * wobble) / canvas.sfreq
    sharpness = rng.uniform(0.4, 1.0)
    # a phase-locked spike on each cycle, more with time: rhythmic waves turn into spike-and-wave
    cycle = np.cos(phase)
    wave = cycle + sharpness * progress * np.exp(6.0 * (np.cos(phase - 0.9) - 1.0)) * -1.6
    wave += 0.25 * np.cos(2 * phase + 0.6)
    low = max(rng.uniform(30, 50), 2.5 * canvas.level)
    high = max(rng.uniform(110, 260), 8.0 * canvas.level)
    grow = (low + (high - low) * progress ** np.float32(0.9)) * hann_burst(len(times), 0.04)
    wave = (wave * grow).astype(np.float32)
    if centre is None:
        pattern = canvas.in_sight(canvas.field(VERTEX + rng.uniform(-0.2, 0.6) * FRONT, 1.2))
        canvas.add(wave, pattern, start)
        channels = canvas.channels(pattern, 0.3)
        fast = canvas.band_noise(14.0, 25.0, len(times)) * np.exp(-6.0 * progress)
        canvas.add(fast * np.float32(0.3 * high), pattern, start)
    else:
        near = canvas.field(centre, rng.uniform(0.45, 0.6))
        middle = canvas.field(centre, 0.95)
        channels = canvas.channels(near, 0.5)[:MOST_CHANNELS]
        reach = float(rng.uniform(0.3, 1.0))
        canvas.add(wave, near, start)
        canvas.add(wave * np.clip(2.5 * progress - 0.6, 0, 1) * np.float32(0.5), middle, start)
        if reach > 0.5:
            lagged = np.roll(wave, canvas.samples(0.02)) * np.clip(3 * progress - 1.8, 0, 1)
            canvas.add(lagged * np.float32(0.6 * reach), canvas.field(VERTEX, 1.3), start)
    canvas.mark("seizure", start, end, channels)
    after = (end, min(canvas.duration, end + rng.uniform(5, 25)))
    if after[1] - after[0] > 2:
        delta = canvas.band_noise(0.8, 3.0) * canvas.gate([after], 0.5)
        where = VERTEX if centre is None else centre
        canvas.add(delta * np.float32(rng.uniform(0.15, 0.3) * high), canvas.field(where, 0.9))
    return channels


def burst_suppression(canvas: Canvas) -> None:
    """Turn the recording into bursts on a suppressed background."""
    rng = canvas.rng
    canvas.data *= np.float32(rng.uniform(0.6, 1.5) / max(canvas.level, 1.0))
    gap = rng.uniform(3.0, 9.0)
    amplitude = np.float32(rng.uniform(45, 110))
    patterns = [canvas.field(where, 0.9) for where in (VERTEX + FRONT, VERTEX + OCCIPUT)]
    whole = canvas.in_sight(canvas.field(VERTEX, 1.3))
    at = rng.uniform(0.3, 3.0)
    while at < canvas.duration:
        length = rng.uniform(0.8, min(3.5, 0.7 * gap))
        count = canvas.samples(length)
        shape = hann_burst(count, 0.25) * amplitude * np.float32(rng.uniform(0.7, 1.3))
        canvas.add(canvas.band_noise(1.0, 6.0, count) * shape, whole, at)
        for pattern in patterns:
            mix = canvas.band_noise(1.0, 8.0, count) + np.float32(0.5) * canvas.band_noise(8.0, 20.0, count)
            canvas.add(mix * shape * np.float32(0.5), pattern, at)
        if rng.random() < 0.4:
            canvas.add(spike_and_slow_wave(canvas.times(0.8), 0.09, 0.5) * amplitude, whole, at)
        at += length + gap * rng.uniform(0.6, 1.5)
    canvas.mark("burst_suppression", 0.0, canvas.duration)
