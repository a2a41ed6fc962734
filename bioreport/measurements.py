"""What is measured on the signal itself, so that no number in a report is invented.

`Measurer` is fed while the recording streams through preprocessing and keeps a bounded number of epoch
spectra, so its memory does not depend on the length of the recording.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bioreport import channel_quality, rhythm
from bioreport.montage import REGIONS

if TYPE_CHECKING:
    from bioreport.preprocess import EpochBatch, LineNoise, PreprocessSpec
    from bioreport.recording import Recording, Segment

BANDS = {"delta": (1.0, 4.0), "theta": (4.0, 8.0), "alpha": (8.0, 13.0), "beta": (13.0, 30.0)}
KEPT_EPOCHS = 256  # at least half as many stay once the recording is longer
ARTIFACT_UV = 1000.0  # no scalp rhythm reaches this; an epoch that does is not measured
LAG_SECONDS = 0.025
MAINS_RATIO = 20.0  # power at the mains frequency over its neighbours, seen by eye
ASYMMETRY_PERCENT = 45.0  # a side-to-side difference below this is common in health


class Measurer:
    """Measures one recording while it streams; constant memory.

    Parameters
    ----------
    recording : Recording
        The file that is read; its names and duration are used, no sample.
    spec : PreprocessSpec
        What the epochs are made with.
    line : LineNoise
        Mains peak per channel before any filter.

    Notes
    -----
    Beyond `KEPT_EPOCHS` epochs every second one is dropped and from then on only every second one kept (and
    so on): what remains is spread evenly over the whole recording.
    """

    def __init__(self, recording: "Recording", spec: "PreprocessSpec", line: "LineNoise") -> None:
        self.recording = recording
        self.names = tuple(spec.channels)
        self.sfreq = float(spec.sfreq)
        self.line = line
        self.raw = channel_quality.RawQuality(len(recording.names), recording.sfreq)
        self.freqs = rhythm.frequencies(self.sfreq)
        shape = (KEPT_EPOCHS, len(self.names))
        self.spectra = np.zeros((*shape, len(self.freqs)), np.float32)
        self.averaged = np.zeros_like(self.spectra)  # the same on the average reference
        self.spread = np.zeros(shape, np.float32)
        self.correlation = np.zeros(shape, np.float32)
        self.usable = np.zeros(shape, bool)
        self.kept = 0
        self.seen = 0
        self.stride = 1
        self.mask_count = np.zeros(len(self.names), np.int64)
        self.usable_seconds = 0.0

    def on_raw(self, segment: "Segment", start: int, chunk: np.ndarray) -> None:
        """Count one unfiltered chunk, float64 [len(recording.names), n] in µV."""
        self.raw.update(chunk)

    def update(self, batch: "EpochBatch") -> None:
        """Measure a batch of filtered epochs."""
        data = batch.data
        largest = np.maximum(data.max(axis=2), -data.min(axis=2))
        usable = batch.channel_mask & (largest < ARTIFACT_UV)
        self.mask_count += batch.channel_mask.sum(axis=0)
        present = max(1, sum(name in self.names for name in self.recording.names))
        enough = usable.sum(axis=1) >= 0.5 * present
        self.usable_seconds += float(batch.patch_mask[enough].sum())
        wanted = [i for i in range(len(data)) if (self.seen + i) % self.stride == 0]
        self.seen += len(data)
        if not wanted:
            return
        reference = rhythm.average_reference(data[wanted], usable[wanted], self.names)
        spectra, averaged_spectra = rhythm.epoch_spectra(
            data[wanted], reference, batch.patch_mask[wanted], self.sfreq
        )
        spread, correlation = _spread_and_correlation(data[wanted], round(LAG_SECONDS * self.sfreq))
        for i, epoch in enumerate(wanted):
            if (self.seen - len(data) + epoch) % self.stride == 0:
                self._keep(spectra[i], averaged_spectra[i], spread[i], correlation[i], usable[epoch])

    def _keep(self, *epoch: np.ndarray) -> None:
        arrays: list[np.ndarray] = [self.spectra, self.averaged, self.spread, self.correlation, self.usable]
        if self.kept == KEPT_EPOCHS:
            for array in arrays:
                array[: KEPT_EPOCHS // 2] = array[::2].copy()
            self.kept //= 2
            self.stride *= 2
        for array, values in zip(arrays, epoch, strict=True):
            array[self.kept] = values
        self.kept += 1

    def result(self) -> dict[str, Any]:
        """All measurements as plain JSON values; None where nothing could be measured."""
        names = list(self.recording.names)
        n = self.kept
        spectra, usable = self.spectra[:n], self.usable[:n].copy()
        usable &= spectra.max(axis=2, initial=0) > 0
        flat = [name for name, bad in zip(names, self.raw.flat(), strict=True) if bad]
        saturated = [name for name, bad in zip(names, self.raw.saturated(), strict=True) if bad]
        judged = usable & np.array([name not in flat and name not in saturated for name in self.names])
        noisy_rows = channel_quality.noisy(self.spread[:n], self.correlation[:n], judged, self.names)
        # present and neither flat nor clipped, yet preprocessing took it out of most epochs: beyond any EEG
        masked = self.mask_count < 0.5 * max(self.seen, 1)
        lost = {name for name, bad in zip(self.names, masked, strict=True) if bad and name in names}
        noisy = [name for name, bad in zip(self.names, noisy_rows, strict=True) if bad or name in lost]
        noisy = [name for name in noisy if name not in flat and name not in saturated]
        judged &= ~noisy_rows
        bad = {*flat, *saturated, *noisy}
        readable = sum(name not in bad for name in names) >= 0.5 * len(names)
        return {
            "duration_seconds": round(float(self.recording.duration_seconds), 2),
            "usable_seconds": round(self.usable_seconds, 1) if readable else 0.0,
            "channels_present": names,
            "channels_absent": [name for name in self.names if name not in names],
            "channels_flat": flat,
            "channels_saturated": saturated,
            "channels_noisy": noisy,
            "mains": self._mains(),
            "posterior_rhythm": rhythm.posterior_rhythm(
                spectra, self.averaged[:n], judged, self.names, self.freqs
            ),
            "band_power_percent": self._bands(spectra, judged),
        }

    def _mains(self) -> dict[str, Any] | None:
        if self.line.frequency is None:
            return None
        ratios = {name: ratio for name, ratio in self.line.ratio.items() if np.isfinite(ratio)}
        if not ratios:
            return None
        return {
            "frequency_hz": float(self.line.frequency),
            "ratio": round(float(max(ratios.values())), 1),
            "channels": [name for name, ratio in ratios.items() if ratio >= MAINS_RATIO],
        }

    def _bands(self, spectra: np.ndarray, usable: np.ndarray) -> dict[str, dict[str, float] | None]:
        result: dict[str, dict[str, float] | None] = {}
        edges = list(BANDS.values())
        within = [(self.freqs >= low) & (self.freqs < high) for low, high in edges]
        power = np.stack([spectra[..., mask].sum(axis=-1) for mask in within], axis=-1)
        total = power.sum(axis=-1)
        for region, members in REGIONS.items():
            rows = [i for i, name in enumerate(self.names) if name in members]
            mask = usable[:, rows] & (total[:, rows] > 0)
            if not mask.any():
                result[region] = None
                continue
            share = power[:, rows][mask] / total[:, rows][mask][:, None]
            middle = np.median(share, axis=0)
            middle = 100 * middle / middle.sum()
            result[region] = {band: round(float(value), 1) for band, value in zip(BANDS, middle, strict=True)}
        return result


def _spread_and_correlation(data: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Spread in µV and highest absolute correlation with another channel, float32 [E, C] each.

    Of differences over `lag` samples: slow drifts of sweat are each electrode's own and no fault of it.
    """
    change = data[:, :, lag:] - data[:, :, :-lag]
    change -= change.mean(axis=2, keepdims=True)
    rows = torch.from_numpy(change)
    # not NumPy's product: the threads of its BLAS go on spinning where the encoder's want to run
    covariance = torch.bmm(rows, rows.transpose(1, 2)).numpy() / change.shape[2]
    spread = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    scale = np.maximum(spread, 1e-6)
    matrix = np.abs(covariance) / (scale[:, :, None] * scale[:, None, :])
    matrix[:, np.arange(data.shape[1]), np.arange(data.shape[1])] = 0
    return spread, matrix.max(axis=2)


