"""The module by module mean activation (DESIGN equation xi, block by block)."""

from collections.abc import Sequence

import numpy as np

from ulcmod_dist.report.figures.naming import numbers, short_names
from ulcmod_dist.report.specs import Heatmap, Scale
from ulcmod_dist.results.types import Floats
from ulcmod_dist.runtime.text import MINUS, number


def activation(means: Floats, names: Sequence[str], basis: str) -> Heatmap:
    """Draw the mean z of each module's samples on each module's units.

    Args:
        means: Samples' module by units' module, shape (K, K).
        names: The modules' names.
        basis: Seeds and restarts behind the modules.
    """
    modules = len(means)
    hover = tuple(
        tuple(
            f"Samples of module {row} ({names[row]})\nUnits of module {column} ({names[column]})\n"
            f"Mean activation {number(means[row, column])}"
            for column in range(modules)
        )
        for row in range(modules)
    )
    return Heatmap(
        title="Mean activation of each module's units",
        caption=(
            "Each row is the samples of one module, each column the units of one module. "
            "The colour is the mean z: how far above its own mean a unit is, in its deviations. "
            "Decoupled modules show a strong diagonal and little elsewhere."
        ),
        alternative=_in_words(means),
        basis=basis,
        values=means,
        row_labels=short_names(names),
        column_labels=numbers(modules),
        row_axis="Samples of module",
        column_axis="Units of module",
        value_axis="Mean z",
        hover=hover,
        scale=Scale.DIVERGING,
        cell_texts=tuple(
            tuple(f"{value:z.2f}".replace("-", MINUS) for value in row) for row in means
        ),
        row_modules=tuple(range(modules)),
    )


def _in_words(means: Floats) -> str:
    own = np.diag(means)
    if len(means) == 1:
        return f"One module with a mean activation of {number(own[0])}."
    apart = np.where(np.eye(len(means), dtype=bool), -np.inf, means)
    row, column = map(int, np.unravel_index(int(np.argmax(apart)), means.shape))
    mean_apart = (means.sum() - own.sum()) / (means.size - len(means))
    return (
        f"On their own samples the modules' units average {number(own.mean())} "
        f"(from {number(own.min())} to {number(own.max())}), elsewhere {number(mean_apart)}. "
        f"The strongest cell off the diagonal is samples of module {row} on units of module "
        f"{column}: {number(means[row, column])}."
    )
