"""The ECG lexicon: what it reads as stated, denied, uncertain, or not at all."""

import itertools

import numpy as np
import pytest

from bioreport.ecg.leads import CHEST_LEADS, LEADS
from bioreport.ecg.lexicon import read_findings, read_statements
from bioreport.ecg.simulation.plan import draw_findings
from bioreport.ecg.simulation.wording import write_sections
from bioreport.findings import CRITICAL, ECG_FINDINGS, ECG_NAMES, absent_finding

SINUS, AF = "sinus_rhythm", "atrial_fibrillation"
STEMI, Q = "st_elevation_infarction", "pathological_q_waves"
UP, DOWN, T = "st_elevation", "st_depression", "t_wave_inversion"
LAD, RAD = "left_axis_deviation", "right_axis_deviation"
LVH, RVH = "left_ventricular_hypertrophy", "right_ventricular_hypertrophy"
PAC, PVC = "premature_atrial_contractions", "premature_ventricular_contractions"
RBBB, LBBB, IRBBB = (
    "right_bundle_branch_block",
    "left_bundle_branch_block",
    "incomplete_right_bundle_branch_block",
)
IVCD, LAFB = "intraventricular_conduction_delay", "left_anterior_fascicular_block"
AVB1, AVB2, AVB3 = "first_degree_av_block", "second_degree_av_block", "complete_av_block"
SVT, VT, VF = "supraventricular_tachycardia", "ventricular_tachycardia", "ventricular_fibrillation"


def said(text: str) -> dict[str, bool]:
    return {name: value for name, value in read_findings(text).items() if value is not None}


def yes(*names: str) -> dict[str, bool]:
    return dict.fromkeys(names, True)


