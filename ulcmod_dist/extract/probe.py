"""A short measurement before a long run: how fast an actor is, and what that comes to."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import ray

from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.extract.planner import PreparedExtraction, get_prompts
from ulcmod_dist.extract.pool import PLACEMENT_TIMEOUT
from ulcmod_dist.extract.worker import ModelLoader, TaskFailure, Worker, describe_error
from ulcmod_dist.forward.memory import DeviceMemory, get_device_memory
from ulcmod_dist.runtime.ray_session import (
    ActorResources,
    explain_shortage,
    max_actors,
    node_resources,
    ray_session,
)
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.shards import ShardWriter

MAX_BATCHES = 8
"""Batches measured at most, spread evenly over the plan."""


@dataclass(frozen=True)
class Projection:
    """What a whole plan is expected to take, from a measurement.

    Attributes:
        tokens_per_second: Of one actor.
        load_seconds: Time to start an actor and load the model.
        peak_bytes: Largest resident memory of the actor while it computed.
        actors: Actors that the cluster has room for, or that the job asks for.
        seconds: Time of the plan.
        gpu_hours: GPU hours of the plan.
    """

    tokens_per_second: float
    load_seconds: float
    peak_bytes: int
    actors: int
    seconds: float
    gpu_hours: float

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)


def probe(
    run: RunDir,
    prepared: PreparedExtraction,
    factory: ModelLoader,
    *,
    resources: ActorResources | None = None,
    workers: int | None = None,
    address: str | None = None,
    seconds: float = 20.0,
    placement_timeout: float = PLACEMENT_TIMEOUT,
) -> Projection:
    """Run a few of a plan's batches in one actor and project the rest; nothing is written.

    Args:
        run: The run directory.
        prepared: Plan and corpus.
        factory: Loads the model in the actor.
        resources: What an actor takes.
        workers: Number of actors; None for as many as the cluster has room for.
        address: Ray cluster; None for RAY_ADDRESS, else a local Ray is started.
        seconds: Time after which no further batch is begun.
        placement_timeout: How long to wait for the resources of an actor.

    Raises:
        UlcmodError: The actor finds no resources, the model cannot be loaded or a batch fails.
    """
    resources = resources or ActorResources()
    with ray_session(address):
        actors = workers or max(1, max_actors(resources, node_resources()))
        worker: Any = ray.remote(Worker)
        options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
        began = time.monotonic()
        plan = prepared.plan
        actor = worker.options(**options).remote(
            ray.cloudpickle.dumps(factory),  # type: ignore[no-untyped-call]
            ShardWriter(run, plan.grid),
            plan.record,
            0,
            _ignore,
        )
        try:
            placed, _ = ray.wait([actor.place.remote()], timeout=placement_timeout)
            if not placed:
                raise UlcmodError(explain_shortage(resources, node_resources()))
            _raise_failure(ray.get(actor.load.remote()))
            loaded = time.monotonic() - began
            rate, peak = _measure(actor, prepared, seconds)
        finally:
            ray.kill(actor)
    total = loaded + plan.tokens / (rate * actors) if plan.tokens else 0.0
    hours = total * actors * resources.gpus / 3600
    return Projection(rate, loaded, peak, actors, total, hours)


def query_actor_memory(
    device: str,
    resources: ActorResources,
    workers: int | None,
    address: str | None,
    placement_timeout: float = PLACEMENT_TIMEOUT,
) -> DeviceMemory:
    """Memory that an actor of this size has on its device, asked where one would run.

    Args:
        device: Device of torch; actors with less than a whole GPU share it, and those on the CPU
            their machine.
        resources: What an actor takes.
        workers: Number of actors; None for as many as the cluster has room for.
        address: Ray cluster; None for RAY_ADDRESS, else a local Ray is started.
        placement_timeout: How long to wait for the resources of an actor.

    Raises:
        UlcmodError: The cluster cannot give an actor what it asks for.
    """
    with ray_session(address):
        ask: Any = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus)(get_device_memory)
        answer = ask.remote(device)
        if not ray.wait([answer], timeout=placement_timeout)[0]:
            ray.cancel(answer)
            raise UlcmodError(explain_shortage(resources, node_resources()))
        try:
            memory: DeviceMemory = ray.get(answer)
        except ray.exceptions.RayError as error:
            raise UlcmodError(
                f"An actor cannot use its {device} device: {describe_error(error)}"
            ) from error
        if device != "cpu":
            return memory.part(min(1.0, resources.gpus))
        beside = max(max_actors(resources, [node]) for node in node_resources())
        return memory.part(1 / max(1, min(beside, workers or beside)))


def _measure(actor: Any, prepared: PreparedExtraction, seconds: float) -> tuple[float, int]:
    """Tokens per second and peak memory, over batches spread evenly over the plan."""
    batches = [
        [shard.rows[index] for index in batch]
        for shard in prepared.plan.shards
        for batch in shard.batches
    ]
    step = max(1, len(batches) // MAX_BATCHES)
    tokens = spent = 0.0
    peak = 0
    # The first one, among the longest, warms up and shows the memory; it does not count.
    for number, rows in enumerate([*batches[:1], *batches[::step]]):
        if number > 1 and spent > seconds:
            break
        answer = ray.get(actor.measure.remote(get_prompts(prepared.prompts, rows)))
        _raise_failure(answer)
        peak = answer.peak_bytes
        if number > 0:
            tokens, spent = tokens + answer.tokens, spent + answer.seconds
    return (tokens / spent if spent > 0 else float("inf")), peak


def _raise_failure(answer: object) -> None:
    if isinstance(answer, TaskFailure):
        raise UlcmodError(answer.reason, answer.remedy)


def _ignore(point: str, digest: str) -> None:
    """No shard is computed, so there is nothing to note."""
