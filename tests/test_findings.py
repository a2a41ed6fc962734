"""The findings table, and the words made from it."""

import pytest

from bioreport.findings import (
    BY_NAME,
    CRITICAL,
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
    assert {"seizure", "burst_suppression"} == CRITICAL
    assert BY_NAME["posterior_dominant_rhythm"].unit == "Hz"
    assert all(finding.modality == "eeg" and finding.synonyms for finding in EEG_FINDINGS)


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
