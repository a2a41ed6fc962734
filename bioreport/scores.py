"""Scores with their intervals by patient: shares over recordings, precision, recall and F1 of findings."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class Resampling:
    """Draws of patients with replacement: [draws, patients] weights; row 0 is the sample itself."""

    def __init__(self, patients: Sequence[str], resamples: int, seed: int) -> None:
        _, self.group = np.unique(np.asarray(patients), return_inverse=True)
        count = int(self.group.max()) + 1
        drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
        self.weights = np.concatenate([np.ones((1, count), np.int64), drawn])

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum over recordings in every draw: [recordings, ...] -> [draws, ...]."""
        by_patient = np.zeros((self.weights.shape[1], *values.shape[1:]))
        np.add.at(by_patient, self.group, values)
        return np.tensordot(self.weights, by_patient, 1)

    def share(self, part: np.ndarray, whole: np.ndarray, name: str) -> dict[str, Any]:
        """`name` and its interval, of part/whole summed over recordings."""
        return self.interval(divide(self.sums(part), self.sums(whole)), name)

    @staticmethod
    def interval(draws: np.ndarray, name: str) -> dict[str, Any]:
        """First draw as the estimate, the others as its 95 % interval."""
        rest = draws[1:][~np.isnan(draws[1:])]
        ends = [number(end) for end in np.percentile(rest, [2.5, 97.5])] if len(rest) else None
        return {name: number(draws[0]), f"{name}_ci": ends}


def finding_scores(
    truth: np.ndarray, said_present: np.ndarray, names: Sequence[str], sample: Resampling
) -> dict[str, Any]:
    """Precision, recall and F1 of `names`: truth int8 [N, F] (-1 unknown), said_present bool [N, F].

    Macro is the mean over the findings whose F1 has a denominator.
    """
    tp = sample.sums((truth == 1) & said_present)
    fp = sample.sums((truth == 0) & said_present)
    fn = sample.sums((truth == 1) & ~said_present)
    f1 = divide(2 * tp, 2 * tp + fp + fn)
    counted = ~np.isnan(f1)
    macro = divide(np.where(counted, f1, 0.0).sum(1), counted.sum(1).astype(float))
    all_tp, all_fp, all_fn = tp.sum(1), fp.sum(1), fn.sum(1)
    per_finding = {}
    for column, name in enumerate(names):
        if (truth[:, column] >= 0).any():
            per_finding[name] = {
                "precision": number(divide(tp[0, column], tp[0, column] + fp[0, column])),
                "recall": number(divide(tp[0, column], tp[0, column] + fn[0, column])),
                **sample.interval(f1[:, column], "f1"),
                "present": int((truth[:, column] == 1).sum()),
                "said": int(((truth[:, column] >= 0) & said_present[:, column]).sum()),
            }
    return {
        "micro": {
            "precision": number(divide(all_tp[0], all_tp[0] + all_fp[0])),
            "recall": number(divide(all_tp[0], all_tp[0] + all_fn[0])),
            **sample.interval(divide(2 * all_tp, 2 * all_tp + all_fp + all_fn), "f1"),
        },
        "macro": {
            "precision": _mean([scores["precision"] for scores in per_finding.values()]),
            "recall": _mean([scores["recall"] for scores in per_finding.values()]),
            **sample.interval(macro, "f1"),
        },
        "per_finding": per_finding,
    }


def error_scores(
    truth: Sequence[float | None],
    given: Sequence[float | None],
    tolerance: float,
    sample: Resampling,
    names: tuple[str, str],
) -> dict[str, Any]:
    """Absolute error of a number, where the truth has one.

    Parameters
    ----------
    truth, given : sequence of (float or None)
        By recording; a number that is asked for and not given counts as not within the tolerance.
    tolerance : float
        Its border is within.
    names : (str, str)
        Of the share within and of the mean error.
    """
    wanted = np.array([np.nan if value is None else value for value in truth], float)
    stated_as = np.array([np.nan if value is None else value for value in given], float)
    errors = np.abs(stated_as - wanted)
    asked, stated = ~np.isnan(wanted), ~np.isnan(errors)
    # the border counts, whatever binary fractions make of 9.5 - 9.0
    within = stated & (np.nan_to_num(errors, nan=np.inf) <= tolerance + 1e-9)
    return {
        **sample.share(within, asked, names[0]),
        **sample.share(np.where(stated, np.nan_to_num(errors), 0.0), stated, names[1]),
        **sample.share(stated, asked, "stated"),
        "recordings": int(asked.sum()),
    }


def divide(part: Any, whole: Any) -> Any:
    """part/whole, NaN where there is no whole."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)


def number(value: Any) -> float | None:
    """A score as JSON has it: six digits, None for NaN."""
    return None if np.isnan(value) else round(float(value), 6)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 6) if known else None
