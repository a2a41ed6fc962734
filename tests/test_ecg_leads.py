"""Names of leads, sums of limb leads, and signs that leads are not what they are called."""

from pathlib import Path

import numpy as np
import pytest
from wfdb_files import twelve

from bioreport.ecg.lead_checks import check_leads, einthoven_residual
from bioreport.ecg.leads import LEADS, LIMB, Lead, derive, in_order, is_ecg, lead_of, limb_derivation
from bioreport.ecg.reading import EcgRecording, open_ecg


@pytest.mark.parametrize(
    ("labels", "lead"),
    [
        (("I", "i", "LEAD I", "Lead_I", "lead 1", "D1", "ECG I", "I-Ref", "ECG I-0", "LA-RA"), Lead("I")),
        (("II", "ii", "ECG II", "EKG II", "Lead II (mV)", "D2", "LL-RA", "MDC_ECG_LEAD_II"), Lead("II")),
        (("III", "DIII", "ECG Lead III", "LL-LA"), Lead("III")),
        (("aVR", "AVR", "avr", "a VR", "ECG aVR"), Lead("aVR")),
        (("-aVR", "−aVR", "-AVR", "aVR-"), Lead("aVR", -1)),
        (("RA-LA",), Lead("I", -1)),
        (("V1", "v1", "ECG V1-REF", "V1.", "V 1", "ECG C1"), Lead("V1")),
        (("MLII", "ML2"), Lead("II", modified=True)),
        (("MLI",), Lead("I", modified=True)),
        (("MLIII",), Lead("III", modified=True)),
        (("MCL1", "CM1", "mod. V1"), Lead("V1", modified=True)),
        (("CM5", "CC5", "CS5"), Lead("V5", modified=True)),
        (("V",), Lead("V")),
        (("V3R",), Lead("V3R")),
        (("v7",), Lead("V7")),
        (("vx",), Lead("VX")),
        (("ECG", "EKG", "ECG ECG"), Lead("ECG")),
        (("ECG1", "ECG 1", "ECG_1", "EKG1", "ECG CH1"), Lead("ECG1")),
        (("SpO2", "Resp", "ABP", "PLETH", "CVP", "col 0", "", "EEG Fp1", "C3", "A1", "X", "1", "Status",
          "EMG", "IV", "V10", "VI"), None),
    ],
)  # fmt: skip
def test_spellings(labels: tuple[str, ...], lead: Lead | None) -> None:
    for label in labels:
        assert lead_of(label) == lead, label


def test_what_is_an_ecg() -> None:
    assert is_ecg(["I", "II", "Resp"]) and is_ecg(["ECG"])
    assert not is_ecg(["Resp", "SpO2"]) and not is_ecg(["EEG Fp1", "I"]) and not is_ecg([])
    assert in_order(["V2", "ECG1", "aVF", "I", "VX"]) == ["I", "aVF", "V2", "ECG1", "VX"]


@pytest.mark.parametrize("first", range(6))
@pytest.mark.parametrize("second", range(6))
def test_any_two_limb_leads_give_the_others(first: int, second: int) -> None:
    limb = twelve(seconds=2)[:6]
    present = [LEADS[first], LEADS[second]]
    if first == second:
        assert limb_derivation(present) == {}
        return
    missing = [lead for lead in LEADS[:6] if lead not in present]
    assert list(limb_derivation(present)) == missing
    for lead in missing:
        computed = derive(limb[[first, second]], present, lead)
        np.testing.assert_allclose(computed, limb[LEADS.index(lead)], atol=1e-9)
    assert limb_derivation(LEADS) == {} and limb_derivation(["V1", "II"]) == {}


def test_sums_are_those_of_the_textbook() -> None:
    one, two = np.array([0.5, 1.0]), np.array([0.8, -0.3])
    data = np.stack([one, two])
    np.testing.assert_allclose(derive(data, ["I", "II"], "III"), two - one)
    np.testing.assert_allclose(derive(data, ["I", "II"], "aVR"), -(one + two) / 2)
    np.testing.assert_allclose(derive(data, ["I", "II"], "aVL"), one - two / 2)
    np.testing.assert_allclose(derive(data, ["I", "II"], "aVF"), two - one / 2)
    assert all(abs(sum(LIMB[lead][k] for lead in ("aVR", "aVL", "aVF"))) < 1e-12 for k in (0, 1))


# exchanged cables and labels


