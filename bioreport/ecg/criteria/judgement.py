"""What a criterion says of a finding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Measurements = Mapping[str, Any]


@dataclass(frozen=True)
class Judgement:
    """Whether a finding is there, its value, and the leads that show it."""

    present: bool
    value: float | None = None
    leads: Sequence[str] = ()
    start: float | None = None
    end: float | None = None


def quantity(m: Measurements, key: str) -> float | None:
    """Value of a measured quantity, None where it was not measured."""
    return None if m[key] is None else float(m[key]["value"])
