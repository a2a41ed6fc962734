"""Quantization with implicit codebooks: the CPU's path and the Triton kernels against the definition."""

import doctest
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from kernel_checks import DEVICE, assert_close
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bioreport_kernels import ImplicitWeights, implicit, implicit_decode, implicit_quantize, reference
from bioreport_kernels.cpu import implicit as cpu
from bioreport_kernels.gpu import implicit as gpu
from bioreport_kernels.gpu.launch import redirected

pytestmark = pytest.mark.untraced


def network(
    dim: int,
    wide: int,
    hidden: int,
    words: int,
    first: int,
    stages: int,
    blocks: int,
    second: bool = False,
    seed: int = 0,
) -> ImplicitWeights:
    """Random weights, S stages after the first; `second` makes them QINCo2's."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, fan: int = 1) -> Tensor:
        return torch.randn(*shape, generator=generator) / fan**0.5

    return ImplicitWeights(
        draw(first, dim),
        draw(stages, words, dim),
        draw(stages, wide, wide + dim, fan=wide + dim),
        draw(stages, wide, fan=wide),
        draw(stages, blocks, hidden, wide, fan=wide),
        draw(stages, blocks, wide, hidden, fan=2 * max(hidden, 1)),
        draw(stages, wide, dim, fan=dim) if wide != dim else None,
        draw(stages, dim, wide, fan=wide) if wide != dim else None,
        draw(stages, words, dim) if second else None,
        second,
    ).to(DEVICE)


def vectors(n: int, dim: int, seed: int = 1) -> Tensor:
    return (2 * torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))).to(DEVICE)


def by_definition(
    x: Tensor, weights: ImplicitWeights, beam: int = 1, shortlist: int | None = None
) -> tuple[Tensor, Tensor]:
    return reference.implicit_quantize(x.double(), weights.to(torch.float64), beam=beam, shortlist=shortlist)


@pytest.fixture(autouse=True)
def even_products(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The interpreter's products wide: BLAS rounds a row by its place in the tile, tensor cores do not."""
    if DEVICE.type != "cuda":
        from triton.runtime import interpreter

        def create_dot(_: Any, a: Any, b: Any, c: Any, *__: Any) -> Any:
            product = a.data.astype("float64") @ b.data.astype("float64") + c.data
            return interpreter.TensorHandle(product.astype(c.data.dtype), c.dtype.scalar)

        monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)
    yield


# dim, wide, hidden, words, first, stages, blocks, second; beam, shortlist; vectors
SHAPES = [
    ((8, 8, 16, 6, 6, 2, 1), 1, None, 5),
    ((3, 5, 20, 7, 9, 2, 2, True), 3, 4, 4),
    ((25, 25, 70, 5, 3, 1, 2, True), 2, None, 5),
    ((1, 1, 1, 1, 1, 2, 1), 1, None, 3),
    ((1, 1, 1, 1, 2, 1, 0, True), 2, 1, 2),
    ((40, 17, 9, 130, 3, 1, 1, True), 2, 9, 3),
    ((64, 6, 8, 9, 3, 1, 2, True), 1, None, 3),
    ((4, 4, 8, 3, 140, 0, 1), 5, None, 3),
    ((3, 3, 8, 1000, 2, 1, 1), 1, None, 1),
    ((512, 512, 16, 2, 2, 1, 1), 1, None, 2),
]
LARGER = [((32, 32, 64, 64, 64, 7, 2), 1, None, 130), ((20, 48, 64, 300, 64, 3, 2, True), 6, 10, 40)]
PATHS = {"cpu": cpu, "kernels": gpu}
CASES = [(path, *shape) for path in PATHS for shape in SHAPES] + [("cpu", *shape) for shape in LARGER]


