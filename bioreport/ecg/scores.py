"""What is asked of ECG reports beside their findings: critical ones invented or missed, and the rate."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bioreport.ecg.claims import value_in
from bioreport.ecg.lexicon import mentions_in
from bioreport.findings import CRITICAL, ECG_NAMES
from bioreport.scores import Resampling, error_scores
from bioreport.sentences import split_sentences

TOLERANCE = 3.0  # /min
# findings whose value is the ventricular rate; a ventricular tachycardia's may be that of a run
_WITH_RATE = ("bradycardia", "tachycardia", "sinus_rhythm", "supraventricular_tachycardia")


def rate_of(findings: Iterable[Mapping[str, Any]]) -> float | None:
    """Ventricular rate in /min, as the findings have it, present or not."""
    values = {finding["name"]: finding.get("value") for finding in findings}
    known = (values.get(name) for name in _WITH_RATE)
    return next((float(value) for value in known if value is not None), None)


def rate_in(sections: Mapping[str, str]) -> float | None:
    """The rate that a text gives, in /min, of a range the middle; a run's rate is not the recording's."""
    for text in sections.values():
        for sentence in split_sentences(text):
            names = {mention.name for mention in mentions_in(sentence)}
            if "run" in sentence.lower() and "ventricular_tachycardia" in names:
                continue
            value = value_in(sentence, "rate")
            if value is not None:
                return value
    return None


def critical_rates(truth: np.ndarray, stated: np.ndarray, sample: Resampling) -> dict[str, Any]:
    """Share of recordings of which a critical finding is said that is not there, and of those missed.

    Parameters
    ----------
    truth : int8 [N, F]
        Of `ECG_NAMES`, -1 where it is not known.
    stated : bool [N, F]
    """
    columns = [ECG_NAMES.index(name) for name in ECG_NAMES if name in CRITICAL]
    there, absent, said = truth[:, columns] == 1, truth[:, columns] == 0, stated[:, columns]
    invented, missed = (absent & said).any(1), (there & ~said).sum(1)
    return {
        **sample.share(invented, (there | absent).any(1), "invented_rate"),
        **sample.share(missed, there.sum(1), "missed_rate"),
        "invented": int(invented.sum()),
        "missed": int(missed.sum()),
        "recordings_with": int(there.any(1).sum()),
        "recordings_without": int((absent.any(1) & ~there.any(1)).sum()),
    }


def rate_scores(
    truth: Sequence[float | None], given: Sequence[float | None], sample: Resampling
) -> dict[str, Any]:
    """Error of the rate where truth and report have one; how many reports do stands beside."""
    both = [None if one is None else wanted for wanted, one in zip(truth, given, strict=True)]
    names = ("within_three", "mean_absolute_error")
    asked = np.array([value is not None for value in truth])
    stated = np.array([value is not None for value in both])
    return error_scores(both, given, TOLERANCE, sample, names) | sample.share(stated, asked, "stated")
