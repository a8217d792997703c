"""Figures of how good the modules are: objective, iterations, and confusion of a classifier."""

from collections.abc import Sequence

import numpy as np

from ulcmod_dist.report.figures.modules import build_hover, share_rows
from ulcmod_dist.report.specs import (
    Dots,
    DotSeries,
    Heatmap,
    Line,
    Lines,
    Scale,
    format_interval,
)
from ulcmod_dist.results.types import Counts, Interval
from ulcmod_dist.runtime.text import label, number, percent


def draw_objective_by_method(
    methods: Sequence[str], values: Sequence[Interval], basis: str
) -> Dots:
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
        + "; ".join(f"{m} {format_interval(v)}" for m, v in zip(methods, values, strict=True))
        + ".",
        basis=basis,
        labels=tuple(methods),
        series=(DotSeries.from_intervals("L", methods, values),),
        value_axis="Objective L",
    )


def draw_iterations(
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


def draw_confusion(
    counts: Counts, categories: Sequence[str], classifier: str, basis: str
) -> Heatmap:
    """Draw a classifier's confusion matrix, coloured by share of the true category.

    Args:
        counts: Scored samples, true by predicted category, shape (C, C).
        categories: Names of the categories.
        classifier: Name of the classifier.
        basis: Seeds behind the scores.
    """
    short = tuple(map(label, categories))
    shares = share_rows(counts)
    right, total = int(np.trace(counts)), int(counts.sum())
    return Heatmap(
        title=f"Confusion of the {classifier}",
        caption="Scored samples by true and predicted category; colour is the share of the row.",
        alternative=f"{right:,} of {total:,} scored samples are put into their own category.",
        basis=basis,
        values=shares,
        row_labels=short,
        column_labels=short,
        row_axis="True category",
        column_axis="Predicted category",
        value_axis="Share of the row",
        hover=build_hover(
            counts.shape,
            lambda row, column: (
                f"True: {short[row]}\nPredicted: {short[column]}\n"
                f"{counts[row, column]:,} samples, {percent(shares[row, column])}"
            ),
        ),
        scale=Scale.SEQUENTIAL,
        cell_texts=tuple(tuple(f"{cell:,}" if cell else "" for cell in row) for row in counts),
    )
