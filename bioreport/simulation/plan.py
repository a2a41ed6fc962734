"""What a simulated recording shows: which findings occur together, and when each of them lasts."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from bioreport.findings import EEG_NAMES
from bioreport.simulation.canvas import Interval

# A patient's condition and how often it comes; the findings each brings are in `draw_findings`.
CONDITIONS: dict[str, float] = {
    "normal": 0.24,
    "drowsy": 0.13,
    "asleep": 0.10,
    "encephalopathy": 0.12,
    "lesion": 0.09,
    "focal epilepsy": 0.11,
    "generalized epilepsy": 0.12,
    "seizure": 0.13,
    "comatose": 0.10,
    "technical failure": 0.03,
}
_ARTIFACTS = {"muscle_artifact": 0.22, "electrode_artifact": 0.15, "mains_noise": 0.15, "bad_electrode": 0.13}
_EXCLUSIVE = (
    "posterior_dominant_rhythm", "drowsiness", "sleep_spindles", "generalized_slowing", "focal_slowing",
    "focal_epileptiform_discharges", "generalized_spike_wave", "seizure",
)  # fmt: skip


@dataclass
class Plan:
    """Findings of a recording and the intervals of its states, in seconds."""

    present: set[str]
    junk: bool = False
    alpha: list[Interval] = field(default_factory=list)
    drowsy: Interval | None = None
    asleep: Interval | None = None
    seizure: Interval | None = None
    eyes_open: list[Interval] = field(default_factory=list)


def draw_findings(rng: np.random.Generator, duration: float) -> tuple[set[str], bool]:
    """Draw findings that clinically go together; True with them where there is no EEG in the recording."""
    conditions = list(CONDITIONS)
    weights = np.array(list(CONDITIONS.values()))
    condition = conditions[int(rng.choice(len(conditions), p=weights / weights.sum()))]
    present: set[str] = set()

    def maybe(name: str, probability: float) -> None:
        if rng.random() < probability:
            present.add(name)

    long = duration >= 60
    if condition == "technical failure":
        for name in ("mains_noise", "electrode_artifact"):
            maybe(name, 0.4)
        return present, True
    if condition == "comatose":
        present.add("burst_suppression")
    elif condition == "encephalopathy":
        present.add("generalized_slowing")
        maybe("posterior_dominant_rhythm", 0.25)
        maybe("focal_epileptiform_discharges", 0.12)
        maybe("seizure", 0.08 if long else 0.0)
    else:
        maybe("posterior_dominant_rhythm", 0.78)
        if condition in ("drowsy", "asleep"):
            present.add("drowsiness" if condition == "drowsy" else "sleep_spindles")
            if condition == "asleep" and long:
                maybe("drowsiness", 0.6)
            if condition == "asleep" and not long:
                present.discard("posterior_dominant_rhythm")
        elif condition == "lesion":
            present.add("focal_slowing")
            maybe("focal_epileptiform_discharges", 0.25)
        elif condition == "focal epilepsy":
            present.add("focal_epileptiform_discharges")
            maybe("focal_slowing", 0.3)
        elif condition == "generalized epilepsy":
            present.add("generalized_spike_wave")
        elif condition == "seizure":
            present.add("seizure")
            maybe("focal_epileptiform_discharges", 0.25)
            maybe("focal_slowing", 0.15)
            maybe("generalized_spike_wave", 0.12)
        if condition in ("lesion", "focal epilepsy", "generalized epilepsy") and long:
            maybe("drowsiness", 0.2)
            maybe("sleep_spindles", 0.15)
    if "posterior_dominant_rhythm" in present:
        maybe("posterior_asymmetry", 0.17)
    if "burst_suppression" not in present and "sleep_spindles" not in present:
        maybe("eye_blink_artifact", 0.32)
    for name, probability in _ARTIFACTS.items():
        maybe(name, probability)
    return present, False


def check_findings(present: Iterable[str]) -> set[str]:
    """Return the names as a set.

    Raises
    ------
    ValueError
        A name is unknown, or two findings exclude each other or one needs another.
    """
    names = set(present)
    unknown = names - set(EEG_NAMES)
    if unknown:
        raise ValueError(f"unknown findings: {', '.join(sorted(unknown))}")
    if "posterior_asymmetry" in names and "posterior_dominant_rhythm" not in names:
        raise ValueError("posterior_asymmetry needs posterior_dominant_rhythm")
    if "burst_suppression" in names and names & set(_EXCLUSIVE):
        raise ValueError("burst_suppression leaves no other background, discharge or seizure")
    return names


def draw_plan(rng: np.random.Generator, duration: float, present: set[str], *, junk: bool = False) -> Plan:
    """Lay the states of a recording out in time: awake, then drowsy, then asleep; a seizure anywhere."""
    plan = Plan(present, junk)
    sleepy = [name for name in ("drowsiness", "sleep_spindles") if name in present]
    awake_until = duration
    if sleepy:
        share = rng.uniform(0.35, 0.6) if "posterior_dominant_rhythm" in present else rng.uniform(0.0, 0.4)
        awake_until = duration * share if share > 0.1 else 0.0
        middle = awake_until + (duration - awake_until) * rng.uniform(0.35, 0.6)
        if len(sleepy) == 2:
            plan.drowsy, plan.asleep = (awake_until, middle), (middle, duration)
        elif sleepy == ["drowsiness"]:
            plan.drowsy = (awake_until, duration)
        else:
            plan.asleep = (awake_until, duration)
    if "seizure" in present:
        length = min(rng.uniform(12, 60), 0.45 * duration)
        # what comes after a seizure is slow, so the posterior rhythm has to come before it
        earliest = 0.35 * duration if "posterior_dominant_rhythm" in present else 0.03 * duration
        start = rng.uniform(earliest, max(earliest + 0.1, duration - length - 1))
        plan.seizure = (start, start + length)
    if awake_until > 0:
        limit = min(awake_until, plan.seizure[0] if plan.seizure else duration)
        plan.alpha, plan.eyes_open = _eyes(rng, limit)
        if plan.seizure and awake_until > plan.seizure[1] + 20:
            plan.alpha.append((plan.seizure[1] + 18, awake_until))
    if "posterior_dominant_rhythm" not in present:
        plan.alpha = []
        plan.eyes_open = [(0.0, awake_until)] if awake_until > 0 else [(0.0, min(15.0, duration))]
    return plan


def _eyes(rng: np.random.Generator, until: float) -> tuple[list[Interval], list[Interval]]:
    """Split [0, until] into eyes closed and eyes open; at most 40 % open."""
    if rng.random() < 0.45 or until < 12:
        return [(0.0, until)], []
    length = rng.uniform(0.15, 0.4) * until
    start = rng.uniform(0, until - length)
    closed = [(a, b) for a, b in ((0.0, start), (start + length, until)) if b - a > 3]
    return closed, [(start, start + length)]
