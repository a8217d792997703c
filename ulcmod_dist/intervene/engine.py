"""A model with some of its units ablated: masks in its forward pass, and the loss of prompts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.architectures import LayerUnits, get_length_classes, is_decoder
from ulcmod_dist.forward.batches import TokenizedPrompt
from ulcmod_dist.forward.engine import pad_batch, reset_rotary_embedding, split_on_oom
from ulcmod_dist.forward.hooks import (
    HookPoint,
    Routing,
    find_hook_points,
    get_local_columns,
    hooked,
)
from ulcmod_dist.forward.loading import load_config, load_model
from ulcmod_dist.forward.memory import count_parameter_bytes
from ulcmod_dist.forward.pooling import ActivationPooler
from ulcmod_dist.forward.units import get_layout, list_units
from ulcmod_dist.intervene.masks import Mask
from ulcmod_dist.results.types import Floats, divide


@dataclass(frozen=True)
class PairedPrompt(TokenizedPrompt):
    """A prompt, and the one whose units take the place of its own where they are resampled."""

    source: TokenizedPrompt = field(kw_only=True)


def align_tokens(prompt: TokenizedPrompt, source: TokenizedPrompt) -> NDArray[np.int64]:
    """Position in the source of the token that stands for each token of a prompt, int64 [tokens].

    The nth counted token takes the nth counted one of the source, the nth of the answer its nth of
    the answer, and the nth other token its nth other one; where the source has fewer, they start
    again. So the tokens of the template, the first of all among them, take the values of the same
    tokens at the same positions.
    """
    wanted, available = (
        np.array(each.token_mask, int) + 2 * np.array(each.answer_mask, int)
        for each in (prompt, source)
    )
    positions = np.zeros(len(wanted), np.int64)
    for kind in range(3):
        chosen = np.flatnonzero(available == kind)
        if not chosen.size:
            chosen = np.arange(len(available))
        positions[wanted == kind] = np.resize(chosen, int((wanted == kind).sum()))
    return positions


@contextmanager
def mask_units(
    model: PreTrainedModel, mask: Mask, ranks: int = 1, sources: SourceUnits | None = None
) -> Iterator[None]:
    """Ablate or scale the units of a mask within the block, by the hooks of the capture.

    The model may have a head or none. Any number of forward passes, and generation as well, run
    within the block; afterwards the model is as before. Tensor-parallel ``ranks`` that share it are
    each within such a block. A resampled mask needs the ``sources`` of the batch that runs.

    Raises:
        InvalidInput: The mask is of a model with other units.
    """
    get_layout(model.config, mask.units)
    points = find_hook_points(mask.units)
    ablators = {
        p: _UnitAblator(p, mask, sources) for p in points if mask.ablated[p.start : p.stop].any()
    }
    # A hook makes transformers compute experts by another implementation, whose rounding differs.
    # Hooking all experts, ablated or not, leaves the mask as the only difference between losses.
    hooked_points = [point for point in points if point in ablators or point.experts]

    def ablate(
        point: HookPoint, units: torch.Tensor, routing: Routing | None
    ) -> torch.Tensor | None:
        return ablators[point](units, routing) if point in ablators else None

    with hooked(model, hooked_points, ablate, ranks):
        yield


@dataclass(frozen=True)
class PrunedSize:
    """The size of a model whose ablated units are cut out of its weights."""

    parameters: int  # of the base model
    removed: int  # those that belong to the ablated units alone, without biases

    @property
    def share(self) -> float:
        """Share of the parameters that is removed."""
        return self.removed / self.parameters


def estimate_pruned_size(config: PretrainedConfig, mask: Mask) -> PrunedSize:
    """Estimate how much smaller a model is without the units of a mask, from its configuration."""
    parameters = count_parameter_bytes(config, "float32") // 4
    layout = get_layout(config, mask.units)
    vectors = np.repeat(
        [layout.vectors[part.path] for part in mask.units], [part.width for part in mask.units]
    )
    removed = int(vectors[mask.ablated].sum()) * layout.hidden_size
    return PrunedSize(parameters, removed)


class _UnitAblator:
    """Replaces the ablated units at one hook point; its tensors follow them to their device."""

    def __init__(self, point: HookPoint, mask: Mask, sources: SourceUnits | None) -> None:
        shape = max(1, point.experts), point.width
        self._point, self._sources = point, sources
        self._ablated = torch.from_numpy(mask.ablated[point.start : point.stop].reshape(shape))
        self._values = torch.from_numpy(mask.values[point.start : point.stop].reshape(shape))
        self._factors: torch.Tensor | None = None
        if mask.factors is not None:
            part = mask.factors[point.start : point.stop]
            self._factors = torch.from_numpy(part.reshape(shape))

    def __call__(self, units: torch.Tensor, routing: Routing | None) -> torch.Tensor:
        self._ablated = self._ablated.to(units.device)
        expert = 0 if routing is None else routing.expert
        columns = get_local_columns(units.shape[-1], self._ablated.shape[1])
        if self._sources is None:
            self._values = self._values.to(units)
            values = self._values[expert, columns]
        else:
            values = self._sources.get(self._point, routing).view_as(units)
        if self._factors is not None:
            self._factors = self._factors.to(units.device)
            factors = self._factors[expert, columns]
            scaled = (units * factors + values).to(units.dtype)
            values = torch.where(factors == 0, values, scaled)
        return torch.where(self._ablated[expert, columns], values, units)


class SourceUnits:
    """What every unit holds in the sources of a batch, laid out like the tokens of the batch.

    Each source runs alone, so that its units do not depend on the batch. A token that is not routed
    to an expert has 0 in its units, as in the store.
    """

    def __init__(self, prompts: Sequence[PairedPrompt]) -> None:
        self._shape = len(prompts), max(len(prompt.ids) for prompt in prompts)
        self._values: dict[HookPoint, torch.Tensor] = {}  # [batch, tokens, experts, width]

    def add(
        self,
        row: int,
        positions: torch.Tensor,
        length: int,
        point: HookPoint,
        units: torch.Tensor,
        routing: Routing | None,
    ) -> None:
        """Take the units of one hook point for one prompt, from a pass of its source alone."""
        flat = units.reshape(-1, units.shape[-1])
        rows = flat[:, None]
        if routing is not None:
            rows = flat.new_zeros(length, point.experts, flat.shape[-1])
            rows[routing.token, routing.expert] = flat
        if point not in self._values:
            self._values[point] = rows.new_zeros(*self._shape, *rows.shape[1:])
        self._values[point][row, : len(positions)] = rows[positions]

    def get(self, point: HookPoint, routing: Routing | None) -> torch.Tensor:
        """Values in place of a hook point's units, for all tokens or for the rows of experts."""
        values = self._values[point]
        if routing is None:
            return values[:, :, 0]
        return values.flatten(0, 1)[routing.token, routing.expert]


