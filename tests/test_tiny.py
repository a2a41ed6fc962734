"""The recipe of the embedded model, at toy size: labels, training steps, thresholds, texts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bioreport.lexicon import read_findings
from bioreport.prompts import PLAIN, SIGNAL
from bioreport.simulate import Event
from bioreport.tiny import corpus, encoder, language

CHANNELS = ("T3", "T4", "O1")


def column(name: str) -> int:
    return corpus.MODEL_FINDINGS.index(name)


def test_epoch_labels_follow_events_and_leave_the_edge_of_one_undecided() -> None:
    events = [
        Event("seizure", 9.0, 25.0, ("T3",)),
        Event("focal_epileptiform_discharges", 31.0, 31.2, ("T4", "Fz")),
        Event("mains_noise", 0.0, 40.0, CHANNELS),
    ]
    labels, places = corpus.label_epochs(events, np.arange(4) * 10.0, 10.0, CHANNELS)
    assert labels[:, column("seizure")].tolist() == [-1, 1, 1, 0]
    assert labels[:, column("focal_epileptiform_discharges")].tolist() == [0, 0, 0, 1]
    assert labels.sum() == 2
    assert places[1, column("seizure")].tolist() == [True, False, False]
    assert places[3, column("focal_epileptiform_discharges")].tolist() == [False, True, False]
    assert places.sum() == 3


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("corpus")
    paths = [folder / "a.npz", folder / "b.npz"]
    for number, path in enumerate(paths):
        corpus.simulate_shard(corpus.TRAIN_SEED + 3 * number, 3).save(path)
    return paths


def test_a_shard_comes_back_as_it_was_written(shards: list[Path]) -> None:
    shard = corpus.Shard.load(shards[0])
    epochs = len(shard.labels)
    assert shard.data.shape == (epochs, 22, 2000) and shard.data.dtype == np.float16
    assert shard.places.shape == (epochs, len(corpus.MODEL_FINDINGS), 22)
    assert set(np.unique(shard.recording)) == {corpus.TRAIN_SEED + i for i in range(3)}
    # µV/100 of a scalp EEG, and nothing where a channel is masked
    assert 0.02 < np.abs(shard.data[shard.channel_mask].astype(np.float32)).mean() < 3
    assert not shard.data[~shard.channel_mask].any()


def test_augmentation_keeps_the_channels_that_a_label_rests_on(shards: list[Path]) -> None:
    shard = corpus.Shard.load(shards[0])
    batch = {name: torch.from_numpy(array) for name, array in vars(shard).items()}
    batch["places"][:] = False
    batch["places"][:, column("seizure"), 5] = True
    kept = encoder.augment(batch, torch.Generator().manual_seed(0))
    assert torch.equal(kept["channel_mask"][:, 5], batch["channel_mask"][:, 5])
    assert kept["channel_mask"].sum() < batch["channel_mask"].sum()
    assert not kept["data"][~kept["channel_mask"]].any()


def test_encoder_training_lowers_the_loss_and_is_taken_up_again(shards: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "encoder.pt"
    encoder.train_encoder(shards, out, steps=2, batch_size=8)
    assert torch.load(out, weights_only=True)["step"] == 2
    model = encoder.train_encoder(shards, out, steps=6, batch_size=8)
    assert torch.load(out, weights_only=True)["step"] == 6
    scores = encoder.score(model, shards)
    assert scores["logits"].shape == scores["labels"].shape
    assert np.isfinite(scores["logits"]).all()


def test_thresholds_part_what_can_be_parted() -> None:
    model = encoder.EpochClassifier()
    rng = np.random.default_rng(0)
    recording = np.repeat(np.arange(200), 3)
    labels = np.zeros((600, len(corpus.MODEL_FINDINGS)), np.int8)
    labels[:300] = 1
    logits = np.where(labels == 1, 3.0, -3.0) + 0.1 * rng.standard_normal(labels.shape)
    thresholds, f1s = encoder.calibrate(
        model.head, {"logits": logits.astype(np.float32), "labels": labels, "recording": recording}
    )
    assert set(thresholds) == set(corpus.MODEL_FINDINGS)
    assert all(f1 == 1.0 for f1 in f1s.values())
    assert all(-3 < threshold < 3.5 for threshold in thresholds.values())


def test_drawn_reports_say_what_their_case_says() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        case = language.draw_case(rng)
        truth = {entry["name"]: entry["present"] for entry in case.findings}
        read = read_findings(language.write_sections(case.findings, case.measurements, rng))
        wrong = [name for name, present in truth.items() if present and read[name] is not True]
        wrong += [name for name, present in truth.items() if not present and read[name] is True]
        assert not wrong, wrong


def test_a_small_language_model_learns_the_form() -> None:
    rng = np.random.default_rng(2)
    texts = [language.draw_text(rng) for _ in range(300)]
    assert all(SIGNAL not in prompt for prompt, _ in texts)
    tokenizer = language.train_tokenizer(" ".join(pair) for pair in texts)
    _, response = texts[0]
    ids = tokenizer(response, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == response
    assert list(PLAIN.parse(response))
    torch.manual_seed(0)
    llm = language.build_llm(tokenizer)
    losses = language.train_llm(llm, tokenizer, steps=12, batch_size=4, lr=3e-3)
    assert np.mean(losses[-3:]) < losses[0] - 0.3
