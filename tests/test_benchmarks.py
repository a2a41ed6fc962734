"""The harness of the benchmarks: what it measures, what it says of peers that fail, that it still runs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import bioreport_kernels
from bioreport import cli

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
LIMITS = {"copy_gb_s": 10.0, "bf16_tflops": 1.0, "float32_tflops": 1.0}


Module = Callable[[str], Any]
Run = Callable[..., Any]


@pytest.fixture
def timing(benchmark_module: Module) -> Any:
    return benchmark_module("timing")


def case(timing: Any, *providers: Any, **options: Any) -> Any:
    return timing.Case(
        operator="double",
        name="three",
        dtype=torch.float32,
        bytes=24,
        flops=3,
        inputs=lambda device: (torch.ones(3),),
        providers=providers,
        tolerance=options.pop("tolerance", 1e-3),
        **options,
    )


def test_peers_stand_beside_ours_and_failures_are_named(timing: Any) -> None:
    def absent(x: Any) -> Any:
        raise timing.Absent("needs another machine")

    def wrong_shape() -> torch.Tensor:
        return torch.ones(4)

    started: list[str] = []
    rows = timing.measure(
        case(
            timing,
            timing.Provider("bioreport", "ours", lambda x: lambda: 2 * x[0]),
            timing.Provider("equal", "a sum", lambda x: lambda: x[0] + x[0]),
            timing.Provider("rough", "wrong", lambda x: lambda: 2.1 * x[0]),
            timing.Provider("other", "a square", lambda x: lambda: x[0] ** 2, same=False),
            timing.Provider("shape", "wrong", lambda x: wrong_shape),
            timing.Provider("absent", "none", absent),
            timing.Provider("module", "none", lambda x: import_module("no_such_module")),
            timing.Provider("broken", "none", lambda x: lambda: 1 / 0),
            timing.Provider("skipped", "none", lambda x: lambda: x[0]),
        ),
        CPU,
        LIMITS,
        seconds=0.001,
        skip=("skipped",),
        starting=started.append,
    )
    by_name = {row["provider"]: row for row in rows}
    assert list(by_name) == ["bioreport", "equal", "rough", "other", "shape", "absent", "module", "broken"]
    assert set(started) == set(by_name)
    ours = by_name["bioreport"]
    assert ours["ratio"] == 1 and ours["input_mb"] == ours["output_mb"] == 12e-6
    assert ours["gb_s"] == pytest.approx(24 / ours["ms"] / 1e6)
    assert ours["share_of_copy"] == pytest.approx(ours["gb_s"] / 10)
    assert ours["ms_20"] <= ours["ms"] <= ours["ms_80"]
    assert by_name["equal"]["error"] == 0 and "mismatch" not in by_name["equal"]
    assert by_name["equal"]["ratio"] == pytest.approx(by_name["equal"]["ms"] / ours["ms"])
    assert by_name["rough"]["error"] == pytest.approx(0.05, rel=1e-3)
    assert "relative RMS 0.05 over 0.001" in by_name["rough"]["mismatch"] and "ms" in by_name["rough"]
    assert by_name["other"]["another_operation"] and "error" not in by_name["other"]
    assert "inf" in by_name["shape"]["mismatch"]
    assert "needs another machine" in by_name["absent"]["missing"]
    assert "no_such_module" in by_name["module"]["missing"]
    assert "ZeroDivisionError" in by_name["broken"]["problem"] and "ms" not in by_name["broken"]
    assert all(timing.describe(row) for row in rows)


def test_codes_are_compared_by_rows(timing: Any) -> None:
    codes = torch.tensor([[1, 2], [3, 4], [5, 6], [7, 8]])
    other = torch.tensor([[1, 2], [3, 0], [5, 6], [7, 8]])
    rows = timing.measure(
        case(
            timing,
            timing.Provider("bioreport", "ours", lambda x: lambda: (codes, codes * 1.0)),
            timing.Provider("peer", "codes alone", lambda x: lambda: other),
            codes=True,
            wrong=lambda inputs, outputs: (outputs[0] == 0).any(1).double().mean().item(),
        ),
        CPU,
        LIMITS,
        seconds=0.001,
    )
    assert [row["wrong"] for row in rows] == [0, 0.25]
    assert rows[1]["differing"] == 0.25 and "mismatch" in rows[1]


class FakeCuda:
    """Enough of torch.cuda, on the CPU's clock, for the code that measures on a GPU to run through."""

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = time.perf_counter()

        def synchronize(self) -> None:
            pass

        def elapsed_time(self, other: Any) -> float:
            return 1e3 * (other.at - self.at) + 1e-6

    class Stream:
        def wait_stream(self, other: Any) -> None:
            pass

    class CUDAGraph:
        def replay(self) -> None:
            pass

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.captured = 0
        for name in ("Event", "Stream", "CUDAGraph"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        for name in ("synchronize", "reset_peak_memory_stats"):
            monkeypatch.setattr(torch.cuda, name, lambda: None)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 1_000_000)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 4_000_000)
        monkeypatch.setattr(torch.cuda, "current_stream", self.Stream)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
        monkeypatch.setattr(torch.cuda, "graph", self.graph)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: SimpleNamespace(L2_cache_size=64))
        for name in ("empty", "randn"):
            make = getattr(torch, name)
            monkeypatch.setattr(
                torch, name, lambda *size, make=make, device=None, **rest: make(*size, **rest)
            )

    @contextmanager
    def graph(self, graph: Any) -> Iterator[None]:
        self.captured += 1
        yield


