"""Small shards and snapshots for the tests of the store."""

import hashlib
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pytest

from ulcmod_dist.corpus.digests import Digests, join_digests, to_arrow
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.manifest import CORPUS_SCHEMA
from ulcmod_dist.store.records import Commit, Origin
from ulcmod_dist.store.schema import ChunkShape
from ulcmod_dist.store.shards import ShardContent, ShardWriter
from ulcmod_dist.store.snapshot import UNIT_SCHEMA

RECORD = {"model.id": "tiny", "model.dtype": "float32", "model.library.torch": "2.13.0"}
UNITS = 10
Write: TypeAlias = Callable[[Sequence[str]], Commit]
GRID = ChunkShape(rows=4, columns=3)


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.at(tmp_path / "run")


def activation_of(prompt: str) -> np.ndarray:
    """Activations that follow from the prompt alone, as those of a model do."""
    seed = zlib.crc32(prompt.encode())
    return np.random.default_rng(seed).gamma(1.0, size=UNITS).astype(np.float32)


def digests_of(prompts: Sequence[str]) -> Digests:
    return join_digests(hashlib.sha256(prompt.encode()).digest() for prompt in prompts)


def content_of(prompts: Sequence[str]) -> ShardContent:
    rows = np.array([activation_of(prompt) for prompt in prompts], np.float32)
    tokens = np.array([len(prompt) for prompt in prompts], np.int64)
    return ShardContent(digests_of(prompts), rows.reshape(len(prompts), UNITS), tokens)


@pytest.fixture
def write(run: RunDir) -> Write:
    writer = ShardWriter(run, GRID)
    return lambda prompts: writer.write(content_of(prompts), Origin(RECORD))


def corpus_of(prompts: Sequence[str], splits: Sequence[str] | None = None) -> pa.Table:
    count = len(prompts)
    return pa.table(
        {
            "sample_id": [f"s{number}" for number in range(count)],
            "split": list(splits or ["train"] * count),
            "category": ["coding"] * count,
            "prompt": to_arrow(digests_of(prompts)),
        },
        schema=CORPUS_SCHEMA,
    )


def units_table() -> pa.Table:
    return pa.table(
        {
            "unit": range(UNITS),
            "layer": [unit // 5 for unit in range(UNITS)],
            "index": [unit % 5 for unit in range(UNITS)],
            "path": [f"layers.{unit // 5}.mlp.down_proj" for unit in range(UNITS)],
            "expert": [None] * UNITS,
        },
        schema=UNIT_SCHEMA,
    )
