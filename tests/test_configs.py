"""Launch settings: which entry of which table a launch takes, and that the shipped tables are whole."""

import json
from pathlib import Path

import pytest
import torch

from bioreport_kernels import configs
from bioreport_kernels.configs import ARCHITECTURES, has_setting, setting, shipped, trying, watching

CPU = torch.device("cpu")
TABLES = {
    "sm_80": {"pool": [{"dim": 64, "bits": 16, "BLOCK_T": 8, "num_warps": 2, "num_stages": 1}]},
    "sm_90": {
        "pool": [
            {"dim": 128, "bits": 16, "BLOCK_T": 32, "num_warps": 8, "num_stages": 3},
            {"dim": 32, "bits": 16, "BLOCK_T": 128, "num_warps": 4, "num_stages": 4},
            {"dim": 64, "bits": 16, "BLOCK_T": 64, "num_warps": 4, "num_stages": 3},
            {"dim": 64, "bits": 32, "BLOCK_T": 16, "num_warps": 4, "num_stages": 2},
        ]
    },
}


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of a kernel that does not exist stand for the shipped ones; no file of the user's."""
    monkeypatch.delenv(configs.VARIABLE, raising=False)
    monkeypatch.setattr(configs, "shipped", lambda: TABLES)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the environment variable names."""
    path = tmp_path / "settings.json"
    monkeypatch.setenv(configs.VARIABLE, str(path))
    configs._own.cache_clear()
    return path


def block(dim: int, dtype: torch.dtype = torch.bfloat16) -> int:
    return setting("pool", dim, dtype, CPU)["BLOCK_T"]


def test_the_smallest_entry_that_is_wide_enough_is_taken() -> None:
    assert [block(dim) for dim in (1, 25, 32, 33, 64, 65, 128)] == [128, 128, 128, 64, 64, 32, 32]
    assert block(25, torch.float16) == 128
    assert setting("pool", 25, torch.float32, CPU) == {"BLOCK_T": 16, "num_warps": 4, "num_stages": 2}


@pytest.mark.parametrize(
    ("kernel", "dim", "dtype"), [("pool", 129, torch.float16), ("pool", 65, torch.float32)]
)
def test_what_no_entry_fits_is_named(kernel: str, dim: int, dtype: torch.dtype) -> None:
    assert not has_setting(kernel, dim, dtype, CPU) and has_setting(kernel, 1, dtype, CPU)
    bits = dtype.itemsize * 8
    with pytest.raises(
        ValueError, match=f"no launch setting for pool with dim {dim} and {bits} bits on sm_90"
    ):
        setting(kernel, dim, dtype, CPU)


@pytest.mark.parametrize(
    ("capability", "arch"),
    [
        ((8, 0), "sm_80"),
        ((8, 6), "sm_80"),
        ((8, 9), "sm_80"),
        ((9, 0), "sm_90"),
        ((10, 0), "sm_100"),
        ((12, 0), "sm_80"),
    ],
)
def test_each_gpu_has_a_table(
    capability: tuple[int, int], arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert configs.architecture(torch.device("cuda")) == arch
    with configs.assuming("sm_100"):
        assert configs.architecture(torch.device("cuda")) == "sm_100"
    assert configs.architecture(torch.device("cuda")) == arch


def test_an_architecture_can_be_assumed() -> None:
    with configs.assuming("sm_80"):
        assert block(25) == 8
        assert not has_setting("pool", 25, torch.float32, CPU)
    assert block(25) == 128


def test_own_file_comes_first_where_it_has_an_entry(own: Path) -> None:
    entry = {"dim": 64, "bits": 16, "BLOCK_T": 256, "num_warps": 4, "num_stages": 3}
    own.write_text(json.dumps({"sm_90": {"pool": [entry]}}))
    assert [block(25), block(64), block(128)] == [256, 256, 32]
    assert block(25, torch.float32) == 16
    with configs.assuming("sm_80"):
        assert block(25) == 8


@pytest.mark.parametrize(
    "text",
    [
        None,
        "{",
        "[]",
        '{"sm_90": []}',
        '{"sm_90": {"pool": {"dim": 64}}}',
        '{"sm_90": {"pool": [{"BLOCK_T": 64}]}}',
        '{"sm_90": {"pool": [{"dim": "64", "bits": 16}]}}',
    ],
)
def test_a_file_that_is_none_is_one_sentence(text: str | None, own: Path) -> None:
    if text is not None:
        own.write_text(text)
    with pytest.raises(ValueError) as raised:
        block(25)
    message = str(raised.value)
    assert message.startswith(f"{configs.VARIABLE}={own}: write one with python -m bioreport_kernels.tune")
    assert "\n" not in message


def test_settings_on_trial() -> None:
    with trying("pool", {"BLOCK_T": 1}):
        assert block(25) == block(500) == 1
        with trying("other", {"BLOCK_T": 2}):
            assert block(25) == 1
    with trying("pool", {"dim": 64, "bits": 16, "BLOCK_T": 3}):
        assert [block(25), block(64), block(128), block(64, torch.float32)] == [128, 3, 32, 16]
        assert setting("pool", 64, torch.float16, CPU) == {"BLOCK_T": 3}
    assert block(64) == 64


def test_what_is_looked_up_is_seen() -> None:
    with watching() as seen:
        block(25), block(64, torch.float32), has_setting("pool", 500, torch.float16, CPU)
    block(128)
    assert [(kernel, entry["dim"], entry["bits"]) for kernel, entry in seen] == [
        ("pool", 32, 16),
        ("pool", 64, 32),
    ]


def test_shipped_tables_are_whole() -> None:
    found = shipped()
    assert set(found) == set(ARCHITECTURES)
    kernels = {kernel for table in found.values() for kernel in table}
    for arch, table in found.items():
        assert set(table) == kernels, arch
        for kernel, entries in table.items():
            places = [(e["dim"], e["bits"]) for e in entries]
            assert entries and len(places) == len(set(places)), (arch, kernel)
            for entry in entries:
                assert all(isinstance(n, int) for n in entry.values()), (arch, kernel, entry)
                assert entry["bits"] in (16, 32) and entry["dim"] >= 1, (arch, kernel, entry)
                assert entry["num_warps"] in (1, 2, 4, 8, 16) and entry.get("num_stages", 1) >= 1, (
                    arch,
                    kernel,
                )
                blocks = [n for name, n in entry.items() if name.startswith("BLOCK_")]
                assert all(n > 0 and n & (n - 1) == 0 for n in blocks), (arch, kernel, entry)
    # and each file names each kernel once, in the file of one operator
    files = [
        json.loads(path.read_text()) for path in (Path(configs.__file__).parent / "settings").glob("*.json")
    ]
    named = [kernel for tables in files for kernel in tables["sm_80"]]
    assert len(named) == len(set(named)) and set(named) == kernels