def no(*names: str) -> dict[str, bool]:
    return dict.fromkeys(names, False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Sinus bradycardia.", yes(SINUS, "bradycardia")),
        ("SINUS TACHYCARDIA", yes(SINUS, "tachycardia")),
        ("Normal sinus rhythm.", yes(SINUS) | no("bradycardia", "tachycardia")),
        ("Sinus rhythm with marked sinus arrhythmia", yes(SINUS, "sinus_arrhythmia")),
        ("Atrial fibrillation with rapid ventricular response", yes(AF, "tachycardia")),
        ("Atrial fibrillation with slow ventricular response.", yes(AF, "bradycardia")),
        ("AF with RVR, LAD, RBBB.", yes(AF, "tachycardia", LAD, RBBB)),
        ("afib with rvr, rbbb", yes(AF, "tachycardia", RBBB)),
        ("Typical atrial flutter with 2:1 AV block", yes("atrial_flutter")),
        ("AV nodal reentrant tachycardia", yes(SVT, "tachycardia")),
        ("Narrow complex tachycardia", yes(SVT, "tachycardia")),
        ("VT", yes(VT, "tachycardia")),
        ("Wide-complex tachycardia with AV dissociation: ventricular tachycardia.", yes(VT, "tachycardia")),
        ("Sinus rhythm with a 5-beat run of VT.", yes(SINUS, VT)),
        ("Ventricular tachycardia at 160 beats per minute.", yes(VT, "tachycardia")),
        ("V-fib.", yes(VF)),
        ("Ventricular standstill.", yes("asystole")),
        ("Sinus arrest of 3.2 s.", yes("pause")),
        ("Electronic ventricular pacemaker", yes("paced_rhythm")),
        ("AV dual-paced rhythm", yes("paced_rhythm")),
        ("Frequent premature ventricular complexes", yes(PVC)),
        ("Occasional PACs, no PVCs.", yes(PAC) | no(PVC)),
        ("Premature supraventricular complexes", yes(PAC)),
        ("Ventricular bigeminy.", yes(PVC)),
        ("Atrial and ventricular premature complexes.", yes(PAC, PVC)),
        ("1st degree AV block", yes(AVB1)),
        ("Sinus rhythm with 1st degree A-V block", yes(SINUS, AVB1)),
        ("AV block, first degree.", yes(AVB1)),
        ("The PR interval is prolonged.", yes(AVB1)),
        ("2nd degree AV block, Mobitz I (Wenckebach)", yes(AVB2)),
        ("2:1 AV block.", yes(AVB2)),
        ("Complete heart block", yes(AVB3)),
        ("Third-degree AV block with junctional escape", yes(AVB3)),
        ("No P wave is conducted.", yes(AVB3)),
        ("RBBB", yes(RBBB)),
        ("Right bundle-branch block and left anterior fascicular block", yes(RBBB, LAFB)),
        ("Incomplete right bundle branch block", yes(IRBBB)),
        ("RSR' in V1", yes(IRBBB)),
        ("Incomplete left bundle branch block.", {}),
        ("LBBB.", yes(LBBB)),
        ("LAFB", yes(LAFB)),
        ("Left anterior hemiblock.", yes(LAFB)),
        ("Left posterior fascicular block", {}),
        ("Nonspecific intraventricular conduction disorder.", yes(IVCD)),
        ("Left axis deviation", yes(LAD)),
        ("Leftward axis.", yes(LAD)),
        ("The axis is deviated to the right.", yes(RAD)),
        ("Northwest axis.", yes(RAD)),
        ("Minimal voltage criteria for LVH, may be normal variant", yes(LVH)),
        ("Left ventricular hypertrophy with repolarization abnormality", yes(LVH)),
        ("Biventricular hypertrophy.", yes(LVH, RVH)),
        ("Low voltage in the limb leads", yes("low_qrs_voltage")),
        ("Low voltage QRS", yes("low_qrs_voltage")),
        ("ST elevation, consider acute inferior infarct", yes(UP)),
        ("** ** ACUTE MI / STEMI ** **", yes(STEMI, UP)),
        ("Acute anterior myocardial infarction.", yes(STEMI, UP)),
        ("Acute inferolateral ST-elevation infarction pattern.", yes(STEMI, UP)),
        ("NSTEMI pattern with ST depression", yes(DOWN)),
        ("Old inferior infarct", yes(Q)),
        ("Prior anteroseptal MI.", yes(Q)),
        ("Inferior infarct, age undetermined", yes(Q)),
        ("Lateral infarct, possibly acute", {}),
        ("Q waves in II, III and aVF.", yes(Q)),
        ("Small septal q waves.", {}),
        ("ST segments are depressed in V4-V6.", yes(DOWN)),
        ("Elevated ST segments in V2.", yes(UP)),
        ("ST elevation and ST depression.", yes(UP, DOWN)),
        ("ST elevation and depression", yes(UP, DOWN)),
        ("T waves in V1, V2 and V3 are inverted.", yes(T)),
        ("Symmetrical T-wave inversions in the anterior leads", yes(T)),
        ("Inverted T in III.", yes(T)),
        ("Nonspecific T wave abnormality", {}),
        ("Nonspecific ST and T wave changes.", {}),
        ("T wave abnormality, consider lateral ischemia", {}),
        ("Prolonged QT", yes("prolonged_qt")),
        ("QTc is markedly prolonged at 520 ms", yes("prolonged_qt")),
        ("QT/QTc prolongation.", yes("prolonged_qt")),
        ("Short QT interval.", yes("short_qt")),
        ("Arm leads reversed.", yes("limb_lead_reversal")),
        ("LA/RA reversal", yes("limb_lead_reversal")),
        ("Precordial lead misplacement.", {}),
        ("Leads V1 and V2 are off, no signal.", yes("lead_off")),
        ("Motion artifact in V3.", yes("noisy_lead")),
        ("Poor quality tracing, wandering baseline, 60 Hz interference.",
         yes("noisy_lead", "baseline_wander", "mains_interference")),
        ("sinus rhythm. normal axis. st depression in v5, v6", yes(SINUS, DOWN) | no(LAD, RAD)),
        ("Proximal LAD occlusion is a clinical matter.", {}),
        ("*** INFERIOR INFARCT - POSSIBLY ACUTE ***", {}),
        ("Inferior infarct, recent", yes(STEMI, UP)),
        ("Inferior ST elevation - cannot rule out myocardial injury", yes(UP)),
        ("Prolonged QT - consider ischemia", yes("prolonged_qt")),
        ("RBBB with RAD - possible left posterior fascicular block", yes(RBBB, RAD)),
        ("Conduction defect of LBBB type", {}),
        ("I.V. conduction defect", yes(IVCD)),
        ("AV block, complete", yes(AVB3)),
        ("QRS changes may be due to LVH but cannot rule out anteroseptal infarct", {}),
        ("Voltages are high.", yes(LVH)),
        ("Low amplitude T waves.", {}),
        ("Low amplitude QRS complexes.", yes("low_qrs_voltage")),
        ("The ST segments show 2 mm elevation in V2-V3.", yes(UP)),
        ("STE in II with reciprocal depression in I.", yes(UP, DOWN)),
        ("Flat line in lead V6.", yes("lead_off")),
        ("Lead V3 disconnected", yes("lead_off")),
        ("The rhythm is sinus; the rate is slow.", yes(SINUS, "bradycardia")),
        ("PR, QRS and QT intervals are within normal limits.",
         no(AVB1, RBBB, LBBB, IVCD, "prolonged_qt", "short_qt")),
        ("Sinus rhythm, ventricular tachycardia.", yes(SINUS, VT)),
        ("Atrial fibrillation has replaced sinus rhythm.", yes(AF) | no(SINUS)),
    ],
)  # fmt: skip
def test_stated(text: str, expected: dict[str, bool]) -> None:
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No ST-T changes", no(UP, DOWN, T)),
        ("No ST changes.", no(UP, DOWN)),
        ("No ST elevation or depression.", no(UP, DOWN)),
        ("No ST elevation, ST depression, or T-wave inversion.", no(UP, DOWN, T)),
        ("ST segments are isoelectric.", no(UP, DOWN)),
        ("T waves are upright.", no(T)),
        ("ST elevation: none.", no(UP)),
        ("Normal axis (45°).", no(LAD, RAD)),
        ("No axis deviation.", no(LAD, RAD)),
        ("No hypertrophy.", no(LVH, RVH)),
        ("No left or right ventricular hypertrophy.", no(LVH, RVH)),
        ("No acute ischemia.", no(STEMI)),
        ("No evidence of infarction.", no(STEMI, Q)),
        ("No acute infarct.", no(STEMI)),
        ("No old infarct.", no(Q)),
        ("No ectopy.", no(PAC, PVC)),
        ("No first-, second- or third-degree AV block.", no(AVB1, AVB2, AVB3)),
        ("No AV block or bundle branch block.", no(AVB1, AVB2, AVB3, RBBB, LBBB)),
        ("Normal PR interval.", no(AVB1)),
        ("QTc is normal.", no("prolonged_qt", "short_qt")),
        ("No atrial fibrillation or flutter was recorded.", no(AF, "atrial_flutter")),
        ("T-wave inversion no longer evident in the lateral leads", no(T)),
        ("No artifact.", no("noisy_lead", "baseline_wander", "mains_interference")),
        ("ST elevation is not seen.", no(UP)),
    ],
)
def test_denied(text: str, expected: dict[str, bool]) -> None:
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No ectopy, left axis deviation.", no(PAC, PVC) | yes(LAD)),
        ("Possible left atrial enlargement, left axis deviation", yes(LAD)),
        ("ST elevation, cannot exclude acute infarct", yes(UP)),
        (
            "Sinus rhythm without ST elevation, but with T-wave inversion in V2 and V3.",
            yes(SINUS, T) | no(UP),
        ),
        ("No VT. Atrial fibrillation.", no(VT) | yes(AF)),
    ],
)
def test_a_cue_reaches_as_far_as_its_item(text: str, expected: dict[str, bool]) -> None:
    assert said(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Cannot rule out anterior infarct, age undetermined",
        "Possible ventricular tachycardia.",
        "Borderline left axis deviation.",
        "Suspect arm lead reversal, interpretation assumes no reversal",
        "History of atrial fibrillation.",
        "Normal ECG.",
        "Urgent review by a physician is advised.",
        "The lad was well; a compensatory pause is normal.",
    ],
)
def test_neither_stated_nor_denied(text: str) -> None:
    assert said(text) == {}


