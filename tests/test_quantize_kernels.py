"""Residual quantization and the batched argmin, on CPUs and in the kernels, against exact arithmetic."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from kernel_checks import DEVICE, assert_close
from torch import Tensor

from bioreport_kernels import nearest_codeword, quantize, reference, residual_quantize
from bioreport_kernels.cpu import quantize as plain
from bioreport_kernels.gpu import quantize as gpu

pytestmark = pytest.mark.untraced

Quantize = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def residual_by_kernel(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    codes, quantized = gpu.forward(x.to(DEVICE), codebooks.to(DEVICE))
    return codes.cpu(), quantized.cpu()


def nearest_by_kernel(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor]:
    codes, distances = gpu.nearest(x.to(DEVICE), codebooks.to(DEVICE))
    return codes.cpu(), distances.cpu()


PATHS = {"cpu": plain.residual_quantize, "kernel": residual_by_kernel}
NEAREST = {"cpu": plain.nearest_codeword, "kernel": nearest_by_kernel}
both = pytest.mark.parametrize("path", PATHS)


def inputs(
    n: int, dim: int, stages: int, words: int, dtype: torch.dtype = torch.float32, decay: float = 0.7
) -> tuple[Tensor, Tensor]:
    """Rows, and codebooks whose spread falls as residuals do."""
    generator = torch.Generator().manual_seed(n + 31 * dim + 7 * stages + words)
    x = torch.randn(n, dim, generator=generator)
    codebooks = torch.randn(stages, words, dim, generator=generator)
    return x.to(dtype), (codebooks * decay ** torch.arange(stages)[:, None, None]).to(dtype)


def excess(x: Tensor, codebooks: Tensor, codes: Tensor) -> float:
    """The largest share of its distance by which a chosen word is farther than the nearest, in float64."""
    worst = 0.0
    for row, code in zip(x.double().split(2048), codes.split(2048), strict=True):
        for stage, book in enumerate(codebooks.double()):
            squares = torch.cat([(row[:, None] - part).square().sum(2) for part in book.split(64)], 1)
            chosen = squares.gather(1, code[:, stage, None])[:, 0]
            farther = (chosen - squares.amin(1)) / chosen
            worst = max(worst, farther.nan_to_num(0.0).max().item() if len(row) else 0.0)
            row = row - book[code[:, stage]]
    return worst


def check(path: str, x: Tensor, codebooks: Tensor) -> None:
    """Codes exact where the gap is above a millionth; `quantized` the sum of the words, to the bit."""
    codes, quantized = PATHS[path](x, codebooks)
    assert codes.dtype == torch.int64 and codes.shape == (len(x), len(codebooks))
    assert quantized.dtype == x.dtype and quantized.shape == x.shape
    assert excess(x, codebooks, codes) <= 1e-6
    total = torch.zeros(x.shape, dtype=torch.promote_types(torch.float32, x.dtype))
    for stage, book in enumerate(codebooks.to(total.dtype)):
        total += book[codes[:, stage]]
    if x.dtype == torch.bfloat16 and path == "kernel":
        # the interpreter truncates
        assert_close(quantized, total, 2**-7)
    else:
        assert torch.equal(quantized, total.to(x.dtype))


@both
def test_published_codes(reference_file: Callable[[str], Path], path: str) -> None:
    load_file = pytest.importorskip("safetensors.torch", reason="GPU machines may have no more").load_file
    tensors = load_file(reference_file("rvq_plain.safetensors"))
    (codebooks,) = (tensors[name] for name in tensors if name.startswith("state/"))
    rows = slice(None) if path == "cpu" else slice(0, 256)
    codes, quantized = PATHS[path](tensors["in/x"][rows], codebooks.view(8, 64, 64))
    assert torch.equal(codes, tensors["out/codes"][rows].long())
    assert (quantized - tensors["out/xhat"][rows]).abs().max() < 1e-4


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_random_rows(path: str, dtype: torch.dtype) -> None:
    check(path, *inputs(100_000 if path == "cpu" else 1_000, 16, 4, 32, dtype))


def near_ties(n: int, dim: int, words: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows between two words, nearer one of them by 1e-7 to 1e-2 of the way."""
    book = torch.randn(words, dim, generator=generator)
    first = torch.randint(words, (n,), generator=generator)
    second = (first + torch.randint(1, words, (n,), generator=generator)) % words
    a, b = book[first].double(), book[second].double()
    share = 10 ** (-7 + 5 * torch.rand(n, 1, generator=generator, dtype=torch.float64))
    share *= torch.randn(n, 1, generator=generator).sign()
    return ((a + b) / 2 + (b - a) * share).float(), book[None]


