"""Windows of a long record put together: counts and longest intervals exactly, waves as medians, episodes."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bioreport.ecg.analysis import Analysis
from bioreport.ecg.criteria import judge
from bioreport.ecg.rhythm import PAUSE_RATIO, PAUSE_SECONDS

KEPT_WINDOWS = 256  # whose waves are kept; at least half as many once the record is longer
MOST_EPISODES = 200
LONGEST_RR = 4.0  # s; what is longer is a gap or a standstill, not an interval
RHYTHMS = (
    "sinus_rhythm", "atrial_fibrillation", "atrial_flutter", "supraventricular_tachycardia",
    "ventricular_tachycardia", "ventricular_fibrillation", "asystole", "paced_rhythm", "complete_av_block",
    "second_degree_av_block",
)  # fmt: skip
_QUANTITIES = ("pr", "p", "qrs", "qt", "qtc_bazett", "qtc_fridericia", "axis", "p_axis", "t_axis")


class Summary:
    """Takes the windows of one record in the order of time; bounded memory."""

    def __init__(self, leads: Sequence[str]) -> None:
        self.leads = tuple(leads)
        self.count = 0
        self.only: dict[str, Any] = {}
        self.kept: list[dict[str, Any]] = []
        self.stride = 1
        self.seconds = self.usable = 0.0
        self.labels: Counter[str] = Counter()
        self.rr_sum, self.rr_count = 0.0, 0
        self.shortest, self.longest = np.inf, 0.0
        self.rates: tuple[float, float] | None = None
        self.last_beat: float | None = None
        self.runs: list[dict[str, Any]] = []
        self.pauses: list[dict[str, Any]] = []
        self.time_in: defaultdict[str, float] = defaultdict(float)
        self.judged_seconds = 0.0
        self.episodes: list[dict[str, Any]] = []
        self.left_out = 0
        self.bad: dict[str, Counter[str]] = {
            kind: Counter() for kind in ("flat", "saturated", "noisy", "missing")
        }

    def add(
        self, described: dict[str, Any], analysis: Analysis, core: tuple[float, float], offset: float
    ) -> None:
        """Take the next window.

        Parameters
        ----------
        described : dict
            What `bioreport.ecg.description.describe` says of it.
        core : (float, float)
            Its own part, in s from the start of its samples.
        offset : float
            Time of the first of its samples in the record, s.
        """
        length = core[1] - core[0]
        self.count += 1
        self.seconds += length
        self.usable += length if described["usable_seconds"] else 0.0
        if self.count == 1:
            self.only = described
        for kind, counter in self.bad.items():
            listed = (
                described[f"channels_{kind}"]
                if kind != "missing"
                else [
                    lead
                    for lead, quality in described["quality"]["leads"].items()
                    if quality["state"] == "missing"
                ]
            )
            counter.update(listed)
        self._count_beats(described, analysis, core, offset)
        self._follow_rhythm(described, core, offset)
        if (self.count - 1) % self.stride == 0:
            if len(self.kept) == KEPT_WINDOWS:
                self.kept = self.kept[::2]
                self.stride *= 2
            if (self.count - 1) % self.stride == 0:
                self.kept.append(described)

    def _count_beats(
        self, described: dict[str, Any], analysis: Analysis, core: tuple[float, float], offset: float
    ) -> None:
        if analysis.rhythm is None:
            self.last_beat = None
            return
        seconds = analysis.beats.seconds
        inside = (seconds >= core[0]) & (seconds < core[1])
        self.labels.update(analysis.labels[inside].tolist())
        own = seconds[inside] + offset
        if not len(own):
            return
        times = own if self.last_beat is None else np.concatenate([[self.last_beat], own])
        rr = np.diff(times)
        kept = rr[rr <= LONGEST_RR]
        self.rr_sum += float(kept.sum())
        self.rr_count += len(kept)
        if len(kept):
            self.shortest, self.longest = (
                min(self.shortest, float(kept.min())),
                max(self.longest, float(kept.max())),
            )
        limit = max(PAUSE_SECONDS, PAUSE_RATIO * analysis.rhythm.median)
        for i in np.flatnonzero((rr >= limit) & (rr <= LONGEST_RR)):
            self._list(
                self.pauses, {"start_seconds": round(float(times[i]), 2), "seconds": round(float(rr[i]), 2)}
            )
        self.last_beat = float(own[-1])
        for run in described["runs"]:
            if core[0] <= run["start_seconds"] < core[1]:
                self._list(self.runs, _shifted(run, offset))
        if len(own) >= 3 and described["rate"] is not None and described["rate"]["confidence"] >= 0.5:
            rate = float(described["rate"]["value"])
            low, high = self.rates or (rate, rate)
            self.rates = (min(low, rate), max(high, rate))

    def _list(self, where: list[dict[str, Any]], item: dict[str, Any]) -> None:
        if len(where) < MOST_EPISODES:
            where.append(item)
        else:
            self.left_out += 1

    def _follow_rhythm(self, described: dict[str, Any], core: tuple[float, float], offset: float) -> None:
        """Lengthen or begin the episodes of the rhythms that this window shows."""
        judged = judge(described)
        if not judged.keys() & set(RHYTHMS):
            return
        start, end = offset + core[0], offset + core[1]
        self.judged_seconds += end - start
        for name in RHYTHMS:
            if name not in judged or not judged[name].present:
                continue
            begin, finish = start, end
            if judged[name].start is not None and judged[name].end is not None:
                begin, finish = (
                    offset + float(judged[name].start or 0.0),
                    offset + float(judged[name].end or 0.0),
                )
            self.time_in[name] += finish - begin
            last = next((e for e in reversed(self.episodes) if e["name"] == name), None)
            if last is not None and begin - last["end_seconds"] <= 1.0:
                last["end_seconds"] = round(finish, 2)
            else:
                self._list(
                    self.episodes,
                    {"name": name, "start_seconds": round(begin, 2), "end_seconds": round(finish, 2)},
                )

    def result(self) -> dict[str, Any]:
        """The record's measurements."""
        extra: dict[str, Any] = {
            "windows": self.count,
            "rate_range": list(self.rates) if self.rates and self.count > 1 else None,
            "rhythms": {name: round(time / self.judged_seconds, 3) for name, time in self.time_in.items()}
            if self.judged_seconds
            else {},
            "episodes": self.episodes if self.count > 1 else [],
            "episodes_left_out": self.left_out,
        }
        if self.count == 1:
            return {**self.only, **extra}
        windows = [window for window in self.kept if window["rate"] is not None]
        typical = {key: _typical(windows, key) for key in _QUANTITIES}
        return {
            **self.only,
            "duration_seconds": round(self.seconds, 2),
            "usable_seconds": round(self.usable, 1),
            **{f"channels_{kind}": self._mostly(self.bad[kind]) for kind in ("flat", "saturated", "noisy")},
            "channels_present": [
                lead for lead in self.leads if lead not in self._mostly(self.bad["missing"])
            ],
            "mains": _commonest_mains(self.kept),
            "quality": _quality(self.kept, self.leads),
            "lead_swap": _swap(windows),
            "standstill": None if windows else self.only["standstill"],
            **self._beats(windows),
            **typical,
            "leads": _waves(windows),
            "flutter_levels": _flutter_levels(windows),
            **extra,
        }

    def _mostly(self, counter: Counter[str]) -> list[str]:
        return [lead for lead in self.leads if counter[lead] > 0.5 * self.count]

    def _beats(self, windows: list[dict[str, Any]]) -> dict[str, Any]:
        keys = ("beats", "rate", "rr", "runs", "pauses", "paced_share", "atrial")
        if not windows or not self.rr_count:
            return {key: self.only[key] for key in keys} | {"rate": None}
        mean = self.rr_sum / self.rr_count
        atrial = [window["atrial"] for window in windows]
        dropped = [one["dropped"] for one in atrial]
        return {
            "beats": {
                "count": sum(self.labels.values()),
                "atrial": self.labels["A"],
                "ventricular": self.labels["V"],
                "unclear": self.labels["?"],
                "agreement": _median(window["beats"]["agreement"] for window in windows),
            },
            "rate": {
                "value": round(60 / mean, 1),
                "unit": "/min",
                "confidence": _median(window["rate"]["confidence"] for window in windows),
            },
            "rr": {
                "mean_ms": round(1000 * mean),
                "median_ms": _median(window["rr"]["median_ms"] for window in windows),
                "shortest_ms": round(1000 * self.shortest),
                "longest_ms": round(1000 * self.longest),
                "deviation_ms": _median(window["rr"]["deviation_ms"] for window in windows),
                "rmssd_share": _median(window["rr"]["rmssd_share"] for window in windows),
                "regular": _mostly_true(window["rr"]["regular"] for window in windows),
                "irregular": _mostly_true(window["rr"]["irregular"] for window in windows),
                "sinus_arrhythmia": _mostly_true(window["rr"]["sinus_arrhythmia"] for window in windows),
            },
            "runs": self.runs,
            "pauses": self.pauses,
            "paced_share": _median(window["paced_share"] for window in windows),
            "atrial": {
                "p_likeness": _median(one["p_likeness"] for one in atrial),
                "p_ratio": _median(one["p_ratio"] for one in atrial),
                "p_train": _mostly_true(one["p_train"] for one in atrial),
                "rate": _median(one["rate"] for one in atrial),
                "flutter_rate": _median(one["flutter_rate"] for one in atrial)
                if _mostly_true(one["flutter_rate"] is not None for one in atrial)
                else None,
                # one missing P wave in a day is a P wave that was not seen
                "dropped": int(np.sum(dropped)) if np.mean(np.array(dropped) > 0) > 0.1 else 0,
                "dissociated": _mostly_true(one["dissociated"] for one in atrial),
            },
        }


