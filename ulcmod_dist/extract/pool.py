"""The actors, the queue in front of them, and what happens when one of them dies."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import ray
from ray.exceptions import RayActorError, RayError

from ulcmod_dist.config.schema import ExtractConfig
from ulcmod_dist.corpus.prompts import Prompt
from ulcmod_dist.errors import UlcmodError, one_line
from ulcmod_dist.extract.planner import ShardTask
from ulcmod_dist.extract.worker import ShardResult, TaskFailure
from ulcmod_dist.runtime.ray_session import (
    ActorResources,
    draining_nodes,
    explain_shortage,
    has_capacity,
    max_actors,
    node_alive,
    node_resources,
)

ATTEMPTS = 3
"""How often a shard or a prompt may fail before it is quarantined."""
PLACEMENT_TIMEOUT = 45.0
"""How long actors may wait for resources before the run gives up and says what is short."""
AUTOSCALING_TIMEOUT = 1200.0
"""The same on a cluster whose machines come when actors wait for them, which takes minutes."""
STARTUP_TIMEOUT = 600.0
"""How long processes may take to start once their resources were free: a busy machine is slow."""
POLL_INTERVAL = 2.0
"""How often the cluster is asked how many actors it has room for."""

ActorHandle: TypeAlias = Any
ObjectRef: TypeAlias = Any


def get_placement_timeout(config: ExtractConfig) -> float:
    """Seconds that actors may wait for resources.

    A named cluster may still be adding the machines for a known number of actors; this machine, or
    a cluster taken as it is, is not.
    """
    if config.patience is not None:
        return config.patience
    is_remote = config.address or os.environ.get("RAY_ADDRESS")
    return AUTOSCALING_TIMEOUT if is_remote and config.workers else PLACEMENT_TIMEOUT


@dataclass(frozen=True)
class TaskOutcome:
    """What became of a task that the pool is done with.

    Attributes:
        task: The task, with the number of its last attempt.
        result: The commit, or the failure that made the pool give it up.
    """

    task: ShardTask
    result: ShardResult | TaskFailure


@dataclass
class _Actor:
    handle: ActorHandle
    node: str = ""
    ready: bool = False
    alone: bool = False
    leaving: bool = False
    tasks: dict[ObjectRef, ShardTask] = field(default_factory=dict)


@dataclass
class WorkerPool:
    """Hands tasks to actors until all are done.

    Actors come and go while it runs: it starts as many as the cluster has room for, or as many as
    asked, and a task of an actor that is gone goes to another one. On a node that Ray drains,
    shards under way are finished, no others are begun, and the actors then make way.

    Attributes:
        make: Starts an actor.
        get_prompts: The prompts of a task, looked up when it is handed out.
        resources: What an actor takes.
        workers: Number of actors wanted; None for as many as the cluster has room for.
        placement_timeout: How long actors may wait for resources.
        stop: Asked now and then; once true, shards under way are finished and no others begun.
        warn: Told what goes wrong and is made good: an attempt that failed, an actor or node lost.
        failures: Attempts that failed.
    """

    make: Callable[[], ActorHandle]
    get_prompts: Callable[[ShardTask], Sequence[Prompt]]
    resources: ActorResources
    workers: int | None = None
    placement_timeout: float = PLACEMENT_TIMEOUT
    stop: Callable[[], bool] = lambda: False
    warn: Callable[[str], None] = lambda message: None
    failures: int = 0
    _actors: list[_Actor] = field(default_factory=list)
    _pending: dict[ObjectRef, _Actor] = field(default_factory=dict)
    _queue: deque[ShardTask] = field(default_factory=deque)
    _failure_count: Counter[str] = field(default_factory=Counter)
    _deaths_at_start: int = 0
    _target: int = 0
    _draining: frozenset[str] = frozenset()
    _surveyed: float = float("-inf")
    _was_free: bool = False
    _waiting_since: float = field(default_factory=time.monotonic)

    @property
    def ready(self) -> int:
        """Actors alive with a loaded model."""
        return sum(actor.ready for actor in self._actors)

    def resize(self, workers: int | None) -> None:
        """Want another number of actors; superfluous ones end when their shards are done."""
        self.workers = workers
        self._surveyed = float("-inf")

    def run(self, tasks: Iterable[ShardTask]) -> Iterator[TaskOutcome | None]:
        """Work tasks off; yields each one's outcome, and None when a moment passed without any.

        Raises:
            UlcmodError: No actor finds its resources in time, no model can be loaded, the store
                takes nothing, or the run was taken over.
        """
        self._queue.extend(tasks)
        self._waiting_since = time.monotonic()
        self._was_free = max_actors(self.resources, node_resources()) > 0 and has_capacity(
            self.resources
        )
        while self._queue or any(actor.tasks for actor in self._actors):
            if self.stop():
                self._queue.clear()
            self._staff()
            self._assign()
            yield from self._collect()

    def submit(self, task: ShardTask) -> None:
        """Add a task while the pool runs."""
        self._queue.append(task)

    def close(self) -> None:
        """End all actors."""
        for actor in self._actors:
            ray.kill(actor.handle)
        self._actors.clear()
        self._pending.clear()

    def _staff(self) -> None:
        """Start and end actors so that there are as many as wanted."""
        now = time.monotonic()
        if now - self._surveyed >= POLL_INTERVAL:
            self._surveyed = now
            self._target = self.workers or max(1, max_actors(self.resources, node_resources()))
            self._look_for_draining()
        staying = [actor for actor in self._actors if actor.node not in self._draining]
        busy = sum(bool(actor.tasks) for actor in staying)
        wanted = min(self._target, busy + len(self._queue))
        for _ in range(wanted - len(staying)):
            actor = _Actor(self.make())
            self._actors.append(actor)
            self._pending[actor.handle.place.remote()] = actor
        for actor in self._actors:
            actor.leaving = actor.node in self._draining
        for actor in staying[self._target :]:
            actor.leaving = True
        for actor in [actor for actor in self._actors if actor.leaving and not actor.tasks]:
            self._remove(actor)
        if any(actor.node for actor in self._actors) or not self._queue:
            self._waiting_since = now
        else:
            self._require_placement(now - self._waiting_since)

    def _look_for_draining(self) -> None:
        draining = draining_nodes()
        for node in sorted(draining - self._draining):
            if any(actor.node == node for actor in self._actors):
                self.warn(f"Node {node} is about to go: its actors finish their shards and leave.")
        self._draining = draining

    def _require_placement(self, waited: float) -> None:
        """Return if the first actors may still come.

        Resources that were free when the actors were asked for are theirs by now, though their
        processes may not have answered yet.
        """
        nodes = node_resources()
        if waited > (STARTUP_TIMEOUT if self._was_free else self.placement_timeout):
            raise UlcmodError(
                explain_shortage(self.resources, nodes),
                "Ask for less per actor, or give the cluster more.",
            )

    def _assign(self) -> None:
        """One shard to each idle actor, then a second one, to be computed while one is written."""
        for depth in (0, 1):
            for actor in self._actors:
                if not self._queue:
                    return
                if actor.ready and not actor.leaving | actor.alone and len(actor.tasks) == depth:
                    self._hand_out(actor)

    def _hand_out(self, actor: _Actor) -> None:
        suspect = self._failure_count[self._queue[0].digest] > 0
        if suspect and actor.tasks:
            # What has failed before runs alone, so that no innocent shard shares the blame.
            return
        task = self._queue.popleft()
        task = replace(task, attempt=self._failure_count[task.digest] + 1)
        actor.alone = suspect
        actor.tasks[actor.handle.extract.remote(task, self.get_prompts(task))] = task

    def _collect(self) -> Iterator[TaskOutcome | None]:
        owners = {ref: actor for actor in self._actors for ref in actor.tasks}
        refs = [*self._pending, *owners]
        done: list[ObjectRef] = ray.wait(refs, num_returns=1, timeout=0.5)[0] if refs else []
        if not done:
            yield None
        for ref in done:
            if ref in self._pending:
                self._started(ref, self._pending.pop(ref))
            elif ref in owners:
                yield from self._finished(ref, owners[ref])

    def _started(self, ref: ObjectRef, actor: _Actor) -> None:
        try:
            answer: Any = ray.get(ref)
        except RayError as error:
            self._lose(actor)
            if self._was_preempted(actor):
                return
            self._deaths_at_start += 1
            if self._deaths_at_start >= ATTEMPTS:
                raise UlcmodError(
                    f"{ATTEMPTS} actors died while they loaded the model: {one_line(error)[:300]}",
                    "Give an actor more memory (the plan says how much), or see Ray's logs.",
                ) from error
            return
        if not actor.node:
            actor.node = answer
            self._pending[actor.handle.load.remote()] = actor
        elif isinstance(answer, TaskFailure):
            raise UlcmodError(answer.reason, answer.remedy)
        else:
            actor.ready = True
            self._deaths_at_start = 0

    def _finished(self, ref: ObjectRef, actor: _Actor) -> Iterator[TaskOutcome]:
        result: Any
        try:
            result = ray.get(ref)
        except RayActorError as error:
            lost = list(actor.tasks.values())
            self._lose(actor)
            if self._was_preempted(actor):
                self.warn(f"An actor was lost with node {actor.node}; {len(lost)} shards go back.")
                self._queue.extendleft(reversed(lost))
                return
            death = TaskFailure("shard", f"The actor died: {one_line(error)[:300]}", clean=False)
            for task in lost:
                yield from self._failed(task, death)
            return
        except RayError as error:
            result = TaskFailure(
                "shard", f"Ray lost the answer: {type(error).__name__}", clean=False
            )
        task = actor.tasks.pop(ref)
        actor.alone = False
        if isinstance(result, ShardResult):
            yield TaskOutcome(task, result)
            return
        if not result.clean:
            # The process may be damaged; its other shard, if any, is tried again elsewhere.
            others = list(actor.tasks.values())
            self._remove(actor)
            self._queue.extendleft(others)
        yield from self._failed(task, result)

    def _failed(self, task: ShardTask, failure: TaskFailure) -> Iterator[TaskOutcome]:
        if failure.scope == "run":
            raise UlcmodError(failure.reason, failure.remedy)
        self.failures += 1
        self._failure_count[task.digest] += 1
        attempt = self._failure_count[task.digest]
        self.warn(f"Attempt {attempt} of {ATTEMPTS} at a shard failed: {failure.reason}")
        if attempt < ATTEMPTS:
            self._queue.appendleft(task)
        elif failure.scope == "store":
            raise UlcmodError(failure.reason, "Start the same command again once it takes data.")
        else:
            yield TaskOutcome(replace(task, attempt=ATTEMPTS), failure)

    def _was_preempted(self, actor: _Actor) -> bool:
        """Whether an actor was taken away, with its node or by wish, and did not fail."""
        return actor.leaving or (bool(actor.node) and not node_alive(actor.node))

    def _lose(self, actor: _Actor) -> None:
        self._actors.remove(actor)
        self._pending = {ref: other for ref, other in self._pending.items() if other is not actor}

    def _remove(self, actor: _Actor) -> None:
        self._lose(actor)
        ray.kill(actor.handle)
