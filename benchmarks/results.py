"""Result files."""

import json
import os
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def write(path: Path, document: dict[str, Any]) -> None:
    """The whole file appears, or the old one stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def of_kind(kind: str) -> list[tuple[dict[str, Any], Path]]:
    """All committed results of a kind, by file name."""
    return [(json.loads(path.read_text()), path) for path in sorted(RESULTS.glob(f"{kind}-*.json"))]


def newest(kind: str) -> tuple[Path, dict[str, Any]] | None:
    """The result file of a kind with the latest date."""
    found = of_kind(kind)
    if not found:
        return None
    result, path = max(found, key=lambda pair: pair[0]["date"])
    return path, result
