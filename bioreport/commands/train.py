"""`train`: a projector, MEIT, or an ECG tokenizer."""

import argparse
import json

from bioreport.commands.console import fail, quiet_libraries, say


def train(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Train a projector and its special tokens for a frozen LLM, or MEIT, or an ECG tokenizer."""
    quiet_libraries(options)
    if options.what == "tokenizer":
        return _train_tokenizer(options)
    if options.what == "meit":
        return _train_meit(options, parser)
    from bioreport.train import train as train_projector

    result = train_projector(
        options.manifest,
        llm=options.llm,
        projector=options.projector,
        out=options.output,
        encoder_bundle=options.model,
        epochs=options.epochs or 10,
        batch_size=options.batch_size or 4,
        lr=options.lr or 1e-4,
        max_steps=options.max_steps,
        save_every=options.save_every,
        seed=options.seed,
        device=options.device,
        dtype=options.dtype,
        tokens=options.tokens,
        resume=not options.no_resume,
        progress=not options.quiet,
    )
    for error in result.errors:
        fail(error)
    say(options, f"{result.bundle}: written; use it with `bioreport generate FILE --model {result.bundle}`")
    return 1 if result.errors else 0


def _train_meit(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    from bioreport.meit import train_meit

    if options.llm is None:
        parser.error("train meit needs a language model: --llm ID|DIR")
    recipe = {name: getattr(options, name) for name in ("epochs", "batch_size", "lr")}
    result = train_meit(
        options.manifest,
        out=options.output,
        llm=options.llm,
        full=options.full,
        template=options.template,
        max_length=options.max_length,
        max_steps=options.max_steps,
        save_every=options.save_every,
        seed=options.seed,
        device=options.device,
        dtype=options.dtype,
        resume=not options.no_resume,
        progress=not options.quiet,
        **{name: value for name, value in recipe.items() if value is not None},
    )
    for error in result.errors:
        fail(error)
    if result.cut:
        say(options, f"{result.cut} reports were cut at --max-length {options.max_length}.")
    losses = [f"loss {result.losses[-1]:.3f}", *(f"validation {v:.3f}" for v in result.validation[-1:])]
    written = f"{result.folder}: written after {len(result.losses)} steps ({', '.join(losses)})"
    say(options, f"{written}; use it with `bioreport generate FILE --model {result.folder}`")
    return 1 if result.errors else 0


def _train_tokenizer(options: argparse.Namespace) -> int:
    from bioreport.ecg.tokenizer import measure, read_windows, save_tokenizer, train_tokenizer
    from bioreport.encoders.ecg_autoencoder import TokenizerConfig
    from bioreport.manifest import read_manifest

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
    model = train_tokenizer(
        windows, config, steps=steps, batch_size=batch_size, lr=options.lr or 1e-3, seed=options.seed
    )
    save_tokenizer(model, options.output)
    if held_out:
        found = measure(model, read_windows(held_out, config.stride))
        say(options, json.dumps(found))
    say(options, f"{options.output}: written; use it with `bioreport tokenize --tokenizer {options.output}`")
    return 0
