"""An ECG report's text and its evidence agree, whatever the model wrote."""

from typing import Any

import pytest

from bioreport.ecg.claims import quantities_in, support
from bioreport.ecg.evidence import ecg_warnings
from bioreport.ecg.grounding import UNREMARKABLE, ground, without_repeats
from bioreport.ecg.lexicon import read_findings
from bioreport.ecg.plain import ABNORMAL, HOME, finding_sentence
from bioreport.findings import BY_NAME, CRITICAL, ECG_NAMES
from bioreport.sentences import UNASSESSABLE

R, C, QRS, ST, TECH, IMP = (
    "RHYTHM", "CONDUCTION AND INTERVALS", "QRS MORPHOLOGY", "ST-T CHANGES", "TECHNICAL QUALITY",
    "IMPRESSION/INTERPRETATION",
)  # fmt: skip


def quantity(value: float, unit: str) -> dict[str, Any]:
    return {"value": value, "unit": unit, "confidence": 0.9}


def lead(**waves: float) -> dict[str, float]:
    return {
        "j": 0.0,
        "st": 0.0,
        "q": 0.0,
        "r": 0.8,
        "s": -0.3,
        "t": 0.3,
        "range": 1.1,
        "confidence": 0.9,
    } | waves


MEASURED: dict[str, Any] = {
    "modality": "ecg",
    "duration_seconds": 10.0,
    "usable_seconds": 10.0,
    "mains": {"frequency_hz": 50.0, "ratio": 60.0, "channels": ["V1"]},
    "beats": {"count": 12, "atrial": 0, "ventricular": 2, "unclear": 0},
    "rate": quantity(72.4, "/min"),
    "rr": {"mean_ms": 829, "median_ms": 830, "shortest_ms": 790, "longest_ms": 2450, "irregular": False},
    "runs": [{"beats": 7, "rate": 160.4, "start_seconds": 3.0, "end_seconds": 5.3}],
    "pauses": [{"start_seconds": 6.0, "seconds": 2.45}],
    "atrial": {"rate": 72.0, "flutter_rate": None},
    "pr": quantity(164, "ms"),
    "p": quantity(104, "ms"),
    "qrs": quantity(92, "ms"),
    "qt": quantity(380, "ms"),
    "qtc_bazett": quantity(417, "ms"),
    "qtc_fridericia": quantity(404, "ms"),
    "axis": quantity(-42, "°"),
    "p_axis": quantity(50, "°"),
    "t_axis": quantity(30, "°"),
    "leads": {"II": lead(j=0.14, st=0.21), "III": lead(j=0.2, st=0.26), "V2": lead(t=-0.2)},
    "rhythms": {"sinus_rhythm": 0.62, "atrial_fibrillation": 0.38},
}
STANDSTILL: dict[str, Any] = {**MEASURED, "runs": [], "pauses": [], "leads": {}} | dict.fromkeys(
    ("rate", "rr", "pr", "p", "qrs", "qt", "qtc_bazett", "qtc_fridericia", "axis", "p_axis", "t_axis")
)
PLACES = {
    "st_elevation": ["III", "II", "aVF"],
    "st_elevation_infarction": ["III", "II", "aVF"],
    "st_depression": ["aVL", "I"],
    "t_wave_inversion": ["V1", "V2", "V3"],
    "pathological_q_waves": ["III", "aVF"],
    "lead_off": ["V4"],
    "noisy_lead": ["V5", "V6"],
}


def findings(*present: str, unjudged: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "present": name in present,
            "value": 0.26 if name == "st_elevation" else None,
            "unit": BY_NAME[name].unit,
            "channels": PLACES.get(name, []) if name in present else [],
            "start_seconds": None,
            "end_seconds": None,
            "source": "measurement",
        }
        for name in ECG_NAMES
        if name not in unjudged
    ]


def fate(
    sentence: str,
    *present: str,
    section: str = R,
    measured: dict[str, Any] = MEASURED,
    unjudged: tuple[str, ...] = (),
) -> tuple[bool, list[str]]:
    """Whether a sentence stands as it is, and the warnings."""
    grounded, warnings = ground({section: sentence}, findings(*present, unjudged=unjudged), measured)
    return grounded[section].startswith(sentence), warnings


