"""What every command says, and where: all but results on stderr."""

import argparse
import sys

from tqdm import tqdm

from bioreport.errors import InputError
from bioreport.logs import quiet_loggers


def say(options: argparse.Namespace, text: str, *, only_verbose: bool = False) -> None:
    if not options.quiet and (options.verbose or not only_verbose):
        tqdm.write(text, file=sys.stderr)


def fail(error: InputError) -> None:
    tqdm.write(f"bioreport: {error}", file=sys.stderr)


def quiet_libraries(options: argparse.Namespace) -> None:
    quiet_loggers(options.verbose)
    from transformers.utils import logging as hf_logging

    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