def adversarial(kind: str, n: int, dim: int, words: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(len(kind) + words)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def decaying(stages: int, decay: float) -> Tensor:
        return normal(stages, words, dim) * decay ** torch.arange(stages)[:, None, None]

    match kind:
        case "near ties":
            return near_ties(n, dim, words, generator)
        case "near ties far from the origin":
            x, codebooks = near_ties(n, dim, words, generator)
            return x + 1000, codebooks + 1000
        case "32 stages that halve the residual":
            # in three dimensions these words are dense enough
            return normal(n, 3), normal(32, words, 3) * 0.5 ** torch.arange(32)[:, None, None]
        case "sums of words, which leave tiny residuals":
            codebooks = decaying(12, 0.1)
            chosen = torch.randint(words, (n, 12), generator=generator)
            return sum(book[code] for book, code in zip(codebooks, chosen.T, strict=True)), codebooks
        case "words far longer and shorter than the others":
            codebooks = normal(3, words, dim)
            codebooks[:, 1] *= 1e6
            codebooks[:, 2] *= 1e-9
            return normal(n, dim), codebooks
        case "rows of all sizes":
            return normal(n, dim) * 10 ** (4 * normal(n, 1)), normal(4, words, dim)
        case "elements of all sizes":
            return normal(n, dim) * 10 ** (2 * normal(n, dim)), decaying(5, 1.0) * 10 ** (
                2 * decaying(5, 1.0)
            )
        case "float16, large":
            return (1e4 * normal(n, dim)).half(), (1e4 * decaying(4, 0.6)).half()
        case "bfloat16, large":
            return (1e30 * normal(n, dim)).bfloat16(), (1e30 * decaying(4, 0.6)).bfloat16()
        case _:
            scale = float(kind)
            return scale * normal(n, dim), scale * decaying(4, 0.7)


KINDS = (
    "near ties",
    "near ties far from the origin",
    "32 stages that halve the residual",
    "sums of words, which leave tiny residuals",
    "words far longer and shorter than the others",
    "rows of all sizes",
    "elements of all sizes",
    "float16, large",
    "bfloat16, large",
    "1e18",
    "1e30",
    "1e-18",
    "1e-30",
)


@pytest.mark.parametrize("kind", KINDS)
def test_adversarial_rows(kind: str) -> None:
    check("cpu", *adversarial(kind, 10_000, 24, 32))


@pytest.mark.parametrize("kind", KINDS)
def test_adversarial_rows_in_the_kernel(kind: str) -> None:
    check("kernel", *adversarial(kind, 70, 24, 40))


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[1], KINDS[4]])
def test_adversarial_rows_in_the_kernel_with_tiles_of_words(kind: str) -> None:
    check("kernel", *adversarial(kind, 20, 24, 200))


@both
@pytest.mark.parametrize(
    ("n", "dim", "stages", "words"),
    [
        (0, 8, 2, 4),
        (1, 1, 1, 1),
        (3, 1, 3, 2),
        (130, 3, 2, 3),
        (5, 25, 32, 2),
        (9, 512, 2, 70),
        (3, 25, 2, 1000),
    ],
)
@pytest.mark.usefixtures("poisoned")
def test_shapes(path: str, n: int, dim: int, stages: int, words: int) -> None:
    check(path, *inputs(n, dim, stages, words))


