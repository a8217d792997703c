"""The sections on the modules one by one, how they relate, and their layers."""

from collections.abc import Iterator, Sequence

import numpy as np

from ulcmod_dist.report.blocks import (
    Block,
    Collapsible,
    LayerColumns,
    ModuleCard,
    ModulePicker,
    Note,
    Picture,
    Prompts,
    Section,
    ShareBar,
    ShareBars,
    Tab,
    build_choices,
)
from ulcmod_dist.report.figures.modules import (
    compute_layer_shares,
    compute_mean_layers,
    draw_category_mix,
    draw_category_similarity,
    draw_layers,
)
from ulcmod_dist.report.figures.relations import draw_flow, draw_tree
from ulcmod_dist.report.sections.explanation import (
    show_completions,
    show_tokens,
    show_units,
)
from ulcmod_dist.report.specs import format_interval
from ulcmod_dist.report.tables import Cell, Column, ColumnKind, Table, build_table
from ulcmod_dist.results.discovery import Categories, Discovery, Layers, Module, Overlap, ReportData
from ulcmod_dist.results.types import Absent
from ulcmod_dist.runtime.text import count, number, percent

MAX_KEYWORDS = 5
"""Keywords of a module in the table, so that a row stays low; its card has them all."""
MAX_BARS = 8
"""Categories in a bar list of a module, the largest first."""


def build_modules_section(data: ReportData) -> Section:
    """Return the modules one by one, then together."""
    lead = (
        "Select a module to see its typical prompts, its layers and what ablating it costs. "
        "Typical are the prompts of largest margin: by how much L falls if a prompt moves to the "
        "next best module. "
        "Names are made from keywords and categories, not by a language model."
    )
    return Section(
        "modules", "Modules", lead, shared=_flow(data), by_num_modules=build_choices(data, _blocks)
    )


def _blocks(found: Discovery) -> tuple[Block, ...]:
    return (
        ModulePicker(tuple(_card(found, module) for module in found.modules)),
        tabulate_modules(found),
        *_categories(found),
        _tree(found),
    )


def tabulate_modules(found: Discovery) -> Table:
    """Return one row a module."""
    columns = (
        Column("module", "Module", ColumnKind.COUNT),
        Column("name", "Name"),
        Column("units", "Units", ColumnKind.COUNT),
        Column("samples", "Samples", ColumnKind.COUNT),
        Column("activation", "Activation", ColumnKind.NUMBER),
        Column("breadth", "Categories", ColumnKind.NUMBER),
        Column("mean_layer", "Mean layer", ColumnKind.NUMBER),
        Column("concentration", "Layer focus", ColumnKind.NUMBER),
        Column("median_tokens", "Tokens", ColumnKind.NUMBER),
        Column("stability", "Stability", ColumnKind.NUMBER),
        Column("keywords", "Keywords"),
    )
    layers = found.layers if isinstance(found.layers, Layers) else None
    depth = compute_mean_layers(layers.units) if layers else np.empty(0)
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
    return build_table("modules", "All modules", columns, rows, caption)


def _categories(found: Discovery) -> tuple[Block, ...]:
    categories = found.categories
    if isinstance(categories, Absent):
        return (categories,)
    return (
        Picture("categories", draw_category_mix(found, categories), wide=True),
        Picture("category-similarity", draw_category_similarity(found, categories)),
    )


def _tree(found: Discovery) -> Block:
    if isinstance(found.linkage, Absent):
        return found.linkage
    return Picture("hierarchy", draw_tree(found, found.linkage))


def _flow(data: ReportData) -> tuple[Block, ...]:
    if isinstance(data.overlaps, Absent):
        return (data.overlaps,)
    spec = draw_flow(data.overlaps, data.discoveries)
    return (Picture("flow", spec, wide=True), Collapsible(tabulate_overlaps(data.overlaps)))


def tabulate_overlaps(overlaps: tuple[Overlap, ...]) -> Table:
    """Return every overlap of modules of successive K."""
    columns = (
        Column("num_modules", "K", ColumnKind.COUNT),
        Column("module", "Module", ColumnKind.COUNT),
        Column("next_num_modules", "Next K", ColumnKind.COUNT),
        Column("next_module", "Module", ColumnKind.COUNT),
        Column("units", "Units shared", ColumnKind.COUNT),
        Column("share", "Share of the first", ColumnKind.SHARE),
        Column("next_share", "Share of the second", ColumnKind.SHARE),
        Column("samples", "Samples shared", ColumnKind.COUNT),
    )
    rows = [row for overlap in overlaps for row in _overlap_rows(overlap)]
    title = "Overlap of modules from one K to the next"
    return build_table("overlaps", title, columns, rows)


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


def _card(found: Discovery, module: Module) -> ModuleCard:
    explained = None
    if not isinstance(found.explanation, Absent):
        explained = found.explanation.modules[module.number]
    views = (
        Tab("prompts", "Prompts", _show_prompts(found, module)),
        Tab("tokens", "Tokens", show_tokens(explained) if explained else ()),
        Tab("units", "Units", show_units(explained) if explained else ()),
        Tab("layers", "Layers", _show_layers(found.layers, module.number)),
        Tab("effects", "Effects", _show_effects(found, module.number)),
        Tab("completions", "Completions", show_completions(explained) if explained else ()),
    )
    return ModuleCard(module, _summarize(found, module), tuple(tab for tab in views if tab.blocks))