def test_what_measures_on_a_gpu_runs_through(timing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)

    def uncapturable(x: Any) -> Any:
        def run() -> torch.Tensor:
            if cuda.captured > 1:
                raise RuntimeError("operation not permitted when stream is capturing\nmore")
            return 2 * x[0]

        return run

    device = SimpleNamespace(type="cuda")
    # the small sizes of a smoke test: the real ones are gigabytes
    limits = timing.machine_limits(device, smoke=True)
    assert set(limits) == set(LIMITS) and all(value > 0 for value in limits.values())
    ours, peer = timing.measure(
        case(
            timing,
            timing.Provider("bioreport", "ours", lambda x: lambda: 2 * x[0]),
            timing.Provider("peer", "no graph", uncapturable),
        ),
        device,
        limits,
        seconds=0.001,
    )
    assert ours["peak_mb"] == 3.0 and ours["graph_ms"] > 0 and ours["wall_ms"] > 0
    assert "graph_ms" not in peer and "capturing" in peer["no_graph"] and peer["ms"] > 0
    assert "µs" in timing.describe(ours)


FAKE = """
import os, time, torch
from timing import Case, Provider

def forever():
    time.sleep(1000)

def cases():
    for name in ("first", "second"):
        yield Case("fake", name, torch.float32, 1, 1, lambda device: (), (
            Provider("bioreport", "ours", lambda x: lambda: torch.ones(2)),
            Provider("hangs", "", lambda x, name=name: forever if name == "first" else lambda: torch.ones(2)),
            Provider("dies", "", lambda x: lambda: os._exit(3)),
        ), 1e-3)
"""


@pytest.mark.slow
def test_a_peer_that_hangs_or_dies_costs_only_itself(
    benchmark_module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bench_fake.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    operators = benchmark_module("operators")
    document: dict[str, Any] = {}
    operators.run(
        document,
        tmp_path / "out.json",
        device="cpu",
        operators=("fake",),
        seconds=0.001,
        stall=3.0,
        smoke=True,
        settings=("keep",),
    )
    assert json.loads((tmp_path / "out.json").read_text()) == document
    assert set(document["limits_keep"]) == set(LIMITS) and document["versions"]["torch"]
    told = {
        (row["case"], row["provider"]): row.get("problem", "measured" if "ms" in row else "")
        for row in document["rows"]
    }
    assert told == {
        ("first", "hangs"): "gave no sign for 3 s",
        ("first", "dies"): "exit code 3",
        ("first", "bioreport"): "measured",
        ("second", "dies"): "exit code 3",
        ("second", "bioreport"): "measured",
        ("second", "hangs"): "measured",
    }


@pytest.mark.slow
def test_everything_a_gpu_machine_runs_runs_here_with_tiny_shapes(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(ROOT / "benchmarks" / "gpu.sh"), "--smoke", "--parts", "tests", "kernels", "tune"],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "OUT": str(tmp_path),
            "PYTHON": sys.executable,
            "PYTEST_ADDOPTS": "--option-of-the-outer-run",
        },
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tmp_path.glob("kernels-*.json")
    document = json.loads(file.read_text())
    assert document["tests"]["passed"] and document["tests"]["files"]
    assert document["fp_fusion"] is True and "flash-attn" in document["versions"]
    ours = [row for row in document["rows"] if row["provider"] == "bioreport"]
    assert {row["operator"] for row in ours} == {
        *("linear_attention", "aggregate_epochs", "residual_quantize"),
        *("nearest_codeword", "implicit_quantize"),
    }
    failed = [row for row in ours if "ms" not in row and hasattr(bioreport_kernels, row["operator"])]
    assert not failed
    peers = [row for row in document["rows"] if "problem" in row or "mismatch" in row]
    assert not [row for row in peers if "bfloat16" not in row["provider"]], peers


