"""Whether silencing the modules confirms them."""

from collections.abc import Iterator

import numpy as np

from ulcmod_dist.report.blocks import Block, Folded, KeyFigure, KeyFigures, Note, Section
from ulcmod_dist.report.figures.ablation import (
    loss_rise_by_category,
    loss_rise_by_module,
    modules_above_random,
    selectivity_by_module,
)
from ulcmod_dist.report.sections.common import (
    basis,
    by_num_modules,
    missing,
    name_for,
    names,
    picture,
)
from ulcmod_dist.report.tables import Column, Kind, Table, table
from ulcmod_dist.results.ablation import Ablation, LossIncrease
from ulcmod_dist.results.discovery import Discovery, ReportData
from ulcmod_dist.results.types import Absent, Interval
from ulcmod_dist.runtime.text import count, number

_COSTS = {
    "own": "Own samples",
    "other": "Other samples",
    "selectivity": "Selectivity",
    "random_own": "Random units, own",
    "random_other": "Random units, other",
    "random_selectivity": "Random units, selectivity",
}


def section(data: ReportData) -> Section:
    """Return what silencing each module costs."""
    lead = (
        "Silencing a module in the real forward pass should cost its own samples more than "
        "others, and more than silencing as many random units in each layer."
    )
    return Section(
        "ablation", "Whether ablation confirms it", lead,
        by_num_modules=by_num_modules(data, _blocks),
    )  # fmt: skip


def _blocks(found: Discovery) -> tuple[Block, ...]:
    ablation = found.ablation
    if isinstance(ablation, Absent):
        return (missing(ablation),)
    shown = names(found)
    measured = (
        f"{basis(found)} Measured on {count(ablation.num_samples, 'sample')}, beside "
        f"{count(ablation.num_random_sets, 'random set')} of units a module; both drawn with seed "
        f"{ablation.seed}."
    )
    by_selectivity = selectivity_by_module(ablation.modules, shown, measured)
    by_module = loss_rise_by_module(ablation.by_module, ablation.random_by_module, shown, measured)
    return (
        _key_figures(ablation),
        Note(_what_was_done(ablation)),
        picture("ablation", found, by_selectivity, wide=True),
        picture("ablation-modules", found, by_module),
        _by_category(found, ablation, measured),
        Folded(ablation_table(found, ablation)),
        Folded(matrix_table(found, ablation)),
    )


def _key_figures(ablation: Ablation) -> KeyFigures:
    above = modules_above_random(ablation.modules)
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


def _by_category(found: Discovery, ablation: Ablation, measured: str) -> Block:
    if isinstance(ablation.by_category, Absent):
        return missing(ablation.by_category)
    spec = loss_rise_by_category(ablation.by_category, names(found), ablation.categories, measured)
    return picture("ablation-categories", found, spec)


def ablation_table(found: Discovery, ablation: Ablation) -> Table:
    """Return what silencing each module costs, beside random sets."""
    columns = [Column("module", "Module", Kind.COUNT), Column("name", "Name")]
    for key, title in _COSTS.items():
        columns += [
            Column(key, title, Kind.NUMBER),
            Column(f"{key}_low", f"{title}, low", Kind.BOUND),
            Column(f"{key}_high", f"{title}, high", Kind.BOUND),
        ]
    rows = (
        (row.module, found.modules[row.module].name, *_cells(row.real), *_cells(row.random))
        for row in ablation.modules
    )
    title = "Rise of the loss, nats a token"
    caption = "Means, above their 95% intervals."
    return table(name_for("ablation", found), title, columns, rows, caption)


def _cells(increase: LossIncrease) -> Iterator[float | None]:
    for value in (increase.own, increase.other, increase.selectivity):
        yield from (value.mean, value.low, value.high)


def matrix_table(found: Discovery, ablation: Ablation) -> Table:
    """Return the rise of the loss for each silenced module and module of the samples."""
    columns = (
        Column("module", "Silenced module", Kind.COUNT),
        Column("samples_of", "Samples of module", Kind.COUNT),
        Column("rise", "Rise of the loss", Kind.NUMBER),
        Column("random_rise", "Random units", Kind.NUMBER),
    )
    rows = (
        (row, column, float(rise), float(ablation.random_by_module[row, column]))
        for (row, column), rise in np.ndenumerate(ablation.by_module)
    )
    title = "Rise of the loss, module by module"
    return table(name_for("ablation-matrix", found), title, columns, rows)
