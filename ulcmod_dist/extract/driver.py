"""The driver of an extraction: plan, actors, commits, and at the end a manifest."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from ray.exceptions import RayError

from ulcmod_dist.config.schema import ExtractConfig
from ulcmod_dist.corpus.digests import (
    Digests,
    find_digests,
    fingerprint_digests,
    from_hex,
    join_digests,
    to_arrow,
    to_hex,
)
from ulcmod_dist.corpus.prompts import Corpus
from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.extract.monitor import ExtractionMonitor, ExtractionProgress
from ulcmod_dist.extract.planner import (
    ExtractionPlan,
    ModelBytes,
    PreparedExtraction,
    PromptEncoder,
    ShardTask,
    list_plan_inputs,
    list_remaining_tasks,
    load_plan,
    make_plan,
    save_plan,
)
from ulcmod_dist.extract.pool import WorkerPool, define_worker
from ulcmod_dist.extract.replica import ModelLoader
from ulcmod_dist.extract.worker import EventCallback
from ulcmod_dist.forward.architectures import ANY_LENGTHS, LayerUnits, LengthClasses
from ulcmod_dist.runtime.files import nearest_folder
from ulcmod_dist.runtime.lease import Fence
from ulcmod_dist.runtime.ray_failures import find_machine_failure
from ulcmod_dist.runtime.ray_session import (
    ActorResources,
    max_actors,
    node_resources,
    ray_session,
)
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.manifest import CORPUS_SCHEMA, write_manifest
from ulcmod_dist.store.records import (
    Commit,
    QuarantineEntry,
    clear_quarantine,
    list_snapshots,
    read_commits,
    read_quarantine,
)
from ulcmod_dist.store.schema import cache_key
from ulcmod_dist.store.shards import ShardWriter, read_prompts
from ulcmod_dist.store.snapshot import UNIT_SCHEMA, Snapshot, open_snapshot

DISK_MARGIN = 1.05  # free disk space required, relative to what the plan says will be written


@dataclass(frozen=True)
class ExtractionResult:
    """The published snapshot and how it came about."""

    snapshot: Snapshot
    progress: ExtractionProgress
    quarantined: tuple[QuarantineEntry, ...]  # of this corpus; with any, the run is incomplete
    reused: int  # samples whose rows were committed before

    @property
    def exit_code(self) -> int:
        """0, or 3 with samples in quarantine."""
        return 3 if self.quarantined else 0


def prepare(
    run: RunDir,
    corpus: Corpus,
    tokenizer: PromptEncoder,
    units: Sequence[LayerUnits],
    provenance: dict[str, str],
    *,
    shard_samples: int,
    batch_tokens: int,
    digests: Digests | None = None,
    lengths: LengthClasses = ANY_LENGTHS,
    vocabulary: int | None = None,
    model_bytes: ModelBytes = lambda tokens, longest: 0,
    save: bool = True,
) -> PreparedExtraction:
    """Load the plan of a run if it was made from the same inputs, or make one.

    A new plan reuses rows that still hold; ``save`` makes it the run's. ``digests`` are those of
    the prompts as the tokenizer reads them; by default those of the prompts alone.
    """
    digests = corpus.digests() if digests is None else digests
    old = load_plan(run)
    fingerprint = fingerprint_digests(digests)
    inputs = list_plan_inputs(fingerprint, provenance, shard_samples, batch_tokens)
    if old is not None and old.inputs == inputs:
        return PreparedExtraction(old, corpus, digests, lengths)
    commits = list_reusable_commits(run, provenance)
    plan = make_plan(
        corpus,
        digests,
        tokenizer,
        units,
        provenance,
        shard_samples=shard_samples,
        batch_tokens=batch_tokens,
        vocabulary=vocabulary,
        known=join_digests(read_prompts(run, commits)),
        chunk_shape=commits[0].chunk_shape if commits else None,
        model_bytes=model_bytes,
    )
    if save:
        save_plan(run, plan)
    return PreparedExtraction(plan, corpus, digests, lengths)


def extract(
    run: RunDir,
    prepared: PreparedExtraction,
    load_model: ModelLoader,
    config: ExtractConfig,
    *,
    fence: Fence,
    retry_quarantined: bool = False,
    on_progress: Callable[[ExtractionProgress], None] = lambda progress: None,
    on_event: EventCallback = lambda point, digest: None,
    stop: Callable[[], bool] = lambda: False,
) -> ExtractionResult:
    """Compute what is left of a plan and publish all its rows as a snapshot.

    ``on_progress`` is called at least every half second. ``on_event`` is called in the actors and
    must survive pickling. Once ``stop`` returns true, shards in progress are committed and
    `extract` raises.

    Raises:
        UlcmodError: Disk, memory or resources are short, the model cannot be loaded, the store
            refuses shards, the run was taken over or stopped, or no prompt could be computed.
    """
    plan, digests = prepared.plan, prepared.digests
    if retry_quarantined:
        clear_quarantine(run)
    quarantined = read_quarantine(run)
    committed = join_digests(read_prompts(run, list_reusable_commits(run, plan.provenance)))
    tasks = list_remaining_tasks(plan, digests, join_digests([committed, from_hex(quarantined)]))
    check_disk_space(run, _count_bytes(plan, tasks))
    progress = ExtractionProgress(quarantined=len(quarantined))
    if tasks:
        with ray_session(config.address):
            resources = reserve_memory(config, plan)
            worker = define_worker(resources)
            writer = ShardWriter(run, plan.chunk_shape, fence.check)
            inputs = load_model, writer, plan.provenance, prepared.plan_batches, fence.epoch
            pool = WorkerPool(
                lambda: worker.remote(*inputs, on_event),
                lambda task: prepared.prompts.prompts(task.rows),
                resources,
                config.workers,
                config.placement_timeout,
                stop,
            )
            monitor = ExtractionMonitor(run, prepared, fence, pool, tasks, on_progress, quarantined)
            with closing(pool), _naming_machine_failures():
                progress = monitor.follow()
    if progress.shards_done < progress.shards:
        raise UlcmodError(
            f"The extraction into {run.url} was stopped.",
            "Start the same command again: it continues where it stopped.",
        )
    held_back = from_hex(quarantined)
    in_corpus = to_hex(held_back[find_digests(held_back, digests) >= 0])
    return ExtractionResult(
        snapshot=publish(run, prepared, fence),
        progress=progress,
        quarantined=tuple(quarantined[prompt] for prompt in sorted(in_corpus)),
        reused=int((find_digests(digests, committed) >= 0).sum()),
    )


@contextmanager
def _naming_machine_failures() -> Iterator[None]:
    """Raise what Ray itself fails with as the failure of a machine."""
    try:
        yield
    except RayError as error:
        if (failure := find_machine_failure(error)) is None:
            raise
        raise failure from error


def publish(run: RunDir, prepared: PreparedExtraction, fence: Fence) -> Snapshot:
    """Make the committed rows of a corpus the run's snapshot; raises `UlcmodError` without any."""
    plan = prepared.plan
    commits = _sort_commits(run, plan, list_reusable_commits(run, plan.provenance))
    if (find_digests(join_digests(read_prompts(run, commits)), prepared.digests) < 0).all():
        raise UlcmodError(
            f"Not one of the {len(prepared.digests)} prompts could be computed.",
            "`ulcmod status` lists the reasons.",
        )
    table = prepared.prompts.table.select(["sample_id", "split", "category"])
    corpus = table.append_column("prompt", to_arrow(prepared.digests))
    return write_manifest(
        run,
        corpus.cast(CORPUS_SCHEMA),
        make_unit_table(plan.units),
        commits,
        provenance=plan.provenance,
        check=fence.check,
    )


