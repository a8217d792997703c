"""Manifests: how snapshots are written, version after version."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from ulcmod_dist.corpus.digests import DIGEST_BYTES, find_digests, from_arrow, join_digests
from ulcmod_dist.passes.standardised import Moments
from ulcmod_dist.runtime.rundir import KeyExists, RunDir, fingerprint, parquet_bytes
from ulcmod_dist.store.arrays import read_region
from ulcmod_dist.store.records import Commit, ObjectChecksum, dump_checksummed, list_snapshots
from ulcmod_dist.store.schema import (
    ACTIVATION_ARRAY,
    MANIFESTS,
    PROMPT_ARRAY,
    ChunkShape,
    cache_key,
    manifest_key,
)
from ulcmod_dist.store.shards import read_prompts, read_token_counts, shard_moments
from ulcmod_dist.store.snapshot import (
    SAMPLE_SCHEMA,
    UNIT_SCHEMA,
    Snapshot,
    load_snapshot,
    locate_rows,
    open_snapshot,
)

CORPUS_SCHEMA = pa.schema(
    [SAMPLE_SCHEMA.field(name) for name in ("sample_id", "split", "category")]
    + [pa.field("prompt", pa.binary(DIGEST_BYTES), nullable=False)]
)
"""What a manifest is made from: the samples, each with its prompt's digest."""


def write_manifest(
    run: RunDir,
    corpus: pa.Table,
    units: pa.Table,
    shards: Sequence[Commit],
    *,
    provenance: dict[str, str],
    check: Callable[[], None] = lambda: None,
) -> Snapshot:
    """Publish the samples of a corpus that have committed rows as the run's next snapshot.

    The corpus has ``CORPUS_SCHEMA``, the units ``UNIT_SCHEMA``. Of equal prompts the first shard's
    row is taken; samples without a row are left out. ``check`` is called before the manifest is
    created and raises if it may not be. Returns the newest snapshot where its contents are equal.
    """
    samples, named = _samples(run, corpus, shards)
    moments = _train_moments(run, samples, named, units.num_rows)
    described = units.select(UNIT_SCHEMA.names).cast(UNIT_SCHEMA)
    for name, values in [("mean", moments.mean), ("m2", moments.m2)]:
        described = described.append_column(name, pa.array(values))
    tables = {"samples": samples, "units": described}
    contents = {name: parquet_bytes(table) for name, table in tables.items()}
    stamp = {name: ObjectChecksum.of(data) for name, data in contents.items()}
    digest = fingerprint(
        {
            "record": cache_key(provenance),
            "tables": {name: entry.sha256 for name, entry in stamp.items()},
            "shards": {commit.digest: _content_arrays(commit) for commit in named},
        }
    )
    there = list_snapshots(run)
    if there and (newest := open_snapshot(run)).digest == digest:
        return newest
    chunk_shape = named[0].chunk_shape if named else ChunkShape.of(1, units.num_rows)
    header = {
        "record": provenance,
        "digest": digest,
        "grid": asdict(chunk_shape),
        "shards": [commit.digest for commit in named],
        "train_samples": moments.count,
        "statistics_of": "the train samples of this view; m2 is the sum of squared deviations",
        "previous": there[-1] if there else None,
    }
    version, header = _create_manifest(
        run, (there[-1] if there else 0) + 1, header, contents, stamp, check
    )
    return load_snapshot(run, version, header, named)


def _content_arrays(commit: Commit) -> dict[str, str]:
    """Digests of the arrays but that of the prompts, which the shard's digest covers."""
    return {name: sha for name, sha in commit.arrays.items() if name != PROMPT_ARRAY.name}


def _create_manifest(
    run: RunDir,
    version: int,
    header: dict[str, Any],
    contents: dict[str, bytes],
    stamp: dict[str, ObjectChecksum],
    check: Callable[[], None],
) -> tuple[int, dict[str, Any]]:
    files = {}
    for name, data in contents.items():
        # Named by content: tables of another writer of this version are never overwritten.
        key = f"{MANIFESTS}/{version:06d}.{name}.{stamp[name].sha256[:12]}.parquet"
        run.write(key, data)
        files[name] = {"key": key, **asdict(stamp[name])}
    header = {**header, "files": files}
    check()
    try:
        run.create(manifest_key(version), dump_checksummed(header))
    except KeyExists:
        # Another writer created this version first; try the next number.
        return _create_manifest(run, version + 1, header, contents, stamp, check)
    return version, header


def _samples(
    run: RunDir, corpus: pa.Table, shards: Sequence[Commit]
) -> tuple[pa.Table, list[Commit]]:
    """The samples that have rows, and their shards in order of appearance."""
    held = read_prompts(run, shards)
    place = find_digests(from_arrow(corpus["prompt"]), join_digests(held))
    kept = np.flatnonzero(place >= 0)
    bounds = np.cumsum([0, *map(len, held)])
    number = np.searchsorted(bounds, place[kept], side="right") - 1
    row = place[kept] - bounds[number]
    present, first, index = np.unique(number, return_index=True, return_inverse=True)
    order = np.argsort(first)
    named = [shards[number] for number in present[order]]
    index = np.argsort(order)[index]
    counts = read_token_counts(run, named)
    starts = np.cumsum([0, *map(len, counts)])
    table = corpus.take(pa.array(kept)).select(["sample_id", "split", "category"])
    digests = pa.array([commit.digest for commit in named], pa.string())
    columns = {
        **{name: table[name] for name in table.column_names},
        "tokens": np.concatenate([np.zeros(0, np.int64), *counts])[starts[index] + row],
        "shard": pa.DictionaryArray.from_arrays(pa.array(index, pa.int32()), digests),
        "row": pa.array(row, pa.int32()),
    }
    return pa.table(columns, schema=SAMPLE_SCHEMA), named


def _train_moments(run: RunDir, samples: pa.Table, shards: list[Commit], units: int) -> Moments:
    """Statistics of the train samples, merged in shard order.

    A shard whose rows are all in the train split, each once, has stored its own; for others the
    rows in question are read.
    """
    shard, row = locate_rows(samples, [commit.digest for commit in shards])
    train = np.flatnonzero(samples["split"].to_numpy() == "train")
    train = train[np.lexsort((row[train], shard[train]))]
    bounds = np.searchsorted(shard[train], np.arange(len(shards) + 1))
    total = Moments.none(units)
    for number, commit in enumerate(shards):
        rows = row[train[bounds[number] : bounds[number + 1]]]
        if np.array_equal(rows, np.arange(commit.rows)):
            total = total.merge(shard_moments(run, commit))
        elif len(rows):
            # Column by column of chunks, which bounds the memory.
            parts = []
            for start in range(0, units, commit.chunk_shape.columns):
                region = (slice(None), slice(start, min(start + commit.chunk_shape.columns, units)))
                values = read_region(run, commit.folder, ACTIVATION_ARRAY, region)
                parts.append(Moments.of(values[rows]))
            mean = np.concatenate([part.mean for part in parts])
            m2 = np.concatenate([part.m2 for part in parts])
            total = total.merge(Moments(len(rows), mean, m2))
    return total
