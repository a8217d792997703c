"""A model with some of its units ablated: put masks on it, and measure what prompts cost it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.architectures import count_unit_parameters, get_family, list_units
from ulcmod_dist.forward.batches import TokenizedPrompt
from ulcmod_dist.forward.engine import pad_batch, split_on_oom
from ulcmod_dist.forward.hooks import (
    HookPoint,
    Routing,
    find_hook_points,
    get_local_columns,
    hooked,
)
from ulcmod_dist.forward.loading import load_config, load_model
from ulcmod_dist.forward.memory import count_parameter_bytes
from ulcmod_dist.intervene.masks import Mask


@contextmanager
def mask_units(model: PreTrainedModel, mask: Mask, ranks: int = 1) -> Iterator[None]:
    """Ablate the units of a mask within the block, at the places where they are captured.

    Args:
        model: A model of transformers, with or without a head; any number of forward passes, and
            generation as well, run within the block. It is left as it was.
        mask: What to ablate.
        ranks: Processes that share the model, each within such a block; the process group of
            torch.distributed says which of them this is.

    Raises:
        InvalidInput: The mask is of a model with other units.
    """
    if list_units(model.config) != mask.units:
        raise InvalidInput(
            f"The mask is of a model with {len(mask.ablated)} units in {len(mask.units)} parts, "
            "which this one has not.",
            "Name the model that the run was made with.",
        )
    taps = find_hook_points(mask.units)
    ablators = {t: _UnitAblator(t, mask) for t in taps if mask.ablated[t.start : t.stop].any()}
    # Experts without a ablated unit, too: seen or not, they are computed in the same way then, and
    # masks differ by nothing else.
    seen = [tap for tap in taps if tap in ablators or tap.experts]

    def ablate(tap: HookPoint, units: torch.Tensor, routing: Routing | None) -> torch.Tensor | None:
        return ablators[tap](units, routing) if tap in ablators else None

    with hooked(model, seen, ablate, ranks):
        yield


@dataclass(frozen=True)
class PrunedSize:
    """What is left of a model when the ablated units are cut out of its weights.

    Attributes:
        parameters: Parameters of the base model.
        removed: Those that belong to the ablated units alone, biases left aside.
    """

    parameters: int
    removed: int

    @property
    def share(self) -> float:
        """Share of the parameters that is removed."""
        return self.removed / self.parameters


def estimate_pruned_size(config: PretrainedConfig, mask: Mask) -> PrunedSize:
    """Estimate how much smaller a model is without the units of a mask, from its configuration."""
    parameters = count_parameter_bytes(config, "float32") // 4
    return PrunedSize(parameters, mask.count * count_unit_parameters(config))


class _UnitAblator:
    """Replaces the ablated units of one tap; its tensors follow the units to their device."""

    def __init__(self, tap: HookPoint, mask: Mask) -> None:
        shape = max(1, tap.experts), tap.width
        self._ablated = torch.from_numpy(mask.ablated[tap.start : tap.stop].reshape(shape))
        self._values = torch.from_numpy(mask.values[tap.start : tap.stop].reshape(shape))

    def __call__(self, units: torch.Tensor, routing: Routing | None) -> torch.Tensor:
        self._ablated = self._ablated.to(units.device)
        self._values = self._values.to(units)
        expert = 0 if routing is None else routing.expert
        held = get_local_columns(units.shape[-1], self._ablated.shape[1])
        return torch.where(self._ablated[expert, held], self._values[expert, held], units)


@dataclass(frozen=True)
class Losses:
    """The loss of each prompt.

    Attributes:
        total: float64 [prompts], nats summed over the prompt's predicted tokens.
        tokens: int64 [prompts], the number of these: the counted tokens that have one before them.
    """

    total: NDArray[np.float64]
    tokens: NDArray[np.int64]

    @property
    def mean(self) -> NDArray[np.float64]:
        """Nats a token, float64 [prompts]; NaN where no token is predicted."""
        without = np.full_like(self.total, np.nan)
        return np.divide(self.total, self.tokens, out=without, where=self.tokens > 0)


class LossEngine:
    """A decoder with its language-model head, ready to turn batches into losses.

    Attributes:
        units: What the model's units are, in order.
    """

    def __init__(self, model: PreTrainedModel, ranks: int = 1) -> None:
        """Take a loaded model in evaluation mode; ``LossEngine.load`` also loads it.

        Raises:
            InvalidInput: The model is no decoder.
        """
        if not get_family(model.config).decoder:
            raise InvalidInput(
                f"Models of type {model.config.model_type} are encoders without a head that "
                "predicts the next token, so a prompt has no loss.",
                "Ablation needs a decoder.",
            )
        self.units = list_units(model.config)
        self._model = model
        self._ranks = ranks
        self._nothing = Mask.empty(self.units)
        self._vocabulary = model.config.get_text_config().vocab_size

    @classmethod
    def load(
        cls, spec: ModelConfig, device: str = "cpu", threads: int = 1, ranks: int = 1
    ) -> LossEngine:
        """Load a model with its head; the arguments are those of ``Engine.load``.

        Raises:
            InvalidInput: The model cannot be used, is no decoder, or was saved without its head.
        """
        torch.set_num_threads(threads)
        transformers_logging.disable_progress_bar()
        config = load_config(spec)
        model = load_model(spec, config, device, ranks, head=get_family(config).decoder)
        return cls(model, ranks)

    def losses(self, encoded: Sequence[TokenizedPrompt], mask: Mask | None = None) -> Losses:
        """Run one batch, padded on the right, with the units of a mask ablated.

        A batch is halved as often as the device's memory demands.

        Args:
            encoded: The prompts of the batch, at least one; the losses are those of the tokens that
                count, each predicted from all tokens before it.
            mask: What to ablate; None for nothing.

        Raises:
            InvalidInput: The mask is of another model.
            UlcmodError: A token is not in the vocabulary, or a single prompt does not fit, or a
                batch does not where ranks share the model, which could not halve it together.
        """
        pieces = split_on_oom(
            lambda batch: self._losses(batch, mask), encoded, self._model.device, self._ranks
        )
        return Losses(
            np.concatenate([piece.total for _, piece in pieces]),
            np.concatenate([piece.tokens for _, piece in pieces]),
        )

    def _losses(self, encoded: Sequence[TokenizedPrompt], mask: Mask | None) -> Losses:
        device = self._model.device
        ids, attention = (array.to(device) for array in pad_batch(encoded, self._vocabulary))
        with torch.inference_mode(), mask_units(self._model, mask or self._nothing, self._ranks):
            logits = self._model(input_ids=ids, attention_mask=attention).logits
            totals = [_sum_loss(logits[row], prompt) for row, prompt in enumerate(encoded)]
        tokens = np.array([sum(prompt.token_mask[1:]) for prompt in encoded], np.int64)
        return Losses(torch.stack(totals).cpu().numpy(), tokens)

    def unit_sums(
        self, encoded: Sequence[TokenizedPrompt]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Sums of the units over the counted tokens of one batch, signs kept.

        Returns:
            The sums and the number of tokens that each unit has seen, both [units]; an expert's
            units see the tokens routed to it.
        """
        device = self._model.device
        ids, attention = (array.to(device) for array in pad_batch(encoded, self._vocabulary))
        sums = UnitSums(encoded, find_hook_points(self.units), self._ranks)
        with (
            torch.inference_mode(),
            hooked(self._model, sums.taps, sums.visit, self._ranks),
        ):
            self._model.base_model(input_ids=ids, attention_mask=attention)
        return sums.collect(device)


