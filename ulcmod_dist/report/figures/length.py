"""Prompt length, the commonest thing that modules follow without meaning to."""

from collections.abc import Sequence

from ulcmod_dist.report.figures.comparison import dot_series
from ulcmod_dist.report.figures.naming import short_names
from ulcmod_dist.report.specs import Dots
from ulcmod_dist.results.types import Interval
from ulcmod_dist.runtime.text import number


def length_by_module(
    quantiles: Sequence[tuple[float, float, float, float, float]], names: Sequence[str], basis: str
) -> Dots:
    """Draw the median length of each module's samples with the middle half of them.

    Args:
        quantiles: Quantiles 0.05, 0.25, 0.5, 0.75 and 0.95 of each module's token counts.
        names: The modules' names.
        basis: Seeds and restarts behind the modules.
    """
    rows = short_names(names)
    medians = [row[2] for row in quantiles]
    return Dots(
        title="Length of each module's samples",
        caption=(
            "Median number of tokens; the bar holds the middle half of the samples. "
            "Modules of very different lengths may follow length rather than meaning."
        ),
        alternative=(
            f"The medians lie between {number(min(medians))} and {number(max(medians))} tokens."
        ),
        basis=basis,
        labels=rows,
        series=(
            dot_series("Tokens", rows, [Interval(row[2], row[1], row[3]) for row in quantiles]),
        ),
        value_axis="Tokens",
        row_modules=tuple(range(len(names))),
    )
