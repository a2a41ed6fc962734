"""The tables, texts and folders of a data set, read a row or a file at a time."""

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from bioreport.corpora.notes import Notes
from bioreport.errors import InputError


def rows(path: Path, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Rows of a comma-separated table with a header line; cells are stripped of spaces, missing ones empty.

    Parameters
    ----------
    path : Path
    columns : sequence of str
        Those that must be there.

    Raises
    ------
    InputError
        It cannot be read, is no such table, or lacks a column.
    """
    cure = "give the table as the data set's authors published it"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            missing = [column for column in columns if column not in (reader.fieldnames or ())]
            if missing:
                raise InputError(path, f"has no column {missing[0]!r}", cure)
            for row in reader:
                row.pop("", None)
                yield {name: cell.strip() for name, cell in row.items()}
    except OSError as error:
        reason = (error.strerror or "no reason given").lower()
        raise InputError(path, f"cannot be read ({reason})", "check the path and the disk") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, f"is no table in UTF-8 ({error})", cure) from error


def read_text(path: Path, notes: Notes) -> str:
    """A report's text: UTF-8, or where it is none Windows' Western encoding, which TUH's older ones are in.

    Empty, and noted, where it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        notes.add(f"texts that cannot be read ({(error.strerror or 'no reason given').lower()})", path)
        return ""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def folders(top: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder and those below it, each with the names of its files, in the order of names.

    Hidden files and folders are passed over; links to folders are not followed.

    Raises
    ------
    InputError
        One of them cannot be read.
    """
    for place, below, names in os.walk(top, onerror=_refuse):
        below[:] = sorted(name for name in below if not name.startswith("."))
        yield Path(place), sorted(name for name in names if not name.startswith("."))


def files(top: Path) -> Iterator[Path]:
    """Every file of `folders`."""
    return (folder / name for folder, names in folders(top) for name in names)


def _refuse(error: OSError) -> None:
    reason = (error.strerror or "no reason given").lower()
    raise InputError(error.filename, f"cannot be read ({reason})", "give a folder that you may read")


def plain_number(text: str) -> str:
    """An identifier without the ``.0`` that a table gains on its way through floating point."""
    return text.removesuffix(".0")
