"""Measurements on ECGs: rates of real records, findings of simulated ones."""

from pathlib import Path

import numpy as np
import pytest

from bioreport.ecg.criteria import ecg_findings
from bioreport.ecg.leads import LEADS
from bioreport.ecg.measure import EcgMeasurer, measure_ecg
from bioreport.ecg.reading import open_ecg
from bioreport.ecg.simulation import simulate_ecg
from bioreport.findings import ECG_FINDINGS

# beats a minute where three detectors of four agree or beats are annotated, and whether that is fast or slow
RATES = {
    "E07502": (115, "tachycardia"),
    "E07504": (86, None),
    "E07510": (48, "bradycardia"),
    "HR06000": (69, None),
    "HR06008": (79, None),
    "JS20000": (113, "tachycardia"),
    "JS20012": (121, "tachycardia"),
    "E07518": (86, None),
}
CRITICAL = tuple(finding.name for finding in ECG_FINDINGS if finding.critical)


def present(measurements: dict) -> set[str]:
    return {finding["name"] for finding in ecg_findings(measurements) if finding["present"]}


@pytest.mark.parametrize("name", RATES)
def test_rates_of_real_records(shared: Path, name: str) -> None:
    rate, named = RATES[name]
    record = open_ecg(shared / "data" / "dev" / "ecg" / f"{name}.hea")
    found = measure_ecg(
        record.read(), record.sfreq, record.leads, derived=record.derived, modified=record.modified
    )
    assert found["rate"]["value"] == pytest.approx(rate, abs=5)
    names = present(found)
    assert {"tachycardia", "bradycardia"} & names == ({named} if named else set())
    assert not names & set(CRITICAL)


def test_persistent_fibrillation_is_found(shared: Path) -> None:
    record = open_ecg(shared / "data" / "dev" / "ecg" / "data_84_1.hea")
    samples = record.read(0, int(60 * record.sfreq))
    assert "atrial_fibrillation" in present(measure_ecg(samples, record.sfreq, record.leads))


def test_rates_of_simulated_records() -> None:
    right = 0
    for seed in range(12):
        simulated = simulate_ecg(seed, present=["sinus_rhythm"], clean=True)
        found = measure_ecg(simulated.data, simulated.sfreq, LEADS)
        truth = simulated.facts["rate_per_minute"]
        right += found["rate"] is not None and abs(found["rate"]["value"] - truth) <= 3
    assert right >= 11


def test_nothing_measurable_gives_nothing() -> None:
    found = measure_ecg(np.full((12, 5000), np.nan), 500.0, LEADS)
    assert found["rate"] is None


def rhythmless(kind: str, seconds: float = 10.0) -> np.ndarray:
    """Twelve leads of 500 Hz, mV: nothing but an amplifier's noise, or waves that resemble none before."""
    rng = np.random.default_rng(3)
    samples = int(seconds * 500)
    noise = 0.004 * rng.standard_normal((12, samples))
    if kind == "flat":
        return noise
    freqs = np.fft.rfftfreq(samples, 1 / 500)
    spectrum = rng.standard_normal((3, len(freqs))) + 1j * rng.standard_normal((3, len(freqs)))
    if kind == "fibrillation":
        spectrum *= np.exp(-0.5 * ((freqs - 5.0) / 0.6) ** 2)
    elif kind == "tremor":
        spectrum *= (freqs > 20) & (freqs < 90)
    waves = np.fft.irfft(spectrum, samples, axis=1)
    waves *= 0.5 / waves.std(axis=1, keepdims=True)
    return noise + rng.standard_normal((12, 3)) @ waves


@pytest.mark.parametrize(
    ("kind", "stated"), [("flat", "asystole"), ("fibrillation", "ventricular_fibrillation"), ("tremor", None)]
)
def test_records_without_beats(kind: str, stated: str | None) -> None:
    measured = measure_ecg(rhythmless(kind), 500.0, LEADS)
    assert measured["rate"] is None
    assert present(measured) & set(CRITICAL) == ({stated} if stated else set())


def test_a_standstill_between_beats_has_its_time() -> None:
    simulated = simulate_ecg(5, present=["sinus_rhythm"], clean=True, duration_seconds=20)
    samples = simulated.data.copy()
    last = max(beat.onset_seconds for beat in simulated.beats if beat.onset_seconds < 9)
    stop = int((last + 0.55) * 500)
    samples[:, stop:] = samples[:, stop - 1 : stop] + rhythmless("flat", 20)[:, stop:]
    found = [entry for entry in ecg_findings(measure_ecg(samples, 500.0, LEADS)) if entry["present"]]
    standstill = next(entry for entry in found if entry["name"] == "asystole")
    assert standstill["start_seconds"] == pytest.approx(last, abs=0.3)
    assert standstill["end_seconds"] == pytest.approx(20, abs=0.1)


def test_what_is_clear_in_simulated_records_is_found() -> None:
    for wanted in (
        ["complete_av_block"],
        ["second_degree_av_block"],
        ["atrial_fibrillation"],
        ["atrial_flutter"],
        ["ventricular_tachycardia"],
        ["paced_rhythm"],
        ["premature_ventricular_contractions"],
        ["st_elevation_infarction", "st_depression"],
    ):
        simulated = simulate_ecg(21, present=wanted)
        found = present(measure_ecg(simulated.data, simulated.sfreq, LEADS))
        assert set(wanted) <= found, wanted
        critical = {entry["name"] for entry in simulated.findings if entry["present"]} & set(CRITICAL)
        assert found & set(CRITICAL) == critical, wanted


def test_a_long_record_is_measured_in_bounded_memory() -> None:
    hour = simulate_ecg(2, present=["sinus_rhythm"], duration_seconds=40)
    measurer = EcgMeasurer(hour.sfreq, LEADS[:3])
    held = []
    for _ in range(6):
        measurer.update(hour.data[:3])
        held.append(measurer.held.shape[1])
    # a window, what it needs beside it, and the chunk
    assert max(held) <= (30 + 15 + 2 + 2 + 40) * 500
    found = measurer.result()
    assert found["duration_seconds"] == pytest.approx(240)
    assert found["windows"] == 8 or found["windows"] == 7
