"""Products of the standardised matrix with a thin matrix on either side, one pass each.

z is never formed: z W = a (W / std) - 1 (mean / std)' W, and z' W = (a' W - mean 1' W) / std.
"""

from __future__ import annotations

import numpy as np

from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.map_reduce import map_reduce
from ulcmod_dist.passes.standardised import AnyArray, FloatArray, Standardised


def matmat(activations: Standardised, right: FloatArray, executor: Executor) -> FloatArray:
    """The product z W, float64 [samples, p].

    Args:
        activations: Standardised activations.
        right: The thin matrix W [units, p].
        executor: Where the pass runs.
    """
    scaled = right / activations.std[:, None]
    product, _ = map_reduce(activations.raw, _matmat_block, by_unit=[scaled.T], executor=executor)
    assert product is not None
    return product - activations.mean @ scaled


def rmatmat(activations: Standardised, right: FloatArray, executor: Executor) -> FloatArray:
    """The product z' W, float64 [units, p].

    Args:
        activations: Standardised activations.
        right: The thin matrix W [samples, p].
        executor: Where the pass runs.
    """
    _, product = map_reduce(activations.raw, _rmatmat_block, by_sample=[right.T], executor=executor)
    assert product is not None
    centred = product.T - np.outer(activations.mean, right.sum(axis=0))
    return np.asarray(centred / activations.std[:, None])


def sum_over_samples(activations: Standardised, executor: Executor) -> FloatArray:
    """Sum of z over all samples, float64 [units]."""
    ones = np.ones((activations.n_samples, 1))
    return rmatmat(activations, ones, executor)[:, 0]


def _matmat_block(block: AnyArray, right: FloatArray) -> tuple[FloatArray, None]:
    return block.astype(np.float64) @ right.T, None


def _rmatmat_block(block: AnyArray, right: FloatArray) -> tuple[None, FloatArray]:
    return None, right @ block.astype(np.float64)
