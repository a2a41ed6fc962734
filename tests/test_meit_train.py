"""MEIT's instruction tuning on a manifest of ECGs: what it reads, that it resumes, what it leaves behind."""

import json
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wfdb_files
from safetensors.torch import load_file
from small_models import save_small_llm

from bioreport.bundle import hash_tensors
from bioreport.cli import main
from bioreport.ecg.leads import LEADS
from bioreport.ecg.preprocess import MEIT, preprocess_record
from bioreport.ecg.reading import EcgRecording, open_ecg
from bioreport.encoders.ecg_resnet import MeitEncoder
from bioreport.errors import InputError
from bioreport.llm import load_llm
from bioreport.manifest import Entry, read_manifest, write_manifest
from bioreport.meit import Result, is_meit, load_meit, new_meit, read_record, train_meit, write_reports
from bioreport.meit.text import report_text
from bioreport.meit.train import MeitRun
from bioreport.prompts import PLAIN
from bioreport.training import running_buffers

SMALL: dict[str, Any] = {"blocks": (1, 1, 1, 1), "width": 4, "hidden": 16}
REPORTS = [
    {"RHYTHM": "Sinus rhythm.", "IMPRESSION/INTERPRETATION": "Normal ECG."},
    {"RHYTHM": "Sinus rhythm."},
]


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_llm(tmp_path_factory.mktemp("llm") / "llm")


def corpus(folder: Path, count: int = 5, validation: int = 2) -> Path:
    folder.mkdir()
    entries = []
    for i in range(count + validation):
        path = wfdb_files.write_record(folder, f"r{i}", wfdb_files.twelve(seed=i), LEADS, sfreq=500)
        split = "train" if i < count else "val"
        entries.append(Entry((path,), f"p{i}", None, REPORTS[i % 2], split=split))
    return write_manifest(folder / "manifest.jsonl", entries)


@pytest.fixture
def train(llm: Path, tmp_path: Path) -> Callable[..., Result]:
    """`train_meit` at small sizes, into a folder of this test."""

    def run(manifest: Path, out: str = "out", **options: Any) -> Result:
        options = {"epochs": 2, "batch_size": 3, "at_once": 2, "lr": 1e-2, **options}
        options = {"encoder": SMALL, "llm": str(llm), "device": "cpu", **options}
        return train_meit(manifest, out=tmp_path / out, **options)

    return run


def test_a_run_that_stops_goes_on_to_the_same_bits(tmp_path: Path, train: Callable[..., Result]) -> None:
    """Running statistics of the batch norms among them, which validation is computed with."""
    manifest = corpus(tmp_path / "c")
    whole = train(manifest, "whole", save_every=1)
    assert len(whole.losses) == 4 and len(whole.validation) == 2 and not whole.errors

    def interrupt(step: int, loss: float) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(manifest, "parts", save_every=1, on_step=interrupt)
    assert not (tmp_path / "parts").exists()
    torch.rand(3)
    resumed: list[int] = []
    parts = train(manifest, "parts", save_every=1, on_step=lambda step, loss: resumed.append(step))
    assert resumed == [4]
    assert parts.losses == whole.losses and parts.validation == whole.validation
    for name in ("encoder.safetensors", "adapter/adapter_model.safetensors"):
        one, two = (load_file(tmp_path / folder / name) for folder in ("whole", "parts"))
        assert hash_tensors(one) == hash_tensors(two)
    # a finished run writes the same once more, and the checkpoint is what it says it is
    assert train(manifest, "parts").losses == whole.losses
    meit = load_meit(tmp_path / "parts")
    statistics = running_buffers(meit)
    assert {key.rpartition(".")[2] for key in statistics} == {
        "running_mean", "running_var", "num_batches_tracked",
    }  # fmt: skip
    saved = torch.load(tmp_path / "parts.training" / "checkpoint.pt", weights_only=True)["buffers"]
    assert all(torch.equal(saved[key], buffer) for key, buffer in statistics.items())
    assert int(saved["encoder.proj_ecg.1.num_batches_tracked"]) == 4


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, train: Callable[..., Result]) -> None:
    manifest = corpus(tmp_path / "c", 3, 0)
    first = train(manifest, max_steps=1)
    assert first.validation == []
    for other in ({"lr": 1e-3}, {"at_once": 3}, {"max_length": 200}, {"prompt": "Report:"}, {"seed": 6}):
        with pytest.raises(InputError, match="other settings or data"):
            train(manifest, max_steps=1, **other)
    anew = train(manifest, max_steps=1, seed=6, resume=False)
    assert anew.losses != first.losses
    report = read_manifest(manifest)
    write_manifest(manifest, [*report[:-1], Entry(report[-1].recordings, sections={"RHYTHM": "Asystole."})])
    with pytest.raises(InputError, match="other settings or data"):
        train(manifest, max_steps=1, seed=6)


