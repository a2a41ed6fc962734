"""A report's text and its evidence agree, whatever the model wrote."""

import pytest

from bioreport.claims import claims_in, support
from bioreport.findings import BY_NAME, EEG_NAMES
from bioreport.grounding import UNASSESSABLE, UNREMARKABLE, finding_sentence, ground
from bioreport.lexicon import read_findings
from bioreport.sentences import repeats_itself, split_sentences

RHYTHM = {
    "frequency_hz": 9.4,
    "amplitude_uv": 42.0,
    "left_amplitude_uv": 40.0,
    "right_amplitude_uv": 44.0,
    "asymmetry_percent": 9.1,
    "lower_side": "left",
}
MEASURED = {"duration_seconds": 600.0, "usable_seconds": 590.0, "posterior_rhythm": RHYTHM, "mains": None}
NOTHING = {"duration_seconds": 600.0, "usable_seconds": 590.0, "posterior_rhythm": None, "mains": None}


def finding(name: str, present: bool, **more: object) -> dict[str, object]:
    empty = {"value": None, "unit": None, "channels": [], "start_seconds": None, "end_seconds": None}
    return {"name": name, "present": present, "source": "model", **empty, **more}


def findings(*present: str, **more: dict[str, object]) -> list[dict[str, object]]:
    return [finding(name, name in present, **more.get(name, {})) for name in EEG_NAMES]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Rhythm of 9.5 Hz. No spikes.", ["Rhythm of 9.5 Hz.", "No spikes."]),
        ("Slowing, e.g. theta, vs. delta. End", ["Slowing, e.g. theta, vs. delta.", "End"]),
        ("Seizure from 28 to 54 s. Mains noise.", ["Seizure from 28 to 54 s.", "Mains noise."]),
        ("Approx. 9 Hz rhythm.", ["Approx. 9 Hz rhythm."]),
        ("One\n\nTwo! Three?", ["One", "Two!", "Three?"]),
        ("", []),
    ],
)
def test_split_sentences(text, sentences):
    assert split_sentences(text) == sentences


@pytest.mark.parametrize(
    ("sentence", "claims"),
    [
        ("A 9.5-Hz rhythm of 40 µV", [(9.5, 9.5, "Hz"), (40, 40, "µV")]),
        ("theta at 4–7 Hz, 30 uV", [(4, 7, "Hz"), (30, 30, "µV")]),
        ("three per second spike-and-wave", [(3, 3, "Hz")]),
        ("3/s and 12 /min", [(3, 3, "Hz"), (12, 12, "/min")]),
        ("from 10 to 20 seconds, 50 percent", [(10, 20, "s"), (50, 50, "%")]),
        ("electrodes T3, F7 of the 10-20 system, stage N2 sleep", []),
        ("twenty microvolts", [(20, 20, "µV")]),
        ("9,5 Hz", [(9.5, 9.5, "Hz")]),
    ],
)
def test_claims_in(sentence, claims):
    assert [(claim.low, claim.high, claim.unit) for claim in claims_in(sentence)] == claims


@pytest.mark.parametrize(
    ("sentence", "grounded"),
    [
        (
            "The posterior dominant rhythm is 9.4 Hz, 42 µV.",
            "The posterior dominant rhythm is 9.4 Hz, 42 µV.",
        ),
        ("The posterior dominant rhythm is 11 Hz, 80 µV.", "The posterior dominant rhythm is 9.4 Hz, 42 µV."),
        ("A posterior rhythm of 9-10 Hz.", "A posterior rhythm of 9-10 Hz."),
        ("A posterior rhythm of 8-13 Hz.", "A posterior rhythm of 9.4 Hz."),
        ("Theta (4-8 Hz) is scarce.", "Theta (4-8 Hz) is scarce."),
        ("Beta of 22 Hz is seen.", None),
        ("There is a 3 Hz spike-and-wave discharge.", None),
        ("The recording lasts 10 minutes.", "The recording lasts 10 minutes."),
        ("The recording lasts 25 minutes.", None),
        ("Bursts of 300 µV.", None),
        ("Suppression of 80 %.", None),
        ("A pulse of 72/min.", None),
        ("The electrodes of the 10-20 system were used.", "The electrodes of the 10-20 system were used."),
    ],
)
def test_numbers_need_a_measurement(sentence, grounded):
    assert support(sentence, findings("posterior_dominant_rhythm"), [MEASURED])[0] == grounded


