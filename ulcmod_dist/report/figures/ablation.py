"""Figures of what ablating a module costs."""

from collections.abc import Sequence

import numpy as np

from ulcmod_dist.report.figures.modules import build_hover, format_cells, number_names
from ulcmod_dist.report.specs import Dots, DotSeries, Heatmap, Scale, format_interval
from ulcmod_dist.results.ablation import AblatedModule
from ulcmod_dist.results.types import Floats
from ulcmod_dist.runtime.text import label, number


def draw_loss_by_module(
    increase: Floats, random: Floats, names: Sequence[str], basis: str
) -> Heatmap:
    """Draw the loss increase on each module's samples when each module is ablated.

    Args:
        increase: Nats a token, ablated module by module of the samples, shape (K, K).
        random: The same where random sets of as many units in each layer are ablated.
        names: The modules' names.
        basis: Samples and random sets behind the values.
    """
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
        basis=basis,
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


def draw_loss_by_category(
    increase: Floats, names: Sequence[str], categories: Sequence[str], basis: str
) -> Heatmap:
    """Draw the loss increase on each category when each module is ablated.

    Args:
        increase: Nats a token, ablated module by category, shape (K, C).
        names: The modules' names.
        categories: Names of the categories.
        basis: Samples and random sets behind the values.
    """
    short = tuple(map(label, categories))
    known = np.where(np.isnan(increase), -np.inf, increase)
    largest = np.unravel_index(int(np.argmax(known)), increase.shape)
    return Heatmap(
        title="Loss increase on each category",
        caption=(
            "Each row ablates one module in the real forward pass. "
            "Strong cells are categories that need the module."
        ),
        alternative=(
            f"The largest increase is {number(increase[largest])} nats a token: module "
            f"{largest[0]} ablated, samples of {short[largest[1]]}."
        ),
        basis=basis,
        values=increase,
        row_labels=number_names(names),
        column_labels=short,
        row_axis="Ablated module",
        column_axis="",
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


def _format_mean(values: Floats) -> str:
    known = values[np.isfinite(values)]
    return number(float(known.mean()) if known.size else float("nan"))


def draw_selectivity(modules: Sequence[AblatedModule], names: Sequence[str], basis: str) -> Dots:
    """Draw each module's selectivity beside that of random sets of units.

    Args:
        modules: One value a module.
        names: The modules' names.
        basis: Samples and seeds behind the values.
    """
    labels = number_names(names)
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
        basis=basis,
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
