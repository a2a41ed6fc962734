"""bioreport: draft clinical reports from EEG and ECG recordings.

>>> from bioreport import ReportPipeline                          # doctest: +SKIP
>>> report = ReportPipeline.from_pretrained("bioreport-tiny")("recording.edf")   # doctest: +SKIP
>>> print(report.to_markdown())                                   # doctest: +SKIP

Names are imported when first used, so that ``import bioreport`` and ``--help`` stay under a second.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import bioreport.published as published
    from bioreport.errors import InputError
    from bioreport.pipeline import ReportPipeline
    from bioreport.recording import Recording, open_recording
    from bioreport.report import Report

__version__ = "0.1.0"
__all__ = ["InputError", "Recording", "Report", "ReportPipeline", "open_recording", "published"]

_HOME = {
    "InputError": "bioreport.errors",
    "ReportPipeline": "bioreport.pipeline",
    "Recording": "bioreport.recording",
    "open_recording": "bioreport.recording",
    "Report": "bioreport.report",
}


def __getattr__(name: str) -> Any:
    if name == "published":
        return import_module("bioreport.published")
    if name not in _HOME:
        raise AttributeError(f"module 'bioreport' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
