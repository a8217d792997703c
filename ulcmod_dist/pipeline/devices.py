"""What a job's actors compute on: the device, its memory, and the batches that it has room for."""

from __future__ import annotations

import os

from ulcmod_dist.config.job import Job
from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.extract.planner import load_plan
from ulcmod_dist.extract.pool import get_placement_timeout
from ulcmod_dist.extract.probe import query_actor_memory
from ulcmod_dist.forward.loading import load_config
from ulcmod_dist.forward.memory import (
    DeviceMemory,
    count_parameter_bytes,
    estimate_token_bytes,
    fit_batch_tokens,
    get_device_memory,
)
from ulcmod_dist.pipeline.context import Context
from ulcmod_dist.runtime.ray_session import ActorResources


def get_torch_device(job: Job) -> str:
    """Device of torch that an actor computes on; ``auto`` lays the layers out over several."""
    if job.extract.gpus == 0:
        return "cpu"
    return "auto" if job.extract.gpus > 1 else "cuda"


def choose_batch_tokens(context: Context, spec: ModelConfig, longest: int | None) -> int:
    """Tokens of a batch: what the job says, else what the run's plan has, else what memory allows.

    Args:
        context: The job and its run directory.
        spec: The model.
        longest: Tokens that a prompt may have; None for no limit.

    Raises:
        UlcmodError: The cluster cannot give an actor what it asks for.
    """
    job = context.job
    if job.extract.batch_tokens is not None:
        return job.extract.batch_tokens
    if (planned := load_plan(context.run)) is not None:
        return planned.batch_tokens
    config = load_config(spec)
    # Ranks and laid out layers split the weights evenly, near enough.
    parts = max(1, job.extract.ranks, int(job.extract.gpus))
    return fit_batch_tokens(
        _memory(job),
        config,
        spec.dtype,
        kind="cuda" if job.extract.gpus else "cpu",
        weights=count_parameter_bytes(config, spec.dtype) // parts,
        attention=spec.attention,
        longest=longest,
    )


def estimate_model_bytes(job: Job, spec: ModelConfig, tokens: int, longest: int) -> int:
    """Memory of its machine that the model takes in an actor.

    Args:
        job: The job.
        spec: The model.
        tokens: Tokens of the largest batch, padding included.
        longest: Tokens of the longest prompt.
    """
    config = load_config(spec)
    weights = count_parameter_bytes(config, spec.dtype)
    if job.extract.gpus > 0:
        # Weights pass through the machine's memory; batches stay on the device.
        return weights
    each = estimate_token_bytes(config, spec.dtype, attention=spec.attention, longest=longest)
    return weights + tokens * each


def _memory(job: Job) -> DeviceMemory:
    """Memory that an actor has on its device, before it has loaded anything."""
    settings = job.extract
    if settings.gpus == 0 and not (settings.address or os.environ.get("RAY_ADDRESS")):
        # The machine is this one: no need to start Ray to ask it.
        beside = int((os.cpu_count() or 1) / settings.cpus)
        return get_device_memory("cpu").part(1 / max(1, min(beside, settings.workers or beside)))
    device = "cuda" if settings.gpus > 0 else "cpu"
    resources = ActorResources(settings.cpus, settings.gpus)
    return query_actor_memory(
        device, resources, settings.workers, settings.address, get_placement_timeout(settings)
    )
