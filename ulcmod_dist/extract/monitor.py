"""A running extraction: what is done, what goes into quarantine, and how fast it goes."""

import logging
import string
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from urllib.parse import quote

import numpy as np
from ray.util.metrics import Gauge

from ulcmod_dist.corpus.digests import find_digests, from_hex, to_hex
from ulcmod_dist.extract.planner import PreparedExtraction, ShardTask, drop_prompts
from ulcmod_dist.extract.pool import WorkerPool
from ulcmod_dist.extract.worker import TaskFailure
from ulcmod_dist.runtime.lease import Fence
from ulcmod_dist.runtime.ray_session import metrics_addresses
from ulcmod_dist.runtime.rundir import EXTRACTION_FILE, RunDir
from ulcmod_dist.store.records import QuarantineEntry, add_to_quarantine

STATUS_INTERVAL = 5.0  # seconds between two writes of the status file of a running extraction

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExtractionProgress:
    """How far an extraction is. Shards committed by earlier runs are not counted."""

    shards_done: int = 0
    shards: int = 0
    prompts_done: int = 0  # in shards committed or in progress
    prompts: int = 0
    tokens_done: int = 0
    tokens: int = 0
    prompts_per_second: float = 0.0  # since the first model was loaded
    tokens_per_second: float = 0.0
    actors: int = 0  # alive with a loaded model
    failures: int = 0  # failed attempts at a shard
    quarantined: int = 0  # prompts
    seconds_left: float | None = None  # from the tokens left; None before the first batch
    peak_bytes: int = 0  # largest resident memory that an actor has had


@dataclass
class ExtractionMonitor:
    """Runs tasks on a pool, quarantines what fails for good, and reports progress.

    ``on_progress`` is called at least every half second, and after each shard.
    """

    run: RunDir
    prepared: PreparedExtraction
    fence: Fence  # checked before a prompt is put into quarantine
    pool: WorkerPool
    tasks: list[ShardTask]  # a shard of which prompts are quarantined is replaced by its rest
    on_progress: Callable[[ExtractionProgress], None]
    quarantined: dict[str, QuarantineEntry]  # by the prompt's digest
    _done: list[ShardTask] = field(default_factory=list)
    _done_tokens: int = 0
    _began: float | None = None
    _peak_bytes: int = 0

    def follow(self) -> ExtractionProgress:
        """Run all tasks; returns the last progress."""
        publisher = _StatusPublisher(self.run)
        for outcome in self.pool.run(self.tasks):
            if self._began is None and self.pool.ready:
                self._began = time.monotonic()
            if outcome is not None:
                if isinstance(outcome.result, TaskFailure):
                    self._quarantine(outcome.task, outcome.result)
                else:
                    self._done.append(outcome.task)
                    self._done_tokens += outcome.result.tokens
                    self._peak_bytes = max(self._peak_bytes, outcome.result.peak_bytes)
            progress = self.progress()
            self.on_progress(progress)
            publisher.publish(progress)
        publisher.publish(self.progress(), last=True)
        return self.progress()

    def progress(self) -> ExtractionProgress:
        """How far the extraction is: committed shards, and what actors report of theirs."""
        # A task is either done or held by one actor, whose progress goes with it when it dies:
        # nothing is counted twice.
        prompts, tokens = self.pool.count_in_progress()
        done = sum(len(task.rows) for task in self._done)
        wanted = sum(len(task.rows) for task in self.tasks)
        # What is not committed counts as the plan expects it, until it turns out to be more.
        expected = self.prepared.plan.tokens * (wanted - done) // max(1, self.prepared.plan.prompts)
        total = self._done_tokens + max(tokens, expected)
        prompts, tokens = done + prompts, self._done_tokens + tokens
        seconds = time.monotonic() - self._began if self._began is not None else 0.0
        rate = tokens / seconds if seconds > 0 else 0.0
        return ExtractionProgress(
            shards_done=len(self._done),
            shards=len(self.tasks),
            prompts_done=prompts,
            prompts=wanted,
            tokens_done=tokens,
            tokens=total,
            prompts_per_second=prompts / seconds if seconds > 0 else 0.0,
            tokens_per_second=rate,
            actors=self.pool.ready,
            failures=self.pool.failures,
            quarantined=len(self.quarantined),
            seconds_left=(total - tokens) / rate if rate > 0 else None,
            peak_bytes=self._peak_bytes,
        )

    def _quarantine(self, task: ShardTask, failure: TaskFailure) -> None:
        """Quarantine the prompts that fail, or else the whole shard, and queue the rest again."""
        failing = from_hex(failure.prompts) if failure.prompts else task.prompts
        ids = self.prepared.prompts.table["sample_id"]
        samples: dict[str, list[str]] = {prompt: [] for prompt in to_hex(failing)}
        rows = np.flatnonzero(find_digests(self.prepared.digests, failing) >= 0)
        for row, digest in zip(rows, to_hex(self.prepared.digests[rows]), strict=True):
            samples[digest].append(ids[int(row)].as_py())
        self.fence.check()
        logger.warning("Prompts quarantined: %d. %s", len(samples), failure.reason)
        for prompt, sample_ids in sorted(samples.items()):
            entry = QuarantineEntry(prompt, tuple(sample_ids), failure.reason, task.attempt)
            add_to_quarantine(self.run, entry)
            self.quarantined[prompt] = entry
        self.tasks.remove(next(other for other in self.tasks if other.digest == task.digest))
        if (rest := drop_prompts(task, failing, self.prepared.plan.provenance)) is not None:
            self.tasks.append(rest)
            self.pool.submit(rest)


@dataclass
class _StatusPublisher:
    """Publishes progress as Prometheus metrics, through Ray, and in the run's status file."""

    run: RunDir
    _gauges: dict[str, Gauge] = field(default_factory=dict)
    _written: float = float("-inf")

    def publish(self, progress: ExtractionProgress, *, last: bool = False) -> None:
        """Set the metrics, and write the file if it is due or the progress is the last."""
        values = asdict(progress)
        # Ray encodes tags as ASCII (Ray 2.60).
        tags = {"run": quote(self.run.url, safe=string.printable)}
        for name, value in values.items():
            if value is None:
                continue
            if name not in self._gauges:
                words = f"Extraction: {name.replace('_', ' ')}"
                self._gauges[name] = Gauge(f"ulcmod_extract_{name}", words, ("run",))
            self._gauges[name].set(float(value), tags=tags)
        now = time.monotonic()
        if last or now - self._written >= STATUS_INTERVAL:
            self._written = now
            status = {"progress": values, "time": time.time(), "metrics": metrics_addresses()}
            self.run.write_json(EXTRACTION_FILE, status)