def test_any_shape() -> None:
    hypothesis = pytest.importorskip("hypothesis", reason="GPU machines may have no more than pytest")
    numbers = hypothesis.strategies

    @hypothesis.settings(max_examples=8, deadline=None, derandomize=True)
    @hypothesis.given(
        n=numbers.integers(0, 20),
        dim=numbers.sampled_from([1, 3, 16, 25, 33]),
        stages=numbers.integers(1, 3),
        words=numbers.sampled_from([1, 2, 3, 31, 64, 150]),
        dtype=numbers.sampled_from([torch.float32, torch.float16]),
        copies=numbers.booleans(),
    )
    def run(n: int, dim: int, stages: int, words: int, dtype: torch.dtype, copies: bool) -> None:
        x, codebooks = inputs(n, dim, stages, words, dtype)
        if copies:
            codebooks = torch.cat([codebooks, codebooks], 1)
        for path in PATHS:
            check(path, x, codebooks)
            if copies:
                assert (PATHS[path](x, codebooks)[0] < words).all()
        own = codebooks[torch.arange(n) % stages]
        for argmin in NEAREST.values():
            codes, distances = argmin(x, own)
            want_codes, want = reference.nearest_codeword(x, own)
            assert torch.equal(codes, want_codes)
            assert_close(distances, want, 1e-6)

    run()


@both
def test_equals_go_to_the_lowest_index(path: str) -> None:
    x, codebooks = inputs(40, 24, 2, 6)
    # copies in one tile, in others, and words that mirror each other about rows of zeros
    repeated = codebooks.repeat(1, 30, 1)
    assert (PATHS[path](x, repeated)[0] < 6).all()
    mirrored = torch.cat([codebooks[:, :1], -codebooks[:, :1]], 1)
    assert (PATHS[path](torch.zeros(5, 24), mirrored)[0][:, 0] == 0).all()
    assert (PATHS[path](x, torch.zeros(2, 5, 24))[0] == 0).all()
    argmin = NEAREST[path]
    assert (argmin(x, repeated[:1].expand(40, -1, -1))[0] < 6).all()
    assert (argmin(torch.zeros(5, 24), mirrored[:1].expand(5, -1, -1))[0] == 0).all()


@both
def test_what_is_not_finite(path: str) -> None:
    x, codebooks = inputs(20, 24, 3, 70)
    want, want_sum = PATHS[path](x, codebooks)
    x[3, 5], x[4, 0], x[5, 1], x[6] = math.nan, math.inf, -math.inf, math.nan
    codes, quantized = PATHS[path](x, codebooks)
    bad = ~x.isfinite().all(1)
    assert (codes[bad] == 0).all() and quantized[bad].isnan().all()
    assert torch.equal(codes[~bad], want[~bad]) and torch.equal(quantized[~bad], want_sum[~bad])

    x, _ = inputs(20, 24, 3, 70)
    codebooks[:, 2, 3], codebooks[:, 8, 0] = math.nan, math.inf
    codes, quantized = PATHS[path](x, codebooks)
    assert quantized.isfinite().all() and not ((codes == 2) | (codes == 8)).any()
    assert torch.equal(codes, reference.residual_quantize(x, codebooks)[0])

    codebooks[1] = math.nan
    codes, quantized = PATHS[path](x, codebooks)
    assert (codes[:, 1:] == 0).all() and quantized.isnan().all()


@both
def test_argmin_of_what_is_not_finite(path: str) -> None:
    x, own = inputs(8, 24, 8, 70)
    x[1, 2], x[2, 3] = math.nan, math.inf
    own[3, 4], own[4, 5, 0], own[5] = math.nan, -math.inf, math.nan
    own[6] = torch.arange(70)[:, None] + 1.0
    x[6] = -1e30
    codes, distances = NEAREST[path](x, own)
    want_codes, want = reference.nearest_codeword(x, own)
    assert torch.equal(codes, want_codes)
    assert distances[1].isnan() and distances[5].isnan() and distances[[2, 6]].isposinf().all()
    assert torch.allclose(distances, want, rtol=1e-6, equal_nan=True)