def test_status_of_uncertain_and_past_mentions() -> None:
    assert [s.status for s in read_statements("Possible asystole.")] == ["uncertain"]
    assert [s.status for s in read_statements("History of RBBB.")] == ["past"]


def test_history_and_headings_are_not_read_and_capitals_are() -> None:
    assert read_findings({"CLINICAL HISTORY": "Atrial fibrillation."})[AF] is None
    assert said("ST-T CHANGES\nNone.\n") == {}
    assert said("RHYTHM\nATRIAL FIBRILLATION\n") == yes(AF)
    assert set(read_findings("")) == set(ECG_NAMES)


@pytest.mark.parametrize("finding", ECG_FINDINGS, ids=lambda finding: finding.name)
def test_every_label_is_read_as_its_finding(finding) -> None:
    for words in (f"{finding.label} is present.", f"There is {finding.label}."):
        assert read_findings(words)[finding.name] is True, words
    assert read_findings(f"No {finding.label} was seen.")[finding.name] is False


def drawn_report(seed: int) -> tuple[set[str], dict[str, str]]:
    """Findings as the simulator draws them and their report, without a signal."""
    rng = np.random.default_rng([seed, 5])
    present = draw_findings(rng)
    territories = itertools.cycle(("inferior", "anterior", "anteroseptal", "lateral"))
    findings = []
    for name in ECG_NAMES:
        entry = absent_finding(name) | {"present": name in present}
        if name in present:
            leads = sorted(rng.choice(LEADS, 3, replace=False))
            entry |= {"channels": leads, "value": 2.6 if name == "pause" else None}
        findings.append(entry)
    lines_up = bool({"asystole", VF} & present)
    elevation = UP in present and STEMI not in present
    facts = {
        "rate_per_minute": None if lines_up else float(rng.integers(40, 180)),
        "pr_ms": float(rng.integers(120, 300)) if SINUS in present else None,
        "qrs_ms": float(rng.integers(80, 160)),
        "qt_ms": 400.0,
        "qtc_ms": 410.0,
        "axis_degrees": None if "limb_lead_reversal" in present else float(rng.integers(-60, 120)),
        "block": str(rng.choice(["type I", "type II", "2:1"])) if AVB2 in present else None,
        "conduction": str(rng.choice(["2:1", "variable"])),
        "pacing": str(rng.choice(["dual chamber", "atrial tracking", "ventricular"])),
        "ectopy": str(rng.choice(["bigeminy", "single"])),
        "run": int(rng.integers(3, 9)),
        "escape": str(rng.choice(["junctional", "ventricular"])) if AVB3 in present else None,
        "p_waves": bool(rng.integers(2)),
        "st_territory": str(rng.choice(["diffuse", "early repolarization"]))
        if elevation
        else next(territories),
        "t_territory": next(territories),
        "q_territory": next(territories),
        "swapped": str(rng.choice(["left arm and right arm", "right arm and left leg"])),
        "mains_hz": 50.0,
    }
    if facts["escape"] == "ventricular":
        findings = [f | {"present": f["present"] and f["name"] in present} for f in findings]
    return set(present), write_sections(findings, facts, rng)


def test_reads_back_every_report_of_the_simulator() -> None:
    seen: set[str] = set()
    for seed in range(250):
        present, sections = drawn_report(seed)
        seen |= present
        read = read_findings(sections)
        assert {name for name, value in read.items() if value} == present, (seed, sections)
        for text in sections.values():
            for statement in read_statements(text):
                if statement.status == "denied":
                    assert statement.name not in present, (seed, statement)
                else:
                    assert statement.status == "present" and statement.name in present, (seed, statement)
    assert seen >= CRITICAL & set(ECG_NAMES) and len(seen) >= len(ECG_NAMES) - 2


def test_ranges_of_leads_do_not_break_a_sentence() -> None:
    for leads in ("V1-V3", "V1 to V3", ", ".join(CHEST_LEADS)):
        assert said(f"T waves in {leads} are inverted.") == yes(T)
