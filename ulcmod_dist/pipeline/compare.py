"""``ulcmod compare``: the modules of two runs side by side."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ulcmod_dist.api import Run, open_run
from ulcmod_dist.corpus.digests import to_hex
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.evaluate.matching import find_shared, match_modules
from ulcmod_dist.pipeline.summary import Summary, format_value
from ulcmod_dist.report.comparison import render_comparison, tabulate_moves
from ulcmod_dist.results.comparison import Comparison
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.modules import StoredModules
from ulcmod_dist.store.versions import containing_run

Positions = NDArray[np.int64]

COLUMNS = {
    "module": "Module",
    "other": "Other",
    "units": "Units shared",
    "units_overlap": "overlap",
    "samples": "Samples shared",
    "samples_overlap": "overlap",
}


def compare(
    one: str,
    other: str,
    num_modules: int | None = None,
    other_num_modules: int | None = None,
    out: Path | None = None,
) -> Summary:
    """Match the modules of two run directories by the units and samples that both have.

    K of the first may be left out where it holds modules for one K; the second's is by default the
    same.

    Raises:
        InvalidInput: K is not clear, or the runs share neither units nor samples.
    """
    runs = open_run(one), open_run(other)
    first = _choose_num_modules(runs[0], num_modules)
    second = _choose_num_modules(runs[1], other_num_modules or first)
    modules = runs[0].modules(first), runs[1].modules(second)
    comparison = compare_modules(runs, modules)
    closing = []
    if out is not None:
        out.write_text(render_comparison(comparison), encoding="utf-8")
        closing.append(f"Wrote {out}")
    return _summarize(runs, (first, second), comparison, closing)


def _summarize(
    runs: tuple[Run, Run], numbers: tuple[int, int], comparison: Comparison, closing: list[str]
) -> Summary:
    matching = comparison.matching
    described = [
        {
            "run": run.directory.url,
            "statistic": run.snapshot.statistic,
            "num_modules": num_modules,
            "objective": objective,
            "unmatched": list(unmatched),
        }
        for run, num_modules, objective, unmatched in zip(
            runs,
            numbers,
            comparison.objectives,
            (matching.unmatched, matching.other_unmatched),
            strict=True,
        )
    ]
    measures = {
        "shared_units": matching.shared_units,
        "shared_samples": matching.shared_samples,
        "adjusted_rand_of_units": matching.units_adjusted_rand,
        "adjusted_rand_of_samples": matching.samples_adjusted_rand,
        "units_moved": matching.units_moved,
        "samples_moved": matching.samples_moved,
    }
    sides = zip(("run", "other_run"), comparison.names, described, strict=True)
    facts = {side: _describe_side(name, part) for side, name, part in sides}
    return Summary(
        title="Modules",
        columns=COLUMNS,
        rows=[asdict(pair) for pair in matching.pairs],
        facts={**facts, **measures},
        data={"runs": described, **measures, "moves": tabulate_moves(comparison).to_records()},
        closing=closing,
    )


def _describe_side(name: str, described: dict[str, Any]) -> str:
    text = f"{name}, L = {format_value(described['objective'])}"
    alone = described["unmatched"]
    return f"{text}; without a partner: {format_value(alone)}" if alone else text


def compare_modules(
    runs: tuple[Run, Run], modules: tuple[StoredModules, StoredModules]
) -> Comparison:
    """Compare two sets of modules over what their runs share.

    Samples are known by their prompts, since ids may count the rows of a corpus; those of imported
    matrices by their ids.
    """
    units = _find_shared_units(modules[0].units, modules[1].units)
    views = [run.snapshot_for(stored) for run, stored in zip(runs, modules, strict=True)]
    named = any(view.imported for view in views)
    keys = [view.sample_ids("train") if named else to_hex(view.prompts("train")) for view in views]
    samples = find_shared(*keys)
    numbers = [int(stored.metrics["num_modules"]) for stored in modules]
    unit_labels = [
        stored.unit_labels[at].astype(np.int64) for stored, at in zip(modules, units, strict=True)
    ]
    sample_labels = [
        stored.sample_labels("train")[at].astype(np.int64)
        for stored, at in zip(modules, samples, strict=True)
    ]
    matching = match_modules(
        unit_labels[0], unit_labels[1], sample_labels[0], sample_labels[1], numbers[0], numbers[1]
    )
    statistics = [view.statistic for view in views]
    # Where it tells them apart, it is part of their names, beside which their L are shown.
    kinds = [f" ({kind})" if statistics[0] != statistics[1] else "" for kind in statistics]
    names = name_runs(runs[0].directory.url, runs[1].directory.url)
    one, other = (
        f"{name}, K = {number}{kind}"
        for name, number, kind in zip(names, numbers, kinds, strict=True)
    )
    before, after = (float(stored.metrics["objective"]) for stored in modules)
    return Comparison((one, other), (before, after), matching)


def name_runs(one: str, other: str) -> tuple[str, str]:
    """Names of two run directories: their folders', with as many parents as tell them apart."""
    parts = _split_url(one), _split_url(other)
    depth = 1
    while parts[0] != parts[1] and parts[0][-depth:] == parts[1][-depth:]:
        depth += 1
    return "/".join(parts[0][-depth:]), "/".join(parts[1][-depth:])


def _split_url(url: str) -> list[str]:
    """The folders of a run directory; a version of a run goes by the run's name and its number."""
    directory = RunDir(url.rstrip("/"))
    run = containing_run(directory)
    name = (
        directory.url if run is None else f"{run.url} (version {int(directory.url.split('/')[-1])})"
    )
    return name.split("/")


def _choose_num_modules(run: Run, num_modules: int | None) -> int:
    found = run.num_modules()
    if num_modules is None and len(found) == 1:
        return found[0]
    if num_modules not in found or num_modules is None:
        raise InvalidInput(
            f"{run.directory.url} holds modules for K = {found or 'none'}.",
            "Name one by --num-modules or --other-num-modules.",
        )
    return num_modules


def _find_shared_units(one: pa.Table, other: pa.Table) -> tuple[Positions, Positions]:
    """Positions of the units that both have, by what tells them apart in models of one shape."""
    keys = [table.select(["layer", "expert", "index"]) for table in (one, other)]
    if keys[0].equals(keys[1]):
        # Versions of one run: millions of units need no search.
        everywhere = np.arange(one.num_rows)
        return everywhere, everywhere
    return find_shared(*map(_list_unit_keys, keys))


def _list_unit_keys(units: pa.Table) -> list[object]:
    if units["layer"].null_count:
        return list(range(units.num_rows))
    return list(zip(*(column.to_pylist() for column in units.columns), strict=True))
