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
from typing import Any, NamedTuple, TypeAlias

from ulcmod_dist.errors import UlcmodError, one_line
from ulcmod_dist.runtime.memory import reuse_freed_memory

Task: TypeAlias = Callable[..., Any]
"""What a worker calls with an item, what all items share, and further arguments of the item."""

START_TIMEOUT = 120.0  # seconds for the first worker to start
_OTHERS_TIMEOUT = 20.0  # seconds for the others after it; later ones join while the executor runs
_JOIN_SECONDS = 10.0  # seconds between two looks for workers that have joined
_ATTEMPTS = 5  # times that a call may be lost with its worker


class _Kept(NamedTuple):
    """A result that a worker keeps, and how it is made where it is not there yet."""

    key: str
    recipe: tuple[Task, Any, bytes] | None


class Message(NamedTuple):
    """Calls of a function, each an item and its further arguments; ``dropped`` are keys to free."""

    function: Task
    shared: bytes
    calls: list[tuple[Any, ...]]
    dropped: list[str]


class TaskRunner:
    """What an executor has on a worker: it makes calls on threads of its own, and keeps results.

    ``own_process``: nothing else runs in its process, as in an actor of Ray.
    """

    def __init__(self, threads: int, own_process: bool = False) -> None:
        # Handing calls to a single thread takes longer than many a call.
        self._map: Any = ThreadPoolExecutor(threads).map if threads > 1 else map
        self._kept: dict[str, Any] = {}
        if own_process:
            reuse_freed_memory()

    def run(self, message: Message) -> list[Any] | Exception:
        """The results of all calls of a message, or what one of them raised."""
        for key in message.dropped:
            self._kept.pop(key, None)
        call = partial(self._call, message.function, _load_shared(message.shared))
        try:
            return list(self._map(call, message.calls))
        except Exception as error:
            error.add_note("".join(traceback.format_exception(error)))
            return error

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
    """A worker as its executor sees it; ``send`` has its `TaskRunner` run a message."""

    address: str
    threads: int
    send: Callable[[Message], Future[Any]]
    lost: bool = False
    dropped: deque[str] = field(default_factory=deque)


class Handle:
    """A result that a worker keeps, made by the first call that wants it."""

    def __init__(self, function: Task, item: Any, shared: bytes) -> None:
        self.key = uuid.uuid4().hex
        self.recipe = function, item, shared
        self.worker: Worker | None = None
        self.is_made = False

    def __del__(self) -> None:
        if self.worker is not None:
            self.worker.dropped.append(self.key)


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
    def launch(self, known: Sequence[Worker]) -> dict[Future[Any], Worker]:
        """Start workers beside the known ones, each with a future that is done when it is there."""

    def map(
        self, function: Task, items: Sequence[Any], shared: Any, *others: Sequence[Any]
    ) -> Iterator[Any]:
        """The result of ``function(item, shared, *others)`` for each item or handle, in order.

        Raises:
            UlcmodError: There are no workers, or they were ended again and again.
        """
        calls = list(zip(items, *others, strict=True))
        yield from _Calls(self, function, calls, _dump(shared)).results()

    def keep(self, function: Task, items: Sequence[Any], shared: Any) -> list[Handle]:
        """Handles of results, each made and kept on a worker by the first call that wants it."""
        given = _dump(shared)
        return [Handle(function, item, given) for item in items]

    def find_workers(self) -> list[Worker]:
        """The workers that are not lost, with those that have joined.

        Raises:
            UlcmodError: There are none.
        """
        with self._lock:
            is_late = time.monotonic() > self._looked + _JOIN_SECONDS
            if is_late or not self._workers or any(worker.lost for worker in self._workers):
                self._look_for_workers()
            return self._workers

    def _look_for_workers(self) -> None:
        workers = [worker for worker in self._workers if not worker.lost]
        patience = 0.0 if self._looked else _OTHERS_TIMEOUT
        self._starting |= self.launch([*workers, *self._starting.values()])
        if not workers:
            wait(self._starting, START_TIMEOUT, FIRST_COMPLETED)
        done, _ = wait(self._starting, patience)
        errors = {self._starting.pop(future): future.exception() for future in done}
        workers += [worker for worker, error in errors.items() if error is None]
        if not workers:
            known = [one_line(error)[:300] for error in errors.values() if error is not None]
            reason = known[0] if known else f"none has started within {START_TIMEOUT:g} s"
            raise UlcmodError(
                f"There is no worker for the search: {reason}.",
                "See that the cluster runs and has a free CPU, and start the same command again: "
                "it continues from its last checkpoint.",
            )
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
        self._executor, self._calls = executor, calls
        self._function, self._shared = function, shared
        self._answers: SimpleQueue[tuple[Worker, list[int], Future[Any]]] = SimpleQueue()
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
        """Send calls to the workers that keep their items, or will; others to whoever is free."""
        workers = self._executor.find_workers()
        threads = [worker for worker in workers for _ in range(worker.threads)]
        placed: defaultdict[Worker, list[int]] = defaultdict(list)
        for number in numbers:
            handle = self._calls[number][0]
            if not isinstance(handle, Handle):
                self._waiting.append(number)
                continue
            if handle.worker is None or handle.worker.lost:
                handle.worker, handle.is_made = threads[number % len(threads)], False
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
        calls = []
        for item, *others in (self._calls[number] for number in numbers):
            if isinstance(item, Handle):
                item = _Kept(item.key, None if item.is_made else item.recipe)
            calls.append((item, *others))
        dropped = [worker.dropped.popleft() for _ in range(len(worker.dropped))]
        self._busy[worker] += 1
        put = self._answers.put
        future = worker.send(Message(self._function, self._shared, calls, dropped))
        future.add_done_callback(lambda done: put((worker, numbers, done)))

    def _receive(self, worker: Worker, numbers: list[int], future: Future[Any]) -> None:
        self._busy[worker] -= 1
        try:
            answer = future.result()
        except self._executor.losses as error:
            worker.lost = True
            self._losses.update(numbers)
            if max(self._losses.values()) == _ATTEMPTS:
                raise UlcmodError(
                    "Workers of the search ended again and again in the same task, mostly because "
                    f"they ran out of memory: {one_line(error)[:300]}.",
                    "Lower discover.memory, or give the workers more memory.",
                ) from error
            self._place(numbers)
            return
        if isinstance(answer, Exception):
            raise answer
        self._results.update(zip(numbers, answer, strict=True))
        for handle in (self._calls[number][0] for number in numbers):
            if isinstance(handle, Handle) and handle.worker is worker:
                handle.is_made = True
        self._send_waiting(self._executor.find_workers())


def _dump(value: Any) -> bytes:
    # Functions of scripts and notebooks included, as pickle alone would not.
    from distributed.protocol.pickle import dumps

    return bytes(dumps(value))
