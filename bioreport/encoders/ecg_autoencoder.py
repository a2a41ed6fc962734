"""ECG-Tok's tokenizer: a convolutional autoencoder whose latent frames are quantized.

Residual encoder, quantizer, mirrored decoder, trained on L1(x, x̂) and the quantizer's loss. What the paper
leaves open (widths, strides, normalisation, commitment) is decided here and in `bioreport.quantizers`: one
frame every 32 samples of 250 Hz, 128 ms, and codebooks of 512 codewords in all.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from bioreport.quantizers import QincoQuantizer, Quantized, ResidualQuantizer, VectorQuantizer

SFREQ = 250.0  # Hz


@dataclass(frozen=True)
class TokenizerConfig:
    """Shape of an `EcgTokenizer`.

    Attributes
    ----------
    leads : int
    dim : int
        D, width of a latent frame.
    widths : tuple of int
        Channels after each halving of the rate: five of them give a frame every 32 samples.
    quantizer : {"qinco", "residual", "vector"}
    stages, codewords : int
        L and K; ``"vector"`` has one stage of L·K codewords.
    blocks, hidden : int
        Of QINCo's networks.
    least_used : float
        In training, a codeword chosen less than this share of an even use is reset; 0 resets none.
    """

    leads: int = 12
    dim: int = 128
    widths: tuple[int, ...] = (48, 64, 96, 128, 160)
    quantizer: Literal["qinco", "residual", "vector"] = "qinco"
    stages: int = 4
    codewords: int = 128
    blocks: int = 2
    hidden: int = 256
    least_used: float = 0.05

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        if self.quantizer not in ("qinco", "residual", "vector"):
            raise ValueError(f"quantizer must be 'qinco', 'residual' or 'vector', got {self.quantizer!r}")
        if min(self.leads, self.dim, self.stages, self.codewords, *self.widths) < 1:
            raise ValueError("leads, dim, widths, stages and codewords must be positive")

    def to_dict(self) -> dict[str, Any]:
        """For a bundle's `config.json`."""
        return {**asdict(self), "widths": list(self.widths)}

    @property
    def stride(self) -> int:
        """Samples a frame."""
        return 2 ** len(self.widths)


class Residual(nn.Module):
    """Two convolutions with normalisation before each; the same width in and out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(_groups(width), width) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, T] to the same."""
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(F.gelu(norm(y)))
        return x + y


class EcgTokenizer(nn.Module):
    """12-lead ECG to codes and back.

    Takes mV at 250 Hz, [B, leads, T] with T a multiple of `config.stride`; NaN, a lead that is absent or a
    gap, enters as 0 and is left out of the loss.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        down: list[nn.Module] = [nn.Conv1d(config.leads, widths[0], 7, padding=3)]
        for before, after in zip((widths[0], *widths), widths, strict=False):
            down += [nn.Conv1d(before, after, 4, stride=2, padding=1), Residual(after)]
        down += [
            nn.GroupNorm(_groups(widths[-1]), widths[-1]),
            nn.GELU(),
            nn.Conv1d(widths[-1], config.dim, 1),
        ]
        self.encoder = nn.Sequential(*down)
        up: list[nn.Module] = [nn.Conv1d(config.dim, widths[-1], 1)]
        for before, after in zip(reversed(widths), reversed((widths[0], *widths[:-1])), strict=True):
            up += [Residual(before), nn.ConvTranspose1d(before, after, 4, stride=2, padding=1)]
        up += [nn.GELU(), nn.Conv1d(widths[0], config.leads, 7, padding=3)]
        self.decoder = nn.Sequential(*up)
        self.quantizer: nn.Module
        dim, codewords, stages = config.dim, config.codewords, config.stages
        match config.quantizer:
            case "vector":
                self.quantizer = VectorQuantizer(dim, stages * codewords, least_used=config.least_used)
            case "residual":
                self.quantizer = ResidualQuantizer(dim, codewords, stages, least_used=config.least_used)
            case "qinco":
                self.quantizer = QincoQuantizer(
                    dim,
                    codewords,
                    stages,
                    blocks=config.blocks,
                    hidden=config.hidden,
                    least_used=config.least_used,
                )

    def encode(self, x: Tensor) -> Tensor:
        """Latent frames [B, T / stride, D], before quantization."""
        if x.shape[2] % self.config.stride:
            raise ValueError(f"samples must be a multiple of {self.config.stride}, got {x.shape[2]}")
        return self.encoder(x.nan_to_num(nan=0.0)).transpose(1, 2)

    def tokenize(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Codes [B, T / stride, L] int64 and their vectors [B, T / stride, D]."""
        found: Quantized = self.quantizer(self.encode(x))
        return found.codes, found.vectors

    def decode(self, vectors: Tensor) -> Tensor:
        """mV [B, leads, T] of vectors [B, T / stride, D]."""
        return self.decoder(vectors.transpose(1, 2))

    def reconstruct(self, codes: Tensor) -> Tensor:
        """mV [B, leads, T] of codes [B, T / stride, L]."""
        return self.decode(self.quantizer.decode(codes))  # type: ignore[operator]

    def forward(self, x: Tensor) -> tuple[Tensor, Quantized]:
        """Training loss, a scalar, and what the quantizer gave."""
        found: Quantized = self.quantizer(self.encode(x))
        known = ~x.isnan()
        difference = (self.decode(found.vectors) - x.nan_to_num(nan=0.0)).abs()
        return (difference * known).sum() / known.sum().clamp(min=1) + found.loss, found


def _groups(width: int) -> int:
    return next(groups for groups in (8, 4, 2, 1) if width % groups == 0)
