"""Simulated EEG recordings with known findings, and the reports that state them.

The signals imitate the files hospitals keep: spelling of labels, montages, references, amplifier filters,
mains, artifacts. They are made from sources with smooth fields on a sphere. They are no patient's data.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bioreport.findings import BY_NAME, EEG_NAMES, absent_finding
from bioreport.simulation import acquisition, background, montages, painter
from bioreport.simulation.canvas import Canvas, Event, Floats
from bioreport.simulation.corpus import simulate_corpus, write_edf
from bioreport.simulation.plan import check_findings, draw_findings, draw_plan
from bioreport.wording import write_history, write_sections

__all__ = ["Event", "Simulation", "simulate_corpus", "simulate_eeg", "write_edf"]

_EDGE_UV = 3276.0  # full scale of a common amplifier


@dataclass
class Simulation:
    """A simulated recording and the truth about it.

    Attributes
    ----------
    data : float32 [C, T]
        EEG channels, µV.
    sfreq : float
        Hz.
    labels : tuple of str
        Labels of the C channels as the file spells them.
    names : tuple of str
        Canonical names of the C channels.
    findings : list of dict
        Every finding of `EEG_FINDINGS`, present or not, in the shape of a report's findings.
    events : list of Event
        When each present finding occurs.
    history : str
        Clinical history, as a referral states it.
    sections : dict of str to str
        The report.
    facts : dict
        What a measurement of the signal should give: ``posterior_rhythm``, ``mains``.
    line_frequency : float
        Mains of the place, 50 or 60 Hz, visible or not.
    reference : str
        ``"linked"``, ``"average"``, ``"C3C4"`` or an electrode.
    extras : dict of str to float32 [T]
        Further, non-EEG channels by label, µV.
    """

    data: Floats
    sfreq: float
    labels: tuple[str, ...]
    names: tuple[str, ...]
    findings: list[dict[str, Any]]
    events: list[Event]
    history: str
    sections: dict[str, str]
    facts: dict[str, Any]
    line_frequency: float
    reference: str
    extras: dict[str, Floats] = field(default_factory=dict)


def simulate_eeg(
    seed: int,
    *,
    duration_seconds: float | None = None,
    sfreq: float | None = None,
    present: Iterable[str] | None = None,
) -> Simulation:
    """Simulate one recording; the same arguments give the same samples.

    Parameters
    ----------
    seed : int
    duration_seconds : float, optional
        Drawn between 30 and 180 s where not given.
    sfreq : float, optional
        Hz; drawn from the rates of the drawn file family where not given.
    present : iterable of str, optional
        Exactly the findings to show; drawn with their usual frequency where not given.

    Returns
    -------
    Simulation

    Raises
    ------
    ValueError
        A finding is unknown or findings exclude each other, or the duration is below 10 s.
    """
    rng = np.random.default_rng(seed)
    style = montages.draw_style(rng)
    rate = float(sfreq if sfreq is not None else rng.choice(style.rates))
    drawn = rng.uniform(40, 180) if rng.random() < 0.85 else rng.uniform(30, 60)
    duration = float(duration_seconds if duration_seconds is not None else round(drawn))
    if duration < 10:
        raise ValueError(f"a recording of {duration:g} s is too short to show findings; take 10 s or more")
    if present is None:
        findings, junk = draw_findings(rng, duration)
    else:
        findings, junk = check_findings(present), False
    plan = draw_plan(rng, duration, findings, junk=junk)

    recorded = acquisition.drop_electrodes(rng, style.names, plan)
    electrodes = tuple(dict.fromkeys((*style.names, "A1", "A2", "C3", "C4", "Cz", "Fp1", "O1", "O2")))
    level = float(np.clip(np.exp(rng.normal(np.log(8.5), 0.35)), 4.0, 14.0))
    samples = round(duration * rate)
    data = background.coloured_noise(rng, electrodes, samples, rate, level)
    reference = str(rng.choice(style.references))
    rows = montages.reference_members(electrodes, reference)
    canvas = Canvas(rng, rate, electrodes, frozenset(recorded), data, level, rows)
    amplifier = montages.draw_amplifier(rng, rate, shows_mains="mains_noise" in findings)
    line = float(rng.choice([50.0, 60.0]))

    facts: dict[str, Any] = {"posterior_rhythm": None, "mains": None, "duration_seconds": duration}
    if junk:
        painter.paint_failure(canvas)
    else:
        facts["posterior_rhythm"] = painter.paint_brain(canvas, plan)
        painter.paint_variants(canvas, plan, amplifier.low_pass)
    painter.paint_artifacts(canvas, plan, recorded, amplifier.low_pass)

    data, ratio = acquisition.acquire(canvas, recorded, amplifier, line, visible="mains_noise" in findings)
    if "mains_noise" in findings:
        facts["mains"] = {"frequency_hz": line, "ratio": ratio, "channels": list(recorded)}
        canvas.mark("mains_noise", 0.0, duration, recorded)
    if "bad_electrode" in findings:
        acquisition.break_electrodes(canvas, data, recorded, plan)
    np.clip(data, -_EDGE_UV, _EDGE_UV, out=data)

    truth = _truth(canvas.events, facts)
    return Simulation(
        data=data,
        sfreq=rate,
        labels=tuple(style.label(name) for name in recorded),
        names=recorded,
        findings=truth,
        events=sorted(canvas.events, key=lambda event: (event.start_seconds, event.name)),
        history=write_history(rng),
        sections=write_sections(truth, facts, rng),
        facts=facts,
        line_frequency=line,
        reference=reference,
        extras=acquisition.extras(canvas, style.extras),
    )


def _truth(events: list[Event], facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Every finding, present where an event of it was painted, with its extent."""
    truth = []
    for name in EEG_NAMES:
        entry = absent_finding(name)
        mine = [event for event in events if event.name == name]
        if mine:
            channels = dict.fromkeys(channel for event in mine for channel in event.channels)
            entry.update(
                present=True,
                channels=list(channels),
                start_seconds=min(event.start_seconds for event in mine),
                end_seconds=max(event.end_seconds for event in mine),
            )
            if BY_NAME[name].unit == "Hz":
                entry["value"] = facts["posterior_rhythm"]["frequency_hz"]
        truth.append(entry)
    return truth
