"""Epochs: equal to the published chain, independent of the pieces, honest about what is missing."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from bioreport.errors import InputError
from bioreport.montage import CELM_CHANNELS
from bioreport.preprocess import (
    CELM,
    EpochBatch,
    EpochStream,
    PreprocessSpec,
    preprocess_array,
    stream_epochs,
)


@dataclass(frozen=True)
class Stretch:
    start: int
    stop: int
    onset_seconds: float


@dataclass
class Memory:
    """A recording in memory, with gaps where a test wants them."""

    data: np.ndarray
    sfreq: float = 256.0
    names: tuple[str, ...] = CELM_CHANNELS
    segments: tuple[Stretch, ...] = ()
    line_frequency: float | None = None
    path: Path = field(default=Path("memory"))

    def __post_init__(self) -> None:
        self.n_samples = self.data.shape[1]
        self.segments = self.segments or (Stretch(0, self.n_samples, 0.0),)
        self.names = self.names[: len(self.data)]

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.data[:, start:stop].copy()

    def stream(self, chunk_seconds: float = 60.0) -> Iterator[tuple[Stretch, int, np.ndarray]]:
        step = max(1, round(chunk_seconds * self.sfreq))
        for segment in self.segments:
            for start in range(segment.start, segment.stop, step):
                yield segment, start, self.read(start, min(start + step, segment.stop))


def eeg(seconds: float, channels: int = 3, sfreq: float = 256.0, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * sfreq)) / sfreq
    slow = rng.standard_normal((channels, len(time))).cumsum(axis=1) * 0.3
    return slow + 20 * np.sin(2 * np.pi * 10 * time) + rng.standard_normal((channels, len(time)))


def epochs(recording: object, spec: PreprocessSpec = CELM, **options: object) -> EpochBatch:
    batches = list(stream_epochs(recording, spec, **options))  # type: ignore[arg-type]
    return EpochBatch(
        *(np.concatenate([getattr(b, name) for b in batches]) for name in EpochBatch.__dataclass_fields__)
    )


def open_stream(recording: object, **options: object) -> EpochStream:
    return stream_epochs(recording, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("chunk_seconds", [1, 7, 60, 1e6])
@pytest.mark.parametrize("name", ["celm_pre", "celm_pre_missing"])
def test_equals_the_published_chain(
    reference_file: Callable[[str], Path], tmp_path: Path, name: str, chunk_seconds: float
) -> None:
    from bioreport.recording import open_recording

    source = shutil.copy(reference_file(f"{name}.edf"), tmp_path / "sub-1_eeg.edf")
    if name == "celm_pre_missing":
        rows = ["name\ttype\tunits\tstatus", "T5\tEEG\tuV\tbad", "Cz\tEEG\tuV\tgood"]
        (tmp_path / "sub-1_channels.tsv").write_text("\n".join(rows) + "\n")
    expected = load_file(reference_file(f"{name}.safetensors"))["out/segments_volts"] * 1e6
    result = epochs(open_recording(source), line_frequency=60.0, chunk_seconds=chunk_seconds)
    present = expected.any(axis=(0, 2))
    np.testing.assert_array_equal(result.channel_mask.all(axis=0), present)
    whole = result.patch_mask.all(axis=1)
    assert whole.sum() == len(expected)
    error = np.sqrt(
        ((result.data[whole] - expected) ** 2).mean(axis=(1, 2)) / (expected**2).mean(axis=(1, 2))
    )
    assert error.max() < 1e-3
    assert not result.data[:, ~present].any()


@pytest.mark.parametrize("sfreq", [100, 128, 160, 199.98, 200, 250, 256, 500, 512, 1000, 2048])
def test_stream_equals_one_piece(sfreq: float) -> None:
    data = eeg(83.4, sfreq=sfreq)
    whole = preprocess_array(data, sfreq, line_frequency=50.0)
    assert whole.shape == (3, round(data.shape[1] * 200 / sfreq))
    for chunk_seconds in (1, 7, 60, 1000):
        result = epochs(Memory(data, sfreq), line_frequency=50.0, chunk_seconds=chunk_seconds)
        joined = np.concatenate(list(result.data[:8, :3]), axis=1)
        assert np.abs(joined - whole[:, :16_000]).max() < 1e-6 * whole.std(axis=1).min()


def test_result_is_bit_equal_whatever_the_pieces_even_with_nan() -> None:
    data = eeg(65)
    data[0, 3000:3300] = np.nan
    data[1, :2800] = np.nan
    data[2, 9000:14000] = np.nan
    first = epochs(Memory(data), chunk_seconds=1000)
    for chunk_seconds in (0.7, 1, 7, 60):
        other = epochs(Memory(data), chunk_seconds=chunk_seconds, batch_epochs=3)
        for name in EpochBatch.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(other, name), getattr(first, name))


def test_absent_channels_are_masked_and_zero_and_order_is_the_specs() -> None:
    names = ("O2", "Fp1", "Oz")
    data = eeg(20)
    result = epochs(Memory(data, names=names))
    assert result.data.shape == (2, 22, 2000)
    assert result.data.dtype == np.float32
    present = [CELM_CHANNELS.index("O2"), CELM_CHANNELS.index("Fp1")]
    assert np.flatnonzero(result.channel_mask[0]).tolist() == sorted(present)
    np.testing.assert_array_equal(np.flatnonzero(result.data.any(axis=(0, 2))), sorted(present))
    single = epochs(Memory(data[:1], names=("O2",)), line_frequency=None)
    np.testing.assert_allclose(result.data[:, present[0]], single.data[:, present[0]], atol=1e-4)


@pytest.mark.parametrize(
    ("seconds", "count", "patches", "dropped"),
    [
        (10, 1, 10, 0), (14.9, 1, 10, 4.9), (15, 2, 5, 0), (17.5, 2, 7, 0.5), (5, 1, 5, 0),
        (9.96, 1, 10, 0), (24.99, 2, 10, 4.99), (29.95, 3, 10, 0),
    ],
)  # fmt: skip
def test_remainder(seconds: float, count: int, patches: int, dropped: float) -> None:
    recording = Memory(eeg(seconds))
    stream = open_stream(recording)
    result = epochs(recording)
    assert stream.n_epochs == len(result) == count
    assert result.patch_mask[:-1].all()
    np.testing.assert_array_equal(result.patch_mask[-1], np.arange(10) < patches)
    assert not result.data[-1, :, patches * 200 :].any()
    assert result.data[-1, 0, : min(patches, 9) * 200].all()
    assert stream.dropped_seconds == pytest.approx(dropped, abs=0.02)
    assert bool(stream.warnings) == (dropped > 0)


def test_left_out_seconds_are_told() -> None:
    stream = open_stream(Memory(eeg(33)))
    assert stream.warnings == ["3.0 s at the ends of segments are too short for an epoch and left out."]


@pytest.mark.parametrize("seconds", [0.01, 1, 4.9])
def test_shorter_than_five_seconds_is_refused(seconds: float) -> None:
    with pytest.raises(InputError, match="5 s"):
        open_stream(Memory(eeg(seconds)))


def test_no_known_channel_is_refused() -> None:
    with pytest.raises(InputError, match="scalp position"):
        open_stream(Memory(eeg(20), names=("B1", "B2", "B3")))


def test_rate_too_low_for_any_band_is_refused() -> None:
    with pytest.raises(InputError, match="cannot be filtered"):
        open_stream(Memory(eeg(20, sfreq=0.2), sfreq=0.2))
    with pytest.raises(InputError, match="cannot be filtered"):
        preprocess_array(eeg(20), 256.0, replace(CELM, high=99.0, sfreq=100.0))


def test_gaps_are_not_crossed() -> None:
    data = eeg(61)
    cut, short = 33 * 256, 36 * 256
    segments = (Stretch(0, cut, 0.0), Stretch(cut, short, 100.0), Stretch(short, data.shape[1], 200.0))
    recording = Memory(data, segments=segments)
    stream = open_stream(recording)
    result = epochs(recording)
    assert result.start_seconds.tolist() == [0, 10, 20, 200, 210, 220]
    assert result.patch_mask.sum(axis=1).tolist() == [10, 10, 10, 10, 10, 5]
    assert stream.dropped_seconds == pytest.approx(6)
    alone = epochs(Memory(data[:, short:]))
    np.testing.assert_array_equal(result.data[3:], alone.data)


def test_lowered_low_pass_is_reported() -> None:
    stream = open_stream(Memory(eeg(20, sfreq=128), sfreq=128))
    assert "51.2 Hz" in stream.warnings[0]


def test_nan_stays_where_it_is() -> None:
    data = eeg(60) + np.array([[0], [0], [30_000]])
    broken = data.copy()
    broken[0, 5200:7000] = np.nan
    broken[1, 5200:5210] = np.nan
    broken[2, :5120] = np.nan
    clean, result = epochs(Memory(data)), epochs(Memory(broken))
    assert np.isfinite(result.data).all()
    rows = result.channel_mask[:, :3].T.tolist()
    assert rows[0] == [True, True, False, True, True, True]
    assert rows[1] == [True] * 6
    assert rows[2] == [False, False, True, True, True, True]
    assert not result.data[2, 0].any()
    # a line over the gap, so that later epochs keep what they were, slow waves of the gap apart
    np.testing.assert_allclose(result.data[5, 0], clean.data[5, 0], atol=1.0)
    np.testing.assert_allclose(result.data[5, 2], clean.data[5, 2], atol=1.0)
    np.testing.assert_allclose(result.data[:, 1], clean.data[:, 1], atol=25.0)
    np.testing.assert_allclose(result.data[3:, 1], clean.data[3:, 1], atol=0.1)


def test_flat_and_saturated_epochs_are_masked_one_by_one() -> None:
    data = eeg(40)
    data[0, 2560:5120] = data[0, 2560]
    data[1, :2560] = data[1, :2560].clip(-5, 5)
    result = epochs(Memory(data))
    assert result.channel_mask[:, :3].T.tolist() == [
        [True, False, True, True],
        [False, True, True, True],
        [True, True, True, True],
    ]
    assert not result.data[1, 0].any()


def test_average_reference_leaves_ears_and_unusable_channels_out() -> None:
    data = eeg(20, channels=22)
    data += 100 * np.sin(2 * np.pi * 7 * np.arange(data.shape[1]) / 256)
    data[3] = 5.0
    plain = epochs(Memory(data))
    result = epochs(Memory(data), replace(CELM, reference="average"))
    scalp = [i for i, name in enumerate(CELM_CHANNELS) if name not in ("A1", "A2") and i != 3]
    np.testing.assert_allclose(result.data[:, scalp].mean(axis=1), 0, atol=1e-3)
    mean = plain.data[:, scalp].mean(axis=1)
    np.testing.assert_allclose(result.data[:, 21], plain.data[:, 21] - mean, atol=1e-3)
    assert not result.data[:, 3].any()


def test_average_reference_needs_eight_channels() -> None:
    data = eeg(20, channels=7)
    average = epochs(Memory(data), replace(CELM, reference="average"))
    np.testing.assert_array_equal(average.data, epochs(Memory(data)).data)


def test_notch_follows_option_then_sidecar_then_signal() -> None:
    data = eeg(40)
    mains = data + 10 * np.sin(2 * np.pi * 50 * np.arange(data.shape[1]) / 256)
    assert open_stream(Memory(data)).line_frequency is None
    assert open_stream(Memory(mains)).line_frequency == 50
    assert open_stream(Memory(mains, line_frequency=60.0)).line_frequency == 60
    assert open_stream(Memory(mains, line_frequency=60.0), line_frequency=50.0).line_frequency == 50
    clean, noisy = epochs(Memory(data), line_frequency=50.0), epochs(Memory(mains))
    np.testing.assert_allclose(noisy.data[1], clean.data[1], atol=0.05)


def test_on_raw_sees_every_sample_unchanged() -> None:
    data = eeg(43)
    data[0, 100:200] = np.nan
    segments = (Stretch(0, 3 * 256, 0.0), Stretch(3 * 256, data.shape[1], 50.0))
    seen: list[tuple[Stretch, int, np.ndarray]] = []
    epochs(Memory(data, segments=segments), on_raw=lambda *call: seen.append(call), chunk_seconds=7)  # type: ignore
    assert [start for _, start, _ in seen][:3] == [0, 768, 768 + 7 * 256]
    assert {segment.onset_seconds for segment, _, _ in seen} == {0.0, 50.0}
    np.testing.assert_array_equal(np.concatenate([chunk for *_, chunk in seen], axis=1), data)


def test_other_encoders_other_epochs() -> None:
    spec = PreprocessSpec(
        channels=("Fp1", "C3"), sfreq=100.0, high=40.0, epoch_seconds=4.0, min_remainder_seconds=2.0
    )
    result = epochs(Memory(eeg(10, channels=22)), spec)
    assert result.data.shape == (3, 2, 400)
    assert result.patch_mask.sum(axis=1).tolist() == [4, 4, 2]


def test_from_array_recording() -> None:
    from bioreport.recording import Recording

    data = eeg(31, channels=22)
    result = epochs(Recording.from_array(data, 256.0, CELM_CHANNELS))
    np.testing.assert_allclose(result.data, epochs(Memory(data)).data, atol=1e-3)
