"""The tuner, with kernels that note how they are launched and a clock that reads the settings."""

import json
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("triton")
from bioreport_kernels import configs, tune
from bioreport_kernels.compile_ahead import OPERATORS
from bioreport_kernels.gpu.launch import Case, launch

pytestmark = pytest.mark.untraced

CPU = torch.device("cpu")
SHIPPED = {
    "sm_90": {
        "sum": [
            {"dim": 64, "bits": 16, "BLOCK_T": 64, "num_warps": 4, "VALUES": 7},
            {"dim": 128, "bits": 16, "BLOCK_T": 64, "num_warps": 4},
            {"dim": 64, "bits": 32, "BLOCK_T": 64, "num_warps": 4},
        ],
        "merge": [{"dim": 512, "bits": 16, "BLOCK_S": 8}],
        "fixed": [{"dim": 512, "bits": 16, "BLOCK_F": 1}],
    }
}
CANDIDATES = {
    "sum": [{"BLOCK_T": t, "num_warps": w} for t in (32, 64, 128, 256, 999) for w in (4, 8)],
    "merge": [{"BLOCK_S": s} for s in (4, 8, 16)],
}


class Kernel:
    """Notes its launches; refuses one size, as a compiler would."""

    def __init__(self, name: str) -> None:
        self.name, self.launches = name, list[dict[str, int]]()

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def run(*_: Any, **options: Any) -> None:
            if options.get("BLOCK_T") == 999:
                raise RuntimeError("out of resource: shared memory")
            self.launches.append(options)
            clocked.append((self.name, options))

        return run


# What a call of the clock has launched.
clocked: list[tuple[str, dict[str, int]]] = []


def kernels() -> dict[str, Kernel]:
    return {name: Kernel(name) for name in ("sum", "merge", "fixed")}


def cases(found: dict[str, Kernel]) -> Iterator[Case]:
    def case(dim: int) -> Case:
        def run(device: torch.device) -> None:
            for name in found:
                launch(found[name], (4,), **configs.setting(name, dim, torch.float16, device))
            launch(found["sum"], (0,), **configs.setting("sum", dim, torch.float16, device))

        return Case("sums", dim, torch.float16, run)

    for dim in (25, 64, 128):
        yield case(dim)


def clock(launch: Callable[[], None]) -> float:
    """Shorter for longer blocks and, a little, for eight warps; merging takes much longer than summing."""
    clocked.clear()
    launch()
    ((name, options),) = clocked
    if name == "merge":
        return 100.0 + abs(options["BLOCK_S"] - 16)
    return 64.0 / options["BLOCK_T"] * (0.99 if options["num_warps"] == 8 else 1.0)


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(configs.VARIABLE, raising=False)
    for module in (configs, tune):
        monkeypatch.setattr(module, "shipped", lambda: SHIPPED)


def jobs() -> list[tune.Job]:
    return tune.jobs(cases(kernels()), CANDIDATES, CPU)


def test_jobs_are_the_entries_that_are_launched() -> None:
    found = {(job.kernel, job.shipped["dim"]): [case.dim for case in job.cases] for job in jobs()}
    assert found == {("sum", 64): [25, 64], ("sum", 128): [128], ("merge", 512): [25, 64, 128]}
    # nothing is launched to find out
    used = kernels()
    tune.jobs(cases(used), CANDIDATES, CPU)
    assert not any(kernel.launches for kernel in used.values())


def test_candidates_that_change_least_come_first_and_what_is_shipped_never() -> None:
    job = jobs()[0]
    tried = [(e["BLOCK_T"], e["num_warps"]) for e in job.candidates]
    assert sorted(tried) == sorted(
        (t, w) for t in (32, 64, 128, 256, 999) for w in (4, 8) if (t, w) != (64, 4)
    )
    assert {t for t, w in tried[:5] if w == 4} == {32, 128, 256, 999} and (64, 8) in tried[:5]


def test_the_fastest_that_runs_is_kept() -> None:
    work = jobs()
    lines = []
    tune.tune(work, CPU, clock, improved=lambda job: lines.append(str(job)))
    best = {(job.kernel, job.shipped["dim"]): job.best for job in work}
    # eight warps save 1 %: not enough
    assert best["sum", 64] == {"dim": 64, "bits": 16, "BLOCK_T": 256, "num_warps": 4, "VALUES": 7}
    assert best["sum", 128] == {"dim": 128, "bits": 16, "BLOCK_T": 256, "num_warps": 4}
    assert best["merge", 512] == {"dim": 512, "bits": 16, "BLOCK_S": 16}
    assert [job.refused for job in work if job.kernel == "sum"] == [2, 2]
    assert "sum, dim 64, 16 bits: 75% less time than as shipped with {'BLOCK_T': 256}" in lines
    assert next(job.share for job in work if job.kernel == "merge") == pytest.approx(100 / 108)


