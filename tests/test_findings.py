"""The findings table, and the words made from it."""

import pytest

from bioreport.findings import (
    BY_NAME,
    CRITICAL,
    ECG_FINDINGS,
    ECG_NAMES,
    EEG_FINDINGS,
    EEG_NAMES,
    absent_finding,
    finding_facts,
    is_present,
    lobe_of,
    region_of,
    side_of,
)


def present(name: str, channels: list[str] | None = None, start: float = 0.0, end: float = 10.0) -> dict:
    return {
        **absent_finding(name),
        "present": True,
        "channels": channels or [],
        "start_seconds": start,
        "end_seconds": end,
    }


def test_table_names_are_unique_and_critical_ones_are_marked() -> None:
    assert len(EEG_NAMES) == len(set(EEG_NAMES)) == 15
    assert CRITICAL.intersection(EEG_NAMES) == {"seizure", "burst_suppression"}
    assert BY_NAME["posterior_dominant_rhythm"].unit == "Hz"
    assert all(finding.modality == "eeg" and finding.synonyms for finding in EEG_FINDINGS)


def test_no_ecg_finding_shares_its_name_with_another_and_the_deadly_ones_are_critical() -> None:
    assert len(ECG_NAMES) == len(set(ECG_NAMES)) and not set(ECG_NAMES) & set(EEG_NAMES)
    assert CRITICAL.intersection(ECG_NAMES) == {
        "st_elevation_infarction",
        "ventricular_tachycardia",
        "ventricular_fibrillation",
        "asystole",
        "complete_av_block",
    }
    assert all(finding.modality == "ecg" and finding.synonyms for finding in ECG_FINDINGS)
    assert all(text == text.lower() for finding in ECG_FINDINGS for text in finding.synonyms)


@pytest.mark.parametrize(
    ("channel", "side", "lobe"),
    [
        ("T3", "left", "temporal"),
        ("T8", "right", "temporal"),
        ("F7", "left", "temporal"),
        ("FC1", "left", "frontal"),
        ("Fp2", "right", "frontal"),
        ("Cz", "midline", "central"),
        ("Fz", "midline", "frontal"),
        ("Pz", "midline", "parietal"),
        ("O2", "right", "occipital"),
        ("PO7", "left", "occipital"),
        ("T10", "right", "temporal"),
        ("A1", "left", "temporal"),
        ("P3", "left", "parietal"),
    ],
)
def test_side_and_lobe_follow_the_electrode(channel: str, side: str, lobe: str) -> None:
    assert (side_of(channel), lobe_of(channel)) == (side, lobe)


def test_region_is_that_of_the_strongest_channel() -> None:
    assert region_of(["T3", "C3", "Cz"]) == "left temporal"
    assert region_of(["Cz", "C3"]) == "midline central"
    assert region_of([]) == "generalized"
    assert region_of(["F3"] * 10) == "generalized"


def test_facts_hold_place_and_time_of_the_models_findings_only() -> None:
    findings = [
        present("bad_electrode", ["T3"]),
        present("focal_slowing", ["T3", "F7"], 30.2, 60.4),
        present("posterior_dominant_rhythm", ["O1"]),
        absent_finding("seizure"),
    ]
    assert finding_facts(findings) == ["Finding: focal slowing, left temporal, 30-60 s."]


def test_facts_come_in_the_order_of_the_table() -> None:
    facts = finding_facts([present("burst_suppression"), present("drowsiness", ["Cz"], 5, 20)])
    assert facts == ["Finding: drowsiness, 5-20 s.", "Finding: burst suppression, 0-10 s."]


def test_facts_without_a_time_or_a_finding() -> None:
    untimed = {**present("muscle_artifact"), "start_seconds": None, "end_seconds": None}
    assert finding_facts([untimed]) == ["Finding: muscle artifact."]
    assert finding_facts([absent_finding("seizure")]) == ["Finding: none."]
    assert finding_facts([]) == ["Finding: none."]


def test_is_present_needs_the_entry_to_say_so() -> None:
    assert is_present([present("seizure")], "seizure")
    assert not is_present([absent_finding("seizure")], "seizure")
    assert not is_present([], "seizure")