def test_records_are_read_once(
    tmp_path: Path, train: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = corpus(tmp_path / "c", 3, 0)
    first = train(manifest, max_steps=1)

    def unexpected(path: Path) -> None:
        raise AssertionError(path)

    monkeypatch.setattr("bioreport.meit.records.open_ecg", unexpected)
    assert train(manifest, max_steps=1, resume=False).losses == first.losses


def test_records_that_cannot_be_used_do_not_stop_the_others(
    tmp_path: Path, train: Callable[..., Result]
) -> None:
    manifest = corpus(tmp_path / "c", 5, 0)
    entries = read_manifest(manifest)
    (tmp_path / "c" / "r0.dat").unlink()
    (tmp_path / "c" / "r1.hea").write_text("nonsense")
    together = Entry(entries[2].recordings + entries[3].recordings, sections=REPORTS[0])
    unlabelled = Entry(entries[2].recordings)
    write_manifest(manifest, [*entries, together, unlabelled])
    result = train(manifest, batch_size=8, epochs=1)
    assert len(result.losses) == 1
    assert [Path(error.path).name for error in result.errors] == ["r2.hea", "r0.hea", "r1.hea"]
    assert "give each ECG a report of its own" in str(result.errors[0])
    assert all("\n" not in str(error) for error in result.errors)


def test_what_leaves_nothing_to_learn_is_one_sentence(tmp_path: Path, train: Callable[..., Result]) -> None:
    manifest = corpus(tmp_path / "c", 1, 2)
    with pytest.raises(InputError, match="batch norms need two"):
        train(manifest)
    train(manifest, "layered", encoder={**SMALL, "norm": "layer"}, max_steps=1)
    with pytest.raises(InputError, match="batch norms need two"):
        train(corpus(tmp_path / "d", 3, 0), batch_size=1)
    with pytest.raises(InputError, match="takes 136 tokens for the prompt, of 50"):
        train(manifest, max_length=50)
    write_manifest(manifest, read_manifest(manifest)[1:])
    with pytest.raises(InputError, match="no report to train on"):
        train(manifest)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match=r"'thesis\.tex' lies in it"):
        train(manifest)


def test_batches_of_one_join_the_one_before() -> None:
    run = MeitRun.__new__(MeitRun)
    for count, sizes in ((1, [1]), (4, [4]), (5, [5]), (6, [4, 2]), (9, [4, 5])):
        batches = run.parts(list(range(count)), 4)
        assert [len(batch) for batch in batches] == sizes
        assert list(chain(*batches)) == list(range(count))


def test_a_batch_that_is_added_up_has_the_gradients_of_its_parts(
    tmp_path: Path, train: Callable[..., Result]
) -> None:
    """Without batch norms and dropout the size of the parts does not matter."""
    manifest = corpus(tmp_path / "c", 4, 0)
    for entry in (entries := read_manifest(manifest)):
        entry.sections.clear()
        entry.sections["RHYTHM"] = "Sinus rhythm."
    write_manifest(manifest, entries)
    options = {"encoder": {**SMALL, "norm": "layer"}, "batch_size": 4, "max_steps": 1, "full": True}
    runs = [train(manifest, f"by{n}", at_once=n, **options) for n in (2, 4)]
    # statistics of the ResNet's own batch norms differ, a little of the loss with them
    assert runs[0].losses[0] == pytest.approx(runs[1].losses[0], rel=1e-3)


def test_full_tuning_keeps_the_language_model_with_it(
    tmp_path: Path, llm: Path, train: Callable[..., Result]
) -> None:
    result = train(corpus(tmp_path / "c", 3, 0), full=True, max_steps=2)
    assert sorted(p.name for p in result.folder.iterdir()) == ["config.json", "encoder.safetensors", "llm"]
    meit = load_meit(result.folder, device="cpu")
    assert meit.learns_fully and meit.adapter is None
    before = load_llm(str(llm))[0].state_dict()
    after = meit.language_model.state_dict()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    assert all(p.requires_grad for p in meit.parameters())
    with pytest.raises(InputError, match="language model of its own"):
        load_meit(result.folder, llm=str(llm))
    assert new_meit(str(llm), device="cpu", full=True, **SMALL).language_model.dtype == torch.float32


