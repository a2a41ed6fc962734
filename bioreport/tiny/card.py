"""The model cards that lie beside the weights."""

from typing import Any

CARD = """# bioreport-tiny

Drafts EEG reports. **Trained on simulated recordings only; not for clinical use.** Every report says so.

- **What it is.** A CBraMod of 0.6 M parameters (width 120, 4 layers) that turns 10 s of EEG (22 channels of
  the 10-20 system, 0.1-75 Hz, 200 Hz, average reference, µV/100) into one token; a linear findings head on
  the tokens; a sequence-perceiver projector with 16 queries; a Qwen3-shaped language model of 2 M
  parameters with its own tokenizer. Encoder, projector and head are float32, the language model is
  bfloat16.
- **What it was trained on.** {recordings} simulated recordings of 30-180 s for the encoder, texts drawn
  without a signal for the language model, {projector_recordings} simulated recordings for the projector,
  the language model then being frozen. No patient's data took part. `python -m bioreport.tiny -o DIR`
  is the recipe.
- **What it finds.** {findings}. Posterior rhythm, its asymmetry, mains noise and bad electrodes are
  measured on the signal instead.
- **Limits.** It knows nothing that the simulator does not draw: no periodic discharges, no photic driving,
  no neonatal or paediatric EEG, no clinical events. Its language is that of the simulator's templates. What
  it says is checked against its own findings and against measurements, not against the truth.
- **F1 by finding** on {validation} simulated recordings that were held back and set the thresholds:

| finding | F1 |
|---|---|
{rows}
"""


def card(f1: dict[str, float], recordings: int, projector_recordings: int, validation: int) -> str:
    """The card's text; `f1` by the name of the finding."""
    return CARD.format(
        recordings=recordings,
        projector_recordings=projector_recordings,
        validation=validation,
        findings=", ".join(name.replace("_", " ") for name in f1),
        rows="\n".join(f"| {name.replace('_', ' ')} | {value:.3f} |" for name, value in f1.items()),
    )


ECG_CARD = """# bioreport-ecg-tiny

Drafts 12-lead ECG reports. **Trained on simulated recordings only; not for clinical use.** Every report says
so.

- **What it is.** ECG-Tok's tokenizer, a residual convolutional autoencoder around a QINCo quantizer of
  {stages} × {codewords} codewords, one frame of width {dim} every 128 ms of 12 leads at 250 Hz;
  ECG-Tok's attention adapter with 16 queries; a Qwen3-shaped language model of 2 M parameters with its own
  vocabulary. Tokenizer and adapter are float32, the language model is bfloat16.
- **What it was trained on.** {recordings} simulated ECGs of 10 s for the tokenizer, texts drawn without a
  signal for the language model, {projector_recordings} simulated ECGs for the adapter, the language model
  then being frozen. No patient's data took part. `python -m bioreport.tiny.ecg -o DIR` is the recipe.
- **What it finds.** Every finding of a report is measured on the signal by published criteria
  (`bioreport.ecg.criteria`). The model writes the text, which is held to those findings.
- **Limits.** It knows nothing that the simulator does not draw. Its language is that of the simulator's
  templates. Of a long record it sees six windows of 10 s; the measurements see all of it.
- **On {held_back} simulated ECGs that were held back**: mean absolute error of the reconstruction
  {mean_absolute_error_mv:.4f} mV, {pooled_utilisation:.1%} of the codewords in use, perplexity
  {pooled_perplexity:.0f} of {all_codewords}.
"""


def ecg_card(
    found: dict[str, Any], sizes: dict[str, Any], recordings: int, projector_recordings: int, held_back: int
) -> str:
    """The ECG model's card; `found` from `bioreport.ecg.tokenizer.measure`, `sizes` of the tokenizer."""
    return ECG_CARD.format(
        **{key: sizes[key] for key in ("stages", "codewords", "dim")},
        **{key: found[key] for key in ("mean_absolute_error_mv", "pooled_utilisation", "pooled_perplexity")},
        all_codewords=sizes["stages"] * sizes["codewords"],
        recordings=recordings,
        projector_recordings=projector_recordings,
        held_back=held_back,
    )