def list_reusable_commits(run: RunDir, provenance: Mapping[str, str]) -> list[Commit]:
    """List committed shards of the same provenance, in order of their digests."""
    wanted = cache_key(dict(provenance))
    return [c for c in read_commits(run).values() if cache_key(c.origin.provenance) == wanted]


def check_remaining_space(run: RunDir, prepared: PreparedExtraction) -> None:
    """Raise `UlcmodError` if a local disk lacks space for the shards not committed yet."""
    plan = prepared.plan
    committed = join_digests(read_prompts(run, list_reusable_commits(run, plan.provenance)))
    done = join_digests([committed, from_hex(read_quarantine(run))])
    tasks = list_remaining_tasks(plan, prepared.digests, done)
    check_disk_space(run, _count_bytes(plan, tasks))


def check_disk_space(run: RunDir, size: int) -> None:
    """Raise `UlcmodError` if a local disk lacks space for an extraction that writes so much."""
    if run.local is None:
        return
    needed = int(DISK_MARGIN * size)
    free = shutil.disk_usage(nearest_folder(run.local)).free
    if needed > free:
        raise UlcmodError(
            f"The extraction writes {_format(needed)}; "
            f"the disk of {run.url} has {_format(free)} free.",
            "Make space, or name a run directory elsewhere.",
        )


