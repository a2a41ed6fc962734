"""From a recording to epochs: filtered, at one rate, in a fixed order of channels, with masks.

The signal passes through once, in constant memory. Raw samples are gathered epoch by epoch, judged
(`bioreport.quality`), cleared of NaN and handed to the one response of `bioreport.filters`; what comes out
is cut into epochs again. Segments of a discontinuous recording are filtered apart and share no epoch.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from bioreport.errors import InputError
from bioreport.filters import OverlapSave, Response, design_response
from bioreport.line_noise import LineNoise, detect_line_frequency
from bioreport.montage import CELM_CHANNELS
from bioreport.quality import fill_invalid, usable_channels
from bioreport.stages import Stages

if TYPE_CHECKING:
    from bioreport.recording import Recording, Segment

__all__ = [
    "CELM",
    "EpochBatch",
    "EpochStream",
    "LineNoise",
    "PreprocessSpec",
    "detect_line_frequency",
    "preprocess_array",
    "stream_epochs",
]

# A one-second patch counts as signal where at least this share of it was recorded.
WHOLE_PATCH = 0.9
LEAST_FOR_AVERAGE = 8
EAR_LOBES = ("A1", "A2")


@dataclass(frozen=True)
class PreprocessSpec:
    """What an encoder wants to see.

    Attributes
    ----------
    channels : tuple of str
        Canonical names, in the encoder's order.
    sfreq : float
        Hz.
    low, high : float
        Pass-band, Hz.
    epoch_seconds, min_remainder_seconds : float
        Length of an epoch, and the shortest remainder that is kept as a masked epoch, s.
    reference : {"none", "average"}
        "average" subtracts, per epoch, the mean over the usable channels except the ear lobes where
        there are at least eight of them.
    """

    channels: tuple[str, ...] = CELM_CHANNELS
    sfreq: float = 200.0
    low: float = 0.1
    high: float = 75.0
    epoch_seconds: float = 10.0
    min_remainder_seconds: float = 5.0
    reference: Literal["none", "average"] = "none"

    @property
    def epoch_samples(self) -> int:
        return round(self.epoch_seconds * self.sfreq)

    @property
    def patches(self) -> int:
        """One-second patches in an epoch."""
        return round(self.epoch_seconds)


CELM = PreprocessSpec()
"""The preprocessing of CELM (Jathurshan0330/CELM, preprocess_eeg_3.py)."""


@dataclass
class EpochBatch:
    """Consecutive epochs of one recording.

    Attributes
    ----------
    data : ndarray of float32, shape (n_epochs, n_channels, epoch_samples)
        µV; zero where masked.
    channel_mask : ndarray of bool, shape (n_epochs, n_channels)
        True where the channel is present and usable (not absent, NaN, flat or saturated).
    patch_mask : ndarray of bool, shape (n_epochs, patches)
        True where the one-second patch holds signal; False at the tail of a short last epoch.
    start_seconds : ndarray of float64, shape (n_epochs,)
        Recording time; gaps of a discontinuous recording are counted.
    """

    data: np.ndarray
    channel_mask: np.ndarray
    patch_mask: np.ndarray
    start_seconds: np.ndarray

    def __len__(self) -> int:
        return len(self.data)


class EpochStream(Iterator[EpochBatch]):
    """Iterator over the epochs of a recording that knows beforehand what it will give.

    Attributes
    ----------
    n_epochs : int
    dropped_seconds : float
        Recorded time that enters no epoch: remainders and segments shorter than the spec's
        `min_remainder_seconds`, and the last part of a second of a kept remainder.
    line_frequency : float or None
        Mains frequency the notch was designed for, Hz; None where there is no notch.
    response : Response
    warnings : list of str
        Sentences about what was dropped or done differently, for the report.
    """

    def __init__(
        self,
        spec: PreprocessSpec,
        response: Response,
        n_epochs: int,
        dropped_seconds: float,
        warnings: list[str],
        batches: Iterator[EpochBatch],
    ) -> None:
        self.spec = spec
        self.response = response
        self.n_epochs = n_epochs
        self.dropped_seconds = dropped_seconds
        self.line_frequency = response.notches[0] if response.notches else None
        self.warnings = warnings
        self._batches = batches

    def __next__(self) -> EpochBatch:
        return next(self._batches)


def stream_epochs(
    recording: "Recording",
    spec: PreprocessSpec = CELM,
    *,
    line_frequency: float | None = None,
    chunk_seconds: float = 60.0,
    batch_epochs: int = 16,
    on_raw: "Callable[[Segment, int, np.ndarray], None] | None" = None,
    stages: Stages | None = None,
) -> EpochStream:
    """Filter, resample and cut a recording into epochs, in one pass and constant memory.

    The result does not depend on `chunk_seconds`.

    Parameters
    ----------
    recording : Recording
    spec : PreprocessSpec
    line_frequency : float, optional
        Mains frequency of the notch, Hz. If absent, that of the recording's sidecar, else the detected one;
        where none stands out there is nothing to remove and no notch is applied. CELM's own chain notches
        60 Hz always: pass 60.
    chunk_seconds : float
        Signal read at a time, s.
    batch_epochs : int
        Epochs in a batch; the last one may hold fewer.
    on_raw : callable, optional
        Called with (segment, first sample, data [recording.names, samples] in µV) for each chunk as read.
    stages : Stages, optional
        Where the seconds of reading count, as stage ``"read"``.

    Returns
    -------
    EpochStream
        Iterator of EpochBatch.

    Raises
    ------
    InputError
        If no channel of the spec is in the recording, no segment is as long as
        `spec.min_remainder_seconds`, or the sampling rate is too low for the pass-band.
    """
    rows = [(i, recording.names.index(n)) for i, n in enumerate(spec.channels) if n in recording.names]
    if not rows:
        raise InputError(
            recording.path,
            "none of its channels is a scalp position this model knows",
            "give a recording with 10-20 channel names such as Fp1, C3, O2",
        )
    if line_frequency is None:
        line_frequency = detect_line_frequency(recording).frequency
    response = _response(recording.path, recording.sfreq, spec, line_frequency)
    counts = [_epoch_count(response.output_length(s.stop - s.start), spec) for s in recording.segments]
    if not sum(counts):
        raise InputError(
            recording.path,
            f"no stretch of it is as long as {spec.min_remainder_seconds:g} s",
            f"give a recording of at least {spec.min_remainder_seconds:g} s without gaps",
        )
    warnings = []
    if response.high < spec.high:
        warnings.append(
            f"The recording has {recording.sfreq:g} Hz: its low-pass is at {response.high:.3g} Hz, "
            f"not at {spec.high:g} Hz."
        )
    lengths = [response.output_length(s.stop - s.start) / spec.sfreq for s in recording.segments]
    dropped = sum(_dropped_seconds(seconds, spec) for seconds in lengths)
    if dropped >= 0.05:
        warnings.append(f"{dropped:.1f} s at the ends of segments are too short for an epoch and left out.")
    raw = (stages or Stages()).each("read", recording.stream(chunk_seconds))
    epochs = _epochs(recording, spec, response, rows, counts, raw, on_raw)
    batches = _batched(epochs, spec, rows, batch_epochs)
    return EpochStream(spec, response, sum(counts), dropped, warnings, batches)


def preprocess_array(
    data_uv: np.ndarray, sfreq: float, spec: PreprocessSpec = CELM, line_frequency: float | None = None
) -> np.ndarray:
    """Filter and resample an array in one piece, with the arithmetic of `stream_epochs`.

    Parameters
    ----------
    data_uv : ndarray, shape (n_channels, n_samples)
        µV; NaN is bridged by straight lines.
    sfreq : float
        Hz.
    spec : PreprocessSpec
        Its channels, epochs and reference play no part here.
    line_frequency : float, optional
        Mains frequency of the notch, Hz; none if absent.

    Returns
    -------
    ndarray of float64, shape (n_channels, round(n_samples * spec.sfreq / sfreq))
        µV.
    """
    data = np.array(data_uv, np.float64)
    response = _response("array", sfreq, spec, line_frequency)
    fill_invalid(data, np.full(len(data), np.nan))
    engine = OverlapSave(response, len(data))
    return np.concatenate([*engine.push(data), *engine.flush()], axis=1)


def _response(path: object, sfreq: float, spec: PreprocessSpec, line_frequency: float | None) -> Response:
    try:
        return design_response(
            sfreq, low=spec.low, high=spec.high, sfreq_out=spec.sfreq, line_frequency=line_frequency
        )
    except ValueError as error:
        raise InputError(
            str(path), f"cannot be filtered ({error})", "give a recording sampled at 100 Hz or more"
        ) from error


def _patch_count(n_samples: int, spec: PreprocessSpec) -> int:
    """Patches that hold signal in an epoch of which `n_samples` (output rate) were recorded."""
    patch = spec.epoch_samples / spec.patches
    return min(int(n_samples / patch + 1 - WHOLE_PATCH), spec.patches)


def _epoch_count(n_samples: int, spec: PreprocessSpec) -> int:
    whole, remainder = divmod(n_samples, spec.epoch_samples)
    return whole + (remainder / spec.sfreq >= spec.min_remainder_seconds)


def _dropped_seconds(seconds: float, spec: PreprocessSpec) -> float:
    remainder = seconds % spec.epoch_seconds
    if remainder >= spec.min_remainder_seconds:
        return max(remainder - _patch_count(round(remainder * spec.sfreq), spec), 0.0)
    return remainder


@dataclass
class _Epoch:
    data: np.ndarray  # [present channels, up to epoch_samples], µV
    usable: np.ndarray  # [present channels]
    start_seconds: float


def _epochs(
    recording: "Recording",
    spec: PreprocessSpec,
    response: Response,
    rows: list[tuple[int, int]],
    counts: list[int],
    raw: "Iterator[tuple[Segment, int, np.ndarray]]",
    on_raw: "Callable[[Segment, int, np.ndarray], None] | None",
) -> Iterator[_Epoch]:
    engine = OverlapSave(response, len(rows))
    work = _SegmentWork(recording.sfreq, spec, engine, len(rows))
    source = [row for _, row in rows]
    current: Segment | None = None
    wanted = dict(zip(recording.segments, counts, strict=True))
    for segment, start, chunk in raw:
        if on_raw is not None:
            on_raw(segment, start, chunk)
        if segment != current:
            if current is not None and wanted[current]:
                yield from work.finish(wanted[current])
            current = segment
            work.begin(segment.onset_seconds)
        if wanted[segment]:
            yield from work.push(chunk, source)
    if current is not None and wanted[current]:
        yield from work.finish(wanted[current])


class _SegmentWork:
    """Raw chunks of a segment in, epochs of it out."""

    def __init__(self, sfreq: float, spec: PreprocessSpec, engine: OverlapSave, n_rows: int) -> None:
        self.sfreq, self.spec, self.engine = sfreq, spec, engine
        self.raw = np.empty((n_rows, int(np.ceil(spec.epoch_seconds * sfreq)) + 1))
        self.out = np.empty((n_rows, spec.epoch_samples), np.float32)

    def begin(self, onset_seconds: float) -> None:
        self.engine.reset()
        self.onset_seconds = onset_seconds
        self.last = np.full(len(self.raw), np.nan)
        self.baseline = np.full(len(self.raw), np.nan)
        self.usable: deque[np.ndarray] = deque()
        self.n_judged = self.n_given = self.raw_fill = self.out_fill = 0

    def push(self, chunk: np.ndarray, source: list[int]) -> Iterator[_Epoch]:
        taken = 0
        while taken < chunk.shape[1]:
            length = self._border(self.n_judged + 1) - self._border(self.n_judged)
            count = min(length - self.raw_fill, chunk.shape[1] - taken)
            for target, row in enumerate(source):
                self.raw[target, self.raw_fill : self.raw_fill + count] = chunk[row, taken : taken + count]
            self.raw_fill += count
            taken += count
            if self.raw_fill == length:
                yield from self._judge()

    def finish(self, n_epochs: int) -> Iterator[_Epoch]:
        if self.raw_fill:
            yield from self._judge()
        for piece in self.engine.flush():
            yield from self._cut(piece)
        if self.n_given < n_epochs:
            yield self._give()

    def _border(self, epoch: int) -> int:
        # falls between samples at rates such as 199.98 Hz
        return round(epoch * self.spec.epoch_seconds * self.sfreq)

    def _judge(self) -> Iterator[_Epoch]:
        raw = self.raw[:, : self.raw_fill]
        self.usable.append(usable_channels(raw, self.sfreq))
        fill_invalid(raw, self.last)
        # The response has no gain at 0 Hz, so an offset may go: it would be a step after a stretch without
        # any valid sample, and at the end of a segment too short to be reflected over the whole response.
        begun = np.isfinite(self.last) & np.isnan(self.baseline)
        self.baseline[begun] = raw[begun, 0]
        raw -= np.nan_to_num(self.baseline)[:, None]
        self.n_judged += 1
        self.raw_fill = 0
        for piece in self.engine.push(raw):
            yield from self._cut(piece)

    def _cut(self, piece: np.ndarray) -> Iterator[_Epoch]:
        taken = 0
        while taken < piece.shape[1]:
            count = min(self.out.shape[1] - self.out_fill, piece.shape[1] - taken)
            self.out[:, self.out_fill : self.out_fill + count] = piece[:, taken : taken + count]
            self.out_fill += count
            taken += count
            if self.out_fill == self.out.shape[1]:
                yield self._give()

    def _give(self) -> _Epoch:
        start = self.onset_seconds + self.n_given * self.spec.epoch_seconds
        epoch = _Epoch(self.out[:, : self.out_fill], self.usable.popleft(), start)
        self.n_given += 1
        self.out_fill = 0
        return epoch


def _batched(
    epochs: Iterator[_Epoch], spec: PreprocessSpec, rows: list[tuple[int, int]], batch_epochs: int
) -> Iterator[EpochBatch]:
    target = [channel for channel, _ in rows]
    count = 0
    for epoch in epochs:
        if not count:
            batch = EpochBatch(
                np.zeros((batch_epochs, len(spec.channels), spec.epoch_samples), np.float32),
                np.zeros((batch_epochs, len(spec.channels)), bool),
                np.zeros((batch_epochs, spec.patches), bool),
                np.zeros(batch_epochs),
            )
        patches = _patch_count(epoch.data.shape[1], spec)
        samples = min(round(patches * spec.epoch_samples / spec.patches), epoch.data.shape[1])
        for row, channel in enumerate(target):
            if epoch.usable[row]:
                batch.data[count, channel, :samples] = epoch.data[row, :samples]
                batch.channel_mask[count, channel] = True
        if spec.reference == "average":
            _average_reference(batch.data[count, :, :samples], batch.channel_mask[count], spec.channels)
        batch.patch_mask[count, :patches] = True
        batch.start_seconds[count] = epoch.start_seconds
        count += 1
        if count == batch_epochs:
            yield batch
            count = 0
    if count:
        arrays = (batch.data, batch.channel_mask, batch.patch_mask, batch.start_seconds)
        yield EpochBatch(*(array[:count] for array in arrays))


def _average_reference(data: np.ndarray, usable: np.ndarray, names: Sequence[str]) -> None:
    scalp = usable & np.array([name not in EAR_LOBES for name in names])
    if scalp.sum() >= LEAST_FOR_AVERAGE:
        data[usable] -= data[scalp].mean(axis=0)