def _electrodes_exchanged(x: np.ndarray, first: str, second: str) -> np.ndarray:
    """What the machine records when two limb cables are exchanged; potentials against the right arm."""
    potential = {"RA": np.zeros(x.shape[1]), "LA": x[0], "LL": x[1]}
    potential[first], potential[second] = potential[second], potential[first]
    one, two = potential["LA"] - potential["RA"], potential["LL"] - potential["RA"]
    return np.stack([a * one + b * two for a, b in LIMB.values()] + list(x[6:]))


def _check(x: np.ndarray, sfreq: float = 500.0) -> list[str]:
    return check_leads([x], sfreq, LEADS)


@pytest.fixture
def real(shared: Path) -> list[np.ndarray]:
    """Twelve leads of real records."""
    records = [open_ecg(path) for path in sorted((shared / "data/dev/ecg").glob("[EHJ]*.hea"))]
    return [r.read().astype(float) for r in records if r.leads == LEADS]


def test_real_records_raise_no_suspicion(real: list[np.ndarray]) -> None:
    assert len(real) == 23
    assert all(einthoven_residual(x[:6, 10:] - x[:6, :-10], LEADS[:6]) < 0.02 for x in real)
    assert [_check(x) for x in real] == [[]] * 23


def test_exchanged_electrodes_are_suspected(real: list[np.ndarray]) -> None:
    arms = [_check(_electrodes_exchanged(x, "RA", "LA")) for x in real]
    assert sum(any("two arms" in s for s in found) for found in arms) >= 19
    leg = [_check(_electrodes_exchanged(x, "RA", "LL")) for x in real]
    assert sum(any("right arm and the left leg" in s for s in found) for found in leg) >= 17
    chest = [_check(x[[*range(6), 9, 7, 8, 6, 10, 11]]) for x in real]
    assert sum(found == [s] for found in chest for s in found if "V1 and V4" in s) >= 19


def test_the_right_leg_on_an_arm(real: list[np.ndarray]) -> None:
    flat = real[0].copy()
    rng = np.random.default_rng(0)
    flat[1] = 0.005 * rng.standard_normal(flat.shape[1])
    flat[2:6] = np.stack([a * flat[0] + b * flat[1] for a, b in list(LIMB.values())[2:]])
    assert any("II is nearly flat" in s and "right leg" in s for s in _check(flat))


@pytest.mark.parametrize(
    ("order", "signs", "words"),
    [
        ([1, 0, 2, 3, 4, 5], {}, "I and II are exchanged"),
        ([0, 1, 2, 4, 3, 5], {}, "aVR and aVL are exchanged"),
        ([0, 1, 2, 3, 4, 5], {3: -1}, "aVR is upside down"),
        ([0, 1, 2, 3, 4, 5], {2: -1}, "III is upside down"),
    ],
)
def test_wrong_labels_break_the_sums(order: list[int], signs: dict[int, int], words: str) -> None:
    x = twelve()
    limb = x[order]
    for row, sign in signs.items():
        limb[row] *= sign
    found = _check(np.concatenate([limb, x[6:]]))
    assert len(found) == 1 and "Einthoven" in found[0] and words in found[0]


def test_noise_and_gaps_are_no_exchange() -> None:
    x = twelve() + 0.5 * np.sin(np.arange(5000) / 700)
    x += np.random.default_rng(0).normal(0, 0.01, x.shape)
    assert _check(x) == []
    holes = x.copy()
    holes[3, 1000:2000] = np.nan
    assert _check(holes) == []
    assert _check(np.full((12, 5000), np.nan)) == [] and _check(x[:, :100]) == []
    lead_off = x.copy()
    lead_off[2] = np.random.default_rng(1).normal(0, 0.5, 5000)
    assert any("noise or mislabelled" in s for s in _check(lead_off))


def test_modified_leads_are_not_judged() -> None:
    x = twelve()
    x[[0, 1]] = x[[1, 0]]
    assert check_leads([x], 500.0, LEADS) != []
    assert check_leads([x], 500.0, LEADS, modified=("I", "II", "III", "aVR", "aVL")) == []


def test_warnings_reach_the_recording(tmp_path: Path) -> None:
    from wfdb_files import write_record

    x = twelve()
    x[3] *= -1
    recording = open_ecg(write_record(tmp_path, "r", x, LEADS, sfreq=500))
    assert isinstance(recording, EcgRecording)
    assert any("aVR is upside down" in sentence for sentence in recording.warnings)
