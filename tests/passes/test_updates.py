"""Tables that follow moves equal tables that are built anew, and what an update reads."""

from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.matrix import ActivationMatrix
from ulcmod_dist.passes.standardised import Standardised

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
    matrix = ActivationMatrix(activations, EXECUTOR, resident)
    by_unit = matrix.unit_tables(samples, ks)
    by_sample = matrix.sample_tables(units, ks)
    for _ in range(rounds):
        after = [some_moved(labels, k, rng) for labels, k in zip(samples, ks, strict=True)]
        by_unit = matrix.update_unit_tables(by_unit, samples, after)
        samples = after
        after = [some_moved(labels, k, rng) for labels, k in zip(units, ks, strict=True)]
        by_sample = matrix.update_sample_tables(by_sample, units, after)
        units = after
    for found, anew in zip(
        [*by_unit, *by_sample],
        [
            *matrix.unit_tables(samples, ks),
            *matrix.sample_tables(units, ks),
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
    matrix = ActivationMatrix(Standardised(lazy, np.zeros(100), np.ones(100)), EXECUTOR)
    before = np.zeros(100, int)
    tables = matrix.sample_tables([before], [2])
    read.clear()
    after = before.copy()
    after[moved] = 1
    matrix.update_sample_tables(tables, [before], [after])
    assert {column for _, column in read} == {unit // 10 for unit in moved}
    assert len(read) == 2 * len({unit // 10 for unit in moved})
