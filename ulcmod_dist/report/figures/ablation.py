"""Figures of what ablating a module costs."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ulcmod_dist.report.figures.modules import (
    describe_basis,
    format_cells,
    number_names,
)
from ulcmod_dist.report.specs import Dots, DotSeries, Heatmap, Scale, format_interval
from ulcmod_dist.results.ablation import CONTROLS, Ablation
from ulcmod_dist.results.discovery import Categories, Discovery
from ulcmod_dist.results.types import Floats
from ulcmod_dist.runtime.text import count, label, number

MAX_CATEGORIES = 50
"""Categories of the heatmap at most."""


def draw_loss_by_module(found: Discovery, ablation: Ablation) -> Heatmap:
    """Draw the loss increase on each module's samples when each module is ablated."""
    increase, control = ablation.by_module, ablation.control_by_module
    own = np.eye(len(increase), dtype=bool)
    spec = _draw_loss(
        found, ablation, increase, control, [f"module {k}" for k in range(len(increase))]
    )
    return replace(
        spec,
        title="Loss increase on each module's samples",
        caption=spec.caption + "A strong diagonal means that a module serves its own samples.",
        alternative=(
            f"Ablating a module costs its own samples {_format_mean(increase[own])} nats a token "
            f"and others {_format_mean(increase[~own])}; its control sets cost "
            f"{_format_mean(control[own])} and {_format_mean(control[~own])}."
        ),
        column_labels=tuple(map(str, range(len(increase)))),
        column_axis="Samples of module",
    )


def draw_loss_by_category(
    found: Discovery, ablation: Ablation, increase: Floats, control: Floats
) -> Heatmap:
    """Draw the loss increase on each category less that of the control sets, both (K, C)."""
    measured = ablation.categories
    chosen = _choose_categories(found, measured)
    short = [label(measured[column]) for column in chosen]
    spec = _draw_loss(found, ablation, increase[:, chosen], control[:, chosen], short)
    excess = (increase - control)[:, chosen]
    shown = (
        f" The {len(chosen)} most frequent of {len(measured):,} categories are shown."
        if len(chosen) < len(measured)
        else ""
    )
    known = np.where(np.isnan(excess), -np.inf, excess)
    largest = np.unravel_index(int(np.argmax(known)), excess.shape)
    return replace(
        spec,
        title="Loss increase on each category, beyond that of the control sets",
        caption=(
            f"{spec.caption}The mean of its control sets is subtracted. Strong cells are "
            f"categories that need the module.{shown}"
        ),
        alternative=(
            f"The largest difference is {number(excess[largest])} nats a token: module "
            f"{largest[0]} ablated, samples of {short[largest[1]]}."
        ),
        values=excess,
        cell_texts=format_cells(excess),
    )


def _draw_loss(
    found: Discovery,
    ablation: Ablation,
    increase: Floats,
    control: Floats,
    columns: Sequence[str],
) -> Heatmap:
    names = found.names
    return Heatmap(
        title="",
        caption="Each row ablates one module in the real forward pass. ",
        alternative="",
        basis=_describe_measurement(found, ablation),
        values=increase,
        row_labels=number_names(names),
        column_labels=tuple(columns),
        row_axis="Ablated module",
        value_axis="Nats a token",
        hover=lambda row, column: (
            f"Module {row} ({names[row]}) ablated\nSamples of {columns[column]}\n"
            f"Loss increase {number(increase[row, column])} nats a token\n"
            f"Control sets: {number(control[row, column])}"
        ),
        scale=Scale.DIVERGING,
        cell_texts=format_cells(increase),
        row_modules=tuple(range(len(names))),
    )


def _choose_categories(found: Discovery, measured: Sequence[str]) -> list[int]:
    """Positions of the categories that a figure has room for, those with the most samples."""
    sizes: dict[str, int] = {}
    if isinstance(found.categories, Categories):
        totals = found.categories.counts.sum(axis=0).tolist()
        sizes = dict(zip(found.categories.names, totals, strict=True))
    order = sorted(range(len(measured)), key=lambda position: -sizes.get(measured[position], 0))
    return sorted(order[:MAX_CATEGORIES])


def _describe_measurement(found: Discovery, ablation: Ablation) -> str:
    return (
        f"{describe_basis(found)} Measured on {count(ablation.num_samples, 'sample')}, beside "
        f"{count(ablation.num_random_sets * len(CONTROLS), 'control set')} a module; both drawn "
        f"with seed {ablation.seed}."
    )


def _format_mean(values: Floats) -> str:
    known = values[np.isfinite(values)]
    return number(float(known.mean()) if known.size else float("nan"))


def draw_selectivity(found: Discovery, ablation: Ablation) -> Dots:
    """Draw each module's selectivity beside that of its control sets."""
    modules = ablation.modules
    rows = tuple(number_names(found.names)[value.module] for value in modules)
    series = [("Module", [value.loss for value in modules])]
    for controls in zip(*(value.controls for value in modules), strict=True):
        name = CONTROLS[controls[0].kind].capitalize()
        series.append((name, [control.loss for control in controls]))
    values = " ".join(
        f"Module {value.module}: {format_interval(value.loss.selectivity)}, control sets up to "
        f"{number(max(control.loss.selectivity.mean for control in value.controls))}."
        for value in modules
    )
    return Dots(
        title="Selectivity of each module and of its control sets",
        caption=(
            "Loss increase on a module's own samples less that on all others. A module does "
            "something of its own where its dot lies right of zero and of its control sets; these "
            "are as many units in each layer. Bars are 95% intervals."
        ),
        alternative=f"{ablation.num_selective} of {len(modules)} modules are selective. {values}",
        basis=_describe_measurement(found, ablation),
        labels=rows,
        series=tuple(
            DotSeries(name, tuple(effect.selectivity for effect in effects))
            for name, effects in series
        ),
        value_axis="Selectivity, nats a token",
        row_modules=tuple(value.module for value in modules),
    )


def draw_selectivity_by_method(found: Discovery) -> Dots:
    """Draw the mean selectivity of each method's modules beside that of their control sets."""
    methods, ablations = [*found.ablations], [*found.ablations.values()]
    return Dots(
        title="Selectivity of the modules of each method",
        caption=(
            "Mean over the modules of the loss increase on their own samples less that on all "
            "others. Control sets are as many units in each layer. Bars are 95% intervals."
        ),
        alternative=" ".join(
            f"{method}: {format_interval(each.selectivity)}, "
            f"control sets {format_interval(each.control_selectivity)}."
            for method, each in zip(methods, ablations, strict=True)
        ),
        basis=_describe_measurement(found, ablations[0]),
        labels=tuple(methods),
        series=(
            DotSeries("Modules", tuple(each.selectivity for each in ablations)),
            DotSeries("Control sets", tuple(each.control_selectivity for each in ablations)),
        ),
        value_axis="Selectivity, nats a token",
    )
