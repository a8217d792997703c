"""The page that sets the modules of two runs side by side, or follows them through many."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.report.blocks import (
    Block,
    Collapsible,
    Facts,
    KeyFigure,
    KeyFigures,
    Note,
    Picture,
    Section,
)
from ulcmod_dist.report.figures.modules import format_cells
from ulcmod_dist.report.figures.relations import draw_trajectories
from ulcmod_dist.report.page import render_document
from ulcmod_dist.report.specs import Heatmap, Scale
from ulcmod_dist.report.tables import Column, ColumnKind, Table, build_table
from ulcmod_dist.results.comparison import Comparison, Matching, VersionDrift
from ulcmod_dist.results.types import Counts, Fact, share_rows
from ulcmod_dist.runtime.text import DASH, count, number, percent


def render_comparison(comparison: Comparison, past: Sequence[VersionDrift] = ()) -> str:
    """The comparison as one HTML file that opens offline.

    Args:
        comparison: The modules of two runs, or of two versions of one.
        past: The versions of the run that the second are of, these last; none for other runs.
    """
    title = f"{comparison.names[0]} and {comparison.names[1]}"
    parts = [_build_agreement(comparison), _build_matches(comparison)]
    if past:
        parts.append(_build_drift(past))
    return render_document(title, parts)


def render_comparisons(pairs: Mapping[tuple[int, int], Comparison]) -> str:
    """The comparison of many runs, by their positions in pairs, as one HTML file."""
    steps = list_steps(pairs)
    kinds = [
        what
        for what in ("units", "samples")
        if all(getattr(pair.matching, f"shared_{what}") for pair in pairs.values())
    ]
    similarity = Section(
        "similarity",
        "Similarity",
        "How far the modules of every two runs agree, over the units and samples that both have.",
        shared=(
            *(Picture(f"similarity-{what}", _draw_similarity(pairs, what)) for what in kinds),
            tabulate_pairs(pairs),
        ),
    )
    lead = (
        "Each row follows a module from run to run. A module of the next run descends from one if "
        "it holds more than half of its members or has more than half of its own from it, "
        "averaged over units and samples."
    )
    moves = [replace(tabulate_moves(step), name=f"moves-{i}") for i, step in enumerate(steps)]
    moved = tuple(Collapsible(table) for table in moves if table.rows)
    flows = [Picture(f"flow-{what}", draw_trajectories(steps, what), wide=True) for what in kinds]
    trajectories: tuple[Block, ...] = (*flows, tabulate_trajectories(pairs))
    parts = [
        similarity,
        Section("trajectories", "Trajectories", lead, shared=trajectories),
        *((Section("moves", "Moves", "", shared=moved),) if moved else ()),
    ]
    return render_document(f"{steps[0].names[0]} to {steps[-1].names[1]}", parts)


def list_steps(pairs: Mapping[tuple[int, int], Comparison]) -> list[Comparison]:
    """The comparisons of each run with the next."""
    return [pair for (i, j), pair in sorted(pairs.items()) if j == i + 1]


def tabulate_pairs(pairs: Mapping[tuple[int, int], Comparison]) -> Table:
    """How far every two runs agree."""
    keys = (("adjusted_rand", ColumnKind.NUMBER), ("moved", ColumnKind.COUNT))
    measures = [
        Column(f"{what}_{key}", f"{what.capitalize()}: {key.replace('_', ' ')}", kind)
        for what in ("units", "samples")
        for key, kind in keys
    ]
    rows = [
        (*pair.names, *(getattr(pair.matching, column.key) for column in measures))
        for pair in pairs.values()
    ]
    columns = (Column("run", "Run"), Column("other_run", "Other run"), *measures)
    caption = "Moved: those that left their module's partner."
    return build_table("pairs", "Pairs of runs", columns, rows, caption)


def tabulate_trajectories(pairs: Mapping[tuple[int, int], Comparison]) -> Table:
    """What became of each module: one row for each that descends from no earlier one."""
    steps = list_steps(pairs)
    names = [steps[0].names[0], *(step.names[1] for step in steps)]
    descents = [step.matching.descent for step in steps]
    rows: list[list[str | None]] = []
    for start in range(len(names)):
        born = ~descents[start - 1].any(axis=0) if start else np.ones(len(descents[0]), bool)
        for module in np.flatnonzero(born):
            row: list[str | None] = [*[None] * start, str(module)]
            events = [f"born in {names[start]}"] if start else []
            present = np.array([module])
            for descent, name in zip(descents[start:], names[start + 1 :], strict=True):
                events += [event for k in present for event in _describe_step(k, descent, name)]
                present = np.flatnonzero(descent[present].any(axis=0))
                row.append(_join(present) or None)
            rows.append([*row, "; ".join(events) or "kept"])
    columns = [Column(f"run_{number}", name) for number, name in enumerate(names)]
    return build_table(
        "trajectories",
        "Trajectories of the modules",
        (*columns, Column("events", "What happened")),
        rows,
        "A number is a module of the column's run. Born: it descends from no module of the run "
        "before. Gone: no module of the next run descends from it.",
    )


def _describe_step(module: int, descent: NDArray[np.bool_], name: str) -> Iterator[str]:
    """What happened to a module of one run in the next, unless it was kept."""
    heirs = np.flatnonzero(descent[module])
    if not len(heirs):
        yield f"{module} is gone in {name}"
    if len(heirs) > 1:
        yield f"{module} splits into {_join(heirs)} in {name}"
    for heir in heirs:
        others = np.setdiff1d(np.flatnonzero(descent[:, heir]), [module])
        if len(others):
            yield f"{module} merges with {_join(others)} into {heir} in {name}"


def _join(modules: Iterable[int]) -> str:
    return ", ".join(str(module) for module in modules)


def _draw_similarity(pairs: Mapping[tuple[int, int], Comparison], what: str) -> Heatmap:
    steps = list_steps(pairs)
    names = (steps[0].names[0], *(step.names[1] for step in steps))
    values = np.eye(len(names))
    for (i, j), pair in pairs.items():
        values[i, j] = values[j, i] = getattr(pair.matching, f"{what}_adjusted_rand")
    return Heatmap(
        title=f"Agreement of the {what}' modules",
        caption="Adjusted Rand index of every two runs: 1 for the same modules, 0 for chance.",
        alternative=f"From {number(float(values.min()))} to 1.",
        values=values,
        row_labels=names,
        column_labels=names,
        value_axis="Adjusted Rand index",
        hover=lambda i, j: f"{names[i]}\n{names[j]}\nAdjusted Rand index {number(values[i, j])}",
        scale=Scale.DIVERGING,
        cell_texts=format_cells(values),
    )


def _build_drift(past: Sequence[VersionDrift]) -> Section:
    lead = (
        "Small steps may add up: each version is compared with the one before it and with the "
        "present modules, over the units and samples that both have."
    )
    return Section("time", "Drift over time", lead, shared=(tabulate_versions(past),))


def tabulate_versions(past: Sequence[VersionDrift]) -> Table:
    """How far each version of the modules is from the one before, and from the present one."""
    return build_table(
        "versions",
        "Versions",
        (
            Column("version", "Version", ColumnKind.COUNT),
            Column("made", "Made"),
            Column("samples", "Samples", ColumnKind.COUNT),
            Column("objective", "L", ColumnKind.NUMBER),
            Column("units_rand", "Units, to the version before", ColumnKind.NUMBER),
            Column("samples_rand", "Samples, to the version before", ColumnKind.NUMBER),
            Column("units_rand_now", "Units, to now", ColumnKind.NUMBER),
            Column("samples_rand_now", "Samples, to now", ColumnKind.NUMBER),
        ),
        [tuple(vars(version).values()) for version in past],
        "Adjusted Rand indices: 1 means the same modules, 0 chance.",
    )


def tabulate_matches(matching: Matching) -> Table:
    """Which modules correspond and how much they share."""
    return build_table(
        "matches",
        "Matched modules",
        (
            Column("module", "Module", ColumnKind.COUNT),
            Column("other", "Other module", ColumnKind.COUNT),
            Column("units", "Units shared", ColumnKind.COUNT),
            Column("units_overlap", "Overlap of units", ColumnKind.SHARE),
            Column("samples", "Samples shared", ColumnKind.COUNT),
            Column("samples_overlap", "Overlap of samples", ColumnKind.SHARE),
        ),
        [tuple(vars(pair).values()) for pair in matching.pairs],
        "Overlap is what both modules hold as a share of what either holds.",
    )


def tabulate_moves(comparison: Comparison) -> Table:
    """Between which modules units and samples moved, most units first."""
    matching = comparison.matching
    partners = {(pair.module, pair.other) for pair in matching.pairs}
    both = zip(*np.nonzero(matching.unit_counts + matching.sample_counts), strict=True)
    rows = [
        (int(k), int(m), int(matching.unit_counts[k, m]), int(matching.sample_counts[k, m]))
        for k, m in both
        if (k, m) not in partners
    ]
    rows.sort(key=lambda row: (-row[2], -row[3], row[:2]))
    return build_table(
        "moves",
        "Modules that units and samples moved between",
        (
            Column("module", "From module", ColumnKind.COUNT),
            Column("other", "To other module", ColumnKind.COUNT),
            Column("units", "Units moved", ColumnKind.COUNT),
            Column("samples", "Samples moved", ColumnKind.COUNT),
        ),
        rows,
        f"From modules of {comparison.names[0]} to those of {comparison.names[1]} that are not "
        "their partners.",
    )


def _build_agreement(comparison: Comparison) -> Section:
    matching = comparison.matching
    figures = (
        _format_agreement("units", matching.units_adjusted_rand),
        _format_agreement("samples", matching.samples_adjusted_rand),
        _format_moved("units", matching.units_moved, matching.shared_units),
        _format_moved("samples", matching.samples_moved, matching.shared_samples),
    )
    facts = tuple(
        Fact(f"L of {name}", number(value))
        for name, value in zip(comparison.names, comparison.objectives, strict=True)
    )
    lead = (
        f"Compared over {count(matching.shared_units, 'unit')} and "
        f"{count(matching.shared_samples, 'sample')} that both runs have."
    )
    return Section("agreement", "Agreement", lead, shared=(KeyFigures(figures), Facts(facts)))


def _format_agreement(what: str, value: float | None) -> KeyFigure:
    note = "1: the same modules, 0: chance" if value is not None else f"no {what} are shared"
    return KeyFigure(DASH if value is None else number(value), f"adjusted Rand of {what}", note)


def _format_moved(what: str, moved: int, shared: int) -> KeyFigure:
    note = percent(moved / shared) if shared else f"no {what} are shared"
    return KeyFigure(f"{moved:,}", f"{what} moved", note)


def _build_matches(comparison: Comparison) -> Section:
    matching = comparison.matching
    alone = [
        Note(f"Modules of {name} without a partner: {', '.join(map(str, left))}.")
        for name, left in zip(
            comparison.names, (matching.unmatched, matching.other_unmatched), strict=True
        )
        if left
    ]
    pictures = [
        Picture(f"shared-{what}", _draw_shared(comparison, counts, what))
        for what, counts in (("units", matching.unit_counts), ("samples", matching.sample_counts))
        if counts.sum()
    ]
    lead = (
        "Modules are matched one to one, so that the partners' overlaps of units and samples are "
        "largest in sum. A single module may share more with another than with its partner."
    )
    moves = tabulate_moves(comparison)
    moved = (Collapsible(moves),) if moves.rows else ()
    blocks: tuple[Block, ...] = (tabulate_matches(comparison.matching), *alone, *pictures, *moved)
    return Section("matches", "Matched modules", lead, shared=blocks)


def _draw_shared(comparison: Comparison, counts: Counts, what: str) -> Heatmap:
    shares = share_rows(counts)
    kept = percent(float(shares.max(axis=1).mean()))
    return Heatmap(
        title=f"Shared {what}",
        caption=(
            f"Each row is a module of {comparison.names[0]}, each column one of "
            f"{comparison.names[1]}; the colour is the share of the row's {what} in the column."
        ),
        alternative=f"On average {kept} of a module's {what} lie in one module of the other run.",
        values=shares,
        row_labels=tuple(map(str, range(len(counts)))),
        column_labels=tuple(map(str, range(counts.shape[1]))),
        row_axis=f"Module of {comparison.names[0]}",
        column_axis=f"Module of {comparison.names[1]}",
        value_axis=f"Share of the row's {what}",
        hover=lambda row, column: (
            f"{counts[row, column]:,} {what} of module {row} lie in the other run's {column}"
        ),
        scale=Scale.SEQUENTIAL,
    )