def test_numbers_that_belong_to_a_present_finding_stay():
    spike_wave = findings("generalized_spike_wave")
    assert support("3-Hz spike-and-wave discharges.", spike_wave, [NOTHING])[0]
    timed = findings("seizure", seizure={"start_seconds": 28.0, "end_seconds": 54.0})
    assert support("Seizure from 28 to 54 s.", timed, [NOTHING])[0]
    assert support("Seizure lasting 26 seconds.", timed, [NOTHING])[0]
    assert support("Seizure from 28 to 90 s.", timed, [NOTHING])[0] is None


def test_mains_frequency_comes_from_the_measurement():
    measured = {**NOTHING, "mains": {"frequency_hz": 50.0, "ratio": 80.0, "channels": ["C3"]}}
    assert support("Mains noise at 60 Hz.", [], [measured])[0] == "Mains noise at 50 Hz."
    assert support("Mains noise at 60 Hz.", [], [NOTHING])[0] is None


def test_two_recordings_have_no_single_value_to_put_in():
    other = {**MEASURED, "posterior_rhythm": {**RHYTHM, "frequency_hz": 8.1}}
    assert support("A posterior rhythm of 8.1 Hz.", [], [MEASURED, other])[0]
    assert support("A posterior rhythm of 12 Hz.", [], [MEASURED, other])[0] is None


def test_invented_seizure_is_withheld_and_the_section_not_empty():
    sections = {"EVENTS/SEIZURES": "An electrographic seizure arose from the left temporal region."}
    grounded, warnings = ground(sections, findings(), NOTHING)
    assert grounded == {"EVENTS/SEIZURES": "No electrographic seizure was found."}
    assert len(warnings) == 1 and "electrographic seizure" in warnings[0]


def test_denied_seizure_that_was_found_is_stated_where_it_counts():
    sections = {
        "EVENTS/SEIZURES": "No seizures were recorded.",
        "IMPRESSION/INTERPRETATION": "Normal EEG.",
    }
    place = {"channels": ["T3", "F7"], "start_seconds": 28.0, "end_seconds": 54.0}
    grounded, warnings = ground(sections, findings("seizure", seizure=place), NOTHING)
    assert (
        grounded["EVENTS/SEIZURES"]
        == "Electrographic seizure is present in the left temporal region, 28-54 s."
    )
    assert grounded["IMPRESSION/INTERPRETATION"] == "Abnormal EEG because of electrographic seizure."
    assert len(warnings) == 4


def test_abnormal_without_abnormality_and_urgency_without_a_critical_finding():
    sections = {
        "IMPRESSION/INTERPRETATION": "This is an abnormal EEG. Urgent review by a physician is advised."
    }
    grounded, warnings = ground(sections, findings(), NOTHING)
    assert grounded == {"IMPRESSION/INTERPRETATION": "No abnormality was found."}
    assert len(warnings) == 2


def test_a_finding_that_was_not_looked_for_is_not_judged():
    sections = {"SLEEP": "Sleep spindles were seen.", "IMPRESSION/INTERPRETATION": "Abnormal EEG."}
    measured_only = [finding("posterior_dominant_rhythm", False)]
    grounded, warnings = ground(sections, measured_only, NOTHING)
    assert grounded == sections and warnings == []


@pytest.mark.parametrize(("side", "kept"), [("left", True), ("right", False)])
def test_wrong_side_is_withheld(side, kept):
    text = f"There is focal slowing in the {side} temporal region."
    found = findings("focal_slowing", focal_slowing={"channels": ["T3", "F7"]})
    grounded, _ = ground({"BACKGROUND ACTIVITY": text}, found, NOTHING)
    assert (text in grounded["BACKGROUND ACTIVITY"]) is kept
    assert "left temporal" in grounded["BACKGROUND ACTIVITY"]


def test_wrong_side_of_an_asymmetry_is_withheld():
    measured = {**MEASURED, "posterior_rhythm": {**RHYTHM, "asymmetry_percent": 60.0}}
    found = findings("posterior_dominant_rhythm", "posterior_asymmetry")
    grounded, _ = ground(
        {"BACKGROUND ACTIVITY": "The posterior rhythm is lower on the right."}, found, measured
    )
    assert "lower amplitude on the left" in grounded["BACKGROUND ACTIVITY"]
    assert "right" not in grounded["BACKGROUND ACTIVITY"]


def test_rhythm_asserted_without_a_measured_one_is_withheld():
    sections = {"BACKGROUND ACTIVITY": "The posterior dominant rhythm is 10 Hz."}
    grounded, _ = ground(sections, findings(), NOTHING)
    assert grounded == {"BACKGROUND ACTIVITY": "No posterior dominant rhythm was found."}


