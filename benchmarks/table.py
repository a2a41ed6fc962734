"""Write every table of results from the newest result files; ``--check`` only compares."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ecg_tables
import scale_tables
from results import newest, of_kind
from targets import TARGETS, Target

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- results: written by benchmarks/table.py -->", "<!-- end of results -->"
OURS = "bioreport"
NO_GPU = "no GPU run yet"


def source(path: Path, result: dict[str, Any], folder: str = "benchmarks/results") -> str:
    """Where a number comes from; `folder` is that of the results as the document sees it."""
    threads = result["torch_threads"]
    return (
        f"{result['device']}, {threads} thread{'s' * (threads > 1)}, torch {result['versions']['torch']}, "
        f"{result['date']}: [`{path.name}`]({folder}/{path.name}), `{result['command']}`."
    )


F1_ROWS = (
    ("finding F1 (micro), from `findings`", "findings", "from_findings", "micro", "f1"),
    ("finding F1 (macro), from `findings`", "findings", "from_findings", "macro", "f1"),
    ("finding F1 (micro), read out of the text", "findings", "from_text", "micro", "f1"),
)
EEG_ROWS = (
    *F1_ROWS,
    ("invented seizures, share of recordings without", "seizure", "from_findings", "invented_rate"),
    ("missed seizures, share of recordings with", "seizure", "from_findings", "missed_rate"),
    ("posterior frequency within 0.5 Hz", "posterior", "from_findings", "within_half_hz"),
)
ECG_ROWS = (
    *F1_ROWS,
    ("recordings with an invented critical finding", "critical", "from_findings", "invented_rate"),
    ("missed critical findings", "critical", "from_findings", "missed_rate"),
    ("rate stated, of the recordings that have one", "rate", "from_findings", "stated"),
    ("rate within 3 /min, where it is stated", "rate", "from_findings", "within_three"),
)


def simulation(path: Path, result: dict[str, Any]) -> list[str]:
    return _simulated("EEGs", EEG_ROWS, path, result)


def ecg_simulation(path: Path, result: dict[str, Any]) -> list[str]:
    lines = _simulated("ECGs", ECG_ROWS, path, result)
    normals = result["without_critical"]
    return [
        *lines[:-1],
        f"Of {normals['recordings']} further simulated ECGs without a critical finding, "
        f"{normals['invented']} are said to have one. {lines[-1]}",
    ]


def ecg_records(path: Path, result: dict[str, Any]) -> list[str]:
    totals = result["totals"]

    def share(key: str) -> str:
        return f"{totals[key]['right']} of {totals[key]['judged']}"

    return [
        f"### {totals['records']} real ECGs",
        "",
        "| | right |",
        "|---|---|",
        f"| rate within 5 /min, where detectors or annotations agree | {share('rate')} |",
        f"| named fast or slow, or neither | {share('speed')} |",
        f"| atrial fibrillation, found or not | {share('atrial_fibrillation')} |",
        f"| diagnoses of the header that were found | {share('diagnoses')} |",
        f"| records with an invented critical finding | {totals['records_with_invented_critical']} |",
        "",
        "They were looked at while the criteria were written. Only persistent atrial fibrillation counts: "
        "paroxysms within a record are reported as sinus rhythm today (`data_101_6`, 45 of its 112 s; "
        "`data_92_12`, 18 of its 49 s). " + source(path, result),
    ]


def _simulated(what: str, rows: Sequence[tuple[str, ...]], path: Path, result: dict[str, Any]) -> list[str]:
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
        f"### {result['recordings']} new simulated {what}",
        "",
        "| | reports | shuffled among recordings | the most frequent report for all |",
        "|---|---|---|---|",
        *(row(*one) for one in rows),
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


def profile(path: Path, result: dict[str, Any]) -> list[str]:
    lines = [
        f"### Where the time of {result['recording_seconds']:,} s goes",
        "",
        "| stage | time | share |",
        "|---|---|---|",
    ]
    for name, row in result["stages"].items():
        lines.append(f"| {name} | {row['seconds']:.2f} s | {row['share']:.1%} |")
    return [*lines, "", f"{result['times_real_time']:,.0f} × real time. " + source(path, result)]


def ecg_tokenizers(path: Path, result: dict[str, Any]) -> list[str]:
    return [*ecg_tables.used(result), "", source(path, result)]


def meit(path: Path, result: dict[str, Any]) -> list[str]:
    ways = list(dict.fromkeys(row["way"] for row in result["rows"]))
    wanted = next(row["target"] for row in result["rows"] if "target" in row)
    lines = [
        "### An ECG among a language model's keys and values",
        "",
        f"{result['new_tokens']} new tokens at batch {result['batch_size']} by a Llama of "
        f"{result['parameters'] / 1e6:,.0f} M parameters in {result['dtype']}; wanted is at most "
        f"{wanted - 1:.0%} more time than without ECG. MEIT's published code computes the entries anew in "
        "every layer at every step:",
        "",
        f"| prompts | {' | '.join(ways)} |",
        "|---|" + "---|" * len(ways),
    ]
    for prompts in dict.fromkeys(row["prompts"] for row in result["rows"]):
        cells = []
        for row in (row for row in result["rows"] if row["prompts"] == prompts):
            more = f" ({row['ratio'] - 1:+.1%})" if row["way"] != ways[0] else ""
            mark = {True: " ✓", False: " ✗ not reached", None: ""}[row.get("reached")]
            cells.append(f"{row['seconds']:.2f} s{more}{mark}")
        lines.append(f"| {prompts} | {' | '.join(cells)} |")
    return [
        *lines,
        "",
        f"Medians of {result['repeats']} rounds in turns; shares are of the ratios within a round. The "
        f"encoder takes {result['encoder_seconds']:.2f} s a batch besides. " + source(path, result),
    ]


def kernel_results() -> list[dict[str, Any]]:
    """By machine the rows of each operator from the newest file that has it; GPUs first."""
    machines: dict[str, dict[str, Any]] = {}
    for result, path in sorted(of_kind("kernels"), key=lambda pair: pair[0]["date"], reverse=True):
        if not result.get("rows"):
            continue
        machine = machines.setdefault(
            result["device"], {"type": result["device_type"], "rows": [], "files": [], "taken": set()}
        )
        fresh = [row for row in result["rows"] if row["operator"] not in machine["taken"]]
        if fresh:
            machine["rows"] += fresh
            machine["taken"] |= {row["operator"] for row in fresh}
            machine["files"].append((path, result))
    return sorted(machines.values(), key=lambda machine: machine["type"] == "cpu")


def targets(device: str) -> list[str]:
    """A table of promises, with a column for every machine that measured them."""
    machines = [machine for machine in kernel_results() if machine["type"] == device]
    chosen: list[Target] = [target for target in TARGETS if target.device == device]
    heads = [machine["files"][0][1]["device"] for machine in machines]
    if not machines:
        heads = [NO_GPU if device == "cuda" else "not measured yet"]
    predicted = any(target.predicted for target in chosen)
    columns = ["target", "wanted", *(["predicted for an H200"] if predicted else []), *heads]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for target in chosen:
        results = [target.result(machine["rows"]) for machine in machines] or [NO_GPU if predicted else "–"]
        middle = [target.predicted] if predicted else []
        lines.append(f"| {' | '.join([target.what, target.wanted, *middle, *results])} |")
    return [*lines, "", *sources(machines)]


def sources(machines: list[dict[str, Any]]) -> list[str]:
    """Where the numbers of some machines come from."""
    return [source(path, result) for machine in machines for path, result in machine["files"]]


def kernels() -> list[str]:
    """README's part on the operators: the promises that were measured."""
    machines = kernel_results()
    lines = ["### Operators beside their peers", ""]
    for device in ("cuda", "cpu"):
        if any(machine["type"] == device for machine in machines):
            lines += [*targets(device), ""]
    if all(machine["type"] == "cpu" for machine in machines):
        lines += [
            "On a GPU nothing has been measured yet: the kernels' launch settings are by arithmetic, "
            "compiled for three architectures. `benchmarks/gpu.sh` measures; predictions are in "
            "[`benchmarks/NOTES.md`](benchmarks/NOTES.md).",
            "",
        ]
    return [*lines, "Every row is in [`kernels/README.md`](kernels/README.md#measured)."]


