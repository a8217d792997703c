"""A search between two iterations, as plain arrays: all that is needed to go on from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.iterd.values import Iteration
from ulcmod_dist.passes.standardised import LabelArray


@dataclass(frozen=True, eq=False)
class SearchState:
    """One restart for one K.

    Attributes:
        restart: Number of the restart.
        num_modules: K.
        repaired: Modules that were empty at its start.
        sample_labels: Module of each sample [samples].
        unit_labels: Module of each unit [units].
        history: Its iterations so far.
    """

    restart: int
    num_modules: int
    repaired: int
    sample_labels: LabelArray
    unit_labels: LabelArray
    history: tuple[Iteration, ...]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All restarts for all K of a search. Tables are rebuilt from the labels.

    Attributes:
        seed: Seed of the search; its sweep orders are a function of seed, restart and iteration.
        mode: ``exact`` or ``blockwise``.
        block_units: Units in a block of the blockwise mode.
        states: The restarts.
    """

    seed: int
    mode: str
    block_units: int
    states: tuple[SearchState, ...]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """As named arrays without objects, such as ``numpy.savez`` writes."""
        states = self.states
        return {
            "search": np.array([self.seed, self.mode == "exact", self.block_units]),
            "states": np.array([[s.restart, s.num_modules, s.repaired] for s in states]),
            "sample_labels": np.stack([s.sample_labels for s in states]),
            "unit_labels": np.stack([s.unit_labels for s in states]),
            "lengths": np.array([len(s.history) for s in states]),
            "history": np.array([astuple(record) for s in states for record in s.history]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Checkpoint:
        """From the arrays of `to_arrays`."""
        seed, exact, block_units = (int(number) for number in arrays["search"])
        ends = np.cumsum(arrays["lengths"])
        histories = np.split(arrays["history"], ends[:-1])
        states = tuple(
            SearchState(restart, num_modules, repaired, samples, units, _records(history))
            for (restart, num_modules, repaired), samples, units, history in zip(
                arrays["states"].tolist(),
                arrays["sample_labels"],
                arrays["unit_labels"],
                histories,
                strict=True,
            )
        )
        return cls(seed, "exact" if exact else "blockwise", block_units, states)


def _records(rows: NDArray[np.float64]) -> tuple[Iteration, ...]:
    return tuple(
        Iteration(int(r[0]), int(r[1]), r[2], r[3], r[4], int(r[5]), int(r[6]), r[7])
        for r in rows.tolist()
    )
