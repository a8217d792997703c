"""What a prompt costs a model: the loss of predicting its tokens, one number a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import InvalidInput, UlcmodError
from ulcmod_dist.forward.architectures import family_of, units_of
from ulcmod_dist.forward.engine import padded
from ulcmod_dist.forward.halving import in_pieces
from ulcmod_dist.forward.loading import load_config, load_model
from ulcmod_dist.forward.taps import tapped, taps_of
from ulcmod_dist.forward.values import Encoded
from ulcmod_dist.intervene.apply import mask_units
from ulcmod_dist.intervene.masks import Mask
from ulcmod_dist.intervene.means import UnitSums


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
        if not family_of(model.config).decoder:
            raise InvalidInput(
                f"Models of type {model.config.model_type} are encoders without a head that "
                "predicts the next token, so a prompt has no loss.",
                "Ablation needs a decoder.",
            )
        self.units = units_of(model.config)
        self._model = model
        self._ranks = ranks
        self._nothing = Mask.of_nothing(self.units)
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
        model = load_model(spec, config, device, ranks, head=family_of(config).decoder)
        return cls(model, ranks)

    def losses(self, encoded: Sequence[Encoded], mask: Mask | None = None) -> Losses:
        """Run one batch, padded on the right, with the units of a mask silenced.

        A batch is halved as often as the device's memory demands.

        Args:
            encoded: The prompts of the batch, at least one; the losses are those of the tokens that
                count, each predicted from all tokens before it.
            mask: What to silence; None for nothing.

        Raises:
            InvalidInput: The mask is of another model.
            UlcmodError: A token is not in the vocabulary, or a single prompt does not fit, or a
                batch does not where ranks share the model, which could not halve it together.
        """
        pieces = in_pieces(lambda batch: self._losses_or_why(batch, mask), encoded)
        return Losses(
            np.concatenate([piece.total for _, piece in pieces]),
            np.concatenate([piece.tokens for _, piece in pieces]),
        )

    def _losses_or_why(self, encoded: Sequence[Encoded], mask: Mask | None) -> Losses:
        try:
            return self._losses(encoded, mask)
        except torch.OutOfMemoryError as error:
            if len(encoded) > 1 and self._ranks == 1:
                raise
            longest = max(len(prompt.ids) for prompt in encoded)
            raise UlcmodError(
                f"A batch of {len(encoded)} prompts of up to {longest} tokens and its logits do "
                f"not fit into the memory of {self._model.device}.",
                "Lower extract.batch_tokens or prompt.max_tokens, or use more devices.",
            ) from error

    def _losses(self, encoded: Sequence[Encoded], mask: Mask | None) -> Losses:
        device = self._model.device
        ids, attention = (array.to(device) for array in padded(encoded, self._vocabulary))
        with torch.inference_mode(), mask_units(self._model, mask or self._nothing, self._ranks):
            logits = self._model(input_ids=ids, attention_mask=attention).logits
            totals = [_total(logits[row], prompt) for row, prompt in enumerate(encoded)]
        tokens = np.array([sum(prompt.counted[1:]) for prompt in encoded], np.int64)
        return Losses(torch.stack(totals).cpu().numpy(), tokens)

    def unit_sums(
        self, encoded: Sequence[Encoded]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Sums of the units over the counted tokens of one batch, signs kept.

        Returns:
            The sums and the number of tokens that each unit has seen, both [units]; an expert's
            units see the tokens routed to it.
        """
        device = self._model.device
        ids, attention = (array.to(device) for array in padded(encoded, self._vocabulary))
        sums = UnitSums(encoded, taps_of(self.units), self._ranks)
        with (
            torch.inference_mode(),
            tapped(self._model, sums.taps, sums.visit, self._ranks),
        ):
            self._model.base_model(input_ids=ids, attention_mask=attention)
        return sums.collect(device)


def _total(logits: torch.Tensor, prompt: Encoded) -> torch.Tensor:
    """The summed loss of one prompt, float64; only its own logits are ever held in float32."""
    counted = torch.tensor(prompt.counted[1:], dtype=torch.bool, device=logits.device)
    targets = torch.tensor(prompt.ids[1:], dtype=torch.int64, device=logits.device)[counted]
    predicted = logits[: len(prompt.ids) - 1][counted].float()
    return cross_entropy(predicted, targets, reduction="none").double().sum()
