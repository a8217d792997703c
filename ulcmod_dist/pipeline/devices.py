"""The device of a job's actors, its memory, and the batches that fit."""

import os
from typing import Any

from ulcmod_dist.config.job import Job
from ulcmod_dist.extract.planner import load_plan
from ulcmod_dist.extract.probe import query_actor_memory
from ulcmod_dist.forward.loading import load_config
from ulcmod_dist.forward.memory import (
    DeviceMemory,
    count_loading_bytes,
    count_parameter_bytes,
    estimate_token_bytes,
    fit_batch_tokens,
    get_device_memory,
)
from ulcmod_dist.forward.quantisation import get_quantisation
from ulcmod_dist.forward.units import get_attention
from ulcmod_dist.pipeline.context import Context


def choose_batch_tokens(context: Context, longest: int | None) -> int:
    """Tokens of a batch: as in the job, else as in the run's plan, else as the memory allows.

    A prompt has at most ``longest`` tokens; None for no limit. Raises `InvalidInput` without a
    model and `UlcmodError` if the cluster cannot place an actor.
    """
    job = context.job
    if job.extract.batch_tokens is not None:
        return job.extract.batch_tokens
    # Other batches would change the activations' last bits, so an extraction goes on with its own.
    if (planned := load_plan(context.run)) is not None:
        return planned.batch_tokens
    model = job.require_model()
    config = load_config(model)
    # Tensor parallelism and device_map both split the weights about evenly.
    parts = max(1, job.extract.ranks, int(job.extract.gpus))
    return fit_batch_tokens(
        _get_actor_memory(job),
        config,
        model.dtype,
        kind="cuda" if job.extract.gpus else "cpu",
        weights=count_parameter_bytes(config, model.dtype, head=job.extract.needs_loss) // parts,
        longest=longest,
        **_list_options(job, config),
    )


def estimate_model_bytes(job: Job, tokens: int, longest: int) -> int:
    """Host memory of the model in an actor; arguments as of `extract.planner.ModelBytes`."""
    model = job.require_model()
    config = load_config(model)
    weights = count_parameter_bytes(config, model.dtype, head=job.extract.needs_loss)
    loading = count_loading_bytes(config) if get_quantisation(model) else 0
    if job.extract.gpus > 0:
        # Weights pass through the host's memory; batches stay on the device.
        return weights + loading
    options = _list_options(job, config)
    each = estimate_token_bytes(config, model.dtype, longest=longest, **options)
    return weights + max(loading, tokens * each)


def _list_options(job: Job, config: Any) -> dict[str, Any]:
    """What the memory of a token depends on beside model and length."""
    model = job.require_model()
    options = {"attention": get_attention(model, config), "patterns": model.units}
    return options | {"gradients": job.extract.needs_loss}


def _get_actor_memory(job: Job) -> DeviceMemory:
    """Memory that an actor has on its device before it loads anything."""
    extract = job.extract
    if extract.gpus == 0 and not (extract.address or os.environ.get("RAY_ADDRESS")):
        # The actors run on this machine: no need to start Ray to ask.
        actors = int((os.cpu_count() or 1) / extract.cpus)
        return get_device_memory("cpu").part(1 / max(1, min(actors, extract.workers or actors)))
    return query_actor_memory(extract)
