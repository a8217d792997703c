"""Figures of how modules relate: their tree, and their flow from one K, or run, to the next."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.cluster.hierarchy import dendrogram as scipy_dendrogram

from ulcmod_dist.report.figures.modules import describe_basis, describe_common_basis, number_names
from ulcmod_dist.report.specs import Branch, Dendrogram, Flow, FlowLink, FlowNode
from ulcmod_dist.results.comparison import Comparison
from ulcmod_dist.results.discovery import Discovery, Overlap
from ulcmod_dist.results.types import Counts, Floats
from ulcmod_dist.runtime.text import MINUS, count, number, percent

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
    levels = [f"K = {size}" for size in sizes]
    links = _build_links(overlaps, levels, "units")
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
        levels=tuple(levels),
        nodes=nodes,
        links=links,
    )


def draw_trajectories(steps: Sequence[Comparison], what: str) -> Flow:
    """Draw how the units or samples (``what``) that successive runs share pass between modules.

    A module has the colour of the one that it descends from, in a merger the largest part's; one
    that descends from none has a colour of its own.
    """
    counts = [getattr(step.matching, f"{what.removesuffix('s')}_counts") for step in steps]
    names = (steps[0].names[0], *(step.names[1] for step in steps))
    return Flow(
        title=f"{what.capitalize()} from run to run",
        caption=(
            f"Each bar is a module; the width of a band is the number of {what} that two modules "
            "share. A colour follows a module and what descends from it. Gone: nothing in the next "
            "run descends from it. Born: it descends from nothing in the run before. Bands below "
            f"{MIN_LINK:.0%} of the smaller module are left out."
        ),
        alternative=" ".join(map(_count_events, steps)) + " The table below names them.",
        levels=names,
        nodes=tuple(_follow_modules(steps, counts)),
        links=_build_links(counts, names, what),
        members=what,
    )


def _follow_modules(steps: Sequence[Comparison], counts: Sequence[Counts]) -> Iterator[FlowNode]:
    colours = len(counts[0])
    groups, born = list(range(colours)), [False] * colours
    for level in range(len(steps) + 1):
        gone = [False] * len(born)
        if level < len(steps):
            gone = [not row.any() for row in steps[level].matching.descent]
        # A module may share more members with the run before than with the next.
        totals = [table.sum(axis=0) for table in counts[max(0, level - 1) : level]]
        totals += [table.sum(axis=1) for table in counts[level : level + 1]]
        for module, size in enumerate(np.max(totals, axis=0)):
            events = ["born"] * born[module] + ["gone"] * gone[module]
            words = f"{module} ({', '.join(events)})" if events else str(module)
            yield FlowNode(level, module, words, float(size), groups[module])
        if level < len(steps):
            descent = steps[level].matching.descent
            born = [not column.any() for column in descent.T]
            parents = np.where(descent, counts[level], -1).argmax(axis=0).tolist()
            fresh = itertools.count(colours)
            groups = [next(fresh) if b else groups[p] for b, p in zip(born, parents, strict=True)]
            colours += sum(born)


def _count_events(step: Comparison) -> str:
    descent = step.matching.descent
    (before, after), (old, new) = step.names, descent.shape
    gone, born = (int((~descent.any(axis=axis)).sum()) for axis in (1, 0))
    return (
        f"Of the {count(old, 'module')} of {before}, {gone} are gone in {after}; of its "
        f"{count(new, 'module')}, {born} are born there."
    )


def _describe_nesting(overlap: Overlap) -> str:
    return (
        f"Of the units of K = {overlap.next_num_modules}, {percent(overlap.nestedness)} lie in "
        f"their module's main parent of K = {overlap.num_modules} "
        f"({percent(overlap.expected)} if the two were independent)."
    )


def _build_links(
    overlaps: Sequence[Counts], levels: Sequence[str], what: str
) -> tuple[FlowLink, ...]:
    links = []
    start = 0
    for level, overlap in enumerate(overlaps):
        rows, columns = overlap.sum(axis=1), overlap.sum(axis=0)
        for row, column in np.argwhere(overlap):
            shared = int(overlap[row, column])
            if shared < MIN_LINK * min(rows[row], columns[column]):
                continue
            hover = (
                f"{shared:,} {what} shared\n"
                f"{percent(shared / rows[row])} of module {row} of {levels[level]}\n"
                f"{percent(shared / columns[column])} of module {column} of {levels[level + 1]}"
            )
            source, target = int(start + row), int(start + len(rows) + column)
            links.append(FlowLink(source, target, float(shared), hover))
        start += len(rows)
    return tuple(links)


def _describe_step(overlap: Counts, size: int, next_size: int) -> str:
    columns = np.maximum(1, overlap.sum(axis=0))
    within = float(np.mean(overlap.max(axis=0) / columns))
    return (
        f"A module of K = {next_size} takes on average {percent(within)} of its units "
        f"from one module of K = {size}."
    )
