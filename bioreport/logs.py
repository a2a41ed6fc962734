"""Our own log, without what the libraries add to it."""

import logging

_NOISY = ("transformers", "mne", "urllib3", "filelock", "huggingface_hub", "fsspec")


def quiet_loggers(verbose: bool) -> None:
    """Only our own log, and of it errors alone unless `verbose`."""
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, format="%(message)s")
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