@pytest.mark.parametrize("search", ["exact", "bfloat16"])
@pytest.mark.parametrize(("path", "sizes", "beam", "shortlist", "n"), CASES)
@pytest.mark.usefixtures("poisoned")
def test_codes_and_vectors_are_those_of_the_definition(
    path: str, sizes: Any, beam: int, shortlist: int | None, n: int, search: str
) -> None:
    weights, x = network(*sizes), vectors(n, sizes[0])
    codes, quantized = PATHS[path].quantize(x, weights, beam, shortlist, search)
    wanted_codes, wanted = by_definition(x, weights, beam, shortlist)
    assert codes.dtype == torch.int64 and torch.equal(codes, wanted_codes)
    assert quantized.dtype == torch.float32
    assert_close(quantized, wanted, 1e-5)
    assert torch.equal(PATHS[path].decode(codes, weights), quantized)


def test_any_shape_follows_the_definition() -> None:
    """Each code is that of the nearest implicit codeword, given those before it."""
    hypothesis = pytest.importorskip("hypothesis", reason="GPU machines may have no more than pytest")
    some = hypothesis.strategies

    @hypothesis.settings(max_examples=40, deadline=None)
    @hypothesis.given(
        some.sampled_from([0, 1, 2, 130]),
        some.sampled_from([1, 2, 3, 64, 1000]),
        some.sampled_from([1, 3, 25, 64]),
        some.integers(0, 31),
        some.integers(0, 3),
        some.booleans(),
        some.integers(0, 99),
    )
    def check(n: int, words: int, dim: int, stages: int, blocks: int, second: bool, seed: int) -> None:
        stages = min(stages, 3) if words == 1000 else stages
        wide = dim + 2 * (seed % 2)
        weights = network(dim, wide, 2 * wide, words, words, stages, blocks, second, seed)
        x = vectors(n, dim, seed)
        codes, quantized = implicit_quantize(x, weights)
        assert codes.shape == (n, 1 + stages)
        assert torch.equal(implicit_decode(codes, weights), quantized)
        exact, target = weights.to(torch.float64), x.double()
        estimate = torch.zeros_like(target)
        every = torch.arange(words, device=x.device)
        for stage in range(-1, stages):
            found = exact.first.expand(n, -1, -1)
            if stage >= 0:
                before = estimate[:, None]
                found = before + reference.implicit_codewords(exact, stage, every.expand(n, -1), before)
            squares = (target[:, None] - found).square().sum(2)
            chosen = squares.gather(1, codes[:, stage + 1, None])[:, 0]
            assert bool((chosen <= squares.amin(1) * (1 + 1e-4) + 1e-6).all())
            estimate = found[torch.arange(n, device=x.device), codes[:, stage + 1]]

    check()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_vectors_are_measured_wide(path: str, dtype: torch.dtype) -> None:
    weights, x = network(8, 8, 16, 6, 6, 2, 1), vectors(7, 8).to(dtype)
    codes, quantized = PATHS[path].quantize(x, weights, 1, None, "exact")
    wide_codes, wide = PATHS[path].quantize(x.float(), weights, 1, None, "exact")
    assert torch.equal(codes, wide_codes) and torch.equal(quantized, wide.to(dtype))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "sizes", [(8, 8, 64, 6, 6, 2, 1), (16, 16, 64, 6, 6, 1, 1), (5, 16, 8, 6, 6, 1, 1, True)]
)
def test_narrow_weights_are_multiplied_wide(path: str, sizes: Any) -> None:
    weights, x = network(*sizes).to(torch.float16), vectors(7, sizes[0])
    codes, quantized = PATHS[path].quantize(x, weights, 1, None, "exact")
    wide_codes, wide = PATHS[path].quantize(x, weights.to(torch.float32), 1, None, "exact")
    assert torch.equal(codes, wide_codes) and torch.equal(quantized, wide)
    assert torch.equal(PATHS[path].decode(codes, weights), quantized)


def test_float64_stays_float64() -> None:
    weights, x = network(8, 8, 16, 60, 6, 4, 2).to(torch.float64), vectors(50, 8).double()
    codes, quantized = implicit_quantize(x, weights)
    wanted_codes, wanted = by_definition(x, weights)
    assert torch.equal(codes, wanted_codes)
    assert_close(quantized, wanted, 1e-14)
    assert torch.equal(implicit_decode(codes, weights), quantized)


