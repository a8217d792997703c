"""Figures of how good the modules are: methods compared, and confusion of a classifier."""

from collections.abc import Sequence

import numpy as np

from ulcmod_dist.report.figures.modules import describe_basis
from ulcmod_dist.report.specs import Dots, DotSeries, Heatmap, Scale, format_interval
from ulcmod_dist.results.discovery import Discovery, Downstream
from ulcmod_dist.results.types import Repeats, share_rows
from ulcmod_dist.runtime.text import label, percent


def draw_by_method(
    measure: str, methods: Sequence[str], values: Sequence[Repeats], basis: str
) -> Dots:
    """Draw one measure of several methods, random groups and the null model among them."""
    best = max(range(len(values)), key=lambda row: values[row].mean)
    return Dots(
        title=f"{measure} of each method",
        caption=(
            "Large dot: mean. Small dots: the seeds (of random groups of units the draws, of the "
            "null model the permutations)."
        ),
        alternative=f"The highest is that of {methods[best]}: "
        + "; ".join(f"{m} {format_interval(v)}" for m, v in zip(methods, values, strict=True))
        + ".",
        basis=basis,
        labels=tuple(methods),
        series=(DotSeries(measure, tuple(values)),),
        value_axis=measure,
    )


def draw_confusion(found: Discovery, downstream: Downstream) -> Heatmap:
    """Draw the main classifier's confusion matrix, coloured by share of the true category."""
    classifier = downstream.classifiers[0]
    counts = classifier.confusion
    short = tuple(map(label, downstream.categories))
    shares = share_rows(counts)
    right, total = int(np.trace(counts)), int(counts.sum())
    return Heatmap(
        title=f"Confusion of the {classifier.name}",
        caption="Scored samples by true and predicted category; colour is the share of the row.",
        alternative=f"{right:,} of {total:,} scored samples are put into their own category.",
        basis=describe_basis(found),
        values=shares,
        row_labels=short,
        column_labels=short,
        row_axis="True category",
        column_axis="Predicted category",
        value_axis="Share of the row",
        hover=lambda row, column: (
            f"True: {short[row]}\nPredicted: {short[column]}\n"
            f"{counts[row, column]:,} samples, {percent(shares[row, column])}"
        ),
        scale=Scale.SEQUENTIAL,
        cell_texts=tuple(tuple(f"{cell:,}" if cell else "" for cell in row) for row in counts),
    )
