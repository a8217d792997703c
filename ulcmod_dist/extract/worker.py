"""What runs in an actor: one loaded model that computes shards and commits them.

Two shards may be under way: while one is written, the next is computed, all but its last batch.
"""

from __future__ import annotations

import os
import pickle
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, Protocol, TypeAlias

import numpy as np
import ray

from ulcmod_dist.corpus.prompts import Prompt
from ulcmod_dist.errors import UlcmodError, one_line
from ulcmod_dist.extract.planner import ShardTask
from ulcmod_dist.forward.architectures import LayerUnits
from ulcmod_dist.forward.batches import (
    NonFiniteActivation,
    PooledActivations,
    PromptTooLarge,
    RefusedPrompt,
    TokenizedPrompt,
)
from ulcmod_dist.store.shards import Origin, ShardContent, ShardWriter

FENCE_INTERVAL = 2.0
"""How often an actor asks, between two batches, whether its run was taken over."""
DISK_FULL = "No space left on device"


class ForwardModel(Protocol):
    """A loaded model that turns prompts into rows; one in each actor."""

    @property
    def units(self) -> tuple[LayerUnits, ...]:
        """What the columns of a row are, in order."""

    def encode(self, prompts: Sequence[Prompt]) -> Sequence[TokenizedPrompt]:
        """Tokens of each prompt."""

    def rows(self, batch: Sequence[TokenizedPrompt]) -> tuple[PooledActivations, tuple[int, ...]]:
        """One row a prompt, and the sizes of the batches run: several where memory was short."""


ModelLoader: TypeAlias = Callable[[], ForwardModel]
"""Loads a model in the process that will use it; must survive pickling."""

EventCallback: TypeAlias = Callable[[str, str], None]
"""Called by a worker with a point of a shard's life and the shard's digest."""


@dataclass(frozen=True)
class ShardResult:
    """A shard was committed.

    Attributes:
        digest: Its digest.
        seconds: Time of the forward passes.
        splits: Number of batches that had to be split.
        peak_bytes: Largest resident memory of the actor so far.
    """

    digest: str
    seconds: float
    splits: int
    peak_bytes: int


@dataclass(frozen=True)
class BatchTiming:
    """What running one batch took.

    Attributes:
        seconds: Time, tokenizing included.
        tokens: Tokens, without padding.
        peak_bytes: Largest resident memory of the actor so far.
    """

    seconds: float
    tokens: int
    peak_bytes: int


@dataclass(frozen=True)
class TaskFailure:
    """A shard was not committed. A value, since not every exception survives pickling.

    Attributes:
        scope: What is to blame: some ``prompts``, the ``shard`` as a whole, the ``store`` that did
            not take it, or the ``run``, in which no further shard can succeed.
        reason: What went wrong, in one line.
        remedy: What helps, or None.
        prompts: Digests of the prompts to blame.
        clean: Whether the process is still fit for use.
    """

    scope: Literal["prompts", "shard", "store", "run"]
    reason: str
    remedy: str | None = None
    prompts: tuple[str, ...] = ()
    clean: bool = True


class _FailingPrompts(Exception):
    """Prompts that fail by themselves were found in a shard."""

    def __init__(self, rows: Sequence[int], reason: str, *, clean: bool) -> None:
        super().__init__(reason)
        self.rows, self.reason, self.clean = tuple(rows), reason, clean


