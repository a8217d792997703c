"""The published clusterings find planted modules, from memory as from lazy blocks."""

from typing import Any

import numpy as np
import pytest
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from tests.evaluate.problem import Planted, find_baselines
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.evaluate import baselines
from ulcmod_dist.evaluate.baselines import (
    METHODS,
    Candidate,
    UnitSpace,
    build_unit_space,
    find_baseline,
)
from ulcmod_dist.evaluate.features import ModuleFeatures
from ulcmod_dist.evaluate.methods import (
    fill_sample_labels,
    score_methods,
    tabulate_methods,
)
from ulcmod_dist.evaluate.structure import CodedCategories
from ulcmod_dist.evaluate.unit_groups import find_experts, find_networks, measure_selectivity
from ulcmod_dist.iterd.objective import objective
from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.linalg import principal_components
from ulcmod_dist.passes.standardised import Standardised
from ulcmod_dist.results.discovery import ITERD


def test_unit_components__span_the_space_of_an_exact_decomposition(
    planted: Planted, threads: ThreadExecutor
) -> None:
    points = principal_components(planted.train, threads, side="units", seed=0)[:, :2]
    matrix = planted.z().T
    left, values, _ = np.linalg.svd(matrix - matrix.mean(axis=0), full_matrices=False)
    exact = left[:, :2] * values[:2]
    np.testing.assert_allclose(np.abs(points), np.abs(exact), rtol=1e-3, atol=1e-3)


def known_space(planted: Planted, threads: ThreadExecutor) -> UnitSpace:
    """The units of the planted problem with layers and categories."""
    coded = CodedCategories.of(planted.categories)
    return build_unit_space(
        planted.train,
        threads,
        num_preclusters=30,
        layers=np.arange(100) // 50,
        selectivity=measure_selectivity(planted.train, coded.codes, 3, threads),
    )


@pytest.mark.parametrize("method", [*METHODS[:5], METHODS[7]])
def test_find_baselines__recover_planted_modules(
    planted: Planted, threads: ThreadExecutor, method: str
) -> None:
    space = known_space(planted, threads)
    (found,) = find_baselines(space, 120, 3, methods=[method])
    assert adjusted_rand_score(planted.unit_labels, found.unit_labels) > 0.9
    if method == "spectral co-clustering":
        assert adjusted_rand_score(planted.sample_labels, found.sample_labels) > 0.9


def test_find_baselines__are_equal_for_equal_seeds_and_for_lazy_input(
    planted: Planted, threads: ThreadExecutor
) -> None:
    for first, second in zip(
        *(
            find_baselines(
                build_unit_space(source, threads, seed=3, num_preclusters=25),
                120,
                3,
                seed=3,
                methods=METHODS[:6],
            )
            for source in (planted.train, planted.lazy((40, 30)))
        ),
        strict=True,
    ):
        assert adjusted_rand_score(first.unit_labels, second.unit_labels) == 1.0
        assert first.method == second.method


def test_unit_space__draws_units_and_samples_where_they_do_not_fit(
    planted: Planted, threads: ThreadExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "MAX_POINTS", 60)
    monkeypatch.setattr(baselines, "MAX_PROFILE_CELLS", 20 * 70)
    monkeypatch.setattr(baselines, "STRIPE_CELLS", 70 * 33)
    space = build_unit_space(planted.train, threads, num_preclusters=20)
    lazy = build_unit_space(
        planted.lazy((40, 30)), threads, num_preclusters=20, points=space.points
    )
    np.testing.assert_array_equal(lazy.profiles, space.profiles)
    assert space.profiles.shape == (20, 70)
    assert space.preclusters.shape == (100,)
    expected = planted.z()[space.drawn][:, space.preclusters == 4].mean(axis=1)
    np.testing.assert_allclose(space.profiles[4], expected, atol=1e-9)
    (found,) = find_baselines(space, 120, 3, methods=["spectral co-clustering"])
    assert found.sample_labels is not None
    assert (found.sample_labels >= 0).sum() == 70
    features = ModuleFeatures(np.eye(3)[np.arange(120) % 3], np.ones(3, dtype=np.int64))
    labels = fill_sample_labels(found, features)
    open_rows = found.sample_labels < 0
    assert (labels[open_rows] == (np.arange(120) % 3)[open_rows]).all()


@pytest.mark.parametrize(
    ("methods", "num_modules", "fault"),
    [(["k-mean"], 3, "Unknown baselines: k-mean"), (METHODS, 99, "25 pre-clusters .* 99 modules")],
)
def test_find_baselines__refuse_what_cannot_be(
    planted: Planted, threads: ThreadExecutor, methods: list[str], num_modules: int, fault: str
) -> None:
    space = build_unit_space(planted.train, threads)
    with pytest.raises(InvalidInput, match=fault):
        find_baselines(space, 120, num_modules, methods=methods)


def test_score_methods__table_has_iterd_first_and_the_range_over_seeds(
    planted: Planted, threads: ThreadExecutor
) -> None:
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 3, 100).astype(np.int32) for _ in range(3)]
    candidates = [
        *(Candidate("random", 3, seed, labels) for seed, labels in enumerate(noise)),
        Candidate(ITERD, 3, 0, planted.unit_labels, planted.sample_labels),
    ]
    scores = score_methods(
        candidates,
        planted.train,
        planted.test,
        planted.categories,
        planted.test_categories,
        threads,
    )
    expected = objective(planted.train, planted.sample_labels, planted.unit_labels, 3)
    assert scores[3].objective.value == pytest.approx(expected.value, rel=1e-12)
    first, second = tabulate_methods(scores, 3)
    assert (first.method, first.num_seeds, first.value.low) == (ITERD, 1, None)
    assert (second.method, second.num_seeds) == ("random", 3)
    assert first.value.mean > 2 * second.value.mean
    assert second.value.low is not None
    assert second.value.low < second.value.mean
    assert (second.value.low, second.value.high) == (
        min(second.value.values),
        max(second.value.values),
    )
    assert first.accuracy is not None
    assert first.accuracy.mean == 1.0
    assert tabulate_methods(scores, 4) == ()
    little = score_methods(
        candidates,
        planted.train,
        planted.test,
        planted.categories,
        planted.test_categories,
        threads,
        memory=1,
    )
    assert [tabulate_methods(found, 3) for found in (little, scores)] == [(first, second)] * 2


