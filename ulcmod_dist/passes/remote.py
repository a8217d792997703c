"""Executors whose workers are other processes: each is sent its calls directly.

A scheduler takes some tens of milliseconds for the tasks of a pass, which is more than many a pass
computes. So every worker has a `TaskRunner`, an actor of Dask or Ray. One message holds all that it
does in a pass, and one answer its results.
"""

from __future__ import annotations

import pickle
import threading
import time
import traceback
import uuid
from abc import ABC, abstractmethod
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import lru_cache, partial
from queue import SimpleQueue
from typing import Any, TypeAlias

from ulcmod_dist.errors import UlcmodError

Task: TypeAlias = Callable[..., Any]
"""What a worker calls with an item, what all items share, and further arguments of the item."""

START_TIMEOUT = 120.0  # seconds for the first worker to start
_OTHERS_TIMEOUT = 20.0  # seconds for the others after it; later ones join while the executor runs
_JOIN_SECONDS = 10.0  # seconds between two looks for workers that have joined
_ATTEMPTS = 5  # times that a call may be lost with its worker


@dataclass(frozen=True, eq=False)
class _Kept:
    """A result that a worker keeps, and how it is made where it is not there yet."""

    key: str
    recipe: tuple[Task, Any, bytes] | None


@dataclass(frozen=True, eq=False)
class Message:
    """Calls of a function, each an item and its further arguments; ``dropped`` are keys to free."""

    function: Task
    shared: bytes
    calls: list[tuple[Any, ...]]
    dropped: list[str]


@dataclass(frozen=True, eq=False)
class Answer:
    """Results of the calls, or what one of them raised."""

    results: list[Any]
    error: Exception | None = None


