"""The section on ablation."""

from collections.abc import Iterator

import numpy as np

from ulcmod_dist.report.blocks import (
    Block,
    Collapsible,
    KeyFigure,
    KeyFigures,
    Note,
    Section,
    build_choices,
    build_picture,
    explain_absence,
    name_for,
)
from ulcmod_dist.report.figures.ablation import (
    count_above_random,
    draw_loss_by_category,
    draw_loss_by_module,
    draw_selectivity,
)
from ulcmod_dist.report.tables import (
    Cell,
    Column,
    ColumnKind,
    Table,
    build_table,
    interval_cells,
    interval_columns,
)
from ulcmod_dist.results.ablation import Ablation, LossIncrease
from ulcmod_dist.results.discovery import Discovery, ReportData
from ulcmod_dist.results.types import Absent, Interval
from ulcmod_dist.runtime.text import number

_COLUMNS = {
    "own": "Own samples",
    "other": "Other samples",
    "selectivity": "Selectivity",
    "random_own": "Random units, own",
    "random_other": "Random units, other",
    "random_selectivity": "Random units, selectivity",
}


def build_ablation_section(data: ReportData) -> Section:
    """Return what ablating each module costs."""
    lead = (
        "Ablating a module in the real forward pass should increase the loss of its own samples "
        "more than that of others, and more than ablating as many random units in each layer."
    )
    return Section(
        "ablation", "Ablation", lead,
        by_num_modules=build_choices(data, _blocks),
    )  # fmt: skip


def _blocks(found: Discovery) -> tuple[Block, ...]:
    ablation = found.ablation
    if isinstance(ablation, Absent):
        return (explain_absence(ablation),)
    return (
        _key_figures(ablation),
        Note(_what_was_done(ablation)),
        build_picture("ablation", found, draw_selectivity(found, ablation), wide=True),
        build_picture("ablation-modules", found, draw_loss_by_module(found, ablation)),
        _by_category(found, ablation),
        Collapsible(tabulate_ablation(found, ablation)),
        Collapsible(tabulate_matrix(found, ablation)),
    )


def _key_figures(ablation: Ablation) -> KeyFigures:
    above = count_above_random(ablation.modules)
    return KeyFigures(
        (
            _figure(ablation.selectivity, "Mean selectivity of the modules"),
            _figure(ablation.random_selectivity, "The same of random units"),
            _figure(ablation.advantage, "Advantage over random units"),
            KeyFigure(f"{above} of {len(ablation.modules)}", "Modules above random units"),
        )
    )


def _figure(value: Interval, label: str) -> KeyFigure:
    if value.low is None or value.high is None:
        return KeyFigure(number(value.mean), label)
    return KeyFigure(
        number(value.mean), label, f"95% interval {number(value.low)} to {number(value.high)}"
    )


def _what_was_done(ablation: Ablation) -> str:
    replaced = {
        "zero": "The units' values were replaced by zero.",
        "mean": "The units' values were replaced by their means.",
    }[ablation.method]
    return (
        f"{replaced} The loss is that of the tokens of the prompt's own text, in nats a token. "
        "Selectivity is the mean loss increase on a module's own samples less that on all others. "
        "Intervals come from 1,000 draws of the measured samples within each module; the random "
        "sets are averaged."
    )


def _by_category(found: Discovery, ablation: Ablation) -> Block:
    if isinstance(ablation.by_category, Absent):
        return explain_absence(ablation.by_category)
    spec = draw_loss_by_category(found, ablation, ablation.by_category)
    return build_picture("ablation-categories", found, spec)


def tabulate_ablation(found: Discovery, ablation: Ablation) -> Table:
    """Return what ablating each module costs, beside random sets."""
    columns = [Column("module", "Module", ColumnKind.COUNT), Column("name", "Name")]
    for key, title in _COLUMNS.items():
        columns += interval_columns(key, title)
    rows = (
        (row.module, found.modules[row.module].name, *_cells(row.real), *_cells(row.random))
        for row in ablation.modules
    )
    title = "Loss increase, nats a token"
    caption = "Means, above their 95% intervals."
    return build_table(name_for("ablation", found), title, columns, rows, caption)


def _cells(increase: LossIncrease) -> Iterator[Cell]:
    for value in (increase.own, increase.other, increase.selectivity):
        yield from interval_cells(value)


def tabulate_matrix(found: Discovery, ablation: Ablation) -> Table:
    """Return the loss increase for each ablated module and module of the samples."""
    columns = (
        Column("module", "Ablated module", ColumnKind.COUNT),
        Column("samples_of", "Samples of module", ColumnKind.COUNT),
        Column("rise", "Loss increase", ColumnKind.NUMBER),
        Column("random_rise", "Random units", ColumnKind.NUMBER),
    )
    rows = (
        (row, column, float(rise), float(ablation.random_by_module[row, column]))
        for (row, column), rise in np.ndenumerate(ablation.by_module)
    )
    title = "Loss increase, module by module"
    return build_table(name_for("ablation-matrix", found), title, columns, rows)
