"""What is ablated to judge the modules of one K, and on which samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.config.schema import AblateConfig
from ulcmod_dist.forward.batches import TokenizedPrompt
from ulcmod_dist.intervene.ablation import AblationLosses, AblationPool, compute_unit_means
from ulcmod_dist.intervene.engine import PairedPrompt
from ulcmod_dist.intervene.masks import Mask, find_extreme_units
from ulcmod_dist.results.ablation import CONTROLS
from ulcmod_dist.results.types import Floats


@dataclass(frozen=True, eq=False)
class AblationSamples:
    """The samples that are measured, the batches that they run in, and their groups."""

    prompts: Sequence[TokenizedPrompt]
    batches: Sequence[Sequence[int]]
    modules: NDArray[np.integer[Any]]  # module of each sample
    categories: Sequence[str | None]  # None for a sample without one


@dataclass(frozen=True, eq=False)
class Trial:
    """One mask to measure: a module, a control set in its likeness, or a part of the module."""

    module: int
    kind: str  # "module", one of `CONTROLS`, "extreme" or "rest"
    mask: Mask


def plan_trials(
    modules: Sequence[Mask],
    activation: Floats,
    config: AblateConfig,
    generator: np.random.Generator,
) -> list[Trial]:
    """Return what is measured to judge modules: each, its control sets, and its extreme units.

    A module with units of extreme mean ``activation`` [units] is measured in two parts as well:
    these units alone, and the rest. All masks ablate to zero.
    """
    trials = []
    for module, mask in enumerate(modules):
        trials.append(Trial(module, "module", mask))
        for kind in CONTROLS:
            for _ in range(config.random_sets):
                control = mask.draw_control(kind, activation, generator)
                trials.append(Trial(module, kind, control))
        extreme = mask.ablated & find_extreme_units(mask.units, activation)
        if extreme.any():
            trials.append(Trial(module, "extreme", mask.select(extreme)))
            trials.append(Trial(module, "rest", mask.select(mask.ablated & ~extreme)))
    return trials


def pair_prompts(samples: AblationSamples, generator: np.random.Generator) -> list[PairedPrompt]:
    """Pair each prompt with that of a sample of another module, drawn uniformly.

    All trials use the same pairs, so that modules and controls are compared on equal terms. If all
    samples are of one module, any of them is drawn.
    """
    pairs = []
    for prompt, module in zip(samples.prompts, samples.modules, strict=True):
        others = np.flatnonzero(samples.modules != module)
        drawn = generator.choice(others if len(others) else len(samples.prompts))
        source = samples.prompts[int(drawn)]
        own = {each.name: getattr(prompt, each.name) for each in fields(prompt)}
        pairs.append(PairedPrompt(**own, source=source))
    return pairs


def measure_trials(
    pool: AblationPool,
    trials: Sequence[Trial],
    samples: AblationSamples,
    config: AblateConfig,
    generator: np.random.Generator,
    on_pass: Callable[[], None] = lambda: None,
) -> AblationLosses:
    """Measure trials, with ablated units at the values of the job's method.

    Raises:
        UlcmodError: As `AblationPool.measure` does.
    """
    masks, prompts = [trial.mask for trial in trials], samples.prompts
    if config.method == "mean":
        (means,) = pool.map(compute_unit_means, [(prompts, samples.batches)])
        masks = [mask.with_means(means) for mask in masks]
    elif config.method == "resample":
        masks = [replace(mask, resampled=True) for mask in masks]
        prompts = pair_prompts(samples, generator)
    return pool.measure(prompts, samples.batches, masks, on_pass)