def measured(machine: dict[str, Any]) -> list[str]:
    """All rows of one machine."""
    gpu = machine["type"] == "cuda"
    lines = [f"### {machine['files'][0][1]['device']}", ""]
    limits = machine["files"][0][1]["limits"]
    lines += [
        f"Copy {limits['copy_gb_s']:,.0f} GB/s, matrices {limits['bf16_tflops']:,.2f} TF/s in bf16 and "
        f"{limits['float32_tflops']:,.2f} in float32, measured in the same run.",
        "",
    ]
    cases = list(dict.fromkeys((row["operator"], row["case"]) for row in machine["rows"]))
    operator = ""
    for case in cases:
        rows = [row for row in machine["rows"] if (row["operator"], row["case"]) == case and "ms" in row]
        if not rows:
            continue
        if case[0] != operator:
            operator = case[0]
            lines += ["", f"#### `{operator}`", "", *(_gpu_head() if gpu else _cpu_head())]
        providers = list(dict.fromkeys(row["provider"] for row in rows))
        for provider in providers:
            found = {row.get("malloc"): row for row in rows if row["provider"] == provider}
            title = case[1] if provider == providers[0] else ""
            cells = _gpu_cells(found[None]) if gpu else _cpu_cells(found)
            lines.append(f"| {title} | {provider} | {' | '.join(cells)} |")
    return [*lines, "", *_absent(machine["rows"]), *sources([machine])]


def _gpu_head() -> list[str]:
    return [
        "| case | | ms, 20–80 % | graph, µs | GB/s, of copy | TF/s, of bf16 | peak MB | over ours |",
        "|---|---|---|---|---|---|---|---|",
    ]


