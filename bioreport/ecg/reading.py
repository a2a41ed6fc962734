"""An ECG as leads in millivolts, read piece by piece.

Three lines:

>>> from bioreport.ecg.reading import open_ecg
>>> recording = open_ecg("record.hea")                   # doctest: +SKIP
>>> recording.leads, recording.read().shape              # doctest: +SKIP
(('I', 'II', 'III', 'aVR', 'aVL', 'aVF', 'V1', 'V2', 'V3', 'V4', 'V5', 'V6'), (12, 5000))
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np

from bioreport.ecg.lead_checks import check_leads
from bioreport.ecg.lead_selection import Selection, select_leads
from bioreport.ecg.leads import CHEST_LEADS, LEADS, in_order, limb_derivation
from bioreport.errors import InputError
from bioreport.formats import open_source
from bioreport.recording import Channel
from bioreport.source import Source
from bioreport.units import to_microvolts, typical_spread

_RATES = (50.0, 20_000.0)  # Hz
_WINDOWS = 6
_WINDOW_SECONDS = 10.0
_SPREAD_SECONDS = 2.0
_SCAN_SECONDS = 600.0
_LONGEST_GAP_SECONDS = 7 * 86400.0
# standard deviation of a lead over 2 s, mV: from a faint signal to one full of wander
LEAST_MV, MOST_MV = 0.01, 8.0


@dataclass
class EcgRecording:
    """An open ECG; holds no samples and no open file.

    Attributes
    ----------
    path : Path
        Where it was read from.
    modality : str
        ``ecg``.
    sfreq : float
        Hz.
    n_samples : int
        Length, gaps counted.
    duration_seconds : float
        Length in s, gaps counted.
    channels : tuple of Channel
        All channels of the file.
    leads : tuple of str
        The rows that `read` returns: those of the twelve that there are, in the order of
        `bioreport.ecg.leads.LEADS`, then leads of other or unknown places (``V7``, ``ECG1``).
    derived : tuple of str
        Those of `leads` that were computed from two other limb leads.
    modified : tuple of str
        Those of `leads` that were recorded from other places than the standard lead's (``MLII``).
    warnings : list of str
        Sentences on everything that was not as it should be.
    mapping : dict of str to str
        Label to lead, or to the reason why the channel is not used.
    constant : tuple of str
        Leads that the file has but that hold one value from beginning to end: no electrode.
    """

    path: Path
    modality: str
    sfreq: float
    n_samples: int
    duration_seconds: float
    channels: tuple[Channel, ...]
    leads: tuple[str, ...]
    derived: tuple[str, ...]
    modified: tuple[str, ...]
    warnings: list[str]
    mapping: dict[str, str]
    _reader: Callable[[int, int], np.ndarray] = field(repr=False)
    constant: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The rows that `read` returns, under the name that an EEG has for them."""
        return self.leads

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Samples `start` to `stop`, to the end by default.

        Returns
        -------
        ndarray of float32, shape (len(leads), stop - start)
            mV; NaN where the file has no valid sample.

        Raises
        ------
        ValueError
            The range is not within the recording.
        """
        stop = self.n_samples if stop is None else stop
        if not 0 <= start <= stop <= self.n_samples:
            raise ValueError(f"samples {start} to {stop} are not within 0 to {self.n_samples}")
        return self._reader(start, stop)

    def stream(self, seconds: float = 60.0) -> Iterator[np.ndarray]:
        """The whole signal in chunks of `seconds`, the last one shorter; each as from `read`."""
        length = max(1, round(seconds * self.sfreq))
        for start in range(0, self.n_samples, length):
            yield self.read(start, min(start + length, self.n_samples))

    @classmethod
    def from_array(cls, data_mv: np.ndarray, sfreq: float, leads: Sequence[str] = LEADS) -> "EcgRecording":
        """A recording in memory.

        Parameters
        ----------
        data_mv : ndarray, shape (n_leads, n_samples)
            mV.
        sfreq : float
            Hz.
        leads : sequence of str
            Names as in `bioreport.ecg.leads`.
        """
        data = np.asarray(data_mv, np.float32)
        if data.ndim != 2 or len(data) != len(leads) or not sfreq > 0:
            raise ValueError(f"data of shape {data.shape} at {sfreq} Hz do not fit {len(leads)} leads")
        return cls(
            path=Path("array"),
            modality="ecg",
            sfreq=float(sfreq),
            n_samples=data.shape[1],
            duration_seconds=data.shape[1] / sfreq,
            channels=tuple(Channel(n, n, "ecg", "mV", float(sfreq), "good") for n in leads),
            leads=tuple(leads),
            derived=(),
            modified=(),
            warnings=[],
            mapping={n: n for n in leads},
            _reader=lambda start, stop: data[:, start:stop].copy(),
        )


def open_ecg(path: str | PathLike[str]) -> EcgRecording:
    """Open an ECG: a WFDB record (.hea, its .dat or .mat, or the record's name), EDF, or DICOM waveforms.

    Returns
    -------
    EcgRecording
        Leads by their names, mV; missing limb leads computed; `warnings` on everything unusual.

    Raises
    ------
    InputError
        The file cannot give an ECG; one sentence with the cure.
    """
    path = Path(path)
    return ecg_from_source(open_source(path), path)


def ecg_from_source(source: Source, path: Path) -> EcgRecording:
    """The ECG of an opened file; raises InputError as `open_ecg` does."""
    selection = select_leads(source)
    if not selection.rows:
        raise _no_leads(path, source, selection)
    sfreq = source.rates[next(iter(selection.rows.values()))]
    if not _RATES[0] <= sfreq <= _RATES[1]:
        raise InputError(path, f"states a sampling rate of {sfreq:g} Hz, too {_low(sfreq)} for an ECG",
                         "export it at 250 Hz or more")  # fmt: skip
    timeline = _timeline(path, source, sfreq)
    n_samples = timeline[-1][0] + timeline[-1][2] - timeline[-1][1] if timeline else 0
    if not n_samples:
        raise InputError(path, "holds no samples", "give a recording that was not cut to nothing")
    warnings = [*source.warnings, *selection.warnings]
    windows = _windows(source, list(selection.rows.values()), timeline)
    constant = _drop_constant(path, source, selection, windows, timeline, warnings)
    recorded = in_order(selection.rows)
    rows = [selection.rows[lead] for lead in recorded]
    windows = _windows(source, rows, timeline)
    factors = _factors(path, source, rows, windows, sfreq, warnings)
    factors *= [selection.found[row].sign for row in rows]
    modified = tuple(lead for lead in recorded if selection.found[selection.rows[lead]].modified)
    sums = limb_derivation([lead for lead in recorded if lead not in modified])
    # a modified lead stands where it was recorded
    sums = {lead: terms for lead, terms in sums.items() if lead not in recorded}
    leads = tuple(in_order([*recorded, *sums]))
    warnings += _completeness(recorded, modified, tuple(sums), selection)
    reader = _Reader(source, timeline, rows, factors, recorded, leads, sums)
    warnings += check_leads([w * factors[:, np.newaxis] for w in windows], sfreq, recorded, modified)
    used = {row: lead for lead, row in selection.rows.items()}
    return EcgRecording(
        path=path,
        modality="ecg",
        sfreq=sfreq,
        n_samples=n_samples,
        duration_seconds=n_samples / sfreq,
        channels=tuple(
            Channel(
                label, used.get(i), "ecg" if i in selection.found else "misc", source.units[i],
                source.rates[i], "bad" if i in selection.bad else "good",
            )
            for i, label in enumerate(source.labels)
        ),
        leads=leads,
        derived=tuple(lead for lead in leads if lead in sums),
        modified=modified,
        warnings=warnings,
        mapping=selection.mapping,
        _reader=reader,
        constant=tuple(in_order(constant)),
    )  # fmt: skip


# sample of the timeline where a stretch begins, its first sample in the file, the one after its last
_Timeline = list[tuple[int, int, int]]


@dataclass
class _Reader:
    """Rows of a source as leads in mV, gaps between its pieces as NaN."""

    source: Source
    timeline: _Timeline
    rows: list[int]
    factors: np.ndarray
    recorded: list[str]
    leads: tuple[str, ...]
    sums: dict[str, tuple[tuple[str, float], tuple[str, float]]]

    def __call__(self, start: int, stop: int) -> np.ndarray:
        data = _read_rows(self.source, self.rows, self.timeline, start, stop)
        data *= self.factors[:, np.newaxis]
        data[~np.isfinite(data)] = np.nan
        out = np.empty((len(self.leads), stop - start), np.float32)
        at = {lead: i for i, lead in enumerate(self.recorded)}
        for target, lead in zip(out, self.leads, strict=True):
            if lead in at:
                target[:] = data[at[lead]]
            else:
                (first, a), (second, b) = self.sums[lead]
                target[:] = a * data[at[first]] + b * data[at[second]]
        return out


def _read_rows(source: Source, rows: list[int], timeline: _Timeline, start: int, stop: int) -> np.ndarray:
    """Samples of the timeline in the file's units, float64 [len(rows), stop - start]."""
    out = np.full((len(rows), stop - start), np.nan)
    for begin, first, last in timeline:
        low, high = max(start, begin), min(stop, begin + last - first)
        if low < high:
            try:
                piece = source.read(rows, first + low - begin, first + high - begin)
            except OSError as error:
                raise InputError(
                    source.path, f"cannot be read further ({error.strerror or 'input/output error'})",
                    "check the disk or the connection to it",
                ) from error  # fmt: skip
            out[:, low - start : high - start] = piece
    return out


def _timeline(path: Path, source: Source, sfreq: float) -> _Timeline:
    """Stretches of the file on one clock, which never goes back."""
    timeline: _Timeline = []
    end = 0
    for piece in source.pieces(sfreq):
        begin = max(round(piece.onset * sfreq), end)
        if begin - end > _LONGEST_GAP_SECONDS * sfreq:
            raise InputError(
                path, f"has a gap of {(begin - end) / sfreq / 86400:.0f} days",
                "split the recording there, or correct its time stamps",
            )  # fmt: skip
        if piece.stop > piece.start:
            timeline.append((begin, piece.start, piece.stop))
            end = begin + piece.stop - piece.start
    return timeline


def _windows(source: Source, rows: list[int], timeline: _Timeline) -> list[np.ndarray]:
    """Stretches of 10 s spread over the recording, in the file's units; the whole of a short one."""
    if not rows:
        return []
    length = max(1, round(_WINDOW_SECONDS * source.rates[rows[0]]))
    n_samples = timeline[-1][0] + timeline[-1][2] - timeline[-1][1]
    starts = np.unique(np.linspace(0, max(n_samples - length, 0), _WINDOWS).astype(int))
    if n_samples <= length:
        starts = starts[:1]
    return [
        _read_rows(source, rows, timeline, int(start), min(int(start) + length, n_samples))
        for start in starts
    ]


def _drop_constant(
    path: Path, source: Source, selection: Selection, windows: list[np.ndarray], timeline: _Timeline,
    warnings: list[str],
) -> list[str]:  # fmt: skip
    """Take out the leads that hold one value from beginning to end, or none; returns them."""
    leads = list(selection.rows)
    still = [lead for i, lead in enumerate(leads) if all(_is_still(window[i]) for window in windows)]
    constant = [lead for lead in still if _is_still_throughout(source, selection.rows[lead], timeline)]
    for lead in constant:
        selection.drop(lead, "constant, no signal")
    if constant and not selection.rows:
        problem = "holds no signal: " + ("its ECG lead is" if len(leads) == 1 else "all its ECG leads are")
        raise InputError(path, f"{problem} constant", "give a recording with connected electrodes")
    if constant:
        warnings.append(f"{', '.join(constant)}: constant from beginning to end, not used (no electrode?).")
    return constant


def _is_still(samples: np.ndarray) -> bool:
    valid = samples[np.isfinite(samples)]
    return valid.size == 0 or bool(valid.min() == valid.max())


def _is_still_throughout(source: Source, row: int, timeline: _Timeline) -> bool:
    length = round(_SCAN_SECONDS * source.rates[row])
    value: float | None = None
    end = timeline[-1][0] + timeline[-1][2] - timeline[-1][1]
    for start in range(0, end, length):
        samples = _read_rows(source, [row], timeline, start, min(start + length, end))[0]
        valid = samples[np.isfinite(samples)]
        if not valid.size:
            continue
        value = float(valid[0]) if value is None else value
        if (valid != value).any():
            return False
    return True


def guess_unit(spread: float) -> str | None:
    """The unit in which a standard deviation over 2 s is one of an ECG, None if it fits none."""
    for unit, factor in (("mV", 1.0), ("µV", 1e-3), ("V", 1e3)):
        if LEAST_MV <= spread * factor <= MOST_MV:
            return unit
    return None


def _factors(
    path: Path, source: Source, rows: list[int], windows: list[np.ndarray], sfreq: float, warnings: list[str]
) -> np.ndarray:
    """Factor to mV of every row; decides the unit where none is written and doubts an impossible one."""
    length = max(1, round(_SPREAD_SECONDS * sfreq))
    pieces = [
        w[:, i : i + length] for w in windows for i in range(0, max(w.shape[1] - length, 0) + 1, length)
    ]
    spreads = typical_spread(pieces)
    stated = getattr(source, "unit_stated", None)
    without = [k for k, row in enumerate(rows) if not (stated[row] if stated else source.units[row])]
    factors = np.array([(to_microvolts(source.units[row]) or 1000.0) / 1000.0 for row in rows])
    if without:
        found = spreads[without][np.isfinite(spreads[without])]
        unit = guess_unit(float(np.median(found))) if found.size else None
        count = "The" if len(without) == len(rows) else f"{len(without)} of the {len(rows)}"
        if unit is None and stated is None:
            raise InputError(
                path, "states no unit for its leads, and their amplitude fits none",
                "export it with units (mV or µV)",
            )  # fmt: skip
        if unit is None:
            warnings.append(
                f"{count} leads have no unit in the header and an amplitude that fits none; by the WFDB "
                "standard it is mV, amplitudes may be wrong."
            )
        elif unit != "mV" or stated is None:
            warnings.append(f"{count} leads have no unit in the header; by their amplitude it is {unit}.")
        factors[without] = (to_microvolts(unit or "mV") or 1000.0) / 1000.0
    known = [k for k in range(len(rows)) if k not in without and np.isfinite(spreads[k])]
    if known:
        typical = float(np.median((spreads * factors)[known]))
        if not LEAST_MV / 10 <= typical <= MOST_MV * 5:
            warnings.append(
                f"The leads vary by {typical:.3g} mV, too {_low(typical)} for an ECG: "
                "their unit or gain in the header may be wrong."
            )
    return factors


def _low(value: float) -> str:
    return "little" if value < 1 else "much"


def _no_leads(path: Path, source: Source, selection: Selection) -> InputError:
    if selection.bad:
        reasons = "; ".join(dict.fromkeys(selection.bad.values()))
        return InputError(
            path, f"has no ECG lead with a valid scale ({reasons})", "correct gain and unit in its header"
        )
    labels = [label for label in source.labels[:4] if label]
    shown = f" ({', '.join(labels)}{', …' if len(source.labels) > 4 else ''})" if labels else ""
    return InputError(
        path, f"has no ECG lead among its {len(source.labels)} channels{shown}",
        "give a recording whose leads are named I, II, V1 and so on",
    )  # fmt: skip


def _completeness(
    recorded: list[str], modified: tuple[str, ...], derived: tuple[str, ...], selection: Selection
) -> list[str]:
    """Sentences on leads that are computed, modified, of no known place, or absent."""
    sentences = []
    if modified:
        labels = ", ".join(f"{selection.labels[lead]} as {lead}" for lead in modified)
        sentences.append(
            f"Modified leads were taken for the standard ones ({labels}): their amplitudes, the axis and ST "
            "levels are not comparable with a standard ECG."
        )
    if derived:
        sentences.append(f"{_listed(derived)} {_were(derived)} computed from the other limb leads.")
    other = [lead for lead in recorded if lead not in LEADS]
    if other:
        sentences.append(f"{_listed(other)}: not among the twelve leads, used for beats and rhythm only.")
    absent = [lead for lead in LEADS if lead not in recorded and lead not in derived]
    if absent:
        chest = set(CHEST_LEADS) & set(absent)
        without = "what only they show" if len(chest) < len(CHEST_LEADS) else "the front of the heart"
        are = "is" if len(absent) == 1 else "are"
        sentences.append(f"{_listed(absent)} {are} missing: {without} cannot be judged.")
    return sentences


def _listed(leads: Sequence[str]) -> str:
    if set(CHEST_LEADS) <= set(leads):
        leads = [lead for lead in leads if lead not in CHEST_LEADS] + ["V1–V6"]
    return ", ".join(leads)


def _were(leads: Sequence[str]) -> str:
    return "was" if len(leads) == 1 else "were"
