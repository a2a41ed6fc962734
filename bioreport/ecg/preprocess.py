"""From an ECG to windows as the published models take them: ECG-Tok's chain and MEIT's, by name.

The signal passes through once, in constant memory: windows of 10 s, the length of a standard ECG and of both
models' inputs. A record of 10 s gives one window and sees what the papers describe; a longer one is filtered
as a whole (no border between windows) and cut. What the papers leave open is decided in the docstrings of
`ECG_TOK` and `MEIT` and in `bioreport.ecg.flatten`; what was decided for a recording is in `Decisions`.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from scipy import signal

from bioreport.ecg.leads import LEADS
from bioreport.ecg.reading import EcgRecording
from bioreport.errors import InputError
from bioreport.filters import ANTI_ALIAS_DB, LARGEST_DENOMINATOR, OverlapSave, Response
from bioreport.quality import fill_invalid

__all__ = [
    "ECG_TOK",
    "MEIT",
    "SPECS",
    "Decisions",
    "EcgBatch",
    "EcgSpec",
    "EcgStream",
    "drift_ratio",
    "preprocess_record",
    "stream_windows",
]

HIGHPASS_HZ = 1.0
_TRANSITION_HZ = 1.0  # 0.5 to 1.5 Hz
_PASS = 0.88  # of the lower Nyquist frequency: where the low-pass of a change of rate begins to fall
_SAMPLED_WINDOWS = 10
NAN_SHARE = 0.05
FLAT_SHARE = 0.5
IMPLAUSIBLE_MV, IMPLAUSIBLE_SHARE = 20.0, 0.25


@dataclass(frozen=True)
class EcgSpec:
    """What an encoder wants to see.

    Attributes
    ----------
    name : str
    sfreq : float
        Hz.
    center : bool
        Take each lead's median off: electrodes add an offset that says nothing of the heart.
    drift_limit : float or None
        High-pass at 1 Hz where the power below 1 Hz exceeds this many times that of 1–30 Hz.
    flatten_mains : bool
        Flatten mains peaks in each window.
    scaling : {"mv", "minmax"}
        Millivolts, or each window stretched to 0–1 over all its leads.
    leads : tuple of str
        In the encoder's order.
    window_seconds, min_remainder_seconds : float
        Length of a window, and the shortest remainder that is kept as a part-filled one, s.
    """

    name: str
    sfreq: float
    center: bool
    drift_limit: float | None
    flatten_mains: bool
    scaling: Literal["mv", "minmax"]
    leads: tuple[str, ...] = LEADS
    window_seconds: float = 10.0
    min_remainder_seconds: float = 2.5

    @property
    def window_samples(self) -> int:
        return round(self.window_seconds * self.sfreq)


ECG_TOK = EcgSpec("ecg-tok", 250.0, True, 10.0, True, "mv")
"""ECG-Tok: 250 Hz, a 1-Hz high-pass where the baseline drifts, mains peaks flattened, mV.

Open in the paper and decided here: drift is judged once a record, on the spectrum (Hann periodogram of 10-s
windows, the median over its leads), so that no lead is filtered apart from the others; the high-pass is a
symmetric FIR filter (zero phase) whose response is one half at 1 Hz and reaches from 0.5 to 1.5 Hz; the rate
is changed by a symmetric low-pass of 120 dB.
"""

MEIT = EcgSpec("meit", 500.0, False, None, False, "minmax")
"""MEIT: 500 Hz, 12 leads × 5000, stretched to 0–1 by the least and greatest value of all leads of the record.

