"""A model that fails on one prompt, until it is healed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ulcmod_dist.corpus.chats import Prompt
from ulcmod_dist.extract.replica import ForwardModel, ModelLoader
from ulcmod_dist.forward.architectures import LayerUnits
from ulcmod_dist.forward.batches import NonFiniteActivation, PooledActivations, TokenizedPrompt


@dataclass(frozen=True)
class Sick:
    """A model that fails on one prompt for as long as a file is there.

    Attributes:
        make: Loads the model itself.
        poison: Tokens of the prompt.
        illness: The file.
    """

    make: ModelLoader
    poison: tuple[int, ...]
    illness: str

    def __call__(self) -> ForwardModel:
        return SickModel(self.make(), self.poison, self.illness)


@dataclass(frozen=True)
class SickModel:
    model: ForwardModel
    poison: tuple[int, ...]
    illness: str

    @property
    def units(self) -> tuple[LayerUnits, ...]:
        return self.model.units

    def encode(self, prompts: Sequence[Prompt]) -> Sequence[TokenizedPrompt]:
        return self.model.encode(prompts)

    def run(self, batch: Sequence[TokenizedPrompt]) -> tuple[PooledActivations, tuple[int, ...]]:
        found = [place for place, entry in enumerate(batch) if tuple(entry.ids) == self.poison]
        if found and Path(self.illness).exists():
            raise NonFiniteActivation(found[0], "A unit is not a number.")
        return self.model.run(batch)
