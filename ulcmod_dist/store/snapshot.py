"""Snapshots: the samples and units of a run at one version, opened without model and corpus.

A manifest names the samples, the row of each, and the units with their statistics over the train
samples. With the shards it names it is all that a reader needs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ulcmod_dist.corpus.digests import Digests, join_digests
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.passes.standardised import Moments, Standardised
from ulcmod_dist.runtime.rundir import ACTIVATIONS, RunDir
from ulcmod_dist.store.records import (
    Commit,
    CorruptionError,
    list_snapshots,
    read_checked_table,
    read_commits,
    read_header,
)
from ulcmod_dist.store.schema import ChunkShape

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
"""Units in order; ``index`` counts within layer and expert; null where an import does not say."""


@dataclass(frozen=True)
class Snapshot:
    """The samples and units of a run at one version; activations are read lazily.

    Attributes:
        version: Number of its manifest, from 1.
        digest: Digest of the contents; equal for equal contents, whoever computed them and when.
        provenance: What its rows depend on: model, tokenizer, rule, versions.
        samples_file: Key, size and SHA-256 of the table of samples.
        moments: Statistics of the train samples.
        shards: In the order in which samples first name them; they may have rows that are not part
            of the snapshot.
    """

    run: RunDir
    version: int
    digest: str
    provenance: dict[str, str]
    chunk_shape: ChunkShape
    samples_file: Mapping[str, Any]
    units: pa.Table
    moments: Moments
    shards: tuple[Commit, ...]

    @cached_property
    def samples(self) -> pa.Table:
        """Table of ``SAMPLE_SCHEMA``, in corpus order; read when first asked for.

        Raises:
            CorruptionError: It is missing or has another checksum.
        """
        return read_checked_table(self.run, **self.samples_file).cast(SAMPLE_SCHEMA)

    def activations(self, split: str | None = None) -> Standardised:
        """Activations z of a split (None: all) in the order of ``samples``, lazily over Dask.

        Samples of every split are standardised by the statistics of the train samples.
        """
        # Zarr and Dask are imported where rows are read: samples and units are shown without them.
        from ulcmod_dist.store.lazy_rows import lazy_rows

        shard, row = self._locations
        if split is not None:
            chosen = np.asarray(self.samples["split"].to_numpy() == split)
            shard, row = shard[chosen], row[chosen]
        raw = lazy_rows(
            self.run,
            [commit.folder for commit in self.shards],
            shard,
            row,
            units=self.units.num_rows,
            chunk_shape=self.chunk_shape,
        )
        return Standardised(raw, self.moments.mean, self.moments.std())

    def sample_ids(self, split: str | None = None) -> list[str]:
        """Ids of a split's samples, in the order of the rows of ``activations``."""
        table = self.samples
        if split is not None:
            table = table.filter(pc.equal(table["split"], split))
        return [str(value) for value in table["sample_id"].to_pylist()]

    def prompts(self, split: str | None = None) -> Digests:
        """Digest of the prompt (of an import: of the row) of each sample of a split, in order."""
        from ulcmod_dist.store.shards import read_prompts

        held = read_prompts(self.run, self.shards)
        starts = np.cumsum([0, *map(len, held)])
        shard, row = self._locations
        digests = join_digests(held)[starts[shard] + row]
        return digests if split is None else digests[self.samples["split"].to_numpy() == split]

    @property
    def imported(self) -> bool:
        """Whether the rows come from an imported matrix, so that their prompts are unknown."""
        return "source" in self.provenance

    @property
    def statistic(self) -> str | None:
        """What the rows hold of units: `activation` or `attribution`; None for an import."""
        return None if self.imported else self.provenance.get("statistic", "activation")

    @cached_property
    def _locations(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        return locate_rows(self.samples, [commit.digest for commit in self.shards])


def open_snapshot(run: RunDir, version: int | None = None) -> Snapshot:
    """Open the newest snapshot of a run, or that of a version.

    Its objects are looked up in a listing, with their sizes. None is read but that of the units;
    that of the samples is when they are first asked for.

    Raises:
        InvalidInput: The run holds no such version.
        CorruptionError: A file of the snapshot is missing, has another size or another checksum.
    """
    versions = list_snapshots(run)
    if not versions or version not in (None, *versions):
        raise InvalidInput(
            f"{run.url} holds no activations"
            + (f" of version {version}, only {versions}." if versions else " yet."),
            "Run `ulcmod extract` or `ulcmod import` first.",
        )
    number = versions[-1] if version is None else version
    header = read_header(run, number)
    commits = read_commits(run, header["shards"])
    expected = {entry["key"]: entry["size"] for entry in header["files"].values()}
    for commit in commits.values():
        expected |= {f"{commit.folder}/{key}": entry.size for key, entry in commit.objects.items()}
    listed = dict(run.keys(ACTIVATIONS))
    for key, size in expected.items():
        if (found := listed.get(key)) != size:
            fact = "is missing" if found is None else f"has {found} bytes, not {size}"
            raise CorruptionError(f"{run.show(key)} {fact}.", "Run `ulcmod verify` for all damage.")
    return load_snapshot(run, number, header, list(commits.values()))


def load_snapshot(
    run: RunDir, version: int, header: dict[str, Any], commits: list[Commit]
) -> Snapshot:
    """The snapshot of a manifest's header and the commits of its shards.

    Raises:
        CorruptionError: The table of units is missing or has another checksum.
    """
    units = read_checked_table(run, **header["files"]["units"])
    mean, m2 = (units[name].to_numpy().astype(np.float64) for name in ("mean", "m2"))
    return Snapshot(
        run=run,
        version=version,
        digest=header["digest"],
        provenance=header["record"],
        chunk_shape=ChunkShape(**header["grid"]),
        samples_file=header["files"]["samples"],
        units=units.select(UNIT_SCHEMA.names).cast(UNIT_SCHEMA),
        moments=Moments(header["train_samples"], mean, m2),
        shards=tuple(commits),
    )


def locate_rows(
    samples: pa.Table, digests: list[str]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """For each sample, the index of its shard among the digests, and its row in the shard."""
    column = samples["shard"].cast(pa.string())
    shard = pc.index_in(column, value_set=pa.array(digests, pa.string()))
    row = samples["row"].to_numpy().astype(np.int32)
    return shard.to_numpy(zero_copy_only=False).astype(np.int32), row
