"""The command line: ``python -m bioreport COMMAND``.

Exit codes: 0 all written, 1 some input failed (a sentence each on stderr), 2 wrong usage, 130 interrupted.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from bioreport import __version__
from bioreport.errors import InputError


def build_parser() -> argparse.ArgumentParser:
    """The whole command line in one place."""
    parser = argparse.ArgumentParser(
        prog="bioreport", description="Draft clinical reports from EEG and ECG recordings."
    )
    parser.add_argument("--version", action="version", version=f"bioreport {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    generate = commands.add_parser("generate", help="write a draft report of each recording")
    generate.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="EEG: EDF, EDF+, BDF, BrainVision (.vhdr), EEGLAB (.set) or FIF; "
        "ECG: WFDB (.hea, .dat, .mat or the record's name), EDF or DICOM; of many: a folder, a manifest "
        "(.jsonl, with histories), or @LIST, a text file with one a line (@-: standard input)",
    )
    _model_options(generate, default=None)
    generate.add_argument(
        "--attention",
        choices=("auto", "flash"),
        default="auto",
        help="flash: the LLM's attention by flash-attn (bioreport[flash], a CUDA device)",
    )
    generate.add_argument("--history", metavar="TEXT|@FILE", help="clinical history, or @FILE that holds it")
    generate.add_argument(
        "--sections", metavar="A,B", help="names of the sections to write, with commas between"
    )
    generate.add_argument(
        "--together", action="store_true", help="all FILEs are one patient's: one report of all"
    )
    generate.add_argument(
        "--format", choices=("md", "json", "html"), help="default: by the ending of -o, else md"
    )
    generate.add_argument(
        "-o", "--output", metavar="FILE|DIR", help="where to write; one report may go to stdout"
    )
    generate.add_argument(
        "--overwrite",
        action="store_true",
        help="write those of many reports anew too that DIR holds of the same recording, model and options",
    )
    generate.add_argument(
        "--workers",
        type=_positive,
        default=1,
        metavar="N",
        help="processes that read recordings ahead of the writing (default: this one)",
    )
    generate.add_argument(
        "--signal",
        choices=("tokens", "statistics", "none"),
        default="tokens",
        help="what the LLM gets of the signal (the last two are baselines)",
    )
    generate.add_argument(
        "--line-frequency",
        type=float,
        choices=(50.0, 60.0),
        metavar="HZ",
        help="mains frequency, 50 or 60; default: sidecar, else detected",
    )
    generate.add_argument(
        "--batch-size", type=_positive, default=8, metavar="N", help="reports written at once"
    )
    generate.add_argument(
        "--temperature",
        type=_temperature,
        metavar="T",
        help="sample at T instead of the greedy text (with --seed alone: 0.7)",
    )
    generate.add_argument("--seed", type=_seed, metavar="N", help="seed for sampling")
    _verbosity(generate)

    corpus = commands.add_parser("corpus", help="list a data set's recordings, reports and splits")
    corpus.add_argument(
        "layout",
        choices=("heedb", "ptbxl", "mimic-iv-ecg", "tuh", "folder"),
        help="of the data set; folder: recordings, each with a report of the same name beside it or without",
    )
    corpus.add_argument("directory", type=Path, metavar="DIR")
    corpus.add_argument("-o", "--output", type=Path, required=True, metavar="MANIFEST")
    corpus.add_argument(
        "--check", action="store_true", help="compare the signals of all splits too (reads every recording)"
    )
    corpus.add_argument(
        "--list-leaks",
        action="store_true",
        help="list what two splits share and write the manifest all the same",
    )
    corpus.add_argument(
        "--seed",
        type=_seed_or_best,
        default=0,
        metavar="N|best",
        help="of the split by patient; best: the one of 64 that splits every finding most evenly",
    )
    corpus.add_argument(
        "--patient",
        type=_expression,
        metavar="REGEX",
        help="of folder: finds the patient in a recording's path",
    )
    _verbosity(corpus)

    encode = commands.add_parser("encode", help="turn a manifest's recordings into tokens, once")
    encode.add_argument("manifest", type=Path)
    encode.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    encode.add_argument(
        "--workers", type=_positive, default=1, metavar="N", help="processes that encode (default: 1)"
    )
    encode.add_argument(
        "--cluster",
        choices=("ray",),
        help="ray: the processes are a Ray cluster's, by RAY_ADDRESS or this machine's (bioreport[cluster])",
    )
    _model_option(encode)
    _device_option(encode)
    encode.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="of an EEG encoder's matrix products (default: bfloat16 where the device multiplies it)",
    )
    _verbosity(encode)

    tokenize = commands.add_parser("tokenize", help="turn ECGs into discrete codes and their vectors")
    tokenize.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="as of `generate`; of many in one folder or manifest the codes lie as they do",
    )
    tokenize.add_argument(
        "--tokenizer", type=Path, required=True, metavar="DIR", help="what `train tokenizer` wrote"
    )
    tokenize.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    _verbosity(tokenize)

    train = commands.add_parser("train", help="train a projector for a frozen LLM, MEIT, or an ECG tokenizer")
    train.add_argument("what", nargs="?", choices=("projector", "tokenizer", "meit"), default="projector")
    train.add_argument("manifest", type=Path)
    train.add_argument(
        "--quantizer",
        choices=("qinco", "residual", "vector"),
        default="qinco",
        help="of a tokenizer; 512 codewords in all with each",
    )
    train.add_argument(
        "--stages", type=_positive, default=4, choices=(1, 2, 4, 8), help="of a tokenizer (default: 4)"
    )
    train.add_argument(
        "--llm", metavar="ID|DIR", help="Hub id or folder of the causal LM (default: the model's)"
    )
    train.add_argument("--model", metavar="NAME|DIR", help="bundle of the encoder (default: embedded)")
    train.add_argument(
        "--template",
        choices=("published", "chat"),
        help="of MEIT: the published text or the LLM's own (default: its own where it has one)",
    )
    train.add_argument(
        "--max-length",
        type=_positive,
        default=256,
        metavar="TOKENS",
        help="of MEIT: prompt and report together (default: 256)",
    )
    train.add_argument(
        "--recipe",
        choices=("celm-sca", "celm-scc", "meit", "ecg-tok"),
        help="a published training (`bioreport.recipes`); other options count before it",
    )
    train.add_argument(
        "--tune",
        choices=("projector", "lora", "full"),
        help="what learns of the LLM: nothing, only the projector (default), LoRA (default of MEIT), all",
    )
    train.add_argument(
        "--projector",
        choices=("linear", "sequence", "perceiver", "sequence-perceiver", "attention"),
        help="default: sequence-perceiver",
    )
    train.add_argument(
        "--combine", type=_positive, metavar="K", help="epochs that share an embedding (linear, sequence)"
    )
    train.add_argument(
        "--queries", type=_positive, metavar="N", help="embeddings of a session (perceivers, attention)"
    )
    train.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    train.add_argument(
        "--tokens", type=Path, metavar="DIR", help="folder that `encode` wrote, not to encode again"
    )
    train.add_argument("--epochs", type=_positive, help="default: 10, of MEIT 5")
    train.add_argument("--batch-size", type=_positive, help="default: 4, of a tokenizer 32, of MEIT 64")
    train.add_argument("--lr", type=_rate, help="default: 1e-4, of a tokenizer 1e-3, of MEIT 2e-5")
    train.add_argument(
        "--at-once",
        type=_positive,
        metavar="N",
        help="samples computed at once; gradients add up to a batch's (default: all that a process has)",
    )
    train.add_argument("--max-steps", type=_positive)
    train.add_argument(
        "--patience", type=_positive, metavar="EPOCHS", help="stop after so many without better validation"
    )
    # --log would be taken for several of torchrun's options
    train.add_argument(
        "--tensorboard", dest="log", type=Path, metavar="DIR", help="losses and rates go there"
    )
    train.add_argument(
        "--gradient-checkpointing", action="store_true", help="less memory, more time: layers are run twice"
    )
    train.add_argument(
        "--shard", action="store_true", help="spread the LLM over the processes of torchrun (FSDP)"
    )
    train.add_argument(
        "--quantize", choices=("4bit",), help="frozen weights of the LLM in 4 bits (bitsandbytes)"
    )
    train.add_argument(
        "--attention", choices=("auto", "flash"), default="auto", help="as of `generate`; not of MEIT"
    )
    train.add_argument("--save-every", type=_positive, default=100, metavar="STEPS")
    train.add_argument("--seed", type=_seed, help="default: 5")
    train.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    train.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    train.add_argument(
        "--no-resume", action="store_true", help="start anew even where DIR holds a checkpoint"
    )
    _verbosity(train)

    evaluate = commands.add_parser("evaluate", help="compare reports with a manifest's truth")
    evaluate.add_argument("manifest", type=Path)
    evaluate.add_argument(
        "--reports", type=Path, required=True, metavar="DIR", help="reports as JSON, DIR/STEM.json"
    )
    evaluate.add_argument("--format", choices=("text", "json"), default="text")
    _verbosity(evaluate)

    simulate = commands.add_parser("simulate", help="write simulated recordings with their truth")
    simulate.add_argument("modality", choices=("eeg", "ecg"))
    simulate.add_argument("-n", "--count", type=_positive, default=10)
    simulate.add_argument("--seed", type=_seed, default=0)
    simulate.add_argument("--duration", type=_duration, metavar="SECONDS", help="of each; default: varied")
    simulate.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    _verbosity(simulate)

    convert = commands.add_parser(
        "convert",
        help="turn published weights into a model's folder, or a model's folder into the Hub's layout",
    )
    convert.add_argument(
        "kind",
        choices=("cbramod", "celm", "meit", "qinco", "hub"),
        help="whose weights FILE holds; hub: FILE is a model, DIR is ready for `hf upload`",
    )
    convert.add_argument(
        "file", metavar="FILE", help=".pth, .pt, .bin or .safetensors; of hub a model's folder or name"
    )
    convert.add_argument(
        "--llm",
        metavar="ID|DIR",
        help="causal LM that it was trained for; of hub: the Hub id to name in place of a copy",
    )
    convert.add_argument(
        "--license", metavar="ID", help="of hub: the Hub's identifier of a license, e.g. apache-2.0"
    )
    convert.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    _verbosity(convert)

    doctor = commands.add_parser("doctor", help="say what is installed and what is missing")
    _verbosity(doctor)
    return parser


def _model_option(parser: argparse.ArgumentParser, default: str | None = "bioreport-tiny") -> None:
    kind = default or "the embedded one for EEG or ECG"
    parser.add_argument(
        "--model",
        default=default,
        metavar="NAME|DIR|ID",
        help=f"bundle: its name in the package, folder or Hub id (default: {kind})",
    )


def _device_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def _model_options(parser: argparse.ArgumentParser, default: str | None = "bioreport-tiny") -> None:
    _model_option(parser, default)
    parser.add_argument("--llm", metavar="ID|DIR", help="causal LM in place of the bundle's")
    _device_option(parser)
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")


def _verbosity(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-q", "--quiet", action="store_true", help="errors only")
    group.add_argument("-v", "--verbose", action="store_true", help="channel mapping, timings, memory")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _seed(text: str) -> int:
    number = int(text)
    # what every generator of random numbers takes
    if not 0 <= number < 2**32:
        raise argparse.ArgumentTypeError("must be from 0 to 4294967295")
    return number


def _seed_or_best(text: str) -> int | None:
    return None if text == "best" else _seed(text)


def _expression(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"is no regular expression ({error})") from error
    return text


def _temperature(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError("must be from 0 to 100")
    return number


def _duration(text: str) -> float:
    number = float(text)
    # a shorter one cannot show its findings, and a simulated recording is held in memory as a whole
    if not 10 <= number <= 86_400:
        raise argparse.ArgumentTypeError("must be from 10 to 86400")
    return number


def _rate(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    from bioreport import commands

    try:
        code = getattr(commands, options.command)(options, parser)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except InputError as error:
        print(f"bioreport: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # the reader of our output has left; what it took is what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None and not sys.stdout.closed:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        where = error.filename or "standard output"
        reason = (error.strerror or str(error)).lower()
        print(f"bioreport: {where}: {reason}; free space or choose another place.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bioreport: interrupted; everything already written is whole.", file=sys.stderr)
        return 130
