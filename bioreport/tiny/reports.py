"""Reports for the projector to learn from, in agreement with what its prompts say.

A simulated report states the truth; a prompt states what was measured and found. Where a number differs in
its last digit, training on the first teaches the projector to overrule the second. So the reports are written
anew, from the evidence.
"""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from bioreport.bundle import Bundle
from bioreport.ecg.facts import report_facts
from bioreport.ecg.simulation.wording import write_sections as write_ecg_sections
from bioreport.evidence import Evidence
from bioreport.manifest import read_manifest, write_manifest
from bioreport.tokens import TokenStore, encode_manifest
from bioreport.wording import write_sections

log = logging.getLogger(__name__)


def agreeing_manifest(manifest: Path, bundle: Bundle, tokens: Path, out: Path, seed: int = 0) -> Path:
    """Write `manifest` to `out` with each report written from its recording's evidence.

    Parameters
    ----------
    manifest : Path
        Of single recordings.
    bundle : Bundle
        Its encoder and findings head give the evidence.
    tokens : Path
        Token store, filled where it is not; training reads it afterwards.
    out : Path
        In the folder of `manifest`, since recordings are named relative to it.
    seed : int
        Of the wording.
    """
    entries = read_manifest(manifest)
    filled = encode_manifest(entries, bundle, tokens)
    for error in filled.errors:
        log.warning("left out: %s", error)
    store = TokenStore(tokens)
    rng = np.random.default_rng(seed)
    agreeing = []
    for entry in entries:
        key = filled.keys.get(entry.recordings[0])
        if key is None:
            continue
        evidence = store.get(key)
        agreeing.append(replace(entry, sections=sections_from(evidence, rng)))
    return write_manifest(out, agreeing)


def sections_from(evidence: Evidence, rng: np.random.Generator) -> dict[str, str]:
    """The report that a recording's evidence supports."""
    if evidence.modality == "ecg":
        facts = report_facts(evidence.measurements, evidence.findings)
        return write_ecg_sections(evidence.findings, facts, rng)
    return write_sections(evidence.findings, evidence.measurements, rng)
