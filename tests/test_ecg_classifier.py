"""The classifier on frozen vectors, and its score."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bioreport.ecg.classifier import (
    FINDING_GROUPS,
    GROUPS,
    EcgClassifier,
    micro_auc,
    micro_auc_by_group,
)
from bioreport.findings import ECG_NAMES


def test_it_learns_what_the_vectors_tell() -> None:
    torch.manual_seed(0)
    model = EcgClassifier(8, ["a", "b", "c"], width=8)
    vectors = torch.randn(64, 20, 8)
    truth = (vectors.mean(1)[:, :3] > 0).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(80):
        loss = F.binary_cross_entropy_with_logits(model(vectors), truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        auc = micro_auc(model(vectors).numpy(), truth.numpy())
    assert auc is not None and auc > 0.95


def test_area_counts_pairs_and_halves_ties() -> None:
    scores, truth = np.array([[0.9, 0.2], [0.5, 0.5]]), np.array([[1, 0], [1, 0]])
    # pairs: 0.9 beats both; 0.5 beats 0.2 and ties with 0.5
    assert micro_auc(scores, truth) == pytest.approx(3.5 / 4)


def test_one_class_has_no_area() -> None:
    assert micro_auc(np.zeros((3, 2)), np.ones((3, 2))) is None


def test_groups() -> None:
    scores = np.array([[0.9, 0.1], [0.1, 0.9]])
    truth = np.array([[1, 1], [0, 0]])
    found = micro_auc_by_group(scores, truth, ["af", "lbbb"], {"af": "rhythm", "lbbb": "conduction"})
    assert found == {"all": 0.5, "rhythm": 1.0, "conduction": 0.0}


def test_every_finding_has_one_of_the_papers_groups() -> None:
    assert set(FINDING_GROUPS) == set(ECG_NAMES)
    assert set(FINDING_GROUPS.values()) <= set(GROUPS)
    assert FINDING_GROUPS["atrial_fibrillation"] == "rhythm" and FINDING_GROUPS["short_qt"] == "other"
