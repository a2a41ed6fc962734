"""Reports of new simulated recordings against their truth, with the controls.

    python benchmarks/simulation.py -o benchmarks/results/simulation-DATE.json
    python benchmarks/simulation.py --modality ecg -o benchmarks/results/ecg-simulation-DATE.json

The recordings' seeds lie outside those that `bioreport.tiny` trains on.
"""

import argparse
import json
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from environment import environment

from bioreport import cli
from bioreport.evaluate import evaluate, render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--modality", choices=("eeg", "ecg"), default="eeg")
    parser.add_argument("--model", help="default: the embedded one of the modality")
    parser.add_argument("--signal", default="tokens")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus, reports = folder / "corpus", folder / "reports"
        cli.main(
            [
                *("simulate", options.modality, "--count", str(options.count)),
                *("--seed", str(options.seed), "-o", str(corpus)),
            ]
        )
        ending = {"eeg": "edf", "ecg": "hea"}[options.modality]
        files = [str(path) for path in sorted(corpus.glob(f"*.{ending}"))]
        model = ["--model", options.model] if options.model else []
        start = time.perf_counter()
        code = cli.main(
            [
                *("generate", "-o", str(reports), "--format", "json", *model),
                *("--batch-size", "16", "--signal", options.signal, *files),
            ]
        )
        seconds = time.perf_counter() - start
        metrics = evaluate(corpus / "manifest.jsonl", reports)
        changed = [
            sum(
                any(words in warning for words in ("withheld", "was replaced by", "added from the findings"))
                for warning in json.loads(path.read_text())["warnings"]
            )
            for path in reports.glob("*.json")
        ]
    print(render(metrics, "text"))
    result = {
        **environment(),
        "date": date.today().isoformat(),
        "command": " ".join(
            [
                "python benchmarks/simulation.py",
                *(["--modality ecg"] if options.modality == "ecg" else []),
                f"--seed {options.seed} --signal {options.signal}",
            ]
        ),
        "recordings": options.count,
        "exit_code": code,
        "seconds_to_generate": seconds,
        "reports_changed_by_grounding": sum(count > 0 for count in changed),
        "statements_changed_by_grounding": sum(changed),
        "metrics": metrics,
    }
    if options.modality == "ecg":
        result["without_critical"] = without_critical(options.count, options.seed)
    options.output.write_text(json.dumps(result, indent=1) + "\n")


def without_critical(count: int, seed: int) -> dict[str, int]:
    """How many of so many further simulated ECGs, none with a critical finding, are said to have one.

    Decided by the findings alone: the text states no critical finding that is not among them.
    """
    from bioreport.ecg.criteria import ecg_findings
    from bioreport.ecg.measure import measure_ecg
    from bioreport.ecg.simulation.record import simulate_ecg
    from bioreport.findings import CRITICAL

    def critical(findings: list[dict[str, Any]]) -> bool:
        return any(finding["present"] and finding["name"] in CRITICAL for finding in findings)

    seen = invented = 0
    number = (seed + 1) * 1_000_003
    while seen < count:
        number += 1
        simulated = simulate_ecg(number)
        if critical(simulated.findings):
            continue
        seen += 1
        measured = measure_ecg(simulated.data, simulated.sfreq, simulated.leads)
        invented += critical(ecg_findings(measured))
    return {"recordings": seen, "invented": invented}


if __name__ == "__main__":
    main()
