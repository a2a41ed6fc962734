"""What every benchmark reads from the environment.

``BIOREPORT_BENCH_DEVICE`` is ``cpu`` or ``cuda`` (default: a GPU where there is one);
``BIOREPORT_BENCH_SMOKE=1`` takes tiny shapes, to see that everything runs; ``BIOREPORT_BENCH_OUT`` names the
file of the rows that pytest's runs measure.
"""

import os
from pathlib import Path

import torch

DEVICE = torch.device(
    os.environ.get("BIOREPORT_BENCH_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
)
SMOKE = os.environ.get("BIOREPORT_BENCH_SMOKE", "0") == "1"
OUT = Path(os.environ["BIOREPORT_BENCH_OUT"]) if os.environ.get("BIOREPORT_BENCH_OUT") else None