def test_nothing_known_leaves_the_fixed_sentence():
    grounded, _ = ground({"SLEEP": "", "BACKGROUND ACTIVITY": "Beta at 22 Hz."}, [], NOTHING)
    assert grounded == {"SLEEP": UNASSESSABLE, "BACKGROUND ACTIVITY": UNASSESSABLE}


def test_several_recordings_are_accepted():
    sections = {"BACKGROUND ACTIVITY": "The posterior rhythm is 9.4 Hz."}
    both = {"recordings": [MEASURED, NOTHING]}
    assert ground(sections, findings("posterior_dominant_rhythm"), both) == (sections, [])


@pytest.mark.parametrize("name", EEG_NAMES)
def test_plain_sentence_of_each_finding_is_read_as_that_finding_alone(name):
    sentence = finding_sentence(finding(name, True, channels=["T3", "F7"]), [MEASURED])
    read = {found for found, state in read_findings(sentence).items() if state}
    assert read - {"posterior_dominant_rhythm"} == {name} - {"posterior_dominant_rhythm"}
    assert name in read


@pytest.mark.slow
def test_any_text_ends_up_saying_what_was_found():
    from bioreport.simulate import simulate_eeg

    simulations = [simulate_eeg(970000 + i, sfreq=200.0) for i in range(30)]
    for i, truth in enumerate(simulations):
        measured = {**truth.facts, "usable_seconds": truth.facts["duration_seconds"]}
        own, warnings = ground(truth.sections, truth.findings, measured)
        assert own == truth.sections and warnings == []
        foreign, _ = ground(simulations[i - 7].sections, truth.findings, measured)
        read = read_findings(foreign)
        for entry in truth.findings:
            assert bool(read[entry["name"]]) is entry["present"], (i, BY_NAME[entry["name"]].label)
        assert all(foreign.values())


def test_an_impression_whose_verdict_was_withheld_gets_a_plain_one():
    text = {
        "IMPRESSION/INTERPRETATION": "This is an abnormal EEG due to focal slowing. No seizures were seen."
    }
    grounded, warnings = ground(text, findings(), NOTHING)
    assert grounded["IMPRESSION/INTERPRETATION"] == f"{UNREMARKABLE} No seizures were seen."
    assert len(warnings) == 1
    assert not any(read_findings(UNREMARKABLE).values())


@pytest.mark.parametrize(("written", "kept"), [("9.4", True), ("9.5", False), ("9", True), ("10", False)])
def test_a_number_is_the_measured_one_to_the_digits_it_is_written_with(written, kept):
    text = f"The posterior dominant rhythm is {written} Hz."
    grounded, warnings = ground(
        {"BACKGROUND ACTIVITY": text}, findings("posterior_dominant_rhythm"), MEASURED
    )
    assert (grounded["BACKGROUND ACTIVITY"] == text) == kept
    assert "9.4 Hz" in grounded["BACKGROUND ACTIVITY"] or kept
    assert bool(warnings) != kept


def test_absence_of_the_posterior_rhythm_needs_an_electrode_over_the_back_of_the_head():
    seen = {"channels_flat": ["O1", "P3"], "channels_saturated": [], "channels_noisy": []}
    text = {"BACKGROUND ACTIVITY": "There is no posterior dominant rhythm. No slowing was seen."}
    without = {
        **NOTHING,
        **seen,
        "channels_present": ["Fp1", "Fp2", "F3", "F4", "F7", "F8", "C3", "C4", "Cz", "P3", "O1"],
    }
    grounded, warnings = ground(text, findings(), without)
    assert grounded["BACKGROUND ACTIVITY"] == "No slowing was seen."
    assert len(warnings) == 1 and "no electrode over the back of the head could be measured" in warnings[0]
    alone = {"BACKGROUND ACTIVITY": "There is no posterior dominant rhythm."}
    assert ground(alone, findings(), without)[0]["BACKGROUND ACTIVITY"] == UNASSESSABLE
    back = {
        **NOTHING,
        **seen,
        "channels_present": ["Fp1", "Fp2", "F3", "F4", "F7", "F8", "C3", "C4", "Cz", "P3", "O1", "O2"],
    }
    assert ground(text, findings(), back) == (text, [])
    assert ground(text, findings(), {"recordings": [without, back]}) == (text, [])


