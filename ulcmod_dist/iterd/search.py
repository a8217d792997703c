"""One search under way, and the checkpoint from which it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.iterd.modules import Iteration
from ulcmod_dist.iterd.objective import fill_empty_modules, objective_from_table, table_means
from ulcmod_dist.iterd.sweep import margins, sweep
from ulcmod_dist.passes.standardised import FloatArray, LabelArray
from ulcmod_dist.results.types import Objective

_NO_TABLE: FloatArray = np.empty((0, 0))


# Candidates of one answer, swept after each other, visit in the same order.
@lru_cache(maxsize=1)
def _draw_order(key: tuple[int, ...], items: int) -> LabelArray:
    return np.random.default_rng(key).permutation(items).astype(np.int32)


class Role(IntEnum):
    """What a search is to the others of its K."""

    RESTART = 0
    ANSWER = 1  # the best restart, and what moves made of it
    CANDIDATE = 2  # a move that is being tried


@dataclass(eq=False)
class Search:
    """The state of one restart for one K, or of what moves make of it.

    Attributes:
        unit_table: T_u [units, K], belonging to ``summed_labels``, which are the sample labels
            before the last iteration; empty in the blockwise mode.
        sample_table: T_s [samples, K], belonging to ``unit_labels``.
        repaired: Modules that were empty at the start.
        tolerance: Share of L by which an iteration has to raise it for the search to go on.
        rounds: Rounds of moves so far; of a candidate, with its own.
    """

    restart: int
    num_modules: int
    seed: int
    sample_labels: LabelArray
    unit_labels: LabelArray
    unit_table: FloatArray = field(default_factory=lambda: _NO_TABLE)
    summed_labels: LabelArray = field(default_factory=lambda: np.empty(0, np.int32))
    sample_table: FloatArray = field(default_factory=lambda: _NO_TABLE)
    history: list[Iteration] = field(default_factory=list)
    repaired: int = 0
    tolerance: float = 0.0
    role: Role = Role.RESTART
    rounds: int = 0

    @property
    def iteration(self) -> int:
        """Iterations done."""
        return len(self.history) - 1

    @property
    def step(self) -> list[int]:
        """The next iteration, and the round of a candidate: key of its random orders."""
        return [self.iteration + 1, *([self.rounds] if self.rounds else [])]

    @property
    def converged(self) -> bool:
        """The last iteration moved nothing, or raised L by no more than the tolerance."""
        if self.iteration < 1:
            return False
        before, last = self.history[-2:]
        if self.tolerance == 0:
            # Moves alone count: rounding of L may hide a small rise.
            return last.moved == 0
        rise = last.objective - before.objective
        return last.moved == 0 or rise <= self.tolerance * abs(last.objective)

    def random_order(self, items: int, stream: int) -> LabelArray:
        """Order in which the next iteration visits items.

        A function of seed, K, restart, round and iteration alone: a resumed search and one that
        shares its passes with others visit in the same order. ``stream`` is 0 for all units, 1 for
        all samples, 2 + first unit for a block of units.
        """
        key = (self.seed, 1, self.num_modules, self.restart, *self.step, stream)
        return _draw_order(key, items)

    def fill_empty_modules(self) -> bool:
        """Give each empty module a sample or a unit; True if labels changed."""
        by_sample = table_means(self.sample_table, self.unit_labels)
        by_unit = table_means(self.unit_table, self.sample_labels)
        filled = fill_empty_modules(self.sample_labels, by_sample)
        filled += fill_empty_modules(self.unit_labels, by_unit)
        self.repaired += filled
        return filled > 0

    def sweep_units(self, order: LabelArray | None = None) -> int:
        """Sweep the units in a given or a random order; returns how many moved."""
        order = self.random_order(len(self.unit_labels), 0) if order is None else order
        return sweep(self.unit_table, self.unit_labels, order, self.sample_labels)

    def sweep_samples(self, order: LabelArray | None = None) -> int:
        """Sweep the samples in a given or a random order; returns how many moved."""
        order = self.random_order(len(self.sample_labels), 1) if order is None else order
        return sweep(self.sample_table, self.sample_labels, order, self.unit_labels)

    def objective(self) -> Objective:
        """Objective of the current labels, from T_s."""
        return objective_from_table(self.sample_table, self.sample_labels, self.unit_sizes)

    def record(self, units_moved: int, samples_moved: int, seconds: float) -> Iteration:
        """Append an iteration to the history."""
        now = self.objective()
        done = Iteration(
            restart=self.restart,
            iteration=len(self.history),
            objective=now.value,
            xi=now.xi,
            balance=now.balance,
            units_moved=units_moved,
            samples_moved=samples_moved,
            seconds=seconds,
        )
        self.history.append(done)
        return done

    def margins(self) -> tuple[FloatArray, FloatArray]:
        """Margins of units and of samples; both tables must belong to the current labels."""
        by_unit = margins(self.unit_table, self.unit_labels, self.unit_sizes, self.sample_sizes)
        by_sample = margins(
            self.sample_table, self.sample_labels, self.sample_sizes, self.unit_sizes
        )
        return by_unit, by_sample

    def drop_tables(self) -> None:
        """Free the tables, which follow from the labels."""
        self.sample_table = self.unit_table = _NO_TABLE

    def copy_state(self) -> Search:
        """A copy without the tables, which follow from the labels."""
        return replace(
            self,
            sample_labels=self.sample_labels.copy(),
            unit_labels=self.unit_labels.copy(),
            unit_table=_NO_TABLE,
            sample_table=_NO_TABLE,
            history=list(self.history),
        )

    @property
    def sample_sizes(self) -> NDArray[np.int64]:
        """|S_k| [K]."""
        return np.bincount(self.sample_labels, minlength=self.num_modules)

    @property
    def unit_sizes(self) -> NDArray[np.int64]:
        """|U_k| [K]."""
        return np.bincount(self.unit_labels, minlength=self.num_modules)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """All restarts for all K of a search, and its moves, between two iterations.

    The searches come without their tables, which are rebuilt from the labels.
    """

    seed: int
    mode: str
    block_units: int
    searches: tuple[Search, ...]

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """As named arrays without objects, such as ``numpy.savez`` writes."""
        searches = self.searches
        return {
            "search": np.array([self.seed, self.mode == "exact", self.block_units]),
            "states": np.array(
                [[s.restart, s.num_modules, s.repaired, s.role, s.rounds] for s in searches]
            ),
            "sample_labels": np.stack([s.sample_labels for s in searches]),
            "unit_labels": np.stack([s.unit_labels for s in searches]),
            "lengths": np.array([len(s.history) for s in searches]),
            "history": np.array(
                [tuple(vars(done).values()) for s in searches for done in s.history]
            ),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Checkpoint:
        """From the arrays of `to_arrays`."""
        seed, exact, block_units = (int(number) for number in arrays["search"])
        histories = np.split(arrays["history"], np.cumsum(arrays["lengths"])[:-1])
        labels = arrays["sample_labels"].astype(np.int32), arrays["unit_labels"].astype(np.int32)
        searches = []
        states = arrays["states"].tolist()
        for (restart, k, *counts), *sides, rows in zip(states, *labels, histories, strict=True):
            search = Search(restart, k, seed, sides[0], sides[1])
            search.repaired, role, search.rounds = counts
            search.role = Role(role)
            search.history = [_parse_iteration(row) for row in rows.tolist()]
            searches.append(search)
        return cls(seed, "exact" if exact else "blockwise", block_units, tuple(searches))


def _parse_iteration(row: Sequence[float]) -> Iteration:
    restart, iteration, objective, xi, balance, units_moved, samples_moved, seconds = row
    moved = int(units_moved), int(samples_moved)
    return Iteration(int(restart), int(iteration), objective, xi, balance, *moved, seconds)
