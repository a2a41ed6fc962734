"""Training of the three quantizers: what they learn, how they start, what they reset."""

import pytest
import torch

from bioreport.quantizers import CodeUsage, QincoQuantizer, Quantized, ResidualQuantizer, VectorQuantizer
from bioreport.quantizers.averages import fallen_out
from bioreport.quantizers.kmeans import kmeans

MAKERS = {
    "vector": lambda: VectorQuantizer(8, 32),
    # slower averages run after each other, stage after stage, for hundreds of steps
    "residual": lambda: ResidualQuantizer(8, 16, 3, decay=0.9),
    "residual by gradient": lambda: ResidualQuantizer(8, 16, 3, learning="gradient"),
    "qinco": lambda: QincoQuantizer(8, 16, 3, blocks=1, hidden=32, decay=0.9),
    "qinco by gradient": lambda: QincoQuantizer(8, 16, 3, blocks=1, hidden=32, learning="gradient"),
}


def clusters(rows: int = 600, seed: int = 0) -> torch.Tensor:
    """Vectors around 20 centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(20, 8, generator=torch.Generator().manual_seed(7)) * 3
    which = torch.randint(20, (rows,), generator=generator)
    return centres[which] + 0.3 * torch.randn(rows, 8, generator=generator)


def error(quantizer: torch.nn.Module, z: torch.Tensor) -> float:
    quantizer.eval()
    with torch.no_grad():
        return (quantizer(z).vectors - z).square().mean().item()


@pytest.mark.parametrize("name", MAKERS)
def test_shapes_and_decoding_bit_for_bit(name: str) -> None:
    torch.manual_seed(0)
    quantizer = MAKERS[name]()
    z = clusters().view(3, 200, 8)
    quantizer(z)
    quantizer.eval()
    found = quantizer(z)
    assert isinstance(found, Quantized)
    assert found.vectors.shape == z.shape and found.codes.shape[:2] == (3, 200)
    assert found.codes.dtype == torch.int64 and found.loss.ndim == 0
    assert torch.equal(quantizer.decode(found.codes), found.vectors)


@pytest.mark.parametrize("name", MAKERS)
def test_gradient_goes_straight_through(name: str) -> None:
    quantizer = MAKERS[name]().eval()
    z = clusters(20).requires_grad_()
    found = quantizer(z)
    assert not torch.equal(found.vectors, z)
    (grad,) = torch.autograd.grad(found.vectors.sum(), z)
    assert torch.equal(grad, torch.ones_like(z))


@pytest.mark.parametrize("name", MAKERS)
def test_the_loss_draws_vectors_to_their_codewords(name: str) -> None:
    quantizer = MAKERS[name]().eval()
    z = clusters(50).requires_grad_()
    found = quantizer(z)
    (grad,) = torch.autograd.grad(found.loss, z)
    want = 2 * quantizer.commitment * (z - found.vectors).detach() / z.numel()
    torch.testing.assert_close(grad, want)


@pytest.mark.parametrize("name", MAKERS)
def test_training_lowers_the_error_on_other_vectors(name: str) -> None:
    torch.manual_seed(0)
    quantizer, held_out = MAKERS[name](), clusters(seed=99)
    random = error(quantizer, held_out)
    quantizer.train()
    quantizer(clusters(seed=1))
    started = error(quantizer, held_out)
    assert started < 0.5 * random
    parameters = [p for p in quantizer.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=3e-3) if parameters else None
    quantizer.train()
    for seed in range(2, 80):
        loss = quantizer(clusters(seed=seed)).loss
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert error(quantizer, held_out) < started


def test_qinco_ends_below_plain_residual_quantization_of_its_own_start() -> None:
    torch.manual_seed(0)
    qinco = QincoQuantizer(8, 16, 3, blocks=1, hidden=32, learning="gradient")
    plain = ResidualQuantizer(8, 16, 3).eval()
    z = clusters(seed=1)
    qinco.train()
    qinco(z)
    with torch.no_grad():
        plain.codebooks.copy_(torch.cat([qinco.first[None], qinco.codebooks]))
    qinco.eval()
    # networks that start as the identity: QINCo is residual quantization then
    assert torch.equal(qinco(z).codes, plain(z).codes)
    qinco.train()
    optimizer = torch.optim.Adam(qinco.parameters(), lr=3e-3)
    for seed in range(2, 80):
        loss = qinco(clusters(seed=seed)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    held_out = clusters(seed=99)
    assert error(qinco, held_out) < 0.9 * error(plain, held_out)


@pytest.mark.parametrize("name", MAKERS)
def test_a_codeword_far_from_everything_is_reset(name: str) -> None:
    torch.manual_seed(0)
    quantizer = MAKERS[name]()
    quantizer.train()
    quantizer(clusters(seed=1))
    book = quantizer.codebooks if not name.startswith("qinco") else quantizer.first[None]
    with torch.no_grad():
        book[0, 5] = 1e3
        quantizer.chosen[0, 5] = 0.0
    quantizer(clusters(seed=2))
    assert book[0, 5].abs().max() < 100


@pytest.mark.parametrize("name", ["residual", "qinco"])
def test_codewords_keep_up_with_an_encoder_that_learns(name: str) -> None:
    torch.manual_seed(0)
    quantizer = MAKERS[name]().train()
    parameters = [p for p in quantizer.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=1e-3) if parameters else None
    for step in range(200):
        # latents that grow tenfold and move, as those of the first steps do
        loss = quantizer((clusters(400, seed=step) + 3) * (0.1 + step / 200)).loss
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    held_out = (clusters(3000, seed=999) + 3) * 1.1
    # learnt by gradient, QINCo's codewords end at 0.19 with 88 % of them in use, plain ones at 11 with 58 %
    assert error(quantizer, held_out) < 0.1
    usage = CodeUsage(*quantizer.chosen.shape)
    usage.add(quantizer(held_out).codes)
    assert usage.pooled_utilisation() > 0.95


@pytest.mark.parametrize("quantizer", [ResidualQuantizer, QincoQuantizer])
def test_learning_is_one_of_two(quantizer: type) -> None:
    with pytest.raises(ValueError, match="learning must be 'average' or 'gradient', got 'magic'"):
        quantizer(8, 16, 3, learning="magic")


def test_qinco_averages_as_residual_quantization_does_where_its_networks_are_the_identity() -> None:
    torch.manual_seed(0)
    qinco, plain = QincoQuantizer(8, 16, 3, blocks=1, hidden=32).train(), ResidualQuantizer(8, 16, 3).train()
    qinco(clusters(seed=1))
    with torch.no_grad():
        plain.codebooks.copy_(torch.cat([qinco.first[None], qinco.codebooks]))
        plain.chosen.copy_(qinco.chosen)
        plain.started.fill_(True)
    for seed in range(2, 12):
        assert torch.equal(qinco(clusters(seed=seed)).codes, plain(clusters(seed=seed)).codes)
    torch.testing.assert_close(torch.cat([qinco.first[None], qinco.codebooks]), plain.codebooks.data)


def test_kmeans_with_fewer_rows_than_centres_gives_distinct_ones() -> None:
    centres = kmeans(torch.randn(3, 4), 8, generator=torch.Generator().manual_seed(0))
    assert centres.shape == (8, 4) and len(centres.unique(dim=0)) == 8


def test_kmeans_finds_well_separated_centres() -> None:
    z = clusters(2000)
    centres = kmeans(z, 40, generator=torch.Generator().manual_seed(0))
    assert torch.cdist(z, centres).amin(1).square().mean() < 8 * 0.3**2 * 1.5


def test_usage_per_stage_and_pooled() -> None:
    usage = CodeUsage(stages=2, codewords=4)
    usage.add(torch.tensor([[[0, 1], [1, 1]], [[2, 1], [3, 1]]]))
    assert usage.utilisation().tolist() == [1.0, 0.25]
    torch.testing.assert_close(usage.perplexity(), torch.tensor([4.0, 1.0], dtype=torch.float64))
    assert usage.pooled_utilisation() == 5 / 8
    # half of all choices are one codeword, the others an eighth each: exp(ln 2 / 2 + ln 8 / 2)
    assert usage.pooled_perplexity() == pytest.approx(4.0)


def test_usage_of_nothing_is_zero() -> None:
    usage = CodeUsage(stages=1, codewords=4)
    usage.add(torch.zeros(0, 1, dtype=torch.int64))
    assert usage.perplexity().tolist() == [0.0] and usage.pooled_utilisation() == 0.0


def test_a_codeword_of_qinco_is_reset_to_where_its_network_gives_a_vector() -> None:
    torch.manual_seed(0)
    qinco = QincoQuantizer(8, 16, 3, blocks=1, hidden=32).train()
    qinco(clusters(seed=1))
    with torch.no_grad():
        for parameter in (qinco.concat, qinco.down):
            parameter.add_(0.02 * torch.randn_like(parameter))
        qinco.bias.add_(1.0)
        known, wanted = clusters(4, seed=2), clusters(4, seed=3)
        codes = torch.tensor([1, 5, 7, 11])
        qinco._place(2, qinco.codebooks[1], codes, known, wanted)
        torch.testing.assert_close(known + qinco._step(2, codes, known), wanted, atol=0.02, rtol=0)


@pytest.mark.parametrize("name", ["vector", "residual", "qinco"])
def test_a_codeword_that_nobody_chooses_is_reset_within_a_hundred_steps(name: str) -> None:
    torch.manual_seed(0)
    chosen = MAKERS[name]().chosen[0]
    lost = [len(fallen_out(chosen, torch.zeros_like(chosen), 0.99, 0.05)) for _ in range(100)]
    assert 60 < lost.index(len(chosen)) < 80
