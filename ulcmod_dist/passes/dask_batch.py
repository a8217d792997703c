"""Batches of tasks on a Dask cluster."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from dask.base import annotate

from ulcmod_dist.errors import one_line

# Dask warns of graphs of 10 MB, and its scheduler keeps them.
_INLINE_BYTES = 2**18
# Times that a batch of tasks may be lost with workers, and the pause before it is sent again.
_LOSSES = 5
_LOSS_SECONDS = 0.2

Task: TypeAlias = Callable[[Any, Any], Any]
"""What a worker calls with an item, or the result of a handle, and what all items share."""


@dataclass(frozen=True)
class DaskHandle:
    """A result that a batch keeps on a worker."""

    batch: DaskBatch
    number: int


class DaskBatch:
    """Tasks of one function on a Dask cluster, which are sent again where a worker took them along.

    Dask itself recomputes results, but not values that were sent to a worker.
    """

    def __init__(self, client: Any, function: Task, items: Sequence[Any], shared: Any) -> None:
        self._client, self._function, self._items = client, function, items
        self._shared = shared
        self._places: dict[int, list[str]] = {}
        self._futures: dict[int, Any] = {}
        self._submit(range(len(items)))

    def gather(self, numbers: Sequence[int]) -> list[Any]:
        """Results of some tasks."""
        from distributed import CancelledError

        for _ in range(_LOSSES):
            try:
                return list(self._client.gather([self._futures[number] for number in numbers]))
            except CancelledError:
                # The scheduler tells of each lost value by itself.
                time.sleep(_LOSS_SECONDS)
                self._submit([n for n in numbers if self._futures[n].cancelled()])
        return list(self._client.gather([self._futures[number] for number in numbers]))

    def find(self, number: int) -> tuple[Any, list[str]]:
        """The future of a task, which is sent again if it is lost, and the worker meant for it."""
        if self._futures[number].cancelled():
            self._submit([number])
        return self._futures[number], self._places[number]

    def _submit(self, numbers: Sequence[int]) -> None:
        # A thread of every worker, then the second of those that have two, and so on.
        threads = self._client.nthreads().items()
        turns = sorted((turn, address) for address, most in threads for turn in range(most))
        places: dict[str, list[str]] = {}
        shared, values = self._send(self._shared, []), []
        for number in numbers:
            item = self._items[number]
            if isinstance(item, DaskHandle):
                value, place = item.batch.find(item.number)
            else:
                place = [turns[number % len(turns)][1]] if turns else []
                value = self._send(item, place)
            values.append(value)
            self._places[number] = place
            places[f"{self._function.__name__}-{uuid.uuid4().hex}"] = place
        # The worker is a preference: another takes over if it is lost.
        with annotate(workers=places.__getitem__, allow_other_workers=True):
            futures = self._client.map(
                self._function, values, [shared] * len(values), key=list(places), pure=False
            )
        self._futures.update(zip(numbers, futures, strict=True))

    def _send(self, value: Any, workers: list[str]) -> Any:
        """A value for a task: itself if it is small, else a future of it on one of the workers."""
        from distributed.comm.core import CommClosedError
        from distributed.protocol.serialize import serialize
        from distributed.utils import nbytes

        _, frames = serialize(value, on_error="raise")
        if sum(map(nbytes, frames)) < _INLINE_BYTES:
            return value
        for _ in range(_LOSSES):
            try:
                return self._client.scatter([value], workers=workers or None, hash=False)[0]
            except (OSError, KeyError) as error:
                # The worker is lost, or is about to be.
                workers, reason = [], one_line(error)
        raise CommClosedError(reason)