class Worker:
    """Computes shards with one model; every method answers with a value and raises nothing.

    Args:
        factory: A pickled ``ModelLoader``: torch is imported only when the model is loaded, so
            that an actor can say at once that it found its resources.
        writer: Commits shards.
        record: What rows depend on.
        epoch: Lease under which it commits.
        on_event: Called at each point of a shard's life: started, halfway, computed, written,
            checked, committed.
    """

    def __init__(
        self,
        factory: bytes,
        writer: ShardWriter,
        record: dict[str, str],
        epoch: int,
        on_event: EventCallback,
    ) -> None:
        self._factory, self._writer, self._record = factory, writer, record
        self._epoch, self._on_event = epoch, on_event
        self._forward: ForwardModel | None = None
        self._computing = threading.Lock()
        self._finished = threading.Lock()

    def place(self) -> str:
        """The node's id in Ray; an answer proves that the actor found its resources."""
        return str(ray.get_runtime_context().get_node_id())

    def load(self) -> TaskFailure | None:
        """Load the model; a failure here is one of the whole run."""
        try:
            factory: ModelLoader = pickle.loads(self._factory)  # noqa: S301 - from the driver
            self._forward = factory()
        except UlcmodError as error:
            return TaskFailure("run", error.fact, error.remedy)
        except Exception as error:
            return TaskFailure("run", f"The model cannot be loaded: {describe_error(error)}")
        return None

    def extract(self, task: ShardTask, prompts: Sequence[Prompt]) -> ShardResult | TaskFailure:
        """Compute a shard and commit it."""
        with ExitStack() as finished:
            try:
                with self._computing:
                    content, origin = self._compute(task, prompts, finished)
            except _FailingPrompts as error:
                blamed = tuple(task.prompts[row] for row in error.rows)
                return TaskFailure("prompts", error.reason, prompts=blamed, clean=error.clean)
            except UlcmodError as error:
                return TaskFailure("run", error.fact, error.remedy)
            except Exception as error:
                return TaskFailure("shard", describe_error(error), clean=False)
            return self._commit(task, content, origin)

    def measure(self, prompts: Sequence[Prompt]) -> BatchTiming | TaskFailure:
        """Run prompts as one batch and throw the rows away."""
        assert self._forward is not None, "load comes first"
        began = time.perf_counter()
        try:
            encoded = self._forward.encode(prompts)
            self._forward.rows(encoded)
        except Exception as error:
            return TaskFailure(
                "run", f"A batch of the plan cannot be computed: {describe_error(error)}"
            )
        seconds = time.perf_counter() - began
        return BatchTiming(seconds, sum(len(entry.ids) for entry in encoded), _peak_bytes())

    def _compute(
        self, task: ShardTask, prompts: Sequence[Prompt], finished: ExitStack
    ) -> tuple[ShardContent, Origin]:
        assert self._forward is not None, "load comes first"
        # An actor whose driver is gone must not compute what its successor computes again.
        self._writer.check()
        checked = time.monotonic()
        self._on_event("started", task.digest)
        began = time.perf_counter()
        try:
            encoded = self._forward.encode(prompts)
        except RefusedPrompt as error:
            raise _FailingPrompts([error.position], error.fact, clean=True) from error
        shard = _ShardBuffer(self._forward, encoded)
        for number, batch in enumerate(task.batches):
            if number == len(task.batches) // 2:
                self._on_event("halfway", task.digest)
            if time.monotonic() - checked > FENCE_INTERVAL:
                self._writer.check()
                checked = time.monotonic()
            if number == len(task.batches) - 1:
                # Only one finished shard may wait for its commit: no more is lost with an actor,
                # or with a driver whose successor computes it again.
                finished.enter_context(self._finished)
                self._writer.check()
            shard.run(batch)
        shard.require_whole()
        self._on_event("computed", task.digest)
        origin = Origin(
            provenance=self._record,
            batches=tuple(shard.batches),
            splits=tuple(shard.splits),
            attempt=task.attempt,
            worker=f"{socket.gethostname()}:{os.getpid()}",
            epoch=self._epoch,
            seconds=time.perf_counter() - began,
        )
        return shard.content(task.prompts), origin

    def _commit(
        self, task: ShardTask, content: ShardContent, origin: Origin
    ) -> ShardResult | TaskFailure:
        writer = replace(self._writer, notice=lambda step: self._on_event(step, task.digest))
        try:
            commit = writer.write(content, origin)
        except UlcmodError as error:
            return TaskFailure("run", error.fact, error.remedy)
        except Exception as error:
            reason = describe_error(error)
            if DISK_FULL in reason:
                return TaskFailure(
                    "run",
                    f"The disk that holds {self._writer.run.url} is full.",
                    "Make space and start the same command again: it continues where it stopped.",
                )
            return TaskFailure("store", f"{self._writer.run.url} did not take a shard: {reason}")
        return ShardResult(commit.digest, origin.seconds, len(origin.splits), _peak_bytes())


class _ShardBuffer:
    """A shard being computed: rows fill up batch by batch."""

    def __init__(self, forward: ForwardModel, encoded: Sequence[TokenizedPrompt]) -> None:
        self._forward, self._encoded = forward, encoded
        units = sum(part.width for part in forward.units)
        slots = sum(part.expert is not None for part in forward.units)
        self._activations = np.empty((len(encoded), units), np.float32)
        self._routed = np.empty((len(encoded), slots), np.int32) if slots else None
        self._blamed: list[int] = []
        self._reason = ""
        self.batches: list[tuple[int, ...]] = []
        self.splits: list[tuple[int, ...]] = []

    def run(self, batch: tuple[int, ...]) -> None:
        """Compute a batch of the plan.

        Raises:
            _Blamed: Prompts fail by themselves, and the process may have suffered.
        """
        try:
            rows, sizes = self._forward.rows([self._encoded[index] for index in batch])
        except (NonFiniteActivation, PromptTooLarge) as error:
            if not (failing := self._failing(batch)):
                raise
            # The process is sound: go on, so that one attempt finds all such prompts.
            self._blamed.extend(failing)
            self._reason = error.fact
        except UlcmodError:
            raise
        except Exception as error:
            if failing := self._failing(batch):
                raise _FailingPrompts(failing, describe_error(error), clean=False) from error
            raise
        else:
            self._keep(batch, rows, sizes)

    def require_whole(self) -> None:
        """Return if no prompt was blamed."""
        if self._blamed:
            raise _FailingPrompts(self._blamed, self._reason, clean=True)

    def content(self, prompts: tuple[str, ...]) -> ShardContent:
        """The rows, for the store."""
        counts = np.array([entry.num_counted for entry in self._encoded], np.int64)
        return ShardContent(prompts, self._activations, counts, self._routed)

    def _keep(
        self, batch: tuple[int, ...], rows: PooledActivations, sizes: tuple[int, ...]
    ) -> None:
        places = list(batch)
        self._activations[places] = rows.activations
        if self._routed is not None:
            assert rows.routed is not None, "units name experts, so rows count their tokens"
            self._routed[places] = rows.routed
        parts = iter(batch)
        self.batches.extend(tuple(islice(parts, size)) for size in sizes)
        if len(sizes) > 1:
            self.splits.append(batch)

    def _failing(self, batch: tuple[int, ...]) -> list[int]:
        """Which rows of a batch fail alone as well."""
        failing = []
        for index in batch:
            try:
                self._forward.rows([self._encoded[index]])
            except Exception:
                failing.append(index)
        return failing


def describe_error(error: BaseException) -> str:
    """An exception's kind and message on one line."""
    text = one_line(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _peak_bytes() -> int:
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
