"""The search as its callers see it."""

from typing import Any

import dask.array as da
import numba
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.iterd import sweep
from ulcmod_dist.iterd.driver import discover
from ulcmod_dist.iterd.modules import Iteration
from ulcmod_dist.iterd.objective import objective
from ulcmod_dist.passes.standardised import Standardised

chunked: Any = da.from_array  # untyped in Dask


def planted(
    k: int = 4, samples: int = 120, units: int = 200, noise: float = 0.3, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    by_sample, by_unit = rng.permutation(samples) % k, rng.permutation(units) % k
    raw = rng.normal(0, noise, (samples, units)) + (by_sample[:, None] == by_unit)
    return raw.astype(np.float32), by_sample, by_unit


def test_discover__recovers_planted_modules() -> None:
    raw, by_sample, by_unit = planted()
    modules = discover(raw, 4)
    assert adjusted_rand_score(by_sample, modules.sample_labels) == 1.0
    assert adjusted_rand_score(by_unit, modules.unit_labels) == 1.0
    again = objective(raw, modules.sample_labels, modules.unit_labels, 4)
    assert modules.objective.value == pytest.approx(again.value, rel=1e-12)


def test_discover__same_seed_same_modules() -> None:
    raw, _, _ = planted(noise=3.0)
    first, second = discover(raw, 5, seed=7), discover(raw, 5, seed=7)
    assert np.array_equal(first.sample_labels, second.sample_labels)
    assert np.array_equal(first.unit_labels, second.unit_labels)


def test_discover__says_that_it_compiles(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, _, _ = planted()
    discover(raw, 4)
    caplog.set_level("INFO")
    discover(raw, 4)
    assert not caplog.messages
    monkeypatch.setattr(sweep, "_sweep_items", numba.njit(sweep._sweep_items.py_func))
    discover(raw, 4)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("Compiling the search")


@pytest.mark.parametrize("chunks", [(120, 200), (7, 200), (33, 17), (13, 200)])
def test_discover__labels_do_not_depend_on_chunking(chunks: tuple[int, int]) -> None:
    raw, _, _ = planted(noise=3.0)
    std = raw.astype(float).std(axis=0, ddof=1)
    whole = discover(Standardised(raw, raw.astype(float).mean(axis=0), std), 5, restarts=2)
    lazy = Standardised(chunked(raw, chunks=chunks), raw.astype(float).mean(axis=0), std)
    found = discover(lazy, 5, restarts=2)
    assert np.array_equal(whole.sample_labels, found.sample_labels)
    assert np.array_equal(whole.unit_labels, found.unit_labels)


def test_discover__history_rises_to_convergence() -> None:
    raw, _, _ = planted(noise=3.0)
    heard: list[Iteration] = []
    modules = discover(raw, 5, restarts=3, progress=heard.append)
    # Candidates of moves are heard of as well; what came of them is one row a round.
    assert {id(record) for record in modules.history} <= {id(record) for record in heard}
    for restart in range(3):
        mine = [record for record in modules.history if record.restart == restart]
        assert [record.iteration for record in mine] == list(range(len(mine)))
        assert np.all(np.diff([record.objective for record in mine]) >= -1e-9)
        assert mine[-1].units_moved == mine[-1].samples_moved == 0
        rounds = modules.rounds if restart == modules.best_restart else 0
        assert mine[-1 - rounds].objective == modules.restarts[restart]
        assert mine[-1 - rounds].moved == 0
        assert sum(record.moved > 0 for record in mine[len(mine) - rounds :]) == (
            modules.moves if rounds else 0
        )
    assert modules.objective.value >= max(modules.restarts) * (1 - 1e-12)
    assert modules.restarts[modules.best_restart] == max(modules.restarts)


def test_discover__margins_are_not_negative_at_convergence() -> None:
    raw, _, _ = planted(noise=2.0)
    modules = discover(raw, 4)
    assert modules.unit_margins.min() > -1e-6
    assert modules.sample_margins.min() > -1e-6


def test_discover__stops_at_max_iterations() -> None:
    raw, _, _ = planted(noise=3.0)
    modules = discover(raw, 5, max_iterations=1)
    assert [record.iteration for record in modules.history] == [0, 1]


def test_discover__one_module_holds_everything() -> None:
    raw, _, _ = planted()
    modules = discover(raw, 1)
    assert set(modules.sample_labels) == set(modules.unit_labels) == {0}
    assert modules.objective.xi == pytest.approx(raw.astype(float).mean(), rel=1e-6)
    assert np.isnan(modules.unit_margins).all()


def test_discover__a_constant_unit_has_a_module_and_no_effect() -> None:
    raw, by_sample, _ = planted()
    raw[:, 5] = 3.0
    std = raw.astype(float).std(axis=0, ddof=1)
    std[5] = 1.0
    modules = discover(Standardised(raw, raw.astype(float).mean(axis=0), std), 4)
    assert adjusted_rand_score(by_sample, modules.sample_labels) == 1.0


def test_discover__empty_modules_of_a_start_are_repaired_and_counted() -> None:
    raw, by_sample, _ = planted(k=3)
    modules = discover(raw, 4, initial_sample_labels=by_sample, max_iterations=0)
    assert modules.repaired == 2
    assert set(modules.sample_labels) == set(modules.unit_labels) == set(range(4))


@pytest.mark.parametrize("given", ["samples", "units"])
def test_discover__labels_of_one_side_place_the_other_by_largest_mean(given: str) -> None:
    raw, by_sample, by_unit = planted()
    modules = discover(
        raw,
        4,
        max_iterations=0,
        initial_sample_labels=by_sample if given == "samples" else None,
        initial_unit_labels=by_unit if given == "units" else None,
    )
    assert np.array_equal(modules.sample_labels, by_sample)
    assert np.array_equal(modules.unit_labels, by_unit)


@pytest.mark.parametrize("k", [0, 31, 300])
def test_discover__refuses_more_modules_than_samples_or_units(k: int) -> None:
    with pytest.raises(InvalidInput, match=f"K = {k} modules do not fit 30 samples"):
        discover(np.ones((30, 40)), k)


def test_discover__as_many_modules_as_samples() -> None:
    raw = np.random.default_rng(0).normal(size=(6, 9))
    modules = discover(raw, 6)
    assert sorted(modules.sample_labels) == list(range(6))


def test_discover__names_activations_that_are_not_finite() -> None:
    raw, _, _ = planted()
    raw[3, 8] = np.nan
    with pytest.raises(InvalidInput, match="sample 3 in unit 8 is nan"):
        discover(raw, 4)


@pytest.mark.parametrize("labels", [np.zeros(119, int), np.full(120, 4), np.zeros(120)])
def test_discover__refuses_labels_that_do_not_fit(labels: np.ndarray) -> None:
    raw, _, _ = planted()
    with pytest.raises(InvalidInput, match="label"):
        discover(raw, 4, initial_sample_labels=labels)


def test_discover__refuses_orders_that_miss_items() -> None:
    raw, _, _ = planted()
    with pytest.raises(InvalidInput, match="0 to 199 once"):
        discover(raw, 4, sweep_orders=[(np.zeros(200, int), np.arange(120))])


def test_discover__float16_finds_the_same_modules() -> None:
    raw, by_sample, _ = planted()
    modules = discover(raw.astype(np.float16), 4)
    assert adjusted_rand_score(by_sample, modules.sample_labels) == 1.0


@pytest.mark.parametrize("mode", ["exact", "blockwise"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    ("samples", "units", "chunks", "block_units"),
    [
        (7, 200, (40, 64), 500),  # fewer samples than a chunk, fewer units than a block
        (120, 5, (40, 64), 64),  # fewer units than a chunk
        (101, 131, (25, 26), 40),  # ragged last chunks, blocks that are no whole number of chunks
    ],
)
def test_discover__shapes_that_fit_no_block(
    mode: Any, dtype: str, samples: int, units: int, chunks: tuple[int, int], block_units: int
) -> None:
    raw = planted(k=3, samples=samples, units=units)[0].astype(dtype)
    settings: dict[str, Any] = {"mode": mode, "block_units": block_units}
    here = discover(raw, 3, **settings)
    lazy = discover(chunked(raw, chunks=chunks), 3, **settings)
    for found in (here, lazy):
        assert np.bincount(found.sample_labels, minlength=3).min() >= 1
        assert np.bincount(found.unit_labels, minlength=3).min() >= 1
        again = objective(raw, found.sample_labels, found.unit_labels, 3)
        assert found.objective.value == pytest.approx(again.value, rel=1e-9)
    assert lazy.objective.value == pytest.approx(here.objective.value, rel=1e-3)


@pytest.mark.parametrize("mode", ["exact", "blockwise"])
def test_tolerance__ends_with_the_first_iteration_that_hardly_raises_l(mode: Any) -> None:
    problem = planted(k=5, noise=6.0, samples=300, units=400)[0]
    whole = discover(problem, 5, mode=mode, moves=False)
    short = discover(problem, 5, mode=mode, moves=False, tolerance=0.01)
    values = [record.objective for record in short.history]
    rises = np.diff(values) / values[1:]
    assert 1 <= len(rises) < len(whole.history) - 1
    assert (rises[:-1] > 0.01).all()
    assert rises[-1] <= 0.01
    assert values == [record.objective for record in whole.history][: len(values)]


@pytest.mark.parametrize("mode", ["exact", "blockwise"])
def test_discover__one_module_in_any_mode(mode: Any) -> None:
    raw, _, _ = planted()
    modules = discover(chunked(raw, chunks=(50, 60)), 1, mode=mode, restarts=2)
    assert set(modules.sample_labels) == set(modules.unit_labels) == {0}
    assert [record.moved for record in modules.history] == [0, 0, 0, 0]


@pytest.mark.parametrize("mode", ["exact", "blockwise"])
def test_discover__equal_activations_end_and_empty_nothing(mode: Any) -> None:
    modules = discover(np.ones((30, 40), np.float32), 4, mode=mode, block_units=10)
    assert np.bincount(modules.sample_labels).min() >= 1
    assert np.bincount(modules.unit_labels).min() >= 1
    assert modules.history[-1].moved == 0


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (1e-9, "too small to search"),
        (1e-38, "too small"),
        (1e160, "exceed float64"),
        (1e307, "exc"),
    ],
)
def test_discover__names_sizes_that_cannot_be_searched(scale: float, said: str) -> None:
    given = planted(3)[0].astype(np.float64) * scale
    with pytest.raises(InvalidInput, match=said):
        discover(given, 3)


@pytest.mark.parametrize("scale", [2.0**-10, 2.0**300])
def test_discover__labels_do_not_depend_on_the_unit_of_measurement(scale: float) -> None:
    given = planted(3)[0].astype(np.float64)
    expected, found = discover(given, 3), discover(given * scale, 3)
    np.testing.assert_array_equal(found.unit_labels, expected.unit_labels)
    assert found.objective.xi == pytest.approx(expected.objective.xi * scale, rel=1e-12)
