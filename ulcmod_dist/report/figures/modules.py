"""Figures of the modules: activation, categories, layers and length."""

from collections.abc import Sequence

import numpy as np

from ulcmod_dist.report.specs import Dots, DotSeries, Heatmap, Scale, StackedBars
from ulcmod_dist.results.discovery import Categories, Discovery, Layers
from ulcmod_dist.results.types import Counts, Floats, Interval, divide, share_rows
from ulcmod_dist.runtime.text import MINUS, label, number, percent

NAME_LIMIT = 60
"""Characters of the name of a module in a figure."""

MAX_PARTS = 8
"""Categories that get a colour of their own; the smaller ones are gathered in one part."""


def number_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return "number name" for modules 0, 1, ...; whoever draws them cuts what does not fit."""
    return tuple(label(f"{number} {name}", NAME_LIMIT) for number, name in enumerate(names))


def format_cells(values: Floats) -> tuple[tuple[str, ...], ...]:
    """Return the values with two decimals; nothing where there is no value."""
    return tuple(
        tuple("" if np.isnan(v) else f"{v:z.2f}".replace("-", MINUS) for v in row) for row in values
    )


def find_largest_off_diagonal(values: Floats) -> tuple[int, int]:
    """Return row and column of the largest value off the diagonal; NaN never is."""
    outside = np.eye(len(values), dtype=bool) | np.isnan(values)
    apart = np.where(outside, -np.inf, values)
    row, column = np.unravel_index(int(np.argmax(apart)), apart.shape)
    return int(row), int(column)


def describe_basis(found: Discovery) -> str:
    """Return the K, seed and restarts behind a figure."""
    return f"K = {found.num_modules}, {_describe_search(found)}."


def describe_common_basis(discoveries: Sequence[Discovery]) -> str:
    """Return every K, with seed and restarts, behind a figure of several K."""
    searches = {_describe_search(found) for found in discoveries}
    if len(searches) > 1:
        return " ".join(map(describe_basis, discoveries))
    *first, last = [str(found.num_modules) for found in discoveries]
    listed = f"{', '.join(first)} and {last}" if first else last
    return f"K = {listed}, {searches.pop()} each."


def _describe_search(found: Discovery) -> str:
    restarts = len(found.restarts)
    search = f"best of {restarts} restarts" if restarts > 1 else "a single run of the search"
    return f"seed {found.seed}, {search}"


def draw_activation(found: Discovery) -> Heatmap:
    """Draw the mean z of each module's samples on each module's units (DESIGN equation xi)."""
    means, names = found.activation, found.names
    return Heatmap(
        title="Mean activation of each module's units",
        caption=(
            "Each row is the samples of one module, each column the units of one module. "
            "The colour is the mean z: how far above its own mean a unit is, in its deviations. "
            "Decoupled modules show a strong diagonal and little elsewhere."
        ),
        alternative=_describe_activation(means),
        basis=describe_basis(found),
        values=means,
        row_labels=number_names(names),
        column_labels=tuple(map(str, range(found.num_modules))),
        row_axis="Samples of module",
        column_axis="Units of module",
        value_axis="Mean z",
        hover=lambda row, column: (
            f"Samples of module {row} ({names[row]})\n"
            f"Units of module {column} ({names[column]})\n"
            f"Mean activation {number(means[row, column])}"
        ),
        scale=Scale.DIVERGING,
        cell_texts=format_cells(means),
        row_modules=tuple(range(found.num_modules)),
    )


def _describe_activation(means: Floats) -> str:
    own = np.diag(means)
    if len(means) == 1:
        return f"One module with a mean activation of {number(own[0])}."
    row, column = find_largest_off_diagonal(means)
    mean_apart = (means.sum() - own.sum()) / (means.size - len(means))
    return (
        f"On their own samples the modules' units average {number(own.mean())} "
        f"(from {number(own.min())} to {number(own.max())}), elsewhere {number(mean_apart)}. "
        f"The strongest cell off the diagonal is samples of module {row} on units of module "
        f"{column}: {number(means[row, column])}."
    )


def draw_category_mix(found: Discovery, categories: Categories) -> StackedBars:
    """Draw which categories the samples of each module come from."""
    names = found.names
    pooled, parts = _gather_small(categories)
    shares = share_rows(pooled)
    gathered = (
        "" if len(parts) == len(categories.names) else f" The smallest are gathered as {parts[-1]}."
    )
    return StackedBars(
        title="Categories of each module's samples",
        caption=(
            "One bar a module. A bar of one colour is a module that serves one category." + gathered
        ),
        alternative=" ".join(
            f"Module {row}: {percent(shares[row].max())} {parts[int(shares[row].argmax())]}."
            for row in range(len(shares))
        ),
        basis=describe_basis(found),
        labels=number_names(names),
        parts=tuple(parts),
        shares=shares,
        hover=lambda row, column: (
            f"Module {row} ({names[row]})\n{parts[column]}: {pooled[row, column]:,} samples, "
            f"{percent(shares[row, column])}"
        ),
        value_axis="Share of the module's samples",
        row_modules=tuple(range(found.num_modules)),
    )


def _gather_small(categories: Categories) -> tuple[Counts, list[str]]:
    counts, names = categories.counts, [label(name) for name in categories.names]
    if len(names) <= MAX_PARTS:
        return counts, names
    order = np.argsort(-counts.sum(axis=0), kind="stable").tolist()
    large, small = sorted(order[: MAX_PARTS - 1]), order[MAX_PARTS - 1 :]
    rest = counts[:, small].sum(axis=1) + np.array(categories.others or 0, np.int64)
    others = f"{len(small) + categories.num_others:,} others"
    return np.column_stack([counts[:, large], rest]), [*(names[c] for c in large), others]


def draw_category_similarity(found: Discovery, categories: Categories) -> Heatmap:
    """Draw how alike categories look to the modules."""
    similarity = categories.similarity
    short = tuple(label(categories.names[position]) for position in categories.compared)
    total = len(categories.names) + categories.num_others
    shown = (
        f" The {len(short)} most frequent of {total:,} categories are compared."
        if len(short) < total
        else ""
    )
    return Heatmap(
        title="Similarity of the categories",
        caption=(
            "Mean cosine between the module activations of samples of two categories. "
            "Strong cells off the diagonal are categories that use the same modules." + shown
        ),
        alternative=_describe_similarity(similarity, short),
        basis=describe_basis(found),
        values=similarity,
        row_labels=short,
        column_labels=short,
        value_axis="Mean cosine",
        hover=lambda row, column: (
            f"{short[row]}\n{short[column]}\nMean cosine {number(similarity[row, column])}"
        ),
        scale=Scale.DIVERGING,
        cell_texts=format_cells(similarity),
    )


def _describe_similarity(similarity: Floats, categories: Sequence[str]) -> str:
    if len(categories) < 2:
        return "There is one category only."
    row, column = find_largest_off_diagonal(similarity)
    # A category with a single sample has no two to compare.
    within = np.diag(similarity)[~np.isnan(np.diag(similarity))]
    said = f"Within a category the mean cosine is {number(within.mean())}. " if within.size else ""
    return (
        f"{said}The most similar categories are {categories[row]} and {categories[column]} "
        f"({number(similarity[row, column])})."
    )


def compute_layer_shares(units: Counts) -> Floats:
    """Return the share of each layer's units that belongs to each module, shape (K, layers)."""
    return share_rows(units.T).T