def test_every_finding_has_a_home() -> None:
    assert sorted(name for names in HOME.values() for name in names) == sorted(ECG_NAMES)
    assert set(ABNORMAL) >= CRITICAL & set(ECG_NAMES)


@pytest.mark.parametrize(
    ("sentence", "numbers"),
    [
        ("Sinus rhythm at 72/min.", [(72, "rate")]),
        ("Heart rate of 72 beats per minute", [(72, "rate")]),
        ("Rate 72, PR 160, QRS 92 ms, axis -42.", [(72, "rate"), (160, "pr"), (92, "qrs"), (-42, "axis")]),
        ("QT 380 ms, QTc (Bazett) 417 ms", [(380, "qt"), (417, "qtc")]),
        ("QT/QTc 380/417 ms", [(380, "qt"), (417, "qtc")]),
        ("PR 0.16 s", [(0.16, "pr")]),
        ("A pause of 2.4 s without P waves", [(2.4, "pause")]),
        ("A run of 7 beats of VT", [(7, "beats")]),
        ("The axis is −42°; the P axis is 50°.", [(-42, "axis"), (50, "p_axis")]),
        ("ST elevation of 2 mm in III", [(2, "level")]),
        ("2:1 AV block", [(2, "ratio")]),
        ("Mains interference at 50 Hz.", [(50, "mains")]),
        ("1st degree AV block, 2° AV block, type 2, leads V1-V6, 12-lead ECG", []),
        ("Recorded in 2019", [(2019, "")]),
        ("The recording lasts 10 s.", [(10, "time")]),
    ],
)  # fmt: skip
def test_numbers_and_what_they_are_of(sentence: str, numbers: list[tuple[float, str]]) -> None:
    assert [(q.claim.low, q.kind) for q in quantities_in(sentence)] == numbers


@pytest.mark.parametrize(
    ("sentence", "grounded"),
    [
        ("Sinus rhythm at 72/min.", "Sinus rhythm at 72/min."),
        ("Sinus rhythm at 72.4/min.", "Sinus rhythm at 72.4/min."),
        ("Sinus rhythm at 95 bpm.", "Sinus rhythm at 72/min."),
        ("Sinus rhythm, rate 95.", "Sinus rhythm, rate 72/min."),
        ("The PR interval is 164 ms.", "The PR interval is 164 ms."),
        ("PR 0.16 s.", "PR 0.16 s."),
        ("PR 0.22 s.", "PR 0.2 s."),
        ("The PR interval is 240 ms.", "The PR interval is 164 ms."),
        ("QT 380 ms, QTc 404 ms.", "QT 380 ms, QTc 404 ms."),
        ("QT 400 ms, QTc 450 ms.", "QT 380 ms, QTc 417 ms."),
        ("QT/QTc 380/417 ms.", "QT/QTc 380/417 ms."),
        ("The QRS axis is 30°.", "The QRS axis is -42°."),
        ("A pause of 2.5 s is seen.", "A pause of 2.5 s is seen."),
        ("A pause of 4 s is seen.", "A pause of 2.5 s is seen."),
        ("A run of 5 beats of VT at 160/min.", "A run of 7 beats of VT at 160/min."),
        ("Mains interference at 60 Hz.", "Mains interference at 50 Hz."),
        ("ST elevation of 0.26 mV.", "ST elevation of 0.26 mV."),
        ("ST elevation of 2 mm in II.", "ST elevation of 2 mm in II."),
        ("ST elevation of 6 mm in II.", None),
        ("Atrial fibrillation in 38 % of the time.", "Atrial fibrillation in 38 % of the time."),
        ("Atrial fibrillation in 80 % of the time.", None),
        ("PR 150 to 200 ms, rate 72/min.", None),
        ("An ejection fraction of 55 %.", None),
        ("Potassium is 6.", None),
        ("The 12-lead ECG was recorded in V1-V6.", "The 12-lead ECG was recorded in V1-V6."),
    ],
)  # fmt: skip
def test_numbers_need_a_measurement(sentence: str, grounded: str | None) -> None:
    assert support(sentence, findings("sinus_rhythm", "st_elevation"), [MEASURED])[0] == grounded