def _format(size: int) -> str:
    if size < 2**20:
        return f"{size:,} bytes"
    return f"{size / 2**30:,.2f} GiB" if size >= 2**28 else f"{size / 2**20:,.2f} MiB"


def _count_bytes(plan: ExtractionPlan, tasks: Sequence[ShardTask]) -> int:
    """Bytes that some tasks of a plan write."""
    return plan.bytes * sum(len(task.rows) for task in tasks) // max(1, plan.prompts)


def reserve_memory(config: ExtractConfig, plan: ExtractionPlan) -> ActorResources:
    """Get the resources of an actor.

    Raises `UlcmodError` if no node has the memory projected, or this machine, with a Ray of its
    own, lacks it for as many actors as the job asks for.
    """
    nodes = node_resources()
    largest = max((node.get("memory", 0.0) for node in nodes), default=0.0)
    each = f"{plan.actor_bytes / 2**30:.2f} GiB"
    if plan.actor_bytes > largest:
        raise UlcmodError(
            f"An actor is projected to take {each} of memory; "
            f"the largest node has {largest / 2**30:.2f} GiB.",
            "Lower extract.shard_samples or extract.batch_tokens, or use nodes with more memory.",
        )
    most = max_actors(ActorResources(0.0, memory=plan.actor_bytes), nodes)
    if not config.can_grow and (config.workers or 0) > most:
        raise UlcmodError(
            f"{config.workers} actors are projected to take {each} of memory each; this machine "
            f"has {largest / 2**30:.2f} GiB, enough for {most}.",
            "Lower extract.workers, or leave it out: as many are started as fit.",
        )
    return ActorResources(config.cpus, config.gpus, plan.actor_bytes)


def make_unit_table(units: Sequence[LayerUnits]) -> pa.Table:
    """Make the table of units that the store keeps: one row a unit."""
    columns: dict[str, list[Any]] = {name: [] for name in UNIT_SCHEMA.names if name != "unit"}
    for part in units:
        columns["layer"].extend([part.layer] * part.width)
        columns["index"].extend(range(part.width))
        columns["path"].extend([part.path] * part.width)
        columns["expert"].extend([part.expert] * part.width)
    table = {"unit": range(len(columns["layer"])), **columns}
    return pa.table(table, schema=UNIT_SCHEMA)


def _sort_commits(run: RunDir, plan: ExtractionPlan, commits: list[Commit]) -> list[Commit]:
    """Sort shards as in the last snapshot, then as in the plan, then by digest."""
    before = [shard.digest for shard in open_snapshot(run).shards] if list_snapshots(run) else []
    first = [*before, *(shard.digest for shard in plan.shards)]
    rank = {digest: number for number, digest in reversed(list(enumerate(first)))}
    return sorted(commits, key=lambda commit: (rank.get(commit.digest, len(first)), commit.digest))