class TaskRunner:
    """What an executor has on a worker: it makes calls on threads of its own, and keeps results."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads)
        self._kept: dict[str, Any] = {}

    def run(self, message: Message) -> Answer:
        """Make all calls of a message."""
        for key in message.dropped:
            self._kept.pop(key, None)
        call = partial(self._call, message.function, _load_shared(message.shared))
        try:
            return Answer(list(self._pool.map(call, message.calls)))
        except Exception as error:
            error.add_note("".join(traceback.format_exception(error)))
            return Answer([], error)

    def _call(self, function: Task, shared: Any, call: tuple[Any, ...]) -> Any:
        item, *others = call
        if isinstance(item, _Kept):
            if item.recipe is not None and item.key not in self._kept:
                make, source, given = item.recipe
                self._kept[item.key] = make(source, _load_shared(given))
            item = self._kept[item.key]
        return function(item, shared, *others)


@lru_cache(maxsize=4)
def _load_shared(shared: bytes) -> Any:
    """What the items of a pass share. The rule of a large graph takes a while to load."""
    return pickle.loads(shared)  # noqa: S301 - as all that Dask and Ray send


@dataclass(eq=False)
class Worker:
    """A worker as its executor sees it; ``actor`` is its `TaskRunner`."""

    threads: int
    actor: Any
    lost: bool = False
    dropped: deque[str] = field(default_factory=deque)


class Handle:
    """A result that a worker keeps, made by the first call that wants it."""

    def __init__(self, key: str, function: Task, item: Any, shared: bytes) -> None:
        self.key = key
        self.recipe = function, item, shared
        self.worker: Worker | None = None
        self.is_made = False

    def __del__(self) -> None:
        if self.worker is not None:
            self.worker.dropped.append(self.key)


class LostCalls(Exception):
    """A call was lost with its worker again and again, for the cause of this."""


class NoWorkers(LostCalls):
    """There are no workers."""


class RemoteExecutor(ABC):
    """An executor of workers that are called directly; calls of lost ones are made by others."""

    in_process = False
    losses: tuple[type[BaseException], ...] = ()
    """Errors of a call that mean that its worker is lost."""

    def __init__(self) -> None:
        self._workers: list[Worker] = []
        self._starting: dict[Future[Any], Worker] = {}
        self._lock = threading.Lock()
        self._looked = 0.0

    @abstractmethod
    def dump(self, value: Any) -> bytes:
        """Pickle a value, functions of scripts included."""

    @abstractmethod
    def launch(self, known: Sequence[Worker]) -> list[tuple[Worker, Future[Any]]]:
        """Start workers beside the known ones; each future is done when its worker has started."""

    @abstractmethod
    def send(self, worker: Worker, message: Message) -> Future[Answer]:
        """Send a message to a worker; the future is done when its answer is here."""

    @abstractmethod
    def explain(self, lost: LostCalls) -> UlcmodError:
        """The error of calls that cannot be made."""

    def map(
        self, function: Task, items: Sequence[Any], shared: Any, *others: Sequence[Any]
    ) -> Iterator[Any]:
        """The result of ``function(item, shared, *others)`` for each item or handle, in order.

        Raises:
            UlcmodError: There are no workers, or they were ended again and again.
        """
        calls = list(zip(items, *others, strict=True))
        try:
            yield from _Calls(self, function, calls, self.dump(shared)).results()
        except LostCalls as lost:
            raise self.explain(lost) from lost.__cause__

    def keep(self, function: Task, items: Sequence[Any], shared: Any) -> list[Handle]:
        """Handles of results, each made and kept on a worker by the first call that wants it."""
        given = self.dump(shared)
        return [Handle(uuid.uuid4().hex, function, item, given) for item in items]

    def find_workers(self) -> list[Worker]:
        """The workers that are not lost, with those that have joined.

        Raises:
            NoWorkers: There are none.
        """
        with self._lock:
            if time.monotonic() > self._looked + _JOIN_SECONDS or any(
                worker.lost for worker in self._workers
            ):
                self._look_for_workers()
            return self._workers

    def _look_for_workers(self) -> None:
        workers = [worker for worker in self._workers if not worker.lost]
        is_first = not self._looked
        self._starting.update(
            (future, worker) for worker, future in self.launch([*workers, *self._starting.values()])
        )
        if not workers:
            wait(self._starting, START_TIMEOUT, FIRST_COMPLETED)
        done, _ = wait(self._starting, _OTHERS_TIMEOUT if is_first else 0)
        started = [(self._starting.pop(future), future.exception()) for future in done]
        workers += [worker for worker, error in started if error is None]
        if not workers:
            raise NoWorkers from next((error for _, error in started if error), None)
        self._workers, self._looked = workers, time.monotonic()


class _Calls:
    """Calls of one function, under way on the workers of an executor."""

    def __init__(
        self,
        executor: RemoteExecutor,
        function: Task,
        calls: Sequence[tuple[Any, ...]],
        shared: bytes,
    ) -> None:
        self._executor, self._function, self._calls, self._shared = (
            executor,
            function,
            calls,
            shared,
        )
        self._answers: SimpleQueue[tuple[Worker, list[int], Future[Answer]]] = SimpleQueue()
        self._results: dict[int, Any] = {}
        self._waiting: deque[int] = deque()
        self._busy: Counter[Worker] = Counter()
        self._losses: Counter[int] = Counter()
        self._place(range(len(calls)))

    def results(self) -> Iterator[Any]:
        """The results in the order of the calls."""
        for number in range(len(self._calls)):
            while number not in self._results:
                self._receive(*self._answers.get())
            yield self._results.pop(number)

    def _place(self, numbers: Sequence[int]) -> None:
        """Send calls to the workers that keep their items, or will; the others to who is free."""
        workers = self._executor.find_workers()
        # A thread of every worker, then the second of those that have two, and so on.
        turns = sorted(
            (turn, n) for n, worker in enumerate(workers) for turn in range(worker.threads)
        )
        placed: defaultdict[Worker, list[int]] = defaultdict(list)
        for number in numbers:
            handle = self._calls[number][0]
            if not isinstance(handle, Handle):
                self._waiting.append(number)
                continue
            if handle.worker is None or handle.worker.lost:
                handle.worker, handle.is_made = workers[turns[number % len(turns)][1]], False
            placed[handle.worker].append(number)
        for worker, chosen in placed.items():
            self._send(worker, chosen)
        self._send_waiting(workers)

    def _send_waiting(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            if self._waiting and not self._busy[worker]:
                most = min(worker.threads, len(self._waiting))
                self._send(worker, [self._waiting.popleft() for _ in range(most)])

    def _send(self, worker: Worker, numbers: list[int]) -> None:
        calls = [
            (_describe(item), *others) for item, *others in map(self._calls.__getitem__, numbers)
        ]
        dropped = [worker.dropped.popleft() for _ in range(len(worker.dropped))]
        self._busy[worker] += 1
        future = self._executor.send(worker, Message(self._function, self._shared, calls, dropped))
        put = self._answers.put
        future.add_done_callback(lambda done: put((worker, numbers, done)))

    def _receive(self, worker: Worker, numbers: list[int], future: Future[Answer]) -> None:
        self._busy[worker] -= 1
        try:
            answer = future.result()
        except self._executor.losses as error:
            worker.lost = True
            self._losses.update(numbers)
            if max(self._losses.values()) == _ATTEMPTS:
                raise LostCalls from error
            self._place(numbers)
            return
        if answer.error is not None:
            raise answer.error
        self._results.update(zip(numbers, answer.results, strict=True))
        for handle in (self._calls[number][0] for number in numbers):
            if isinstance(handle, Handle) and handle.worker is worker:
                handle.is_made = True
        self._send_waiting(self._executor.find_workers())


def _describe(item: Any) -> Any:
    """An item as a worker gets it."""
    if isinstance(item, Handle):
        return _Kept(item.key, None if item.is_made else item.recipe)
    return item
