"""Reports written from findings, in varied clinical wording under the eight section names.

The words are those of the ACNS guidelines and few, so that a small language model can learn them. A number
is written only where `facts` holds it as measured: frequency, amplitude and asymmetry of the posterior
rhythm, mains; times are those of a seizure's entry.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bioreport.findings import region_of

_ABNORMAL = (
    "burst_suppression",
    "generalized_slowing",
    "focal_slowing",
    "posterior_asymmetry",
    "focal_epileptiform_discharges",
    "generalized_spike_wave",
    "seizure",
)
_ARTIFACTS = ("eye_blink_artifact", "muscle_artifact", "electrode_artifact")
_ARTIFACT_WORDS = {
    "eye_blink_artifact": "eye blink",
    "muscle_artifact": "muscle",
    "electrode_artifact": "electrode",
}
_INDICATIONS = (
    "Spell of altered awareness.",
    "Evaluation for epilepsy.",
    "Episode of loss of consciousness.",
    "Confusion.",
    "Headache.",
    "Staring spells.",
    "History of seizures.",
    "Altered mental status.",
    "Follow-up of known epilepsy.",
    "Syncope.",
)


def write_history(rng: np.random.Generator) -> str:
    """Draw a referral that says nothing about what the recording shows."""
    age = int(rng.integers(18, 90))
    sex = rng.choice(["woman", "man"])
    return f"{age}-year-old {sex}. {_INDICATIONS[int(rng.integers(len(_INDICATIONS)))]}"


def write_sections(
    findings: Iterable[Mapping[str, Any]], facts: Mapping[str, Any], rng: np.random.Generator
) -> dict[str, str]:
    """Write a report that states what is present and denies what a reader wants denied.

    Parameters
    ----------
    findings : iterable of dict
        Entries in the shape of a report's findings; those not listed count as absent.
    facts : dict
        ``posterior_rhythm`` and ``mains`` as `Measurer.result()` gives them (or None), from which alone
        numbers are taken.
    rng : numpy.random.Generator
        Draws among the wordings.

    Returns
    -------
    dict of str to str
        The eight sections, one to five sentences each, in the order of a clinical report.
    """
    writer = _Writer({f["name"]: f for f in findings if f["present"]}, facts, rng)
    return {
        "EEG DESCRIPTION/DETAILS": writer.description(),
        "BACKGROUND ACTIVITY": writer.background(),
        "SLEEP": writer.sleep(),
        "INTERICTAL EPILEPTIFORM ABNORMALITIES": writer.epileptiform(),
        "EPILEPTIFORM ABNORMALITIES": writer.epileptiform(),
        "SEIZURES": writer.seizures(),
        "EVENTS/SEIZURES": writer.seizures(),
        "IMPRESSION/INTERPRETATION": writer.impression(),
    }


def _listed(words: Sequence[str], conjunction: str = "and") -> str:
    if len(words) < 3:
        return f" {conjunction} ".join(words)
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"


class _Writer:
    def __init__(
        self, present: Mapping[str, Mapping[str, Any]], facts: Mapping[str, Any], rng: np.random.Generator
    ) -> None:
        self.present = present
        self.rhythm: Mapping[str, Any] = facts.get("posterior_rhythm") or {}
        self.mains: Mapping[str, Any] = facts.get("mains") or {}
        self.rng = rng

    def has(self, *names: str) -> bool:
        return any(name in self.present for name in names)

    def pick(self, *wordings: str) -> str:
        return wordings[int(self.rng.integers(len(wordings)))]

    def region(self, name: str) -> str:
        return region_of(self.present[name].get("channels") or [])

    # ---- sections ----

    def description(self) -> str:
        sentences = [
            self.pick(
                "This is a scalp EEG recorded with the 10-20 system.",
                "Scalp EEG was recorded with electrodes of the 10-20 system.",
                "Digital scalp EEG was recorded with the 10-20 system.",
            ),
            *self._posterior()[:1],
        ]
        states: dict[str, Callable[[], str]] = {
            "burst_suppression": self._burst_suppression,
            "generalized_slowing": self._generalized_slowing,
            "focal_slowing": self._focal_slowing,
            "focal_epileptiform_discharges": self._discharges,
            "generalized_spike_wave": self._spike_wave,
            "seizure": self._seizure,
        }
        sentences += [write() for name, write in states.items() if self.has(name)]
        return " ".join(sentences + self._technical())

    def background(self) -> str:
        sentences = []
        if self.has("burst_suppression"):
            sentences.append(self._burst_suppression())
        sentences += self._posterior()
        if self.has("generalized_slowing"):
            sentences.append(self._generalized_slowing())
        if self.has("focal_slowing"):
            sentences.append(self._focal_slowing())
        if not self.has("generalized_slowing", "focal_slowing", "burst_suppression"):
            sentences.append(
                self.pick(
                    "There is no focal or generalized slowing.",
                    "No focal or generalized slowing was seen.",
                    "Neither focal nor generalized slowing was present.",
                )
            )
        return " ".join(sentences + self._technical())

    def sleep(self) -> str:
        drowsy, asleep = self.has("drowsiness"), self.has("sleep_spindles")
        sentences = []
        if drowsy:
            sentences.append(
                self.pick(
                    "Drowsiness was recorded with slow rolling eye movements and loss of the alpha.",
                    "Drowsiness was seen with theta activity and slow rolling eye movements.",
                    "The patient became drowsy with slow rolling eye movements.",
                )
            )
        if asleep:
            sentences.append(
                self.pick(
                    "Stage N2 sleep was recorded with sleep spindles and K complexes.",
                    "Sleep spindles and vertex waves were seen in stage N2 sleep.",
                    "Sleep was recorded with symmetric spindles over the central region.",
                )
            )
        elif drowsy:
            sentences.append(self.pick("Sleep spindles were not seen.", "Stage N2 sleep was not recorded."))
        else:
            sentences.append(
                self.pick(
                    "Drowsiness and sleep were not recorded.",
                    "Neither drowsiness nor sleep was recorded.",
                    "No drowsiness or sleep was recorded.",
                )
            )
        return " ".join(sentences)

    def epileptiform(self) -> str:
        focal, general = self.has("focal_epileptiform_discharges"), self.has("generalized_spike_wave")
        sentences = [self._discharges()] if focal else []
        if general:
            sentences.append(self._spike_wave())
        if not focal and not general:
            return self.pick(
                "No epileptiform discharges were seen.",
                "There were no epileptiform discharges.",
                "No interictal epileptiform abnormalities were recorded.",
            )
        if not general:
            sentences.append(
                self.pick(
                    "No generalized epileptiform discharges were seen.",
                    "There were no generalized epileptiform discharges.",
                )
            )
        elif not focal:
            sentences.append(
                self.pick(
                    "No focal epileptiform discharges were seen.",
                    "There were no focal epileptiform discharges.",
                )
            )
        return " ".join(sentences)

    def seizures(self) -> str:
        if self.has("seizure"):
            return self._seizure()
        return self.pick(
            "No seizures were recorded.",
            "There were no electrographic seizures.",
            "No electrographic or clinical seizures were seen.",
            "No seizures were seen during this recording.",
        )

    def impression(self) -> str:
        sentences = []
        reasons = [self._reason(name) for name in _ABNORMAL if self.has(name)]
        if reasons:
            sentences.append(
                self.pick("Abnormal EEG because of", "Abnormal EEG due to", "This is an abnormal EEG due to")
                + f" {_listed(reasons)}."
            )
        elif self.has("posterior_dominant_rhythm", "sleep_spindles"):
            sentences.append(self.pick("Normal EEG.", "This is a normal EEG.", "Normal study."))
        else:
            sentences.append(
                self.pick("No definite abnormality was found.", "There is no definite abnormality.")
            )
        states = [
            word
            for name, word in (("drowsiness", "drowsiness"), ("sleep_spindles", "sleep spindles"))
            if self.has(name)
        ]
        if states:
            verb = "was" if states == ["drowsiness"] else "were"
            sentences.append(f"{_listed(states).capitalize()} {verb} recorded.")
        denial = self._denial()
        if denial:
            sentences.append(denial)
        if self.has("seizure"):
            sentences.append(
                self.pick(
                    "Urgent clinical correlation is advised.", "Urgent review by a physician is advised."
                )
            )
        return " ".join(sentences)

    # ---- sentences ----

    def _posterior(self) -> list[str]:
        if not self.has("posterior_dominant_rhythm"):
            return [
                self.pick(
                    "No posterior dominant rhythm was seen.",
                    "A posterior dominant rhythm was not seen.",
                    "There is no posterior dominant rhythm.",
                )
            ]
        rhythm = self.rhythm
        if not rhythm:
            sentences = ["A posterior dominant rhythm is present."]
        else:
            frequency = f"{rhythm['frequency_hz']:.1f} Hz"
            amplitude = f"{rhythm['amplitude_uv']:.0f} µV"
            sentences = [
                self.pick(
                    f"The posterior dominant rhythm is {frequency} with an amplitude of {amplitude}.",
                    f"There is a posterior dominant rhythm of {frequency} and {amplitude}.",
                    f"The posterior dominant rhythm reaches {frequency} at {amplitude}.",
                    f"A posterior dominant rhythm of {frequency} with an amplitude of {amplitude} is seen.",
                )
            ]
        if self.has("posterior_asymmetry"):
            side = self._lower_side()
            sentences.append(
                self.pick(
                    f"The posterior rhythm is asymmetric with lower amplitude on the {side}.",
                    f"There is an asymmetry of the posterior rhythm, lower on the {side}.",
                    f"The posterior rhythm is attenuated on the {side}.",
                )
            )
        else:
            sentences.append(
                self.pick(
                    "The posterior rhythm is symmetric.",
                    "The posterior rhythm is symmetric on both sides.",
                    "No asymmetry of the posterior rhythm was seen.",
                )
            )
        return sentences

    def _lower_side(self) -> str:
        side = self.rhythm.get("lower_side")
        if side:
            return str(side)
        channels = self.present["posterior_asymmetry"].get("channels") or ["O1"]
        return region_of(channels).split()[0]

    def _burst_suppression(self) -> str:
        return self.pick(
            "The background shows a burst suppression pattern.",
            "There is a burst suppression pattern with bursts of mixed activity on a suppressed background.",
            "The recording consists of burst suppression.",
        )

    def _generalized_slowing(self) -> str:
        return self.pick(
            "There is generalized slowing with delta and theta activity.",
            "Continuous generalized slowing in the theta and delta range was seen.",
            "Diffuse slowing with irregular theta and delta activity is present.",
            "The background shows generalized slowing.",
        )

    def _focal_slowing(self) -> str:
        region = self.region("focal_slowing")
        return self.pick(
            f"There is focal slowing over the {region} region.",
            f"Focal delta slowing was seen over the {region} region.",
            f"Focal slowing with polymorphic delta activity is present in the {region} region.",
        )

    def _discharges(self) -> str:
        region = self.region("focal_epileptiform_discharges")
        return self.pick(
            f"Focal epileptiform discharges were seen over the {region} region.",
            f"There are focal sharp waves over the {region} region.",
            f"Focal epileptiform discharges with after-going slow waves arise from the {region} region.",
            f"Focal spikes and sharp waves were recorded over the {region} region.",
        )

    def _spike_wave(self) -> str:
        return self.pick(
            "Generalized spike-and-wave discharges were seen.",
            "There are bursts of generalized spike-and-wave discharges.",
            "Bursts of generalized spike-and-wave activity with frontal maximum were recorded.",
        )

    def _seizure(self) -> str:
        entry, region = self.present["seizure"], self.region("seizure")
        onset = "of generalized onset" if region == "generalized" else f"of {region} onset"
        start, end = entry.get("start_seconds"), entry.get("end_seconds")
        when = "" if start is None or end is None else f" from {start:.0f} to {end:.0f} s"
        return self.pick(
            f"An electrographic seizure {onset} was recorded{when}.",
            f"There was an electrographic seizure {onset}{when}.",
            f"A seizure {onset} with evolving rhythmic activity was recorded{when}.",
        )

    def _technical(self) -> list[str]:
        sentences = []
        kinds = [_ARTIFACT_WORDS[name] for name in _ARTIFACTS if self.has(name)]
        if kinds:
            sentences.append(
                _listed(kinds).capitalize()
                + self.pick(" artifacts were seen.", " artifacts were present.", " artifacts are noted.")
            )
        if self.has("mains_noise"):
            frequency = f" at {self.mains['frequency_hz']:.0f} Hz" if self.mains else ""
            sentences.append(
                self.pick(
                    f"Mains noise{frequency} is present.",
                    f"There is mains noise{frequency}.",
                    f"Mains noise{frequency} was seen.",
                )
            )
        if self.has("bad_electrode"):
            channels = list(self.present["bad_electrode"].get("channels") or [])[:4]
            where = f" at {_listed(channels)}" if channels else ""
            many = len(channels) > 1
            sentences.append(
                self.pick(
                    f"Bad electrode{'s were' if many else ' was'} found{where}.",
                    f"There {'are bad electrodes' if many else 'is a bad electrode'}{where}.",
                )
            )
        return sentences

    def _reason(self, name: str) -> str:
        if name == "posterior_asymmetry":
            return f"asymmetry of the posterior rhythm, lower on the {self._lower_side()}"
        if name == "seizure":
            region = self.region(name)
            return f"an electrographic seizure of {region} onset"
        if name in ("focal_slowing", "focal_epileptiform_discharges"):
            label = {"focal_slowing": "slowing"}.get(name, "epileptiform discharges")
            return f"focal {label} over the {self.region(name)} region"
        return {
            "burst_suppression": self.pick("burst suppression", "a burst suppression pattern"),
            "generalized_slowing": self.pick("generalized slowing", "diffuse slowing"),
            "generalized_spike_wave": "generalized spike-and-wave discharges",
        }[name]

    def _denial(self) -> str:
        epileptiform = self.has("focal_epileptiform_discharges", "generalized_spike_wave")
        if epileptiform and self.has("seizure"):
            return ""
        if epileptiform:
            return self.pick("No seizures were recorded.", "There were no seizures.")
        if self.has("seizure"):
            return self.pick(
                "No interictal epileptiform discharges were seen.",
                "There were no interictal epileptiform discharges.",
            )
        return self.pick(
            "No epileptiform discharges or seizures were seen.",
            "There were no epileptiform discharges or seizures.",
            "Neither epileptiform discharges nor seizures were recorded.",
        )
