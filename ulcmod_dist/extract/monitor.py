"""An extraction under way: what is done, what is given up, and how fast it goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from ray.util.metrics import Gauge

from ulcmod_dist.extract.planner import PreparedExtraction, ShardTask, drop_prompts
from ulcmod_dist.extract.pool import TaskOutcome, WorkerPool
from ulcmod_dist.extract.progress import STATUS, ExtractionProgress
from ulcmod_dist.extract.worker import TaskFailure
from ulcmod_dist.runtime.lease import Fence
from ulcmod_dist.runtime.ray_session import metrics_addresses
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.records import QuarantineEntry, add_to_quarantine

METRIC_PREFIX = "ulcmod_extract_"
STATUS_INTERVAL = 5.0
"""Seconds between two writes of the status file of a running extraction."""


@dataclass
class ExtractionMonitor:
    """Follows a pool through its tasks.

    Attributes:
        run: The run directory.
        prepared: Plan and corpus.
        fence: Asked before a prompt is put into quarantine.
        pool: The actors.
        tasks: What there is to do; a shard of which prompts were given up is replaced.
        report: Called with the progress now and then.
        held: What is in quarantine, by the prompt's digest.
        computed: Digests of the shards committed.
    """

    run: RunDir
    prepared: PreparedExtraction
    fence: Fence
    pool: WorkerPool
    tasks: list[ShardTask]
    report: Callable[[ExtractionProgress], None]
    held: dict[str, QuarantineEntry]
    computed: list[str] = field(default_factory=list)
    _done: list[ShardTask] = field(default_factory=list)
    _began: float | None = None
    _peak_bytes: int = 0

    def follow(self, workers: int | Callable[[], int | None] | None) -> ExtractionProgress:
        """Work the tasks off; returns the last progress."""
        reporter = _StatusPublisher(self.run)
        ask = workers if callable(workers) else (lambda: workers)
        self.pool.workers = ask()
        for outcome in self.pool.run(self.tasks):
            if (wanted := ask()) != self.pool.workers:
                self.pool.resize(wanted)
            if self._began is None and self.pool.ready:
                self._began = time.monotonic()
            if outcome is not None:
                self._take(outcome)
            self.report(self.progress())
            reporter.publish(self.progress())
        reporter.publish(self.progress(), last=True)
        return self.progress()

    def progress(self) -> ExtractionProgress:
        """How far it is."""
        done, tokens = len(self._done), sum(task.tokens for task in self._done)
        total = sum(task.tokens for task in self.tasks)
        prompts = sum(len(task.rows) for task in self._done)
        seconds = time.monotonic() - self._began if self._began is not None else 0.0
        rate = tokens / seconds if seconds > 0 else 0.0
        return ExtractionProgress(
            shards_done=done,
            shards=len(self.tasks),
            prompts_done=prompts,
            prompts=sum(len(task.rows) for task in self.tasks),
            tokens_done=tokens,
            tokens=total,
            prompts_per_second=prompts / seconds if seconds > 0 else 0.0,
            tokens_per_second=rate,
            actors=self.pool.ready,
            failures=self.pool.failures,
            quarantined=len(self.held),
            seconds_left=(total - tokens) / rate if rate > 0 else None,
            peak_bytes=self._peak_bytes,
        )

    def _take(self, outcome: TaskOutcome) -> None:
        if isinstance(outcome.result, TaskFailure):
            self._give_up(outcome.task, outcome.result)
        else:
            self._done.append(outcome.task)
            self.computed.append(outcome.result.digest)
            self._peak_bytes = max(self._peak_bytes, outcome.result.peak_bytes)

    def _give_up(self, task: ShardTask, failure: TaskFailure) -> None:
        """Quarantine what is to blame and queue the rest of the shard again."""
        blamed = set(failure.prompts or task.prompts)
        ids = self.prepared.prompts.table["sample_id"]
        named: dict[str, list[str]] = {prompt: [] for prompt in blamed}
        for row, digest in enumerate(self.prepared.digests):
            if digest in blamed:
                named[digest].append(ids[row].as_py())
        self.fence.check()
        self.pool.warn(f"Into quarantine, prompts: {len(named)}. {failure.reason}")
        for prompt, samples in sorted(named.items()):
            entry = QuarantineEntry(prompt, tuple(samples), failure.reason, task.attempt)
            add_to_quarantine(self.run, entry)
            self.held[prompt] = entry
        self.tasks.remove(next(other for other in self.tasks if other.digest == task.digest))
        if (rest := drop_prompts(task, blamed, self.prepared.plan.record)) is not None:
            self.tasks.append(rest)
            self.pool.submit(rest)


@dataclass
class _StatusPublisher:
    """Publishes the progress of one extraction; needs a connection to Ray.

    Attributes:
        run: The run directory, whose URL labels the metrics.
    """

    run: RunDir
    _gauges: dict[str, Gauge] = field(default_factory=dict)
    _written: float = float("-inf")

    def publish(self, progress: ExtractionProgress, *, last: bool = False) -> None:
        """Set the metrics, and renew the file where it is due or the progress is the last."""
        values = progress.as_json()
        for name, value in values.items():
            if value is not None:
                self._gauge(name).set(float(value), tags={"run": self.run.url})
        now = time.monotonic()
        if last or now - self._written >= STATUS_INTERVAL:
            self._written = now
            status = {"progress": values, "time": time.time(), "metrics": metrics_addresses()}
            self.run.write_json(STATUS, status)

    def _gauge(self, name: str) -> Gauge:
        if name not in self._gauges:
            words = name.replace("_", " ")
            self._gauges[name] = Gauge(f"{METRIC_PREFIX}{name}", f"Extraction: {words}", ("run",))
        return self._gauges[name]