def test_times_are_those_of_findings_and_episodes() -> None:
    long = {
        **MEASURED,
        "episodes": [{"name": "atrial_fibrillation", "start_seconds": 120.0, "end_seconds": 300.0}],
    }
    assert support("Atrial fibrillation from 120 to 300 s.", [], [long])[0]
    assert support("Atrial fibrillation for 3 minutes.", [], [long])[0]
    assert support("Atrial fibrillation from 120 to 900 s.", [], [long])[0] is None


def test_what_precedes_the_beats_of_another_rhythm_has_no_interval() -> None:
    assert support("PR 164 ms.", findings("sinus_rhythm"), [MEASURED])[0]
    assert support("PR 164 ms.", findings("atrial_fibrillation"), [MEASURED])[0] is None
    grounded, _ = ground({R: "", C: ""}, findings("atrial_fibrillation"), MEASURED)
    assert grounded[C].startswith("QRS 92 ms, QT 380 ms")


def test_levels_in_flutter_are_those_without_its_waves() -> None:
    measured = {**MEASURED, "flutter_levels": {"II": {"j": 0.05, "st": 0.04}}}
    said = "Atrial flutter, ST elevation of 2.1 mm in II."
    assert support(said, findings("sinus_rhythm", "st_elevation"), [measured])[0]
    assert support(said, findings("atrial_flutter", "st_elevation"), [measured])[0] is None


def test_what_was_not_measured_has_no_number() -> None:
    assert support("Sinus rhythm at 72/min.", [], [STANDSTILL])[0] is None
    other = {**MEASURED, "rate": quantity(90.0, "/min")}
    assert support("Sinus rhythm at 90/min.", [], [MEASURED, other])[0]
    assert support("Sinus rhythm at 100/min.", [], [MEASURED, other])[0] is None
    ranging = {**MEASURED, "rate_range": [55.2, 118.0]}
    assert support("The rate is between 55 and 118/min.", [], [ranging])[0]
    assert support("The rate is between 55 and 140/min.", [], [ranging])[0] is None


@pytest.mark.parametrize(
    ("sentence", "present", "kept"),
    [
        ("Sinus rhythm at 72/min.", ("sinus_rhythm",), True),
        ("Atrial fibrillation at 72/min.", ("sinus_rhythm",), False),
        ("No ectopy.", ("premature_ventricular_contractions",), False),
        ("No ectopy.", ("sinus_rhythm",), True),
        ("Normal sinus rhythm.", ("sinus_rhythm", "bradycardia"), False),
        ("Ventricular tachycardia.", ("ventricular_tachycardia",), True),
        ("Ventricular tachycardia.", ("sinus_rhythm",), False),
        ("Possible ventricular tachycardia.", ("sinus_rhythm",), False),
        ("Cannot rule out anterior infarct.", ("sinus_rhythm",), True),
        ("Probable atrial fibrillation.", ("sinus_rhythm",), False),
        ("Borderline left axis deviation.", ("sinus_rhythm",), True),
        ("No other abnormality in what could be assessed.", ("sinus_rhythm",), True),
        ("No other abnormality in what could be assessed.", ("pause",), False),
        ("Undetermined rhythm.", ("sinus_rhythm",), False),
        ("Nonspecific T wave abnormality.", ("sinus_rhythm",), False),
        ("Nonspecific T wave abnormality.", ("t_wave_inversion",), True),
        ("Unchanged compared with the previous ECG.", ("sinus_rhythm",), False),
        ("Activate the cath lab.", ("st_elevation",), False),
        ("Normal axis.", ("left_axis_deviation",), False),
        ("No signs of hypertrophy.", ("right_ventricular_hypertrophy",), False),
        ("Good signal quality.", ("baseline_wander",), False),
        ("Acute anterior infarct.", ("st_elevation",), False),
        ("No acute ischemia.", ("st_elevation", "st_elevation_infarction"), False),
        ("There are no QRS complexes.", ("sinus_rhythm",), False),
        ("There are no QRS complexes.", ("asystole",), True),
        ("QRS complexes are broad.", ("sinus_rhythm",), False),
        ("QRS complexes are broad.", ("paced_rhythm",), True),
        ("Secondary repolarization changes only.", ("left_bundle_branch_block",), True),
        ("Secondary repolarization changes only.", ("sinus_rhythm",), False),
        ("The rhythm is irregular.", ("sinus_rhythm",), False),
        ("Reciprocal ST depression.", ("st_depression",), False),
        ("Inferior ischemia.", ("sinus_rhythm",), False),
        ("Left atrial enlargement.", ("sinus_rhythm",), False),
        ("Please repeat.", ("sinus_rhythm",), False),
        ("Limb lead reversal; please repeat.", ("limb_lead_reversal",), True),
        ("Urgent review by a physician is advised.", ("sinus_rhythm",), False),
        ("Urgent review by a physician is advised.", ("asystole",), True),
        ("Atrial flutter with 2:1 conduction.", ("atrial_flutter",), False),
        ("Atrial flutter with variable conduction.", ("atrial_flutter",), True),
    ],
)  # fmt: skip
def test_a_sentence_needs_its_finding(sentence: str, present: tuple[str, ...], kept: bool) -> None:
    stands, warnings = fate(sentence, *present)
    assert stands is kept, warnings
    assert kept or f'withheld "{sentence}"' in warnings[0]


