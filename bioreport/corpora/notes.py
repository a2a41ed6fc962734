"""What was missing, doubled or unreadable in a corpus: counted by kind, told in one sentence a kind."""

from dataclasses import dataclass, field


@dataclass
class Notes:
    """Counts by kind, each with its first example.

    Attributes
    ----------
    counts : dict of str to int
        Times by kind, in the order in which kinds were met.
    """

    counts: dict[str, int] = field(default_factory=dict)
    _first: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, example: object) -> None:
        """Count one more of a kind, e.g. ``"recordings without a report, kept without sections"``."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        self._first.setdefault(kind, str(example).rstrip("."))

    def sentences(self) -> list[str]:
        """One sentence a kind: ``"Recordings without a report: 3, the first is a.edf."``"""
        return [
            f"{kind[0].upper()}{kind[1:]}: {count:,}, {'the first' if count > 1 else 'it'} is "
            f"{self._first[kind]}."
            for kind, count in self.counts.items()
        ]
