"""Where a search goes on from: the modules of an earlier version of the same run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ulcmod_dist.api import Run
from ulcmod_dist.passes.standardised import LabelArray
from ulcmod_dist.store.modules import StoredModules
from ulcmod_dist.store.schema import cache_key


@dataclass(frozen=True, eq=False)
class Start:
    """Labels that a search goes on from.

    Attributes:
        version: Version of the results that they are taken from.
        modules: Identity of those modules.
        sample_labels: Module of each train sample, -1 for one that was not there.
        unit_labels: Module of each unit.
    """

    version: int
    modules: str
    sample_labels: LabelArray
    unit_labels: LabelArray


def start_from(run: Run, version: int, last: Run, modules: StoredModules) -> Start | None:
    """The start that modules of an earlier version give, or None where they give none.

    Samples are known by their prompts. Modules found in the rows of another model say nothing
    about those of this one.

    Args:
        run: The run.
        version: Number of the earlier version.
        last: That version, opened.
        modules: Its modules for one K.
    """
    before = last.snapshot_for(modules)
    if cache_key(before.provenance) != cache_key(run.snapshot.provenance):
        return None
    if before.units.num_rows != run.snapshot.units.num_rows:
        return None
    labels = modules.sample_labels("train").tolist()
    known = dict(zip(before.prompts("train"), labels, strict=True))
    samples = [known.get(prompt, -1) for prompt in run.snapshot.prompts("train")]
    if max(samples) < 0:
        return None
    return Start(
        version=version,
        modules=str(modules.metrics["identity"]),
        sample_labels=np.array(samples, np.int32),
        unit_labels=modules.unit_labels,
    )
