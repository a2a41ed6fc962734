"""Make `bioreport-ecg-tiny` from nothing but seeds: ``python -m bioreport.tiny.ecg -o DIR [--work DIR]``.

About an hour on two cores. Every stage keeps what it made in the work folder and is not done twice, so an
interrupted run goes on where it was.
"""

import argparse
import logging
from pathlib import Path

import numpy as np
import torch

from bioreport.bundle import Bundle, load_bundle, save_bundle
from bioreport.ecg.preprocess import ECG_TOK, preprocess_record
from bioreport.ecg.reading import EcgRecording
from bioreport.ecg.simulation.record import simulate_ecg
from bioreport.ecg.tokenizer import load_tokenizer, measure, save_tokenizer, to_tensor, train_tokenizer
from bioreport.encoders.ecg_autoencoder import EcgTokenizer, TokenizerConfig
from bioreport.simulate import simulate_corpus
from bioreport.tiny.card import ecg_card
from bioreport.tiny.ecg_language import draw_text
from bioreport.tiny.language import build_llm, train_llm
from bioreport.tiny.language import train_tokenizer as train_vocabulary
from bioreport.tiny.reports import agreeing_manifest
from bioreport.train import train

log = logging.getLogger("bioreport.tiny.ecg")
NAME = "bioreport-ecg-tiny"
DISCLAIMER = f"Written by {NAME}, a small model trained on simulated ECGs only."
# the first two lie beyond every seed that a corpus draws; evaluate on any corpus but the third
TRAIN_SEED, HELD_BACK_SEED, PROJECTOR_SEED = 10**15, 2 * 10**15, 900_000_000
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

    llm = language_model(work / "llm")
    tokenizer = signal_tokenizer(work / "tokenizer", options.recordings, options.tokenizer_steps)
    held_back = measure(tokenizer, windows(HELD_BACK_SEED, HELD_BACK, tokenizer.config.stride))
    log.info("tokenizer, on recordings held back: %s", held_back)

    corpus = work / "projector-corpus"
    if not (corpus / "manifest.jsonl").exists():
        simulate_corpus(options.projector_recordings, PROJECTOR_SEED, corpus, modality="ecg", progress=True)
    bundle = Bundle(
        name=NAME,
        encoder_config={"class": "EcgTokenizer", **tokenizer.config.to_dict()},
        encoder=tokenizer,
        preprocess=ECG_TOK,
        llm_source=str(llm),
        prompt_style="compact",
        disclaimer=DISCLAIMER,
    )
    manifest = agreeing_manifest(
        corpus / "manifest.jsonl", bundle, work / "bundle.training" / "tokens", corpus / "agreeing.jsonl"
    )
    result = train(
        manifest,
        out=work / "bundle",
        encoder_bundle=bundle,
        projector="attention",
        projector_sizes=ADAPTER,
        epochs=100,
        batch_size=16,
        lr=1e-3,
        max_steps=options.projector_steps,
        progress=True,
    )
    log.info("adapter: last loss %.4f, validation %s", result.losses[-1], result.validation)
    trained = load_bundle(result.folder, device="cpu", dtype="bfloat16")
    trained.name, trained.disclaimer = NAME, DISCLAIMER
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


def language_model(folder: Path) -> Path:
    """Train the language model and its vocabulary, unless they are there."""
    if not (folder / "config.json").exists():
        rng = np.random.default_rng(0)
        vocabulary = train_vocabulary(" ".join(draw_text(rng)) for _ in range(20_000))
        torch.manual_seed(0)
        llm = build_llm(vocabulary)
        for number, (steps, rate) in enumerate(LANGUAGE_ROUNDS):
            losses = train_llm(llm, vocabulary, steps=steps, lr=rate, seed=number, draw=draw_text)
            log.info("language model: loss %.4f", float(np.mean(losses[-100:])))
        llm.bfloat16().save_pretrained(folder)
        vocabulary.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