Where the published code demands 500 Hz, the rate is changed; where it takes the order of the file, leads are
placed by name (MIMIC-IV has aVF before aVL: give ``leads`` in that order for weights trained on it); where
one missing sample turns its whole record to zeros, the sample is bridged. On whole records of 10 s at 500 Hz
the two are equal.
"""

SPECS: dict[str, EcgSpec] = {spec.name: spec for spec in (ECG_TOK, MEIT)}


@dataclass
class Decisions:
    """What was done to a recording, for the record.

    Attributes
    ----------
    spec : str
    sfreq_in, sfreq_out : float
        Hz.
    drift : float or None
        Power below 1 Hz over that of 1–30 Hz; None where the spec does not ask.
    highpass : bool
        Whether the 1-Hz high-pass was applied.
    mains : dict of str to dict of str to float
        By harmonic ("50 Hz") and lead: the share of windows in which interference stood out. Known when the
        stream is exhausted.
    centered : dict of str to float
        Offset taken off each lead, mV.
    scaling : str
    """

    spec: str
    sfreq_in: float
    sfreq_out: float
    drift: float | None
    highpass: bool
    centered: dict[str, float]
    scaling: str
    mains: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass
class EcgBatch:
    """Consecutive windows of one recording.

    Attributes
    ----------
    data : ndarray of float32, shape (n_windows, n_leads, window_samples)
        mV or 0–1 by the spec; zero where masked.
    lead_mask : ndarray of bool, shape (n_windows, n_leads)
        True where the lead is present and usable (not absent, missing, constant or implausible).
    n_valid : ndarray of int64, shape (n_windows,)
        Samples of the window that were recorded; fewer than `window_samples` only in the last one.
    start_seconds : ndarray of float64, shape (n_windows,)
    """

    data: np.ndarray
    lead_mask: np.ndarray
    n_valid: np.ndarray
    start_seconds: np.ndarray

    def __len__(self) -> int:
        return len(self.data)


class EcgStream(Iterator[EcgBatch]):
    """Iterator over the windows of a recording that knows beforehand how many there are.

    Attributes
    ----------
    spec : EcgSpec
    n_windows : int
    dropped_seconds : float
        Of a remainder too short for a window.
    decisions : Decisions
    """

    def __init__(
        self, spec: EcgSpec, n_windows: int, dropped_seconds: float, decisions: Decisions,
        batches: Iterator[EcgBatch],
    ) -> None:  # fmt: skip
        self.spec = spec
        self.n_windows = n_windows
        self.dropped_seconds = dropped_seconds
        self.decisions = decisions
        self._batches = batches

    def __next__(self) -> EcgBatch:
        return next(self._batches)


def stream_windows(recording: EcgRecording, spec: EcgSpec = ECG_TOK, *, batch_windows: int = 16) -> EcgStream:
    """Filter, resample and cut an ECG into windows, in one pass and constant memory.

    Parameters
    ----------
    recording : EcgRecording
    spec : EcgSpec
        `ECG_TOK`, `MEIT`, or one made from them with `dataclasses.replace`.
    batch_windows : int
        Windows in a batch; the last one may hold fewer.

    Returns
    -------
    EcgStream
        Iterator of EcgBatch. Windows without any usable lead are there, wholly masked.

    Raises
    ------
    InputError
        No lead of the spec is in the recording, or it is shorter than `spec.min_remainder_seconds`.
    """
    rows = [(i, recording.leads.index(n)) for i, n in enumerate(spec.leads) if n in recording.leads]
    if not rows:
        raise InputError(
            recording.path, "has none of the twelve standard leads, which this model needs",
            "give a recording with leads named I, II, V1 and so on",
        )  # fmt: skip
    sampled = _sampled(recording, spec, [row for _, row in rows])
    offsets = _offsets(sampled) if spec.center else np.zeros(len(rows))
    drift = drift_ratio(sampled, recording.sfreq) if spec.drift_limit is not None else None
    highpass = drift is not None and spec.drift_limit is not None and drift > spec.drift_limit
    response = _response(recording.sfreq, spec.sfreq, highpass)
    n_out = response.output_length(recording.n_samples)
    whole, rest = divmod(n_out, spec.window_samples)
    n_windows = whole + (rest >= spec.min_remainder_seconds * spec.sfreq)
    if not n_windows:
        raise InputError(
            recording.path, f"is shorter than {spec.min_remainder_seconds:g} s",
            f"give an ECG of at least {spec.min_remainder_seconds:g} s",
        )  # fmt: skip
    decisions = Decisions(
        spec=spec.name,
        sfreq_in=recording.sfreq,
        sfreq_out=spec.sfreq,
        drift=drift,
        highpass=highpass,
        centered={spec.leads[i]: round(float(o), 6) for (i, _), o in zip(rows, offsets, strict=True)}
        if spec.center else {},
        scaling=spec.scaling,
    )  # fmt: skip
    windows = _windows(recording, spec, rows, offsets, response, n_windows)
    batches = _batched(windows, spec, rows, batch_windows, decisions)
    dropped = (n_out - n_windows * spec.window_samples) / spec.sfreq if n_windows == whole else 0.0
    return EcgStream(spec, n_windows, dropped, decisions, batches)


def preprocess_record(recording: EcgRecording, spec: EcgSpec = ECG_TOK) -> tuple[EcgBatch, Decisions]:
    """All windows of a short recording in one batch; see `stream_windows`."""
    stream = stream_windows(recording, spec)
    batches = list(stream)
    joined = (
        np.concatenate([getattr(b, name) for b in batches])
        for name in ("data", "lead_mask", "n_valid", "start_seconds")
    )
    return EcgBatch(*joined), stream.decisions


def drift_ratio(windows: list[np.ndarray], sfreq: float) -> float | None:
    """Power below 1 Hz over that of 1–30 Hz, in the median over the leads of their spectra.

    Parameters
    ----------
    windows : list of ndarray, shape (n_leads, n_samples)
        mV; NaN where there is no sample.

    Returns
    -------
    float or None
        None where no lead varies.
    """
    ratios = []
    for window in windows:
        data = window.copy()
        fill_invalid(data, np.full(len(data), np.nan))
        varying = data[np.ptp(data, axis=1) > 0]
        if not len(varying) or data.shape[1] < 2 * sfreq:
            continue
        frequencies, power = signal.periodogram(varying, sfreq, window="hann", detrend="constant")
        spectrum = np.median(power, axis=0)
        low = spectrum[(frequencies > 0) & (frequencies < HIGHPASS_HZ)].sum()
        high = spectrum[(frequencies >= HIGHPASS_HZ) & (frequencies <= 30)].sum()
        if high > 0:
            ratios.append(low / high)
    return float(np.median(ratios)) if ratios else None


def _sampled(recording: EcgRecording, spec: EcgSpec, rows: list[int]) -> list[np.ndarray]:
    """Windows spread over the recording; all of a short one."""
    n = max(1, round(recording.duration_seconds / spec.window_seconds))
    chosen = np.unique(np.linspace(0, n - 1, min(n, _SAMPLED_WINDOWS)).astype(int))
    length = spec.window_seconds * recording.sfreq
    windows = []
    for k in chosen:
        start = min(round(k * length), recording.n_samples)
        window = recording.read(start, min(round((k + 1) * length), recording.n_samples))
        windows.append(window[rows].astype(np.float64))
    return windows


def _offsets(windows: list[np.ndarray]) -> np.ndarray:
    joined = np.concatenate(windows, axis=1)
    return np.array([np.median(v) if (v := row[np.isfinite(row)]).size else 0.0 for row in joined])


def _response(sfreq: float, sfreq_out: float, highpass: bool) -> Response:
    """The change of rate and, where it is asked for, the high-pass as one symmetric response."""
    ratio = (Fraction(sfreq_out) / Fraction(sfreq)).limit_denominator(LARGEST_DENOMINATOR)
    taps = np.ones(1)
    if highpass:
        length = int(np.ceil(3.3 * sfreq / _TRANSITION_HZ)) | 1
        taps = signal.firwin(length, HIGHPASS_HZ, pass_zero=False, fs=sfreq)
    edge = min(sfreq, sfreq_out) / 2
    if ratio != 1:
        width = (1 - _PASS) * edge
        length, beta = signal.kaiserord(ANTI_ALIAS_DB, 2 * width / sfreq)
        lowpass = signal.firwin(length | 1, edge - width / 2, window=("kaiser", beta), fs=sfreq)
        taps = np.convolve(taps, lowpass)
    return Response(taps, ratio.numerator, ratio.denominator, HIGHPASS_HZ if highpass else 0.0, edge, ())


@dataclass
class _Window:
    data: np.ndarray  # [present leads, up to window_samples], mV
    usable: np.ndarray  # [present leads]
    start_seconds: float


def _windows(
    recording: EcgRecording,
    spec: EcgSpec,
    rows: list[tuple[int, int]],
    offsets: np.ndarray,
    response: Response,
    n_windows: int,
) -> Iterator[_Window]:
    engine = OverlapSave(response, len(rows)) if len(response.taps) > 1 else None
    source = [row for _, row in rows]
    last = np.full(len(rows), np.nan)
    usable: deque[np.ndarray] = deque()
    out = np.empty((len(rows), spec.window_samples))
    fill = given = 0

    def cut(pieces: Iterator[np.ndarray]) -> Iterator[_Window]:
        nonlocal fill, given
        for piece in pieces:
            taken = 0
            while taken < piece.shape[1] and given < n_windows:
                count = min(out.shape[1] - fill, piece.shape[1] - taken)
                out[:, fill : fill + count] = piece[:, taken : taken + count]
                fill += count
                taken += count
                if fill == out.shape[1]:
                    yield _Window(out, usable.popleft(), given * spec.window_seconds)
                    given += 1
                    fill = 0

    length = spec.window_seconds * recording.sfreq
    start, number = 0, 1
    while start < recording.n_samples:
        # at rates such as 199.98 Hz borders fall between samples
        stop = min(round(number * length), recording.n_samples)
        raw = recording.read(start, stop)[source].astype(np.float64)
        usable.append(_usable(raw, recording.sfreq))
        raw -= offsets[:, np.newaxis]
        fill_invalid(raw, last)
        yield from cut(engine.push(raw) if engine else iter([raw]))
        start, number = stop, number + 1
    if engine:
        yield from cut(engine.flush())
    if given < n_windows:
        yield _Window(out[:, :fill], usable.popleft(), given * spec.window_seconds)


def _usable(raw_mv: np.ndarray, sfreq: float) -> np.ndarray:
    """Leads of a window that hold signal: enough samples, not constant, of a size a heart can have."""
    n_leads, n_samples = raw_mv.shape
    valid = np.isfinite(raw_mv)
    usable = valid.mean(axis=1) >= 1 - NAN_SHARE
    pieces = min(max(round(n_samples / sfreq), 1), n_samples)
    length = n_samples // pieces
    filled = np.where(valid, raw_mv, np.nan)[:, : pieces * length].reshape(n_leads, pieces, length)
    # a second without any sample counts as one that stands still
    low = np.where(np.isfinite(filled), filled, np.inf).min(axis=2)
    high = np.where(np.isfinite(filled), filled, -np.inf).max(axis=2)
    ranges = high - low
    usable &= (ranges <= 0).mean(axis=1) < FLAT_SHARE
    return np.asarray(usable & ((ranges > IMPLAUSIBLE_MV).mean(axis=1) < IMPLAUSIBLE_SHARE))


def _batched(
    windows: Iterator[_Window],
    spec: EcgSpec,
    rows: list[tuple[int, int]],
    batch_windows: int,
    decisions: Decisions,
) -> Iterator[EcgBatch]:
    target = np.array([lead for lead, _ in rows])
    names = [spec.leads[lead] for lead in target]
    seen: dict[float, np.ndarray] = {}
    done = count = 0
    for window in windows:
        if not count:
            batch = EcgBatch(
                np.zeros((batch_windows, len(spec.leads), spec.window_samples), np.float32),
                np.zeros((batch_windows, len(spec.leads)), bool),
                np.zeros(batch_windows, np.int64),
                np.zeros(batch_windows),
            )
        n = window.data.shape[1]
        data = window.data[window.usable]
        if spec.flatten_mains and len(data):
            data = _flatten(data, window.usable, spec.sfreq, seen)
        if spec.scaling == "minmax" and len(data):
            least, most = data.min(), data.max()
            data = (data - least) / (most - least) if most > least else np.zeros_like(data)
        batch.data[count, target[window.usable], :n] = data
        batch.lead_mask[count, target] = window.usable
        batch.n_valid[count] = n
        batch.start_seconds[count] = window.start_seconds
        count, done = count + 1, done + 1
        if count == batch_windows:
            count = 0
            decisions.mains = _mains(seen, names, done)
            yield batch
    decisions.mains = _mains(seen, names, done)
    if count:
        yield EcgBatch(
            batch.data[:count], batch.lead_mask[:count], batch.n_valid[:count], batch.start_seconds[:count]
        )


def _flatten(data: np.ndarray, usable: np.ndarray, sfreq: float, seen: dict[float, np.ndarray]) -> np.ndarray:
    # statsmodels takes a second to import, and MEIT's chain does without
    from bioreport.ecg.flatten import VISIBLE, flatten_mains

    flattened, heights = flatten_mains(data, sfreq)
    for frequency, height in heights.items():
        counts = seen.setdefault(frequency, np.zeros(len(usable)))
        counts[usable] += height >= VISIBLE
    return flattened


def _mains(seen: dict[float, np.ndarray], names: list[str], done: int) -> dict[str, dict[str, float]]:
    return {
        f"{frequency:g} Hz": {
            name: round(float(count / done), 4) for name, count in zip(names, counts, strict=True) if count
        }
        for frequency, counts in seen.items()
        if counts.any()
    }
