"""What a recording gives to a report: epoch tokens, measurements, the model's findings with their time.

One pass over the signal in constant memory; what grows is one token and one row of scores an epoch.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from os import PathLike
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bioreport.background import done_side_by_side
from bioreport.bundle import Bundle
from bioreport.ecg.facts import prompt_facts, report_facts
from bioreport.ecg.reading import EcgRecording
from bioreport.encoders.cbramod import CBraMod
from bioreport.errors import InputError
from bioreport.findings import finding_facts
from bioreport.grounding import usable_electrodes
from bioreport.hub import EMBEDDED
from bioreport.measurements import Measurer, facts, measured_findings
from bioreport.montage import FEW_ELECTRODES
from bioreport.preprocess import EpochBatch, PreprocessSpec, detect_line_frequency, stream_epochs
from bioreport.recording import Recording, Segment, open_recording
from bioreport.stages import Stages
from bioreport.statistics import BandPowerStatistics


@dataclass
class Evidence:
    """What one recording shows.

    Attributes
    ----------
    file : str
        Name of the file, without its folder.
    duration_seconds : float
        Length of the stored signal in s.
    channels : tuple of str
        Canonical names of the channels that were used.
    tokens : Tensor, shape (tokens, dim), float32
        In the order of time: of an EEG one token a 10-s epoch, of an ECG one a frame of 128 ms.
    findings : list of dict
        Model's and measured findings, in the shape of a report's.
    measurements : dict
        See `bioreport.measurements.Measurer.result` and `bioreport.ecg.measure.measure_ecg`.
    statistics : str
        Band powers as text, for ``--signal statistics``; empty unless asked for.
    modality : str
        ``"eeg"`` or ``"ecg"``.
    """

    file: str
    duration_seconds: float
    channels: tuple[str, ...]
    tokens: Tensor
    findings: list[dict[str, Any]]
    measurements: dict[str, Any]
    statistics: str = ""
    warnings: list[str] = field(default_factory=list)
    modality: str = "eeg"

    def facts(self) -> list[str]:
        """Short fixed-form sentences for the prompt: what was measured, then what the model found."""
        if self.modality == "ecg":
            return prompt_facts(report_facts(self.measurements, self.findings), self.findings)
        model = [finding for finding in self.findings if finding["source"] == "model"]
        return facts(self.measurements) + finding_facts(model)


@torch.inference_mode()
def encode_epochs(bundle: Bundle, batch: EpochBatch) -> tuple[Tensor, Tensor]:
    """Tokens [E, D] of a batch of epochs, and the features' mean of each channel [E, C, D].

    The signal enters in µV/100, as CBraMod was pretrained; ``compat="celm"`` feeds volts/100, as CELM does.
    """
    scale = 1e-8 if bundle.compat == "celm" else 1e-2
    weight = bundle.dtype_of_encoder()
    epochs, channels, samples = batch.data.shape
    x = torch.from_numpy(batch.data).to(bundle.device, weight) * scale
    x = x.view(epochs, channels, samples // 200, 200)
    channel_mask = torch.from_numpy(batch.channel_mask).to(bundle.device)
    patch_mask = torch.from_numpy(batch.patch_mask).to(bundle.device)
    encoder = bundle.encoder
    assert isinstance(encoder, CBraMod)
    tokens, by_channel = encoder.pooled(x, channel_mask, patch_mask)
    return tokens.float(), by_channel.float()


def read_evidence(
    recording: Recording | EcgRecording,
    bundle: Bundle,
    *,
    line_frequency: float | None = None,
    statistics: bool = False,
    stages: Stages | None = None,
    threads: int = 0,
) -> Evidence:
    """Read, filter, encode and measure a recording in one pass.

    Parameters
    ----------
    recording : Recording or EcgRecording
    bundle : Bundle
        Its encoder makes the tokens; its findings head, where it has one, the model's findings.
    line_frequency : float, optional
        Mains frequency in Hz (50 or 60) where it is known; else the sidecar's, else detected.
    statistics : bool
        Also compute CELM's band-power text.
    threads : int
        0: each batch of an EEG is read, then encoded by all of PyTorch's threads. More: so many batches are
        encoded side by side while the next one is read, and the stages' seconds add up to more than passed.
        Call ``torch.set_num_threads(1)`` before: threads that share a product wait for the slowest of them,
        which is the one beside the reader.

    Raises
    ------
    InputError
        Where no epoch of the recording can be used, or the bundle is for the other kind of recording.
    """
    modality = "ecg" if isinstance(recording, EcgRecording) else "eeg"
    if modality != bundle.modality:
        raise InputError(
            recording.path,
            f"is an {modality.upper()}, but {bundle.name} is a model for {bundle.modality.upper()}",
            f"use {EMBEDDED[modality].name} or another model for {modality.upper()} with --model",
        )
    if isinstance(recording, EcgRecording):
        if statistics:
            raise InputError(
                recording.path, "is an ECG, whose band powers say nothing", "use --signal tokens or none"
            )
        from bioreport.ecg.evidence import read_ecg_evidence

        return read_ecg_evidence(recording, bundle, stages=stages)
    spec = bundle.preprocess
    assert isinstance(spec, PreprocessSpec)
    stages = stages or Stages()
    with stages("mains"):
        line = detect_line_frequency(recording)
        if line_frequency is not None:
            line = replace(line, frequency=line_frequency)
    measurer = Measurer(recording, spec, line)
    powers = BandPowerStatistics(spec) if statistics else None

    def on_raw(segment: Segment, start: int, data: np.ndarray) -> None:
        with stages("measure"):
            measurer.on_raw(segment, start, data)

    batches = stream_epochs(recording, spec, line_frequency=line.frequency, on_raw=on_raw, stages=stages)

    def measured() -> Iterator[EpochBatch]:
        for batch in stages.each("preprocess", batches):
            with stages("measure"):
                measurer.update(batch)
                if powers is not None:
                    powers.update(batch)
            yield batch

    # held as a whole from the start: lists of small pieces between large temporaries would scatter the heap
    head = bundle.findings_head
    n, names = batches.n_epochs, head.names if head is not None else ()
    tokens = torch.empty(n, bundle.encoder_dim)
    logits = torch.empty(n, len(names))
    places = torch.empty(n, len(names), len(spec.channels), dtype=torch.float16)
    starts = np.empty(n)
    done = usable = 0

    @torch.inference_mode()
    def encoded(batch: EpochBatch) -> tuple[EpochBatch, tuple[Tensor, ...], Stages]:
        timed = Stages()
        with timed("encode"):
            token, by_channel = encode_epochs(bundle, batch)
            scores = head(token, by_channel) if head is not None else ()
            # here a GPU's results are waited for, so their time is the encoder's
            return batch, tuple(part.cpu() for part in (token, *scores)), timed

    results = done_side_by_side(encoded, measured(), threads, partial(_use, bundle.device))
    with closing(results):
        for batch, parts, timed in results:
            rows = slice(done, done + len(batch))
            for whole, part in zip((tokens, logits, places), parts, strict=False):
                whole[rows] = part
            starts[rows] = batch.start_seconds
            done = rows.stop
            usable += int(batch.channel_mask.any(1).sum())
            stages.add(timed)
    if usable == 0:
        raise InputError(
            recording.path,
            "has no usable EEG signal in any epoch",
            "give a recording in which at least one EEG channel is neither flat nor saturated for 5 s, "
            "and whose header states the right unit",
        )
    measurements = {**measurer.result(), "channel_mapping": dict(recording.mapping)}
    findings = measured_findings(measurements)
    if head is not None and len(usable_electrodes(measurements)) >= FEW_ELECTRODES:
        found = head.findings(logits[:done], places[:done], starts[:done], spec.epoch_seconds, spec.channels)
        findings = found + findings
    # the last epoch may reach beyond the signal
    last = recording.segments[-1]
    end = last.onset_seconds + (last.stop - last.start) / recording.sfreq
    for finding in findings:
        if finding["end_seconds"] is not None:
            finding["end_seconds"] = min(finding["end_seconds"], round(end, 2))
    return Evidence(
        file=recording.path.name,
        duration_seconds=recording.duration_seconds,
        channels=tuple(measurements["channels_present"]),
        tokens=tokens[:done],
        findings=findings,
        measurements=measurements,
        statistics=powers.text() if powers is not None else "",
        warnings=list(
            dict.fromkeys([*recording.warnings, *batches.warnings, *quality_warnings(measurements)])
        ),
    )


def _use(device: torch.device) -> None:
    """Make a GPU this thread's."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


