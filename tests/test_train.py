"""Training: only projector and special tokens learn, and a run that stops goes on to the same bits."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import wfdb_files
from small_models import MEASUREMENTS, SIZES, save_small_llm, small_bundle

from bioreport import tokens as tokens_module
from bioreport.bundle import Bundle, hash_tensors
from bioreport.bundle_reader import load_bundle
from bioreport.errors import InputError
from bioreport.evidence import Evidence
from bioreport.findings import absent_finding
from bioreport.manifest import Entry, read_manifest, write_manifest
from bioreport.tokens import TokenStore, encode_manifest, fill_store, recording_key
from bioreport.train import Run, new_fusion, read_samples, train
from bioreport.training import learning_rate_factor

SECTIONS = ("BACKGROUND ACTIVITY", "EVENTS/SEIZURES")


class Reader:
    """Stands for reading and encoding a file: tokens that say what the file holds; counts its calls."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def open(self, path: Path) -> Path:
        if path.read_bytes() == b"broken":
            raise InputError(path, "is broken", "mend it")
        return path

    def __call__(self, path: Path, bundle: Bundle, *, statistics: bool = False) -> Evidence:
        self.read.append(path.name)
        seed = int(path.read_bytes())
        draw = torch.Generator().manual_seed(seed)
        sick = seed % 2 == 1
        return Evidence(
            file=path.name,
            duration_seconds=30.0,
            channels=("O1", "O2"),
            tokens=torch.randn(3, SIZES["out_dim"], generator=draw) + (2.0 if sick else -2.0),
            findings=[absent_finding("seizure") | {"source": "model"}],
            measurements=MEASUREMENTS,
            statistics="",
            warnings=[],
        )


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    stand_in = Reader()
    monkeypatch.setattr(tokens_module, "open_recording", stand_in.open)
    monkeypatch.setattr(tokens_module, "read_evidence", stand_in)
    return stand_in


def corpus(folder: Path, count: int = 6, validation: int = 0) -> Path:
    entries = []
    for i in range(count + validation):
        path = folder / f"r{i}.edf"
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(str(i))
        text = "A seizure." if i % 2 else "Calm."
        entries.append(
            Entry((path,), f"p{i}", "Spells.", dict.fromkeys(SECTIONS, text), None,
                  split="train" if i < count else "val")
        )  # fmt: skip
    return write_manifest(folder / "manifest.jsonl", entries)


@pytest.fixture
def llm(tmp_path: Path) -> Path:
    return save_small_llm(tmp_path / "llm")


OPTIONS: dict[str, Any] = {
    "projector": "linear", "epochs": 2, "batch_size": 2, "lr": 1e-2, "device": "cpu", "dtype": "float32",
}  # fmt: skip


# tokens


def test_a_recording_is_encoded_once(tmp_path: Path, reader: Reader) -> None:
    entries, bundle, folder = read_manifest(corpus(tmp_path / "c")), small_bundle(), tmp_path / "tokens"
    assert encode_manifest(entries, bundle, folder).errors == []
    assert len(reader.read) == 6
    assert encode_manifest(entries, bundle, folder).errors == []
    assert len(reader.read) == 6
    store = TokenStore(folder)
    assert len(store) == 6
    again = store.get(recording_key(entries[3].recordings[0], bundle.encoding_key()))
    fresh = reader(entries[3].recordings[0], bundle)
    assert torch.equal(again.tokens, fresh.tokens)
    assert replace(again, tokens=fresh.tokens) == fresh
    lines = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
    assert {tuple(line) for line in lines} == {
        ("recording", "key", "shard", "tokens", "duration_seconds", "error")
    }
    assert (folder / lines[0]["recording"]).resolve() == entries[0].recordings[0].resolve()


def test_other_content_or_another_encoder_is_encoded_anew(tmp_path: Path, reader: Reader) -> None:
    entries, folder = read_manifest(corpus(tmp_path / "c", 2)), tmp_path / "tokens"
    encode_manifest(entries, small_bundle(), folder)
    entries[0].recordings[0].write_text("17")
    encode_manifest(entries, small_bundle(), folder)
    assert reader.read == ["r0.edf", "r1.edf", "r0.edf"]
    encode_manifest(entries, small_bundle(seed=1), folder)
    assert len(reader.read) == 5


def test_companions_of_a_recording_are_part_of_it(tmp_path: Path) -> None:
    header, signal = tmp_path / "a.vhdr", tmp_path / "a.eeg"
    header.write_text("h")
    signal.write_text("s")
    first = recording_key(header, "k")
    signal.write_text("t")
    assert recording_key(header, "k") != first
    bids, sidecar = tmp_path / "sub-1_eeg.edf", tmp_path / "sub-1_channels.tsv"
    bids.write_text("x")
    first = recording_key(bids, "k")
    sidecar.write_text("bad")
    assert recording_key(bids, "k") != first