@pytest.mark.untraced
@pytest.mark.slow
def test_the_profile_of_a_report_adds_up(run_benchmark: Run, capsys: pytest.CaptureFixture[str]) -> None:
    result = run_benchmark("profile_pipeline", "--seconds", 100, "--device", "cpu")
    assert {"read", "preprocess", "encode", "project", "generate", "ground"} <= set(result["stages"])
    assert 0.8 < sum(row["share"] for row in result["stages"].values()) <= 1.001
    assert result["operators"] and "generate" in capsys.readouterr().out


@pytest.mark.slow
def test_the_comparison_of_ecg_tokenizers_runs(
    run_benchmark: Run, benchmark_module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run_benchmark("ecg_tokenizers", "--smoke", "--real", tmp_path)
    assert [(row["quantizer"], row["reset"]) for row in result["tokenizers"]] == [
        (name, reset) for reset in (True, False) for name in ("VQ", "RVQ", "QINCo")
    ]
    assert result["real_records"].startswith("skipped") and result["verdict"]["real"] is None
    for row in result["tokenizers"]:
        assert row["stages"] * row["codewords"] == 16 and row["real"] is None
        assert 0 < row["held_out"]["pooled_utilisation"] <= 1
    assert {"all", "rhythm"} <= set(result["classification"]["rows"][0]["micro_auc"])
    ways = {row["way"]: row for row in result["reports"]["ways"]}
    assert [way["signal_tokens"] for name, way in ways.items() if name != "ECG-Byte"] == [0, 1, 16]
    assert 100 < ways["ECG-Byte"]["signal_tokens"] <= 1000
    assert all(way["held_out_loss"] > 0 and 0 <= way["text_f1"] <= 1 for way in ways.values())
    table = benchmark_module("table")
    monkeypatch.setattr(benchmark_module("results"), "RESULTS", tmp_path)
    assert "skipped" in "\n".join(table.ecg_tokenizers(*table.newest("ecg-tokenizers")))


def test_a_command_that_is_killed_is_compared_with_one_that_is_not(
    run_benchmark: Run, benchmark_module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = benchmark_module("kills")
    for number, (name, make) in enumerate(kills.CASES.items()):
        # whose own runs would take a minute more
        command = make(tmp_path / f"{number}", True).command(tmp_path)
        assert cli.build_parser().parse_args(command).command == name.split()[0]

    def listing(work: Path, smoke: bool) -> Any:
        (work / "in").mkdir()
        (work / "in" / "a.edf").touch()
        for run in ("whole", "killed"):
            (work / run / "out").mkdir(parents=True)
        return kills.Case(
            "a file",
            lambda out: ["corpus", "folder", str(work / "in"), "-o", str(out / "manifest.jsonl"), "-q"],
            kills.files,
        )

    monkeypatch.setitem(kills.CASES, "corpus", listing)
    result = run_benchmark("kills", "--smoke", "--kills", 1, "--only", "corpus")
    row = result["rows"]["corpus"]
    assert "| 1 | yes |" in benchmark_module("scale_tables").kills(result)[-1]
    assert row["identical"] and row["differing"] == [] and row["kills"] == 1 and row["exit_code"] == 0
    assert row["files"] == 1


@pytest.mark.slow
def test_the_comparison_of_ways_to_train_runs(
    run_benchmark: Run, benchmark_module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark_module("training"), "MALLOC", {"default": {}})
    result = run_benchmark("training", "--smoke", "--repeats", 1)
    for compared in result["malloc"]["default"].values():
        ours, other = compared["rows"]
        # of the same steps: the two encoders differ by rounding, packing by less
        assert ours["largest_difference_of_loss"] < 1e-3 and other["largest_difference_of_loss"] == 0
        assert compared["speedup"] > 0 and len(ours["runs"]) == 1
    assert "| packed | `default` |" in "\n".join(benchmark_module("scale_tables").training(result))


@pytest.mark.untraced
@pytest.mark.slow
def test_the_comparison_of_token_variants_runs(run_benchmark: Run, benchmark_module: Module) -> None:
    sizes = ("--recordings", 4, "--held-out", 2, "--seconds", 60, "--steps", 1, "--batch", 2)
    result = run_benchmark("token_variants", *sizes)
    # sessions of six epochs
    assert [row["embeddings"] for row in result["rows"]] == [6, 3, 2, 1, 4, 16, 64, 16]
    assert all(row["held_out_loss"] > 0 and 0 <= row["text_f1"] <= 1 for row in result["rows"])
    table = "\n".join(benchmark_module("scale_tables").token_variants(result))
    assert all(row["variant"] in table for row in result["rows"])


@pytest.mark.untraced
def test_ways_to_report_on_many_recordings_are_compared(
    benchmark_module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = benchmark_module("many")
    (row,) = many.memory(tmp_path / "memory", [1])
    # a process starts with the peak of the one it was forked from, here of all tests before
    assert row["written"] == 1 and row["peak_mib"] >= row["imports_mib"] > 100 and row["exit"] == 0
    assert 0 <= row["padded_share"] < 1
    # a process a measurement would take a minute more
    started: list[tuple[str, ...]] = []

    def here(batches: str, *arguments: Any) -> dict[str, Any]:
        started.append((batches, *map(str, arguments[3:])))
        assert cli.main(["generate", *map(str, arguments[:3]), "-q"]) == 0
        return {"seconds": 1.0, "peak_mib": 600.0, "padded_share": 0.1}

    def one_by_one(files: list[Path], out: Path) -> dict[str, Any]:
        return here("none", *files, "-o", out)

    monkeypatch.setattr(many, "measure", here)
    monkeypatch.setattr(many, "one_by_one", one_by_one)
    speed = many.speed(tmp_path / "speed", 1, 1, 1)
    assert started == [
        *(("none",), ("in order", "--batch-size", "1"), ("in order",), ("by length",)),
        *(("by length", "--workers", "1"), ("by length",)),
    ]
    assert speed["texts_are_the_same"] and speed["again"]["all_kept"]
    assert speed["rows"][0]["times_one_by_one"] == 1 and speed["rows"][0]["reports_per_hour"] > 0
    table = "\n".join(benchmark_module("scale_tables").many({"speed": speed, "memory": [row]}))
    assert "batches by length, 1 workers" in table and "NOT" not in table


def test_encode_beside_celms_chain_runs(
    run_benchmark: Run, benchmark_module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def here(command: list[str], **options: Any) -> None:
        assert command[:3] == [sys.executable, "-m", "bioreport"]
        assert cli.main(command[3:]) == 0

    # the command in this process, with one worker
    module = benchmark_module("corpus_encode")
    started = SimpleNamespace(Popen=subprocess.Popen, PIPE=subprocess.PIPE, run=here)
    monkeypatch.setattr(module, "subprocess", started)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    result = run_benchmark("corpus_encode", "--count", 2, "--seconds", 100, "--malloc", "default")
    (row,) = result["rows"]
    assert (
        len([line for line in benchmark_module("scale_tables").corpus_encode(result) if "`default`" in line])
        == 7
    )
    *own, theirs = row["chains"].values()
    assert theirs["files"] == 20  # a pickle for 10 s
    for chain in own:
        assert chain["files"] == 4  # index, shard, its evidence, lock
        assert chain["bytes_ratio"] > 50
    # of so few recordings nothing is left without the start
    assert all(chain["speedup"] > 0 for chain in own[:3])
    assert [len(chain["speedup_of_each"]) for chain in own[:2]] == [2, 2]
    assert 0 <= row["bfloat16_tokens_rms_difference"] < 0.1


@pytest.mark.slow
def test_the_memory_of_encode_is_measured(run_benchmark: Run, benchmark_module: Module) -> None:
    result = run_benchmark("corpus_memory", "--count", 3)
    (row,) = result["rows"]
    assert "| 3 | " in benchmark_module("scale_tables").corpus_memory(result)[-1]
    assert row["encoded"] == row["recordings"] == 3 and row["exit"] == 0
    assert row["writer_mib"] > 50 and row["worker_mib"] > 50
