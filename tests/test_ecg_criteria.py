"""Every criterion by hand-made measurements: there, just not there, and not to be judged."""

import copy
from typing import Any

import pytest

from bioreport.ecg.criteria import ecg_findings
from bioreport.ecg.leads import LEADS
from bioreport.findings import ECG_NAMES


def quantity(value: float, unit: str = "ms") -> dict[str, Any]:
    return {"value": value, "unit": unit, "confidence": 0.9}


def lead(**waves: float) -> dict[str, Any]:
    usual = {
        "q": -0.03, "r": 0.8, "s": -0.15, "r2": 0.0, "q_ms": 12.0, "r_peak_ms": 38.0, "area": 20.0,
        "j": 0.01, "st": 0.02, "slope": 0.01, "t": 0.25, "p": 0.1, "notched": False, "range": 0.95,
        "confidence": 0.9,
    }  # fmt: skip
    return usual | waves


def healthy() -> dict[str, Any]:
    """What is measured on a healthy heart at 72/min."""
    rs = {"V1": (0.2, -0.9), "V2": (0.4, -1.2), "V3": (0.7, -0.8), "aVL": (0.3, -0.1)}
    leads = {name: lead() for name in LEADS}
    leads["aVR"] = lead(q=-0.05, r=0.05, s=-0.8, t=-0.25, p=-0.1)
    for name, (r, s) in rs.items():
        leads[name] |= {"q": 0.0, "r": r, "s": s, "range": r - s}
    return {
        "rate": quantity(72.0, "/min"),
        "standstill": None,
        "rr": {
            "mean_ms": 833, "median_ms": 833, "shortest_ms": 820, "longest_ms": 850, "deviation_ms": 8,
            "rmssd_share": 0.01, "regular": True, "irregular": False, "sinus_arrhythmia": False,
        },
        "beats": {"count": 12, "atrial": 0, "ventricular": 0, "unclear": 0, "agreement": 0.9},
        "runs": [],
        "pauses": [],
        "paced_share": 0.0,
        "atrial": {
            "p_likeness": 0.9, "p_ratio": 20.0, "p_train": True, "rate": 72.0, "flutter_rate": None,
            "dropped": 0, "dissociated": False,
        },
        "pr": quantity(160), "p": quantity(100), "qrs": quantity(92), "qt": quantity(380),
        "qtc_bazett": quantity(416), "qtc_fridericia": quantity(404),
        "axis": quantity(45, "°"), "p_axis": quantity(50, "°"), "t_axis": quantity(40, "°"),
        "leads": leads,
        "flutter_levels": None,
        "quality": {
            "usable_share": 1.0,
            "leads": {
                name: {"state": "good", "likeness": 0.98, "wander_mv": 0.05, "mains_ratio": 1.0}
                for name in LEADS
            },
        },
        "channels_flat": [], "channels_noisy": [], "channels_saturated": [],
        "mains": None,
        "lead_swap": [],
    }  # fmt: skip


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """The healthy heart's measurements with values at dotted paths replaced; a number keeps its unit."""
    measured = copy.deepcopy(healthy())
    for path, value in changes.items():
        *way, last = path.split(".")
        place = measured
        for key in way:
            place = place[key]
        old = place.get(last)
        if isinstance(old, dict) and "unit" in old and isinstance(value, int | float):
            place[last] = {**old, "value": value}
        else:
            place[last] = value
    return measured


def stated(changes: dict[str, Any]) -> dict[str, bool]:
    return {entry["name"]: entry["present"] for entry in ecg_findings(changed(changes))}


def test_a_healthy_heart_has_sinus_rhythm_and_nothing_else() -> None:
    found = stated({})
    assert [name for name, there in found.items() if there] == ["sinus_rhythm"]
    assert set(found) == set(ECG_NAMES)


