"""Rows by key, on disk: what joins tables of hundreds of thousands of rows in little memory, in any order."""

import json
import sqlite3
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from bioreport.corpora.notes import Notes


class Store:
    """Tables of a private temporary SQLite database, gone when it is closed.

    A *register* holds one value a key and knows which keys came twice; a *list* holds many. Values are
    whatever JSON can say. Keys are put out in the order of their text (`ordered` makes it that of numbers).
    """

    def __init__(self) -> None:
        # "" is SQLite's name for a database in a temporary file of its own
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("PRAGMA journal_mode=OFF")
        self._db.execute(
            "CREATE TABLE register (name TEXT, key TEXT, value TEXT, copies INT, clash INT,"
            " PRIMARY KEY (name, key)) WITHOUT ROWID"
        )
        self._db.execute(
            "CREATE TABLE list (name TEXT, key TEXT, place TEXT, value TEXT,"
            " PRIMARY KEY (name, key, place)) WITHOUT ROWID"
        )
        self._db.execute("BEGIN")

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def put(self, name: str, key: str, value: Any) -> None:
        """Register a value; a key that comes again with another value counts as contradictory."""
        self._db.execute(
            "INSERT INTO register VALUES (?, ?, ?, 1, 0) ON CONFLICT DO UPDATE SET copies = copies + 1,"
            " clash = max(clash, excluded.value != value)",
            (name, key, json.dumps(value, sort_keys=True)),
        )

    def get(self, name: str, key: str) -> Any:
        """The value of a key; None where there is none, or where there are two that differ."""
        row = self._db.execute(
            "SELECT value FROM register WHERE name = ? AND key = ? AND NOT clash", (name, key)
        ).fetchone()
        return None if row is None else json.loads(row[0])

    def items(self, name: str) -> Iterator[tuple[str, Any]]:
        """Keys and values of a register in order; contradictory ones are left out."""
        rows = self._db.execute(
            "SELECT key, value FROM register WHERE name = ? AND NOT clash ORDER BY key", (name,)
        )
        return ((key, json.loads(value)) for key, value in rows)

    def missing(self, name: str, other: str) -> Iterator[str]:
        """Keys of a register that another one does not have."""
        rows = self._db.execute(
            "SELECT key FROM register AS a WHERE name = ? AND NOT EXISTS"
            " (SELECT 1 FROM register AS b WHERE b.name = ? AND b.key = a.key) ORDER BY key",
            (name, other),
        )
        return (key for (key,) in rows)

    def tell_doubles(self, name: str, what: str, notes: Notes) -> None:
        """Note the keys of a register that came twice."""
        for key, clash in self._db.execute(
            "SELECT key, clash FROM register WHERE name = ? AND copies > 1 ORDER BY key", (name,)
        ):
            notes.add(
                f"{what} listed twice with different contents, left out"
                if clash
                else f"{what} listed twice with the same contents, taken once",
                plain(key),
            )

    def append(self, name: str, key: str, place: str, value: Any) -> None:
        """Add to the list of a key, at a place in it; what was at that place is replaced."""
        self._db.execute(
            "INSERT OR REPLACE INTO list VALUES (?, ?, ?, ?)", (name, key, place, json.dumps(value))
        )

    def values(self, name: str, key: str) -> list[Any]:
        """The list of a key, in the order of places."""
        rows = self._db.execute(
            "SELECT value FROM list WHERE name = ? AND key = ? ORDER BY place", (name, key)
        )
        return [json.loads(value) for (value,) in rows]

    def groups(self, name: str) -> Iterator[tuple[str, list[Any]]]:
        """Keys with their lists, both in order."""
        rows = self._db.execute("SELECT key, value FROM list WHERE name = ? ORDER BY key, place", (name,))
        for key, group in groupby(rows, key=lambda row: row[0]):
            yield key, [json.loads(value) for _, value in group]


def ordered(identifier: str) -> str:
    """A key that sorts as a number where the identifier is one."""
    return identifier.zfill(20) if identifier.isdigit() else identifier


def plain(key: str) -> str:
    """The identifier that `ordered` made a key of."""
    return key.lstrip("0") or "0" if key.isdigit() else key
