"""Figures of how modules relate: their tree, and the flow from one K to the next."""

from collections.abc import Sequence

import numpy as np
from scipy.cluster.hierarchy import dendrogram as scipy_dendrogram

from ulcmod_dist.report.figures.modules import describe_basis, describe_common_basis, number_names
from ulcmod_dist.report.specs import Branch, Dendrogram, Flow, FlowLink, FlowNode
from ulcmod_dist.results.discovery import Discovery, Overlap
from ulcmod_dist.results.types import Counts, Floats
from ulcmod_dist.runtime.text import MINUS, number, percent

MIN_LINK = 0.05
"""Share of the smaller module below which the flow leaves a link out."""


def draw_tree(found: Discovery, linkage: Floats) -> Dendrogram:
    """Draw the hierarchy of the modules from SciPy's linkage matrix, shape (K - 1, 4)."""
    layout = scipy_dendrogram(linkage, no_plot=True)
    labels = number_names(found.names)
    # SciPy puts leaf i at 5 + 10 i.
    branches = tuple(
        Branch(
            distances=tuple(map(float, distances)),
            rows=tuple((float(row) - 5.0) / 10.0 for row in rows),
            hover=f"Joined at distance {number(max(distances))}, correlation "
            f"{number(1 - max(distances))}",
        )
        for distances, rows in zip(layout["dcoord"], layout["icoord"], strict=True)
    )
    nearest = linkage[0]
    return Dendrogram(
        title="Hierarchy of the modules",
        caption=(
            "Modules that join further left respond more alike to the samples: the distance is "
            f"1 {MINUS} r, r being the correlation of their mean activations over the samples "
            "(averaged over pairs). From the dashed line on they are unrelated or opposed."
        ),
        alternative=(
            f"Modules {int(nearest[0])} and {int(nearest[1])} are the most alike: "
            f"they join first, at distance {number(nearest[2])}; "
            f"the last two branches join at {number(linkage[-1, 2])}."
        ),
        basis=describe_basis(found),
        labels=tuple(labels[leaf] for leaf in layout["leaves"]),
        branches=branches,
        value_axis=f"Distance 1 {MINUS} r of the modules' activations",
        mark=(1.0, "unrelated (r = 0)"),
    )


def draw_flow(found: Sequence[Overlap], discoveries: Sequence[Discovery]) -> Flow:
    """Draw how the units of the modules of one K pass to those of the next, K ascending."""
    overlaps = [overlap.units for overlap in found]
    sizes = [found[0].num_modules, *(overlap.next_num_modules for overlap in found)]
    totals = [overlaps[0].sum(axis=1), *(overlap.sum(axis=0) for overlap in overlaps)]
    groups = [np.arange(sizes[0], dtype=np.int64)]
    for overlap in overlaps:
        groups.append(groups[-1][overlap.argmax(axis=0)])
    nodes = tuple(
        FlowNode(level, index, text, float(totals[level][index]), int(groups[level][index]))
        for level in range(len(sizes))
        for index, text in enumerate(number_names(discoveries[level].names))
    )
    starts = np.concatenate([[0], np.cumsum(sizes)])
    links = tuple(
        link
        for level, overlap in enumerate(overlaps)
        for link in _build_links(overlap, sizes[level : level + 2], starts[level : level + 2])
    )
    kept = sum(link.size for link in links) / max(1.0, float(sum(o.sum() for o in overlaps)))
    return Flow(
        title=f"From {sizes[0]} to {sizes[-1]} modules",
        caption=(
            "The width of a band is the number of units that two modules share; colours follow "
            f"the modules of K = {sizes[0]}. Bands below {MIN_LINK:.0%} of the smaller module "
            "are left out. " + " ".join(map(_describe_nesting, found))
        ),
        alternative=" ".join(
            _describe_step(overlap, sizes[level], sizes[level + 1])
            for level, overlap in enumerate(overlaps)
        )
        + f" The bands drawn carry {percent(kept)} of the units.",
        basis=describe_common_basis(discoveries),
        levels=tuple(f"K = {size}" for size in sizes),
        nodes=nodes,
        links=links,
    )


def _describe_nesting(overlap: Overlap) -> str:
    return (
        f"Of the units of K = {overlap.next_num_modules}, {percent(overlap.nestedness)} lie in "
        f"their module's main parent of K = {overlap.num_modules} "
        f"({percent(overlap.expected)} if the two were independent)."
    )


def _build_links(overlap: Counts, sizes: Sequence[int], starts: Counts) -> list[FlowLink]:
    rows, columns = overlap.sum(axis=1), overlap.sum(axis=0)
    links = []
    for row, column in zip(*np.nonzero(overlap), strict=True):
        shared = int(overlap[row, column])
        if shared < MIN_LINK * min(rows[row], columns[column]):
            continue
        hover = (
            f"{shared:,} units shared\n"
            f"{percent(shared / rows[row])} of module {row} of K = {sizes[0]}\n"
            f"{percent(shared / columns[column])} of module {column} of K = {sizes[1]}"
        )
        source, target = int(starts[0] + row), int(starts[1] + column)
        links.append(FlowLink(source, target, float(shared), hover))
    return links


def _describe_step(overlap: Counts, size: int, next_size: int) -> str:
    columns = np.maximum(1, overlap.sum(axis=0))
    within = float(np.mean(overlap.max(axis=0) / columns))
    return (
        f"A module of K = {next_size} takes on average {percent(within)} of its units "
        f"from one module of K = {size}."
    )
