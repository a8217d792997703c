"""Pool the units of a batch: each row is a mean over the tokens of a prompt that count.

Many prompts begin with the same tokens, such as those of a chat template. In a causal model keys,
values and units of a token depend on the tokens before it alone, so the tokens of a common
beginning are computed once, and their part of each mean is added to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache

from ulcmod_dist.forward.batches import PooledActivations, TokenizedPrompt, pad_rows
from ulcmod_dist.forward.hooks import HookPoint, Routing, get_local_columns


class ActivationPooler:
    """Pools the units of one batch while its forward pass runs.

    Sums are accumulated in float32 in a fixed order, so that the same batch yields the same bytes.
    Each counted token is weighted by 1 / number of counted tokens; a token that is not routed to an
    expert adds nothing to it. Where ranks share a model, each fills in the columns that it holds
    and leaves zeros elsewhere, so that the ranks' matrices add up to the whole.
    """

    def __init__(
        self,
        prompts: Sequence[TokenizedPrompt],
        points: Sequence[HookPoint],
        device: torch.device,
        ranks: int = 1,
        known: int = 0,
        *,
        signed: bool = False,
    ) -> None:
        """Allocate the activations of ``prompts``, less their ``known`` first tokens.

        Means are of absolute values, or of the values themselves if ``signed``.
        """
        self._rank = torch.distributed.get_rank() if ranks > 1 else 0
        self._ranks = ranks
        self._signed = signed
        counted, _ = pad_rows([prompt.token_mask[known:] for prompt in prompts], np.float32)
        counted /= np.array([max(1, prompt.num_counted) for prompt in prompts])[:, None]
        self._weights = torch.from_numpy(counted).to(device)
        self._means = torch.zeros(len(prompts), points[-1].stop, device=device)
        slots = np.cumsum([0, *(point.experts for point in points)])
        self._slots = {point: slice(*slots[i : i + 2]) for i, point in enumerate(points)}
        self._routed = torch.empty(len(prompts), slots[-1], dtype=torch.int32, device=device)

    def add(self, point: HookPoint, units: torch.Tensor, routing: Routing | None) -> None:
        """Pool the units of one hook point into its columns."""
        width = units.shape[-1]
        if width == point.width and self._rank > 0:
            return  # tensor parallelism did not split this layer, so rank 0 reports it
        values = (units if self._signed else units.abs()).float()
        if routing is None:
            weights = self._weights.to(units.device).unsqueeze(1)
            means = torch.bmm(weights, values.reshape(*self._weights.shape, width))
        else:
            means = self._pool_experts(point, values, routing)
        columns = self._means[:, point.start : point.stop].view(len(self._means), -1, point.width)
        columns[:, :, get_local_columns(width, point.width)] = means

    def _pool_experts(
        self, point: HookPoint, values: torch.Tensor, routing: Routing
    ) -> torch.Tensor:
        """Means [batch, experts, width]; also counts the routed tokens.

        Rows come sorted by expert, then by token, hence by expert and prompt: each (expert, prompt)
        is one segment.
        """
        batch, length = self._weights.shape
        weights = self._weights.to(values.device).flatten()[routing.token]
        segment = routing.expert * batch + routing.token // length
        lengths = torch.bincount(segment, minlength=point.experts * batch)
        # Not index_add_ or scatter_add_: on CUDA they add atomically, in an order that varies
        # from run to run, and so do the low bits of the sums.
        sums = torch.segment_reduce(
            values * weights.unsqueeze(1), "sum", lengths=lengths, initial=0
        )
        counts = torch.segment_reduce((weights > 0).float(), "sum", lengths=lengths, initial=0)
        self._routed[:, self._slots[point]] = counts.view(point.experts, batch).T.to(
            self._routed.device, torch.int32
        )
        return sums.view(point.experts, batch, -1).transpose(0, 1)

    def collect(self) -> PooledActivations:
        """Sum over the ranks and copy to the host, once a batch: each copy waits for the device."""
        if self._ranks > 1:
            torch.distributed.all_reduce(self._means)
        # To pinned memory, which torch keeps for the next batch: an H100 copied 1.5 GB/s without.
        means, routed = (part.to("cpu", non_blocking=True) for part in (self._means, self._routed))
        if self._means.device.type != "cpu":
            torch.accelerator.synchronize(self._means.device)
        return PooledActivations(means.numpy(), routed.numpy() if routed.shape[1] else None)


@dataclass(frozen=True)
class Prefix:
    """The first tokens of some prompts, after the model has read them.

    Attributes:
        tokens: The tokens, and which of them enter the mean.
        states: Keys and values of each layer, [1, heads, tokens, head size], as `DynamicCache`
            lists them.
        pooled: The mean over those of the tokens that enter it, one row; zeros if none does.
    """

    tokens: TokenizedPrompt
    states: tuple[tuple[torch.Tensor, ...], ...]
    pooled: PooledActivations

    def make_cache(self, batch: int) -> DynamicCache:
        """The states for each prompt of a batch, to be continued by its forward pass."""
        return DynamicCache(
            [(k.expand(batch, -1, -1, -1), v.expand(batch, -1, -1, -1)) for k, v, _ in self.states]
        )

    def add_to(
        self, rest: PooledActivations, prompts: Sequence[TokenizedPrompt]
    ) -> PooledActivations:
        """Add what the prefix contributes to the means of ``prompts``, which lack its tokens."""
        counted = np.array([prompt.num_counted for prompt in prompts], np.float32)
        share = np.float32(self.tokens.num_counted) / counted
        activations = rest.activations + np.outer(share, self.pooled.activations)
        if rest.routed is None or self.pooled.routed is None:
            return PooledActivations(activations)
        return PooledActivations(activations, rest.routed + self.pooled.routed)
