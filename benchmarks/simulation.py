"""Reports of new simulated recordings against their truth, with the controls.

    python benchmarks/simulation.py -o benchmarks/results/simulation-DATE.json

The recordings' seeds lie outside those that `bioreport.tiny` trains on.
"""

import argparse
import json
import tempfile
import time
from datetime import date
from pathlib import Path

from environment import environment

from bioreport import cli
from bioreport.evaluate import evaluate, render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--model", default="bioreport-tiny")
    parser.add_argument("--signal", default="tokens")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus, reports = folder / "corpus", folder / "reports"
        cli.main(
            ["simulate", "eeg", "--count", str(options.count), "--seed", str(options.seed), "-o", str(corpus)]
        )
        files = [str(path) for path in sorted(corpus.glob("*.edf"))]
        start = time.perf_counter()
        code = cli.main(
            [
                *("generate", "-o", str(reports), "--format", "json", "--model", options.model),
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
        "command": f"python benchmarks/simulation.py --seed {options.seed} --signal {options.signal}",
        "recordings": options.count,
        "exit_code": code,
        "seconds_to_generate": seconds,
        "reports_changed_by_grounding": sum(count > 0 for count in changed),
        "statements_changed_by_grounding": sum(changed),
        "metrics": metrics,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
