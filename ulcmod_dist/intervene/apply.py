"""Masks put on a live model: the units of a mask take given values in every forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PretrainedConfig, PreTrainedModel

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.architectures import unit_parameters, units_of
from ulcmod_dist.forward.experts import Routing
from ulcmod_dist.forward.memory import parameter_bytes
from ulcmod_dist.forward.taps import Tap, held_columns, tapped, taps_of
from ulcmod_dist.intervene.masks import Mask


@contextmanager
def mask_units(model: PreTrainedModel, mask: Mask, ranks: int = 1) -> Iterator[None]:
    """Silence the units of a mask within the block, at the places where they are captured.

    Args:
        model: A model of transformers, with or without a head; any number of forward passes, and
            generation as well, run within the block. It is left as it was.
        mask: What to silence.
        ranks: Processes that share the model, each within such a block; the process group of
            torch.distributed says which of them this is.

    Raises:
        InvalidInput: The mask is of a model with other units.
    """
    if units_of(model.config) != mask.units:
        raise InvalidInput(
            f"The mask is of a model with {len(mask.silenced)} units in {len(mask.units)} parts, "
            "which this one has not.",
            "Name the model that the run was made with.",
        )
    taps = taps_of(mask.units)
    silencers = {t: _Silencer(t, mask) for t in taps if mask.silenced[t.start : t.stop].any()}
    # Experts without a silenced unit, too: seen or not, they are computed in the same way then, and
    # masks differ by nothing else.
    seen = [tap for tap in taps if tap in silencers or tap.experts]

    def silence(tap: Tap, units: torch.Tensor, routing: Routing | None) -> torch.Tensor | None:
        return silencers[tap](units, routing) if tap in silencers else None

    with tapped(model, seen, silence, ranks):
        yield


@dataclass(frozen=True)
class PrunedSize:
    """What is left of a model when the silenced units are cut out of its weights.

    Attributes:
        parameters: Parameters of the base model.
        removed: Those that belong to the silenced units alone, biases left aside.
    """

    parameters: int
    removed: int

    @property
    def share(self) -> float:
        """Share of the parameters that is removed."""
        return self.removed / self.parameters


def pruned_size(config: PretrainedConfig, mask: Mask) -> PrunedSize:
    """Estimate how much smaller a model is without the units of a mask, from its configuration."""
    parameters = parameter_bytes(config, "float32") // 4
    return PrunedSize(parameters, mask.count * unit_parameters(config))


class _Silencer:
    """Replaces the silenced units of one tap; its tensors follow the units to their device."""

    def __init__(self, tap: Tap, mask: Mask) -> None:
        shape = max(1, tap.experts), tap.width
        self._silenced = torch.from_numpy(mask.silenced[tap.start : tap.stop].reshape(shape))
        self._values = torch.from_numpy(mask.values[tap.start : tap.stop].reshape(shape))

    def __call__(self, units: torch.Tensor, routing: Routing | None) -> torch.Tensor:
        self._silenced = self._silenced.to(units.device)
        self._values = self._values.to(units)
        expert = 0 if routing is None else routing.expert
        held = held_columns(units.shape[-1], self._silenced.shape[1])
        return torch.where(self._silenced[expert, held], self._values[expert, held], units)
