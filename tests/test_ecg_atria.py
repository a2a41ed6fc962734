"""Beats that a detector misses or takes P for, and P waves beside them: conducted, blocked, on their own."""

import numpy as np
import pytest

from bioreport.ecg.atrial import Atria, conduction
from bioreport.ecg.beats import _searched_back, find_beats
from bioreport.ecg.conditioning import condition
from bioreport.ecg.criteria import ecg_findings
from bioreport.ecg.leads import LEADS
from bioreport.ecg.measure import measure_ecg
from bioreport.ecg.rhythm import label_beats
from bioreport.ecg.simulation import simulate_ecg


def atria(first: float, pp: float, until: float = 10.0) -> Atria:
    """P waves that come without fail, their peaks at `first` + n `pp` s."""
    train = np.arange(first, until, pp)
    return Atria(at=train, train=train, pp=pp, share=1.0, likeness=0.95)


def followed(p: Atria, onsets: np.ndarray, spread: float = 0.005) -> tuple[bool, int, bool]:
    found = conduction(p, onsets, np.full(len(onsets), "N"), spread)
    return found.p_train, found.dropped, found.dissociated


def test_two_p_waves_a_beat_at_one_distance_are_a_block_of_second_degree() -> None:
    train, dropped, dissociated = followed(atria(0.4, 0.8), np.arange(0.56, 10, 1.6))
    assert train
    assert dropped == 5
    assert not dissociated


def test_nearly_two_p_waves_a_beat_that_drift_past_it_are_dissociated() -> None:
    # RR is 2 PP and 15 ms: within ten seconds PR changes by 75 ms, and in one direction
    onsets = np.arange(0.62, 10, 1.615)
    assert followed(atria(0.3, 0.8), onsets) == (False, 0, True)


def test_p_waves_too_early_for_every_beat_are_dissociated() -> None:
    # two P waves a beat, one 0.65 s before QRS and one in QRS
    assert followed(atria(0.1, 0.8), np.arange(0.75, 10, 1.6)) == (False, 0, True)


def test_p_waves_that_pass_through_faster_beats_precede_none_of_them() -> None:
    assert followed(atria(0.1, 0.36), np.arange(0.2, 10, 0.385)) == (False, 0, False)
    assert followed(atria(0.1, 0.36), np.arange(0.22, 10, 0.36)) == (True, 0, False)


def test_p_and_t_waves_that_outnumber_the_beats_do_not_weigh_the_leads() -> None:
    simulated = simulate_ecg(2_026_006_280)
    found = find_beats(condition(simulated.data, simulated.sfreq, LEADS))
    assert len(found) == len(simulated.beats) == 7


def labels(gaps: list[float], wide: list[int], wide_ms: float = 140.0) -> str:
    kinds = np.zeros(len(gaps) + 1, int)
    kinds[wide] = 1
    seconds = np.cumsum([0.5, *gaps])
    return "".join(label_beats(seconds, kinds, np.array([88.0, wide_ms]), np.ones(len(seconds))))


def test_a_run_as_long_as_the_rest_is_ventricular_from_its_first_beat() -> None:
    gaps = [0.88, 0.87, 0.88, 0.52, *[0.4] * 7, 0.87, 0.88, 0.89]
    assert labels(gaps, list(range(4, 12))) == "NNNNVVVVVVVVNNN"
    assert labels(gaps, list(range(4, 12)), wide_ms=96.0) == "NNNN????????NNN"


def test_wide_beats_at_the_usual_rate_are_no_run() -> None:
    assert labels([0.88] * 14, list(range(4, 12))) == "NNNN????????NNN"


@pytest.mark.parametrize("seed", [2_027_006_430, 2_032_006_246])
def test_p_waves_of_a_complete_block_are_no_beats(seed: int) -> None:
    simulated = simulate_ecg(seed)
    assert "complete_av_block" in {f["name"] for f in simulated.findings if f["present"]}
    found = find_beats(condition(simulated.data, simulated.sfreq, LEADS))
    truth = np.array([beat.peak_seconds for beat in simulated.beats])
    assert len(found) == len(truth)
    assert np.abs(found.seconds - truth).max() < 0.15


def pulses(at: np.ndarray, height: float = 1.0, samples: int = 3000) -> np.ndarray:
    """Three leads with a QRS-like wave at each sample."""
    data = np.zeros((3, samples))
    wave = height * np.sin(2 * np.pi * np.arange(40) / 40) * np.hanning(40)
    for i in at:
        data[:, i - 20 : i + 20] += np.array([[1.0], [0.6], [-0.8]]) * wave
    return data


def test_missed_beats_of_a_fast_rhythm_are_searched_for_by_their_shape() -> None:
    every = np.arange(100, 2900, 150)
    known = np.delete(every, [4, 9, 10])
    found, share = _searched_back(pulses(every), known, np.ones(len(known)), np.ones(3))
    assert found.tolist() == every.tolist()
    assert len(share) == len(found)


@pytest.mark.parametrize("height", [0.0, 0.25])
def test_a_gap_without_a_beat_or_with_a_small_wave_stays_a_gap(height: float) -> None:
    known = np.delete(np.arange(100, 2900, 150), [4, 9, 10])
    data = pulses(known) + pulses(np.array([700, 1450, 1600]), height)
    found, _ = _searched_back(data, known, np.ones(len(known)), np.ones(3))
    assert found.tolist() == known.tolist()


def test_a_tachycardia_whose_beats_xqrs_takes_for_t_waves_is_regular() -> None:
    simulated = simulate_ecg(2_031_006_305)
    measured = measure_ecg(simulated.data, simulated.sfreq, LEADS)
    assert measured["rr"]["regular"]
    assert measured["rate"]["value"] == pytest.approx(simulated.facts["rate_per_minute"], abs=3)
    assert "ventricular_tachycardia" in {f["name"] for f in ecg_findings(measured) if f["present"]}
