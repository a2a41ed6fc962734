"""MEIT's encoder: a one-dimensional ResNet over twelve leads, and the projection to the language model.

Wan et al., *MEIT: Multimodal Electrocardiogram Instruction Tuning on Large Language Models for Report
Generation*, Findings of ACL 2025 (arXiv 2403.04945); parameter names are those of the published code's
checkpoints. The encoder is trained together with the language model, from scratch.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

EXPANSION = 4  # channels of a bottleneck's output over those of its middle
STRIDES = (1, 2, 2, 2)
RESNET50 = (3, 4, 6, 3)
NORMS = ("batch", "layer", "none")


class Bottleneck(nn.Module):
    """1 × 1, 3 × 3 and 1 × 1 convolutions beside a shortcut; the middle one strides."""

    def __init__(self, channels: int, middle: int, stride: int) -> None:
        super().__init__()
        out = middle * EXPANSION
        self.conv1 = nn.Conv1d(channels, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm1d(middle)
        self.conv2 = nn.Conv1d(middle, middle, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm1d(middle)
        self.conv3 = nn.Conv1d(middle, out, 1, bias=False)
        self.bn3 = nn.BatchNorm1d(out)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(
                nn.Conv1d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm1d(out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """x [B, channels, T] to [B, 4 middle, T / stride]."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


class EcgResNet(nn.Module):
    """ResNet of bottlenecks over time, without max-pooling after its first convolution.

    Parameters
    ----------
    leads : int
    blocks : sequence of int
        Bottlenecks of each stage; `RESNET50` is the published one.
    width : int
        Channels of the first convolution; each stage after the first doubles them.
    """

    def __init__(self, leads: int = 12, blocks: Sequence[int] = RESNET50, width: int = 64) -> None:
        super().__init__()
        if len(blocks) != len(STRIDES) or min(blocks) < 1:
            raise ValueError(f"blocks must be {len(STRIDES)} numbers above 0, got {list(blocks)}")
        self.leads = leads
        self.conv1 = nn.Conv1d(leads, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm1d(width)
        channels = width
        for stage, (count, stride) in enumerate(zip(blocks, STRIDES, strict=True)):
            middle = width << stage
            layers = []
            for i in range(count):
                layers.append(Bottleneck(channels, middle, stride if i == 0 else 1))
                channels = middle * EXPANSION
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        self.out_dim = channels

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, out_dim, T / 16] of x [B, leads, T]."""
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(len(STRIDES)):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        return x


class MeitEncoder(nn.Module):
    """ECGs to embeddings that stand among a language model's keys and values.

    20 M parameters at the published sizes. MEIT feeds 12 leads at 500 Hz, each record scaled to [0, 1] over
    all its leads; ten seconds are 5,000 samples, but any length of 16 samples or more goes in.

    Parameters
    ----------
    out_dim : int
        Width of an embedding: the head dimension of the language model in MEIT, see `bioreport.fusion_cache`.
    leads, blocks, width
        See `EcgResNet`.
    hidden : int, optional
        Width of the projection's middle; by default that of the features.
    entries : int
        Embeddings of a record, one for each of so many equal parts of its time. MEIT has 1.
    norm : {"batch", "layer", "none"}
        Of the projection. MEIT has ``"batch"``, with which a batch of one embedding cannot be trained on.

    Notes
    -----
    Each embedding is divided by its Euclidean norm, as in MEIT.
    """

    def __init__(
        self,
        out_dim: int = 128,
        *,
        leads: int = 12,
        blocks: Sequence[int] = RESNET50,
        width: int = 64,
        hidden: int | None = None,
        entries: int = 1,
        norm: str = "batch",
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")
        if entries < 1:
            raise ValueError(f"entries must be 1 or more, got {entries}")
        self.ecg_encoder = EcgResNet(leads, blocks, width)
        middle = hidden or self.ecg_encoder.out_dim
        self.out_dim, self.entries = out_dim, entries
        self._config = {
            "out_dim": out_dim, "leads": leads, "blocks": list(blocks), "width": width, "hidden": middle,
            "entries": entries, "norm": norm,
        }  # fmt: skip
        norms = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
        self.proj_ecg = nn.Sequential(
            nn.Linear(self.ecg_encoder.out_dim, middle),
            *([norms[norm](middle)] if norm in norms else []),
            nn.ReLU(),
            nn.Linear(middle, out_dim),
            *([norms[norm](out_dim)] if norm in norms else []),
        )

    def config(self) -> dict[str, object]:
        """What rebuilds the module: ``MeitEncoder(**config)``."""
        return dict(self._config)

    def features(self, x: Tensor) -> Tensor:
        """Mean features [B, entries, 32 width] of each part of x [B, leads, T]."""
        leads = self.ecg_encoder.leads
        if x.ndim != 3 or x.shape[1] != leads or x.shape[2] < 16 * self.entries:
            raise ValueError(
                f"x must be [B, {leads}, T] with T of {16 * self.entries} or more, got {list(x.shape)}"
            )
        return F.adaptive_avg_pool1d(self.ecg_encoder(x), self.entries).transpose(1, 2)

    def project(self, features: Tensor) -> Tensor:
        """Features [B, N, 32 width] to [B, N, out_dim], not yet normalised."""
        return self.proj_ecg(features.flatten(0, 1)).unflatten(0, features.shape[:2])

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings [B, entries, out_dim], of Euclidean norm 1, of x [B, leads, T]."""
        return F.normalize(self.project(self.features(x)), dim=-1)
