"""Make `bioreport-ecg-tiny` from nothing but seeds: ``python -m bioreport.tiny.ecg -o DIR [--work DIR]``.

About an hour on two cores. Every stage keeps what it made in the work folder and is not done twice, so an
interrupted run goes on where it was.
"""

import argparse
import logging
from pathlib import Path

import torch

from bioreport.bundle import Bundle
from bioreport.bundle_writer import save_bundle
from bioreport.ecg.preprocess import ECG_TOK, preprocess_record
from bioreport.ecg.reading import EcgRecording
from bioreport.ecg.simulation.record import simulate_ecg
from bioreport.ecg.tokenizer import load_tokenizer, measure, save_tokenizer, to_tensor, train_tokenizer
from bioreport.encoders.ecg_autoencoder import EcgTokenizer, TokenizerConfig
from bioreport.tiny.card import ecg_card
from bioreport.tiny.ecg_language import draw_text
from bioreport.tiny.language import language_model
from bioreport.tiny.projector import with_projector

log = logging.getLogger("bioreport.tiny.ecg")
NAME = "bioreport-ecg-tiny"
DISCLAIMER = f"Written by {NAME}, a small model trained on simulated ECGs only."
# they lie beyond every seed that a corpus draws
TRAIN_SEED, HELD_BACK_SEED = 10**15, 2 * 10**15
HELD_BACK = 200
# steps and learning rate; a second round learns to copy long lists and numbers
LANGUAGE_ROUNDS = ((1300, 2e-3), (500, 1e-3))
ADAPTER = {"width": 128, "queries": 16}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bioreport.tiny.ecg", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--work", type=Path, metavar="DIR", help="intermediate results; default: OUTPUT.work")
    parser.add_argument("--recordings", type=int, default=1200, help="simulated ECGs for the tokenizer")
    parser.add_argument("--tokenizer-steps", type=int, default=400)
    parser.add_argument("--projector-recordings", type=int, default=600)
    parser.add_argument("--projector-steps", type=int, default=400)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    work = options.work or options.output.with_name(options.output.name + ".work")
    work.mkdir(parents=True, exist_ok=True)

    llm = language_model(work / "llm", LANGUAGE_ROUNDS, draw_text)
    tokenizer = signal_tokenizer(work / "tokenizer", options.recordings, options.tokenizer_steps)
    held_back = measure(tokenizer, windows(HELD_BACK_SEED, HELD_BACK, tokenizer.config.stride))
    log.info("tokenizer, on recordings held back: %s", held_back)

    bundle = Bundle(
        name=NAME,
        encoder_config={"class": "EcgTokenizer", **tokenizer.config.to_dict()},
        encoder=tokenizer,
        preprocess=ECG_TOK,
        llm_source=str(llm),
        prompt_style="compact",
        disclaimer=DISCLAIMER,
    )
    trained = with_projector(
        bundle,
        work,
        recordings=options.projector_recordings,
        steps=options.projector_steps,
        projector="attention",
        sizes=ADAPTER,
    )
    sizes = tokenizer.config.to_dict()
    readme = ecg_card(held_back, sizes, options.recordings, options.projector_recordings, HELD_BACK)
    log.info("%s", save_bundle(trained, options.output, embed_llm=True, readme=readme))


def windows(seed: int, count: int, stride: int) -> torch.Tensor:
    """Windows [count, 12, T] of simulated ECGs of 10 s, as the tokenizer takes them."""
    found = []
    for number in range(count):
        simulated = simulate_ecg(seed + number)
        recording = EcgRecording.from_array(simulated.data, simulated.sfreq, simulated.leads)
        found.append(to_tensor(preprocess_record(recording, ECG_TOK)[0], stride))
    return torch.cat(found)


def signal_tokenizer(folder: Path, recordings: int, steps: int) -> EcgTokenizer:
    """Train ECG-Tok's tokenizer with QINCo, unless it is there."""
    if not (folder / "config.json").exists():
        config = TokenizerConfig()
        model = train_tokenizer(windows(TRAIN_SEED, recordings, config.stride), config, steps=steps)
        save_tokenizer(model, folder)
    return load_tokenizer(folder)


if __name__ == "__main__":
    main()
