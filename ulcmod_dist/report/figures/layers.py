"""Where in the model the modules' units are."""

from collections.abc import Sequence

import numpy as np

from ulcmod_dist.report.figures.categories import shares
from ulcmod_dist.report.figures.naming import short_names
from ulcmod_dist.report.specs import Heatmap, Scale
from ulcmod_dist.results.types import Counts, Floats
from ulcmod_dist.runtime.text import label, number, percent


def layer_shares(units: Counts) -> Floats:
    """Return the share of each layer's units that belongs to each module, shape (K, layers)."""
    return shares(units.T).T


def mean_layers(units: Counts) -> Floats:
    """Return the mean layer index of each module's units, each layer weighing the same.

    Layers may differ in size, so the mean is weighted by the module's share of each layer;
    NaN for a module without units.
    """
    portions = layer_shares(units)
    totals = portions.sum(axis=1)
    positions = portions @ np.arange(units.shape[1])
    return np.asarray(
        np.divide(positions, totals, out=np.full(len(units), np.nan), where=totals > 0),
        dtype=np.float64,
    )


def modules_by_layer(
    units: Counts, layers: Sequence[str], names: Sequence[str], basis: str
) -> Heatmap:
    """Draw how the units of each layer divide over the modules, shallow modules first.

    Args:
        units: Units, module by layer, shape (K, layers).
        layers: Names of the layers from input to output.
        names: The modules' names.
        basis: Seeds and restarts behind the modules.
    """
    depth = mean_layers(units)
    order = np.argsort(depth, kind="stable")
    portions = layer_shares(units)[order]
    labels = short_names(names)
    short_layers = tuple(label(layer, 12) for layer in layers)
    hover = tuple(
        tuple(
            f"Module {module} ({names[module]})\nLayer {layer}\n{units[module, column]:,} units, "
            f"{percent(portions[row, column])} of the layer"
            for column, layer in enumerate(short_layers)
        )
        for row, module in enumerate(order)
    )
    return Heatmap(
        title="Modules over the layers",
        caption=(
            "The colour and the number are the share of a layer's units that belongs to the "
            "module; the diamond marks the module's mean layer. Modules are sorted by it, those "
            "nearest the input first. A row of one colour is a module spread like the model."
        ),
        alternative=" ".join(
            f"Module {module} has its mean at layer {number(depth[module], 2)}." for module in order
        ),
        basis=basis,
        values=portions,
        row_labels=tuple(labels[module] for module in order),
        column_labels=short_layers,
        row_axis="Module",
        column_axis="Layer",
        value_axis="Share of the layer",
        hover=hover,
        scale=Scale.SEQUENTIAL,
        cell_texts=tuple(tuple(percent(share) for share in row) for row in portions),
        marks=tuple(float(depth[module]) for module in order),
        row_modules=tuple(int(module) for module in order),
    )
