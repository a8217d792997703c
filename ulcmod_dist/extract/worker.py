"""The actor: one loaded model that computes shards and commits them.

Two shards may be in progress: while one is written, the next is computed, except its last batch.
"""

import os
import resource
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import ray

from ulcmod_dist.corpus.chats import Prompt
from ulcmod_dist.corpus.digests import Digests, to_hex
from ulcmod_dist.errors import UlcmodError, describe_error
from ulcmod_dist.extract.planner import BatchPlanner, ShardTask
from ulcmod_dist.extract.replica import ForwardModel, ModelLoader
from ulcmod_dist.forward.batches import (
    NonFiniteActivation,
    PromptTooLarge,
    RefusedPrompt,
    TokenizedPrompt,
    split_by_prefix,
)
from ulcmod_dist.runtime.memory import reuse_freed_memory
from ulcmod_dist.runtime.ray_failures import (
    MemoryShortage,
    count_oom_kills,
    find_machine_failure,
    is_device_lost,
)
from ulcmod_dist.store.records import Origin
from ulcmod_dist.store.shards import ShardContent, ShardWriter

FENCE_INTERVAL = 2.0  # seconds between two checks that the run still belongs to its driver


EventCallback: TypeAlias = Callable[[str, str], None]
"""Called in an actor with a point in the life of a shard and the shard's digest."""


@dataclass(frozen=True)
class ShardProgress:
    """Prompts and tokens computed of a shard in progress; nothing of it is committed yet."""

    digest: str
    attempt: int
    prompts: int
    tokens: int


@dataclass(frozen=True)
class ShardResult:
    """A shard was committed; with its tokens and the actor's largest resident memory so far."""

    peak_bytes: int
    tokens: int


@dataclass(frozen=True)
class Placement:
    """The node of an actor, and how often its kernel had run out of memory (`count_oom_kills`)."""

    node: str
    oom_kills: int


@dataclass(frozen=True)
class BatchTiming:
    """What running one batch took."""

    seconds: float  # tokenization included
    tokens: int  # without padding
    peak_bytes: int  # largest resident memory of the actor so far


@dataclass(frozen=True)
class TaskFailure:
    """Why a shard was not committed. A value, since not every exception survives pickling.

    What failed is some prompts, the shard as a whole, the store that refused it, the machine, or
    the run, in which no further shard can succeed. Refused are prompts that cannot be tokenized as
    the job asks, at which another attempt would change nothing.
    """

    scope: Literal["refused", "prompts", "shard", "store", "machine", "run"]
    reason: str  # one line
    remedy: str | None = None
    prompts: tuple[str, ...] = ()  # digests of those that fail by themselves
    clean: bool = True  # whether the process is still fit for use
    proven: bool = True  # False where only the success of other shards shows that machines work


class _FailingPrompts(Exception):
    """Some prompts of a shard fail by themselves."""

    def __init__(
        self, rows: Sequence[int], reason: str, *, clean: bool, proven: bool = True
    ) -> None:
        super().__init__(reason)
        self.rows, self.reason, self.clean, self.proven = tuple(rows), reason, clean, proven