@pytest.mark.parametrize("path", PATHS)
def test_vectors_may_lie_anyhow(path: str) -> None:
    weights, dense = network(6, 6, 8, 5, 5, 1, 1), vectors(4, 6)
    codes, quantized = PATHS[path].quantize(dense, weights, 1, None, "exact")
    sliced = torch.full((9, 14), math.nan, device=DEVICE)
    sliced[1:9:2, 2::2] = dense
    for x in (sliced[1:9:2, 2::2], dense.T.contiguous().T):
        again, vectors_again = PATHS[path].quantize(x, weights, 1, None, "exact")
        assert torch.equal(again, codes) and torch.equal(vectors_again, quantized)
    repeated, _ = PATHS[path].quantize(dense[2:3].expand(3, 6), weights, 1, None, "exact")
    assert torch.equal(repeated, codes[2:3].expand(3, -1))
    assert torch.equal(PATHS[path].decode(codes.T.contiguous().T.to(torch.int32), weights), quantized)
    spread = ImplicitWeights(
        *(w[..., None].expand(*w.shape, 2)[..., 0] if i < 6 else w for i, w in enumerate(weights))
    )
    assert torch.equal(PATHS[path].quantize(dense, spread, 1, None, "exact")[1], quantized)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("beam", "shortlist", "search"),
    [(1, None, "exact"), (2, 5, "exact"), (1, None, "bfloat16"), (3, None, "bfloat16")],
)
def test_equals_go_to_the_lowest_index(path: str, beam: int, shortlist: int | None, search: str) -> None:
    weights, x = network(4, 4, 8, 6, 3, 2, 1, True), vectors(9 if beam == 1 else 2, 4)
    codes, quantized = PATHS[path].quantize(x, weights, beam, shortlist, search)
    # every codeword twice more: copies stand after all originals
    twice = weights._replace(
        first=weights.first.repeat(3, 1),
        codebooks=weights.codebooks.repeat(1, 3, 1),
        shortlists=None if weights.shortlists is None else weights.shortlists.repeat(1, 3, 1),
    )
    longer = None if shortlist is None else 3 * shortlist
    again, vectors_again = PATHS[path].quantize(x, twice, 3 * beam if beam > 1 else 1, longer, search)
    assert int(again[:, 0].max()) < 3 and int(again[:, 1:].max()) < 6
    if beam == 1:
        assert torch.equal(again, codes) and torch.equal(vectors_again, quantized)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("beam", "shortlist"), [(1, None), (3, 4)])
@pytest.mark.parametrize("search", ["exact", "bfloat16"])
def test_nan_and_infinity_spoil_their_row_alone(
    path: str, beam: int, shortlist: int | None, search: str
) -> None:
    weights, x = network(5, 7, 8, 9, 6, 1, 1, True), vectors(6, 5)
    codes, quantized = PATHS[path].quantize(x, weights, beam, shortlist, search)
    x[1], x[4, 2], x[5, 0] = math.nan, math.nan, math.inf
    spoilt, vectors_spoilt = PATHS[path].quantize(x, weights, beam, shortlist, search)
    for row in (1, 4, 5):
        assert not spoilt[row].any()
    good = [0, 2, 3]
    assert torch.equal(spoilt[good], codes[good]) and torch.equal(vectors_spoilt[good], quantized[good])
    assert torch.equal(vectors_spoilt, PATHS[path].decode(spoilt, weights))


@pytest.mark.parametrize("path", PATHS)
def test_a_codeword_of_nan_is_never_chosen(path: str) -> None:
    weights, x = network(5, 5, 8, 9, 6, 1, 1), vectors(20, 5)
    weights.first[0], weights.codebooks[0, 0] = math.nan, math.nan
    for search in ("exact", "bfloat16"):
        codes, quantized = PATHS[path].quantize(x, weights, 1, None, search)
        assert codes.min() > 0 and quantized.isfinite().all()