def test_header_and_signals_of_a_wfdb_record_are_one_recording(tmp_path: Path) -> None:
    header = wfdb_files.write_record(tmp_path, "100", wfdb_files.ecg(), ("MLII", "V5"))
    names = (header, tmp_path / "100.dat", tmp_path / "100")
    first = recording_key(header, "k")
    assert {recording_key(name, "k") for name in names} == {first}
    signal = bytearray((tmp_path / "100.dat").read_bytes())
    signal[-1] ^= 1
    (tmp_path / "100.dat").write_bytes(signal)
    second = recording_key(header, "k")
    header.write_text(header.read_text().replace("V5", "V6"))
    third = recording_key(header, "k")
    assert {recording_key(name, "k") for name in names} == {third}
    # a record of segments is its segments
    whole = tmp_path / "long.hea"
    whole.write_text("long/3 2 250 5100\n100 2500\n~ 100\n100 2500\n")
    fourth = recording_key(whole, "k")
    signal[-1] ^= 1
    (tmp_path / "100.dat").write_bytes(signal)
    keys = {first, second, third, fourth, recording_key(header, "k"), recording_key(whole, "k")}
    assert len(keys) == 6
    # what is missing is told where the record is opened
    (tmp_path / "100.dat").unlink()
    assert recording_key(header, "k") not in keys
    (tmp_path / "100.dat").write_bytes(signal)
    header.unlink()
    with pytest.raises(InputError, match=r"100\.dat.*no recording by itself"):
        recording_key(tmp_path / "100.dat", "k")
    header.write_text("nonsense")
    with pytest.raises(InputError, match="not the header of an ECG record"):
        recording_key(header, "k")


def test_a_failing_recording_is_listed_and_tried_again(tmp_path: Path, reader: Reader) -> None:
    entries, bundle, folder = read_manifest(corpus(tmp_path / "c", 3)), small_bundle(), tmp_path / "tokens"
    entries[0].recordings[0].write_text("broken")
    entries[1].recordings[0].unlink()
    errors = encode_manifest(entries, bundle, folder).errors
    assert [Path(error.path).name for error in errors] == ["r0.edf", "r1.edf"]
    lines = [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]
    assert [line["error"] is None for line in lines] == [False, False, True]
    entries[0].recordings[0].write_text("0")
    assert len(encode_manifest(entries, bundle, folder).errors) == 1
    assert len(TokenStore(folder)) == 2


