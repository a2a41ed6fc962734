"""Codes of data sets that mean exactly one finding of `bioreport.findings`; every other code stays a code.

A finding that is in no list of an entry is not known, which is neither present nor absent.
"""

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from bioreport.findings import absent_finding

# SCP-ECG statements of PTB-XL (Wagner et al. 2020, tables 6 to 8). Left out are those that say more than one
# finding or less: SBRAD and STACH are rhythm and rate, infarctions there are by place and not by age.
PTBXL: dict[str, str] = {
    "SR": "sinus_rhythm",
    "SARRH": "sinus_arrhythmia",
    "AFIB": "atrial_fibrillation",
    "AFLT": "atrial_flutter",
    "SVTAC": "supraventricular_tachycardia",
    "PSVT": "supraventricular_tachycardia",
    "PACE": "paced_rhythm",
    "PAC": "premature_atrial_contractions",
    "PVC": "premature_ventricular_contractions",
    "1AVB": "first_degree_av_block",
    "2AVB": "second_degree_av_block",
    "3AVB": "complete_av_block",
    "CRBBB": "right_bundle_branch_block",
    "IRBBB": "incomplete_right_bundle_branch_block",
    "CLBBB": "left_bundle_branch_block",
    "IVCD": "intraventricular_conduction_delay",
    "LAFB": "left_anterior_fascicular_block",
    "LVH": "left_ventricular_hypertrophy",
    "VCLVH": "left_ventricular_hypertrophy",
    "RVH": "right_ventricular_hypertrophy",
    "LVOLT": "low_qrs_voltage",
    "STE_": "st_elevation",
    "STD_": "st_depression",
    "INVT": "t_wave_inversion",
    "QWAVE": "pathological_q_waves",
    "LNGQT": "prolonged_qt",
}
# Those whose code would be there if they were: of the others some are also told by codes that are not in the
# table (ST depression by ischaemia, Q waves by old infarction, sinus rhythm by sinus bradycardia), some were
# coded in few of the records whose reports mention them (long QT, low voltage).
PTBXL_COMPLETE: frozenset[str] = frozenset(PTBXL.values()) - {
    "sinus_rhythm",
    "st_elevation",
    "st_depression",
    "t_wave_inversion",
    "pathological_q_waves",
    "prolonged_qt",
    "low_qrs_voltage",
}
_LIKELY = 50.0  # percent; PTB-XL states 0 where nobody said how sure they were, 15 and 35 for doubt

# Columns of HEEDB's reports_findings tables (Sun et al. 2025). An empty cell is "not mentioned".
HEEDB: dict[str, str] = {
    "pdr": "posterior_dominant_rhythm",
    "n1": "drowsiness",
    "spindles": "sleep_spindles",
    "gen slowing": "generalized_slowing",
    "foc slowing": "focal_slowing",
    "seizure": "seizure",
    "bs": "burst_suppression",
}
# what a recording reported as normal does not show
HEEDB_NOT_NORMAL: tuple[str, ...] = (
    "generalized_slowing",
    "focal_slowing",
    "focal_epileptiform_discharges",
    "generalized_spike_wave",
    "seizure",
    "burst_suppression",
)
# every column that is a label, mapped or not
HEEDB_COLUMNS: tuple[str, ...] = (
    "normal", "abnormal", "awake", "n1", "n2", "bets", "wicket", "spindles", "vertex wave", "k_complexes",
    "posts", "breach", "spikes", "seizure", "status", "lpd", "gpd", "lrda", "grda", "bipd", "bs",
    "foc slowing", "gen slowing", "pdr", "low voltage", "diffuse Beta", "ppr", "eses", "cjd", "bects", "jae",
    "jme", "dravet", "jeavons", "sunflower", "wham", "angelman", "fold", "uninterpretable",
)  # fmt: skip


def findings_of(present: Iterable[str], absent: Iterable[str]) -> tuple[dict[str, Any], ...] | None:
    """Entries of findings, sorted by name; one said to be both is left out; None where nothing is known."""
    yes, no = set(present), set(absent)
    entries = [{**absent_finding(name), "present": name in yes} for name in sorted(yes ^ no)]
    return tuple(entries) or None


def ptbxl_codes(cell: str) -> dict[str, float]:
    """Statements with their likelihood in percent, e.g. ``{"NORM": 100.0, "SR": 0.0}``.

    Raises
    ------
    ValueError
        The cell is no such dictionary.
    """
    try:
        codes = ast.literal_eval(cell)
    except (SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError("is no dictionary of statements") from error
    if not isinstance(codes, dict) or not all(isinstance(code, str) for code in codes):
        raise ValueError("is no dictionary of statements")
    return {code: float(likelihood) for code, likelihood in codes.items()}


def ptbxl_findings(codes: Mapping[str, float]) -> tuple[dict[str, Any], ...] | None:
    """Findings that the statements of a PTB-XL record say to be there or not; those in doubt are left out."""
    said = {PTBXL[code] for code in codes if code in PTBXL}
    sure = {PTBXL[code] for code, p in codes.items() if code in PTBXL and not 0 < p < _LIKELY}
    return findings_of(sure, PTBXL_COMPLETE - said) if codes else None


def heedb_findings(labels: Mapping[str, str]) -> tuple[dict[str, Any], ...] | None:
    """Findings of a HEEDB report; one that is asserted of a recording called normal is left out."""
    present = {name for column, name in HEEDB.items() if column in labels}
    return findings_of(present, HEEDB_NOT_NORMAL if "normal" in labels else ())
