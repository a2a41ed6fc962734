"""Reports written from findings, in varied clinical wording."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def write_history(rng: np.random.Generator) -> str:
    """Draw a referral that says nothing about what the recording shows."""
    return ""


def write_sections(
    findings: Iterable[Mapping[str, Any]], facts: Mapping[str, Any], rng: np.random.Generator
) -> dict[str, str]:
    """Write the sections."""
    return {}
