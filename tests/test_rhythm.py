"""The posterior rhythm on signals whose rhythm is known, in and out of the occiput."""

import numpy as np
import pytest

from bioreport import rhythm

NAMES = (
    "O1",
    "O2",
    "P3",
    "P4",
    "Pz",
    "T5",
    "T6",
    "C3",
    "C4",
    "Cz",
    "F3",
    "F4",
    "Fz",
    "Fp1",
    "Fp2",
    "A1",
    "A2",
)
BACK = {"O1": 1.0, "O2": 1.0, "P3": 0.6, "P4": 0.6, "Pz": 0.6, "T5": 0.5, "T6": 0.5}
SFREQ = 200.0


def epochs(
    count: int,
    waves: dict[str, float] | None = None,
    frequency: float = 10.0,
    amplitude: float = 50.0,
    shown: float = 1.0,
    seed: int = 0,
) -> np.ndarray:
    """Pink noise of 5 µV with a sine of `amplitude` µV peak to peak times the channel's weight."""
    rng = np.random.default_rng(seed)
    samples = 2000
    spectrum = np.fft.rfft(rng.normal(size=(count, len(NAMES), samples)), axis=2)
    spectrum /= np.sqrt(np.maximum(np.fft.rfftfreq(samples, 1 / SFREQ), 0.5))
    data = np.fft.irfft(spectrum, samples, axis=2)
    data *= 5 / data.std()
    time = np.arange(samples) / SFREQ
    for epoch in range(int(shown * count)):
        wave = amplitude / 2 * np.sin(2 * np.pi * frequency * time + rng.uniform(0, 6))
        for name, weight in (waves or {}).items():
            data[epoch, NAMES.index(name)] += weight * wave
    return data.astype(np.float32)


def measure(data: np.ndarray, usable: np.ndarray | None = None) -> dict | None:
    patches = np.ones((len(data), 10), bool)
    usable = np.ones(data.shape[:2], bool) if usable is None else usable
    reference = rhythm.average_reference(data, usable, NAMES)
    spectra, averaged = rhythm.epoch_spectra(data, reference, patches, SFREQ)
    return rhythm.posterior_rhythm(spectra, averaged, usable, NAMES, rhythm.frequencies(SFREQ))


@pytest.mark.parametrize("frequency", [6.8, 8.0, 9.13, 10.5, 12.6])
@pytest.mark.parametrize("count", [3, 20])
def test_frequency_and_amplitude(frequency, count):
    found = measure(epochs(count, BACK, frequency))
    assert found["frequency_hz"] == pytest.approx(frequency, abs=0.15)
    assert found["amplitude_uv"] == pytest.approx(50, rel=0.12)
    assert found["asymmetry_percent"] < 10


def test_seen_in_few_epochs_only():
    assert measure(epochs(20, BACK, 9.0, shown=0.3))["frequency_hz"] == pytest.approx(9.0, abs=0.2)


@pytest.mark.parametrize("seed", range(10))
def test_noise_has_none(seed):
    assert measure(epochs(12, seed=seed)) is None


def test_a_rhythm_of_the_vertex_is_none_whatever_the_reference():
    data = epochs(12, {"Cz": 1.0, "C3": 0.8, "C4": 0.8, "Fz": 0.6, "F3": 0.5, "F4": 0.5}, 10.0)
    assert measure(data) is None
    # against Cz it stands over the occiput, inverted
    assert measure(data - data[:, [NAMES.index("Cz")]]) is None


def test_a_rhythm_everywhere_and_theta_are_none():
    assert measure(epochs(12, dict.fromkeys(NAMES, 1.0), 10.0)) is None
    assert measure(epochs(12, BACK, 4.5)) is None


def test_posterior_rhythm_is_found_against_the_vertex():
    data = epochs(12, BACK, 10.0)
    assert measure(data - data[:, [NAMES.index("Cz")]])["frequency_hz"] == pytest.approx(10, abs=0.15)


def test_asymmetry_and_its_side():
    weights = {**BACK, "O1": 0.3, "P3": 0.2, "T5": 0.15}
    found = measure(epochs(12, weights))
    assert found["lower_side"] == "left"
    assert found["asymmetry_percent"] == pytest.approx(70, abs=8)
    assert found["left_amplitude_uv"] < found["right_amplitude_uv"]


def test_no_asymmetry_without_a_pair():
    usable = np.ones((12, len(NAMES)), bool)
    for name in ("O1", "P3", "T5"):
        usable[:, NAMES.index(name)] = False
    found = measure(epochs(12, BACK), usable)
    assert found["frequency_hz"] == pytest.approx(10, abs=0.15)
    assert found["asymmetry_percent"] is None and found["lower_side"] is None


def test_no_posterior_channel_is_none():
    usable = np.ones((12, len(NAMES)), bool)
    usable[:, : NAMES.index("C3")] = False
    assert measure(epochs(12, BACK), usable) is None


def test_a_louder_seizure_does_not_take_its_place():
    data = epochs(12, BACK, 10.5)
    seizure = epochs(4, {"O2": 1.0, "P4": 0.6}, 7.0, amplitude=250.0, seed=1)
    found = measure(np.concatenate([data, seizure]))
    assert found["frequency_hz"] == pytest.approx(10.5, abs=0.2)
    assert found["asymmetry_percent"] < 20


def test_spectrum_of_a_sine_holds_its_power_and_masked_seconds_are_left_out():
    time = np.arange(2000) / SFREQ
    data = (10 * np.sin(2 * np.pi * 10 * time))[None, None].astype(np.float32)
    patches = np.ones((1, 10), bool)

    def powers() -> list[float]:
        found = rhythm.epoch_spectra(data, 0.5 * data[:, 0], patches, SFREQ)
        return [float(spectra[0, 0].sum()) * 0.25 for spectra in found]

    assert powers() == pytest.approx([50, 12.5], rel=0.01)
    patches[0, 6:] = False
    data[0, 0, 1200:] = 0
    assert powers() == pytest.approx([50, 12.5], rel=0.01)
    patches[0, 3:] = False
    assert powers() == [0, 0]


def test_background_ignores_the_peak():
    freqs = rhythm.frequencies(SFREQ)
    line = 3 - 1.5 * np.log(freqs)
    fitted = rhythm.background(freqs, line + 3 * np.exp(-0.5 * ((freqs - 10) / 0.6) ** 2))
    assert np.abs(fitted - line)[(freqs > 2) & (freqs < 30)].max() < 0.1
