"""Ward's tree merges as SciPy's does, which holds the distances of all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, ward
from sklearn.metrics import adjusted_rand_score

from ulcmod_dist.evaluate.ward import build_ward_tree, cut_tree


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 120), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_ward_tree__is_cut_into_the_clusters_of_scipy(size: int, width: int, seed: int) -> None:
    points = np.random.default_rng(seed).normal(size=(size, width))
    merges, reference = build_ward_tree(points), ward(points)
    for num_clusters in {1, 2, min(7, size), size}:
        labels = cut_tree(merges, num_clusters)
        assert np.unique(labels).tolist() == list(range(num_clusters))
        # The last merges undone; fcluster by number of clusters undoes more where heights tie.
        order = np.arange(1.0, size)
        expected = fcluster(reference, size - num_clusters, "monocrit", monocrit=order)
        assert adjusted_rand_score(labels, expected) == pytest.approx(1.0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=60))
def test_ward_tree__joins_equal_points_first(places: list[tuple[int, int]]) -> None:
    points = np.array(places, np.float64)
    distinct = len(set(places))
    labels = cut_tree(build_ward_tree(points), distinct)
    pairs = set(zip(places, labels.tolist(), strict=True))
    assert len(pairs) == distinct
    assert len({label for _, label in pairs}) == distinct
