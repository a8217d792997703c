"""Degrees of the units and samples of a run in its modules, as tables and as counts."""

import numpy as np
import pyarrow as pa

from ulcmod_dist.evaluate.membership import Degrees, grade_samples, grade_units
from ulcmod_dist.pipeline.discovery import Found
from ulcmod_dist.pipeline.methods import EvaluationInputs
from ulcmod_dist.results.membership import Membership, MembershipKind
from ulcmod_dist.results.types import Floats

UNIT_COLUMNS = ["unit", "layer", "index", "expert", "module"]
SAMPLE_COLUMNS = ["sample_id", "category", "split", "module"]


def measure_membership(
    inputs: EvaluationInputs, found: Found, degrees: Floats, activation: Floats
) -> tuple[Membership, dict[str, pa.Table]]:
    """Grade the units' ``degrees`` [units, K] and the samples' features.

    ``activation`` is the mean z of module on module [K, K]. Samples of all splits are in the
    table, those of the train split alone are counted.
    """
    inside = np.nan_to_num(np.diag(activation))
    placed = found.sample_labels("train")
    units = grade_units(degrees, inside, placed, inputs.train, inputs.layers)
    train = found.stored.samples["split"].to_numpy() == "train"
    features = np.empty((len(train), found.num_modules))
    features[train] = found.train.values
    if found.test is not None:
        features[~train] = found.test.values
    membership = Membership(
        units=units.count(found.unit_labels),
        samples=grade_samples(found.train.values, inside).count(placed),
    )
    tables = {
        "units": _tabulate(found.stored.units.select(UNIT_COLUMNS), units),
        "samples": _tabulate(
            found.stored.samples.select(SAMPLE_COLUMNS), grade_samples(features, inside)
        ),
    }
    return membership, tables


def _tabulate(table: pa.Table, degrees: Degrees) -> pa.Table:
    """A table of items with their kind, strength, breadth and their degree in every module."""
    kinds = np.array([str(kind) for kind in MembershipKind])
    columns = {
        "kind": kinds[degrees.kinds],
        "strong_modules": degrees.strong.sum(axis=1),
        "strength": degrees.values.max(axis=1).astype(np.float32),
        "breadth": degrees.breadth.astype(np.float32),
    }
    for module, values in enumerate(degrees.values.T.astype(np.float32)):
        columns[f"degree_{module:03d}"] = values
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    return table