@pytest.mark.parametrize("path", PATHS)
def test_no_vector_at_all(path: str) -> None:
    weights = network(5, 7, 8, 9, 6, 2, 1, True)
    codes, quantized = PATHS[path].quantize(vectors(0, 5), weights, 3, 4, "bfloat16")
    assert codes.shape == (0, 3) and quantized.shape == (0, 5)
    assert PATHS[path].decode(codes, weights).shape == (0, 5)


@pytest.mark.parametrize("path", PATHS)
def test_vectors_in_parts_give_the_same(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, x = network(8, 8, 16, 6, 6, 1, 1, True), vectors(7, 8)
    codes, quantized = PATHS[path].quantize(x, weights, 2, 3, "bfloat16")
    for name, value in (("STATE_NUMBERS", 500), ("TILE_ROWS", 4)):
        monkeypatch.setattr(cpu, name, value)
    for name in ("LEAST_STATE", "MOST_STATE", "SEARCHED_TOGETHER"):
        monkeypatch.setattr(gpu, name, 500 if "STATE" in name else 20)
    again, vectors_again = PATHS[path].quantize(x, weights, 2, 3, "bfloat16")
    assert torch.equal(again, codes) and torch.equal(vectors_again, quantized)
    assert torch.equal(PATHS[path].decode(codes, weights), quantized)


@pytest.mark.parametrize("dim", [1, 3, 25, 32, 128])
def test_a_row_s_bits_depend_on_its_codes_alone(dim: int) -> None:
    weights = network(dim, dim, 2 * dim, 16, 16, 3, 2)
    codes = torch.randint(16, (300, 4), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    whole = implicit_decode(codes, weights)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    assert torch.equal(implicit_decode(codes[order], weights), whole[order])
    for part in (slice(0, 1), slice(37, 38), slice(5, 140), slice(299, 300)):
        assert torch.equal(implicit_decode(codes[part], weights), whole[part])


@pytest.mark.parametrize(("words", "blocks", "stages", "n"), [(64, 2, 7, 4096), (256, 4, 2, 1024)])
def test_a_search_in_bfloat16_differs_in_few_rows(words: int, blocks: int, stages: int, n: int) -> None:
    weights, x = network(32, 32, 64, words, words, stages, blocks), vectors(n, 32)
    exact, _ = implicit_quantize(x, weights)
    rough, quantized = implicit_quantize(x, weights, search="bfloat16")
    assert int((exact != rough).any(1).sum()) <= n / 1000
    assert torch.equal(implicit_decode(rough, weights), quantized)


@pytest.mark.parametrize("path", PATHS)
def test_a_search_in_bfloat16_is_one(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ranking again it chooses otherwise, on a machine with bfloat16: the products are narrow."""
    seen = []
    if path == "cpu":
        product = cpu.linear

        def note(rows: Tensor, *rest: Any, **options: Any) -> Tensor:
            seen.append(rows.dtype)
            return product(rows, *rest, **options)

        monkeypatch.setattr(cpu, "linear", note)
    else:
        start = gpu.launch

        def note_launch(kernel: Any, grid: Any, *arguments: Any, **settings: Any) -> None:
            if "DOT" in settings:
                seen.append(arguments[4].dtype)
            start(kernel, grid, *arguments, **settings)

        monkeypatch.setattr(gpu, "launch", note_launch)
    weights, x = network(8, 8, 16, 9, 6, 2, 2), vectors(5, 8)
    PATHS[path].quantize(x, weights, 1, None, "exact")
    assert torch.bfloat16 not in seen
    PATHS[path].quantize(x, weights, 1, None, "bfloat16")
    assert torch.bfloat16 in seen


@pytest.mark.parametrize("search", ["exact", "bfloat16"])
def test_without_onednn_the_codes_are_the_same(search: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, x = network(20, 48, 64, 30, 64, 3, 2, True), vectors(40, 20)
    monkeypatch.setattr(cpu, "_fused_dtypes", lambda: ())
    codes, quantized = cpu.quantize(x, weights, 3, 10, search)
    assert torch.equal(codes, by_definition(x, weights, 3, 10)[0])
    assert torch.equal(cpu.decode(codes, weights), quantized)


class Largest(TorchDispatchMode):
    """The most numbers in a tensor made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        views = getattr(function, "is_view", False)
        if isinstance(out, Tensor) and not views:
            self.numbers = max(self.numbers, out.untyped_storage().nbytes() // 4)
        return out


@pytest.mark.parametrize("path", PATHS)
def test_what_lies_between_stages_does_not_grow(path: str) -> None:
    device = DEVICE if path == "cpu" else torch.device("meta")
    weights, sizes = network(16, 16, 32, 64, 64, 2, 1).to(device), []
    for n in (3_000, 30_000):
        with Largest() as largest, redirected(lambda *_: None):
            PATHS[path].quantize(torch.empty(n, 16, device=device).normal_(), weights, 1, None, "bfloat16")
        sizes.append(largest.numbers)
    # inputs and outputs do, 16 numbers a row
    assert sizes[1] <= max(sizes[0], 16 * 30_000, 1 << 20)


@pytest.mark.parametrize(("n", "beam", "share"), [(65_536, 1, 1 / 4), (1 << 18, 1, 1 / 4), (9, 64, math.inf)])
def test_state_is_a_share_of_the_vectors_and_within_32_bits(n: int, beam: int, share: float) -> None:
    weights, x = network(128, 128, 256, 256, 256, 1, 2).to("meta"), torch.empty(n, 128, device="meta")
    made: list[int] = []

    def note(_: Any, __: Any, arguments: tuple[Any, ...], ___: Any) -> None:
        made.extend(a.numel() for a in arguments if isinstance(a, Tensor))

    with redirected(note):
        gpu.quantize(x, weights, beam, None, "bfloat16")
    assert max(made) < min(share * x.numel(), 2**31)


def test_gradient_goes_straight_through() -> None:
    weights = network(8, 8, 16, 6, 6, 2, 1).map(lambda w: w.requires_grad_())
    x = vectors(5, 8).requires_grad_()
    grad = vectors(1, 8, seed=3).expand(5, 8)
    codes, quantized = implicit_quantize(x, weights)
    assert not codes.requires_grad
    quantized.backward(grad)
    assert torch.equal(x.grad, grad) and weights.first.grad is None


def test_decoding_trains_the_weights() -> None:
    weights = network(4, 6, 8, 6, 6, 2, 2, True).to(torch.float64)
    codes = torch.randint(6, (7, 3), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    names = [name for name in weights._fields if name not in ("shortlists", "skip")]
    leaves = [getattr(weights, name).clone().requires_grad_() for name in names]

    def decode(*values: Tensor) -> Tensor:
        return implicit_decode(codes, weights._replace(**dict(zip(names, values, strict=True))))

    assert torch.autograd.gradcheck(decode, leaves)
    assert torch.equal(decode(*leaves), implicit_decode(codes, weights))


@pytest.mark.parametrize("search", ["exact", "bfloat16"])
def test_registration(search: str) -> None:
    weights, x = network(8, 12, 16, 6, 6, 2, 1, True), vectors(5, 8).requires_grad_()
    torch.library.opcheck(implicit._quantize, (x, *weights, 2, 3, search))
    torch.library.opcheck(implicit._decode, (torch.zeros(4, 3, dtype=torch.int64, device=DEVICE), *weights))
    meta = implicit_quantize(x.to("meta"), weights.to("meta"), beam=2, shortlist=3, search=search)
    assert [tuple(t.shape) for t in meta] == [(5, 3), (5, 8)]


def test_compiles_whole() -> None:
    weights, x = network(8, 12, 16, 6, 6, 2, 1, True), vectors(5, 8).requires_grad_()

    def there_and_back(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        codes, quantized = implicit_quantize(2 * x, weights, beam=2, shortlist=3)
        return codes, quantized, implicit_decode(codes, weights)

    for got, want in zip(torch.compile(there_and_back, fullgraph=True)(x), there_and_back(x), strict=True):
        assert torch.equal(got, want)
    (gradient,) = torch.autograd.grad(torch.compile(there_and_back, fullgraph=True)(x)[1].sum(), x)
    assert torch.equal(gradient, torch.full_like(x, 2))


@pytest.mark.skipif(DEVICE.type != "cuda", reason="needs a GPU")
def test_twenty_runs_and_a_graph_give_the_same_bits() -> None:
    weights, x = network(128, 128, 256, 256, 256, 2, 2), vectors(1000, 128)
    codes, quantized = implicit_quantize(x, weights, search="bfloat16")
    for _ in range(20):
        again, vectors_again = implicit_quantize(x, weights, search="bfloat16")
        assert torch.equal(again, codes) and torch.equal(vectors_again, quantized)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        again, vectors_again = implicit_quantize(x, weights, search="bfloat16")
    graph.replay()
    assert torch.equal(again, codes) and torch.equal(vectors_again, quantized)


SMALL = network(4, 4, 8, 3, 5, 2, 1)


@pytest.mark.parametrize(
    ("change", "options", "named"),
    [
        ({"first": torch.zeros(5, 3)}, {}, r"first must be \[5, 4\], got \[5, 3\]"),
        ({"down": torch.zeros(2, 1, 8, 4)}, {}, "down must be"),
        ({"codebooks": torch.zeros(3, 4)}, {}, r"codebooks must be \[S, K, D\]"),
        ({"codebooks": torch.zeros(2, 0, 4)}, {}, "must have codewords"),
        ({"up": torch.zeros(2, 1, 8, 5)}, {}, "without in_proj"),
        ({"bias": torch.zeros(2, 4).double()}, {}, "one floating dtype"),
        ({}, {"x": torch.zeros(4)}, r"x must be floating \[N, 4\]"),
        ({}, {"x": torch.zeros(2, 4, dtype=torch.int64)}, "x must be floating"),
        ({}, {"beam": 0}, "beam must be at least 1"),
        ({}, {"search": "float16"}, "search must be one of"),
        ({}, {"shortlist": 2}, "needs weights with shortlists"),
        ({"shortlists": torch.zeros(2, 3, 4)}, {"shortlist": 0}, "shortlist must be at least 1"),
    ],
)
def test_what_does_not_fit_is_named(change: Any, options: dict[str, Any], named: str) -> None:
    weights = SMALL._replace(**change)
    with pytest.raises(ValueError, match=named):
        implicit_quantize(options.pop("x", torch.zeros(2, 4)), weights, **options)


@pytest.mark.parametrize("codes", [torch.zeros(2, 2, dtype=torch.int64), torch.zeros(2, 3)])
def test_codes_that_do_not_fit_are_named(codes: Tensor) -> None:
    with pytest.raises(ValueError, match="codes must be"):
        implicit_decode(codes, SMALL)


@pytest.mark.skipif(DEVICE.type == "cuda", reason="a GPU is not waited for")
@pytest.mark.parametrize("code", [-1, 3])
def test_codes_without_a_codeword_are_refused(code: int) -> None:
    with pytest.raises(IndexError, match="codes must be from 0 to 2"):
        implicit_decode(torch.tensor([[4, 0, code]]), SMALL)


def test_kernels_keep_codes_within_the_tables() -> None:
    decoded = gpu.decode(torch.tensor([[-5, 99, -1]], device=DEVICE), SMALL.to(DEVICE))
    assert torch.equal(decoded, gpu.decode(torch.tensor([[0, 2, 0]], device=DEVICE), SMALL.to(DEVICE)))


def test_the_example_runs() -> None:
    failed, tried = doctest.testmod(implicit)
    assert tried and not failed
