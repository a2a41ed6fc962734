"""Band powers: CELM's numbers, bounded memory, and a text that says what it holds."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

from bioreport import statistics
from bioreport.statistics import BANDS, BandPowerStatistics, band_power, bandpower_segments

SPEC = SimpleNamespace(channels=("C3", "O1", "Fz"), sfreq=200.0, epoch_seconds=10.0)


@pytest.fixture(scope="module")
def published(reference_file: Callable[[str], Path]) -> dict[str, np.ndarray]:
    return load_file(reference_file("celm_statistics.safetensors"))


@pytest.mark.parametrize("scale", ["volts", "uv"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rel_pool10", {"pool": 10}),
        ("rel_pool10_unrounded", {"pool": 10, "decimals": None}),
        ("rel", {}),
        ("rel_unrounded", {"decimals": None}),
        ("abs", {"relative": False}),
        ("abs_unrounded", {"relative": False, "decimals": None}),
    ],
)
def test_equals_celm(published, scale, name, options):
    wanted = published[f"out/{scale}/{name}"]
    got = bandpower_segments(published[f"in/{scale}_div100"], 200.0, **options)
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    # a float32 sum in another order can turn one rounding, so a rounded value may differ by its last digit
    tolerance = 2e-4 if options.get("decimals", 1) is None else 0.101
    assert np.abs(got - wanted).max() <= tolerance
    if tolerance > 0.1:
        assert np.mean(np.abs(got - wanted) > 1e-4) < 0.002


def test_linear_power_equals_celm_in_float64(published):
    for scale in ("volts", "uv"):
        got = band_power(published[f"in/{scale}_div100"].astype(np.float64), 200.0, relative=False)
        np.testing.assert_allclose(got, published[f"out/{scale}/band_power_linear_float64"], rtol=1e-6)


def test_a_sine_lies_in_its_band():
    t = np.arange(2000) / 200
    power = band_power(np.sin(2 * np.pi * 10 * t)[None, None] * 50, 200.0)
    assert power[0, 0, list(BANDS).index("alpha")] == pytest.approx(1, abs=0.01)


def test_fewer_epochs_than_a_pool_give_none():
    assert bandpower_segments(np.ones((9, 3, 2000)), pool=10).shape == (0, 3, 5)


def batch(epochs: int, rng: np.random.Generator) -> SimpleNamespace:
    mask = np.ones((epochs, 3), bool)
    mask[:, 2] = False
    data = rng.normal(size=(epochs, 3, 2000)).astype(np.float32) * 20
    data[:, 2] = 0
    return SimpleNamespace(data=data, channel_mask=mask, patch_mask=np.ones((epochs, 10), bool))


def test_streaming_equals_one_piece():
    rng = np.random.default_rng(0)
    whole = batch(25, rng)
    streamed = BandPowerStatistics(SPEC)
    for first in range(0, 25, 4):
        part = slice(first, first + 4)
        streamed.update(
            SimpleNamespace(
                data=whole.data[part],
                channel_mask=whole.channel_mask[part],
                patch_mask=whole.patch_mask[part],
            )
        )
    wanted = bandpower_segments(whole.data / 100, pool=10, decimals=None)
    got = statistics.decibels(np.stack(streamed.pools))
    np.testing.assert_allclose(got[:, :2], wanted[:, :2], atol=1e-4)
    assert np.isnan(got[:, 2]).all()


def test_memory_is_bounded_and_the_mean_is_kept(monkeypatch):
    monkeypatch.setattr(statistics, "MAX_POOLS", 4)
    streamed = BandPowerStatistics(SPEC)
    streamed._pool = lambda: np.full((3, 5), len(seen))  # type: ignore[method-assign]
    seen: list[int] = []
    one = batch(1, np.random.default_rng(0))
    for epoch in range(160):
        if epoch % 10 == 9:
            seen.append(epoch)
        streamed.update(one)
        assert len(streamed.pools) < 4 and len(streamed.epochs) < 10 and len(streamed.wide) < streamed.width
    assert streamed.width == 8
    assert [float(pool[0, 0]) for pool in streamed.pools] == [4.5, 12.5]


def test_text_names_unit_bands_time_and_only_usable_channels():
    streamed = BandPowerStatistics(SPEC)
    streamed.update(batch(20, np.random.default_rng(0)))
    lines = streamed.text().splitlines()
    assert "Relative" in lines[0] and "dB" in lines[0] and "alpha 8-13 Hz" in lines[0]
    assert lines[1] == "0-100 s" and lines[4] == "100-200 s"
    assert lines[2].startswith("C3 ") and lines[3].startswith("O1 ") and len(lines[2].split()) == 6
    assert not any(line.startswith("Fz") for line in lines)


def test_a_short_recording_still_has_its_numbers():
    streamed = BandPowerStatistics(SPEC)
    assert streamed.text() == ""
    streamed.update(batch(3, np.random.default_rng(0)))
    assert streamed.text().splitlines()[1] == "0-30 s"


def test_text_stays_short_for_a_long_recording():
    streamed = BandPowerStatistics(SPEC)
    streamed.pools = [np.full((3, 5), 0.2)] * 90
    lines = streamed.text().splitlines()
    assert [line for line in lines if line.endswith(" s")][-1] == "6400-9000 s"
    assert 2 <= sum(line.endswith(" s") for line in lines) <= statistics.MAX_TEXT_POOLS
