"""Sums of the units over tokens, signs kept: what the means that a mask holds are made of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ulcmod_dist.forward.experts import Routing
from ulcmod_dist.forward.taps import Tap, held_columns
from ulcmod_dist.forward.values import Encoded


class UnitSums:
    """Collects the sums of one batch while its forward pass runs.

    Where ranks share a model, each fills in the units that it holds and leaves zeros elsewhere.

    Attributes:
        taps: Where the units are seen.
    """

    def __init__(self, encoded: Sequence[Encoded], taps: Sequence[Tap], ranks: int = 1) -> None:
        """Make room for the sums over ``encoded``, padded on the right."""
        self.taps = taps
        self._ranks = ranks
        self._rank = torch.distributed.get_rank() if ranks > 1 else 0
        longest = max(len(prompt.ids) for prompt in encoded)
        self._counted = torch.zeros(len(encoded), longest, dtype=torch.bool)
        for row, prompt in enumerate(encoded):
            self._counted[row, : len(prompt.ids)] = torch.tensor(prompt.counted)
        self._sums = torch.zeros(taps[-1].stop, dtype=torch.float64)
        self._tokens = torch.zeros(taps[-1].stop, dtype=torch.int64)

    def visit(self, tap: Tap, units: torch.Tensor, routing: Routing | None) -> None:
        """Add the units of one tap to their sums."""
        held = units.shape[-1]
        if held == tap.width and self._rank > 0:
            return  # every rank holds all of these units; the first one reports them
        flat = units.reshape(-1, held)
        token = slice(None) if routing is None else routing.token
        kept = self._counted.to(units.device).flatten()[token]
        columns = held_columns(held, tap.width)
        for expert in range(max(1, tap.experts)):
            mine = kept if routing is None else kept & (routing.expert == expert)
            whole = slice(first := tap.start + expert * tap.width, first + tap.width)
            self._sums[whole][columns] = flat[mine].sum(0, dtype=torch.float64).cpu()
            self._tokens[whole][columns] = int(mine.sum())

    def collect(self, device: torch.device) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Sums and numbers of tokens, both [units], added up over the ranks on ``device``."""
        parts = (self._sums, self._tokens)
        if self._ranks > 1:
            parts = (self._sums.to(device), self._tokens.to(device))
            for part in parts:
                torch.distributed.all_reduce(part)
        sums, tokens = (part.cpu().numpy() for part in parts)
        return sums, tokens
