"""Write README's results from the newest result files; ``--check`` only compares."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- results: written by benchmarks/table.py -->", "<!-- end of results -->"


def newest(kind: str) -> tuple[Path, dict[str, Any]] | None:
    """The result file of a kind with the latest date."""
    found = [(json.loads(path.read_text()), path) for path in sorted(RESULTS.glob(f"{kind}-*.json"))]
    if not found:
        return None
    result, path = max(found, key=lambda pair: pair[0]["date"])
    return path, result


def source(path: Path, result: dict[str, Any]) -> str:
    """Where a number comes from."""
    return (
        f"{result['device']}, {result['torch_threads']} threads, torch {result['versions']['torch']}, "
        f"{result['date']}: [`{path.name}`](benchmarks/results/{path.name}), `{result['command']}`."
    )


def simulation(path: Path, result: dict[str, Any]) -> list[str]:
    metrics, controls = result["metrics"], result["metrics"]["controls"]

    def row(title: str, *place: str) -> str:
        cells = []
        for column in (metrics, controls["shuffled"], controls["most_frequent"]):
            value: Any = column
            for key in place:
                value = value[key]
            cells.append("–" if value is None else f"{value:.3f}")
        return f"| {title} | {' | '.join(cells)} |"

    return [
        f"### {result['recordings']} new simulated recordings",
        "",
        "| | reports | shuffled among recordings | the most frequent report for all |",
        "|---|---|---|---|",
        row("finding F1 (micro), from `findings`", "findings", "from_findings", "micro", "f1"),
        row("finding F1 (macro), from `findings`", "findings", "from_findings", "macro", "f1"),
        row("finding F1 (micro), read out of the text", "findings", "from_text", "micro", "f1"),
        row("invented seizures, share of recordings without", "seizure", "from_findings", "invented_rate"),
        row("missed seizures, share of recordings with", "seizure", "from_findings", "missed_rate"),
        row("posterior frequency within 0.5 Hz", "posterior", "from_findings", "within_half_hz"),
        "",
        "The text is grounded before it is delivered, by the same lexicon that reads it here, so its F1 "
        f"follows that of the findings; grounding changed {result['statements_changed_by_grounding']} "
        f"statements in {result['reports_changed_by_grounding']} of {result['recordings']} reports.",
        "",
        source(path, result),
    ]


def memory(path: Path, result: dict[str, Any]) -> list[str]:
    lines = [
        "### Peak memory against length",
        "",
        f"`generate` on {result['channels']} channels at {result['sfreq']} Hz, one process each:",
        "",
        "| recording | file | peak | above the imports | time |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        above = row["peak_mib"] - row["imports_mib"]
        lines.append(
            f"| {row['recording_seconds']:,} s | {row['file_mb']:,.0f} MB | {row['peak_mib']:.0f} MiB | "
            f"{above:.0f} MiB | {row['seconds']:.1f} s |"
        )
    return [*lines, "", source(path, result)]


def encode(path: Path, result: dict[str, Any]) -> list[str]:
    lines = [
        f"### {result['recording_seconds']:,} s to tokens, CBraMod at its published size",
        "",
        "| chain | preprocessing | encoder | total |",
        "|---|---|---|---|",
    ]
    for name, row in result["median_seconds"].items():
        lines.append(f"| {name} | {row['preprocess']:.2f} s | {row['encode']:.2f} s | {row['total']:.2f} s |")
    return [
        *lines,
        "",
        f"{result['speedup']:.1f} × as fast, medians of {result['repeats']} interleaved runs. "
        + source(path, result),
    ]


def rendered() -> str:
    """The results section."""
    parts = []
    for kind, render in (("simulation", simulation), ("memory", memory), ("encode", encode)):
        result = newest(kind)
        if result is not None:
            parts += [*render(*result), ""]
    return "\n".join([BEGIN, "", *parts, END])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="exit 1 where README differs from the results")
    options = parser.parse_args()
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    new = before + rendered() + rest.split(END)[1]
    if options.check:
        sys.exit(0 if new == text else "README.md differs from benchmarks/results; run benchmarks/table.py")
    readme.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
