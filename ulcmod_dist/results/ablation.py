"""What ablating modules costs. Losses in nats a token."""

from dataclasses import dataclass

from ulcmod_dist.results.types import Absent, Floats, Interval


@dataclass(frozen=True)
class LossIncrease:
    """By how much ablating units increases the loss, nats a token."""

    own: Interval  # mean increase on a module's own samples
    other: Interval  # mean increase on all other samples
    selectivity: Interval  # the first less the second


@dataclass(frozen=True)
class AblatedModule:
    """What ablating one module costs, beside random sets of as many units in each layer."""

    module: int
    real: LossIncrease  # loss increase when it is ablated
    random: LossIncrease  # mean loss increase when a random set is ablated instead


@dataclass(frozen=True, eq=False)
class Ablation:
    """The causal check of the modules of one K; losses are over the prompt's own tokens."""

    method: str  # what ablated units hold: "zero" or "mean"
    num_samples: int  # samples measured
    num_random_sets: int  # random sets a module is compared with
    seed: int  # seed by which the samples and the random sets were drawn
    by_module: Floats  # loss increase, ablated module by module of the samples, shape (K, K)
    random_by_module: Floats  # the same for random sets of equal size in each layer, shape (K, K)
    by_category: Floats | Absent  # loss increase, ablated module by category, shape (K, C)
    categories: tuple[str, ...]  # names of the C categories; empty where ``by_category`` is absent
    modules: tuple[AblatedModule, ...]  # one value a module, in ascending order
    selectivity: Interval  # mean over the modules of the increase on own less that on other samples
    random_selectivity: Interval  # the same for the random sets
    advantage: Interval  # the first less the second, over the same draws of samples
