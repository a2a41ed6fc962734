"""Corpora as they lie on disk become manifests: joined by key, cut by rules, split by patient, no leaks."""

import json
import random
import re
from pathlib import Path

import corpus_trees as trees
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bioreport import cli
from bioreport.corpora import folder as plain_folder
from bioreport.corpora import heedb, mimic_iv_ecg, ptbxl, tuh
from bioreport.corpora.build import Summary, build_manifest
from bioreport.corpora.labels import HEEDB, HEEDB_NOT_NORMAL, PTBXL
from bioreport.corpora.language import language_of
from bioreport.corpora.leakage import FORMULA_WORDS, signal_hash
from bioreport.corpora.notes import Notes
from bioreport.corpora.sections import HEADERS, cut
from bioreport.corpora.splits import best_seed, split_of
from bioreport.corpora.store import Store, ordered, plain
from bioreport.errors import InputError
from bioreport.findings import ECG_NAMES, EEG_NAMES
from bioreport.manifest import Entry, read_manifest
from bioreport.prompts import ECG_SECTIONS, SECTIONS

DETAILS, IMPRESSION = "EEG DESCRIPTION/DETAILS", "IMPRESSION/INTERPRETATION"


def truth(entry: Entry) -> dict[str, bool]:
    return {finding["name"]: finding["present"] for finding in entry.findings or ()}


def run(*arguments: str | Path) -> int:
    try:
        return cli.main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


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


class TestSplits:
    @settings(max_examples=40)
    @given(st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=30), st.integers(0, 5))
    def test_adding_patients_moves_none(self, patients: set[str], seed: int) -> None:
        before = {patient: split_of(patient, seed) for patient in patients}
        after = {p: split_of(p, seed) for p in [*patients, *(f"{p}+" for p in patients)]}
        assert before.items() <= after.items()

    def test_adding_recordings_to_a_corpus_moves_no_patient(self, tmp_path: Path) -> None:
        def splits() -> dict[str, str]:
            manifest = build_manifest("folder", tmp_path / "data", tmp_path / "m.jsonl").manifest
            found: dict[str, str] = {}
            for entry in read_manifest(manifest):
                assert entry.patient is not None and entry.split is not None
                assert found.setdefault(entry.patient, entry.split) == entry.split
            return found

        for i in range(0, 60, 2):
            trees.edf(tmp_path / "data" / f"sub-{i:02d}_eeg.edf")
        before = splits()
        assert set(before.values()) == {"train", "val", "test"}
        for i in range(60):
            trees.edf(tmp_path / "data" / f"sub-{i:02d}_ses-2_eeg.edf")
        after = splits()
        assert len(after) == 60 and before.items() <= after.items()

    def test_the_best_seed_splits_a_rare_finding_better(self) -> None:
        findings = {f"p{i}": {"seizure"} if i % 20 == 0 else {"drowsiness"} for i in range(200)}

        def unevenness(seed: int) -> float:
            rare = [split_of(patient, seed) for patient, names in findings.items() if "seizure" in names]
            return abs(rare.count("val") - 1) + abs(rare.count("test") - 1)

        assert unevenness(best_seed(findings)) <= 1 < max(map(unevenness, range(10)))
        assert best_seed({}) == 0


class TestStore:
    def test_a_key_that_comes_twice_counts_by_what_it_says(self) -> None:
        notes = Notes()
        with Store() as store:
            for key, value in [("2", "a"), ("10", "b"), ("2", "a"), ("10", "c"), ("10", "b"), ("1", "d")]:
                store.put("study", ordered(key), value)
            assert [(plain(key), value) for key, value in store.items("study")] == [("1", "d"), ("2", "a")]
            assert store.get("study", ordered("10")) is None
            store.tell_doubles("study", "study", notes)
        assert notes.sentences() == [
            "Study listed twice with the same contents, taken once: 1, it is 2.",
            "Study listed twice with different contents, left out: 1, it is 10.",
        ]

    def test_zero_is_a_number_too(self) -> None:
        assert plain(ordered("0")) == "0" and plain(ordered("x007")) == "x007"


