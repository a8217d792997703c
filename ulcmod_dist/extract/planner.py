"""The plan of an extraction: which prompts are computed in which shard and batch, and its cost.

The plan is made once, before the first forward pass, and kept in ``plan.json``; a resumed run
follows it, so that a rerun on the same hardware gives the same bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Protocol, TypeAlias

from ulcmod_dist.corpus.chats import Prompt
from ulcmod_dist.corpus.prompts import Corpus, plan_shards
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.architectures import ANY_LENGTHS, LayerUnits, LengthClasses
from ulcmod_dist.forward.batches import (
    PromptSurvey,
    RefusedPrompt,
    TokenizedPrompt,
    explain_vocabulary,
    plan_batches,
)
from ulcmod_dist.runtime.rundir import PLAN, RunDir, fingerprint
from ulcmod_dist.store.records import dump_checksummed, load_checksummed
from ulcmod_dist.store.schema import CHUNK_BYTES, ChunkShape, cache_key, shard_digest

PROCESS_BYTES = 900 * 2**20  # an actor before it has loaded a model: Python, Ray and torch
CHUNKS_IN_FLIGHT = 10
"""Chunks that Zarr encodes or decodes at a time (`async.concurrency`); each takes about three times
its size meanwhile."""

ModelBytes: TypeAlias = Callable[[int, int], int]
"""From the tokens of the largest batch, with padding, and of the longest prompt: host memory."""


class PromptEncoder(Protocol):
    """What the planner needs of the tokenizer."""

    def encode(self, prompts: Sequence[Prompt]) -> Sequence[TokenizedPrompt]:
        """Tokenize prompts."""


@dataclass(frozen=True)
class PlannedShard:
    """A shard as planned."""

    digest: str  # what it is committed as
    rows: tuple[int, ...]  # rows of the corpus, in order
    tokens: int
    batches: tuple[tuple[int, ...], ...]  # indices into ``rows``


@dataclass(frozen=True)
class ShardTask(PlannedShard):
    """A shard to compute: one of the plan, or what is left of it."""

    prompts: tuple[str, ...]  # the digest of the prompt of each row
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
    truncated: int  # prompts to be computed that exceed the length limit
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
    def tokens(self) -> int:
        """Tokens to be computed, without padding."""
        return sum(shard.tokens for shard in self.shards)

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
        blocks = 2 * block + CHUNKS_IN_FLIGHT * 3 * chunk + statistics
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
            "batches": sum(len(shard.batches) for shard in self.shards),
            "bytes": self.bytes,
            "actor_bytes": self.actor_bytes,
        }


@dataclass(frozen=True)
class PreparedExtraction:
    """A plan with the corpus it was made for, and the digest of each of its prompts."""

    plan: ExtractionPlan
    prompts: Corpus
    digests: tuple[str, ...]
    survey: PromptSurvey | None = None


def merge_provenance(model: Mapping[str, str], prompt: Mapping[str, str]) -> dict[str, str]:
    """Provenance of activations: that of the model and of the tokenizer, under prefixes."""
    named = {f"model.{key}": value for key, value in model.items()}
    return named | {f"prompt.{key}": value for key, value in prompt.items()}


def make_plan(
    corpus: Corpus,
    digests: Sequence[str],
    tokenizer: PromptEncoder,
    units: Sequence[LayerUnits],
    provenance: dict[str, str],
    *,
    shard_samples: int,
    batch_tokens: int,
    lengths: LengthClasses = ANY_LENGTHS,
    vocabulary: int | None = None,
    known: AbstractSet[str] = frozenset(),
    chunk_shape: ChunkShape | None = None,
    model_bytes: ModelBytes = lambda tokens, longest: 0,
) -> ExtractionPlan:
    """Plan the prompts that have no rows yet: ``known`` are the digests of those that do.

    Shards never mix splits, so that the statistics of the train samples merge from theirs. New rows
    share the ``chunk_shape`` of those that are committed; None where there are none.

    Raises:
        InvalidInput: A prompt is refused, has a token beyond the model's ``vocabulary`` or too few
            that count; the message names its sample.
    """
    # Units of the last token that counts have no loss after them.
    least = 2 if provenance.get("statistic") == "attribution" else 1
    splits = corpus.table["split"].to_pylist()
    shards, truncated, seen = [], 0, set(known)
    largest = longest = 0
    for split in dict.fromkeys(splits):
        rows = [row for row, name in enumerate(splits) if name == split]
        cut = plan_shards([digests[row] for row in rows], seen, shard_samples)
        seen.update(digests[row] for row in rows)
        for piece in cut:
            chosen = tuple(rows[row] for row in piece)
            tokenized = _tokenize(corpus, chosen, tokenizer, vocabulary, least)
            tokens = [len(entry.ids) for entry in tokenized]
            truncated += sum(entry.truncated for entry in tokenized)
            digest = shard_digest(provenance, [digests[row] for row in chosen])
            batches = plan_batches(tokens, batch_tokens, lengths)
            shards.append(PlannedShard(digest, chosen, sum(tokens), batches))
            largest = max(largest, *(len(batch) * tokens[batch[0]] for batch in batches))
            longest = max(longest, *tokens)
    return ExtractionPlan(
        corpus=fingerprint(list(digests)),
        provenance=provenance,
        shard_samples=shard_samples,
        batch_tokens=batch_tokens,
        units=tuple(units),
        chunk_shape=chunk_shape or ChunkShape.of(shard_samples, sum(part.width for part in units)),
        samples=len(corpus),
        reused=sum(digest in known for digest in digests),
        truncated=truncated,
        shards=tuple(shards),
        model_bytes=model_bytes(largest, longest),
    )


def save_plan(run: RunDir, plan: ExtractionPlan) -> None:
    """Keep a plan in the run directory."""
    value = asdict(plan)
    value["record"], value["grid"] = value.pop("provenance"), value.pop("chunk_shape")
    for shard in value["shards"]:
        shard["rows"] = _compress_ranges(shard["rows"])
    run.write(PLAN, dump_checksummed({**value, "projected": plan.summary()}))


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
    value["shards"] = tuple(
        PlannedShard(
            shard["digest"],
            tuple(row for start, stop in shard["rows"] for row in range(start, stop)),
            shard["tokens"],
            tuple(map(tuple, shard["batches"])),
        )
        for shard in value["shards"]
    )
    return ExtractionPlan(**value)


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


def list_remaining_tasks(
    plan: ExtractionPlan, digests: Sequence[str], done: AbstractSet[str]
) -> list[ShardTask]:
    """List what is left of a plan, in plan order, without prompts committed or in quarantine."""
    tasks = []
    for shard in plan.shards:
        named = tuple(digests[row] for row in shard.rows)
        whole = ShardTask(shard.digest, shard.rows, shard.tokens, shard.batches, named)
        if (left := drop_prompts(whole, done, plan.provenance)) is not None:
            tasks.append(left)
    return tasks


def drop_prompts(
    task: ShardTask, prompts: AbstractSet[str], provenance: dict[str, str]
) -> ShardTask | None:
    """Remove prompts from a task; None if nothing is left."""
    left = [i for i, digest in enumerate(task.prompts) if digest not in prompts]
    if len(left) == len(task.prompts):
        return task
    if not left:
        return None
    named = tuple(task.prompts[index] for index in left)
    number = {index: position for position, index in enumerate(left)}
    kept = [tuple(number[index] for index in batch if index in number) for batch in task.batches]
    return ShardTask(
        digest=shard_digest(provenance, named),
        rows=tuple(task.rows[index] for index in left),
        prompts=named,
        batches=tuple(batch for batch in kept if batch),
        tokens=task.tokens * len(left) // len(task.prompts),
    )


def _tokenize(
    corpus: Corpus,
    rows: Sequence[int],
    tokenizer: PromptEncoder,
    vocabulary: int | None,
    least: int,
) -> Sequence[TokenizedPrompt]:
    try:
        tokenized = tokenizer.encode(corpus.prompts(rows))
        for position, entry in enumerate(tokenized):
            if vocabulary is not None and (token := max(entry.ids)) >= vocabulary:
                raise RefusedPrompt(position, *explain_vocabulary(token, vocabulary))
            if entry.num_counted < least:
                fact = "It has one token that counts; attribution needs another one to predict."
                raise RefusedPrompt(position, fact, "Leave it out, or set prompt.tokens to all.")
        return tokenized
    except RefusedPrompt as error:
        sample = corpus.describe_row(rows[error.position])
        raise InvalidInput(f"Sample {sample}: {error.fact}", error.remedy) from error


def _compress_ranges(rows: Sequence[int]) -> list[tuple[int, int]]:
    # Within a run of neighbours, row less position stays the same.
    runs = (list(run) for _, run in groupby(enumerate(rows), lambda pair: pair[1] - pair[0]))
    return [(run[0][1], run[-1][1] + 1) for run in runs]
