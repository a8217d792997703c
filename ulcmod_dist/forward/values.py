"""The plain values that cross the border of the forward half: what goes in and what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.errors import InvalidInput, UlcmodError

Message: TypeAlias = dict[str, str]
Prompt: TypeAlias = str | tuple[Message, ...]


@dataclass(frozen=True)
class LayerUnits:
    """A run of neighbouring units: the input of one down-projection.

    Attributes:
        layer: Index of the layer, from 0.
        path: Path of the torch module below the base model; for experts, of their collection.
        width: Number of units.
        expert: Index of the expert within the layer, or None.
    """

    layer: int
    path: str
    width: int
    expert: int | None = None


@dataclass(frozen=True)
class Encoded:
    """A prompt as the model reads it.

    Attributes:
        ids: Token ids, without padding.
        counted: For each token, whether it counts towards the mean; at least one does.
        truncated: Whether the prompt was longer than the limit.
    """

    ids: tuple[int, ...]
    counted: tuple[bool, ...]
    truncated: bool = False

    @property
    def count(self) -> int:
        """Number of tokens that count."""
        return sum(self.counted)


@dataclass(frozen=True)
class Rows:
    """What one batch yields, in the order of the batch.

    Attributes:
        activations: float32 [batch, units], the mean over the counted tokens of the absolute
            input of the down-projection. A token that an expert does not see counts as zero there.
        routed: int32 [batch, expert slots], the number of counted tokens routed to each expert;
            slots follow the entries of the engine's units that name an expert. None for a model
            without experts. ``activations * count / routed`` is the mean over routed tokens.
    """

    activations: NDArray[np.float32]
    routed: NDArray[np.int32] | None = None

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """The rows of several batches of one model, one after another."""
        routed = [part.routed for part in parts if part.routed is not None]
        return cls(
            np.concatenate([part.activations for part in parts]),
            np.concatenate(routed) if routed else None,
        )


class RefusedPrompt(InvalidInput):
    """A prompt that cannot become tokens by the job's rule.

    Attributes:
        position: Index of the prompt within the call.
    """

    def __init__(self, position: int, fact: str, remedy: str | None = None) -> None:
        super().__init__(fact, remedy)
        self.position = position


class PromptTooLarge(UlcmodError):
    """A prompt that does not fit into the device's memory even by itself."""


class NonFiniteActivation(UlcmodError):
    """A forward pass that ended in NaN or infinity.

    Attributes:
        position: Index of the prompt within the batch.
    """

    def __init__(self, position: int, fact: str, remedy: str | None = None) -> None:
        super().__init__(fact, remedy)
        self.position = position
