"""The plain values of an extraction: what a worker is told, what it answers, what a run reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, TypeAlias

from ulcmod_dist.forward.values import Encoded, LayerUnits, Prompt, Rows


class Forward(Protocol):
    """A loaded model that turns prompts into rows; one in each actor."""

    @property
    def units(self) -> tuple[LayerUnits, ...]:
        """What the columns of a row are, in order."""

    def encode(self, prompts: Sequence[Prompt]) -> Sequence[Encoded]:
        """Tokens of each prompt."""

    def rows(self, batch: Sequence[Encoded]) -> tuple[Rows, tuple[int, ...]]:
        """One row a prompt, and the sizes of the batches run: several where memory was short."""


ForwardFactory: TypeAlias = Callable[[], Forward]
"""Loads a model in the process that will use it; must survive pickling."""

Notice: TypeAlias = Callable[[str, str], None]
"""Called by a worker with a point of a shard's life and the shard's digest."""


@dataclass(frozen=True)
class ShardTask:
    """One shard to compute.

    Attributes:
        digest: Its digest.
        rows: Rows of the corpus that are its rows, in order.
        prompts: The digest of the prompt of each.
        batches: Rows of each batch.
        tokens: Tokens of all prompts.
        attempt: How often it has been handed out, this time included.
    """

    digest: str
    rows: tuple[int, ...]
    prompts: tuple[str, ...]
    batches: tuple[tuple[int, ...], ...]
    tokens: int
    attempt: int = 1


@dataclass(frozen=True)
class ShardDone:
    """A shard was committed.

    Attributes:
        digest: Its digest.
        seconds: Time of the forward passes.
        splits: Number of batches that had to be split.
        peak_bytes: Largest resident memory of the actor so far.
    """

    digest: str
    seconds: float
    splits: int
    peak_bytes: int


@dataclass(frozen=True)
class Measured:
    """What running one batch took.

    Attributes:
        seconds: Time, tokenizing included.
        tokens: Tokens, without padding.
        peak_bytes: Largest resident memory of the actor so far.
    """

    seconds: float
    tokens: int
    peak_bytes: int


@dataclass(frozen=True)
class Failure:
    """A shard was not committed. A value, since not every exception survives pickling.

    Attributes:
        scope: What is to blame: some ``prompts``, the ``shard`` as a whole, the ``store`` that did
            not take it, or the ``run``, in which no further shard can succeed.
        reason: What went wrong, in one line.
        remedy: What helps, or None.
        prompts: Digests of the prompts to blame.
        clean: Whether the process is still fit for use.
    """

    scope: Literal["prompts", "shard", "store", "run"]
    reason: str
    remedy: str | None = None
    prompts: tuple[str, ...] = ()
    clean: bool = True


@dataclass(frozen=True)
class Progress:
    """How far an extraction is.

    Attributes:
        shards_done, shards: Shards committed, and in all; those of earlier runs are not counted.
        prompts_done, prompts: The same for prompts.
        tokens_done, tokens: The same for tokens.
        prompts_per_second, tokens_per_second: Since the first model was loaded.
        actors: Actors alive with a loaded model.
        failures: Attempts at a shard that failed.
        quarantined: Prompts in quarantine.
        seconds_left: Estimate from the tokens left; None before the first shard.
        peak_bytes: Largest resident memory that an actor has had.
    """

    shards_done: int = 0
    shards: int = 0
    prompts_done: int = 0
    prompts: int = 0
    tokens_done: int = 0
    tokens: int = 0
    prompts_per_second: float = 0.0
    tokens_per_second: float = 0.0
    actors: int = 0
    failures: int = 0
    quarantined: int = 0
    seconds_left: float | None = None
    peak_bytes: int = 0

    def as_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)
