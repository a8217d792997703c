"""Where the searches of a rerun continue from: the labels of the version before."""

from dataclasses import dataclass

import numpy as np

from ulcmod_dist.api import Run
from ulcmod_dist.corpus.digests import find_digests
from ulcmod_dist.passes.standardised import LabelArray
from ulcmod_dist.pipeline.artifacts import differences
from ulcmod_dist.pipeline.context import Context
from ulcmod_dist.pipeline.ledger import Ledger
from ulcmod_dist.store.schema import cache_key
from ulcmod_dist.store.versions import Version


@dataclass(frozen=True)
class WarmStart:
    """Labels of an earlier version that a search continues from."""

    version: int
    modules: str  # identity of the modules of that version
    sample_labels: LabelArray  # of the train samples; -1 for one that the version does not have
    unit_labels: LabelArray


def find_starts(
    context: Context, before: Version, last: Run
) -> tuple[dict[int, WarmStart], list[str]]:
    """Where the search for each outdated K continues from, and why it does not."""
    ledger = Ledger(context.run, context.job)
    starts: dict[int, WarmStart] = {}
    said: list[str] = []
    for k in context.job.discover.modules:
        if ledger.is_current("modules", k):
            continue
        start = _find_start(context, ledger, before, last, k)
        if isinstance(start, WarmStart):
            starts[k] = start
        else:
            said.append(f"The search for K = {k} started anew: {start}.")
    return starts, said


def _find_start(
    context: Context, ledger: Ledger, before: Version, last: Run, num_modules: int
) -> WarmStart | str:
    """Where the search for one K continues from, or why it starts anew."""
    if context.job.rerun.start == "cold":
        return "the job asks for it (rerun.start is cold)"
    old = Ledger(last.directory, context.job).record("modules", num_modules)
    if old is None:
        return f"version {before.number} has no modules for it"
    if changes := differences(old.config, ledger.expected("modules", num_modules).config):
        return "; ".join(changes)
    run, modules = Run(context.run), last.modules(num_modules)
    snapshot = last.snapshot_for(modules)
    # Modules found in the rows of another model say nothing about those of this one.
    if (
        cache_key(snapshot.provenance) != cache_key(run.snapshot.provenance)
        or snapshot.units.num_rows != run.snapshot.units.num_rows
    ):
        return f"version {before.number} has other units"
    rows = find_digests(run.snapshot.prompts("train"), snapshot.prompts("train"))
    if rows.max() < 0:
        return f"version {before.number} has other samples"
    samples = np.where(rows < 0, -1, modules.sample_labels("train")[rows]).astype(np.int32)
    return WarmStart(before.number, old.identity, samples, modules.unit_labels)
