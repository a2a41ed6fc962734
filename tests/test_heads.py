"""The findings head: which, when, where."""

import numpy as np
import pytest
import torch

from bioreport.heads import FindingsHead

CHANNELS = ("Fp1", "T3", "O1")
STARTS = np.arange(6) * 10.0


def head(**options: object) -> FindingsHead:
    return FindingsHead(4, ("seizure", "focal_slowing"), **options)  # type: ignore[arg-type]


def no_place(epochs: int = 6) -> torch.Tensor:
    return torch.full((epochs, 2, 3), -1.0)


def test_a_finding_has_the_extent_of_the_epochs_above_its_threshold() -> None:
    logits = torch.full((6, 2), -5.0)
    logits[2:4, 0] = 1.5
    seizure, slowing = head(thresholds={"seizure": 1.0}).findings(logits, no_place(), STARTS, 10.0, CHANNELS)
    assert (seizure["present"], seizure["start_seconds"], seizure["end_seconds"]) == (True, 20.0, 40.0)
    assert (seizure["name"], seizure["source"], seizure["channels"]) == ("seizure", "model", [])
    assert (slowing["present"], slowing["start_seconds"], slowing["channels"]) == (False, None, [])
    below, _ = head(thresholds={"seizure": 1.6}).findings(logits, no_place(), STARTS, 10.0, CHANNELS)
    assert below["present"] is False


def test_recording_time_is_that_of_the_epochs_even_with_gaps() -> None:
    logits = torch.tensor([[-5.0, -5.0], [5.0, -5.0], [5.0, -5.0]])
    seizure, _ = head().findings(logits, no_place(3), np.array([0.0, 10.0, 500.0]), 10.0, CHANNELS)
    assert (seizure["start_seconds"], seizure["end_seconds"]) == (10.0, 510.0)


def test_one_epoch_is_not_enough_where_several_are_averaged() -> None:
    logits = torch.full((6, 2), -5.0)
    logits[3, 0] = 4.0
    assert head().findings(logits, no_place(), STARTS, 10.0, CHANNELS)[0]["present"]
    assert not head(pool_epochs={"seizure": 3}).findings(logits, no_place(), STARTS, 10.0, CHANNELS)[0][
        "present"
    ]


@pytest.mark.parametrize("width", [1, 2, 3, 5, 9])
def test_averages_are_over_the_epochs_that_exist(width: int) -> None:
    logits = torch.full((4, 2), 2.0)
    logits[1] = float("nan")
    assert torch.allclose(head(pool_epochs=width).recording_scores(logits), torch.tensor([2.0, 2.0]))


def test_nothing_is_found_without_any_score() -> None:
    found = head().findings(torch.full((3, 2), float("nan")), no_place(3), STARTS[:3], 10.0, CHANNELS)
    assert [finding["present"] for finding in found] == [False, False]


def test_electrodes_are_named_strongest_first_and_at_least_one() -> None:
    logits = torch.full((6, 2), 5.0)
    places = no_place()
    places[:, 1] = torch.tensor([0.5, 2.0, -3.0])
    located = head(located=("focal_slowing",))
    assert located.findings(logits, places, STARTS, 10.0, CHANNELS)[1]["channels"] == ["T3", "Fp1"]
    assert located.findings(logits, places - 9, STARTS, 10.0, CHANNELS)[1]["channels"] == ["T3"]
    assert head().findings(logits, places, STARTS, 10.0, CHANNELS)[1]["channels"] == []


def test_absent_electrodes_are_never_named() -> None:
    torch.manual_seed(0)
    module = head(located=("seizure", "focal_slowing"))
    by_channel = torch.randn(6, 3, 4)
    by_channel[:, 1] = 0.0
    with torch.no_grad():
        module.place.bias += 50.0
    scores, places = module(by_channel.mean(1), by_channel)
    assert scores.shape == (6, 2) and places.shape == (6, 2, 3)
    assert torch.isinf(places[:, :, 1]).all()
    for finding in module.findings(scores + 50, places.half(), STARTS, 10.0, CHANNELS):
        assert set(finding["channels"]) == {"Fp1", "O1"}


def test_an_unknown_finding_is_refused() -> None:
    with pytest.raises(ValueError, match="siezure"):
        FindingsHead(4, ("siezure",))


def test_the_configuration_makes_the_same_head() -> None:
    first = head(thresholds={"seizure": 1.5}, pool_epochs={"seizure": 3}, located=("focal_slowing",))
    assert FindingsHead(4, **first.config()).config() == first.config()
