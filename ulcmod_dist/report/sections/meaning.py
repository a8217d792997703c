"""What each module does, and how modules relate."""

from collections.abc import Iterator

import numpy as np

from ulcmod_dist.report.blocks import Block, Folded, ModulePicker, Picture, Section
from ulcmod_dist.report.figures.categories import category_mix, category_similarity
from ulcmod_dist.report.figures.hierarchy import module_flow, tree
from ulcmod_dist.report.figures.layers import mean_layers
from ulcmod_dist.report.sections.cards import cards
from ulcmod_dist.report.sections.common import (
    basis,
    basis_of_all,
    by_num_modules,
    missing,
    name_for,
    names,
    picture,
)
from ulcmod_dist.report.tables import Cell, Column, Kind, Table, table
from ulcmod_dist.results.discovery import Categories, Discovery, Layers, Overlap, ReportData
from ulcmod_dist.results.types import Absent

MAX_KEYWORDS = 5
"""Keywords of a module in the table, so that a row stays low; its card has them all."""


def section(data: ReportData) -> Section:
    """Return the modules one by one, then together."""
    lead = (
        "Pick a module to see its typical prompts, its keywords and where its units are. "
        "Names are made from keywords and categories; no language model wrote them."
    )
    return Section(
        "modules",
        "What each module does",
        lead,
        shared=_flow(data),
        by_num_modules=by_num_modules(data, _blocks),
    )


def _blocks(found: Discovery) -> tuple[Block, ...]:
    return (ModulePicker(cards(found)), modules_table(found), *_categories(found), _tree(found))


def modules_table(found: Discovery) -> Table:
    """Return one row a module."""
    columns = (
        Column("module", "Module", Kind.COUNT),
        Column("name", "Name"),
        Column("units", "Units", Kind.COUNT),
        Column("samples", "Samples", Kind.COUNT),
        Column("activation", "Activation", Kind.NUMBER),
        Column("breadth", "Categories", Kind.NUMBER),
        Column("mean_layer", "Mean layer", Kind.NUMBER),
        Column("concentration", "Layer focus", Kind.NUMBER),
        Column("median_tokens", "Tokens", Kind.NUMBER),
        Column("stability", "Stability", Kind.NUMBER),
        Column("keywords", "Keywords"),
    )
    layers = found.layers if isinstance(found.layers, Layers) else None
    depth = mean_layers(layers.units) if layers else np.empty(0)
    breadth = found.categories.breadth if isinstance(found.categories, Categories) else None
    rows = (
        (
            m.number,
            m.name,
            m.num_units,
            m.num_samples,
            float(found.activation[m.number, m.number]),
            None if breadth is None else float(breadth[m.number]),
            None if layers is None else float(depth[m.number]),
            None if layers is None else float(layers.concentration[m.number]),
            m.length[2] if m.length else None,
            m.stability,
            None if isinstance(m.keywords, Absent) else ", ".join(m.keywords[:MAX_KEYWORDS]),
        )
        for m in found.modules
    )
    caption = (
        "Activation: mean z on the module's own samples. Categories: their effective number, 1 for "
        "a module that serves one. Tokens: the median sample's. Layer focus: 0 for a module spread "
        "over the layers like the model itself, towards 1 for one that keeps to few. Stability: "
        "share of the other restarts in which a unit lies in the same module."
    )
    return table(name_for("modules", found), "All modules", columns, rows, caption)


def _categories(found: Discovery) -> tuple[Block, ...]:
    categories = found.categories
    if isinstance(categories, Absent):
        return (missing(categories),)
    mix = category_mix(categories.counts, categories.names, names(found), basis(found))
    spec = category_similarity(categories.similarity, categories.names, basis(found))
    return (
        picture("categories", found, mix, wide=True),
        picture("category-similarity", found, spec),
    )


def _tree(found: Discovery) -> Block:
    if isinstance(found.linkage, Absent):
        return missing(found.linkage)
    return picture("hierarchy", found, tree(found.linkage, names(found), basis(found)))


def _flow(data: ReportData) -> tuple[Block, ...]:
    if isinstance(data.overlaps, Absent):
        return (missing(data.overlaps),)
    shown = {found.num_modules: found for found in data.discoveries}
    sizes = [data.overlaps[0].num_modules, *(o.next_num_modules for o in data.overlaps)]
    named = [names(shown[size]) for size in sizes]
    spec = module_flow(data.overlaps, named, basis_of_all([shown[size] for size in sizes]))
    return (Picture("flow", spec, wide=True), Folded(overlap_table(data.overlaps)))


def overlap_table(overlaps: tuple[Overlap, ...]) -> Table:
    """Return every overlap of modules of successive K."""
    columns = (
        Column("num_modules", "K", Kind.COUNT),
        Column("module", "Module", Kind.COUNT),
        Column("next_num_modules", "Next K", Kind.COUNT),
        Column("next_module", "Module", Kind.COUNT),
        Column("units", "Units shared", Kind.COUNT),
        Column("share", "Share of the first", Kind.SHARE),
        Column("next_share", "Share of the second", Kind.SHARE),
        Column("samples", "Samples shared", Kind.COUNT),
    )
    rows = [row for overlap in overlaps for row in _overlap_rows(overlap)]
    title = "Overlap of modules from one K to the next"
    return table("overlaps", title, columns, rows)


def _overlap_rows(overlap: Overlap) -> Iterator[tuple[Cell, ...]]:
    left = np.maximum(1, overlap.units.sum(axis=1))
    right = np.maximum(1, overlap.units.sum(axis=0))
    for row, column in np.argwhere(overlap.units > 0):
        shared = int(overlap.units[row, column])
        yield (
            overlap.num_modules,
            int(row),
            overlap.next_num_modules,
            int(column),
            shared,
            float(shared / left[row]),
            float(shared / right[column]),
            int(overlap.samples[row, column]),
        )