def test_nothing_is_denied_of_a_recording_without_usable_signal():
    text = {
        "BACKGROUND ACTIVITY": "There is no posterior dominant rhythm. Bad electrodes were found at F3.",
        "EVENTS/SEIZURES": "No seizures were seen.",
        "IMPRESSION/INTERPRETATION": "No definite abnormality was found.",
    }
    found = findings("bad_electrode", bad_electrode={"channels": ["F3"]})
    grounded, warnings = ground(text, found, {**NOTHING, "usable_seconds": 0.0})
    assert grounded == {
        "BACKGROUND ACTIVITY": "Bad electrodes were found at F3.",
        "EVENTS/SEIZURES": UNASSESSABLE,
        "IMPRESSION/INTERPRETATION": UNASSESSABLE,
    }
    assert len(warnings) == 3


def test_bad_electrodes_are_those_measured():
    found = findings("bad_electrode", bad_electrode={"channels": ["O1", "T6"]})
    right = {"BACKGROUND ACTIVITY": "Bad electrodes were found at P8 and O1."}
    assert ground(right, found, NOTHING) == (right, [])
    wrong = {"BACKGROUND ACTIVITY": "Bad electrodes were found at O1 and T3."}
    grounded, warnings = ground(wrong, found, NOTHING)
    assert grounded["BACKGROUND ACTIVITY"] == "Bad electrodes are present at O1, T6."
    assert "these are not the bad electrodes that were measured" in warnings[0]


@pytest.mark.parametrize(
    ("sentence", "salad"),
    [
        ("There is There is focal slowing.", True),
        ("The posterior dominant rhythm is 8.8 Hz is present is present.", True),
        ("Sharp waves over the the left temporal region.", True),
        ("Slowing slowing slowing.", True),
        ("There is no focal slowing, and there is no generalized slowing.", False),
        ("ST elevation in V2, V3 and V4, ST depression in II, III and aVF.", False),
        ("The rhythm is 9 Hz, 9 Hz on both sides; very very rarely 10 Hz.", False),
        ("Second-degree AV block 2:1, left bundle-branch block, left axis.", False),
    ],
)
def test_language_that_is_none_is_withheld_and_the_report_warns(sentence, salad):
    grounded, warnings = ground({"BACKGROUND ACTIVITY": sentence}, [], {"recordings": [NOTHING]})
    assert repeats_itself(sentence) == salad
    assert any("not usable language" in warning for warning in warnings) == salad
    assert (sentence not in grounded["BACKGROUND ACTIVITY"]) if salad else True


def test_a_text_of_which_most_was_withheld_is_said_to_be_of_no_use():
    false = [
        "Focal slowing is present.",
        "A seizure was recorded.",
        "Spindles were seen.",
        "Drowsiness was seen.",
    ]
    text = {"BACKGROUND ACTIVITY": " ".join(false)}
    grounded, warnings = ground(text, findings(), MEASURED)
    assert warnings[0].startswith("Most of the model's text was not usable, 4 of 4 sentences")
    assert not any("Most of" in warning for warning in ground(grounded, findings(), MEASURED)[1])
    few = {"BACKGROUND ACTIVITY": " ".join(false[:3])}
    assert not any("Most of" in warning for warning in ground(few, findings(), MEASURED)[1])


def test_findings_of_sections_that_were_not_asked_for_stay_out():
    found = findings("muscle_artifact", "focal_slowing", "drowsiness")
    text = {"EVENTS/SEIZURES": "No seizures were seen."}
    assert ground(text, found, NOTHING) == (text, [])
    grounded, _ = ground({"IMPRESSION/INTERPRETATION": "Drowsiness was seen."}, found, NOTHING)
    assert "muscle" not in grounded["IMPRESSION/INTERPRETATION"]
    assert "ocal slowing" in grounded["IMPRESSION/INTERPRETATION"]
    grounded, _ = ground({"SLEEP": "Drowsiness was seen."}, findings("drowsiness", "seizure"), NOTHING)
    assert "seizure is present" in grounded["SLEEP"]


@pytest.mark.parametrize(
    ("seconds", "impression"),
    [(9.6, "No abnormality was found in 10 s of recording. Drowsiness was recorded."), (31.0, None)],
)
def test_a_short_recording_is_not_called_normal(seconds, impression):
    text = {"IMPRESSION/INTERPRETATION": "This is a normal EEG. Drowsiness was recorded."}
    measured = {**NOTHING, "duration_seconds": seconds, "usable_seconds": seconds}
    grounded, warnings = ground(text, findings("drowsiness"), measured)
    assert grounded == ({"IMPRESSION/INTERPRETATION": impression} if impression else text)
    assert any("too few to call an EEG normal" in warning for warning in warnings) == bool(impression)
    assert ground(grounded, findings("drowsiness"), measured) == (grounded, [])
