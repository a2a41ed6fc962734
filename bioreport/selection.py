"""Which channels of a file become electrodes, and why the others do not."""

from collections import Counter
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from bioreport.montage import bipolar_pair, cap_rows, electrodes, is_cap_position, kind_of, normalise

LEAST_ELECTRODES = 8
_LEAST_CHAIN = 3
_T = TypeVar("_T")


@dataclass
class Selection:
    """Rows to read and what they are.

    Attributes
    ----------
    kinds : list of str
        Kind of every channel of the file.
    names : tuple of str
        Electrodes that reading gives.
    rows : list of int
        Channels of the file to read.
    matrix : ndarray, shape (n_names, n_rows), or None
        Electrodes from bipolar channels; None if a row is an electrode.
    mapping : dict of str to str
        Every label of the file: the name it became, or the reason why it is not used.
    """

    kinds: list[str]
    names: tuple[str, ...] = ()
    rows: list[int] = field(default_factory=list)
    matrix: np.ndarray | None = None
    mapping: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def select_channels(
    labels: tuple[str, ...],
    rates: tuple[float, ...],
    stated_kinds: list[str | None],
    unusable: dict[int, str],
) -> Selection:
    """Choose the EEG channels of a file.

    Parameters
    ----------
    labels : tuple of str
        Of all channels of the file.
    rates : tuple of float
        Hz.
    stated_kinds : list of (str or None)
        Kind by the file or its sidecar, where they say one.
    unusable : dict of int to str
        Channels that must not be used, with the reason.

    Returns
    -------
    Selection
        Its `names` are empty if no channel is an electrode and no montage can be undone.
    """
    caps = cap_rows(labels)
    reasons: dict[int, str] = dict(unusable)
    kinds = [
        stated or ("eeg" if is_cap_position(label, caps) else kind_of(label))
        for label, stated in zip(labels, stated_kinds, strict=True)
    ]
    single: dict[int, str] = {}
    pairs: dict[int, tuple[str, str]] = {}
    for i, (label, kind) in enumerate(zip(labels, kinds, strict=True)):
        if i in reasons:
            continue
        if kind != "eeg":
            reasons[i] = f"not used: {kind}"
        elif is_cap_position(label, caps):
            reasons[i] = "not used: a numbered position of a cap, no 10-20 name"
        elif (name := normalise(label)) is not None:
            single[i] = name
        elif (pair := bipolar_pair(label)) is not None:
            pairs[i] = pair
        else:
            reasons[i] = "not used: no 10-20 name"
    selection = Selection(kinds)
    undone = False
    if len(set(single.values())) < LEAST_ELECTRODES and pairs:
        undone = _undo_montage(selection, labels, rates, dict(pairs), single, reasons)
    if not undone:
        for i in pairs:
            reasons[i] = "not used: bipolar, the potential of neither electrode"
        _take_singles(selection, labels, rates, single, reasons)
    _write_mapping(selection, labels, single, reasons)
    return selection


def _take_singles(
    selection: Selection, labels: tuple[str, ...], rates: tuple[float, ...], single: dict[int, str],
    reasons: dict[int, str],
) -> None:  # fmt: skip
    _keep_one_rate(selection, rates, single, reasons)
    _keep_first(selection, labels, single, reasons)
    selection.rows = list(single)
    selection.names = tuple(single.values())


def _keep_one_rate(
    selection: Selection, rates: tuple[float, ...], chosen: dict[int, _T],
    reasons: dict[int, str],
) -> None:  # fmt: skip
    """Keep the channels of the most common rate (the higher of equals): no channel is silently resampled."""
    counts = Counter(rates[i] for i in chosen)
    if len(counts) < 2:
        return
    kept = max(counts, key=lambda rate: (counts[rate], rate))
    dropped = [i for i in chosen if rates[i] != kept]
    for i in dropped:
        reasons[i] = f"not used: {rates[i]:g} Hz where most EEG channels have {kept:g} Hz"
        del chosen[i]
    selection.warnings.append(
        f"The EEG channels have different sampling rates; {len(dropped)} without {kept:g} Hz were not used."
    )


