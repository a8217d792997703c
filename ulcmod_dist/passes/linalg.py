"""Out-of-core linear algebra on the standardised matrix: thin products, principal components.

z is never formed: z W = a (W / std) - 1 (mean / std)' W, and z' W = (a' W - mean 1' W) / std. The
names are those of `scipy.sparse.linalg.LinearOperator`.
"""

from typing import Any, Literal, NoReturn

import numpy as np

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.passes.executors import Executor, ThreadExecutor
from ulcmod_dist.passes.map_reduce import map_reduce
from ulcmod_dist.passes.standardised import AnyArray, FloatArray, Standardised

COMPONENTS = 16
"""Principal components in which samples and units are grouped, as published."""

# Extra columns of the sketch and power rounds: without them the spectrum's slow decay would leave
# the trailing components a mixture (Halko, Martinsson and Tropp 2011, section 4.5).
_OVERSAMPLING = 16
_POWER_ROUNDS = 2
_FACTORED_ROWS = 4096
# Numbers of a block that are converted to float64 at a time, and rows at least.
_PIECE = 2**17
_LEAST_ROWS = 64
# Largest entry of a product whose square, and the sum of many such, float64 still holds.
_MAX_PRODUCT = 1e140

SKETCH_WIDTH = COMPONENTS + _OVERSAMPLING
COMPONENT_PASSES = 1 + 2 * _POWER_ROUNDS
"""Passes over the matrix that `principal_components` makes."""


def matmat(activations: Standardised, right: FloatArray, executor: Executor) -> FloatArray:
    """The product z W, float64 [samples, p], of the thin matrix W [units, p], by one pass."""
    scaled = right / activations.std[:, None]
    product, _ = map_reduce(activations.raw, _matmat_block, by_unit=[scaled.T], executor=executor)
    assert product is not None
    # In place where it can be: another matrix of many samples is cleared page by page.
    out = product if product.flags.writeable else None
    return np.subtract(product, activations.mean @ scaled, out=out)


def rmatmat(activations: Standardised, right: FloatArray, executor: Executor) -> FloatArray:
    """The product z' W, float64 [units, p], of the thin matrix W [samples, p], by one pass."""
    _, product = map_reduce(activations.raw, _rmatmat_block, by_sample=[right.T], executor=executor)
    assert product is not None
    centred = product.T - np.outer(activations.mean, right.sum(axis=0))
    return np.asarray(centred / activations.std[:, None])


def principal_components(
    activations: Standardised,
    executor: Executor,
    *,
    side: Literal["samples", "units"],
    seed: int,
    count: int = COMPONENTS,
) -> FloatArray:
    """Principal components of samples or of units, by a streaming randomized range finder.

    Each round is a pass for z W and one for z' Q (Halko, Martinsson and Tropp 2011, algorithm 4.4).
    The points are the rows of z, centred over the samples, or its columns, centred over the units.
    Returns scores float64 [samples or units, ``count`` or fewer], by falling variance; the sign of
    each component is arbitrary.

    Raises:
        InvalidInput: NaN or infinite activations, or such that their squares exceed float64.
    """
    forward, backward = (matmat, rmatmat) if side == "samples" else (rmatmat, matmat)
    points, features = activations.shape if side == "samples" else activations.shape[::-1]
    width = min(count + _OVERSAMPLING, points, features)
    right = np.random.default_rng([seed, 0]).standard_normal((features, width))
    for _ in range(_POWER_ROUNDS):
        product = forward(activations, right, executor)
        if not max(product.max(), -product.min()) < _MAX_PRODUCT:
            raise_not_finite(activations, executor)
        # Centred columns sum to zero, so what z' Q has of the centre is zero, too.
        product -= product.mean(axis=0)
        left, _ = factor_tall(product)
        right, _ = factor_tall(backward(activations, left, executor))
    projected = forward(activations, right, executor)
    projected -= projected.mean(axis=0)
    axes = np.linalg.svd(_triangle(projected))[2]
    return np.asarray(projected @ axes[:count].T)


