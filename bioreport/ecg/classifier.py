"""Classification on frozen embeddings: what a tokenizer's vectors still tell about the record.

A one-dimensional network in the manner of EfficientNetV2 (Tan and Le 2021: fused inverted bottlenecks first,
depthwise ones with squeeze and excitation after) over vectors [B, T, D], one logit a label. Scores are
micro-averaged areas under the ROC curve, for each group of labels, as ECG-Tok reports them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor, nn
from torch.nn import functional as F

# ECG-Tok's groups of labels.
GROUPS = ("rhythm", "conduction", "chamber enlargement", "pericarditis", "infarction/ischemia", "other")
_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "rhythm": (
        "sinus_rhythm", "bradycardia", "tachycardia", "sinus_arrhythmia", "atrial_fibrillation",
        "atrial_flutter", "supraventricular_tachycardia", "ventricular_tachycardia",
        "ventricular_fibrillation", "asystole", "pause", "paced_rhythm", "premature_atrial_contractions",
        "premature_ventricular_contractions",
    ),
    "conduction": (
        "first_degree_av_block", "second_degree_av_block", "complete_av_block", "right_bundle_branch_block",
        "incomplete_right_bundle_branch_block", "left_bundle_branch_block",
        "intraventricular_conduction_delay", "left_anterior_fascicular_block",
    ),
    "chamber enlargement": ("left_ventricular_hypertrophy", "right_ventricular_hypertrophy"),
    "infarction/ischemia": (
        "st_elevation_infarction", "st_elevation", "st_depression", "t_wave_inversion",
        "pathological_q_waves",
    ),
    "other": (
        "left_axis_deviation", "right_axis_deviation", "low_qrs_voltage", "prolonged_qt", "short_qt",
        "limb_lead_reversal", "lead_off", "noisy_lead", "baseline_wander", "mains_interference",
    ),
}  # fmt: skip
# Which of them a finding of `bioreport.findings` belongs to; none of these is pericarditis.
FINDING_GROUPS: Mapping[str, str] = {name: group for group, names in _MEMBERS.items() for name in names}


class FusedBottleneck(nn.Module):
    """One convolution widens, one by one narrows; the input is added where shapes agree."""

    def __init__(self, before: int, after: int, *, stride: int = 1, expansion: int = 4) -> None:
        super().__init__()
        inside = before * expansion
        self.same = stride == 1 and before == after
        self.widen = nn.Conv1d(before, inside, 3, stride=stride, padding=1)
        self.norm = nn.GroupNorm(1, inside)
        self.narrow = nn.Conv1d(inside, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, before, T] to [B, after, T / stride]."""
        y = self.narrow(F.silu(self.norm(self.widen(x))))
        return x + y if self.same else y


class Bottleneck(nn.Module):
    """The same with a depthwise convolution, and channels weighted by what the whole record holds."""

    def __init__(self, before: int, after: int, *, stride: int = 1, expansion: int = 4) -> None:
        super().__init__()
        inside = before * expansion
        self.same = stride == 1 and before == after
        self.widen = nn.Conv1d(before, inside, 1)
        self.depthwise = nn.Conv1d(inside, inside, 3, stride=stride, padding=1, groups=inside)
        self.norms = nn.ModuleList(nn.GroupNorm(1, inside) for _ in range(2))
        self.squeeze = nn.Linear(inside, max(before // 4, 1))
        self.excite = nn.Linear(max(before // 4, 1), inside)
        self.narrow = nn.Conv1d(inside, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, before, T] to [B, after, T / stride]."""
        y = F.silu(self.norms[0](self.widen(x)))
        y = F.silu(self.norms[1](self.depthwise(y)))
        weight = torch.sigmoid(self.excite(F.silu(self.squeeze(y.mean(2)))))
        y = self.narrow(y * weight.unsqueeze(2))
        return x + y if self.same else y


class EcgClassifier(nn.Module):
    """Vectors [B, T, D] to logits [B, labels].

    Parameters
    ----------
    dim : int
        D.
    labels : sequence of str
    width : int
        Of the first stage; the others have twice and four times as many channels.
    """

    def __init__(self, dim: int, labels: Sequence[str], *, width: int = 48) -> None:
        super().__init__()
        self.labels = tuple(labels)
        self.stages = nn.Sequential(
            nn.Conv1d(dim, width, 3, padding=1),
            FusedBottleneck(width, width),
            FusedBottleneck(width, 2 * width, stride=2),
            FusedBottleneck(2 * width, 2 * width),
            Bottleneck(2 * width, 4 * width, stride=2),
            Bottleneck(4 * width, 4 * width),
        )
        self.norm = nn.LayerNorm(4 * width)
        self.out = nn.Linear(4 * width, len(self.labels))

    def forward(self, vectors: Tensor) -> Tensor:
        """Logits; frames are averaged after the last stage."""
        return self.out(self.norm(self.stages(vectors.transpose(1, 2)).mean(2)))


def micro_auc(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Area under the ROC curve of all labels' scores together, from ranks (Mann and Whitney 1947).

    Parameters
    ----------
    scores : array, shape (N, labels)
    truth : bool array, shape (N, labels)

    Returns
    -------
    float or None
        None where there is no positive, or nothing else.
    """
    flat, positive = np.ravel(scores), np.ravel(truth).astype(bool)
    positives = int(positive.sum())
    negatives = positive.size - positives
    if not positives or not negatives:
        return None
    ranks = rankdata(flat)
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def micro_auc_by_group(
    scores: np.ndarray, truth: np.ndarray, labels: Sequence[str], groups: Mapping[str, str]
) -> dict[str, float | None]:
    """`micro_auc` of each group's labels and, under ``"all"``, of all; `groups` maps a label to its group."""
    found: dict[str, float | None] = {"all": micro_auc(scores, truth)}
    for group in GROUPS:
        columns = [i for i, label in enumerate(labels) if groups.get(label, "other") == group]
        if columns:
            found[group] = micro_auc(scores[:, columns], truth[:, columns])
    return found
