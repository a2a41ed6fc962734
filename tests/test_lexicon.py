"""The lexicon: what it reads as stated, denied, uncertain, past, or not at all."""

import numpy as np
import pytest

from bioreport.findings import EEG_NAMES, absent_finding
from bioreport.lexicon import read_findings, read_statements
from bioreport.simulate import simulate_eeg
from bioreport.wording import write_sections

FOCAL, GENERAL = "focal_epileptiform_discharges", "generalized_spike_wave"


def said(text: str) -> dict[str, bool]:
    return {name: value for name, value in read_findings(text).items() if value is not None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bilateral 3 Hz spike-and-wave discharges were seen.", {GENERAL: True}),
        ("Left temporal spike-and-wave discharges.", {FOCAL: True}),
        ("Frequent left anterior temporal sharp waves with phase reversal at F7/T3.", {FOCAL: True}),
        ("There is mild slowing of the background.", {"generalized_slowing": True}),
        ("Generalized slowing maximal over the left hemisphere.", {"generalized_slowing": True}),
        ("Delta activity over the left temporal region.", {"focal_slowing": True}),
        ("Excessive diffuse delta and theta activity.", {"generalized_slowing": True}),
        ("Status epilepticus.", {"seizure": True}),
        ("Seizure activity evolved over the left hemisphere without clinical change.", {"seizure": True}),
        ("Bursts of mixed activity alternating with suppression.", {"burst_suppression": True}),
        ("T3 electrode was flat.", {"bad_electrode": True}),
        ("Symmetric 9 Hz alpha rhythm.", {"posterior_dominant_rhythm": True, "posterior_asymmetry": False}),
        (
            "The alpha rhythm was not symmetric.",
            {"posterior_dominant_rhythm": True, "posterior_asymmetry": True},
        ),
        (
            "The posterior rhythm is attenuated on the left.",
            {"posterior_dominant_rhythm": True, "posterior_asymmetry": True},
        ),
        (
            "Muscle, electrode and eye blink artifacts.",
            {"muscle_artifact": True, "electrode_artifact": True, "eye_blink_artifact": True},
        ),
        (
            "Abnormal EEG due to burst suppression, generalized slowing and left frontal spikes.",
            {"burst_suppression": True, "generalized_slowing": True, FOCAL: True},
        ),
        (
            "Abnormal EEG due to diffuse slowing and focal epileptiform discharges.",
            {"generalized_slowing": True, FOCAL: True},
        ),
    ],
)
def test_stated(text: str, expected: dict[str, bool]) -> None:
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "No epileptiform discharges or seizures were seen.",
            {FOCAL: False, GENERAL: False, "seizure": False},
        ),
        ("EEG without epileptiform abnormalities.", {FOCAL: False, GENERAL: False}),
        ("Patient was free of seizures during the recording.", {"seizure": False}),
        ("Seizures were denied.", {"seizure": False}),
        ("Sleep spindles were absent.", {"sleep_spindles": False}),
        ("Absence of sleep spindles.", {"sleep_spindles": False}),
        (
            "Neither focal nor generalized slowing was present.",
            {"focal_slowing": False, "generalized_slowing": False},
        ),
        ("No muscle or electrode artifacts.", {"muscle_artifact": False, "electrode_artifact": False}),
        ("No posterior dominant rhythm could be identified.", {"posterior_dominant_rhythm": False}),
        (
            "No slowing, epileptiform discharges or seizures.",
            {
                "generalized_slowing": False,
                "focal_slowing": False,
                FOCAL: False,
                GENERAL: False,
                "seizure": False,
            },
        ),
        (
            "No asymmetry of the posterior rhythm was seen.",
            {"posterior_dominant_rhythm": True, "posterior_asymmetry": False},
        ),
    ],
)
def test_denied(text: str, expected: dict[str, bool]) -> None:
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No seizures, but frequent right frontal spikes.", {"seizure": False, FOCAL: True}),
        (
            "K-complexes seen; no epileptiform activity.",
            {"sleep_spindles": True, FOCAL: False, GENERAL: False},
        ),
        ("One seizure was recorded. No further seizures were seen.", {"seizure": True}),
    ],
)
def test_negation_ends_with_its_clause(text: str, expected: dict[str, bool]) -> None:
    assert said(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "The patient has a history of seizures.",
        "Cannot exclude seizure.",
        "Possible electrographic seizure.",
        "Risk of seizures is increased.",
        "Known seizure disorder on anti-seizure medication.",
        "Wicket spikes are a normal variant.",
        "Vertex sharp waves were seen.",
        "A 60 Hz notch filter was used.",
        "Slow rolling eye movements were seen.",
        "Postictal slowing was seen.",
    ],
)
def test_neither_stated_nor_denied(text: str) -> None:
    assert said(text) == {}


def test_status_of_uncertain_and_past_mentions() -> None:
    assert [s.status for s in read_statements("Possible seizure.")] == ["uncertain"]
    assert [s.status for s in read_statements("History of seizures.")] == ["past"]


def test_history_and_headings_are_not_read() -> None:
    assert read_findings({"CLINICAL HISTORY": "Two seizures."})["seizure"] is None
    assert said("## EVENTS/SEIZURES\nNo event.\nSEIZURES:\n") == {}


def test_empty_text_says_nothing() -> None:
    assert set(read_findings("")) == set(EEG_NAMES)
    assert said("") == {}


def _check(seed: int, default_sections_only: bool) -> None:
    simulation = simulate_eeg(seed, duration_seconds=40, sfreq=200)
    truth = {finding["name"]: finding["present"] for finding in simulation.findings}
    sections = write_sections(simulation.findings, simulation.facts, np.random.default_rng(seed))
    if default_sections_only:
        wanted = ("BACKGROUND ACTIVITY", "SLEEP", "EPILEPTIFORM ABNORMALITIES", "EVENTS/SEIZURES")
        sections = {name: sections[name] for name in (*wanted, "IMPRESSION/INTERPRETATION")}
    assert {name: bool(value) for name, value in read_findings(sections).items()} == truth, seed
    for text in sections.values():
        for statement in read_statements(text):
            assert statement.status == ("present" if truth[statement.name] else "denied"), statement


@pytest.mark.untraced
def test_reads_back_every_report_of_the_simulator() -> None:
    for seed in range(300):
        _check(seed, default_sections_only=bool(seed % 2))


def test_reads_back_a_report_of_nothing() -> None:
    sections = write_sections([absent_finding(name) for name in EEG_NAMES], {}, np.random.default_rng(0))
    assert not any(read_findings(sections).values())
