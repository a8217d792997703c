"""How a search is done, as one plain value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.iterd.checkpoint import Checkpoint
from ulcmod_dist.iterd.values import Iteration
from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.standardised import AnyArray

Mode: TypeAlias = Literal["auto", "exact", "blockwise"]
Precision: TypeAlias = Literal["float32", "float16"]


@dataclass(frozen=True, eq=False)
class Settings:
    """Options of a search.

    Attributes:
        restarts: Starts of the search; the best L wins. They share passes over the matrix.
        seed: Seed of starts and sweep orders.
        max_iterations: Iterations at most.
        tolerance: An iteration that raises L by no more than this share of it is the last; with 0
            the search ends when nothing moves.
        mode: ``exact``: whole tables, every item visited in one random order. ``blockwise``: units
            are visited block by block, with one read of the matrix an iteration. ``auto``: exact
            where the matrix can be kept in memory, else blockwise.
        memory: Bytes the whole search may use on the machines of its executor, beside the
            interpreter itself; by default 70% of what they have.
        keep: How decoded blocks are kept in memory: ``float32`` keeps them as they are, ``float16``
            keeps z in half the space of float32 (its error is a quarter of that of float16 raw
            activations).
        block_units: Units in a block of the blockwise mode; by default as many as memory allows,
            at most an eighth of all.
        executor: Where passes run: ``threads``, ``distributed``, the address of a Dask scheduler,
            ``ray``, or an executor.
        initial_sample_labels: Module of each sample at the start, -1 where the largest mean z is to
            decide; balanced k-means by default.
        initial_unit_labels: The same for units; by default all by largest mean z.
        sweep_orders: Pairs (order of units, order of samples), one an iteration, for the exact
            mode; random by default. The search ends after the last.
        progress: Called with each `Iteration` as it is done.
        checkpoint: Called after the start and after each iteration with all that is needed to go
            on from there.
        resume: A checkpoint of the same search, to go on from.
    """

    restarts: int = 1
    seed: int = 0
    max_iterations: int = 100
    tolerance: float = 0.0
    mode: Mode = "auto"
    memory: int | None = None
    keep: Precision = "float32"
    block_units: int | None = None
    executor: str | Executor = "threads"
    initial_sample_labels: AnyArray | None = None
    initial_unit_labels: AnyArray | None = None
    sweep_orders: Sequence[tuple[AnyArray, AnyArray]] | None = None
    progress: Callable[[Iteration], None] | None = None
    checkpoint: Callable[[Checkpoint], None] | None = None
    resume: Checkpoint | None = None

    def __post_init__(self) -> None:
        if self.restarts < 1 or self.max_iterations < 0:
            raise InvalidInput(
                f"A search needs a restart and no negative number of iterations, not "
                f"{self.restarts} and {self.max_iterations}."
            )
        if not 0 <= self.tolerance < 1:
            raise InvalidInput(
                f"A tolerance is a share of L, at least 0 and below 1, not {self.tolerance}."
            )
        if self.mode not in ("auto", "exact", "blockwise"):
            raise InvalidInput(f"There is no mode {self.mode!r}.", "Use auto, exact or blockwise.")
        if self.keep not in ("float32", "float16"):
            raise InvalidInput(
                f"Blocks cannot be kept in {self.keep!r}.", "Use float32 or float16."
            )
        if self.sweep_orders is not None and self.mode == "blockwise":
            raise InvalidInput(
                "Sweep orders over all units belong to the exact mode.", "Set mode to exact."
            )
        if self.block_units is not None and self.block_units < 1:
            raise InvalidInput(f"A block holds at least one unit, not {self.block_units}.")
