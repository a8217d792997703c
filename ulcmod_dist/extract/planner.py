"""The plan of an extraction: which prompts are computed in which shard, and its cost.

The plan is made once, before the first forward pass, and kept in ``plan.json``; a resumed run
follows it, so that a rerun on the same hardware gives the same bytes. The batches of a shard follow
from the tokens of its prompts, so they are made where those are, in the actors.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ulcmod_dist.corpus.chats import Prompt
from ulcmod_dist.corpus.digests import Digests, find_digests, fingerprint_digests
from ulcmod_dist.corpus.prompts import Corpus, plan_shards
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.architectures import ANY_LENGTHS, LayerUnits, LengthClasses
from ulcmod_dist.forward.batches import (
    PromptSurvey,
    RefusedPrompt,
    TokenizedPrompt,
    plan_batches,
    require_tokens,
)
from ulcmod_dist.runtime.rundir import PLAN, PLAN_ROWS, RunDir, parquet_bytes
from ulcmod_dist.store.records import (
    ObjectChecksum,
    dump_checksummed,
    load_checksummed,
    read_checked_table,
)
from ulcmod_dist.store.schema import CHUNK_BYTES, ChunkShape, cache_key, shard_digest
from ulcmod_dist.store.shards import WRITE_THREADS

SAMPLED = 4096
"""Prompts that are tokenized for the plan: of larger corpora the longest, and others evenly spread.
The actors tokenize every prompt; to do so here as well took most of the time of a large plan."""
PROCESS_BYTES = 900 * 2**20  # an actor before it has loaded a model: Python, Ray and torch

ModelBytes: TypeAlias = Callable[[int, int], int]
"""From the tokens of the largest batch, with padding, and of the longest prompt: host memory."""


class PromptEncoder(Protocol):
    """What the planner needs of the tokenizer."""

    def encode(self, prompts: Sequence[Prompt]) -> Sequence[TokenizedPrompt]:
        """Tokenize prompts."""


BatchPlanner: TypeAlias = Callable[[Sequence[int]], tuple[tuple[int, ...], ...]]
"""From the tokens of each prompt of a shard: its batches, see `plan_batches`."""


@dataclass(frozen=True)
class PlannedShard:
    """A shard as planned."""

    digest: str  # what it is committed as
    rows: NDArray[np.int64] = field(compare=False)  # rows of the corpus, in order


@dataclass(frozen=True)
class ShardTask(PlannedShard):
    """A shard to compute: one of the plan, or what is left of it."""

    prompts: Digests = field(compare=False)  # of each row
    attempt: int = 1  # how often it has been handed out, this time included


@dataclass(frozen=True)
class ExtractionPlan:
    """Everything an extraction follows."""

    corpus: str  # fingerprint of the prompts of all samples, in order
    provenance: dict[str, str]  # what rows depend on: model, tokenizer, token rule, versions
    shard_samples: int
    batch_tokens: int  # padding included
    units: tuple[LayerUnits, ...]  # what the columns are
    chunk_shape: ChunkShape
    samples: int  # of the corpus
    reused: int  # samples whose rows were there when the plan was made
    tokens: int  # to be computed, without padding; estimated where ``tokenized`` are not all
    truncated: int  # prompts to be computed that exceed the length limit; estimated likewise
    tokenized: int  # prompts that the plan has tokenized
    shards: tuple[PlannedShard, ...]
    model_bytes: int = 0  # projected memory of the model in an actor: weights and one batch

    @property
    def inputs(self) -> dict[str, Any]:
        """What the plan was made from."""
        return list_plan_inputs(self.corpus, self.provenance, self.shard_samples, self.batch_tokens)

    @property
    def num_units(self) -> int:
        """Number of units: columns of a row."""
        return sum(part.width for part in self.units)

    @property
    def expert_slots(self) -> int:
        """Number of routed-token counts of a row."""
        return sum(part.expert is not None for part in self.units)

    @property
    def prompts(self) -> int:
        """Prompts to be computed."""
        return sum(len(shard.rows) for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Bytes to be written."""
        row = 4 * self.num_units + 4 * self.expert_slots + 8
        return self.prompts * row + len(self.shards) * 16 * self.num_units

    @property
    def actor_bytes(self) -> int:
        """Projected peak memory of an actor: the shard computed and the one being written."""
        rows = max((len(shard.rows) for shard in self.shards), default=0)
        block = rows * (4 * self.num_units + 4 * self.expert_slots)
        chunk = min(CHUNK_BYTES * 3 // 2, block)
        statistics = 6 * 8 * self.num_units
        # A chunk that is encoded or decoded takes about three times its size meanwhile.
        blocks = 2 * block + WRITE_THREADS * 3 * chunk + statistics
        return PROCESS_BYTES + self.model_bytes + blocks

    def summary(self) -> dict[str, Any]:
        """The plan in figures, JSON values."""
        return {
            "samples": self.samples,
            "reused": self.reused,
            "prompts": self.prompts,
            "truncated": self.truncated,
            "tokens": self.tokens,
            "units": self.num_units,
            "shards": len(self.shards),
            "batch_tokens": self.batch_tokens,
            "bytes": self.bytes,
            "actor_bytes": self.actor_bytes,
        }


@dataclass(frozen=True)
class PreparedExtraction:
    """A plan with the corpus it was made for, and the digest of each of its prompts."""

    plan: ExtractionPlan
    prompts: Corpus
    digests: Digests
    lengths: LengthClasses = ANY_LENGTHS
    survey: PromptSurvey | None = None

    @property
    def plan_batches(self) -> BatchPlanner:
        """What makes the batches of a shard."""
        return partial(plan_batches, batch_tokens=self.plan.batch_tokens, classes=self.lengths)


def merge_provenance(model: Mapping[str, str], prompt: Mapping[str, str]) -> dict[str, str]:
    """Provenance of activations: that of the model and of the tokenizer, under prefixes."""
    named = {f"model.{key}": value for key, value in model.items()}
    return named | {f"prompt.{key}": value for key, value in prompt.items()}


def make_plan(
    corpus: Corpus,
    digests: Digests,
    tokenizer: PromptEncoder,
    units: Sequence[LayerUnits],
    provenance: dict[str, str],
    *,
    shard_samples: int,
    batch_tokens: int,
    known: Digests,
    vocabulary: int | None = None,
    chunk_shape: ChunkShape | None = None,
    model_bytes: ModelBytes = lambda tokens, longest: 0,
) -> ExtractionPlan:
    """Plan the prompts that have no rows yet: ``known`` are the digests of those that do.

    New rows share the ``chunk_shape`` of those that are committed; None where there are none. Up to
    `SAMPLED` prompts are tokenized; what they show of the others is an estimate.

    Raises:
        InvalidInput: A prompt is refused, has a token beyond the model's ``vocabulary`` or too few
            that count; the message names its sample.
    """
    splits = corpus.table["split"].combine_chunks().dictionary_encode().indices.to_numpy()
    cut = plan_shards(digests, known, splits, shard_samples)
    rows = np.concatenate([np.zeros(0, np.int64), *cut])
    spread, longest = _choose_sample(corpus, rows)
    least = 2 if provenance.get("statistic") == "attribution" else 1
    lengths, truncated = _tokenize(corpus, spread, tokenizer, vocabulary, least)
    others, _ = _tokenize(corpus, np.setdiff1d(longest, spread), tokenizer, vocabulary, least)
    most = int(max(lengths.max(initial=0), others.max(initial=0)))
    # Prompts of a batch are padded to its longest, within the budget if they are several.
    largest = max(most, min(batch_tokens, most * max(map(len, cut), default=0)))
    scale = len(rows) / max(1, len(spread))
    return ExtractionPlan(
        corpus=fingerprint_digests(digests),
        provenance=provenance,
        shard_samples=shard_samples,
        batch_tokens=batch_tokens,
        units=tuple(units),
        chunk_shape=chunk_shape or ChunkShape.of(shard_samples, sum(part.width for part in units)),
        samples=len(corpus),
        reused=int((find_digests(digests, known) >= 0).sum()),
        tokens=round(scale * int(lengths.sum())),
        truncated=round(scale * truncated),
        tokenized=len(lengths) + len(others),
        shards=tuple(PlannedShard(shard_digest(provenance, digests[rows]), rows) for rows in cut),
        model_bytes=model_bytes(largest, most),
    )


def save_plan(run: RunDir, plan: ExtractionPlan) -> None:
    """Keep a plan in the run directory: its rows as a column, the rest as JSON."""
    shards = [[shard.digest, len(shard.rows)] for shard in plan.shards]
    rows = np.concatenate([np.zeros(0, np.int64), *(shard.rows for shard in plan.shards)])
    data = parquet_bytes(pa.table({"row": rows}))
    checksum = ObjectChecksum.of(data)
    # Named by content: until the plan is replaced, that of before keeps its rows.
    key = f"{PLAN_ROWS}/{checksum.sha256[:12]}.parquet"
    run.write(key, data)
    value = asdict(replace(plan, shards=()))
    value["record"], value["grid"] = value.pop("provenance"), value.pop("chunk_shape")
    value |= {"shards": shards, "rows": {"key": key, **asdict(checksum)}}
    value["projected"] = plan.summary()
    run.write(PLAN, dump_checksummed(value))
    for other, _ in run.keys(PLAN_ROWS):
        if other != key:
            run.delete(other)


def drop_plan(run: RunDir) -> None:
    """Delete the plan of a run."""
    run.delete(PLAN)
    for key, _ in run.keys(PLAN_ROWS):
        run.delete(key)


def load_plan(run: RunDir) -> ExtractionPlan | None:
    """Load the plan that the run follows, or None; raises `CorruptionError` if it is damaged."""
    try:
        value = load_checksummed(run.read(PLAN), run.show(PLAN))
    except FileNotFoundError:
        return None
    del value["projected"]
    value["provenance"] = value.pop("record")
    value["chunk_shape"] = ChunkShape(**value.pop("grid"))
    value["units"] = tuple(LayerUnits(**part) for part in value["units"])
    if "rows" in value:
        rows = read_checked_table(run, **value.pop("rows"))["row"].to_numpy()
        bounds = np.cumsum([0, *(count for _, count in value["shards"])])
        value["shards"] = tuple(
            PlannedShard(digest, rows[start : start + count])
            for (digest, count), start in zip(value["shards"], bounds, strict=False)
        )
        return ExtractionPlan(**value)
    # Earlier versions planned the batches as well, for which they tokenized every prompt.
    value["tokens"] = sum(shard["tokens"] for shard in value["shards"])
    value["shards"] = tuple(
        PlannedShard(shard["digest"], np.concatenate([np.arange(*ends) for ends in shard["rows"]]))
        for shard in value["shards"]
    )
    return ExtractionPlan(**value, tokenized=sum(len(shard.rows) for shard in value["shards"]))


def list_plan_inputs(
    corpus: str, provenance: Mapping[str, str], shard_samples: int, batch_tokens: int
) -> dict[str, Any]:
    """List what a plan is made from, by the names that messages use."""
    return {
        **cache_key(dict(provenance)),
        "corpus": corpus,
        "extract.shard_samples": shard_samples,
        "extract.batch_tokens": batch_tokens,
    }


def list_remaining_tasks(plan: ExtractionPlan, digests: Digests, done: Digests) -> list[ShardTask]:
    """List what is left of a plan, in plan order, without prompts committed or in quarantine."""
    is_left = find_digests(digests, done) < 0
    tasks = []
    for shard in plan.shards:
        rows = shard.rows[is_left[shard.rows]]
        if len(rows) == len(shard.rows):
            tasks.append(ShardTask(shard.digest, rows, digests[rows]))
        elif len(rows):
            digest = shard_digest(plan.provenance, digests[rows])
            tasks.append(ShardTask(digest, rows, digests[rows]))
    return tasks


def drop_prompts(task: ShardTask, prompts: Digests, provenance: dict[str, str]) -> ShardTask | None:
    """Remove prompts from a task; None if nothing is left."""
    left = np.flatnonzero(find_digests(task.prompts, prompts) < 0)
    if not len(left):
        return None
    named = task.prompts[left]
    return ShardTask(shard_digest(provenance, named), task.rows[left], named)


def _choose_sample(
    corpus: Corpus, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Some of the rows, evenly spread, and those of the longest prompts; all where they are few."""
    if len(rows) <= SAMPLED:
        return rows, rows
    half = SAMPLED // 2
    spread = rows[np.arange(half) * len(rows) // half]
    return spread, rows[np.argpartition(corpus.sizes()[rows], -half)[-half:]]


def _tokenize(
    corpus: Corpus,
    rows: NDArray[np.int64],
    tokenizer: PromptEncoder,
    vocabulary: int | None,
    least: int,
) -> tuple[NDArray[np.int64], int]:
    """The tokens of each of some prompts, and how many of these are truncated."""
    try:
        tokenized = tokenizer.encode(corpus.prompts(rows))
        require_tokens(tokenized, least, vocabulary)
    except RefusedPrompt as error:
        sample = corpus.describe_row(int(rows[error.position]))
        raise InvalidInput(f"Sample {sample}: {error.fact}", error.remedy) from error
    lengths = np.array([len(entry.ids) for entry in tokenized], np.int64)
    return lengths, sum(entry.truncated for entry in tokenized)
