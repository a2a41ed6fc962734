"""The command line, as tests call it."""

from pathlib import Path

from bioreport import cli


def run(*arguments: str | Path) -> int:
    """The exit code of ``python -m bioreport ARGUMENTS``, in this process."""
    try:
        return cli.main([str(a) for a in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