FIBRILLATING = {
    "rr.irregular": True, "rr.regular": False, "atrial.p_likeness": 0.1, "atrial.p_train": False,
    "atrial.p_ratio": 3.0, "pr": None, "p": None,
}  # fmt: skip
FLUTTERING = {
    "atrial.flutter_rate": 300.0, "rr.median_ms": 400, "rate": 150.0, "atrial.p_train": False,
    "atrial.p_likeness": 0.3, "pr": None,
}  # fmt: skip
RACING = {
    "rate": 180.0, "rr.median_ms": 333, "atrial.p_train": False, "atrial.p_likeness": 0.3, "pr": None,
}  # fmt: skip
LEFT_BLOCK = {
    "qrs": 146.0,
    "leads.V1.r": 0.1, "leads.V1.s": -1.6,
    "leads.V6.q": 0.0, "leads.V6.s": 0.0, "leads.V6.r_peak_ms": 70.0,
    "leads.I.q": 0.0, "leads.I.s": 0.0, "leads.I.r_peak_ms": 70.0,
}  # fmt: skip
SEPTAL = {"leads.V1.r": 0.2, "leads.V1.r_peak_ms": 18.0, "leads.V6.q": -0.1, "leads.V6.q_ms": 20.0}
RIGHT_BLOCK = {"qrs": 136.0, "leads.V1.r2": 0.5, "leads.V6.s": -0.3, "leads.I.s": -0.2}
INFERIOR = {f"leads.{name}.{at}": 0.2 for name in ("II", "III", "aVF") for at in ("j", "st")}
ANTERIOR = {f"leads.{name}.{at}": 0.35 for name in ("V2", "V3") for at in ("j", "st")}
BESIDE = {f"leads.{name}.{at}": 0.09 for name in ("V6", "II", "I") for at in ("j", "st")}
LEVEL = {name: {"j": 0.0, "st": 0.0} for name in LEADS}
RAISED = {name: {"j": 0.25, "st": 0.25} for name in ("II", "III", "aVF")}
RECIPROCAL = {f"leads.aVL.{at}": -0.1 for at in ("j", "st")}
SLIGHT = {path: 0.13 for path in INFERIOR} | {path: -0.06 for path in RECIPROCAL}

