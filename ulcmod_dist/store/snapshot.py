"""The view: one version of what a run holds, opened without model and corpus.

A manifest names samples, the row of each, and the units with their statistics over the train
samples. With the shards it names it is all that a reader needs.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.arrays import ObjectChecksum, checksum_bytes
from ulcmod_dist.store.blocks import lazy_rows
from ulcmod_dist.store.checksums import CorruptionError, load_checksummed
from ulcmod_dist.store.moments import Moments
from ulcmod_dist.store.schema import MANIFESTS, SHARDS, ChunkShape, manifest_key
from ulcmod_dist.store.shards import Commit, read_commits

_VERSION = re.compile(rf"{MANIFESTS}/(\d+)\.json")

SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("category", pa.string()),
        pa.field("tokens", pa.int64(), nullable=False),
        pa.field("shard", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
    ]
)

UNIT_SCHEMA = pa.schema(
    [
        pa.field("unit", pa.int64(), nullable=False),
        pa.field("layer", pa.int32()),
        pa.field("index", pa.int32()),
        pa.field("path", pa.dictionary(pa.int32(), pa.string())),
        pa.field("expert", pa.int32()),
    ]
)
"""Units in order; ``index`` counts within layer and expert; nulls where an import knows nothing."""


class Activations(NamedTuple):
    """Raw activations of a split with the train statistics that standardise them.

    Attributes:
        raw: float32 Dask array [samples, units].
        mean: float64 [units] over the train samples of the view.
        std: float64 [units] over the same, with n - 1; below 1e-8 it counts as 1.
    """

    raw: da.Array
    mean: NDArray[np.float64]
    std: NDArray[np.float64]


@dataclass(frozen=True)
class ShardRef:
    """A shard as a view names it.

    Attributes:
        digest: Its digest.
        folder: Key of its group.
        prompts: Digest of the prompt of each of its rows, whether in the view or not.
    """

    digest: str
    folder: str
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class Snapshot:
    """One version of what a run holds; everything is read lazily.

    Attributes:
        run: The run directory.
        version: Number of its manifest, from 1.
        digest: What the view's contents are, whoever computed them and when.
        provenance: What its rows depend on: model, tokenizer, rule, versions.
        chunk_shape: Chunk shape of the store.
        samples: Table of ``SAMPLE_SCHEMA``, one row a sample, in corpus order.
        units: Table of ``UNIT_SCHEMA``, one row a unit, in order.
        moments: Statistics of the train samples.
        shards: The shards in the order in which samples first name them.
    """

    run: RunDir
    version: int
    digest: str
    provenance: dict[str, str]
    chunk_shape: ChunkShape
    samples: pa.Table
    units: pa.Table
    moments: Moments
    shards: tuple[ShardRef, ...]

    def activations(self, split: str | None = None) -> Activations:
        """The samples of a split (None: all) in the order of ``samples``, not yet read."""
        shard, row = self._places
        if split is not None:
            chosen = np.asarray(self.samples["split"].to_numpy() == split)
            shard, row = shard[chosen], row[chosen]
        folders = [shard.folder for shard in self.shards]
        raw = lazy_rows(
            self.run, folders, shard, row, units=self.units.num_rows, chunk_shape=self.chunk_shape
        )
        return Activations(raw, self.moments.mean, self.moments.std())

    def sample_ids(self, split: str | None = None) -> list[str]:
        """Ids of a split's samples, in the order of the rows of ``activations``."""
        table = self.samples
        if split is not None:
            table = table.filter(pc.equal(table["split"], split))
        return [str(value) for value in table["sample_id"].to_pylist()]

    def prompts(self, split: str | None = None) -> list[str]:
        """Digest of the prompt (of an import: of the row) of each sample of a split, in order."""
        pairs = zip(*self._places, self.samples["split"].to_pylist(), strict=True)
        return [
            self.shards[shard].prompts[row] for shard, row, name in pairs if split in (None, name)
        ]

    @property
    def imported(self) -> bool:
        """Whether the rows were computed elsewhere, so that nobody knows their prompts."""
        return "source" in self.provenance

    @cached_property
    def _places(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        return locate_rows(self.samples, [shard.digest for shard in self.shards])


def list_snapshots(run: RunDir) -> list[int]:
    """Numbers of the manifests that are there, ascending."""
    found = (_VERSION.fullmatch(key) for key, _ in run.keys(MANIFESTS))
    return [int(match[1]) for match in found if match]


def open_snapshot(run: RunDir, version: int | None = None) -> Snapshot:
    """Open the newest version of a run's view, or a given one.

    Every object of its shards is looked for in a listing, with its size.

    Raises:
        InvalidInput: The run holds no such version.
        CorruptionError: A file of the view is missing, has another size or another checksum.
    """
    there = list_snapshots(run)
    if not there or version not in (None, *there):
        raise InvalidInput(
            f"{run.url} holds no activations"
            + (f" of version {version}, only {there}." if there else " yet."),
            "Run `ulcmod extract` or `ulcmod import` first.",
        )
    number = there[-1] if version is None else version
    key = manifest_key(number)
    header = load_checksummed(run.read(key), run.show(key))
    commits = read_commits(run, header["shards"])
    check_listing(run, commits.values())
    return load_snapshot(run, number, header, list(commits.values()))


def latest_provenance(run: RunDir) -> dict[str, str] | None:
    """What the rows of the newest view depend on; None before the first. Looks at no shard.

    Raises:
        CorruptionError: The manifest has another checksum.
    """
    there = list_snapshots(run)
    if not there:
        return None
    key = manifest_key(there[-1])
    provenance: dict[str, str] = load_checksummed(run.read(key), run.show(key))["record"]
    return provenance


def check_listing(run: RunDir, commits: Iterable[Commit]) -> None:
    """Return if every object of the shards is listed with its size.

    Raises:
        CorruptionError: One is not.
    """
    listed = dict(run.keys(SHARDS))
    for commit in commits:
        for name, entry in commit.objects.items():
            size = listed.get(f"{commit.folder}/{name}")
            if size != entry.size:
                fact = "is missing" if size is None else f"has {size} bytes, not {entry.size}"
                raise CorruptionError(
                    f"{run.show(commit.folder)}/{name} {fact}.",
                    "Run `ulcmod verify` for all damage.",
                )


def load_snapshot(
    run: RunDir, version: int, header: dict[str, Any], commits: list[Commit]
) -> Snapshot:
    """The view that a manifest's header and the commits of its shards describe.

    Raises:
        CorruptionError: A table beside the header is missing or has another checksum.
    """
    tables = {}
    for name, entry in header["files"].items():
        try:
            data = run.read(entry["key"])
        except FileNotFoundError as error:
            raise CorruptionError(f"{run.show(entry['key'])} is missing.") from error
        if checksum_bytes(data) != ObjectChecksum(entry["size"], entry["sha256"]):
            raise CorruptionError(
                f"{run.show(entry['key'])} is damaged: its checksum does not match."
            )
        tables[name] = pq.read_table(io.BytesIO(data))
    units = tables["units"]
    mean, m2 = (units[name].to_numpy().astype(np.float64) for name in ("mean", "m2"))
    return Snapshot(
        run=run,
        version=version,
        digest=header["digest"],
        provenance=header["record"],
        chunk_shape=ChunkShape(**header["grid"]),
        samples=tables["samples"].cast(SAMPLE_SCHEMA),
        units=units.select(UNIT_SCHEMA.names).cast(UNIT_SCHEMA),
        moments=Moments(header["train_samples"], mean, m2),
        shards=tuple(ShardRef(c.digest, c.folder, c.prompts) for c in commits),
    )


def locate_rows(
    samples: pa.Table, digests: list[str]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Index of the shard, and row in it, of each sample."""
    column = samples["shard"].cast(pa.string())
    shard = pc.index_in(column, value_set=pa.array(digests, pa.string()))
    row = samples["row"].to_numpy().astype(np.int32)
    return shard.to_numpy(zero_copy_only=False).astype(np.int32), row