def test_flutter_waves_that_were_measured_bear_out_their_ratio() -> None:
    flutter = {**MEASURED, "rate": quantity(149.6, "/min"), "atrial": {"rate": None, "flutter_rate": 300.0}}
    text = "Atrial flutter at 150/min with 2:1 conduction."
    assert fate(text, "atrial_flutter", "tachycardia", measured=flutter)[0]
    assert not fate(text.replace("2:1", "4:1"), "atrial_flutter", "tachycardia", measured=flutter)[0]


@pytest.mark.parametrize("name", sorted(CRITICAL & set(ECG_NAMES)))
def test_a_critical_statement_needs_the_measurement(name: str) -> None:
    label = BY_NAME[name].label
    sentence = f"There is {label}."
    for unjudged in ((), (name,)):
        stands, warnings = fate(sentence, "sinus_rhythm", section=IMP, unjudged=unjudged)
        assert not stands
        assert any(f"the model said {label}, a critical statement" in warning for warning in warnings)
    assert fate(sentence, name, section=IMP)[0]


@pytest.mark.parametrize(
    ("sentence", "kept"),
    [
        ("ST elevation in II, III and aVF.", True),
        ("ST elevation in V2 and V3.", False),
        ("Inferior ST elevation.", True),
        ("Anterior ST elevation.", False),
        ("ST elevation in II, III and aVF with reciprocal ST depression in I and aVL.", True),
        ("ST elevation in I and aVL with reciprocal ST depression in II, III and aVF.", False),
        ("In V1–V3 the T waves are inverted.", True),
        ("T waves in V1 to V4 are inverted.", False),
        ("An acute inferior ST-elevation infarction pattern.", True),
        ("An acute anterior ST-elevation infarction pattern.", False),
        ("Lead V4 is off, no signal.", True),
        ("Leads V4 and V5 are off, no signal.", False),
        ("Muscle artifact in V5 and V6.", True),
        ("Muscle artifact in V1.", False),
        ("Pathological Q waves in III and aVF, inferior infarct of undetermined age.", True),
    ],
)  # fmt: skip
def test_leads_are_those_of_the_finding(sentence: str, kept: bool) -> None:
    stands, warnings = fate(sentence, *PLACES, section=ST)
    assert stands is kept, warnings


