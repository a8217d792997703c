"""Every array and key of the activation store, and how arrays are cut and coded.

activations.zarr/
  shards/<digest>/<attempt>/        a Zarr group of the arrays below
  commits/<digest>.json             which attempt is the shard, and what it consists of
  manifests/<version>.json          a snapshot: which samples, in which rows of which shards
  manifests/<version>.samples.parquet, <version>.units.parquet
  quarantine/<prompt digest>.json   a prompt whose forward pass failed, and why
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ulcmod_dist.runtime.rundir import ACTIVATIONS, fingerprint

if TYPE_CHECKING:
    from ulcmod_dist.corpus.digests import Digests

SHARDS = f"{ACTIVATIONS}/shards"
COMMITS = f"{ACTIVATIONS}/commits"
MANIFESTS = f"{ACTIVATIONS}/manifests"
QUARANTINE = f"{ACTIVATIONS}/quarantine"

CHUNK_BYTES = 8 * 2**20
"""Target size of a chunk; real ones have two thirds to four thirds of it."""
CHUNK_ROWS = 1024

LIBRARY = "library"
"""Entries of a provenance with this part in their dotted name are versions of libraries. Those
change rows by rounding at most, so they are stored but are not part of the cache key."""


@dataclass(frozen=True)
class ArraySchema:
    """One array of a shard, little-endian; its fill value is never read (see `StrictStore`)."""

    name: str
    dims: tuple[str, ...]
    dtype: str
    fill: float


ACTIVATION_ARRAY = ArraySchema("activations", ("row", "unit"), "float32", float("nan"))
TOKEN_ARRAY = ArraySchema("token_counts", ("row",), "int64", -1)
PROMPT_ARRAY = ArraySchema("prompts", ("row", "byte"), "uint8", 0)
MEAN_ARRAY = ArraySchema("mean", ("unit",), "float64", float("nan"))
M2_ARRAY = ArraySchema("m2", ("unit",), "float64", float("nan"))
ROUTED_ARRAY = ArraySchema("routed", ("row", "expert_slot"), "int32", -1)


@dataclass(frozen=True)
class ChunkShape:
    """Rows and units of a chunk of activations; a smaller shard has chunks of fewer rows.

    All shards of a store share it, so that the columns of a snapshot line up.
    """

    rows: int
    columns: int

    @classmethod
    def of(cls, rows: int, units: int) -> ChunkShape:
        """Near-equal chunks of about ``CHUNK_BYTES`` for shards of this many rows."""
        tall = _even_length(rows, CHUNK_ROWS)
        wide = max(1, CHUNK_BYTES // (4 * tall))
        pieces = max(1, round(units / wide))
        return cls(tall, -(-units // pieces))


def vector_chunks(length: int, itemsize: int) -> tuple[int]:
    """Chunk shape of a vector."""
    return (_even_length(length, CHUNK_BYTES // itemsize),)


def _even_length(length: int, limit: int) -> int:
    """The length of the pieces when ``length`` is cut into as few as the limit allows."""
    pieces = max(1, -(-length // limit))
    return max(1, -(-length // pieces))


def cache_key(provenance: dict[str, str]) -> dict[str, str]:
    """The part of a provenance that has to be equal for rows to be reused.

    All but the versions of libraries and, for a model with a digest of its weights, the name of its
    folder.
    """
    unnamed = {"model.id"} if "model.weights" in provenance else set()
    return {
        key: value
        for key, value in provenance.items()
        if LIBRARY not in key.split(".") and key not in unnamed
    }


def shard_digest(provenance: dict[str, str], prompts: Digests) -> str:
    """SHA-256 of what the rows depend on: their provenance and the prompts' digests, in order."""
    # Imported here: `ulcmod status` needs the keys of this file, and no NumPy.
    from ulcmod_dist.corpus.digests import to_hex

    return fingerprint({"record": cache_key(provenance), "prompts": to_hex(prompts)})


def commit_key(digest: str) -> str:
    """Key of a shard's commit record."""
    return f"{COMMITS}/{digest}.json"


def manifest_key(version: int) -> str:
    """Key of a manifest."""
    return f"{MANIFESTS}/{version:06d}.json"