@dataclass(frozen=True)
class BundleReader:
    """Reads the recordings of a report for a bundle, without its language model."""

    bundle: Bundle

    def read(
        self,
        item: Any,
        *,
        line_frequency: float | None = None,
        signal: str = "tokens",
        stages: Stages | None = None,
    ) -> list[Evidence]:
        """The evidence of one report's recordings, given as paths or open; raises InputError."""
        stages = stages or Stages()
        evidence = []
        for source in item if isinstance(item, tuple) else (item,):
            with stages("open"):
                recording = open_recording(source) if isinstance(source, str | PathLike) else source
            evidence.append(
                read_evidence(
                    recording,
                    self.bundle,
                    line_frequency=line_frequency,
                    statistics=signal == "statistics",
                    stages=stages,
                )
            )
        return evidence


def quality_warnings(measurements: dict[str, Any]) -> list[str]:
    """Sentences on what makes parts of the recording unfit to be read."""
    sentences = []
    for key, words in (
        ("channels_flat", "flat"),
        ("channels_saturated", "saturated"),
        ("channels_noisy", "far noisier than the rest"),
    ):
        if measurements[key]:
            verb = "is" if len(measurements[key]) == 1 else "are"
            sentences.append(
                f"{', '.join(measurements[key])} {verb} {words}; read the report with that in mind."
            )
    usable = len(usable_electrodes(measurements))
    if usable < FEW_ELECTRODES:
        sentences.append(
            f"Only {usable} usable electrode{'' if usable == 1 else 's'} of the montage: the model's "
            f"findings need {FEW_ELECTRODES} and are not stated."
        )
    mains = measurements["mains"]
    if mains is not None and mains["channels"]:
        count = len(mains["channels"])
        sentences.append(
            f"Mains noise at {mains['frequency_hz']:.0f} Hz in {count} channel{'' if count == 1 else 's'}; "
            "it was notched before encoding."
        )
    if measurements["usable_seconds"] < 0.5 * measurements["duration_seconds"]:
        sentences.append(
            f"Only {measurements['usable_seconds']:.0f} of {measurements['duration_seconds']:.0f} s could "
            "be measured."
        )
    return sentences
