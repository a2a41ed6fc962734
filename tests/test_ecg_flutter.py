"""Flutter waves, told from those of fibrillation, and ST read where they lie on it."""

import numpy as np
import pytest

from bioreport.ecg.conditioning import RATE
from bioreport.ecg.criteria import ecg_findings
from bioreport.ecg.flutter import levels_without_flutter, possible_rate
from bioreport.ecg.leads import LEADS
from bioreport.ecg.measure import measure_ecg
from bioreport.ecg.median_beat import MedianBeat
from bioreport.ecg.rhythm import Intervals
from bioreport.ecg.simulation import simulate_ecg
from bioreport.findings import CRITICAL


def fluttering(conducted: int, raised: float) -> tuple[MedianBeat, tuple[int, int], Intervals]:
    """A median beat on flutter waves of 0.2 s, every so many conducted, ST `raised` in the first lead."""
    t = np.arange(round(1.1 * RATE)) / RATE - 0.4
    onset, end, rr = round(0.38 * RATE), round(0.46 * RATE), 0.2 * conducted
    rows = np.stack([0.2 * np.sin(2 * np.pi * t / 0.2), 0.1 * np.cos(2 * np.pi * t / 0.2)])
    rows[0, end : end + round(0.12 * RATE)] += raised
    rhythm = Intervals(np.full(9, rr), np.ones(9, bool), rr, rr, 0.0, 0.0, 0.0, rr)
    none = np.zeros_like(rows)
    beat = MedianBeat(rows, rows, none, none, round(0.4 * RATE), 9, rr)
    return beat, (onset, end), rhythm


def test_st_is_read_against_the_flutter_wave_before_qrs() -> None:
    beat, qrs, rhythm = fluttering(4, 0.25)
    levels = levels_without_flutter(("V2", "II"), beat, ("V2", "II"), qrs, 302.0, rhythm)
    assert levels is not None
    assert levels["V2"] == pytest.approx((0.25, 0.25), abs=0.005)
    assert levels["II"] == pytest.approx((0.0, 0.0), abs=0.005)


def test_st_is_not_read_where_the_t_wave_before_lies_on_the_flutter_wave() -> None:
    beat, qrs, rhythm = fluttering(1, 0.25)
    assert levels_without_flutter(("V2",), beat, ("V2", "II"), qrs, 300.0, rhythm) is None


@pytest.mark.parametrize("present", [["st_elevation_infarction", "st_depression"], []])
def test_an_infarct_is_seen_in_flutter_and_flutter_alone_is_none(present: list[str]) -> None:
    simulated = simulate_ecg(11, present=["atrial_flutter", *present])
    measured = measure_ecg(simulated.data, simulated.sfreq, LEADS)
    found = {f["name"] for f in ecg_findings(measured) if f["present"]}
    assert "atrial_flutter" in found
    assert ("st_elevation_infarction" in found) == bool(present)


@pytest.mark.parametrize(
    ("seed", "name"),
    [
        (2_032_006_232, "atrial_fibrillation"),  # coarse, some 320/min for a wave or two
        (2_033_006_171, "atrial_flutter"),  # conducted at changing ratios
        (2_035_006_425, "atrial_flutter"),  # the same, and the waves best alike at a length beside RR / 2
        (2_033_006_189, "atrial_flutter"),  # 2:1, its waves in ST like an inferior infarct's elevation
    ],
)
def test_flutter_waves_keep_their_length(seed: int, name: str) -> None:
    simulated = simulate_ecg(seed)
    assert name in {f["name"] for f in simulated.findings if f["present"]}
    found = {f["name"] for f in ecg_findings(measure_ecg(simulated.data, 500.0, LEADS)) if f["present"]}
    assert found & {"atrial_fibrillation", "atrial_flutter"} == {name}
    assert not found & CRITICAL


def test_t_and_p_that_take_turns_in_a_tachycardia_are_no_flutter() -> None:
    simulated = simulate_ecg(2_032_006_100)  # T waves of an infarct half-way between P waves
    found = {f["name"] for f in ecg_findings(measure_ecg(simulated.data, 500.0, LEADS)) if f["present"]}
    assert {"tachycardia", "sinus_rhythm", "st_elevation_infarction"} <= found
    assert "atrial_flutter" not in found


@pytest.mark.parametrize(
    ("axis", "regular", "rate"), [(-85.0, True, 300.0), (50.0, True, None), (-85.0, False, None)]
)
def test_flutter_may_be_hidden_where_half_of_rr_and_p_allow_it(
    axis: float, regular: bool, rate: float | None
) -> None:
    spread = 0.0 if regular else 0.2
    rhythm = Intervals(np.full(9, 0.4), np.ones(9, bool), 0.4, 0.4, spread, spread, spread, 0.4)
    assert possible_rate(rhythm, axis) == rate
