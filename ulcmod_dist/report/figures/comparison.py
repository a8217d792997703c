"""The objective beside other methods and beside chance, and how the search reached it."""

import math
from collections.abc import Sequence

from ulcmod_dist.report.specs import Dots, DotSeries, Line, Lines
from ulcmod_dist.results.types import Interval
from ulcmod_dist.runtime.text import number


def dot_series(name: str, rows: Sequence[str], values: Sequence[Interval]) -> DotSeries:
    """Return one estimate a row as dots; the hover text repeats row, value and interval."""
    return DotSeries(
        name=name,
        values=tuple(value.mean for value in values),
        low=tuple(math.nan if value.low is None else value.low for value in values),
        high=tuple(math.nan if value.high is None else value.high for value in values),
        hover=tuple(
            f"{row}\n{name} {in_words(value)}" for row, value in zip(rows, values, strict=True)
        ),
    )


def in_words(value: Interval) -> str:
    """Return an estimate with its interval."""
    if value.low is None or value.high is None:
        return number(value.mean)
    return f"{number(value.mean)} ({number(value.low)} to {number(value.high)})"


def objective_by_method(methods: Sequence[str], values: Sequence[Interval], basis: str) -> Dots:
    """Draw the objective of several methods, the null model among them.

    Args:
        methods: Names, in the order to draw.
        values: Objective of each method with the interval over its seeds.
        basis: Seeds and restarts behind the values.
    """
    best = max(range(len(values)), key=lambda row: values[row].mean)
    return Dots(
        title="Objective L of each method",
        caption=(
            "All methods split the same activations. Further right is better; bars are 95% "
            "intervals of the mean over seeds. The null model is the search run on data whose "
            "structure was destroyed by permuting each unit over the samples; its bar spans the "
            "permutations."
        ),
        alternative=f"The highest objective is that of {methods[best]}: "
        + "; ".join(f"{m} {in_words(v)}" for m, v in zip(methods, values, strict=True))
        + ".",
        basis=basis,
        labels=tuple(methods),
        series=(dot_series("L", methods, values),),
        value_axis="Objective L",
    )


def objective_by_iteration(
    restarts: Sequence[tuple[int, Sequence[float]]], best: int, basis: str
) -> Lines:
    """Draw the objective over the iterations, a line a restart.

    Args:
        restarts: Number of each restart and its objective at the start and after each iteration.
        best: Index in ``restarts`` of the one whose modules were kept.
        basis: Seeds behind the lines.
    """
    number_kept, kept = restarts[best]
    ends = [objectives[-1] for _, objectives in restarts]
    return Lines(
        title="Objective over the iterations",
        caption="One line a restart; the restart whose modules were kept stands out.",
        alternative=(
            f"Restart {number_kept} was kept. It rose from {number(kept[0])} to "
            f"{number(kept[-1])} in {len(kept) - 1} iterations. "
            f"All restarts ended between {number(min(ends))} and {number(max(ends))}."
        ),
        basis=basis,
        lines=tuple(
            Line(f"Restart {which}", tuple(map(float, range(len(values)))), tuple(values))
            for which, values in restarts
        ),
        highlighted=best,
        x_axis="Iteration",
        y_axis="Objective L",
    )
