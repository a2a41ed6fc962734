"""The conclusion of an ECG report."""

from bioreport.ecg.simulation.phrases import Words, listed, upper

# order of an impression: what kills first
_ORDER = (
    "asystole", "ventricular_fibrillation", "ventricular_tachycardia", "st_elevation_infarction",
    "complete_av_block", "atrial_fibrillation", "atrial_flutter", "supraventricular_tachycardia",
    "paced_rhythm", "second_degree_av_block", "first_degree_av_block", "pause",
    "premature_ventricular_contractions", "premature_atrial_contractions", "left_bundle_branch_block",
    "right_bundle_branch_block", "incomplete_right_bundle_branch_block",
    "intraventricular_conduction_delay", "left_anterior_fascicular_block", "left_axis_deviation",
    "right_axis_deviation", "left_ventricular_hypertrophy", "right_ventricular_hypertrophy",
    "low_qrs_voltage", "st_elevation", "st_depression", "t_wave_inversion", "pathological_q_waves",
    "prolonged_qt", "short_qt",
)  # fmt: skip
# what must have been looked at before an ECG is called normal
_NEEDED = (
    "left_bundle_branch_block", "right_bundle_branch_block", "left_axis_deviation", "low_qrs_voltage",
    "left_ventricular_hypertrophy", "st_elevation", "st_depression",
)  # fmt: skip


class Impression(Words):
    """Writes the last section."""

    def write(self) -> str:
        """Every finding that is no matter of technique, the gravest first."""
        reasons = [self._reason(name) for name in _ORDER if self.has(name) and not self._is_said(name)]
        rhythm = self._sinus_words()
        if not reasons and not (self.has("sinus_rhythm") and self.can(*_NEEDED)):
            sentences = [self._incomplete(rhythm)]
        elif not reasons:
            words = (
                self.pick(f"Normal ECG. {upper(rhythm)}.", f"{upper(rhythm)}, otherwise normal ECG.")
                if self.has("bradycardia", "tachycardia", "sinus_arrhythmia")
                else self.pick(
                    "Normal ECG with sinus rhythm.", "Normal ECG. Sinus rhythm.", "Sinus rhythm, normal ECG."
                )
            )
            if self.has("bradycardia", "tachycardia"):
                words = self.pick(
                    f"{upper(rhythm)}, otherwise normal ECG.", f"{upper(rhythm)}. No other abnormality."
                )
            sentences = [words]
        else:
            found = listed(reasons)
            if self.has("sinus_rhythm"):
                sentences = [
                    self.pick(
                        f"Abnormal ECG: {rhythm}, {found}.",
                        f"{upper(rhythm)} with {found}.",
                        f"Abnormal ECG because of {found}. {upper(rhythm)}.",
                    )
                ]
            else:
                sentences = [
                    self.pick(
                        f"Abnormal ECG: {found}.", f"Abnormal ECG because of {found}.", f"{upper(found)}."
                    )
                ]
        if self.has(
            "asystole",
            "ventricular_fibrillation",
            "ventricular_tachycardia",
            "st_elevation_infarction",
            "complete_av_block",
        ):
            sentences.append(
                self.pick(
                    "Urgent review by a physician is advised.", "Immediate clinical correlation is advised."
                )
            )
        if self.has("limb_lead_reversal"):
            sentences.append(
                self.pick(
                    "Repeat the recording with corrected limb leads.", "Limb lead reversal; please repeat."
                )
            )
        return " ".join(sentences)

    def _incomplete(self, sinus: str) -> str:
        """Nothing abnormal was found, but not all that makes an ECG normal could be looked at."""
        if self.has("sinus_rhythm"):
            start = upper(sinus)
        elif self.has("bradycardia", "tachycardia"):
            start = "Bradycardia" if self.has("bradycardia") else "Tachycardia"
            start += " of undetermined origin"
        else:
            start = "Rhythm of undetermined origin"
        return self.pick(
            f"{start}. No other abnormality in what could be assessed.",
            f"{start}; nothing else abnormal where it could be assessed.",
        )

    def _is_said(self, name: str) -> bool:
        """Whether another reason says it already."""
        return name == "st_elevation" and self.has("st_elevation_infarction")

    def _sinus_words(self) -> str:
        if self.has("bradycardia"):
            words = "sinus bradycardia"
        elif self.has("tachycardia") and not self.has("ventricular_tachycardia"):
            words = "sinus tachycardia"
        else:
            words = "sinus rhythm"
        return words + (" with sinus arrhythmia" if self.has("sinus_arrhythmia") else "")

    def _reason(self, name: str) -> str:
        speed = (
            "with bradycardia"
            if self.has("bradycardia")
            else "with tachycardia"
            if self.has("tachycardia")
            else ""
        )
        if name in ("atrial_fibrillation", "atrial_flutter", "paced_rhythm", "complete_av_block") and speed:
            return f"{self.name(name)} {speed}"
        if name == "st_elevation_infarction":
            territory = self.facts.get("st_territory")
            place = f"{territory} " if territory else ""
            return self.pick(
                f"acute {place}ST-elevation infarction pattern",
                f"acute {place}ST-elevation myocardial infarction",
            )
        if name == "st_elevation":
            kind = self.facts.get("st_territory")
            if kind == "early repolarization":
                return "ST elevation of early repolarization"
            return "diffuse ST elevation" if kind == "diffuse" else "ST elevation"
        if name == "st_depression":
            if self.has("st_elevation_infarction"):
                return "reciprocal ST depression"
            # the territory is that of the elevation where there is one
            where = None if self.has("st_elevation") else self.facts.get("st_territory")
            return f"{where} ST depression" if where else "ST depression"
        if name == "t_wave_inversion":
            where = self.facts.get("t_territory")
            return f"{where} T-wave inversion" if where else "T-wave inversion"
        if name == "pathological_q_waves":
            where = self.facts.get("q_territory")
            return f"{where} pathological Q waves" if where else "pathological Q waves"
        if name == "ventricular_tachycardia" and self.has("sinus_rhythm"):
            return "non-sustained ventricular tachycardia"
        return self.name(name)
