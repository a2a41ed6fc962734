"""Reports are cut into sections by rules."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioreport.corpora.sections import HEADERS, cut
from bioreport.prompts import ECG_SECTIONS, SECTIONS

DETAILS, IMPRESSION = "EEG DESCRIPTION/DETAILS", "IMPRESSION/INTERPRETATION"


# Reports: wording is ours, layout is that of the data sets.
REPORTS: dict[str, tuple[str, dict[str, str], str | None]] = {
    "TUH, a header a paragraph": (
        """CLINICAL HISTORY:  A 41 year old woman with two spells of staring.
MEDICATIONS:  Levetiracetam.
INTRODUCTION:  Digital video EEG in the lab, 10-20 system, one channel of EKG.
DESCRIPTION OF THE RECORD:  In wakefulness there is a 9.5 Hz rhythm.
Drowsiness brings theta.
HR:  72 bpm
IMPRESSION:  Normal EEG, awake and drowsy.
CLINICAL CORRELATION:  No epileptiform features were seen.
""",
        {
            DETAILS: "In wakefulness there is a 9.5 Hz rhythm. Drowsiness brings theta. HR: 72 bpm",
            IMPRESSION: "Normal EEG, awake and drowsy. No epileptiform features were seen.",
        },
        "A 41 year old woman with two spells of staring. Levetiracetam.",
    ),
    "all in one paragraph, headers in capitals": (
        "CLINICAL HISTORY: Found down. MEDICATIONS: None. DESCRIPTION OF THE RECORD: Diffuse delta. "
        "SEIZURES: None seen. IMPRESSION: Severe slowing.",
        {DETAILS: "Diffuse delta.", "SEIZURES": "None seen.", IMPRESSION: "Severe slowing."},
        "Found down. None.",
    ),
    "one paragraph in lower case, as CELM puts it": (
        "history: spells. background: 8 hz rhythm. sleep: not reached. impression: normal eeg.",
        {"BACKGROUND ACTIVITY": "8 hz rhythm.", "SLEEP": "not reached.", IMPRESSION: "normal eeg."},
        "spells.",
    ),
    "HEEDB, headers alone on their lines": (
        """EEG REPORT
Background Activity
The posterior rhythm is 10 Hz.

Interictal Epileptiform Abnormalities
Rare left temporal sharp waves.

Events/Seizures
None.

