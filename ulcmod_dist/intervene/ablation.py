"""Ablation: the loss of every prompt with each of many masks, in this process or on Ray actors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.util.actor_pool import ActorPool

from ulcmod_dist.config.schema import ModelConfig
from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.forward.batches import TokenizedPrompt
from ulcmod_dist.forward.ranks import RankGroup
from ulcmod_dist.intervene.engine import LossEngine
from ulcmod_dist.intervene.masks import Mask


@dataclass(frozen=True)
class AblationLosses:
    """What ablating costs.

    Attributes:
        intact: float64 [samples], nats a token of the model as it is; NaN for a sample without a
            predicted token.
        masked: float64 [masks, samples], the same with each mask.
    """

    intact: NDArray[np.float64]
    masked: NDArray[np.float64]

    @property
    def loss_increase(self) -> NDArray[np.float64]:
        """By how much each mask raises each sample's loss, float64 [masks, samples]."""
        return self.masked - self.intact


def measure_ablation(
    engine: LossEngine,
    encoded: Sequence[TokenizedPrompt],
    batches: Sequence[Sequence[int]],
    masks: Sequence[Mask],
    advance: Callable[[int], None] = lambda samples: None,
) -> AblationLosses:
    """Measure every sample's loss intact and with each mask.

    Args:
        engine: The model.
        encoded: The samples.
        batches: Indices of samples run together, such as ``plan_batches`` gives.
        masks: What to ablate, one at a time.
        advance: Told the number of samples after each batch is done with all masks.
    """
    losses = np.full((1 + len(masks), len(encoded)), np.nan)
    for batch in batches:
        prompts = [encoded[index] for index in batch]
        for row, mask in enumerate([None, *masks]):
            losses[row, list(batch)] = engine.losses(prompts, mask).mean
        advance(len(batch))
    return AblationLosses(losses[0], losses[1:])


