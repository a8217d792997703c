"""Split-and-merge moves: better modules, the same ones everywhere and after any interruption."""

import contextlib
from typing import Any

import dask.array as da
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from tests.iterd.problem import Planted, planted
from ulcmod_dist.config.schema import SearchConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.iterd import plan
from ulcmod_dist.iterd.driver import discover, discover_all
from ulcmod_dist.iterd.init import next_restarts
from ulcmod_dist.iterd.modules import Iteration, Modules
from ulcmod_dist.iterd.moves import part_shape
from ulcmod_dist.iterd.objective import objective
from ulcmod_dist.iterd.plan import plan_search
from ulcmod_dist.iterd.search import Checkpoint, Role
from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.standardised import Standardised

chunked: Any = da.from_array  # untyped in Dask


@pytest.fixture(scope="module")
def unequal() -> Planted:
    """Twelve modules of 20 to 32 samples and four times as many units."""
    rng = np.random.default_rng(0)
    sizes = np.linspace(20, 32, 12).astype(int)
    by_sample = rng.permutation(np.repeat(np.arange(12), sizes))
    by_unit = rng.permutation(np.repeat(np.arange(12), 4 * sizes))
    raw = rng.normal(0, 1.8, (len(by_sample), len(by_unit)))
    raw += by_sample[:, None] == by_unit
    return Planted(raw.astype(np.float32), by_sample, by_unit)


def same(first: Modules, second: Modules) -> bool:
    return np.array_equal(first.sample_labels, second.sample_labels) and np.array_equal(
        first.unit_labels, second.unit_labels
    )


def lazily(problem: Planted) -> Standardised:
    given = problem.standardised()
    return Standardised(chunked(problem.raw, chunks=(100, 150)), given.mean, given.std)


@pytest.mark.parametrize("mode", ["exact", "blockwise"])
def test_moves__recover_unequal_modules_that_restarts_miss(unequal: Planted, mode: Any) -> None:
    settings: dict[str, Any] = {"mode": mode, "block_units": 256, "restarts": 10}
    without = discover(unequal.standardised(), 12, moves=False, **settings)
    found = discover(unequal.standardised(), 12, **settings)
    assert found.moves > 0
    assert found.objective.value > 1.1 * without.objective.value
    assert adjusted_rand_score(unequal.by_sample, found.sample_labels) > 0.8
    assert adjusted_rand_score(unequal.by_sample, without.sample_labels) < 0.6


