"""Figures of what ablating a module costs."""

from collections.abc import Sequence

import numpy as np

from ulcmod_dist.report.figures.modules import (
    build_hover,
    describe_basis,
    format_cells,
    number_names,
)
from ulcmod_dist.report.specs import Dots, DotSeries, Heatmap, Scale, format_interval
from ulcmod_dist.results.ablation import AblatedModule, Ablation
from ulcmod_dist.results.discovery import Categories, Discovery
from ulcmod_dist.results.types import Floats
from ulcmod_dist.runtime.text import count, label, number

MAX_CATEGORIES = 50
"""Categories of the heatmap at most."""


def draw_loss_by_module(found: Discovery, ablation: Ablation) -> Heatmap:
    """Draw the loss increase on each module's samples when each module is ablated."""
    increase, random, names = ablation.by_module, ablation.random_by_module, found.names
    own = np.eye(len(increase), dtype=bool)
    return Heatmap(
        title="Loss increase on each module's samples",
        caption=(
            "Each row ablates one module in the real forward pass. "
            "A strong diagonal means that a module serves its own samples."
        ),
        alternative=(
            f"Ablating a module costs its own samples {_format_mean(increase[own])} nats a token "
            f"and others {_format_mean(increase[~own])}; random units cost "
            f"{_format_mean(random[own])} and {_format_mean(random[~own])}."
        ),
        basis=_describe_measurement(found, ablation),
        values=increase,
        row_labels=number_names(names),
        column_labels=tuple(map(str, range(len(names)))),
        row_axis="Ablated module",
        column_axis="Samples of module",
        value_axis="Nats a token",
        hover=build_hover(
            increase.shape,
            lambda row, column: (
                f"Module {row} ({names[row]}) ablated\nSamples of module {column}\n"
                f"Loss increase {number(increase[row, column])} nats a token\n"
                f"Random units: {number(random[row, column])}"
            ),
        ),
        scale=Scale.DIVERGING,
        cell_texts=format_cells(increase),
        row_modules=tuple(range(len(names))),
    )


def draw_loss_by_category(found: Discovery, ablation: Ablation, increase: Floats) -> Heatmap:
    """Draw the loss increase on each category when each module is ablated, shape (K, C)."""
    names, measured = found.names, ablation.categories
    chosen = _choose_categories(found, measured)
    increase, short = increase[:, chosen], tuple(label(measured[column]) for column in chosen)
    shown = (
        f" The {len(chosen)} most frequent of {len(measured):,} categories are shown."
        if len(chosen) < len(measured)
        else ""
    )
    known = np.where(np.isnan(increase), -np.inf, increase)
    largest = np.unravel_index(int(np.argmax(known)), increase.shape)
    return Heatmap(
        title="Loss increase on each category",
        caption=(
            "Each row ablates one module in the real forward pass. "
            "Strong cells are categories that need the module." + shown
        ),
        alternative=(
            f"The largest increase is {number(increase[largest])} nats a token: module "
            f"{largest[0]} ablated, samples of {short[largest[1]]}."
        ),
        basis=_describe_measurement(found, ablation),
        values=increase,
        row_labels=number_names(names),
        column_labels=short,
        row_axis="Ablated module",
        value_axis="Nats a token",
        hover=build_hover(
            increase.shape,
            lambda row, column: (
                f"Module {row} ({names[row]}) ablated\nSamples of {short[column]}\n"
                f"Loss increase {number(increase[row, column])} nats a token"
            ),
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
        f"{count(ablation.num_random_sets, 'random set')} of units a module; both drawn with seed "
        f"{ablation.seed}."
    )


def _format_mean(values: Floats) -> str:
    known = values[np.isfinite(values)]
    return number(float(known.mean()) if known.size else float("nan"))


def draw_selectivity(found: Discovery, ablation: Ablation) -> Dots:
    """Draw each module's selectivity beside that of random sets of units."""
    modules = ablation.modules
    labels = number_names(found.names)
    rows = tuple(labels[value.module] for value in modules)
    values = " ".join(
        f"Module {value.module}: {format_interval(value.real.selectivity)}, random units "
        f"{format_interval(value.random.selectivity)}."
        for value in modules
    )
    return Dots(
        title="Selectivity of each module and of random units",
        caption=(
            "Loss increase on a module's own samples less that on all others. A module does "
            "something of its own where its dot lies right of zero and of the random units; these "
            "are as many in each layer. Bars are 95% intervals."
        ),
        alternative=(
            f"For {count_above_random(modules)} of {len(modules)} modules the whole interval lies "
            f"above that of random units. {values}"
        ),
        basis=_describe_measurement(found, ablation),
        labels=rows,
        series=(
            DotSeries.from_intervals("Module", rows, [value.real.selectivity for value in modules]),
            DotSeries.from_intervals(
                "Random units", rows, [value.random.selectivity for value in modules]
            ),
        ),
        value_axis="Selectivity, nats a token",
        row_modules=tuple(value.module for value in modules),
    )


def count_above_random(modules: Sequence[AblatedModule]) -> int:
    """Return how many modules have an interval of selectivity wholly above that of random units."""
    return sum(
        value.real.selectivity.low is not None
        and value.random.selectivity.high is not None
        and value.real.selectivity.low > value.random.selectivity.high
        for value in modules
    )