def factor_tall(matrix: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Q [n, p] and R [p, p] of a matrix [n, p] of many rows, by parts that stay in the cache.

    The triangles of the parts, below each other, are factored once more (Demmel et al. 2012, TSQR).
    A million rows take a fifth of the time of LAPACK's factors of the whole.
    """
    factors = _factor_parts(matrix, "reduced")
    tops, r = np.linalg.qr(np.concatenate([r for _, r in factors]))
    ends = np.cumsum([len(r) for _, r in factors])[:-1]
    parts = zip(factors, np.split(tops, ends), strict=True)
    return np.concatenate([q @ top for (q, _), top in parts]), r


def _triangle(matrix: FloatArray) -> FloatArray:
    """R of `factor_tall`, in half its time."""
    return np.asarray(np.linalg.qr(np.concatenate(_factor_parts(matrix, "r")), mode="r"))


def _factor_parts(matrix: FloatArray, mode: Literal["reduced", "r"]) -> list[Any]:
    """What `numpy.linalg.qr` returns of each part, on the cores of this machine."""
    parts = np.array_split(matrix, max(1, -(-len(matrix) // _FACTORED_ROWS)))
    # In this process, where the thin matrix is, whatever the executor of the passes.
    return list(ThreadExecutor().map(np.linalg.qr, parts, mode))


def check_finite(activations: Standardised, executor: Executor) -> None:
    """Require that every activation is finite, by one pass.

    Sums show non-finite numbers too, so a search makes this pass only to say where they are.

    Raises:
        InvalidInput: NaN or infinite activations, or statistics computed from such.
    """
    by_sample, by_unit = map_reduce(activations.raw, _count_nonfinite, executor=executor)
    assert by_sample is not None
    assert by_unit is not None
    samples, units = np.flatnonzero(by_sample[:, 0]), np.flatnonzero(by_unit[0])
    if samples.size:
        row = np.asarray(activations.raw[int(samples[0])])
        unit = int(np.argmax(~np.isfinite(row)))
        raise InvalidInput(
            f"The activation of sample {samples[0]} in unit {unit} is {row[unit]} "
            f"({samples.size} samples and {units.size} units hold numbers that are not finite).",
            "Leave these samples out, or extract them again.",
        )
    unfit = ~(np.isfinite(activations.mean) & np.isfinite(activations.std))
    if unfit.any():
        unit = int(np.argmax(unfit))
        raise InvalidInput(
            f"Unit {unit} has mean {activations.mean[unit]} and standard deviation "
            f"{activations.std[unit]}.",
            "Compute the statistics from finite activations.",
        )


def raise_not_finite(activations: Standardised, executor: Executor) -> NoReturn:
    """Raise the error of activations whose sums are not finite, by one pass that says where.

    Raises:
        InvalidInput: Always; of finite activations that they are too large.
    """
    check_finite(activations, executor)
    raise InvalidInput(
        "The activations are so large that their sums or squares exceed float64.",
        "Divide them by a constant.",
    )


# Overflow shows in the product, and is refused there.
@np.errstate(over="ignore", invalid="ignore")
def _matmat_block(block: AnyArray, right: FloatArray) -> tuple[FloatArray, None]:
    # Piece by piece, so that what is converted is still in the cache when it is multiplied: a
    # fifth to a third of the time.
    product = np.empty((len(block), len(right)))
    height = max(_LEAST_ROWS, _PIECE // max(1, block.shape[1]))
    for first in range(0, len(block), height):
        rows = slice(first, first + height)
        np.matmul(block[rows].astype(np.float64, copy=False), right.T, out=product[rows])
    return product, None


@np.errstate(over="ignore", invalid="ignore")
def _rmatmat_block(block: AnyArray, right: FloatArray) -> tuple[None, FloatArray]:
    return None, right @ block.astype(np.float64)


def _count_nonfinite(block: AnyArray) -> tuple[FloatArray, FloatArray]:
    unfit = ~np.isfinite(block)
    return (
        unfit.sum(axis=1, keepdims=True, dtype=np.float64),
        unfit.sum(axis=0, keepdims=True, dtype=np.float64),
    )
