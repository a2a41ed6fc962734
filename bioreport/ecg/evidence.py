"""What an ECG gives to a report: the tokenizer's vectors, measurements, and the findings that follow.

The whole record is measured while it streams; the language model sees the vectors of at most `MOST_WINDOWS`
windows of 10 s, spread evenly, so that its part of the work does not grow with the length.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bioreport.bundle import Bundle
from bioreport.ecg.criteria import ecg_findings
from bioreport.ecg.facts import RHYTHMS, unjudged_aspects
from bioreport.ecg.leads import LEADS
from bioreport.ecg.measure import measure_recording
from bioreport.ecg.preprocess import EcgSpec, stream_windows
from bioreport.ecg.reading import EcgRecording
from bioreport.ecg.tokenizer import to_tensor
from bioreport.encoders.ecg_autoencoder import EcgTokenizer
from bioreport.errors import InputError
from bioreport.evidence import Evidence
from bioreport.stages import Stages

MOST_WINDOWS = 6  # a standard ECG has one; an adapter has positions for six


def read_ecg_evidence(recording: EcgRecording, bundle: Bundle, *, stages: Stages | None = None) -> Evidence:
    """Measure and encode an ECG.

    Parameters
    ----------
    recording : EcgRecording
    bundle : Bundle
        Of an ECG model: its tokenizer makes the tokens.
    stages : Stages, optional

    Returns
    -------
    Evidence
        ``tokens`` are the vectors [windows · frames, D] of the windows that were chosen; none, where no lead
        is one of the twelve.

    Raises
    ------
    InputError
        Where nothing in the recording can be measured.
    """
    stages = stages or Stages()
    measured = measured_evidence(recording, stages)
    return replace(measured, tokens=encode_windows(recording, bundle, stages))


def measured_evidence(recording: EcgRecording, stages: Stages) -> Evidence:
    """What was measured on an ECG, without tokens; raises InputError where nothing could be."""
    measurements = measure_recording(recording, stages=stages)
    measurements["channel_mapping"] = dict(recording.mapping)
    findings = ecg_findings(measurements)
    if not measurements["usable_seconds"] and not any(
        f["present"] and f["name"] in RHYTHMS for f in findings
    ):
        raise InputError(
            recording.path,
            "has no usable ECG signal",
            "give a recording in which at least one lead is neither flat, saturated nor noise alone, and "
            "whose header states the right gain and unit",
        )
    return Evidence(
        file=recording.path.name,
        duration_seconds=recording.duration_seconds,
        channels=tuple(measurements["channels_present"]),
        tokens=torch.empty(0, 0),
        findings=findings,
        measurements=measurements,
        warnings=list(dict.fromkeys([*recording.warnings, *ecg_warnings(measurements, findings)])),
        modality="ecg",
    )


@torch.inference_mode()
def encode_windows(recording: EcgRecording, bundle: Bundle, stages: Stages) -> Tensor:
    """Vectors [windows · frames, D] of at most `MOST_WINDOWS` windows."""
    encoder, spec = bundle.encoder, bundle.preprocess
    assert isinstance(encoder, EcgTokenizer) and isinstance(spec, EcgSpec)
    if not any(lead in recording.leads for lead in spec.leads):
        return torch.empty(0, bundle.encoder_dim)
    vectors = []
    for part in _parts(recording, spec):
        with stages("preprocess"):
            batches = list(stream_windows(part, spec))
        with stages("encode"):
            for batch in batches:
                x = to_tensor(batch, encoder.config.stride).to(bundle.device, bundle.dtype_of_encoder())
                vectors.append(encoder.tokenize(x)[1].float().cpu().flatten(0, 1))
    return torch.cat(vectors)


def _parts(recording: EcgRecording, spec: EcgSpec) -> list[EcgRecording]:
    """The record itself, or windows of a long one, with nothing but samples read around them."""
    length = round(spec.window_seconds * recording.sfreq)
    if recording.n_samples <= MOST_WINDOWS * length:
        return [recording]
    starts = np.linspace(0, recording.n_samples - length, MOST_WINDOWS).round().astype(int)
    return [
        replace(
            EcgRecording.from_array(recording.read(start, start + length), recording.sfreq, recording.leads),
            path=recording.path,
        )
        for start in starts.tolist()
    ]


def ecg_warnings(measurements: dict[str, Any], findings: list[dict[str, Any]]) -> list[str]:
    """Sentences on what makes parts of the recording unfit to be read, and what it cannot show."""
    sentences = []
    for key, words in (
        ("channels_flat", "flat"),
        ("channels_saturated", "saturated"),
        ("channels_noisy", "noisy"),
    ):
        if measurements[key]:
            verb = "is" if len(measurements[key]) == 1 else "are"
            sentences.append(
                f"{', '.join(measurements[key])} {verb} {words}; read the report with that in mind."
            )
    mains = measurements["mains"]
    if mains is not None and mains["channels"]:
        sentences.append(
            f"Mains interference at {mains['frequency_hz']:.0f} Hz in {len(mains['channels'])} "
            f"lead{'s' if len(mains['channels']) > 1 else ''}."
        )
    present = [lead for lead in LEADS if lead in measurements["channels_present"]]
    if len(present) < len(LEADS):
        count = f"{len(present)} of the twelve leads" if present else "none of the twelve leads"
        sentences.append(f"The recording has {count}{': ' + ', '.join(present) if present else ''}.")
    # the voltage that hypertrophy is judged by needs fewer leads than a low one
    aspects = ["low QRS voltage" if one == "voltage" else one for one in unjudged_aspects(findings)]
    if aspects:
        sentences.append(
            f"Not judged, because the leads, the rhythm or the quality do not allow it: {', '.join(aspects)}."
        )
    if measurements["usable_seconds"] < 0.5 * measurements["duration_seconds"]:
        sentences.append(
            f"Only {measurements['usable_seconds']:.0f} of {measurements['duration_seconds']:.0f} s could "
            "be measured."
        )
    return sentences