def compute_mean_layers(units: Counts) -> Floats:
    """Return the mean layer index of each module's units, each layer weighing the same.

    Layers may differ in size, so the mean is weighted by the module's share of each layer;
    NaN for a module without units.
    """
    shares = compute_layer_shares(units)
    return divide(shares @ np.arange(units.shape[1]), shares.sum(axis=1))


def draw_layers(found: Discovery, layers: Layers) -> Heatmap:
    """Draw how the units of each layer divide over the modules, shallow modules first."""
    units, names = layers.units, found.names
    depth = compute_mean_layers(units)
    order = [int(module) for module in np.argsort(depth, kind="stable")]
    shares = compute_layer_shares(units)[order]
    labels = number_names(names)
    short_layers = tuple(label(layer, 12) for layer in layers.names)
    return Heatmap(
        title="Modules over the layers",
        caption=(
            "The colour is the share of a layer's units that belongs to the "
            "module; the diamond marks the module's mean layer. Modules are sorted by it, those "
            "nearest the input first. A row of one colour is a module spread like the model."
        ),
        alternative=" ".join(
            f"Module {module} has its mean at layer {number(depth[module], 2)}." for module in order
        ),
        basis=describe_basis(found),
        values=shares,
        row_labels=tuple(labels[module] for module in order),
        column_labels=short_layers,
        row_axis="Module",
        column_axis="Layer",
        value_axis="Share of the layer",
        hover=lambda row, column: (
            f"Module {order[row]} ({names[order[row]]})\nLayer {short_layers[column]}\n"
            f"{units[order[row], column]:,} units, {percent(shares[row, column])} of the layer"
        ),
        scale=Scale.SEQUENTIAL,
        cell_texts=tuple(tuple(percent(share) for share in row) for row in shares),
        marks=tuple(float(depth[module]) for module in order),
        row_modules=tuple(order),
    )


def draw_length(
    found: Discovery, quantiles: Sequence[tuple[float, float, float, float, float]]
) -> Dots:
    """Draw the median and the middle half of the token counts of each module's samples."""
    rows = number_names(found.names)
    medians = [row[2] for row in quantiles]
    halves = [Interval(row[2], row[1], row[3]) for row in quantiles]
    return Dots(
        title="Length of each module's samples",
        caption=(
            "Median number of tokens; the bar holds the middle half of the samples. "
            "Modules of very different lengths may follow length rather than content."
        ),
        alternative=(
            f"The medians lie between {number(min(medians))} and {number(max(medians))} tokens."
        ),
        basis=describe_basis(found),
        labels=rows,
        series=(DotSeries("Tokens", tuple(halves)),),
        value_axis="Tokens",
        row_modules=tuple(range(found.num_modules)),
    )
