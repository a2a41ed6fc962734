"""Which leads lie side by side, and what part of the heart they look at."""

from collections.abc import Mapping

# neighbours in which a change must be seen twice (AHA/ACC/HRS 2009, part VI)
PAIRS: tuple[tuple[str, str], ...] = (
    ("aVL", "I"), ("II", "aVF"), ("aVF", "III"), ("II", "III"), ("V1", "V2"), ("V2", "V3"), ("V3", "V4"),
    ("V4", "V5"), ("V5", "V6"),
)  # fmt: skip
TERRITORIES: dict[str, tuple[str, ...]] = {
    "inferior": ("II", "III", "aVF"),
    "septal": ("V1", "V2"),
    "anterior": ("V2", "V3", "V4"),
    "lateral": ("I", "aVL", "V5", "V6"),
}


def in_neighbours(values: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
    """Leads beyond their limit that have a neighbour beyond its own; the largest first."""
    kept = {
        lead
        for pair in PAIRS
        if all(lead in values and values[lead] >= limits[lead] for lead in pair)
        for lead in pair
    }
    return sorted(kept, key=lambda lead: -values[lead])