class TestLabels:
    def test_codes_mean_findings_that_exist(self) -> None:
        assert set(PTBXL.values()) <= set(ECG_NAMES)
        assert set(HEEDB.values()) | set(HEEDB_NOT_NORMAL) <= set(EEG_NAMES)

    @pytest.mark.parametrize(
        ("text", "code"),
        [
            ("sinusrhythmus linkstyp qrs(t) abnorm inferiorer infarkt alter unbest.", "de"),
            ("sinus rhythm. left axis deviation. otherwise normal ecg.", "en"),
            ("sinusrytm. vänster grenblock. sannolikt patologiskt ekg.", "sv"),
            ("qrs 4.46", None),
            ("", None),
        ],
    )
    def test_the_language_of_a_report(self, text: str, code: str | None) -> None:
        assert language_of(text) == code


class TestPtbXl:
    def test_folds_languages_and_codes(self, tmp_path: Path) -> None:
        trees.ptbxl(
            tmp_path,
            [
                {"ecg_id": 10, "strat_fold": 10, "scp_codes": "{'AFIB': 0.0, 'LVH': 35.0, 'NDT': 100.0}"},
                {"ecg_id": 9, "strat_fold": 9, "report": "sinus rhythm. normal ecg."},
                {"ecg_id": 2, "strat_fold": 8, "scp_codes": "{'SR': 0.0, 'CRBBB': 100.0}"},
                {"ecg_id": 3, "scp_codes": "{'SBRAD': 0.0}", "report": "sinusrytm. vänster elaxel."},
            ],
        )
        notes = Notes()
        entries = list(ptbxl.read(tmp_path, notes))
        assert [e.recordings[0].name for e in entries] == [f"0000{n}_hr.hea" for n in "239"] + [
            "00010_hr.hea"
        ]
        assert [e.split for e in entries] == ["train", "train", "val", "test"]
        assert [e.language for e in entries] == ["de", "sv", "en", "de"]
        assert [e.patient for e in entries] == ["1002", "1003", "1009", "1010"]
        assert entries[0].sections == {IMPRESSION: "sinusrhythmus normales ekg"}
        assert entries[0].labels == {"scp_codes": {"SR": 0.0, "CRBBB": 100.0}}
        first = truth(entries[0])
        assert first["sinus_rhythm"] and first["right_bundle_branch_block"]
        assert first["atrial_fibrillation"] is False
        # doubt, and what other codes may say too, is not known
        last = truth(entries[3])
        assert last["atrial_fibrillation"] and "left_ventricular_hypertrophy" not in last
        assert "sinus_rhythm" not in last and "st_depression" not in last
        assert notes.sentences() == []

    def test_what_is_missing_is_counted_and_not_fatal(self, tmp_path: Path) -> None:
        trees.ptbxl(
            tmp_path,
            [
                {"ecg_id": 1, "report": " "},
                {"ecg_id": 2, "strat_fold": ""},
                {"ecg_id": 3, "scp_codes": "{'SR': "},
                {"ecg_id": 7, "scp_codes": "['SR']"},
                {"ecg_id": 4},
                {"ecg_id": 5, "patient_id": ""},
                {"ecg_id": 6, "strat_fold": 1},
                {"ecg_id": 6, "strat_fold": 2},
            ],
        )
        (tmp_path / "records500/00000/00004_hr.hea").unlink()
        (tmp_path / "records500/00000/00001_hr.hea").unlink()
        trees.record(tmp_path / "records100/00000/00001_lr.hea")
        notes = Notes()
        entries = list(ptbxl.read(tmp_path, notes))
        assert [e.recordings[0].name for e in entries] == [
            "00001_lr.hea",
            "00002_hr.hea",
            "00003_hr.hea",
            "00005_hr.hea",
            "00007_hr.hea",
        ]
        assert entries[0].sections == {} and entries[1].split is None and entries[2].findings is None
        assert entries[3].patient == "ecg-5"
        assert sorted(notes.counts.values()) == [1] * 5 + [2]
        assert any("left out: 1, it is ecg_id 4." in sentence for sentence in notes.sentences())

    @pytest.mark.parametrize("content", ["ecg_id,report\n1,x\n", "", b"ecg_id\xff,\n\xff"])
    def test_what_is_no_such_table_is_one_sentence(self, tmp_path: Path, content: str | bytes) -> None:
        trees.touch(tmp_path / "ptbxl_database.csv", content)
        with pytest.raises(InputError, match=r"ptbxl_database\.csv"):
            list(ptbxl.read(tmp_path, Notes()))

    def test_a_missing_table_is_one_sentence(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such file"):
            list(ptbxl.read(tmp_path, Notes()))


class TestMimic:
    def test_studies_are_joined_in_whatever_order_their_rows_come(self, tmp_path: Path) -> None:
        studies = [(f"1000{i // 3:04d}", f"4{i:07d}") for i in range(40)]
        machine = [
            {"subject_id": s, "study_id": n, "report_0": "Sinus rhythm", "report_1": f"*** Statement {n} ***"}
            for s, n in studies
        ]
        random.Random(3).shuffle(machine)
        shuffled = random.Random(4).sample(studies, len(studies))
        notes = Notes()
        entries = list(mimic_iv_ecg.read(trees.mimic(tmp_path, shuffled, machine), notes))
        assert [(e.patient, e.recordings[0].stem) for e in entries] == studies
        for entry, (_, study) in zip(entries, studies, strict=True):
            assert entry.sections == {IMPRESSION: f"Sinus rhythm. Statement {study}."}
        assert notes.sentences() == []

    def test_quality_is_a_section_and_what_was_not_measured_no_label(self, tmp_path: Path) -> None:
        machine = {
            "subject_id": "10000001",
            "study_id": "40000001",
            "report_0": "--- Warning: Data quality may affect interpretation ---",
            "report_1": "",
            "report_2": "Sinus rhythm.",
            "rr_interval": "659",
            "p_onset": "29999",
            "qrs_axis": "-7.5",
            "t_axis": "nan",
        }
        trees.mimic(tmp_path, [("10000001", "40000001")], [machine])
        (entry,) = mimic_iv_ecg.read(tmp_path, Notes())
        assert entry.sections == {
            "TECHNICAL QUALITY": "Warning: Data quality may affect interpretation.",
            IMPRESSION: "Sinus rhythm.",
        }
        assert entry.labels == {"rr_interval": 659, "qrs_axis": -7.5}
        assert entry.language == "en" and entry.findings is None

    def test_what_does_not_fit_is_counted_and_left_out(self, tmp_path: Path) -> None:
        records = [("1", "40"), ("1", "41"), ("2", "42"), ("2", "43"), ("3", "44"), ("3", "44"), ("4", "45")]
        machine = [
            {"subject_id": s, "study_id": n, "report_0": text}
            for s, n, text in [
                ("1", "40", "A"), ("9", "42", "of another subject"), ("2", "43", "no recording"),
                ("7", "99", "not listed"), ("3", "44", "once"), ("4", "45", "x"), ("4", "45", "y"),
            ]
        ]  # fmt: skip
        trees.mimic(tmp_path, records, machine)
        (tmp_path / "files/p2/p2/s43/43.hea").unlink()
        notes = Notes()
        entries = {e.recordings[0].stem: e.sections for e in mimic_iv_ecg.read(tmp_path, notes)}
        assert entries == {"40": {IMPRESSION: "A."}, "41": {}, "44": {IMPRESSION: "once."}, "45": {}}
        said = "\n".join(notes.sentences())
        for part in (
            "taken once: 1, it is 44.",
            "left out: 1, it is 45.",
            "not in record_list.csv, left out: 1, it is 99.",
            "not there, left out: 1, it is 43.",
            "one in each table, left out: 1, it is 42.",
            "kept without sections: 2, the first is 41.",
        ):
            assert part in said


class TestTuh:
    REPORT = "CLINICAL HISTORY: Staring.\r\nIMPRESSION: Normal EEG \x96 awake.\r\n"

    def test_a_session_is_one_entry_wherever_its_files_lie(self, tmp_path: Path) -> None:
        old = tmp_path / "edf"
        for montage, token in (("01_tcp_ar", "t001"), ("03_tcp_ar_a", "t000")):
            place = old / montage / "000" / "aaaaaaab" / "s002_2003_02_28"
            trees.edf(place / f"aaaaaaab_s002_{token}.edf")
            trees.touch(place / "aaaaaaab_s002.txt", self.REPORT.encode("latin-1"))
        new = tmp_path / "edf" / "000" / "aaaaaaaa" / "s001_2015"
        trees.edf(new / "01_tcp_ar" / "aaaaaaaa_s001_t000.edf")
        trees.touch(new / "aaaaaaaa_s001.txt", "IMPRESSION: Slow.")
        trees.touch(tmp_path / "edf" / "aaaaaaac" / "s001" / "aaaaaaac_s001.txt", "IMPRESSION: lost.")
        trees.touch(tmp_path / "AAREADME.txt", "not a report")
        notes = Notes()
        first, second = tuh.read(tmp_path, notes)
        assert (first.patient, first.sections) == ("aaaaaaaa", {IMPRESSION: "Slow."})
        assert [path.name[-8:] for path in second.recordings] == ["t000.edf", "t001.edf"]
        assert second.history == "Staring." and second.sections == {IMPRESSION: "Normal EEG – awake."}
        assert second.split is None and second.findings is None
        assert notes.sentences() == [
            "Reports without a recording, left out: 1, it is edf/aaaaaaac/s001/aaaaaaac_s001.txt."
        ]

    def test_the_corpora_of_their_own_splits_and_labels(self, tmp_path: Path) -> None:
        header = "# version = csv_v1.0.0\n# bname = x\nchannel,start_time,stop_time,label,confidence\n"
        lines = {
            "train": "TERM,0.0,9.5,bckg,1.0\nTERM,9.5,20.25,seiz,1.0\n",
            "dev": "TERM,0.0,9.0,bckg,1.0\n",
            "eval": "TERM,x,y,seiz,1.0\n",
        }
        for i, (part, rows) in enumerate(lines.items()):
            place = tmp_path / "edf" / part / f"aaaaaaa{i}" / "s001_2002" / "02_tcp_le"
            trees.edf(place / f"aaaaaaa{i}_s001_t000.edf")
            trees.touch(place / f"aaaaaaa{i}_s001_t000.csv_bi", header + rows)
        trees.edf(tmp_path / "edf" / "eval" / "abnormal" / "01_tcp_ar" / "aaaaaaa9_s003_t001.edf")
        notes = Notes()
        entries = list(tuh.read(tmp_path, notes))
        assert [e.split for e in entries] == ["train", "val", "test", "test"]
        assert [truth(e) for e in entries] == [{"seizure": True}, {"seizure": False}, {}, {}]
        assert [(e["start_seconds"], e["end_seconds"]) for e in entries[0].events] == [(9.5, 20.25)]
        assert entries[3].labels == {"class": "abnormal"}
        assert "annotations whose times are no numbers, not used" in notes.counts

    def test_reports_that_differ_and_recordings_put_out_twice(self, tmp_path: Path) -> None:
        for montage in ("01_tcp_ar", "03_tcp_ar_a"):
            trees.edf(tmp_path / montage / "aaaaaaaa_s001_t000.edf")
            trees.touch(tmp_path / montage / "aaaaaaaa_s001.txt", f"IMPRESSION: {montage}.")
        notes = Notes()
        (entry,) = tuh.read(tmp_path, notes)
        assert len(entry.recordings) == 1 and entry.sections == {}
        assert len(notes.counts) == 2

    def test_a_folder_without_any_is_one_sentence(self, tmp_path: Path) -> None:
        for place in (tmp_path, tmp_path / "absent"):
            with pytest.raises(InputError, match=re.escape(str(place))):
                list(tuh.read(place, Notes()))


class TestHeedb:
    def tree(self, top: Path) -> Path:
        for patient, session in ((111, 2), (111, 10), (222, 1), (333, 1), (444, 1)):
            trees.heedb_edf(top, patient, session)
        trees.table(
            top / "EEG" / "HEEDB_Metadata" / "S0001_EEG__reports_findings.csv",
            [
                trees.heedb_row(
                    222, 1, "NeuroReport_2_b.txt", **{"normal": "report", "pdr": "report verified"}
                ),
                trees.heedb_row(
                    111, 10, "NeuroReport_1_a.txt", **{"abnormal": "report", "seizure": "report"}
                ),
                trees.heedb_row(
                    111, 2, "NeuroReport_1_a.txt", **{"abnormal": "report", "spikes": "annotation"}
                ),
                trees.heedb_row(333, 1, "", **{"bs": "annotation", "seizure": "None"}),
                trees.heedb_row(555, 1, "NeuroReport_5_e.txt"),
                trees.heedb_row(222, 1, "NeuroReport_9_z.txt"),
            ],
        )
        texts = top / "EHR" / "I0001_Neurology_Reports_1" / "2015"
        trees.touch(texts / "NeuroReport_1_a.txt", "Indication: spells\nImpression: Seizure from the left.")
        trees.touch(texts / "NeuroReport_7_y.txt", "Impression: of nobody")
        return top

    def test_a_report_has_all_its_sessions_in_order(self, tmp_path: Path) -> None:
        notes = Notes()
        entries = list(heedb.read(self.tree(tmp_path), notes))
        by_patient = {entry.patient: entry for entry in entries}
        assert sorted(by_patient) == ["111", "222", "333", "444"] and len(entries) == 4
        first = by_patient["111"]
        assert [path.parts[-3] for path in first.recordings] == ["ses-2", "ses-10"]
        assert (first.history, first.sections) == ("spells", {IMPRESSION: "Seizure from the left."})
        assert truth(first) == {"seizure": True}
        assert first.labels == {"abnormal": "report", "seizure": "report", "spikes": "annotation"}
        normal = truth(by_patient["222"])
        assert normal.pop("posterior_dominant_rhythm") and set(normal) == set(HEEDB_NOT_NORMAL)
        assert not any(normal.values())
        assert truth(by_patient["333"]) == {"burst_suppression": True}
        assert by_patient["444"].findings is None
        kinds = "\n".join(notes.sentences())
        for part in (
            "two reports claim, given to the first: 1",
            "text is not there (are they unpacked?), kept without sections: 1, it is NeuroReport_2_b.txt",
            "reports without a recording, left out: 1, it is NeuroReport_5_e.txt",
            "name no report, kept without sections: 1, it is sub-S0001333/1",
            "no table lists, kept without sections: 1",
            "no table lists, left out: 1",
        ):
            assert part.lower() in kinds.lower()

    def test_a_patient_at_two_sites_is_one_patient(self, tmp_path: Path) -> None:
        for site in ("S0001", "S0002"):
            trees.heedb_edf(tmp_path, 111, 1, site)
        entries = list(heedb.read(tmp_path / "EEG" / "bids", Notes()))
        assert [entry.patient for entry in entries] == ["111", "111"]

    def test_bids_without_tables_is_read_too(self, tmp_path: Path) -> None:
        trees.edf(tmp_path / "sub-01" / "ses-02" / "eeg" / "sub-01_ses-02_task-rest_eeg.edf")
        notes = Notes()
        (entry,) = heedb.read(tmp_path, notes)
        assert entry.patient == "01" and notes.counts == {}
        with pytest.raises(InputError, match="holds no recording"):
            list(heedb.read(trees.touch(tmp_path / "other" / "x.txt").parent, Notes()))

    def test_two_texts_of_one_report_that_differ_are_not_chosen_from(self, tmp_path: Path) -> None:
        trees.heedb_edf(tmp_path, 1, 1)
        trees.table(
            tmp_path / "S0001_EEG__reports_findings.csv", [trees.heedb_row(1, 1, "NeuroReport_1.txt")]
        )
        for year in ("2015", "2016"):
            trees.touch(tmp_path / year / "NeuroReport_1.txt", f"Impression: {year}")
        notes = Notes()
        (entry,) = heedb.read(tmp_path, notes)
        assert entry.sections == {}
        assert notes.counts == {"reports with two texts that differ, kept without sections": 1}

    def test_a_report_of_two_patients_is_left_out(self, tmp_path: Path) -> None:
        for patient in (1, 2):
            trees.heedb_edf(tmp_path, patient, 1)
        rows = [trees.heedb_row(patient, 1, "NeuroReport_1_a") for patient in (1, 2)]
        trees.table(tmp_path / "S0001_EEG__reports_findings.csv", rows)
        notes = Notes()
        assert list(heedb.read(tmp_path, notes)) == []
        assert notes.counts == {"reports of several patients, left out": 1}


class TestFolder:
    def test_reports_lie_beside_recordings(self, tmp_path: Path) -> None:
        trees.edf(tmp_path / "a.edf")
        trees.touch(tmp_path / "a.txt", "History: spells\nImpression: The EEG is normal.")
        trees.edf(tmp_path / "b.EDF")
        trees.touch(tmp_path / "b.md", "# EEG\n\n## SLEEP\n\nSpindles.\n")
        trees.touch(tmp_path / "b.json", json.dumps({"PowerLineFrequency": 50}))
        trees.record(tmp_path / "deep" / "c.hea")
        report = {
            "sections": [{"name": "rhythm", "text": "Sinus\nrhythm."}],
            "patient": "p7",
            "history": "Chest pain.",
            "findings": [{"name": "sinus_rhythm", "present": True}],
        }
        trees.touch(tmp_path / "deep" / "c.json", json.dumps(report))
        trees.edf(tmp_path / "deep" / "d.edf")
        trees.touch(
            tmp_path / "deep" / "d.json", json.dumps({"report": "Impression: Slow.", "findings": [{}]})
        )
        trees.edf(tmp_path / "e.edf")
        trees.touch(tmp_path / "lost.txt", "Impression: lost.")
        trees.touch(tmp_path / "README.md", "About.")
        notes = Notes()
        a, b, e, c, d = plain_folder.read(tmp_path, notes)
        assert (a.history, a.sections, a.language) == ("spells", {IMPRESSION: "The EEG is normal."}, "en")
        assert b.sections == {"SLEEP": "Spindles."} and e.sections == {}
        assert (c.patient, c.history, c.sections) == ("p7", "Chest pain.", {"RHYTHM": "Sinus rhythm."})
        assert truth(c) == {"sinus_rhythm": True}
        assert d.sections == {IMPRESSION: "Slow."} and d.findings is None
        assert notes.counts == {
            "recordings without a report, kept without sections": 1,
            "recordings that name no patient, each taken for one of its own": 4,
            "reports without a recording, left out": 1,
            "reports whose findings are in no form that is read here, left without": 1,
        }

    def test_the_patient_is_found_in_the_path(self, tmp_path: Path) -> None:
        trees.edf(tmp_path / "ward" / "kim-2.edf")
        trees.edf(tmp_path / "ward" / "kim-1.edf")
        trees.edf(tmp_path / "sub-07" / "sub-07_eeg.edf")
        found = [e.patient for e in plain_folder.read(tmp_path, Notes(), re.compile(r"ward/(\w+)-"))]
        assert found == ["sub-07/sub-07_eeg.edf", "kim", "kim"]
        assert next(iter(plain_folder.read(tmp_path, Notes()))).patient == "07"

    def test_segments_of_a_record_are_no_records(self, tmp_path: Path) -> None:
        trees.record(tmp_path / "long_0001.hea")
        trees.touch(tmp_path / "long.hea", "long/1 1 500 10\nlong_0001 10\n")
        trees.touch(tmp_path / "broken.hea", "?")
        assert [e.recordings[0].name for e in plain_folder.read(tmp_path, Notes())] == [
            "broken.hea",
            "long.hea",
        ]

    def test_what_cannot_be_read_is_no_report(self, tmp_path: Path) -> None:
        for name, content in (("a", "{"), ("b", "[1]"), ("c", json.dumps({"sections": "SLEEP"}))):
            trees.edf(tmp_path / f"{name}.edf")
            trees.touch(tmp_path / f"{name}.json", content)
        trees.edf(tmp_path / "d.edf")
        (tmp_path / "d.txt").symlink_to(tmp_path / "absent")
        notes = Notes()
        assert [e.sections for e in plain_folder.read(tmp_path, notes)] == [{}] * 4
        assert notes.counts["texts that cannot be read (no such file or directory)"] == 1
        assert notes.counts["recordings without a report, kept without sections"] == 4

    def test_no_recording_is_one_sentence(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="holds no recording"):
            list(plain_folder.read(tmp_path, Notes()))


def of_split(split: str, count: int = 1, prefix: str = "p") -> list[str]:
    names = (f"{prefix}{i}" for i in range(10_000))
    return [name for name in names if split_of(name) == split][:count]


class TestLeakage:
    def build(self, top: Path, **options: bool) -> Summary:
        return build_manifest("folder", top / "data", top / "m.jsonl", **options)

    @pytest.fixture
    def pair(self, tmp_path: Path) -> tuple[Path, Path]:
        """Recordings of two patients, one of train and one of test, with reports of their own."""
        paths = []
        for patient in (*of_split("train"), *of_split("test")):
            paths.append(trees.edf(tmp_path / "data" / f"sub-{patient}_eeg.edf"))
            trees.touch(paths[-1].with_suffix(".txt"), trees.LONG.format(patient))
        return paths[0], paths[1]

    def test_a_clean_corpus_passes(self, tmp_path: Path, pair: tuple[Path, Path]) -> None:
        summary = self.build(tmp_path, signals=True)
        assert (summary.entries, summary.patients, summary.reports) == (2, 2, 2)
        assert summary.splits == {"train": 1, "val": 0, "test": 1}
        splits = {e.recordings[0]: e.split for e in read_manifest(summary.manifest)}
        assert splits == {pair[0]: "train", pair[1]: "test"}

    def test_the_same_report_names_both_entries(self, tmp_path: Path, pair: tuple[Path, Path]) -> None:
        text = trees.LONG.format("one")
        pair[0].with_suffix(".txt").write_text(text)
        pair[1].with_suffix(".txt").write_text(
            f"Details:\n{text.upper().replace(' WHO IS', chr(10) + 'WHO IS')}"
        )
        with pytest.raises(InputError, match="have the same report text") as error:
            self.build(tmp_path)
        assert all(path.name in str(error.value) for path in pair)
        assert "(train)" in str(error.value) and "(test)" in str(error.value)
        assert not (tmp_path / "m.jsonl").exists() and not list(tmp_path.glob(".m*"))
        listed = self.build(tmp_path, list_leaks=True)
        assert [leak.what for leak in listed.leaks] == ["report"] and listed.manifest.exists()

    def test_stock_phrases_are_only_counted(self, tmp_path: Path, pair: tuple[Path, Path]) -> None:
        for path in pair:
            path.with_suffix(".txt").write_text("Impression: " + "Normal EEG. " * (FORMULA_WORDS // 2 - 1))
        assert any("Stock phrases" in sentence for sentence in self.build(tmp_path).sentences())

    def test_the_same_signal_is_found_under_another_header(
        self, tmp_path: Path, pair: tuple[Path, Path]
    ) -> None:
        trees.edf(pair[0], b"samples", header=b"X X X X")
        trees.edf(pair[1], b"samples", header=b"Y Y Y Y")
        assert self.build(tmp_path).leaks == []
        with pytest.raises(InputError, match="hold the same signal") as error:
            self.build(tmp_path, signals=True)
        assert all(path.name in str(error.value) for path in pair)

    def test_the_same_patient_in_two_folds_is_found(self, tmp_path: Path) -> None:
        rows = [
            {"ecg_id": i, "patient_id": "7.0", "strat_fold": fold} for i, fold in ((1, 1), (2, 10), (3, 9))
        ]
        trees.ptbxl(tmp_path, rows)
        with pytest.raises(InputError, match="of the same patient") as error:
            build_manifest("ptbxl", tmp_path, tmp_path / "m.jsonl")
        assert "00001_hr.hea (train)" in str(error.value) and "00002_hr.hea (test)" in str(error.value)
        assert "1 more such pair" in str(error.value)

    def test_what_counts_as_the_signal(self, tmp_path: Path) -> None:
        one, two = trees.record(tmp_path / "one.hea", b"same"), trees.record(tmp_path / "two.hea", b"same")
        other = trees.record(tmp_path / "other.hea", b"another")
        assert signal_hash(one) == signal_hash(two) != signal_hash(other)
        whole = trees.touch(tmp_path / "whole.hea", "whole/2 1 500 10\none 5\n~ 5\n")
        assert signal_hash(whole) == signal_hash(one)
        for name in ("a", "b"):
            trees.touch(tmp_path / f"{name}.vhdr", f"header of {name}")
            trees.touch(tmp_path / f"{name}.eeg", b"same")
        assert signal_hash(tmp_path / "a.vhdr") == signal_hash(tmp_path / "b.vhdr")
        with pytest.raises(InputError, match="cannot be read"):
            signal_hash(tmp_path / "absent.edf")

    def test_a_recording_that_cannot_be_compared_is_told(
        self, tmp_path: Path, pair: tuple[Path, Path]
    ) -> None:
        trees.touch(tmp_path / "data" / "broken.hea", "?")
        assert "recordings that cannot be compared" in self.build(tmp_path, signals=True).notes.counts


class TestCommand:
    def test_a_manifest_is_written_and_the_same_again(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        trees.ptbxl(tmp_path, [{"ecg_id": i, "strat_fold": i} for i in range(1, 11)])
        target = tmp_path / "m.jsonl"
        assert run("corpus", "ptbxl", tmp_path, "-o", target, "--check") == 0
        err = capsys.readouterr().err
        assert (
            "10 entries of 10 patients (train 8, val 1, test 1), 10 with a report, 10 with findings." in err
        )
        first = target.read_bytes()
        assert json.loads(first.splitlines()[0])["recording"] == "records500/00000/00001_hr.hea"
        assert run("corpus", "ptbxl", tmp_path, "-o", target, "-q") == 0
        assert target.read_bytes() == first and capsys.readouterr().err == ""
        entry = read_manifest(target)[0]
        assert entry.language == "de" and entry.labels["scp_codes"] == {"NORM": 100.0, "SR": 0.0}

    def test_a_leak_is_exit_code_1_and_one_sentence(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        trees.ptbxl(tmp_path, [{"ecg_id": i, "patient_id": 7, "strat_fold": i} for i in (1, 10)])
        assert run("corpus", "ptbxl", tmp_path, "-o", tmp_path / "m.jsonl") == 1
        assert len([s for s in capsys.readouterr().err.splitlines() if s.startswith("bioreport: ")]) == 1
        assert not (tmp_path / "m.jsonl").exists()
        assert run("corpus", "ptbxl", tmp_path, "-o", tmp_path / "m.jsonl", "--list-leaks") == 0
        assert "leak: " in capsys.readouterr().err and (tmp_path / "m.jsonl").exists()

    def test_the_best_seed_is_named(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for i in range(8):
            trees.edf(tmp_path / "data" / f"sub-{i}.edf")
            finding = {"name": "seizure", "present": i < 4}
            report = {"report": f"Impression: {i}.", "findings": [finding]}
            trees.touch(tmp_path / "data" / f"sub-{i}.json", json.dumps(report))
        assert run("corpus", "folder", tmp_path / "data", "-o", tmp_path / "m.jsonl", "--seed", "best") == 0
        said = capsys.readouterr().err
        seed = int(re.search(r"give --seed (\d+) from now on", said)[1])  # type: ignore[index]
        for entry in read_manifest(tmp_path / "m.jsonl"):
            assert entry.patient is not None and entry.split == split_of(entry.patient, seed)

    @pytest.mark.parametrize(
        "arguments",
        [
            ("ptbxl", "--patient", "x"),
            ("folder", "--patient", "("),
            ("folder", "--seed", "worst"),
            ("heedb2",),
        ],
    )
    def test_wrong_usage(self, tmp_path: Path, arguments: tuple[str, ...]) -> None:
        assert run("corpus", arguments[0], tmp_path, "-o", tmp_path / "m.jsonl", *arguments[1:]) == 2

    def test_findings_that_a_split_lacks_are_told(self, tmp_path: Path) -> None:
        codes = ["{'AFIB': 0.0}", "{'SR': 0.0}", "{'AFIB': 0.0}"]
        rows = [
            {"ecg_id": i, "strat_fold": fold, "scp_codes": code}
            for i, (fold, code) in enumerate(zip((1, 9, 10), codes, strict=True), 1)
        ]
        said = build_manifest("ptbxl", trees.ptbxl(tmp_path, rows), tmp_path / "m.jsonl").sentences()
        assert "No entry of val has: atrial_fibrillation." in said
        assert "No entry of train has: sinus_rhythm." in said
