"""EDF file to epochs: the streamed pass beside MNE's steps on the whole recording, as CELM runs them.

    pytest benchmarks/bench_preprocess.py -o addopts= --benchmark-only --benchmark-group-by=group

BIOREPORT_BENCH_SECONDS sets the length of the recording (default 10,000 s: 22 channels at 256 Hz, 113 MB).
"""

import os
from collections.abc import Callable
from pathlib import Path

import edfio
import mne
import numpy as np
import pytest

from bioreport.montage import CELM_CHANNELS
from bioreport.preprocess import stream_epochs
from bioreport.recording import open_recording

SECONDS = int(os.environ.get("BIOREPORT_BENCH_SECONDS", "10000"))
SFREQ = 256


@pytest.fixture(scope="module")
def edf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("bench") / "long.edf"
    signals = [
        edfio.EdfSignal(
            rng.standard_normal(SECONDS * SFREQ) * 30,
            SFREQ,
            label=f"EEG {name}",
            physical_dimension="uV",
            physical_range=(-3200, 3200),
        )
        for name in CELM_CHANNELS
    ]
    edfio.Edf(signals).write(path)
    return path


def streamed(path: Path) -> int:
    return sum(len(batch) for batch in stream_epochs(open_recording(path), line_frequency=60.0))


def mne_steps(path: Path) -> int:
    with mne.use_log_level("ERROR"):
        raw = mne.io.read_raw_edf(path, preload=True)
        raw.rename_channels(lambda label: label.removeprefix("EEG "))
        raw.filter(0.1, 75.0)
        raw.notch_filter(60.0)
        raw.pick(list(CELM_CHANNELS))
        raw.resample(200)
    data = raw.get_data()
    return sum(data[:, i : i + 2000].copy().shape[1] == 2000 for i in range(0, data.shape[1], 2000))


@pytest.mark.benchmark(group="EDF to epochs")
@pytest.mark.parametrize("chain", [streamed, mne_steps])
def test_edf_to_epochs(benchmark: pytest.FixtureRequest, edf: Path, chain: Callable[[Path], int]) -> None:
    count = benchmark.pedantic(chain, args=(edf,), rounds=3, warmup_rounds=0)  # type: ignore[attr-defined]
    assert count == SECONDS // 10
    benchmark.extra_info["times_real_time"] = round(SECONDS / benchmark.stats.stats.median)  # type: ignore[attr-defined]
