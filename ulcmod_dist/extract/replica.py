"""What an actor loads: the tokenizer of a model and its engine."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeAlias

from ulcmod_dist.config.schema import ExtractConfig, ModelConfig, TokenizationConfig
from ulcmod_dist.corpus.chats import Prompt
from ulcmod_dist.extract.planner import PromptEncoder
from ulcmod_dist.forward.architectures import LayerUnits
from ulcmod_dist.forward.batches import (
    PooledActivations,
    TokenizedPrompt,
    mark_prefix,
    require_tokens,
)


class ForwardModel(PromptEncoder, Protocol):
    """What an actor computes with: a tokenizer and a model, loaded."""

    @property
    def units(self) -> tuple[LayerUnits, ...]:
        """What the columns of the activations are, in order."""

    def run(self, batch: Sequence[TokenizedPrompt]) -> tuple[PooledActivations, tuple[int, ...]]:
        """Compute one row a prompt; returns them and the sizes of the batches, halved or not."""


ModelLoader: TypeAlias = Callable[[], ForwardModel]
"""Loads a model in the actor that will use it; must survive pickling."""


class ModelReplica:
    """The tokenizer of a model, and its engine: one, or one for each tensor-parallel rank."""

    def __init__(
        self,
        model: ModelConfig,
        tokenization: TokenizationConfig,
        config: ExtractConfig,
        units: Sequence[LayerUnits],
    ) -> None:
        """Load both.

        Raises:
            InvalidInput: The model cannot be used.
            UlcmodError: Its units are not those of the plan, ``units``.
        """
        # torch takes seconds to import: only now, when the driver knows that the actor is placed.
        from ulcmod_dist.forward.engine import Engine
        from ulcmod_dist.forward.ranks import RankGroup
        from ulcmod_dist.forward.tokens import PromptTokenizer

        self._tokenizer = PromptTokenizer.load(model, tokenization)
        self._least = 2 if config.needs_loss else 1
        options = (config.device, config.threads, config.ranks, config.statistic)
        load = partial(Engine.load, model, tuple(units), *options)
        # With several ranks, the device of each follows from its number.
        self._ranks = RankGroup(load, config.ranks)

    @property
    def units(self) -> tuple[LayerUnits, ...]:
        """What the columns of the activations are, in order."""
        return self._ranks.local.units

    def encode(self, prompts: Sequence[Prompt]) -> Sequence[TokenizedPrompt]:
        """Tokenize prompts, and mark what they have in common where the model makes use of it.

        Raises `RefusedPrompt`.
        """
        tokenized = self._tokenizer.encode(prompts)
        require_tokens(tokenized, self._least)
        return mark_prefix(tokenized) if self._ranks.local.reuses_prefix else tokenized

    def run(self, batch: Sequence[TokenizedPrompt]) -> tuple[PooledActivations, tuple[int, ...]]:
        """Compute one row for each prompt; see `Engine.run_within_memory`."""
        return self._ranks.call(type(self._ranks.local).run_within_memory, batch)
