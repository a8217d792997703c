"""Degrees of the units and samples of a run in its modules, as tables and as counts."""

import numpy as np
import pyarrow as pa

from ulcmod_dist.evaluate.membership import Degrees, grade_samples, grade_units
from ulcmod_dist.pipeline.discovery import Found
from ulcmod_dist.pipeline.methods import EvaluationInputs
from ulcmod_dist.results.discovery import Membership, MembershipKind
from ulcmod_dist.results.types import Floats


def measure_membership(
    inputs: EvaluationInputs, found: Found, degrees: Floats, activation: Floats
) -> tuple[Membership, dict[str, pa.Table]]:
    """Grade the units' ``degrees`` [units, K] and the samples' features.

    ``activation`` is the mean z of module on module [K, K]. The table of samples has those of all
    splits; only train samples are counted.
    """
    inside, stored = np.nan_to_num(np.diag(activation)), found.stored
    placed = found.sample_labels("train")
    units = grade_units(degrees, inside, placed, inputs.train, inputs.layers)
    train = stored.samples["split"].to_numpy() == "train"
    features = np.empty((len(train), found.num_modules))
    features[train] = found.train.values
    if found.test is not None:
        features[~train] = found.test.values
    counted = grade_samples(features[train], inside).count_kinds(placed)
    unit_columns = stored.units.select(["unit", "layer", "index", "expert", "module"])
    sample_columns = stored.samples.select(["sample_id", "category", "split", "module"])
    return Membership(units.count_kinds(found.unit_labels), counted), {
        "units": _tabulate(unit_columns, units),
        "samples": _tabulate(sample_columns, grade_samples(features, inside)),
    }


def _tabulate(table: pa.Table, degrees: Degrees) -> pa.Table:
    """A table of items with their kind, strength, breadth and their degree in every module."""
    columns = {
        "kind": np.array([*MembershipKind], dtype=str)[degrees.kinds],
        "strong_modules": degrees.strong.sum(axis=1),
        "strength": degrees.values.max(axis=1).astype(np.float32),
        "breadth": degrees.breadth.astype(np.float32),
    }
    for module, values in enumerate(degrees.values.T.astype(np.float32)):
        columns[f"degree_{module:03d}"] = values
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    return table