def _shifted(item: dict[str, Any], offset: float) -> dict[str, Any]:
    return {k: round(v + offset, 2) if k in ("start_seconds", "end_seconds") else v for k, v in item.items()}


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(float(np.median(known)), 3) if known else None


def _mostly_true(values: Iterable[bool]) -> bool:
    listed = list(values)
    return bool(listed) and sum(listed) > 0.5 * len(listed)


def _typical(windows: list[dict[str, Any]], key: str) -> dict[str, Any] | None:
    """Median of a quantity over the windows that have it, if a third do."""
    known = [window[key] for window in windows if window[key] is not None]
    if not known or len(known) < len(windows) / 3:
        return None
    value = float(np.median([one["value"] for one in known]))
    if known[0]["unit"] == "°":
        turned = np.exp(1j * np.radians([one["value"] for one in known])).mean()
        value = float(np.degrees(np.angle(turned)))
    return {
        "value": round(value),
        "unit": known[0]["unit"],
        "confidence": _median(o["confidence"] for o in known),
    }


def _waves(windows: list[dict[str, Any]]) -> dict[str, Any]:
    result = {}
    for lead in {lead for window in windows for lead in window["leads"]}:
        seen = [window["leads"][lead] for window in windows if lead in window["leads"]]
        if len(seen) < len(windows) / 3:
            continue
        result[lead] = {
            key: _mostly_true(one[key] for one in seen)
            if isinstance(value, bool)
            else _median(one[key] for one in seen)
            for key, value in seen[0].items()
        }
    return result


