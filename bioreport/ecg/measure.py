"""ECG measurements: a record or a stream of any length, in constant memory, as plain values.

>>> from bioreport.ecg.measure import measure_ecg
>>> from bioreport.ecg.criteria import ecg_findings
>>> measurements = measure_ecg(samples, 500.0, leads)       # doctest: +SKIP
>>> [f["name"] for f in ecg_findings(measurements) if f["present"]]       # doctest: +SKIP
['sinus_rhythm', 'tachycardia']
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bioreport.ecg.analysis import analyse
from bioreport.ecg.description import describe
from bioreport.ecg.summary import Summary
from bioreport.stages import Stages

if TYPE_CHECKING:
    from bioreport.ecg.reading import EcgRecording

WINDOW_SECONDS = 30.0  # of fibrillation make an episode (ESC 2020, doi:10.1093/eurheartj/ehaa612)
LEAST_SECONDS = 15.0  # what is left at the end of a long record is at least this long
MARGIN_SECONDS = 2.0  # read on either side, so that no beat is cut


def measure_ecg(
    samples: np.ndarray,
    sfreq: float,
    leads: Sequence[str],
    *,
    derived: Collection[str] = (),
    modified: Collection[str] = (),
) -> dict[str, Any]:
    """Measure an ECG.

    Parameters
    ----------
    samples : float [leads, T]
        mV, NaN where there is no sample.
    sfreq : float
        Hz.
    leads : sequence of str
        Canonical names (`bioreport.ecg.leads`) of the rows; others serve beats and rhythm only.
    derived : collection of str
        Leads computed from others; they have no vote on the beats.
    modified : collection of str
        Leads with electrodes at other places: nothing that needs a place is read off them.

    Returns
    -------
    dict
        Plain JSON values, None for what the leads or their quality do not allow. A quantity is
        ``{"value", "unit", "confidence"}`` with a confidence from 0 to 1; ``leads`` holds the waves of each
        lead in mV against the level before QRS. QTc is given by Bazett's and by Fridericia's formula. Of a
        long record the values are medians over windows of 30 s, and ``windows``, ``episodes`` and
        ``rhythms`` say what changed when.
    """
    measurer = EcgMeasurer(sfreq, leads, derived=derived, modified=modified)
    samples = np.asarray(samples)
    step = max(1, round(4 * WINDOW_SECONDS * sfreq))
    for start in range(0, samples.shape[1], step):
        measurer.update(samples[:, start : start + step])
    return measurer.result()


def measure_recording(
    recording: "EcgRecording", seconds: float = 60.0, *, stages: Stages | None = None
) -> dict[str, Any]:
    """`measure_ecg` of an open recording, read in chunks of `seconds`.

    Flat leads that the recording left out are among ``channels_flat``; `stages` learns the time it takes.
    """
    stages = stages or Stages()
    measurer = EcgMeasurer(
        recording.sfreq, recording.leads, derived=recording.derived, modified=recording.modified
    )
    chunks = recording.stream(seconds)
    while True:
        with stages("read"):
            chunk = next(chunks, None)
        if chunk is None:
            break
        with stages("measure"):
            measurer.update(chunk)
    with stages("measure"):
        measured = measurer.result()
    return {
        **measured,
        "channels_flat": [*recording.constant, *measured["channels_flat"]],
        "channels_absent": [lead for lead in measured["channels_absent"] if lead not in recording.constant],
    }


class EcgMeasurer:
    """Measures an ECG while it streams; memory does not grow with its length.

    Parameters
    ----------
    sfreq : float
        Hz.
    leads : sequence of str
        Rows of the chunks.
    derived, modified : collection of str
        As for `measure_ecg`.
    """

    def __init__(
        self,
        sfreq: float,
        leads: Sequence[str],
        *,
        derived: Collection[str] = (),
        modified: Collection[str] = (),
    ) -> None:
        self.sfreq, self.leads = float(sfreq), tuple(leads)
        self.derived, self.modified = frozenset(derived), frozenset(modified)
        self.held = np.zeros((len(self.leads), 0), np.float32)
        self.held_from = 0  # sample of the record that `held` begins with
        self.next = 0  # sample of the record that the next window begins with
        self.summary = Summary(self.leads)

    def update(self, chunk: np.ndarray) -> None:
        """Take the next samples [leads, n] in mV."""
        self.held = np.concatenate([self.held, np.asarray(chunk, np.float32)], axis=1)
        window = round(WINDOW_SECONDS * self.sfreq)
        # a window is measured once enough is behind it for another
        while self._until() - self.next >= window + round((LEAST_SECONDS + MARGIN_SECONDS) * self.sfreq):
            self._measure(self.next + window)

    def result(self) -> dict[str, Any]:
        """The measurements of all that was taken."""
        if self._until() > self.next or not self.summary.count:
            self._measure(self._until())
        return self.summary.result()

    def _until(self) -> int:
        return self.held_from + self.held.shape[1]

    def _measure(self, stop: int) -> None:
        margin = round(MARGIN_SECONDS * self.sfreq)
        first, last = max(self.next - margin, self.held_from), min(stop + margin, self._until())
        samples = self.held[:, first - self.held_from : last - self.held_from]
        found = analyse(samples, self.sfreq, self.leads, derived=self.derived, modified=self.modified)
        described = describe(found, samples, self.sfreq, self.leads, self.modified)
        core = ((self.next - first) / self.sfreq, (stop - first) / self.sfreq)
        self.summary.add(described, found, core, first / self.sfreq)
        self.next = stop
        keep = max(stop - margin, 0)
        self.held = self.held[:, keep - self.held_from :].copy()
        self.held_from = keep
