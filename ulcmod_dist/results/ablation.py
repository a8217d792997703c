"""What silencing modules costs, as plain values of a report. Losses in nats a token."""

from dataclasses import dataclass

from ulcmod_dist.results.types import Absent, Floats, Interval


@dataclass(frozen=True)
class Cost:
    """By how much silencing units raises the loss, nats a token.

    Attributes:
        own: Rise on a module's own samples.
        other: Rise on all other samples.
        selectivity: The first less the second.
    """

    own: Interval
    other: Interval
    selectivity: Interval


@dataclass(frozen=True)
class AblatedModule:
    """What silencing one module costs, beside random sets of as many units a layer.

    Attributes:
        module: The silenced module.
        real: The cost of silencing it.
        random: The mean cost of silencing the random sets instead.
    """

    module: int
    real: Cost
    random: Cost


@dataclass(frozen=True, eq=False)
class Ablation:
    """The causal check of the modules of one K. Losses in nats a token.

    Attributes:
        method: What replaced the silenced units' values, "zero" or "mean".
        tokens: Which tokens the loss counts, in words.
        num_samples: Samples measured.
        num_random_sets: Random sets a module is compared with.
        seed: Seed by which the samples and the random sets were drawn.
        by_module: Rise of the loss, silenced module by module of the samples, shape (K, K).
        random_by_module: The same for random sets of equal size a layer, shape (K, K).
        by_category: Rise of the loss, silenced module by category, shape (K, C).
        categories: Names of the C categories; empty where ``by_category`` is absent.
        modules: One value a module, in ascending order.
        selectivity: Mean over the modules of rise on own minus rise on other samples.
        random_selectivity: The same for the random sets.
        advantage: The first less the second, over the same draws of samples.
    """

    method: str
    tokens: str
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