def compute_unit_means(
    engine: LossEngine, encoded: Sequence[TokenizedPrompt], batches: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    """Mean of each unit over all counted tokens that it sees, signs kept, float64 [units].

    These are the values for ``Mask.with_means``: a unit held at its mean carries no news of the
    prompt, but leaves the average intact, which zero does not. A unit that sees no token has 0.
    """
    totals = [engine.unit_sums([encoded[index] for index in batch]) for batch in batches]
    sums = np.stack([total for total, _ in totals]).sum(axis=0)
    tokens = np.stack([seen for _, seen in totals]).sum(axis=0)
    means: NDArray[np.float64] = sums / np.maximum(tokens, 1)
    return means


MAX_RESTARTS = 3
"""How often an actor that died is started again, and its batch with it."""


@dataclass(frozen=True)
class Machine:
    """What an actor computes with.

    Attributes:
        device: Device of torch.
        threads: Threads for computing on the CPU.
        cpus: CPUs that Ray sets aside for it.
        gpus: GPUs that Ray sets aside for it.
        ranks: Processes that share the model by tensor parallelism, each with a GPU of the actor's.
    """

    device: str = "cpu"
    threads: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    ranks: int = 1


class _LossRank:
    """What each process of an actor holds: the model, or its part of it, and the masks."""

    def __init__(self, spec: ModelConfig, machine: Machine) -> None:
        self._engine = LossEngine.load(spec, machine.device, machine.threads, machine.ranks)
        self._masks: Sequence[Mask] = ()

    def hold(self, masks: Sequence[Mask]) -> None:
        """Take the masks that the next batches are measured with."""
        self._masks = masks

    def losses(self, batch: Sequence[TokenizedPrompt]) -> NDArray[np.float64]:
        """Losses [1 + masks, batch] of a batch, intact first."""
        done = measure_ablation(self._engine, batch, [range(len(batch))], self._masks)
        return np.vstack([done.intact, done.masked])

    def means(
        self, encoded: Sequence[TokenizedPrompt], batches: Sequence[Sequence[int]]
    ) -> NDArray[np.float64]:
        """Mean of each unit over the counted tokens [units]."""
        return compute_unit_means(self._engine, encoded, batches)


class _LossActor:
    """An actor: one model, asked for the losses of one batch at a time."""

    def __init__(self, spec: ModelConfig, machine: Machine) -> None:
        self._ranks = RankGroup(partial(_load, spec, machine), machine.ranks)
        self._held: int | None = None

    def losses(
        self, batch: Sequence[TokenizedPrompt], number: int, masks: Sequence[Mask]
    ) -> NDArray[np.float64]:
        """Losses [1 + masks, batch] of a batch, intact first; the masks have a number."""
        if self._held != number:
            # Once, not with each batch: every rank is sent a copy.
            self._ranks.call("hold", masks)
            self._held = number
        losses: NDArray[np.float64] = self._ranks.call("losses", batch)
        return losses

    def means(
        self, encoded: Sequence[TokenizedPrompt], batches: Sequence[Sequence[int]]
    ) -> NDArray[np.float64]:
        """Mean of each unit over the counted tokens [units]."""
        means: NDArray[np.float64] = self._ranks.call("means", encoded, batches)
        return means


def _load(spec: ModelConfig, machine: Machine, _rank: int) -> _LossRank:
    return _LossRank(spec, machine)


class AblationPool:
    """Actors that measure losses; they are gone when the block ends.

    Args:
        spec: The model.
        machine: What each actor computes with.
        workers: Number of actors.
        placement_timeout: Seconds that may pass without an answer before ``require_room`` is asked.
        require_room: Raises where no node could hold an actor, for which Ray would wait for ever.
    """

    def __init__(
        self,
        spec: ModelConfig,
        machine: Machine,
        workers: int,
        placement_timeout: float,
        require_room: Callable[[], None] = lambda: None,
    ) -> None:
        # A batch's losses follow from its prompts and masks alone, so it may run twice.
        actor: Any = ray.remote(
            num_cpus=machine.cpus,
            num_gpus=machine.gpus,
            max_restarts=MAX_RESTARTS,
            max_task_retries=MAX_RESTARTS,
        )(_LossActor)
        self._placement_timeout = placement_timeout
        self._require_room = require_room
        self._measured = 0
        self._actors: list[Any] = [actor.remote(spec, machine) for _ in range(workers)]

    def __enter__(self) -> AblationPool:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            ray.kill(actor)

    def compute_unit_means(
        self, encoded: Sequence[TokenizedPrompt], batches: Sequence[Sequence[int]]
    ) -> NDArray[np.float64]:
        """Mean of each unit over the counted tokens of all samples [units]."""
        answer = self._actors[0].means.remote(encoded, batches)
        try:
            while not ray.wait([answer], timeout=self._placement_timeout)[0]:
                self._require_room()
            means: NDArray[np.float64] = ray.get(answer)
        except ray.exceptions.RayError as error:
            raise _explain_failure(error) from error
        return means

    def measure(
        self,
        encoded: Sequence[TokenizedPrompt],
        batches: Sequence[Sequence[int]],
        masks: Sequence[Mask],
        advance: Callable[[int], None] = lambda samples: None,
    ) -> AblationLosses:
        """Measure every sample's loss intact and with each mask, as ``ablation.ablate`` does.

        Raises:
            UlcmodError: An actor died again and again, its model failed, or there is no room left
                for one.
        """
        shared, number = ray.put(list(masks)), self._measured
        self._measured += 1
        losses = np.full((1 + len(masks), len(encoded)), np.nan)
        pool = ActorPool(self._actors)
        for batch in batches:
            prompts = [encoded[index] for index in batch]
            pool.submit(lambda actor, given: actor.losses.remote(given, number, shared), prompts)
        try:
            for batch in batches:
                losses[:, list(batch)] = self._next(pool)
                advance(len(batch))
        except ray.exceptions.RayError as error:
            raise _explain_failure(error) from error
        return AblationLosses(losses[0], losses[1:])

    def _next(self, pool: ActorPool) -> NDArray[np.float64]:
        while True:
            try:
                answer: NDArray[np.float64] = pool.get_next(timeout=self._placement_timeout)
            except TimeoutError:
                self._require_room()
            else:
                return answer


def _explain_failure(error: Exception) -> UlcmodError:
    cause = getattr(error, "cause", None)
    if isinstance(cause, UlcmodError):
        return cause
    return UlcmodError(
        f"An actor of the ablation failed: {str(cause or error).splitlines()[-1]}.",
        "Start the same command again; with little memory, lower extract.batch_tokens.",
    )
