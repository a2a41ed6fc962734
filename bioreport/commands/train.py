"""`train`: a projector, MEIT, or an ECG tokenizer."""

import argparse
import json
from typing import Any

from bioreport.commands.console import fail, quiet_libraries, say


def train(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Train a projector and its special tokens for an LLM, or MEIT, or an ECG tokenizer."""
    if "meit" in (options.what, options.recipe) and options.what != "tokenizer" and options.llm is None:
        parser.error("train meit needs a language model: --llm ID|DIR")
    quiet_libraries(options)
    if options.what == "tokenizer":
        return _train_tokenizer(options)
    from bioreport import processes

    with processes.joined(options.device):
        return _train_reports(options, parser)


def _train_reports(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from bioreport import processes
    from bioreport.recipes import DEFAULT, RECIPES

    name = options.recipe or ("meit" if options.what == "meit" else None)
    if options.what == "meit" and name != "meit":
        parser.error(f"--recipe {name} is none of MEIT's")
    recipe = RECIPES[name] if name is not None else DEFAULT
    settings: dict[str, Any] = {
        key: getattr(recipe, key)
        for key in ("epochs", "batch_size", "at_once", "lr", "weight_decay", "warmup", "clip", "seed", "lora")
    }
    settings |= {
        key: value for key in settings if (value := getattr(options, key, None)) is not None
    } | {
        key: getattr(options, key)
        for key in ("llm", "max_steps", "save_every", "patience", "log", "gradient_checkpointing", "shard",
                    "quantize", "device", "dtype")
    }  # fmt: skip
    settings |= {"out": options.output, "resume": not options.no_resume, "progress": not options.quiet}
    tune = options.tune or recipe.tune
    if recipe.projector is None:
        from bioreport.meit import train_meit

        if tune == "projector":
            parser.error("MEIT has no projector; --tune is lora or full")
        result = train_meit(
            options.manifest, full=tune == "full", template=options.template, max_length=options.max_length,
            **settings,
        )  # fmt: skip
    else:
        from bioreport.train import train as train_projector

        sizes = {key: value for key in ("combine", "queries") if (value := getattr(options, key)) is not None}
        result = train_projector(
            options.manifest, projector=options.projector or recipe.projector, projector_sizes=sizes,
            tune=tune, encoder_bundle=options.model or recipe.encoder, tokens=options.tokens,
            attention=options.attention, **settings,
        )  # fmt: skip
    if not processes.first():
        return 0
    for error in result.errors:
        fail(error)
    if result.cut:
        say(options, f"{result.cut} reports were cut at --max-length {options.max_length}.")
    losses = [f"loss {result.losses[-1]:.3f}", *(f"validation {v:.3f}" for v in result.validation[-1:])]
    written = f"{result.folder}: written after {len(result.losses)} steps ({', '.join(losses)})"
    say(options, f"{written}; use it with `bioreport generate FILE --model {result.folder}`")
    return 1 if result.errors else 0


def _train_tokenizer(options: argparse.Namespace) -> int:
    from bioreport.ecg.tokenizer import (
        check_destination,
        measure,
        read_windows,
        save_tokenizer,
        train_tokenizer,
    )
    from bioreport.encoders.ecg_autoencoder import TokenizerConfig
    from bioreport.manifest import read_manifest

    check_destination(options.output)
    config = TokenizerConfig(
        quantizer=options.quantizer, stages=options.stages, codewords=512 // options.stages
    )
    entries = read_manifest(options.manifest)
    learned, held_out = (
        [path for entry in entries if (entry.split in (None, "train")) is own for path in entry.recordings]
        for own in (True, False)
    )
    windows, batch_size = read_windows(learned, config.stride), options.batch_size or 32
    steps = options.max_steps or (options.epochs or 10) * -(-len(windows) // batch_size)
    seed = 5 if options.seed is None else options.seed
    model = train_tokenizer(
        windows, config, steps=steps, batch_size=batch_size, lr=options.lr or 1e-3, seed=seed
    )
    save_tokenizer(model, options.output)
    if held_out:
        found = measure(model, read_windows(held_out, config.stride))
        say(options, json.dumps(found))
    say(options, f"{options.output}: written; use it with `bioreport tokenize --tokenizer {options.output}`")
    return 0
