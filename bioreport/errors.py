"""The one error a user meets: which file, what is wrong with it, what would fix it."""

from os import PathLike


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
