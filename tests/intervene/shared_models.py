"""Small models, prompts and masks that ranks and actors measure."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.forward.tiny import make_prompts, tiny_model
from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.forward.batches import TokenizedPrompt
from ulcmod_dist.forward.loading import load_config
from ulcmod_dist.forward.units import list_units
from ulcmod_dist.intervene.ablation import AblationLosses, AblationPool
from ulcmod_dist.intervene.engine import LossEngine
from ulcmod_dist.intervene.masks import Mask, get_unit_layers

PROMPTS = make_prompts([5, 31, 7, 12, 9, 20, 3, 16])
BATCHES = [[0, 1], [2, 3], [4, 5], [6, 7]]


def save_model(folder: Path, family: str) -> ModelConfig:
    """Save a tiny causal model whose heads two ranks can share."""
    tiny_model(family, head=True, num_key_value_heads=2).save_pretrained(folder)
    return ModelConfig(id=str(folder))


def make_masks(config: ModelConfig) -> list[Mask]:
    """Three random masks over all units of the model, of two fifths of them each."""
    units = list_units(load_config(config))
    rng = np.random.default_rng(0)
    count = len(get_unit_layers(units))
    return [Mask(units, rng.random(count) < 0.4, np.zeros(count, np.float32)) for _ in range(3)]


class LocalPool(AblationPool):
    """Measures in this process: no Ray beside the one model."""

    def __init__(self, engine: LossEngine) -> None:
        self._engine = engine

    def map(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """Call a function with the engine and each of several arguments, in their order."""
        return (function(self._engine, *args) for args in calls)


def measure_ablation(
    engine: LossEngine,
    prompts: Sequence[TokenizedPrompt],
    batches: Sequence[Sequence[int]],
    masks: Sequence[Mask],
) -> AblationLosses:
    """Measure every sample intact and with each mask, in this process."""
    return LocalPool(engine).measure(prompts, batches, masks)
