"""What learns of the language model beside the projector, when training ends, what it logs, and recipes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from two_processes import prefix, prepare

from bioreport import processes
from bioreport.bundle_reader import load_bundle
from bioreport.bundle_writer import save_bundle
from bioreport.cli import build_parser, main
from bioreport.commands.train import train as command
from bioreport.errors import InputError
from bioreport.llm import load_llm
from bioreport.lora import LoraSizes
from bioreport.manifest import read_manifest, write_manifest
from bioreport.recipes import RECIPES
from bioreport.train import train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuning")
    prepare(folder)
    return folder


def settings(folder: Path, **options: Any) -> dict[str, Any]:
    found = {
        "projector": "linear", "epochs": 4, "batch_size": 3, "lr": 1e-2, "device": "cpu", "dtype": "float32",
        "tokens": folder / "tokens", "encoder_bundle": load_bundle(folder / "encoder", device="cpu"),
    }  # fmt: skip
    return found | options


@torch.no_grad()
def loss(bundle: Any) -> float:
    """Of a response, whatever it says; the same for the same model."""
    fusion, draw = bundle.fusion, torch.Generator().manual_seed(3)
    tokens = torch.randn(5, bundle.encoder_dim, generator=draw)
    return float(fusion.loss(fusion.pack(["<|signal|> What?"], [[tokens]], ["A seizure."])))


@pytest.mark.parametrize("tune", ["lora", "full"])
def test_a_bundle_has_what_its_language_model_has_learnt(folder: Path, tmp_path: Path, tune: str) -> None:
    manifest = folder / "eeg" / "manifest.jsonl"
    options = settings(folder, tune=tune, lora=LoraSizes(4, 8, 0.1), projector="attention")
    frozen = train(manifest, out=tmp_path / "frozen", **options | {"tune": "projector"})
    result = train(manifest, out=tmp_path / "tuned", **options)
    # the first step is taken before anything has been learnt
    assert result.losses[0] == pytest.approx(frozen.losses[0], rel=1e-6)
    assert result.losses[-1] < frozen.losses[-1]
    assert (result.folder / ("adapter" if tune == "lora" else "llm")).is_dir()
    bundle = load_bundle(result.folder, device="cpu", dtype="float32")
    assert bundle.tune == tune and "language model were trained" in bundle.disclaimer
    learnt, untouched = loss(bundle), loss(load_bundle(frozen.folder, device="cpu", dtype="float32"))
    assert abs(learnt - untouched) > 1e-2
    # written anew from what was read, it is the same model
    again = load_bundle(save_bundle(bundle, tmp_path / "again"), device="cpu", dtype="float32")
    assert loss(again) == pytest.approx(learnt, rel=1e-6)
    assert again.provenance()["weights"] == bundle.provenance()["weights"]
    if tune == "full":
        with pytest.raises(InputError, match="language model of its own"):
            load_bundle(result.folder, llm=str(folder / "llm"))
        assert bundle.fusion.llm.dtype == torch.float32
    else:
        for file in (result.folder / "adapter").iterdir():
            assert str(folder).encode() not in file.read_bytes(), file
        (result.folder / "adapter" / "adapter_model.safetensors").write_bytes(b"")
        with pytest.raises(InputError, match="does not fit the model"):
            _ = load_bundle(result.folder, device="cpu").fusion


def test_a_language_model_that_learns_is_in_float32_and_computes_in_less(
    folder: Path, tmp_path: Path
) -> None:
    losses = {}
    for dtype in ("float32", "bfloat16"):
        options = settings(folder, tune="full", max_steps=3)
        options["encoder_bundle"] = load_bundle(folder / "encoder", device="cpu", dtype=dtype)
        result = train(folder / "eeg" / "manifest.jsonl", out=tmp_path / dtype, **options)
        assert json.loads((result.folder / "llm" / "config.json").read_text())["dtype"] == "float32"
        losses[dtype] = result.losses
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


def test_a_recording_that_is_too_long_is_named_before_the_first_step(folder: Path, tmp_path: Path) -> None:
    entries = read_manifest(folder / "eeg" / "manifest.jsonl")
    entries[4] = replace(entries[4], history="Spells. " * 1000)
    manifest = write_manifest(tmp_path / "manifest.jsonl", entries)
    steps: list[int] = []
    options = settings(folder, on_step=lambda step, loss: steps.append(step))
    # of a small model's prompt no more than its first words would be there
    encoder = load_bundle(folder / "encoder", device="cpu", dtype="float32")
    options["encoder_bundle"] = replace(encoder, prompt_style="full")
    with pytest.raises(InputError, match=r"r4\.edf: .*positions and the language model has 4096"):
        train(manifest, out=tmp_path / "out", **options)
    assert not steps
    with pytest.raises(InputError, match="queries=3 is no size of a linear projector"):
        train(manifest, out=tmp_path / "out", **options | {"projector_sizes": {"queries": 3}})


def test_parts_that_are_added_up_are_the_batch(folder: Path, tmp_path: Path) -> None:
    losses = [prefix(folder, tmp_path, f"by{n}", at_once=n) for n in (1, 3, 4)]
    assert losses[0] == pytest.approx(losses[2], rel=1e-4) and losses[1] == pytest.approx(losses[2], rel=1e-4)


def test_activation_checkpointing_changes_memory_alone(folder: Path, tmp_path: Path) -> None:
    plain = prefix(folder, tmp_path, "plain")
    assert prefix(folder, tmp_path, "again", gradient_checkpointing=True) == pytest.approx(plain, rel=1e-6)


def test_patience_ends_a_run_with_the_weights_that_validated_best(folder: Path, tmp_path: Path) -> None:
    manifest = folder / "eeg" / "manifest.jsonl"
    options = settings(folder, patience=2, epochs=40, batch_size=6, lr=0.3)
    result = train(manifest, out=tmp_path / "out", **options)
    best = result.validation.index(min(result.validation))
    assert len(result.validation) == best + 3 < 40 and len(result.losses) == len(result.validation)
    # a run that is let go on to where it was best, by the same rates, has the same weights
    monitor: list[dict[str, torch.Tensor]] = []

    def stop(step: int, value: float) -> None:
        state = torch.load(tmp_path / "other.training" / "checkpoint.pt", weights_only=True)
        monitor.append(state["weights"])
        if step == best + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(manifest, out=tmp_path / "other", on_step=stop, save_every=1, **options)
    found = load_file(result.folder / "model.safetensors")
    assert torch.equal(found["projector.proj.weight"], monitor[best]["projector.proj.weight"])
    # also where it is interrupted, and where it had ended already
    other = train(manifest, out=tmp_path / "other", save_every=1, **options)
    once_more = train(manifest, out=tmp_path / "out", **options)
    for again in (other, once_more):
        assert again.validation == result.validation
        weights = load_file(again.folder / "model.safetensors")
        assert all(torch.equal(weights[key], found[key]) for key in found)


def test_patience_needs_something_to_validate_with(folder: Path, tmp_path: Path) -> None:
    entries = read_manifest(folder / "eeg" / "manifest.jsonl")
    manifest = write_manifest(tmp_path / "manifest.jsonl", [e for e in entries if e.split == "train"])
    with pytest.raises(InputError, match="needs reports that validate"):
        train(manifest, out=tmp_path / "out", **settings(folder, patience=1))


def test_tensorboard_has_each_step_once_also_of_a_run_that_went_on(folder: Path, tmp_path: Path) -> None:
    manifest, options = folder / "eeg" / "manifest.jsonl", settings(folder, log=tmp_path / "log")

    def stop(step: int, value: float) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(manifest, out=tmp_path / "out", on_step=stop, save_every=2, **options)
    result = train(manifest, out=tmp_path / "out", **options)
    events = EventAccumulator(str(tmp_path / "log"))
    events.Reload()
    losses, rates = events.Scalars("train/loss"), events.Scalars("train/lr")
    assert [event.step for event in losses] == list(range(1, 9))
    assert [event.value for event in losses] == pytest.approx(result.losses)
    assert [event.value for event in events.Scalars("validation/loss")] == pytest.approx(result.validation)
    assert max(event.value for event in rates) == pytest.approx(1e-2)


def test_what_does_not_go_together_is_one_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, out = folder / "eeg" / "manifest.jsonl", tmp_path / "out"
    with pytest.raises(InputError, match="keeps weights that cannot learn"):
        train(manifest, out=out, **settings(folder, tune="full", quantize="4bit"))
    monkeypatch.setattr("transformers.utils.is_bitsandbytes_available", lambda: False)
    with pytest.raises(InputError, match="needs bitsandbytes"):
        train(manifest, out=out, **settings(folder, tune="lora", quantize="4bit"))
    monkeypatch.setattr("transformers.utils.is_bitsandbytes_available", lambda: True)
    with pytest.raises(InputError, match="needs a CUDA device"):
        load_llm(folder / "llm", quantize="4bit")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(InputError, match="--shard"), processes.joined("cpu"):
        pass


def chosen(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> dict[str, Any]:
    """What the command passes on for these arguments."""
    found: dict[str, Any] = {}

    def note(manifest: Path, **settings: Any) -> Any:
        found.update(settings)
        raise InputError("train", "was called", "look at what it was called with")

    monkeypatch.setattr("bioreport.train.train", note)
    monkeypatch.setattr("bioreport.meit.train_meit", note)
    parser = build_parser()
    with pytest.raises(InputError, match="was called"):
        command(parser.parse_args(["train", *arguments, "-o", "out", "-q"]), parser)
    return found


def test_recipes_are_the_published_settings_and_options_count_before_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sca = chosen(monkeypatch, "m.jsonl", "--recipe", "celm-sca", "--llm", "x")
    published = {"lr": 1e-4, "weight_decay": 0.01, "warmup": 0.1, "clip": 1.0, "epochs": 10, "seed": 5}
    assert sca.items() >= {**published, "projector": "sequence", "tune": "projector", "at_once": 2}.items()
    scc = chosen(monkeypatch, "m.jsonl", "--recipe", "celm-scc", "--lr", "3e-4", "--seed", "0")
    assert scc.items() >= {**published, "lr": 3e-4, "seed": 0, "batch_size": 32, "at_once": 4}.items()
    assert scc["projector"] == "sequence-perceiver"
    meit = chosen(monkeypatch, "m.jsonl", "--recipe", "meit", "--llm", "x")
    assert meit == chosen(monkeypatch, "meit", "m.jsonl", "--llm", "x")
    assert meit.items() >= {"lr": 2e-5, "epochs": 5, "batch_size": 64, "full": False}.items()
    tok = chosen(monkeypatch, "m.jsonl", "--recipe", "ecg-tok", "--tune", "full", "--at-once", "1")
    assert tok.items() >= {"projector": "attention", "tune": "full", "epochs": 1, "at_once": 1}.items()
    assert tok["encoder_bundle"] == "bioreport-ecg-tiny"
    sizes = chosen(monkeypatch, "m.jsonl", "--combine", "4")["projector_sizes"]
    assert sizes == {"combine": 4} and tok["projector_sizes"] == {}
    plain = chosen(monkeypatch, "m.jsonl")
    assert plain.items() >= {**published, "batch_size": 4, "projector": "sequence-perceiver"}.items()
    parser = build_parser()
    offered = next(
        action.choices
        for action in parser._subparsers._group_actions[0].choices["train"]._actions  # type: ignore
        if action.dest == "recipe"
    )
    assert tuple(offered) == tuple(RECIPES)


@pytest.mark.parametrize(
    "arguments",
    [["meit", "m.jsonl", "--recipe", "celm-sca"], ["meit", "m.jsonl", "--llm", "x", "--tune", "projector"]],
)
def test_recipes_that_do_not_fit_are_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", *arguments, "-o", "out"])
    assert stopped.value.code == 2
