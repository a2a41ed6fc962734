"""Numbers in the documents come from committed result files, those of targets from benchmarks that exist."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]


def test_documents_say_what_the_result_files_say() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "table.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def rows_of_all(benchmark_module: Any, monkeypatch: pytest.MonkeyPatch, device: str) -> list[dict[str, Any]]:
    """What a run on a machine with everything would give, with made-up numbers."""
    rows = []
    for operator in benchmark_module("operators").OPERATORS:
        bench = benchmark_module(f"bench_{operator}")
        monkeypatch.setattr(bench, "DEVICE", torch.device(device))
        monkeypatch.setattr(bench, "SMOKE", False)
        for case in bench.cases():
            for provider in case.providers:
                row = {"operator": case.operator, "case": case.name, "provider": provider.name}
                times = {"ms": 2.0, "ms_20": 1.5, "ms_80": 2.5, "graph_ms": 0.01, "ratio": 1.0}
                rates = {"gb_s": 4000.0, "share_of_copy": 0.93, "tflops": 500.0, "share_of_bf16": 0.62}
                memory = {"peak_mb": 30.0, "input_mb": 100.0, "output_mb": 30.0}
                row |= {**times, **rates, **memory, "differing": 0.0005, "wrong": 0.0}
                rows += (
                    [{**row, "malloc": setting} for setting in ("default", "keep")]
                    if device == "cpu"
                    else [row]
                )
    return rows


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_target_is_measured_by_a_benchmark(
    benchmark_module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str
) -> None:
    rows = rows_of_all(benchmark_module, monkeypatch, device)
    names = [(row["operator"], row["case"], row["provider"], row.get("malloc")) for row in rows]
    assert len(set(names)) == len(names), "two rows of one name"
    targets = [t for t in benchmark_module("targets").TARGETS if t.device == device]
    assert targets
    for target in targets:
        assert target.measured(rows) is not None, target.what
        assert target.result(rows).endswith(("✓", "✗ not reached"))
    table = benchmark_module("table")
    document = {
        **{"device": "Some GPU", "device_type": device, "torch_threads": 2, "date": "2000-01-01"},
        **{"versions": {"torch": "2.0"}, "command": "benchmarks/gpu.sh"},
        "limits": {"copy_gb_s": 4300.0, "bf16_tflops": 800.0, "float32_tflops": 50.0},
        "rows": [*rows, {**rows[0], "provider": "broken", "problem": "exit code 9"}],
    }
    (tmp_path / "kernels-2000-01-01-some.json").write_text(json.dumps(document))
    monkeypatch.setattr(benchmark_module("results"), "RESULTS", tmp_path)
    everything = "\n".join(table.kernels_readme())
    assert all(case in everything for case in {row["case"] for row in rows})
    assert "exit code 9" in everything
    promised = "\n".join([*table.results(), *table.targets("cuda"), *table.targets("cpu")])
    assert "not reached" in promised and "✓" in promised
    assert (table.NO_GPU in promised) == (device == "cpu")
    assert ("nothing has been measured" in promised) == (device == "cpu")


def test_what_saturates_first_is_the_slowest_part(benchmark_module: Any) -> None:
    throughput = benchmark_module("throughput")
    flops = throughput.encoder_flops()
    # 12 layers of 8 d^2 + 4 d (C + P) / 2 multiply-adds a patch, and little beside them
    layers = 12 * (2 * 200 * 800 + 4 * 2 * 100 * 100 + 2 * 100 * (22 + 10))
    assert layers < flops / 2 / 220 < 1.1 * layers
    stages = {name: {"seconds": 1.0} for name in throughput.HOST_STAGES}
    slow, fast = (
        throughput.encoding({"torch_threads": 1, "recording_seconds": s, "stages": stages}, flops)
        for s in (1_000, 10_000_000)
    )
    assert [row["devices"] for row in slow] == [1, 8, 64]
    assert {row["saturates_first"] for row in slow} == {"host"}
    assert {row["saturates_first"] for row in fast} == {"reading"}
    assert slow[0]["seconds"]["host"] == pytest.approx(8 * slow[1]["seconds"]["host"])
    one, *_, many = throughput.training()
    assert one["seconds"] == one["seconds_with_a_report_for_each"]
    assert many["seconds"] > many["seconds_with_a_report_for_each"]
