"""Which activations are not finite, by sample and unit."""

from __future__ import annotations

import numpy as np

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.passes.executors import Executor, ThreadExecutor
from ulcmod_dist.passes.map_reduce import map_reduce
from ulcmod_dist.passes.standardised import AnyArray, FloatArray, Standardised


def check_finite(activations: Standardised, executor: Executor | None = None) -> None:
    """Make sure that every activation is finite, by one pass.

    Sums show non-finite numbers too, so a search makes this pass only to say where they are.

    Args:
        activations: Standardised activations.
        executor: Where the pass runs; threads by default.

    Raises:
        InvalidInput: NaN or infinite activations; names the first sample and a unit of it, and how
            many samples and units are concerned.
    """
    by_sample, by_unit = map_reduce(activations.raw, _count, executor=executor or ThreadExecutor())
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


def _count(block: AnyArray) -> tuple[FloatArray, FloatArray]:
    unfit = ~np.isfinite(block)
    return (
        unfit.sum(axis=1, keepdims=True, dtype=np.float64),
        unfit.sum(axis=0, keepdims=True, dtype=np.float64),
    )
