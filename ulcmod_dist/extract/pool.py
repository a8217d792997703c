"""The actors of an extraction, the queue in front of them, and what happens when one dies."""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import ray
from ray.exceptions import RayError

from ulcmod_dist.config.schema import PLACEMENT_TIMEOUT
from ulcmod_dist.corpus.chats import Prompt
from ulcmod_dist.errors import UlcmodError, one_line
from ulcmod_dist.extract.planner import ShardTask
from ulcmod_dist.extract.worker import (
    Placement,
    ShardProgress,
    ShardResult,
    TaskFailure,
    Worker,
)
from ulcmod_dist.runtime.ray_failures import (
    AGAIN,
    MEMORY_REMEDY,
    ask_oom_kills,
    find_machine_failure,
)
from ulcmod_dist.runtime.ray_session import (
    ActorResources,
    choose_start_timeout,
    draining_nodes,
    explain_shortage,
    max_actors,
    node_alive,
    node_resources,
)

ATTEMPTS = 3  # how often a shard or a prompt may fail before it is quarantined
SURVEY_INTERVAL = 2.0  # seconds between two looks at how many actors the cluster has room for
PROGRESS_INTERVAL = 1.0  # seconds between two questions to an actor of how far its shards are
MAX_POLLS_PER_SECOND = 20  # over all actors: their number would otherwise grow with the cluster
PROGRESS_GROUP = "progress"

logger = logging.getLogger(__name__)

ActorHandle: TypeAlias = Any
ObjectRef: TypeAlias = Any


def define_worker(resources: ActorResources) -> Any:
    """The Ray actor class of workers; ``.remote`` takes the arguments of `Worker`."""
    remote: Any = ray.remote  # typed in Ray without the options of actors
    return remote(
        num_cpus=resources.cpus,
        num_gpus=resources.gpus,
        memory=resources.memory or None,
        # One shard is computed while another is written.
        max_concurrency=2,
        # A group has threads of its own, so `progress` answers while both shards are in progress:
        # https://docs.ray.io/en/latest/ray-core/actors/concurrency_group_api.html
        concurrency_groups={PROGRESS_GROUP: 1},
        # A retry by Ray would repeat side effects of a shard; the pool hands it out again instead.
        max_restarts=0,
        max_task_retries=0,
    )(Worker)


@dataclass(frozen=True)
class TaskOutcome:
    """A task, at its last attempt, and its committed shard or the failure that ended it."""

    task: ShardTask
    result: ShardResult | TaskFailure


@dataclass
class _Actor:
    """An actor from its creation to its end; ``node`` is empty until it has its resources."""

    handle: ActorHandle
    node: str = ""
    oom_kills: int = 0
    ready: bool = False
    is_isolated: bool = False
    is_leaving: bool = False
    tasks: dict[ObjectRef, ShardTask] = field(default_factory=dict)
    progress: dict[str, ShardProgress] = field(default_factory=dict)