def test_a_drift_of_the_clock_favours_no_setting() -> None:
    work, now = jobs(), [1.0]

    def drifting(launch: Callable[[], None]) -> float:
        now[0] *= 0.99
        launch()
        return now[0]

    tune.tune(work, CPU, drifting)
    assert all(job.best == job.shipped for job in work)


def test_only_the_kernel_on_trial_is_timed_and_only_at_its_width() -> None:
    used = kernels()
    job = tune.jobs(cases(used), CANDIDATES, CPU)[0]
    assert (job.kernel, job.shipped["dim"]) == ("sum", 64)
    trial = {**job.shipped, "BLOCK_T": 32}
    # two cases of that width, each once
    assert tune.measure(job, trial, CPU, clock) == pytest.approx(2 * 2.0)
    assert [options["BLOCK_T"] for options in used["sum"].launches] == [32, 32]
    assert len(used["merge"].launches) == 2


def test_a_budget_stops_and_is_spent_on_all_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    work = jobs()
    tune.tune(work, CPU, clock, budget=0)
    assert all(job.best == job.shipped for job in work)
    now = [0.0]
    monkeypatch.setattr(tune.time, "monotonic", lambda: now[0])
    work, tried = jobs(), list[str]()

    def improve(job: tune.Job, *_: Any) -> bool:
        now[0] += 1
        tried.append(job.kernel)
        return False

    monkeypatch.setattr(tune, "improve", improve)
    tune.tune(work, CPU, clock, budget=5.5)
    assert sorted(tried) == ["merge", "merge", "sum", "sum", "sum", "sum"]


def test_other_entries_of_a_kernel_stay_beside_the_tuned() -> None:
    work = [job for job in jobs() if job.kernel == "sum"]
    tune.tune(work, CPU, clock)
    (kernel, entries), *rest = tune.tables(work, "sm_90")["sm_90"].items()
    assert kernel == "sum" and not rest
    assert [(e["dim"], e["bits"], e["BLOCK_T"]) for e in entries] == [
        (64, 16, 256),
        (128, 16, 256),
        (64, 32, 64),
    ]


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    used = kernels()
    module = SimpleNamespace(cases=lambda: cases(used), CANDIDATES=CANDIDATES)
    for owner, name, value in (
        (tune, "import_module", lambda name: module),
        (tune, "OPERATORS", ("sums",)),
        (tune, "seconds", clock),
        (torch.cuda, "is_available", lambda: True),
        (torch.cuda, "current_device", lambda: 0),
        (torch.cuda, "synchronize", lambda device: None),
        (torch.cuda, "get_device_name", lambda device: "H999"),
        (torch.cuda, "get_device_capability", lambda device: (9, 0)),
    ):
        monkeypatch.setattr(owner, name, value)
    path = tmp_path / "own.json"
    assert tune.main(["-o", str(path), "--operator", "sums", "--budget", "100"]) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["own.json"]
    assert list(json.loads(path.read_text())) == ["sm_90"]
    said = capsys.readouterr().err
    assert "3 entries of sm_90, on H999" in said and "3 of 3 entries faster than shipped" in said
    monkeypatch.setenv(configs.VARIABLE, str(path))
    assert configs.setting("sum", 25, torch.float16, CPU) == {"BLOCK_T": 256, "num_warps": 4, "VALUES": 7}
    with pytest.raises(SystemExit):
        tune.main(["-o", str(tmp_path / "none" / "own.json")])
    assert "no such folder" in capsys.readouterr().err


def test_without_a_gpu_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert tune.main(["-o", str(tmp_path / "own.json")]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and "CUDA" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_kernel_with_candidates_is_launched_by_a_case(
    operator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    module = import_module(f"bioreport_kernels.gpu.{operator}")
    found = tune.jobs(module.cases(), module.CANDIDATES, torch.device("meta"))
    assert {job.kernel for job in found} == set(module.CANDIDATES)
    for job in found:
        for candidate in module.CANDIDATES[job.kernel]:
            assert candidate.keys() <= job.shipped.keys(), (job.kernel, candidate)
