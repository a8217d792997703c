"""Modes, memory, several K, checkpoints: the answers stay, or are nearly as good."""

from typing import Any

import dask.array as da
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from tests.iterd.problem import Planted, planted
from ulcmod_dist.config.schema import SearchConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.iterd.driver import discover, discover_all
from ulcmod_dist.iterd.modules import Modules
from ulcmod_dist.iterd.objective import assign_held_out, objective
from ulcmod_dist.iterd.plan import plan_search, unit_blocks
from ulcmod_dist.iterd.search import Checkpoint
from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.standardised import Standardised, as_standardised

chunked: Any = da.from_array  # untyped in Dask
MIB = 2**20


def same(first: Modules, second: Modules) -> bool:
    return np.array_equal(first.sample_labels, second.sample_labels) and np.array_equal(
        first.unit_labels, second.unit_labels
    )


class Reads:
    """A lazy matrix that counts which chunks are read."""

    def __init__(self, raw: np.ndarray, chunks: tuple[int, int]) -> None:
        self.count = np.zeros([-(-n // c) for n, c in zip(raw.shape, chunks, strict=True)], int)
        lazy = chunked(raw, chunks=chunks, name="rows")

        def counting(block: np.ndarray, block_info: Any = None) -> np.ndarray:
            self.count[block_info[0]["chunk-location"]] += 1
            return block

        self.array = lazy.map_blocks(counting, dtype=raw.dtype, meta=raw[:0, :0])

    def __call__(self) -> int:
        most, least = self.count.max(), self.count.min()
        self.count[:] = 0
        assert most == least
        return int(most)


@pytest.mark.parametrize("block_units", [17, 50, 200])
def test_blockwise__every_iteration_raises_the_objective(hard: Planted, block_units: int) -> None:
    modules = discover(hard.standardised(), 5, mode="blockwise", block_units=block_units)
    values = [record.objective for record in modules.history]
    assert np.all(np.diff(values) >= -1e-9)
    assert modules.history[-1].moved == 0
    labels = modules.sample_labels, modules.unit_labels
    again = objective(hard.standardised(), *labels, 5)
    assert values[-1] == pytest.approx(again.value, rel=1e-9)
    assert min(modules.unit_margins.min(), modules.sample_margins.min()) > -1e-6


def test_blockwise__is_nearly_as_good_as_exact() -> None:
    ratios = []
    for seed in range(10):
        problem = planted(noise=1.5, seed=seed, samples=200, units=300).standardised()
        exact = discover(problem, 4, seed=seed).objective.value
        blocks = discover(problem, 4, seed=seed, mode="blockwise", block_units=32)
        ratios.append(blocks.objective.value / exact)
    assert np.median(ratios) >= 0.999
    assert min(ratios) >= 0.97


def test_blockwise__reads_the_matrix_once_an_iteration(hard: Planted) -> None:
    reads = Reads(hard.raw, (30, 20))
    activations = Standardised(reads.array, hard.standardised().mean, hard.standardised().std)
    counts: list[int] = []
    settings: dict[str, Any] = {"restarts": 3, "mode": "blockwise"}
    config = SearchConfig(modules=(5,), **settings)
    resident = plan_search(activations, [5], config, ThreadExecutor(), block_units=40)
    discover(
        activations,
        5,
        **settings,
        block_units=40,
        memory=resident.projected_mem - 1,
        initial_sample_labels=np.arange(120) % 5,
        max_iterations=3,
        checkpoint=lambda _: counts.append(reads()),
    )
    assert counts[1:] == [1, 1, 1]


def test_exact__streaming_reads_twice_at_most_and_resident_once_in_all(hard: Planted) -> None:
    lazy = Standardised(
        (reads := Reads(hard.raw, (30, 20))).array,
        hard.standardised().mean,
        hard.standardised().std,
    )
    resident = discover(lazy, 5, mode="exact")
    assert reads() == 1
    plan = plan_search(
        lazy, [5], SearchConfig(modules=(5,), restarts=1, mode="exact"), ThreadExecutor()
    )
    too_small_to_keep = plan.projected_mem - 1
    counts: list[np.ndarray] = []

    def note(_: Checkpoint) -> None:
        counts.append(reads.count.copy())
        reads.count[:] = 0

    streaming = discover(lazy, 5, mode="exact", memory=too_small_to_keep, checkpoint=note)
    assert same(resident, streaming)
    # A round reads once for its part of the matrix, and once for the tables of what moves lead to.
    assert streaming.rounds
    assert max(int(count.max()) for count in counts[1:]) <= 2


def test_discover__float16_residency_finds_the_same_modules(easy: Planted) -> None:
    given = easy.standardised()
    lazy = Standardised(chunked(easy.raw, chunks=(50, 60)), given.mean, given.std)
    modules = discover(lazy, 4, keep="float16")
    assert adjusted_rand_score(easy.by_unit, modules.unit_labels) == 1.0
    assert same(modules, discover(given, 4))


def test_memory__too_little_names_the_least_that_works(hard: Planted) -> None:
    lazy = as_standardised(chunked(hard.raw, chunks=(30, 20)))
    with pytest.raises(InvalidInput, match=r"at least \d+ MiB"):
        discover(lazy, 5, memory=1000)
    least = 0
    try:
        discover(lazy, 5, memory=1000)
    except InvalidInput as error:
        least = int(str(error.remedy).split("at least ")[1].split(" MiB")[0])
    assert discover(lazy, 5, memory=least * MIB).objective.value > 0


def test_plan__prefers_residency_then_one_read_then_two() -> None:
    lazy = as_standardised(da.zeros((20_000, 40_000), chunks=(1000, 1000), dtype=np.float32))
    seen = []
    for gib in (8, 2, 1, 0.25):
        config = SearchConfig(modules=(10,), restarts=1, memory=int(gib * 2**30))
        plan = plan_search(lazy, [10], config, ThreadExecutor(2))
        assert plan.projected_mem <= plan.limit
        seen.append((plan.mode, plan.resident, plan.reads))
    assert seen[0] == ("exact", True, 0)
    assert seen[1] == seen[2] == ("blockwise", False, 1)
    config = SearchConfig(modules=(10,), restarts=1, memory=int(2.5 * 2**30), keep="float16")
    half = plan_search(lazy, [10], config, ThreadExecutor(2))
    assert half.resident


def test_unit_blocks__are_whole_chunks() -> None:
    lazy = as_standardised(da.zeros((10, 95), chunks=(10, (20, 20, 20, 20, 15)), dtype=np.float32))
    assert unit_blocks(lazy, 45) == [slice(0, 40), slice(40, 80), slice(80, 95)]
    assert unit_blocks(lazy, 20)[-1] == slice(80, 95)


def test_discover_all__each_k_equals_a_search_of_its_own(hard: Planted) -> None:
    together = discover_all(
        hard.standardised(), [3, 1, 6], SearchConfig(modules=(3, 1, 6), restarts=2, seed=4)
    )
    assert list(together) == [3, 1, 6]
    for k, modules in together.items():
        assert same(modules, discover(hard.standardised(), k, restarts=2, seed=4))


@pytest.mark.parametrize("mode", ["exact", "blockwise"])
def test_checkpoint__a_resumed_search_ends_as_an_uninterrupted_one(
    hard: Planted, mode: Any
) -> None:
    settings = {"restarts": 3, "mode": mode, "block_units": 64, "seed": 2}
    saved: list[Checkpoint] = []
    whole = discover(hard.standardised(), 5, checkpoint=saved.append, **settings)
    assert len(saved) > 3
    for checkpoint in (saved[0], saved[2], saved[-1]):
        stored = Checkpoint.from_arrays(checkpoint.to_arrays())
        resumed = discover(hard.standardised(), 5, resume=stored, **settings)
        assert same(whole, resumed)
        assert [r.objective for r in resumed.history] == pytest.approx(
            [r.objective for r in whole.history], rel=1e-12
        )


def test_checkpoint__of_another_search_is_refused(hard: Planted) -> None:
    saved: list[Checkpoint] = []
    discover(hard.standardised(), 5, checkpoint=saved.append, max_iterations=1)
    with pytest.raises(InvalidInput, match=r"seed 0 for K = \[5\]"):
        discover(hard.standardised(), 6, resume=saved[-1])


def test_restarts__agree_where_the_modules_are_clear(easy: Planted, hard: Planted) -> None:
    clear = discover(easy.standardised(), 4, restarts=3)
    assert clear.unit_agreement == clear.sample_agreement == 1.0
    assert set(clear.unit_stability) == set(clear.sample_stability) == {1.0}
    vague = discover(hard.standardised(), 4, restarts=3)
    assert vague.unit_agreement < 0.9
    assert 0.0 <= vague.unit_stability.min() <= vague.unit_stability.max() <= 1.0
    alone = discover(easy.standardised(), 4)
    assert np.isnan(alone.unit_agreement)
    assert np.isnan(alone.unit_stability).all()


def test_warm_start__new_samples_and_units_go_to_their_largest_mean(easy: Planted) -> None:
    samples, units = easy.by_sample.copy(), easy.by_unit.copy()
    samples[::7], units[::5] = -1, -1
    modules = discover(
        easy.standardised(),
        4,
        initial_sample_labels=samples,
        initial_unit_labels=units,
        max_iterations=0,
    )
    assert np.array_equal(modules.sample_labels, easy.by_sample)
    assert np.array_equal(modules.unit_labels, easy.by_unit)


def test_assign_held_out__modules_hold_on_new_samples() -> None:
    problem = planted(samples=240)
    train, test = problem.raw[:160], problem.raw[160:]
    modules = discover(train, 4)
    labels, found = assign_held_out(as_standardised(test), modules.unit_labels, 4, ThreadExecutor())
    assert adjusted_rand_score(problem.by_sample[160:], labels) == 1.0
    again = objective(test, labels, modules.unit_labels, 4)
    assert found.value == pytest.approx(again.value, rel=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [{"mode": "fast"}, {"keep": "int8"}, {"restarts": 0}, {"block_units": 0}],
)
def test_options__refuse_unknown_values(easy: Planted, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        discover(easy.raw, 4, **wrong)


def test_options__orders_over_all_units_are_not_for_blocks(easy: Planted) -> None:
    orders = [(np.arange(200), np.arange(120))]
    with pytest.raises(InvalidInput, match="exact"):
        discover(easy.raw, 4, mode="blockwise", sweep_orders=orders)
