"""ECG reports written from findings, in varied clinical wording.

The words follow the statements of the AHA, ACC and HRS (Mason et al. 2007,
doi:10.1161/CIRCULATIONAHA.106.180201). A number is written only where `facts` holds it: rate, PR, QRS, QT,
QTc, axis; ST and T are named with their leads.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from bioreport.ecg.leads import in_order
from bioreport.ecg.simulation.impression import Impression
from bioreport.ecg.simulation.phrases import Words, listed, upper

SECTIONS: tuple[str, ...] = (
    "RHYTHM",
    "CONDUCTION AND INTERVALS",
    "QRS MORPHOLOGY",
    "ST-T CHANGES",
    "TECHNICAL QUALITY",
    "IMPRESSION/INTERPRETATION",
)
_INDICATIONS = (
    "Chest pain.",
    "Palpitations.",
    "Dyspnea.",
    "Syncope.",
    "Preoperative evaluation.",
    "Dizziness.",
    "Hypertension.",
    "Routine check-up.",
    "Follow-up of known heart disease.",
    "Fatigue.",
)


def write_history(rng: np.random.Generator, age: int, sex: str) -> str:
    """Draw a referral that says nothing about what the recording shows."""
    person = {"female": "woman", "male": "man"}[sex]
    return f"{age}-year-old {person}. {_INDICATIONS[int(rng.integers(len(_INDICATIONS)))]}"


def write_sections(
    findings: Iterable[Mapping[str, Any]], facts: Mapping[str, Any], rng: np.random.Generator
) -> dict[str, str]:
    """Write a report that states what is present and denies what a reader wants denied.

    Parameters
    ----------
    findings : iterable of dict
        Entries in the shape of a report's findings; those not listed could not be judged, and are neither
        stated nor denied.
    facts : dict
        ``rate_per_minute``, ``pr_ms``, ``qrs_ms``, ``qt_ms``, ``qtc_ms``, ``axis_degrees``, each a number or
        None, from which alone numbers are taken; optional words: ``block``, ``conduction``, ``pacing``,
        ``ectopy``, ``run``, ``st_territory``, ``t_territory``, ``q_territory``, ``swapped``, ``mains_hz``.
    rng : numpy.random.Generator
        Draws among the wordings.

    Returns
    -------
    dict of str to str
        The sections of `SECTIONS`, in that order.
    """
    findings = list(findings)
    writer = _Writer(findings, facts, rng)
    texts = (
        writer.rhythm(),
        writer.conduction(),
        writer.qrs(),
        writer.st_t(),
        writer.technical(),
        Impression(findings, facts, rng).write(),
    )
    return dict(zip(SECTIONS, texts, strict=True))


class _Writer(Words):
    # ---- rhythm ----

    def rhythm(self) -> str:
        sentences = [self._main_rhythm()]
        if self.has("sinus_rhythm"):
            if self.has("sinus_arrhythmia"):
                sentences.append(
                    self.pick(
                        "There is sinus arrhythmia.",
                        "Sinus arrhythmia is present.",
                        "The intervals vary with respiration: sinus arrhythmia.",
                    )
                )
            if self.has("ventricular_tachycardia"):
                count = self.facts.get("run")
                beats = f" of {count} beats" if count else ""
                sentences.append(
                    self.pick(
                        f"A run{beats} of ventricular tachycardia is seen.",
                        f"There is non-sustained ventricular tachycardia, a run{beats}.",
                    )
                )
            if self.has("pause"):
                seconds = self.present["pause"].get("value")
                length = "" if seconds is None else f" of {seconds:.1f} s"
                sentences.append(
                    self.pick(
                        f"There is a sinus pause{length}.",
                        f"A pause{length} without P waves is seen.",
                        f"A sinus pause{length} was recorded.",
                    )
                )
        sentences += self._ectopy()
        ectopic = ("premature_atrial_contractions", "premature_ventricular_contractions")
        if not self.has(*ectopic) and (
            self.has("sinus_rhythm", "atrial_fibrillation") and self.rng.random() < 0.4 and self.can(*ectopic)
        ):
            sentences.append(self.pick("No ectopic beats were seen.", "There is no ectopy."))
        return " ".join(sentences)

    def _main_rhythm(self) -> str:
        rate = self.number("rate_per_minute", "/min")
        at = f" at {rate}" if rate else ""
        speed = " with tachycardia" if self.has("tachycardia") else ""
        speed = " with bradycardia" if self.has("bradycardia") else speed
        response = f" with a ventricular rate of {rate}" if rate else ""
        if self.has("asystole"):
            waves = " P waves continue." if self.facts.get("p_waves") else ""
            return self.pick("Asystole.", "There is asystole without any QRS complex.") + waves
        if self.has("ventricular_fibrillation"):
            return self.pick(
                "Ventricular fibrillation.",
                "There is ventricular fibrillation without organised QRS complexes.",
            )
        if self.has("paced_rhythm"):
            pacing = self.facts.get("pacing")
            mode = {"dual chamber": ", AV sequential", "atrial tracking": ", atrial tracking"}.get(
                pacing or "", ""
            )
            return self.pick(
                f"Ventricular paced rhythm{at}{speed}{mode}.",
                f"Paced rhythm{at}{speed}{mode}, with pacing spikes before each QRS complex.",
            )
        if self.has("complete_av_block"):
            escape = self.facts.get("escape")
            kind = f"{escape} escape rhythm" if escape else "an escape rhythm"
            kind = ("a " if escape else "") + kind
            block = self.name("complete_av_block")
            return self.pick(
                f"{upper(block)} with {kind}{at}, bradycardia.",
                f"There is AV dissociation: {block} with bradycardia{at} and {kind}.",
            )
        if self.has("atrial_fibrillation"):
            return self.pick(
                f"Atrial fibrillation{response}{', tachycardia' if self.has('tachycardia') else ''}"
                f"{', bradycardia' if self.has('bradycardia') else ''}.",
                f"Atrial fibrillation{at}{speed}; the rhythm is irregular without P waves.",
                f"The rhythm is atrial fibrillation{at}{speed}.",
            )
        if self.has("atrial_flutter"):
            ratio = self.facts.get("conduction")
            conduction = f" with {ratio} conduction" if ratio else ""
            fast = " and tachycardia" if conduction and self.has("tachycardia") else speed
            return self.pick(
                f"Atrial flutter{at}{conduction}{fast}.",
                f"The rhythm is atrial flutter{conduction}{fast}{', rate ' + rate if rate else ''}.",
            )
        if self.has("supraventricular_tachycardia"):
            return self.pick(
                f"Supraventricular tachycardia{at}.",
                f"There is a regular narrow supraventricular tachycardia{at}.",
            )
        if self.has("ventricular_tachycardia") and not self.has("sinus_rhythm"):
            return self.pick(
                f"Ventricular tachycardia{at}.",
                f"There is a wide QRS tachycardia{at}: ventricular tachycardia.",
                f"The rhythm is ventricular tachycardia{at}.",
            )
        if not self.has("sinus_rhythm"):
            what = "Bradycardia" if self.has("bradycardia") else "Tachycardia" if speed else "A rhythm"
            return self.pick(
                f"{what}{at} of undetermined origin.",
                f"{what}{at}, whose origin cannot be told.",
            )
        if self.has("bradycardia"):
            return self.pick(
                f"Sinus bradycardia{at}.",
                f"Sinus rhythm with bradycardia{at}.",
                f"The rhythm is sinus bradycardia{', rate ' + rate if rate else ''}.",
            )
        if self.has("tachycardia"):
            return self.pick(
                f"Sinus tachycardia{at}.",
                f"Sinus rhythm with tachycardia{at}.",
                f"The rhythm is sinus tachycardia{', rate ' + rate if rate else ''}.",
            )
        return self.pick(
            f"Sinus rhythm{at}.",
            f"The rhythm is sinus rhythm{', rate ' + rate if rate else ''}.",
            f"Sinus rhythm with a rate of {rate}." if rate else "Sinus rhythm.",
            f"There is sinus rhythm{at}.",
        )

    def _ectopy(self) -> list[str]:
        sentences = []
        for finding in ("premature_atrial_contractions", "premature_ventricular_contractions"):
            if not self.has(finding):
                continue
            what = self.name(finding)
            pattern = ""
            if finding == "premature_ventricular_contractions" and self.facts.get("ectopy") == "bigeminy":
                pattern = " in bigeminy"
            sentences.append(
                self.pick(
                    f"{upper(what)} are seen{pattern}.",
                    f"There are {what}{pattern}.",
                    f"{upper(what)} were recorded{pattern}.",
                )
            )
        return sentences

    # ---- conduction ----

    def conduction(self) -> str:
        if not self.has_beats:
            return self.pick("There are no intervals to measure.", "Intervals cannot be measured.")
        sentences = []
        if self.has("first_degree_av_block"):
            pr = self.number("pr_ms", " ms")
            sentences.append(
                self.pick(
                    f"First-degree AV block{', PR ' + pr if pr else ''}.",
                    f"The PR interval is prolonged{' to ' + pr if pr else ''}: first-degree AV block.",
                )
            )
        elif self.has("second_degree_av_block"):
            kind = self.facts.get("block")
            words = {
                "type I": (
                    "Second-degree AV block type I with Wenckebach periods.",
                    "Second-degree AV block, Mobitz type I.",
                ),
                "type II": (
                    "Second-degree AV block, Mobitz type II.",
                    "Second-degree AV block type II with dropped beats.",
                ),
                "2:1": (
                    "Second-degree AV block with 2:1 conduction.",
                    "There is 2:1 second-degree AV block.",
                ),
            }
            sentences.append(self.pick(*words.get(kind or "", ("Second-degree AV block.",))))
        elif self.has("complete_av_block"):
            sentences.append(
                self.pick("P waves and QRS complexes are independent.", "No P wave is conducted.")
            )
        elif self.facts.get("pr_ms") is not None:
            sentences.append(f"{self.pick('The PR interval is', 'PR')} {self.number('pr_ms', ' ms')}.")
        if not self.judged:
            sentences.append(self.pick("The QRS complexes are wide.", "QRS complexes are broad."))
            return " ".join(sentences)
        qrs = self.number("qrs_ms", " ms")
        of = f", QRS {qrs}" if qrs else ""
        blocks = [
            name
            for name in (
                "left_bundle_branch_block",
                "right_bundle_branch_block",
                "incomplete_right_bundle_branch_block",
                "intraventricular_conduction_delay",
            )
            if self.has(name)
        ]
        for block in blocks:
            sentences.append(
                self.pick(f"{upper(self.name(block))}{of}.", f"There is {self.name(block)}{of}.")
            )
        if self.has("left_anterior_fascicular_block"):
            sentences.append(
                f"{upper(self.name('left_anterior_fascicular_block'))}{self.pick('.', ' is present.')}"
            )
        escape_wide = self.facts.get("escape") == "ventricular"
        if not blocks and qrs and not escape_wide:
            sentences.append(
                self.pick(f"QRS duration is {qrs}.", f"The QRS duration is {qrs}.", f"QRS {qrs}.")
            )
        if escape_wide:
            sentences.append("The escape beats are wide.")
        sentences += self._qt()
        return " ".join(sentences) or self.pick(
            "Intervals cannot be measured.", "Intervals are not assessed."
        )

    def _qt(self) -> list[str]:
        qt, qtc = self.number("qt_ms", " ms"), self.number("qtc_ms", " ms")
        values = f"QT {qt}, QTc {qtc}" if qt and qtc else ""
        if self.has("prolonged_qt"):
            return [
                self.pick(
                    f"The QT interval is prolonged{', ' + values if values else ''}.",
                    f"Prolonged QT interval{', QTc ' + qtc if qtc else ''}.",
                )
            ]
        if self.has("short_qt"):
            return [
                self.pick(
                    f"The QT interval is short{', ' + values if values else ''}.",
                    f"Short QT interval{', QTc ' + qtc if qtc else ''}.",
                )
            ]
        return [f"{values}."] if values and self.facts.get("escape") != "ventricular" else []

    # ---- QRS ----

    def qrs(self) -> str:
        if not self.has_beats:
            return self.pick("No QRS complexes are present.", "There are no QRS complexes.")
        if not self.judged or self.facts.get("escape") == "ventricular":
            return self.pick(
                "Axis and voltages are not assessed in this rhythm.",
                "QRS axis and voltage cannot be assessed.",
            )
        axis = self.number("axis_degrees", "°")
        sentences = []
        for finding in ("left_axis_deviation", "right_axis_deviation"):
            if self.has(finding):
                what = self.name(finding)
                sentences.append(
                    self.pick(
                        f"{upper(what)}{', axis ' + axis if axis else ''}.",
                        f"There is {what}{f' ({axis})' if axis else ''}.",
                    )
                )
        if not sentences and axis:
            sentences.append(
                self.pick(f"The QRS axis is {axis}.", f"Normal axis ({axis}).", f"QRS axis {axis}.")
            )
        for finding in ("left_ventricular_hypertrophy", "right_ventricular_hypertrophy", "low_qrs_voltage"):
            if self.has(finding):
                what = self.name(finding)
                verb = "are" if what.startswith("voltage criteria") else "is"
                sentences.append(self.pick(f"{upper(what)}.", f"There {verb} {what}."))
        if self.has("pathological_q_waves"):
            sentences.append(self._q_waves())
        voltage = ("left_ventricular_hypertrophy", "right_ventricular_hypertrophy", "low_qrs_voltage")
        heavy = voltage[:2]
        if not self.has(*voltage) and not self.secondary and self.rng.random() < 0.5 and self.can(*heavy):
            sentences.append(
                self.pick(
                    "No signs of hypertrophy.",
                    "QRS voltages are normal.",
                    "There is no ventricular hypertrophy.",
                )
            )
        if not sentences and not self.can(*voltage):
            return self.pick(
                "QRS axis and voltage cannot be assessed.", "Axis and voltages are not assessed."
            )
        return " ".join(sentences) or self.pick(
            "QRS voltages are normal.", "The QRS complexes are unremarkable."
        )

    def _q_waves(self) -> str:
        where = self.leads("pathological_q_waves")
        territory = self.facts.get("q_territory")
        old = (
            f", {territory} infarct of undetermined age" if territory and not self.has("st_elevation") else ""
        )
        return self.pick(
            f"Pathological Q waves in {where}{old}.",
            f"There are pathological Q waves in {where}{old}.",
        )

    # ---- ST-T ----

    def st_t(self) -> str:
        if not self.has_beats:
            return self.pick("ST and T cannot be assessed.", "There are no ST segments or T waves.")
        if not self.judged or self.facts.get("escape") == "ventricular":
            return self.pick(
                "ST segments and T waves are secondary to the wide QRS complexes.",
                "ST and T are not assessed in this rhythm.",
            )
        if self.secondary:
            return self.pick(
                "ST-T changes are secondary to the bundle branch block.",
                "Secondary repolarization changes only.",
            )
        sentences = []
        if self.has("st_elevation"):
            sentences.append(self._elevation())
        if self.has("st_depression"):
            where = self.leads("st_depression")
            what = "reciprocal ST depression" if self.has("st_elevation_infarction") else "ST depression"
            sentences.append(self.pick(f"{upper(what)} in {where}.", f"There is {what} in {where}."))
        if self.has("t_wave_inversion"):
            where = self.leads("t_wave_inversion")
            sentences.append(
                self.pick(
                    f"T-wave inversion in {where}.",
                    f"T waves are inverted in {where}.",
                    f"There is T-wave inversion in {where}.",
                )
            )
        if not self.has("st_elevation", "st_depression") and self.can("st_elevation", "st_depression"):
            sentences.append(
                self.pick(
                    "No ST elevation or depression.",
                    "There is no ST elevation or ST depression.",
                    "No significant ST elevation or depression is seen.",
                )
            )
            if not self.has("t_wave_inversion") and self.can("t_wave_inversion"):
                sentences.append(
                    self.pick("T waves are normal.", "No T-wave inversion.", "T waves are upright.")
                )
        return " ".join(sentences) or self.pick("ST and T cannot be assessed.", "ST and T are not assessed.")

    def _elevation(self) -> str:
        where = self.leads("st_elevation")
        territory = self.facts.get("st_territory")
        if self.has("st_elevation_infarction"):
            place = f"{territory} " if territory else ""
            return self.pick(
                f"ST elevation in {where}, an acute {place}ST-elevation infarction pattern.",
                f"There is ST elevation in {where}, an acute {place}ST-elevation myocardial infarction.",
            )
        what = "diffuse ST elevation" if territory == "diffuse" else "ST elevation"
        end = ", early repolarization" if territory == "early repolarization" else ""
        return self.pick(f"{upper(what)} in {where}{end}.", f"There is {what} in {where}{end}.")

    # ---- technical quality ----

    def technical(self) -> str:
        sentences = []
        if self.has("limb_lead_reversal"):
            swapped = self.facts.get("swapped")
            which = f" ({swapped})" if swapped else ""
            sentences.append(
                self.pick(
                    f"Limb lead reversal{which} is suspected.",
                    f"There is limb lead reversal{which}.",
                    f"Limb lead reversal{which}.",
                )
            )
        if self.has("lead_off"):
            off = in_order(self.present["lead_off"].get("channels") or [])
            many = len(off) > 1
            sentences.append(
                self.pick(
                    f"Lead off: {listed(off)}.",
                    f"{'Leads' if many else 'Lead'} {listed(off)} {'are' if many else 'is'} off, no signal.",
                )
            )
        if self.has("noisy_lead"):
            where = self.leads("noisy_lead")
            sentences.append(
                self.pick(
                    f"Muscle artifact in {where}.",
                    f"There is muscle artifact in {where}.",
                    f"Noisy recording in {where}.",
                )
            )
        if self.has("baseline_wander"):
            sentences.append(
                self.pick("Baseline wander is present.", "There is baseline wander.", "Baseline wander.")
            )
        if self.has("mains_interference"):
            hz = self.facts.get("mains_hz")
            at = f" at {hz:.0f} Hz" if hz else ""
            sentences.append(
                self.pick(
                    f"Mains interference{at} is present.",
                    f"There is mains interference{at}.",
                    f"Mains interference{at}.",
                )
            )
        return " ".join(sentences) or self.pick(
            "Good signal quality.", "The recording is of good quality.", "Technically satisfactory recording."
        )
