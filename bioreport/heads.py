"""Findings from epoch tokens: which, when, and over which electrodes."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bioreport.findings import BY_NAME, absent_finding


class FindingsHead(nn.Module):
    """Linear read-out of findings, one score an epoch and finding, and one an electrode.

    Parameters
    ----------
    dim : int
        Width of the encoder's features.
    names : sequence of str
        Findings in the order of the scores, out of `bioreport.findings.EEG_NAMES`.
    thresholds : mapping of str to float, optional
        Logit of the recording's strongest stretch from which on a finding is present; 0 where not given.
    pool_epochs : int or mapping of str to int
        Epochs in the moving average before the maximum; 1 takes single epochs.
    located : collection of str, optional
        Findings of a place: at least one electrode is named for them. Electrodes are named for these only.
    """

    def __init__(
        self,
        dim: int,
        names: Sequence[str],
        *,
        thresholds: Mapping[str, float] | None = None,
        pool_epochs: int | Mapping[str, int] = 1,
        located: Collection[str] = (),
    ) -> None:
        super().__init__()
        unknown = [name for name in (*names, *located) if name not in BY_NAME]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no finding of bioreport.findings")
        self.dim = dim
        self.names = tuple(names)
        self.thresholds = {name: float((thresholds or {}).get(name, 0.0)) for name in self.names}
        pools = pool_epochs if isinstance(pool_epochs, Mapping) else dict.fromkeys(self.names, pool_epochs)
        self.pool_epochs = {name: int(pools.get(name, 1)) for name in self.names}
        self.located = frozenset(located)
        self.score = nn.Linear(dim, len(self.names))
        self.place = nn.Linear(dim, len(self.names))

    def config(self) -> dict[str, Any]:
        """What a bundle's config.json keeps of it."""
        return {
            "names": list(self.names),
            "thresholds": self.thresholds,
            "pool_epochs": self.pool_epochs,
            "located": [name for name in self.names if name in self.located],
        }

    def forward(self, tokens: Tensor, by_channel: Tensor) -> tuple[Tensor, Tensor]:
        """Score epochs and electrodes.

        Parameters
        ----------
        tokens : Tensor, shape (epochs, dim)
        by_channel : Tensor, shape (epochs, channels, dim)
            Mean feature of each electrode; all zero where the electrode is absent.

        Returns
        -------
        scores : Tensor, shape (epochs, findings)
            Logits.
        places : Tensor, shape (epochs, findings, channels)
            Logits; minus infinity at absent electrodes.
        """
        places = self.place(by_channel)
        absent = (by_channel == 0).all(-1, keepdim=True)
        return self.score(tokens), places.masked_fill(absent, float("-inf")).transpose(1, 2)

    def recording_scores(self, logits: Tensor) -> Tensor:
        """Strongest moving average of each finding: [epochs, findings] -> [findings]."""
        return self._smooth(logits).amax(0)

    def findings(
        self,
        logits: Tensor,
        places: Tensor,
        start_seconds: np.ndarray,
        epoch_seconds: float,
        channels: Sequence[str],
    ) -> list[dict[str, Any]]:
        """Decide on every finding of a recording.

        Parameters
        ----------
        logits : Tensor, shape (epochs, findings)
        places : Tensor, shape (epochs, findings, channels)
        start_seconds : ndarray, shape (epochs,)
            Start of each epoch in recording time, s.
        epoch_seconds : float
        channels : sequence of str
            Canonical names of the rows of `places`.

        Returns
        -------
        list of dict
            In the shape of a report's findings, source ``"model"``; a present one has the first start and the
            last end of the epochs at or above its threshold, and its electrodes, the strongest first.
        """
        smooth = self._smooth(logits.float())
        entries = []
        for column, name in enumerate(self.names):
            entry = absent_finding(name) | {"source": "model"}
            above = torch.nonzero(smooth[:, column] >= self.thresholds[name]).flatten()
            if len(above):
                entry["present"] = True
                entry["start_seconds"] = float(start_seconds[int(above[0])])
                entry["end_seconds"] = float(start_seconds[int(above[-1])] + epoch_seconds)
                if name in self.located:
                    entry["channels"] = self._electrodes(places[above, column].float(), channels)
            entries.append(entry)
        return entries

    def _smooth(self, logits: Tensor) -> Tensor:
        columns = []
        for column, name in enumerate(self.names):
            values, width = logits[:, column], min(self.pool_epochs[name], len(logits))
            if width > 1:
                # averaged over the epochs that exist and have a score: a recording's ends, and epochs without
                # signal, draw nothing to zero
                pad = ((width - 1) // 2, width // 2)
                there = torch.isfinite(values)
                total, count = (
                    F.avg_pool1d(F.pad(row.to(values.dtype)[None, None], pad), width, stride=1).flatten()
                    for row in (torch.where(there, values, 0.0), there)
                )
                values = torch.where(count > 0, total / count, float("-inf"))
            else:
                values = torch.where(torch.isfinite(values), values, float("-inf"))
            columns.append(values)
        return torch.stack(columns, 1)

    @staticmethod
    def _electrodes(places: Tensor, channels: Sequence[str]) -> list[str]:
        there = torch.isfinite(places)
        mean = torch.where(there, places, 0.0).sum(0) / there.sum(0).clamp(min=1)
        mean[~there.any(0)] = float("-inf")
        order = torch.argsort(mean, descending=True, stable=True).tolist()
        named = [channels[i] for i in order if mean[i] > 0]
        if not named and order and torch.isfinite(mean[order[0]]):
            named = [channels[order[0]]]
        return named
