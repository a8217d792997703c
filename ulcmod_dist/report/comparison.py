"""The page that sets the modules of two runs side by side."""

from collections.abc import Sequence

import numpy as np

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
from ulcmod_dist.report.figures.modules import build_hover
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
        hover=build_hover(
            counts.shape,
            lambda row, column: (
                f"{counts[row, column]:,} {what} of module {row} lie in the other run's {column}"
            ),
        ),
        scale=Scale.SEQUENTIAL,
    )
