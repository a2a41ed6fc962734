"""Words of ECG reports: names of the findings, and what every writer of a section needs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bioreport.ecg.leads import in_order

NAMES: Mapping[str, tuple[str, ...]] = {
    "asystole": ("asystole",),
    "ventricular_fibrillation": ("ventricular fibrillation",),
    "ventricular_tachycardia": ("ventricular tachycardia",),
    "complete_av_block": ("complete AV block", "third-degree AV block", "complete heart block"),
    "atrial_fibrillation": ("atrial fibrillation",),
    "atrial_flutter": ("atrial flutter",),
    "supraventricular_tachycardia": ("supraventricular tachycardia",),
    "paced_rhythm": ("ventricular paced rhythm", "paced rhythm"),
    "second_degree_av_block": ("second-degree AV block",),
    "first_degree_av_block": ("first-degree AV block",),
    "pause": ("a sinus pause", "a pause"),
    "premature_ventricular_contractions": (
        "premature ventricular contractions",
        "ventricular premature complexes",
    ),
    "premature_atrial_contractions": ("premature atrial contractions", "atrial premature complexes"),
    "left_bundle_branch_block": ("left bundle branch block", "complete left bundle branch block"),
    "right_bundle_branch_block": ("right bundle branch block", "complete right bundle branch block"),
    "incomplete_right_bundle_branch_block": ("incomplete right bundle branch block",),
    "intraventricular_conduction_delay": (
        "intraventricular conduction delay",
        "nonspecific intraventricular conduction delay",
    ),
    "left_anterior_fascicular_block": ("left anterior fascicular block", "left anterior hemiblock"),
    "left_axis_deviation": ("left axis deviation",),
    "right_axis_deviation": ("right axis deviation",),
    "left_ventricular_hypertrophy": (
        "left ventricular hypertrophy by voltage",
        "voltage criteria for left ventricular hypertrophy",
    ),
    "right_ventricular_hypertrophy": ("right ventricular hypertrophy",),
    "low_qrs_voltage": ("low QRS voltage",),
    "prolonged_qt": ("prolonged QT interval", "QT prolongation"),
    "short_qt": ("short QT interval",),
}


def listed(words: Sequence[str]) -> str:
    if len(words) < 3:
        return " and ".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def upper(text: str) -> str:
    return text[:1].upper() + text[1:]


class Words:
    """What was found, the numbers that may be written, and draws among wordings."""

    def __init__(
        self, findings: Iterable[Mapping[str, Any]], facts: Mapping[str, Any], rng: np.random.Generator
    ) -> None:
        findings = list(findings)
        self.present = {finding["name"]: finding for finding in findings if finding["present"]}
        self.known = frozenset(finding["name"] for finding in findings)
        self.facts, self.rng = facts, rng
        self.has_beats = not self.has("asystole", "ventricular_fibrillation")
        # a rhythm whose QRS says nothing about conduction, mass and repolarisation
        self.judged = self.has_beats and not (
            self.has("paced_rhythm") or (self.has("ventricular_tachycardia") and not self.has("sinus_rhythm"))
        )
        self.secondary = self.has("left_bundle_branch_block", "right_bundle_branch_block")

    def has(self, *names: str) -> bool:
        return any(name in self.present for name in names)

    def can(self, *names: str) -> bool:
        """Whether all of them could be judged, so that their absence may be stated."""
        return self.known.issuperset(names)

    def pick(self, *wordings: str) -> str:
        return wordings[int(self.rng.integers(len(wordings)))]

    def name(self, finding: str) -> str:
        return self.pick(*NAMES[finding])

    def number(self, key: str, unit: str) -> str:
        value = self.facts.get(key)
        return "" if value is None else f"{value:.0f}{unit}"

    def leads(self, finding: str) -> str:
        return listed(in_order(self.present[finding].get("channels") or []))
