"""Reports for the projector to learn from, in agreement with what its prompts say.

A simulated report states the truth; a prompt states what was measured and found. Where a number differs in
its last digit, training on the first teaches the projector to overrule the second. So the reports are written
anew, from the evidence.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from bioreport.bundle import Bundle
from bioreport.manifest import read_manifest, write_manifest
from bioreport.tokens import TokenStore, encode_manifest, recording_key
from bioreport.wording import write_sections


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
    errors = encode_manifest(entries, bundle, tokens)
    if errors:
        raise errors[0]
    store, key = TokenStore(tokens), bundle.encoding_key()
    rng = np.random.default_rng(seed)
    agreeing = []
    for entry in entries:
        evidence = store.get(recording_key(entry.recordings[0], key))
        agreeing.append(
            replace(entry, sections=write_sections(evidence.findings, evidence.measurements, rng))
        )
    return write_manifest(out, agreeing)
