"""What every command says, and where: all but results on stderr."""

import argparse
import logging
import sys

from tqdm import tqdm

from bioreport.errors import InputError


def say(options: argparse.Namespace, text: str, *, only_verbose: bool = False) -> None:
    if not options.quiet and (options.verbose or not only_verbose):
        tqdm.write(text, file=sys.stderr)


def fail(error: InputError) -> None:
    tqdm.write(f"bioreport: {error}", file=sys.stderr)


def quiet_libraries(options: argparse.Namespace) -> None:
    logging.basicConfig(level=logging.INFO if options.verbose else logging.ERROR, format="%(message)s")
    for noisy in ("transformers", "mne", "urllib3", "filelock", "huggingface_hub"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    from transformers.utils import logging as hf_logging

    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
