"""Make `bioreport-tiny` from nothing but seeds: ``python -m bioreport.tiny -o DIR [--work DIR]``.

About two hours on two cores. Every stage keeps what it made in the work folder and is not done twice, so an
interrupted run goes on where it was.
"""

import argparse
import json
import logging
from pathlib import Path

from bioreport.bundle import Bundle
from bioreport.bundle_writer import save_bundle
from bioreport.heads import FindingsHead
from bioreport.tiny.card import card
from bioreport.tiny.corpus import (
    MODEL_FINDINGS,
    TAUGHT_PLACES,
    TINY_SPEC,
    TRAIN_SEED,
    VALIDATION_SEED,
    build_corpus,
)
from bioreport.tiny.encoder import POOL_EPOCHS, SIZES, EpochClassifier, calibrate, score, train_encoder
from bioreport.tiny.language import language_model
from bioreport.tiny.projector import with_projector

log = logging.getLogger("bioreport.tiny")
DISCLAIMER = "Written by bioreport-tiny, a small model trained on simulated recordings only."
PROJECTOR = {"queries": 16}
LANGUAGE_RATE = 2e-3
VALIDATION_RECORDINGS = 400


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bioreport.tiny", description=__doc__)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the bundle"
    )
    parser.add_argument("--work", type=Path, metavar="DIR", help="intermediate results; default: OUTPUT.work")
    parser.add_argument("--recordings", type=int, default=4000, help="simulated recordings for the encoder")
    parser.add_argument("--encoder-steps", type=int, default=5500)
    parser.add_argument("--language-steps", type=int, default=2000)
    parser.add_argument("--projector-recordings", type=int, default=800)
    parser.add_argument("--projector-steps", type=int, default=700)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    work = options.work or options.output.with_name(options.output.name + ".work")
    work.mkdir(parents=True, exist_ok=True)

    shards = build_corpus(work / "train", TRAIN_SEED, options.recordings)
    held_back = build_corpus(work / "validation", VALIDATION_SEED, VALIDATION_RECORDINGS)
    model = train_encoder(shards, work / "encoder.pt", steps=options.encoder_steps)
    head = calibrated_head(model, held_back, work / "thresholds.json")

    llm_folder = language_model(work / "llm", ((options.language_steps, LANGUAGE_RATE),))
    bundle = Bundle(
        name="bioreport-tiny",
        encoder_config={"class": "CBraMod", **SIZES},
        encoder=model.encoder.eval(),
        preprocess=TINY_SPEC,
        findings_head=head,
        llm_source=str(llm_folder),
        prompt_style="compact",
        disclaimer=DISCLAIMER,
    )
    trained = with_projector(
        bundle,
        work,
        recordings=options.projector_recordings,
        steps=options.projector_steps,
        projector="sequence-perceiver",
        sizes=PROJECTOR,
    )
    f1 = json.loads((work / "thresholds.json").read_text())["f1"]
    readme = card(f1, options.recordings, options.projector_recordings, VALIDATION_RECORDINGS)
    log.info("%s", save_bundle(trained, options.output, embed_llm=True, readme=readme))


def calibrated_head(model: EpochClassifier, held_back: list[Path], report: Path) -> FindingsHead:
    """The trained head with its thresholds; these and the F1 of each finding are written to `report`."""
    thresholds, f1s = calibrate(model.head, score(model, held_back))
    report.write_text(json.dumps({"thresholds": thresholds, "f1": f1s}, indent=1))
    log.info("F1 on the recordings held back: %s", f1s)
    head = FindingsHead(
        SIZES["out_dim"],
        MODEL_FINDINGS,
        thresholds=thresholds,
        pool_epochs=POOL_EPOCHS,
        located=TAUGHT_PLACES,
    )
    head.load_state_dict(model.head.state_dict())
    return head.eval()


if __name__ == "__main__":
    main()