@both
@pytest.mark.parametrize("scale", [1.0, 1e30, 1e18, 1e-18, 1e-30])
@pytest.mark.parametrize("words", [5, 300])
def test_argmin_of_any_size(path: str, scale: float, words: int) -> None:
    x, own = inputs(6, 40, 6, words, decay=1.0)
    x, own = x * scale, own * scale
    own[0, 1] *= 1e-6
    own[1, 2] *= 1e6
    own[2, words - 1] = x[2]
    codes, distances = NEAREST[path](x, own)
    squares = (x.double()[:, None] - own.double()).square().sum(2)
    assert torch.equal(codes, squares.argmin(1))
    # what is too large for float32 is infinite, what is too small zero
    assert torch.allclose(distances.double(), squares.amin(1).float().double(), rtol=1e-5, atol=1e-42)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_argmin(path: str, dtype: torch.dtype) -> None:
    x, own = inputs(33, 100, 33, 130, dtype, decay=1.0)
    codes, distances = NEAREST[path](x, own)
    want_codes, want = reference.nearest_codeword(x, own)
    assert torch.equal(codes, want_codes) and distances.dtype == torch.float32
    assert_close(distances, want, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_codebooks_of_another_dtype(dtype: torch.dtype) -> None:
    x, codebooks = inputs(50, 24, 3, 40)
    for rows, books in ((x, codebooks.to(dtype)), (x.to(dtype), codebooks)):
        check("cpu", rows, books) if dtype != torch.float64 else None
        codes, quantized = residual_quantize(rows, books)
        want_codes, want = reference.residual_quantize(rows, books)
        assert torch.equal(codes, want_codes) and torch.equal(quantized, want)
        if dtype == torch.float16:
            check("kernel", rows, books)


def test_float64_is_exact() -> None:
    x, codebooks = inputs(300, 24, 8, 40, torch.float64)
    check("cpu", x * 1e-200, codebooks * 1e-200)
    check("cpu", x, codebooks)
    distances = nearest_codeword(x, codebooks[0].expand(300, -1, -1))[1]
    assert distances.dtype == torch.float64


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.mT.contiguous().mT,
    "sliced": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
    "every other": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "expanded": lambda x: x[:1].expand_as(x),
    "rows reversed in memory": lambda x: x.flip(0).contiguous().flip(0),
}


@both
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides(path: str, layout: str) -> None:
    change = LAYOUTS[layout]
    x, codebooks = (change(tensor) for tensor in inputs(20, 25, 3, 40))
    own = change(inputs(20, 25, 20, 30)[1])
    grad = change(inputs(20, 25, 1, 1)[0])
    codes, quantized = PATHS[path](x, codebooks)
    want_codes, want = PATHS[path](x.contiguous(), codebooks.contiguous())
    assert torch.equal(codes, want_codes) and torch.equal(quantized, want)
    got, wanted = NEAREST[path](x, own), NEAREST[path](x.contiguous(), own.contiguous())
    assert torch.equal(got[0], wanted[0]) and torch.equal(got[1], wanted[1])
    assert_close(*(BACKWARD[path](g, codes, 40) for g in (grad, grad.contiguous())), 0.0)


def test_rows_beyond_two_gigaelements() -> None:
    stride = 2**30 + 2**28
    # memory that is never touched costs nothing: three rows in 5 GB
    room = torch.empty(2 * stride + 2048, dtype=torch.float16, device=DEVICE)
    x, codebooks = (tensor.to(DEVICE) for tensor in inputs(3, 16, 3, 40, torch.float16))
    far = room.as_strided((3, 16), (stride, 1))
    far.copy_(x)
    for got, want in zip(gpu.forward(far, codebooks), gpu.forward(x, codebooks), strict=True):
        assert torch.equal(got, want)
    own = room.as_strided((3, 40, 16), (stride, 16, 1), 64)
    own.copy_(codebooks)
    for got, want in zip(gpu.nearest(far, own), gpu.nearest(x, codebooks), strict=True):
        assert torch.equal(got, want)
    codes = torch.tensor([[0, 1, 2]] * 3, device=DEVICE)
    assert torch.equal(gpu.backward(far, codes, 4), gpu.backward(x, codes, 4))
    words = room.as_strided((2, 3, 16), (16, stride, 1), 1024)
    words.copy_(codebooks[:2, :3])
    assert torch.equal(gpu.forward(x, words)[0], gpu.forward(x, codebooks[:2, :3])[0])


def backward_by_kernel(grad: Tensor, codes: Tensor, words: int) -> Tensor:
    return gpu.backward(grad.to(DEVICE), codes.to(DEVICE), words).cpu()