@dataclass
class WorkerPool:
    """Hands tasks to actors until all are done.

    It starts as many actors as the cluster has room for, or as many as asked, and looks again every
    `SURVEY_INTERVAL`: actors come and go with nodes. The tasks of a lost actor go to others. A task
    fails for good only by a fault of its prompts (see `_fail`); machines that fail again and again
    end the run. On a
    node that Ray drains, actors finish the shards in progress, get no others, and end. So do all
    once ``stop`` returns true.
    """

    start_worker: Callable[[], ActorHandle]
    get_prompts: Callable[[ShardTask], Sequence[Prompt]]  # called when a task is handed out
    resources: ActorResources
    workers: int | None = None  # may change; None for as many as there is room for
    placement_timeout: float = PLACEMENT_TIMEOUT  # seconds that actors may wait for resources
    stop: Callable[[], bool] = lambda: False
    failures: int = 0  # failed attempts at a shard
    _actors: list[_Actor] = field(default_factory=list)
    _starting: dict[ObjectRef, _Actor] = field(default_factory=dict)
    _polls: dict[ObjectRef, _Actor] = field(default_factory=dict)
    _queue: deque[ShardTask] = field(default_factory=deque)
    _failure_count: Counter[str] = field(default_factory=Counter)
    _machine_failures: Counter[str] = field(default_factory=Counter)
    _has_committed: bool = False  # since prompts were last blamed for the death of an actor
    _startup_deaths: int = 0
    _target: int = 0
    _draining: frozenset[str] = frozenset()
    _surveyed: float = float("-inf")
    _polled: float = float("-inf")
    _start_timeout: float = PLACEMENT_TIMEOUT
    _waiting_since: float = field(default_factory=time.monotonic)

    @property
    def ready(self) -> int:
        """Actors alive with a loaded model."""
        return sum(actor.ready for actor in self._actors)

    def count_in_progress(self) -> tuple[int, int]:
        """Prompts and tokens computed in shards that are not committed yet."""
        prompts = tokens = 0
        for actor in self._actors:
            for task in actor.tasks.values():
                last = actor.progress.get(task.digest)
                if last is not None and last.attempt == task.attempt:
                    prompts += last.prompts
                    tokens += last.tokens
        return prompts, tokens

    def run(self, tasks: Iterable[ShardTask]) -> Iterator[TaskOutcome | None]:
        """Run tasks; yields each outcome, and None at least every half second without one.

        Raises:
            UlcmodError: No actor gets its resources in time, no model can be loaded, machines
                fail again and again, the store refuses shards, or the run was taken over.
        """
        self._queue.extend(tasks)
        self._waiting_since = time.monotonic()
        self._start_timeout = choose_start_timeout(self.resources, self.placement_timeout)
        while self._queue or any(actor.tasks for actor in self._actors):
            if self.stop():
                self._queue.clear()
            self._scale()
            self._assign()
            self._poll_progress()
            yield from self._collect()

    def submit(self, task: ShardTask) -> None:
        """Add a task while the pool runs."""
        self._queue.append(task)

    def close(self) -> None:
        """End all actors."""
        for actor in list(self._actors):
            self._kill(actor)

    def _scale(self) -> None:
        """Start and end actors so that there are as many as wanted."""
        now = time.monotonic()
        if now - self._surveyed >= SURVEY_INTERVAL:
            self._surveyed = now
            self._target = self.workers or max(1, max_actors(self.resources, node_resources()))
            draining = draining_nodes()
            for node in sorted(draining - self._draining):
                if any(actor.node == node for actor in self._actors):
                    logger.warning(
                        "Node %s is draining: its actors finish their shards and end.", node
                    )
            self._draining = draining
        staying = [actor for actor in self._actors if actor.node not in self._draining]
        busy = sum(bool(actor.tasks) for actor in staying)
        wanted = min(self._target, busy + len(self._queue))
        for _ in range(wanted - len(staying)):
            actor = _Actor(self.start_worker())
            self._actors.append(actor)
            self._starting[actor.handle.place.remote()] = actor
        for actor in self._actors:
            actor.is_leaving = actor.node in self._draining
        for actor in staying[self._target :]:
            actor.is_leaving = True
        for actor in [actor for actor in self._actors if actor.is_leaving and not actor.tasks]:
            self._kill(actor)
        if any(actor.node for actor in self._actors) or not self._queue:
            self._waiting_since = now
        if now - self._waiting_since > self._start_timeout:
            raise UlcmodError(
                explain_shortage(self.resources, node_resources()),
                "Ask for less per actor, or give the cluster more.",
            )

    def _assign(self) -> None:
        """One shard to each idle actor, then a second one, to be computed while one is written.

        The last shards wait for whoever is idle first: an actor whose model is loaded before those
        of others would otherwise hold two while they have none.
        """
        for depth in (0, 1):
            for actor in self._actors:
                if len(self._queue) < (len(self._actors) if depth else 1):
                    return
                is_open = actor.ready and not actor.is_leaving and not actor.is_isolated
                if is_open and len(actor.tasks) == depth:
                    self._hand_out(actor)

    def _hand_out(self, actor: _Actor) -> None:
        digest = self._queue[0].digest
        failures = self._failure_count[digest] + self._machine_failures[digest]
        is_suspect = failures > 0
        if is_suspect and actor.tasks:
            # A shard that failed before runs alone: if the actor dies, the others on it would
            # count the death as a failure of theirs.
            return
        task = self._queue.popleft()
        task = replace(task, attempt=failures + 1)
        actor.is_isolated = is_suspect
        actor.tasks[actor.handle.extract.remote(task, self.get_prompts(task))] = task

    def _poll_progress(self) -> None:
        """Ask actors how far their shards are, and take the answers that have come."""
        if self._polls:
            answered, _ = ray.wait([*self._polls], num_returns=len(self._polls), timeout=0)
            for ref in answered:
                actor = self._polls.pop(ref)
                try:
                    actor.progress.update({entry.digest: entry for entry in ray.get(ref)})
                except RayError:
                    continue  # The actor died; `_collect` learns it from its tasks.
        now = time.monotonic()
        if now - self._polled < max(PROGRESS_INTERVAL, len(self._actors) / MAX_POLLS_PER_SECOND):
            return
        self._polled = now
        waiting = [id(actor) for actor in self._polls.values()]
        for actor in self._actors:
            if actor.ready and actor.tasks and id(actor) not in waiting:
                poll = actor.handle.progress.options(concurrency_group=PROGRESS_GROUP)
                self._polls[poll.remote()] = actor

    def _collect(self) -> Iterator[TaskOutcome | None]:
        owners = {ref: actor for actor in self._actors for ref in actor.tasks}
        refs = [*self._starting, *owners]
        done: list[ObjectRef] = ray.wait(refs, num_returns=1, timeout=0.5)[0] if refs else []
        if not done:
            yield None
        for ref in done:
            if ref in self._starting:
                self._finish_start(ref, self._starting.pop(ref))
            elif ref in owners:
                yield from self._finish_task(ref, owners[ref])

    def _finish_start(self, ref: ObjectRef, actor: _Actor) -> None:
        try:
            answer: Any = ray.get(ref)
        except RayError as error:
            self._forget(actor)
            if self._was_preempted(actor):
                return
            self._startup_deaths += 1
            if self._startup_deaths >= ATTEMPTS:
                failure = self._judge(actor, error)
                remedy = "Give an actor more memory (the plan says how much), or see Ray's logs."
                raise UlcmodError(
                    f"{ATTEMPTS} actors died while they loaded the model: {failure.reason}",
                    failure.remedy or remedy,
                ) from error
            return
        if not actor.node:
            placement: Placement = answer
            actor.node, actor.oom_kills = placement.node, placement.oom_kills
            self._starting[actor.handle.load.remote()] = actor
        elif isinstance(answer, TaskFailure):
            raise UlcmodError(answer.reason, answer.remedy)
        else:
            actor.ready = True
            self._startup_deaths = 0

    def _finish_task(self, ref: ObjectRef, actor: _Actor) -> Iterator[TaskOutcome]:
        result: Any
        try:
            result = ray.get(ref)
        except RayError as error:
            yield from self._finish_loss(actor, error)
            return
        task = actor.tasks.pop(ref)
        actor.progress.pop(task.digest, None)
        actor.is_isolated = False
        if isinstance(result, ShardResult):
            self._has_committed = True
            yield TaskOutcome(task, result)
            return
        if not result.clean:
            # The process may be damaged: its other shard, if any, is tried elsewhere.
            others = list(actor.tasks.values())
            self._kill(actor)
            self._queue.extendleft(others)
        yield from self._fail(task, result)

    def _finish_loss(self, actor: _Actor, error: RayError) -> Iterator[TaskOutcome]:
        """Hand the shards of an actor that died, or whose answer was lost, to others."""
        tasks = list(actor.tasks.values())
        self._kill(actor)
        if self._was_preempted(actor):
            logger.warning(
                "An actor was lost with node %s; %d shards go back.", actor.node, len(tasks)
            )
            self._queue.extendleft(reversed(tasks))
            return
        failure = self._judge(actor, error)
        for task in tasks:
            yield from self._fail(task, failure)

    def _judge(self, actor: _Actor, error: RayError) -> TaskFailure:
        """Whose failure the loss of an actor is; see `find_machine_failure`."""
        if (failure := find_machine_failure(error)) is not None:
            return TaskFailure("machine", failure.fact, failure.remedy, clean=False)
        reason = one_line(error)[:300]
        if ask_oom_kills(actor.node) > actor.oom_kills:
            # The kernel leaves no other trace: Ray sees a process that is gone.
            fact = "The kernel of a machine ended processes for lack of memory, and an actor died"
            return TaskFailure("machine", f"{fact}: {reason}.", MEMORY_REMEDY, clean=False)
        return TaskFailure("shard", f"The actor died: {reason}", clean=False, proven=False)

    def _fail(self, task: ShardTask, failure: TaskFailure) -> Iterator[TaskOutcome]:
        """Try a task again, or end it with its prompts to blame, or end the run.

        A failure of a machine never counts against prompts: the task is tried again after all
        others, and `ATTEMPTS` such failures of one task end the run. Prompts are to blame for
        `ATTEMPTS` failures of their own, if others succeed: in the same process, or in a shard
        committed since prompts were last blamed. Where nothing else succeeds either, the machine
        is taken to be the cause.
        """
        if failure.scope == "run":
            raise UlcmodError(failure.reason, failure.remedy)
        if failure.scope == "refused":
            yield TaskOutcome(task, failure)
            return
        self.failures += 1
        counts = self._machine_failures if failure.scope == "machine" else self._failure_count
        counts[task.digest] += 1
        attempt = counts[task.digest]
        if attempt <= ATTEMPTS:
            logger.warning(
                "Attempt %d of %d at a shard failed: %s", attempt, ATTEMPTS, failure.reason
            )
        if attempt < ATTEMPTS:
            (self._queue.append if failure.scope == "machine" else self._queue.appendleft)(task)
        elif failure.scope == "machine":
            raise UlcmodError(failure.reason, failure.remedy)
        elif failure.scope == "store":
            raise UlcmodError(failure.reason, "Start the same command again once it takes data.")
        elif failure.proven or self._has_committed:
            self._has_committed = self._has_committed and failure.proven
            yield TaskOutcome(replace(task, attempt=ATTEMPTS), failure)
        elif self._has_other_than(task):
            self._queue.append(task)
        else:
            raise UlcmodError(
                f"{ATTEMPTS} attempts at every shard failed and none succeeded, so that the "
                f"machine is the likely cause, not the prompts: {failure.reason}",
                f"See the logs of Ray, and the kernel's, {AGAIN}",
            )

    def _has_other_than(self, task: ShardTask) -> bool:
        """Whether another task is left that has not failed as often."""
        running = [other for actor in self._actors for other in actor.tasks.values()]
        left = [other.digest for other in (*self._queue, *running) if other.digest != task.digest]
        return any(self._failure_count[digest] < ATTEMPTS for digest in left)

    def _was_preempted(self, actor: _Actor) -> bool:
        """Whether an actor was taken away, with its node or by wish, and did not fail."""
        return actor.is_leaving or (bool(actor.node) and not node_alive(actor.node))

    def _forget(self, actor: _Actor) -> None:
        self._actors.remove(actor)
        for refs in (self._starting, self._polls):
            for ref in [ref for ref, other in refs.items() if other is actor]:
                del refs[ref]

    def _kill(self, actor: _Actor) -> None:
        self._forget(actor)
        ray.kill(actor.handle)
