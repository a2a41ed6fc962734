"""An analysed stretch as plain values: what `measure_ecg` returns for a short record."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from bioreport.ecg.analysis import Analysis
from bioreport.ecg.beats import NOISY
from bioreport.ecg.conditioning import MAINS_RATIO, RATE
from bioreport.ecg.lead_checks import check_leads
from bioreport.ecg.leads import LEADS
from bioreport.ecg.rhythm import ARRHYTHMIA_SECONDS, PAUSE_RATIO, PAUSE_SECONDS, runs

NOISE_MV = 0.03  # root mean square above 40 Hz: some 0.2 mV peak to peak of muscle
UNLIKE_MV = 0.15  # deviation of a lead's beats from their median, where they do not resemble each other
MAINS_MV = 0.03  # peak to peak, what is seen on paper
STABLE_MV = 0.05  # standard error of an ST level that still says something


def describe(
    a: Analysis, samples: np.ndarray, sfreq: float, leads: Sequence[str], modified: Collection[str] = ()
) -> dict[str, Any]:
    """An analysis as plain values."""
    duration = samples.shape[1] / sfreq
    noisy = [lead for lead in leads if lead in a.stretch.names and _noisy(a, lead)]
    state = a.stretch.state
    kinds = {
        kind: [lead for lead in leads if state.get(lead) == kind] for kind in ("flat", "saturated", "missing")
    }
    good = [lead for lead in leads if state.get(lead) == "good" and lead not in noisy]
    beating = (a.rhythm is not None and a.chaos is None) or (a.chaos is not None and a.rhythm is not None)
    swap = None
    if sum(lead in good for lead in LEADS) >= 8 and beating:
        swap = [
            s
            for s in check_leads([np.asarray(samples, float)], sfreq, leads, tuple(modified))
            if "electrode" in s and "V1 to V6" not in s
        ]
    usable = duration if good and (beating or (a.chaos is not None and a.chaos.kind != "noise")) else 0.0
    return {
        "modality": "ecg",
        "duration_seconds": round(duration, 2),
        "usable_seconds": round(usable, 1),
        "channels_present": [lead for lead in leads if lead not in kinds["missing"]],
        "channels_absent": [lead for lead in LEADS if lead not in leads or lead in kinds["missing"]],
        "channels_flat": kinds["flat"],
        "channels_saturated": kinds["saturated"],
        "channels_noisy": noisy,
        "mains": _mains(a),
        "quality": {
            "usable_share": round(len(good) / max(1, len(leads)), 3),
            "leads": {lead: _lead_quality(a, lead) for lead in leads},
        },
        "lead_swap": swap,
        "standstill": _standstill(a, duration),
        **_rhythm(a),
        **_durations(a),
        "leads": {lead: _lead(a, lead) for lead in a.waves},
        "flutter_levels": None
        if a.flutter_levels is None
        else {lead: {"j": round(j, 3), "st": round(st, 3)} for lead, (j, st) in a.flutter_levels.items()},
    }


def _noisy(a: Analysis, lead: str) -> bool:
    """Whether muscle or a bad contact covers a lead; that its waves are small does not make it noisy."""
    if a.stretch.noise_mv[lead] >= NOISE_MV:
        return True
    if a.median is None or a.chaos is not None or a.beats.quality[lead] >= NOISY:
        return False
    return float(np.median(a.median.deviation[a.stretch.names.index(lead)])) >= UNLIKE_MV


def _quantity(value: float | None, unit: str, confidence: float) -> dict[str, Any] | None:
    if value is None or not np.isfinite(value):
        return None
    digits = 0 if unit in ("ms", "°") else 1
    number = round(float(value), digits)
    return {
        "value": int(number) if digits == 0 else number,
        "unit": unit,
        "confidence": round(float(np.clip(confidence, 0, 1)), 2),
    }


def _mains(a: Analysis) -> dict[str, Any] | None:
    if a.stretch.mains_hz is None:
        return None
    seen = [
        lead for lead, ratio in a.stretch.mains.items()
        if ratio >= MAINS_RATIO and a.stretch.mains_mv.get(lead, 0.0) >= MAINS_MV
    ]  # fmt: skip
    return {
        "frequency_hz": a.stretch.mains_hz,
        "ratio": max(a.stretch.mains.values(), default=1.0),
        "channels": seen,
    }


def _lead_quality(a: Analysis, lead: str) -> dict[str, Any]:
    likeness = a.beats.quality.get(lead)
    wander = a.stretch.wander_mv.get(lead)
    return {
        "state": a.stretch.state.get(lead, "missing"),
        "likeness": likeness,
        "wander_mv": None if wander is None else round(wander, 3),
        "noise_mv": a.stretch.noise_mv.get(lead),
        "mains_ratio": a.stretch.mains.get(lead),
    }


def _standstill(a: Analysis, duration: float) -> dict[str, Any] | None:
    if a.chaos is None:
        return None
    return {
        "kind": a.chaos.kind,
        "start_seconds": round(a.chaos.start, 2),
        "end_seconds": round(min(a.chaos.end, duration), 2),
        "whole": a.rhythm is None,
    }


def _rhythm(a: Analysis) -> dict[str, Any]:
    count = len(a.labels)
    beats = {
        "count": count if a.rhythm is not None else 0,
        "atrial": int((a.labels == "A").sum()),
        "ventricular": int((a.labels == "V").sum()),
        "unclear": int((a.labels == "?").sum()),
        "agreement": round(float(np.median(a.beats.agreement)), 3) if len(a.beats) else 0.0,
    }
    atrial: dict[str, Any] = {
        "p_likeness": None, "p_ratio": None, "p_train": False, "rate": None, "flutter_rate": None,
        "dropped": 0, "dissociated": False,
    }  # fmt: skip
    if a.rhythm is None:
        return {
            "beats": beats,
            "rate": None,
            "rr": None,
            "runs": [],
            "pauses": [],
            "paced_share": 0.0,
            "atrial": atrial,
        }
    r = a.rhythm
    usual = r.rr[r.usual]
    usual = usual[usual < PAUSE_RATIO * r.median]
    quality = float(np.median(list(a.beats.quality.values())))
    seconds = a.beats.seconds
    atrial["p_likeness"] = None if a.likeness is None else round(a.likeness, 2)
    atrial["p_ratio"] = None if a.p is None else round(a.p.ratio, 1)
    atrial["p_train"] = a.conduction.p_train
    if a.atria is not None and a.conduction.p_train:
        atrial["rate"] = round(60 / a.atria.pp, 1)
    atrial["flutter_rate"] = None if a.flutter is None else round(a.flutter, 0)
    atrial["dropped"], atrial["dissociated"] = a.conduction.dropped, a.conduction.dissociated
    return {
        "beats": beats,
        "rate": _quantity(60 / r.mean, "/min", beats["agreement"] * quality),
        "rr": {
            "mean_ms": round(1000 * r.mean),
            "median_ms": round(1000 * r.median),
            "shortest_ms": round(1000 * float(r.rr.min())),
            "longest_ms": round(1000 * r.longest),
            "deviation_ms": round(1000 * float(np.std(usual))) if len(usual) > 1 else None,
            "rmssd_share": round(r.rmssd, 3),
            "regular": bool(r.regular),
            "irregular": bool(r.irregular),
            "sinus_arrhythmia": bool(len(usual) >= 4 and np.ptp(usual) > ARRHYTHMIA_SECONDS),
        },
        "runs": [
            {
                "beats": last - first + 1,
                "rate": round(60 * (last - first) / float(seconds[last] - seconds[first]), 1),
                "start_seconds": round(float(seconds[first]), 2),
                "end_seconds": round(float(seconds[last]), 2),
            }
            for first, last in runs(a.labels, seconds)
        ],
        "pauses": [
            {"start_seconds": round(float(seconds[i]), 2), "seconds": round(float(gap), 2)}
            for i, gap in enumerate(r.rr)
            if gap >= max(PAUSE_SECONDS, PAUSE_RATIO * r.median)
        ],
        "paced_share": round(a.paced, 2),
        "atrial": atrial,
    }


def _durations(a: Analysis) -> dict[str, Any]:
    """Intervals and axes, None where their waves were not found."""
    names = ("pr", "p", "qrs", "qt", "qtc_bazett", "qtc_fridericia", "axis", "p_axis", "t_axis")
    if a.median is None or a.rhythm is None:
        return dict.fromkeys(names)
    count = min(1.0, a.median.count / 6)
    leads = 1.0 if len(a.waves) >= 8 else 0.7
    clear = float(np.median([q for q in a.beats.quality.values() if q >= NOISY] or [0.5]))
    qrs = clear * leads * (0.5 + 0.5 * count) * min(1.0, a.stretch.bandwidth / 100)
    alike = 1.0 if a.likeness is None else max(a.likeness, 0.0)
    p = 0.0 if a.p is None else qrs * alike * min(1.0, a.p.ratio / 10)
    t = 0.0 if a.t is None else qrs * min(1.0, a.t.ratio / 15)
    qt = a.qt_ms
    rr = a.median.rr
    return {
        "pr": _quantity(a.pr_ms, "ms", p),
        "p": _quantity(a.p_ms, "ms", p),
        "qrs": _quantity(a.qrs_ms, "ms", qrs),
        "qt": _quantity(qt, "ms", t),
        "qtc_bazett": _quantity(None if qt is None else qt / np.sqrt(rr), "ms", t),
        "qtc_fridericia": _quantity(None if qt is None else qt / np.cbrt(rr), "ms", t),
        "axis": _quantity(a.axis, "°", qrs),
        "p_axis": _quantity(a.p_axis, "°", p),
        "t_axis": _quantity(a.t_axis, "°", t),
    }


def _lead(a: Analysis, lead: str) -> dict[str, Any]:
    waves = a.waves[lead]
    values = {
        key: value if isinstance(value, bool) else round(float(value), 3 if not key.endswith("_ms") else 0)
        for key, value in asdict(waves).items()
    }
    assert a.median is not None and a.qrs is not None
    row = a.stretch.names.index(lead)
    st = slice(a.qrs[1], a.qrs[1] + round(0.08 * RATE))
    error = float(np.median(a.median.spread[row, st]))
    confidence = a.beats.quality[lead] * float(np.clip(1.3 - error / STABLE_MV, 0, 1))
    return {**values, "range": round(waves.range, 3), "confidence": round(confidence, 2)}
