"""Measurements on ECGs: rates of real records, findings of simulated ones."""

from pathlib import Path

import numpy as np
import pytest

from bioreport.ecg.criteria import ecg_findings
from bioreport.ecg.leads import LEADS
from bioreport.ecg.measure import measure_ecg
from bioreport.ecg.reading import open_ecg
from bioreport.ecg.simulation import simulate_ecg

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
CRITICAL = ("st_elevation_infarction", "ventricular_tachycardia", "asystole", "complete_av_block")


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