def _gpu_cells(row: dict[str, Any]) -> list[str]:
    rates = ["–", "–"]
    if "gb_s" in row:
        rates = [
            f"{row['gb_s']:,.0f}, {row['share_of_copy']:.0%}",
            f"{row['tflops']:,.1f}, {row['share_of_bf16']:.0%}",
        ]
    graph = f"{1e3 * row['graph_ms']:,.1f}" if "graph_ms" in row else "–"
    times = f"{row['ms']:,.3f}, {row['ms_20']:,.3f}–{row['ms_80']:,.3f}"
    return [times, graph, *rates, f"{row['peak_mb']:,.0f}", _ratio(row)]


def _cpu_head() -> list[str]:
    return [
        "| case | | ms `default`, 20–80 % | ms `keep`, 20–80 % | over ours | over ours `keep` | peak MB |",
        "|---|---|---|---|---|---|---|",
    ]


def _cpu_cells(found: dict[str, dict[str, Any]]) -> list[str]:
    pair = [found.get(setting) for setting in ("default", "keep")]
    times = [
        "–" if row is None else f"{row['ms']:,.2f}, {row['ms_20']:,.2f}–{row['ms_80']:,.2f}" for row in pair
    ]
    peak = next((f"{row['peak_mb']:,.0f}" for row in pair if row is not None and "peak_mb" in row), "–")
    return [*times, *("–" if row is None else _ratio(row) for row in pair), peak]


def _ratio(row: dict[str, Any]) -> str:
    parts = ["–" if row["provider"] == OURS or "ratio" not in row else f"{row['ratio']:.2f}"]
    if "mismatch" in row:
        parts.append(row["mismatch"])
    if row.get("another_operation"):
        parts.append("another operation")
    if row.get("wrong"):
        parts.append(f"{row['wrong']:.2%} of rows not float64's codes")
    return ", ".join(parts)


def _absent(rows: list[dict[str, Any]]) -> list[str]:
    """One line on what could not be measured, if anything."""
    missing = {row["provider"]: row["missing"] for row in rows if "missing" in row}
    missing = {name: why for name, why in missing.items() if "Absent" not in why}
    problems = [f"{row['provider']} in {row['case']}: {row['problem']}" for row in rows if "problem" in row]
    lines = []
    if missing:
        lines += [f"Not installed there: {', '.join(sorted(missing))}.", ""]
    if problems:
        lines += [f"Failed: {'; '.join(dict.fromkeys(problems))}.", ""]
    return lines


def results() -> list[str]:
    """README's results."""
    parts: list[str] = []
    for kind, render in (
        ("simulation", simulation),
        ("ecg-simulation", ecg_simulation),
        ("ecg-records", ecg_records),
        ("memory", memory),
        ("encode", encode),
        ("profile", profile),
        ("meit", meit),
        ("ecg-tokenizers", ecg_tokenizers),
    ):
        result = newest(kind)
        if result is not None:
            parts += [*render(*result), ""]
    return parts + kernels()


def kernels_readme() -> list[str]:
    """Every row of every machine."""
    machines = kernel_results()
    if not machines:
        return ["Nothing has been measured yet."]
    return [line for machine in machines for line in [*measured(machine), ""]][:-1]


def benchmarks_readme() -> list[str]:
    """What README has no room for."""
    lines: list[str] = []
    for kind, parts in (
        ("throughput", (scale_tables.arithmetic,)),
        ("training", (scale_tables.training,)),
        ("token-variants", (scale_tables.token_variants,)),
        ("many", (scale_tables.many,)),
        ("corpus-encode", (scale_tables.corpus_encode,)),
        ("corpus-memory", (scale_tables.corpus_memory,)),
        ("kills", (scale_tables.kills,)),
        ("ecg-tokenizers", (ecg_tables.measured, ecg_tables.classified, ecg_tables.written)),
    ):
        found = newest(kind)
        if found is not None:
            path, result = found
            lines += [line for part in parts for line in [*part(result), ""]]
            lines += [source(path, result, "results"), ""]
    return lines[:-1]


DOCUMENTS = {
    "README.md": results,
    "kernels/README.md": kernels_readme,
    "benchmarks/README.md": benchmarks_readme,
    "benchmarks/NOTES.md": lambda: [*targets("cuda"), *targets("cpu")],
}


def rendered(text: str, lines: list[str]) -> str:
    """A document with new tables between its marks."""
    before, rest = text.split(BEGIN)
    return before + "\n".join([BEGIN, "", *lines, "", END]) + rest.split(END)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="exit 1 where a document differs from the results"
    )
    options = parser.parse_args()
    stale = []
    for name, lines in DOCUMENTS.items():
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        new = rendered(text, lines())
        if new != text:
            stale.append(name)
            if not options.check:
                path.write_text(new, encoding="utf-8")
    if options.check and stale:
        sys.exit(f"{', '.join(stale)}: not what benchmarks/results says; run benchmarks/table.py")


if __name__ == "__main__":
    main()