def _flutter_levels(windows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Medians where the windows with flutter waves are many."""
    seen = [window["flutter_levels"] for window in windows if window["flutter_levels"] is not None]
    return _waves([{"leads": one} for one in seen]) if len(seen) > 0.5 * len(windows) else None


def _quality(windows: list[dict[str, Any]], leads: Sequence[str]) -> dict[str, Any]:
    by_lead = {}
    for lead in leads:
        seen = [window["quality"]["leads"][lead] for window in windows]
        states = Counter(one["state"] for one in seen)
        by_lead[lead] = {
            "state": states.most_common(1)[0][0],
            **{
                key: _median(one[key] for one in seen)
                for key in ("likeness", "wander_mv", "noise_mv", "mains_ratio")
            },
        }
    return {"usable_share": _median(w["quality"]["usable_share"] for w in windows), "leads": by_lead}


def _commonest_mains(windows: list[dict[str, Any]]) -> dict[str, Any] | None:
    seen = [window["mains"] for window in windows if window["mains"] is not None]
    return max(seen, key=lambda one: len(one["channels"])) if len(seen) > 0.5 * len(windows) else None


def _swap(windows: list[dict[str, Any]]) -> list[str] | None:
    judged = [window["lead_swap"] for window in windows if window["lead_swap"] is not None]
    if not judged:
        return None
    suspected = [swap for swap in judged if swap]
    return suspected[0] if len(suspected) > 0.5 * len(judged) else []
