"""Tables that follow moves equal tables that are built anew, and what an update reads."""

from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.standardised import Standardised
from ulcmod_dist.passes.tables import (
    sample_tables,
    unit_tables,
    update_sample_tables,
    update_unit_tables,
)

chunked: Any = da.from_array  # untyped in Dask
EXECUTOR = ThreadExecutor(2)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Standardised, list[int], np.random.Generator]:
    samples, units = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    raw = rng.gamma(1.0, 0.3, (samples, units)).astype(
        draw(st.sampled_from(["float16", "float32", "float64"]))
    )
    chunks = draw(st.integers(1, samples)), draw(st.integers(1, units))
    array = chunked(raw, chunks=chunks) if draw(st.booleans()) else raw
    std = rng.gamma(2.0, 0.5, units) + 0.1
    ks = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    return Standardised(array, rng.random(units), std), ks, rng


def some_moved(labels: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    moved = labels.copy()
    chosen = rng.random(len(labels)) < rng.random() ** 2
    moved[chosen] = rng.integers(0, k, chosen.sum())
    return moved


@settings(max_examples=40, deadline=None)
@given(problems(), st.booleans(), st.integers(1, 4))
def test_updates__equal_tables_built_anew_after_any_moves(
    problem: tuple[Standardised, list[int], np.random.Generator], resident: bool, rounds: int
) -> None:
    activations, ks, rng = problem
    samples = [rng.integers(0, k, activations.n_samples) for k in ks]
    units = [rng.integers(0, k, activations.n_units) for k in ks]
    by_unit = unit_tables(activations, samples, ks, EXECUTOR)
    by_sample = sample_tables(activations, units, ks, EXECUTOR)
    for _ in range(rounds):
        after = [some_moved(labels, k, rng) for labels, k in zip(samples, ks, strict=True)]
        by_unit = update_unit_tables(
            activations, by_unit, samples, after, EXECUTOR, resident=resident
        )
        samples = after
        after = [some_moved(labels, k, rng) for labels, k in zip(units, ks, strict=True)]
        by_sample = update_sample_tables(
            activations, by_sample, units, after, EXECUTOR, resident=resident
        )
        units = after
    for found, anew in zip(
        [*by_unit, *by_sample],
        [
            *unit_tables(activations, samples, ks, EXECUTOR),
            *sample_tables(activations, units, ks, EXECUTOR),
        ],
        strict=True,
    ):
        np.testing.assert_allclose(found, anew, atol=1e-9)


@pytest.mark.parametrize("moved", [[], [3], [3, 45], range(100)])
def test_updates__read_only_chunks_in_which_something_moved(
    moved: list[int],
) -> None:
    read: list[tuple[int, int]] = []

    def noting(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        read.append(block_info[0]["chunk-location"])
        return block

    raw = np.random.default_rng(0).random((80, 100))
    lazy = chunked(raw, chunks=(40, 10)).map_blocks(noting, dtype=raw.dtype, meta=raw[:0, :0])
    activations = Standardised(lazy, np.zeros(100), np.ones(100))
    before = np.zeros(100, int)
    tables = sample_tables(activations, [before], [2], EXECUTOR)
    read.clear()
    after = before.copy()
    after[moved] = 1
    update_sample_tables(activations, tables, [before], [after], EXECUTOR, resident=False)
    assert {column for _, column in read} == {unit // 10 for unit in moved}
    assert len(read) == 2 * len({unit // 10 for unit in moved})