Interpretation
Abnormal: left temporal sharp waves.
""",
        {
            "BACKGROUND ACTIVITY": "The posterior rhythm is 10 Hz.",
            "INTERICTAL EPILEPTIFORM ABNORMALITIES": "Rare left temporal sharp waves.",
            "EVENTS/SEIZURES": "None.",
            IMPRESSION: "Abnormal: left temporal sharp waves.",
        },
        None,
    ),
    "the longest header, not one inside it": (
        "History/Reason for Monitoring: spells\nEvents / Seizures: none\nEEG Description: alpha\n"
        "Indication for EEG: staring\nBackground activity: 9 Hz\nBackground: slow",
        {
            DETAILS: "alpha",
            "BACKGROUND ACTIVITY": "9 Hz slow",
            "EVENTS/SEIZURES": "none",
        },
        "spells staring",
    ),
    "CELM's misspelling": (
        "EPLEPTIFORM ABNORMALITIES: None.\nINTERICTAL EPLEPTIFORM ABNORMALITIES: Spikes at T3.",
        {"INTERICTAL EPILEPTIFORM ABNORMALITIES": "Spikes at T3.", "EPILEPTIFORM ABNORMALITIES": "None."},
        None,
    ),
    "words that only look like headers": (
        "Sleep was reached, and\nseizures of the focal kind did not occur nor other\nevents\nof note.\n"
        "Sleep-deprived: yes.\n"
        "Backgrounds: none. Impressions vary. The impression: normal.",
        {
            DETAILS: "Sleep was reached, and seizures of the focal kind did not occur nor other events of "
            "note. Sleep-deprived: yes. Backgrounds: none. Impressions vary. The impression: normal."
        },
        None,
    ),
    "capitals without a colon, remarks, numbers and Markdown": (
        "1. **DETAILS** (awake): Alpha at 10 Hz.\n## Sleep\nSpindles.\nIMPRESSION This is a normal EEG.\n"
        "SLEEP EEG WAS NOT DONE",
        {
            DETAILS: "Alpha at 10 Hz.",
            "SLEEP": "Spindles.",
            IMPRESSION: "This is a normal EEG. SLEEP EEG WAS NOT DONE",
        },
        None,
    ),
    "text before the first header, comparison with the last EEG": (
        "ELECTROENCEPHALOGRAM\nThis was a portable study.\nComparison: Slower than last year.\n"
        "Impression: Encephalopathy.",
        {DETAILS: "This was a portable study.", IMPRESSION: "Encephalopathy."},
        None,
    ),
    "who and when goes, what follows stays": (
        "Patient Name: Jane Roe\nMRN: 123456\nDate of Birth: 1/2/1950\nReferring Physician: Dr. Roe\n"
        "The record is slow.\nImpression: Slow.\nElectronically signed by John Roe, MD",
        {DETAILS: "The record is slow.", IMPRESSION: "Slow."},
        None,
    ),
    "line ends of Windows, a header twice, an empty one": (
        "Indication: syncope\r\nDetail: alpha\r\nDescription: beta\r\nSleep:\r\nImpression: normal\r\n",
        {DETAILS: "alpha beta", IMPRESSION: "normal"},
        "syncope",
    ),
    "no header at all": (
        "NORMAL EEG.\nNo epileptiform discharges.",
        {DETAILS: "NORMAL EEG. No epileptiform discharges."},
        None,
    ),
}


class TestSections:
    @pytest.mark.parametrize("name", REPORTS)
    def test_reports_are_cut_where_their_headers_are(self, name: str) -> None:
        text, sections, history = REPORTS[name]
        found = cut(text)
        assert found.sections == sections
        assert found.history == history

    def test_sections_come_in_the_order_of_the_prompts(self) -> None:
        found = cut("IMPRESSION: a\nSLEEP: b\nBACKGROUND: c").sections
        assert list(found) == ["BACKGROUND ACTIVITY", "SLEEP", IMPRESSION]

    def test_every_header_of_celm_is_known(self) -> None:
        celm = """details; detail; epileptiform abnormalities; sleep; background; eeg classification;
            summary of the findings; clinical significance; eeg artifacts; marked events and other
            clinical events; impression;
            interictal epileptiform abnormalities; events/seizures; seizures; description;
            electroencephalogram description; eeg description; interpretation; background activity; other
            activity; history; clinical history; patient's clinical history; history/reason for monitoring;
            indication; comparison; indication for eeg; clinical indication; reason for study"""
        for header in (" ".join(part.split()) for part in celm.split(";")):
            assert header in HEADERS["eeg"]
            found = cut(f"{header.capitalize()}: something here")
            kept = [*found.sections.values(), found.history]
            assert ("something here" in kept) == (header != "comparison"), header

    @pytest.mark.parametrize("modality", ["eeg", "ecg"])
    def test_text_goes_only_to_sections_that_a_report_has(self, modality: str) -> None:
        known = {"eeg": SECTIONS, "ecg": ECG_SECTIONS}[modality]
        assert set(HEADERS[modality].values()) - set(known) == {"history", "dropped"}

    def test_an_ecg_without_headers_is_an_impression(self) -> None:
        assert cut("Sinus rhythm.\nNormal ECG.", "ecg").sections == {IMPRESSION: "Sinus rhythm. Normal ECG."}
        found = cut("Rhythm: sinus\nST-T changes: none\nConclusion: normal", "ecg").sections
        assert found == {"RHYTHM": "sinus", "ST-T CHANGES": "none", IMPRESSION: "normal"}

    @settings(max_examples=40)
    @given(
        st.lists(st.sampled_from([*HEADERS["eeg"], "alpha", ":", "\n", " ", "MORE", "é", "*"]), max_size=12)
    )
    def test_any_text_is_cut_without_words_that_it_does_not_have(self, pieces: list[str]) -> None:
        text = "".join(pieces)
        found = cut(text)
        words = set(re.findall(r"\w+", text.lower()))
        for body in [*found.sections.values(), found.history or ""]:
            assert set(re.findall(r"\w+", body.lower())) <= words
        assert set(found.sections) <= set(SECTIONS) and all(found.sections.values())