class Worker:
    """Computes shards with one model and commits them under the lease of an epoch.

    Its methods return failures as values. ``on_event`` is called at the points of a shard's life:
    started, halfway, computed, written, checked, committed.
    """

    def __init__(
        self,
        load_model: ModelLoader,
        writer: ShardWriter,
        provenance: dict[str, str],
        plan_batches: BatchPlanner,
        epoch: int = 0,
        on_event: EventCallback = lambda point, digest: None,
    ) -> None:
        self._load_model, self._writer, self._provenance = load_model, writer, provenance
        self._plan_batches, self._epoch, self._on_event = plan_batches, epoch, on_event
        self._model: ForwardModel | None = None
        self._progress: dict[str, ShardProgress] = {}
        self._computing = threading.Lock()
        self._finishing = threading.Lock()

    def place(self) -> Placement:
        """Where the actor is; any answer proves that it got its resources."""
        return Placement(str(ray.get_runtime_context().get_node_id()), count_oom_kills())

    def load(self) -> TaskFailure | None:
        """Load the model; a failure here ends the whole run."""
        # Clearing the pages of each shard's rows anew took longer than a GPU needs to compute them.
        reuse_freed_memory()
        try:
            self._model = self._load_model()
        except UlcmodError as error:
            return TaskFailure("run", error.fact, error.remedy)
        except Exception as error:
            return TaskFailure("run", f"The model cannot be loaded: {describe_error(error)}")
        return None

    def extract(self, task: ShardTask, prompts: Sequence[Prompt]) -> ShardResult | TaskFailure:
        """Compute a shard and commit it."""
        try:
            with ExitStack() as until_committed:
                with self._computing:
                    content, origin, tokens = self._compute(task, prompts, until_committed)
                return self._commit(task, content, origin, tokens)
        except RefusedPrompt as error:
            refused = tuple(to_hex(task.prompts[[error.position]]))
            return TaskFailure("refused", error.fact, error.remedy, prompts=refused)
        except _FailingPrompts as error:
            failing = tuple(to_hex(task.prompts[list(error.rows)]))
            return TaskFailure(
                "prompts", error.reason, prompts=failing, clean=error.clean, proven=error.proven
            )
        except Exception as error:
            if (failure := find_machine_failure(error)) is not None:
                return TaskFailure("machine", failure.fact, failure.remedy, clean=False)
            if isinstance(error, UlcmodError):
                return TaskFailure("run", error.fact, error.remedy)
            return TaskFailure("shard", describe_error(error), clean=False, proven=False)
        finally:
            self._progress.pop(task.digest, None)

    def progress(self) -> list[ShardProgress]:
        """How far the shards in progress are; runs in a thread beside `extract`."""
        return list(self._progress.values())

    def measure(self, prompts: Sequence[Prompt], place: float) -> BatchTiming | TaskFailure:
        """Run one batch of a shard of these prompts, whose rows are discarded.

        The batches lie from the longest prompts, at ``place`` 0, to the shortest before 1.
        """
        assert self._model is not None, "load comes first"
        began = time.perf_counter()
        try:
            tokenized = self._model.encode(prompts)
            lengths = np.array([len(entry.ids) for entry in tokenized])
            batches = self._plan_shard(tokenized)
            batch = list(batches[int(place * len(batches))])
            tokens = int(lengths[batch].sum())
            # Of the time for the whole shard, the part of this batch.
            encoding = (time.perf_counter() - began) * tokens / int(lengths.sum())
            began = time.perf_counter()
            self._model.run([tokenized[index] for index in batch])
        except Exception as error:
            if (failure := find_machine_failure(error)) is not None:
                return TaskFailure("run", failure.fact, failure.remedy)
            reason = f"A batch of the plan cannot be computed: {describe_error(error)}"
            return TaskFailure("run", reason)
        seconds = encoding + time.perf_counter() - began
        return BatchTiming(seconds, tokens, _peak_bytes())

    def _compute(
        self, task: ShardTask, prompts: Sequence[Prompt], until_committed: ExitStack
    ) -> tuple[ShardContent, Origin, int]:
        assert self._model is not None, "load comes first"
        # An actor that outlives its driver must not compute what the next driver computes again.
        self._writer.check()
        checked = time.monotonic()
        self._on_event("started", task.digest)
        began = time.perf_counter()
        tokenized = self._model.encode(prompts)
        shard = _ShardBuffer(self._model, tokenized)
        batches = self._plan_shard(tokenized)
        for number, batch in enumerate(batches):
            if number == len(batches) // 2:
                self._on_event("halfway", task.digest)
            if time.monotonic() - checked > FENCE_INTERVAL:
                self._writer.check()
                checked = time.monotonic()
            if number == len(batches) - 1:
                # At most one computed shard waits for its commit, so that no more than two shards
                # are lost with an actor, or with a driver.
                until_committed.enter_context(self._finishing)
                self._writer.check()
            shard.run(batch)
            self._progress[task.digest] = ShardProgress(
                task.digest, task.attempt, shard.num_prompts, shard.num_tokens
            )
        content = shard.finish(task.prompts)
        self._on_event("computed", task.digest)
        origin = Origin(
            provenance=self._provenance,
            batches=tuple(shard.batches),
            splits=tuple(shard.splits),
            attempt=task.attempt,
            worker=f"{socket.gethostname()}:{os.getpid()}",
            epoch=self._epoch,
            prefix_tokens=max(prompt.shared for prompt in tokenized),
            seconds=time.perf_counter() - began,
        )
        return content, origin, shard.num_tokens

    def _plan_shard(self, tokenized: Sequence[TokenizedPrompt]) -> list[tuple[int, ...]]:
        """The batches of a shard; those of one have the same beginning computed once."""
        batches = self._plan_batches([len(entry.ids) for entry in tokenized])
        return [part for batch in batches for part in split_by_prefix(tokenized, batch)]

    def _commit(
        self, task: ShardTask, content: ShardContent, origin: Origin, tokens: int
    ) -> ShardResult | TaskFailure:
        writer = replace(self._writer, on_event=lambda step: self._on_event(step, task.digest))
        try:
            writer.write(content, origin)
        except UlcmodError as error:
            return TaskFailure("run", error.fact, error.remedy)
        except Exception as error:
            url, reason = self._writer.run.url, describe_error(error)
            if "No space left on device" in reason:
                return TaskFailure(
                    "run",
                    f"The disk that holds {url} is full.",
                    "Make space and start the same command again: it continues where it stopped.",
                )
            return TaskFailure("store", f"Writing a shard to {url} failed: {reason}")
        return ShardResult(_peak_bytes(), tokens)


