"""What ablating modules costs. Losses in nats a token."""

from dataclasses import dataclass

from ulcmod_dist.results.types import Absent, Floats, Interval


@dataclass(frozen=True)
class LossIncrease:
    """By how much ablating units increases the loss, nats a token.

    Attributes:
        own: Mean increase on a module's own samples.
        other: Mean increase on all other samples.
        selectivity: The first less the second.
    """

    own: Interval
    other: Interval
    selectivity: Interval


@dataclass(frozen=True)
class AblatedModule:
    """What ablating one module costs, beside random sets of as many units in each layer.

    Attributes:
        module: The ablated module.
        real: Loss increase when it is ablated.
        random: Mean loss increase when a random set is ablated instead.
    """

    module: int
    real: LossIncrease
    random: LossIncrease


@dataclass(frozen=True, eq=False)
class Ablation:
    """The causal check of the modules of one K; losses count the tokens of the prompt's own text.

    Attributes:
        method: What replaced the ablated units' values, "zero" or "mean".
        num_samples: Samples measured.
        num_random_sets: Random sets a module is compared with.
        seed: Seed by which the samples and the random sets were drawn.
        by_module: Loss increase, ablated module by module of the samples, shape (K, K).
        random_by_module: The same for random sets of equal size in each layer, shape (K, K).
        by_category: Loss increase, ablated module by category, shape (K, C).
        categories: Names of the C categories; empty where ``by_category`` is absent.
        modules: One value a module, in ascending order.
        selectivity: Mean over the modules of the increase on own less that on other samples.
        random_selectivity: The same for the random sets.
        advantage: The first less the second, over the same draws of samples.
    """

    method: str
    num_samples: int
    num_random_sets: int
    seed: int
    by_module: Floats
    random_by_module: Floats
    by_category: Floats | Absent
    categories: tuple[str, ...]
    modules: tuple[AblatedModule, ...]
    selectivity: Interval
    random_selectivity: Interval
    advantage: Interval
