"""An extraction from the side of the driver: plan, actors, commits, and at the end a manifest."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import ray

from ulcmod_dist.corpus.prompts import Corpus
from ulcmod_dist.errors import InvalidInput, UlcmodError
from ulcmod_dist.extract.monitor import ExtractionMonitor
from ulcmod_dist.extract.planner import (
    ExtractionPlan,
    ModelBytes,
    PreparedExtraction,
    PromptEncoder,
    ShardTask,
    corpus_fingerprint,
    get_prompts,
    list_changes,
    list_remaining_tasks,
    load_plan,
    make_plan,
    make_unit_table,
    save_plan,
)
from ulcmod_dist.extract.pool import PLACEMENT_TIMEOUT, WorkerPool
from ulcmod_dist.extract.progress import ExtractionProgress
from ulcmod_dist.extract.worker import EventCallback, ModelLoader, Worker
from ulcmod_dist.forward.architectures import LayerUnits
from ulcmod_dist.runtime.lease import Fence
from ulcmod_dist.runtime.ray_session import ActorResources, node_resources, ray_session
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.manifest import CORPUS_SCHEMA, write_manifest
from ulcmod_dist.store.records import (
    QuarantineEntry,
    clear_quarantine,
    list_snapshots,
    read_quarantine,
)
from ulcmod_dist.store.schema import cache_key
from ulcmod_dist.store.shards import Commit, ShardWriter, read_commits
from ulcmod_dist.store.snapshot import Snapshot, open_snapshot

DISK_MARGIN = 1.05
"""Room asked for on a disk over what the plan says will be written."""


@dataclass(frozen=True)
class Extraction:
    """What an extraction ended with.

    Attributes:
        snapshot: The published snapshot.
        progress: The last progress.
        quarantined: What is in quarantine; where there is something, the run is incomplete.
        computed: Digests of the shards computed now.
        reused: Samples whose rows were there before.
    """

    snapshot: Snapshot
    progress: ExtractionProgress
    quarantined: tuple[QuarantineEntry, ...]
    computed: tuple[str, ...]
    reused: int

    @property
    def exit_code(self) -> int:
        """0, or 3 where samples are in quarantine."""
        return 3 if self.quarantined else 0


def prepare(
    run: RunDir,
    prompts: Corpus,
    encoder: PromptEncoder,
    units: Sequence[LayerUnits],
    record: dict[str, str],
    *,
    shard_samples: int,
    batch_tokens: int,
    model_bytes: ModelBytes = lambda tokens, longest: 0,
    update: bool = False,
    save: bool = True,
) -> PreparedExtraction:
    """The plan of a run: the one it has, which must be of the same job, or a new one.

    Args:
        run: The run directory.
        prompts: The corpus.
        encoder: Turns prompts into tokens, for their lengths.
        units: What the columns of a row will be.
        record: What rows depend on (``merge_provenance``).
        shard_samples: Samples of a shard.
        batch_tokens: Tokens of a batch, padding included.
        model_bytes: Projected memory of the model in an actor.
        update: Whether a changed job makes a new plan, which reuses rows that still hold.
        save: Whether a new plan becomes the run's.

    Raises:
        InvalidInput: The run follows the plan of another job; the message names each field.
    """
    digests = tuple(prompts.digests())
    old = load_plan(run)
    if old is not None:
        changes = list_changes(
            old,
            record,
            corpus=corpus_fingerprint(digests),
            shard_samples=shard_samples,
            batch_tokens=batch_tokens,
        )
        if not changes:
            return PreparedExtraction(old, prompts, digests)
        if not update:
            raise InvalidInput(
                f"{run.url} holds the extraction of another job: {'; '.join(changes)} differs.",
                "Name another run directory, restore the job, or update the run with "
                "`ulcmod rerun`.",
            )
    there = list_reusable_commits(run, record)
    known = {prompt for commit in there for prompt in commit.prompts}
    plan = make_plan(
        prompts,
        digests,
        encoder,
        units,
        record,
        shard_samples=shard_samples,
        batch_tokens=batch_tokens,
        known=known,
        grid=there[0].chunk_shape if there else None,
        model_bytes=model_bytes,
    )
    if save:
        save_plan(run, plan)
    return PreparedExtraction(plan, prompts, digests)


def extract(
    run: RunDir,
    prepared: PreparedExtraction,
    factory: ModelLoader,
    *,
    fence: Fence,
    resources: ActorResources | None = None,
    workers: int | Callable[[], int | None] | None = None,
    address: str | None = None,
    retry_quarantined: bool = False,
    report: Callable[[ExtractionProgress], None] = lambda progress: None,
    warn: Callable[[str], None] = lambda message: None,
    stop: Callable[[], bool] = lambda: False,
    on_event: EventCallback = lambda point, digest: None,
    placement_timeout: float = PLACEMENT_TIMEOUT,
) -> Extraction:
    """Compute what is left of a plan and make the whole of it the run's view.

    Args:
        run: The run directory.
        prepared: Plan and corpus.
        factory: Loads the model in an actor.
        fence: The lease under which shards are committed.
        resources: What an actor takes.
        workers: Number of actors, or what says it while the run goes on; None for as many as the
            cluster has room for.
        address: Ray cluster; None for RAY_ADDRESS, else a local Ray is started.
        retry_quarantined: Whether prompts in quarantine are tried again.
        report: Called with the progress now and then.
        warn: Told what goes wrong and is made good, such as an attempt that failed.
        stop: Once true, shards under way are committed and the run ends with an error that says so.
        on_event: Called in the actors at each point of a shard's life; must survive pickling.
        placement_timeout: How long actors may wait for their resources.

    Raises:
        UlcmodError: Disk, memory or resources are short, the model cannot be loaded, the store
            takes nothing, the run was taken over or stopped, or no prompt could be computed.
    """
    plan, digests = prepared.plan, prepared.digests
    if retry_quarantined:
        clear_quarantine(run)
    held = read_quarantine(run)
    committed = {
        prompt for commit in list_reusable_commits(run, plan.record) for prompt in commit.prompts
    }
    tasks = list_remaining_tasks(plan, digests, committed | set(held))
    computed: list[str] = []
    progress = ExtractionProgress(quarantined=len(held))
    if tasks:
        check_disk_space(run, plan, tasks)
        with ray_session(address):
            size = reserve_memory(resources or ActorResources(), plan)
            actor = _make_actor_factory(run, plan, factory, fence, size, on_event)
            pool = WorkerPool(actor, lambda task: get_prompts(prepared.prompts, task.rows), size)
            pool.stop, pool.placement_timeout = stop, placement_timeout
            pool.warn = warn
            extraction = ExtractionMonitor(run, prepared, fence, pool, tasks, report, held)
            try:
                progress = extraction.follow(workers)
            finally:
                pool.close()
            computed = extraction.computed
    if progress.shards_done < progress.shards:
        raise UlcmodError(
            f"The extraction into {run.url} was stopped.",
            "Start the same command again: it continues where it stopped.",
        )
    view = publish(run, prepared, fence)
    reused = sum(digest in committed for digest in digests)
    in_corpus = set(digests)
    entries = tuple(entry for prompt, entry in sorted(held.items()) if prompt in in_corpus)
    return Extraction(view, progress, entries, tuple(computed), reused)


def publish(run: RunDir, prepared: PreparedExtraction, fence: Fence) -> Snapshot:
    """Make the committed rows of a corpus the run's view.

    Raises:
        UlcmodError: Not one of its prompts has a row.
    """
    plan = prepared.plan
    commits = _sort_commits(run, plan, list_reusable_commits(run, plan.record))
    rows = {prompt for commit in commits for prompt in commit.prompts}
    if not rows.intersection(prepared.digests):
        raise UlcmodError(
            f"Not one of the {len(prepared.digests)} prompts could be computed.",
            "`ulcmod status` lists the reasons.",
        )
    table = prepared.prompts.table.select(["sample_id", "split", "category"])
    corpus = table.append_column("prompt", pa.array(prepared.digests, pa.string()))
    return write_manifest(
        run,
        corpus.cast(CORPUS_SCHEMA),
        make_unit_table(plan.units),
        commits,
        provenance=plan.record,
        check=fence.check,
    )


def list_reusable_commits(run: RunDir, record: Mapping[str, str]) -> list[Commit]:
    """Committed shards whose rows depend on the same things, in order of their digests."""
    wanted = cache_key(dict(record))
    return [c for c in read_commits(run).values() if cache_key(c.origin.provenance) == wanted]


def check_disk_space(run: RunDir, plan: ExtractionPlan, tasks: Sequence[ShardTask]) -> None:
    """Return if a local disk has room for the rest of a plan.

    Raises:
        UlcmodError: It has not; the message says how much is short.
    """
    if run.local is None:
        return
    prompts = sum(len(task.rows) for task in tasks)
    needed = int(DISK_MARGIN * plan.bytes * prompts / max(1, plan.prompts))
    run.local.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(run.local).free
    if needed > free:
        raise UlcmodError(
            f"The extraction writes {needed / 2**30:.2f} GiB; the disk of {run.url} has "
            f"{free / 2**30:.2f} GiB free.",
            "Make space, or name a run directory elsewhere.",
        )


def reserve_memory(resources: ActorResources, plan: ExtractionPlan) -> ActorResources:
    """An actor's resources with the memory that the plan projects set aside.

    Raises:
        UlcmodError: The job's limit, or every node, is below the projection.
    """
    most = max((node.get("memory", 0.0) for node in node_resources()), default=0.0)
    limit = resources.memory or most
    if plan.actor_bytes > limit:
        raise UlcmodError(
            f"An actor is projected to take {plan.actor_bytes / 2**30:.2f} GiB of memory; "
            f"{'the limit is' if resources.memory else 'the largest node has'} "
            f"{limit / 2**30:.2f} GiB.",
            "Lower extract.shard_samples or extract.batch_tokens, or give actors more memory.",
        )
    return replace(resources, memory=plan.actor_bytes)


def _make_actor_factory(
    run: RunDir,
    plan: ExtractionPlan,
    factory: ModelLoader,
    fence: Fence,
    resources: ActorResources,
    on_event: EventCallback,
) -> Callable[[], object]:
    writer = ShardWriter(run, plan.grid, check=fence.check)
    options = {
        "num_cpus": resources.cpus,
        "num_gpus": resources.gpus,
        "memory": resources.memory,
        # One shard is computed while another is written.
        "max_concurrency": 2,
        "max_restarts": 0,
        "max_task_retries": 0,
    }
    worker: Any = ray.remote(Worker)
    return lambda: worker.options(**options).remote(
        ray.cloudpickle.dumps(factory),  # type: ignore[no-untyped-call]
        writer,
        plan.record,
        fence.epoch,
        on_event,
    )


def _sort_commits(run: RunDir, plan: ExtractionPlan, commits: list[Commit]) -> list[Commit]:
    """Shards in the order of the view before, then of the plan, then of their digests."""
    before = [shard.digest for shard in open_snapshot(run).shards] if list_snapshots(run) else []
    first = [*before, *(shard.digest for shard in plan.shards)]
    rank = {digest: number for number, digest in reversed(list(enumerate(first)))}
    return sorted(commits, key=lambda commit: (rank.get(commit.digest, len(first)), commit.digest))
