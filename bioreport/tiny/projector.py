"""The last stage of both embedded models: a projector on simulated reports, and the finished bundle."""

import logging
from pathlib import Path
from typing import Any

from bioreport.bundle import Bundle
from bioreport.bundle_reader import load_bundle
from bioreport.simulate import simulate_corpus
from bioreport.tiny.reports import agreeing_manifest
from bioreport.train import train

log = logging.getLogger(__name__)
# seed of the corpus the projector learns on; evaluate on any other
SEED = 900_000_000


def with_projector(
    bundle: Bundle, work: Path, *, recordings: int, steps: int, projector: str, sizes: dict[str, Any]
) -> Bundle:
    """Train a projector for a bundle that has an encoder and names its language model.

    Parameters
    ----------
    bundle : Bundle
    work : Path
        Holds the corpus and the training's checkpoint, neither of which is made twice.
    recordings, steps : int
    projector : str
    sizes : dict
        As `bioreport.train.train` takes them.
    """
    corpus = work / "projector-corpus"
    if not (corpus / "manifest.jsonl").exists():
        simulate_corpus(recordings, SEED, corpus, modality=bundle.modality, progress=True)
    manifest = agreeing_manifest(
        corpus / "manifest.jsonl", bundle, work / "bundle.training" / "tokens", corpus / "agreeing.jsonl"
    )
    result = train(
        manifest,
        out=work / "bundle",
        encoder_bundle=bundle,
        projector=projector,
        projector_sizes=sizes,
        epochs=100,
        batch_size=16,
        lr=1e-3,
        max_steps=steps,
        progress=True,
    )
    log.info("projector: last loss %.4f, validation %s", result.losses[-1], result.validation)
    trained = load_bundle(result.folder, device="cpu", dtype="bfloat16")
    trained.name, trained.disclaimer = bundle.name, bundle.disclaimer
    return trained