def test_what_was_not_judged_is_neither_stated_nor_denied() -> None:
    for sentence in ("No ST elevation or depression.", "ST depression in I.", "T waves are normal."):
        unjudged = ("st_elevation", "st_depression", "t_wave_inversion", "st_elevation_infarction")
        stands, warnings = fate(sentence, "sinus_rhythm", section=ST, unjudged=unjudged)
        assert not stands and "do not allow to judge" in warnings[0]
    paced = fate("Normal axis.", "paced_rhythm", unjudged=("left_axis_deviation", "right_axis_deviation"))
    assert "cannot be judged in this rhythm" in paced[1][0]


@pytest.mark.parametrize(
    ("sentence", "present", "unjudged", "text"),
    [
        ("Normal ECG.", ("sinus_rhythm",), (), "Normal ECG."),
        ("Normal ECG.", (), ("prolonged_qt",), "No abnormality was found in what could be judged."),
        ("Normal ECG.", ("sinus_rhythm", "tachycardia"), ("prolonged_qt",),
         "Sinus tachycardia, rate 72/min. No other abnormality was found in what could be judged."),
        ("Sinus bradycardia, otherwise normal ECG.", ("sinus_rhythm", "bradycardia"), (), None),
        ("Normal ECG.", ("sinus_rhythm", "bradycardia"), (),
         "Sinus bradycardia, rate 72/min. No other abnormality was found."),
        ("Abnormal ECG: sinus rhythm, atrial flutter.", ("sinus_rhythm",), (),
         f"Sinus rhythm, rate 72/min. {UNREMARKABLE}"),
        ("Abnormal ECG: atrial fibrillation.", ("tachycardia", "premature_ventricular_contractions"),
         (), "Tachycardia, rate 72/min. Abnormal ECG because of premature ventricular contractions."),
        ("Sinus rhythm, atrial flutter. Tachycardia.", ("sinus_rhythm", "tachycardia", "short_qt"), (),
         "Sinus tachycardia, rate 72/min. Tachycardia. Abnormal ECG because of short QT interval."),
        ("Abnormal ECG. Sinus rhythm.", ("sinus_rhythm",), (), f"{UNREMARKABLE} Sinus rhythm."),
        ("Normal ECG.", ("short_qt",), (), "Abnormal ECG because of short QT interval."),
        ("First-degree AV block, otherwise normal ECG.", ("sinus_rhythm", "first_degree_av_block"), (), None),
        (
            "Abnormal ECG: left axis deviation.",
            ("left_axis_deviation", "pause", "atrial_fibrillation"),
            (),
            "Abnormal ECG: left axis deviation. Atrial fibrillation and pause are also present.",
        ),
        ("", (), tuple(ECG_NAMES), UNASSESSABLE),
    ],
)  # fmt: skip
def test_verdict(
    sentence: str, present: tuple[str, ...], unjudged: tuple[str, ...], text: str | None
) -> None:
    sections = {IMP: sentence, R: "", C: "", QRS: ""}
    grounded, _ = ground(sections, findings(*present, unjudged=unjudged), MEASURED)
    assert grounded[IMP] == (sentence if text is None else text)
    again, warnings = ground(grounded, findings(*present, unjudged=unjudged), MEASURED)
    assert again == grounded and warnings == []


@pytest.mark.parametrize("name", ECG_NAMES)
def test_plain_sentence_of_each_finding_is_read_as_that_finding_and_stands(name: str) -> None:
    (entry,) = [finding for finding in findings(name) if finding["present"]]
    for measured in (MEASURED, STANDSTILL, {**MEASURED, "runs": []}):
        sentence = finding_sentence(entry, [measured])
        read = {found for found, said in read_findings(sentence).items() if said}
        extra = {"tachycardia"} if "tachycardia" in name else set()
        extra |= {"st_elevation"} if name == "st_elevation_infarction" else set()
        extra |= {"sinus_rhythm"} if name == "sinus_arrhythmia" else set()
        assert name in read and read - extra <= {name}
        grounded, warnings = ground({R: sentence}, findings(name, "sinus_rhythm"), measured)
        assert grounded[R].startswith(sentence)
        assert all("was added" in warning for warning in warnings), warnings


