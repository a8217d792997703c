"""What silencing a module costs."""

from collections.abc import Sequence

import numpy as np

from ulcmod_dist.report.figures.comparison import dot_series
from ulcmod_dist.report.figures.naming import numbers, short_names
from ulcmod_dist.report.specs import Dots, Heatmap, Scale
from ulcmod_dist.report.text import label, number
from ulcmod_dist.report.values import AblatedModule, Floats


def loss_rise(
    rises: Floats, names: Sequence[str], columns: Sequence[str] | None, basis: str
) -> Heatmap:
    """Draw the rise of the loss when each module is silenced.

    Args:
        rises: Nats a token, silenced module by group of samples, shape (K, groups).
        names: The modules' names.
        columns: Names of the categories; None where the groups are the modules' own samples.
        basis: Samples and seeds behind the values.
    """
    by_module = columns is None
    groups = numbers(len(names)) if columns is None else tuple(label(c) for c in columns)
    prefix = "Samples of module " if by_module else "Samples of "
    hover = tuple(
        tuple(
            f"Module {row} ({names[row]}) silenced\n{prefix}{group}\n"
            f"Loss rises by {number(rises[row, column])} nats a token"
            for column, group in enumerate(groups)
        )
        for row in range(len(names))
    )
    row, column = map(int, np.unravel_index(int(np.nanargmax(rises)), rises.shape))
    return Heatmap(
        title=f"Rise of the loss on each {'module' if by_module else 'category'}",
        caption=(
            "Each row silences one module in the real forward pass. "
            + (
                "A strong diagonal means that a module serves its own samples."
                if by_module
                else "Strong cells are categories that need the module."
            )
        ),
        alternative=(
            f"The largest rise is {number(rises[row, column])} nats a token: module {row} "
            f"silenced, {prefix.lower()}{groups[column]}. The mean over all cells is "
            f"{number(float(np.nanmean(rises)))}."
        ),
        basis=basis,
        values=rises,
        row_labels=short_names(names),
        column_labels=groups,
        row_axis="Silenced module",
        column_axis="Samples of module" if by_module else "",
        value_axis="Nats a token",
        hover=hover,
        scale=Scale.DIVERGING,
        row_modules=tuple(range(len(names))),
    )


def own_against_others(modules: Sequence[AblatedModule], names: Sequence[str], basis: str) -> Dots:
    """Draw each module's cost on its own samples beside its cost elsewhere and chance.

    Args:
        modules: One value a module.
        names: The modules' names.
        basis: Samples and seeds behind the values.
    """
    labels = short_names(names)
    rows = tuple(labels[value.module] for value in modules)
    stronger = sum(
        value.own.low is not None and value.own.low > value.random_own.mean for value in modules
    )
    return Dots(
        title="Cost on own samples, on others, and of random units",
        caption=(
            "A module does something of its own where its cost on its own samples lies right of "
            "both others. Random sets have as many units in each layer. Bars are 95% intervals."
        ),
        alternative=(
            f"For {stronger} of {len(modules)} modules the interval of the cost on own samples "
            "lies above the mean cost of random sets."
        ),
        basis=basis,
        labels=rows,
        series=(
            dot_series("Own samples", rows, [value.own for value in modules]),
            dot_series("Other samples", rows, [value.other for value in modules]),
            dot_series("Random units, own samples", rows, [value.random_own for value in modules]),
        ),
        value_axis="Rise of the loss, nats a token",
        row_modules=tuple(value.module for value in modules),
    )
