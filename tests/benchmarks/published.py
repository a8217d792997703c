"""The published search in plain Python over one matrix in memory: what the benchmark compares with.

Written from the method's description, candidate by candidate: every candidate recomputes xi and B
over all K modules with NumPy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from k_means_constrained import KMeansConstrained
from numpy.typing import NDArray
from sklearn.decomposition import PCA

EPSILON = 1e-8
Labels = NDArray[np.int64]
Floats = NDArray[np.float64]


def iterate(
    z: NDArray[np.float32],
    labels: tuple[Labels, Labels],
    num_modules: int,
    orders: Sequence[tuple[Labels, Labels]],
) -> float:
    """Run the given iterations from labels of samples and units; L at the end."""
    samples, units = (side.copy() for side in labels)
    value = 0.0
    for unit_order, sample_order in orders:
        table = z.T @ np.eye(num_modules, dtype=np.float32)[samples]
        _sweep(table.astype(np.float64), units, samples, unit_order)
        table = z @ np.eye(num_modules, dtype=np.float32)[units]
        value = _sweep(table.astype(np.float64), samples, units, sample_order)
    return value


def start(z: NDArray[np.float32], num_modules: int, seed: int) -> tuple[Labels, Labels]:
    """PCA, balanced k-means with ten initialisations, units by largest mean."""
    points = PCA(16, random_state=seed).fit_transform(z)
    least = len(z) // num_modules
    groups = KMeansConstrained(
        num_modules,
        size_min=least,
        size_max=least + (len(z) % num_modules > 0),
        n_init=10,
        random_state=seed,
    )
    samples = groups.fit_predict(points).astype(np.int64)
    members = np.eye(num_modules, dtype=np.float32)[samples]
    units = np.argmax(z.T @ (members / members.sum(axis=0)), axis=1)
    return samples, units


def _sweep(table: Floats, labels: Labels, others: Labels, order: Labels) -> float:
    num_modules = table.shape[1]
    sizes = np.bincount(labels, minlength=num_modules).astype(np.float64)
    other_sizes = np.bincount(others, minlength=num_modules).astype(np.float64)
    inside = table[np.arange(len(labels)), labels].sum()
    best = _objective(inside, sizes, other_sizes)
    for item in order:
        home = target = labels[item]
        if sizes[home] == 1:
            continue
        for k in range(num_modules):
            if k == home:
                continue
            sizes[home] -= 1
            sizes[k] += 1
            moved = inside - table[item, home] + table[item, k]
            value = _objective(moved, sizes, other_sizes)
            sizes[home] += 1
            sizes[k] -= 1
            if value > best + EPSILON:
                best, target = value, k
        if target != home:
            inside += table[item, target] - table[item, home]
            sizes[home] -= 1
            sizes[target] += 1
            labels[item] = target
    return best


def _objective(inside: float, sizes: Floats, other_sizes: Floats) -> float:
    areas = sizes * other_sizes
    xi = inside / (areas.sum() + EPSILON)
    return float(xi * len(areas) / np.sum(1.0 / (areas + EPSILON)))
