"""Simulated ECG as WFDB records: format 16 in µV, with the beats as annotations."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bioreport.files import write_error

if TYPE_CHECKING:
    from bioreport.ecg.simulation.record import EcgSimulation

_SYMBOLS = {"conducted": "N", "atrial": "A", "ventricular": "V", "paced": "/", "escape": "E"}


def write_record(simulation: "EcgSimulation", path: str | os.PathLike[str]) -> None:
    """Write a simulated ECG as a WFDB record (.hea, .dat) with its beats (.atr), the header last.

    Parameters
    ----------
    simulation : EcgSimulation
    path : path-like
        Of the header; files of the record that exist are replaced.

    Raises
    ------
    InputError
        The folder cannot be written to.
    """
    import wfdb

    target = Path(path)
    name = target.stem
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=target.parent) as folder:
            wfdb.wrsamp(
                name,
                fs=int(simulation.sfreq),
                units=["mV"] * len(simulation.leads),
                sig_name=list(simulation.leads),
                d_signal=np.rint(simulation.data.T * 1000.0).astype(np.int64),
                fmt=["16"] * len(simulation.leads),
                adc_gain=[1000.0] * len(simulation.leads),
                baseline=[0] * len(simulation.leads),
                comments=[f"Age: {simulation.age}", f"Sex: {simulation.sex.capitalize()}", "Simulated"],
                write_dir=folder,
            )
            endings = [".dat", ".hea"]
            if simulation.beats:
                wfdb.wrann(
                    name,
                    "atr",
                    np.array([round(beat.peak_seconds * simulation.sfreq) for beat in simulation.beats]),
                    [_SYMBOLS[beat.kind] for beat in simulation.beats],
                    fs=simulation.sfreq,
                    write_dir=folder,
                )
                endings.insert(0, ".atr")
            for ending in endings:
                os.replace(Path(folder) / f"{name}{ending}", target.with_suffix(ending))
    except OSError as error:
        raise write_error(target, error) from error
