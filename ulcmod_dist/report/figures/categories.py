"""Modules against the corpus's categories."""

from collections.abc import Sequence

import numpy as np

from ulcmod_dist.report.figures.naming import short_names
from ulcmod_dist.report.specs import Heatmap, Scale, StackedBars
from ulcmod_dist.results.types import Counts, Floats
from ulcmod_dist.runtime.text import LABEL_LIMIT, MINUS, label, number, percent

MAX_PARTS = 8
"""Categories that get a colour of their own; the smaller ones are gathered in one part."""


def shares(counts: Counts | Floats) -> Floats:
    """Return each row divided by its sum; empty rows stay zero."""
    totals = counts.sum(axis=1, keepdims=True)
    return np.asarray(
        np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0), dtype=np.float64
    )


def category_mix(
    counts: Counts, categories: Sequence[str], names: Sequence[str], basis: str
) -> StackedBars:
    """Draw which categories the samples of each module come from.

    Args:
        counts: Samples, module by category, shape (K, C).
        categories: Names of the categories.
        names: The modules' names.
        basis: Seeds and restarts behind the modules.
    """
    pooled, parts = _gather_small(counts, [label(name) for name in categories])
    portions = shares(pooled)
    hover = tuple(
        tuple(
            f"Module {row} ({names[row]})\n{part}: {pooled[row, column]:,} samples, "
            f"{percent(portions[row, column])}"
            for column, part in enumerate(parts)
        )
        for row in range(len(pooled))
    )
    gathered = (
        "" if len(parts) == len(categories) else f" The smallest are gathered as {parts[-1]}."
    )
    return StackedBars(
        title="Categories of each module's samples",
        caption=(
            "One bar a module. A bar of one colour is a module that serves one category." + gathered
        ),
        alternative=" ".join(
            f"Module {row}: {percent(portions[row].max())} {parts[int(portions[row].argmax())]}."
            for row in range(len(portions))
        ),
        basis=basis,
        labels=short_names(names),
        parts=tuple(parts),
        shares=portions,
        hover=hover,
        value_axis="Share of the module's samples",
        row_modules=tuple(range(len(names))),
    )


def _gather_small(counts: Counts, categories: list[str]) -> tuple[Counts, list[str]]:
    if len(categories) <= MAX_PARTS:
        return counts, categories
    order = np.argsort(-counts.sum(axis=0), kind="stable").tolist()
    large, small = sorted(order[: MAX_PARTS - 1]), order[MAX_PARTS - 1 :]
    gathered = np.column_stack([counts[:, large], counts[:, small].sum(axis=1)])
    return gathered, [categories[c] for c in large] + [f"{len(small)} others"]


def category_similarity(similarity: Floats, categories: Sequence[str], basis: str) -> Heatmap:
    """Draw how alike categories look to the modules.

    Args:
        similarity: Mean cosine of module-feature vectors, category by category, shape (C, C).
        categories: Names of the categories.
        basis: Seeds and restarts behind the modules.
    """
    short = tuple(label(name, LABEL_LIMIT) for name in categories)
    hover = tuple(
        tuple(f"{a}\n{b}\nMean cosine {number(similarity[i, j])}" for j, b in enumerate(short))
        for i, a in enumerate(short)
    )
    return Heatmap(
        title="Similarity of the categories",
        caption=(
            "Mean cosine between the module activations of samples of two categories. "
            "Strong cells off the diagonal are categories that use the same modules."
        ),
        alternative=_closest_pair(similarity, short),
        basis=basis,
        values=similarity,
        row_labels=short,
        column_labels=short,
        row_axis="",
        column_axis="",
        value_axis="Mean cosine",
        hover=hover,
        scale=Scale.DIVERGING,
        cell_texts=tuple(
            tuple(f"{value:z.2f}".replace("-", MINUS) for value in row) for row in similarity
        ),
    )


def _closest_pair(similarity: Floats, categories: Sequence[str]) -> str:
    if len(categories) < 2:
        return "There is one category only."
    apart = np.where(
        np.eye(len(similarity), dtype=bool), -np.inf, np.nan_to_num(similarity, nan=-np.inf)
    )
    row, column = map(int, np.unravel_index(int(np.argmax(apart)), apart.shape))
    own = np.diag(similarity)
    return (
        f"Within a category the mean cosine is {number(own.mean())}. The most similar categories "
        f"are {categories[row]} and {categories[column]} ({number(similarity[row, column])})."
    )


def confusion(counts: Counts, categories: Sequence[str], classifier: str, basis: str) -> Heatmap:
    """Draw a classifier's confusion matrix, coloured by share of the true category.

    Args:
        counts: Scored samples, true by predicted category, shape (C, C).
        categories: Names of the categories.
        classifier: Name of the classifier.
        basis: Seeds behind the scores.
    """
    short = tuple(label(name) for name in categories)
    portions = shares(counts)
    hover = tuple(
        tuple(
            f"True: {a}\nPredicted: {b}\n{counts[i, j]:,} samples, {percent(portions[i, j])}"
            for j, b in enumerate(short)
        )
        for i, a in enumerate(short)
    )
    right, total = int(np.trace(counts)), int(counts.sum())
    return Heatmap(
        title=f"Confusion of the {classifier}",
        caption="Scored samples by true and predicted category; colour is the share of the row.",
        alternative=f"{right:,} of {total:,} scored samples are put into their own category.",
        basis=basis,
        values=portions,
        row_labels=short,
        column_labels=short,
        row_axis="True category",
        column_axis="Predicted category",
        value_axis="Share of the row",
        hover=hover,
        scale=Scale.SEQUENTIAL,
        cell_texts=tuple(tuple(f"{cell:,}" if cell else "" for cell in row) for row in counts),
    )