class _ShardBuffer:
    """The rows of one shard, filled batch by batch."""

    def __init__(self, model: ForwardModel, tokenized: Sequence[TokenizedPrompt]) -> None:
        self._model, self._tokenized = model, tokenized
        units = sum(part.width for part in model.units)
        slots = sum(part.expert is not None for part in model.units)
        self._activations = np.empty((len(tokenized), units), np.float32)
        self._routed = np.empty((len(tokenized), slots), np.int32) if slots else None
        self._failing: list[int] = []
        self._reason = ""
        self._proven = False  # whether the failing prompts, and not the machine, are to blame
        self.batches: list[int] = []
        self.splits: list[int] = []
        self.num_prompts = 0
        self.num_tokens = 0

    def run(self, batch: tuple[int, ...]) -> None:
        """Compute a batch of the shard.

        Raises:
            _FailingPrompts: Some prompts fail alone as well, and the process may be damaged.
            MachineFailure: The machine failed.
        """
        try:
            rows, sizes = self._model.run([self._tokenized[index] for index in batch])
        except (NonFiniteActivation, PromptTooLarge) as error:
            if not (failing := self._find_failing(batch)):
                raise
            # The process is sound: go on, so that one attempt finds all such prompts.
            self._failing.extend(failing)
            self._reason = error.fact
            # A NaN is the prompt's. Memory may be held by another program, and then all fail.
            self._proven = isinstance(error, NonFiniteActivation) or self._proven
            return
        except UlcmodError:
            raise
        except Exception as error:
            self._raise_failing(batch, error)
            raise
        indices = list(batch)
        self._activations[indices] = rows.activations
        if self._routed is not None:
            assert rows.routed is not None, "units name experts, so rows count their tokens"
            self._routed[indices] = rows.routed
        self.batches.extend(sizes)
        if len(sizes) > 1:
            self.splits.append(len(batch))
        self.num_prompts += len(batch)
        self.num_tokens += sum(len(self._tokenized[index].ids) for index in batch)

    def finish(self, prompts: Digests) -> ShardContent:
        """Return the rows for the store, or raise `_FailingPrompts` if some prompts failed."""
        if self._failing:
            proven = self._proven or self.num_prompts > 0
            raise _FailingPrompts(self._failing, self._reason, clean=True, proven=proven)
        counts = np.array([entry.num_counted for entry in self._tokenized], np.int64)
        return ShardContent(prompts, self._activations, counts, self._routed)

    def _raise_failing(self, batch: tuple[int, ...], error: Exception) -> None:
        """Raise for the prompts of a batch that fail alone as well, or for the machine."""
        failure = find_machine_failure(error)
        # A process that has lost its device fails on every prompt. One that was refused memory
        # goes on, and shows whether a prompt alone takes too much.
        if is_device_lost(error) or not (failure is None or isinstance(failure, MemoryShortage)):
            raise failure or error
        if failing := self._find_failing(batch):
            proven = self._proven or self.num_prompts > 0
            reason = describe_error(error)
            raise _FailingPrompts(failing, reason, clean=False, proven=proven) from error
        if failure is not None:
            raise failure from error

    def _find_failing(self, batch: tuple[int, ...]) -> list[int]:
        """Rows of a batch that fail alone as well; raises `MachineFailure` if the machine does."""
        failing = []
        for index in batch:
            try:
                self._model.run([self._tokenized[index]])
            except Exception as error:
                failure = find_machine_failure(error)
                if failure is not None and not isinstance(failure, MemoryShortage):
                    raise failure from error
                failing.append(index)
        # What the others yielded shows that the machine can compute.
        self._proven = self._proven or len(failing) < len(batch)
        return failing


def _peak_bytes() -> int:
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
