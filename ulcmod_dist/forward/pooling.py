"""Tokens to one row: the mean over the counted tokens of the absolute units, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ulcmod_dist.forward.batches import TokenizedPrompt
from ulcmod_dist.forward.experts import Routing
from ulcmod_dist.forward.hooks import HookPoint, get_local_columns


class ActivationPooler:
    """Collects the rows of one batch while its forward pass runs.

    Every sum is accumulated in float32 in a fixed order, so that the same batch yields the same
    bytes. The sum over a prompt's tokens is weighted by 1 / number of counted tokens; a token that
    an expert does not see adds nothing to it. Where ranks share a model, each fills in the columns
    that it holds and leaves zeros elsewhere, so that the ranks' rows add up to the whole.
    """

    def __init__(
        self,
        encoded: Sequence[TokenizedPrompt],
        taps: Sequence[HookPoint],
        device: torch.device,
        ranks: int = 1,
    ) -> None:
        """Make room for the rows of ``encoded`` on ``device``."""
        self._rank = torch.distributed.get_rank() if ranks > 1 else 0
        self._ranks = ranks
        self.shape = len(encoded), max(len(prompt.ids) for prompt in encoded)
        weights = np.zeros(self.shape, np.float32)
        for row, prompt in enumerate(encoded):
            weights[row, : len(prompt.ids)] = (
                np.array(prompt.token_mask, np.float32) / prompt.num_counted
            )
        self._weights = torch.from_numpy(weights).to(device)
        self._means = torch.zeros(len(encoded), taps[-1].stop, device=device)
        slots = np.cumsum([0, *(tap.experts for tap in taps)])
        self._slots = {tap: slice(*slots[i : i + 2]) for i, tap in enumerate(taps)}
        self._routed = torch.empty(len(encoded), slots[-1], dtype=torch.int32, device=device)

    def visit(self, tap: HookPoint, units: torch.Tensor, routing: Routing | None) -> None:
        """Reduce the units of one tap into its columns."""
        width = units.shape[-1]
        if width == tap.width and self._rank > 0:
            return  # every rank holds all of these units; the first one reports them
        if routing is None:
            magnitude = units.reshape(*self.shape, width).abs().float()
            means = torch.bmm(self._weights.to(units.device).unsqueeze(1), magnitude)
        else:
            means = self._reduce_experts(tap, units, routing)
        columns = self._means[:, tap.start : tap.stop].view(self.shape[0], -1, tap.width)
        columns[:, :, get_local_columns(width, tap.width)] = means

    def _reduce_experts(
        self, tap: HookPoint, units: torch.Tensor, routing: Routing
    ) -> torch.Tensor:
        """Means [batch, experts, width]; the routed tokens are counted on the way.

        Rows come sorted by expert, then by token, hence by expert and prompt: each (expert, prompt)
        is one segment, summed without atomic additions, whose order would vary.
        """
        batch, length = self.shape
        weights = self._weights.to(units.device).flatten()[routing.token]
        segment = routing.expert * batch + routing.token // length
        lengths = torch.bincount(segment, minlength=tap.experts * batch)
        magnitude = units.abs().float() * weights.unsqueeze(1)
        sums = torch.segment_reduce(magnitude, "sum", lengths=lengths, initial=0)
        counts = torch.segment_reduce((weights > 0).float(), "sum", lengths=lengths, initial=0)
        self._routed[:, self._slots[tap]] = counts.view(tap.experts, batch).T.to(
            self._routed.device, torch.int32
        )
        return sums.view(tap.experts, batch, -1).transpose(0, 1)

    def collect(self) -> tuple[NDArray[np.float32], NDArray[np.int32] | None]:
        """Add up what the ranks hold, and copy activations and routed counts to the host, once."""
        if self._ranks > 1:
            torch.distributed.all_reduce(self._means)
        routed = self._routed.cpu().numpy() if self._routed.shape[1] else None
        return self._means.cpu().numpy(), routed
