"""Published training recipes as data: ``train --recipe NAME``, any option of which may be given otherwise.

==============  ==========================================================================================
celm-sca        CELM with the linear-attention projector (Jathurshan0330/CELM, ``CELM_training`` scripts)
celm-scc        CELM with the linear-attention and perceiver projector
meit            MEIT (Wan et al., arXiv 2403.04945, and its scripts)
ecg-tok         ECG-Tok's adapter and LoRA on Llama-3.2-1B (its paper; there is no public code)
==============  ==========================================================================================

A batch is what one step learns from, over all processes. CELM's scripts run on two GPUs with 2 × 2 (SCA) and
4 × 4 (SCC) samples each; MEIT's accumulate batches of 16 to 64.

Where training departs from what was published, in all recipes:

- The encoder is run once, in eval mode, and the LLM's dropout is off unless it learns; CELM recomputes its
  encoder in every epoch with dropout on.
- Batches of CELM and ECG-Tok are packed, not padded, and no recording is skipped for its length; CELM leaves
  out whole batches with a session of more than 1,000 epochs (so that its learning rate never reaches zero),
  and feeds epochs in the order of their file names.
- A batch's loss is the mean over its target tokens (MEIT: over its ECGs); the published loops average the
  means of accumulated parts.
- A run goes on inside an epoch; the published ones at its beginning.

Of CELM: history and measured facts are left out of a quarter and of half of the prompts, and the prompt is
CELM's own only with an encoder's bundle of ``compat="celm"``; the LLM is loaded in ``--dtype`` (published:
float32 under bf16 autocast); activations are checkpointed where ``--gradient-checkpointing`` asks for it
(published: always).

Of MEIT: gradients are clipped at 1 (published: not at all), and prompt and report may take 256 tokens
together (published: 128). Batch norms see ``--at-once`` ECGs. Patients are split as the manifest says; the
published split is by record.

Of ECG-Tok the paper states batch size 2, one epoch and "LoRA"; rank, scale and dropout are those of ECG-Byte,
whose schedule it uses. Rate, decay and warm-up are ours: ECG-Byte's inverse square root is not built in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from bioreport.lora import LoraSizes


@dataclass(frozen=True)
class Recipe:
    """Settings of one published training.

    Attributes
    ----------
    projector : str or None
        Kind, as `build_projector` takes it; None for MEIT, which has none.
    encoder : str
        Bundle whose encoder stands in where none is named.
    tune : {"projector", "lora", "full"}
        What learns of the language model: nothing, low-rank adapters, all.
    epochs, batch_size, at_once : int
    lr, weight_decay, warmup, clip : float
        See `TrainingRun`.
    seed : int
    lora : LoraSizes
    """

    projector: str | None
    encoder: str = "bioreport-tiny"
    tune: str = "projector"
    epochs: int = 10
    batch_size: int = 4
    at_once: int | None = None
    lr: float = 1e-4
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip: float = 1.0
    seed: int = 5
    lora: LoraSizes = field(default_factory=LoraSizes)


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "celm-sca": Recipe("sequence", batch_size=8, at_once=2),
        "celm-scc": Recipe("sequence-perceiver", batch_size=32, at_once=4),
        "meit": Recipe(
            None, tune="lora", epochs=5, batch_size=64, at_once=16, lr=2e-5, weight_decay=0.0, warmup=0.03
        ),
        "ecg-tok": Recipe(
            "attention",
            encoder="bioreport-ecg-tiny",
            tune="lora",
            epochs=1,
            batch_size=2,
            lora=LoraSizes(16, 32, 0.05),
        ),
    }
)
# what `train` does where no recipe is named
DEFAULT = Recipe("sequence-perceiver")