def test_moves__on_a_quarter_of_the_matrix_lead_as_far(
    unequal: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_PARTS", (unequal.raw.size // 4,))
    without = discover(unequal.standardised(), 12, moves=False, restarts=10)
    found = discover(unequal.standardised(), 12, restarts=10)
    assert found.objective.value > 1.05 * without.objective.value


@pytest.mark.parametrize(
    ("shape", "part"),
    [
        ((50, 60), (50, 60)),
        ((100, 400), (100, 100)),
        ((50, 400), (50, 200)),
        ((400, 50), (200, 50)),
        ((10**7, 10**6), (100, 100)),
    ],
)
def test_part__is_as_square_as_the_matrix_allows(
    shape: tuple[int, int], part: tuple[int, int]
) -> None:
    assert part_shape(shape, 10_000, 3) == part
    assert min(part_shape(shape, 16, 2)) == min(*shape, 32)


def test_l__prefers_modules_of_like_areas_to_those_planted() -> None:
    rng = np.random.default_rng(0)
    sizes = np.repeat([10, 20, 40], 3)
    by_sample = rng.permutation(np.repeat(np.arange(9), sizes))
    by_unit = rng.permutation(np.repeat(np.arange(9), 2 * sizes))
    raw = rng.normal(0, 1, (len(by_sample), len(by_unit))) + (by_sample[:, None] == by_unit)
    planted_l = objective(raw, by_sample, by_unit, 9).value
    given: dict[str, Any] = {"initial_sample_labels": by_sample, "initial_unit_labels": by_unit}
    assert discover(raw, 9, moves=False, **given).objective.value > 1.5 * planted_l


@pytest.mark.parametrize("k", [3, 4, 6, 9])
@pytest.mark.parametrize("noise", [0.5, 2.0, 5.0])
def test_moves__never_lower_l(k: int, noise: float) -> None:
    problem = planted(k=5, noise=noise, seed=k).standardised()
    without = discover(problem, k, restarts=3, moves=False)
    found = discover(problem, k, restarts=3)
    assert found.restarts == without.restarts
    assert found.objective.value >= without.objective.value * (1 - 1e-12)
    assert found.moves or same(found, without)
    assert found.unit_agreement == without.unit_agreement


def test_moves__end_where_no_module_can_be_split_to_advantage(easy: Planted) -> None:
    found = discover(easy.standardised(), 4)
    assert (found.rounds, found.moves) == (1, 0)
    last = found.history[-1]
    assert (last.units_moved, last.samples_moved) == (0, 0)


@pytest.mark.parametrize("k", [1, 2])
def test_moves__need_three_modules(easy: Planted, k: int) -> None:
    assert discover(easy.standardised(), k).rounds == 0


def test_moves__are_off_for_given_orders(hard: Planted) -> None:
    rng = np.random.default_rng(0)
    orders = [(rng.permutation(200), rng.permutation(120)) for _ in range(30)]
    given: dict[str, Any] = {"initial_sample_labels": np.arange(120) % 5, "sweep_orders": orders}
    found = discover(hard.standardised(), 5, restarts=4, **given)
    assert found.history[-1].moved == 0
    assert found.rounds == 0
    assert len(found.restarts) == 4


@pytest.mark.parametrize("mode", ["exact", "blockwise"])
def test_moves__do_not_depend_on_other_k_or_executor(
    hard: Planted, local_ray: object, mode: Any
) -> None:
    settings: dict[str, Any] = {"mode": mode, "max_iterations": 20}
    config = SearchConfig(modules=(3, 4, 6), restarts=1, **settings)
    together = discover_all(lazily(hard), [3, 4, 6], config, block_units=150)
    assert any(modules.moves for modules in together.values())
    for k, modules in together.items():
        assert same(modules, discover(lazily(hard), k, block_units=150, **settings))
    ray = discover(lazily(hard), 6, block_units=150, executor="ray", **settings)
    assert same(together[6], ray)


@pytest.mark.parametrize("mode", ["exact", "blockwise"])
def test_checkpoint__in_mid_round_ends_with_the_same_labels(
    unequal: Planted, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Moves see a quarter of the matrix, so that candidates are far from done on the whole.
    monkeypatch.setattr(plan, "_PARTS", (unequal.raw.size // 4,))
    settings: dict[str, Any] = {"restarts": 2, "mode": mode, "block_units": 256}
    saved: list[Checkpoint] = []
    whole = discover(unequal.standardised(), 12, checkpoint=saved.append, **settings)
    assert whole.moves > 0
    trying = [c for c in saved if any(s.role is Role.CANDIDATE for s in c.searches)]
    assert len(trying) > 4
    for checkpoint in trying[:: len(trying) // 4]:
        stored = Checkpoint.from_arrays(checkpoint.to_arrays())
        found = discover(unequal.standardised(), 12, resume=stored, **settings)
        assert same(whole, found)
        assert (found.rounds, found.moves) == (whole.rounds, whole.moves)


def test_moves__history_has_a_row_for_each_round(hard: Planted) -> None:
    heard: list[Iteration] = []
    found = discover(hard.standardised(), 6, progress=heard.append)
    rounds = found.history[len(found.history) - found.rounds :]
    assert sum(row.moved > 0 for row in rounds) == found.moves
    assert rounds[-1].moved == 0
    assert rounds[-1].objective == pytest.approx(found.objective.value, rel=1e-12)
    # While candidates are iterated, the caller hears of it.
    assert len(heard) > len(found.history)


def test_plan__moves_see_a_smaller_part_where_memory_is_short() -> None:
    lazy = Standardised(
        da.zeros((2000, 4000), chunks=(1000, 1000), dtype=np.float32),
        np.zeros(4000),
        np.ones(4000),
    )
    settings: dict[str, Any] = {"modules": (10,), "restarts": 1, "mode": "exact"}

    def count(memory: int | None, **changes: Any) -> tuple[int, int]:
        config = SearchConfig(**settings, **changes, memory=memory)
        found = plan_search(lazy, [10], config, ThreadExecutor(2))
        return found.part, found.projected_mem

    assert count(2**40, moves=False)[0] == 0
    limits = np.linspace(2**28, 2**24, 100).astype(int)
    seen = set()
    for limit in limits:
        with contextlib.suppress(InvalidInput):
            part, needed = count(int(limit))
            assert needed <= limit
            seen.add(part)
    assert seen == set(plan._PARTS)


@pytest.mark.parametrize(
    ("ended", "added"),
    [
        ([], 3),
        ([9.0, 9.0, 9.0001], 0),  # all agree
        ([9.0, 9.0001, 8.0], 0),  # the best was found again
        ([9.0, 8.5, 8.0], 3),  # the best was seen once
        ([9.0, 8.5, 8.0, 8.5, 8.5, 8.0], 4),
        ([9.0, *[8.0] * 9], 0),  # as many as the job allows
        ([-9.0, -9.0, -9.5], 0),
    ],
)
def test_restarts__stop_once_the_best_was_found_again(ended: list[float], added: int) -> None:
    assert len(next_restarts(ended, 10)) == added


def test_restarts__agreeing_ones_are_not_repeated(easy: Planted, unequal: Planted) -> None:
    assert len(discover(easy.standardised(), 4, restarts=10).restarts) == 3
    vague = discover(unequal.standardised(), 12, restarts=5, moves=False)
    assert len(vague.restarts) in (3, 5)
    assert vague.restarts[vague.best_restart] == max(vague.restarts)
