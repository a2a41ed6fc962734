"""Data sets as they lie on disk become manifests, joined by key."""

import json
import random
import re
from pathlib import Path

import corpus_trees as trees
import pytest

from bioreport.corpora import folder as plain_folder
from bioreport.corpora import heedb, mimic_iv_ecg, ptbxl, tuh
from bioreport.corpora.labels import HEEDB, HEEDB_NOT_NORMAL, PTBXL
from bioreport.corpora.language import language_of
from bioreport.corpora.notes import Notes
from bioreport.errors import InputError
from bioreport.findings import ECG_NAMES, EEG_NAMES
from bioreport.manifest import Entry

DETAILS, IMPRESSION = "EEG DESCRIPTION/DETAILS", "IMPRESSION/INTERPRETATION"


def truth(entry: Entry) -> dict[str, bool]:
    return {finding["name"]: finding["present"] for finding in entry.findings or ()}


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