def test_reports_are_written_from_the_folder(tmp_path: Path, train: Callable[..., Result]) -> None:
    manifest = corpus(tmp_path / "c", 4, 0)
    result = train(manifest, prompt="Report:", max_length=90, epochs=12, batch_size=4, at_once=4, lr=3e-2)
    assert is_meit(result.folder) and not is_meit(tmp_path)
    meit = load_meit(result.folder)
    assert meit.prompt == "Report:" and meit.max_length == 90
    paths = [entry.recordings[0] for entry in read_manifest(manifest)]
    texts = write_reports(result.folder, paths, batch_size=3)
    assert len(texts) == 4
    mixed = write_reports(meit, [paths[0].with_suffix(""), open_ecg(paths[1]), read_record(paths[2])])
    assert mixed == texts[:3]
    records = [read_record(path).data for path in paths]
    room = 90 - len(meit.text.prompt_ids("Report:"))
    assert meit.generate(records, ["Report:"] * 4, max_new_tokens=room) == texts
    assert all(PLAIN.parse(f"## RHYTHM\n{text}") for text in texts)
    assert write_reports(meit, paths[:1], max_new_tokens=3) == [texts[0][:3].strip()]
    with pytest.raises(ValueError, match="takes all of the 90 tokens"):
        write_reports(meit, paths, prompt="Report " * 40)
    with pytest.raises(InputError, match="does not exist"):
        write_reports(meit, [tmp_path / "absent.hea"])


def test_a_report_of_several_sections_names_them() -> None:
    several, one = (report_text(sections) for sections in REPORTS)
    assert PLAIN.parse(several) == REPORTS[0] and one == "Sinus rhythm."


def test_long_reports_are_counted(tmp_path: Path, train: Callable[..., Result]) -> None:
    manifest = corpus(tmp_path / "c", 3, 0)
    assert train(manifest, "whole", max_steps=1).cut == 0
    assert train(manifest, "short", max_steps=1, max_length=160).cut == 2


# --- records


def test_a_record_is_ten_seconds_of_meits_preprocessing(tmp_path: Path) -> None:
    path = wfdb_files.write_record(tmp_path, "a", wfdb_files.twelve(), LEADS, sfreq=500)
    record = read_record(path)
    assert record.data.shape == (12, 5000) and record.data.dtype == torch.float32
    assert float(record.data.min()) == 0 and float(record.data.max()) == 1
    np.testing.assert_array_equal(record.data, preprocess_record(open_ecg(path), MEIT)[0].data[0])
    assert record.file == "a.hea" and record.warnings == []


def test_of_a_long_recording_the_first_whole_window_is_read() -> None:
    data = wfdb_files.twelve(seconds=40.0)
    data[6:, :6000] = np.nan  # chest leads off for 12 s
    record = read_record(EcgRecording.from_array(data, 500.0))
    assert record.start_seconds == 20 and record.absent == ()
    assert record.warnings == ["The model saw the 10 s that begin at 20 s."]
    # of one that is never whole, where most leads are
    data[11] = np.nan
    record = read_record(EcgRecording.from_array(data, 500.0))
    assert record.start_seconds == 20 and record.absent == ("V6",)
    assert record.warnings[0] == "V6: no usable signal, the model saw none."


def test_a_record_without_signal_is_refused() -> None:
    two = EcgRecording.from_array(wfdb_files.twelve(seconds=4.0)[:2], 500.0, ("I", "II"))
    record = read_record(two)
    assert record.absent == LEADS[2:] and not record.data[2:].any() and not record.data[:, 2000:].any()
    with pytest.raises(InputError, match="no lead with a usable signal"):
        read_record(EcgRecording.from_array(np.full((12, 5000), np.nan), 500.0))
    with pytest.raises(InputError, match="shorter than"):
        read_record(EcgRecording.from_array(wfdb_files.twelve(seconds=1.0), 500.0))


# --- the command


def test_the_command_trains_and_says_what_came_of_it(
    tmp_path: Path, llm: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in SMALL.items():  # the published encoder takes a while
        monkeypatch.setitem(MeitEncoder.__init__.__kwdefaults__, name, size)
    manifest, out = corpus(tmp_path / "c", 2, 2), tmp_path / "out"
    arguments = ["train", "meit", str(manifest), "-o", str(out), "--max-steps", "1", "--device", "cpu"]
    assert main([*arguments, "--llm", str(llm)]) == 0
    said = capsys.readouterr().err
    assert f"{out}: written after 1 steps (loss " in said and ", validation " in said
    config = json.loads((out / "config.json").read_text())
    assert config["learnt"] == "lora" and config["encoder"]["out_dim"] == 16
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2 and "--llm" in capsys.readouterr().err
    assert main([*arguments, "--llm", str(tmp_path)]) == 1