# finding, what is changed, and whether it is then there; None where it cannot be judged
CASES: list[tuple[str, dict[str, Any], bool | None]] = [
    # rate
    ("bradycardia", {"rate": 59.0}, True),
    ("bradycardia", {"rate": 60.0}, False),
    ("tachycardia", {"rate": 101.0}, True),
    ("tachycardia", {"rate": 100.0}, False),
    ("tachycardia", {"rate": None}, None),
    # rhythm
    ("sinus_rhythm", {"atrial.p_likeness": 0.3, "atrial.p_train": False}, False),
    ("sinus_rhythm", {f"leads.{name}.p": -0.1 for name in ("I", "II", "aVF")}, False),
    ("sinus_rhythm", {**RACING, "rate": 140.0, "atrial.p_likeness": 0.95}, True),
    ("sinus_rhythm", {"atrial.p_likeness": None, "atrial.p_train": False, "pr": None}, None),
    ("sinus_arrhythmia", {"rr.sinus_arrhythmia": True}, True),
    ("sinus_arrhythmia", {"rr.sinus_arrhythmia": True, **FIBRILLATING}, False),
    ("atrial_fibrillation", FIBRILLATING, True),
    ("atrial_fibrillation", {**FIBRILLATING, "atrial.p_likeness": 0.8}, False),
    ("atrial_fibrillation", {**FIBRILLATING, "rr.irregular": False}, False),
    ("atrial_fibrillation", {**FIBRILLATING, "beats.count": 5}, False),
    ("atrial_flutter", FLUTTERING, True),
    ("atrial_flutter", {**FLUTTERING, "atrial.flutter_rate": None}, False),
    ("atrial_flutter", {**FLUTTERING, "atrial.flutter_rate": 210.0}, False),
    ("atrial_flutter", {**FLUTTERING, "rr.median_ms": 600, "rate": 100.0}, False),
    ("st_elevation", {**FLUTTERING, **INFERIOR}, None),
    ("st_elevation", {**FLUTTERING, **INFERIOR, "flutter_levels": LEVEL}, False),
    ("st_elevation", {**FLUTTERING, "flutter_levels": LEVEL | RAISED}, True),
    ("st_elevation_infarction", {**FLUTTERING, **INFERIOR, **RECIPROCAL}, False),
    ("st_elevation_infarction", {**FLUTTERING, "flutter_levels": LEVEL | RAISED}, True),
    # waves that are none of flutter: an infarct is seen beside them as well as without them
    ("st_elevation_infarction", {**INFERIOR, **RECIPROCAL, "flutter_levels": LEVEL}, False),
    ("st_elevation_infarction", {**INFERIOR, **RECIPROCAL, "flutter_levels": LEVEL | RAISED}, True),
    ("t_wave_inversion", {**FLUTTERING, "flutter_levels": LEVEL}, None),
    ("supraventricular_tachycardia", RACING, True),
    ("supraventricular_tachycardia", {**RACING, "rate": 149.0}, False),
    ("supraventricular_tachycardia", {**RACING, "qrs": 126.0}, False),
    ("supraventricular_tachycardia", {**RACING, "rr.regular": False}, False),
    ("ventricular_tachycardia", {**RACING, "qrs": 150.0}, True),
    ("ventricular_tachycardia", {**RACING, "qrs": 150.0, "rr.regular": False}, False),
    ("ventricular_tachycardia", {**RACING, "rate": 119.0, "qrs": 150.0}, False),
    ("ventricular_tachycardia", {"rate": 130.0, "qrs": 150.0}, False),
    ("ventricular_tachycardia", {**RACING, **LEFT_BLOCK, "rate": 140.0}, False),
    ("ventricular_tachycardia", {**RACING, **LEFT_BLOCK, "rate": 140.0, "axis": -120}, True),
    ("ventricular_tachycardia", {**RACING, "rate": 140.0, "qrs": 150.0}, False),
    ("ventricular_tachycardia", {**RACING, "rate": 140.0, "qrs": 150.0, "axis": 85}, True),
    ("ventricular_tachycardia", {**RACING, **SEPTAL, "rate": 140.0, "qrs": 150.0, "axis": 85}, False),
    ("ventricular_tachycardia", {
        **RACING, **SEPTAL, "rate": 140.0, "qrs": 150.0, "axis": 85, "leads.V1.r_peak_ms": 44.0,
    }, True),
    ("ventricular_tachycardia", {
        "runs": [{"beats": 4, "rate": 150.0, "start_seconds": 3.0, "end_seconds": 4.6}],
        "beats.ventricular": 4,
    }, True),
    ("paced_rhythm", {"paced_share": 0.9}, True),
    ("paced_rhythm", {"paced_share": 0.5}, False),
    ("complete_av_block", {"atrial.dissociated": True, "atrial.p_train": False, "rate": 40.0}, True),
    ("asystole", {
        "standstill": {"kind": "asystole", "start_seconds": 0.0, "end_seconds": 10.0, "whole": True},
        "rate": None,
    }, True),
    ("ventricular_fibrillation", {
        "standstill": {"kind": "fibrillation", "start_seconds": 0.0, "end_seconds": 10.0, "whole": True},
        "rate": None,
    }, True),
    ("asystole", {
        "standstill": {"kind": "noise", "start_seconds": 0.0, "end_seconds": 10.0, "whole": True},
        "rate": None,
    }, None),
    # single beats
    ("premature_atrial_contractions", {"beats.atrial": 1}, True),
    ("premature_atrial_contractions", {"beats.atrial": 1, **FIBRILLATING}, False),
    ("premature_atrial_contractions", {"beats.atrial": 1, "atrial.dropped": 1}, False),
    ("premature_ventricular_contractions", {"beats.ventricular": 1}, True),
    ("pause", {"pauses": [{"start_seconds": 3.0, "seconds": 2.4}], "rr.longest_ms": 2400}, True),
    # AV conduction
    ("first_degree_av_block", {"pr": 215.0}, True),
    ("first_degree_av_block", {"pr": 205.0}, False),
    ("first_degree_av_block", {"pr": 240.0, "atrial.dropped": 1}, False),
    ("second_degree_av_block", {"atrial.dropped": 1}, True),
    ("second_degree_av_block", {"atrial.dropped": 1, "atrial.dissociated": True, "rate": 45.0}, False),
    ("complete_av_block", {"atrial.dissociated": True, "atrial.p_train": False, "rate": 72.0}, False),
    # bundle branches
    ("left_bundle_branch_block", LEFT_BLOCK, True),
    ("left_bundle_branch_block", {**LEFT_BLOCK, "qrs": 118.0}, False),
    ("left_bundle_branch_block", {**LEFT_BLOCK, "leads.V6.q": -0.1}, False),
    ("left_bundle_branch_block", {**LEFT_BLOCK, "paced_share": 0.9}, None),
    ("right_bundle_branch_block", RIGHT_BLOCK, True),
    ("right_bundle_branch_block", {**RIGHT_BLOCK, "qrs": 116.0}, False),
    ("right_bundle_branch_block", {**RIGHT_BLOCK, "leads.V6.s": 0.0, "leads.I.s": 0.0}, False),
    ("incomplete_right_bundle_branch_block", {**RIGHT_BLOCK, "qrs": 114.0}, True),
    ("incomplete_right_bundle_branch_block", {**RIGHT_BLOCK, "qrs": 100.0}, False),
    ("intraventricular_conduction_delay", {"qrs": 134.0}, True),
    ("intraventricular_conduction_delay", {"qrs": 112.0}, False),
    ("intraventricular_conduction_delay", RIGHT_BLOCK, False),
    # axis
    ("left_axis_deviation", {"axis": -31}, True),
    ("left_axis_deviation", {"axis": -29}, False),
    ("left_axis_deviation", {"axis": None}, None),
    ("right_axis_deviation", {"axis": 95}, True),
    ("right_axis_deviation", {"axis": 89}, False),
    ("left_anterior_fascicular_block", {
        "axis": -55, "leads.aVL.r": 0.7, "leads.III.r": 0.2, "leads.III.s": -0.9,
    }, True),
    ("left_anterior_fascicular_block", {
        "axis": -44, "leads.aVL.r": 0.7, "leads.III.r": 0.2, "leads.III.s": -0.9,
    }, False),
    # chambers
    ("left_ventricular_hypertrophy", {"leads.V1.s": -1.6, "leads.V5.r": 2.0}, True),
    ("left_ventricular_hypertrophy", {"leads.V1.s": -1.4, "leads.V5.r": 2.0}, False),
    ("left_ventricular_hypertrophy", {"leads.V1.s": -2.6, "leads.V5.r": 2.0, **LEFT_BLOCK}, False),
    ("right_ventricular_hypertrophy", {"leads.V1.r": 0.9, "leads.V1.s": -0.3, "axis": 115}, True),
    ("right_ventricular_hypertrophy", {"leads.V1.r": 0.9, "leads.V1.s": -0.3, "axis": 80}, False),
    ("low_qrs_voltage", {
        **{f"leads.{name}.range": 0.45 for name in LEADS[:6]},
        **{f"leads.{name}.range": 0.9 for name in LEADS[6:]},
    }, True),
    ("low_qrs_voltage", {f"leads.{name}.range": 0.45 for name in LEADS[:6]}, False),
    # ST, T, Q, QT
    ("st_elevation", INFERIOR, True),
    ("st_elevation", {"leads.II.j": 0.2, "leads.II.st": 0.2}, False),
    ("st_elevation", {**INFERIOR, **LEFT_BLOCK}, False),
    ("st_elevation", {f"leads.{name}.confidence": 0.2 for name in LEADS}, None),
    ("st_elevation_infarction", {**INFERIOR, **RECIPROCAL}, True),
    ("st_elevation_infarction", INFERIOR, True),
    # slight shifts are those of a fast rate, clear ones are not
    ("st_elevation_infarction", {**SLIGHT, "rate": 72.0}, True),
    ("st_elevation_infarction", {**SLIGHT, "rate": 140.0}, False),
    ("st_elevation_infarction", {**SLIGHT, **INFERIOR, "rate": 140.0}, True),
    ("st_elevation_infarction", {**SLIGHT, **RECIPROCAL, "rate": 140.0}, True),
    ("st_elevation_infarction", {path: 0.14 for path in INFERIOR}, False),
    ("st_elevation_infarction", {**INFERIOR, "leads.V6.j": 0.08, "leads.V6.st": 0.08}, True),
    ("st_elevation_infarction", {**INFERIOR, "leads.V5.j": 0.08, "leads.V5.st": 0.08}, False),
    ("st_elevation_infarction", {**ANTERIOR, "qtc_bazett": 425.0}, True),
    ("st_elevation_infarction", {**ANTERIOR, "qtc_bazett": 360.0}, False),
    ("st_elevation_infarction", {**ANTERIOR, "qtc_bazett": 425.0, **BESIDE}, False),
    ("st_elevation_infarction", {**{path: 0.52 for path in ANTERIOR}, "qtc_bazett": 340.0}, True),
    ("st_elevation_infarction", {**{path: 0.52 for path in ANTERIOR}, **BESIDE}, False),
    ("st_elevation_infarction", {
        **INFERIOR, **{f"leads.{n}.{at}": 0.15 for n in ("V4", "V5", "V6") for at in ("j", "st")},
    }, False),
    ("st_elevation_infarction", {**INFERIOR, **RECIPROCAL, "paced_share": 0.9}, False),
    ("st_depression", {f"leads.{n}.{at}": -0.1 for n in ("V4", "V5") for at in ("j", "st")}, True),
    ("st_depression", {f"leads.{n}.{at}": -0.03 for n in ("V4", "V5") for at in ("j", "st")}, False),
    ("t_wave_inversion", {"leads.V4.t": -0.2, "leads.V5.t": -0.2}, True),
    ("t_wave_inversion", {"leads.V4.t": -0.2}, False),
    ("t_wave_inversion", {"leads.V4.t": -0.2, "leads.V5.t": -0.2, "qt": None}, None),
    ("pathological_q_waves", {
        f"leads.{n}.{k}": v for n in ("III", "aVF") for k, v in (("q", -0.4), ("q_ms", 42.0))
    }, True),
    ("pathological_q_waves", {
        f"leads.{n}.{k}": v for n in ("III", "aVF") for k, v in (("q", -0.4), ("q_ms", 24.0))
    }, False),
    ("prolonged_qt", {"qtc_bazett": 500.0, "qtc_fridericia": 490.0}, True),
    ("prolonged_qt", {"qtc_bazett": 500.0, "qtc_fridericia": 440.0}, False),
    ("prolonged_qt", {"qtc_bazett": None}, None),
    ("short_qt", {"qtc_bazett": 320.0, "qtc_fridericia": 315.0}, True),
    ("short_qt", {"qtc_bazett": 320.0, "qtc_fridericia": 365.0}, False),
    # the recording
    ("limb_lead_reversal", {"lead_swap": ["I runs against V6: the electrodes …"], "p_axis": 150}, True),
    ("limb_lead_reversal", {"lead_swap": ["I runs against V6: the electrodes …"], "p_axis": 50}, False),
    ("limb_lead_reversal", {"lead_swap": ["II is nearly flat …"], "leads.II.range": 0.06}, True),
    ("limb_lead_reversal", {"lead_swap": ["II is nearly flat …"], "leads.II.range": 0.2}, False),
    ("limb_lead_reversal", {"lead_swap": ["I runs against V6: …"], "p_axis": 150, "paced_share": 0.9}, False),
    ("limb_lead_reversal", {"lead_swap": None}, None),
    ("lead_off", {"channels_flat": ["V3"]}, True),
    ("noisy_lead", {"channels_noisy": ["V3"]}, True),
    ("baseline_wander", {f"quality.leads.{name}.wander_mv": 0.8 for name in LEADS[:5]}, True),
    ("baseline_wander", {"quality.leads.V1.wander_mv": 0.8}, False),
    ("mains_interference", {"mains": {"frequency_hz": 50, "ratio": 80.0, "channels": ["I"]}}, True),
    ("mains_interference", {"mains": {"frequency_hz": 50, "ratio": 12.0, "channels": []}}, False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "there"), CASES)
def test_criterion(name: str, changes: dict[str, Any], there: bool | None) -> None:
    assert stated(changes).get(name) is there


def test_every_finding_is_there_in_some_case() -> None:
    assert {name for name, _, there in CASES if there} | {"sinus_rhythm"} == set(ECG_NAMES)
