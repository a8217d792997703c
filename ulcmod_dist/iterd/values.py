"""What a search answers."""

from __future__ import annotations

from dataclasses import dataclass

from ulcmod_dist.passes.standardised import FloatArray, LabelArray
from ulcmod_dist.results.types import Objective


@dataclass(frozen=True)
class Iteration:
    """One iteration of one restart.

    Attributes:
        restart: Number of the restart, from 0.
        iteration: Number of the iteration, from 1; 0 is the start.
        objective: L(F) after the iteration.
        xi: Activation modularity after the iteration.
        balance: Harmonic mean of the module sizes after the iteration.
        units_moved: Units that changed their module.
        samples_moved: Samples that changed their module.
        seconds: How long the iteration took; restarts that share passes bear equal parts.
    """

    restart: int
    iteration: int
    objective: float
    xi: float
    balance: float
    units_moved: int
    samples_moved: int
    seconds: float

    @property
    def moved(self) -> int:
        """Units and samples that changed their module."""
        return self.units_moved + self.samples_moved


@dataclass(frozen=True, eq=False)
class Modules:
    """The best modules of a search.

    Attributes:
        sample_labels: Module of each sample, int32 [samples].
        unit_labels: Module of each unit, int32 [units].
        objective: L(F) and its parts.
        history: Every iteration of every restart, restart by restart.
        unit_margins: L lost by moving a unit to the best other module, float64 [units]; all of L
            for the last unit of a module, NaN for K = 1.
        sample_margins: The same for samples [samples].
        unit_stability: Share of the other restarts in which a unit lies in the same module,
            float64 [units]; NaN without other restarts.
        sample_stability: The same for samples [samples].
        unit_agreement: Mean adjusted Rand index of the units' modules over all pairs of restarts;
            NaN for a single one.
        sample_agreement: The same for samples.
        restarts: L(F) of each restart.
        best_restart: Number of the restart whose modules these are.
        repaired: Modules without a sample or without a unit at the best restart's start, each of
            which was given one.
    """

    sample_labels: LabelArray
    unit_labels: LabelArray
    objective: Objective
    history: list[Iteration]
    unit_margins: FloatArray
    sample_margins: FloatArray
    unit_stability: FloatArray
    sample_stability: FloatArray
    unit_agreement: float
    sample_agreement: float
    restarts: list[float]
    best_restart: int
    repaired: int
