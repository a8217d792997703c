"""Shards: written privately, read back, and only then recorded as committed.

Every attempt at a shard writes into a folder of its own. The commit record, created only if there
is none, names the one attempt that is the shard. Two attempts can therefore never mix; objects of
the others are orphans, which ``ulcmod gc`` deletes.
"""

import contextlib
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.corpus.digests import DIGEST_BYTES, Digests, from_hex, to_hex
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.passes.standardised import Moments
from ulcmod_dist.runtime.rundir import KeyExists, RunDir
from ulcmod_dist.store.arrays import Apply, ShardArray, read_back, read_region, write_group
from ulcmod_dist.store.records import (
    READERS,
    Commit,
    Origin,
    commit_to_json,
    dump_checksummed,
    read_commit,
    read_record,
)
from ulcmod_dist.store.schema import (
    ACTIVATION_ARRAY,
    M2_ARRAY,
    MEAN_ARRAY,
    PROMPT_ARRAY,
    ROUTED_ARRAY,
    SHARDS,
    TOKEN_ARRAY,
    ChunkShape,
    commit_key,
    shard_digest,
    vector_chunks,
)

WRITE_THREADS = 8
"""Chunks of a shard that are written, read back and compared at a time."""
_CHECKED_ROWS = 64


@dataclass(frozen=True)
class ShardContent:
    """The rows of a shard, each with the digest of its prompt.

    Attributes:
        prompts: SHA-256 of each prompt.
        activations: float32 [rows, units].
        token_counts: int64 [rows], the tokens that count in the mean of a row.
        routed: int32 [rows, expert slots], tokens routed to each expert; None without experts.
    """

    prompts: Digests
    activations: NDArray[np.float32]
    token_counts: NDArray[np.int64]
    routed: NDArray[np.int32] | None = None


@dataclass(frozen=True)
class ShardWriter:
    """Writes shards of one store.

    ``check`` is called before each commit and raises if this writer may not commit any more;
    ``on_event`` is called with the name of each finished step: written, checked, committed.
    """

    run: RunDir
    chunk_shape: ChunkShape
    check: Callable[[], None] = lambda: None
    on_event: Callable[[str], None] = lambda step: None

    def write(self, content: ShardContent, origin: Origin) -> Commit:
        """Store a shard and commit it; returns the valid commit, which may be another writer's.

        Raises:
            InvalidInput: An activation is NaN or infinite.
            CorruptionError: The store returned other bytes than were written.
        """
        digest = shard_digest(origin.provenance, content.prompts)
        folder = f"{SHARDS}/{digest}/{origin.attempt}-{secrets.token_hex(4)}"
        try:
            with ThreadPoolExecutor(WRITE_THREADS) as pool:
                _check_finite(content, pool.map)
                commit = self._store(content, origin, digest, folder, pool.map)
            self.check()
            self.run.create(commit_key(digest), dump_checksummed(commit_to_json(commit)))
        except Exception as error:
            # On a full disk the next attempt needs the space.
            with contextlib.suppress(Exception):
                for key, _ in self.run.keys(folder):
                    self.run.delete(key)
            if isinstance(error, KeyExists):
                # Another writer committed first.
                return read_commit(self.run, digest)
            raise
        self.on_event("committed")
        return commit

    def _store(
        self, content: ShardContent, origin: Origin, digest: str, folder: str, apply: Apply
    ) -> Commit:
        arrays = _arrays(content, self.chunk_shape, apply)
        attributes = {"digest": digest, "record": origin.provenance}
        write_group(self.run, folder, arrays, attributes, apply)
        self.on_event("written")
        objects, digests = read_back(self.run, folder, arrays, apply)
        self.run.sync(*(f"{folder}/{key}" for key in objects))
        self.on_event("checked")
        return Commit(
            digest=digest,
            folder=folder,
            rows=len(content.prompts),
            units=content.activations.shape[1],
            chunk_shape=self.chunk_shape,
            tokens=int(content.token_counts.sum()),
            arrays=digests,
            objects=objects,
            origin=origin,
        )


def _check_finite(content: ShardContent, apply: Apply) -> None:
    values = content.activations
    starts = range(0, len(values), _CHECKED_ROWS)
    parts = [values[start : start + _CHECKED_ROWS] for start in starts]
    for start, part, is_finite in zip(starts, parts, apply(_is_finite, parts), strict=True):
        if not is_finite:
            row, unit = np.argwhere(~np.isfinite(part))[0]
            raise InvalidInput(
                f"The activation of unit {unit} on row {start + row} of a shard (prompt "
                f"{to_hex(content.prompts[start + row])[0][:12]}) is {part[row, unit]}.",
                "Activations must be finite.",
            )


def _is_finite(part: NDArray[np.float32]) -> bool:
    return bool(np.isfinite(part).all())


def read_prompts(run: RunDir, commits: Sequence[Commit]) -> list[Digests]:
    """The digest of the prompt of each row of shards, shard after shard."""
    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(lambda commit: _read_prompts(run, commit), commits))


def _read_prompts(run: RunDir, commit: Commit) -> Digests:
    if PROMPT_ARRAY.name in commit.arrays:
        return read_region(run, commit.folder, PROMPT_ARRAY, (slice(None), slice(None)))
    # Older records list them.
    return from_hex(read_record(run, commit.digest)["prompts"])


def read_token_counts(run: RunDir, commits: Sequence[Commit]) -> list[NDArray[np.int64]]:
    """The tokens that count in each row of shards, shard after shard."""

    def read(commit: Commit) -> NDArray[np.int64]:
        return read_region(run, commit.folder, TOKEN_ARRAY, (slice(None),))

    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(read, commits))


def shard_moments(run: RunDir, commit: Commit) -> Moments:
    """The statistics that are stored with a shard."""
    mean = read_region(run, commit.folder, MEAN_ARRAY, (slice(None),))
    m2 = read_region(run, commit.folder, M2_ARRAY, (slice(None),))
    return Moments(commit.rows, mean, m2)


def _arrays(content: ShardContent, chunk_shape: ChunkShape, apply: Apply) -> list[ShardArray]:
    rows, units = content.activations.shape
    moments = Moments.of(content.activations, apply)
    chunks = (min(chunk_shape.rows, rows), min(chunk_shape.columns, units))
    arrays = [
        ShardArray(ACTIVATION_ARRAY, content.activations, chunks),
        ShardArray(TOKEN_ARRAY, content.token_counts.astype(np.int64), (rows,)),
        ShardArray(PROMPT_ARRAY, content.prompts, (rows, DIGEST_BYTES)),
        ShardArray(MEAN_ARRAY, moments.mean, vector_chunks(units, 8)),
        ShardArray(M2_ARRAY, moments.m2, vector_chunks(units, 8)),
    ]
    if content.routed is not None:
        routed = content.routed.astype(np.int32)
        columns = ChunkShape.of(chunk_shape.rows, routed.shape[1]).columns
        chunks = (min(chunk_shape.rows, rows), min(columns, routed.shape[1]))
        arrays.append(ShardArray(ROUTED_ARRAY, routed, chunks))
    return arrays