def test_an_interruption_keeps_what_is_encoded(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries, bundle, folder = read_manifest(corpus(tmp_path / "c")), small_bundle(), tmp_path / "tokens"

    def interrupted(path: Path, bundle: Bundle, **options: Any) -> Evidence:
        if path.name == "r4.edf":
            raise KeyboardInterrupt
        return reader(path, bundle)

    monkeypatch.setattr(tokens_module, "read_evidence", interrupted)
    with pytest.raises(KeyboardInterrupt):
        encode_manifest(entries, bundle, folder)
    monkeypatch.setattr(tokens_module, "read_evidence", reader)
    assert encode_manifest(entries, bundle, folder).errors == []
    assert reader.read == [f"r{i}.edf" for i in range(6)]
    assert len(TokenStore(folder)) == 6


def test_half_a_line_at_the_end_of_the_index_is_dropped(tmp_path: Path, reader: Reader) -> None:
    entries, bundle, folder = read_manifest(corpus(tmp_path / "c", 2)), small_bundle(), tmp_path / "tokens"
    encode_manifest(entries, bundle, folder)
    index = folder / "index.jsonl"
    whole = index.read_bytes()
    index.write_bytes(whole[:-20])
    assert len(TokenStore(folder)) == 1
    encode_manifest(entries, bundle, folder)
    assert len(TokenStore(folder)) == 2
    assert index.read_bytes() == whole


def test_a_damaged_store_is_named(tmp_path: Path, reader: Reader) -> None:
    entries, bundle, folder = read_manifest(corpus(tmp_path / "c", 1)), small_bundle(), tmp_path / "tokens"
    encode_manifest(entries, bundle, folder)
    next(folder.glob("*.safetensors")).write_bytes(b"")
    with pytest.raises(InputError, match="is damaged or missing"):
        TokenStore(folder).get(recording_key(entries[0].recordings[0], bundle.encoding_key()))
    (folder / "index.jsonl").write_text("nonsense\n")
    with pytest.raises(InputError, match="line 1"):
        TokenStore(folder)


def test_a_simulated_file_is_read_and_encoded_without_stand_ins(tmp_path: Path) -> None:
    from bioreport.simulate import simulate_eeg, write_edf

    write_edf(simulate_eeg(3, duration_seconds=35.0), tmp_path / "a.edf")
    bundle, entry = small_bundle(), Entry((tmp_path / "a.edf",))
    assert encode_manifest([entry], bundle, tmp_path / "tokens", statistics=True).errors == []
    key = recording_key(entry.recordings[0], bundle.encoding_key())
    evidence = TokenStore(tmp_path / "tokens").get(key)
    assert evidence.tokens.shape == (4, SIZES["out_dim"])
    assert evidence.tokens.isfinite().all()
    assert evidence.duration_seconds == pytest.approx(35.0)
    assert evidence.facts() and evidence.statistics
    assert {"seizure", "focal_slowing", "mains_noise"} <= {finding["name"] for finding in evidence.findings}


# training


def test_it_learns_and_the_llm_stays_the_same_bits(tmp_path: Path, llm: Path, reader: Reader) -> None:
    manifest, bundle = corpus(tmp_path / "c", validation=2), small_bundle(llm)
    fusion = new_fusion(bundle, "linear", {}, seed=5)[1]
    llm_before, start = hash_tensors(fusion.llm.state_dict()), fusion.start_token.detach().clone()
    encoder_before = hash_tensors(bundle.encoder.state_dict())
    result = train(
        manifest, out=tmp_path / "out", encoder_bundle=bundle, **OPTIONS | {"epochs": 12, "lr": 0.1}
    )
    assert len(result.losses) == 36 and len(result.validation) == 12
    assert np.mean(result.losses[-6:]) < np.mean(result.losses[:6]) - 0.2
    assert result.validation[-1] < result.validation[0]
    trained = load_bundle(result.folder, device="cpu", dtype="float32")
    assert hash_tensors(trained.fusion.llm.state_dict()) == llm_before
    assert hash_tensors(trained.encoder.state_dict()) == encoder_before
    assert not torch.equal(trained.fusion.start_token, start)
    assert trained.name == "out"
    assert trained.encoding_key() == bundle.encoding_key()


def test_only_projector_and_special_tokens_have_gradients(tmp_path: Path, llm: Path, reader: Reader) -> None:
    bundle, fusion = new_fusion(small_bundle(llm), "linear", {}, seed=5)
    entries = read_manifest(corpus(tmp_path / "c"))
    filled = encode_manifest(entries, bundle, tmp_path / "tokens")
    samples = read_samples(entries, TokenStore(tmp_path / "tokens"), filled.keys, bundle)
    run = Run(
        fusion, samples, seed=5, epochs=1, batch_size=2, lr=1e-3, weight_decay=0.01, warmup=0.1, clip=1.0,
        max_steps=None, kind="linear",
    )  # fmt: skip
    run.advance()
    assert all(p.grad is None for p in fusion.llm.parameters())
    learning = {key for key, p in fusion.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"start_token", "end_token"} <= learning
    assert any(key.startswith("projector.") for key in learning)
    assert not fusion.llm.training and fusion.projector.training


@pytest.mark.parametrize(("stop", "projector"), [(1, "linear"), (4, "linear"), (5, "sequence-perceiver")])
def test_a_run_that_stops_goes_on_to_the_same_bits(
    tmp_path: Path, llm: Path, reader: Reader, stop: int, projector: str
) -> None:
    manifest = corpus(tmp_path / "c", 5, validation=1)
    options = OPTIONS | {"projector": projector, "save_every": 1, "encoder_bundle": small_bundle(llm)}
    if projector != "linear":
        options |= {"projector_sizes": {"depth": 1, "queries": 4, "heads": 2}}
    whole = train(manifest, out=tmp_path / "whole", **options)
    assert len(whole.losses) == 6

    def interrupt(step: int, loss: float) -> None:
        if step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(manifest, out=tmp_path / "parts", on_step=interrupt, **options)
    assert not (tmp_path / "parts").exists()
    torch.rand(3)
    resumed: list[int] = []
    parts = train(
        manifest, out=tmp_path / "parts", on_step=lambda step, loss: resumed.append(step), **options
    )
    assert resumed[0] == stop + 1
    assert parts.losses == whole.losses
    assert parts.validation == whole.validation
    one, two = (load_bundle(tmp_path / name, device="cpu") for name in ("whole", "parts"))
    assert hash_tensors(one.trained_tensors()) == hash_tensors(two.trained_tensors())
    assert len(reader.read) == 12


def test_an_interruption_between_checkpoints_repeats_the_steps_since(
    tmp_path: Path, llm: Path, reader: Reader
) -> None:
    manifest, options = (
        corpus(tmp_path / "c"),
        OPTIONS | {"save_every": 2, "encoder_bundle": small_bundle(llm)},
    )
    whole = train(manifest, out=tmp_path / "whole", **options)

    def interrupt(step: int, loss: float) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(manifest, out=tmp_path / "parts", on_step=interrupt, **options)
    resumed: list[int] = []
    parts = train(
        manifest, out=tmp_path / "parts", on_step=lambda step, loss: resumed.append(step), **options
    )
    assert resumed[0] == 3
    assert parts.losses == whole.losses


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, llm: Path, reader: Reader) -> None:
    manifest, options = corpus(tmp_path / "c"), OPTIONS | {"encoder_bundle": small_bundle(llm)}
    train(manifest, out=tmp_path / "out", **options)
    read = len(reader.read)
    (tmp_path / "c" / "r0.edf").write_text("2")
    with pytest.raises(InputError, match=r"settings or data \(--batch-size, --lr\)"):
        train(manifest, out=tmp_path / "out", **options | {"lr": 1e-3, "batch_size": 3})
    assert len(reader.read) == read
    with pytest.raises(InputError, match=r"data \(the manifest or the encoder, the number of steps\)"):
        train(manifest, out=tmp_path / "out", **options | {"epochs": 3})
    (tmp_path / "c" / "r0.edf").write_text("0")
    anew = train(manifest, out=tmp_path / "out", **options | {"lr": 1e-3, "resume": False})
    assert len(anew.losses) == 6
    checkpoint = tmp_path / "out.training" / "checkpoint.pt"
    half = checkpoint.read_bytes()[:500]
    for damaged in (half, b"", b"no checkpoint"):
        checkpoint.write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read as a checkpoint"):
            train(manifest, out=tmp_path / "out", **options)
    torch.save([1, 2], checkpoint)
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        train(manifest, out=tmp_path / "out", **options)