def _summarize(found: Discovery, module: Module) -> str:
    units = sum(other.num_units for other in found.modules)
    samples = sum(other.num_samples for other in found.modules)
    activation = found.activation[module.number, module.number]
    parts = [
        f"{count(module.num_units, 'unit')} ({percent(module.num_units / max(1, units))}) and "
        f"{count(module.num_samples, 'sample')} ({percent(module.num_samples / max(1, samples))}).",
        f"Mean activation {number(activation)} on its own samples.",
    ]
    if module.length is not None:
        parts.append(f"Half of its samples have at most {module.length[2]:,.0f} tokens.")
    if module.stability is not None:
        parts.append(f"Other restarts put {percent(module.stability)} of its units together.")
    return " ".join(parts)


def _show_prompts(found: Discovery, module: Module) -> tuple[Block, ...]:
    prompts = module.prompts if isinstance(module.prompts, Absent) else Prompts(module.prompts)
    if isinstance(found.categories, Absent):
        return (prompts,)
    return (prompts, ShareBars("Categories", _share_categories(found.categories, module.number)))


def _share_categories(categories: Categories, module: int) -> tuple[ShareBar, ...]:
    row = categories.counts[module]
    total = max(1, int(row.sum()) + (categories.others[module] if categories.others else 0))
    order = [i for i in np.argsort(-row, kind="stable") if row[i] > 0][:MAX_BARS]
    return tuple(
        ShareBar(
            categories.names[i],
            float(row[i] / total),
            f"{percent(row[i] / total)} · {count(int(row[i]), 'sample')}",
        )
        for i in order
    )


def _show_layers(layers: Layers | Absent, module: int) -> tuple[Block, ...]:
    if isinstance(layers, Absent):
        return ()
    shares = compute_layer_shares(layers.units)[module]
    largest = float(shares.max()) or 1.0
    depth = float(compute_mean_layers(layers.units)[module])
    columns = tuple(
        ShareBar(
            name,
            float(share) / largest,
            f"Layer {name}: {percent(share)} of the layer, {count(int(units), 'unit')}",
        )
        for name, share, units in zip(layers.names, shares, layers.units[module], strict=True)
    )
    words = (
        f"Mean layer {number(depth, 2)} of 0 to {len(columns) - 1}. "
        f"The highest column is {percent(largest)} of its layer's units."
    )
    return (Note(words), LayerColumns(columns))


def _show_effects(found: Discovery, module: int) -> tuple[Block, ...]:
    ablation = found.ablation
    if isinstance(ablation, Absent):
        return ()
    row = next((row for row in ablation.modules if row.module == module), None)
    if row is None:
        return ()
    verdict = "selective" if row.is_selective else "not selective"
    words = (
        f"The module is {'general machinery' if row.is_general else verdict}. "
        f"Selectivity {format_interval(row.loss.selectivity)} nats a token. Control sets are as "
        "many other units in each layer, here those of the kind that costs its own samples most."
    )
    strongest = max((control.loss for control in row.controls), key=lambda loss: loss.own.mean)
    values = [
        ("Module, its own samples", row.loss.own.mean),
        ("Module, other samples", row.loss.other.mean),
        ("Control sets, the same own samples", strongest.own.mean),
        ("Control sets, other samples", strongest.other.mean),
    ]
    blocks: list[Block] = [
        Note(words), ShareBars("Loss increase, nats a token", _scale_bars(values))
    ]  # fmt: skip
    if not isinstance(ablation.by_category, Absent):
        costs = ablation.by_category[module]
        order = [i for i in np.argsort(-costs) if np.isfinite(costs[i])][:MAX_BARS]
        by_category = [(ablation.categories[i], float(costs[i])) for i in order]
        blocks.append(ShareBars("Loss increase by category", _scale_bars(by_category)))
    return tuple(blocks)


def _scale_bars(values: Sequence[tuple[str, float]]) -> tuple[ShareBar, ...]:
    """Return bars of positive length as a share of the largest value."""
    largest = max((abs(value) for _, value in values if np.isfinite(value)), default=0.0) or 1.0
    return tuple(ShareBar(name, max(0.0, value) / largest, number(value)) for name, value in values)


def build_layers_section(data: ReportData) -> Section:
    """Return the modules over the layers."""
    lead = "Layers are counted from the input; a module may extend over any number of them."
    return Section("layers", "Layers", lead, by_num_modules=build_choices(data, _layer_blocks))


def _layer_blocks(found: Discovery) -> tuple[Block, ...]:
    if isinstance(found.layers, Absent):
        return (found.layers,)
    return (
        Picture("layers", draw_layers(found, found.layers), wide=True),
        Collapsible(tabulate_layers(found, found.layers)),
    )


def tabulate_layers(found: Discovery, layers: Layers) -> Table:
    """Return the units of each module in each layer."""
    columns = (
        Column("module", "Module", ColumnKind.COUNT),
        Column("name", "Name"),
        Column("layer", "Layer"),
        Column("units", "Units", ColumnKind.COUNT),
        Column("share", "Share of the layer", ColumnKind.SHARE),
    )
    shares = compute_layer_shares(layers.units)
    rows = (
        (module.number, module.name, layer, int(layers.units[module.number, column]),
         float(shares[module.number, column]))
        for module in found.modules
        for column, layer in enumerate(layers.names)
    )  # fmt: skip
    return build_table("layers", "Units of each module in each layer", columns, rows)
