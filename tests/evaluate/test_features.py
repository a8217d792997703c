"""Module features equal their definition, and what follows from them needs no matrix."""

import numpy as np
import pytest

from tests.evaluate.problem import Planted
from ulcmod_dist.evaluate.features import ModuleFeatures, compute_module_features, group_by_memory
from ulcmod_dist.iterd.objective import objective
from ulcmod_dist.passes.executors import ThreadExecutor


def test_module_features__are_means_of_z_over_the_units_of_a_module(
    planted: Planted, threads: ThreadExecutor
) -> None:
    other = (np.arange(100) % 4).astype(np.int32)
    three, four = compute_module_features(
        planted.train, [planted.unit_labels, other], [3, 4], threads
    )
    z = planted.z()
    for table, labels in ((three, planted.unit_labels), (four, other)):
        for k in range(table.values.shape[1]):
            expected = z[:, labels == k].mean(axis=1)
            np.testing.assert_allclose(table.values[:, k], expected, atol=1e-12)


def test_module_features__do_not_depend_on_chunks(
    planted: Planted, threads: ThreadExecutor
) -> None:
    (mine,) = compute_module_features(planted.lazy((17, 23)), [planted.unit_labels], [3], threads)
    (other,) = compute_module_features(planted.train, [planted.unit_labels], [3], threads)
    np.testing.assert_allclose(mine.values, other.values, atol=1e-12)


def test_objective__of_features_equals_that_of_the_matrix(
    planted: Planted, threads: ThreadExecutor
) -> None:
    (table,) = compute_module_features(planted.train, [planted.unit_labels], [3], threads)
    mine = table.objective(planted.sample_labels)
    expected = objective(planted.train, planted.sample_labels, planted.unit_labels, 3)
    assert mine.value == pytest.approx(expected.value, rel=1e-12)
    assert mine.balance == pytest.approx(expected.balance, rel=1e-12)


def test_assign__held_out_samples_find_their_module(
    planted: Planted, threads: ThreadExecutor
) -> None:
    (table,) = compute_module_features(planted.test, [planted.unit_labels], [3], threads)
    assert (table.assign() == planted.test_labels).all()


def test_assign__modules_without_units_get_no_sample() -> None:
    table = ModuleFeatures(np.array([[-1.0, 0.0, -2.0]]), np.array([4, 0, 5]))
    assert table.assign().tolist() == [0]


def test_group_by_memory__half_of_it_is_for_features_and_one_set_is_always_built() -> None:
    assert group_by_memory([], 100, 1) == []
    assert group_by_memory([3, 5, 2], 100, None) == [slice(0, 3)]
    # 24 bytes for each feature.
    assert group_by_memory([3, 5, 2], 100, 2 * 24 * 800) == [slice(0, 2), slice(2, 3)]
    assert group_by_memory([3, 5, 2], 100, 1) == [slice(0, 1), slice(1, 2), slice(2, 3)]