def test_a_finished_run_writes_the_same_bundle_again(tmp_path: Path, llm: Path, reader: Reader) -> None:
    manifest, options = corpus(tmp_path / "c"), OPTIONS | {"encoder_bundle": small_bundle(llm)}
    first = train(manifest, out=tmp_path / "out", **options)
    weights = (first.folder / "model.safetensors").read_bytes()
    second = train(manifest, out=tmp_path / "out", **options)
    assert (second.folder / "model.safetensors").read_bytes() == weights
    assert second.losses == first.losses


def test_max_steps_ends_early_with_the_rate_at_zero(tmp_path: Path, llm: Path, reader: Reader) -> None:
    manifest = corpus(tmp_path / "c")
    result = train(manifest, out=tmp_path / "out", encoder_bundle=small_bundle(llm), max_steps=2, **OPTIONS)
    assert len(result.losses) == 2


def test_broken_recordings_do_not_stop_the_others(tmp_path: Path, llm: Path, reader: Reader) -> None:
    manifest = corpus(tmp_path / "c", 3)
    (tmp_path / "c" / "r0.edf").write_text("broken")
    result = train(manifest, out=tmp_path / "out", encoder_bundle=small_bundle(llm), **OPTIONS)
    assert [Path(error.path).name for error in result.errors] == ["r0.edf"]
    assert len(result.losses) == 2