def _sum_loss(logits: torch.Tensor, prompt: TokenizedPrompt) -> torch.Tensor:
    """The summed loss of one prompt, float64; only its own logits are ever held in float32."""
    counted = torch.tensor(prompt.token_mask[1:], dtype=torch.bool, device=logits.device)
    targets = torch.tensor(prompt.ids[1:], dtype=torch.int64, device=logits.device)[counted]
    predicted = logits[: len(prompt.ids) - 1][counted].float()
    return cross_entropy(predicted, targets, reduction="none").double().sum()


class UnitSums:
    """Collects the sums of one batch while its forward pass runs.

    Where ranks share a model, each fills in the units that it holds and leaves zeros elsewhere.

    Attributes:
        taps: Where the units are seen.
    """

    def __init__(
        self, encoded: Sequence[TokenizedPrompt], taps: Sequence[HookPoint], ranks: int = 1
    ) -> None:
        """Make room for the sums over ``encoded``, padded on the right."""
        self.taps = taps
        self._ranks = ranks
        self._rank = torch.distributed.get_rank() if ranks > 1 else 0
        longest = max(len(prompt.ids) for prompt in encoded)
        self._counted = torch.zeros(len(encoded), longest, dtype=torch.bool)
        for row, prompt in enumerate(encoded):
            self._counted[row, : len(prompt.ids)] = torch.tensor(prompt.token_mask)
        self._sums = torch.zeros(taps[-1].stop, dtype=torch.float64)
        self._tokens = torch.zeros(taps[-1].stop, dtype=torch.int64)

    def visit(self, tap: HookPoint, units: torch.Tensor, routing: Routing | None) -> None:
        """Add the units of one tap to their sums."""
        held = units.shape[-1]
        if held == tap.width and self._rank > 0:
            return  # every rank holds all of these units; the first one reports them
        flat = units.reshape(-1, held)
        token = slice(None) if routing is None else routing.token
        kept = self._counted.to(units.device).flatten()[token]
        columns = get_local_columns(held, tap.width)
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
