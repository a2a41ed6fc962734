"""Texts of made-up ECGs that the small causal LM of `bioreport-ecg-tiny` learns from."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bioreport.ecg.criteria import TERRITORIES
from bioreport.ecg.facts import ASPECTS, PLACED, RHYTHMS, prompt_facts, territories
from bioreport.ecg.leads import LEADS
from bioreport.ecg.simulation.plan import UNJUDGED, draw_findings
from bioreport.ecg.simulation.wording import write_history, write_sections
from bioreport.findings import ECG_NAMES, absent_finding
from bioreport.prompts import ECG_SECTIONS, SIGNAL, build_prompt, layout_for

# aspects that a rhythm without conducted beats does not show
_OF_THE_BEAT = ("QRS", "axis", "hypertrophy", "voltage", "Q waves", "ST", "T waves", "QT")
_WIDE = ("left_bundle_branch_block", "right_bundle_branch_block")


def draw_text(rng: np.random.Generator) -> tuple[str, str]:
    """Prompt and response of a made-up ECG; the facts stand in the prompt, for the signal, or both."""
    findings = _draw_entries(rng)
    facts = _draw_facts(rng, findings)
    if rng.random() < 0.6:
        sections: Sequence[str] = ECG_SECTIONS
    else:
        sections = [
            str(name) for name in rng.permutation(ECG_SECTIONS)[: rng.integers(1, len(ECG_SECTIONS) + 1)]
        ]
    history = None
    if rng.random() < 0.6:
        history = write_history(rng, int(rng.integers(18, 95)), str(rng.choice(["female", "male"])))
    leads = LEADS if rng.random() < 0.8 else LEADS[: rng.integers(1, 12)]
    duration = 10.0 if rng.random() < 0.7 else float(np.exp(rng.uniform(np.log(10), np.log(90_000))))
    where = rng.choice(["prompt", "signal", "both"], p=[0.45, 0.25, 0.3])
    known = prompt_facts(facts, findings)
    prompt = build_prompt(
        sections,
        channels=leads,
        duration_seconds=duration,
        history=history,
        facts=known if where != "signal" else (),
        style="compact",
        modality="ecg",
    )
    prompt = prompt.replace(SIGNAL, " ".join(known) if where != "prompt" else "")
    written = write_sections(findings, facts, rng)
    return prompt, layout_for(None).render({name: written[name] for name in sections})


def _draw_entries(rng: np.random.Generator) -> list[dict[str, Any]]:
    """Findings that go together; what could not be judged is not listed."""
    present = set(draw_findings(rng))
    if rng.random() < 0.35:
        # other combinations than the simulator's, as measurements of real hearts bring them
        share = rng.uniform(0.03, 0.2)
        present = {name for name in ECG_NAMES if name not in RHYTHMS and rng.random() < share}
        if rng.random() < 0.9:
            present.add(str(rng.choice(RHYTHMS)))
        if "sinus_rhythm" in present and rng.random() < 0.1:
            present.add("ventricular_tachycardia")
        if {"bradycardia", "tachycardia"} <= present:
            present.discard(str(rng.choice(["bradycardia", "tachycardia"])))
    dropped: set[str] = set()
    if present & UNJUDGED and "sinus_rhythm" not in present and rng.random() < 0.9:
        dropped.update(_OF_THE_BEAT)
    if rng.random() < 0.12:
        dropped.update(_OF_THE_BEAT)
    if rng.random() < 0.15:
        dropped.update(aspect for aspect in ASPECTS if rng.random() < 0.3)
    hidden = {name for aspect in dropped for name in ASPECTS[aspect]}
    if {"axis", "hypertrophy", "ST"} <= dropped:
        hidden |= {name for name in ECG_NAMES if name.endswith(("hypertrophy", "fascicular_block"))}
        present -= hidden
    entries = []
    for name in ECG_NAMES:
        if name in hidden and name not in present:
            continue
        entry = {**absent_finding(name), "source": "measurement"}
        if name in present:
            entry["present"] = True
            if name in PLACED:
                entry["channels"] = _draw_leads(rng)
            if name == "pause":
                entry["value"] = round(float(rng.uniform(2.0, 6.0)), 2)
        entries.append(entry)
    return entries


def _draw_leads(rng: np.random.Generator) -> list[str]:
    if rng.random() < 0.6:
        own = TERRITORIES[str(rng.choice(list(TERRITORIES)))]
        chosen = {lead for lead in own if rng.random() < 0.85} or set(own)
        if rng.random() < 0.3:
            chosen.update(lead for lead in LEADS if rng.random() < 0.15)
    else:
        chosen = {str(lead) for lead in rng.permutation(LEADS)[: rng.integers(1, 7)]}
    # by size of the change, as measurements list them, or in the usual order
    leads = [lead for lead in LEADS if lead in chosen]
    return [str(lead) for lead in rng.permutation(leads)] if rng.random() < 0.5 else leads


def _draw_facts(rng: np.random.Generator, findings: list[dict[str, Any]]) -> dict[str, Any]:
    """Numbers that agree with the findings."""
    listed = {entry["name"] for entry in findings}
    present = {entry["name"]: entry for entry in findings if entry["present"]}
    facts: dict[str, Any] = dict.fromkeys(
        ("rate_per_minute", "pr_ms", "qrs_ms", "qt_ms", "qtc_ms", "axis_degrees")
    )

    def draw(low: float, high: float) -> float:
        return float(rng.integers(round(low), round(high) + 1))

    still = present.keys() & {"asystole", "ventricular_fibrillation"} and "sinus_rhythm" not in present
    if not still and rng.random() < 0.98:
        low, high = (
            (25, 59) if "bradycardia" in present else (101, 230) if "tachycardia" in present else (60, 100)
        )
        facts["rate_per_minute"] = draw(low, high)
    if not still and "sinus_rhythm" in present and rng.random() < 0.9:
        facts["pr_ms"] = draw(211, 360) if "first_degree_av_block" in present else draw(90, 210)
    if not still and listed.intersection(ASPECTS["QRS"]) and rng.random() < 0.95:
        wide = any(name in present for name in (*_WIDE, "intraventricular_conduction_delay"))
        facts["qrs_ms"] = draw(117, 190) if wide else draw(68, 118)
    if not still and "prolonged_qt" in listed and rng.random() < 0.95:
        facts["qt_ms"] = draw(260, 560)
        low, high = (
            (461, 640) if "prolonged_qt" in present else (290, 345) if "short_qt" in present else (346, 500)
        )
        facts["qtc_ms"] = draw(low, high)
    if not still and "left_axis_deviation" in listed and rng.random() < 0.95:
        low, high = (
            (-90, -31) if "left_axis_deviation" in present else (91, 180) if "right_axis_deviation" in present
            else (-30, 90)
        )  # fmt: skip
        facts["axis_degrees"] = draw(low, high)
    if "atrial_flutter" in present and rng.random() < 0.6:
        facts["conduction"] = f"{rng.integers(2, 6)}:1"
    if "ventricular_tachycardia" in present and rng.random() < 0.5:
        facts["run"] = int(rng.integers(3, 20))
    if "complete_av_block" in present and rng.random() < 0.5:
        facts["escape"] = "ventricular"
    facts |= territories(present)
    if "mains_interference" in present:
        facts["mains_hz"] = float(rng.choice([50.0, 60.0]))
    return facts