BACKWARD = {"cpu": plain.residual_quantize_backward, "kernel": backward_by_kernel}


@both
@pytest.mark.parametrize(
    ("n", "dim", "stages", "words"),
    [(0, 8, 2, 3), (1, 1, 1, 1), (300, 25, 3, 70), (2500, 5, 2, 3), (70, 300, 2, 9)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.usefixtures("poisoned")
def test_gradient_of_codebooks(
    path: str, n: int, dim: int, stages: int, words: int, dtype: torch.dtype
) -> None:
    x, codebooks = inputs(n, dim, stages, words)
    leaf = codebooks.double().requires_grad_()
    codes = residual_quantize(x, codebooks)[0]
    _, quantized = reference.residual_quantize(x.double(), leaf)
    grad = inputs(n, dim, 1, 1)[0].to(dtype)
    quantized.backward(grad.double())
    assert_close(BACKWARD[path](grad, codes, words), leaf.grad, 1e-6)


def test_gradients_through_the_operators() -> None:
    x, codebooks = inputs(30, 12, 3, 7)
    own = inputs(30, 12, 30, 5)[1]
    for function, books in ((residual_quantize, codebooks), (nearest_codeword, own)):
        leaves = [x.clone().requires_grad_(), books.clone().requires_grad_()]
        exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
        got = function(*leaves)[1]
        want = getattr(reference, function.__name__)(*exact)[1]
        weight = torch.linspace(-1, 1, got.numel()).view_as(got)
        (got * weight).sum().backward()
        (want * weight).sum().backward()
        for leaf, other in zip(leaves, exact, strict=True):
            assert_close(leaf.grad, other.grad, 1e-6)
    rows = x.clone().requires_grad_()
    residual_quantize(rows, codebooks)[1].sum().backward()
    assert torch.equal(rows.grad, torch.ones_like(x))
    half = codebooks.half().requires_grad_()
    residual_quantize(x, half)[1].sum().backward()
    assert half.grad.dtype == torch.float16 and half.grad.sum() == 3 * 30 * 12
    assert not residual_quantize(rows, half)[0].requires_grad


def test_gradient_of_the_distance_by_differences() -> None:
    x, own = (tensor.double().requires_grad_() for tensor in (inputs(4, 3, 4, 5)[0], inputs(4, 3, 4, 5)[1]))
    assert torch.autograd.gradcheck(lambda *leaves: nearest_codeword(*leaves)[1], (x, own))


OPERATORS: dict[str, Callable[[], tuple[Any, tuple[Any, ...]]]] = {
    "residual": lambda: (quantize._residual, inputs(6, 5, 3, 4)),
    "residual in half": lambda: (quantize._residual, (inputs(6, 5, 3, 4)[0].half(), inputs(6, 5, 3, 4)[1])),
    "backward": lambda: (quantize._residual_backward, (torch.randn(6, 5), torch.randint(4, (6, 3)), 4)),
    "nearest": lambda: (quantize._nearest, inputs(6, 5, 6, 4)),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("differentiated", [False, True])
def test_registration(name: str, differentiated: bool) -> None:
    operator, arguments = OPERATORS[name]()
    if differentiated and name != "backward":
        arguments = tuple(x.requires_grad_() for x in arguments)
    arguments = tuple(
        x.detach().to(DEVICE).requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x
        for x in arguments
    )
    torch.library.opcheck(operator, arguments)


def test_compiles_to_one_graph() -> None:
    x, codebooks = (tensor.to(DEVICE).requires_grad_() for tensor in inputs(9, 5, 3, 4))

    def both_operators(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        codes, quantized = residual_quantize(x, codebooks)
        return codes, quantized, *nearest_codeword(x[:3], codebooks)

    compiled = torch.compile(both_operators, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows in (9, 6):
        results = []
        for function in (both_operators, compiled):
            found = function(x[:rows], codebooks)
            results.append((*found, *torch.autograd.grad(found[1].sum() + found[3].sum(), (x, codebooks))))
        for eager, other in zip(*results, strict=True):
            assert torch.equal(eager, other)


def test_shapes_without_memory() -> None:
    x, codebooks = (tensor.to("meta") for tensor in inputs(9, 5, 3, 4, torch.float16))
    codes, quantized = residual_quantize(x, codebooks)
    assert codes.shape == (9, 3) and codes.dtype == torch.int64
    assert quantized.shape == (9, 5) and quantized.dtype == torch.float16
    codes, distances = nearest_codeword(x[:3], codebooks)
    assert codes.shape == distances.shape == (3,) and distances.dtype == torch.float32


@both
def test_the_same_bits_again(path: str) -> None:
    x, codebooks = inputs(200, 24, 3, 70)
    first = PATHS[path](x, codebooks)
    assert all(torch.equal(*pair) for pair in zip(first, PATHS[path](x, codebooks), strict=True))
    # and a row's do not depend on the others'
    alone = PATHS[path](x[17:18], codebooks)
    assert torch.equal(alone[0], first[0][17:18]) and torch.equal(alone[1], first[1][17:18])


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Chunks, tiles and blocks of the CPU path so small that everything takes several."""
    for name, size in (("CHUNK_NUMBERS", 2000), ("TILE_WORDS", 16), ("DOUBTFUL_SCORES", 100)):
        monkeypatch.setattr(plain, name, size)
    monkeypatch.setattr(plain, "DOUBTFUL_NUMBERS", 50)
    yield


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("small_parts")
def test_adversarial_rows_in_small_parts(kind: str) -> None:
    check("cpu", *adversarial(kind, 300, 24, 40))


@pytest.mark.usefixtures("small_parts")
def test_argmin_in_small_parts() -> None:
    test_argmin("cpu", torch.float32)
    test_argmin_of_what_is_not_finite("cpu")


def test_precision_settings_do_not_matter() -> None:
    kind = "near ties far from the origin"
    x, codebooks = adversarial(kind, 2000, 24, 32)
    want = residual_quantize(x, codebooks)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(residual_quantize(x, codebooks)[0], want)
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert torch.equal(residual_quantize(x, codebooks)[0], want)
    finally:
        torch.set_float32_matmul_precision(precision)


def noted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[int]:
    """Stages at which a part of the kernel has run: the interpreter calls it as a function."""
    seen, part = [], getattr(gpu, name)

    def note(*arguments: Any) -> Any:
        seen.append(1)
        return part(*arguments)

    monkeypatch.setattr(gpu, name, note)
    return seen


@pytest.mark.skipif(DEVICE.type == "cuda", reason="compiled kernels call nothing that could be noted")
def test_every_part_of_the_search_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    compared, renewed, exact = (noted(monkeypatch, n) for n in ("square_to", "residual_of", "search_exactly"))
    check("kernel", *inputs(64, 24, 2, 32))
    assert compared and not renewed and not exact
    check("kernel", *adversarial("32 stages that halve the residual", 20, 24, 32))
    assert renewed and len(renewed) > len(exact)
    exact.clear()
    x, codebooks = near_ties(64, 24, 2, torch.Generator().manual_seed(0))
    # both words of each tie in one column of two tiles, and a third copy
    far = torch.full((1, 64, 24), 1e3)
    check("kernel", x, torch.cat([codebooks[:, :1], far[:, 1:], codebooks[:, 1:], far[:, 1:]], 1))
    assert exact


def test_what_does_not_fit_is_named() -> None:
    x, codebooks = inputs(4, 5, 2, 3)
    for function, arguments, message in [
        (residual_quantize, (x[0], codebooks), r"x must be floating \[N, D\], got torch.float32 \[5\]"),
        (residual_quantize, (x.long(), codebooks), "x must be floating"),
        (residual_quantize, (x, codebooks[0]), r"codebooks must be floating \[L, K, D\]"),
        (residual_quantize, (x[:, :4], codebooks), "share D, got 4 and 5"),
        (residual_quantize, (x, codebooks[:, :0]), "must have codewords"),
        (residual_quantize, (x, codebooks[:0]), "at least one stage"),
        (residual_quantize, (x, codebooks.to("meta")), "one device, got cpu and meta"),
        (nearest_codeword, (x, codebooks), "one for each of 4 rows, got 2"),
    ]:
        with pytest.raises(ValueError, match=message):
            function(*arguments)