@dataclass(frozen=True)
class Losses:
    """How each prompt is predicted: its tokens are those counted, but never the first."""

    total: Floats  # loss summed over the predicted tokens, nats [prompts]
    tokens: NDArray[np.int64]  # predicted tokens [prompts]
    correct: NDArray[np.int64]  # those to which the model gives the highest logit [prompts]
    answer: Losses | None = None  # the same of the expected answers, of which every token counts

    @classmethod
    def concatenate(cls, pieces: Sequence[Losses]) -> Losses:
        """Join the losses of several batches."""
        answers = [piece.answer for piece in pieces if piece.answer is not None]
        return cls(
            np.concatenate([piece.total for piece in pieces]),
            np.concatenate([piece.tokens for piece in pieces]),
            np.concatenate([piece.correct for piece in pieces]),
            cls.concatenate(answers) if answers else None,
        )

    @property
    def mean(self) -> Floats:
        """Nats a token [prompts]; NaN where no token is predicted."""
        return divide(self.total, self.tokens)

    @property
    def accuracy(self) -> Floats:
        """Share of the tokens that are predicted right [prompts]; NaN where there is none."""
        return divide(self.correct, self.tokens)


class LossEngine:
    """A decoder with its language-model head, which turns batches into losses."""

    def __init__(
        self, model: PreTrainedModel, units: Sequence[LayerUnits] | None = None, ranks: int = 1
    ) -> None:
        """Take a model in evaluation mode; without ``units`` they are found.

        Raises:
            InvalidInput: It is no decoder.
        """
        if not is_decoder(model.config.model_type):
            raise InvalidInput(
                f"Models of type {model.config.model_type} are encoders without a head that "
                "predicts the next token, so a prompt has no loss.",
                "Ablation needs a decoder.",
            )
        self.units = list_units(model.config) if units is None else tuple(units)
        self._lengths = get_length_classes(model.config)
        self._model = model
        self._ranks = ranks
        self._nothing = Mask.empty(self.units)
        # The masks of a batch follow each other and share the units of its sources.
        self._get_sources = lru_cache(maxsize=1)(self._run_sources)
        self._vocabulary = model.config.get_text_config().vocab_size

    @classmethod
    def load(
        cls, config: ModelConfig, device: str = "cpu", threads: int = 1, ranks: int = 1
    ) -> LossEngine:
        """Load a model with its head; the arguments are those of ``Engine.load``.

        Raises:
            InvalidInput: The model cannot be used, is no decoder, or was saved without its head.
        """
        torch.set_num_threads(threads)
        transformers_logging.disable_progress_bar()
        pretrained = load_config(config)
        head = is_decoder(pretrained.model_type)
        model = load_model(config, pretrained, device, ranks, head=head)
        return cls(model, list_units(pretrained, config.units), ranks)

    def losses(self, prompts: Sequence[TokenizedPrompt], mask: Mask | None = None) -> Losses:
        """Run one batch, padded on the right, with the units of a mask ablated.

        The losses are those of the counted tokens, each predicted from all tokens before it. A
        batch that does not fit into the device's memory is halved, except with ranks, which cannot
        halve it together.

        Raises:
            InvalidInput: The mask is of another model.
            UlcmodError: A token is not in the vocabulary, or a batch does not fit.
        """
        device = self._model.device
        pieces = [
            piece
            for part in self._lengths.split(prompts)
            for piece in split_on_oom(
                lambda batch: self._losses(batch, mask), part, device, self._ranks
            )
        ]
        return Losses.concatenate([piece for _, piece in pieces])

    def _losses(self, prompts: Sequence[TokenizedPrompt], mask: Mask | None) -> Losses:
        mask = mask or self._nothing
        sources = self._get_sources(tuple(prompts)) if mask.resampled else None
        ids, attention = self._prepare(prompts)
        with torch.inference_mode(), mask_units(self._model, mask, self._ranks, sources):
            logits = self._model(input_ids=ids, attention_mask=attention).logits
            masks = [(prompt.token_mask, prompt.answer_mask) for prompt in prompts]
            sums = [
                _score(logits[row], prompt, mask)
                for row, prompt in enumerate(prompts)
                for mask in masks[row]
            ]
        scores = torch.stack(sums).cpu().numpy().reshape(len(prompts), 2, 3)
        text, answer = (
            Losses(s[:, 0], *s[:, 1:].T.astype(np.int64)) for s in scores.swapaxes(0, 1)
        )
        return replace(text, answer=answer)

    def _run_sources(self, prompts: tuple[PairedPrompt, ...]) -> SourceUnits:
        sources = SourceUnits(prompts)
        points = find_hook_points(self.units)
        for row, prompt in enumerate(prompts):
            ids, _ = self._prepare([prompt.source])
            positions = torch.from_numpy(align_tokens(prompt, prompt.source)).to(ids.device)
            add = partial(sources.add, row, positions, ids.shape[1])
            with torch.inference_mode(), hooked(self._model, points, add, self._ranks):
                self._model.base_model(input_ids=ids)
        return sources

    def unit_sums(self, prompts: Sequence[TokenizedPrompt]) -> tuple[Floats, NDArray[np.int64]]:
        """Sum the units over the counted tokens of one batch, signs kept.

        Returns sums and numbers of tokens, both [units]; an expert's are of tokens routed to it.
        """
        points, widths = find_hook_points(self.units), [part.width for part in self.units]
        sums, tokens = np.zeros(sum(widths)), np.zeros(sum(widths), np.int64)
        for part in self._lengths.split(prompts):
            ids, attention = self._prepare(part)
            pooler = ActivationPooler(part, points, ids.device, self._ranks, signed=True)
            with torch.inference_mode(), hooked(self._model, points, pooler.add, self._ranks):
                self._model.base_model(input_ids=ids, attention_mask=attention)
            pooled, counted = pooler.collect(), [prompt.num_counted for prompt in part]
            sums += counted @ pooled.activations.astype(np.float64)
            reached = np.full(len(widths), sum(counted))
            if pooled.routed is not None:
                reached[[each.expert is not None for each in self.units]] = pooled.routed.sum(0)
            tokens += np.repeat(reached, widths)
        return sums, tokens

    def _prepare(self, prompts: Sequence[TokenizedPrompt]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask of a batch, for a model that has forgotten earlier ones."""
        reset_rotary_embedding(self._model)
        ids, attention = pad_batch(prompts, self._vocabulary)
        return ids.to(self._model.device), attention.to(self._model.device)


def _score(logits: torch.Tensor, prompt: TokenizedPrompt, mask: tuple[bool, ...]) -> torch.Tensor:
    """Loss, tokens and right tokens of a mask, float64 [3]; one prompt bounds float32 logits."""
    counted = torch.tensor(mask[1:], dtype=torch.bool, device=logits.device)
    targets = torch.tensor(prompt.ids[1:], dtype=torch.int64, device=logits.device)[counted]
    predicted = logits[: len(prompt.ids) - 1][counted].float()
    loss = cross_entropy(predicted, targets, reduction="none").double().sum()
    correct = (predicted.argmax(-1) == targets).double().sum()
    return torch.stack([loss, counted.double().sum(), correct])