@pytest.mark.parametrize("method", METHODS[:6])
def test_find_baseline__says_why_it_finds_no_modules(
    planted: Planted, threads: ThreadExecutor, method: str
) -> None:
    twins = Standardised(np.repeat(planted.train.raw[:, :2], 9, 1), np.zeros(18), np.ones(18))
    space = build_unit_space(twins, threads, num_preclusters=6)
    assert len(space.centres) == 2
    with pytest.raises(InvalidInput, match=r"2 .*units that differ are too few to find 3 modules"):
        find_baseline(method, space, 120, 3)
    with pytest.raises(InvalidInput, match="With K = 1 any method"):
        find_baseline(method, space, 120, 1)


def test_unit_space__with_little_memory_holds_fewer_samples(
    planted: Planted, threads: ThreadExecutor
) -> None:
    space = build_unit_space(planted.train, threads, num_preclusters=20, memory=64 * 20 * 50)
    assert space.profiles.shape == (20, 50)


def test_unit_space__is_embedded_once_for_every_smaller_k_and_seed(
    planted: Planted, threads: ThreadExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def count_calls(name: str, function: Any) -> Any:
        def counted(*words: Any, **keys: Any) -> Any:
            calls.append(name)
            return function(*words, **keys)

        return counted

    for name in ("build_ward_tree", "eigsh", "randomized_svd"):
        monkeypatch.setattr(baselines, name, count_calls(name, getattr(baselines, name)))
    space = build_unit_space(planted.train, threads, num_preclusters=30)
    for num_modules, seed in ((4, 0), (3, 0), (3, 1), (2, 1)):
        find_baselines(space, 120, num_modules, seed=seed, methods=METHODS[:5])
    assert sorted(calls) == ["build_ward_tree", "eigsh", "randomized_svd"]


def test_find_baseline__cuts_the_tree_that_scikit_learn_would_build(
    planted: Planted, threads: ThreadExecutor
) -> None:
    space = build_unit_space(planted.train, threads, num_preclusters=30)
    for num_modules in (2, 5, 9):
        expected = AgglomerativeClustering(num_modules).fit_predict(space.centres)
        found = find_baseline("agglomerative", space, 120, num_modules).unit_labels
        assert adjusted_rand_score(expected[space.preclusters], found) == 1.0


def test_find_experts__takes_as_many_units_of_each_layer_and_matches_them_by_activation() -> None:
    rng = np.random.default_rng(0)
    truth = np.concatenate([rng.permutation(np.repeat(np.arange(3), 8)) for _ in range(5)])
    layers = np.repeat(np.arange(5), 24)
    points = np.eye(3)[truth] * 4 + rng.normal(size=(120, 3))
    found = find_experts(points, layers, 3, seed=0)
    assert adjusted_rand_score(truth, found) > 0.9
    for layer in range(5):
        assert np.bincount(found[layers == layer]).tolist() == [8, 8, 8]
    with pytest.raises(InvalidInput, match="A layer has 24 units, too few for 25 experts"):
        find_experts(points, layers, 25, seed=0)


def test_find_baseline__says_that_fastica_did_not_converge(
    planted: Planted, threads: ThreadExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ulcmod_dist.evaluate.unit_groups._MAX_ICA_ITERATIONS", 1)
    space = build_unit_space(planted.train, threads, num_preclusters=30)
    message = "No 3 modules are found: FastICA did not converge in 1 iterations"
    with pytest.raises(InvalidInput, match=message):
        find_baseline("functional networks", space, 120, 3)


def test_find_networks__finds_independent_sources_by_their_largest_weight() -> None:
    rng = np.random.default_rng(0)
    sources = rng.laplace(size=(5000, 3))
    points = sources @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    found = find_networks(points, 3, 0, np.arange(4000))
    assert adjusted_rand_score(np.abs(sources).argmax(axis=1), found) > 0.8


def test_find_networks__needs_as_many_components_as_networks() -> None:
    points = np.random.default_rng(0).laplace(size=(50, 2)) @ np.ones((2, 4))
    points[:, 2:] = 0
    with pytest.raises(InvalidInput, match="2 principal components, too few for 3 independent"):
        find_networks(points, 3, 0, np.arange(50))


def test_selectivity__is_the_correlation_with_each_category(
    planted: Planted, threads: ThreadExecutor
) -> None:
    coded = CodedCategories.of([None, *planted.categories[1:]])
    found = measure_selectivity(planted.train, coded.codes, 3, threads)
    belongs = coded.codes[1:, None] == np.arange(3)
    expected = np.corrcoef(planted.z()[1:].T, belongs.T.astype(float))[:100, 100:]
    np.testing.assert_allclose(found, expected, atol=0.02)


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        ("supervised selectivity", "K is not the number of categories"),
        ("per-layer experts", "imported without the layers of its units"),
    ],
)
def test_find_baseline__says_what_is_not_known(
    planted: Planted, threads: ThreadExecutor, method: str, fault: str
) -> None:
    space = build_unit_space(planted.train, threads, num_preclusters=30)
    with pytest.raises(InvalidInput, match=fault):
        find_baseline(method, space, 120, 3)