def test_present_findings_are_added_at_home_and_concluded() -> None:
    sections = {
        R: "Sinus rhythm.",
        C: "No bundle branch block.",
        ST: "",
        TECH: "Good signal quality.",
        IMP: "Normal ECG.",
    }
    present = ("sinus_rhythm", "left_bundle_branch_block", "st_elevation", "lead_off")
    grounded, warnings = ground(sections, findings(*present), MEASURED)
    assert grounded == {
        R: "Sinus rhythm.",
        C: "Left bundle branch block is present, QRS 92 ms.",
        ST: "ST elevation is present in II, III and aVF.",
        TECH: "Lead V4 is off.",
        IMP: "Sinus rhythm, rate 72/min. Abnormal ECG because of left bundle branch block and ST elevation.",
    }
    assert len(warnings) == 8
    assert ground(grounded, findings(*present), MEASURED) == (grounded, [])


def test_no_section_ends_empty() -> None:
    sections = dict.fromkeys((R, C, QRS, ST, TECH, IMP), "")
    grounded, _ = ground(sections, findings("sinus_rhythm"), {**MEASURED, "runs": [], "pauses": []})
    assert grounded == {
        R: "Sinus rhythm is present, rate 72/min.",
        C: "PR 164 ms, QRS 92 ms, QT 380 ms, QTc 417 ms. "
        "No first-degree AV block, left bundle branch block or right bundle branch block was found.",
        QRS: "The QRS axis is -42°. "
        "No left axis deviation, left ventricular hypertrophy by voltage or low QRS voltage was found.",
        ST: "No ST elevation, ST depression or T-wave inversion was found.",
        TECH: "No lead off, noisy lead, baseline wander or mains interference was found.",
        IMP: f"Sinus rhythm, rate 72/min. {UNREMARKABLE}",
    }  # fmt: skip
    assert ground(grounded, findings("sinus_rhythm"), MEASURED) == (grounded, [])
    nothing, warnings = ground(sections, [], {"recordings": [STANDSTILL, STANDSTILL]})
    assert set(nothing.values()) == {UNASSESSABLE} and warnings == []


@pytest.mark.parametrize(
    ("sentence", "once"),
    [
        (
            "Abnormal ECG: sinus bradycardia, first-degree AV block and first-degree AV block.",
            "Abnormal ECG: sinus bradycardia and first-degree AV block.",
        ),
        (
            "Abnormal ECG: sinus rhythm, premature atrial contractions and atrial premature complexes.",
            "Abnormal ECG: sinus rhythm and premature atrial contractions.",
        ),
        (
            "AF, ventricular premature complexes, premature ventricular contractions, pause.",
            "AF, ventricular premature complexes, pause.",
        ),
        ("ST depression in V4, ST depression in V5 and V6.", None),
        ("Premature ventricular contractions and premature ventricular contractions in bigeminy.", None),
        ("Sinus rhythm with first-degree AV block and right bundle branch block.", None),
    ],
)
def test_a_list_says_a_finding_once(sentence: str, once: str | None) -> None:
    shorter, dropped = without_repeats(sentence)
    assert shorter == (once or sentence) and len(dropped) == (once is not None)


def test_findings_are_said_in_sections_that_are_about_them() -> None:
    present = ("sinus_rhythm", "baseline_wander", "left_axis_deviation", "first_degree_av_block")
    grounded, _ = ground({QRS: "The QRS axis is -42°."}, findings(*present), MEASURED)
    assert grounded == {QRS: "The QRS axis is -42°. Left axis deviation is present, axis -42°."}
    assert ground({R: "Sinus rhythm."}, findings(*present), MEASURED) == ({R: "Sinus rhythm."}, [])
    grounded, _ = ground({IMP: "Sinus rhythm."}, findings(*present), MEASURED)
    assert "Baseline wander" not in grounded[IMP] and "Left axis deviation" in grounded[IMP]
    # what is critical is always said
    grounded, _ = ground({TECH: "Good signal quality."}, findings("asystole"), STANDSTILL)
    assert grounded[TECH].endswith("Asystole is present.")
    # and what the conclusion alone says is said where it belongs
    text = {QRS: "No low QRS voltage.", IMP: "Abnormal ECG: left axis deviation."}
    grounded, _ = ground(text, findings("left_axis_deviation"), MEASURED)
    assert grounded[QRS] == "No low QRS voltage. Left axis deviation is present, axis -42°."


