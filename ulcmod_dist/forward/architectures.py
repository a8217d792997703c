"""Where the units of each model family are: the registry, read from a configuration alone.

A unit is one entry of the input of a layer's MLP down-projection. For each family the registry says
which base model to load, how its down-projections are found and how wide they are, so that what a
forward pass captures can be held against what the configuration promises. Supporting one more
family means one more entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.values import LayerUnits

Describe = Callable[[Any, int], Iterator[LayerUnits]]


@dataclass(frozen=True)
class Family:
    """What the project knows of a model family.

    Attributes:
        layer: The units of one layer, from configuration and index.
        base: Class of transformers that loads the model without its language-model head.
    """

    layer: Describe
    base: str = "AutoModel"


def _dense(module: str, width: Callable[[Any], int]) -> Family:
    """A family whose layers are alike: ``module`` holds ``{}`` in place of the layer's index."""

    def layer(config: Any, index: int) -> Iterator[LayerUnits]:
        yield LayerUnits(index, module.format(index), width(config))

    return Family(layer)


def _intermediate(config: Any) -> int:
    return int(config.intermediate_size)


def _gpt2_width(config: Any) -> int:
    return int(config.n_inner or 4 * config.hidden_size)


_GATED = _dense("layers.{}.mlp.down_proj", _intermediate)

FAMILIES: dict[str, Family] = {
    "bert": _dense("encoder.layer.{}.output.dense", _intermediate),
    "gemma": _GATED,
    "gemma2": _GATED,
    "gemma3": _dense("language_model.layers.{}.mlp.down_proj", _intermediate),
    "gemma3_text": _GATED,
    "gpt2": _dense("h.{}.mlp.c_proj", _gpt2_width),
    "llama": _GATED,
    "mistral": _GATED,
    "phi3": _GATED,
    "qwen2": _GATED,
    "qwen3": _GATED,
}


def family_of(config: PretrainedConfig) -> Family:
    """The registry's entry of a configuration's model type.

    Raises:
        InvalidInput: The registry does not know the type.
    """
    try:
        return FAMILIES[config.model_type]
    except KeyError:
        raise InvalidInput(
            f"The model type {config.model_type!r} is not known.",
            f"Known are: {', '.join(sorted(FAMILIES))}.",
        ) from None


def units_of(config: PretrainedConfig) -> tuple[LayerUnits, ...]:
    """All units that a configuration promises, layer by layer, in the order of the columns.

    Raises:
        InvalidInput: The registry does not know the model type.
    """
    family = family_of(config)
    text = config.get_text_config()
    return tuple(
        units for layer in range(text.num_hidden_layers) for units in family.layer(text, layer)
    )
