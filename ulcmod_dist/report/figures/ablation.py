"""What silencing a module costs."""

from collections.abc import Sequence

import numpy as np

from ulcmod_dist.report.figures.comparison import dot_series, in_words
from ulcmod_dist.report.figures.naming import numbers, short_names
from ulcmod_dist.report.specs import Dots, Heatmap, Scale
from ulcmod_dist.results.ablation import AblatedModule
from ulcmod_dist.results.types import Floats
from ulcmod_dist.runtime.text import MINUS, label, number


def loss_rise_by_module(rises: Floats, random: Floats, names: Sequence[str], basis: str) -> Heatmap:
    """Draw the rise of the loss on each module's samples when each module is silenced.

    Args:
        rises: Nats a token, silenced module by module of the samples, shape (K, K).
        random: The same where random sets of as many units a layer are silenced.
        names: The modules' names.
        basis: Samples and random sets behind the values.
    """
    own = np.eye(len(rises), dtype=bool)
    words = (
        f"Silencing a module costs its own samples {_mean(rises[own])} nats a token and others "
        f"{_mean(rises[~own])}; random units cost {_mean(random[own])} and {_mean(random[~own])}."
    )
    hover = tuple(
        tuple(
            f"Module {row} ({names[row]}) silenced\nSamples of module {column}\n"
            f"Loss rises by {number(rises[row, column])} nats a token\n"
            f"Random units: {number(random[row, column])}"
            for column in range(len(names))
        )
        for row in range(len(names))
    )
    return Heatmap(
        title="Rise of the loss on each module's samples",
        caption=(
            "Each row silences one module in the real forward pass. "
            "A strong diagonal means that a module serves its own samples."
        ),
        alternative=words,
        basis=basis,
        values=rises,
        row_labels=short_names(names),
        column_labels=numbers(len(names)),
        row_axis="Silenced module",
        column_axis="Samples of module",
        value_axis="Nats a token",
        hover=hover,
        scale=Scale.DIVERGING,
        cell_texts=_in_cells(rises),
        row_modules=tuple(range(len(names))),
    )


def loss_rise_by_category(
    rises: Floats, names: Sequence[str], categories: Sequence[str], basis: str
) -> Heatmap:
    """Draw the rise of the loss on each category when each module is silenced.

    Args:
        rises: Nats a token, silenced module by category, shape (K, C).
        names: The modules' names.
        categories: Names of the categories.
        basis: Samples and random sets behind the values.
    """
    short = tuple(label(name) for name in categories)
    hover = tuple(
        tuple(
            f"Module {row} ({names[row]}) silenced\nSamples of {category}\n"
            f"Loss rises by {number(rises[row, column])} nats a token"
            for column, category in enumerate(short)
        )
        for row in range(len(names))
    )
    known = np.where(np.isnan(rises), -np.inf, rises)
    row, column = map(int, np.unravel_index(int(np.argmax(known)), rises.shape))
    return Heatmap(
        title="Rise of the loss on each category",
        caption=(
            "Each row silences one module in the real forward pass. "
            "Strong cells are categories that need the module."
        ),
        alternative=(
            f"The largest rise is {number(rises[row, column])} nats a token: module {row} "
            f"silenced, samples of {short[column]}."
        ),
        basis=basis,
        values=rises,
        row_labels=short_names(names),
        column_labels=short,
        row_axis="Silenced module",
        column_axis="",
        value_axis="Nats a token",
        hover=hover,
        scale=Scale.DIVERGING,
        cell_texts=_in_cells(rises),
        row_modules=tuple(range(len(names))),
    )


def _in_cells(rises: Floats) -> tuple[tuple[str, ...], ...]:
    """The rises with two decimals; nothing where no sample was measured."""
    return tuple(
        tuple("" if np.isnan(v) else f"{v:z.2f}".replace("-", MINUS) for v in row) for row in rises
    )


def _mean(values: Floats) -> str:
    known = values[np.isfinite(values)]
    return number(float(known.mean()) if known.size else float("nan"))


def selectivity_by_module(
    modules: Sequence[AblatedModule], names: Sequence[str], basis: str
) -> Dots:
    """Draw each module's selectivity beside that of random sets of units.

    Args:
        modules: One value a module.
        names: The modules' names.
        basis: Samples and seeds behind the values.
    """
    labels = short_names(names)
    rows = tuple(labels[value.module] for value in modules)
    above = modules_above_random(modules)
    return Dots(
        title="Selectivity of each module and of random units",
        caption=(
            "Rise of the loss on a module's own samples less that on all others. A module does "
            "something of its own where its dot lies right of zero and of the random units; these "
            "are as many in each layer. Bars are 95% intervals."
        ),
        alternative=(
            f"For {above} of {len(modules)} modules the whole interval lies above that of random "
            "units. "
            + " ".join(
                f"Module {value.module}: {in_words(value.real.selectivity)}, random units "
                f"{in_words(value.random.selectivity)}."
                for value in modules
            )
        ),
        basis=basis,
        labels=rows,
        series=(
            dot_series("Module", rows, [value.real.selectivity for value in modules]),
            dot_series("Random units", rows, [value.random.selectivity for value in modules]),
        ),
        value_axis="Selectivity, nats a token",
        row_modules=tuple(value.module for value in modules),
    )


def modules_above_random(modules: Sequence[AblatedModule]) -> int:
    """Return how many modules have an interval of selectivity wholly above that of random units."""
    return sum(
        value.real.selectivity.low is not None
        and value.random.selectivity.high is not None
        and value.real.selectivity.low > value.random.selectivity.high
        for value in modules
    )
