"""The forward half as a worker uses it: tokenizer and engine of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ulcmod_dist.config.schema import ModelConfig, TokenizationConfig
from ulcmod_dist.corpus.prompts import Prompt
from ulcmod_dist.forward.architectures import LayerUnits
from ulcmod_dist.forward.batches import PooledActivations, TokenizedPrompt
from ulcmod_dist.forward.engine import Engine
from ulcmod_dist.forward.ranks import RankGroup
from ulcmod_dist.forward.tokens import PromptTokenizer


@dataclass(frozen=True)
class LoadedModel:
    """A tokenizer and a model, loaded.

    Attributes:
        encoder: Turns prompts into tokens.
        ranks: Turn tokens into rows, an engine each.
    """

    encoder: PromptTokenizer
    ranks: RankGroup[Engine]

    @property
    def units(self) -> tuple[LayerUnits, ...]:
        """What the columns of a row are, in order."""
        return self.ranks.local.units

    def encode(self, prompts: Sequence[Prompt]) -> Sequence[TokenizedPrompt]:
        """Tokens of each prompt."""
        return self.encoder.encode(prompts)

    def rows(self, batch: Sequence[TokenizedPrompt]) -> tuple[PooledActivations, tuple[int, ...]]:
        """One row a prompt, and the sizes of the batches run."""
        answer: tuple[PooledActivations, tuple[int, ...]] = self.ranks.call(
            "run_within_memory", batch
        )
        return answer


@dataclass(frozen=True)
class ModelFactory:
    """Loads a model in whichever process calls it.

    Attributes:
        spec: The model.
        rule: How prompts become tokens.
        units: What the plan was made for.
        device: Device of torch.
        threads: Threads for computing on the CPU.
        ranks: Processes that share the model by tensor parallelism, each with a GPU of the actor's.
    """

    spec: ModelConfig
    rule: TokenizationConfig
    units: tuple[LayerUnits, ...]
    device: str = "cpu"
    threads: int = 1
    ranks: int = 1

    def __call__(self) -> LoadedModel:
        """Load tokenizer and model."""
        encoder = PromptTokenizer.load(self.spec, self.rule)
        return LoadedModel(encoder, RankGroup(self.load_rank, self.ranks))

    def load_rank(self, _rank: int) -> Engine:
        """Load the engine of one rank in the process that is it."""
        # With several ranks the device of each follows from its number.
        return Engine.load(
            self.spec, self.units, device=self.device, threads=self.threads, ranks=self.ranks
        )
