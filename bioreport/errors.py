"""The one error a user meets: which file, what is wrong with it, what would fix it."""

import logging
from os import PathLike

logger = logging.getLogger(__name__)


class InputError(Exception):
    """Input that cannot give a right result.

    Parameters
    ----------
    path : str or path-like
        The file or folder the sentence is about.
    problem : str
        What is wrong, without a full stop.
    cure : str
        What would fix it, without a full stop.
    """

    def __init__(self, path: str | PathLike[str], problem: str, cure: str) -> None:
        self.path = str(path)
        self.problem = " ".join(problem.split())
        self.cure = " ".join(cure.split())
        super().__init__(f"{self.path}: {self.problem}; {self.cure}.")

    def __reduce__(self) -> tuple[type["InputError"], tuple[str, str, str]]:
        return InputError, (self.path, self.problem, self.cure)


def unforeseen(path: str | PathLike[str], done: str, error: Exception) -> InputError:
    """What is told of a recording on which a library failed; the traceback goes to the log.

    Parameters
    ----------
    path : str or path-like
    done : str
        What cannot be done with it, as in "read".
    error : Exception
        Being handled. Not told in its own words, which may be some of the header's.
    """
    logger.info("%s", path, exc_info=True)
    return InputError(
        path,
        f"cannot be {done} ({type(error).__name__})",
        "look at the traceback that -v shows, or leave the recording out",
    )


def ended_its_process(path: str | PathLike[str], doing: str, why: object) -> InputError:
    """What is told of a recording whose process died over it, `doing` what and how."""
    return InputError(
        path,
        f"ended the process that was {doing} it ({why})",
        "give it more memory by fewer --workers, or leave the recording out",
    )
