"""``ulcmod compare``: the modules of two runs side by side, or of many from run to run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import combinations
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
from ulcmod_dist.report.comparison import (
    list_steps,
    render_comparison,
    render_comparisons,
    tabulate_moves,
    tabulate_pairs,
    tabulate_trajectories,
)
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
    urls: Sequence[str],
    num_modules: int | None = None,
    other_num_modules: int | None = None,
    *,
    samples_only: bool = False,
    out: Path | None = None,
) -> Summary:
    """Match the modules of run directories by the units and samples that they share.

    K of the first may be left out where it holds modules for one K; the others' is by default the
    same. More than two runs are compared in pairs, and each module is followed from run to run.

    Raises:
        InvalidInput: A single run is named, K is not clear, or two runs share neither units nor
            samples.
    """
    if len(urls) < 2:
        raise InvalidInput(f"There is nothing to compare {urls[0]} with.", "Name two runs or more.")
    if out is not None and not out.parent.is_dir():
        raise InvalidInput(f"--out is {out}, but there is no folder {out.parent}.", "Create it.")
    runs = [open_run(url) for url in urls]
    first = _choose_num_modules(runs[0], num_modules, "--num-modules")
    others = [
        _choose_num_modules(run, other_num_modules or first, "--other-num-modules")
        for run in runs[1:]
    ]
    numbers = [first, *others]
    modules = [run.modules(k) for run, k in zip(runs, numbers, strict=True)]
    pairs = {
        (i, j): compare_modules(
            (runs[i], runs[j]), (modules[i], modules[j]), samples_only=samples_only
        )
        for i, j in combinations(range(len(runs)), 2)
    }
    if len(runs) > 2:
        names = _name_sides(runs, numbers)
        for (i, j), pair in pairs.items():
            pairs[i, j] = replace(pair, names=(names[i], names[j]))
        page, summary = render_comparisons(pairs), _summarize_pairs(pairs)
    else:
        page = render_comparison(pairs[0, 1])
        summary = _summarize((runs[0], runs[1]), (first, others[0]), pairs[0, 1])
    if out is None:
        return summary
    out.write_text(page, encoding="utf-8")
    return replace(summary, closing=[f"Wrote {out}"])


def _summarize_pairs(pairs: Mapping[tuple[int, int], Comparison]) -> Summary:
    trajectories = tabulate_trajectories(pairs)
    agreements = tabulate_pairs(pairs).to_records()
    moves = [tabulate_moves(step).to_records() for step in list_steps(pairs)]
    return Summary(
        title=trajectories.title,
        columns={column.key: column.title for column in trajectories.columns},
        rows=trajectories.to_records(),
        facts={
            f"{row['run']} / {row['other_run']}": "adjusted Rand of units "
            f"{format_value(row['units_adjusted_rand'])}, "
            f"of samples {format_value(row['samples_adjusted_rand'])}"
            for row in agreements
        },
        data={"pairs": agreements, "moves": moves},
    )


def _summarize(runs: tuple[Run, Run], numbers: tuple[int, int], comparison: Comparison) -> Summary:
    matching = comparison.matching
    alone = matching.unmatched, matching.other_unmatched
    described = [
        {
            "run": run.directory.url,
            "statistic": run.snapshot.statistic,
            "num_modules": num_modules,
            "objective": objective,
            "unmatched": list(unmatched),
        }
        for run, num_modules, objective, unmatched in zip(
            runs, numbers, comparison.objectives, alone, strict=True
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
    )


def _describe_side(name: str, described: dict[str, Any]) -> str:
    text = f"{name}, L = {format_value(described['objective'])}"
    alone = described["unmatched"]
    return f"{text}; without a partner: {format_value(alone)}" if alone else text


def compare_modules(
    runs: tuple[Run, Run],
    modules: tuple[StoredModules, StoredModules],
    *,
    samples_only: bool = False,
) -> Comparison:
    """Compare two sets of modules over what their runs share.

    Samples are known by their prompts, since ids may count the rows of a corpus; those of imported
    matrices by their ids. With ``samples_only`` no unit is taken for the same.
    """
    units = _find_shared_units(modules[0].units, modules[1].units)
    if samples_only:
        units = units[0][:0], units[1][:0]
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
    one, other = _name_sides(runs, numbers)
    before, after = (float(stored.metrics["objective"]) for stored in modules)
    return Comparison((one, other), (before, after), matching)


def _name_sides(runs: Sequence[Run], numbers: Sequence[int]) -> list[str]:
    names = name_runs(*(run.directory.url for run in runs))
    statistics = [run.snapshot.statistic for run in runs]
    # Where it tells them apart, it is part of their names, beside which their L are shown.
    kinds = [f" ({kind})" if len({*statistics}) > 1 else "" for kind in statistics]
    return [f"{name}, K = {k}{kind}" for name, k, kind in zip(names, numbers, kinds, strict=True)]


def name_runs(*urls: str) -> tuple[str, ...]:
    """Names of run directories: their folders', with as many parents as tell them apart."""
    parts = [tuple(_split_url(url)) for url in urls]
    depth = 1
    while len({part[-depth:] for part in parts}) < len({*parts}):
        depth += 1
    return tuple("/".join(part[-depth:]) for part in parts)


def _split_url(url: str) -> list[str]:
    """The folders of a run directory; a version of a run goes by the run's name and its number."""
    directory = RunDir(url.rstrip("/"))
    run = containing_run(directory)
    name = (
        directory.url if run is None else f"{run.url} (version {int(directory.url.split('/')[-1])})"
    )
    return name.split("/")


def _choose_num_modules(run: Run, num_modules: int | None, option: str) -> int:
    folder = run.directory.local
    # Reading would create the folder.
    found = run.num_modules() if folder is None or Path(folder).is_dir() else []
    if not found:
        raise InvalidInput(f"{run.directory.url} holds no modules.", "Name runs with modules.")
    if num_modules is None and len(found) == 1:
        return found[0]
    if num_modules not in found or num_modules is None:
        wanted = "" if num_modules is None else f", not for {num_modules}"
        raise InvalidInput(
            f"{run.directory.url} holds modules for K = {', '.join(map(str, found))}{wanted}.",
            f"Name one of these by {option}.",
        )
    return num_modules


def _find_shared_units(one: pa.Table, other: pa.Table) -> tuple[Positions, Positions]:
    """Positions of the units that both have, by what tells them apart in models of one shape.

    Models whose projections have other paths or widths share none.
    """
    counted = [table["path"].drop_null().value_counts().to_pylist() for table in (one, other)]
    widths, others = ({row["values"]: row["counts"] for row in rows} for rows in counted)
    both = widths.keys() & others.keys()
    known = widths and others
    if known and (not both or any(widths[path] != others[path] for path in both)):
        return find_shared([], [])
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
