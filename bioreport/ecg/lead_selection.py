"""Which channels of a file become leads, and why the others do not."""

from collections import Counter
from dataclasses import dataclass, field

from bioreport.ecg.leads import LEADS, Lead, lead_of
from bioreport.source import Source
from bioreport.units import to_microvolts


@dataclass
class Selection:
    """Channels to read and what they are.

    Attributes
    ----------
    rows : dict of str to int
        Lead to channel.
    labels : dict of str to str
        Lead to the label of its channel.
    found : dict of int to Lead
        Every channel that is a lead by its label, used or not.
    bad : dict of int to str
        Leads without a valid scale, with the reason.
    mapping : dict of str to str
        Every label of the file: the lead it became, or the reason why it is not used.
    """

    rows: dict[str, int] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    found: dict[int, Lead] = field(default_factory=dict)
    bad: dict[int, str] = field(default_factory=dict)
    mapping: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    _keys: dict[int, str] = field(default_factory=dict)

    def drop(self, lead: str, reason: str) -> None:
        """Do not use a lead after all."""
        row = self.rows.pop(lead)
        self.bad[row] = reason
        self.mapping[self._keys[row]] = f"not used: {reason}"


def select_leads(source: Source) -> Selection:
    """Choose the leads of a file; none where no channel is one with a valid scale.

    Leads of a rate that fewer of them have are left out: none is silently resampled. Of two channels of the
    same lead the first is taken, one with standard electrodes before a modified one.
    """
    selection = Selection()
    reasons: dict[int, str] = {}
    for i, label in enumerate(source.labels):
        lead = lead_of(label) if source.kinds[i] in (None, "ecg") else None
        if lead is None:
            reasons[i] = "not used: no ECG lead"
            continue
        selection.found[i] = lead
        unit = source.units[i]
        if i in source.unusable:
            selection.bad[i] = source.unusable[i]
        elif unit and to_microvolts(unit) is None:
            selection.bad[i] = f"{unit} is no unit of voltage"
    usable = [i for i in selection.found if i not in selection.bad]
    for reason in dict.fromkeys(selection.bad.values()):
        labels = [source.labels[i] for i, r in selection.bad.items() if r == reason]
        selection.warnings.append(f"{', '.join(labels)}: not used ({reason}).")
    usable = _one_rate(source, usable, selection, reasons)
    for i in sorted(usable, key=lambda i: selection.found[i].modified):
        name = selection.found[i].name
        if name not in LEADS:
            name = _free_name(name, selection.rows)
        if name in selection.rows:
            reasons[i] = f"not used: a second {name}"
            selection.warnings.append(f"{name} is recorded more than once; only one channel was used.")
            continue
        selection.rows[name] = i
        selection.labels[name] = source.labels[i]
    _write_mapping(source, selection, reasons)
    return selection


def _one_rate(source: Source, usable: list[int], selection: Selection, reasons: dict[int, str]) -> list[int]:
    counts = Counter(source.rates[i] for i in usable)
    if len(counts) < 2:
        return usable
    kept = max(counts, key=lambda rate: (counts[rate], rate))
    dropped = [i for i in usable if source.rates[i] != kept]
    for i in dropped:
        reasons[i] = f"not used: {source.rates[i]:g} Hz where most leads have {kept:g} Hz"
    labels = ", ".join(source.labels[i] for i in dropped)
    selection.warnings.append(
        f"The leads have different sampling rates; {labels} without {kept:g} Hz not used."
    )
    return [i for i in usable if i not in dropped]


def _free_name(name: str, taken: dict[str, int]) -> str:
    free, number = name, 2
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free


def _write_mapping(source: Source, selection: Selection, reasons: dict[int, str]) -> None:
    names = {row: lead for lead, row in selection.rows.items()}
    for i, label in enumerate(source.labels):
        key, copies = label, 1
        while key in selection.mapping:
            copies += 1
            key = f"{label} ({copies})"
        selection._keys[i] = key
        if i in names:
            turned = ", turned over" if selection.found[i].sign < 0 else ""
            selection.mapping[key] = names[i] + turned
        else:
            selection.mapping[key] = reasons.get(i) or f"not used: {selection.bad[i]}"