def facts(measurements: Mapping[str, Any]) -> list[str]:
    """Short sentences of fixed form for the prompt, e.g. ``Posterior dominant rhythm 9.5 Hz, 42 µV.``"""
    found = measurements["posterior_rhythm"]
    if found is None:
        lines = ["No posterior dominant rhythm measured."]
    else:
        lines = [f"Posterior dominant rhythm {found['frequency_hz']:.1f} Hz, {found['amplitude_uv']:.0f} µV."]
        if asymmetric(found):
            lines.append(
                f"Posterior rhythm {found['asymmetry_percent']:.0f} % lower on the {found['lower_side']}."
            )
    for key, word in (
        ("channels_flat", "Flat"),
        ("channels_saturated", "Saturated"),
        ("channels_noisy", "Noisy"),
    ):
        if measurements[key]:
            lines.append(f"{word} channels: {', '.join(measurements[key])}.")
    if _mains_visible(measurements):
        lines.append(f"Mains noise at {measurements['mains']['frequency_hz']:.0f} Hz.")
    return lines


def measured_findings(measurements: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The findings that are measured, not predicted: posterior rhythm and symmetry, mains, bad electrodes."""
    found = measurements["posterior_rhythm"]
    uneven = found is not None and asymmetric(found)
    bad = [name for kind in ("flat", "saturated", "noisy") for name in measurements[f"channels_{kind}"]]
    mains = measurements["mains"] if _mains_visible(measurements) else None
    return [
        _finding("posterior_dominant_rhythm", found is not None, found and found["frequency_hz"], "Hz"),
        _finding("posterior_asymmetry", uneven, found["asymmetry_percent"] if uneven else None, "%"),
        _finding(
            "mains_noise",
            mains is not None,
            mains and mains["frequency_hz"],
            "Hz",
            (mains or {}).get("channels", ()),
        ),
        _finding("bad_electrode", bool(bad), None, None, bad),
    ]


def asymmetric(found: Mapping[str, Any]) -> bool:
    """Whether the two sides of a posterior rhythm differ more than they do in health."""
    return found["asymmetry_percent"] is not None and found["asymmetry_percent"] >= ASYMMETRY_PERCENT


def _mains_visible(measurements: Mapping[str, Any]) -> bool:
    return measurements["mains"] is not None and bool(measurements["mains"]["channels"])


def _finding(
    name: str, present: bool, value: float | None, unit: str | None, channels: Sequence[str] = ()
) -> dict[str, Any]:
    return {
        "name": name,
        "present": present,
        "value": value,
        "unit": unit if value is not None else None,
        "channels": list(channels),
        "start_seconds": None,
        "end_seconds": None,
        "source": "measurement",
    }
