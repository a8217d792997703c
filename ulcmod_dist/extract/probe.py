"""What actors can do, measured before a long run: their speed and the memory of their device."""

import time
from dataclasses import dataclass
from typing import Any

import ray

from ulcmod_dist.config.schema import ExtractConfig
from ulcmod_dist.errors import UlcmodError, describe_error, one_line
from ulcmod_dist.extract.planner import PreparedExtraction
from ulcmod_dist.extract.pool import define_worker
from ulcmod_dist.extract.replica import ModelLoader
from ulcmod_dist.extract.worker import TaskFailure
from ulcmod_dist.forward.memory import DeviceMemory, get_device_memory
from ulcmod_dist.runtime.ray_failures import find_machine_failure
from ulcmod_dist.runtime.ray_session import (
    ActorResources,
    choose_start_timeout,
    explain_shortage,
    max_actors,
    node_resources,
    ray_session,
)
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.shards import ShardWriter

MAX_BATCHES = 8  # measured at most, spread evenly over the plan


@dataclass(frozen=True)
class Projection:
    """The cost of a whole plan, projected from a measurement."""

    tokens_per_second: float  # of one actor
    load_seconds: float  # to start an actor and load the model
    peak_bytes: int  # largest resident memory of the actor while it computed
    actors: int  # as many as the cluster has room for, or as the job asks for
    seconds: float  # of the plan
    gpu_hours: float  # of the plan


def probe(
    run: RunDir,
    prepared: PreparedExtraction,
    load_model: ModelLoader,
    config: ExtractConfig,
    *,
    seconds: float = 20.0,
) -> Projection:
    """Run a few of a plan's batches in one actor and project the rest; nothing is written.

    No further batch is started once ``seconds`` have passed.

    Raises:
        UlcmodError: The actor gets no resources, the model cannot be loaded or a batch fails.
    """
    resources = ActorResources(config.cpus, config.gpus)
    plan = prepared.plan
    with ray_session(config.address):
        actors = config.workers or max(1, max_actors(resources, node_resources()))
        began = time.monotonic()
        timeout = choose_start_timeout(resources, config.placement_timeout)
        writer = ShardWriter(run, plan.chunk_shape)
        actor = define_worker(resources).remote(
            load_model, writer, plan.provenance, prepared.plan_batches
        )
        try:
            placed, _ = ray.wait([actor.place.remote()], timeout=timeout)
            if not placed:
                raise UlcmodError(explain_shortage(resources, node_resources()))
            _raise_failure(ray.get(actor.load.remote()))
            loaded = time.monotonic() - began
            rate, peak = _measure(actor, prepared, seconds)
        except ray.exceptions.RayError as error:
            raise find_machine_failure(error) or UlcmodError(
                f"The actor that was to measure the plan died: {one_line(error)[:300]}"
            ) from error
        finally:
            ray.kill(actor)
    total = loaded + plan.tokens / (rate * actors) if plan.tokens else 0.0
    hours = total * actors * resources.gpus / 3600
    return Projection(rate, loaded, peak, actors, total, hours)


def query_actor_memory(config: ExtractConfig) -> DeviceMemory:
    """Ask where an actor would run how much memory it has on its device.

    Actors with less than a whole GPU share it, and those on CPUs share their machine. Raises
    `UlcmodError` if the cluster cannot give an actor what it asks for.
    """
    device = "cuda" if config.gpus > 0 else "cpu"
    resources = ActorResources(config.cpus, config.gpus)
    with ray_session(config.address):
        timeout = choose_start_timeout(resources, config.placement_timeout)
        ask: Any = ray.remote(num_cpus=config.cpus, num_gpus=config.gpus)(get_device_memory)
        answer = ask.remote(device)
        if not ray.wait([answer], timeout=timeout)[0]:
            ray.cancel(answer)
            raise UlcmodError(explain_shortage(resources, node_resources()))
        try:
            memory: DeviceMemory = ray.get(answer)
        except ray.exceptions.RayError as error:
            raise UlcmodError(
                f"An actor cannot use its {device} device: {describe_error(error)}"
            ) from error
        if device != "cpu":
            return memory.part(min(1.0, config.gpus))
        neighbours = max(max_actors(resources, [node]) for node in node_resources())
        return memory.part(1 / max(1, min(neighbours, config.workers or neighbours)))


def _measure(actor: Any, prepared: PreparedExtraction, seconds: float) -> tuple[float, int]:
    """Tokens per second and peak memory, over batches spread over the plan."""
    plan, shards = prepared.plan, prepared.plan.shards
    # Not more than there are, as far as the plan tells.
    parts = max(1, min(MAX_BATCHES, max(len(shards), plan.tokens // plan.batch_tokens)))
    tokens = spent = 0.0
    peak = 0
    # The first one, of the longest prompts, warms up and shows the memory; it does not count.
    for number, part in enumerate([0, *range(parts)]):
        if number > 1 and spent > seconds:
            break
        # From long prompts in the first shards to short ones in the last.
        prompts = prepared.prompts.prompts(shards[part * len(shards) // parts].rows)
        answer = ray.get(actor.measure.remote(prompts, part / parts))
        _raise_failure(answer)
        peak = answer.peak_bytes
        if number > 0:
            tokens, spent = tokens + answer.tokens, spent + answer.seconds
    return (tokens / spent if spent > 0 else float("inf")), peak


def _raise_failure(answer: object) -> None:
    if isinstance(answer, TaskFailure):
        raise UlcmodError(answer.reason, answer.remedy)
