"""ECG-Tok's autoencoder and adapter: shapes, gaps, training, codes that decode to what was encoded."""

import pytest
import torch

from bioreport.adapters import AttentionAdapter
from bioreport.encoders.ecg_autoencoder import EcgTokenizer, TokenizerConfig

SMALL = {"dim": 16, "widths": (8, 12, 16), "stages": 2, "codewords": 8, "blocks": 1, "hidden": 16}


def waves(batch: int = 4, samples: int = 240) -> torch.Tensor:
    """mV: a pulse a second, of different height in each lead."""
    time = torch.arange(samples) / 80
    pulse = torch.exp(-(((time + torch.rand(batch, 1)) % 1 - 0.5) ** 2) / 0.002)
    return pulse[:, None] * torch.linspace(-1, 1, 12)[:, None]


@pytest.mark.parametrize("quantizer", ["vector", "residual", "qinco"])
def test_codes_and_back(quantizer: str) -> None:
    torch.manual_seed(0)
    model = EcgTokenizer(TokenizerConfig(quantizer=quantizer, **SMALL))
    model(waves())
    model.eval()
    codes, vectors = model.tokenize(waves())
    assert codes.shape == (4, 30, 1 if quantizer == "vector" else 2) and vectors.shape == (4, 30, 16)
    assert model.decode(vectors).shape == (4, 12, 240)
    assert torch.equal(model.reconstruct(codes), model.decode(vectors))


@pytest.mark.parametrize("quantizer", ["vector", "residual", "qinco"])
def test_training_lowers_the_loss(quantizer: str) -> None:
    torch.manual_seed(0)
    model = EcgTokenizer(TokenizerConfig(quantizer=quantizer, **SMALL))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss, _ = model(waves(8))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_one_vector_codebook_has_as_many_codewords_as_all_stages() -> None:
    model = EcgTokenizer(TokenizerConfig(quantizer="vector"))
    assert model.quantizer.codebooks.shape[:2] == (1, 512)


def test_gaps_are_neither_seen_nor_counted() -> None:
    torch.manual_seed(0)
    model = EcgTokenizer(TokenizerConfig(**SMALL)).eval()
    x = waves()
    x[:, 3] = float("nan")
    x[0, 5, 40:60] = float("nan")
    zeros = x.nan_to_num(nan=0.0)
    assert torch.equal(model.tokenize(x)[0], model.tokenize(zeros)[0])
    loss, _ = model(x)
    loss.backward()
    assert torch.isfinite(loss) and loss != model(zeros)[0]
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_samples_that_make_no_whole_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 32, got 250"):
        EcgTokenizer(TokenizerConfig()).encode(torch.zeros(1, 12, 250))


def test_an_unknown_quantizer_is_refused() -> None:
    with pytest.raises(ValueError, match="'qinco', 'residual' or 'vector', got 'magic'"):
        TokenizerConfig(quantizer="magic")  # type: ignore[arg-type]


@pytest.mark.parametrize("queries", [1, 5])
def test_adapter_shapes_and_absent_frames(queries: int) -> None:
    torch.manual_seed(0)
    adapter = AttentionAdapter(16, 32, 24, positions=50, queries=queries).eval()
    vectors = torch.randn(2, 40, 16)
    assert adapter(vectors).shape == (2, queries, 24)
    present = torch.ones(2, 40, dtype=torch.bool)
    torch.testing.assert_close(adapter(vectors, present), adapter(vectors))
    present[:, 30:] = False
    torch.testing.assert_close(adapter(vectors, present), adapter(vectors[:, :30]))


def test_adapter_refuses_what_it_cannot_place() -> None:
    with pytest.raises(ValueError, match="51 frames are more than this adapter's 50 positions"):
        AttentionAdapter(16, 32, 24, positions=50)(torch.zeros(1, 51, 16))
    with pytest.raises(ValueError, match="queries must be from 1 to 64, got 65"):
        AttentionAdapter(16, 32, 24, queries=65)


@pytest.mark.parametrize("quantizer", ["vector", "residual", "qinco"])
@pytest.mark.parametrize("least_used", [0.05, 0.0])
def test_unused_codewords_are_reset_unless_told_not_to(quantizer: str, least_used: float) -> None:
    torch.manual_seed(0)
    model = EcgTokenizer(TokenizerConfig(quantizer=quantizer, least_used=least_used, **SMALL))
    model(waves())
    quantizer_of = model.quantizer
    book = quantizer_of.first if quantizer == "qinco" else quantizer_of.codebooks[0]
    with torch.no_grad():
        book[2] = 1e4
        quantizer_of.chosen[0, 2] = 0.0
    model(waves())
    assert (book[2].abs().max() > 9e3) == (least_used == 0)
