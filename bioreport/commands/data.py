"""`corpus`, `encode`, `tokenize`, `simulate`, `evaluate`: manifests and what is made of them."""

import argparse
import time

from bioreport.commands.console import fail, quiet_libraries, say
from bioreport.errors import InputError, unforeseen
from bioreport.files import remove_leftovers
from bioreport.jobs import check_targets, gather, in_folder
from bioreport.remote import local_copy, shown


def corpus(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """A manifest of a data set as it lies on disk."""
    if options.patient is not None and options.layout != "folder":
        parser.error("--patient is for the layout folder; the other data sets name their patients")
    from bioreport.corpora.build import build_manifest

    summary = build_manifest(
        options.layout,
        options.directory,
        options.output,
        signals=options.check,
        list_leaks=options.list_leaks,
        seed=options.seed,
        patient=options.patient,
        progress=not options.quiet,
    )
    for leak in summary.leaks:
        say(options, f"leak: {leak}")
    for sentence in summary.sentences():
        say(options, sentence)
    if options.seed is None:
        say(options, f"The seed of the split is {summary.seed}; give --seed {summary.seed} from now on.")
    say(options, f"{summary.manifest}: written")
    return 0


def encode(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Tokens of a manifest's recordings, kept for training."""
    quiet_libraries(options)
    from bioreport.encode import encode_corpus

    summary = encode_corpus(
        options.manifest,
        options.output,
        model=options.model,
        device=options.device,
        dtype=options.dtype,
        workers=options.workers,
        cluster=options.cluster,
        progress=not options.quiet,
        on_error=fail,
    )
    say(options, f"{options.output}: {summary}")
    return 1 if summary.errors else 0


def tokenize(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Codes and vectors of each ECG, one safetensors file each; one that fails does not stop the others."""
    if options.output.exists() and not options.output.is_dir():
        parser.error(f"-o {options.output} is a file; codes need a folder")
    jobs, _ = gather(options.files, apart=True)
    jobs = in_folder(jobs, options.output, "safetensors", parser.error)
    targets = [job.target for job in jobs if job.target is not None]
    check_targets(jobs, [options.tokenizer / "model.safetensors"])
    quiet_libraries(options)
    from bioreport.ecg.reading import open_ecg
    from bioreport.ecg.tokenizer import load_tokenizer, tokenize, write_tokens

    model, failed = load_tokenizer(options.tokenizer), 0
    remove_leftovers(targets)
    for job, target in zip(jobs, targets, strict=True):
        (file,) = job.recordings
        try:
            with local_copy(file) as here:
                tokens = tokenize(open_ecg(here), model)
            write_tokens(target, tokens)
            say(options, f"{target}: written")
        except InputError as error:
            fail(error)
            failed += 1
        except Exception as error:
            fail(unforeseen(shown(file), "tokenized", error))
            failed += 1
    return int(failed > 0)


def evaluate(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Metrics of reports against the manifest's truth."""
    from bioreport.evaluate import evaluate as compare
    from bioreport.evaluate import render

    metrics = compare(options.manifest, options.reports)
    print(render(metrics, options.format))
    return 0


def simulate(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Simulated recordings, their truth and their reports."""
    quiet_libraries(options)
    from bioreport.simulate import simulate_corpus

    start = time.perf_counter()
    manifest = simulate_corpus(
        options.count,
        options.seed,
        options.output,
        modality=options.modality,
        duration_seconds=options.duration,
        progress=not options.quiet,
    )
    say(options, f"{manifest}: {options.count} recordings in {time.perf_counter() - start:.1f} s")
    return 0
