"""Manifests of corpora: split by patient, without leaks, from the command line."""

import json
import re
from pathlib import Path

import corpus_trees as trees
import pytest
from command_line import run
from hypothesis import given, settings
from hypothesis import strategies as st

from bioreport import cli
from bioreport.corpora.build import Summary, build_manifest
from bioreport.corpora.leakage import FORMULA_WORDS, signal_hash
from bioreport.corpora.notes import Notes
from bioreport.corpora.splits import best_seed, split_of
from bioreport.corpora.store import Store, ordered, plain
from bioreport.errors import InputError
from bioreport.manifest import read_manifest

DETAILS, IMPRESSION = "EEG DESCRIPTION/DETAILS", "IMPRESSION/INTERPRETATION"


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


def test_a_manifest_takes_the_place_of_no_other_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = tmp_path / "some.edf"
    recording.write_bytes(b"0       X\xff")
    assert cli.main(["corpus", "folder", str(tmp_path), "-o", str(recording)]) == 1
    assert "some.edf: is there and is no manifest" in capsys.readouterr().err
    assert recording.read_bytes() == b"0       X\xff"
    for _ in range(2):
        assert cli.main(["corpus", "folder", str(tmp_path), "-o", str(tmp_path / "m.jsonl")]) == 0