def _keep_first(
    selection: Selection, labels: tuple[str, ...], chosen: dict[int, str], reasons: dict[int, str]
) -> None:
    seen: set[str] = set()
    for i, name in list(chosen.items()):
        if name in seen:
            reasons[i] = f"not used: a second {name}"
            del chosen[i]
            selection.warnings.append(f"{name} is recorded more than once; only the first channel was used.")
        seen.add(name)


def _undo_montage(
    selection: Selection,
    labels: tuple[str, ...],
    rates: tuple[float, ...],
    pairs: dict[int, tuple[str, str]],
    single: dict[int, str],
    reasons: dict[int, str],
) -> bool:
    """Solve the pairs' differences for the electrodes' potentials; False if they join too few."""
    for i in single:
        first, second = electrodes(labels[i])
        if first is not None and second is not None:
            pairs[i] = (first, second)
    pairs = dict(sorted(pairs.items()))
    trial, trial_reasons = Selection(selection.kinds), dict(reasons)
    _keep_one_rate(trial, rates, pairs, trial_reasons)
    seen: set[frozenset[str]] = set()
    for i, pair in list(pairs.items()):
        if frozenset(pair) in seen:
            trial_reasons[i] = f"not used: a second {pair[0]}-{pair[1]}"
            del pairs[i]
            trial.warnings.append(
                f"{pair[0]}-{pair[1]} is recorded more than once; only the first channel was used."
            )
        seen.add(frozenset(pair))
    chains = [c for c in _components(list(pairs.values())) if len(c) >= _LEAST_CHAIN]
    members = {name for chain in chains for name in chain}
    if len(members) < LEAST_ELECTRODES or len(members) <= len(set(single.values())):
        return False
    for i, pair in list(pairs.items()):
        if pair[0] not in members:
            trial_reasons[i] = "not used: a bipolar pair joined to no other"
            del pairs[i]
    names = tuple(dict.fromkeys(name for pair in pairs.values() for name in pair))
    incidence = np.zeros((len(pairs), len(names)))
    for row, (first, second) in enumerate(pairs.values()):
        incidence[row, names.index(first)], incidence[row, names.index(second)] = 1.0, -1.0
    # the pseudo-inverse gives the solution of least norm: zero mean in each connected chain
    selection.matrix = np.linalg.pinv(incidence)
    selection.matrix[np.abs(selection.matrix) < 1e-12] = 0.0
    selection.names, selection.rows = names, list(pairs)
    reasons.clear()
    reasons.update(trial_reasons)
    for i in single:
        if i not in pairs:
            reasons.setdefault(i, "not used: the recording is bipolar otherwise")
    groups = "one group" if len(chains) == 1 else f"{len(chains)} groups"
    selection.warnings += [
        *trial.warnings,
        f"The recording is bipolar: the potentials of {len(names)} electrodes were computed from "
        f"{len(pairs)} differences by least squares, in {groups} each relative to its own mean; amplitudes "
        "and asymmetries are approximate.",
    ]
    for i, pair in pairs.items():
        reasons[i] = f"{pair[0]}-{pair[1]}, used to compute both electrodes"
    return True


def _components(pairs: list[tuple[str, str]]) -> list[set[str]]:
    groups: list[set[str]] = []
    for pair in pairs:
        joined = set(pair)
        apart = []
        for group in groups:
            if group & joined:
                joined |= group
            else:
                apart.append(group)
        groups = [*apart, joined]
    return groups


def _write_mapping(
    selection: Selection, labels: tuple[str, ...], single: dict[int, str], reasons: dict[int, str]
) -> None:
    for i, label in enumerate(labels):
        key, copies = label, 1
        while key in selection.mapping:
            copies += 1
            key = f"{label} ({copies})"
        selection.mapping[key] = reasons.get(i) or single[i]