def test_several_recordings_are_accepted() -> None:
    both = {"recordings": [MEASURED, {**MEASURED, "rate": quantity(90.0, "/min")}]}
    text = {R: "Sinus rhythm at 90/min."}
    assert ground(text, findings("sinus_rhythm"), both) == (text, [])


def test_sentences_end_behind_units_and_leads() -> None:
    text = "PR 164 ms. QRS 92 ms. ST elevation in I. Sinus rhythm."
    grounded, warnings = ground({R: text}, findings("sinus_rhythm"), MEASURED)
    assert grounded[R] == "PR 164 ms. QRS 92 ms. Sinus rhythm." and len(warnings) == 1


@pytest.mark.parametrize("seed", range(3))
def test_any_text_ends_up_saying_what_was_found(seed: int) -> None:
    from bioreport.ecg.simulation.record import simulate_ecg

    truths = [simulate_ecg(970000 + 10 * seed + i, clean=True) for i in range(4)]
    for i, truth in enumerate(truths):
        grounded, _ = ground(truths[i - 1].sections, truth.findings, STANDSTILL)
        read = read_findings(grounded)
        for entry in truth.findings:
            assert bool(read[entry["name"]]) is entry["present"], (i, entry["name"], grounded)
        assert all(grounded.values())


def test_a_qtc_names_its_formula_where_they_differ() -> None:
    fast = {**MEASURED, "qtc_bazett": quantity(518, "ms"), "qtc_fridericia": quantity(454, "ms")}
    for said, named in (
        ("QT 380 ms, QTc 518 ms.", "QT 380 ms, QTc 518 ms (Bazett)."),
        ("The QTc is 454 ms.", "The QTc is 454 ms (Fridericia)."),
        ("QT/QTc 380/518 ms.", "QT/QTc 380/518 ms (Bazett)."),
        ("QTc (Bazett) 518 ms.", "QTc (Bazett) 518 ms."),
    ):
        grounded, warnings = ground({C: said}, findings("sinus_rhythm"), fast)
        assert grounded == {C: named} and warnings == []
        assert ground(grounded, findings("sinus_rhythm"), fast) == (grounded, [])
    assert ground({C: "QTc 417 ms."}, findings(), MEASURED)[0] == {C: "QTc 417 ms."}


def test_an_extreme_axis_has_its_own_name() -> None:
    measured = {**MEASURED, "axis": quantity(-96, "°")}
    text = {QRS: "", IMP: "Abnormal ECG: sinus rhythm, right axis deviation."}
    grounded, _ = ground(text, findings("sinus_rhythm", "right_axis_deviation"), measured)
    assert grounded[QRS] == "Extreme axis deviation is present, axis -96°."
    assert grounded[IMP] == "Abnormal ECG: sinus rhythm, extreme axis deviation."
    assert read_findings(grounded)["right_axis_deviation"]
    usual = {**MEASURED, "axis": quantity(110, "°")}
    assert "ight axis deviation" in ground(text, findings("right_axis_deviation"), usual)[0][QRS]


def test_verbs_agree() -> None:
    lvh = findings("left_ventricular_hypertrophy")
    grounded, _ = ground({QRS: "There is voltage criteria for left ventricular hypertrophy."}, lvh, MEASURED)
    assert grounded == {QRS: "There are voltage criteria for left ventricular hypertrophy."}


def test_what_cannot_be_judged_of_voltage_is_named() -> None:
    measured = {"channels_present": ["V1"], "duration_seconds": 10.0, "usable_seconds": 10.0}
    measured |= {f"channels_{kind}": [] for kind in ("flat", "saturated", "noisy")}
    mains = {"frequency_hz": 50.0, "channels": ["V1"]}
    warnings = ecg_warnings({**measured, "mains": mains}, findings(unjudged=("low_qrs_voltage",)))
    assert "Mains interference at 50 Hz in 1 lead." in warnings
    assert any(warning.endswith("allow it: low QRS voltage.") for warning in warnings)
