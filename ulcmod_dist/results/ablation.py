"""What ablating modules costs: loss in nats a token, and the accuracy of the next token."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ulcmod_dist.results.types import Absent, Floats, Interval

CONTROLS = {
    "random": "random units",
    "matched": "units of equal activation",
    "quiet": "units of low activation",
}
"""Kinds of control sets, in words; each holds as many units in each layer as the module."""


@dataclass(frozen=True)
class Effect:
    """By how much ablating units increases the loss, or lowers the accuracy."""

    own: Interval  # mean over a module's own samples
    other: Interval  # mean over all other samples
    selectivity: Interval  # the first less the second


@dataclass(frozen=True)
class Control:
    """What ablating the control sets of one kind costs, averaged over the sets."""

    kind: str  # one of `CONTROLS`
    loss: Effect


@dataclass(frozen=True)
class ExtremeUnits:
    """The units of a module with extreme mean activation, and what the module is without them."""

    units: tuple[str, ...]  # such as "layer 11 unit 1229"
    alone: Effect  # loss increase when these alone are ablated
    without: Effect  # loss increase when the rest of the module is


@dataclass(frozen=True)
class AnswerEffects:
    """What ablating costs the expected answers given the prompts, over the answers' tokens."""

    num_samples: int  # samples with an answer
    intact_loss: float  # mean loss without ablation, nats a token
    intact_accuracy: float  # mean accuracy of the next token without ablation
    loss: tuple[Effect, ...]  # one a module, in ascending order
    accuracy: tuple[Effect, ...]  # likewise
    control_loss: tuple[Effect, ...]  # of the mean over a module's control sets

    @property
    def selectivity_quantiles(self) -> tuple[float, float]:
        """The least and the median selectivity of the modules; NaN where none is known."""
        return _find_quantiles(self.loss)


@dataclass(frozen=True)
class AblatedModule:
    """What ablating one module costs, beside sets of as many other units in each layer."""

    module: int
    loss: Effect
    accuracy: Effect  # of the next token, as a share of the tokens
    controls: tuple[Control, ...]  # one of each kind
    extreme: ExtremeUnits | None  # None if the module has no such units

    @property
    def is_selective(self) -> bool:
        """Whether the module serves its own samples.

        The interval of its selectivity lies above zero and above those of all controls, and it is
        no general machinery.
        """
        controls = [control.loss.selectivity for control in self.controls]
        return _lies_above(self.loss.selectivity, controls) and not self.is_general

    @property
    def is_general(self) -> bool:
        """Whether all samples need the module.

        It costs the other samples more than all controls do, and at least half as much as its own.
        """
        controls = [control.loss.other for control in self.controls]
        above = _lies_above(self.loss.other, controls)
        return above and self.loss.other.mean > self.loss.own.mean / 2


def _lies_above(value: Interval, others: Iterable[Interval]) -> bool:
    """Whether a whole interval lies above zero and above all others."""
    bounds = [0.0, *(other.high for other in others)]
    return value.low is not None and all(high is None or value.low > high for high in bounds)


def _find_quantiles(effects: Sequence[Effect]) -> tuple[float, float]:
    values = np.array([effect.selectivity.mean for effect in effects])
    known = values[np.isfinite(values)]
    return (float(known.min()), float(np.median(known))) if len(known) else (np.nan, np.nan)


@dataclass(frozen=True, eq=False)
class Ablation:
    """The causal check of the modules of one K, over the tokens of the prompts' own text."""

    method: str  # what ablated units hold: "resample", "mean" or "zero"
    num_samples: int  # samples measured
    num_random_sets: int  # control sets of each kind that a module is compared with
    seed: int  # seed by which the samples and the control sets were drawn
    intact_loss: float  # mean loss of the samples without ablation, nats a token
    intact_accuracy: float  # mean accuracy of the next token without ablation
    by_module: Floats  # loss increase, ablated module by module of the samples, shape (K, K)
    control_by_module: Floats  # the same, mean over a module's control sets, shape (K, K)
    by_category: Floats | Absent  # loss increase, ablated module by category, shape (K, C)
    control_by_category: Floats | Absent  # the same, mean over the control sets, shape (K, C)
    categories: tuple[str, ...]  # names of the C categories; empty where ``by_category`` is absent
    modules: tuple[AblatedModule, ...]  # one value a module, in ascending order
    selectivity: Interval  # mean over the modules of the increase on own less that on other samples
    control_selectivity: Interval  # the same for the control sets
    advantage: Interval  # the first less the second, over the same draws of samples
    answers: AnswerEffects | None = None  # None where no measured sample has an answer

    @property
    def num_selective(self) -> int:
        """Number of selective modules."""
        return sum(module.is_selective for module in self.modules)

    @property
    def selectivity_quantiles(self) -> tuple[float, float]:
        """The least and the median selectivity of the modules; NaN where none is known."""
        return _find_quantiles([module.loss for module in self.modules])

    @property
    def general(self) -> tuple[int, ...]:
        """The modules that are general machinery, which all samples need, in ascending order."""
        return tuple(module.module for module in self.modules if module.is_general)


@dataclass(frozen=True, eq=False)
class AblatedMethod:
    """The ablation of the modules that another method found."""

    method: str  # such as "k-means"
    ablation: Ablation


@dataclass(frozen=True, eq=False)
class MethodAblations:
    """The modules of several methods, ablated by the same values on samples drawn alike."""

    methods: tuple[AblatedMethod, ...]
