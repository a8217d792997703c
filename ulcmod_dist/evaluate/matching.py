"""Match the modules of two runs to each other."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.iterd.modules import adjusted_rand_index, count_pairs
from ulcmod_dist.results.comparison import Matching, ModulePair
from ulcmod_dist.results.types import Counts, Floats, divide

Labels = NDArray[np.int64]


def find_shared(
    ids: Sequence[object], other_ids: Sequence[object]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the ids that both sequences hold, in the order of the first."""
    positions = {value: position for position, value in enumerate(other_ids)}
    pairs = [
        (position, positions[value]) for position, value in enumerate(ids) if value in positions
    ]
    both = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def match_modules(
    unit_labels: Labels,
    other_unit_labels: Labels,
    sample_labels: Labels,
    other_sample_labels: Labels,
    num_modules: int,
    other_num_modules: int,
) -> Matching:
    """Match modules so that the shared units and samples agree most (Hungarian method).

    What is maximised is the sum over matches of the two Jaccard overlaps, of units and of samples;
    where runs share only one kind of members, that one alone. Labels are those of the shared
    units and samples, in the same order for both runs.

    Raises:
        InvalidInput: The runs share neither a unit nor a sample.
    """
    if len(unit_labels) + len(sample_labels) == 0:
        raise InvalidInput("The two runs share no unit and no sample, so nothing can be matched.")
    shape = (num_modules, other_num_modules)
    units = count_pairs(unit_labels, other_unit_labels, shape)
    samples = count_pairs(sample_labels, other_sample_labels, shape)
    unit_overlap, sample_overlap = _jaccard(units), _jaccard(samples)
    rows, columns = linear_sum_assignment(unit_overlap + sample_overlap, maximize=True)
    partner = np.full(num_modules, -1, dtype=np.int64)
    partner[rows] = columns
    return Matching(
        pairs=tuple(
            ModulePair(
                module=int(k),
                other=int(m),
                units=int(units[k, m]),
                units_overlap=float(unit_overlap[k, m]),
                samples=int(samples[k, m]),
                samples_overlap=float(sample_overlap[k, m]),
            )
            for k, m in zip(rows, columns, strict=True)
        ),
        unmatched=tuple(np.flatnonzero(partner < 0).tolist()),
        other_unmatched=tuple(np.setdiff1d(np.arange(other_num_modules), columns).tolist()),
        unit_counts=units,
        sample_counts=samples,
        units_adjusted_rand=_adjusted_rand(unit_labels, other_unit_labels),
        samples_adjusted_rand=_adjusted_rand(sample_labels, other_sample_labels),
        units_moved=int((partner[unit_labels] != other_unit_labels).sum()),
        samples_moved=int((partner[sample_labels] != other_sample_labels).sum()),
    )


def _jaccard(counts: Counts) -> Floats:
    either = counts.sum(axis=1, keepdims=True) + counts.sum(axis=0, keepdims=True) - counts
    return divide(counts, either, missing=0.0)


def _adjusted_rand(labels: Labels, other_labels: Labels) -> float | None:
    return adjusted_rand_index(labels, other_labels) if len(labels) else None
