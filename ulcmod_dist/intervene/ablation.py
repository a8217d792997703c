"""Ablation: the loss of every prompt with each of many masks, in this process or on Ray actors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import ray
from ray.util.actor_pool import ActorPool

from ulcmod_dist.config.schema import ExtractConfig, ModelConfig
from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.forward.batches import TokenizedPrompt
from ulcmod_dist.forward.ranks import RankGroup
from ulcmod_dist.intervene.engine import LossEngine
from ulcmod_dist.intervene.generate import SteeringEngine
from ulcmod_dist.intervene.masks import Mask
from ulcmod_dist.results.types import Floats, divide
from ulcmod_dist.runtime.ray_failures import find_machine_failure
from ulcmod_dist.runtime.ray_session import (
    ActorResources,
    explain_shortage,
    max_actors,
    node_resources,
)

MAX_RESTARTS = 3  # how often Ray restarts an actor that died, and retries its batch


@dataclass(frozen=True)
class AblationLosses:
    """How samples are predicted, intact and with masks; NaN for one without a predicted token."""

    loss: Floats  # nats a token [1 + masks, samples], that of the intact model first
    accuracy: Floats  # share of tokens predicted right, of the same shape
    answer: AblationLosses | None = None  # those of the expected answers, where there are any

    @classmethod
    def from_measures(cls, measures: Floats) -> AblationLosses:
        """Take loss and accuracy of text and answers, stacked [4, 1 + masks, samples]."""
        loss, accuracy, *answers = measures
        return cls(loss, accuracy, cls(*answers) if np.isfinite(answers[0]).any() else None)

    @property
    def loss_increase(self) -> Floats:
        """Loss increase of each sample with each mask [masks, samples]."""
        increase: Floats = self.loss[1:] - self.loss[0]
        return increase

    @property
    def accuracy_loss(self) -> Floats:
        """By how much the accuracy falls, of each sample with each mask [masks, samples]."""
        lost: Floats = self.accuracy[0] - self.accuracy[1:]
        return lost


def measure_pass(engine: LossEngine, batch: Sequence[TokenizedPrompt], mask: Mask | None) -> Floats:
    """Measure loss and accuracy of text and answers [4, batch], intact without a mask."""
    losses = engine.losses(batch, mask)
    answer = losses.answer
    assert answer is not None
    return np.array([losses.mean, losses.accuracy, answer.mean, answer.accuracy])


def compute_unit_means(
    engine: LossEngine, prompts: Sequence[TokenizedPrompt], batches: Sequence[Sequence[int]]
) -> Floats:
    """Mean of each unit over all counted tokens that reach it, signs kept, float64 [units].

    A unit set to its mean (`Mask.with_means`) says nothing about the prompt but leaves the average
    intact, which zero does not. A unit that no token reaches has 0.
    """
    totals = [engine.unit_sums([prompts[index] for index in batch]) for batch in batches]
    sums, tokens = (np.sum(parts, axis=0) for parts in zip(*totals, strict=True))
    return divide(sums, tokens, missing=0.0)


class _LossActor:
    """An actor: one model, which works on one call at a time."""

    def __init__(self, model: ModelConfig, config: ExtractConfig) -> None:
        options = (config.device, config.threads, config.ranks)
        self._ranks = RankGroup(partial(SteeringEngine.load, model, *options), config.ranks)

    def apply(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function with the engine and further arguments."""
        return self._ranks.call(function, *args)


class AblationPool:
    """Actors that measure losses, for use as a context manager within a Ray session.

    Without a number of workers there are as many as the cluster has room for.
    """

    def __init__(self, model: ModelConfig, config: ExtractConfig) -> None:
        self._resources = ActorResources(config.cpus, config.gpus)
        self._timeout = config.placement_timeout
        workers = config.workers or max(1, max_actors(self._resources, node_resources()))
        # A result follows from the arguments of its call alone, so Ray may run it twice.
        actor: Any = ray.remote(
            num_cpus=config.cpus,
            num_gpus=config.gpus,
            max_restarts=MAX_RESTARTS,
            max_task_retries=MAX_RESTARTS,
        )(_LossActor)
        self._actors: list[Any] = [actor.remote(model, config) for _ in range(workers)]

    def __enter__(self) -> AblationPool:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            ray.kill(actor)

    def measure(
        self,
        prompts: Sequence[TokenizedPrompt],
        batches: Sequence[Sequence[int]],
        masks: Sequence[Mask],
        on_pass: Callable[[], None] = lambda: None,
    ) -> AblationLosses:
        """Measure every sample, in batches of sample indices, intact and with each mask.

        The actors share the passes, one of each batch and mask. For resampled masks the prompts are
        `PairedPrompt`.

        Raises:
            UlcmodError: An actor died repeatedly, its model failed, or no node can hold an actor.
        """
        measured = np.full((4, 1 + len(masks), len(prompts)), np.nan)
        texts = [[prompts[index] for index in batch] for batch in batches]
        changes = [None, *masks]
        passes = list(product(range(len(batches)), range(len(changes))))
        calls = [(texts[batch], changes[row]) for batch, row in passes]
        for (batch, row), losses in zip(passes, self.map(measure_pass, calls), strict=True):
            measured[:, row, list(batches[batch])] = losses
            on_pass()
        return AblationLosses.from_measures(measured)

    def map(self, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        """Call a function with a `SteeringEngine` and each of several arguments, in their order.

        Raises:
            UlcmodError: As `measure`.
        """
        pool = ActorPool(self._actors)
        # Sent once, whatever the number of calls that share it: masks are as long as the model.
        arguments = {id(arg): arg for args in calls for arg in args}
        shared = {key: ray.put(arg) for key, arg in arguments.items()}
        for args in calls:
            refs = [shared[id(arg)] for arg in args]
            pool.submit(lambda actor, refs: actor.apply.remote(function, *refs), refs)
        try:
            for _ in calls:
                yield self._get_next(pool)
        except ray.exceptions.RayError as error:
            raise _explain_failure(error) from error

    def _get_next(self, pool: ActorPool) -> Any:
        while True:
            try:
                return pool.get_next(timeout=self._timeout)
            except TimeoutError:
                self._check_capacity()

    def _check_capacity(self) -> None:
        """Raise if no node can hold an actor: Ray would wait for one for ever."""
        nodes = node_resources()
        if max_actors(self._resources, nodes) < 1:
            raise UlcmodError(
                explain_shortage(self._resources, nodes),
                "Start the same command again when machines are back.",
            )


def _explain_failure(error: Exception) -> UlcmodError:
    cause = getattr(error, "cause", None)
    if isinstance(cause, UlcmodError):
        return cause
    if (failure := find_machine_failure(error)) is not None:
        return failure
    return UlcmodError(
        f"An actor that runs the model failed: {str(cause or error).splitlines()[-1]}.",
        "Start the same command again; with little memory, lower extract.batch_tokens.",
    )