def test_each_recording_is_hashed_once(
    tmp_path: Path, llm: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []

    def key(path: Path, encoding_key: str) -> str:
        hashed.append(path.name)
        return recording_key(path, encoding_key)

    monkeypatch.setattr("bioreport.tokens.recording_key", key)
    manifest = corpus(tmp_path / "c", 3, validation=1)
    train(manifest, out=tmp_path / "out", encoder_bundle=small_bundle(llm), **OPTIONS)
    assert sorted(hashed) == ["r0.edf", "r1.edf", "r2.edf", "r3.edf"]


def test_nothing_to_train_on_is_an_error(tmp_path: Path, llm: Path, reader: Reader) -> None:
    manifest = corpus(tmp_path / "c", 0, validation=2)
    with pytest.raises(InputError, match="no report to train on"):
        train(manifest, out=tmp_path / "out", encoder_bundle=small_bundle(llm), **OPTIONS)


def test_an_unknown_section_is_an_error(tmp_path: Path, llm: Path, reader: Reader) -> None:
    manifest = corpus(tmp_path / "c", 1)
    write_manifest(manifest, [replace(read_manifest(manifest)[0], sections={"SLEAP": "None."})])
    with pytest.raises(InputError, match="SLEAP"):
        train(manifest, out=tmp_path / "out", encoder_bundle=small_bundle(llm), **OPTIONS)


def test_tokens_that_are_not_there_or_of_another_kind_are_told(
    tmp_path: Path, llm: Path, reader: Reader
) -> None:
    manifest, nowhere = corpus(tmp_path / "c", 2), tmp_path / "nowhere"
    with pytest.raises(InputError, match=r"nowhere: holds no tokens \(no index\.jsonl lies in it\)"):
        train(
            manifest,
            out=tmp_path / "m",
            llm=str(llm),
            encoder_bundle=small_bundle(),
            tokens=nowhere,
            **OPTIONS,
        )
    assert not nowhere.exists() and reader.read == []
    store, evidence = TokenStore(tmp_path / "ecg"), reader(tmp_path / "c" / "r0.edf", small_bundle())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens_module, "open_recording", lambda path: path)
        fill_store(store, [tmp_path / "c" / "r0.edf"], "k", lambda path: replace(evidence, modality="ecg"))
    with pytest.raises(InputError, match=r"holds tokens of ECGs, and .* is one for EEG; choose another"):
        TokenStore(tmp_path / "ecg").check_modality(small_bundle())
    TokenStore(tmp_path / "empty").check_modality(small_bundle())


def test_an_ecg_for_a_model_of_eegs_names_the_other_model(tmp_path: Path, llm: Path, reader: Reader) -> None:
    recording = tmp_path / "a.hea"
    manifest = write_manifest(tmp_path / "m.jsonl", [Entry((recording,), sections={"RHYTHM": "Sinus."})])
    with pytest.raises(
        InputError,
        match=r"a\.hea: is an ECG by its section 'RHYTHM', but .* model for EEG; use --model bioreport-ecg-t",
    ):
        train(manifest, out=tmp_path / "m", llm=str(llm), encoder_bundle=small_bundle(), **OPTIONS)
    assert reader.read == []


def test_a_history_beyond_the_llm_is_an_error_with_the_recording(
    tmp_path: Path, llm: Path, reader: Reader
) -> None:
    manifest = corpus(tmp_path / "c", 1)
    write_manifest(manifest, [replace(read_manifest(manifest)[0], history="Spells. " * 2000)])
    # of a small model's prompt no more than its first words would be there
    bundle = replace(small_bundle(llm), prompt_style="full")
    with pytest.raises(InputError, match=r"r0\.edf.*positions"):
        train(manifest, out=tmp_path / "out", encoder_bundle=bundle, **OPTIONS | {"epochs": 50})


def test_the_prompt_is_that_of_generation(tmp_path: Path, llm: Path, reader: Reader) -> None:
    from bioreport.pipeline import merge_parts, prompt_for

    entries, bundle = read_manifest(corpus(tmp_path / "c", 1)), small_bundle(llm)
    filled = encode_manifest(entries, bundle, tmp_path / "tokens")
    sample = read_samples(entries, TokenStore(tmp_path / "tokens"), filled.keys, bundle)[0]
    parts = merge_parts([reader(entries[0].recordings[0], bundle)])
    assert sample.prompts[0] == prompt_for(parts, list(SECTIONS), "Spells.", "tokens", bundle)
    assert sample.prompts[1] == prompt_for(parts, list(SECTIONS), None, "tokens", bundle)
    assert len(set(sample.prompts)) == 4
    assert all(fact in sample.prompts[0] and fact not in sample.prompts[2] for fact in parts.facts)
    assert sample.response == "## BACKGROUND ACTIVITY\nCalm.\n## EVENTS/SEIZURES\nCalm.\n"


def test_several_recordings_make_one_report(tmp_path: Path, llm: Path, reader: Reader) -> None:
    manifest = corpus(tmp_path / "c", 2)
    first, second = read_manifest(manifest)
    write_manifest(manifest, [replace(first, recordings=first.recordings + second.recordings)])
    result = train(manifest, out=tmp_path / "out", encoder_bundle=small_bundle(llm), **OPTIONS)
    assert len(result.losses) == 2
    assert sorted(reader.read) == ["r0.edf", "r1.edf"]


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(101)]
    assert 0 < factors[0] < factors[5] < factors[10]
    assert max(factors) == 1.0 and factors.index(1.0) == 10
    assert all(a > b for a, b in pairwise(factors[10:]))
    assert factors[100] == 0.0
    assert learning_rate_factor(0, 1, 0.1) > 0
