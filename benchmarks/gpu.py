"""Everything that a GPU can show, in parts that each have a time of their own; see ``gpu.sh``.

What a part has measured is in the file before the next begins, and no part can take another's time.
"""

import argparse
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import operators
from results import write

ROOT = Path(__file__).resolve().parents[1]
# Shares of the budget; what is left is the tuner's.
TESTS, OPERATORS, PIPELINE = 0.3, 0.45, 0.12
PATTERNS = ("test_gpu.py", "test_*kernels*.py")
AT_ONCE = 4
PYTEST = (
    sys.executable,
    *["-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", "-rfE", "--tb=short"],
)
PARTS = ("tests", "kernels", "pipeline", "tune")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=560.0, metavar="SECONDS", help="for all parts")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes, on a CPU too: does it all run?")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all, in this order"
    )
    options = parser.parse_args()
    end = time.time() + options.budget
    name = device_name()
    folder = Path(os.environ.get("OUT") or ROOT / "benchmarks" / "results")
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    output = folder / f"kernels-{date.today().isoformat()}-{slug}.json"
    document: dict[str, Any] = {
        "date": date.today().isoformat(),
        "command": "benchmarks/gpu.sh" + " --smoke" * options.smoke,
    }
    write(output, document)

    if "tests" in options.parts:
        document["tests"] = run_tests(options.budget * TESTS, options.smoke)
        write(output, document)
    if "kernels" in options.parts:
        operators.run(
            document,
            output,
            device="cpu" if name == "cpu" else "cuda",
            seconds=0.005 if options.smoke else 0.2,
            budget=min(options.budget * OPERATORS, end - time.time()),
            stall=60.0,
            smoke=options.smoke,
            settings=("default",) if options.smoke else None,
        )
    if "pipeline" in options.parts:
        seconds = min(options.budget * PIPELINE, end - time.time())
        document["pipeline"] = run_pipeline(seconds, options.smoke)
        write(output, document)
    if "tune" in options.parts:
        seconds, settings = end - time.time() - 5, folder / f"settings-{slug}.json"
        document["tuned"] = run_tune(seconds, settings, options.smoke)
        write(output, document)

    tests = document.get("tests", {"summary": "not run", "passed": True})
    print(f"{output}: {len(document.get('rows', []))} rows; tests: {tests['summary']}")
    return 0 if tests["passed"] else 1


def device_name() -> str:
    """Name of the first CUDA device, or cpu."""
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'cpu')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def run_tests(seconds: float, smoke: bool) -> dict[str, Any]:
    """Each file of tests in a process of its own, several at once: most of the time goes into compiling."""
    patterns = PATTERNS[:1] if smoke else PATTERNS
    waiting = [path for pattern in patterns for path in sorted((ROOT / "tests").glob(pattern))]
    end, running, files = time.time() + seconds, {}, {}
    # options meant for the run that calls this one, such as a least coverage, are not for its parts
    own = ("TRITON_INTERPRET", "PYTEST_ADDOPTS")
    environment = {key: value for key, value in os.environ.items() if key not in own}
    with tempfile.TemporaryDirectory() as folder:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                path = waiting.pop(0)
                log = Path(folder) / path.name
                with open(log, "w") as file:
                    running[path.name] = subprocess.Popen(
                        [*PYTEST, str(path)],
                        cwd=ROOT,
                        env=environment,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,
                    )
            for name, process in list(running.items()):
                late = time.time() > end
                if process.poll() is None and not late:
                    continue
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                del running[name]
                text = (Path(folder) / name).read_text(errors="replace")
                lines = text.strip().splitlines() or ["no output"]
                files[name] = {
                    # 5: a file whose tests another package's absence has skipped
                    "passed": process.returncode in (0, 5),
                    "summary": f"stopped after {seconds:.0f} s" if late else lines[-1].strip("= "),
                    "failed": [line for line in lines if line.startswith(("FAILED", "ERROR"))],
                }
                if not files[name]["passed"]:
                    files[name]["tail"] = lines[-60:]
                print(f"{name}: {files[name]['summary']}", flush=True)
            time.sleep(0.05)
    bad = sorted(name for name, found in files.items() if not found["passed"])
    return {
        "passed": not bad,
        "summary": f"{len(files) - len(bad)} of {len(files)} files passed" + (f", not {bad}" if bad else ""),
        "files": files,
    }


def run_pipeline(seconds: float, smoke: bool) -> dict[str, Any]:
    """`profile_pipeline.py`, where what bioreport needs is installed."""
    needed = ("mne", "transformers", "edfio", "nvtx", "scipy")
    absent = [module for module in needed if importlib.util.find_spec(module) is None]
    if absent:
        return {"missing": f"not installed: {', '.join(absent)}"}
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "profile.json"
        command = [sys.executable, str(ROOT / "benchmarks" / "profile_pipeline.py"), "-o", str(result)]
        said = finish([*command, *(["--seconds", "100"] if smoke else [])], seconds)
        return json.loads(result.read_text()) if result.exists() else {"problem": said}


def run_tune(seconds: float, output: Path, smoke: bool) -> dict[str, Any]:
    """Launch settings that are the fastest on this device, into a file of their own."""
    if importlib.util.find_spec("bioreport_kernels.tune") is None:
        return {"missing": "bioreport_kernels.tune is not there"}
    if smoke:
        return {"missing": "nothing to tune without a GPU"}
    # the rest is for what compiles when the time is up
    limit = f"{0.85 * seconds:.0f}"
    command = [sys.executable, "-m", "bioreport_kernels.tune", "-o", str(output), "--budget", limit]
    said = finish(command, seconds)
    return {"file": output.name if output.exists() else None, "said": said}


def finish(command: list[str], seconds: float) -> list[str]:
    """Run a command for at most so long; the last lines of what it said on stderr."""
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(command, cwd=ROOT, stderr=log, start_new_session=True)
        try:
            end = f"exit code {process.wait(timeout=max(seconds, 1))}"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            end = f"stopped after {seconds:.0f} s"
        log.seek(0)
        return [*log.read().splitlines()[-40:], end]


if __name__ == "__main__":
    sys.exit(main())
